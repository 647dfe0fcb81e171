"""``benchframe layout``: how much of a time depends on the layout: seeds, alignment to 2 MiB, the process."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import guarded, keep_study, loaded, plugin_files, run_folder, split
from benchframe.errors import UsageError


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
    from benchframe.cli.table import check_form
    from benchframe.cli.terminal import shown
    from benchframe.engine.compile import compile_strategies
    from benchframe.engine.job import FIGURES, spare_cpu
    from benchframe.study.layout import measure
    from benchframe.study.present import layout_table, saved_layout
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
