"""--until-decided: who gets another round, by real worker processes with a made-up session."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.runs import OPTIONS as SHALLOW
from support.runs import made, noise
from support.sessions import OPTIONS, Log, sit, start
from typer.testing import CliRunner

from benchframe.cli import app
from benchframe.results import RunFolder
from benchframe.results.campaign import MIN_ROUNDS, open_cells
from benchframe.results.figures import rows_of

ADAPTIVE = replace(OPTIONS, until_decided=True, rounds=12, decide=("lookup",))


@pytest.mark.slow
def test_rounds_go_where_something_is_open(tmp_path: Path) -> None:
    """A third faster is decided after five rounds (the evidence that four can give does not do for four comparisons);
    an equal one goes on, with its baseline, until it reads the same; then the run ends, before its limit. A second
    sitting has nothing to do."""
    folder, strategies = start(tmp_path / "run", ["fake20", "also30"], ADAPTIVE)
    log = sit(folder, strategies)
    cells = {cell.entry.strategy: cell for cell in RunFolder.open(folder.path).cells()}
    rounds = {name: len(cell.done) for name, cell in cells.items()}
    assert rounds["fake20"] == MIN_ROUNDS + 1
    assert MIN_ROUNDS + 1 < rounds["also30"] == rounds["fake30"] < 12
    assert log.notes == [f"all is decided after {rounds['also30']} rounds"]
    verdicts = {row.cell.entry.strategy: row.figures["lookup"].verdict for row in rows_of(cells.values())}
    assert [v.word for v in verdicts.values() if v] == ["faster", "same"]
    again = sit(RunFolder.open(folder.path), strategies)
    assert again.order == []


def test_limits_hold(tmp_path: Path) -> None:
    """What cannot be decided stops at the limit of rounds; a wrong cell is not waited for."""
    options = replace(ADAPTIVE, rounds=5, within=0.0005)
    folder, strategies = start(tmp_path / "run", ["also30", "wrong"], options)
    log = sit(folder, strategies, Log())
    assert max(round_ for round_, _ in log.order) == 4
    assert [name for round_, name in log.order].count("wrong") == 1


def test_options_come_back_from_the_manifest(tmp_path: Path) -> None:
    """A run remembers that it was stopped by what it showed, so tables judge it by the test that allows it."""
    options = replace(SHALLOW, until_decided=True, within=0.01, decide=("fault",))
    made(tmp_path / "a", {"base": {"lookup": noise(10, 9, 1)}, "mine": {"lookup": noise(10.4, 9, 2)}}, options=options)
    folder = RunFolder.open(tmp_path / "a")
    assert folder.manifest.options == options
    assert folder.cells()[0].judging.anytime
    once = rows_of([replace(cell, judging=SHALLOW.judging) for cell in folder.cells()])[1].figures["lookup"].verdict
    often = rows_of(folder.cells())[1].figures["lookup"].verdict
    assert once is not None
    assert often is not None
    assert often.p > once.p


def test_open_cells_are_those_of_the_figures_that_count(tmp_path: Path) -> None:
    """An undecided figure that does not count keeps nothing open; one that does keeps its baseline open too."""
    cells = {
        "base": {"lookup": noise(10, 6, 1), "fault": noise(40, 6, 2, 0.2)},
        "mine": {"lookup": noise(20, 6, 3), "fault": noise(41, 6, 4, 0.2)},
    }
    options = replace(SHALLOW, until_decided=True, decide=("lookup",))
    folder = made(tmp_path / "a", cells, options=options)
    assert open_cells(folder) == set()
    folder.save(replace(folder.manifest, options=replace(options, decide=("lookup", "fault"))))
    assert open_cells(folder) == {("toy", "base"), ("toy", "mine")}


def test_usage() -> None:
    """Figures that do not exist and too few rounds are told before anything runs."""
    for arguments, said in (
        (["--decide", "speed"], "--decide takes lookup, cold, fault, mapping, not speed"),
        (["--rounds", "2"], f"--until-decided needs at least {MIN_ROUNDS} rounds, not 2"),
    ):
        done = CliRunner().invoke(app, ["run", "--until-decided", *arguments])
        assert done.exit_code == 2
        assert said in done.stderr
