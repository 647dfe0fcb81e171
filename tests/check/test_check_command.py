"""The command as a whole: several processes, Ctrl-C, saved failures, known bugs, scenarios of a strategy's own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.mutants import MUTANTS, twin

from benchframe.api import Index, Strategy, scenario
from benchframe.check import jobs
from benchframe.check.command import run_check_command
from benchframe.check.jobs import Part, Result, SavedError, Watcher, read, run_parts
from benchframe.errors import UsageError
from benchframe.registry import load
from benchframe.strategy import StrategyError, resolve
from benchframe.testing import assert_stays_away, saved_failures

KNOWN = load()
QUICK = ["lookup-munmap", "fault-munmap-signal", "stack-stack", "fault-fork"]


@pytest.fixture(autouse=True)
def few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random calls of one task are what test_check.py and test_mistakes.py look at; here a few will do."""
    monkeypatch.setattr(jobs, "CALLS", 40)


def said_by(names: list[str], scenarios: list[str], **options: Any) -> tuple[int, list[str]]:
    """Exit code and lines, without the times."""
    lines: list[str] = []
    code = run_check_command([KNOWN.strategy(n) for n in names], scenarios, 200, say=lines.append, **options)
    return code, [re.sub(r"\d+\.\d+ s", "", line) for line in lines]


def test_several_processes_say_the_same() -> None:
    """Verdicts, replay strings and stories come in the same order and words whatever the number of processes."""
    one = said_by(["pmdcache", "rbtree"], QUICK, jobs=1)
    assert said_by(["pmdcache", "rbtree"], QUICK, jobs=3) == one
    assert one[0] == 1


def test_a_worker_that_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part whose process ends is reported as not checked; the other processes go on with the rest."""

    def do(part: Part, deadline: float, tick: Any, found: Any) -> Result:
        if part.name == "stack-stack":
            os._exit(7)
        return Result((f"{part.name} done",))

    monkeypatch.setattr(jobs, "do_part", do)
    code, lines = said_by(["rbtree"], QUICK, jobs=2)
    assert code == 1
    assert any("stack-stack" in line and "NOT checked: its process ended with code 7" in line for line in lines)
    assert sum("done" in line for line in lines) == len(QUICK)


def test_a_second_chance() -> None:
    """A search that was cut is taken again after all others, once, with what is left; the better result counts."""
    cut, whole = Result(("cut",), executions=5), Result(("whole",), complete=True, executions=9)
    agenda = jobs._Agenda(2, time.monotonic() + 1000, 1)
    assert [agenda.take() is not None, agenda.hand_in(0, cut)] == [True, None]
    second = agenda.take()
    assert second is not None
    assert second[0] == 1
    assert agenda.hand_in(1, whole) is whole
    again = agenda.take()
    assert again is not None
    assert again[0] == 0
    assert again[1] - time.monotonic() > 900
    assert agenda.hand_in(0, replace(cut, executions=3)) is cut
    assert agenda.take() is None


@pytest.mark.parametrize("result", [Result(("wrong",), wrong=True, executions=5), Result(("one task",), executions=0)])
def test_no_second_chance(result: Result) -> None:
    """What failed, and what is no search, is final; so is everything when the time is used up."""
    agenda = jobs._Agenda(1, time.monotonic() + 1000, 1)
    agenda.take()
    assert agenda.hand_in(0, result) is result
    late = jobs._Agenda(1, time.monotonic(), 1)
    late.take()
    cut = Result(("cut",), executions=5)
    assert late.hand_in(0, cut) is cut


def test_progress_is_reported() -> None:
    """A watcher hears of each part once, of failures as they come, and of executions."""

    class Counting(Watcher):
        parts: list[int]
        failures = 0

        def done(self, index: int, result: Result) -> None:
            self.parts.append(index)

        def found(self, index: int, text: str) -> None:
            self.failures += 1

    watcher = Counting()
    watcher.parts = []
    from benchframe.check.command import plan

    parts = plan([KNOWN.strategy("pmdcache")], QUICK, "sc", None)
    run_parts(parts, time.monotonic() + 60, 2, watcher)
    assert sorted(watcher.parts) == list(range(len(parts)))
    assert watcher.failures > 0


def test_ctrl_c_tells_what_was_found() -> None:
    """SIGINT ends the command with 130; what had been found is on stdout, and no process stays."""
    command = [sys.executable, "-m", "benchframe", "check", "-s", "pmdcache,rbtree", "-j", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "lookup-munmap " in line:
            break
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130, (seen, rest, errors)
    assert "interrupted" in errors
    assert re.search(r"interrupted: \d+ of \d+ parts not done", rest)
    assert "use after free" in rest


# ---- saved failures ------------------------------------------------------------------------------------------------


def test_saved_failures_run_first(tmp_path: Path) -> None:
    """--save keeps a failure; the next check runs it again before anything else, and it fails as before."""
    code, lines = said_by(["pmdcache"], ["lookup-merge"], saved=tmp_path, save_new=True)
    assert code == 1
    assert any("saved as" in line for line in lines)
    (saved,) = read(tmp_path)
    assert (saved.strategy, saved.scenario, saved.kind) == ("pmdcache", "lookup-merge", "use after free")
    code, lines = said_by(["pmdcache"], ["stack-stack"], saved=tmp_path)
    assert code == 1
    assert "saved lookup-merge       WRONG: fails as before: use after free" in lines[2]
    assert said_by(["rbtree"], ["stack-stack"], saved=tmp_path)[0] == 0, "another strategy's failure is not run"


def test_a_saved_failure_after_an_edit(tmp_path: Path) -> None:
    """In the mended text the schedule leads elsewhere: this is said, and the scenario itself decides."""
    said_by(["pmdcache"], ["lookup-munmap"], saved=tmp_path, save_new=True)
    (path,) = tmp_path.glob("*/*.json")
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, "strategy": "rbtree"}))
    code, lines = said_by(["rbtree"], ["lookup-munmap"], saved=tmp_path)
    assert code == 0
    assert re.search(r"no longer applies: only \d+ of \d+ steps|no failure any more", lines[2])


def test_a_plugins_own_tests(tmp_path: Path) -> None:
    """The helpers of benchframe.testing: a race that is still there fails with its story, a mended one passes."""
    said_by(["pmdcache"], ["lookup-munmap"], saved=tmp_path, save_new=True)
    (failure,) = saved_failures(tmp_path)
    assert str(failure) == "pmdcache, lookup-munmap: use after free"
    with pytest.raises(AssertionError, match=r"fails as before(.|\n)*the life of"):
        assert_stays_away(KNOWN, failure)
    assert_stays_away(KNOWN, replace(failure, strategy="pmdcache_rcu"))
    assert saved_failures(tmp_path / "none") == []


@pytest.mark.parametrize("text", ["", "[]", '{"version": 1}', '{"version": 2}', "[" * 100_000, '"\\ud800"'])
def test_spoilt_files(tmp_path: Path, text: str) -> None:
    """A file that is no saved failure is one line with its path, not a traceback."""
    (tmp_path / "rbtree").mkdir()
    (tmp_path / "rbtree" / "x.json").write_text(text)
    with pytest.raises(SavedError, match=r"x\.json: not a saved failure"):
        said_by(["rbtree"], ["stack-stack"], saved=tmp_path)


# ---- what a strategy brings ----------------------------------------------------------------------------------------


def _pages(space: Any) -> None:
    space.map(0, 2)


OWN = scenario.Scenario("own", "mine alone", _pages, ((scenario.fault(0),), (scenario.munmap(0, 2),)))


def test_own_scenarios() -> None:
    """Scenarios beside a strategy run for it and nobody else, and can be named."""
    mine = replace(KNOWN.strategy("rbtree"), name="mine", scenarios=(OWN,))
    lines: list[str] = []
    assert run_check_command([mine, KNOWN.strategy("rbtree")], ["own"], 30, say=lines.append) == 0
    assert sum("own " in line and "right in every" in line for line in lines) == 1
    with pytest.raises(UsageError, match="no scenario 'own'"):
        run_check_command([KNOWN.strategy("rbtree")], ["own"])


def test_two_scenarios_of_one_name() -> None:
    """A name given twice is the plugin's mistake."""
    index: Any = KNOWN.strategy("rbtree").index
    assert isinstance(index, Index)
    with pytest.raises(StrategyError, match="two of its scenarios have the same name"):
        resolve(Strategy("twice", "", index, scenarios=(OWN, OWN)), {})


def test_known_bugs() -> None:
    """Declared races are named in the lines and the table, and --allow-known lets them pass; new ones never pass."""
    code, lines = said_by(["pmdcache", "rbtree"], ["lookup-munmap"])
    assert code == 1
    assert any(line.endswith("in vma_hold [B1]") for line in lines)
    assert re.search(r"^pmdcache +right +\d/1 +- +.*B1.* wrong, as known$", lines[-1] + "\n" + "\n".join(lines), re.M)
    assert said_by(["pmdcache"], ["lookup-munmap"], allow_known=True)[0] == 0
    undeclared = replace(KNOWN.strategy("pmdcache"), known_bugs=())
    assert run_check_command([undeclared], ["lookup-munmap"], 20, allow_known=True, say=lambda text: None) == 1


def test_every_failure_of_the_seed_is_known() -> None:
    """What the checker finds in the RFC as posted has a name, in the scenarios written for its races."""
    where = ["merge-then-lookup", "fault-merge", "fault-munmap-signal", "lookup-munmap-table", "fault-munmap",
             "fault-munmap-neighbour", "fault-mremap", "fault-mremap-neighbour", "fault-mprotect-part"]  # fmt: skip
    code, lines = said_by(["pmdcache"], where, allow_known=True)
    assert code == 0, lines
    named = {bug.name for bug in KNOWN.strategy("pmdcache").known_bugs}
    assert {name for name in named if any(line.endswith(f"[{name}]") for line in lines)} == named


def test_every_failure_of_the_third_version_is_known() -> None:
    """The same for the RFC as posted on 25 December 2009: all that is found there has a name."""
    where = ["lookup-munmap", "fault-munmap", "fault-merge", "fault-mremap-neighbour", "two-lookups-munmap"]
    code, lines = said_by(["rcu_rbtree_v3"], where, allow_known=True)
    assert code == 0, lines
    assert {line.rpartition("[")[2] for line in lines if line.endswith("]")} == {"B9]", "waker]", "anon_vma]"}


# ---- ten mutations by the command --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m1", "m9"])
def test_the_command_catches_mutants(name: str) -> None:
    """The command gives exit code 1 for a broken copy of the twin; all of them are hunted, each in its scenario, in
    tests/check/test_broken_protocols.py."""
    strategy, where, _ = next(one for one in MUTANTS.values() if one[0].name == name)
    assert run_check_command([resolve(strategy, KNOWN.strategies)], [where], 200, say=lambda text: None) == 1


def test_the_command_passes_the_twin() -> None:
    """The same parts put together rightly: exit code 0."""
    strategy = resolve(twin("whole"), KNOWN.strategies)
    assert run_check_command([strategy], QUICK, 60, jobs=2, say=lambda text: None) == 0
