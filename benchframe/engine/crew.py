"""Runs compiled code with real threads: Python threads that leave the interpreter until they end."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.dialect.units import Units, UnitSpec
from benchframe.engine.runner import Note, unit_store
from benchframe.errors import BenchframeError
from benchframe.mm.defaults import count_event
from benchframe.mm.dispatch import mapping_event
from benchframe.mm.drive import CLOCK, COST, DRAIN, RUN, thread_entry
from benchframe.mm.hook_entry import hook_entry, hook_mask
from benchframe.mm.hooks import ALL
from benchframe.mm.layout import mm_struct
from benchframe.mm.shared import REPLACE
from benchframe.mm.validate import Validating

if TYPE_CHECKING:
    from benchframe.engine.program import Work
    from benchframe.mm.machine import Machine
    from benchframe.strategy import Strategy

Array = npt.NDArray[Any]
PATIENCE = 30.0
"""Seconds that threads may take to end after they were told to, when none of them gets anywhere."""
LOCKS = {"table": ("ptl_waits", "ptl_cycles"), "vma": ("vma_waits", "vma_cycles")}
"""Locks besides mmap_lock, by class, to the fields that count waits for them: page-table locks, and locks of VMAs."""
MAPPING = UnitSpec("mapping-threads", mapping_event, None, REPLACE)


def specs(strategy: Strategy) -> list[UnitSpec]:
    """The units that ``strategy`` needs of its own for runs with threads."""
    binding = {**strategy.binding, "count": count_event}
    return [
        UnitSpec(f"hooks-threads-{strategy.name}", hook_entry, binding, REPLACE),
        UnitSpec(f"threads-{strategy.name}", thread_entry, binding, REPLACE),
    ]


_NUMBER = {h.name: i for i, h in enumerate(ALL)}


class Stuck(BenchframeError):
    """Threads did not come to an end: a deadlock, a livelock or a lost wake-up. They are left running."""


@dataclass(frozen=True)
class Lap:
    """One start of the crew: per thread operations, cycles and waits. ``seconds`` is wall time, ``ns`` one cycle."""

    seconds: float
    ns: float
    threads: Array
    together: bool = False
    """Rates over the whole lap, not over each thread's own time: a recorded thread ends when its events do."""
    waits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Of each class of LOCKS: how often threads waited for such a lock, and cycles spent so, all together."""

    @property
    def rates(self) -> Array:
        """Operations per second of each thread."""
        total = sum(self.threads[name] for name in ("faults", "lookups", "mappings"))
        return np.asarray(total / np.maximum(self.spans, 1e-9))

    @property
    def spans(self) -> Array:
        """Seconds of each thread from its start to the end of what is counted."""
        began: Any = self.threads["began"]
        own = np.asarray((self.threads["ended"] - began) * self.ns * 1e-9)
        if self.together:
            own[:] = (self.threads["ended"].max() - began.min()) * self.ns * 1e-9
        return own

    def rate(self, field: str) -> float:
        """``field`` (faults, lookups, mappings) per second, all threads together."""
        return float((self.threads[field] / np.maximum(self.spans, 1e-9)).sum())

    def share(self, field: str) -> float:
        """What part of the threads' time went into ``field`` (lock_cycles, barrier_cycles, order_cycles), or into
        waiting for a class of LOCKS."""
        span = float((self.threads["ended"] - self.threads["began"]).sum())
        spent = self.waits.get(field, (0, 0))[1] if field in LOCKS else float(self.threads[field].sum())
        return min(1.0, spent / span) if span > 0 else 0.0


def _pin(crowd: Sequence[threading.Thread]) -> None:
    """A CPU for each thread, if there are enough, as will-it-scale does it: else two may share
    one while another idles. Where the system does not allow it the scheduler decides."""
    with contextlib.suppress(OSError, AttributeError):
        cpus = sorted(os.sched_getaffinity(0))
        if len(crowd) <= len(cpus):
            for one, cpu in zip(crowd, cpus, strict=False):
                os.sched_setaffinity(one.native_id or 0, {cpu})


class CrewRunner(Validating):
    """``strategy``'s threaded build on a machine's memory (``Sizes.threads`` must be set).

    Raises DialectError if it cannot be compiled.
    """

    def __init__(self, strategy: Strategy, units: Units | None = None, note: Note | None = None) -> None:
        self.strategy = strategy
        self.units = units or unit_store()
        self._hooks, self._entry = (self.units.get(spec, note) for spec in specs(strategy))
        self._mapping = self.units.get(MAPPING, note)
        self._machine: Machine | None = None
        self._root = 0

    # ---- one thread, as Machine wants it ------------------------------------------------------------------------

    def attach(self, machine: Machine) -> None:
        """Write the entry points into the machine's first mm."""
        mm = machine.mm(0)
        mm["hook_entry"], mm["mapping_entry"] = self._hooks.address, self._mapping.address
        mm["hook_mask"] = hook_mask(self.strategy.binding)
        self._machine, self._root = machine, machine.root
        crew = machine.arrays["crew_base"][0]
        crew["gp_started"] = crew["gp_completed"] = 1
        crew["last_task"] = machine.sizes.tasks

    def replay(self, first: int, last: int) -> None:
        """Events [first, last), by one thread, without answers."""
        crew, t = self._records(1)
        t["first"], t["last"], t["rounds"], t["barrier"] = first, last, 1, -1
        t["checks"] = t["samples"] = t["ordered"] = 0
        assert self._machine is not None
        self._machine.arrays["thread_base"]["leader"] = 1
        crew["go"], crew["stop"] = 1, 0
        self._entry(self._root, 1, RUN)
        crew["go"] = crew["ready"] = 0

    def _records(self, task: int) -> tuple[Any, Any]:
        assert self._machine is not None
        return self._machine.arrays["crew_base"][0], self._machine.arrays["thread_base"][task]

    # ---- many -----------------------------------------------------------------------------------------------------

    def run(
        self,
        works: Sequence[Work],
        *,
        seconds: float = 0.0,
        rounds: int = 0,
        checks: bool = False,
        samples: bool = False,
        ordered: bool = False,
    ) -> Lap:
        """Start one thread per work together; stop after ``seconds`` (each ends its round) or ``rounds``.

        Raises Stuck if they do not end, OSError or RuntimeError if the system gives no thread.
        """
        assert self._machine is not None
        crew = self._machine.arrays["crew_base"][0]
        for name in ("go", "stop", "ready", "arrived", "stopped", "mapped"):
            crew[name] = 0
        for name in itertools.chain.from_iterable(LOCKS.values()):
            self._machine.arrays["crew_base"][name] = 0
        crew["parties"] = len(works)
        threads = self._machine.arrays["thread_base"]
        for work in works:
            t = threads[work.task]
            for name in t.dtype.names:
                if name not in ("pages", "nr_pages", "rcu_seen", "leader"):
                    t[name] = 0
            played = np.unique(self._machine.arrays["event_base"]["task"][work.first : work.last]) + 1
            threads["leader"][played] = work.task
            t["first"], t["last"], t["barrier"] = work.first, work.last, work.barrier
            t["rounds"] = rounds or 1 << 62
            t["checks"], t["samples"], t["ordered"] = checks, samples, ordered
        crowd = [threading.Thread(target=self._entry, args=(self._root, w.task, RUN), daemon=True) for w in works]
        for one in crowd:
            one.start()
        _pin(crowd)
        while int(crew["ready"]) < len(works):
            time.sleep(0.0002)
        start, began = self.clock(), time.perf_counter()
        crew["go"] = 1
        if seconds:
            time.sleep(seconds)
            crew["stop"] = 1
        self._join(crowd, works, limited=not seconds)
        wall, cycles = time.perf_counter() - began, self.clock() - start
        crew["go"] = 0
        spent = self._machine.arrays["crew_base"]
        waits = {lock: (int(spent[often].sum()), int(spent[long].sum())) for lock, (often, long) in LOCKS.items()}
        own = threads[[w.task for w in works]].copy()
        return Lap(wall, 1e9 * wall / max(cycles, 1), own, ordered, waits)

    def _join(self, crowd: Sequence[threading.Thread], works: Sequence[Work], limited: bool) -> None:
        """Wait for all; Stuck when nothing moves for PATIENCE seconds (fixed counts: ten times that)."""
        deadline = time.perf_counter() + PATIENCE * (10 if limited else 1)
        for one in crowd:
            one.join(max(0.0, deadline - time.perf_counter()))
        left = [work.task - 1 for one, work in zip(crowd, works, strict=True) if one.is_alive()]
        if left:
            names = ", ".join(map(str, left))
            raise Stuck(f"thread {names} of {len(works)} waits for ever: a deadlock, a livelock or a lost wake-up")

    def clock(self) -> int:
        """The cycle counter."""
        return self._entry(self._root, 1, CLOCK)

    def clock_cost(self) -> float:
        """Cycles that reading it costs: the median of 101."""
        return float(np.median([self._entry(self._root, 1, COST) for _ in range(101)]))

    def drain(self) -> int:
        """With every thread at rest: give back what waits for RCU, and each task's frames. What still waits: 0."""
        assert self._machine is not None
        return self._entry(self._root, self._machine.sizes.mms, DRAIN)

    def ask(self, name: str, number: int, *arguments: int) -> int:
        """Call a hook of the strategy in trace mm ``number``, every thread at rest."""
        filled = [*arguments, 0, 0, 0, 0][:4]
        return self._hooks(self._root + number * mm_struct.size, _NUMBER[name], *filled)
