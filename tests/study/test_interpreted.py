"""What a run finds, a check can repeat: a failing stream by the interpreter, with its line, made short and kept."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.mistakes import MISTAKES
from support.wrong_strategy import WRONG
from typer.testing import CliRunner

from benchframe.cli import app
from benchframe.cli.cost import wild_access
from benchframe.registry import load
from benchframe.strategy import resolve
from benchframe.study.diagnosis import first_failure, save, shortened
from benchframe.trace.trace import Trace, read_trace

KNOWN = load()
PLUGIN = """
from benchframe.api import hookimpl
from support.mistakes import MISTAKES
from support.wrong_strategy import WRONG


@hookimpl
def benchframe_strategies():
    return [WRONG, MISTAKES["outside"][0]]
"""


@pytest.fixture(scope="module")
def stream() -> Trace:
    """Some events with faults, lookups and mapping calls."""
    return KNOWN.spec("mmap-churn:vmas=24,pages=1,punch=0,events=60").trace(3)


def test_a_right_strategy_is_right(stream: Trace) -> None:
    """Every answer agrees, and the end does."""
    assert first_failure(KNOWN.strategy("vmacache"), stream) is None


def test_wrong_answer_is_shortened_and_kept(stream: Trace, tmp_path: Path) -> None:
    """A strategy that is off by one page: its first wrong event, few events that still show it, and so from a file."""
    strategy = resolve(WRONG, KNOWN.strategies)
    failure = first_failure(strategy, stream)
    assert failure is not None
    assert "the oracle" in failure.text
    short, again = shortened(strategy, stream, failure, seconds=30)
    assert len(short) < 20
    path = save(short, strategy.name, tmp_path)
    read = read_trace(path)
    assert np.array_equal(read.events, short.events)
    found = first_failure(strategy, read)
    assert found is not None
    assert found.text == again.text


@pytest.mark.parametrize(
    ("mistake", "kind"), [("load through NULL", "NULL dereference"), ("outside", "wild reference")]
)
def test_cost_tells_wild_accesses(mistake: str, kind: str, stream: Trace) -> None:
    """Compiled code reads zeros there and answers rightly: `cost` says it of a plugin's strategy, with its line. Of a
    right one nothing."""
    for strategy, wanted in (
        (resolve(MISTAKES[mistake][0], KNOWN.strategies), rf"{kind}: .*mistakes\.py:\d+"),
        (KNOWN.strategy("mmap_cache"), "^$"),
    ):
        origin = replace(KNOWN.origins["strategy", "rbtree"], distribution="of somebody else")
        known = replace(KNOWN, origins={("strategy", strategy.name): origin})
        assert re.search(wanted, wild_access(known, strategy, stream))


def test_command(stream: Trace, tmp_path: Path) -> None:
    """``check --trace`` says the line of an access outside of a slab; exit code 1. 0 for a right strategy."""
    plugin = tmp_path / "mistakes_plugin.py"
    plugin.write_text(PLUGIN)
    name = MISTAKES["outside"][0].name
    path = save(stream, name, tmp_path)
    done = CliRunner().invoke(app, ["check", "-s", name, "--plugin", str(plugin), "--trace", str(path)])
    assert done.exit_code == 1, done.output
    assert "WRONG: event" in done.stdout
    assert "mistakes.py:" in done.stdout
    done = CliRunner().invoke(app, ["check", "-s", "rbtree", "--trace", str(path)])
    assert done.exit_code == 0, done.output
