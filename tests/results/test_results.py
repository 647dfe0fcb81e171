"""Runs on disk: what real worker processes with a made-up session leave there, and hostile files in its place."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyperf
import pytest
from support.sessions import sit, start

import benchframe
from benchframe.errors import BenchframeError
from benchframe.results import ResultsError, RunFolder, find_run
from benchframe.results.folder import cell_key, read_processes, read_state


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one strategy beside the baseline, and of each kind of failure."""
    path = tmp_path_factory.mktemp("runs") / "20260101-finished"
    folder, strategies = start(path, ["fake20", "wrong", "crash", "segv", "mute"])
    sit(folder, strategies)
    return path


def test_cells_end_in_the_state_that_the_worker_earned(finished: Path) -> None:
    """A wrong answer, a traceback, a signal and silence are told apart, and the others are timed all the same."""
    cells = {cell.entry.strategy: cell for cell in RunFolder.open(finished).cells()}
    states = {name: cell.state.state for name, cell in cells.items()}
    assert states == {
        "fake30": "ok",
        "fake20": "ok",
        "wrong": "wrong",
        "crash": "crashed",
        "segv": "crashed",
        "mute": "crashed",
    }
    assert "the oracle says [0x1000" in cells["wrong"].state.message
    assert "\n" not in cells["wrong"].state.message
    assert cells["wrong"].state.event == 17
    assert cells["wrong"].figures == {}
    assert "slot 99 is out of range" in cells["crash"].state.message
    assert "SIGSEGV" in cells["segv"].state.message
    assert "FakeSession" in cells["crash"].state.detail or "verify" in cells["crash"].state.detail
    assert cells["fake20"].done == {0, 1}


def test_figures_are_what_the_session_measured(finished: Path) -> None:
    """Class figures reach the file in ns, by round, without the one that the trace has no operation for."""
    cells = {cell.entry.strategy: cell for cell in RunFolder.open(finished).cells()}
    figures = cells["fake20"].figures
    assert set(figures) == {"lookup", "fault", "replay"}
    for process in figures["lookup"]:
        assert len(process.values) == 2
        assert all(19.7 < ns < 20.3 for ns in process.values)
        assert process.loops == 4  # 1 ms a loop, doubled until a value takes 4 ms
        assert process.operations == 600
    assert [p.metadata["benchframe_round"] for p in figures["lookup"]] == [0, 1]
    seeds = {
        name: [p.metadata["benchframe_layout_seed"] for p in c.figures["lookup"]]
        for name, c in cells.items()
        if c.figures
    }
    assert seeds["fake20"] == seeds["fake30"]
    assert cells["fake20"].state.counts == {"lookups": 600, "hits": 450, "hit_rate": 0.75, "invalidations": 3}
    assert [row.outcome for row in cells["fake20"].state.latencies] == ["hit", "miss"]
    assert RunFolder.open(finished).manifest.measured > 0


def test_pyperf_reads_the_files(finished: Path) -> None:
    """``python -m pyperf stats`` works on a cell's file and shows the mean that we read."""
    folder = RunFolder.open(finished)
    cell = next(c for c in folder.cells() if c.entry.strategy == "fake20")
    done = subprocess.run(
        [sys.executable, "-m", "pyperf", "stats", str(folder.suite_path(cell.entry))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "lookup" in done.stdout
    assert "Mean +- std dev" in done.stdout
    suite = pyperf.BenchmarkSuite.load(str(folder.suite_path(cell.entry)))
    ours = [v for p in cell.figures["lookup"] for v in p.values]
    assert suite.get_benchmark("lookup").get_values() == pytest.approx([v * 1e-9 for v in ours])
    assert suite.get_benchmark("lookup").get_metadata()["benchframe_strategy"] == "fake20"


def test_load_gives_one_row_per_value(finished: Path) -> None:
    """The data frame holds every value of every figure, and one row for each cell that has none."""
    frame = benchframe.load(finished)
    timed = frame[frame.state == "ok"]
    assert len(timed) == 2 * 3 * 2 * 2  # cells, figures, rounds, values
    assert set(frame[frame.state != "ok"].strategy) == {"wrong", "crash", "segv", "mute"}
    assert timed.groupby("strategy").baseline.first().to_dict() == {"fake30": True, "fake20": False}
    lookup = timed[timed.figure == "lookup"].groupby("strategy").ns.mean()
    assert lookup["fake20"] / lookup["fake30"] == pytest.approx(2 / 3, rel=0.03)


def test_load_of_several_runs_and_other_rows() -> None:
    """Two runs are one frame, with the parameters of their workloads as columns; figures are those of the table,
    tails those of the cells. Another word says what there is."""
    reports = Path(__file__).parents[2] / "reports"
    frame = benchframe.load([reports / "reference", reports / "sweep"], "figures")
    assert set(frame.run) == {"reference", "sweep"}
    sweep = frame[(frame.run == "sweep") & (frame.figure == "lookup")]
    assert {6, 50, 1_000_000} <= set(sweep.vmas)
    for row in sweep.itertuples():
        assert row.spec.startswith("uniform:vmas=")
        assert f"vmas={row.vmas:.0f}" in row.spec or row.vmas != row.vmas
    cells = {(cell.entry.strategy, cell.entry.workload): cell for cell in RunFolder.open(reports / "sweep").cells()}
    for row in sweep.itertuples():
        means = cells[row.strategy, row.workload].rounds("lookup")
        assert row.mean == pytest.approx(sum(means.values()) / len(means))
    tails = benchframe.load(reports / "reference", "tails")
    assert (tails.p50 <= tails.p99).all()
    assert set(tails.outcome) == {"all", "hit", "miss"}
    with pytest.raises(BenchframeError, match="there is no 'tail'; did you mean tails"):
        benchframe.load(reports / "reference", "tail")


def test_cell_keys_do_not_collide() -> None:
    """Contents that a sloppy key would fold together have different hashes."""
    contents = [{"a": [1]}, {"a": [-1]}, {"a": ["1"]}, {"a": [1.5]}, {"a": [1, 5]}, {"a": 1}, {"b": [1]}]
    assert len({cell_key(c) for c in contents}) == len(contents)


def _damage(data: Any, keys: list[Any], value: Any) -> Any:
    """``data`` with the member at ``keys`` replaced."""
    at = data
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    return data


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["version"], 99, "it is of version 99, and this benchframe reads version 1; read it with the version"),
        (["version"], None, "it is without a version"),
        (["seed"], -1, "seed.*restore it from a copy, or repeat the run"),
        (["seed"], "1; import os", "seed"),
        (["options", "rounds"], 1 << 80, "options.rounds"),
        (["options"], [], "options"),
        (["cells", 0, "key"], "../../etc/passwd", r"cells\[0\].key"),
        (["cells", 0, "strategy"], "a\x1b[2J", r"cells\[0\].strategy"),
        (["cells", 0, "workload"], "none", r"cells\[0\].workload"),
        (["cells"], {}, "cells"),
        (["workloads", 0, "digest"], "xyz", "digest"),
        (["wall"], "long", "wall"),
    ],
)
def test_hostile_manifest(finished: Path, tmp_path: Path, keys: list[Any], value: Any, message: str) -> None:
    """A manifest with one member of the wrong type, range or form is refused with that member's name."""
    copy = shutil.copytree(finished, tmp_path / "run")
    path = copy / "manifest.json"
    path.write_text(json.dumps(_damage(json.loads(path.read_text()), keys, value)))
    with pytest.raises(ResultsError, match=message) as caught:
        RunFolder.open(copy)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["benchmarks", 0, "runs", 1, "values", 0], -1.0, "values"),
        (["benchmarks", 0, "runs", 1, "values", 0], "fast", "values"),
        (["benchmarks", 0, "runs", 1, "values", 0], 10**400, "values"),
        (["benchmarks", 0, "runs"], 7, "runs"),
        (["benchmarks", 0, "metadata", "name"], "evil", "figures"),
        (["benchmarks", 0, "runs", 1, "metadata", "benchframe_round"], 0, "twice"),
        (["benchmarks", 0], None, "benchmarks"),
        (["metadata"], [], "metadata"),
    ],
)
def test_hostile_suite(finished: Path, tmp_path: Path, keys: list[Any], value: Any, message: str) -> None:
    """A cell's file with values that no measurement has is refused with the member's name."""
    folder = RunFolder.open(finished)
    source = folder.suite_path(next(c for c in folder.manifest.cells if c.strategy == "fake20"))
    path = tmp_path / "cell.json"
    path.write_text(json.dumps(_damage(json.loads(source.read_text()), keys, value)))
    with pytest.raises(ResultsError, match=message):
        read_processes(path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "\x80", '{"state": "fine"}', '{"state": NaN}', "[" * 100_000, '{"state": "ok", "loops": -4}'],
)
def test_hostile_state(tmp_path: Path, text: str) -> None:
    """Whatever a state file holds, the answer is a state or one clear error."""
    path = tmp_path / "x.state.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ResultsError, match=r"x\.state\.json"):
        read_state(path)


def test_find_run(finished: Path) -> None:
    """A run is found by path, name, start of a name and ``last``; anything else names what there is."""
    root = finished.parent
    assert find_run(str(finished)) == finished
    assert find_run("20260101-finished", root) == finished
    assert find_run("2026", root) == finished
    assert find_run("last", root) == finished
    with pytest.raises(ResultsError, match="20260101-finished"):
        find_run("1999", root)
