"""A report as one HTML page: nothing is loaded from anywhere, and nothing but its own script may run.

Jinja2 escapes every text. The policy in the page's head lets only the script and the style run whose digests it names.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from benchframe.charts import Chart, to_svg
from benchframe.charts.spec import whole
from benchframe.files import printable
from benchframe.report import again, glance, words
from benchframe.report.grid import grid_of, latency_grid
from benchframe.report.picture import inline
from benchframe.report.run import Run
from benchframe.results.studies import SavedStudy
from benchframe.tables import cost_table, tail_table

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True)
class Figure:
    """A chart as the page shows it: ``panels`` are (title, SVG markup)."""

    chart: Chart
    panels: tuple[tuple[str, Any], ...]
    measure: str
    draw: str


@dataclass(frozen=True)
class Shown:
    """A strategy as the page shows it: ``number`` is what marks refer to, ``key`` its swatch as markup."""

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
    """A study as the page shows it: its texts, its panels (title, SVG markup), and the command that makes it again."""

    study: SavedStudy
    key: str
    panels: tuple[tuple[str, Any], ...]
    command: str
    elsewhere: str


def page(run: Run) -> str:
    """The page. O(cells + events of the pictures); 15 ms per panel. The same for the same run."""
    style, script = _asset("report.css"), _asset("report.js")
    numbers = {name: i for i, name in enumerate(run.data.strategies)}
    tails, costs = tail_table(run.cells), cost_table(run.costs)
    return _template().render(
        run=run,
        manifest=run.manifest,
        summary=words.summary(run),
        scope=words.scope(run),
        machine=words.machine(run),
        headline=glance.headline(run),
        how_sure=glance.how_sure(run),
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
        figures=[_figure(run, chart, numbers) for chart in run.charts],
        studies=[_study(run, study, chart) for study, chart in run.drawn],
        strategies=_strategies(run, numbers),
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
        style_digest=_digest(style),
        script_digest=_digest(script),
    )


def _figure(run: Run, chart: Chart, numbers: dict[str, int]) -> Figure:
    panels = []
    for panel in chart.panels:
        svg = to_svg(whole(panel, title=False))
        panels.append((panel.title, _markup(inline(svg, numbers, f"{chart.title}: {panel.title}"))))
    measure = again.part_of_run(run.manifest, chart.workloads, chart.strategies)
    return Figure(chart, tuple(panels), measure, again.draw(run.argument, chart))


def _study(run: Run, study: SavedStudy, chart: Chart | None) -> StudyShown:
    panels = []
    for panel in chart.panels if chart else ():
        heads = {text.partition(": ")[0] for text in _said(panel.spec)}
        svg = to_svg(whole(panel, title=False))
        panels.append((panel.title, _markup(inline(svg, {}, f"{study.title}: {panel.title}", heads))))
    here = run.manifest.host.get("hostname", "")
    elsewhere = study.hostname if here and study.hostname != here else ""
    return StudyShown(study, chart.name if chart else "", tuple(panels), again.line(*study.command), elsewhere)


def _said(spec: Any) -> list[str]:
    """What the marks of ``spec`` say."""
    return [record["says"] for record in spec.get("data", {}).get("values", []) if "says" in record]


def _strategies(run: Run, numbers: dict[str, int]) -> list[Shown]:
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
    """``text`` as markup: only for what this package made or cleaned itself."""
    from markupsafe import Markup

    return Markup(text)


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["breaks"] = _breaks
    return environment.from_string(_asset("report.html"))


def _breaks(text: str) -> Any:
    """``text``, escaped, that may go on in the next line after a comma or a colon."""
    from markupsafe import Markup, escape

    parts = re.split(r"(?<=[,:])", text)
    return Markup("<wbr>").join(escape(part) for part in parts)


@cache
def _asset(name: str) -> str:
    """A file of this package."""
    return (files("benchframe.report") / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """What a content security policy calls an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
