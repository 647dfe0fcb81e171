"""Measure published claims again with the strategies in their current state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import geometric_mean
from typing import TYPE_CHECKING

import numpy as np

from benchframe import stream
from benchframe.dialect.functions import hook, native
from benchframe.dialect.records import NULL
from benchframe.engine.caches import UNTOUCHED, Caches
from benchframe.engine.job import usable as cpus
from benchframe.events import Kind
from benchframe.mm.layout import PAGE_SHIFT, PMD_SHIFT, TASK
from benchframe.report.details import per_second
from benchframe.report.table import Table
from benchframe.strategy import Strategy
from benchframe.study.published import Claim, CurveClaim, Hit, HitClaim, TimeClaim
from benchframe.trace.trace import Trace

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.stats import Ratio
    from benchframe.trace.trace import Trace


# ----------------------------------------------------------------------------------------------------------------------
# Loads of published figures that no shipped workload represents: ``@threads`` and ``@brk``.

THREADS = 80
ARENA = 64
"""Pages of a thread's arena; each page is looked up in turn."""
HEAP = 1 << 40


def threads(seed: int = 1, events: int = 40_000) -> Trace:
    """ebizzy with 80 threads, as the vmacache commit ran it: each thread copies into memory of its own.

    malloc gives each thread an arena, so a thread's faults go through one VMA, page after page, and the scheduler
    interleaves the threads at random. It has only lookups, since ebizzy's arenas are not unmapped.
    """
    rng = np.random.default_rng(seed)
    layout = stream.tiles(THREADS + 2, ARENA, gap=1)
    born = stream.rows(Kind.THREAD, np.zeros(THREADS - 1, np.int64), np.arange(1, THREADS))
    who = rng.integers(0, THREADS, events)
    turn = np.zeros(events, np.int64)
    for task in range(THREADS):
        mine = who == task
        turn[mine] = np.arange(int(mine.sum()))
    timed = stream.lookup(layout.vm_start[who] + turn % ARENA * stream.PAGE)
    timed["task"] = who
    return stream.build([*layout.setup(), layout.tables(), born], timed, map_count=layout.map_count)


def brk(events: int = 20_000, vmas: int = 60) -> Trace:
    """will-it-scale's brk1: the break goes up by a page and down again, in an address space of ordinary size."""
    layout = stream.tiles(vmas, 4, gap=1)
    at = np.array([HEAP, HEAP + stream.PAGE])
    once = stream.rows(Kind.BRK, np.array([HEAP + 2 * stream.PAGE, HEAP + stream.PAGE]))
    setup = [*layout.setup(), layout.tables(), stream.rows(Kind.BRK, at)]
    return stream.build(setup, np.tile(once, events // 2), map_count=layout.map_count + 2)


# ----------------------------------------------------------------------------------------------------------------------
# How often the hashed slot of an address gave the hit, for strategies that use task.vmacache0 to 3.


@hook("claims", mandatory=True)
def plain_find(mm, task, addr):  # type: ignore[no-untyped-def]
    """The strategy's own cache_find."""


@native
def slot_of(mm, task, slot):  # type: ignore[no-untyped-def]
    """The content of slot 0 to 3."""
    t = TASK(mm, task)
    if slot == 0:
        return t.vmacache0
    if slot == 1:
        return t.vmacache1
    if slot == 2:
        return t.vmacache2
    return t.vmacache3


@native
def find_by_page(mm, task, addr):  # type: ignore[no-untyped-def]
    """cache_find; task.strategy0 counts hits in the page's slot."""
    vma = plain_find(mm, task, addr)
    if vma != NULL and slot_of(mm, task, (addr >> PAGE_SHIFT) & 3) == vma:  # type: ignore[no-untyped-call]
        TASK(mm, task).strategy0 += 1
    return vma


@native
def find_by_region(mm, task, addr):  # type: ignore[no-untyped-def]
    """cache_find; task.strategy0 counts hits in the slot of the 2 MiB region."""
    vma = plain_find(mm, task, addr)
    if vma != NULL and slot_of(mm, task, (addr >> PMD_SHIFT) & 3) == vma:  # type: ignore[no-untyped-call]
        TASK(mm, task).strategy0 += 1
    return vma


def counted(strategy: Strategy) -> Strategy:
    """``strategy`` (vmacache, or its PMD variant) with the count in task.strategy0; its answers are the same."""
    find = find_by_region if strategy.name.endswith("_pmd") else find_by_page
    binding = {**strategy.binding, "cache_find": find, "plain_find": strategy.binding["cache_find"]}
    return replace(strategy, name=f"{strategy.name}-first-slot", binding=binding)


# ----------------------------------------------------------------------------------------------------------------------
# Claims measured here, and the verdicts: whether direction and order of magnitude agree with the publication.

REPRODUCED, DIRECTION, OTHER, UNDECIDED = "reproduced", "direction only", "not seen here", "undecided"
Say = Callable[[str], None]


@dataclass(frozen=True)
class ClaimResult:
    """The outcome of one claim: ``lines`` are (what, published, measured), ``why`` explains a verdict that needs it."""

    claim: Claim
    lines: tuple[tuple[str, str, str], ...]
    verdict: str
    why: str = ""


def stream_of(known: Registry, name: str, crew: int = 0) -> Trace:
    """The events behind a workload's name, for ``crew`` real threads; ``@threads`` and ``@brk`` are made here."""
    made = {"@threads": threads, "@brk": brk}
    return made[name]() if name in made else known.spec(name).trace(1, crew)


# ---- counted ---------------------------------------------------------------------------------------------------------


def percent(known: Registry, hit: Hit) -> float:
    """The hit rate here, in percent: from one pass over the timed events, after checking every answer."""
    from benchframe.engine.session import Session
    from benchframe.errors import EngineError

    strategy = known.strategy(hit.strategy)
    session = Session(counted(strategy) if hit.first else strategy, stream_of(known, hit.workload))
    tasks = session.machine.arrays["task_base"]
    start = int(tasks["strategy0"].sum())  # the state after the setup, from which each pass starts
    verdict = session.verify()
    if not verdict.ok:
        raise EngineError(f"{hit.strategy} on {hit.workload} gives a wrong answer: {verdict.what}")
    counts = session.counts()
    if not hit.first:
        return 100.0 * counts["hit_rate"]
    return 100.0 * (int(tasks["strategy0"].sum()) - start) / max(counts["hits"], 1.0)


def judge_hits(claim: HitClaim, found: Sequence[float]) -> ClaimResult:
    """The verdict on hit rates: the order of the strategies within each load, and the distance of each figure."""
    lines = tuple(
        (
            f"{hit.strategy}, {hit.load}" if claim.low is None else f"{hit.strategy}, {hit.workload}",
            f"{claim.low:.0f} to {hit.percent:.0f} %" if claim.low is not None else f"{hit.percent:.4g} %",
            f"{value:.4g} %",
        )
        for hit, value in zip(claim.hits, found, strict=True)
    )
    if claim.low is not None:
        outside = [
            f"{hit.workload} {value:.0f} %"
            for hit, value in zip(claim.hits, found, strict=True)
            if not claim.low <= value <= hit.percent
        ]
        verdict = REPRODUCED if not outside else DIRECTION if len(outside) < len(found) / 2 else OTHER
        return ClaimResult(claim, lines, verdict, f"outside the range: {', '.join(outside)}" if outside else "")
    loads: dict[str, list[tuple[Hit, float]]] = {}
    for hit, value in zip(claim.hits, found, strict=True):
        loads.setdefault(hit.workload, []).append((hit, value))
    contrary = [
        workload
        for workload, pairs in loads.items()
        if any((b[0].percent - a[0].percent) * (b[1] - a[1]) < 0 for a, b in pairwise(pairs))
    ]
    if contrary:
        return ClaimResult(claim, lines, OTHER, f"the opposite on {', '.join(contrary)}")
    far = [
        f"{hit.strategy} on {hit.workload}"
        for hit, value in zip(claim.hits, found, strict=True)
        if abs(value - hit.percent) > claim.within
    ]
    why = f"more than {claim.within:g} points away: {', '.join(far)}" if far else ""
    return ClaimResult(claim, lines, DIRECTION if far else REPRODUCED, why)


# ---- timed -----------------------------------------------------------------------------------------------------------


def crew_of(claim: TimeClaim) -> int:
    """The number of real threads for the claim here: that of the publication, but at most one per CPU."""
    return min(claim.threads, cpus())


def lacks(claim: TimeClaim, known: Registry) -> str:
    """Why this claim cannot be judged here; empty if it can."""
    for name in (claim.strategy, claim.baseline):
        if name not in known.strategies:
            return f"no plugin defines {name}"
    if claim.cpus > cpus():
        return f"the effect is one of {claim.cpus} CPUs that fault at once; this machine has {cpus()}"
    if claim.threads and crew_of(claim) < 2:
        return f"the effect is one of {claim.threads} threads that fault at once; this machine has 1 CPU"
    return ""


def judge_time(claim: TimeClaim, ratio: Ratio, warm: Ratio | None = None) -> ClaimResult:
    """The verdict on a ratio and its 95 % interval; ``warm``, the ratio with warm caches, is told and not judged."""
    found = _judge_time(claim, ratio)
    if warm is None:
        return found
    what, _, _ = found.lines[0]
    beside = (what.replace(f"@{claim.caches.label}", "warm"), "", _with_interval(warm))
    return replace(found, lines=(*found.lines, beside))


def _with_interval(ratio: Ratio) -> str:
    return f"{ratio.value:.3g} [{ratio.low:.3g}, {ratio.high:.3g}]"


def _judge_time(claim: TimeClaim, ratio: Ratio) -> ClaimResult:
    what = f"{claim.strategy} / {claim.baseline}, ns per {_OPERATION[claim.figure]}"
    if not claim.caches.warm:
        what += f", @{claim.caches.label}"
    crew = crew_of(claim)
    if claim.threads:
        what += f", {crew} threads" + (f" (published: {claim.threads})" if crew < claim.threads else "")
    lines = ((what, f"{claim.ratio:.3g}", _with_interval(ratio)),)
    if claim.same:
        inside = 1 - claim.tolerance <= ratio.low and ratio.high <= 1 + claim.tolerance
        outside = ratio.high < 1 - claim.tolerance or ratio.low > 1 + claim.tolerance
        band = f"the interval is not within {claim.tolerance:.0%} of 1"
        if inside:
            return ClaimResult(claim, lines, REPRODUCED)
        return ClaimResult(claim, lines, OTHER if outside else UNDECIDED, band)
    if ratio.low <= 1 <= ratio.high or ratio.n < 2:
        return ClaimResult(claim, lines, UNDECIDED, "the interval contains 1; use more --rounds")
    if (ratio.value - 1) * (claim.ratio - 1) < 0:
        far = f"; published with {claim.threads} threads, here {crew}" if crew < claim.threads else ""
        return ClaimResult(claim, lines, OTHER, f"the opposite direction{far}")
    share = abs(ratio.value - 1) / abs(claim.ratio - 1)
    if crew < claim.threads:
        return ClaimResult(
            claim, lines, DIRECTION, f"the size is one of {claim.threads} threads; here {crew} have their own CPU"
        )
    if 1 / claim.tolerance <= share <= claim.tolerance:
        return ClaimResult(claim, lines, REPRODUCED)
    return ClaimResult(claim, lines, DIRECTION, f"{share:.1f} times the published effect")


# ---- simulated -------------------------------------------------------------------------------------------------------

DEPTH = 500_000
"""Accesses of a simulated run."""


def simulated(known: Registry, claim: CurveClaim, say: Say) -> list[float]:
    """The claim's figure on its machine, then at each corner of the box of the machine's numbers.

    Raises SimulateError (a wrong answer, a host without a stack switch), DialectError.
    """
    from benchframe.simulator.machines import box, load_layout, load_machine, load_work
    from benchframe.simulator.session import Depth, SimulatedSession

    machine, work = load_machine(claim.machine), load_work(claim.work)
    sides: list[list[float]] = []
    machines = [machine, *(corner for _, corner in box(machine))]
    for name, crew, order in (
        (claim.strategy, claim.cpus, claim.layout),
        (claim.baseline, claim.baseline_cpus, claim.baseline_layout),
    ):
        if name:
            layout = load_layout(order)
            trace = known.spec(claim.workload).trace(0, crew)
            session = SimulatedSession(known.strategy(name), trace, crew, note=lambda text: say(f"compiled {text}"))
            depth = Depth(accesses=DEPTH)
            sides.append([session.right_run(m, work, depth=depth, layout=layout).throughput for m in machines])
    return sides[0] if len(sides) == 1 else [one / other for one, other in zip(*sides, strict=True)]


def judge_curve(claim: CurveClaim, found: Sequence[float]) -> ClaimResult:
    """The verdict on a simulated figure, the first of ``found``; all of them are its band."""
    value, low, high = found[0], min(found), max(found)
    what = f"{claim.strategy} on {claim.cpus} CPUs"
    if claim.baseline:
        what += f" / {claim.baseline} on {claim.baseline_cpus}"
    told = f"{_rate(claim, value)} [{_rate(claim, low)}, {_rate(claim, high)}] simulated"
    lines = ((f"{what}, {claim.machine}", _rate(claim, claim.value), told),)
    if claim.low <= value <= claim.high:
        return ClaimResult(claim, lines, REPRODUCED)
    why = f"outside {_rate(claim, claim.low)} to {_rate(claim, claim.high)}"
    if claim.baseline and (value - 1) * (claim.value - 1) > 0 and (low - 1) * (high - 1) > 0:
        return ClaimResult(claim, lines, DIRECTION, why)
    if low <= claim.high and claim.low <= high:
        return ClaimResult(claim, lines, UNDECIDED, f"{why}, but its band is not")
    return ClaimResult(claim, lines, OTHER, why)


def _rate(claim: CurveClaim, value: float) -> str:
    return f"{value:.3g}" if claim.baseline else f"{per_second(value)}/s"


_OPERATION = {"lookup": "lookup", "fault": "fault", "mapping": "mapping call", "replay": "event"}


def measure(
    known: Registry,
    claims: Sequence[Claim],
    rounds: int,
    say: Say,
    *,
    seconds: float = 0.02,
    cpu: int = -1,
    plugins: Sequence[str] = (),
    blocked: Sequence[str] = (),
) -> list[ClaimResult]:
    """Every claim's outcome, in order. Claims timed by a single replay share their rounds: a process measures all their
    cells. Claims about threads have rounds of their own.

    Raises EngineError (a wrong answer), ProbeError, DialectError.
    """
    from benchframe.engine.probe import ProbeError

    outcomes: dict[str, ClaimResult] = {}
    timed: list[TimeClaim] = []
    for claim in claims:
        if isinstance(claim, HitClaim):
            missing = [hit.strategy for hit in claim.hits if hit.strategy not in known.strategies]
            missing += [h.workload for h in claim.hits if h.workload[0] != "@" and h.workload not in known.workloads]
            if missing:
                outcomes[claim.name] = ClaimResult(claim, (), "not judged", f"no plugin defines {missing[0]}")
                continue
            say(f"counting {claim.name}")
            outcomes[claim.name] = judge_hits(claim, [percent(known, hit) for hit in claim.hits])
        elif isinstance(claim, CurveClaim):
            outcomes[claim.name] = _curve(known, claim, say)
        elif lacks(claim, known):
            outcomes[claim.name] = ClaimResult(claim, (), "not judged", lacks(claim, known))
        else:
            timed.append(claim)
    if alone := [claim for claim in timed if not claim.threads]:
        outcomes.update(_timed(known, alone, rounds, say, seconds, cpu, plugins, blocked))
    for claim in timed:
        if claim.threads:  # one by one: an error of the threads ends only this claim
            try:
                outcomes.update(_timed(known, [claim], rounds, say, 5 * seconds, cpu, plugins, blocked))
            except ProbeError as error:
                outcomes[claim.name] = ClaimResult(claim, (), "not judged", str(error))
    return [outcomes[claim.name] for claim in claims]


def _curve(known: Registry, claim: CurveClaim, say: Say) -> ClaimResult:
    from benchframe.simulator.machines import SimulateError

    missing = [name for name in (claim.strategy, claim.baseline) if name and name not in known.strategies]
    if missing:
        return ClaimResult(claim, (), "not judged", f"no plugin defines {missing[0]}")
    say(f"simulating {claim.name}")
    try:
        return judge_curve(claim, simulated(known, claim, say))
    except SimulateError as error:
        return ClaimResult(claim, (), "not judged", str(error))


def _timed(
    known: Registry,
    claims: Sequence[TimeClaim],
    rounds: int,
    say: Say,
    seconds: float,
    cpu: int,
    plugins: Sequence[str],
    blocked: Sequence[str],
) -> dict[str, ClaimResult]:
    from benchframe.engine.compile import compile_strategies
    from benchframe.engine.probe import Point, Study
    from benchframe.stats import paired_ratio

    workloads = list(dict.fromkeys(name for claim in claims for name in claim.workloads))
    names = list(dict.fromkeys(name for claim in claims for name in (claim.strategy, claim.baseline)))
    strategies = {name: known.strategy(name) for name in names}
    crew = crew_of(claims[0])
    builds = ("threads",) if crew else ("one",)
    compile_strategies(list(strategies.values()), lambda name, share: say(f"compiled {name}"), cpus(), builds)
    points = list(
        dict.fromkeys(
            Point(name, workloads.index(workload), threads=crew, caches=str(state))
            for claim in claims
            for workload in claim.workloads
            for state in (claim.caches, UNTOUCHED)
            for name in (claim.strategy, claim.baseline)
        )
    )
    streams = [stream_of(known, name, crew) for name in workloads]
    study = Study(strategies, streams, points, seconds, cpu, plugins, blocked)
    what = f"{claims[0].name}, " if crew else ""
    found = study.measure(rounds, 1, lambda number: say(f"{what}round {number + 1} of {rounds}"))

    def ratio(claim: TimeClaim, state: Caches) -> Ratio | None:
        sides: list[dict[int, float]] = [{}, {}]
        for number, row in enumerate(found):
            for side, name in zip(sides, (claim.strategy, claim.baseline), strict=True):
                where = [Point(name, workloads.index(w), threads=crew, caches=str(state)) for w in claim.workloads]
                ns = [row[points.index(point)].get(claim.figure, 0.0) for point in where]
                if all(ns):
                    side[number] = geometric_mean(ns)
        return paired_ratio(*sides)

    outcomes = {}
    for claim in claims:
        judged = ratio(claim, claim.caches)
        if judged is None:
            outcomes[claim.name] = ClaimResult(claim, (), UNDECIDED, "in every round noise hides the figure")
        else:
            warm = None if claim.caches.warm else ratio(claim, UNTOUCHED)
            outcomes[claim.name] = judge_time(claim, judged, warm)
    return outcomes


# ----------------------------------------------------------------------------------------------------------------------
# Outcomes of claims as a table.


def claims_table(outcomes: Sequence[ClaimResult]) -> Table:
    """Published and measured figures, one row each; sources and reasons are notes."""
    heads = ("claim", "what", "published", "measured", "verdict")
    rows: list[tuple[str, ...]] = []
    for outcome in outcomes:
        lines = outcome.lines or ((outcome.claim.says, _published(outcome), "-"),)
        for number, (what, published, measured) in enumerate(lines):
            rows.append((outcome.claim.name, what, published, measured, "" if number else outcome.verdict))
    notes = [f"{o.claim.name}: {o.claim.says}. {o.claim.source}." for o in outcomes]
    notes += [f"{o.claim.name}, assumed: {o.claim.assumed}." for o in outcomes if isinstance(o.claim, CurveClaim)]
    notes += [f"{o.claim.name}, {o.verdict}: {o.why}." for o in outcomes if o.why]
    states = dict.fromkeys(o.claim.caches for o in outcomes if isinstance(o.claim, TimeClaim) and o.lines)
    notes += [f"@{state.label}: {state.says()}." for state in states if not state.warm]
    if any(isinstance(o.claim, CurveClaim) for o in outcomes):
        notes.append(
            "simulated: not measured; in brackets least and most over the corners of what the machine may be "
            "(docs/simulation.md)."
        )
    notes.append(
        "reproduced: same direction and order of magnitude; direction only: same direction, another size; published "
        "figures are from other machines and loads."
    )
    return Table(
        "published claims",
        heads,
        tuple(rows),
        (False, False, True, True, False),
        tuple(dict(zip(heads, row, strict=True)) for row in rows),
        tuple(notes),
    )


def _published(outcome: ClaimResult) -> str:
    claim = outcome.claim
    if isinstance(claim, CurveClaim):
        return f"{_rate(claim, claim.value)} on {claim.cpus} CPUs"
    return f"{claim.ratio:.3g} on {claim.cpus} CPUs" if isinstance(claim, TimeClaim) else ""
