"""The benchmarks run, on small sizes, and their helpers count right. Nothing here looks at times."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.compile import compiled

from benchframe.registry import load

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def sampling(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/sampling.py."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("sampling")


def run(script: str, *options: str, strategies: str = "rbtree") -> str:
    """What a benchmark prints that needs these ``strategies`` (comma-separated), compiled beforehand."""
    known = load()
    for name in strategies.split(","):
        compiled(known.strategy(name), timed=True)
    command = [sys.executable, str(BENCHMARKS / script), *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_spread_and_ratios(sampling: ModuleType) -> None:
    """Median and quartiles of known values; ratios pair by round."""
    spread = sampling.Spread((1.0, 2.0, 3.0, 4.0, 100.0))
    assert (spread.median, spread.quartiles) == (3.0, (2.0, 4.0))
    assert spread.text(1) == "3.0 [2.0 .. 4.0]"
    assert sampling.Spread((5.0, 7.0)).quartiles == (5.0, 7.0)
    assert sampling.ratios([2.0, 9.0], [1.0, 3.0]).values == (2.0, 3.0)


def test_interleave(sampling: ModuleType) -> None:
    """Every job runs once a round, in changing order, put in order first; the first round is not kept."""
    log: list[str] = []
    ticks = iter(range(1000))
    taken = sampling.interleave(
        {"a": lambda: log.append("a"), "b": lambda: log.append("b")},
        rounds=8,
        clock=lambda: float(next(ticks)),
        before=lambda name: log.append(f"before {name}"),
    )
    assert taken == {"a": [1.0] * 8, "b": [1.0] * 8}
    rounds = [tuple(log[i : i + 4]) for i in range(0, len(log), 4)]
    assert set(rounds) == {("before a", "a", "before b", "b"), ("before b", "b", "before a", "a")}
    assert len(rounds) == 9


@pytest.mark.needs_debian("gcc")
def test_c_walk() -> None:
    """The C walk and the compiled one agree on every answer, at two sizes, and a ratio comes out."""
    printed = run("c_walk.py", "--vmas", "6,300", "--events", "3000", "--rounds", "3")
    assert re.findall(r"^\| (\d+) .*\| +\d+\.\d+ \[.* +3 \|$", printed, re.MULTILINE) == ["6", "300"]


@pytest.mark.needs_debian("gcc")
def test_c_walk_notices_another_layout(sampling: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C code that lays the records out differently is refused, not measured."""
    c_walk = importlib.import_module("c_walk")
    c_walk.Walk(tmp_path, ["-O0"])
    monkeypatch.setattr(c_walk, "LAYOUT", (*c_walk.LAYOUT[:-1], c_walk.LAYOUT[-1] + 8))
    (tmp_path / "other").mkdir()
    with pytest.raises(SystemExit, match="another layout"):
        c_walk.Walk(tmp_path / "other", ["-O0"])


def test_replay_rate() -> None:
    """A row per strategy and trace, and the two ways to build an address space."""
    names = "rbtree,rbtree_gap"
    options = ("--trace", "python-json", "--vmas", "500", "--rounds", "3")
    printed = run("replay_rate.py", "--strategy", names, *options, strategies=names)
    assert len(re.findall(r"^\| python-json .*\|$", printed, re.MULTILINE)) == 2
    assert len(re.findall(r"^\| (?:MAP_FIXED|top-down search) .*\|$", printed, re.MULTILINE)) == 4


@pytest.mark.slow
def test_compile_time() -> None:
    """Start-up figures of the command line; the compiles and the run are left out here."""
    options = ("--cold", "0", "--warm", "1", "--help-runs", "2", "--quick-runs", "0")
    printed = run("compile_time.py", *options, strategies="rbtree,mmap_cache,pmdcache")
    assert re.search(r"^\| warm: whole process .* 1 \|$", printed, re.MULTILINE)
    assert re.search(r"^\| benchframe --help .* 2 \|$", printed, re.MULTILINE)


def test_side_by_side() -> None:
    """A program once, then two runs in turn, each in its own address spaces: every answer right, and a table comes."""
    printed = run(
        "side_by_side.py", "--strategy", "rbtree", "--trace", "sh-pipeline", "--copies", "1,2", "--rounds", "2"
    )
    assert re.findall(r"^\| +(\d+) +\| +-?\d+\.\d+ \[.* 2 \|$", printed, re.MULTILINE) == ["1", "2"]


def test_waits_refuse_what_they_do_not_know() -> None:
    """waits.py names what it can time."""
    command = [sys.executable, str(BENCHMARKS / "waits.py"), "--what", "lunch"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "--what knows compile, table, plugin, not lunch" in ended.stderr


def test_every_mutation_fits_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """benchmarks/mutants.py changes lines that exist: a move of code must take its mutations along."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    mutants = importlib.import_module("mutants")
    tree = mutants.copy_tree()
    try:
        assert mutants.unfit(mutants.MUTANTS, tree) == ""
    finally:
        shutil.rmtree(tree)
    for mutant in mutants.MUTANTS:
        assert all((BENCHMARKS.parent / "tests" / name).is_file() for name in mutant.tests), mutant.what
