"""``benchframe check``: conformance, then every scenario; stories of what failed; exit code 1 if anything did."""

from __future__ import annotations

import difflib
import json
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchframe.check.common import COMMON
from benchframe.check.conform import Conformance, shown
from benchframe.check.hunt import DEPTH, Finding, Hunt, Verdict, make_case, replay
from benchframe.check.memory import OutOfRecords
from benchframe.check.run import Broken
from benchframe.check.schedule import ReplayError, decode, model_of
from benchframe.check.story import tell
from benchframe.scenario import Scenario
from benchframe.strategy import Strategy

CALLS = 600
"""Random calls of the sequential part."""
MODELS = {
    "sc": "sequential consistency",
    "tso": "total store order (a store buffer per task, as on x86)",
}
"""What ``memory`` may be."""
SAY = Callable[[str], None]


class CheckError(Exception):
    """An option that cannot be used; one line for the user."""


def scenario(name: str) -> Scenario:
    """The scenario of that name; CheckError with the nearest one if there is none."""
    for known in COMMON:
        if known.name == name:
            return known
    names = [known.name for known in COMMON]
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
    raise CheckError(f"no scenario {name!r}; {hint}")


def run_check_command(
    strategies: Sequence[Strategy],
    scenarios: Sequence[str] = (),
    budget: float = 60.0,
    again: str | None = None,
    save: Path | None = None,
    memory: str = "sc",
    say: SAY = print,
) -> int:
    """Check ``strategies`` in ``budget`` seconds, or run the replay string ``again`` of one scenario; the exit code.

    ``save`` gets the findings as JSON. Raises CheckError for options that do not fit.
    """
    chosen = [scenario(name) for name in scenarios] or list(COMMON)
    if again is not None:
        if len(chosen) != 1 or len(strategies) != 1:
            raise CheckError("--replay needs exactly one --strategy and one --scenario: those that the story names")
        return _replay(strategies[0], chosen[0], again, say)
    say(f"memory model: {MODELS[memory]}; every interleaving of 2 to 4 tasks, small address spaces")
    deadline = time.monotonic() + budget
    found: list[tuple[Strategy, Finding]] = []
    broken = 0
    left = len(strategies) * (len(chosen) + 1)
    for strategy in strategies:
        say(f"\n{strategy.name}")
        broken += _conform(strategy, _share(deadline, left), say)
        left -= 1
        for one in chosen:
            findings = _case(strategy, one, _share(deadline, left), say, memory)
            left -= 1
            found += [(strategy, finding) for finding in findings]
            broken += len(findings)
    for strategy, finding in _first_of_each(found):
        say(f"\n--- {strategy.name}, {finding.scenario} " + "-" * 40)
        case = make_case(scenario(finding.scenario), strategy, memory)
        Hunt(case).learn_shared()
        say(tell(case, replay(case, finding.replay), _command(strategy, finding)))
    if found:
        others = len(found) - len(_first_of_each(found))
        if others:
            say(f"\n{others} more failures, each with its own schedule, are variations: see the lines above")
    if save is not None:
        _save(save, found)
        say(f"\nfindings written to {save}")
    return 1 if broken else 0


def _share(deadline: float, left: int) -> float:
    """The end of the next part: ten equal shares of what is left of the budget, since most parts end early."""
    now = time.monotonic()
    return now + max(deadline - now, 0.2) * min(1.0, 10 / max(left, 1))


def _conform(strategy: Strategy, deadline: float, say: SAY) -> int:
    result = Conformance(strategy).run(CALLS, 1, deadline)
    if not result.failure:
        say(f"  {'one task':24} {result.calls} random calls agree with the oracle ({result.seconds:.1f} s)")
        return 0
    say(f"  {'one task':24} WRONG: {result.failure}")
    say("    the shortest program found:")
    for call in result.program:
        say(f"      {shown(call)}")
    return 1


def _case(strategy: Strategy, one: Scenario, deadline: float, say: SAY, memory: str) -> list[Finding]:
    try:
        case = make_case(one, strategy, memory)
    except Broken as broken:
        say(f"  {one.name:24} WRONG: {broken.text}")
        return [Finding(one.name, broken.kind, broken.text, "", (broken.kind,))]
    try:
        verdict = Hunt(case).run(deadline)
    except OutOfRecords as limit:
        say(f"  {one.name:24} NOT checked: {limit}")
        return [Finding(one.name, "not checked", str(limit), "", ("not checked",))]
    say(f"  {one.name:24} {summary(verdict)}")
    for finding in verdict.findings:
        say(f"    {finding.kind}: {finding.text}" + ("" if finding.stable else " (NOT the same twice)"))
        say(f"      {finding.replay}")
    return verdict.findings


def summary(verdict: Verdict) -> str:
    """One line: what was seen and how much of everything it was."""
    coverage = verdict.coverage
    runs = f"{coverage.executions} executions in {coverage.seconds:.1f} s"
    if verdict.findings:
        number = len(verdict.findings)
        return f"WRONG: {number} {'failure' if number == 1 else 'failures'} ({runs})"
    if coverage.complete:
        return f"right in every interleaving ({runs})"
    cut = f", {coverage.truncated} cut" if coverage.truncated else ""
    return (
        f"nothing found, NOT complete ({runs}{cut}; {verdict.sampled} by PCT: a bug of depth {DEPTH} would have "
        f"been met with probability >= {verdict.bound:.2g})"
    )


def _first_of_each(found: list[tuple[Strategy, Finding]]) -> list[tuple[Strategy, Finding]]:
    """The finding with the fewest changes of task for each strategy and scenario."""
    best: dict[tuple[str, str], tuple[Strategy, Finding]] = {}
    for strategy, finding in found:
        key = (strategy.name, finding.scenario)
        if finding.replay and (key not in best or _size(finding) < _size(best[key][1])):
            best[key] = (strategy, finding)
    return list(best.values())


def _size(finding: Finding) -> tuple[int, int]:
    return finding.replay.count("."), len(decode(finding.replay))


def _command(strategy: Strategy, finding: Finding) -> str:
    return shlex.join(
        ["benchframe", "check", "--strategy", strategy.name, "--scenario", finding.scenario, "--replay", finding.replay]
    )


def _replay(strategy: Strategy, one: Scenario, text: str, say: SAY) -> int:
    case = make_case(one, strategy, model_of(text))
    Hunt(case).learn_shared()
    try:
        run = replay(case, text)
    except ReplayError as error:
        raise CheckError(str(error)) from error
    say(tell(case, run, f"this was {text}"))
    return 1 if run.failure is not None else 0


def _save(path: Path, found: list[tuple[Strategy, Finding]]) -> None:
    """Findings as JSON: what a regression test needs to run them again."""
    rows = [
        {"strategy": s.name, "scenario": f.scenario, "kind": f.kind, "text": f.text, "replay": f.replay}
        for s, f in found
    ]
    path.write_text(json.dumps({"version": 1, "findings": rows}, indent=2) + "\n", encoding="utf-8")
