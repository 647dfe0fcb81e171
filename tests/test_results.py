"""Runs on disk: real worker processes with a made-up session, kills at any moment, hostile files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyperf
import pytest

import benchframe
from benchframe.dialect import native
from benchframe.engine.job import Outcome
from benchframe.engine.launch import worker_command
from benchframe.results import ResultsError, RunFolder, find_run
from benchframe.results.campaign import Campaign, Observer
from benchframe.results.cell import cell_key, read_processes, read_state
from benchframe.results.environment import differences
from benchframe.results.files import write_atomic
from benchframe.results.manifest import Options, WorkloadEntry
from benchframe.results.plan import Stream, check_same_place, plan, renew
from benchframe.trace.events import EVENT, NIL, Kind
from benchframe.trace.format import Trace

WORKER = worker_command("fake_worker")
OPTIONS = Options(mode="quick", rounds=2, values=2, warmups=0, min_time=0.004, timeout=60)


@native
def find_one(addr):  # type: ignore[no-untyped-def]
    return addr + 1


@native
def find_two(addr):  # type: ignore[no-untyped-def]
    return addr + 2


def strategy(name: str, hook: Any = find_one) -> Any:
    """As much of a Strategy as planning looks at."""
    return SimpleNamespace(name=name, binding={"find_vma": hook}, slabs=())


def stream(label: str = "toy", rows: int = 10) -> Stream:
    """A workload of ``rows`` events whose baseline is fake30."""
    events = np.zeros(rows, EVENT)
    events["kind"] = Kind.LOOKUP
    events["kind"][0] = Kind.EXEC
    events["file"] = NIL
    trace = Trace(events)
    entry = WorkloadEntry(label, label, "", 0, trace.digest, rows, rows - 1, "fake30")
    return Stream(entry, trace)


class Log(Observer):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.order: list[tuple[int, str]] = []
        self.notes: list[str] = []
        self.planned = 0

    def begin(self, processes: int) -> None:
        self.planned = processes

    def process(self, entry: Any, round_: int, outcome: Outcome) -> None:
        self.order.append((round_, entry.strategy))

    def note(self, text: str) -> None:
        self.notes.append(text)


def start(
    path: Path, asked: list[str], options: Options = OPTIONS, hooks: dict[str, Any] | None = None
) -> tuple[RunFolder, dict[str, Any]]:
    """A new run of ``asked`` beside the baseline on the toy workload."""
    strategies = {name: strategy(name, (hooks or {}).get(name, find_one)) for name in ["fake30", *asked]}
    manifest = plan(asked, strategies, [stream()], options, seed=5, command=["benchframe", "run"])
    return RunFolder.create(path, manifest), strategies


def sit(folder: RunFolder, strategies: dict[str, Any], log: Log | None = None) -> Log:
    """One sitting."""
    log = log or Log()
    Campaign(
        folder, strategies, {"toy": stream().trace}, log, worker=WORKER, compile=lambda strategies, progress: None
    ).run()
    return log


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


def test_timeout_is_its_own_state(tmp_path: Path) -> None:
    """A worker that never answers is ended, and its cell says so."""
    folder, strategies = start(tmp_path / "run", ["hang"], replace(OPTIONS, timeout=2, rounds=1))
    began = time.monotonic()
    sit(folder, strategies)
    states = {c.entry.strategy: c.state for c in folder.cells()}
    assert states["hang"].state == "timed_out"
    assert "2 s" in states["hang"].message
    assert states["fake30"].state == "ok"
    assert time.monotonic() - began < 30


def test_rounds_are_interleaved_and_resume_adds_what_is_missing(tmp_path: Path) -> None:
    """Every round has every cell, in the recorded order; a resumed run measures the missing rounds only."""
    folder, strategies = start(tmp_path / "run", ["fake20"])
    log = sit(folder, strategies)
    assert [r for r, _ in log.order] == [0, 0, 1, 1]
    before = {c.entry.key: c.figures for c in folder.cells()}
    again = RunFolder.open(tmp_path / "run")
    check_same_place(again)
    assert renew(again, strategies, [stream()], rounds=3) == []
    log = sit(again, strategies)
    assert [r for r, _ in log.order] == [2, 2]
    for cell in again.cells():
        assert cell.done == {0, 1, 2}
        assert cell.figures["lookup"][:2] == before[cell.entry.key]["lookup"]
    assert sit(RunFolder.open(tmp_path / "run"), strategies).order == []


def test_an_edited_strategy_reruns_its_own_cells_only(tmp_path: Path) -> None:
    """After an edit the strategy's cell starts anew under another hash; the baseline's figures stay."""
    folder, strategies = start(tmp_path / "run", ["fake20"])
    sit(folder, strategies)
    keys = {c.strategy: c.key for c in folder.manifest.cells}
    edited = {**strategies, "fake20": strategy("fake20", find_two)}
    again = RunFolder.open(tmp_path / "run")
    assert renew(again, edited, [stream()], rounds=2) == ["fake20 on toy"]
    log = sit(again, edited)
    assert [name for _, name in log.order] == ["fake20", "fake20"]
    now = {c.strategy: c.key for c in again.manifest.cells}
    assert now["fake30"] == keys["fake30"]
    assert now["fake20"] != keys["fake20"]
    assert len(list((tmp_path / "run" / "cells").glob("*.state.json"))) == 2
    assert any("edited during the run" in note for note in again.manifest.notes)


def test_an_edit_while_the_run_goes_stops_it(tmp_path: Path) -> None:
    """A source that changed under a running run ends the sitting; it is no crash of the cell, and can be resumed."""
    folder, strategies = start(tmp_path / "run", ["edited"])
    with pytest.raises(ResultsError, match=r"was edited while the run was going; continue with --resume"):
        sit(folder, strategies)
    assert {c.state.state for c in folder.cells()} <= {"ok", "skipped"}


def test_cell_keys_do_not_collide() -> None:
    """Contents that a sloppy key would fold together have different hashes."""
    contents = [{"a": [1]}, {"a": [-1]}, {"a": ["1"]}, {"a": [1.5]}, {"a": [1, 5]}, {"a": 1}, {"b": [1]}]
    assert len({cell_key(c) for c in contents}) == len(contents)


SITTING = """
import sys
sys.path[:] = eval(sys.argv[2])
from pathlib import Path
import test_results as t
folder = t.RunFolder.open(Path(sys.argv[1]))
t.sit(folder, {n: t.strategy(n) for n in ("fake30", "slow20")})
"""


@pytest.mark.parametrize("delay", [0.2, 0.7, 1.4])
def test_sigkill_loses_nothing(tmp_path: Path, delay: float) -> None:
    """A sitting killed at some moment leaves a valid folder; resumed, it has the same cells and rounds."""
    folder, strategies = start(tmp_path / "run", ["slow20"], replace(OPTIONS, rounds=3))
    arguments = [sys.executable, "-c", SITTING, str(folder.path), repr(sys.path)]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {c.entry.key: c.done for c in RunFolder.open(folder.path).cells()}
    again = RunFolder.open(folder.path)
    renew(again, strategies, [stream()], rounds=3)
    log = sit(again, strategies)
    assert len(log.order) == 6 - sum(len(rounds) for rounds in done.values())
    assert all(c.done == {0, 1, 2} and c.state.counts for c in again.cells())
    assert [c.key for c in again.manifest.cells] == [c.key for c in folder.manifest.cells]
    assert not list(folder.path.rglob("*.part"))
    assert not (folder.path / "spool").exists()


def test_a_dead_parent_takes_its_worker_along(tmp_path: Path) -> None:
    """When benchframe is killed, the worker it was waiting for dies too, even if it has only just been started."""
    folder, _ = start(tmp_path / "run", ["hang"], replace(OPTIONS, rounds=1))
    code = SITTING.replace('"slow20"', '"hang"')
    process = subprocess.Popen([sys.executable, "-c", code, str(folder.path), repr(sys.path)])
    worker = _wait_for(lambda: _workers(folder.path, "hang"))
    process.kill()
    process.wait()
    _wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in worker) or None)


def _workers(folder: Path, strategy: str) -> list[int] | None:
    """Live workers of ``folder`` whose job is ``strategy``."""
    job = folder / "spool" / "job.json"
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(job).encode() in path.read_bytes() and json.loads(job.read_text())["strategy"] == strategy:
                found.append(int(path.parent.name))
        except (OSError, ValueError):
            continue
    return found or None


def _wait_for(condition: Any, seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value is not None:
            return value
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def test_two_sittings_at_once_are_refused(tmp_path: Path) -> None:
    """A run that is being worked on is locked; the lock goes with its process."""
    folder, strategies = start(tmp_path / "run", ["fake20"])
    with folder.locked(), pytest.raises(ResultsError, match="another benchframe"):
        sit(RunFolder.open(folder.path), strategies)
    sit(RunFolder.open(folder.path), strategies)


def test_budget_stops_before_a_round_and_says_so(tmp_path: Path) -> None:
    """With a budget that is spent at once, two rounds run, the manifest notes the stop, and a resume finishes."""
    folder, strategies = start(tmp_path / "run", [], replace(OPTIONS, rounds=4, budget=0.001))
    log = sit(folder, strategies)
    assert [r for r, _ in log.order] == [0, 1]
    assert any("after round 2 of 4" in note for note in log.notes)
    assert any("after round 2 of 4" in note for note in folder.manifest.notes)


def test_full_disk_is_one_clear_error_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a write fails the old file stays, no temporary is left, and the error names the place and the mend."""
    path = tmp_path / "file.json"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match=r"file\.json.*No space left.*--resume") as caught:
        write_atomic(path, b"new")
    assert caught.value.environment
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_another_machine_cannot_continue_a_run(tmp_path: Path) -> None:
    """A resume on another host or with other versions is refused, with what differs."""
    folder, _ = start(tmp_path / "run", [])
    folder.save(replace(folder.manifest, host={**folder.manifest.host, "cpu": "abacus"}))
    with pytest.raises(ResultsError, match="cpu: abacus -> "):
        check_same_place(folder)
    assert differences({"a": "1"}, {"a": "1", "b": "2"}) == ["b: none -> 2"]


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
        (["version"], 99, "version"),
        (["seed"], -1, "seed"),
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


def test_a_half_written_file_of_a_killed_sitting_is_swept(tmp_path: Path) -> None:
    """A temporary file that a kill left behind is never read, and is gone after the next sitting."""
    folder, strategies = start(tmp_path / "run", [])
    left = folder.path / "cells" / ".abc.json.123.part"
    left.write_text("{")
    assert folder.cells()[0].state.state == "skipped"
    sit(folder, strategies)
    assert not left.exists()
    assert folder.cells()[0].state.state == "ok"
