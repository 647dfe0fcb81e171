"""The native engine: a wrong answer is named and never timed; figures, counts and latencies are what they say."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.space import registry, runner, strategy
from support.wrong_strategy import WRONG

from benchframe import stream, units
from benchframe import verify as answers
from benchframe.dialect.store import Store
from benchframe.engine.compile import ONE, compile_strategies, missing, needed
from benchframe.engine.session import Session, prepare
from benchframe.errors import EngineError
from benchframe.events import EVENT, Kind
from benchframe.mm.machine import Parameters
from benchframe.runner import unit_store
from benchframe.strategy import resolve

ZIPF = "zipf:vmas=60,events=3000"
CHURN = "mmap-churn:vmas=40,events=2000"


def session(spec: str, name: str = "rbtree", **options: Any) -> Session:
    """One strategy on one stream."""
    runner(name, "native")
    return Session(strategy(name), registry().spec(spec).trace(1), **options)


# ---- right before fast ----


def test_a_wrong_strategy_is_caught_and_not_timed() -> None:
    """The verdict names the event, both answers and the strategy; measure refuses with the same words."""
    runner("rbtree", "native")
    wrong = Session(resolve(WRONG, registry().strategies), registry().spec(ZIPF).trace(1))
    verdict = wrong.verify()
    assert not verdict.ok
    event = wrong.trace.events[verdict.event]
    assert event["kind"] in (Kind.FAULT, Kind.LOOKUP)
    assert verdict.what.startswith(f"event {verdict.event} (")
    assert f"{int(event['addr']):#x}" in verdict.what
    assert "off-by-one says" in verdict.what
    assert "the oracle 0 in" in verdict.what
    right = session(ZIPF)
    assert right.verify().ok
    ours, theirs = (s.machine.arrays["answer_base"]["vm_start"][: verdict.event] for s in (wrong, right))
    np.testing.assert_array_equal(ours[wrong.first :], theirs[wrong.first :])
    with pytest.raises(EngineError, match="not timed, because an answer is wrong: event"):
        wrong.measure(1)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_every_answer_is_compared(monkeypatch: pytest.MonkeyPatch, column: int) -> None:
    """One number of the oracle's changed in one event, result or bounds: the verdict names that event."""
    real = answers.expected

    def falsified(events: Any, parameters: Parameters) -> Any:
        table = [part.copy() for part in real(events, parameters)]
        looked = np.flatnonzero(np.isin(events["kind"], (Kind.FAULT, Kind.LOOKUP)))
        table[column][looked[-1]] += 4096
        return tuple(table)

    monkeypatch.setattr("benchframe.engine.session.expected", falsified)
    verdict = session(ZIPF).verify()
    assert not verdict.ok
    assert verdict.event == 60 + 3000 - 1 or verdict.event > 3000 - 100


def test_results_of_calls_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of a mapping call too."""
    real = answers.expected

    def falsified(events: Any, parameters: Parameters) -> Any:
        table = [part.copy() for part in real(events, parameters)]
        table[0][np.flatnonzero(events["kind"] == Kind.MUNMAP)[3]] = -22
        return tuple(table)

    monkeypatch.setattr("benchframe.engine.session.expected", falsified)
    verdict = session(CHURN).verify()
    assert not verdict.ok
    assert "MUNMAP" in verdict.what


def test_the_final_layout_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rights that no lookup shows are seen in the layout at the end."""
    real = answers.expected

    def falsified(events: Any, parameters: Parameters) -> Any:
        table = [part.copy() for part in real(events, parameters)]
        table[3][0, 3] ^= 4
        return tuple(table)

    monkeypatch.setattr("benchframe.engine.session.expected", falsified)
    verdict = session(ZIPF).verify()
    assert not verdict.ok
    assert "after the replay: mm 0 has" in verdict.what


def test_damage_is_seen_after_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """validate_mm runs on what the replay left."""
    one = session(ZIPF)
    replay = one.runner.replay

    def damaging(first: int, last: int) -> None:
        replay(first, last)
        one.machine.mm(0)["rss"] += 1

    monkeypatch.setattr(one.runner, "replay", damaging)
    verdict = one.verify()
    assert not verdict.ok
    assert "rss says" in verdict.what


# ---- figures ----


def test_times_have_what_the_trace_has() -> None:
    """Each figure is a positive number of ns, or NaN where no such operation is in the stream."""
    lookups, churn = session("uniform:vmas=60,events=3000"), session(CHURN)
    assert lookups.n_mapping == 0
    times = lookups.measure(3)
    assert times.loops == 3
    assert times.seconds > 0
    assert math.isnan(times.mapping_ns)
    assert times.replay_ns > 0
    assert math.isnan(times.fault_ns) == (lookups.n_faults == 0)
    assert math.isfinite(times.lookup_ns)
    times = churn.measure(2)
    assert times.mapping_ns > 0
    assert churn.n_mapping > 0
    assert churn.n_lookups == churn.n_faults + churn.n_bare
    assert churn.n_events == churn.n_lookups + churn.n_mapping


def test_measuring_changes_nothing() -> None:
    """Counts and verdicts before and after timing and sampling are equal: each replay starts from the saved state."""
    one = session(CHURN, "pmdcache")
    before = one.counts()
    one.measure(2)
    one.latencies()
    assert one.counts() == before
    one._verdict = None
    assert one.verify().ok


@pytest.mark.parametrize("name", ["rbtree", "sorted_array"])
@pytest.mark.parametrize("sampled", [False, True])
def test_timed_lookups_are_not_optimised_away(name: str, sampled: bool) -> None:
    """What timed events answer is used, so a compiler cannot drop a lookup; halving an array provably ends."""
    one = session(ZIPF, name)
    assert one.verify().ok
    found = one.machine.arrays["answer_base"]["vma"][one.first : one.last].sum()
    assert found > 0
    one.machine.restore(one._saved)
    (one.runner.sample if sampled else one.runner.timed)(one.first, one.last)
    assert one.machine.arrays["answer_base"]["ret"][one.first] == found


def test_counts() -> None:
    """Lookups are those of the stream at least; splits, merges and peaks are what the stream does."""
    counts = session(CHURN, "mmap_cache").counts()
    assert counts["hit_rate"] == counts["hits"] / counts["lookups"]
    assert counts["invalidations"] > 0
    assert counts["vmas_peak"] >= 40
    assert counts["page_tables_peak"] >= 4
    assert session(ZIPF).counts()["invalidations"] == 0


def test_latencies() -> None:
    """Percentiles rise, the outcomes add up, and the clock's own cost is stated."""
    one = session(ZIPF, "mmap_cache")
    rows = {(row.figure, row.outcome): row for row in one.latencies()}
    for row in rows.values():
        assert 0 <= row.p50 <= row.p90 <= row.p99 <= row.p999 <= row.max
    figure = "fault" if one.n_faults else "lookup"
    hit, miss, both = (rows.get((figure, outcome)) for outcome in ("hit", "miss", "all"))
    assert both is not None
    assert both.n == (hit.n if hit else 0) + (miss.n if miss else 0)
    assert one.timer_overhead_ns > 0


def test_layout_seed_moves_records_not_answers() -> None:
    """Another layout seed puts VMA records elsewhere; every count is the same."""
    one, two = session(ZIPF), session(ZIPF, layout_seed=5)
    assert one.verify().ok
    assert two.verify().ok
    assert one.counts() == two.counts()
    slots = [s.machine.arrays["answer_base"]["vma"][s.first :].tolist() for s in (one, two)]
    assert slots[0] != slots[1]


def test_nothing_to_measure() -> None:
    """A stream that is all setup says so."""
    trace = registry().spec(ZIPF).trace(1)
    trace.setup = len(trace.events)
    with pytest.raises(EngineError, match="nothing to measure"):
        Session(strategy("rbtree"), trace)


def test_warm_compile_is_empty() -> None:
    """When everything is in the store nothing is compiled and no process is started."""
    runner("rbtree", "native")
    assert compile_strategies([strategy("rbtree"), strategy("pmdcache")]) == []


def test_what_is_to_be_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an empty store: what all share in front, for each allocator once, then a group for each strategy; equal code
    under two names once."""
    monkeypatch.setattr(units, "_loaded", {})
    chosen = [strategy("rbtree"), strategy("mmap_cache"), replace(strategy("mmap_cache"), name="again")]
    kernels = ["linux-2.6.32", "linux-3.15"]
    groups = needed([*chosen, *map(strategy, kernels)], frozenset({ONE}))
    names = missing(unit_store(Store(tmp_path)), groups)
    assert names[0] == ["mapping", f"mapping-{kernels[-1]}", "known"]
    assert names[1:] == [
        [f"{kind}-{name}" for kind in ("hooks", "replay", "checked")] for name in ("rbtree", "mmap_cache", *kernels)
    ]


# ---- streams ----


def rows(*events: tuple[Kind, int, int, int, int]) -> Any:
    """Events from (kind, mm, task, addr, len)."""
    made = np.zeros(len(events), EVENT)
    for row, (kind, mm, task, addr, length) in zip(made, events, strict=True):
        row["kind"], row["mm"], row["task"], row["addr"], row["len"] = kind, mm, task, addr, length
    return made


def test_last_exit_of_an_mm() -> None:
    """Only the EXIT of an mm's last task ends it; threads, forks and exec are followed."""
    stream = prepare(
        rows(
            (Kind.EXEC, 0, 0, -1, 0),
            (Kind.THREAD, 0, 0, 0, 1),
            (Kind.FORK, 0, 0, 1, 2),
            (Kind.EXIT, 0, 0, 0, 9),
            (Kind.EXIT, 1, 2, 0, 9),
            (Kind.LOOKUP, 0, 1, 5, 0),
            (Kind.EXIT, 0, 1, 0, 9),
        )
    )
    assert stream.records["len"].tolist() == [0, 1, 2, 0, 1, 0, 1]
    assert list(stream.boots) == []


def test_mms_that_were_there_before() -> None:
    """An mm that a recording attached to, with neither EXEC nor FORK, is booted first."""
    stream = prepare(rows((Kind.LOOKUP, 0, 0, 5, 0), (Kind.LOOKUP, 2, 1, 5, 0), (Kind.EXEC, 3, 2, -1, 0)))
    assert list(stream.boots) == [2]


def test_class_runs() -> None:
    """How often the clock is read for faults, lookups and mapping calls: once where the class changes."""
    kinds = [Kind.MMAP, Kind.FAULT, Kind.FAULT, Kind.LOOKUP, Kind.FAULT, Kind.BRK, Kind.MMAP]
    stream = prepare(rows(*[(kind, 0, 0, 0, 0) for kind in kinds]))
    assert stream.class_runs(0) == (2, 1, 2)
    assert stream.class_runs(4) == (1, 0, 1)


# ---- the oracle's answers on disk ----


def test_answers_depend_on_the_oracle() -> None:
    """What is kept on disk is kept under the oracle's own source: its rules and its replay are part of the key."""
    assert {"rules.py", "space.py", "calls.py"} <= {path.name for path in answers._sources()}


def test_answers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second question is answered from the file; a damaged file is asked again; other limits are another file."""
    monkeypatch.setenv("BENCHFRAME_CACHE_DIR", str(tmp_path))
    trace = registry().spec(ZIPF).trace(1)
    first = answers.expected(trace.events, Parameters())
    (path,) = (tmp_path / "answers").iterdir()
    calls: list[int] = []
    real = answers.replay

    def counting(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return real(*args, **options)

    monkeypatch.setattr(answers, "replay", counting)
    for ours, theirs in zip(first, answers.expected(trace.events, Parameters()), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert calls == []
    path.write_bytes(path.read_bytes()[:100])
    for ours, theirs in zip(first, answers.expected(trace.events, Parameters()), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(calls) == 1
    answers.expected(trace.events, Parameters(max_map_count=100))
    assert len(calls) == 2
    assert len(list((tmp_path / "answers").iterdir())) == 2


def test_huge_pages_that_were_asked_for() -> None:
    """MADV_HUGEPAGE, a read of a free 2 MiB region, a fork, and the child makes a neighbour equal. Whether they merge
    depends on huge pages, which the model leaves out: so does the oracle that judges it."""
    huge, advice = 2 << 20, 14
    at = 64 * huge
    child = stream.by(1, stream.mprotect(at + 4 * huge, huge, 3), stream.fault(at), mm=1)
    areas = [(at, 4 * huge, 3), (at + 4 * huge, huge, 1)]
    setup = [
        part
        for start, length, prot in areas
        for part in (stream.mmap(start, length, prot), stream.rows(Kind.MADVISE, start, length, flags=advice))
    ]
    setup += [stream.fault(at + huge), stream.rows(Kind.FORK, 1, 1)]
    trace = stream.build(setup, child, map_count=2)
    runner("rbtree", "native")
    verdict = Session(strategy("rbtree"), trace).verify()
    assert verdict.ok, verdict.what
