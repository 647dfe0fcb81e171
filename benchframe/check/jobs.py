"""Jobs of a check on several processes, and their results on disk so that a killed check resumes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shlex
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchframe.check.axioms import LKMM, WEAK, Race
from benchframe.check.cases import COMMON
from benchframe.check.checker import DEPTH, Finding, Hunt, Verdict, follow, make_case, tell
from benchframe.check.checker import replay as replay_in
from benchframe.check.conform import Conformance, shown
from benchframe.check.execution import ENDLESS, Broken, ReplayError, decode, model_of
from benchframe.check.memory import OutOfRecords
from benchframe.check.search import Coverage
from benchframe.check.weak import GraphCase, Known
from benchframe.check.weak_hunt import GraphHunt, graph_number, interleaved, mend, model_of_graphs, tell_graph
from benchframe.errors import BenchframeError
from benchframe.files import slug, write_json
from benchframe.scenario import Scenario
from benchframe.strategy import Strategy

# ----------------------------------------------------------------------------------------------------------------------
# Failures kept as regression tests: small JSON files that `benchframe check` runs again before anything else.
#
#     .benchframe/check/pmdcache/lookup-munmap-3f2a9c01.json
#
# A file names strategy, scenario, kind of failure and schedule. A schedule counts accesses, so after an edit of the
# strategy it may lead elsewhere, and :func:`run_again` says so: the scenario's own search decides then. Of a failure in
# an execution graph it has the graph's number in the search.

FOLDER = Path(".benchframe/check")
"""Where saved failures are looked for unless told otherwise."""
LARGEST = 1 << 20
"""Bytes of such a file, at most."""


class SavedError(BenchframeError):
    """A file that is no saved failure; one line with its path and what to do."""


class CheckError(BenchframeError):
    """A check that cannot be made; one line."""


@dataclass(frozen=True)
class Saved:
    """A failure that must not come back."""

    strategy: str
    scenario: str
    kind: str
    text: str
    replay: str

    def __str__(self) -> str:
        return f"{self.strategy}, {self.scenario}: {self.kind}"


@dataclass(frozen=True)
class Again:
    """What running it again showed: ``fails``, in words, with the story if it does."""

    fails: bool
    text: str
    story: str = ""


def save(folder: Path, strategy: str, findings: Iterable[Finding]) -> list[Path]:
    """Write each finding that has a schedule to a file of its own; the same failure gives the same file."""
    written = []
    for finding in findings:
        if not finding.replay:
            continue
        saved = Saved(strategy, finding.scenario, finding.kind, finding.text, finding.replay)
        model = model_of_graphs(saved.replay) or model_of(saved.replay)
        digest = hashlib.sha256(f"{saved.kind} {saved.text} {model}".encode()).hexdigest()[:8]
        path = folder / slug(strategy, 100, keep="_.") / f"{slug(finding.scenario, 100, keep='_.')}-{digest}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"version": 1, **asdict(saved)})
        written.append(path)
    return written


def read(folder: Path, strategies: Iterable[str] | None = None) -> list[Saved]:
    """The saved failures below ``folder`` in order of path; of ``strategies`` only, if given. No folder: none.

    Raises SavedError for a JSON file there that is something else.
    """
    wanted = None if strategies is None else set(strategies)
    found = [_read(path) for path in sorted(folder.glob("*/*.json"))]
    return [saved for saved in found if wanted is None or saved.strategy in wanted]


def run_again(saved: Saved, strategy: Strategy, scenario: Scenario | None, plugins: tuple[str, ...] = ()) -> Again:
    """Follow the schedule of ``saved`` in ``strategy`` as it is now. ``plugins``: files that a command must name."""
    if scenario is None:
        return Again(
            True, f"NOT checked: no scenario {saved.scenario!r} any more; delete the file or restore the scenario"
        )
    model = model_of_graphs(saved.replay)
    if model is not None:
        return _search_again(saved, Part(strategy, scenario, plugins=plugins), scenario, model)
    try:
        case = make_case(scenario, strategy, model_of(saved.replay))
        run, missed = follow(case, saved.replay)
    except Broken as broken:
        return Again(True, f"WRONG: {broken.text}")
    if run.failure is not None:
        what = "fails as before" if run.failure.kind == saved.kind else f"fails in another way, not by {saved.kind}"
        Hunt(case).learn_shared()
        story = tell(case, run, _command(Part(strategy, scenario, plugins=plugins), saved.replay))
        return Again(True, f"WRONG: {what}: {run.failure}", story)
    steps = len(decode(saved.replay))
    if missed or len(run.trace) < steps:
        done = steps - max(missed, steps - len(run.trace))
        text = (
            f"no longer applies: only {done} of {steps} steps can be followed in the current code; the failure "
            "was not reproduced"
        )
        return Again(False, text)
    return Again(False, f"no failure any more ({steps} steps followed)")


def _search_again(saved: Saved, part: Part, scenario: Scenario, model: str) -> Again:
    """A failure in an execution graph: the number of a graph means nothing after an edit, so the search runs again, as
    far as it went and ten graphs more, :data:`AGAIN` seconds at most."""
    try:
        case = GraphCase(scenario, part.strategy, model)
        hunt = GraphHunt(case, 1)
        hunt.graphs = graph_number(saved.replay) + 10
        hunt.run(time.monotonic() + AGAIN)
    except (Broken, OutOfRecords) as error:
        return Again(True, f"WRONG: {error}")
    graphs = hunt.verdict.coverage.executions
    for failure in hunt.failures.values():
        fails = failure.broken.kind == saved.kind
        what = "fails as before" if fails else f"fails in another way, not by {saved.kind}"
        command = _command(part, hunt.replay_string(failure.number))
        return Again(True, f"WRONG: {what}: {failure.broken}", tell_graph(case, failure, command))
    whole = graphs >= hunt.graphs or hunt.verdict.coverage.complete
    cut = "" if whole else f"; there was no time for {hunt.graphs}"
    return Again(False, f"no failure in {graphs} graphs{cut}")


def _read(path: Path) -> Saved:
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("it is too large")
        row = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(row, dict) or row.pop("version", None) != 1:
            raise ValueError('it has no "version": 1')
        if set(row) != set(Saved.__dataclass_fields__) or not all(isinstance(v, str) for v in row.values()):
            raise ValueError(f"it must hold the texts {', '.join(Saved.__dataclass_fields__)}")
        if model_of_graphs(row["replay"]) is None:
            decode(row["replay"])
    except (ValueError, RecursionError, ReplayError) as error:
        why = str(error).splitlines()[0]
        raise SavedError(f"{path}: not a saved failure: {why}; delete it or name another folder with --saved") from None
    return Saved(**row)


# ----------------------------------------------------------------------------------------------------------------------
# What a check consists of: for each strategy its saved failures again, one task alone, then scenario by scenario.
#
# A part is done by whoever has time (:mod:`benchframe.check.jobs`), so its :class:`Result` is plain data.

AGAIN = 30.0
"""Seconds for a saved failure's search."""
RACES = 5
"""Races of plain accesses that are told of a scenario."""
MEND = 30.0
"""Seconds for the search for a mend."""
CALLS = 600
"""Random calls of the sequential part."""
ONE_TASK = "one-task"
"""The sequential part's name among scenarios: it is done with any of them, and alone if it is named alone."""
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
    graphs: bool = False
    """Are executions searched as graphs, as lkmm's must be?"""

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
    stops: str = ""
    """Why the strategy's other parts need not be done: they would show the same again."""


def scenarios_of(strategy: Strategy) -> tuple[Scenario, ...]:
    """The common ones, then the strategy's own."""
    return (*COMMON, *strategy.scenarios)


def do_part(part: Part, deadline: float, tick: Tick, found: Found) -> Result:
    """Do it until ``deadline`` (time.monotonic). ``tick`` hears of executions, ``found`` of failures as they come."""
    if part.saved is not None:
        again = run_again(part.saved, part.strategy, part.scenario, part.plugins)
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
    lines = [*lines, *(f"    {shown(call)}" for call in result.program)]
    lines += [f"    traced: {text}" for text in result.traced]
    stops = "one task alone does not end" if result.endless else ""
    return Result(tuple(lines), wrong=True, stops=stops)


def _scenario(part: Part, one: Scenario, deadline: float, tick: Tick, found: Found) -> Result:
    if part.graphs:
        return _graphs(part, one, deadline, tick, found)
    try:
        case = make_case(one, part.strategy, part.memory)
    except Broken as broken:
        finding = Finding(one.name, broken.kind, broken.text, "", (broken.kind,), function=broken.function)
        told = (f"{one.name:24} WRONG: {broken.text}",)
        return Result(told, wrong=True, findings=(finding,), stops=f"the set-up of {one.name} fails")
    hunt = Hunt(case, tick=tick, found=lambda failure, schedule: found(f"{failure}\n      {schedule}"))
    try:
        verdict = hunt.run(deadline)
    except OutOfRecords as limit:
        return Result((f"{one.name:24} NOT checked: {limit}",), wrong=True)
    findings = tuple(replace(f, known=_known(part.strategy, f)) for f in verdict.findings)
    lines = [f"{one.name:24} {summary(replace(verdict, findings=list(findings)))}"]
    for finding in findings:
        known = f" [{finding.known}]" if finding.known else " [new]" if part.strategy.known_bugs else ""
        lines.append(f"  {finding.kind}: {finding.text}{'' if finding.stable else ' (NOT reproducible)'}{known}")
        if finding.sites.used:
            lines.append(f"    in {finding.sites}")
        lines.append(f"    {finding.replay}")
    story = ""
    if findings:
        best = min(findings, key=_size)
        Hunt(case).learn_shared()
        story = tell(case, replay_in(case, best.replay), _command(part, best.replay))
    executions = verdict.coverage.executions + verdict.sampled
    stops = f"{one.name} does not end" if any(f.signature[1:2] == (ENDLESS,) for f in findings) else ""
    return Result(tuple(lines), bool(findings), verdict.coverage.complete, executions, findings, story, stops=stops)


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
    if not verdict.findings:
        return _nothing_found(part, one, verdict, case.races)
    failures = list(hunt.failures.values())
    twins = [interleaved(case, failure) for failure in failures]
    findings = tuple(
        replace(f, twin=twin, known=_known(part.strategy, twin or f))
        for f, twin in zip(verdict.findings, twins, strict=True)
    )
    lines = [f"{one.name:24} {graph_summary(replace(verdict, findings=list(findings)), part.memory)}"]
    for finding in findings:
        known = f" [{finding.known}]" if finding.known else " [new]" if part.strategy.known_bugs else ""
        lines.append(f"  {finding.kind}: {finding.text}{known}")
        sites = (finding.twin or finding).sites
        lines += [f"    in {sites}"] if sites.used else []
        lines.append(f"    {finding.replay or 'drawn at random'}")
        lines += [f"    an interleaving, too: {finding.twin.replay}"] if finding.twin is not None else []
    best = min(range(len(findings)), key=lambda at: bool(findings[at].known))
    failure, twin = failures[best], twins[best]
    if twin is not None:
        mends = [f"no ordering mends it, it is an interleaving, too: {_command(part, twin.replay)}"]
    elif part.memory in WEAK and failure.number:
        mends = mend(one, part.strategy, failure, time.monotonic() + MEND, part.memory)
    else:
        mends = []
    again = _command(part, findings[best].replay) if failure.number else "it was drawn at random: search for longer"
    story, coverage = tell_graph(case, failure, again, mends), verdict.coverage
    return Result(tuple(lines), True, coverage.complete, coverage.executions, findings, story)


def _nothing_found(part: Part, one: Scenario, verdict: Verdict, races: set[Race]) -> Result:
    """The result of a search of graphs without a failure, with the plain accesses that race."""
    lines = [f"{one.name:24} {graph_summary(verdict, part.memory)}"]
    if races and part.memory in WEAK:
        lines.append(f"  plain accesses that nothing orders (as KCSAN reports them): {len(races)}")
        lines += [f"    {race}" for race in sorted(races, key=str)[:RACES]]
    return Result(tuple(lines), False, verdict.coverage.complete, verdict.coverage.executions)


# ----------------------------------------------------------------------------------------------------------------------
# A search of graphs in several parts, on any executor: `benchframe check --memory lkmm --cluster ADDRESS`.
#
# Each part begins with the same graphs and takes every n-th of the branches that these leave. What tasks share is
# learned by all: if one part has learned more, all begin anew with it. A failure is searched for again in this process,
# so that it has the replay string and the story that it has without a cluster.


@dataclass(frozen=True)
class Branches:
    """Part ``part`` of ``parts`` of one search, for a process that has the same plugins. ``known``: what its case has
    learned; ``seconds``: its time; ``digest``: of the strategy's sources."""

    strategy: str
    digest: str
    plugins: tuple[str, ...]
    scenario: str
    memory: str
    part: int
    parts: int
    known: Known
    seconds: float


@dataclass(frozen=True)
class Searched:
    """What came of it: ``failures`` in words."""

    coverage: Coverage
    sampled: int
    known: Known
    failures: tuple[str, ...]
    races: frozenset[Race]


def search_branches(branches: Branches) -> Searched:
    """Do it. Raises CheckError if this process has another text of the strategy."""
    from benchframe.registry import load
    from benchframe.units import strategy_digest

    strategy = load([Path(file) for file in branches.plugins]).strategy(branches.strategy)
    if strategy_digest(strategy) != branches.digest:
        raise CheckError(f"a worker of the cluster has another text of strategy {branches.strategy}")
    one = next(one for one in scenarios_of(strategy) if one.name == branches.scenario)
    case = GraphCase(one, strategy, branches.memory)
    case.join(branches.known)
    hunt = GraphHunt(case)
    hunt.part = branches.part, branches.parts
    verdict = hunt.run(time.monotonic() + branches.seconds)
    failures = tuple(str(failure.broken) for failure in hunt.failures.values())
    return Searched(verdict.coverage, verdict.sampled, case.known(), failures, frozenset(case.races))


def _on_executor(part: Part, deadline: float, parts: int, executor: Executor, tick: Tick, found: Found) -> Result:
    """A part of a check whose search of graphs is done in ``parts`` parts by ``executor``; others are done here."""
    from benchframe.units import strategy_digest

    one = part.scenario
    if part.saved is not None or one is None or one.hardware or not part.graphs:
        return do_part(part, deadline, tick, found)
    began = time.monotonic()
    try:
        case = GraphCase(one, part.strategy, part.memory)
        GraphHunt(case).warm_up(deadline)
    except (Broken, OutOfRecords):
        return do_part(part, deadline, tick, found)
    digest = strategy_digest(part.strategy)
    while True:
        seconds = max(deadline - time.monotonic(), 0.0)
        waiting = [
            executor.submit(
                search_branches,
                Branches(
                    part.strategy.name, digest, part.plugins, one.name, part.memory, n, parts, case.known(), seconds
                ),
            )
            for n in range(parts)
        ]
        done = [one.result() for one in waiting]
        learned = [case.join(one.known) for one in done]
        tick(sum(one.coverage.executions for one in done))
        if failures := [text for one in done for text in one.failures]:
            result = do_part(part, max(deadline, time.monotonic() + MEND), tick, found)
            if result.findings:
                return result
            lines = [f"{one.name:24} WRONG, on the cluster; here it was not found again, so it has no replay string"]
            return Result((*lines, *(f"  {text}" for text in dict.fromkeys(failures))), wrong=True)
        if not any(learned) or time.monotonic() >= deadline:
            break
    coverage = Coverage(
        sum(one.coverage.executions for one in done),
        sum(one.coverage.blocked for one in done),
        sum(one.coverage.truncated for one in done),
        longest=max(one.coverage.longest for one in done),
        seconds=time.monotonic() - began,
        complete=all(one.coverage.complete for one in done) and not any(learned),
    )
    verdict = Verdict(one, coverage, sampled=sum(one.sampled for one in done))
    return _nothing_found(part, one, verdict, set().union(*(one.races for one in done)))


def graph_summary(verdict: Verdict, memory: str = LKMM) -> str:
    """As :func:`summary`, of a search of graphs."""
    coverage = verdict.coverage
    without = " without load buffering" if memory == LKMM else ""
    runs = f"{coverage.executions} graphs in {coverage.seconds:.1f} s"
    if verdict.findings:
        return summary(verdict).replace(" executions in ", " graphs in ")
    if coverage.complete:
        return f"right in every execution graph{without} ({runs})"
    cut = f", {coverage.truncated} cut" if coverage.truncated else ""
    drawn = f"; then {verdict.sampled} drawn at random" if verdict.sampled else ""
    return f"nothing found, NOT complete ({runs}{cut}{drawn})"


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
    odd = f", {verdict.unconfirmed} failures that could not be reproduced" if verdict.unconfirmed else ""
    return (
        f"nothing found, NOT complete ({runs}{cut}{odd}; {verdict.sampled} by PCT: a bug of depth {DEPTH} would have "
        f"been found with probability >= {verdict.bound:.2g})"
    )


def _size(finding: Finding) -> tuple[int, int]:
    if model_of_graphs(finding.replay) is not None:
        return graph_number(finding.replay), 0
    return finding.replay.count("."), len(decode(finding.replay))


def _command(part: Part, replay: str = "") -> str:
    """What does ``part`` again, or one schedule of it, as it can be pasted."""
    words = ["benchframe", "check", "--strategy", part.strategy.name]
    words += ["--scenario", part.scenario.name if part.scenario is not None else ONE_TASK]
    words += ["--replay", replay] if replay else ["--memory", part.memory] if part.memory != "sc" else []
    return shlex.join([*words, *(word for file in part.plugins for word in ("--plugin", file))])


def command_of(part: Part, result: Result) -> str:
    """The command that shows again what ``result`` found: the shortest schedule, if there is one."""
    best = best_of([result])
    return _command(part, best[0].replay if best else "")


def share(deadline: float, left: int) -> float:
    """The end of the next part: 25 equal shares of what is left, since most parts end early; half of it at most."""
    now = time.monotonic()
    return now + max(deadline - now, 0.2) * (min(0.5, 25 / left) if left > 1 else 1.0)


def best_of(results: Sequence[Result]) -> list[Finding]:
    """The finding with the fewest changes of task of each result that has any with a schedule."""
    return [min((f for f in r.findings if f.replay), key=_size) for r in results if any(f.replay for f in r.findings)]


# ----------------------------------------------------------------------------------------------------------------------
# The parts of a check on several cores: worker processes that ask for one part after the other.
#
# Workers are forked, so they have strategies and scenarios as they are, with nothing to pickle on the way in.
# The parts and their order do not depend on the number of workers; only a part that its deadline cuts can come out
# otherwise. What a share of the time cuts gets a second chance with what the others left over.

EVERY = 0.2
"""Seconds between two reports of one worker."""


class Watcher:
    """Who hears how a check goes; overridden by a progress bar."""

    def executions(self, more: int) -> None:
        """``more`` executions have been made."""

    def done(self, index: int, result: Result) -> None:
        """Part ``index`` is done."""

    def found(self, index: int, text: str) -> None:
        """Part ``index`` has met a failure; it will be told again, shortened, with the part's result."""

    def close(self) -> None:
        """There will be no more."""


def run_parts(
    parts: Sequence[Part], deadline: float, jobs: int, watcher: Watcher, executor: Executor | None = None
) -> None:
    """Do all ``parts`` by ``deadline`` (time.monotonic), or nearly, in ``jobs`` processes; or, with an ``executor``,
    one after the other, each search of graphs in ``jobs`` parts on it. KeyboardInterrupt passes."""
    agenda = _Agenda(len(parts), deadline, max(1, min(jobs, len(parts))) if executor is None else 1)
    if agenda.jobs == 1:
        while (piece := agenda.take()) is not None:
            index, until = piece
            reporter = _Reporter(lambda text, index=index: watcher.found(index, text), watcher.executions)  # type: ignore[misc]
            if executor is None:
                result = do_part(parts[index], until, reporter.tick, reporter.found)
            else:
                result = _on_executor(parts[index], until, jobs, executor, reporter.tick, reporter.found)
            final = agenda.hand_in(index, result)
            if final is not None:
                _finished(parts, index, final, agenda, watcher)
        return
    context = multiprocessing.get_context("fork")
    working: dict[Connection, tuple[int, Any]] = {}
    processes = []
    try:
        for _ in range(agenda.jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(parts, theirs, [ours, *working]), daemon=True)
            with warnings.catch_warnings():
                # 3.12 on: the fork of a process with threads. NumPy's are idle, and the checker does not use them.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            processes.append(process)
            working[ours] = (-1, process)
            _next(ours, process, agenda, working)
        while any(index >= 0 for index, _ in working.values()):
            for ready in wait(list(working)):
                assert isinstance(ready, Connection)
                index, process = working[ready]
                try:
                    kind, value = ready.recv()
                except (EOFError, OSError):
                    process.join()
                    del working[ready]
                    if index >= 0:
                        died = f"{parts[index].name:24} NOT checked: its process ended with code {process.exitcode}"
                        watcher.done(index, Result((died,), wrong=True))
                    if not working and agenda:
                        raise RuntimeError("no worker process is left") from None
                    continue
                if kind == "executions":
                    watcher.executions(value)
                elif kind == "found":
                    watcher.found(index, value)
                else:
                    final = agenda.hand_in(index, value)
                    if final is not None:
                        _finished(parts, index, final, agenda, watcher)
                    _next(ready, process, agenda, working)
                    for idle, (other, its) in list(working.items()):  # what was handed in may be for who had nothing
                        if other < 0 and idle is not ready and agenda:
                            _next(idle, its, agenda, working)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        for connection in working:
            connection.close()


def _finished(parts: Sequence[Part], index: int, result: Result, agenda: _Agenda, watcher: Watcher) -> None:
    """A part is done. If it says so, what its strategy has not begun is left out."""
    watcher.done(index, result)
    if result.stops:
        name = parts[index].strategy.name
        for other in agenda.drop({i for i, part in enumerate(parts) if part.strategy.name == name}):
            watcher.done(other, Result((f"{parts[other].name:24} not run: {result.stops}",), wrong=True))


def _next(connection: Connection, process: Any, agenda: _Agenda, working: dict[Connection, tuple[int, Any]]) -> None:
    piece = agenda.take()
    if piece is None:
        working[connection] = (-1, process)
        return
    index, until = piece
    working[connection] = (index, process)
    connection.send((index, until - time.monotonic()))


class _Agenda:
    """Which part is next, and until when. A search that its share cut begins anew when all others are done, if there is
    twice the time that it had: few parts need much of it, and nobody knows which."""

    def __init__(self, parts: int, deadline: float, jobs: int) -> None:
        self.jobs = jobs
        self._deadline = deadline
        self._first = list(range(parts))
        self._again: list[int] = []
        self._began: dict[int, float] = {}
        self._cut: dict[int, Result] = {}

    def __bool__(self) -> bool:
        return bool(self._first or self._again)

    def drop(self, indices: set[int]) -> list[int]:
        """Those of ``indices`` that nobody has begun; they will not be."""
        gone = [index for index in self._first if index in indices]
        self._first = [index for index in self._first if index not in indices]
        return gone

    def take(self) -> tuple[int, float] | None:
        """A part's number and its deadline; None if there is none left to begin."""
        now = time.monotonic()
        if self._first:
            until = share(self._deadline, len(self._first))
            index = self._first.pop(0)
        elif self._again:
            until = now + max(self._deadline - now, 0.2) * min(1.0, self.jobs / len(self._again))
            index = self._again.pop(0)
        else:
            return None
        self._began[index] = now
        return index, until

    def hand_in(self, index: int, result: Result) -> Result | None:
        """The part's final result, or None if it will be taken again."""
        now = time.monotonic()
        before = self._cut.pop(index, None)
        if before is not None:
            return result if result.complete or result.findings or result.executions > before.executions else before
        cut = not (result.complete or result.wrong) and result.executions > 0
        if cut and self._deadline - now > 2 * (now - self._began[index]):
            self._cut[index] = result
            self._again.append(index)
            return None
        return result


class _Reporter:
    """Passes counts on now and then, failures at once."""

    def __init__(self, found: Callable[[str], None], executions: Callable[[int], None]) -> None:
        self.found, self._executions = found, executions
        self._told, self._when = 0, time.monotonic()

    def tick(self, executions: int) -> None:
        """There were ``executions`` so far."""
        now = time.monotonic()
        if now - self._when >= EVERY:
            self._executions(executions - self._told)
            self._told, self._when = executions, now


def _work(parts: Sequence[Part], connection: Connection, others: Sequence[Connection]) -> None:
    """A worker's life: Ctrl-C is the parent's to handle, and when the parent is gone there is nothing left to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:
        other.close()
    try:
        while True:
            index, seconds = connection.recv()
            reporter = _Reporter(
                lambda text: connection.send(("found", text)), lambda more: connection.send(("executions", more))
            )
            result = do_part(parts[index], time.monotonic() + seconds, reporter.tick, reporter.found)
            connection.send(("done", result))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
