"""Published claims: the loads made for them are sound, the counted ones come out, and verdicts can go each way."""

from dataclasses import replace

import pytest
from support.compile import compiled, simulated
from support.environments import ROOT

from benchframe.engine.caches import USUAL
from benchframe.engine.job import spare_cpu
from benchframe.engine.probe import Point, ProbeError, Study
from benchframe.events import Kind
from benchframe.oracle import replay
from benchframe.registry import load
from benchframe.report.table import render
from benchframe.simulator.machines import load_machine, load_work
from benchframe.stats import Ratio
from benchframe.study import claims as measure
from benchframe.study.claims import (
    DIRECTION,
    OTHER,
    REPRODUCED,
    UNDECIDED,
    brk,
    claims_table,
    judge_curve,
    judge_hits,
    judge_time,
    lacks,
    threads,
)
from benchframe.study.published import CLAIMS, CurveClaim, Hit, HitClaim, TimeClaim

BY_NAME = {claim.name: claim for claim in CLAIMS}
PAIR = HitClaim("x", "says", "source", (Hit("a", "w", "old", 50.0), Hit("a", "w", "new", 80.0)), within=10.0)
CURVE = CurveClaim(
    name="c",
    says="says",
    source="source",
    strategy="rbtree",
    cpus=2,
    workload="multi-fault-all-split:vmas=40",
    machine="milan-2s",
    work="none",
    value=2.0,
    low=1.5,
    high=2.5,
    assumed="nothing",
    baseline="rbtree",
    baseline_cpus=1,
)
TIME = TimeClaim("t", "says", "source", "new", "old", "fault", ("w",), 0.8, 2.0)


def ratio(low: float, value: float, high: float) -> Ratio:
    """A ratio of six rounds."""
    return Ratio(6, value, low, high)


def test_names_are_those_of_plugins() -> None:
    """Every strategy and workload of a claim is there, and each claim has a name of its own and a source."""
    known = load()
    assert len(BY_NAME) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.source
        for hit in claim.hits if isinstance(claim, HitClaim) else ():
            assert hit.strategy in known.strategies
            assert hit.workload in {*known.workloads, "@threads"}
        if isinstance(claim, TimeClaim):
            assert {claim.strategy, claim.baseline} <= set(known.strategies)
            assert set(claim.workloads) <= {*known.workloads, "@brk"}
        if isinstance(claim, CurveClaim):
            assert {claim.strategy, claim.baseline or claim.strategy} <= set(known.strategies)
            assert load_machine(claim.machine).cpus >= max(claim.cpus, claim.baseline_cpus)
            assert load_work(claim.work).told()
            assert known.spec(claim.workload).trace(0, 1).events.size
            assert claim.low < claim.value < claim.high
            assert claim.assumed


@pytest.mark.parametrize("trace", [threads(events=2000), brk(events=400)], ids=["threads", "brk"])
def test_streams_end_where_they_began(trace: "object") -> None:
    """The made loads fail in no call and leave the layout as their setup left it, so that they can be repeated."""
    answers, before = replay(trace.events), replay(trace.events[: trace.setup])  # type: ignore[attr-defined]
    assert (answers.ret >= 0).all()
    assert answers.layouts == before.layouts
    timed = trace.events[trace.setup :]  # type: ignore[attr-defined]
    if timed["kind"][0] == Kind.LOOKUP:
        assert len(set(timed["task"].tolist())) == 80
    else:
        grown = answers.ret[trace.setup :]  # type: ignore[attr-defined]
        assert set(grown[1::2] - grown[::2]) == {-4096}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vmacache-ebizzy", "pmd-hash"])
def test_counted_claims_come_out(name: str) -> None:
    """80 threads leave one pointer per mm 1 hit in 80, and hashing by region puts the right slot first."""
    outcome = measure.measure(load(), [BY_NAME[name]], 2, lambda text: None)[0]
    assert outcome.verdict == REPRODUCED, outcome


@pytest.mark.parametrize(
    ("found", "verdict"),
    [((50.0, 80.0), REPRODUCED), ((45.0, 89.0), REPRODUCED), ((20.0, 30.0), DIRECTION), ((60.0, 55.0), OTHER)],
)
def test_verdicts_on_hits(found: tuple[float, float], verdict: str) -> None:
    """Near: reproduced. Far, but the same one ahead: direction only. The other one ahead: not seen."""
    assert judge_hits(PAIR, found).verdict == verdict


def test_verdicts_on_a_range() -> None:
    """A range claim names the loads outside it; when most are outside it is not seen here."""
    claim = replace(PAIR, hits=tuple(Hit("a", w, "old", 75.0) for w in "wxyz"), low=35.0)
    assert judge_hits(claim, (35.0, 50.0, 60.0, 75.0)).verdict == REPRODUCED
    outcome = judge_hits(claim, (34.0, 50.0, 60.0, 75.0))
    assert (outcome.verdict, outcome.why) == (DIRECTION, "outside the range: w 34 %")
    assert judge_hits(claim, (1.0, 2.0, 60.0, 75.0)).verdict == OTHER


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (ratio(0.75, 0.8, 0.85), REPRODUCED),
        (ratio(0.3, 0.4, 0.5), DIRECTION),
        (ratio(0.96, 0.97, 0.98), DIRECTION),
        (ratio(1.1, 1.2, 1.3), OTHER),
        (ratio(0.9, 0.95, 1.01), UNDECIDED),
        (Ratio(1, 0.8, float("nan"), float("nan")), UNDECIDED),
    ],
)
def test_verdicts_on_times(found: Ratio, verdict: str) -> None:
    """Side of 1 and distance from 1 decide; an interval with 1 in it decides nothing."""
    assert judge_time(TIME, found).verdict == verdict


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (ratio(0.95, 1.0, 1.05), REPRODUCED),
        (ratio(0.85, 1.0, 1.05), UNDECIDED),
        (ratio(1.15, 1.2, 1.3), OTHER),
    ],
)
def test_verdicts_on_no_difference(found: Ratio, verdict: str) -> None:
    """A claim of no difference needs the whole interval near 1; absence of proof is undecided."""
    assert judge_time(replace(TIME, ratio=1.0, same=True, tolerance=0.1), found).verdict == verdict


def test_a_claim_of_cold_caches_tells_warm_ones_beside() -> None:
    """The ratio at the published temperature is judged; the warm one is a line without a verdict; both say which."""
    claim = BY_NAME["vmacache-cycles"]
    assert claim.caches == USUAL
    outcome = judge_time(claim, ratio(0.8, 0.85, 0.9), ratio(1.2, 1.3, 1.4))
    assert outcome.verdict == REPRODUCED
    assert [line[0].rpartition(", ")[2] for line in outcome.lines] == ["@program", "warm"]
    assert outcome.lines[1][1:] == ("", "1.3 [1.2, 1.4]")
    assert "@program: before each timed event" in render(claims_table([outcome]), "text")


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ((1.9, 1.4, 3.0), REPRODUCED),
        ((1.4, 1.2, 1.6), DIRECTION),
        ((4.0, 3.0, 5.0), DIRECTION),
        ((1.4, 0.9, 1.6), UNDECIDED),
        ((0.9, 0.8, 1.1), OTHER),
    ],
)
def test_verdicts_on_curves(found: tuple[float, ...], verdict: str) -> None:
    """The machine as it is decides; the corners of its box decide how sure that is."""
    outcome = judge_curve(CURVE, found)
    assert outcome.verdict == verdict
    assert outcome.lines[0][2].endswith("simulated")


def test_a_rate_has_no_direction() -> None:
    """Without a baseline a figure is inside the published range, or its band is, or neither is."""
    claim = replace(CURVE, baseline="", value=2e6, low=1.8e6, high=2.2e6)
    for found, verdict in (((1.9e6,), REPRODUCED), ((1.7e6, 1.9e6), UNDECIDED), ((1.5e6, 1.6e6), OTHER)):
        assert judge_curve(claim, found).verdict == verdict
    assert judge_curve(claim, (1.9e6,)).lines[0][1] == "2 M/s"


def test_a_curve_is_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim's figure is that of its machine, then of the eight corners; two CPUs on mmap_lock are slower than one."""
    known = load()
    simulated(known.strategy("rbtree"))
    monkeypatch.setattr(measure, "DEPTH", 20_000)
    (outcome,) = measure.measure(known, [CURVE], 2, lambda text: None)
    assert outcome.verdict == OTHER, outcome
    found = measure.simulated(known, replace(CURVE, baseline=""), lambda text: None)
    assert len(found) == 9
    assert min(found) < found[0] < max(found)
    text = render(claims_table([outcome]), "text")
    assert "c, assumed: nothing." in text
    assert "simulated: not measured" in text


def test_what_needs_more_cpus_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim about many CPUs, about threads on one CPU, or about a strategy that is not there, says so and gets no
    figure."""
    known = load()
    monkeypatch.setattr(measure, "cpus", lambda: 2)
    outcome = measure.measure(known, [BY_NAME["refcnt-many-cpus"]], 2, lambda text: None)[0]
    assert (outcome.verdict, outcome.lines) == ("not judged", ())
    assert "21 CPUs" in outcome.why
    assert lacks(BY_NAME["per-vma-lock"], known) == ""
    assert lacks(TIME, known) == "no plugin defines new"
    text = render(claims_table([outcome]), "text")
    assert "0.871 on 21 CPUs" in text
    assert "not judged" in text
    monkeypatch.setattr(measure, "cpus", lambda: 1)
    assert "48 threads" in lacks(BY_NAME["per-vma-lock"], known)


@pytest.mark.parametrize(
    ("found", "cpus", "verdict", "why"),
    [
        (ratio(0.75, 0.8, 0.85), 2, DIRECTION, "the size is one of 8 threads; here 2 have their own CPU"),
        (ratio(0.75, 0.8, 0.85), 8, REPRODUCED, ""),
        (ratio(1.1, 1.2, 1.3), 2, OTHER, "the opposite direction; published with 8 threads, here 2"),
        (ratio(0.9, 0.95, 1.01), 2, UNDECIDED, "the interval contains 1; use more --rounds"),
    ],
)
def test_fewer_threads_give_a_direction_at_most(
    monkeypatch: pytest.MonkeyPatch, found: Ratio, cpus: int, verdict: str, why: str
) -> None:
    """With fewer CPUs than the publication had, the side of 1 is judged and the size is not, and the line says so."""
    monkeypatch.setattr(measure, "cpus", lambda: cpus)
    outcome = judge_time(replace(TIME, threads=8), found)
    assert (outcome.verdict, outcome.why) == (verdict, why)
    assert f"{cpus} threads" in outcome.lines[0][0]
    assert ("published: 8" in outcome.lines[0][0]) == (cpus < 8)


@pytest.mark.slow
def test_a_study_measures_threads_beside_replays() -> None:
    """One process measures a point of one replay and one of two threads, each on the CPUs that it should have."""
    known = load()
    strategies = {"rbtree": compiled(compiled(known.strategy("rbtree")), threads=True)}
    streams = [measure.stream_of(known, "multi-fault-all-split", crew) for crew in (0, 2)]
    study = Study(strategies, streams, [Point("rbtree", 0), Point("rbtree", 1, threads=2)], 0.01, cpu=spare_cpu() or 0)
    ((alone, together),) = study.measure(1, 1)
    assert {"fault", "replay"} <= alone.keys() & together.keys()


def test_a_wrong_answer_of_threads_ends_its_claim_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong in one claim of threads is that claim's reason; the others are judged."""
    known = load()
    claims = [BY_NAME["speculative-faults"], BY_NAME["per-vma-lock"]]

    def fails(known: object, claims: list[TimeClaim], *rest: object) -> dict[str, measure.ClaimResult]:
        if claims[0].strategy == "pmdcache":
            raise ProbeError("pmdcache answers wrongly")
        return {claims[0].name: measure.ClaimResult(claims[0], (), UNDECIDED)}

    monkeypatch.setattr(measure, "cpus", lambda: 2)
    monkeypatch.setattr(measure, "_timed", fails)
    outcomes = measure.measure(known, claims, 2, lambda text: None)
    assert [(o.verdict, o.why) for o in outcomes] == [("not judged", "pmdcache answers wrongly"), (UNDECIDED, "")]


def test_the_document_names_every_claim() -> None:
    """docs/claims.md has a line for each claim."""
    text = (ROOT / "docs" / "claims.md").read_text()
    for claim in CLAIMS:
        assert f"`{claim.name}`" in text
