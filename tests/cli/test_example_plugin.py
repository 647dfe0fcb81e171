"""The example package: a third party's strategy, installed apart from benchframe, is listed, run and checked."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from support.environments import ROOT, run

SOURCE = ROOT / "examples" / "benchframe-two-entry"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed example and nothing else; the source tree stays as it is."""
    copy, target = tmp_path_factory.mktemp("source") / "example", tmp_path_factory.mktemp("target")
    shutil.copytree(SOURCE, copy)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    run([*pip, "--target", target, copy], target)
    return target


def benchframe(installed: Path, cwd: Path, *arguments: str) -> str:
    """Run benchframe with the example on its path, its caches and results in ``cwd``."""
    return run(
        [sys.executable, "-m", "benchframe", *arguments],
        cwd,
        PYTHONPATH=f"{installed}",
        COLUMNS="200",
    )


def test_it_is_small_and_uses_the_api_only() -> None:
    """At most 30 lines, and of benchframe it imports the modules for plugins."""
    text = (SOURCE / "benchframe_two_entry.py").read_text()
    assert len(text.splitlines()) <= 30
    assert [line for line in text.splitlines() if "import" in line and "benchframe" in line] == [
        "from benchframe.api import Cache, Protocol, Strategy, hookimpl, native",
        "from benchframe.kernel import NULL, VMA, vma_free_now",
    ]


def test_it_is_listed(installed: Path, tmp_path: Path) -> None:
    """Installed, it appears beside the built-in strategies; without it on the path it does not."""
    listed = benchframe(installed, tmp_path, "list", "strategies")
    assert "two-entry" in listed
    assert "rbtree" in listed
    assert "two-entry" not in benchframe(tmp_path, tmp_path, "list", "strategies")


CHECK = """
import json
from benchframe.engine.session import Session
from benchframe.registry import load
registry = load()
found = {}
for name in ("ebizzy", "zipf", "mmap-churn"):
    session = Session(registry.strategy("two-entry"), registry.spec(f"{name}:vmas=60,events=4000").trace(1))
    verdict = session.verify()
    found[name] = [verdict.ok, verdict.what, session.counts()["hit_rate"]]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_its_answers_are_right(installed: Path, tmp_path: Path) -> None:
    """Every answer agrees with the oracle under lookups and mapping calls, and it pays where two VMAs alternate."""
    found = json.loads(run([sys.executable, "-c", CHECK], tmp_path, PYTHONPATH=f"{installed}").splitlines()[-1])
    assert all(ok for ok, _, _ in found.values()), found
    assert found["ebizzy"][2] > 0.8
    assert found["zipf"][2] < found["ebizzy"][2]


@pytest.mark.slow
def test_no_interleaving_breaks_it(installed: Path, tmp_path: Path) -> None:
    """`benchframe check` finds nothing in what README shows: the first strategy that one reads is right."""
    found = benchframe(
        installed, tmp_path, "check", "--strategy", "two-entry", "--scenario", "lookup-munmap,fault-merge"
    )
    assert found.count("right in every interleaving") == 2


@pytest.mark.slow
def test_it_runs(installed: Path, tmp_path: Path) -> None:
    """A quick run times it beside the baseline and ends in a table with both."""
    options = ("--quick", "--rounds", "2", "--strategy", "two-entry", "--workload", "zipf:vmas=50,events=20000")
    table = benchframe(installed, tmp_path, "run", *options)
    assert "two-entry" in table
    assert "rbtree" in table
