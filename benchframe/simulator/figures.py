"""The results of a simulated run: throughput, where the time was spent and on which lines, how long operations took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.engine.session import Histogram
from benchframe.engine.threads import FIGURES, LOCKS
from benchframe.mm.smp import BUCKETS, CLASSES
from benchframe.simulator.records import KINDS, PARTS

Array = npt.NDArray[Any]
COUNTED = tuple(FIGURES)
"""Figures whose operations are counted."""
KEPT_LINES, KEPT_PAIRS = 24, 24
PS = 0.001
"""A picosecond in ns."""


@dataclass(frozen=True)
class Field:
    """A field that had costs: transactions by kind, and ns summed over all CPUs for transfers of its line, for queueing
    and for waiting for it; ``far`` of them came from another socket."""

    name: str
    line: int
    """The number of its line within the record."""
    loads: int
    stores: int
    atomics: int
    transfer: float
    queue: float
    wait: float
    far: int

    @property
    def ns(self) -> float:
        """The sum of its times."""
        return self.transfer + self.queue + self.wait


@dataclass(frozen=True)
class Pair:
    """``reader`` had to fetch a line because ``writer`` was written (empty: from memory or a cache): how often, and for
    how many ns."""

    reader: str
    writer: str
    n: int
    ns: float


@dataclass(frozen=True)
class Figures:
    """One run. ``window`` is ps of simulated time; ``operations`` by figure (fault, lookup, mapping); ``cpus`` each
    CPU's operations; ``parts`` ns of all CPUs by PARTS; ``clock`` their expected sum."""

    window: int
    host: float
    operations: Mapping[str, int]
    cpus: tuple[int, ...]
    parts: Mapping[str, float]
    clock: float
    accesses: int
    inside: Mapping[str, int]
    """Accesses inside the operations of a figure; the rest are those of the threads' own loop, RCU and the barrier."""
    transfers: int
    fields: tuple[Field, ...]
    pairs: tuple[Pair, ...]
    histograms: Mapping[str, Histogram]
    shares: Mapping[str, float]
    """Shares of the threads' time: ``lock`` (mmap_lock), ``table``, ``vma``, ``barrier``, ``order``."""

    @property
    def seconds(self) -> float:
        """The simulated seconds."""
        return self.window * 1e-12

    @property
    def rates(self) -> dict[str, float]:
        """Operations per second by figure, for figures that occur."""
        return {name: n / self.seconds for name, n in self.operations.items() if n}

    @property
    def throughput(self) -> float:
        """Operations of all figures per second."""
        return sum(self.operations.values()) / self.seconds

    def each(self, figure: str) -> float:
        """Accesses per operation of ``figure``."""
        return self.inside[figure] / max(1, self.operations[figure])


def read_figures(
    session: Any,
    window: int,
    host: float,
    since: Array,
    threads_then: Array,
    crew_then: Array,
    field_name: Callable[[int], str],
) -> Figures:
    """Read a run's figures out of the simulator's memory."""
    own = session.own
    cpus = own["cpu"][: session.threads]
    done = {name: int(cpus[f"done_{name}"].sum()) for name in COUNTED}
    fields = own["field"].reshape(-1, KINDS)
    rows = []
    touched = (fields["n"].sum(axis=1) > 0) | (fields["wait"].sum(axis=1) > 0)
    for number in np.flatnonzero(touched).tolist():
        f = fields[number]
        loads, stores, atomics = (int(n) for n in f["n"])
        rows.append(
            Field(
                name=field_name(number),
                line=session.line_of(number),
                loads=loads,
                stores=stores,
                atomics=atomics,
                transfer=float(f["time"].sum()) * PS,
                queue=float(f["queue"].sum()) * PS,
                wait=float(f["wait"].sum()) * PS,
                far=int(f["far"].sum()),
            )
        )
    rows.sort(key=lambda row: (-row.ns, row.name))
    pairs = []
    for p in own["pair"][own["pair"]["n"] > 0]:
        reader, writer = divmod(int(p["key"]) - 1, 1 << 16)
        told = field_name(writer) if writer != 0xFFFF else ""
        pairs.append(Pair(field_name(reader), told, int(p["n"]), float(p["time"]) * PS))
    pairs.sort(key=lambda row: (-row.ns, row.reader, row.writer))
    counts = own["histogram"].reshape(CLASSES, BUCKETS)
    return Figures(
        window=window,
        host=host,
        operations=done,
        cpus=tuple(int(sum(c[f"done_{name}"] for name in COUNTED)) for c in cpus),
        parts={name: float(cpus[f"t_{name}"].sum()) * PS for name in PARTS},
        clock=float((cpus["clock"] - since).sum()) * PS,
        accesses=int(cpus["accesses"].sum()),
        inside={name: int(cpus[f"in_{name}"].sum()) for name in COUNTED},
        transfers=int(cpus["transfers"].sum()),
        fields=tuple(rows[:KEPT_LINES]),
        pairs=tuple(pairs[:KEPT_PAIRS]),
        histograms={
            name: Histogram(counts[number].copy(), PS) for number, name in enumerate(COUNTED) if counts[number].any()
        },
        shares=_shares(session, window, threads_then, crew_then, rows),
    )


LOCK_FIELDS = {"lock": ("mm.mmap_lock", "mm.mmap_lock_head"), "table": ("page.ptl",)}
"""Locks, and the fields for whose writes their waiters wait."""


def _shares(session: Any, window: int, threads_then: Array, crew_then: Array, rows: list[Field]) -> dict[str, float]:
    """Shares of the CPUs' time spent waiting for locks, the barrier and the order of a trace. Locks by the fields that
    were waited for, so that an unfinished wait counts; the rest from what the threads recorded."""
    arrays, tasks = session.memory.arrays, [w.task for w in session.program.works]
    span = max(1, window * len(tasks))
    found = {
        name: sum(row.wait for row in rows if row.name in fields) / PS / span for name, fields in LOCK_FIELDS.items()
    }
    for name, field in (("barrier", "barrier_cycles"), ("order", "order_cycles")):
        found[name] = float((arrays["thread_base"][field][tasks] - threads_then[field][tasks]).sum()) / span
    cycles = LOCKS["vma"][1]
    found["vma"] = float((arrays["crew_base"][cycles] - crew_then[cycles]).sum()) / span
    return {name: min(1.0, max(0.0, share)) for name, share in found.items()}
