"""Interpreted runner: a strategy's text run by Python on the same memory as the compiled code.

Some hundred times slower than native, but an index outside its slab is an IndexError here instead of damage, and the
world behind the proxies may count or schedule what it sees (:mod:`benchframe.dialect.interp`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchframe.dialect.function import resolve
from benchframe.dialect.interp import PlainWorld, dejit
from benchframe.mm.defaults import count_event
from benchframe.mm.hooks import BY_NAME
from benchframe.mm.layout import MM
from benchframe.mm.machine import Machine
from benchframe.mm.replay import replay_checked
from benchframe.mm.validate import validate_mm
from benchframe.strategy import Strategy


class InterpretedRunner:
    """Runs ``strategy`` (resolved) by the interpreter; a :class:`~benchframe.mm.machine.Runner`.

    ``make_world`` makes the world from the machine's arrays. Raises DialectError for a mandatory hook that is unfilled.
    """

    def __init__(self, strategy: Strategy, make_world: Callable[[Any], PlainWorld] = PlainWorld) -> None:
        self.strategy = strategy
        self.world: PlainWorld | None = None
        self._make_world = make_world
        # As natively: the replay counts, the mapping operations and what they call through hooks do not.
        self._replay = dejit(replay_checked, {**strategy.binding, "count": count_event}, strategy.binding)
        self._hooks: dict[str, Callable[..., Any]] = {}

    def attach(self, machine: Machine) -> None:
        """Make the world over the machine's arrays. Raises DialectError for arrays of another layout."""
        self.world = self._make_world(machine.arrays)

    def _mm(self, number: int) -> Any:
        if self.world is None:
            raise RuntimeError("this runner is not attached to a machine yet")
        return self.world.ref(MM, number + 1)

    def replay(self, first: int, last: int) -> None:
        """Events [first, last), with answers and counts. Raises IndexError where the code leaves a slab."""
        self._replay(self._mm(0), first, last)

    def hook(self, name: str, *arguments: int, mm: int = 0) -> int:
        """Call a hook of the strategy directly, in trace mm number ``mm``. KeyError for a name that is no hook."""
        if name not in self._hooks:
            function = resolve(BY_NAME[name], self.strategy.binding)
            assert function is not None  # only an unbound resolve() gives None
            self._hooks[name] = dejit(function, self.strategy.binding)
        return int(self._hooks[name](self._mm(mm), *arguments))

    def validate(self, machine: Machine) -> None:
        """validate_mm with the strategy's index asked too. Raises ValidationError."""
        validate_mm(
            machine,
            lambda number, addr: self.hook("index_find", addr, mm=number),
            lambda number: self.hook("index_check", mm=number),
            self.strategy.check_messages,
        )
