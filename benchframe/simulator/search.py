"""Searches over simulations: the order of fields that scales best, and the load on which one strategy loses most.

Both are deterministic: the same call has the same result. Neither is exhaustive: they report what they found, not that
there is nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchframe.mm.layout import MM, VMA
from benchframe.simulator.layouts import Layout
from benchframe.simulator.machines import Machine, Work
from benchframe.simulator.session import Depth, SimulatedSession

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.strategy import Strategy

GAIN = 1.02
"""A move with a smaller gain is not made."""
CANDIDATES, MOVES = 6, 8
"""The number of fields that a step tries, and the maximum number of steps."""
MOVABLE = frozenset({"mm", "vma"})
Say = Callable[[str], None]


@dataclass(frozen=True)
class Move:
    """``field`` moved to a line of its own: ``throughput`` per second afterwards, ``factor`` relative to before."""

    field: str
    throughput: float
    factor: float


def search_layout(
    session: SimulatedSession,
    machine: Machine,
    work: Work,
    layout: Layout,
    *,
    depth: Depth | None = None,
    say: Say | None = None,
) -> tuple[float, list[Move]]:
    """The fields of mm_struct and vm_area_struct to move to lines of their own, one after the other, each time the one
    with the largest gain: (throughput before, the moves). Fields without a gain stay where they are.

    Raises SimulateError if an answer is wrong.
    """
    depth = depth or Depth(rounds=6, accesses=2_000_000)

    def run(tried: Layout) -> tuple[float, list[str]]:
        found = session.right_run(machine, work, depth=depth, layout=tried)
        hot = [field.name for field in found.fields if field.name.partition(".")[0] in MOVABLE]
        return found.throughput, hot

    start, hot = run(layout)
    now, moves = start, []
    for _ in range(MOVES):
        best: tuple[float, str, list[str]] | None = None
        for field in [name for name in hot if name not in layout.apart][:CANDIDATES]:
            rate, then = run(replace(layout, apart=(*layout.apart, field)))
            if say is not None:
                say(f"{field}: {rate / now:.3f}")
            if best is None or rate > best[0]:
                best = rate, field, then
        if best is None or best[0] < now * GAIN:
            break
        rate, field, hot = best
        moves.append(Move(field, rate, rate / now))
        layout, now = replace(layout, apart=(*layout.apart, field)), rate
    return start, moves


SPACE: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "mixed": {"pages": (16, 512), "mappers": (1, 8), "turns": (5, 100)},
    "page_fault1": {"mib": (1, 4)},
    "mmap1": {"mib": (1, 128), "turns": (5, 100)},
    "multi-fault-all-split": {"vmas": (40, 2000)},
}
"""Workloads and the ranges of their parameters that the search for a bad load may use."""
CPUS = (2, 4, 8, 16, 32)
WORKS = (0.0, 300.0, 1000.0)
"""ns of declared work per fault, call and page."""


@dataclass(frozen=True)
class Load:
    """A runnable load: a workload's spec, CPUs, and declared work."""

    spec: str
    cpus: int
    work: float

    def options(self) -> str:
        """The load as options of ``benchframe simulate``."""
        told = f"-w {self.spec} --cpus {self.cpus}"
        return told + (f" --work fault={self.work:g},mapping={self.work:g},page={self.work:g}" if self.work else "")


@dataclass(frozen=True)
class Trial:
    """A load, and the throughput of both strategies on it; ``ratio`` is the first's over the second's."""

    load: Load
    first: float
    second: float

    @property
    def ratio(self) -> float:
        """Below 1: the first loses."""
        return self.first / self.second


def draw(rng: random.Random, machine: Machine) -> tuple[str, dict[str, int], int, float]:
    """A random load: workload, parameters (log-uniform), CPUs, work."""
    name = rng.choice(sorted(SPACE))
    values = {key: _within(rng, low, high) for key, (low, high) in SPACE[name].items()}
    return name, values, rng.choice([n for n in CPUS if n + 8 <= machine.cpus]), rng.choice(WORKS)


def _within(rng: random.Random, low: int, high: int) -> int:
    drawn: float = low * (high / low) ** rng.random()
    return max(low, min(high, round(drawn)))


def adversary(
    known: Registry,
    first: str,
    second: str,
    machine: Machine,
    work_of: Callable[[float], Work],
    *,
    tries: int,
    seed: int = 1,
    say: Say | None = None,
) -> list[Trial]:
    """Loads on which ``first`` loses most to ``second``, the worst first: half of ``tries`` are drawn at random, the
    others change one property of the worst so far. Raises SimulateError if either strategy answers wrongly."""
    rng = random.Random(seed)
    strategies = known.strategy(first), known.strategy(second)
    found: list[Trial] = []
    seen: dict[Load, Trial] = {}
    drawn: dict[Load, tuple[str, dict[str, int], int, float]] = {}
    for number in range(tries):
        point = draw(rng, machine)
        if found and number * 2 >= tries:
            point = _neighbour(rng, drawn[found[0].load], point)
        name, values, cpus, work = point
        load = Load(f"{name}:{','.join(f'{k}={v}' for k, v in values.items())}", cpus, work)
        if load in seen:
            continue
        rates = [_rate(known, strategy, load, machine, work_of(work)) for strategy in strategies]
        seen[load], drawn[load] = Trial(load, *rates), point
        found = sorted(seen.values(), key=lambda trial: (trial.ratio, trial.load.spec))
        if say is not None:
            say(f"{number + 1} of {tries}: {load.options()}: {seen[load].ratio:.3f}")
    return found


def _neighbour(
    rng: random.Random, best: tuple[str, dict[str, int], int, float], other: tuple[str, dict[str, int], int, float]
) -> tuple[str, dict[str, int], int, float]:
    """``best`` with one property taken from ``other``, or a parameter drawn again."""
    name, values, cpus, work = best
    what = rng.randrange(len(values) + 2)
    if what == 0:
        return name, values, other[2], work
    if what == 1:
        return name, values, cpus, other[3]
    key = sorted(values)[what - 2]
    return name, {**values, key: _within(rng, *SPACE[name][key])}, cpus, work


def _rate(known: Registry, strategy: Strategy, load: Load, machine: Machine, work: Work) -> float:
    session = SimulatedSession(strategy, known.spec(load.spec).trace(0, load.cpus), load.cpus)
    return session.right_run(machine, work, depth=Depth(rounds=4, accesses=600_000)).throughput


STRUCTURES = {"mm": MM, "vma": VMA}
"""Structures whose fields may be moved."""


def lines_of(layout: Layout, moves: Sequence[Move], structure: str = "mm") -> list[list[str]]:
    """The final order of a search: the fields of each line of ``structure``, without those that cost nothing."""
    from benchframe.simulator.session import costless

    slab = STRUCTURES[structure]
    apart = (*layout.apart, *(move.field for move in moves))
    words = replace(layout, apart=apart).words(structure, slab.struct, costless(slab)) or []
    lines: dict[int, list[str]] = {}
    for name, (offset, _) in slab.struct.fields.items():
        if words and words[offset // 8] >= 0:
            lines.setdefault(words[offset // 8], []).append(name)
    return [lines[number] for number in sorted(lines)]
