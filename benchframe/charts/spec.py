"""What charts are made of: a specification in Vega-Lite's grammar per panel, and the colours that a page may map.

Specifications are plain dictionaries, not altair objects: a report draws some hundred panels, and checking each against
the schema would cost more than drawing it. Every name is data, never part of the grammar.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchframe.files import slug as plain

Spec = dict[str, Any]

INK, MUTED, GRID, PAPER = "#1f2328", "#59636e", "#d8dee4", "#ffffff"
"""Text, axes, grid and background. A page in dark mode maps these and the two lists below to others."""
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
"""Of strategies; the first is the baseline's. Together with SHAPES they tell 77 apart."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
DASHES = ([1, 0], [5, 2], [2, 2])
FIGURE_COLOURS = {"lookup": COLOURS[1], "fault": COLOURS[2], "mapping": COLOURS[3]}
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
"""Faster to slower: blue to orange, which all common kinds of colour blindness tell apart."""


@dataclass(frozen=True)
class Panel:
    """One picture: ``key`` is safe in a file's name, ``title`` is text, ``spec`` has data, marks and encodings."""

    key: str
    title: str
    spec: Spec


@dataclass(frozen=True)
class Chart:
    """Panels that belong together. ``note`` says in a few sentences how to read them; ``workloads`` and ``strategies``
    are what a run needs to make the figures again; ``columns`` and ``legend``
    (whether marks need one) are for a file that holds all panels; ``short`` is a
    word or two for a list of contents."""

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
"""Characters of a text that is drawn. Measuring longer ones, as a hostile file may hold, takes seconds each."""


def short(text: str, taken: Iterable[str] = ()) -> str:
    """``text`` as it is drawn: cut to LABEL characters, and then other than those ``taken``.

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
    """A panel for each title, with keys that differ; O(panels squared).

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
    """The panel's specification, complete."""
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
    """``spec`` with the legend of each strategy's colour and shape shown."""
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
        """The channel of a line's dashes: solid until colours come a second time."""
        scale = {"domain": self.order, "range": [self.dashes[s] for s in self.order]}
        return {"field": "strategy", "type": "nominal", "scale": scale, "legend": None}

    def shape(self) -> Spec:
        """The shape channel."""
        scale = {"domain": self.order, "range": [self.shapes[s] for s in self.order]}
        return {"field": "strategy", "type": "nominal", "scale": scale, "legend": None}


LEGEND: Spec = {"title": None, "orient": "right"}
DESCRIPTION: Spec = {"field": "says", "type": "nominal"}
"""The channel of a mark's text: what it shows when it is pointed at, and what a screen reader says."""
WHOSE: Spec = {"field": "strategy", "type": "nominal"}
"""The same channel for lines and bars that only belong to a mark: a page may emphasise them with it."""


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
