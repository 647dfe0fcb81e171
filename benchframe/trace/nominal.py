"""Nominal statistics of a stream, and where they lie among those of recorded programs: is a workload representative?

After DaCapo Chopin (Blackburn et al., "Rethinking Java Performance Analysis", ASPLOS 2025): a workload's value says
little alone, but its rank among many programs does. The statistics are those that decide what a VMA lookup costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, pstdev

from benchframe.events import Kind
from benchframe.trace.analysis import REUSE_BINS, figures
from benchframe.trace.trace import Trace

FAR = 16
"""Other VMAs since the last lookup in one from which its reuse is far: more than any cache of VMAs had slots."""
ENOUGH = 5
"""Recorded programs with a statistic, at least, for a rank to mean anything."""


@dataclass(frozen=True)
class Statistic:
    """``title`` for people; ``share``: in [0, 1], compared as it is; else compared by its logarithm."""

    title: str
    share: bool = False


STATISTICS = {
    "vmas": Statistic("VMAs at most, in the largest address space"),
    "faults_per_call": Statistic("faults and lookups per mapping call"),
    "same_vma": Statistic("lookups in the VMA of the task's last one", share=True),
    "same_2mib": Statistic("lookups in the 2 MiB of the task's last one", share=True),
    "far": Statistic(f"lookups in a VMA after {FAR} others or more", share=True),
    "tasks": Statistic("tasks of the busiest address space"),
    "spaces": Statistic("address spaces"),
}
"""By the name in data files. A stream without mapping calls, or without two lookups, lacks what needs them."""


def nominal(trace: Trace) -> dict[str, float]:
    """The statistics of a stream, of its timed part where they are counts of events. O(a replay in the oracle)."""
    found = figures(trace, columns=1, first=trace.setup)
    timed = trace.events[trace.setup :]
    busiest = {int(mm): 0 for mm in timed["mm"]}
    asked = timed[(timed["kind"] == Kind.FAULT) | (timed["kind"] == Kind.LOOKUP)]
    for mm in busiest:
        busiest[mm] = len(set(asked["task"][asked["mm"] == mm].tolist()))
    values = {
        "vmas": float(max(found.peak_vmas.values(), default=0)),
        "tasks": float(max(busiest.values(), default=0) or 1),
        "spaces": float(len(busiest)),
    }
    if found.operations and found.lookups:
        values["faults_per_call"] = found.lookups / found.operations
    if found.reuse_rows > 1:
        values["same_vma"], values["same_2mib"] = found.same_vma, found.same_pmd
        again = found.reuse_rows - found.reuse[-1]
        first_far = REUSE_BINS.index(FAR - 1) + 1
        if again:
            values["far"] = sum(found.reuse[first_far:-1]) / again
    return {name: values[name] for name in STATISTICS if name in values}


@dataclass(frozen=True)
class Standing:
    """One value among those of ``n`` recorded programs: ``rank`` 1 has none above it; ``percentile`` is the share of
    them below it, those equal to it by half. ``low``, ``middle`` and ``high`` are theirs."""

    name: str
    value: float
    rank: int
    n: int
    percentile: float
    low: float
    middle: float
    high: float

    @property
    def outside(self) -> bool:
        """Whether no recorded program is as high, or as low."""
        return not self.low <= self.value <= self.high


def standings(own: Mapping[str, float], others: Sequence[Mapping[str, float]]) -> list[Standing]:
    """Where each value of ``own`` lies; a statistic that fewer than ENOUGH of the others have is left out.

    >>> [found] = standings({"vmas": 30.0}, [{"vmas": float(v)} for v in (10, 20, 30, 40, 50)])
    >>> found.rank, found.n, found.percentile, found.outside
    (3, 5, 0.5, False)
    """
    found = []
    for name, value in own.items():
        theirs = sorted(other[name] for other in others if name in other)
        if len(theirs) < ENOUGH:
            continue
        above, below = sum(v > value for v in theirs), sum(v < value for v in theirs)
        share = (below + (len(theirs) - above - below) / 2) / len(theirs)
        found.append(Standing(name, value, 1 + above, len(theirs), share, theirs[0], median(theirs), theirs[-1]))
    return found


@dataclass(frozen=True)
class Nearest:
    """The recorded program nearest to a stream. ``distance`` is the root mean square of the differences in standard
    deviations among the programs; ``usual`` is the median of each program's distance to its own nearest one, ``most``
    the largest of these."""

    name: str
    distance: float
    usual: float
    most: float


def nearest(own: Mapping[str, float], programs: Mapping[str, Mapping[str, float]]) -> Nearest | None:
    """The nearest of ``programs``, by the statistics that both have; None if fewer than ENOUGH are given.

    O(programs^2)."""
    if len(programs) < ENOUGH:
        return None
    scale = {}
    for name in STATISTICS:
        values = [_axis(name, program[name]) for program in programs.values() if name in program]
        scale[name] = pstdev(values) if len(values) > 1 else 0.0
    by_distance = sorted((_distance(own, program, scale), name) for name, program in programs.items())
    between = [
        min(_distance(program, other, scale) for key, other in programs.items() if key != name)
        for name, program in programs.items()
    ]
    distance, name = by_distance[0]
    return Nearest(name, distance, median(between), max(between))


def _axis(name: str, value: float) -> float:
    return value if STATISTICS[name].share else math.log(max(value, 1e-9))


def _distance(a: Mapping[str, float], b: Mapping[str, float], scale: Mapping[str, float]) -> float:
    parts = [
        ((_axis(name, a[name]) - _axis(name, b[name])) / scale[name]) ** 2
        for name in STATISTICS
        if name in a and name in b and scale[name] > 0
    ]
    return math.sqrt(fmean(parts)) if parts else math.inf


def same(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    """Whether both are the statistics of one stream, of which one was rounded to six digits in a file."""
    return a.keys() == b.keys() and all(math.isclose(a[name], b[name], rel_tol=1e-5) for name in a)


def lines(own: Mapping[str, float], programs: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The standings as aligned lines, then the nearest program; empty if there are too few programs."""
    found = standings(own, list(programs.values()))
    if not found:
        return []
    width = max(len(STATISTICS[one.name].title) for one in found)
    said = []
    for one in found:
        low, middle, high = (text(one.name, value) for value in (one.low, one.middle, one.high))
        place = f"rank {one.rank} of {one.n}, percentile {100 * one.percentile:.0f}"
        if one.outside:
            place = f"{'above' if one.value > one.high else 'below'} all {one.n}"
        title = f"{STATISTICS[one.name].title.ljust(width)}  {text(one.name, one.value):>8}"
        said.append(f"{title}  {place}  ({low} to {high}, median {middle})")
    if close := nearest_text(own, programs):
        said.append(f"nearest: {close}")
    return said


def nearest_text(own: Mapping[str, float], programs: Mapping[str, Mapping[str, float]]) -> str:
    """The nearest program, its distance, and what is usual among programs; empty if there are too few."""
    close = nearest(own, programs)
    if close is None:
        return ""
    far = "farther than any program is from its nearest one" if close.distance > close.most else ""
    usual = far or f"a program's nearest one is usually at {close.usual:.1f}"
    return f"{close.name}, at {close.distance:.1f} standard deviations; {usual}"


def text(name: str, value: float) -> str:
    """A value for people.

    >>> text("same_vma", 0.734), text("far", 0.0032), text("vmas", 1307.0), text("faults_per_call", 9.46)
    ('73 %', '0.32 %', '1,307', '9.5')
    """
    if STATISTICS[name].share:
        return f"{100 * value:.0f} %" if value >= 0.1 or not value else f"{100 * value:.2g} %"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"
