"""Commands that show a run or many: ``benchframe report``, ``table``, ``history`` and ``site``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import guarded, split
from benchframe.errors import FAILED, UsageError, did_you_mean

if TYPE_CHECKING:
    from benchframe.report.table import Table
    from benchframe.results.folder import RunFolder


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


FORMS = ("text", "mail", "markdown", "csv", "json", "latex")


def check_form(form: str) -> None:
    """Raise UsageError for a format that does not exist, naming the closest one."""
    if form not in FORMS:
        raise UsageError(f"no format is called {form!r}; {did_you_mean(form, FORMS)}")


def print_cost(folder: "RunFolder", form: str) -> None:
    """Print a run's counted cost. Raises UsageError if the run has none."""
    from benchframe.cli.options import shown
    from benchframe.report.details import cost_table

    counted = [(cell.entry.workload, cell.entry.strategy, cell.state.cost) for cell in folder.cells()]
    if not any(cost for _, _, cost in counted):
        raise UsageError(f"{folder.path} has no counts; run without --no-cost, or use benchframe cost")
    typer.echo(shown(cost_table(counted), form), nl=False)


def print_table(folder: "RunFolder", form: str, tails: bool = False) -> None:
    """Print the tables of a run: of cells with threads, of those without."""
    from benchframe.cli.options import shown
    from benchframe.report.details import tail_table
    from benchframe.report.mail import mail
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
    from benchframe.report.details import fallback_table, fell_back, scaling_table
    from benchframe.report.table import latency_table
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


@guarded
def history(
    strategy: Annotated[str, typer.Argument(metavar="STRATEGY", autocompletion=options.strategies)],
    workload: Annotated[
        list[str] | None,
        typer.Option("--workload", "-w", metavar="LABEL,...", help="Only these workloads, as tables call them."),
    ] = None,
    figure: Annotated[str, typer.Option(metavar="NAME", help="lookup, cold, fault, mapping or replay.")] = "lookup",
    absolute: Annotated[bool, typer.Option("--absolute", help="ns, not ratios to each run's baseline.")] = False,
    within: Annotated[
        float, typer.Option(min=0.1, max=50, metavar="PERCENT", help="The smallest step of interest.")
    ] = 2.0,
    slower: Annotated[
        bool, typer.Option("--fail-slower", help="Exit code 1 if the newest step of a workload is to slower.")
    ] = False,
    root: Annotated[Path, typer.Option("--runs", "--output", "-o", metavar="DIR", help="Folder of the runs.")] = Path(
        "reports/runs"
    ),
    form: Annotated[str, typer.Option("--format", "-f", help="text, markdown, csv, json or latex.")] = "text",
) -> int:
    """Print a strategy's levels over all dated runs of a folder, and the steps between them.

    Only runs of one machine, workload, baseline and event stream are compared. Beside each step stands what changed
    there: the strategy's text, the model, a version.

    Exit codes: 0, 1 (--fail-slower, and there is such a step), 2 (bad input or usage, or no run has the strategy).

    \b
    Examples:
      benchframe history pmdcache
      benchframe history pmdcache --figure fault --within 5
      benchframe history mine --runs ci/runs --fail-slower --format json
    """
    from benchframe.cli.options import shown
    from benchframe.engine.job import COLD, FIGURES
    from benchframe.report.runs import history_table, read_histories
    from benchframe.results.folder import list_runs

    check_form(form)
    if form == "mail":
        raise UsageError("the history has no mail format; use --format text")
    if figure not in (known := (*FIGURES, COLD)):
        raise UsageError(f"--figure takes {', '.join(known)}, not {figure!r}; {did_you_mean(figure, known)}")
    found, problems = read_histories(
        list_runs(root), strategy, figure, absolute=absolute, workloads=split(workload), within=within / 100
    )
    for problem in problems:
        typer.echo(f"benchframe: left out: {problem}", err=True)
    if not found:
        hint = "" if absolute else "; a baseline has no ratio: --absolute gives its ns"
        raise UsageError(f"no run in {root} has ns per {figure} of {strategy} in two processes or more{hint}")
    table = history_table(found, strategy, figure, absolute=absolute, within=within / 100)
    typer.echo(shown(table, form), nl=False)
    worse = [one for one in found if len(one.levels) > 1 and one.levels[-1].mean > one.levels[-2].mean]
    return FAILED if slower and worse else 0


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

    The page loads nothing and opens from disk. A bundle that lies beside it, or in a folder there, is linked.

    Exit codes: 0, 2 (nothing to show), 3 (the disk).

    \b
    Examples:
      benchframe site reports/runs
      benchframe site reports/runs theirs/*.tar.zst -o results.html --title "Three machines"
    """
    from benchframe.report.runs import write_site

    page = target or (places[0] if places[0].is_dir() else places[0].parent) / "index.html"
    rows, runs, problems = write_site(places, page, title)
    for problem in problems:
        typer.echo(f"benchframe: left out: {problem}", err=True)
    typer.echo(f"{page}: {rows:,} figures of {runs:,} runs")
