"""What can be believed: ``benchframe check`` tests a strategy, ``mutate`` the check, ``selftest`` the verdicts here."""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import fail, guarded, registry, seconds, split, strategy_names
from benchframe.engine.caches import Caches
from benchframe.errors import FAILED, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from benchframe.check.mutate import Outcome
    from benchframe.registry import Registry
    from benchframe.strategy import Strategy


@guarded
def check(
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            help="Strategies, with commas, or all (the default).",
            autocompletion=options.strategies,
        ),
    ] = None,
    scenario: Annotated[
        list[str] | None, typer.Option(help="Scenarios, with commas; one-task: random calls alone (default: all).")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time for everything: 30s, 5m (default: 60s, or 15s a strategy if that is more).")
    ] = None,
    memory: Annotated[
        str,
        typer.Option(
            help="sc: stores are visible at once; tso: store buffers, as on x86; lkmm: the kernel's; rc11: C11's."
        ),
    ] = "sc",
    graphs: Annotated[
        bool, typer.Option("--graphs", help="Search execution graphs, not interleavings; lkmm and rc11 always do.")
    ] = False,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", help="Processes (default: one per core).", min=1)] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Divide each search of graphs into --jobs parts on a Dask scheduler: local:N, HOST:PORT, tls://...",
        ),
    ] = None,
    replay: Annotated[
        str | None, typer.Option(help="Run one schedule again: the string at the end of a failure's report.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="Replay this trace by the interpreter, compared event by event with the oracle."),
    ] = None,
    saved: Annotated[
        Path | None, typer.Option(help="Folder of saved failures, which run first (default: .benchframe/check).")
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="Save the failures found, as regression tests.")] = False,
    allow_known: Annotated[
        bool, typer.Option("--allow-known", help="Exit code 0 if every failure is a known bug of its strategy.")
    ] = False,
    historic: Annotated[
        list[str] | None,
        typer.Option(help="Historic races, such as B19, or all: found with the bug, absent with the fix."),
    ] = None,
    list_historic: Annotated[
        bool, typer.Option("--list-historic", help="List the historic races, and why some cannot be reproduced.")
    ] = (False),
    orderings: Annotated[
        bool, typer.Option("--orderings", help="Which orderings can be weakened with no failure found? Under lkmm.")
    ] = False,
    watch: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check this plugin's strategies whenever it is written.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="A Python file with more strategies.")] = None,
) -> int:
    """Check strategies: random calls against the oracle, then every interleaving of small concurrent scenarios.

    A failure is printed as a counterexample with the schedule that led to it; --replay runs that schedule again.

    Exit codes: 0, 1 (something is wrong or could not be checked), 2 (an option that cannot be used), 130 (Ctrl-C;
    failures found so far are printed). With --historic: 0 if each race was found with its bug and nothing with its fix.

    \b
    Examples:
      benchframe check --strategy pmdcache
      benchframe check --strategy all --jobs 2 --budget 5m
      benchframe check --strategy pmdcache_rcu --scenario fault-munmap --memory tso
      benchframe check --strategy pmdcache --scenario lookup-munmap --replay v1:0x10.1x100.0x1.
      benchframe check --strategy mine --plugin mine.py --trace .benchframe/streams/mine-3f2a9c01.parquet
      benchframe check --watch mine.py --scenario lookup-munmap
      benchframe check --historic B19
      benchframe check --strategy per_vma_refcnt --memory lkmm
      benchframe check --strategy rcu_rbtree --memory tso --graphs
      benchframe check --strategy per_vma_rwsem --memory rc11
      benchframe check --strategy per_vma_refcnt --memory lkmm --cluster local:2
      benchframe check --strategy per_vma_refcnt --orderings --budget 5m
    """
    from benchframe.check.command import run_check_command
    from benchframe.check.jobs import FOLDER
    from benchframe.cli.progress import watcher
    from benchframe.cstrategy import unseen
    from benchframe.dialect.lint import check_functions
    from benchframe.engine.job import usable
    from benchframe.units import strategy_digest

    def checked(known: "Registry", names: list[str]) -> int:
        check_functions(native for name in names for native in known.strategy(name).functions())
        for name in names:
            strategy_digest(known.strategy(name))  # recursion, and names that stand for what strategy code may not use
            for function in unseen(known.strategy(name).functions()):
                typer.echo(
                    f"benchframe: warning: {name}: {function}() is C without a twin, so races in it cannot be found",
                    err=True,
                )
        if trace is not None:
            return _trace([known.strategy(name) for name in names], trace)
        if orderings:
            return _orderings(known, names, split(scenario), seconds(budget) if budget else 300.0)
        time = seconds(budget) if budget is not None else max(60.0, 15.0 * len(names))
        with _executor(cluster) as (executor, workers):
            return searched(known, names, time, jobs or workers or usable(), executor)

    def searched(known: "Registry", names: list[str], time: float, jobs: int, executor: "Executor | None") -> int:
        return run_check_command(
            [known.strategy(name) for name in names],
            split(scenario),
            time,
            replay,
            memory=memory,
            graphs=graphs,
            jobs=jobs,
            executor=executor,
            saved=saved or FOLDER,
            save_new=save,
            allow_known=allow_known,
            say=typer.echo,
            watch=lambda parts: watcher(parts, time),
            plugins=[str(path) for path in (*(plugin or ()), *((watch,) if watch is not None else ()))],
        )

    if watch is not None:
        return _watch(watch, plugin or [], strategy, checked)
    known = registry(plugin)
    if historic or list_historic:
        if strategy or scenario or save or allow_known or memory != "sc":
            raise UsageError(
                "a historic race has its own strategies and scenario; only --budget and --replay can be combined with "
                "it"
            )
        return _historic(known, split(historic), budget, replay, list_historic)
    return checked(known, strategy_names(strategy, known))


@contextmanager
def _executor(address: str | None) -> "Iterator[tuple[Executor | None, int]]":
    """An executor on a cluster, and how many workers ``local:N`` asks for (0: unknown); without an address none."""
    if address is None:
        yield None, 0
        return
    from benchframe.simulator.campaign import cluster, stop

    kind, _, count = address.partition(":")
    with cluster(address) as executors:
        executor = executors()
        try:
            yield executor, int(count) if kind == "local" else 0
        finally:
            stop(executor)


def _watch(
    file: Path,
    plugins: "Sequence[Path]",
    strategies: "Sequence[str] | None",
    checked: "Callable[[Registry, list[str]], int]",
) -> int:
    """Check the strategies that ``file`` brings (or those named), and again whenever it is written, until Ctrl-C. Each
    time in a process of its own, which knows the file as it is then; a check that still runs is given up."""
    import multiprocessing
    import time

    from benchframe.cli.options import outcome
    from benchframe.registry import expand

    files = expand(file)  # that it is there is asked once, aloud

    def once() -> int:
        known = registry([*plugins, file])
        mine = [name for name in known.strategies if Path(known.origins["strategy", name].file) in files]
        return checked(known, strategy_names(strategies, known) if strategies else mine)

    def written() -> list[int]:
        near = [*files, *(source for one in files for source in one.parent.glob("*.c"))]
        return [one.stat().st_mtime_ns for one in near if one.exists()]

    context = multiprocessing.get_context("fork")
    while True:
        before = written()
        process = context.Process(target=lambda: sys.exit(outcome(once)))
        sys.stdout.flush()  # or the child would print it, too
        process.start()
        try:
            said = False
            while written() == before:
                time.sleep(LOOK)
                if not said and not process.is_alive():
                    said = True
                    typer.echo(f"--- waiting for {file} to be written; Ctrl-C ends", err=True)
            typer.echo(f"--- {file} was written", err=True)
        finally:
            process.terminate()
            process.join()


LOOK = 0.25
"""Seconds between two looks at a file."""


def _trace(strategies: "Sequence[Strategy]", path: Path) -> int:
    """A stream in the interpreter: finds what a run reported as wrong, with the source line."""
    from benchframe.check.execution import Endless
    from benchframe.study.diagnosis import show
    from benchframe.trace.trace import read_file

    found = read_file(path)
    try:
        right = [show(one, found, path, typer.echo) for one in strategies]
    except Endless as error:
        return fail(f"{path}: {error}", FAILED)
    return 0 if all(right) else FAILED


def _orderings(known: "Registry", names: list[str], scenarios: list[str], budget: float) -> int:
    """Which orderings of each strategy may be weaker, in the scenarios of its historic races, too. Exit code 0."""
    from benchframe.check.command import scenario
    from benchframe.check.mutate import judgements
    from benchframe.check.weak_hunt import run_orderings
    from benchframe.scenario import Scenario

    for name in names:
        strategy = known.strategy(name)
        mine = [race.scenario for race in known.historic().values() if getattr(race.mended, "name", "") == name]
        more = [one if isinstance(one, Scenario) else scenario(str(one)) for one in mine]
        run_orderings(strategy, scenarios, budget, typer.echo, judgements(strategy, "orderings"), more)
    return 0


def _historic(known: "Registry", numbers: list[str], budget: str | None, replay: str | None, listed: bool) -> int:
    """The races that plugins reintroduce: list them, or show them one after the other."""
    from benchframe.check.command import list_historic, run_historic

    before = len(known.problems)
    races = known.historic()
    for problem in known.problems[before:]:
        typer.echo(f"benchframe: warning: {problem}", err=True)
    if listed:
        return list_historic(races, typer.echo)
    return run_historic(races, numbers, seconds(budget) if budget is not None else 60.0, replay, typer.echo)


@guarded
def mutate(
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", "-s", help="Strategies, with commas, or all (the default).", autocompletion=options.strategies
        ),
    ] = None,
    faults: Annotated[int, typer.Option(help="Faults of each strategy, by a seeded draw.", min=1)] = 60,
    budget: Annotated[
        str | None, typer.Option(help="Time for everything: 30s, 5m (default: as long as it takes).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    at_least: Annotated[float, typer.Option(help="Share in % below which the exit code is 1.", min=0, max=100)] = 95.0,
    every: Annotated[bool, typer.Option("--every", help="Print the faults that are found, too.")] = False,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", help="Processes (default: one per core).", min=1)] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="A Python file with more strategies.")] = None,
) -> int:
    """Put small faults into a strategy's text, one at a time, and print the share that a check finds.

    A fault leaves out a test, a store, a call or a barrier, swaps bounds, or is off by one. Faults that survive are
    listed, with the judgement that FILE.mutants.json beside the plugin has about them: an object of faults and reasons.
    Exit code 1 if the share of a strategy is below --at-least.

    \b
    Examples:
      benchframe mutate --strategy vmacache
      benchframe mutate --strategy mine --plugin mine.py --faults 200
      benchframe mutate --strategy all --faults 20 --budget 10m
    """
    from benchframe.check.mutate import score, table
    from benchframe.engine.job import usable

    known = registry(plugin)
    deadline = time.monotonic() + seconds(budget) if budget is not None else None
    scores = []

    def say(outcome: "Outcome") -> None:
        if every or not outcome.found:
            fault = outcome.fault
            state = outcome.found or f"SURVIVED{': ' + outcome.judgement if outcome.judgement else ''}"
            typer.echo(f"  {fault.place}: {fault.key}\n    {state}")

    for name in strategy_names(strategy, known):
        if deadline is not None and time.monotonic() >= deadline:
            typer.echo(f"{name}: not tried, the time is over")
            continue
        typer.echo(name)
        scores.append(score(known.strategy(name), faults, deadline, seed, jobs or usable(), say))
    typer.echo("\n" + table(scores))
    low = [s.strategy for s in scores if 100 * s.share < at_least]
    return fail(f"below {at_least:g} %: {', '.join(low)}", FAILED) if low else 0


QUICK, DEFAULT = 1.0, 5.0
ROUNDS = 9
"""Rounds of `selftest --caches`, half a second each."""


@guarded
def selftest(
    minutes: Annotated[
        float | None, typer.Option(min=0.2, max=600, metavar="M", help="How long to measure (default 5).")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Take about one minute.")] = False,
    workload: Annotated[
        str, typer.Option("--workload", "-w", metavar="NAME", help="The workload to replay.")
    ] = "python-json",
    caches: Annotated[
        str | None,
        typer.Option(
            metavar="STATE,...",
            help="Check that lines cost what these states of `run --caches` say: l2, llc, memory, program. With "
            "--quick or --minutes, also measure the tool in the one state given.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**62, metavar="N", help="Seed of schedule and layouts.")] = 1,
    again: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only print the conclusions of this selftest.json.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of self-tests.")] = Path(
        "reports/selftests"
    ),
) -> int:
    """Measure the tool itself on this host: false positives, the smallest effect it detects, and the influence of other
    load.

    A strategy is compared with copies of itself, and with a twin that does a little more work; half-way through a
    second part, busy loops are started. The first time, compilation takes additional time.

    With --caches, a replay that reads known lines is compared with a pointer chase through each level, in some
    seconds (docs/caches.md); with --quick or --minutes, copies and twin are then measured with caches in this state.

    \b
    Exit codes: 0 passed; 1 a strategy differs from itself too often, or a load changed a verdict, or lines cost more
    than 15 % more or less than their level.

    \b
    Examples:
      benchframe selftest --quick
      benchframe selftest --minutes 10 --workload gcc-project
      benchframe selftest --caches l2,llc,memory,program
      benchframe selftest --caches program --minutes 5
      benchframe selftest --again reports/selftests/20261123-120000/selftest.json
    """
    from benchframe.study.selftest import judge_record, read_record

    if quick and minutes:
        raise UsageError("--quick and --minutes exclude each other")
    state, lines = Caches(), 0
    if caches is not None:
        if again is not None:
            raise UsageError("--again repeats the conclusions of a file, which names the state of its caches")
        states = cold_states(caches)
        if (quick or minutes) and len(states) > 1:
            raise UsageError(f"--caches {caches}: with --quick or --minutes give one state")
        state, lines = states[0], lines_cost(states)
        if not (quick or minutes):
            return lines
    if again is not None:
        record = read_record(again)
    else:
        from benchframe.registry import load
        from benchframe.study.selftest import PLUGIN, SelfTest

        folder = output / datetime.now().strftime("%Y%m%d-%H%M%S")
        record = SelfTest(
            load([PLUGIN]),
            workload,
            QUICK if quick else minutes or DEFAULT,
            folder,
            lambda text: typer.echo(f"benchframe: {text}", err=True),
            seed=seed,
            caches=state,
        ).run()
        typer.echo(f"benchframe: all values are in {folder}", err=True)
    found = judge_record(record)
    typer.echo(found.text, nl=False)
    return FAILED if found.problems else lines


def cold_states(caches: str) -> list[Caches]:
    """The states that ``--caches`` names, without warm. Raises UsageError if none is left."""
    from benchframe.engine.caches import parse
    from benchframe.engine.job import spare_cpu

    cpu = spare_cpu()
    states = [state for state in parse(caches, -1 if cpu is None else cpu) if not state.warm]
    if not states:
        raise UsageError("--caches warm touches nothing, so there is nothing to check; name l2, llc, memory or program")
    return states


def lines_cost(states: Sequence[Caches]) -> int:
    """Known lines against a pointer chase: prints them, and returns the exit code."""
    from benchframe.engine.caches import known_lines, known_lines_text
    from benchframe.engine.job import spare_cpu

    cpu, every = spare_cpu(), os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        found = known_lines(states, ROUNDS, -1 if cpu is None else cpu)
    finally:
        os.sched_setaffinity(0, every)
    typer.echo(known_lines_text(found), nl=False)
    return 0 if all(one.good for one in found) else FAILED
