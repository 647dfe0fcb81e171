"""A cell's job: what a worker process gets, and in which round each cell runs."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchframe.trace.trace import Trace


# ----------------------------------------------------------------------------------------------------------------------
# What a worker process gets (:class:`Job`) and what it returns (:class:`Outcome`): plain JSON, no pickle.
#
# The parent reads or makes the trace once and spools its events as a raw ``.npy`` file; each worker maps that
# file. So a worker imports neither pyarrow nor the maker of the workload.

STATES = ("ok", "wrong", "crashed", "timed_out", "skipped")
"""The states of a cell: a wrong answer is never shown as a fast one, and a crash or a timeout is distinguished from a
wrong answer."""

FIGURES = ("lookup", "fault", "mapping", "replay")
"""Names of the benchmarks in a cell's file: ns per lookup, per page fault, per mapping operation, per event."""
COLD = "cold"
"""... and of one more, if the job asks for it: ns per lookup with colder caches."""

COST_RECORDS = 4_000_000
"""About how many records the counted replay of a cell may take: half a second to a second."""


@dataclass(frozen=True)
class Job:
    """One worker's work: verify ``strategy`` on the spooled trace, then time it.

    ``digest`` and ``model`` are the strategy's content and the model's bytecode as the parent saw them; ``events`` and
    ``trace_meta`` are paths of the spool; ``setup`` is the number of leading events that are not timed; ``extras``
    requests counts and the per-operation latencies after timing, ``cost`` a counted replay of about this many records
    (0: none); ``threads`` is how many real threads replay it (0: a single replay); ``caches`` says
    what is touched before each event (engine.caches; empty: nothing); ``cold`` asks to time lookups once more, with
    caches in this state, beside figures of warm ones (empty: do not); ``control`` is the lowest
    undisturbed level that an earlier process of the cell found (engine.disturbance; 0: none); ``patient``: make more
    replays if the machine is disturbed, and replace values without an undisturbed one; ``metadata`` goes into each
    pyperf run; ``parent`` is the process that the worker must not outlive.
    """

    strategy: str
    digest: str
    events: str
    trace_meta: str
    setup: int
    layout_seed: int
    extras: bool
    cost: int = 0
    threads: int = 0
    caches: str = ""
    cold: str = ""
    control: float = 0.0
    patient: bool = True
    plugins: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    model: str = ""
    metadata: Mapping[str, str | int] = field(default_factory=dict)
    parent: int = field(default_factory=os.getpid)

    def write(self, path: Path) -> None:
        """Write the job as JSON; raises OSError."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Job:
        """Read what :meth:`write` wrote. The file is private to one run: it is not validated beyond JSON."""
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**data, "plugins": tuple(data["plugins"]), "blocked": tuple(data["blocked"])})


@dataclass(frozen=True)
class Outcome:
    """The result of one worker process.

    ``message`` is one line, ``detail`` the end of what the worker wrote to stderr, ``event`` the event whose answer was
    wrong (-1: none). ``threads`` is the additional result of a run with threads (docs/threads.md). ``suite`` is a
    pyperf BenchmarkSuite as JSON data. ``measured`` and ``warmup`` are seconds inside measured loops and inside those
    of warm-up and calibration, ``timed`` the part of ``measured`` in which the clock ran (not while the start state is
    restored), ``wall`` the whole life of the process. ``control`` is its undisturbed level in cycles (0: not known);
    ``restless``: all its replays were disturbed.
    """

    state: str
    message: str = ""
    detail: str = ""
    event: int = -1
    loops: int = 0
    suite: dict[str, Any] | None = None
    counts: dict[str, float] | None = None
    latencies: list[dict[str, Any]] | None = None
    cost: dict[str, float] | None = None
    threads: dict[str, Any] | None = None
    timer_overhead_ns: float = 0.0
    measured: float = 0.0
    timed: float = 0.0
    warmup: float = 0.0
    wall: float = 0.0
    control: float = 0.0
    restless: bool = False

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """Rebuild an outcome; raises ValueError if the text is not one (a worker that died while writing)."""
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("state") not in STATES:
            raise ValueError("not an outcome")
        try:
            return cls(**data)
        except TypeError as error:
            raise ValueError(str(error)) from None

    def with_wall(self, wall: float) -> Outcome:
        """The same outcome with the wall time of its process."""
        return replace(self, wall=wall)


def finite(counts: Mapping[str, float]) -> dict[str, float]:
    """``counts`` without values that JSON cannot hold: the hit rate of zero lookups is NaN and is left out."""
    return {name: float(value) for name, value in counts.items() if math.isfinite(value)}


def spool(trace: Trace, folder: Path) -> tuple[Path, Path]:
    """Write the events and metadata of ``trace`` under ``folder`` for the workers; returns both paths.

    Recorded layouts and reports are left out: replays do not read them. Raises OSError.
    """
    import numpy as np

    from benchframe.trace.meta import meta_to_json

    events = folder / f"{trace.digest[:32]}.npy"
    meta = events.with_suffix(".json")
    np.save(events, np.ascontiguousarray(trace.events), allow_pickle=False)
    meta.write_text(meta_to_json(replace(trace.meta, snapshots=())), encoding="utf-8")
    return events, meta


def unspool(job: Job) -> Trace:
    """The trace of ``job``: its events are mapped copy-on-write, so no worker can change another's."""
    import numpy as np

    from benchframe.trace.meta import meta_from_json
    from benchframe.trace.trace import Trace

    events = np.asarray(np.load(job.events, mmap_mode="c", allow_pickle=False))
    meta = meta_from_json(Path(job.trace_meta).read_text(encoding="utf-8"))
    return Trace(events, meta=meta, setup=job.setup)


# ----------------------------------------------------------------------------------------------------------------------
# When each process runs: presets, rounds, their shuffled order, and the time budget.
#
# A *round* runs one worker process for every cell, in an order shuffled by the run's seed, so that drift of the
# machine (heat, other load) hits all cells alike and ratios can be paired by round. The order of round ``r``
# depends on the seed, ``r`` and the set of cells alone: a resumed run walks the same schedule as an unbroken one.

LAYOUTS = 1 << 31
"""Layout seeds are in [0, LAYOUTS)."""


@dataclass(frozen=True)
class Depth:
    """How much is measured: ``rounds`` processes per cell, each with ``warmups`` unrecorded and ``values`` recorded
    timings of at least ``min_time`` seconds. The worker always warms up for an eighth of a value."""

    rounds: int
    values: int
    warmups: int
    min_time: float


DEPTHS: dict[str, Depth] = {
    "quick": Depth(rounds=3, values=3, warmups=0, min_time=0.1),
    "default": Depth(rounds=10, values=6, warmups=0, min_time=0.25),
    "rigorous": Depth(rounds=25, values=6, warmups=0, min_time=0.25),
}


def order(seed: int, round_: int, cells: Sequence[str]) -> list[str]:
    """The names of ``cells`` in the order in which round ``round_`` runs them; O(n log n).

    >>> order(1, 0, ["a", "b", "c"]) == order(1, 0, ["c", "b", "a"])
    True
    """
    shuffled = sorted(cells)
    random.Random(f"benchframe order {seed} {round_}").shuffle(shuffled)
    return shuffled


def layout_seed(seed: int, round_: int) -> int:
    """The seed of the address-space layout for every process of round ``round_``: equal within a round, so that
    strategies are compared on one layout; different between rounds, so that no single layout decides."""
    digest = hashlib.sha256(f"benchframe layout {seed} {round_}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % LAYOUTS


class Budget:
    """Decides before each round whether it still fits in the time.

    ``limit`` is in seconds, None for no limit. A round is expected to take as long as the longest of the last three;
    the first two always run, because one round has no spread.
    """

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self._taken: list[float] = []

    def took(self, seconds: float) -> None:
        """Note the duration of a round that has ended."""
        self._taken.append(seconds)

    @property
    def expected(self) -> float | None:
        """The expected seconds of the next round, None before the first has ended."""
        return max(self._taken[-3:]) if self._taken else None

    def fits(self, elapsed: float) -> bool:
        """Whether a next round would end within the limit, ``elapsed`` seconds after the start."""
        expected = self.expected
        return self.limit is None or expected is None or len(self._taken) < 2 or elapsed + expected <= self.limit


def spare_cpu() -> int | None:
    """The CPU to which workers are pinned, or None if pinning is not possible or would not help.

    It is the last CPU that this process may use, if there are at least two: CPU 0 often serves interrupts, and the
    parent needs one. On a busy machine (load average above CPUs - 3/4) a pinned process could not avoid the others, so
    the scheduler decides.
    """
    try:
        cpus = sorted(os.sched_getaffinity(0))
        busy = os.getloadavg()[0] > len(cpus) - 0.75
    except (AttributeError, OSError):
        return None
    return cpus[-1] if len(cpus) > 1 and not busy else None
