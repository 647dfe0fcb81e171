"""No blessing of wrong code: six mistakes that authors make are found, each with its line, alone and in a scenario."""

import inspect
import re
import time

import pytest
from support import mistakes
from support.mistakes import MISTAKES

from benchframe.check.checker import Hunt, make_case, replay, tell
from benchframe.check.command import scenario
from benchframe.check.conform import Conformance
from benchframe.check.execution import Broken
from benchframe.registry import load
from benchframe.strategy import Strategy, resolve

KNOWN = load()
FILE = inspect.getfile(mistakes)
SHOWN_BY_SET_UP = ("load through NULL", "outside")


def line_of(what: str) -> str:
    """``mistakes.py:LINE`` of the mark."""
    lines = inspect.getsource(mistakes).splitlines()
    (number,) = [at for at, line in enumerate(lines, 1) if line.endswith(f"# WRONG: {what}")]
    return f"mistakes.py:{number}"


def resolved(strategy: Strategy) -> Strategy:
    """With the index of the registry."""
    return resolve(strategy, KNOWN.strategies)


@pytest.mark.parametrize("what", MISTAKES)
def test_found_in_its_scenario(what: str) -> None:
    """The scenario's search fails in the expected way, and the report names the line."""
    strategy, where, kind = MISTAKES[what]
    if what in SHOWN_BY_SET_UP:
        with pytest.raises(Broken) as caught:
            make_case(scenario(where), resolved(strategy))
        assert caught.value.kind == kind
        assert line_of(what) in caught.value.text.replace(FILE, "mistakes.py")
        return
    case = make_case(scenario(where), resolved(strategy))
    verdict = Hunt(case).run(time.monotonic() + 60)
    found = [finding for finding in verdict.findings if finding.kind == kind]
    assert found, verdict.findings
    assert all(finding.stable for finding in found)
    stories = [finding.text + "\n" + tell(case, replay(case, finding.replay), "") for finding in found]
    assert any(line_of(what) in story for story in stories), stories
    if what == "not reset on exec":  # it traces what it finds in the memo
        assert any(re.search(r"T\d +trace 0x\d+ +mistakes.py:\d+ memo_find_after_exec", story) for story in stories)


@pytest.mark.parametrize("what", MISTAKES)
def test_found_by_random_calls(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So do random calls of a few processes, one after the other; what was wrong is told with its line."""
    monkeypatch.setattr("benchframe.check.conform.SHRINKS", 10)
    strategy, _, kind = MISTAKES[what]
    result = Conformance(resolved(strategy)).run(3000, 4, time.monotonic() + 120)
    assert result.failure, result.calls
    if kind != "stale answer":
        assert f"{kind}: " in result.failure
    assert line_of(what) in result.failure.replace(FILE, "mistakes.py")
    assert bool(result.traced) == (what == "not reset on exec")
    assert all("in memo_find_after_exec (" in text for text in result.traced)
