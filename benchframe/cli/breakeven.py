"""``benchframe breakeven A B``: the parameter value at which B begins to beat A, as a table and a picture."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import guarded, keep_study, loaded, plugin_files, run_folder, split
from benchframe.errors import UsageError, did_you_mean


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
    from benchframe.cli.table import check_form
    from benchframe.cli.terminal import shown
    from benchframe.engine.caches import doubts, parse
    from benchframe.engine.compile import compile_strategies
    from benchframe.engine.job import spare_cpu
    from benchframe.report.charts.spec import save as draw
    from benchframe.report.charts.study import study_chart
    from benchframe.study.breakeven import SWEEPS
    from benchframe.study.breakeven import breakeven as find
    from benchframe.study.present import breakeven_table, saved_breakeven

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
