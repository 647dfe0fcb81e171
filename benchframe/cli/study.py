"""Studies: ``benchframe advise``, ``explain``, ``breakeven``, ``layout`` and ``claims``."""

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from benchframe.cli import options
from benchframe.cli.options import guarded, keep_study, loaded, plugin_files, run_folder, split
from benchframe.errors import FAILED, BenchframeError, UsageError, did_you_mean

if TYPE_CHECKING:
    from benchframe.engine.caches import Caches
    from benchframe.registry import Registry
    from benchframe.trace.trace import Trace

    Times = dict[str, Mapping[int, float]]
    """ns per lookup by strategy and round."""


@guarded
def explain(
    a: Annotated[str, typer.Argument(metavar="A", help="A strategy.", autocompletion=options.strategies)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.", autocompletion=options.strategies)],
    workload: Annotated[
        str | None,
        typer.Option("--workload", "-w", metavar="NAME[:KEY=VALUE,...]", autocompletion=options.workloads),
    ] = None,
    trace: Annotated[Path | None, typer.Option("--trace", "-t", metavar="FILE", help="A recorded trace file.")] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Use the times and counts of this run.", autocompletion=options.runs),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=3, max=10_000, metavar="N", help="Number of processes; each measures both strategies.")
    ] = 8,
    caches: Annotated[
        str | None,
        typer.Option(metavar="STATE", help="How lookups find the caches, as for run: program, l2, memory, ..."),
    ] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Calibrate the cost model again.")] = False,
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out.")] = None,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Store the result with this run, for its report.", autocompletion=options.runs
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", "-f", metavar="FORM", help="text, markdown, csv or latex.")] = "text",
) -> None:
    """Attribute the difference in ns per lookup between two strategies to what they do.

    Both are counted and timed on the workload; a cost model, fitted to a calibration on this machine (two minutes,
    once for each state of the caches), says how many ns each count is worth. The output also says what remains
    unexplained, and where the model does not apply.

    Exit codes: 0, 1 (a measuring process failed), 2 (bad input or usage), 3 (disk, no process could be started).

    \b
    Examples:
      benchframe explain rbtree pmdcache --workload python-json
      benchframe explain rbtree maple -w uniform:vmas=20000 --rounds 20
      benchframe explain rbtree pmdcache -w zipf --caches program
      benchframe explain rbtree vmacache -w python-json --run last --save last
    """
    from benchframe.cli.options import shown
    from benchframe.cli.report import check_form
    from benchframe.engine.caches import parse
    from benchframe.engine.job import spare_cpu
    from benchframe.results.manifest import noise
    from benchframe.study.explain import RECORDS, Side, explanation_table, saved_explanation
    from benchframe.study.explain import explain as attribute
    from benchframe.study.model import calibration, counts, fit

    check_form(form)
    if form == "mail":
        raise UsageError("explain has no mail format; use --format text")
    if a == b:
        raise UsageError("name two strategies: A and B are the same")
    if run is not None and caches is not None:
        raise UsageError("--run and --caches exclude each other: a run has no misses; omit --run to measure")
    cpu = spare_cpu()
    pin = -1 if cpu is None else cpu
    states = parse(caches, pin)
    if len(states) != 1:
        raise UsageError(f"--caches {caches}: explain takes one state; run it once for each")
    kept = run_folder(save)
    files = plugin_files(plugin)
    known = loaded(files, no_plugin, plugin)
    for name in (a, b):
        known.strategy(name)
    if run is None:
        for reason in noise():
            _say(f"this machine is not quiet, so intervals may be wide: {reason}")
    if run is not None:
        label, stream, times = _stored(known, run, a, b, workload)
    else:
        label, stream, times = _timed(known, a, b, workload, trace, rounds, pin, files, split(no_plugin), states[0])
    taken = calibration(known, _say, anew=calibrate, cpu=pin, caches=states[0])
    sides = [
        Side(name, counts(known.strategy(name), stream, RECORDS, taken.alone, states[0], pin), ns)
        for name, ns in times.items()
    ]
    model = fit(taken.samples, taken.alone)
    found = attribute(sides[0], sides[1], model, states[0])
    table = explanation_table(found, model, label)
    typer.echo(shown(table, form), nl=False)
    keep_study(kept, saved_explanation(found, label, table, ["benchframe", *sys.argv[1:]]))


def _say(text: str) -> None:
    typer.echo(f"benchframe: {text}", err=True)


def _stored(known: "Registry", run: str, a: str, b: str, workload: str | None) -> "tuple[str, Trace, Times]":
    """The workload's label, its stream made again, and the times of a run's cells."""
    from benchframe.results.campaign import make_stream
    from benchframe.results.folder import RunFolder, find_run
    from benchframe.units import strategy_digest
    from benchframe.workload import trace_workload

    folder = RunFolder.open(find_run(run))
    labels = [entry.label for entry in folder.manifest.workloads]
    if workload is None and len(labels) == 1:
        workload = labels[0]
    if workload not in labels:
        raise UsageError(f"{folder.path} has the workloads {', '.join(labels)}; choose one with --workload")
    entry = folder.manifest.workloads[labels.index(workload)]
    if entry.caches:
        raise UsageError(f"{workload}: --run explains warm lookups; omit --run and give --caches {entry.caches}")
    times: Times = {}
    for name in (a, b):
        cell = next((c for c in folder.cells() if (c.entry.strategy, c.entry.workload) == (name, workload)), None)
        if cell is None or not cell.rounds("lookup"):
            raise UsageError(f"{folder.path} has no time per lookup of {name} on {workload}")
        if cell.entry.strategy_digest not in ("", strategy_digest(known.strategy(name))):
            raise UsageError(f"{name} was edited since {folder.path} was measured; omit --run to measure it anew")
        times[name] = cell.rounds("lookup")
    path = Path(entry.path) if entry.path else None
    spec = trace_workload(path).spec() if path else known.spec(entry.spec)
    stream = make_stream(spec, entry.seed, threads=entry.threads)
    if stream.entry.digest != entry.digest:
        raise UsageError(f"{workload} has other events than when {folder.path} was measured; omit --run")
    return workload, stream.trace, times


def _timed(
    known: "Registry",
    a: str,
    b: str,
    workload: str | None,
    trace: Path | None,
    rounds: int,
    cpu: int,
    plugins: "list[Path]",
    blocked: "list[str]",
    state: "Caches",
) -> "tuple[str, Trace, Times]":
    """The workload's label, its stream, and the times of both, measured in the same processes."""
    from benchframe.engine.compile import compile_strategies
    from benchframe.engine.probe import Point, Study
    from benchframe.results.manifest import suffix
    from benchframe.study.model import LAYOUT, round_text
    from benchframe.workload import trace_workload

    if (workload is None) == (trace is None):
        raise UsageError("name one workload with --workload, or one recorded trace with --trace")
    spec = trace_workload(trace).spec() if trace is not None else known.spec(workload or "")
    stream = spec.trace(0)
    strategies = {name: known.strategy(name) for name in (a, b)}
    compile_strategies(list(strategies.values()))
    points = [Point(name, 0, LAYOUT, caches=str(state)) for name in (a, b)]
    study = Study(strategies, [stream], points, 0.05, cpu, [str(path) for path in plugins], blocked)
    began = time.monotonic()
    found = study.measure(rounds, 1, lambda done: _say(round_text(done, rounds, time.monotonic() - began)))
    times: Times = {}
    for number, name in enumerate((a, b)):
        ns = {r: row[number]["lookup"] for r, row in enumerate(found) if "lookup" in row[number]}
        if not ns:
            raise UsageError(
                f"{name} has no time per lookup on {spec.label}: the stream has no lookups, or noise hides them"
            )
        times[name] = ns
    return spec.label + suffix(0, state), stream, times


@guarded
def breakeven(
    a: Annotated[str, typer.Argument(metavar="A", help="A strategy.", autocompletion=options.strategies)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.", autocompletion=options.strategies)],
    over: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,...", help="hit_rate, vmas, writes_per_fault, vmas_per_2mib; default: all."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=3, max=10_000, metavar="N", help="Number of processes; each measures every point.")
    ] = 6,
    caches: Annotated[
        str | None,
        typer.Option(metavar="STATE", help="How each event finds the caches, as for run: program, memory, ..."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the chart.")] = Path(
        "reports/studies"
    ),
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out.")] = None,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Store the result with this run, for its report.", autocompletion=options.runs
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", "-f", metavar="FORM", help="text, markdown, csv or latex.")] = "text",
) -> None:
    """Sweep a parameter of a synthetic stream and find where B begins to beat A.

    Every process measures both strategies at every point; the crossover has a bootstrap interval over processes, and is
    claimed only if points on both sides are decided. About 20 s per parameter. A picture (SVG and PNG) is written.

    Exit codes: 0, 1 (a measuring process failed), 2 (bad input or usage), 3 (disk, no process could be started).

    \b
    Examples:
      benchframe breakeven rbtree pmdcache
      benchframe breakeven rbtree vmacache --over hit_rate --rounds 20
      benchframe breakeven rbtree maple --over vmas -o pictures
      benchframe breakeven rbtree maple --over vmas --caches program
      benchframe breakeven rbtree pmdcache --over hit_rate --save last
    """
    from benchframe.cli.options import shown
    from benchframe.cli.report import check_form
    from benchframe.engine.caches import doubts, parse
    from benchframe.engine.compile import compile_strategies
    from benchframe.engine.job import spare_cpu
    from benchframe.report.charts.spec import save as draw
    from benchframe.report.charts.study import study_chart
    from benchframe.study.sweeps import SWEEPS, breakeven_table, saved_breakeven
    from benchframe.study.sweeps import breakeven as find

    check_form(form)
    if form == "mail":
        raise UsageError("breakeven has no mail format; use --format text")
    if a == b:
        raise UsageError("name two strategies: A and B are the same")
    names = split(over) or list(SWEEPS)
    for name in names:
        if name not in SWEEPS:
            raise UsageError(f"--over: no sweep is called {name!r}; {did_you_mean(name, SWEEPS)}")
    cpu = spare_cpu()
    states = parse(caches, -1 if cpu is None else cpu)
    if len(states) != 1:
        raise UsageError(f"--caches {caches}: breakeven takes one state; run it once for each")
    for doubt in doubts(states, -1 if cpu is None else cpu):
        typer.echo(f"benchframe: {doubt}", err=True)
    kept = run_folder(save)
    files = plugin_files(plugin)
    known = loaded(files, no_plugin, plugin)
    compile_strategies([known.strategy(a), known.strategy(b)])
    found = [
        find(
            known,
            a,
            b,
            SWEEPS[name],
            rounds,
            lambda text: typer.echo(f"benchframe: {text}", err=True),
            cpu=-1 if cpu is None else cpu,
            plugins=[str(path) for path in files],
            blocked=split(no_plugin),
            caches=states[0],
        )
        for name in names
    ]
    usable = [study for study in found if study.places]
    if not usable:
        raise UsageError("noise hides every point; use more --rounds")
    table = breakeven_table(usable)
    typer.echo(shown(table, form), nl=False)
    study = saved_breakeven(usable, table, ["benchframe", *sys.argv[1:]])
    chart = study_chart(study)
    for path in draw([chart] if chart else [], output, ("svg", "png")):
        typer.echo(f"picture: {path}", err=True)
    keep_study(kept, study)


@guarded
def layout(
    strategy: Annotated[
        list[str], typer.Option("--strategy", "-s", metavar="NAME,...", autocompletion=options.strategies)
    ],
    workload: Annotated[
        str | None,
        typer.Option("--workload", "-w", metavar="NAME[:KEY=VALUE,...]", autocompletion=options.workloads),
    ] = None,
    trace: Annotated[Path | None, typer.Option("--trace", "-t", metavar="FILE", help="A recorded trace file.")] = None,
    seeds: Annotated[int, typer.Option(min=2, max=1000, metavar="N", help="Layout seeds.")] = 4,
    shifts: Annotated[str, typer.Option(metavar="PAGES,...", help="Shifts, 0 to 511 pages.")] = "0,128,256,384",
    rounds: Annotated[int, typer.Option(min=2, max=10_000, metavar="N", help="Processes.")] = 5,
    figure: Annotated[str, typer.Option(metavar="NAME", help="lookup, fault, mapping or replay.")] = "lookup",
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out.")] = None,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Store the result with this run, for its report.", autocompletion=options.runs
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", "-f", metavar="FORM", help="text, markdown, csv or latex.")] = "text",
) -> None:
    """Sweep layout seeds and the alignment of all addresses to 2 MiB, and print each one's share of the variance.

    A shift moves every address of the stream down by some pages, so that other VMAs share a page of page-table entries.

    Exit codes: 0, 1 (a measuring process failed), 2 (bad input or usage), 3 (disk, no process could be started).

    \b
    Examples:
      benchframe layout --strategy pmdcache --workload zipf:vmas=200,faults=1,events=20000
      benchframe layout -s rbtree,pmdcache -w gcc-project --figure fault --rounds 10 --save last
    """
    from benchframe.cli.options import shown
    from benchframe.cli.report import check_form
    from benchframe.engine.compile import compile_strategies
    from benchframe.engine.job import FIGURES, spare_cpu
    from benchframe.study.sweeps import layout_table, measure, saved_layout
    from benchframe.workload import trace_workload

    check_form(form)
    if form == "mail":
        raise UsageError("the layout table has no mail format; use --format text")
    if (workload is None) == (trace is None):
        raise UsageError("name one workload with --workload, or one recorded trace with --trace")
    if figure not in FIGURES:
        raise UsageError(f"--figure takes {', '.join(FIGURES)}, not {figure!r}")
    try:
        pages = [int(piece) for piece in shifts.split(",")]
    except ValueError:
        raise UsageError(f"--shifts takes whole numbers of pages, separated by commas, not {shifts!r}") from None
    if len(pages) < 2 or not all(0 <= shift < 512 for shift in pages):
        raise UsageError(f"--shifts takes two or more of 0 to 511 pages, not {shifts!r}")
    kept = run_folder(save)
    files = plugin_files(plugin)
    known = loaded(files, no_plugin, plugin)
    spec = trace_workload(trace).spec() if trace is not None else known.spec(workload or "")
    strategies = [known.strategy(name) for name in split(strategy)]
    compile_strategies(strategies)
    cpu = spare_cpu()
    found = [
        measure(
            one,
            spec.trace(0),
            spec.label,
            seeds=range(1, seeds + 1),
            shifts=pages,
            rounds=rounds,
            figure=figure,
            note=lambda text: typer.echo(f"benchframe: {text}", err=True),
            cpu=-1 if cpu is None else cpu,
            plugins=[str(path) for path in files],
            blocked=split(no_plugin),
        )
        for one in strategies
    ]
    table = layout_table(found)
    typer.echo(shown(table, form), nl=False)
    keep_study(kept, saved_layout(found, table, ["benchframe", *sys.argv[1:]]))


@guarded
def claims(
    names: Annotated[list[str] | None, typer.Argument(metavar="[CLAIM]...", help="Claims (default: all).")] = None,
    counted: Annotated[
        bool, typer.Option("--counted", help="Only hit rates, which are the same on every machine.")
    ] = False,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Only curves, which are simulated: the same on every x86-64 host.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=2, max=10_000, metavar="N", help="Number of processes per claim.")] = 6,
    form: Annotated[str, typer.Option("--format", "-f", metavar="FORM", help="text, markdown, csv or latex.")] = "text",
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out.")] = None,
) -> None:
    """Re-enact what was published about VMA lookups, and say whether direction and order are the same here.

    Hit rates are counted; ratios of times are measured in paired rounds, with 95 % intervals. A claim that needs more
    CPUs than this machine has is listed but not judged. A claim about threads runs a thread per CPU; with fewer threads
    than published only its direction is judged. Curves over many CPUs are simulated on a described machine, and told
    with what had to be assumed. docs/claims.md says which workload represents each published load.

    Exit codes: 0, 2 (bad input or usage), 3 (the environment).

    \b
    Examples:
      benchframe claims
      benchframe claims --counted
      benchframe claims --simulated
      benchframe claims maple-wash rcu-mode --rounds 20
    """
    from benchframe.cli.options import shown
    from benchframe.cli.report import check_form
    from benchframe.engine.job import spare_cpu
    from benchframe.study.claims import claims_table, measure
    from benchframe.study.published import CLAIMS, CurveClaim, HitClaim

    check_form(form)
    if form == "mail":
        raise UsageError("claims has no mail format; use --format text")
    by_name = {claim.name: claim for claim in CLAIMS}
    for name in names or ():
        if name not in by_name:
            raise UsageError(f"there is no claim {name!r}; {did_you_mean(name, by_name)}")
    chosen = [by_name[name] for name in dict.fromkeys(names or by_name)]
    if counted or simulated:
        kinds = (HitClaim,) * counted + (CurveClaim,) * simulated
        chosen = [claim for claim in chosen if isinstance(claim, kinds)]
    files = plugin_files(plugin)
    known = loaded(files, no_plugin, plugin)
    cpu = spare_cpu()
    outcomes = measure(
        known,
        chosen,
        rounds,
        lambda text: typer.echo(f"benchframe: {text}", err=True),
        cpu=-1 if cpu is None else cpu,
        plugins=[str(path) for path in files],
        blocked=split(no_plugin),
    )
    typer.echo(shown(claims_table(outcomes), form), nl=False)


class ProgramAfterDashes(TyperCommand):
    """Keeps the ``--`` before a program, which tells ``advise -- program`` from ``advise trace``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The parser takes the first ``--`` away, so there must be two."""
        at = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*args[:at], *(["--"] if at < len(args) else []), *args[at:]])


class NotRecorded(BenchframeError):
    """The recorder has said why there is no trace."""

    exit_code = FAILED


@guarded
def advise(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TRACE | -- PROGRAM [ARGUMENT]...",
            help="A trace file, the name of a shipped trace or workload, or a program to record.",
            autocompletion=options.workloads,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Keep the program's trace in this file.")
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=3, max=10_000, metavar="N", help="Number of processes; each measures every kernel.")
    ] = 6,
    form: Annotated[
        str, typer.Option("--format", "-f", metavar="FORM", help="text, markdown, csv, json or latex.")
    ] = "text",
) -> None:
    """Say which kernel's VMA lookup would help a program, what limits it, and what it could do itself.

    The trace is replayed under the lookup of every kernel preset from 2.6.32 on, in paired rounds (about half a minute;
    the first time, two more to compile). The table is followed by what takes the time, the release that changed it, how
    sure that is, the cost of a VMA, and hints that the trace's own counts support. A program after -- is recorded
    first; its output is its own.

    Exit codes: 0, 1 (the program could not be recorded, a measuring process failed), 2 (bad input or usage), 3 (disk).

    \b
    Examples:
      benchframe advise -- java -version
      benchframe advise python-science
      benchframe advise program.parquet --rounds 20 --format json
    """
    from benchframe.cli.options import shown
    from benchframe.cli.report import check_form
    from benchframe.engine.compile import compile_strategies
    from benchframe.engine.job import spare_cpu
    from benchframe.study.advice import advice_table, presets
    from benchframe.study.advice import advise as find

    check_form(form)
    if form == "mail":
        raise UsageError("advise has no mail format; use --format text")
    words = what or []
    program = words[1:] if words[:1] == ["--"] else []
    if not program and (len(words) != 1 or words == ["--"]):
        raise UsageError("give one trace, or a program after --: benchframe advise -- program argument")
    if output is not None and not program:
        raise UsageError("--output keeps the trace of a program that is recorded; a trace is already a file")
    known = loaded(plugin_files())
    names = presets(list(known.strategies))
    if not names:
        raise UsageError("no plugin defines a kernel's lookup (linux-...); benchframe list strategies shows them")
    with _trace(known, words, program, output) as (trace, label):
        compile_strategies(
            [known.strategy(name) for name in names],
            lambda name, share: typer.echo(f"benchframe: compiled {name}", err=True),
        )
        cpu = spare_cpu()
        found = find(
            known,
            trace,
            label,
            rounds,
            lambda text: typer.echo(f"benchframe: {text}", err=True),
            cpu=-1 if cpu is None else cpu,
        )
    typer.echo(shown(advice_table(found), form), nl=False)


@contextmanager
def _trace(
    known: "Registry", words: list[str], program: list[str], output: Path | None
) -> "Iterator[tuple[Trace, str]]":
    """The trace to advise on and its name: recorded, read from a file, or a workload's."""
    from benchframe.trace.trace import read_file

    if not program:
        yield _stored_trace(known, words[0])
        return
    from benchframe.record.command import run_record_command

    with tempfile.TemporaryDirectory(prefix="benchframe-advise-") as folder:
        file = output or Path(folder) / "trace.parquet"
        before = file.stat().st_mtime_ns if file.exists() else 0
        code = run_record_command(program, file)
        if not file.exists() or file.stat().st_mtime_ns == before:
            raise NotRecorded("there is no trace to advise on", hint="the lines above say why")
        if code:
            typer.echo(f"benchframe: warning: the program ended with exit code {code}", err=True)
        yield read_file(file), Path(program[0]).name


def _stored_trace(known: "Registry", name: str) -> "tuple[Trace, str]":
    from benchframe.trace.trace import read_file

    if Path(name).is_file():
        return read_file(Path(name)), Path(name).name
    if name.partition(":")[0] in known.workloads:
        return known.spec(name).trace(0), name
    hint = did_you_mean(
        name, known.workloads, "benchframe list traces shows the shipped ones; a program comes after --"
    )
    raise UsageError(f"there is no file and no workload called {name!r}; {hint}")
