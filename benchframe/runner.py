"""Runners: a strategy on a machine's memory, compiled or in the interpreter.

:class:`NativeRunner` calls compiled units. Units per strategy: ``hooks`` (what the mapping operations call), ``replay``
(the timed loop, hot hooks inlined) and ``checked`` (the same with counting, answers and samples). Shared by all:
``known`` (the replay without lookups), and by all with the same allocator ``mapping`` (every mapping operation).

In :class:`InterpretedRunner`, Python runs the same text. It is some hundred times slower. In return, an index outside
its slab raises an IndexError instead of damaging memory, and the world behind the proxies can count or schedule every
access (:mod:`benchframe.dialect.interpreter`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchframe.dialect.functions import Binding, resolve
from benchframe.dialect.interpreter import PlainWorld, dejit
from benchframe.dialect.store import Store, Unit
from benchframe.mm.defaults import DEFAULTS, count_event
from benchframe.mm.hooks import ALL, BY_NAME, hook_entry, hook_mask
from benchframe.mm.kmem import one_thread
from benchframe.mm.layout import MM, mm_struct
from benchframe.mm.machine import Machine
from benchframe.mm.replay import KNOWN, mapping_event, replay_checked, replay_entry, replay_timed
from benchframe.mm.validate import Validating
from benchframe.strategy import Strategy
from benchframe.units import Units, UnitSpec

Note = Callable[[str], None]
KNOWN_REPLAY = UnitSpec("known", replay_timed, {**DEFAULTS, **KNOWN})


def allocating(strategy: Strategy) -> Binding:
    """The hooks of the strategy's allocator; none if it names none."""
    return {} if strategy.allocator is None else strategy.allocator.binding


def mapping(strategy: Strategy) -> UnitSpec:
    """The unit that strategies with the same allocator share."""
    name = "mapping" if strategy.allocator is None else f"mapping-{strategy.name}"
    return UnitSpec(name, mapping_event, None, one_thread(allocating(strategy)))


def specs(strategy: Strategy) -> list[UnitSpec]:
    """The units that only ``strategy`` needs."""
    binding, replace = dict(strategy.binding), one_thread(allocating(strategy))
    return [
        UnitSpec(f"hooks-{strategy.name}", hook_entry, binding, replace),
        UnitSpec(f"replay-{strategy.name}", replay_timed, binding, replace),
        UnitSpec(f"checked-{strategy.name}", replay_entry, {**binding, "count": count_event}, replace),
    ]


def unit_store(store: Store | None = None) -> Units:
    """The loader of units for this model."""
    return Units(mm_struct, ALL, store)


class NativeRunner(Validating):
    """Runs ``strategy``'s compiled code. A unit is loaded, or compiled, when it is first needed; ``note`` is told the
    names of those that are compiled. Raises DialectError, then, for what cannot be compiled."""

    def __init__(self, strategy: Strategy, units: Units | None = None, note: Note | None = None) -> None:
        self.strategy = strategy
        self.units = units or unit_store()
        self.allocator = allocating(strategy)
        hooks, timed, checked = specs(strategy)
        self._specs = {"hooks": hooks, "timed": timed, "checked": checked, "known": KNOWN_REPLAY}
        self._specs["mapping"] = mapping(strategy)
        self._got: dict[str, Unit] = {}
        self._note = note
        self._root = 0

    def _unit(self, which: str) -> Unit:
        if which not in self._got:
            self._got[which] = self.units.get(self._specs[which], self._note)
        return self._got[which]

    def load(self) -> None:
        """Load every unit now, so that no replay that is timed waits for one."""
        for which in self._specs:
            self._unit(which)

    def attach(self, machine: Machine) -> None:
        """Write the entry points into the machine's first mm."""
        mm = machine.mm(0)
        mm["hook_entry"] = self._unit("hooks").address
        mm["mapping_entry"] = self._unit("mapping").address
        mm["hook_mask"] = hook_mask(self.strategy.binding)
        self._root = machine.root

    def replay(self, first: int, last: int) -> None:
        """Events [first, last), with answers and counts."""
        self._unit("checked")(self._root, first, last, 0)

    def sample(self, first: int, last: int) -> None:
        """Events [first, last), with the cycles of each."""
        self._unit("checked")(self._root, first, last, 1)

    def timed(self, first: int, last: int) -> int:
        """Events [first, last), with the cycles of each class; returns the number of clock readings."""
        return self._unit("timed")(self._root, first, last)

    def known(self, first: int, last: int) -> int:
        """As :meth:`timed`, with known answers (mm.replay_cursor must be 0)."""
        return self._unit("known")(self._root, first, last)

    def hook(self, name: str, *arguments: int, mm: int | None = None) -> int:
        """Call a hook of the strategy directly (tests, validate_mm); ``mm`` is the address of an mm_struct."""
        number = next(i for i, h in enumerate(ALL) if h.name == name)
        filled = [*arguments, 0, 0, 0, 0][:4]
        return self._unit("hooks")(mm or self._root, number, *filled)

    def ask(self, name: str, number: int, *arguments: int) -> int:
        """As :meth:`hook`, in trace mm ``number``."""
        return self.hook(name, *arguments, mm=self._root + number * mm_struct.size)

    def address(self, which: str) -> int:
        """The C address of a unit: ``timed`` or ``known``."""
        return self._unit(which).address

    @property
    def entry(self) -> Unit:
        """The timed unit, for benchmarks that call it directly."""
        return self._unit("timed")


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
