"""``benchframe explain A B``: why one is faster, in loads, lines, atomics, branches and hits."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import guarded, keep_study, loaded, plugin_files, run_folder, split
from benchframe.errors import UsageError

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.study.explain import Side


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
    once), says how many ns each count is worth. The output also says what remains unexplained, and where the model does
    not apply.

    Exit codes: 0, 1 (a measuring process failed), 2 (bad input or usage), 3 (disk, no process could be started).

    \b
    Examples:
      benchframe explain rbtree pmdcache --workload python-json
      benchframe explain rbtree maple -w uniform:vmas=20000 --rounds 20
      benchframe explain rbtree vmacache -w python-json --run last --save last
    """
    from benchframe.cli.table import check_form
    from benchframe.cli.terminal import shown
    from benchframe.engine.job import spare_cpu
    from benchframe.results.manifest import noise
    from benchframe.study.explain import explain as attribute
    from benchframe.study.model import calibration, fit
    from benchframe.study.present import explanation_table, saved_explanation

    check_form(form)
    if form == "mail":
        raise UsageError("explain has no mail format; use --format text")
    if a == b:
        raise UsageError("name two strategies: A and B are the same")
    kept = run_folder(save)
    files = plugin_files(plugin)
    known = loaded(files, no_plugin, plugin)
    for name in (a, b):
        known.strategy(name)
    if run is None:
        for reason in noise():
            _say(f"this machine is not quiet, so intervals may be wide: {reason}")
    cpu = spare_cpu()
    pin = -1 if cpu is None else cpu
    if run is not None:
        label, sides = _stored(run, a, b, workload)
    else:
        label, sides = _measured(known, a, b, workload, trace, rounds, pin, files, split(no_plugin))
    taken = calibration(known, _say, anew=calibrate, cpu=pin)
    model = fit(taken.samples, taken.alone)
    found = attribute(*sides, model)
    table = explanation_table(found, model, label)
    typer.echo(shown(table, form), nl=False)
    keep_study(kept, saved_explanation(found, label, table, ["benchframe", *sys.argv[1:]]))


def _say(text: str) -> None:
    typer.echo(f"benchframe: {text}", err=True)


def _stored(run: str, a: str, b: str, workload: str | None) -> "tuple[str, tuple[Side, Side]]":
    """Times and counts of a run's cells."""
    from benchframe.results.folder import RunFolder, find_run
    from benchframe.study.explain import Side

    folder = RunFolder.open(find_run(run))
    labels = [entry.label for entry in folder.manifest.workloads]
    if workload is None and len(labels) == 1:
        workload = labels[0]
    if workload not in labels:
        raise UsageError(f"{folder.path} has the workloads {', '.join(labels)}; choose one with --workload")
    sides = []
    for name in (a, b):
        cell = next((c for c in folder.cells() if (c.entry.strategy, c.entry.workload) == (name, workload)), None)
        if cell is None or not cell.rounds("lookup"):
            raise UsageError(f"{folder.path} has no time per lookup of {name} on {workload}")
        if not cell.state.cost:
            raise UsageError(f"{folder.path} has no counts; omit --run, or measure a run without --no-cost")
        sides.append(Side(name, cell.state.cost, cell.rounds("lookup")))
    return workload, (sides[0], sides[1])


def _measured(
    known: "Registry",
    a: str,
    b: str,
    workload: str | None,
    trace: Path | None,
    rounds: int,
    cpu: int,
    plugins: "list[Path]",
    blocked: "list[str]",
) -> "tuple[str, tuple[Side, Side]]":
    """Time both in the same processes, and count."""
    from benchframe.engine.compile import compile_strategies
    from benchframe.engine.cost import count_cost
    from benchframe.engine.probe import Point, Study
    from benchframe.study.explain import RECORDS, Side
    from benchframe.study.model import round_text
    from benchframe.workload import trace_workload

    if (workload is None) == (trace is None):
        raise UsageError("name one workload with --workload, or one recorded trace with --trace")
    spec = trace_workload(trace).spec() if trace is not None else known.spec(workload or "")
    stream = spec.trace(0)
    strategies = {name: known.strategy(name) for name in (a, b)}
    compile_strategies(list(strategies.values()))
    study = Study(strategies, [stream], [Point(a, 0), Point(b, 0)], 0.05, cpu, [str(path) for path in plugins], blocked)
    began = time.monotonic()
    found = study.measure(rounds, 1, lambda done: _say(round_text(done, rounds, time.monotonic() - began)))
    sides = []
    for number, name in enumerate((a, b)):
        ns = {r: row[number]["lookup"] for r, row in enumerate(found) if "lookup" in row[number]}
        if not ns:
            raise UsageError(
                f"{name} has no time per lookup on {spec.label}: the stream has no lookups, or noise hides them"
            )
        sides.append(Side(name, count_cost(strategies[name], stream, RECORDS).numbers, ns))
    return spec.label, (sides[0], sides[1])
