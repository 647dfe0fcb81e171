"""Interpreted runner: Python runs a strategy's text on the same memory as the compiled code.

It is some hundred times slower than native code. In return, an index outside its slab raises an IndexError instead of
damaging memory, and the world behind the proxies can count or schedule every access
(:mod:`benchframe.dialect.interpreter`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchframe.dialect.functions import resolve
from benchframe.dialect.interpreter import PlainWorld, dejit
from benchframe.mm.defaults import count_event
from benchframe.mm.hooks import BY_NAME
from benchframe.mm.kmem import one_thread
from benchframe.mm.layout import MM
from benchframe.mm.machine import Machine
from benchframe.mm.replay import replay_checked
from benchframe.mm.validate import Validating
from benchframe.strategy import Strategy


class InterpretedRunner(Validating):
    """Runs ``strategy`` (resolved) in the interpreter; a :class:`~benchframe.mm.machine.Runner`.

    ``counting``: the replay counts lookups, hits and so on, as the native engine's checked replay does. ``replace``
    substitutes other functions for native ones (``dejit``). ``allocating``: objects come from the strategy's allocator;
    otherwise from the model's stacks of free slots, whatever it names. Raises DialectError if a mandatory hook is
    missing.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        counting: bool = True,
        replace: Mapping[Any, Callable[..., Any]] | None = None,
        allocating: bool = False,
    ) -> None:
        self.strategy = strategy
        if allocating and strategy.allocator is not None:
            self.allocator = strategy.allocator.binding
            replace = {**(one_thread(self.allocator) or {}), **(replace or {})}
        self._replace = replace
        self.world: PlainWorld | None = None
        # As in native code, the replay counts; the mapping operations and what they call through hooks do not.
        own = {**strategy.binding, "count": count_event} if counting else strategy.binding
        self._replay = dejit(replay_checked, own, strategy.binding, replace)
        self._hooks: dict[str, Callable[..., Any]] = {}

    def attach(self, machine: Machine) -> None:
        """Create the world over the machine's arrays. Raises DialectError for arrays with another layout."""
        self.world = PlainWorld(machine.arrays)

    def _mm(self, number: int) -> Any:
        if self.world is None:
            raise RuntimeError("this runner is not attached to a machine yet")
        return self.world.ref(MM, number + 1)

    def replay(self, first: int, last: int) -> None:
        """Replay events [first, last) with answers and counts. Raises IndexError if the code leaves a slab."""
        self._replay(self._mm(0), first, last)

    def hook(self, name: str, *arguments: int, mm: int = 0) -> int:
        """Call a hook of the strategy directly, in trace mm number ``mm``. Raises KeyError if no hook has this name."""
        if name not in self._hooks:
            function = resolve(BY_NAME[name], self.strategy.binding)
            assert function is not None  # resolve() returns None only when unbound
            self._hooks[name] = dejit(function, self.strategy.binding, None, self._replace)
        return int(self._hooks[name](self._mm(mm), *arguments))

    def ask(self, name: str, number: int, *arguments: int) -> int:
        """As :meth:`hook`."""
        return self.hook(name, *arguments, mm=number)
