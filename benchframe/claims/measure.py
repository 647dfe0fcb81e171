"""Claims measured here, and the verdicts: is the direction the published one, and the order of magnitude?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from benchframe.claims.first_slot import counted
from benchframe.claims.published import Hit, HitClaim, TimeClaim
from benchframe.claims.streams import brk, threads
from benchframe.engine.placement import usable as cpus

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.stats import Ratio
    from benchframe.trace.format import Trace

REPRODUCED, DIRECTION, OTHER, UNDECIDED = "reproduced", "direction only", "not seen here", "undecided"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """One claim's end: ``lines`` are (what, published, measured), ``why`` explains a verdict that is not plain."""

    claim: HitClaim | TimeClaim
    lines: tuple[tuple[str, str, str], ...]
    verdict: str
    why: str = ""


def stream_of(known: Registry, name: str, crew: int = 0) -> Trace:
    """The events behind a workload's name, for ``crew`` real threads; ``@threads`` and ``@brk`` are made here."""
    made = {"@threads": threads, "@brk": brk}
    return made[name]() if name in made else known.spec(name).trace(1, crew)


# ---- counted --------------------------------------------------------------------------------------------------------


def percent(known: Registry, hit: Hit) -> float:
    """The hit rate here, in percent: of one pass over the timed events, every answer checked first."""
    from benchframe.engine.native import Session
    from benchframe.errors import EngineError

    strategy = known.strategy(hit.strategy)
    session = Session(counted(strategy) if hit.first else strategy, stream_of(known, hit.workload))
    tasks = session.machine.arrays["task_base"]
    start = int(tasks["strategy0"].sum())  # as the setup left it, which is what each pass starts from
    verdict = session.verify()
    if not verdict.ok:
        raise EngineError(f"{hit.strategy} on {hit.workload} answers wrongly: {verdict.what}")
    counts = session.counts()
    if not hit.first:
        return 100.0 * counts["hit_rate"]
    return 100.0 * (int(tasks["strategy0"].sum()) - start) / max(counts["hits"], 1.0)


def judge_hits(claim: HitClaim, found: Sequence[float]) -> Outcome:
    """The verdict on hit rates: within each load the order of the strategies, and each figure's distance."""
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
        return Outcome(claim, lines, verdict, f"outside the range: {', '.join(outside)}" if outside else "")
    loads: dict[str, list[tuple[Hit, float]]] = {}
    for hit, value in zip(claim.hits, found, strict=True):
        loads.setdefault(hit.workload, []).append((hit, value))
    contrary = [
        workload
        for workload, pairs in loads.items()
        if any((b[0].percent - a[0].percent) * (b[1] - a[1]) < 0 for a, b in pairwise(pairs))
    ]
    if contrary:
        return Outcome(claim, lines, OTHER, f"the other way round on {', '.join(contrary)}")
    far = [
        f"{hit.strategy} on {hit.workload}"
        for hit, value in zip(claim.hits, found, strict=True)
        if abs(value - hit.percent) > claim.within
    ]
    why = f"more than {claim.within:g} points away: {', '.join(far)}" if far else ""
    return Outcome(claim, lines, DIRECTION if far else REPRODUCED, why)


# ---- timed ----------------------------------------------------------------------------------------------------------


def crew_of(claim: TimeClaim) -> int:
    """How many real threads play the claim here: those of the publication, but at most one per CPU."""
    return min(claim.threads, cpus())


def lacks(claim: TimeClaim, known: Registry) -> str:
    """Why this claim cannot be judged here; empty if it can."""
    for name in (claim.strategy, claim.baseline):
        if name not in known.strategies:
            return f"no plugin brings {name}"
    if claim.cpus > cpus():
        return f"the effect is one of {claim.cpus} CPUs that fault at once; here are {cpus()}"
    if claim.threads and crew_of(claim) < 2:
        return f"the effect is one of {claim.threads} threads that fault at once; here is 1 CPU"
    return ""


def judge_time(claim: TimeClaim, ratio: Ratio) -> Outcome:
    """The verdict on a ratio and its 95 % interval."""
    what = f"{claim.strategy} / {claim.baseline}, ns per {_OPERATION[claim.figure]}"
    crew = crew_of(claim)
    if claim.threads:
        what += f", {crew} threads" + (f" (published: {claim.threads})" if crew < claim.threads else "")
    lines = ((what, f"{claim.ratio:.3g}", f"{ratio.value:.3g} [{ratio.low:.3g}, {ratio.high:.3g}]"),)
    if claim.same:
        inside = 1 - claim.tolerance <= ratio.low and ratio.high <= 1 + claim.tolerance
        outside = ratio.high < 1 - claim.tolerance or ratio.low > 1 + claim.tolerance
        band = f"the interval is not within {claim.tolerance:.0%} of 1"
        if inside:
            return Outcome(claim, lines, REPRODUCED)
        return Outcome(claim, lines, OTHER if outside else UNDECIDED, band)
    if ratio.low <= 1 <= ratio.high or ratio.n < 2:
        return Outcome(claim, lines, UNDECIDED, "the interval has 1 in it: --rounds")
    if (ratio.value - 1) * (claim.ratio - 1) < 0:
        far = f"; published with {claim.threads} threads, here {crew}" if crew < claim.threads else ""
        return Outcome(claim, lines, OTHER, f"the other way round{far}")
    share = abs(ratio.value - 1) / abs(claim.ratio - 1)
    if crew < claim.threads:
        return Outcome(
            claim, lines, DIRECTION, f"the size is one of {claim.threads} threads; here {crew} have a CPU each"
        )
    if 1 / claim.tolerance <= share <= claim.tolerance:
        return Outcome(claim, lines, REPRODUCED)
    return Outcome(claim, lines, DIRECTION, f"{share:.1f} times the published effect")


_OPERATION = {"lookup": "lookup", "fault": "fault", "mapping": "mapping call", "replay": "event"}


def measure(
    known: Registry,
    claims: Sequence[HitClaim | TimeClaim],
    rounds: int,
    say: Say,
    *,
    seconds: float = 0.02,
    cpu: int = -1,
    plugins: Sequence[str] = (),
    blocked: Sequence[str] = (),
) -> list[Outcome]:
    """Every claim's outcome, in their order. Those timed by one replay share their rounds: a process measures all their
    cells. Those of threads have rounds of their own.

    Raises EngineError (a wrong answer), ProbeError, DialectError.
    """
    from benchframe.engine.probe import ProbeError

    outcomes: dict[str, Outcome] = {}
    timed: list[TimeClaim] = []
    for claim in claims:
        if isinstance(claim, HitClaim):
            missing = [hit.strategy for hit in claim.hits if hit.strategy not in known.strategies]
            missing += [h.workload for h in claim.hits if h.workload[0] != "@" and h.workload not in known.workloads]
            if missing:
                outcomes[claim.name] = Outcome(claim, (), "not judged", f"no plugin brings {missing[0]}")
                continue
            say(f"counting {claim.name}")
            outcomes[claim.name] = judge_hits(claim, [percent(known, hit) for hit in claim.hits])
        elif lacks(claim, known):
            outcomes[claim.name] = Outcome(claim, (), "not judged", lacks(claim, known))
        else:
            timed.append(claim)
    if alone := [claim for claim in timed if not claim.threads]:
        outcomes.update(_timed(known, alone, rounds, say, seconds, cpu, plugins, blocked))
    for claim in timed:
        if claim.threads:  # each by itself: what threads find wrong ends this claim alone
            try:
                outcomes.update(_timed(known, [claim], rounds, say, 5 * seconds, cpu, plugins, blocked))
            except ProbeError as error:
                outcomes[claim.name] = Outcome(claim, (), "not judged", str(error))
    return [outcomes[claim.name] for claim in claims]


def _timed(
    known: Registry,
    claims: Sequence[TimeClaim],
    rounds: int,
    say: Say,
    seconds: float,
    cpu: int,
    plugins: Sequence[str],
    blocked: Sequence[str],
) -> dict[str, Outcome]:
    from benchframe.engine.native import compile_strategies
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
            Point(name, workloads.index(workload), threads=crew)
            for claim in claims
            for workload in claim.workloads
            for name in (claim.strategy, claim.baseline)
        )
    )
    streams = [stream_of(known, name, crew) for name in workloads]
    study = Study(strategies, streams, points, seconds, cpu, plugins, blocked)
    what = f"{claims[0].name}, " if crew else ""
    found = study.measure(rounds, 1, lambda number: say(f"{what}round {number + 1} of {rounds}"))
    outcomes = {}
    for claim in claims:
        sides: list[dict[int, float]] = [{}, {}]
        for number, row in enumerate(found):
            for side, name in zip(sides, (claim.strategy, claim.baseline), strict=True):
                ns = [
                    row[points.index(Point(name, workloads.index(w), threads=crew))].get(claim.figure, 0.0)
                    for w in claim.workloads
                ]
                if all(ns):
                    product = 1.0
                    for value in ns:
                        product *= value
                    side[number] = product ** (1 / len(ns))
        ratio = paired_ratio(*sides)
        if ratio is None:
            outcomes[claim.name] = Outcome(claim, (), UNDECIDED, "no round gave a figure above the noise")
        else:
            outcomes[claim.name] = judge_time(claim, ratio)
    return outcomes
