"""A strategy loaded and ready to be called: compiled, or interpreted from the same text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchframe.dialect.functions import resolve
from benchframe.dialect.interpreter import PlainWorld, dejit
from benchframe.dialect.store import Store, Unit
from benchframe.dialect.units import Units, UnitSpec
from benchframe.mm.defaults import DEFAULTS, count_event
from benchframe.mm.hooks import ALL, BY_NAME, hook_entry
from benchframe.mm.layout import MM, mm_struct
from benchframe.mm.machine import Machine
from benchframe.mm.replay import KNOWN, mapping_event, replay_checked, replay_entry, replay_timed
from benchframe.mm.validate import validate_mm
from benchframe.strategy import Strategy

# ----------------------------------------------------------------------------------------------------------------------
# Native runner: a strategy's compiled units on a machine's memory.
#
# Units per strategy: ``hooks`` (what the mapping operations call), ``replay`` (the timed loop, hot hooks inlined) and
# ``checked`` (the same with counting, answers and samples). Shared by all: ``mapping`` (every mapping operation) and
# ``known`` (the replay without lookups).

Note = Callable[[str], None]
MAPPING = UnitSpec("mapping", mapping_event, None)
KNOWN_REPLAY = UnitSpec("known", replay_timed, {**DEFAULTS, **KNOWN})


def specs(strategy: Strategy) -> list[UnitSpec]:
    """The units that ``strategy`` needs of its own."""
    binding = dict(strategy.binding)
    return [
        UnitSpec(f"hooks-{strategy.name}", hook_entry, binding),
        UnitSpec(f"replay-{strategy.name}", replay_timed, binding),
        UnitSpec(f"checked-{strategy.name}", replay_entry, {**binding, "count": count_event}),
    ]


def unit_store(store: Store | None = None) -> Units:
    """The loader of units for this model."""
    return Units(mm_struct, ALL, store)


class NativeRunner:
    """Runs ``strategy``'s compiled code. Raises DialectError if it cannot be compiled."""

    def __init__(self, strategy: Strategy, units: Units | None = None, note: Note | None = None) -> None:
        self.strategy = strategy
        self.units = units or unit_store()
        hooks, timed, checked = (self.units.get(spec, note) for spec in specs(strategy))
        self._hooks, self._timed, self._checked = hooks, timed, checked
        self._mapping = self.units.get(MAPPING, note)
        self._known = self.units.get(KNOWN_REPLAY, note)
        self._root = 0

    def attach(self, machine: Machine) -> None:
        """Write the entry points into the machine's first mm."""
        mm = machine.mm(0)
        mm["hook_entry"] = self._hooks.address
        mm["mapping_entry"] = self._mapping.address
        filled = self.strategy.binding
        mm["hook_mask"] = sum(1 << i for i, h in enumerate(ALL) if h.name in filled and h.called)
        self._root = machine.root

    def replay(self, first: int, last: int) -> None:
        """Events [first, last), with answers and counts."""
        self._checked(self._root, first, last, 0)

    def sample(self, first: int, last: int) -> None:
        """Events [first, last), with the cycles of each."""
        self._checked(self._root, first, last, 1)

    def timed(self, first: int, last: int) -> int:
        """Events [first, last), with the cycles of each class; gives the number of clock readings."""
        return self._timed(self._root, first, last)

    def known(self, first: int, last: int) -> int:
        """As :meth:`timed`, the answers known (mm.replay_cursor must be 0)."""
        return self._known(self._root, first, last)

    def hook(self, name: str, *arguments: int, mm: int | None = None) -> int:
        """Call a hook of the strategy directly (tests, validate_mm); ``mm`` is the address of an mm_struct."""
        number = next(i for i, h in enumerate(ALL) if h.name == name)
        filled = [*arguments, 0, 0, 0, 0][:4]
        return self._hooks(mm or self._root, number, *filled)

    def validate(self, machine: Machine) -> None:
        """validate_mm with the strategy's index asked too. Raises ValidationError."""
        size = mm_struct.size

        def at(number: int) -> int:
            return machine.root + number * size

        validate_mm(
            machine,
            lambda number, addr: self.hook("index_find", addr, mm=at(number)),
            (lambda number: self.hook("index_check", mm=at(number))),
            self.strategy.check_messages,
        )

    @property
    def entry(self) -> Unit:
        """The timed unit, for benchmarks that call it themselves."""
        return self._timed


# ----------------------------------------------------------------------------------------------------------------------
# Interpreted runner: a strategy's text run by Python on the same memory as the compiled code.
#
# Some hundred times slower than native, but an index outside its slab is an IndexError here instead of damage, and the
# world behind the proxies may count or schedule what it sees (:mod:`benchframe.dialect.interpreter`).


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
