"""``benchframe report``: a Markdown report of a run, with charts beside it."""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli import complete
from benchframe.cli.common import guarded


@guarded
def report(
    run: Annotated[str, typer.Argument(help="A run: folder, name or `last`.", autocompletion=complete.runs)] = "last",
    target: Annotated[Path | None, typer.Option("--output", "-o", help="Folder; default: the run's own.")] = None,
) -> None:
    """Write a Markdown report: tables, charts, environment, and how to reproduce it.

    \b
    Examples:
      benchframe report
      benchframe report 20261123 -o reports/pmdcache
    """
    from benchframe.report import write_report
    from benchframe.results.folder import RunFolder, find_run

    folder = RunFolder.open(find_run(run))
    typer.echo(str(write_report(folder, target or folder.path)))
