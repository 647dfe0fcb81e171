"""Fallbacks by reason: each reason from a made stream, the sum equals what the strategy counts, the table."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from support.compile import compiled
from support.space import registry
from typer.testing import CliRunner

from benchframe import stream
from benchframe.cli import app
from benchframe.engine.session import REASONS, Session, fallbacks
from benchframe.events import Kind, MapType
from benchframe.report.details import fallback_table
from benchframe.trace.meta import FileEntry
from benchframe.trace.trace import Trace

PAGE = stream.PAGE
BASE = 1 << 40


def made() -> Trace:
    """Every reason once, and accesses that need no fallback between them."""
    stack = stream.rows(Kind.MAP, BASE * 4, 4 * PAGE, prot=3, flags=MapType.STACK)
    files = stream.rows(Kind.MMAP, BASE * np.array([2, 3]), 4 * PAGE, prot=np.array([1, 3]), flags=0x12)
    files["file"] = 0
    setup = [stream.mmap(BASE, 4 * PAGE, 3), files, stack]
    end = BASE * 100
    timed = [
        stream.fault(BASE, stream.WRITE),  # no anon_vma
        stream.fault(BASE + PAGE, stream.WRITE),
        stream.fault(BASE * 2, stream.READ),  # file
        stream.fault(BASE * 3, stream.WRITE),  # file, no anon_vma
        stream.fault(BASE * 3 + PAGE, stream.WRITE),  # file, with one
        stream.fault(BASE * 4 - PAGE, stream.WRITE),  # stack
        stream.lookup(end),  # outside
    ]
    trace = stream.build(setup, timed, map_count=5)
    return replace(trace, meta=replace(trace.meta, files=(FileEntry("data", 4 * PAGE, 1),)))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("linux-6.4", {"no anon_vma": 1, "file": 2, "file, no anon_vma": 1, "stack": 1, "outside": 1}),
        ("linux-6.15", {"no anon_vma": 1, "file, no anon_vma": 1, "stack": 1, "outside": 1}),
        ("rbtree", {}),
    ],
)
def test_each_reason(name: str, wanted: dict[str, int]) -> None:
    """6.4 refuses every file, 6.15 first writes alone; a strategy without a fast path never falls back."""
    assert fallbacks(Session(compiled(registry().strategy(name)), made())) == wanted


@pytest.mark.parametrize("workload", ["i386-threads", "sh-pipeline"])
def test_the_sum_is_what_the_strategy_counts(workload: str) -> None:
    """On recorded programs every counted fallback has a reason, also across fork, exec and threads."""
    trace = registry().spec(workload).trace(0)
    strategy = compiled(registry().strategy("linux-6.15"))
    session = Session(strategy, trace)
    verdict = session.verify()  # with validate_mm, which knows the place of each object that the allocator has
    assert verdict.ok, verdict.what
    found = fallbacks(session)
    assert sum(found.values()) == session.counts()["fallbacks"] > 0
    assert found["other"] == 0
    assert set(found) <= set(REASONS)


def test_the_table_and_the_command() -> None:
    """Shares and counts by reason; `cost --fallbacks` prints them, also as CSV."""
    counts = {"lookups": 8.0, "fallbacks": 4.0}
    table = fallback_table([("w", "s", {**counts, "fallbacks.file": 3, "fallbacks.stack": 1}), ("w", "long", counts)])
    assert table.rows[0] == ("w", "s", "8", "50.0%", "0", "1", "3", "0", "0", "0")
    assert table.rows[1] == ("w", "long", "8", "50.0%", "", "", "", "", "", "")
    assert table.records[0]["file"] == 3
    assert "file" not in table.records[1]
    assert "no reasons" in table.notes[-1]
    compiled(registry().strategy("linux-6.15"))
    arguments = ["cost", "--fallbacks", "-s", "linux-6.15", "-w", "uniform:vmas=20,events=100", "--format", "csv"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (told,) = csv.DictReader(result.output.splitlines())
    assert (told["lookups"], told["fallbacks"]) == ("100", "100"), "VMAs that were only read have no anon_vma"
