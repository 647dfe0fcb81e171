"""``benchframe report``: a run as one self-contained page, Markdown, mail text, tables and pictures."""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import guarded, split


@guarded
def report(
    run: Annotated[str, typer.Argument(help="A run: folder, name or `last`.", autocompletion=options.runs)] = "last",
    target: Annotated[Path | None, typer.Option("--output", "-o", help="Folder; default: the run's own.")] = None,
    form: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORM,...",
            help="html, markdown, mail, csv, latex, svg, png, pdf; default: all.",
        ),
    ] = None,
    chart: Annotated[
        list[str] | None, typer.Option("--chart", "-c", metavar="NAME,...", help="Only these charts.")
    ] = None,
    root: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of the runs.")] = Path("reports/runs"),
) -> None:
    """Write a report: report.html, report.md, mail.txt, table.csv, table.tex, and charts/.

    report.html is one file: it loads nothing, and opens from disk in any browser. Charts: heat, ratios, lookup, sweep,
    threads, distribution, pareto, cost; those that the run has nothing for are left out. Exit codes: 0, 2 (no such run,
    format or chart), 3 (the disk).

    \b
    Examples:
      benchframe report
      benchframe report 20261123 -o reports/pmdcache
      benchframe report last --chart sweep --format svg,pdf
    """
    from benchframe.report import FORMS, write_report
    from benchframe.results.folder import RunFolder, find_run

    folder = RunFolder.open(find_run(run, root))
    written = write_report(folder, target or folder.path, split(form) or FORMS, split(chart))
    for path in written[:1] if not form else written:
        typer.echo(str(path))
