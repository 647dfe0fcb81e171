"""cost, table --cost, explain, breakeven and layout on the command line: tables, errors in one line, exit codes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cost_model import UNITS, calibration
from support.space import runner
from typer.testing import CliRunner

from benchframe.cli import app
from benchframe.dialect.records import DialectError
from benchframe.engine.job import COST_RECORDS
from benchframe.engine.session import Session
from benchframe.engine.worker import _cost
from benchframe.report.details import cost_table, own_lines
from benchframe.report.table import render

COUNTED = {"events": 10.0, "counted": 5.0, "lookup.n": 5.0, "lookup.lines": 4.0, "lookup.lines_se": 0.2,
           "lookup.loads": 9.0, "lookup.lines.vma": 2.0, "lookup.lines.node": 1.5, "lookup.hits": 0.25,
           "lookup.misses": 0.75, "bytes.per_vma": 200.0}  # fmt: skip


def call(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_cost_prints_a_table() -> None:
    """Rows for each view, the same numbers on a second call."""
    runner("rbtree", "native")
    arguments = ("cost", "-s", "rbtree", "-w", "mmap-churn:vmas=20,events=60", "--exact")
    code, text = call(*arguments)
    assert code == 0
    for line, view in zip(text.splitlines()[2:5], ("lookup", "fault", "mapping"), strict=True):
        assert view in line.split()
    assert "100 %" in text
    assert call(*arguments)[1] == text
    assert "lookup.lines_p99" in call(*arguments, "--format", "csv")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cost", "-s", "rbtree"], "name a workload with --workload"),
        (["cost", "-s", "rbtre", "-w", "zipf"], "no strategy is called 'rbtre'; did you mean rbtree?"),
        (["cost", "-s", "rbtree", "-w", "zipf", "--format", "mail"], "no mail form"),
        (["explain", "rbtree", "rbtree", "-w", "zipf"], "A and B are the same"),
        (["explain", "rbtree", "maple"], "name one workload with --workload"),
        (["explain", "rbtree", "maple", "--run", "last", "--caches", "l2"], "--run and --caches exclude each other"),
        (["explain", "rbtree", "maple", "-w", "zipf", "--caches", "warm,program"], "explain takes one state"),
        (["breakeven", "rbtree", "maple", "--over", "phase"], "is called 'phase'; there are hit_rate, vmas"),
        (["breakeven", "rbtree", "maple", "--over", "vma"], "is called 'vma'; did you mean vmas?"),
        (["breakeven", "rbtree", "nothing"], "no strategy is called 'nothing'"),
        (["layout", "-s", "rbtree", "-w", "zipf", "--shifts", "0,600"], "--shifts takes two or more of 0 to 511"),
        (["layout", "-s", "rbtree", "-w", "zipf", "--shifts", "a"], "--shifts takes whole numbers"),
        (["layout", "-s", "rbtree", "-w", "zipf", "--figure", "speed"], "--figure takes lookup"),
        (["layout", "-s", "rbtree"], "name one workload"),
    ],
)
def test_wrong_input_is_one_line(arguments: Sequence[str], words: str) -> None:
    """Exit code 2 and what to do."""
    code, text = call(*arguments)
    assert code == 2
    assert words in " ".join(text.split())


def test_cost_table() -> None:
    """Own slabs are summed, hits are a rate, the sampling error is said, cells without counts are left out."""
    table = cost_table([("w", "a", COUNTED), ("w", "b", {})])
    assert len(table.rows) == 1
    row = dict(zip(table.heads, table.rows[0], strict=True))
    assert (row["own"], row["vma"], row["hit rate"], row["counted"]) == ("1.50", "2.00", "25.0 %", "50 %")
    assert own_lines(COUNTED, "lookup") == 1.5
    assert table.notes[-1] == "sampled: standard errors of loads, lines and branches are at most 5 %."
    for form in ("text", "markdown", "latex", "csv"):
        assert "a" in render(table, form)


@pytest.mark.slow
def test_explain_from_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """explain --run reads the times of a stored run and counts its stream; a run without the cell says so."""
    from benchframe.study import model as module

    taken = module.Calibration(tuple(calibration()), UNITS)
    monkeypatch.setattr(module, "calibration", lambda *arguments, **options: taken)
    monkeypatch.chdir(tmp_path)
    runner("rbtree", "native")
    runner("mmap_cache", "native")
    base = ("run", "-s", "mmap_cache", "-w", "zipf:vmas=20,events=20000", "--quick", "--rounds", "2", "--no-pin")
    assert call(*base)[0] == 0
    code, text = call("explain", "rbtree", "mmap_cache", "--run", "last")
    assert code == 0, text
    assert "unexplained" in text
    assert "mmap_cache hits" in text
    code, text = call("table", "last", "--cost")
    assert (code, "mmap_cache" in text) == (0, True)
    assert "has no time per lookup of maple" in " ".join(call("explain", "rbtree", "maple", "--run", "last")[1].split())
    assert call(*base[:-2], "1", "--no-pin", "--no-cost")[0] == 0
    assert "has no counts" in " ".join(call("table", "last", "--cost")[1].split())
    assert call("explain", "rbtree", "mmap_cache", "--run", "last")[0] == 0, "the stream is counted anew"


def test_breakeven_prints_a_table_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two points, three processes: a row each with both times, a verdict, and the picture in both forms."""
    from benchframe.study import sweeps as module

    small = replace(module.SWEEPS["vmas"], values=(10, 40))
    monkeypatch.setattr(module, "EVENTS", 300)
    monkeypatch.setitem(module.SWEEPS, "vmas", small)
    runner("rbtree", "native")
    runner("mmap_cache", "native")
    arguments = ("breakeven", "rbtree", "mmap_cache", "--over", "vmas", "--rounds", "3", "-o", str(tmp_path))
    code, text = call(*arguments, "--format", "csv")
    assert code == 0, text
    lines = text.splitlines()
    (head,) = (number for number, line in enumerate(lines) if line.startswith("over,x,a,b,ratio,low,high"))
    rows = [line.split(",") for line in lines[head + 1 : head + 3]]
    assert [(row[0], float(row[1])) for row in rows] == [("vmas", 10), ("vmas", 40)]
    for row in rows:
        a, b, ratio, low, high = map(float, row[2:7])
        assert a > 0 < b
        assert low <= ratio <= high
    assert "round 3 of 3" in text
    (svg,), (png,) = tmp_path.glob("*.svg"), tmp_path.glob("*.png")
    assert "mmap_cache" in svg.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")


def test_layout_prints_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds, two shifts, two processes: the five components, whose shares are all of the variance."""
    runner("rbtree", "native")
    arguments = ("layout", "-s", "rbtree", "-w", "zipf:vmas=20,events=300", "--seeds", "2", "--shifts", "0,256")
    code, text = call(*arguments, "--rounds", "2", "--format", "csv")
    assert code == 0, text
    rows = [line.split(",") for line in text.splitlines() if "rbtree," in line]
    assert [row[-5] for row in rows] == ["layout seed", "alignment", "seed x alignment", "process", "residual"]
    assert sum(float(row[-3]) for row in rows) == pytest.approx(1, abs=0.01)
    assert all(0 <= float(row[-2]) <= float(row[-1]) <= 1 for row in rows)


def test_what_cannot_be_counted_is_timed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker says why there are no counts; the cell is ok."""
    odd: Any = Session.__new__(Session)
    odd.strategy, odd.trace = "a strategy", "a trace"

    def refuse(strategy: str, trace: str, budget: int) -> None:
        assert (strategy, trace, budget) == ("a strategy", "a trace", COST_RECORDS)
        raise DialectError("x.py:1 (f), line 2 of it: a List;\n the cost engine cannot count it")

    monkeypatch.setattr("benchframe.engine.cost.stored_cost", refuse)
    why = "not counted: x.py:1 (f), line 2 of it: a List; the cost engine cannot count it"
    assert _cost(odd, COST_RECORDS) == (None, why)
    assert _cost(odd, 0) == (None, "")
