"""``benchframe table``: a run's latency table in the requested format."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import guarded
from benchframe.errors import FAILED, UsageError, did_you_mean

if TYPE_CHECKING:
    from benchframe.report.table import Table
    from benchframe.results.folder import RunFolder

FORMS = ("text", "mail", "markdown", "csv", "json", "latex")


def check_form(form: str) -> None:
    """Raise UsageError for a format that does not exist, naming the closest one."""
    if form not in FORMS:
        raise UsageError(f"no format is called {form!r}; {did_you_mean(form, FORMS)}")


def print_cost(folder: "RunFolder", form: str) -> None:
    """Print a run's counted cost. Raises UsageError if the run has none."""
    from benchframe.cli.terminal import shown
    from benchframe.report.table import cost_table

    counted = [(cell.entry.workload, cell.entry.strategy, cell.state.cost) for cell in folder.cells()]
    if not any(cost for _, _, cost in counted):
        raise UsageError(f"{folder.path} has no counts; run without --no-cost, or use benchframe cost")
    typer.echo(shown(cost_table(counted), form), nl=False)


def print_table(folder: "RunFolder", form: str, tails: bool = False) -> None:
    """Print the tables of a run: of cells with threads, of those without."""
    from benchframe.cli.terminal import shown
    from benchframe.report.mail import mail
    from benchframe.report.table import tail_table
    from benchframe.results.studies import read_host

    cells = folder.cells()
    if tails:
        typer.echo(shown(tail_table(cells), form), nl=False)
        return
    if form == "mail":
        typer.echo(mail(cells, manifest=folder.manifest, host=read_host(folder.path)), nl=False)
        return
    texts = [shown(table, form) for table in tables(folder, form)]
    if form == "json":  # one document, whatever the number of tables
        texts = [f"[{', '.join(text.rstrip() for text in texts)}]\n"]
    typer.echo("\n".join(texts), nl=False)


def tables(folder: "RunFolder", form: str = "text") -> "list[Table]":
    """The tables of a measured run: of its cells with threads, if it has such, of those without, and of fallbacks, if
    there were any; as csv and json these are members of the other records."""
    from benchframe.report.scaling import scaling_table
    from benchframe.report.table import fallback_table, fell_back, latency_table
    from benchframe.results.figures import alone, threaded
    from benchframe.results.studies import read_host

    single, crews = alone(cells := folder.cells()), threaded(cells)
    found = []
    if crews:  # a threaded cell's time per operation is an inverse throughput, so it is not a row of the other table
        found.append(scaling_table(crews, () if single else folder.manifest.notes))
    if single or not crews:
        found.append(latency_table(single, folder.manifest.notes, host=read_host(folder.path)))
    if form not in ("csv", "json") and (given_up := fell_back(cells)):
        found.append(fallback_table(given_up))
    return found


@guarded
def table(
    run: Annotated[str, typer.Argument(help="A run: folder, name or `last`.", autocompletion=options.runs)] = "last",
    form: Annotated[str, typer.Option("--format", "-f", help="text, mail, markdown, csv, json or latex.")] = "text",
    mail: Annotated[bool, typer.Option("--mail", help="ASCII in 72 columns, for a mail.")] = False,
    tails: Annotated[bool, typer.Option("--tails", help="Percentiles per operation, by hit and miss.")] = False,
    cost: Annotated[bool, typer.Option("--cost", help="Loads, lines, atomics and branches per operation.")] = False,
    root: Annotated[Path, typer.Option("--runs", "--output", "-o", metavar="DIR", help="Folder of the runs.")] = Path(
        "reports/runs"
    ),
) -> int:
    """Print a run's latency table.

    Exit codes: 0, 1 (a cell in it failed), 2 (no such run or format).

    \b
    Examples:
      benchframe table
      benchframe table last --mail
      benchframe table 20261123 --format csv > run.csv
      benchframe table last --tails
      benchframe table last --cost
    """
    from benchframe.results.folder import RunFolder, find_run

    check_form(form)
    form = "mail" if mail else form
    if form == "mail" and (tails or cost):
        raise UsageError(f"--{'tails' if tails else 'cost'} has no mail format; use --format text")
    folder = RunFolder.open(find_run(run, root))
    if cost:
        print_cost(folder, form)
    else:
        print_table(folder, form, tails)
    return FAILED if any(cell.state.failed for cell in folder.cells()) else 0
