"""fork, exec and exit: streams that do what they say, differences per VMA, verdicts, and the command."""

import math
from pathlib import Path

import numpy as np
import pytest
from support.compile import compiled
from support.space import registry
from typer.testing import CliRunner

from benchframe.cli import app
from benchframe.engine.session import Session
from benchframe.events import Kind
from benchframe.oracle import Replayer
from benchframe.report.table import render
from benchframe.results.studies import read_studies, write_study
from benchframe.study import sweeps
from benchframe.study.sweeps import (
    OPERATIONS,
    Walk,
    count_calls,
    count_table,
    family,
    judged,
    measure_calls,
    saved_fork,
    slope,
    walk_table,
)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_stream_does_what_it_says(operation: str) -> None:
    """The children are complete copies when the timed part begins (or are made in it); after exit and exec they are
    gone, and after exec as many empty spaces have begun. The model gives the oracle's answers."""
    trace = family(operation, 30, 3)
    trace.check()
    kinds = {"fork": [Kind.FORK] * 3, "exit": [Kind.EXIT] * 3, "exec": [Kind.EXIT, Kind.EXEC] * 3}
    assert trace.events["kind"][trace.setup :].tolist() == kinds[operation]
    replayer = Replayer()
    replayer.feed(trace.events[: trace.setup])
    before = [space.map_count for space in replayer.spaces.values()]
    assert before == ([30] if operation == "fork" else [30] * 4)
    replayer.feed(trace.events[trace.setup :])
    after = sorted(space.map_count for space in replayer.spaces.values())
    assert after == {"fork": [30] * 4, "exit": [30], "exec": [0, 0, 0, 30]}[operation]
    session = Session(compiled(registry().strategy("rbtree")), trace)
    verdict = session.verify()
    assert verdict.ok, verdict.what
    assert session.n_mapping == len(kinds[operation])


def times(level: float, per_vma: float, seed: int) -> dict[int, dict[int, float]]:
    """ns by size and round of a call that costs so much."""
    noise = np.exp(np.random.default_rng(seed).normal(0, 0.01, 6))
    return {size: {r: (level + size * per_vma) * float(x) for r, x in enumerate(noise)} for size in sweeps.SIZES}


def test_what_a_vma_adds() -> None:
    """The difference of both sizes by round, with its interval; nothing without a common round."""
    made = times(2000.0, 100.0, 1)
    found = slope(made[sweeps.SIZES[0]], made[sweeps.SIZES[1]])
    assert found is not None
    assert found.mean == pytest.approx(100.0, rel=0.02)
    assert found.low < 100.0 * 1.01
    assert found.high > 100.0 * 0.99
    assert slope({0: 1.0}, {1: 2.0}) is None


def test_verdicts_and_table() -> None:
    """Each call is compared with the baseline's; what noise hides is a dash; records have the numbers."""
    levels = {"rbtree": 100.0, "tree": 250.0, "twin": 100.0}
    made = {
        (name, operation, size): ns
        for seed, (name, per) in enumerate(levels.items())
        for operation in OPERATIONS
        for size, ns in times(2000.0, per, seed).items()
    }
    walks = judged(made, list(levels), "rbtree")
    words = {(w.strategy, w.operation): w.verdict.word if w.verdict else "" for w in walks}
    assert words["tree", "fork"] == "slower"
    assert words["twin", "exit"] in ("same", "undecided")
    assert words["rbtree", "fork"] == ""
    table = walk_table(walks, "rbtree")
    assert [row[:2] for row in table.rows[:3]] == [("rbtree", operation) for operation in OPERATIONS]
    assert table.records[3]["ns_per_vma"] == pytest.approx(250.0, rel=0.02)
    assert "fills the hook dup" in render(table, "text")
    lost = Walk("w", "fork", ({}, {}), None)
    assert math.isnan(lost.mean(1))
    assert walk_table([lost], "rbtree").rows[0][2:5] == ("-", "-", "-")


def test_measured_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """End to end on small sizes: every call takes longer with more VMAs; what a copy of a VMA stores is counted,
    and kept for a run's report."""
    monkeypatch.setattr(sweeps, "SIZES", (10, 60))
    told: list[str] = []
    walks = measure_calls(registry(), ["rbtree"], "rbtree", 2, told.append, clock=0.001)
    assert told[-1] == "round 2 of 2"
    assert [walk.operation for walk in walks] == list(OPERATIONS)
    assert all(walk.mean(1) > walk.mean(0) > 0 for walk in walks)
    counted = count_calls(compiled(registry().strategy("rbtree")), "fork")
    assert counted["stores"] > 20, "a VMA record, an anon_vma, an entry of the page table"
    assert counted["lines"] > 3, "the parent's VMA, the child's, and their entries"
    assert counted["atomics"] >= 1
    table = count_table({("rbtree", "fork"): counted})
    path = write_study(tmp_path, saved_fork(["rbtree"], table, ["benchframe", "fork"]))
    (kept,) = read_studies(path.parents[1])
    assert (kept.kind, kept.rows, kept.heads) == ("fork", table.rows, table.heads)


def test_bad_usage() -> None:
    """One line and exit code 2."""
    for arguments, words in ((["--format", "mail"], "no mail format"), (["-s", "rbtre"], "did you mean rbtree?")):
        result = CliRunner().invoke(app, ["fork", *arguments])
        assert result.exit_code == 2
        assert words in result.output
