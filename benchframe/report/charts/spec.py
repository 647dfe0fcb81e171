"""Charts as Vega-Lite specifications: data, labels, and export to SVG, PNG and PDF."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchframe.engine.job import COLD
from benchframe.errors import disk_error
from benchframe.files import slug as plain
from benchframe.report.table import ns, ratio_text
from benchframe.results.figures import FIGURES, Figure, Row, alone, caching, rows_of, threaded
from benchframe.results.folder import Cell

# ----------------------------------------------------------------------------------------------------------------------
# Placing the labels of marks, so that they cover neither each other nor the marks.

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""
CHARACTER, LINE = 6.2, 12.0
"""Width of a character and height of a line at 10 px, with room for fonts that are wider than Arial."""


def place(
    wanted: Sequence[tuple[float, float, str]],
    marks: Sequence[tuple[float, float, float]],
    width: float,
    height: float,
    lines: Sequence[Box] = (),
) -> list[tuple[float, float] | None]:
    """Left end and middle (pixels) of each label at or near its mark (x, y, text); None where there is no room.

    ``marks`` are (x, y, radius) of everything drawn, ``lines`` boxes of everything else; a label may extend beyond the
    right edge, where a picture grows. Greedy: earlier labels choose first among right, left, above and below, near and
    one line further away. O(n^2).
    """
    taken: list[Box] = [*lines, *((x - r, y - r, x + r, y + r) for x, y, r in marks)]
    radii = {(x, y): r for x, y, r in marks}
    found: list[tuple[float, float] | None] = []
    for x, y, text in wanted:
        size = CHARACTER * len(text)
        off = radii.get((x, y), 6.0) + 3
        choices = [
            (x + off if side > 0 else x - off - size if side < 0 else x - size / 2, y + up)
            for up in (0, -11, 11, -off - 6, off + 6, -24, 24)
            for side in ((1, -1) if abs(up) < 12 else (0, 1, -1))
        ]
        spot = next((c for c in choices if _free(c, size, taken, width, height)), None)
        found.append(spot)
        if spot is not None:
            taken.append(_box(spot, size))
    return found


def _box(spot: tuple[float, float], size: float) -> Box:
    return (spot[0], spot[1] - LINE / 2, spot[0] + size, spot[1] + LINE / 2)


def _free(spot: tuple[float, float], size: float, taken: Sequence[Box], width: float, height: float) -> bool:
    left, top, right, bottom = _box(spot, size)
    if left < 2 or top < -8 or bottom > height or right > width + 60:
        return False
    return all(left >= r or right <= a or top >= b or bottom <= t for a, t, r, b in taken)


# ----------------------------------------------------------------------------------------------------------------------
# The parts of charts: a specification in Vega-Lite's grammar per panel, and the colours that a page may map.
#
# Specifications are plain dictionaries, not altair objects: a report draws some hundred panels, and checking each
# against the schema would cost more than drawing it. Every name is data, never part of the grammar.

Spec = dict[str, Any]

INK, MUTED, GRID, PAPER = "#1f2328", "#59636e", "#d8dee4", "#ffffff"
"""Text, axes, grid and background. A page in dark mode maps these and the colours of the two lists below to others."""
COLOURS = (
    "#57606a",
    "#0969c9",
    "#d1500c",
    "#12805c",
    "#b0338f",
    "#8a6a00",
    "#0f8799",
    "#7048d0",
    "#c4303b",
    "#5c7f14",
    "#9a5b3c",
)
"""The strategies' colours; the first is the baseline's. Together with SHAPES they distinguish 77 strategies."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
DASHES = ([1, 0], [5, 2], [2, 2])
FIGURE_COLOURS = {"lookup": COLOURS[1], COLD: COLOURS[4], "fault": COLOURS[2], "mapping": COLOURS[3]}
DIVERGING = (
    "#08519c",
    "#3d85c0",
    "#7fb2dc",
    "#bcd7ef",
    "#eceff1",
    "#fcd3b4",
    "#f4a26b",
    "#dd6b20",
    "#a63603",
)
"""From faster to slower: blue to orange, which all common kinds of colour blindness can distinguish."""


@dataclass(frozen=True)
class Panel:
    """One picture: ``key`` is safe in a file's name, ``title`` is text, ``spec`` has data, marks and encodings."""

    key: str
    title: str
    spec: Spec


@dataclass(frozen=True)
class Chart:
    """Panels that belong together. ``note`` says in a few sentences how to read them; ``workloads`` and ``strategies``
    are what a run needs to make the figures again; ``columns`` and ``legend`` (whether marks need one) are for a file
    that holds all panels; ``short`` is a word or two for a table of contents."""

    name: str
    title: str
    note: str
    panels: tuple[Panel, ...]
    workloads: tuple[str, ...]
    strategies: tuple[str, ...]
    columns: int = 3
    legend: bool = False
    short: str = ""


LABEL = 120
"""The most characters of a drawn text. Measuring longer ones, as a hostile file may hold, takes seconds each."""


def short(text: str, taken: Iterable[str] = ()) -> str:
    """``text`` as it is drawn: cut to LABEL characters, and made different from those in ``taken``.

    >>> short("zipf"), len(short("x" * 999)), short("x" * 999, [short("x" * 999)])[-6:]
    ('zipf', 120, 'x... 2')
    """
    if len(text) <= LABEL:
        return text
    number, names = 1, set(taken)
    cut = f"{text[: LABEL - 3]}..."
    while cut in names:
        number += 1
        end = f"... {number}"
        cut = text[: LABEL - len(end)] + end
    return cut


def slug(text: str, taken: Iterable[str] = ()) -> str:
    """A short name for files and anchors; made unique against ``taken``.

    >>> slug("zipf:vmas=50 <b>"), slug("a b", ["a-b"])
    ('zipf-vmas-50-b', 'a-b-2')
    """
    base = plain(text.lower())
    name, number, names = base, 1, set(taken)
    while name in names:
        number += 1
        name = f"{base}-{number}"
    return name


def panels(specs: Mapping[str, Spec]) -> tuple[Panel, ...]:
    """A panel for each title, with unique keys; O(panels squared).

    >>> [panel.key for panel in panels({"a b": {}, "a-b": {}})]
    ['a-b', 'a-b-2']
    """
    made: list[Panel] = []
    for title, spec in specs.items():
        made.append(Panel(slug(title, [panel.key for panel in made]), title, spec))
    return tuple(made)


def config(paper: str | None = None) -> Spec:
    """Fonts and colours of all charts; ``paper`` is the background, None for none."""
    text = {
        "labelColor": INK,
        "titleColor": MUTED,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
    }
    return {
        "background": paper,
        "font": "Arial, Liberation Sans, Helvetica, sans-serif",
        "padding": 4,
        "view": {"stroke": None},
        "axis": {
            **text,
            "gridColor": GRID,
            "domainColor": MUTED,
            "tickColor": MUTED,
            "labelLimit": 130,
            "titlePadding": 8,
        },
        "legend": {**text, "labelLimit": 160, "symbolLimit": 200},
        "title": {"color": INK, "fontSize": 12, "anchor": "start", "fontWeight": "bold", "offset": 8},
        "text": {"color": INK},
    }


def whole(panel: Panel, *, paper: str | None = None, title: bool = True) -> Spec:
    """The complete specification of a panel."""
    spec: Spec = {"$schema": SCHEMA, "config": config(paper), **panel.spec}
    return {**spec, "title": short(panel.title)} if title else spec


def together(chart: Chart, *, paper: str | None = PAPER) -> Spec:
    """All panels of a chart in one picture, with their titles."""
    panels = [{**panel.spec, "title": short(panel.title)} for panel in chart.panels]
    if chart.legend:
        panels = [_with_legend(panel) for panel in panels]
    if len(panels) == 1:
        return {"$schema": SCHEMA, "config": config(paper), **panels[0]}
    columns = min(chart.columns, len(panels))
    return {"$schema": SCHEMA, "config": config(paper), "concat": panels, "columns": columns, "spacing": 24}


def _with_legend(spec: Any) -> Any:
    """``spec`` with a legend of each strategy's colour and shape."""
    if isinstance(spec, list):
        return [_with_legend(part) for part in spec]
    if not isinstance(spec, dict):
        return spec
    shown = {key: _with_legend(part) if key != "data" else part for key, part in spec.items()}
    return {**shown, "legend": LEGEND} if spec.get("field") == "strategy" and "legend" in spec else shown


SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
"""The name of the grammar; nothing is loaded from there."""


class Look:
    """Colour and shape of each strategy, the same in all charts of a report."""

    def __init__(self, strategies: Sequence[str], baselines: Iterable[str] = ()) -> None:
        base = set(baselines)
        self.order = [*(s for s in strategies if s in base), *(s for s in strategies if s not in base)]
        rest = COLOURS[1:]
        self.colours: dict[str, str] = {}
        self.shapes: dict[str, str] = {}
        self.dashes: dict[str, list[int]] = {}
        lead = len([s for s in self.order if s in base])
        for i, name in enumerate(self.order):
            self.colours[name] = COLOURS[0] if i < lead else rest[(i - lead) % len(rest)]
            self.shapes[name] = SHAPES[i % len(SHAPES)]
            self.dashes[name] = DASHES[max(0, i - lead) // len(rest) % len(DASHES)]

    def colour(self) -> Spec:
        """The colour channel."""
        scale = {"domain": self.order, "range": [self.colours[s] for s in self.order]}
        return {"field": "strategy", "type": "nominal", "scale": scale, "legend": None}

    def dash(self) -> Spec:
        """The channel of a line's dashes: solid until the colours repeat."""
        scale = {"domain": self.order, "range": [self.dashes[s] for s in self.order]}
        return {"field": "strategy", "type": "nominal", "scale": scale, "legend": None}

    def shape(self) -> Spec:
        """The shape channel."""
        scale = {"domain": self.order, "range": [self.shapes[s] for s in self.order]}
        return {"field": "strategy", "type": "nominal", "scale": scale, "legend": None}


LEGEND: Spec = {"title": None, "orient": "right", "symbolOpacity": 1}
DESCRIPTION: Spec = {"field": "says", "type": "nominal"}
"""The channel of a mark's text: its tooltip, and the text for screen readers."""
WHOSE: Spec = {"field": "strategy", "type": "nominal"}
"""The same channel for lines and bars that belong to a mark: a page may highlight them together with it."""


def quantity(field: str, title: str | None = None, **more: Any) -> Spec:
    """A quantitative channel."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def log_ticks(low: float, high: float, limit: int = 6) -> list[float]:
    """Round values (1, 2, 5 times powers of ten) from ``low`` to ``high``, at most ``limit``, for a logarithmic axis.

    >>> log_ticks(3, 70), log_ticks(1, 1e6), log_ticks(1.1, 1.9)
    ([5.0, 10.0, 20.0, 50.0], [1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0, 1000000.0], [])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(ticks) <= limit:
            break
    return ticks


# ----------------------------------------------------------------------------------------------------------------------
# A run's figures prepared for charts: rows by workload, texts for marks, workloads that differ only in size.

_VMAS = re.compile(r"(?P<head>[^:]+:(?:[^:]*,)?)vmas=(?P<vmas>\d{1,9})(?P<tail>(?:,.*)?)")
_EFFORT = re.compile(r"(?<=[:,])(?:events=(\d{1,9})|touch=[01])(?:,|$)")
"""Parameters that decide how long a size is measured, not what: 20 000 lookups in a list of 65 530 VMAs take a
minute."""


@dataclass(frozen=True)
class Family:
    """Workloads that are equal except for ``vmas=`` (and how long they are measured): ``sizes`` maps the number of VMAs
    to the workloads' labels, the one with most events first."""

    name: str
    sizes: dict[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """All of them, by size."""
        return [label for labels in self.sizes.values() for label in labels]


class Data:
    """The cells of a run, summarised once for all charts. Only cells in state ``ok`` have figures.

    ``rows`` and ``workloads`` are those of single replays; ``crews`` are the labels of runs with real threads.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        self.cells = list(cells)
        self.rows: list[Row] = rows_of(alone(self.cells))
        self.workloads = list(dict.fromkeys(cell.entry.workload for cell in alone(self.cells)))
        self.crews = list(dict.fromkeys(cell.entry.workload for cell in threaded(self.cells)))
        self.strategies = list(dict.fromkeys(cell.entry.strategy for cell in self.cells))
        self.cached = caching(self.cells)
        self.look = Look(self.strategies, {cell.workload.baseline for cell in self.cells})
        specs = {cell.entry.workload: cell.workload.spec for cell in alone(self.cells)}
        self.families = families(self.workloads, specs=specs)
        swept = {label for family in self.families for label in family.labels}
        self.single = [label for label in self.workloads if label not in swept]
        """Workloads that are not part of a sweep: they have a panel of their own."""

    def of(self, workload: str) -> list[Row]:
        """The rows of one workload that have figures."""
        return [row for row in self.rows if row.cell.entry.workload == workload and row.figures]


def families(labels: Sequence[str], least: int = 3, specs: Mapping[str, str] | None = None) -> list[Family]:
    """Sweeps of ``vmas=`` with at least ``least`` sizes among workload labels; of a label that does not say the size
    (an experiment file's), what ``specs`` has for it counts.

    >>> families(["uniform:vmas=6", "uniform:vmas=50", "python-json", "uniform:vmas=500,gap=0"], least=2)
    [Family(name='uniform', sizes={6: ('uniform:vmas=6',), 50: ('uniform:vmas=50',)})]
    >>> families(["few", "uniform:vmas=50"], 2, {"few": "uniform:vmas=6"})[0].sizes
    {6: ('few',), 50: ('uniform:vmas=50',)}
    >>> families(["uniform:vmas=6,events=9", "uniform:vmas=6,events=80,touch=0"], least=1)[0].sizes
    {6: ('uniform:vmas=6,events=80,touch=0', 'uniform:vmas=6,events=9')}
    """
    found: dict[str, dict[int, list[tuple[int, str]]]] = {}
    for label in labels:
        for text in (label, (specs or {}).get(label, "")):
            if match := _VMAS.fullmatch(_EFFORT.sub("", text).rstrip(",")):
                break
        if match:
            rest = (match["head"] + match["tail"].lstrip(",")).rstrip(":,")
            events = max((int(number) for number in _EFFORT.findall(text) if number), default=0)
            found.setdefault(rest, {}).setdefault(int(match["vmas"]), []).append((-events, label))
    return [
        Family(name, {vmas: tuple(label for _, label in sorted(sizes[vmas])) for vmas in sorted(sizes)})
        for name, sizes in found.items()
        if len(sizes) >= least
    ]


def interval(figure: Figure) -> tuple[float, float]:
    """The 95 % interval of a mean for drawing: the mean itself for one process, and never below a tenth of it."""
    summary = figure.summary
    if summary.n < 2:
        return summary.mean, summary.mean
    return max(summary.mean / 10, summary.low), summary.high


def says(row: Row, name: str) -> str:
    """The text of a mark for figure ``name``: strategy, time with interval, ratio and verdict."""
    figure = row.figures[name]
    summary = figure.summary
    text = f"{row.cell.entry.strategy}: {ns(summary.mean)} {FIGURES.get(name, name)}"
    if summary.n > 1:
        text += f" [{ns(summary.low)}, {ns(summary.high)}], {summary.n} processes"
    if figure.ratio is not None:
        word = figure.verdict.text if figure.verdict else figure.ratio.word
        text += f"; {word}: {ratio_text(figure.ratio)} of {row.cell.workload.baseline}"
    return text


def percent(part: float) -> str:
    """A share as text.

    >>> percent(0.8521)
    '85.2 %'
    """
    return f"{100 * part:.1f} %"


# ----------------------------------------------------------------------------------------------------------------------
# Charts as SVG, PNG and PDF, drawn by vl-convert without browser or network; its JavaScript engine reads only data.

PICTURES = ("svg", "png", "pdf")


def to_svg(spec: Spec) -> str:
    """``spec`` drawn as an SVG document; takes some 50 ms, and half a second for the first one of a process."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(spec))


def save(charts: Iterable[Chart], folder: Path, forms: Sequence[str] = PICTURES) -> list[Path]:
    """Write each chart, all panels in one picture on white, into ``folder`` in ``forms``; returns the paths.

    Raises ResultsError if the disk refuses.
    """
    import vl_convert

    from benchframe.files import write_atomic

    saved = []
    for chart in charts:
        picture = to_svg(together(chart))
        for form in forms:
            path = folder / f"{chart.name}.{form}"
            if form == "svg":
                data = picture.encode()
            elif form == "png":
                data = vl_convert.svg_to_png(picture, scale=2)
            else:
                data = vl_convert.svg_to_pdf(picture)
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise disk_error(path, error, "written") from None
            write_atomic(path, data)
            saved.append(path)
    return saved
