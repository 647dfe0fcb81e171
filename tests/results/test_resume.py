"""Sittings of a run: resumed, edited, killed at any moment, out of time or disk, two at once."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.sessions import OPTIONS, sit, start, strategy, stream

from benchframe.dialect import native
from benchframe.errors import ENVIRONMENT
from benchframe.files import write_atomic
from benchframe.results import ResultsError, RunFolder
from benchframe.results.campaign import check_same_place, renew
from benchframe.results.manifest import differences


@native
def find_two(addr):  # type: ignore[no-untyped-def]
    return addr + 2


def test_timeout_is_its_own_state(tmp_path: Path) -> None:
    """A worker that never answers is ended, and its cell says so."""
    folder, strategies = start(tmp_path / "run", ["hang"], replace(OPTIONS, timeout=10, rounds=1))
    sit(folder, strategies)
    states = {c.entry.strategy: c.state for c in folder.cells()}
    assert states["hang"].state == "timed_out"
    assert "10 s" in states["hang"].message
    assert states["fake30"].state == "ok"


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
    with pytest.raises(ResultsError, match=r"was edited during the run; continue with --resume"):
        sit(folder, strategies)
    assert {c.state.state for c in folder.cells()} <= {"ok", "skipped"}


SITTING = """
import sys
sys.path[:] = eval(sys.argv[2])
from pathlib import Path
from support import sessions as t
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
    assert caught.value.exit_code == ENVIRONMENT
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_another_machine_cannot_continue_a_run(tmp_path: Path) -> None:
    """A resume on another host or with other versions is refused, with what differs."""
    folder, _ = start(tmp_path / "run", [])
    folder.save(replace(folder.manifest, host={**folder.manifest.host, "cpu": "abacus"}))
    with pytest.raises(ResultsError, match="cpu: abacus -> "):
        check_same_place(folder)
    assert differences({"a": "1"}, {"a": "1", "b": "2"}) == ["b: none -> 2"]


def test_a_half_written_file_of_a_killed_sitting_is_swept(tmp_path: Path) -> None:
    """A temporary file that a kill left behind is never read, and is gone after the next sitting."""
    folder, strategies = start(tmp_path / "run", [])
    left = folder.path / "cells" / ".abc.json.123.part"
    left.write_text("{")
    assert folder.cells()[0].state.state == "skipped"
    sit(folder, strategies)
    assert not left.exists()
    assert folder.cells()[0].state.state == "ok"
