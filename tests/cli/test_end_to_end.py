"""`benchframe run` as users start it: real plugins, real engine, real processes, small workloads."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
from support.command import run, start
from support.compile import compiled

import benchframe
from benchframe.registry import load
from benchframe.results.folder import RunFolder, find_run

REFERENCE = Path(__file__).resolve().parents[2] / "reports" / "reference"
BAD = '''
"""Two strategies with bugs: one forgets to compare bounds, one reads far outside its memory."""

from benchframe.api import Cache, Strategy, hookimpl, native
from benchframe.kernel import VMA


@native
def find_anything(mm, task, addr):
    return mm.mmap_cache


@native
def store(mm, task, addr, vma):
    mm.mmap_cache = vma
    return 0


@native
def find_far_away(mm, task, addr):
    return VMA(mm, 1 << 44).vm_start


@hookimpl
def benchframe_strategies():
    return [
        Strategy("forgetful", "no bounds", index="rbtree", cache=Cache(find=find_anything, store=store)),
        Strategy("wild", "no sense", index="rbtree", cache=Cache(find=find_far_away)),
    ]
'''


def compile_first(*names: str, plugin: Path | None = None) -> None:
    """The units of these strategies, and of the baseline, in the store."""
    known = load([plugin] if plugin else [])
    for name in ("rbtree", *names):
        compiled(known.strategy(name), timed=True)


@pytest.mark.slow
def test_run_table_report(tmp_path: Path) -> None:
    """A quick run of a cache beside the baseline on a recorded trace and a synthetic stream ends in a table."""
    compile_first("mmap_cache")
    workloads = "python-json,zipf:vmas=50,events=4000"
    arguments = ("--quick", "--no-pin", "--rounds", "2", "-s", "mmap_cache", "-w", workloads, "--seed", "1")
    code, out, err = run(tmp_path, "run", *arguments)
    assert code == 0, err
    assert "inside measured loops" in err
    frame = benchframe.load(find_run("last", tmp_path / "reports" / "runs"))
    assert set(frame.state) == {"ok"}
    assert set(frame.strategy) == {"rbtree", "mmap_cache"}
    figures = set(frame[frame.workload == "python-json"].figure)
    assert {"lookup", "cold", "fault", "mapping", "replay"} >= figures >= {"cold", "replay"}
    assert (frame.ns > 0).all()
    code, out, err = run(tmp_path, "table", "last", "--tails")
    assert code == 0, err
    assert "p99.9" in out
    cells = {c.entry.strategy: c for c in RunFolder.open(find_run("last", tmp_path / "reports" / "runs")).cells()}
    assert cells["mmap_cache"].state.counts["hits"] > 0
    assert cells["rbtree"].state.counts["hits"] == 0
    base = part_of_reference(tmp_path / "base", {"rbtree", "mmap_cache"}, "python-json")
    # Our own gate, whatever the machine: counts are those of the report. It was made before a mapping call asked
    # whether the kernel refused it and whether it is a WALK (2.4 of 540 branches), and a fault that is served one thing
    # less: branches moved, and with them which of them share a place in the predictor.
    code, out, err = run(tmp_path, "gate", str(base), "last", "--cost", "10%", "--max-slowdown", "1000", "--anyway")
    assert code == 0, out + err


def part_of_reference(folder: Path, strategies: set[str], workload: str) -> Path:
    """A run with some cells of reports/reference, which has all of them."""
    shutil.copytree(REFERENCE, folder, ignore=shutil.ignore_patterns("report.*", "charts", "studies"))
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["cells"] = [c for c in manifest["cells"] if c["strategy"] in strategies and c["workload"] == workload]
    manifest["workloads"] = [w for w in manifest["workloads"] if w["label"] == workload]
    path.write_text(json.dumps(manifest))
    return folder


@pytest.mark.slow
def test_bad_strategies_are_caught_and_the_rest_runs(tmp_path: Path) -> None:
    """A cache that ignores bounds is wrong, one that reads wild memory crashed; the baseline beside them is timed."""
    (tmp_path / "bad.py").write_text(BAD)
    compile_first("forgetful", "wild", plugin=tmp_path / "bad.py")
    arguments = ("--quick", "--no-pin", "--rounds", "2", "-s", "forgetful,wild", "-w", "zipf:vmas=50,events=4000")
    code, _, err = run(tmp_path, "run", *arguments, "--plugin", "bad.py")
    assert code == 1, err
    cells = {c.entry.strategy: c for c in RunFolder.open(find_run("last", tmp_path / "reports" / "runs")).cells()}
    assert cells["forgetful"].state.state == "wrong"
    assert "oracle" in cells["forgetful"].state.message
    assert cells["forgetful"].figures == {}
    assert cells["wild"].state.state == "crashed"
    assert "SIGSEGV" in cells["wild"].state.message
    assert cells["rbtree"].done == {0, 1}
    assert "Traceback" not in err


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_cells(tmp_path: Path) -> None:
    """SIGKILL in the middle, then --resume: every cell has both rounds, as if nobody had killed the run."""
    compile_first("mmap_cache")
    options = ("--quick", "--no-pin", "--rounds", "2", "--no-cost", "-s", "mmap_cache", "--seed", "7")
    arguments = ("run", *options, "-w", "zipf:vmas=50,events=4000")
    process = start(tmp_path, *arguments)
    deadline = time.monotonic() + 200
    while len(list(tmp_path.glob("reports/runs/*/cells/*.state.json"))) < 1:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, _, err = run(tmp_path, "run", "--resume", "last")
    assert code == 0, err
    killed = RunFolder.open(find_run("last", tmp_path / "reports" / "runs"))
    assert {cell.entry.strategy: cell.done for cell in killed.cells()} == {"rbtree": {0, 1}, "mmap_cache": {0, 1}}
