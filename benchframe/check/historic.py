"""``benchframe check --historic B19``: a race that once was, found with the bug put back, and gone with its mend."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchframe.check.command import scenario
from benchframe.check.hunt import Finding, Hunt, Verdict, make_case, replay
from benchframe.check.parts import MEND, graph_summary, summary
from benchframe.check.run import Broken
from benchframe.check.schedule import model_of
from benchframe.check.story import tell
from benchframe.check.weak import MODELS as GRAPHS
from benchframe.check.weak import GraphCase
from benchframe.check.weak_hunt import GraphHunt, mend, rule_for, tell_graph
from benchframe.errors import UsageError, did_you_mean
from benchframe.races import Historic
from benchframe.scenario import Scenario
from benchframe.strategy import Strategy

SAY = Callable[[str], None]


@dataclass(frozen=True)
class Shown:
    """What came of one race: with the bug, the failure that it is (None: not found), and with the mend."""

    race: Historic
    broken: Verdict
    finding: Finding | None
    mended: Verdict

    @property
    def right(self) -> bool:
        """Found with the bug; with the mend nothing."""
        return self.finding is not None and not self.mended.findings


def list_historic(races: Mapping[str, Historic], say: SAY = print) -> int:
    """One line per race: how to see it, or why it cannot be seen. Exit code 0."""
    for race in races.values():
        say(f"{race.number:4} {race.summary}")
        how = f"not shown: {race.because}" if race.because else f"{race.sources}; scenario {_name(race)}"
        say(f"     {how}")
    return 0


def run_historic(
    races: Mapping[str, Historic],
    numbers: Sequence[str],
    budget: float = 60.0,
    again: str | None = None,
    say: SAY = print,
) -> int:
    """Show the races called ``numbers`` ("all": those that can be) in ``budget`` seconds each; the exit code.

    0: each was found with its bug and nothing was with its mend; 1: otherwise. ``again`` runs one schedule of the one
    race with the bug: 1 if it fails. Raises UsageError for a number that is none, or a race that cannot be shown.
    """
    chosen = [_race(races, number) for number in _numbers(races, numbers)]
    if again is not None:
        if len(chosen) != 1:
            raise UsageError("--replay needs exactly one race: the one that the story names")
        return _again(chosen[0], again, say)
    right = True
    for race in chosen:
        shown = show(race, budget)
        right &= shown.right
        _tell(shown, say)
    return 0 if right else 1


def show(race: Historic, seconds: float, mended: float | None = None) -> Shown:
    """Search the side with the bug until it is found, for ``seconds`` at most, then the other for ``mended`` seconds
    (default: what is left of ``seconds``, half of it at least)."""
    if race.memory in GRAPHS:
        return _show_graph(race, seconds, mended)
    deadline = time.monotonic() + seconds
    broken = Hunt(make_case(_scenario(race), _strategy(race.broken)), race.among).run(deadline)
    now = time.monotonic()
    until = now + mended if mended is not None else max(deadline, now + seconds / 2)
    right = Hunt(make_case(race.mended_scenario or _scenario(race), _strategy(race.mended))).run(until)
    fits = [finding for finding in broken.findings if f"{finding.kind}: {finding.text}".startswith(race.shows)]
    return Shown(race, broken, fits[0] if fits else None, right)


def _graph_case(race: Historic) -> GraphCase:
    """The side with the bug."""
    case = GraphCase(_scenario(race), _strategy(race.broken), race.memory)
    case.weaker = {(function, operation, field): rule_for(now) for function, operation, field, now in race.weaker}
    return case


def _show_graph(race: Historic, seconds: float, mended: float | None) -> Shown:
    """The same under a memory model whose executions are graphs."""
    deadline = time.monotonic() + seconds
    broken = GraphHunt(_graph_case(race), race.among).run(deadline)
    now = time.monotonic()
    until = now + mended if mended is not None else max(deadline, now + seconds / 2)
    right = GraphHunt(GraphCase(race.mended_scenario or _scenario(race), _strategy(race.mended), race.memory)).run(
        until
    )
    fits = [finding for finding in broken.findings if f"{finding.kind}: {finding.text}".startswith(race.shows)]
    return Shown(race, broken, fits[0] if fits else None, right)


def _numbers(races: Mapping[str, Historic], numbers: Sequence[str]) -> list[str]:
    return [race.number for race in races.values() if not race.because] if list(numbers) == ["all"] else list(numbers)


def _race(races: Mapping[str, Historic], number: str) -> Historic:
    race = races.get(number) or races.get(number.upper())
    if race is None:
        hint = f"{did_you_mean(number.upper(), races, '')} `benchframe check --list-historic` lists them"
        raise UsageError(f"no historic race {number!r}", hint=hint.strip())
    if race.because:
        raise UsageError(f"{race.number} ({race.summary}) cannot be shown: {race.because}")
    return race


def _scenario(race: Historic) -> Scenario:
    return scenario(race.scenario) if isinstance(race.scenario, str) else race.scenario


def _name(race: Historic) -> str:
    return race.scenario if isinstance(race.scenario, str) else race.scenario.name


def _strategy(side: Strategy | str) -> Strategy:
    if isinstance(side, str):
        raise UsageError(f"strategy {side!r} was not looked up")  # Registry.historic does
    return side


def _tell(shown: Shown, say: SAY) -> None:
    race, finding = shown.race, shown.finding
    say(f"\n{race.number}  {race.summary}")
    say(f"  {race.sources}; scenario {_name(race)}")
    graphs = race.memory in GRAPHS
    say(f"  with the bug   {graph_summary(shown.broken) if graphs else summary(shown.broken)}")
    if finding is None:
        say(f"    NOT found: {race.shows}")
    else:
        say(f"    {finding.kind}: {finding.text}")
        if finding.sites.used:
            say(f"    in {finding.sites}")
    say(f"  with its mend  {graph_summary(shown.mended) if graphs else summary(shown.mended)}")
    for one in shown.mended.findings:
        say(f"    {one.kind}: {one.text}")
    if finding is not None and graphs:
        _tell_graph(race, finding, say)
    elif finding is not None:
        case = make_case(_scenario(race), _strategy(race.broken))
        Hunt(case).learn_shared()
        command = ["benchframe", "check", "--historic", race.number, "--replay", finding.replay]
        say(f"\n{tell(case, replay(case, finding.replay), shlex.join(command))}")


def _tell_graph(race: Historic, finding: Finding, say: SAY) -> None:
    case = _graph_case(race)
    failure = GraphHunt(case).again(finding.replay, time.monotonic() + 60)
    if failure is None:
        raise UsageError(f"{race.number}: the failure did not come again: a bug of the checker")
    deadline = time.monotonic() + MEND
    mends = mend(_scenario(race), _strategy(race.broken), failure, deadline, race.memory, case.weaker)
    command = ["benchframe", "check", "--historic", race.number, "--replay", finding.replay]
    say(f"\n{tell_graph(case, failure, shlex.join(command), mends)}")


def _again(race: Historic, text: str, say: SAY) -> int:
    if race.memory in GRAPHS:
        graph_case = _graph_case(race)
        failure = GraphHunt(graph_case).again(text, time.monotonic() + 600)
        told = tell_graph(graph_case, failure, f"this was {text}") if failure is not None else "this execution is right"
        say(told)
        return 1 if failure is not None else 0
    try:
        case = make_case(_scenario(race), _strategy(race.broken), model_of(text))
        Hunt(case).learn_shared()
        run = replay(case, text)
    except Broken as error:
        raise UsageError(str(error)) from error
    say(tell(case, run, f"this was {text}"))
    return 1 if run.failure is not None else 0
