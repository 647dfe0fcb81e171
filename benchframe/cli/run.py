"""`benchframe run`: strategies on workloads, measured in interleaved processes."""

import secrets
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchframe.cli import options as complete
from benchframe.cli.options import fail, guarded, loaded, plugin_files, seconds, split, strategy_names
from benchframe.errors import FAILED, BenchframeError, UsageError, did_you_mean

if TYPE_CHECKING:
    from benchframe.engine.caches import Caches
    from benchframe.registry import Registry
    from benchframe.results.campaign import Stream
    from benchframe.results.folder import Cell, RunFolder
    from benchframe.results.manifest import Manifest, Options, WorkloadEntry
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace
    from benchframe.workload import WorkloadSpec


# ----------------------------------------------------------------------------------------------------------------------
# From the options of `benchframe run` to its input: settings, streams of events, a folder, new or resumed.

MAX_THREADS = 256
"""A larger number of threads is taken for a mistake."""
MAX_SEED = 2**62
TIMEOUT = 300.0
"""Seconds that one worker process may take, without --timeout."""


def settings(
    quick: bool, rigorous: bool, rounds: int | None, budget: str | None, timeout: str | None, pin: bool
) -> "Options":
    """How much is measured, and where. Raises UsageError for options that exclude each other."""
    from benchframe.engine.job import DEPTHS, spare_cpu
    from benchframe.results.manifest import Options

    if quick and rigorous:
        raise UsageError("--quick and --rigorous exclude each other")
    mode = "quick" if quick else "rigorous" if rigorous else "default"
    depth = DEPTHS[mode]
    cpu = spare_cpu() if pin else None
    return Options(
        mode=mode,
        rounds=rounds or depth.rounds,
        values=depth.values,
        warmups=depth.warmups,
        min_time=depth.min_time,
        timeout=seconds(timeout) if timeout else TIMEOUT,
        budget=seconds(budget) if budget else 0.0,
        cpu=-1 if cpu is None else cpu,
    )


def adaptive(options: "Options", rounds: int | None, decide: str) -> "Options":
    """``options`` for a run that continues until its comparisons are decided."""
    from benchframe.results.campaign import MAX_ROUNDS, MIN_ROUNDS
    from benchframe.results.figures import FIGURES

    figures = tuple(dict.fromkeys(name.strip() for name in decide.split(",") if name.strip()))
    wrong = [name for name in figures if name not in FIGURES]
    if wrong or not figures:
        raise UsageError(f"--decide takes {', '.join(FIGURES)}, not {', '.join(wrong) or 'nothing'}")
    if rounds is not None and rounds < MIN_ROUNDS:
        raise UsageError(f"--until-decided needs at least {MIN_ROUNDS} rounds, not {rounds}")
    return replace(options, until_decided=True, decide=figures, rounds=rounds or MAX_ROUNDS)


def thread_counts(text: str | None) -> list[int]:
    """``0,1,2,4`` as numbers; 0, or [0] without the option, is the usual replay, without threads."""
    if text is None:
        return [0]
    numbers = [part.strip() for part in text.split(",") if part.strip()]
    if not numbers or not all(part.isdecimal() and int(part) <= MAX_THREADS for part in numbers):
        raise UsageError(f"--threads {text}: give numbers up to {MAX_THREADS}, separated by commas: --threads 1,2,4")
    return list(dict.fromkeys(int(part) for part in numbers))


def make_streams(
    known: "Registry",
    names: Sequence[str],
    traces: Sequence[Path],
    seed: int,
    baseline: str | None,
    threads: Sequence[int],
    labels: Mapping[str, str] | None = None,
    caches: "Sequence[Caches] | None" = None,
    cold: "Caches | None" = None,
) -> "list[Stream]":
    """Make every workload's events, for each number of threads and state of the caches; names are looked up before
    anything is made. ``labels`` says what tables are to call some of them. ``cold``: where caches are warm and there
    are no threads, time lookups once more in this state."""
    from benchframe.engine.caches import Caches
    from benchframe.results.campaign import Stream, make_stream
    from benchframe.results.experiment import labelled
    from benchframe.workload import trace_workload

    if not names and not traces:
        names = [name for name, workload in known.workloads.items() if "default" in workload.tags]
        if not names:
            raise UsageError("no workload is tagged default; name one with --workload or --trace")
    shown: dict[str, tuple[WorkloadSpec, str]] = {}  # by what is replayed, and what tables call it
    for name in names:
        swept = known.sweep(name)  # of several, each says its value, a parameter's default too
        for text, spec in swept.items():
            own = text if len(swept) > 1 else spec.label
            if spec.label in shown and own != (other := shown[spec.label][1]):
                own = max(own, other, key=len)
                typer.echo(f"benchframe: {spec.label} is given twice: it runs once, as {own}", err=True)
            shown[spec.label] = (spec, own)
    specs: list[tuple[WorkloadSpec, Path | None, str]] = [(spec, None, own) for spec, own in shown.values()]
    specs += [(spec, path, spec.label) for path in traces for spec in [trace_workload(path).spec()]]
    labels, states = labels or {}, caches or [Caches()]
    if any(threads) and not all(state.warm for state in states):
        raise UsageError("--caches and --threads exclude each other: real threads are replayed with warm caches only")
    for name in labels:
        if name not in (there := [base for _, _, base in specs]):
            raise UsageError(f"labels: no workload here is called {name}; {did_you_mean(name, there)}")
    streams: list[Stream] = []
    for (spec, path, own), crew in product(specs, threads):
        if crew and (reason := _no_crew(spec, crew)):
            if 0 not in threads:
                raise UsageError(f"{reason}, or --threads 0,{crew} to replay it without threads")
            typer.echo(f"benchframe: {reason}: replayed without threads only", err=True)
            continue
        stream = make_stream(spec, seed, path=path, threads=crew)
        if not stream.entry.timed:
            raise UsageError(f"workload {own} has no events after its setup, so there is nothing to time")
        known.strategy(baseline or stream.entry.baseline)
        if path and not crew and stream.trace.mms > 1:
            typer.echo(
                f"benchframe: {path} is a tree of {stream.trace.mms} address spaces, replayed as one; to time one: "
                f"benchframe trace select {shlex.quote(str(path))} --largest -o one.parquet (trace info lists them)",
                err=True,
            )
        near = "" if crew else _nearest(known, spec, stream.trace)
        for state in states:
            base = labelled(labels, own, crew, state)
            label, number = base, 1
            while any(other.entry.label == label for other in streams):
                number += 1
                label = f"{base}#{number}"
            beside = baseline or stream.entry.baseline
            again = str(cold) if cold is not None and state.warm and not crew else ""
            entry = replace(stream.entry, label=label, caches=str(state), cold=again, baseline=beside, nearest=near)
            streams.append(Stream(entry, stream.trace))
    return streams


PLACED = 100_000
"""The most events of a stream whose statistics are taken before a run: that takes up to a second."""


def _nearest(known: "Registry", spec: "WorkloadSpec", trace: "Trace") -> str:
    """The recorded program nearest to a workload's stream; "" if that is not known."""
    from benchframe.trace.analysis import nearest_text, nominal, same

    own = spec.workload.nominal if spec.label == spec.workload.name else {}
    if not own and len(trace) <= PLACED:
        own = nominal(trace)
    others = {name: values for name, values in known.recorded().items() if not same(values, own)}
    return nearest_text(own, others) if own else ""


def _no_crew(spec: "WorkloadSpec", crew: int) -> str:
    """Why ``crew`` real threads cannot replay ``spec``; "" if they can."""
    if spec.workload.make_threads is not None:
        return ""
    if "trace" not in spec.workload.tags:
        return f"workload {spec.label} cannot run with threads (`benchframe list workloads` marks those that can)"
    from benchframe.engine.threads import recorded_threads

    there = recorded_threads(spec.trace())
    if there >= crew:
        return ""
    return f"{spec.label} has {there} recorded thread{'s' * (there > 1)}, not {crew}; they can be put together only"


def planned(
    known: "Registry",
    asked: list[str],
    streams: "list[Stream]",
    options: "Options",
    seed: str | None,
    plugins: Sequence[Path],
    blocked: Sequence[str],
    skip: Sequence[str],
    command: Sequence[str] = (),
) -> "Manifest":
    """Plan the cells. ``command`` is what the manifest says of where the run comes from; by default this process's."""
    from benchframe.engine.job import COLD
    from benchframe.results.campaign import plan, without

    if COLD in options.decide and not any(stream.entry.cold for stream in streams):
        raise UsageError(f"--decide {COLD} needs cold lookups beside warm ones: leave --caches out, or --threads")
    names = dict.fromkeys([*asked, *(stream.entry.baseline for stream in streams)])
    strategies = {name: known.strategy(name) for name in names}
    manifest = plan(
        asked,
        strategies,
        streams,
        options,
        seed=_seed(seed),
        command=command or ["benchframe", *sys.argv[1:]],
        plugins=[str(path.resolve()) for path in plugins],
        blocked=blocked,
        notes=[str(problem) for problem in known.problems],
        metadata=known.metadata(),
    )
    return without(manifest, skip)


def new_run(manifest: "Manifest", asked: list[str], streams: "list[Stream]", output: Path) -> "RunFolder":
    """Make a folder for the cells, named after the time and the strategies."""
    from benchframe.files import slug
    from benchframe.results.folder import RunFolder

    labels = [stream.entry.label for stream in streams]
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    base = f"{stamp}-{slug('-'.join(asked + labels if len(labels) < 3 else asked), 40, otherwise='run')}"
    path, number = output / base, 1
    while path.exists():
        number += 1
        path = output / f"{base}-{number}"
    return RunFolder.create(path, manifest)


def resumed_run(
    known: "Registry", name: str, root: Path, rounds: int | None, plugins: Sequence[Path], retry: bool
) -> "tuple[RunFolder, list[Stream]]":
    """Open a run and make its streams again. Plugin files are executed only if the user names them again: a results
    folder may come from anywhere, and must not decide what code is executed."""
    from benchframe.results.campaign import Stream, check_same_place, make_stream, renew
    from benchframe.results.folder import RunFolder, find_run
    from benchframe.workload import trace_workload

    folder = RunFolder.open(find_run(name, root))
    manifest = folder.manifest
    given = {str(path.resolve()) for path in plugins}
    missing = [path for path in manifest.plugins if path not in given]
    if missing:
        again = " ".join(f"--plugin {shlex.quote(path)}" for path in missing)
        raise UsageError(f"{folder.path} was started with a plugin file; if you trust it, add {again}")
    check_same_place(folder)
    streams = []
    for entry in manifest.workloads:
        path = Path(entry.path) if entry.path else None
        spec = trace_workload(path).spec() if path else known.spec(entry.spec)
        stream = make_stream(spec, entry.seed, label=entry.label, path=path, threads=entry.threads, caches=entry.caches)
        same = replace(stream.entry, baseline=entry.baseline, cold=entry.cold, nearest=entry.nearest)
        streams.append(Stream(same, stream.trace))
    strategies = {cell.strategy: known.strategy(cell.strategy) for cell in manifest.cells}
    for what in renew(folder, strategies, streams, max(rounds or 0, manifest.options.rounds)):
        typer.echo(f"benchframe: {what} was edited since; it is measured again", err=True)
    if retry:
        for cell in folder.cells():
            if cell.state.state in ("crashed", "timed_out"):
                folder.forget(cell.entry)
    return folder, streams


def _seed(text: str | None) -> int:
    """The run's seed from ``--seed``."""
    if text == "random":
        return secrets.randbits(32)
    if text is not None and not (text.isdecimal() and len(text) < 20 and int(text) <= MAX_SEED):
        raise UsageError(f"--seed {text}: give a number from 0 to {MAX_SEED}, or random")
    return int(text or 0)


# ----------------------------------------------------------------------------------------------------------------------
# ``benchframe run``: strategies beside a baseline on workloads and traces, in interleaved rounds.


def from_file(path: Path, given: Mapping[str, object]) -> "dict[str, Any]":
    """The values of `benchframe run`'s options that an experiment file stands for. ``given`` are those of the command
    line that must have their defaults. Raises ResultsError and UsageError."""
    from benchframe.results.experiment import read_experiment

    if names := [name for name, value in given.items() if value]:
        raise UsageError(f"--{names[0]} stands in the experiment file {path}; leave it out, or change the file")
    found = read_experiment(path)
    return {
        "strategy": list(found.strategies),
        "workload": list(found.workloads),
        "trace": [path.parent / name for name in found.traces],
        "plugin": found.plugin_files(path.parent),
        "skip": list(found.skip),
        "labels": found.labels,
        "quick": found.mode == "quick",
        "rigorous": found.mode == "rigorous",
        "rounds": found.rounds,
        "budget": found.budget or None,
        "timeout": found.timeout or None,
        "until_decided": found.until_decided,
        "within": found.within,
        "decide": ",".join(found.decide),
        "baseline": found.baseline or None,
        "seed": str(found.seed),
        "stream_seed": found.stream_seed,
        "cost": found.cost,
        "host": found.host,
        "threads": ",".join(map(str, found.threads)) if found.threads != (0,) else None,
        "caches": ",".join(found.caches) or None,
        "pin": found.pin,
    }


def write_like(run: str, root: Path, target: Path | None) -> None:
    """Write the experiment file of a run to ``target``, or print it. Nothing is overwritten."""
    from benchframe.results.experiment import as_toml, like
    from benchframe.results.folder import RunFolder, find_run
    from benchframe.workload import trace_workload

    folder = RunFolder.open(find_run(run, root))
    head = f"As {folder.path.resolve().name}, of {folder.manifest.created}."
    if folder.manifest.plugins:
        head += "\nThe plugins are executed: look at them first if this run came from elsewhere."
    known = loaded(plugin_files())

    def plays(entry: "WorkloadEntry", crew: int) -> bool:
        try:
            spec = trace_workload(entry.path).spec() if entry.path else known.spec(entry.spec)
            return not _no_crew(spec, crew)
        except BenchframeError:  # gone: then the run of this file will say so
            return False

    unused = _unused_files(known, folder.manifest)
    manifest = replace(folder.manifest, plugins=tuple(one for one in folder.manifest.plugins if one not in unused))
    text = as_toml(like(manifest, plays), head)
    if target is None:
        typer.echo(text, nl=False)
        return
    if target.exists():
        raise UsageError(f"{target} exists; name another file")
    target.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {target}: benchframe run {shlex.quote(str(target))}")


def _unused_files(known: "Registry", manifest: "Manifest") -> set[str]:
    """The plugin files that bring strategies or workloads, but none of this run: they were remembered, not asked for.
    A file that is not loaded now is not among them."""
    names = {("strategy", cell.strategy) for cell in manifest.cells}
    names |= {("workload", entry.spec.partition(":")[0]) for entry in manifest.workloads}
    used = {origin.file for name, origin in known.origins.items() if name in names}
    for _, name in names:
        strategy = known.strategies.get(name)
        used |= {function.__code__.co_filename for function in strategy.functions()} if strategy else set()
    return {origin.file for origin in known.origins.values()} - used


def say_plan(manifest: "Manifest", strategies: "Sequence[Strategy]", output: Path) -> None:
    """``--dry-run``: cells, processes, what must be compiled, and an estimate of the time."""
    from benchframe.engine.compile import missing, needed
    from benchframe.runner import unit_store

    for entry in manifest.workloads:
        names = [cell.strategy for cell in manifest.cells if cell.workload == entry.label]
        typer.echo(f"{entry.label} ({entry.timed:,} timed events, beside {entry.baseline}): {', '.join(names)}")
    options = manifest.options
    processes = len(manifest.cells) * options.rounds
    most, rounds = "at most " if options.until_decided else "", "round" if options.rounds == 1 else "rounds"
    typer.echo(f"{len(manifest.cells)} cells, {most}{options.rounds} {rounds}: {most}{processes} processes")
    builds = {("threads" if entry.threads else "one") for entry in manifest.workloads}
    units = sum(map(len, missing(unit_store(), needed(strategies, frozenset(builds)))))
    each, why = _seconds_each(manifest, output)
    cold = sum(not manifest.workload(cell.workload).state.warm for cell in manifest.cells)
    total = (processes + cold * options.rounds) * each + UNIT_SECONDS * units
    compiled = f", {units} units to compile" if units else ""
    typer.echo(f"about {_rounded(total)} ({each:.1f} s a process, {why}{compiled})")
    if 0 < options.budget < total:
        typer.echo(f"the budget ends it after {_rounded(options.budget)}")


UNIT_SECONDS = 10.0
"""What compiling a unit takes, about, with two at a time."""


def _seconds_each(manifest: "Manifest", output: Path) -> tuple[float, str]:
    """How long a process takes: as in the newest run like this one, else by the settings."""
    from benchframe.errors import ResultsError
    from benchframe.results.folder import RunFolder, list_runs

    options = manifest.options
    for path in reversed(list_runs(output)[-20:]):
        try:
            folder = RunFolder.open(path)
            done = sum(len(cell.done) for cell in folder.cells())
        except ResultsError:
            continue
        old = folder.manifest
        if done and old.wall and (old.options.mode, dict(old.host)) == (options.mode, dict(manifest.host)):
            return old.wall / done, f"as in {path.name}"
    # Two figures and the replay, each value as long again for the start state; starting and verifying take a second.
    cold = any(entry.cold for entry in manifest.workloads) * options.min_time
    return 1.0 + 4 * (options.values + options.warmups) * options.min_time + cold, "by the settings"


def _rounded(seconds_: float) -> str:
    return (
        f"{seconds_:.0f} s"
        if seconds_ < 120
        else f"{seconds_ / 60:.0f} min"
        if seconds_ < 7200
        else f"{seconds_ / 3600:.1f} h"
    )


@guarded
def run(
    experiment: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE.toml]", help="An experiment file, in place of the options (docs/experiments.md)."
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="NAME,...",
            help="Names, comma-separated, or all (the default).",
            autocompletion=complete.strategies,
        ),
    ] = None,
    workload: Annotated[
        list[str] | None,
        typer.Option(
            "--workload",
            "-w",
            metavar="NAME[:KEY=VALUE,...],...",
            help="Names, with parameters.",
            autocompletion=complete.workloads,
        ),
    ] = None,
    trace: Annotated[
        list[Path] | None, typer.Option("--trace", "-t", metavar="FILE", help="A recorded trace file.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out.")] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STRATEGY@WORKLOAD",
            help="Leave cells out; * matches anything. Baselines that are needed stay.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="3 rounds, short values.")] = False,
    rigorous: Annotated[bool, typer.Option("--rigorous", help="25 rounds.")] = False,
    rounds: Annotated[int | None, typer.Option(min=1, max=100_000, metavar="N", help="Processes per cell.")] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop before a round that would exceed this time: 90s, 5m.")
    ] = None,
    until_decided: Annotated[
        bool, typer.Option("--until-decided", help="Add rounds for undecided cells only, up to --budget.")
    ] = False,
    within: Annotated[
        float,
        typer.Option(
            min=0.1, max=50, metavar="PERCENT", help="Smallest effect of interest; smaller ones count as the same."
        ),
    ] = 2.0,
    decide: Annotated[
        str,
        typer.Option(metavar="FIGURE,...", help="What --until-decided must decide: lookup, cold, fault, mapping."),
    ] = "lookup,fault",
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Time limit of one process (default 5m).")] = None,
    baseline: Annotated[str | None, typer.Option(metavar="NAME", help="Baseline: compare with this strategy.")] = None,
    seed: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Order of processes and layouts: a number or random. With the default 0, two runs can be compared "
            "layout by layout.",
        ),
    ] = None,
    stream_seed: Annotated[int, typer.Option(min=0, max=2**62, metavar="N", help="Seed of synthetic streams.")] = 0,
    cost: Annotated[
        bool, typer.Option(help="Also count loads, lines, atomics and branches, about a second per cell.")
    ] = True,
    host: Annotated[
        bool,
        typer.Option(
            "--host", help="Also perform the workloads on the running kernel: a row of its own (docs/host.md)."
        ),
    ] = False,
    threads: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="Numbers of real threads, a cell for each; 0: the usual replay."),
    ] = None,
    caches: Annotated[
        str | None,
        typer.Option(
            metavar="STATE,...",
            help="How lookups find the caches: warm, l2, llc, memory, program[=BYTES] (docs/caches.md). Without it: "
            "warm, and a column with lookups once more as program.",
        ),
    ] = None,
    pin: Annotated[bool, typer.Option(help="Pin the processes to one CPU.")] = True,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the runs.")] = Path(
        "reports/runs"
    ),
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Continue this run (name, folder or `last`).", autocompletion=complete.runs),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say the cells, the processes and about how long they take; run nothing.")
    ] = False,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Write this run as FILE.toml, or to stdout; run nothing.", autocompletion=complete.runs
        ),
    ] = None,
    save_baseline: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Give the finished run this name, for gate, compare and table."),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="With --resume: repeat crashed and timed-out cells.")] = False,
    debug_native: Annotated[
        bool,
        typer.Option("--debug-native", help="Time nothing: replay each cell with every access tested."),
    ] = False,
    form: Annotated[
        str, typer.Option("--format", "-f", metavar="FORM", help="text, mail, markdown, csv, json or latex.")
    ] = "text",
) -> int:
    """Time strategies beside their baseline, check every answer first, and print a latency table.

    Without --workload and --trace the shipped traces tagged default are run; without --strategy, all strategies.

    Exit codes: 0, 1 (a cell is wrong, crashed or timed out), 2 (bad input or usage), 3 (disk full, no permission),
    130 (Ctrl-C; --resume continues).

    \b
    Examples:
      benchframe run --quick --strategy pmdcache
      benchframe run -s pmdcache,mmap_cache -w uniform,zipf:vmas=1000,alpha=1.2
      benchframe run -s mine --plugin mine.py --trace firefox.parquet --budget 5m
      benchframe run -s pmdcache,vmacache -w zipf --until-decided --budget 2m --within 2
      benchframe run -s pmdcache,rbtree -w multi-fault-all-split --threads 0,1,2
      benchframe run -s maple,pmdcache -w gcc-project --caches warm,program,memory
      benchframe run -s pmdcache,rbtree -w uniform:vmas=10..1e5:log --dry-run
      benchframe run --like last > exp.toml && benchframe run exp.toml
      benchframe run -s mine --save-baseline main
      benchframe run --resume last
      benchframe run -s mine --plugin mine.py -w zipf --debug-native
    """
    from benchframe.cli.report import check_form, print_table
    from benchframe.engine.caches import USUAL, doubts, parse
    from benchframe.engine.compile import check_texts
    from benchframe.results.folder import check_baseline
    from benchframe.results.folder import save_baseline as name_run

    start = time.perf_counter()
    check_form(form)
    if save_baseline is not None:
        check_baseline(save_baseline)
    labels: Mapping[str, str] = {}
    if like is not None:
        write_like(like, output, experiment)
        return 0
    if experiment is not None:
        given = {"strategy": strategy, "workload": workload, "trace": trace, "plugin": plugin, "skip": skip,
                 "quick": quick, "rigorous": rigorous, "rounds": rounds, "until-decided": until_decided,
                 "baseline": baseline, "seed": seed, "stream-seed": stream_seed, "threads": threads,
                 "caches": caches, "resume": resume}  # fmt: skip
        file = from_file(experiment, given)
        strategy, workload, trace, plugin = file["strategy"], file["workload"], file["trace"], file["plugin"]
        skip, labels, quick, rigorous = file["skip"], file["labels"], file["quick"], file["rigorous"]
        rounds, until_decided, within, decide = file["rounds"], file["until_decided"], file["within"], file["decide"]
        baseline, seed, stream_seed, threads = file["baseline"], file["seed"], file["stream_seed"], file["threads"]
        budget, timeout = budget or file["budget"], timeout or file["timeout"]
        caches, cost, pin = file["caches"], cost and file["cost"], pin and file["pin"]
        host = host or file["host"]
    options = settings(quick, rigorous, rounds, budget, timeout, pin)
    options = replace(options, within=within / 100, cost=options.cost if cost else 0, host=host)
    if until_decided:
        options = adaptive(options, rounds, decide)
        rounds = options.rounds
    files = plugin_files(plugin)
    known = loaded(files, no_plugin, plugin)
    if resume is not None:
        if dry_run or debug_native:
            raise UsageError(f"--{'dry-run' if dry_run else 'debug-native'} needs a new run; --resume continues one")
        if (
            strategy
            or workload
            or trace
            or baseline
            or threads
            or caches
            or seed is not None
            or quick
            or rigorous
            or skip
        ):
            raise UsageError("--resume takes strategies, workloads and schedule from the run; omit those options")
        folder, streams = resumed_run(known, resume, output, rounds, files, retry)
        folder.save(
            replace(
                folder.manifest,
                options=replace(
                    folder.manifest.options,
                    budget=options.budget,
                    until_decided=folder.manifest.options.until_decided or until_decided,
                    decide=options.decide if until_decided else folder.manifest.options.decide,
                    timeout=options.timeout if timeout else folder.manifest.options.timeout,
                    host=folder.manifest.options.host or host,
                ),
            )
        )
    else:
        if workload and not split(workload):
            raise UsageError("--workload is empty; omit it to run the shipped traces tagged default")
        asked = strategy_names(strategy, known)
        check_texts([known.strategy(name) for name in asked])
        crews, states = thread_counts(threads), parse(caches, options.cpu)
        cold = USUAL if caches is None else None
        streams = make_streams(known, split(workload), trace or [], stream_seed, baseline, crews, labels, states, cold)
        manifest = planned(known, asked, streams, options, seed, files, split(no_plugin), skip or [])
        for doubt in doubts(states, options.cpu):
            manifest = manifest.with_note(doubt)
        if dry_run:
            names = dict.fromkeys(cell.strategy for cell in manifest.cells)
            say_plan(manifest, [known.strategy(name) for name in names], output)
            return 0
        if debug_native:
            return guarded_run(known, manifest, streams)
        folder = new_run(manifest, asked, streams, output)
    measured(known, folder, streams, files, split(no_plugin), start)
    print_table(folder, form)
    _closing(folder)
    if save_baseline is not None:
        name_run(save_baseline, folder.path)
        typer.echo(f"benchframe: this run is called {save_baseline} from now on", err=True)
    failed = sum(cell.state.failed for cell in folder.cells())
    _look_closer(known, folder, streams, plugin or [])
    return fail(f"{failed} of {len(folder.manifest.cells)} cells failed: see the state column", FAILED) if failed else 0


def measured(
    known: "Registry",
    folder: "RunFolder",
    streams: "list[Stream]",
    plugins: Sequence[Path],
    blocked: Sequence[str],
    start: float,
) -> None:
    """Run the rounds of a run that was planned; progress goes to stderr. ``start``: of the wall time that it notes."""
    from benchframe.cli.progress import watching
    from benchframe.results.campaign import Campaign

    try:
        with watching(folder) as observer:
            Campaign(
                folder,
                {cell.strategy: known.strategy(cell.strategy) for cell in folder.manifest.cells},
                {stream.entry.label: stream.trace for stream in streams},
                observer,
                plugins=[str(path.resolve()) for path in plugins],
                blocked=blocked,
                start=start,
            ).run()
        if folder.manifest.options.host:
            on_this_kernel(folder, streams)
    except BaseException:
        if not folder.discard_if_empty():
            typer.echo(f"benchframe: what was measured is in {folder.path}; --resume {folder.path} continues", err=True)
        raise


def on_this_kernel(folder: "RunFolder", streams: "list[Stream]") -> None:
    """``--host``: let the running kernel perform each workload without threads, and keep its times in the run. What
    cannot be performed is told in a line, which the run keeps as a note."""
    from benchframe.host.measure import FAULTS, MAPPINGS, HostError, measure, preset_of, unsupported
    from benchframe.host.program import make_program
    from benchframe.judge.command import kernel_name
    from benchframe.results.studies import HostFigures, HostWorkload, write_host
    from benchframe.trace.trace import largest, select

    def left_out(what: str) -> None:
        typer.echo(f"benchframe: {what}", err=True)
        folder.save(folder.manifest.with_note(what))

    if reason := unsupported():
        return left_out(f"--host: the running kernel was not timed: {reason}")
    found = []
    for entry, trace in ((stream.entry, stream.trace) for stream in streams):
        if entry.threads or not entry.state.warm:
            continue
        try:
            program = make_program(select(trace, largest(trace)) if trace.mms > 1 else trace)
            times = measure(program, cpu=folder.manifest.options.cpu)
        except (HostError, UsageError) as error:
            left_out(f"--host: {entry.label} was not performed on the running kernel: {error}")
            continue
        rows = [times.row(name) for name in (FAULTS, MAPPINGS)]
        if not any(rows):
            left_out(f"--host: {entry.label} has no page faults and no mapping calls to perform on the running kernel")
            continue
        means, events = zip(*((row.rounds, row.events) if row else ((), 0) for row in rows), strict=True)
        there = [cell.strategy for cell in folder.manifest.cells if cell.workload == entry.label]
        newest = preset_of(kernel_name(), there) or entry.baseline
        cut = program.cut or ("of its address spaces, the one with the most faults" if trace.mms > 1 else "")
        found.append(HostWorkload(entry.label, newest, means[0], means[1], events[0], events[1], cut))
    if found:
        write_host(folder.path, HostFigures(kernel_name(), tuple(found)))
    return None


def guarded_run(known: "Registry", manifest: "Manifest", streams: "list[Stream]") -> int:
    """``--debug-native``: replay the cells with every access and answer tested, each in a process of its own. The exit
    code."""
    from benchframe.engine.guard import guard_apart

    def note(unit: str) -> None:
        typer.echo(f"benchframe: compiling {unit}", err=True)

    traces = {stream.entry.label: stream.trace for stream in streams}
    cells = [cell for cell in manifest.cells if not manifest.workload(cell.workload).threads]
    if len(cells) < len(manifest.cells):
        typer.echo("benchframe: --debug-native replays without threads; cells with threads are left out", err=True)
    wrong = 0
    for cell in cells:
        said, right = guard_apart(known.strategy(cell.strategy), traces[cell.workload], manifest.options.timeout, note)
        wrong += right is not True
        typer.echo(f"{cell.strategy} on {cell.workload}: {said}")
    return FAILED if wrong else 0


def _look_closer(
    known: "Registry", folder: "RunFolder", streams: "list[Stream]", plugins: Sequence[Path]
) -> None:  # fmt: skip
    """If cells failed, tell why, and print the commands that show it: each was tried and fails."""
    failed = [cell for cell in folder.cells() if cell.state.failed]
    if not failed:
        return
    from benchframe.study.diagnosis import diagnose

    def again(cell: "Cell") -> list[str]:
        entry = cell.workload
        stream = ["-w", entry.spec, "--stream-seed", str(entry.seed)] if entry.spec else ["--trace", entry.path]
        return ["benchframe", "run", "-s", cell.entry.strategy, *stream]

    traces = {stream.entry.label: stream.trace for stream in streams}
    files = [str(path) for path in plugins]
    diagnose(known.strategy, failed, traces, files, again, lambda text: typer.echo(f"benchframe: {text}", err=True))


def _closing(folder: "RunFolder") -> None:
    from benchframe.results.folder import RUNS

    manifest = folder.manifest
    if manifest.wall > 0:
        share = {name: 100 * getattr(manifest, name) / manifest.wall for name in ("measured", "timed", "warmup")}
        typer.echo(
            f"{manifest.wall:.1f} s: {share['measured']:.0f} % inside measured loops ({share['timed']:.0f} % on the "
            f"clock, the rest restores the start state), {share['warmup']:.0f} % in warm-up and calibration",
            err=True,
        )
    there = folder.path.parent.resolve() == RUNS.resolve()  # runs in this folder can be found by name alone
    name = folder.path.name if there else folder.path
    typer.echo(f"results: {folder.path}   ({shlex.join(['benchframe', 'report', str(name)])})", err=True)
