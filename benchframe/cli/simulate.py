"""``benchframe simulate``: strategies on 1 to 256 simulated CPUs of a machine that a file describes."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchframe.cli import options
from benchframe.cli.options import fail, guarded, loaded, plugin_files, split, strategy_names
from benchframe.errors import FAILED, UsageError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from benchframe.registry import Registry
    from benchframe.report.table import Table
    from benchframe.results.campaign import Stream
    from benchframe.results.experiment import Scaling
    from benchframe.results.folder import RunFolder
    from benchframe.results.manifest import CellEntry
    from benchframe.simulator.campaign import Answer, Watcher
    from benchframe.simulator.machines import Layout, Machine, Work

CPUS = "1,2,4,8,16,32,64,128"
MAX_SEEDS = 64


@guarded
def simulate(
    context: typer.Context,
    experiment: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE.toml]", help="An experiment file, in place of the options (docs/experiments.md)."
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", "-s", metavar="NAME,...", help="Names; default: all.", autocompletion=options.strategies
        ),
    ] = None,
    workload: Annotated[
        list[str] | None,
        typer.Option(
            "--workload",
            "-w",
            metavar="NAME[:KEY=VALUE,...],...",
            help="Workloads that have a form for threads.",
            autocompletion=options.workloads,
        ),
    ] = None,
    trace: Annotated[
        list[Path] | None, typer.Option("--trace", "-t", metavar="FILE", help="A trace, with the threads it has.")
    ] = None,
    cpus: Annotated[str, typer.Option(metavar="N,...", help="How many CPUs, a cell per number.")] = CPUS,
    machine: Annotated[
        str, typer.Option("--machine", "-m", metavar="NAME|FILE", help="The machine; an unknown name lists them all.")
    ] = "milan-2s",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NUMBER=VALUE,...", help="Other numbers for the machine (ns).")
    ] = None,
    work: Annotated[
        str,
        typer.Option(metavar="PROFILE|fault=NS,...", help="What a kernel does around a lookup; default: nothing."),
    ] = "none",
    seeds: Annotated[int, typer.Option(min=1, max=MAX_SEEDS, metavar="N", help="Runs that differ by chance.")] = 1,
    band: Annotated[
        bool, typer.Option("--band", help="8 more runs: corners of the uncertainty box of the machine's numbers.")
    ] = False,
    layout: Annotated[
        str,
        typer.Option(metavar="NAME", help="Fields by cache line: model, linux-2.6.32, 3.10, 5.10, 6.4, 6.12, 6.15."),
    ] = "model",
    what_if: Annotated[
        str, typer.Option(metavar="FIELD,...", help="These fields (mm.mm_rb) in cache lines of their own.")
    ] = "",
    rounds: Annotated[float, typer.Option(min=0.5, max=1000, help="Rounds of its loop that a CPU makes.")] = 10.0,
    accesses: Annotated[
        float, typer.Option(min=0.1, max=1000, metavar="MILLIONS", help="A run ends early after this many accesses.")
    ] = 4.0,
    baseline: Annotated[str | None, typer.Option(metavar="NAME", help="Compare with this strategy.")] = None,
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out.")] = None,
    stream_seed: Annotated[int, typer.Option(min=0, max=2**62, metavar="N", help="Seed of synthetic streams.")] = 0,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Simulate on a Dask scheduler: local:N, HOST:PORT or tls://HOST:PORT."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, max=1024, metavar="N", help="Processes; default: one per CPU.")] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where runs are kept.")] = Path(
        "reports/runs"
    ),
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Continue this run; repeat the other options.", autocompletion=options.runs),
    ] = None,
    search_layout: Annotated[
        bool, typer.Option("--search-layout", help="Find the fields that should have cache lines of their own.")
    ] = False,
    adversary: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="The load on which strategy A loses most to B; no other strategy is run."),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a machine file: insn and atomic fitted to native runs on this host."),
    ] = None,
    tries: Annotated[int, typer.Option(min=2, max=10_000, metavar="N", help="Loads that --adversary tries.")] = 40,
    lines: Annotated[bool, typer.Option("--lines", help="Print the cache lines that cost most, too.")] = False,
    form: Annotated[str, typer.Option("--format", "-f", metavar="FORM", help="text, markdown, csv or latex.")] = "text",
) -> int:
    """Run strategies on simulated CPUs: how they scale, where the time is spent, and on which cache lines.

    It runs the compiled code of threaded runs, with its locks and retries, in simulated time; every answer is checked.
    The same run gives the same figures on every host of one architecture. They are not measurements: docs/simulation.md
    says what is modelled. Exit codes: 0, 1 (a cell is wrong or crashed), 2 (bad input or usage), 3 (disk full, no
    permission), 130 (Ctrl-C; --resume continues).

    \b
    Examples:
      benchframe simulate -s rbtree,pmdcache_rcu -w multi-fault-all-split:vmas=300 --cpus 1,8,64
      benchframe simulate -s rbtree,per_vma_refcnt -w mixed --machine icelake-2s --band
      benchframe simulate -s pmdcache_rcu -w multi-fault-all-split:vmas=300 --cpus 128 --what-if mm.mm_rb,mm.pgd
      benchframe simulate -s rbtree -w page_fault1 --work server --seeds 5
      benchframe simulate -s pmdcache_rcu -w multi-fault-all-split:vmas=300 --cpus 32 --search-layout
      benchframe simulate --adversary per_vma_refcnt rbtree --tries 40
      benchframe simulate --calibrate here.toml
      benchframe simulate --resume last -s rbtree -w mixed
      benchframe simulate reports/scaling.toml
    """
    from benchframe.cli.options import shown
    from benchframe.results.studies import simulated_cells
    from benchframe.simulator.machines import load_layout, load_machine, load_work
    from benchframe.simulator.study import hot_lines, orders, sentences

    if form not in ("text", "markdown", "csv", "latex"):
        raise UsageError(f"--format {form}: there are text, markdown, csv and latex")
    numbers = _settings(set_)
    if experiment is not None:
        file = from_file(experiment, context)
        strategy, workload = list(file.strategies), list(file.workloads)
        trace = [experiment.parent / name for name in file.traces]
        cpus, what_if = ",".join(map(str, file.cpus)), ",".join(file.what_if)
        machine, numbers, work, layout = file.machine, file.numbers, file.work, file.layout
        seeds, band, rounds, accesses = file.seeds, file.band, file.rounds, file.accesses
        baseline, stream_seed = file.baseline or None, file.stream_seed
    model = load_machine(machine).changed(numbers)
    profile = load_work(work)
    fields = load_layout(layout, _fields(what_if))
    files = plugin_files(plugin)
    known = loaded(files, no_plugin, plugin)
    if calibrate is not None:
        if strategy or workload or trace:
            raise UsageError("--calibrate has its own strategies and workloads; leave -s, -w and --trace out")
        return _calibrate(known, model, calibrate)
    if adversary is not None:
        return _adversary(known, adversary, model, tries)
    streams = streams_of(known, split(workload), trace or [], stream_seed, baseline, cpus, model)
    asked = strategy_names(strategy, known)
    if search_layout:
        return _search_layout(known, asked, streams, model, profile, fields)
    folder = new_folder(known, asked, streams, model, profile, fields, seeds, files, no_plugin, output, resume)
    table = simulated(
        known, folder, model, profile, fields, seeds=seeds, band=band, rounds=rounds, accesses=accesses, jobs=jobs,
        cluster=cluster,
    )  # fmt: skip
    cells = simulated_cells(folder)
    typer.echo(shown(replace(table, notes=()) if form == "csv" else table, form), nl=False)
    if lines:
        typer.echo("\n" + shown(hot_lines(cells), form), nl=False)
    if form == "text":
        typer.echo("\n" + "\n".join([*sentences(cells), *orders(cells)]))
        typer.echo(f"simulated: {model.title}, {model.name}; declared work: {profile.told()}; layout: {fields.told()}")
    return _closing(folder)


DECIDED = (
    "strategy", "workload", "trace", "cpus", "machine", "set_", "work", "layout", "what_if", "seeds", "band", "rounds",
    "accesses", "baseline", "stream_seed",
)  # fmt: skip
"""Options that an experiment file decides."""


def from_file(path: Path, context: typer.Context) -> "Scaling":
    """An experiment file. Raises ResultsError, and UsageError for an option of the command line that it decides."""
    from benchframe.results.experiment import read_scaling

    for name in DECIDED:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = name.strip("_").replace("_", "-")
            raise UsageError(f"--{option} stands in the experiment file {path}; leave it out, or change the file")
    return read_scaling(path)


def simulated(
    known: "Registry",
    folder: "RunFolder",
    model: "Machine",
    profile: "Work",
    fields: "Layout",
    *,
    seeds: int = 1,
    band: bool = False,
    rounds: float = 10.0,
    accesses: float = 4.0,
    jobs: int = 0,
    cluster: str | None = None,
) -> "Table":
    """Simulate what a run's manifest plans, store figures and studies, and return the table."""
    from benchframe.results.studies import simulated_cells, sources_of, write_sources, write_study
    from benchframe.simulator.campaign import jobs_of, run_cells
    from benchframe.simulator.study import scaling, studies

    names = dict.fromkeys(cell.strategy for cell in folder.manifest.cells)
    strategies = {name: known.strategy(name) for name in names}
    tasks = jobs_of(
        folder.manifest, model, profile, fields, seeds=seeds, corners=band, rounds=rounds,
        accesses=round(1e6 * accesses),
    )  # fmt: skip
    write_sources(folder.path, sources_of(strategies.values()))
    count = jobs or len(os.sched_getaffinity(0))
    try:
        with watching() as watcher, _executors(cluster, min(count, len(tasks))) as executors:
            run_cells(folder, tasks, strategies, watcher, executors)
    except BaseException:
        if not folder.discard_if_empty():
            typer.echo(
                f"benchframe: what was simulated is in {folder.path}; --resume {folder.path} continues", err=True
            )
        raise
    cells = simulated_cells(folder)
    for study in studies(folder, model, profile, fields.told(), folder.manifest.command):
        write_study(folder.path, study)
    return scaling(cells, model)


@contextmanager
def _executors(address: str | None, count: int) -> "Iterator[Callable[[], Executor]]":
    """A maker of executors: on a cluster, or of ``count`` processes here."""
    if address is None:
        from benchframe.simulator.campaign import processes

        yield lambda: processes(count)
        return
    from benchframe.simulator.campaign import cluster

    with cluster(address) as executors:
        yield executors


def _progress(text: str) -> None:
    typer.echo(f"benchframe: {text}", err=True)


def _search_layout(
    known: "Registry",
    asked: list[str],
    streams: "list[Stream]",
    machine: "Machine",
    work: "Work",
    layout: "Layout",
) -> int:
    """Print, for each strategy and stream, which fields to move and the gain."""
    from benchframe.report.details import per_second
    from benchframe.simulator.search import lines_of, search_layout
    from benchframe.simulator.session import SimulatedSession

    for name in asked:
        for stream in streams:
            cpus = stream.entry.threads
            session = SimulatedSession(known.strategy(name), stream.trace, cpus, note=_progress)
            start, moves = search_layout(session, machine, work, layout, say=_progress)
            typer.echo(f"{name} on {stream.entry.label}, {machine.name}, layout {layout.told()}: {per_second(start)}/s")
            for move in moves:
                rate = per_second(move.throughput)
                typer.echo(f"  {move.field} in a line of its own: {move.factor:.2f} times as many, {rate}/s")
            if not moves:
                typer.echo("  moving a field to its own line gains less than 2 % for every field")
            elif any(move.field.startswith("mm.") for move in moves):
                typer.echo(f"  {moves[-1].throughput / start:.2f} times as many in all; mm_struct's lines are then")
                typer.echo("\n".join(f"    {', '.join(names)}" for names in lines_of(layout, moves)))
    return 0


def _adversary(known: "Registry", names: tuple[str, str], machine: "Machine", tries: int) -> int:
    """Print, as commands, the loads on which the first strategy loses most, and least."""
    from benchframe.report.details import per_second
    from benchframe.simulator.machines import load_work
    from benchframe.simulator.search import adversary

    first, second = (known.strategy(name).name for name in names)
    found = adversary(
        known,
        first,
        second,
        machine,
        lambda ns: load_work(f"fault={ns},mapping={ns},page={ns}" if ns else "none"),
        tries=tries,
        say=_progress,
    )
    typer.echo(f"{len(found)} loads on {machine.name}; {first}'s throughput over {second}'s:")
    shown = found[:3] + (found[-1:] if len(found) > 3 else [])
    for trial in shown:
        typer.echo(f"  {trial.ratio:.3f}   {per_second(trial.first)} and {per_second(trial.second)} a second")
        typer.echo(f"          benchframe simulate -s {first},{second} {trial.load.options()} -m {machine.name}")
    return 0


def _calibrate(known: "Registry", base: "Machine", target: Path) -> int:
    """Measure, fit, write the machine file, and print each cell before and after. Nothing is overwritten."""
    from benchframe.files import write_atomic
    from benchframe.results.manifest import host, noise
    from benchframe.simulator.machines import machine_toml
    from benchframe.simulator.search import calibrated, error, measured

    if target.exists():
        raise UsageError(f"--calibrate {target}: the file exists; give another name")
    cells = measured(known, base, _progress)
    machine = calibrated(base, cells, host()["cpu"] or "this host")
    write_atomic(target, machine_toml(machine).encode())
    before, after = ([one.numbers[name].value for name in ("insn", "atomic")] for one in (base, machine))
    typer.echo(f"ns per operation of one thread{'native':>32}{base.name:>14}{'calibrated':>14}")
    for cell in cells:
        simulated = f"{cell.simulated(*before):14.1f}{cell.simulated(*after):14.1f}"
        typer.echo(f"{cell.strategy:16}{cell.workload:34}{cell.native:12.1f}{simulated}")
    for name in ("insn", "atomic"):
        one = machine.numbers[name]
        typer.echo(
            f"{name} = {one.value:g} ns [{one.low:g}, {one.high:g}], {base.name} has {base.numbers[name].value:g}"
        )
    typer.echo(f"rms of the logarithm: {error(cells, *after):.3f}, before {error(cells, *before):.3f}")
    for problem in noise():
        _progress(problem)
    typer.echo(f"wrote {target}   (benchframe simulate --machine {target})", err=True)
    return 0


def _closing(folder: "RunFolder") -> int:
    """Print what failed and where the results are."""
    failed = [cell for cell in folder.cells() if cell.state.failed]
    for cell in failed:
        typer.echo(
            f"benchframe: {cell.entry.strategy} on {cell.entry.workload}: {cell.state.state}: {cell.state.message}",
            err=True,
        )
    typer.echo(f"results: {folder.path}   (benchframe report {folder.path})", err=True)
    return fail(f"{len(failed)} cells failed", FAILED) if failed else 0


def _settings(values: Sequence[str] | None) -> dict[str, float]:
    """``near=20,hold=0`` as numbers."""
    found = {}
    for part in ",".join(values or ()).split(","):
        name, equals, text = part.partition("=")
        if not part.strip():
            continue
        try:
            found[name.strip()] = float(text)
        except ValueError:
            raise UsageError(f"--set {part}: write NUMBER=VALUE, as --set near=20,hold=0") from None
        if not equals:
            raise UsageError(f"--set {part}: write NUMBER=VALUE, as --set near=20,hold=0")
    return found


def _fields(text: str) -> tuple[str, ...]:
    """``mm.mm_rb,mm.pgd``; a name without a structure is a field of mm."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(name if "." in name else f"mm.{name}" for name in names)


def streams_of(
    known: "Registry",
    names: Sequence[str],
    traces: Sequence[Path],
    seed: int,
    baseline: str | None,
    cpus: str,
    machine: "Machine",
) -> "list[Stream]":
    """A stream per workload and number of CPUs; a trace has one, for its own number of threads."""
    from benchframe.cli.run import make_streams, thread_counts
    from benchframe.engine.threads import recorded_threads
    from benchframe.workload import trace_workload

    if not names and not traces:
        raise UsageError("name a workload with --workload, or a recorded trace with --trace")
    counts = [n for n in thread_counts(cpus) if n]
    if not counts:
        raise UsageError(f"--cpus {cpus}: give numbers from 1, with commas: --cpus 1,2,4")
    fit = [n for n in counts if n <= machine.cpus]
    if len(fit) < len(counts):
        left = ", ".join(str(n) for n in counts if n > machine.cpus)
        if not fit:
            raise UsageError(f"{machine.name} has {machine.cpus} CPUs, not {left}")
        typer.echo(f"benchframe: {machine.name} has {machine.cpus} CPUs: {left} left out", err=True)
    streams = make_streams(known, names, [], seed, baseline, fit) if names else []
    for path in traces:
        threads = recorded_threads(trace_workload(path).spec().trace())
        streams += make_streams(known, [], [path], seed, baseline, [threads])
    fits, told = [], ""
    for stream in streams:
        threads = len(set(stream.trace.events["task"][stream.trace.setup :].tolist()))
        if threads <= machine.cpus:
            fits.append(stream)
            continue
        told = f"{stream.entry.label} has {threads} threads in all, {machine.name} {machine.cpus} CPUs"
        typer.echo(f"benchframe: {told}: left out; ask for fewer --cpus, or another --machine", err=True)
    if not fits:
        raise UsageError(f"{told}, so nothing is left to simulate; name a machine with more CPUs (--machine)")
    return fits


def new_folder(
    known: "Registry",
    asked: list[str],
    streams: "list[Stream]",
    machine: "Machine",
    work: "Work",
    layout: "Layout",
    seeds: int,
    files: Sequence[Path],
    no_plugin: Sequence[str] | None,
    output: Path,
    resume: str | None,
    command: Sequence[str] = (),
) -> "RunFolder":
    """The run's folder: a new one, or the one to continue, if it was begun with the same options."""
    from benchframe.files import slug
    from benchframe.results.folder import RunFolder, find_run
    from benchframe.simulator.campaign import plan_cells

    names = dict.fromkeys([*asked, *(stream.entry.baseline for stream in streams)])
    manifest = plan_cells(
        asked,
        {name: known.strategy(name) for name in names},
        streams,
        machine,
        work,
        layout,
        seeds=seeds,
        command=command or ["benchframe", *sys.argv[1:]],
        plugins=[str(path.resolve()) for path in files],
        blocked=split(no_plugin),
        notes=[str(problem) for problem in known.problems],
    )
    if resume is not None:
        folder = RunFolder.open(find_run(resume, output))
        there = {cell.key for cell in folder.manifest.cells}
        if folder.manifest.options.mode != manifest.options.mode or there != {cell.key for cell in manifest.cells}:
            raise UsageError(
                f"{folder.path} was begun with other strategies, workloads, numbers or sources; "
                "give the options it was begun with: " + " ".join(folder.manifest.command)
            )
        return folder
    stamp = time.strftime("%Y%m%d-%H%M%S")
    base = f"{stamp}-{slug('-'.join(['simulate', *asked]), 40, otherwise='run')}"
    path, number = output / base, 1
    while path.exists():
        number += 1
        path = output / f"{base}-{number}"
    return RunFolder.create(path, manifest)


@contextmanager
def watching() -> "Iterator[Watcher]":
    """A bar with the time left on a terminal; elsewhere a line now and then."""
    from benchframe.simulator.campaign import Watcher

    class Lines(Watcher):
        every = 10.0

        def __init__(self) -> None:
            self.total = self.done = 0
            self.start = self.said = time.monotonic()

        def say(self, text: str) -> None:
            print(f"benchframe: {text}", file=sys.stderr, flush=True)
            self.said = time.monotonic()

        def compiling(self, name: str, fraction: float) -> None:
            self.say(f"compiling for simulated CPUs: {name} done" if name else "compiling; it is kept for the next run")

        def begin(self, cells: int) -> None:
            self.total, self.start = cells, time.monotonic()
            self.say(f"{cells} cells")

        def cell(self, entry: "CellEntry", answer: "Answer") -> None:
            self.done += 1
            if answer.state != "ok":
                self.say(f"{entry.strategy} on {entry.workload}: {answer.state}: {answer.message}")
            elif time.monotonic() - self.said > self.every:
                left = (time.monotonic() - self.start) / self.done * (self.total - self.done)
                self.say(f"{self.done} of {self.total} cells, about {left:.0f} s left")

    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    class Bars(Watcher):
        def __init__(self, progress: Any) -> None:
            self.progress = progress
            self.task: Any = None

        def compiling(self, name: str, fraction: float) -> None:
            if self.task is None:
                self.task = self.progress.add_task("compiling", total=100)
            self.progress.update(self.task, completed=round(100 * fraction))

        def begin(self, cells: int) -> None:
            if self.task is not None:
                self.progress.remove_task(self.task)
            self.task = self.progress.add_task("simulating", total=cells)

        def cell(self, entry: "CellEntry", answer: "Answer") -> None:
            if answer.state != "ok":
                text = f"{entry.strategy} on {entry.workload}: {answer.state}: {answer.message}"
                self.progress.console.print(text, markup=False, highlight=False, style="red")
            self.progress.update(self.task, advance=1, description=f"{entry.strategy} on {entry.workload}"[:60])

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=2) as progress:
        yield Bars(progress)
