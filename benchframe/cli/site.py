"""``benchframe site``: one page over many runs and bundles."""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli.options import guarded


@guarded
def site(
    places: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs and bundles, or these.")],
    target: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The page [default: DIR/index.html].")
    ] = None,
    title: Annotated[str, typer.Option(metavar="TEXT", help="The page's title.")] = "VMA lookup: results",
) -> None:
    """Write one static page over any number of runs and bundles: every figure, with filters by strategy, workload,
    figure, machine, kernel and date, and sorting by each column.

    The page loads nothing and opens from disk. A bundle that lies beside it is linked.

    Exit codes: 0, 2 (nothing to show), 3 (the disk).

    \b
    Examples:
      benchframe site reports/runs
      benchframe site reports/runs theirs/*.tar.zst -o results.html --title "Three machines"
    """
    from benchframe.report.site import write_site

    page = target or (places[0] if places[0].is_dir() else places[0].parent) / "index.html"
    rows, runs, problems = write_site(places, page, title)
    for problem in problems:
        typer.echo(f"benchframe: left out: {problem}", err=True)
    typer.echo(f"{page}: {rows:,} figures of {runs:,} runs")
