"""Write reports to a folder, in each requested format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchframe.errors import ResultsError, disk_error
from benchframe.files import write_atomic
from benchframe.report import text as again
from benchframe.report import text as glance
from benchframe.report import text as words
from benchframe.report.charts import NEEDS, PICTURES, Chart, save
from benchframe.report.page import page
from benchframe.report.run import Run
from benchframe.report.table import Table, cost_table, fallback_table, markdown_escape, render, tail_table
from benchframe.results.folder import RunFolder
from benchframe.results.studies import SavedStudy

# ----------------------------------------------------------------------------------------------------------------------
# A report as Markdown. It depends only on the run, not on where it is written.


def markdown(run: Run, pictures: Sequence[str] = ()) -> str:
    """The report; ``pictures`` are the charts that exist as ``charts/NAME.svg`` beside it. O(cells)."""
    parts = [
        f"# {markdown_escape(run.name)}",
        markdown_escape(words.summary(run)),
        "## At a glance\n\n" + _glance(run),
        *_tabulated("Latency", run.latency, again.tabulate(run.argument)),
        *_tabulated("By threads", run.scaling, again.tabulate(run.argument)),
    ]
    for chart in run.charts:
        picture = [f"![{chart.title}](charts/{chart.name}.svg)"] if chart.name in pictures else []
        parts.append(
            "\n\n".join(
                [f"## {chart.title}", markdown_escape(chart.note), *picture, _code(again.draw(run.argument, chart))]
            )
        )
    parts += [
        *(_study(study, chart, pictures) for study, chart in run.drawn),
        *_tabulated("Tails", tail_table(run.cells), again.tabulate(run.argument, "--tails")),
        *_tabulated("What was counted", cost_table(run.costs), again.tabulate(run.argument, "--cost")),
        *_tabulated("Why fast paths were given up", fallback_table(run.fallbacks), again.tabulate(run.argument)),
        "## Comparisons\n\n" + _comparisons(run),
        "## Strategies\n\n" + _strategies(run),
        "## Workloads\n\n" + _table(words.workload_heads(run), words.workloads(run)),
        "## How far to trust it\n\n" + "\n".join(f"- {markdown_escape(line)}" for line in words.trust(run)),
        "## Environment\n\n"
        + "\n".join(f"- {markdown_escape(key)}: {markdown_escape(text)}" for key, text in words.environment(run)),
        "## Do it again\n\n" + _again(run),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _code(line: str) -> str:
    """A command in a code block; a backtick in an argument cannot end it."""
    return "```\n" + line.replace("```", "` ` `").replace("\n", " ") + "\n```"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + ":--|" * len(heads)]
    lines += ["| " + " | ".join(markdown_escape(text) for text in row) + " |" for row in rows]
    return "\n".join(lines)


def _glance(run: Run) -> str:
    found = glance.findings(run) + glance.crew_findings(run)
    failed = "".join(f"- **{markdown_escape(line)}**\n" for line in glance.failures(run))
    if not found:
        kernel = markdown_escape(glance.on_this_kernel(run))
        return f"{failed}\nNothing to compare: only baselines were run.\n\n{kernel}".rstrip()
    rows = [
        (f.workload, f.baseline, f.fastest, f.why, ", ".join(f.faster), ", ".join(f.same), ", ".join(f.undecided))
        for f in found
    ]
    heads = ("workload", "baseline", "fastest", "counts", "faster than the baseline", "same", "undecided")
    notes = [*filter(None, (glance.on_this_kernel(run), glance.how_sure(run))), *glance.legend(run)]
    return "\n\n".join(
        [
            *filter(None, (failed.strip(), markdown_escape(glance.headline(run)))),
            _table(heads, rows),
            "\n".join(f"- {markdown_escape(note)}" for note in notes),
        ]
    )


def _comparisons(run: Run) -> str:
    lines = [f"- {markdown_escape(line)}" for line in words.comparisons(run)]
    if not lines:
        return "Nothing to compare: only baselines were run."
    return "\n".join(["Ratio to the baseline with its 95 % interval, paired by round.", "", *lines])


def _study(study: SavedStudy, chart: Chart | None, pictures: Sequence[str]) -> str:
    """A study stored with the run: its note, picture, table and command."""
    picture = f"![{markdown_escape(study.title)}](charts/{chart.name}.svg)" if chart and chart.name in pictures else ""
    table = Table(study.title, study.heads, study.rows, study.right, (), study.notes)
    parts = [f"## {markdown_escape(study.title)}", markdown_escape(study.note), picture, render(table, "markdown")]
    return "\n\n".join([*filter(None, parts), _code(again.line(*study.command))])


def _tabulated(title: str, table: Table, command: str) -> list[str]:
    """A section with a table and the command that prints it; none for an empty table."""
    return [f"## {title}\n\n{render(table, 'markdown')}\n{_code(command)}"] if table.rows else []


def _strategies(run: Run) -> str:
    digests = {cell.entry.strategy: cell.entry.strategy_digest for cell in run.cells}
    rows = []
    for name, digest in digests.items():
        source = run.sources.get(name)
        rows.append((name, source.summary if source else "", source.module if source else "", digest[:12]))
    return _table(("strategy", "what it is", "module", "digest"), rows)


def _again(run: Run) -> str:
    first = run.manifest.cells[0].key if run.manifest.cells else "KEY"
    return (
        _code(again.same_run(run.manifest))
        + f"\n\nThe same order of processes and the same layouts come from seed {run.manifest.seed}. "
        + f"All values are in `cells/`: `python -m pyperf stats cells/{first}.json`, or "
        + f'`benchframe.load("{run.argument.replace("`", "")}")` as a pandas data frame.'
    )


# ----------------------------------------------------------------------------------------------------------------------
# The files of a report: which there are, and writing them.

FILES = {
    "html": "report.html",
    "markdown": "report.md",
    "mail": "mail.txt",
    "csv": "table.csv",
    "latex": "table.tex",
}
THREADS = {"csv": "threads.csv", "latex": "threads.tex"}
"""The table by threads, of a run with threads; if the run has nothing else, there is no other table."""
FORMS = (*FILES, *PICTURES)
"""The formats of ``benchframe report --format``."""


def write_report(
    folder: RunFolder, target: Path, forms: Sequence[str] = FORMS, charts: Sequence[str] = ()
) -> list[Path]:
    """Write the report of ``folder`` into ``target`` in ``forms``, with ``charts`` (all, if none is named).

    Returns the paths, the page or the first text first. Raises ResultsError if the run is damaged, a format or a chart
    does not exist, or the disk refuses.
    """
    unknown = [form for form in forms if form not in FORMS]
    if unknown:
        raise ResultsError("--format", f"no format is called {unknown[0]!r}", f"there are {', '.join(FORMS)}")
    run = Run.read(folder, tuple(charts))
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(target, error, "written") from None
    written = []
    for form, name in FILES.items():
        if form in forms and (run.data.rows or form not in THREADS):
            write_atomic(target / name, text_of(run, form, forms).encode())
            written.append(target / name)
        if form in forms and form in THREADS and run.scaling.rows:
            write_atomic(target / THREADS[form], render(run.scaling, form).encode())
            written.append(target / THREADS[form])
    if missing := [name for name in charts if name not in {chart.name for chart in run.pictures}]:
        what = f"the run has nothing for the chart {missing[0]}: {NEEDS[missing[0]]}"
        raise ResultsError(folder.path, what, "measure that, or leave the chart out")
    pictures = [form for form in PICTURES if form in forms]
    if pictures:
        written += save(run.pictures, target / "charts", pictures)
    return written


def text_of(run: Run, form: str, forms: Sequence[str] = ()) -> str:
    """The report as ``html`` or ``markdown``, or its table as ``mail``, ``csv`` or ``latex``."""
    if form == "html":
        return page(run)
    if form == "markdown":
        return markdown(run, [chart.name for chart in run.pictures] if "svg" in forms else [])
    return run.mail if form == "mail" else render(run.latency, form)
