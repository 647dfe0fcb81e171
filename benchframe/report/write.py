"""Write reports: one HTML page with its grid of ratios and its pictures, and files in each requested format."""

from __future__ import annotations

import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchframe.errors import ResultsError, disk_error
from benchframe.files import printable, write_atomic
from benchframe.report import text as again
from benchframe.report import text as glance
from benchframe.report import text as words
from benchframe.report.charts import NEEDS, PICTURES, Chart, save, to_svg
from benchframe.report.charts.spec import whole
from benchframe.report.details import cost_table, fallback_table, tail_table
from benchframe.report.table import Table, after, host_summary, markdown_escape, mean_sd, render, spread, verdict_text
from benchframe.report.text import Run
from benchframe.results.figures import FIGURES, Figure, Row
from benchframe.results.folder import RunFolder
from benchframe.results.studies import HostWorkload, SavedStudy
from benchframe.stats.verdict import WORDS

if TYPE_CHECKING:
    from jinja2 import Environment, Template


# ----------------------------------------------------------------------------------------------------------------------
# An SVG picture as part of a page: only known elements and attributes pass, and its marks have tooltips.
#
# vl-convert escapes the text of names. What arrives here is parsed and written anew from a list of what is allowed all
# the same, so that a page's safety does not rest on that.

_ELEMENTS = {"svg", "g", "path", "rect", "line", "text", "tspan", "circle"}
_ATTRIBUTES = {
    *("d", "transform", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "viewBox", "dx", "dy", "r", "cx", "cy"),
    *("fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "fill-opacity", "stroke-opacity"),
    *("text-anchor", "font-size", "font-weight"),
}
_DEFAULTS = {("opacity", "1"), ("fill-opacity", "1"), ("stroke-opacity", "1")}
_NUMBER = re.compile(r"-?\d+\.\d{2,}")
_SAFE = re.compile(r"(?!.*url)[\w\s.,#%()+-]*", re.IGNORECASE | re.DOTALL)


def inline(svg: str, strategies: Mapping[str, int], title: str, others: Collection[str] = ()) -> str:
    """``svg`` for a page; ``title`` is its name for screen readers. O(size).

    A mark whose text begins with a name of ``strategies`` gets that strategy's number as ``data-s``; if the text
    continues, it also gets the class ``m`` and its text as label: these marks show a tooltip. So do marks whose text
    begins with one of ``others``, which belong to no strategy. Raises ValueError if ``svg`` is not an SVG document.
    """
    try:
        root = ET.fromstring(svg)
    except ET.ParseError as error:
        raise ValueError(f"not an SVG document: {error}") from None
    clean = _element(root, strategies, others)
    if clean is None or clean.tag != "svg":
        raise ValueError("not an SVG document: the root is no svg element")
    clean.attrib = {"role": "group", "aria-label": title, **clean.attrib}
    return ET.tostring(clean, encoding="unicode")


def _element(node: ET.Element, strategies: Mapping[str, int], others: Collection[str]) -> ET.Element | None:
    tag = node.tag.rpartition("}")[2]
    if tag not in _ELEMENTS or node.get("display") == "none":
        return None
    clean = ET.Element(tag)
    for name, value in node.attrib.items():
        if name in _ATTRIBUTES and (name, value) not in _DEFAULTS and _SAFE.fullmatch(value):
            clean.set(name, value if "opacity" in name else _NUMBER.sub(_shorter, value))
    if tag != "svg":
        _say(node, clean, strategies, others)
    if tag in ("text", "tspan"):
        clean.text = node.text
    for child in node:
        inner = _element(child, strategies, others)
        if inner is not None:
            clean.append(inner)
            if tag == "text":
                inner.tail = child.tail
    if tag == "g" and len(clean) == 0:
        return None
    if tag == "path" and node.get("class") in ("background", "foreground") and "fill" not in clean.attrib:
        return None
    return clean


def _say(node: ET.Element, clean: ET.Element, strategies: Mapping[str, int], others: Collection[str]) -> None:
    """Move a mark's description to where pages and screen readers look for it."""
    label = node.get("aria-label", "")
    if node.get("aria-hidden") == "true":
        clean.set("aria-hidden", "true")
    if not label or node.tag.endswith("}g"):
        return
    if label in strategies:
        clean.set("data-s", str(strategies[label]))
        clean.set("aria-hidden", "true")
        return
    ends = [i for i in range(len(label)) if label.startswith(": ", i)]
    name = next((label[:i] for i in ends if label[:i] in strategies or label[:i] in others), None)
    if name is not None:
        if name in strategies:
            clean.set("data-s", str(strategies[name]))
        clean.set("class", "m")
        clean.set("role", "img")
        clean.set("aria-label", label)


def _shorter(match: re.Match[str]) -> str:
    """Round a coordinate: less than a tenth of a pixel is not visible."""
    text = f"{float(match[0]):.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


# ----------------------------------------------------------------------------------------------------------------------
# Tables of a page: cells with a text, a sort value, and a class; from the same rows as all other tables.


@dataclass(frozen=True)
class Item:
    """One cell of a table. ``value`` sorts; None sorts last in both directions. ``kind`` is a CSS class."""

    text: str
    value: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class Grid:
    """Headings (text, whether numbers) and rows. The first column holds workloads, the second strategies."""

    heads: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Item, ...], ...]


def latency_grid(run: Run) -> Grid:
    """ns and ratio of each figure, hit rate, invalidations, processes, state. O(cells)."""
    rows = run.data.rows
    present = [name for name in FIGURES if any(name in row.figures for row in rows)]
    heads: list[tuple[str, bool]] = [("workload", False), ("strategy", False)]
    for name in present:
        heads += [(FIGURES[name], True), ("ratio [95 %]", False)]
    heads.insert(_beside(present), ("hit rate", True))
    heads += [("invalidations", True), ("n", True), ("state", False)]
    lines = []
    for i, row in enumerate(rows):
        lines.append(tuple(_latency_row(row, present, run.data.cached)))
        if run.host and (performed := after(rows, i, run.host)):
            lines.append(tuple(_host_row(performed, run.host.name, present)))
    return Grid(tuple(heads), tuple(lines))


def _beside(present: list[str]) -> int:
    """The column of the hit rate: beside the time per lookup, where it is visible without scrolling."""
    return 4 if "lookup" in present else 2 + 2 * len(present)


def _latency_row(row: Row, present: list[str], cached: Collection[str]) -> list[Item]:
    cell = row.cell
    items = [Item(cell.entry.workload), Item(cell.entry.strategy, kind="base" if cell.baseline else "")]
    for name in present:
        figure = row.figures.get(name)
        items += [_time(figure), _ratio(figure)]
    counts = cell.state.counts
    rate, gone = counts.get("hit_rate"), counts.get("invalidations")
    if cell.entry.strategy not in cached:
        rate = gone = None
    items.insert(_beside(present), Item("" if rate is None else f"{100 * rate:.1f} %", rate))
    items.append(Item("" if gone is None else f"{gone:,.0f}", gone))
    processes = max((figure.summary.n for figure in row.figures.values()), default=0)
    items.append(Item(str(processes), processes))
    items.append(Item(row.shown, kind="" if cell.state.state == "ok" else "bad"))
    return items


def _host_row(performed: HostWorkload, name: str, present: list[str]) -> list[Item]:
    """The running kernel's figures, after those of the strategies."""
    items = [Item(performed.workload), Item(name)]
    for summary in (host_summary(performed, figure) for figure in present):
        items += [Item(mean_sd(summary), summary.mean) if summary else Item(""), Item("")]
    items.insert(_beside(present), Item(""))
    processes = max(len(performed.fault), len(performed.mapping))
    return [*items, Item(""), Item(str(processes), processes), Item("")]


def _time(figure: Figure | None) -> Item:
    return Item(spread(figure), figure.summary.mean if figure else None)


def _ratio(figure: Figure | None) -> Item:
    if figure is None or figure.ratio is None:
        return Item("")
    word = figure.verdict.word if figure.verdict else "undecided"
    return Item(verdict_text(figure), figure.ratio.value, word)


def grid_of(table: Table) -> Grid:
    """A grid of any table whose first two columns are workload and strategy; an empty strategy is the one above."""
    rows = []
    strategy = ""
    for texts in table.rows:
        strategy = texts[1] or strategy
        texts = (texts[0], strategy, *texts[2:])
        rows.append(
            tuple(Item(t, _number(t) if right else None, _kind(t)) for t, right in zip(texts, table.right, strict=True))
        )
    return Grid(tuple(zip(table.heads, table.right, strict=True)), tuple(rows))


def _kind(text: str) -> str:
    """The class for a ratio with its verdict: the verdict.

    >>> _kind("0.9 [0.8, 0.95] faster"), _kind("faster"), _kind("12 of 13")
    ('faster', '', '')
    """
    word = text.rpartition("] ")[2]
    return word if word != text and word in WORDS else ""


_LEADING = re.compile(r"(\d[\d,]*\.?\d*)(?: ?([kM])\b)?")
_UNITS = {"k": 1e3, "M": 1e6, None: 1.0, "": 1.0}


def _number(text: str) -> float | None:
    """The first number in a text of the tables, with its unit applied.

    >>> _number("1,234"), _number("41.2 M"), _number("1.83 [1.80, 1.85]"), _number("2+1*"), _number("-")
    (1234.0, 41200000.0, 1.83, 2.0, None)
    """
    match = _LEADING.match(text)
    return float(match[1].replace(",", "")) * _UNITS[match[2]] if match else None


# ----------------------------------------------------------------------------------------------------------------------
# A report as one HTML page: nothing is loaded from anywhere, and nothing but its own script may run.
#
# Jinja2 escapes every text. The policy in the page's head lets only the script and the style run whose digests it
# names.


@dataclass(frozen=True)
class PageFigure:
    """A chart on the page: ``panels`` are (title, SVG markup)."""

    chart: Chart
    panels: tuple[tuple[str, Any], ...]
    measure: str
    draw: str


@dataclass(frozen=True)
class Shown:
    """A strategy on the page: ``number`` is what marks refer to, ``key`` its swatch as markup."""

    number: int
    name: str
    key: Any
    digest: str
    summary: str
    module: str
    text: str
    text_digest: str


@dataclass(frozen=True)
class StudyShown:
    """A study on the page: its texts, its panels (title, SVG markup), and the command that repeats it."""

    study: SavedStudy
    key: str
    panels: tuple[tuple[str, Any], ...]
    command: str
    elsewhere: str


def page(run: Run) -> str:
    """The page. O(cells + events of the pictures); 50 to 100 ms per panel. The same run always gives the same page."""
    style, script = asset("report.css"), asset("report.js")
    numbers = {name: i for i, name in enumerate(run.data.strategies)}
    tails, costs, fallbacks = tail_table(run.cells), cost_table(run.costs), fallback_table(run.fallbacks)
    return _template().render(
        run=run,
        manifest=run.manifest,
        summary=words.summary(run),
        scope=words.scope(run),
        machine=words.machine(run),
        headline=glance.headline(run),
        how_sure=glance.how_sure(run),
        on_this_kernel=glance.on_this_kernel(run),
        legend=glance.legend(run),
        findings=glance.findings(run),
        crew_findings=glance.crew_findings(run),
        failures=glance.failures(run),
        failed=sum(cell.state.state != "ok" for cell in run.cells),
        comparisons=list(words.comparisons(run)),
        latency=latency_grid(run),
        latency_notes=run.latency.notes,
        tails=grid_of(tails),
        tail_notes=tails.notes,
        scaling=grid_of(run.scaling),
        scaling_notes=run.scaling.notes,
        costs=grid_of(costs),
        cost_notes=costs.notes,
        fallbacks=grid_of(fallbacks),
        fallback_notes=fallbacks.notes,
        figures=[_figure(run, chart, numbers) for chart in run.charts],
        studies=[_study_shown(run, study, chart) for study, chart in run.drawn],
        strategies=_strategies_shown(run, numbers),
        workload_heads=words.workload_heads(run),
        workloads=words.workloads(run),
        trust=words.trust(run),
        environment=words.environment(run),
        mail=run.mail,
        same=again.same_run(run.manifest),
        tabulate=again.tabulate,
        frame=again.frame,
        line=again.line,
        style=_markup(style),
        script=_markup(script),
        style_digest=content_hash(style),
        script_digest=content_hash(script),
    )


def _figure(run: Run, chart: Chart, numbers: dict[str, int]) -> PageFigure:
    panels = []
    for panel in chart.panels:
        svg = to_svg(whole(panel, title=False))
        panels.append((panel.title, _markup(inline(svg, numbers, f"{chart.title}: {panel.title}"))))
    measure = again.part_of_run(run.manifest, chart.workloads, chart.strategies)
    return PageFigure(chart, tuple(panels), measure, again.draw(run.argument, chart))


def _study_shown(run: Run, study: SavedStudy, chart: Chart | None) -> StudyShown:
    panels = []
    for panel in chart.panels if chart else ():
        heads = {text.partition(": ")[0] for text in _said(panel.spec)}
        svg = to_svg(whole(panel, title=False))
        panels.append((panel.title, _markup(inline(svg, {}, f"{study.title}: {panel.title}", heads))))
    here = run.manifest.host.get("hostname", "")
    # What is simulated is the same on every host.
    elsewhere = study.hostname if here and study.hostname != here and study.kind != "simulate" else ""
    return StudyShown(study, chart.name if chart else "", tuple(panels), again.line(*study.command), elsewhere)


def _said(spec: Any) -> list[str]:
    """The texts of the marks of ``spec``."""
    return [record["says"] for record in spec.get("data", {}).get("values", []) if "says" in record]


def _strategies_shown(run: Run, numbers: dict[str, int]) -> list[Shown]:
    digests = {cell.entry.strategy: cell.entry.strategy_digest for cell in run.cells}
    shown = []
    for name, number in numbers.items():
        source = run.sources.get(name)
        summary, module, text, digest = (
            (source.summary, source.module, printable(source.text), source.digest) if source else ("", "", "", "")
        )
        key = _key(run.data.look.colours[name], run.data.look.shapes[name])
        shown.append(Shown(number, name, key, digests[name], summary, module, text, digest))
    return shown


_KEYS = {
    "circle": '<circle cx="6" cy="6" r="4.5"/>',
    "square": '<rect x="2" y="2" width="8" height="8"/>',
    "triangle-up": '<path d="M6 1.5 11 10H1Z"/>',
    "triangle-down": '<path d="M6 10.5 11 2H1Z"/>',
    "triangle-right": '<path d="M10.5 6 2 11V1Z"/>',
    "diamond": '<path d="M6 .8 10.4 6 6 11.2 1.6 6Z"/>',
    "cross": '<path d="M4.3 1h3.4v3.3H11v3.4H7.7V11H4.3V7.7H1V4.3h3.3Z"/>',
}


def _key(colour: str, shape: str) -> Any:
    """The mark of a strategy, for a list of names."""
    return _markup(f'<svg class="key" viewBox="0 0 12 12" fill="{colour}" aria-hidden="true">{_KEYS[shape]}</svg>')


def _markup(text: str) -> Any:
    """``text`` as markup: only for text that this package made or sanitised itself."""
    from markupsafe import Markup

    return Markup(text)


def environment() -> Environment:
    """Templates in which every text is escaped, and a missing name is an error."""
    from jinja2 import Environment, StrictUndefined

    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )


@cache
def _template() -> Template:
    templates = environment()
    templates.filters["breaks"] = _breaks
    return templates.from_string(asset("report.html"))


def _breaks(text: str) -> Any:
    """``text``, escaped, with line breaks allowed after commas and colons."""
    from markupsafe import Markup, escape

    parts = re.split(r"(?<=[,:])", text)
    return Markup("<wbr>").join(escape(part) for part in parts)


@cache
def asset(name: str) -> str:
    """A file of this package."""
    return (files("benchframe.report") / "assets" / name).read_text(encoding="utf-8")


def content_hash(text: str) -> str:
    """The digest by which a content security policy allows an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


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
