"""One run beside another: ``benchframe compare``, ``gate`` for CI, ``bundle`` for others, who ``verify`` it."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import fail, guarded, loaded, plugin_files, registry, split
from benchframe.errors import USAGE, UsageError, did_you_mean

if TYPE_CHECKING:
    from benchframe.report.bundle import Bundle
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
    from benchframe.cli.options import shown
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


@guarded
def gate(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The reference run.", autocompletion=options.runs)],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The run to check.", autocompletion=options.runs)],
    max_slowdown: Annotated[
        str, typer.Option(metavar="PERCENT", help="Largest allowed increase in time: 5% or 5.")
    ] = "5%",
    cost: Annotated[
        str,
        typer.Option(
            metavar="MODE",
            help="Counted cost: auto (if both runs have it), exact (required), 1% (required, may grow by that) or off.",
        ),
    ] = "auto",
    absolute: Annotated[
        bool, typer.Option("--absolute", help="Compare ns, not ratios to each run's baseline.")
    ] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Judge runs even if they are not comparable.")] = False,
    form: Annotated[str, typer.Option("--format", "-f", help="text, markdown, csv or latex.")] = "text",
    root: Annotated[Path, typer.Option("--runs", "--output", "-o", metavar="DIR", help="Folder of the runs.")] = Path(
        "reports/runs"
    ),
) -> int:
    """Judge run NEW against run BASE: loose on time, exact on counted cost.

    \b
    Exit codes:
      0  pass: nothing is significantly slower by more than --max-slowdown, and no counted cost grew
      1  regression
      2  not comparable (another machine, model or trace), or a cell is missing or failed

    \b
    Examples:
      benchframe gate base/last new/last
      benchframe gate 20261120 last --max-slowdown 3% --cost exact
    """
    from benchframe.report.compare import COST_MODES, INVALID, compare, comparison_table, read_sides, summary
    from benchframe.report.compare import gate as judge
    from benchframe.report.table import markdown_escape, render

    check_form(form)
    limit = percent(max_slowdown)
    growth = 0.0
    if cost not in COST_MODES:
        if not cost[:1].isdigit():
            raise UsageError(f"--cost takes {', '.join(COST_MODES)} or a percentage, not {cost!r}")
        cost, growth = "exact", percent(cost, "--cost")
    a, b = read_sides(base, new, root)
    found = compare(a, b, absolute=absolute)
    if found.refused and not anyway:
        reasons = "; ".join(str(difference) for difference in found.refused)
        return fail(f"gate: not comparable: {reasons} (--anyway judges them nevertheless)", USAGE)
    outcome = judge(found, limit, cost, growth)
    word = "invalid" if outcome.code == INVALID else "regression"
    groups = [("note", outcome.notes), ("better", outcome.good), (word, outcome.bad)]
    last, table = summary(outcome, limit), render(comparison_table(found, a, b), form)
    if form == "markdown":  # the last line first: a page is read from the top
        items = "\n".join(f"- {markdown_escape(f'{kind}: {text}')}" for kind, texts in groups[::-1] for text in texts)
        typer.echo(f"**{markdown_escape(last)}**\n\n{items}\n\n{table}", nl=False)
    else:
        typer.echo(table, nl=form == "text")
        lines = [f"{kind}: {text}" for kind, texts in groups for text in texts]
        typer.echo("\n".join([*lines, last]), err=form != "text")  # only the table where a program reads it
    return outcome.code


def percent(text: str, option: str = "--max-slowdown") -> float:
    """A share from ``5%`` or ``5``.

    >>> percent("5%"), percent("2.5")
    (0.05, 0.025)
    """
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        raise UsageError(f"{text!r} is not a percentage; write 5% or 2.5%") from None
    if not 0 <= value <= 1000:
        raise UsageError(f"{option} {text} is not between 0 % and 1000 %")
    return value / 100


@guarded
def bundle(
    run: Annotated[str, typer.Argument(help="A run: folder, name or `last`.", autocompletion=options.runs)] = "last",
    target: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Ends in .tar.zst or .zip (default: RUN.tar.zst)."),
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    root: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of the runs.")] = Path("reports/runs"),
) -> None:
    """Pack a run into one file: raw values, manifest, environment, schedule, events, sources, and digests of all.

    Exit codes: 0, 2 (no such run, a run that is damaged), 3 (the disk).

    \b
    Examples:
      benchframe bundle last
      benchframe bundle 20261123 -o pmdcache.zip
    """
    from benchframe.report.bundle import pack
    from benchframe.results.folder import RunFolder, find_run

    folder = RunFolder.open(find_run(run, root))
    path = target or Path(f"{folder.path.resolve().name}.tar.zst")
    size, notes = pack(folder, path, registry(plugin))
    for note in notes:
        typer.echo(f"benchframe: {note}", err=True)
    typer.echo(f"{path}  ({size / 1024:,.0f} KiB)   benchframe verify {path}")


@guarded
def verify(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A file that `benchframe bundle` made.")],
    rounds: Annotated[
        int | None,
        typer.Option(
            min=2, max=100_000, metavar="N", help="Processes per cell (default: as in the bundle, at most 10)."
        ),
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out.")] = None,
    check_only: Annotated[bool, typer.Option("--check-only", help="Only check the digests.")] = False,
    keep: Annotated[
        Path | None,
        typer.Option("--unpack", metavar="DIR", help="Only unpack the run into this new folder."),
    ] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Verify despite another model or other versions.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the new run.")] = Path(
        "reports/runs"
    ),
) -> int:
    """Check a bundle's digests, run the same cells again on this machine, and say per cell whether they agree.

    Strategies come from what is installed, or from --plugin files: nothing in a bundle is executed.

    \b
    Exit codes:
      0  every cell agrees: ratios within noise, counts exactly
      1  a cell differs beyond noise, or its counts differ
      2  it cannot be verified: damaged, other code, other events

    \b
    Examples:
      benchframe verify pmdcache.tar.zst
      benchframe verify pmdcache.zip --rounds 20 --plugin mine.py
      benchframe verify pmdcache.zip --unpack reports/theirs
    """
    import tempfile

    from benchframe.report.bundle import unpack

    with tempfile.TemporaryDirectory(prefix="benchframe-verify-") as scratch:
        opened = unpack(path, Path(scratch))
        manifest = opened.folder.manifest
        typer.echo(
            f"{path}: all digests are correct; run {opened.name}, {manifest.created}, {len(manifest.cells)} cells"
        )
        if keep is not None:
            typer.echo(f"unpacked: {_keep(opened.folder.path, keep)}   (benchframe report {keep})")
        if check_only or keep is not None:
            return 0
        return _again(opened, rounds, plugin_files(plugin), split(no_plugin), anyway, output)


def _keep(folder: Path, target: Path) -> Path:
    """Move the unpacked run to the target folder. Raises ResultsError if the target exists or the disk refuses."""
    import shutil

    from benchframe.errors import ResultsError, disk_error

    if target.exists():
        raise ResultsError(target, "it exists already", "name a new folder with --unpack")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, target)
    except OSError as error:
        raise disk_error(target, error, "written") from None
    return target


def _again(
    opened: "Bundle", rounds: int | None, files: list[Path], blocked: list[str], anyway: bool, output: Path
) -> int:
    """Run the cells once more and compare; returns the exit code."""
    from benchframe.cli.progress import watching
    from benchframe.files import slug
    from benchframe.report.bundle import UNVERIFIED, judge_again, plan_again, prepare
    from benchframe.results.campaign import Campaign
    from benchframe.results.folder import RunFolder
    from benchframe.units import model_digest, model_name

    model, here = opened.folder.manifest.versions.get("model", "unknown"), model_digest()[:16]
    if model_name(model) != model_name(here) and not anyway:
        what = f"it was measured with another model ({model}, here {here})"
        return fail(
            f"{opened.name}: {what}; install the version of benchframe that measured it, or add --anyway", UNVERIFIED
        )
    strategies, streams = prepare(opened, loaded(files, blocked))
    manifest = plan_again(opened, strategies, streams, rounds, [str(file) for file in files], blocked)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = RunFolder.create(output / f"{stamp}-verify-{slug(opened.name, 40)}", manifest)
    traces = {stream.entry.label: stream.trace for stream in streams}
    with watching(folder) as observer:
        Campaign(folder, strategies, traces, observer, plugins=[str(file) for file in files], blocked=blocked).run()
    found, _ = judge_again(opened, RunFolder.open(folder.path))
    for difference in found.differences:
        typer.echo(f"note: {difference}")
    for line in found.lines:
        typer.echo(line)
    words = ("agrees", "differs", "not verified")
    typer.echo(f"verify: {words[found.code]} ({folder.path})")
    return found.code
