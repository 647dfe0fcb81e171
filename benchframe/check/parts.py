"""What a check consists of: for each strategy its saved failures again, one task alone, then scenario by scenario.

A part is done by whoever has time (:mod:`benchframe.check.pool`), so its :class:`Result` is plain data.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from benchframe.check.common import COMMON
from benchframe.check.conform import Conformance, shown
from benchframe.check.hunt import DEPTH, Finding, Hunt, Verdict, make_case
from benchframe.check.hunt import replay as replay_in
from benchframe.check.memory import OutOfRecords
from benchframe.check.run import Broken
from benchframe.check.saved import Saved, run_again
from benchframe.check.schedule import decode
from benchframe.check.story import tell
from benchframe.check.weak import MODELS as GRAPHS
from benchframe.check.weak import GraphCase
from benchframe.check.weak_hunt import GraphHunt, mend, tell_graph
from benchframe.scenario import Scenario
from benchframe.strategy import Strategy

RACES = 5
"""Races of plain accesses that are told of a scenario."""
MEND = 20.0
"""Seconds for the search for a mend."""
CALLS = 600
"""Random calls of the sequential part."""
Tick = Callable[[int], None]
Found = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """One piece of work: a saved failure, a scenario, or (neither) random calls by one task."""

    strategy: Strategy
    scenario: Scenario | None = None
    memory: str = "sc"
    saved: Saved | None = None
    plugins: tuple[str, ...] = ()
    """Files that were named on the command line: to check again they must be named again."""

    @property
    def name(self) -> str:
        """As it is called in the output."""
        if self.saved is not None:
            return f"saved {self.saved.scenario}"
        return self.scenario.name if self.scenario is not None else "one task"


@dataclass(frozen=True)
class Result:
    """What came of a part. ``lines`` are for the user; ``wrong``: something failed or could not be checked."""

    lines: tuple[str, ...]
    wrong: bool = False
    complete: bool = False
    executions: int = 0
    findings: tuple[Finding, ...] = ()
    story: str = ""
    notes: tuple[str, ...] = field(default=())


def scenarios_of(strategy: Strategy) -> tuple[Scenario, ...]:
    """The common ones, then the strategy's own."""
    return (*COMMON, *strategy.scenarios)


def do_part(part: Part, deadline: float, tick: Tick, found: Found) -> Result:
    """Do it until ``deadline`` (time.monotonic). ``tick`` hears of executions, ``found`` of failures as they come."""
    if part.saved is not None:
        again = run_again(part.saved, part.strategy, part.scenario)
        return Result((f"{part.name:24} {again.text}",), wrong=again.fails, executions=1, story=again.story)
    if part.scenario is None:
        return _one_task(part, deadline)
    return _scenario(part, part.scenario, deadline, tick, found)


def _one_task(part: Part, deadline: float) -> Result:
    result = Conformance(part.strategy).run(CALLS, 1, deadline)
    if not result.failure:
        text = f"{result.calls} random calls agree with the oracle ({result.seconds:.1f} s)"
        return Result((f"{part.name:24} {text}",), complete=True)
    lines = [f"{part.name:24} WRONG: {result.failure}", "  the shortest program found:"]
    return Result((*lines, *(f"    {shown(call)}" for call in result.program)), wrong=True)


def _scenario(part: Part, one: Scenario, deadline: float, tick: Tick, found: Found) -> Result:
    if part.memory in GRAPHS:
        return _graphs(part, one, deadline, tick, found)
    try:
        case = make_case(one, part.strategy, part.memory)
    except Broken as broken:
        finding = Finding(one.name, broken.kind, broken.text, "", (broken.kind,), function=broken.function)
        return Result((f"{one.name:24} WRONG: {broken.text}",), wrong=True, findings=(finding,))
    hunt = Hunt(case, tick=tick, found=lambda failure, schedule: found(f"{failure}\n      {schedule}"))
    try:
        verdict = hunt.run(deadline)
    except OutOfRecords as limit:
        return Result((f"{one.name:24} NOT checked: {limit}",), wrong=True)
    findings = tuple(replace(f, known=_known(part.strategy, f)) for f in verdict.findings)
    lines = [f"{one.name:24} {summary(replace(verdict, findings=list(findings)))}"]
    for finding in findings:
        known = f" [{finding.known}]" if finding.known else " [new]" if part.strategy.known_bugs else ""
        lines.append(f"  {finding.kind}: {finding.text}{'' if finding.stable else ' (NOT the same twice)'}{known}")
        if finding.sites.used:
            lines.append(f"    in {finding.sites}")
        lines.append(f"    {finding.replay}")
    story = ""
    if findings:
        best = min(findings, key=_size)
        Hunt(case).learn_shared()
        story = tell(case, replay_in(case, best.replay), _command(part, best))
    executions = verdict.coverage.executions + verdict.sampled
    return Result(tuple(lines), bool(findings), verdict.coverage.complete, executions, findings, story)


def _graphs(part: Part, one: Scenario, deadline: float, tick: Tick, found: Found) -> Result:
    """A scenario under a memory model whose executions are graphs."""
    if one.hardware:
        return Result((f"{one.name:24} not checked: TLBs are not part of this memory model",), complete=True)
    try:
        case = GraphCase(one, part.strategy, part.memory)
        hunt = GraphHunt(case, tick=tick, found=lambda failure, text: found(f"{failure}\n      {text}"))
        verdict = hunt.run(deadline)
    except Broken as broken:
        finding = Finding(one.name, broken.kind, broken.text, "", (broken.kind,), function=broken.function)
        return Result((f"{one.name:24} WRONG: {broken.text}",), wrong=True, findings=(finding,))
    except OutOfRecords as limit:
        return Result((f"{one.name:24} NOT checked: {limit}",), wrong=True)
    findings = tuple(replace(f, known=_known(part.strategy, f)) for f in verdict.findings)
    lines = [f"{one.name:24} {graph_summary(replace(verdict, findings=list(findings)))}"]
    for finding in findings:
        known = f" [{finding.known}]" if finding.known else " [new]" if part.strategy.known_bugs else ""
        lines += [f"  {finding.kind}: {finding.text}{known}", f"    {finding.replay}"]
    if not findings and case.races:
        lines.append(f"  plain accesses that nothing orders (as KCSAN reports them): {len(case.races)}")
        lines += [f"    {race}" for race in sorted(case.races, key=str)[:RACES]]
    story = ""
    if findings:
        failure = next(iter(hunt.failures.values()))
        mends = mend(one, part.strategy, failure, time.monotonic() + MEND, part.memory)
        story = tell_graph(case, failure, _command(part, findings[0]), mends)
    coverage = verdict.coverage
    return Result(tuple(lines), bool(findings), coverage.complete, coverage.executions, findings, story)


def graph_summary(verdict: Verdict) -> str:
    """As :func:`summary`, of a search of graphs."""
    coverage = verdict.coverage
    runs = f"{coverage.executions} graphs in {coverage.seconds:.1f} s"
    if verdict.findings:
        return summary(verdict).replace(" executions in ", " graphs in ")
    if coverage.complete:
        return f"right in every execution graph without load buffering ({runs})"
    cut = f", {coverage.truncated} cut" if coverage.truncated else ""
    return f"nothing found, NOT complete ({runs}{cut})"


def _known(strategy: Strategy, finding: Finding) -> str:
    f = finding
    fits = (bug for bug in strategy.known_bugs if bug.shows(f.kind, f.text, f.scenario, f.sites))
    return next((bug.name for bug in fits), "")


def summary(verdict: Verdict) -> str:
    """One line: what was seen and how much of everything it was."""
    coverage = verdict.coverage
    runs = f"{coverage.executions} executions in {coverage.seconds:.1f} s"
    if verdict.findings:
        number = len(verdict.findings)
        known = sum(bool(finding.known) for finding in verdict.findings)
        words = f", {known} known" if known else ""
        return f"WRONG: {number} {'failure' if number == 1 else 'failures'}{words} ({runs})"
    if coverage.complete and not verdict.unconfirmed:
        return f"right in every interleaving ({runs})"
    cut = f", {coverage.truncated} cut" if coverage.truncated else ""
    odd = f", {verdict.unconfirmed} failures that did not come again" if verdict.unconfirmed else ""
    return (
        f"nothing found, NOT complete ({runs}{cut}{odd}; {verdict.sampled} by PCT: a bug of depth {DEPTH} would have "
        f"been met with probability >= {verdict.bound:.2g})"
    )


def _size(finding: Finding) -> tuple[int, int]:
    return finding.replay.count("."), len(decode(finding.replay))


def _command(part: Part, finding: Finding) -> str:
    """What runs the finding's schedule again, as it can be pasted."""
    words = ["benchframe", "check", "--strategy", part.strategy.name, "--scenario", finding.scenario]
    files = [word for file in part.plugins for word in ("--plugin", file)]
    return shlex.join([*words, "--replay", finding.replay, *files])


def share(deadline: float, left: int) -> float:
    """The end of the next part: 25 equal shares of what is left, since most parts end early; half of it at most."""
    now = time.monotonic()
    return now + max(deadline - now, 0.2) * (min(0.5, 25 / left) if left > 1 else 1.0)


def best_of(results: Sequence[Result]) -> list[Finding]:
    """The finding with the fewest changes of task of each result that has any with a schedule."""
    return [min((f for f in r.findings if f.replay), key=_size) for r in results if any(f.replay for f in r.findings)]
