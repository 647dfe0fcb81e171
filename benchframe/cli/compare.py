"""``benchframe compare A B``: two runs, or two strategies of a run, with verdicts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import fail, guarded
from benchframe.errors import USAGE, UsageError, did_you_mean

if TYPE_CHECKING:
    from benchframe.report.compare import Comparison

FORMS = ("text", "markdown", "csv", "latex")


@guarded
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="RUN or RUN:STRATEGY.", autocompletion=options.runs)],
    second: Annotated[
        str, typer.Argument(metavar="B", help="RUN, RUN:STRATEGY or :STRATEGY.", autocompletion=options.runs)
    ],
    within: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=50, metavar="PERCENT", help="Smallest effect of interest; smaller ones count as the same."
        ),
    ] = None,
    absolute: Annotated[
        bool, typer.Option("--absolute", help="Compare ns of two runs, not ratios to each run's baseline.")
    ] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare runs even if they are not comparable.")] = False,
    form: Annotated[str, typer.Option("--format", "-f", help="text, markdown, csv or latex.")] = "text",
    root: Annotated[Path, typer.Option("--runs", "--output", "-o", metavar="DIR", help="Folder of the runs.")] = Path(
        "reports/runs"
    ),
) -> int:
    """Compare two runs, or two strategies within one: ratio B / A, its 95 % interval, and a verdict for each figure.

    A run is a folder, a name, the beginning of one, or `last` (DIR/last: the newest below DIR). Runs made on another
    machine, with another Python or model, or on other events are refused.

    Exit codes: 0, 2 (no such run, or they cannot be compared).

    \b
    Examples:
      benchframe compare last:rbtree :pmdcache
      benchframe compare 20261123-10 20261123-11
      benchframe compare base/last new/last --format markdown
    """
    from benchframe.cli.terminal import shown
    from benchframe.report.compare import compare as compare_sides
    from benchframe.report.compare import comparison_table, read_sides

    check_form(form)
    a, b = read_sides(first, second, root)
    found = compare_sides(a, b, within / 100 if within else None, absolute=absolute)
    if found.refused and not anyway:
        return refuse(found)
    if not found.lines:
        raise UsageError("; ".join(("nothing can be compared", *found.missing, *found.added)))
    typer.echo(shown(comparison_table(found, a, b), form), nl=False)
    return 0


def check_form(form: str) -> None:
    """Raise UsageError for a format that does not exist."""
    if form not in FORMS:
        raise UsageError(f"no format is called {form!r}; {did_you_mean(form, FORMS)}")


def refuse(found: "Comparison") -> int:
    """Print the differences that refuse a comparison; returns the exit code."""
    reasons = "; ".join(str(difference) for difference in found.refused)
    return fail(f"not comparable: {reasons} (--anyway compares them nevertheless)", USAGE)
