"""Races that Linux once had: with the bug put back the checker finds it, unasked; with the mend it finds nothing."""

import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from benchframe.check.command import list_historic, run_historic, show
from benchframe.cli import app
from benchframe.errors import UsageError
from benchframe.registry import load
from benchframe.scenario import Historic, Weaker

KNOWN = load()
RACES = KNOWN.historic()
SHOWN = [number for number, race in RACES.items() if not race.because]


def test_every_number_is_there() -> None:
    """B1 to B30 and W1 to W12, each either shown or with the reason why not; nothing is wrong with the list."""
    assert list(RACES) == [*(f"B{number}" for number in range(1, 31)), *(f"W{number}" for number in range(1, 13))]
    assert not KNOWN.problems
    lines: list[str] = []
    assert list_historic(RACES, lines.append) == 0
    assert len(lines) == 2 * len(RACES)
    assert sum("not reproduced: " in line for line in lines) == len(RACES) - len(SHOWN)


@pytest.mark.parametrize("number", SHOWN)
def test_found_and_mended(number: str) -> None:
    """The failure that the race is, the same again from its replay string; nothing with the mend, in every
    interleaving where they are few enough."""
    race = RACES[number]
    shown = show(race, 200, None if race.whole else 3 if race.memory == "sc" else 1)
    assert shown.finding is not None, (race.shows, shown.broken.findings, shown.broken.coverage)
    assert shown.finding.stable
    assert not shown.mended.findings, shown.mended.findings
    assert shown.mended.coverage.complete or not race.whole


@pytest.mark.parametrize("left", RACES["B24"].weaker, ids=lambda one: one[0])
def test_half_a_mend(left: Weaker) -> None:
    """B24 with one of its two orders mended, and the other still missing: found all the same."""
    shown = show(replace(RACES["B24"], weaker=(left,)), 200, 0)
    assert shown.finding is not None


# ---- the command -------------------------------------------------------------------------------------------------


def said(races: dict[str, Historic], *numbers: str, again: str | None = None) -> tuple[int, str]:
    """Exit code and what was printed."""
    lines: list[str] = []
    code = run_historic(races, numbers, 60, again, say=lines.append)
    return code, "\n".join(lines)


def test_the_command_and_its_replay() -> None:
    """Both sides in a line, the story, and a replay string that fails again: exit codes 0 and 1."""
    code, text = said(RACES, "b29")
    assert code == 0
    assert re.search(r"with the bug +WRONG: 1 failure", text)
    assert re.search(r"with its mend +right in every interleaving", text)
    assert "wrong answer: T0: mmap of pages 0-3 with MAP_FIXED_NOREPLACE answered 268435456, must answer -17" in text
    string = text.splitlines()[-1].split("benchframe check --historic B29 --replay ")[1]
    again = said(RACES, "B29", again=string)
    assert again[0] == 1
    assert "wrong answer: T0" in again[1]


def test_a_mend_that_does_not_mend() -> None:
    """Exit code 1 if the mend has the bug, or if the bug is not to be found."""
    race = RACES["B29"]
    assert race.mended_scenario is not None
    assert said({"B29": replace(race, mended_scenario=None)}, "B29")[0] == 1
    code, text = said({"B29": replace(race, scenario=race.mended_scenario)}, "B29")
    assert code == 1
    assert "NOT found: wrong answer" in text


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("B8", r"B8 .* cannot be reproduced: not a bug"),
        ("B91", r"did you mean B9\? "),
        ("x", "--list-historic"),
    ],
)
def test_numbers_that_cannot_be_used(number: str, words: str) -> None:
    """What is no race, or none that can be shown, is refused in words."""
    with pytest.raises(UsageError, match=words):
        said(RACES, number)
    with pytest.raises(UsageError, match="exactly one"):
        said(RACES, "B1", "B2", again="v1:0x1.")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--list-historic"], 0, "B22  lock order of the fix for B21"),
        (["--historic", "B29"], 0, "again: benchframe check --historic B29 --replay v1:"),
        (
            ["--historic", "B13"],
            2,
            "B13 (speculative copy concurrent with the registration of an MMU notifier) cannot be reproduced",
        ),
        (["--historic", "B29", "--strategy", "rbtree"], 2, "a historic race has its own strategies and scenario"),
    ],
)
def test_the_options(options: list[str], code: int, words: str) -> None:
    """`benchframe check` with them: what is printed, and the exit code."""
    result = CliRunner().invoke(app, ["check", *options])
    assert result.exit_code == code, result.output
    assert words in " ".join((result.stdout + result.stderr).split("\n"))
