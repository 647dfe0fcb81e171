"""What .ci/run and make promise: needed tests may not skip, scripts are sound, targets are named."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SKIPPING = """
import pytest
@pytest.mark.needs_debian("sh")
def test_with_a_tool():
    pytest.skip("it does not work here")
@pytest.mark.needs_debian("no-such-compiler")
def test_with_another():
    raise AssertionError("it is skipped before it runs")
@pytest.mark.needs_debian("sh")
@pytest.mark.skipif(True, reason="this kernel is too old")
def test_that_has_its_tool():
    pass
def test_other():
    pytest.skip("for another reason")
"""


@pytest.mark.parametrize(("ci", "outcome"), [("", "4 skipped"), ("1", "1 failed, 2 skipped, 1 error")])
def test_needs_debian_may_not_skip_in_ci(ci: str, outcome: str, tmp_path: Path) -> None:
    """The hooks in conftest.py skip a marked test whose tool is missing, and in CI make a failure of that and of a
    skip by the test itself; a condition that has nothing to do with tools stays a skip."""
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(SKIPPING)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = needs_debian: x\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "BENCHFRAME"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", tmp_path],
        cwd=tmp_path,
        env={**environment, "BENCHFRAME_CI": ci},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome in done.stdout.splitlines()[-1], done.stdout
    assert ("marked needs_debian, but skipped in CI" in done.stdout) == bool(ci)


def test_ci_installs_what_marked_tests_need() -> None:
    """Every program that a needs_debian mark names is one that .ci/run looks for."""
    script = (ROOT / ".ci" / "run").read_text()
    marks = re.compile(r"needs_debian\(([^)]+)\)")
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if path.name != "test_ci.py"]
    named = {tool for path in files for words in marks.findall(path.read_text()) for tool in re.findall(r"\w+", words)}
    assert named >= {"cc", "gcc", "strace", "chromium"}
    for tool in named:
        assert re.search(rf"\b{tool}\b.*\|\| missing\+=", script), tool


def test_ci_script_is_sound() -> None:
    """bash accepts .ci/run, it is executable, and it stops at the first error."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=20)
    assert "set -euo pipefail" in script.read_text()


def test_ci_shows_the_closing_line() -> None:
    """The pattern that .ci/run looks for matches pytest's closing lines, green and red, and not a section title."""
    pattern = re.search(r"grep -E '([^']+)'", (ROOT / ".ci" / "run").read_text())
    assert pattern
    for line in ("==== 3 passed in 0.01s ====", "=== 1 failed, 2 passed, 1 skipped in 61.00s (0:01:01) ==="):
        assert re.search(pattern[1], line)
    assert not re.search(pattern[1], "==== short test summary info ====")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_help_names_every_target() -> None:
    """`make` alone explains itself; each phony target is in the help text."""
    shown = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20).stdout
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    for target in phony[1].split():
        assert target == "help" or f"make {target} " in shown


def test_nothing_is_fetched_by_pre_commit() -> None:
    """Every pre-commit hook is local: no host is asked."""
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: (\S+)", text) == ["local"]
    assert "http" not in text
