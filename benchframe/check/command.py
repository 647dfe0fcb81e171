"""``benchframe check``: every part of a check, in order; stories of what failed; exit code 1 if anything did."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchframe.check.common import COMMON
from benchframe.check.hunt import Hunt, make_case, replay
from benchframe.check.parts import Part, Result, best_of, scenarios_of
from benchframe.check.pool import Watcher, run_parts
from benchframe.check.run import Broken
from benchframe.check.saved import read, save
from benchframe.check.schedule import model_of
from benchframe.check.story import tell
from benchframe.check.summary import table
from benchframe.check.weak import MODELS as GRAPHS
from benchframe.check.weak import GraphCase
from benchframe.check.weak_hunt import REPLAY, GraphHunt, tell_graph
from benchframe.errors import UsageError, did_you_mean
from benchframe.scenario import Scenario
from benchframe.strategy import Strategy

MODELS = {
    "sc": "sequential consistency",
    "tso": "total store order (a store buffer per task, as on x86)",
    "lkmm": "the Linux kernel's memory model",
}
"""What ``memory`` may be."""
SAY = Callable[[str], None]


def scenario(name: str, strategy: Strategy | None = None) -> Scenario:
    """The scenario of that name, common or ``strategy``'s; UsageError with the nearest one if there is none."""
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
    jobs: int = 1,
    saved: Path | None = None,
    save_new: bool = False,
    allow_known: bool = False,
    say: SAY = print,
    watch: Callable[[int], Watcher] | None = None,
    plugins: Sequence[str] = (),
) -> int:
    """Check ``strategies`` in ``budget`` seconds, or run the replay string ``again`` of one scenario; the exit code.

    Failures in the folder ``saved`` run first; ``save_new`` adds those that are found. ``allow_known`` gives 0 if all
    that fails is in the strategies' ``known_bugs``. ``watch`` makes a watcher for a number of parts; ``plugins`` are
    files that the story's command must name. Ctrl-C: what was found so far is told, and KeyboardInterrupt passes on.
    Raises UsageError or ReplayError for options that do not fit.
    """
    if again is not None:
        if len(scenarios) != 1 or len(strategies) != 1:
            raise UsageError("--replay needs exactly one --strategy and one --scenario: those that the story names")
        return _replay(strategies[0], scenario(scenarios[0], strategies[0]), again, say)
    if memory not in MODELS:
        raise UsageError(f"no memory model {memory!r}; known: {', '.join(MODELS)}")
    if save_new and saved is None:
        raise UsageError("saving needs a folder; name it with --saved")
    parts = [replace(part, plugins=tuple(plugins)) for part in plan(strategies, scenarios, memory, saved)]
    if memory in GRAPHS:
        if save_new:
            raise UsageError("failures of this memory model cannot be saved; their stories end with a command")
        say(f"memory model: {MODELS[memory]}; every execution graph of 2 to 4 tasks, small address spaces")
        say("not looked for: executions with load buffering, livelocks, stale TLB entries")
    else:
        say(f"memory model: {MODELS[memory]}; every interleaving of 2 to 4 tasks, small address spaces")
    book = _Book(parts, say, watch(len(parts)) if watch is not None else Watcher())
    try:
        run_parts(parts, time.monotonic() + budget, jobs, book)
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
    """The parts of a check in their order. Raises UsageError for a scenario that nobody has, SavedError for a
    spoilt file."""
    every = [one for strategy in strategies for one in scenarios_of(strategy)]
    for name in scenarios:
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
    """Says results in the order of the parts, whoever is done first."""

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
        """Kept, in case the part does not come to its end."""
        self._met.setdefault(index, []).append(text)
        self.watcher.found(index, text)

    def done(self, index: int, result: Result) -> None:
        """Say what can be said in order."""
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
        """What is known of the parts that were not said yet."""
        later = [index for index in sorted(self.results) if index >= self._next]
        for index in later:
            self._tell(index)
        for index, texts in sorted(self._met.items()):
            if index not in self.results:
                part = self.parts[index]
                self._say(f"\n{part.strategy.name}, {part.name}: met so far, not shortened:")
                for text in texts:
                    self._say(f"    {text}")
        self._say(f"\ninterrupted: {len(self.parts) - len(self.results)} of {len(self.parts)} parts not done")

    def stories(self) -> None:
        """The story of each part that has one, and how many failures have none."""
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
    """One file for the shortest failure of each scenario."""
    for index, result in sorted(book.results.items()):
        for path in save(folder, parts[index].strategy.name, best_of([result])):
            say(f"saved as {path}: the next check runs it first")


def _replay(strategy: Strategy, one: Scenario, text: str, say: SAY) -> int:
    if REPLAY.fullmatch(text):
        return _replay_graph(strategy, one, text, say)
    try:
        case = make_case(one, strategy, model_of(text))
        Hunt(case).learn_shared()
        run = replay(case, text)
    except Broken as error:
        raise UsageError(f"{strategy.name}, {one.name}: {error.text}") from error
    say(tell(case, run, f"this was {text}"))
    return 1 if run.failure is not None else 0


def _replay_graph(strategy: Strategy, one: Scenario, text: str, say: SAY) -> int:
    try:
        case = GraphCase(one, strategy)
        failure = GraphHunt(case).again(text, time.monotonic() + 600)
    except Broken as error:
        raise UsageError(f"{strategy.name}, {one.name}: {error.text}") from error
    say(tell_graph(case, failure, f"this was {text}") if failure is not None else "this execution is right")
    return 1 if failure is not None else 0
