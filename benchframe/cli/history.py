"""``benchframe history STRATEGY``: how a strategy's figures changed over dated runs."""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import guarded, split
from benchframe.errors import FAILED, UsageError, did_you_mean


@guarded
def history(
    strategy: Annotated[str, typer.Argument(metavar="STRATEGY", autocompletion=options.strategies)],
    workload: Annotated[
        list[str] | None,
        typer.Option("--workload", "-w", metavar="LABEL,...", help="Only these workloads, as tables call them."),
    ] = None,
    figure: Annotated[str, typer.Option(metavar="NAME", help="lookup, fault, mapping or replay.")] = "lookup",
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
    from benchframe.cli.table import check_form
    from benchframe.cli.terminal import shown
    from benchframe.engine.job import FIGURES
    from benchframe.report.history import history_table, read_histories
    from benchframe.results.folder import list_runs

    check_form(form)
    if form == "mail":
        raise UsageError("the history has no mail format; use --format text")
    if figure not in FIGURES:
        raise UsageError(f"--figure takes {', '.join(FIGURES)}, not {figure!r}; {did_you_mean(figure, FIGURES)}")
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
