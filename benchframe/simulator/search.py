"""Searches over simulations: numbers that fit this host, the best order of fields, the load that costs most.

The two searches for fields and loads are deterministic: the same call has the same result. Neither is exhaustive: they
report what they found, not that there is nothing else.

Calibration fits the single-CPU numbers of a machine to native runs on this host. With one CPU nothing is contended,
so a simulated operation takes its instructions times ``insn``, its atomic operations times ``atomic``, and what private
caches, memory and the store buffer add. The simulation counts the first two; it takes the rest from the machine that is
the base. :func:`fit` finds the two numbers for which the cells come nearest to what one native thread took. On a busy
machine a native thread takes longer, and so do the numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from benchframe.engine.threads import ThreadSession
from benchframe.mm.layout import MM, VMA
from benchframe.simulator.machines import Layout, Machine, Number, Work, load_work
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
    "multi-fault-all-split": {"vmas": (70, 2000)},
}
"""Workloads and the ranges of their parameters that the search for a bad load may use, with each number of CPUS."""
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


STRATEGIES = ("rbtree", "maple_rcu", "pmdcache_rcu")
WORKLOADS = ("multi-fault-all-split:vmas=300", "page_fault1:mib=1", "mmap1:mib=1")
ROUNDS, SECONDS = 20, 0.02
"""Native runs of each cell, and how long each lasts."""
LEAST = 1e-3
"""ns: an instruction takes this at least."""


@dataclass(frozen=True)
class Cell:
    """One strategy on one workload, per operation: what one native thread took, ``instructions`` and ``atomics`` as the
    simulation counts them, and the ``rest`` of the simulated time. Times in ns."""

    strategy: str
    workload: str
    native: float
    instructions: float
    atomics: float
    rest: float

    def simulated(self, insn: float, atomic: float) -> float:
        """ns of an operation on a machine with these numbers."""
        return self.instructions * insn + self.atomics * atomic + self.rest


def measured(known: Registry, base: Machine, say: Callable[[str], None]) -> list[Cell]:
    """The cells. A cell's native time is that of the fastest of ROUNDS rounds, since other load only adds to it. Raises
    EngineError (a wrong answer), DialectError, SimulateError."""
    nothing, unit = load_work("none"), base.changed({"insn": 1.0, "atomic": 1.0, "jitter": 0.0})
    found = []
    natives = []
    for name in STRATEGIES:
        for label in WORKLOADS:
            say(f"{name} on {label}")
            strategy, trace = known.strategy(name), known.spec(label).trace(0, 1)
            run = SimulatedSession(strategy, trace, 1, note=say).right_run(unit, nothing, depth=Depth())
            operations = max(1, sum(run.operations.values()))
            parts = {part: ns / operations for part, ns in run.parts.items()}
            instructions, atomics = parts.pop("instructions"), parts.pop("atomics")
            natives.append(ThreadSession(strategy, trace, 1, note=say))
            found.append(Cell(name, label, 0.0, instructions, atomics, sum(parts.values())))
    best = [float("inf")] * len(found)
    for number in range(ROUNDS):
        say(f"round {number + 1} of {ROUNDS}")
        for index, session in enumerate(natives):
            lap = session.measure(SECONDS)
            best[index] = min(best[index], 1e9 * lap.seconds / max(1, sum(lap.operations.values())))
    return [replace(cell, native=ns) for cell, ns in zip(found, best, strict=True)]


def fit(cells: Sequence[Cell]) -> tuple[float, float]:
    """``insn`` and ``atomic`` with the least sum of squared relative errors; neither is negative.

    >>> cells = [Cell("a", "w", 2.0 * i + 5.0 * a + 3.0, i, a, 3.0) for i, a in ((10, 1), (30, 2), (20, 9))]
    >>> [round(number, 6) for number in fit(cells)]
    [2.0, 5.0]
    """
    matrix = np.array([[cell.instructions / cell.native, cell.atomics / cell.native] for cell in cells])
    wanted = np.array([1 - cell.rest / cell.native for cell in cells])
    insn, atomic = (float(number) for number in np.linalg.lstsq(matrix, wanted, rcond=None)[0])
    if atomic < 0:
        atomic = 0.0
        insn = float(matrix[:, 0] @ wanted / (matrix[:, 0] @ matrix[:, 0]))
    if insn < LEAST:
        insn = LEAST
        left = wanted - insn * matrix[:, 0]
        atomic = max(0.0, float(matrix[:, 1] @ left / max(float(matrix[:, 1] @ matrix[:, 1]), 1e-12)))
    return insn, atomic


def error(cells: Sequence[Cell], insn: float, atomic: float) -> float:
    """The root mean square of the logarithm of simulated over native time."""
    return float(np.sqrt(np.mean([np.log(cell.simulated(insn, atomic) / cell.native) ** 2 for cell in cells])))


def calibrated(base: Machine, cells: Sequence[Cell], title: str) -> Machine:
    """``base`` with the fitted numbers. Their bounds are the least and the most of the fits without one of the cells;
    everything else keeps its value and says whose it is."""
    value = fit(cells)
    fits = [value, *(fit([*cells[:left], *cells[left + 1 :]]) for left in range(len(cells)))]
    numbers = {
        name: replace(old, standing="guess", source=f"as {base.name}: {old.source}")
        for name, old in base.numbers.items()
    }
    source = f"fitted to one native thread on {title}, {len(cells)} cells (benchframe simulate --calibrate)"
    for index, name in enumerate(("insn", "atomic")):
        own = [one[index] for one in fits]
        low, high = float(f"{min(own):.3g}"), float(f"{max(own):.3g}")
        middle = min(max(float(f"{value[index]:.3g}"), low), high)
        numbers[name] = Number(name, middle, low, high, "measured", source)
    about = f"{base.name}, with the time of an instruction and of an atomic operation as on {title}."
    return replace(base, title=f"{title}, calibrated", about=about, numbers=numbers)
