"""No advice to run a check that passes: of wrong cells, each printed command finds the fault, with its line."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.mistakes import MISTAKES
from support.mutants import MUTANTS
from support.runs import made
from support.wrong_strategy import WRONG
from typer.testing import CliRunner

from benchframe.api import Cache, Strategy, native
from benchframe.cli import app
from benchframe.registry import load
from benchframe.results.folder import Cell, CellState, RunFolder
from benchframe.strategy import resolve
from benchframe.study import diagnosis
from benchframe.study.diagnosis import diagnose
from benchframe.trace.trace import Trace

KNOWN = load()
PLUGIN = """
from benchframe.api import hookimpl
from support.mistakes import MISTAKES
from support.mutants import MUTANTS
from support.wrong_strategy import WRONG
from study.test_diagnosis import LOOPS


@hookimpl
def benchframe_strategies():
    return [WRONG, LOOPS, *(one[0] for one in (*MISTAKES.values(), *MUTANTS.values()))]
"""


@native
def find_for_ever(mm, task, addr):  # type: ignore[no-untyped-def]
    """Waits for nobody."""
    while mm.mmap_cache == 0:
        pass
    return mm.mmap_cache


LOOPS = Strategy("loops", "does not end", "rbtree", Cache(find=find_for_ever))


@pytest.fixture(scope="module")
def stream() -> Trace:
    """Some events with faults, lookups and mapping calls."""
    return KNOWN.spec("mmap-churn:vmas=24,pages=1,punch=0,events=60").trace(3)


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: Trace) -> Callable[..., tuple[str, list[str]]]:
    """What is told of a wrong cell, and the outputs of the commands among it; each must end with exit code 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("benchframe.study.diagnosis.PATIENCE", 0.2)
    monkeypatch.setattr(diagnosis, "GUARDED", 0.1)  # compiling takes too long here; tests/engine/test_guard.py does it
    plugin = tmp_path / "wrong.py"
    plugin.write_text(PLUGIN)

    def tell(strategy: Strategy, state: CellState, *scenarios: str, threads: int = 0) -> tuple[str, list[str]]:
        if scenarios:
            few = tuple(one for one in diagnosis.scenarios_of(strategy) if one.name in scenarios)
            monkeypatch.setattr(diagnosis, "scenarios_of", lambda strategy: few)
        folder: RunFolder = made(tmp_path / "run", {"base": {}, strategy.name: {}}, states={strategy.name: state})
        (cell,) = [cell for cell in folder.cells() if cell.state.failed]
        cell = replace(cell, workload=replace(cell.workload, threads=threads))
        lines: list[str] = []
        resolved = resolve(strategy, KNOWN.strategies)
        diagnose(lambda name: resolved, [cell], {"toy": stream}, [str(plugin)], _again, lines.append)
        outputs = []
        for line in lines:
            _, found, command = line.partition(": benchframe ")
            if found:
                done = CliRunner().invoke(app, shlex.split(command))
                assert done.exit_code == 1, (command, done.output)
                outputs.append(done.output)
        return "\n".join(lines), outputs

    return tell


def _again(cell: Cell) -> list[str]:
    return ["benchframe", "run", "-s", cell.entry.strategy]


@pytest.mark.parametrize("what", ["not reset on exec", "load through NULL", "outside", "off by one", "no end"])
def test_what_one_task_shows(what: str, told: Callable[..., tuple[str, list[str]]]) -> None:
    """In the stream itself where that shows it (a file of few events is kept), else in random calls or a scenario: the
    command that is told finds it, with the file and line that were told."""
    strategy, where, kind = MISTAKES.get(what, (LOOPS if what == "no end" else WRONG, "lookup-munmap", ""))
    state = {"off by one": "wrong", "no end": "timed_out"}.get(what, "crashed")
    text, outputs = told(strategy, CellState(state, "x", event=40 if state == "wrong" else -1), where)
    (output,) = outputs
    assert kind in output
    said = text.split("(/")[1].split(")")[0]
    assert (said.partition(":")[0] if what == "no end" else said) in output  # a loop has two lines
    assert ".py:" in output


def test_what_threads_show(told: Callable[..., tuple[str, list[str]]]) -> None:
    """A race: nobody is sent to the stream, which one task replays rightly, but to a scenario's schedule."""
    strategy, where, _ = MUTANTS["no recheck"]
    text, outputs = told(strategy, CellState("wrong", "x"), where, threads=2)
    (output,) = outputs
    assert f"--scenario {where} --replay" in text
    assert "mutants.py:" in output


def test_nothing_is_advised_where_nothing_finds_it(told: Callable[..., tuple[str, list[str]]]) -> None:
    """A right strategy whose cell is called wrong: no command, and how far the search went."""
    right = KNOWN.strategy("rbtree")
    text, outputs = told(right, CellState("crashed", "x"), "lookup-munmap")
    assert not outputs
    assert "benchframe check --" not in text
    assert "the cause was not found: the same text is right by the interpreter in" in text
    assert "2 of 2 parts of `benchframe check` find nothing" in text
