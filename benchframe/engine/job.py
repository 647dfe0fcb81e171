"""What a worker process is told (:class:`Job`) and what it answers (:class:`Outcome`): plain JSON, no pickle.

The parent reads or makes the trace once and spools its events as a raw ``.npy`` file; each worker maps that
file. So a worker imports neither pyarrow nor the maker of the workload.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchframe.trace.format import Trace

STATES = ("ok", "wrong", "crashed", "timed_out", "skipped")
"""Cell states: a wrong answer is never a fast one; a crash or a timeout is told from a wrong answer."""

FIGURES = ("lookup", "fault", "mapping", "replay")
"""Names of the benchmarks in a cell's file: ns per lookup, per page fault, per mapping operation, per event."""

COST_RECORDS = 4_000_000
"""Records that the counted replay of a cell takes, about: half a second to a second."""


@dataclass(frozen=True)
class Job:
    """One worker's work: verify ``strategy`` on the spooled trace, then time it.

    ``digest`` and ``model`` are the strategy's content and the model's bytecode as the parent saw them; ``events`` and
    ``trace_meta`` are paths of the spool; ``setup`` is the number of leading events that are not timed;
    ``extras`` asks for counts and the per-operation latencies after timing, ``cost`` for a counted replay of
    about so many records (0: none); ``threads`` is how many real threads play it (0: a replay by one);
    ``control`` is the lowest quiet level that an earlier process of the cell found (engine.quiet; 0: none);
    ``patient``: make more replays where the machine is disturbed, and other values for those without a quiet one;
    ``metadata`` goes into each pyperf run; ``parent`` is the process that the worker must not outlive.
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
        """Read what :meth:`write` wrote. The file is private to one run: no validation beyond JSON."""
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**data, "plugins": tuple(data["plugins"]), "blocked": tuple(data["blocked"])})


@dataclass(frozen=True)
class Outcome:
    """What one worker process ended in.

    ``message`` is one line, ``detail`` the end of what the worker wrote to stderr, ``event`` the event whose
    answer was wrong (-1: none). ``threads`` is what a run with threads has beside (docs/threads.md). ``suite`` is
    a pyperf BenchmarkSuite as JSON data. ``measured`` and ``warmup`` are seconds inside measured loops and inside
    those of warm-up and calibration, ``timed`` the part of ``measured`` that the clock ran (not while the start
    state is restored), ``wall`` the whole life of the process. ``control`` is its quiet level in cycles (0: not known);
    ``restless``: it found no quiet moment.
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
        """The same outcome with the life time of its process."""
        return replace(self, wall=wall)


def finite(counts: Mapping[str, float]) -> dict[str, float]:
    """``counts`` without what JSON cannot hold: a hit rate of zero lookups is NaN and simply absent."""
    return {name: float(value) for name, value in counts.items() if math.isfinite(value)}


def spool(trace: Trace, folder: Path) -> tuple[Path, Path]:
    """Write the events and metadata of ``trace`` under ``folder`` for the workers; gives both paths.

    Recorded layouts and reports stay out: replays do not read them. Raises OSError.
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

    from benchframe.trace.format import Trace
    from benchframe.trace.meta import meta_from_json

    events = np.asarray(np.load(job.events, mmap_mode="c", allow_pickle=False))
    meta = meta_from_json(Path(job.trace_meta).read_text(encoding="utf-8"))
    return Trace(events, meta=meta, setup=job.setup)
