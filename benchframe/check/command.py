"""The work of `benchframe check`: cases of many strategies, historic races, and the summary."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from benchframe.check.axioms import LKMM, WEAK
from benchframe.check.cases import COMMON
from benchframe.check.checker import Finding, Hunt, Verdict, make_case, replay, tell
from benchframe.check.execution import Broken, model_of
from benchframe.check.jobs import (
    MEND,
    ONE_TASK,
    Part,
    Result,
    Watcher,
    best_of,
    graph_summary,
    read,
    run_parts,
    save,
    scenarios_of,
    summary,
)
from benchframe.check.weak import GraphCase
from benchframe.check.weak_hunt import Failure, GraphHunt, mend, model_of_graphs, rule_for, tell_graph
from benchframe.errors import UsageError, did_you_mean
from benchframe.scenario import Historic, Scenario
from benchframe.strategy import Strategy

# ----------------------------------------------------------------------------------------------------------------------
# The table at the end of a check of several strategies: one line each.


def table(parts: Sequence[Part], results: Mapping[int, Result]) -> str:
    """Strategies in the order of ``parts``: alone, scenarios that are right in every interleaving, failures by known
    name."""
    names = list(dict.fromkeys(part.strategy.name for part in parts))
    rows: list[tuple[str, ...]] = [("strategy", "one task", "searched whole", "new", "known", "verdict")]
    rows += [
        _row(name, [(p, results.get(i)) for i, p in enumerate(parts) if p.strategy.name == name]) for name in names
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _row(name: str, mine: Sequence[tuple[Part, Result | None]]) -> tuple[str, ...]:
    alone = next((r for p, r in mine if p.scenario is None and p.saved is None), None)
    searched = [r for p, r in mine if p.scenario is not None and p.saved is None]
    findings = [finding for r in searched if r is not None for finding in r.findings]
    known = list(dict.fromkeys(finding.known for finding in findings if finding.known))
    new = sum(not finding.known for finding in findings)
    complete = sum(r is not None and r.complete for r in searched)
    return (
        name,
        "-" if alone is None else "WRONG" if alone.wrong else "right",
        f"{complete}/{len(searched)}",
        str(new) if new else "-",
        ", ".join(known) or "-",
        _verdict([r for _, r in mine if r is not None], new, complete == len(searched)),
    )


def _verdict(results: Sequence[Result], new: int, complete: bool) -> str:
    """The last column: whether everything is right, whether all failures are known, whether anything is undecided.
    ``new``: unknown findings."""
    wrong = [result for result in results if result.wrong]
    if wrong:
        return "WRONG" if new or any(not result.findings for result in wrong) else "wrong, as known"
    return "right" if complete else "not complete"


# ----------------------------------------------------------------------------------------------------------------------
# ``benchframe check``: every part of a check, in order; counterexamples of failures; exit code 1 if there are any.

MODELS = {
    "sc": "sequential consistency",
    "tso": "total store order (a store buffer per task, as on x86)",
    "lkmm": "the Linux kernel's memory model",
    "rc11": "RC11, the memory model of C11 as repaired in 2017",
}
"""The values of ``memory``."""


def scenario(name: str, strategy: Strategy | None = None) -> Scenario:
    """The scenario of that name, common or ``strategy``'s. Raises UsageError with the nearest name if there is none."""
    return _named(name, scenarios_of(strategy) if strategy is not None else COMMON)


def _named(name: str, among: Sequence[Scenario]) -> Scenario:
    for known in among:
        if known.name == name:
            return known
    names = list(dict.fromkeys(known.name for known in among))
    raise UsageError(f"no scenario {name!r}", hint=did_you_mean(name, names, "known: {}"))


def run_check_command(
    strategies: Sequence[Strategy],
    scenarios: Sequence[str] = (),
    budget: float = 60.0,
    again: str | None = None,
    *,
    memory: str = "sc",
    graphs: bool = False,
    jobs: int = 1,
    executor: Executor | None = None,
    saved: Path | None = None,
    save_new: bool = False,
    allow_known: bool = False,
    say: SAY = print,
    watch: Callable[[int], Watcher] | None = None,
    plugins: Sequence[str] = (),
) -> int:
    """Check ``strategies`` in ``budget`` seconds, or run the replay string ``again`` of one scenario; returns the exit
    code.

    ``graphs``: search execution graphs under sc and tso, too, as lkmm and rc11 always do. Failures in the folder
    ``saved`` run first; ``save_new`` adds those that are found. ``allow_known`` gives 0 if all that fails is in the
    strategies' ``known_bugs``. ``watch`` makes a watcher for a number of parts; ``plugins`` are files that the story's
    command must name. ``executor``: each search of graphs is done on it in ``jobs`` parts. Ctrl-C: what was found so
    far is told, and KeyboardInterrupt passes on.
    Raises UsageError or ReplayError for options that do not fit.
    """
    if again is not None:
        if len(scenarios) != 1 or len(strategies) != 1:
            raise UsageError("--replay needs exactly one --strategy and one --scenario, those in the failure's report")
        return _replay(strategies[0], scenario(scenarios[0], strategies[0]), again, say)
    if memory not in MODELS:
        raise UsageError(f"no memory model {memory!r}; known: {', '.join(MODELS)}")
    if save_new and saved is None:
        raise UsageError("--save needs a folder; name it with --saved")
    graphs = graphs or memory in WEAK
    if executor is not None and not graphs:
        raise UsageError("--cluster divides searches of graphs: add --memory lkmm, --memory rc11 or --graphs")
    parts = [
        replace(part, plugins=tuple(plugins), graphs=graphs) for part in plan(strategies, scenarios, memory, saved)
    ]
    if graphs:
        say(f"memory model: {MODELS[memory]}; every execution graph of 2 to 4 tasks, small address spaces")
        buffering = "executions with load buffering, " if memory == LKMM else ""
        say(f"not looked for: {buffering}livelocks, stale TLB entries")
    else:
        say(f"memory model: {MODELS[memory]}; every interleaving of 2 to 4 tasks, small address spaces")
    book = _Book(parts, say, watch(len(parts)) if watch is not None else Watcher())
    try:
        run_parts(parts, time.monotonic() + budget, jobs, book, executor)
    except KeyboardInterrupt:
        book.interrupted()
        raise
    finally:
        book.watcher.close()
        book.stories()
    if len(strategies) > 1:
        say("\n" + table(parts, book.results))
    if save_new and saved is not None:
        _save(parts, book, saved, say)
    wrong = [r for r in book.results.values() if r.wrong and not (allow_known and _all_known(r))]
    return 1 if wrong else 0


def plan(strategies: Sequence[Strategy], scenarios: Sequence[str], memory: str, saved: Path | None) -> list[Part]:
    """The parts of a check in order. Raises UsageError for a scenario that no strategy has, SavedError for a damaged
    file."""
    every = [one for strategy in strategies for one in scenarios_of(strategy)]
    for name in scenarios:
        if name != ONE_TASK:
            _named(name, every)
    old = read(saved, [strategy.name for strategy in strategies]) if saved is not None else []
    parts = []
    for strategy in strategies:
        known = {one.name: one for one in scenarios_of(strategy)}
        mine = [failure for failure in old if failure.strategy == strategy.name]
        parts += [Part(strategy, known.get(failure.scenario), memory, failure) for failure in mine]
        parts.append(Part(strategy))
        parts += [Part(strategy, one, memory) for one in known.values() if not scenarios or one.name in scenarios]
    return parts


class _Book(Watcher):
    """Prints results in the order of the parts, whichever finishes first."""

    def __init__(self, parts: Sequence[Part], say: SAY, watcher: Watcher) -> None:
        self.parts, self.watcher = parts, watcher
        self._say = say
        self.results: dict[int, Result] = {}
        self._met: dict[int, list[str]] = {}
        self._next = 0
        self._strategy = ""

    def executions(self, more: int) -> None:
        """For the watcher."""
        self.watcher.executions(more)

    def found(self, index: int, text: str) -> None:
        """Keep a failure, in case the part does not finish."""
        self._met.setdefault(index, []).append(text)
        self.watcher.found(index, text)

    def done(self, index: int, result: Result) -> None:
        """Print everything that can be printed in order."""
        self.results[index] = result
        self.watcher.done(index, result)
        while self._next in self.results:
            self._tell(self._next)
            self._next += 1

    def _tell(self, index: int) -> None:
        name = self.parts[index].strategy.name
        if name != self._strategy:
            self._strategy = name
            self._say(f"\n{name}")
        for line in self.results[index].lines:
            self._say(f"  {line}")

    def interrupted(self) -> None:
        """The results so far of the parts that were not printed yet."""
        later = [index for index in sorted(self.results) if index >= self._next]
        for index in later:
            self._tell(index)
        for index, texts in sorted(self._met.items()):
            if index not in self.results:
                part = self.parts[index]
                self._say(f"\n{part.strategy.name}, {part.name}: found so far, not shortened:")
                for text in texts:
                    self._say(f"    {text}")
        self._say(f"\ninterrupted: {len(self.parts) - len(self.results)} of {len(self.parts)} parts not done")

    def stories(self) -> None:
        """The counterexample of each part that has one, and the number of failures without one."""
        told = findings = 0
        for index, result in sorted(self.results.items()):
            findings += len(result.findings)
            if result.story:
                part = self.parts[index]
                told += 1 if result.findings else 0
                self._say(f"\n--- {part.strategy.name}, {part.name} " + "-" * 40)
                self._say(result.story)
        if told and findings > told:
            more = findings - told
            what = "1 more failure is a variation" if more == 1 else f"{more} more failures are variations, each"
            self._say(f"\n{what} with a schedule of its own: see above")


def _all_known(result: Result) -> bool:
    return bool(result.findings) and all(finding.known for finding in result.findings)


def _save(parts: Sequence[Part], book: _Book, folder: Path, say: SAY) -> None:
    """Write one file for the shortest failure of each scenario."""
    for index, result in sorted(book.results.items()):
        for path in save(folder, parts[index].strategy.name, best_of([result])):
            say(f"saved as {path}: the next check runs it first")


def _replay(strategy: Strategy, one: Scenario, text: str, say: SAY) -> int:
    model = model_of_graphs(text)
    if model is not None:
        return _replay_graph(strategy, one, model, text, say)
    try:
        case = make_case(one, strategy, model_of(text))
        Hunt(case).learn_shared()
        run = replay(case, text)
    except Broken as error:
        raise UsageError(f"{strategy.name}, {one.name}: {error.text}") from error
    say(tell(case, run, f"this was {text}"))
    return 1 if run.failure is not None else 0


def _replay_graph(strategy: Strategy, one: Scenario, model: str, text: str, say: SAY) -> int:
    try:
        case = GraphCase(one, strategy, model)
        failure = GraphHunt(case).again(text)
    except Broken as error:
        raise UsageError(f"{strategy.name}, {one.name}: {error.text}") from error
    say(tell_graph(case, failure, f"this was {text}") if failure is not None else "this execution is right")
    return 1 if failure is not None else 0


# ----------------------------------------------------------------------------------------------------------------------
# ``benchframe check --historic B19``: a historic race, found with the bug reintroduced, and absent with its fix.

SAY = Callable[[str], None]


@dataclass(frozen=True)
class Shown:
    """The result for one race: the failure with the bug (None: not found), and the result with the fix. ``graph``: the
    failure in an execution graph, with its case."""

    race: Historic
    broken: Verdict
    finding: Finding | None
    mended: Verdict
    graph: tuple[GraphCase, Failure] | None = None

    @property
    def right(self) -> bool:
        """Whether the bug is found, and nothing with the fix."""
        return self.finding is not None and not self.mended.findings


def list_historic(races: Mapping[str, Historic], say: SAY = print) -> int:
    """One line per race: how to reproduce it, or why that is not possible. Exit code 0."""
    for race in races.values():
        say(f"{race.number:4} {race.summary}")
        how = f"not reproduced: {race.because}" if race.because else f"{race.sources}; scenario {_name(race)}"
        say(f"     {how}")
    return 0


def run_historic(
    races: Mapping[str, Historic],
    numbers: Sequence[str],
    budget: float = 60.0,
    again: str | None = None,
    say: SAY = print,
) -> int:
    """Show the races called ``numbers`` ("all": all that can be shown) in ``budget`` seconds each; returns the exit
    code.

    0: each was found with its bug and nothing with its fix; 1: otherwise. ``again`` runs one schedule of the one race
    with the bug: 1 if it fails. Raises UsageError for an unknown number, or a race that cannot be shown.
    """
    chosen = [_race(races, number) for number in _numbers(races, numbers)]
    if again is not None:
        if len(chosen) != 1:
            raise UsageError("--replay needs exactly one race, the one in the failure's report")
        return _again(chosen[0], again, say)
    right = True
    for race in chosen:
        shown = show(race, budget)
        right &= shown.right
        _tell(shown, say)
    return 0 if right else 1


def show(race: Historic, seconds: float, mended: float | None = None) -> Shown:
    """Search the side with the bug until it is found, for ``seconds`` at most, then the other for ``mended`` seconds
    (default: what is left of ``seconds``, half of it at least; a tenth where it is a search of graphs that would not
    come to its end)."""
    if race.memory == LKMM:
        return _show_graph(race, seconds, mended)
    deadline = time.monotonic() + seconds
    broken = Hunt(make_case(_scenario(race), _strategy(race.broken)), race.among).run(deadline)
    now = time.monotonic()
    until = now + mended if mended is not None else max(deadline, now + seconds / 2)
    right = Hunt(make_case(race.mended_scenario or _scenario(race), _strategy(race.mended))).run(until)
    fits = [finding for finding in broken.findings if f"{finding.kind}: {finding.text}".startswith(race.shows)]
    return Shown(race, broken, fits[0] if fits else None, right)


def _graph_case(race: Historic) -> GraphCase:
    """The version with the bug."""
    case = GraphCase(_scenario(race), _strategy(race.broken), race.memory)
    case.weaker = {(function, operation, field): rule_for(now) for function, operation, field, now in race.weaker}
    return case


def _show_graph(race: Historic, seconds: float, mended: float | None) -> Shown:
    """The same, under a memory model whose executions are graphs."""
    deadline = time.monotonic() + seconds
    hunt = GraphHunt(_graph_case(race), race.among)
    broken = hunt.run(deadline)
    now = time.monotonic()
    if mended is None and not race.whole:
        mended = seconds / 10
    until = now + mended if mended is not None else max(deadline, now + seconds / 2)
    right = GraphHunt(GraphCase(race.mended_scenario or _scenario(race), _strategy(race.mended), race.memory)).run(
        until
    )
    fits = [finding for finding in broken.findings if f"{finding.kind}: {finding.text}".startswith(race.shows)]
    graph = (hunt.case, hunt.failures[fits[0].signature]) if fits else None
    return Shown(race, broken, fits[0] if fits else None, right, graph)


def _numbers(races: Mapping[str, Historic], numbers: Sequence[str]) -> list[str]:
    return [race.number for race in races.values() if not race.because] if list(numbers) == ["all"] else list(numbers)


def _race(races: Mapping[str, Historic], number: str) -> Historic:
    race = races.get(number) or races.get(number.upper())
    if race is None:
        hint = f"{did_you_mean(number.upper(), races, '')} `benchframe check --list-historic` lists them"
        raise UsageError(f"no historic race {number!r}", hint=hint.strip())
    if race.because:
        raise UsageError(f"{race.number} ({race.summary}) cannot be reproduced: {race.because}")
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
    graphs = race.memory == LKMM
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
    if finding is not None and shown.graph is not None:
        _tell_graph(race, finding, *shown.graph, say)
    elif finding is not None:
        case = make_case(_scenario(race), _strategy(race.broken))
        Hunt(case).learn_shared()
        command = ["benchframe", "check", "--historic", race.number, "--replay", finding.replay]
        say(f"\n{tell(case, replay(case, finding.replay), shlex.join(command))}")


def _tell_graph(race: Historic, finding: Finding, case: GraphCase, failure: Failure, say: SAY) -> None:
    if not finding.replay:
        say("    it was drawn at random: the search, with more --budget, tells how")
        return
    deadline = time.monotonic() + MEND
    mends = mend(_scenario(race), _strategy(race.broken), failure, deadline, race.memory, case.weaker)
    command = ["benchframe", "check", "--historic", race.number, "--replay", finding.replay]
    say(f"\n{tell_graph(case, failure, shlex.join(command), mends)}")


def _again(race: Historic, text: str, say: SAY) -> int:
    if race.memory == LKMM:
        graph_case = _graph_case(race)
        failure = GraphHunt(graph_case).again(text)
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
