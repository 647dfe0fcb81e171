"""Native runner: a strategy's compiled units on a machine's memory.

Units per strategy: ``hooks`` (what the mapping operations call), ``replay`` (the timed loop, hot hooks inlined) and
``checked`` (the same with counting, answers and samples). Shared by all: ``known`` (the replay without lookups), and by
all with the same allocator ``mapping`` (every mapping operation).
"""

from __future__ import annotations

from collections.abc import Callable

from benchframe.dialect.functions import Binding
from benchframe.dialect.store import Store, Unit
from benchframe.dialect.units import Units, UnitSpec
from benchframe.mm.defaults import DEFAULTS, count_event
from benchframe.mm.hooks import ALL, hook_entry, hook_mask
from benchframe.mm.kmem import one_thread
from benchframe.mm.layout import mm_struct
from benchframe.mm.machine import Machine
from benchframe.mm.replay import KNOWN, mapping_event, replay_entry, replay_timed
from benchframe.mm.validate import Validating
from benchframe.strategy import Strategy

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
