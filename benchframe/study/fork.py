"""What fork, exec and exit cost, and what each VMA adds: the calls that walk a whole address space.

A parent of n VMAs, each with one page written, forks children that are complete copies; or these children exec, or
exit. The difference between two sizes, divided by the difference in VMAs, is what a VMA adds: its record, its place in
the index, its anon_vma, its page and its share of the page tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from benchframe import stream
from benchframe.engine.probe import Point, Study
from benchframe.events import NIL, Kind
from benchframe.report.table import Table, Value, ns, ratio_text
from benchframe.stats import Pair, Summary, Verdict, judge, summarise

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace

EVENTS = {"fork": 1, "exec": 2, "exit": 1}
"""Events of a call: an exec is a new address space and the end of the old one."""
OPERATIONS = tuple(EVENTS)
SIZES = (50, 1000)
"""VMAs of the parent: an ordinary program's, and a large one's."""
CHILDREN = 2
"""Calls in a replay."""
ONE_BY_ONE = (
    "a strategy that fills the hook dup copies its tree as a whole, as Linux since 6.8 (maple_rcu, presets from "
    "linux-6.12 on), or stores the child's VMAs in bulk, as 6.1 to 6.7 (maple, linux-6.1, linux-6.4); in the others "
    "they enter the index one by one. benchframe host --fork times the running kernel."
)
COUNTS = ("loads", "stores", "atomics", "lines")
"""What is counted per call, keys of the view ``mapping`` (docs/cost.md)."""


def family(operation: str, vmas: int, children: int = CHILDREN) -> Trace:
    """A stream that times ``children`` calls of one operation; ``vmas`` is at least 6. Raises ValueError."""
    layout = stream.tiles(vmas, 4, 1)
    numbers = np.arange(1, children + 1)
    forks = stream.rows(Kind.FORK, numbers, numbers)
    setup = [*layout.setup(), stream.fault(layout.vm_start, stream.WRITE)]
    if operation == "fork":
        return stream.build(setup, forks, map_count=vmas)
    ends = np.repeat(stream.rows(Kind.EXIT, np.zeros(children)), EVENTS[operation])
    ends["task"] = ends["mm"] = np.repeat(numbers, EVENTS[operation])
    ends["ret"] = 0
    if operation == "exec":  # the old address space ends, and the task begins in one of its own
        ends["kind"][1::2], ends["addr"][1::2], ends["mm"][1::2] = Kind.EXEC, NIL, children + numbers
    return stream.build([*setup, forks], ends, map_count=vmas)


@dataclass(frozen=True)
class Walk:
    """One operation under one strategy: ns per call by round, for each of SIZES; ``verdict`` on the larger size against
    the baseline (None for the baseline itself)."""

    strategy: str
    operation: str
    ns: tuple[Mapping[int, float], Mapping[int, float]]
    verdict: Verdict | None

    def mean(self, size: int) -> float:
        """Mean of the process means at SIZES[size]; NaN if noise hides all."""
        values = self.ns[size].values()
        return fmean(values) if values else math.nan

    @property
    def per_vma(self) -> Summary | None:
        """What a VMA adds, ns, over the rounds that have both sizes."""
        return slope(*self.ns)


def slope(small: Mapping[int, float], large: Mapping[int, float]) -> Summary | None:
    """The difference per VMA of SIZES by round; None without a common round.

    >>> found = slope({0: 1000.0, 1: 1100.0}, {0: 96_000.0, 1: 96_100.0})
    >>> found.mean, found.n
    (100.0, 2)
    """
    more = SIZES[1] - SIZES[0]
    values = [(large[r] - small[r]) / more for r in sorted(small.keys() & large.keys())]
    return summarise(values) if values else None


def measure(
    known: Registry,
    names: Sequence[str],
    baseline: str,
    rounds: int,
    note: Callable[[str], None],
    *,
    cpu: int = -1,
    clock: float = 0.01,
    plugins: Sequence[str] = (),
    blocked: Sequence[str] = (),
) -> list[Walk]:
    """Time every operation under every strategy at both sizes, in paired rounds; strategies must be compiled.
    ``baseline`` is one of ``names``. Raises ProbeError."""
    strategies = {name: known.strategy(name) for name in names}
    kinds = [(operation, vmas) for operation in OPERATIONS for vmas in SIZES]
    points = [Point(name, number) for number in range(len(kinds)) for name in names]
    streams = [family(operation, vmas) for operation, vmas in kinds]
    study = Study(strategies, streams, points, clock, cpu, plugins, blocked)
    found = study.measure(rounds, 1, lambda done: note(f"round {done + 1} of {rounds}"))
    times: dict[tuple[str, str, int], dict[int, float]] = {}
    for number, (operation, vmas) in enumerate(kinds):
        for place, name in enumerate(names):
            at = number * len(names) + place
            ns_of = {r: row[at]["mapping"] for r, row in enumerate(found) if "mapping" in row[at]}
            times[name, operation, vmas] = {r: EVENTS[operation] * value for r, value in ns_of.items()}
    return judged(times, names, baseline)


def judged(
    times: Mapping[tuple[str, str, int], Mapping[int, float]], names: Sequence[str], baseline: str
) -> list[Walk]:
    """The walks with their verdicts, which are one family; in the order of ``names``."""
    walks = [(name, operation) for name in names for operation in OPERATIONS]
    others = [walk for walk in walks if walk[0] != baseline]
    large = SIZES[1]
    pairs = [
        Pair(times[name, operation, large], times[baseline, operation, large], group=operation)
        for name, operation in others
    ]
    verdicts = dict(zip(others, judge(pairs, notes=False), strict=True))
    return [
        Walk(name, op, (times[name, op, SIZES[0]], times[name, op, large]), verdicts.get((name, op)))
        for name, op in walks
    ]


def walk_table(walks: Sequence[Walk], baseline: str) -> Table:
    """A row per strategy and operation."""
    few, many = SIZES
    heads = ("strategy", "call", f"{few} VMAs, ns", f"{many:,} VMAs", "ns per VMA [95 %]", f"against {baseline}")
    rows, records = [], []
    for walk in walks:
        each = walk.per_vma
        bounds = "-" if each is None else f"{ns(each.mean)} [{ns(each.low)}, {ns(each.high)}]"
        shown = "" if walk.verdict is None else f"{ratio_text(walk.verdict.ratio)} {walk.verdict.word}"
        rows.append((walk.strategy, walk.operation, ns(walk.mean(0)), ns(walk.mean(1)), bounds, shown))
        record: dict[str, Value] = {"strategy": walk.strategy, "call": walk.operation}
        record.update({f"ns_{few}": walk.mean(0), f"ns_{many}": walk.mean(1)})
        if each is not None:
            record.update(ns_per_vma=each.mean, low=each.low, high=each.high)
        if walk.verdict is not None:
            record.update(ratio=walk.verdict.ratio.value, verdict=walk.verdict.word)
        records.append(record)
    notes = (
        "one page of each VMA is written, so a VMA's cost includes its anon_vma, its page and its part of the tables.",
        "exec and exit end a complete copy that fork made; the pages themselves are neither copied nor zeroed.",
        f"against {baseline}: the call with {many:,} VMAs; all verdicts are one family.",
        ONE_BY_ONE,
    )
    return Table("Fork, exec, exit", heads, tuple(rows), (False, False, True, True, True, False), tuple(records), notes)


# ---- counted ---------------------------------------------------------------------------------------------------------


def count(strategy: Strategy, operation: str) -> dict[str, float]:
    """COUNTS per VMA, from both sizes; the same on every machine. The strategy must be compiled."""
    from benchframe.engine.cost import count_cost

    few, many = (count_cost(strategy, family(operation, vmas, 1), 0).numbers for vmas in SIZES)
    per_vma = EVENTS[operation] / (SIZES[1] - SIZES[0])
    return {name: (many[f"mapping.{name}"] - few[f"mapping.{name}"]) * per_vma for name in COUNTS}


def count_table(counted: Mapping[tuple[str, str], Mapping[str, float]]) -> Table:
    """A row per strategy and operation of :func:`count`'s results."""
    rows = tuple((name, op, *(f"{numbers[key]:.1f}" for key in COUNTS)) for (name, op), numbers in counted.items())
    records: list[dict[str, Value]] = [
        {"strategy": name, "call": op, **numbers} for (name, op), numbers in counted.items()
    ]
    notes = (f"per VMA: the difference between {SIZES[0]} and {SIZES[1]:,} VMAs, one page of each written.",)
    heads = ("strategy", "call", *(f"{name} per VMA" for name in COUNTS))
    right = (False, False, *(True,) * len(COUNTS))
    return Table("Fork, exec, exit, counted", heads, rows, right, tuple(records), (*notes, ONE_BY_ONE))
