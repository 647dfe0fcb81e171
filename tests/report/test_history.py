"""`benchframe history` and `run --save-baseline`: levels over runs made of given values."""

import json
from pathlib import Path

import pytest
from support.runs import HOST, VERSIONS, made, noise
from typer.testing import CliRunner, Result

from benchframe.cli import app
from benchframe.errors import ResultsError
from benchframe.results.folder import find_run, save_baseline


def call(*arguments: object) -> Result:
    """benchframe with these arguments."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def five_commits(root: Path) -> None:
    """Five runs in five days: a new text in the third makes `mine` a quarter slower, the last has another model."""
    for day, mine in enumerate((6.0, 6.0, 7.5, 7.5, 7.5), 1):
        made(
            root / f"2026110{day}-100000-mine",
            {"base": {"lookup": noise(10, 10, day)}, "mine": {"lookup": noise(mine, 10, day + 50)}},
            digests={"mine": ("d" if day < 3 else "e") * 64},
            created=f"2026-11-0{day}T10:00:00+00:00",
            versions=VERSIONS if day < 5 else {**VERSIONS, "model": "f" * 16},
        )


def test_a_step_is_found_with_what_changed(tmp_path: Path) -> None:
    """Two levels: the run where the second begins, the step, and that the text changed there."""
    five_commits(tmp_path)
    done = call("history", "mine", "--runs", tmp_path, "--format", "json")
    assert done.exit_code == 0, done.output
    first, second = json.loads(done.stdout)["rows"]
    assert (first["runs"], second["runs"]) == (2, 3)
    assert first["value"] == pytest.approx(0.6, rel=0.01)
    assert second["run"] == "20261103-100000-mine"
    assert second["step"] == pytest.approx(1.25, rel=0.02)
    assert second["changed"] == "text"
    assert call("history", "mine", "--runs", tmp_path, "--fail-slower").exit_code == 1
    assert "+2" in call("history", "mine", "--runs", tmp_path).stdout
    assert "7.5" in call("history", "mine", "--absolute", "--runs", tmp_path).stdout


def test_only_what_is_alike_is_a_series(tmp_path: Path) -> None:
    """Other events, another processor: series of their own, so no step. A run that cannot be read is told."""
    cells = {"base": {"lookup": noise(10, 5, 1)}, "mine": {"lookup": noise(8, 5, 2)}}
    made(tmp_path / "a", cells)
    made(tmp_path / "b", {**cells, "mine": {"lookup": noise(4, 5, 2)}}, trace="9" * 64)
    made(tmp_path / "c", {**cells, "mine": {"lookup": noise(2, 5, 2)}}, host={**HOST, "cpu": "<b>Other</b>"})
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "manifest.json").write_text("{}")
    done = call("history", "mine", "--runs", tmp_path, "--fail-slower")
    assert done.exit_code == 0
    assert "left out" in done.output
    rows = json.loads(call("history", "mine", "--runs", tmp_path, "--format", "json").stdout)["rows"]
    assert [row["step"] for row in rows] == [None] * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "no run in"),
        (["base"], "--absolute gives its ns"),
        (["mine", "--figure", "speed"], "--figure takes lookup"),
        (["mine", "--format", "mail"], "no mail format"),
    ],
)
def test_what_cannot_be_shown(arguments: list[str], words: str, tmp_path: Path) -> None:
    """Exit code 2, and what to do."""
    made(tmp_path / "a", {"base": {"lookup": noise(10, 5, 1)}, "mine": {"lookup": noise(8, 5, 2)}})
    done = call("history", *arguments, "--runs", tmp_path)
    assert done.exit_code == 2
    assert words in done.output


def test_a_run_with_a_name(tmp_path: Path) -> None:
    """The name leads to the run until another takes it; what the file says cannot lead elsewhere."""
    for name in ("20261101-a", "20261102-b"):
        made(tmp_path / name, {"base": {"lookup": noise(10, 5, 1)}})
    save_baseline("main", tmp_path / "20261101-a")
    assert find_run("main", tmp_path).name == "20261101-a"
    save_baseline("main", tmp_path / "20261102-b")
    assert find_run("main", tmp_path).name == "20261102-b"
    assert find_run("last", tmp_path).name == "20261102-b"
    (tmp_path / "baselines" / "main").write_text("../../etc")
    with pytest.raises(ResultsError, match="no such run"):
        find_run("main", tmp_path)
    for name in ("last", "../x", "", "a b"):
        with pytest.raises(ResultsError, match="cannot be called so"):
            save_baseline(name, tmp_path / "20261101-a")
    assert call("run", "-s", "rbtree", "--save-baseline", "../x").exit_code == 2
