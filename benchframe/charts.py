"""Charts of a run: times and ratios with their 95 % intervals, as Vega-Lite through altair, saved as SVG and PNG.

No browser and no network: vl-convert renders. Every name is data, never part of a chart's grammar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchframe.results.errors import disk_error
from benchframe.results.figures import FIGURES, rows_of
from benchframe.results.folder import Cell

_WIDTH = 220
_STEP = 18


def records(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """One record per cell and figure: ``mean``, ``low``, ``high`` in ns, and ``ratio``, ``ratio_low``, ``ratio_high``
    where there is one. Intervals that do not exist (one process) collapse to the value."""
    found = []
    for row in rows_of(cells):
        for name, figure in row.figures.items():
            if name not in FIGURES:
                continue
            summary, ratio = figure.summary, figure.ratio
            record: dict[str, Any] = {
                "workload": row.cell.entry.workload,
                "strategy": row.cell.entry.strategy,
                "figure": FIGURES[name],
                "mean": summary.mean,
                "low": max(0.0, summary.low) if summary.n > 1 else summary.mean,
                "high": summary.high if summary.n > 1 else summary.mean,
            }
            if ratio is not None:
                record["ratio"] = ratio.value
                record["ratio_low"] = ratio.low if ratio.n > 1 else ratio.value
                record["ratio_high"] = ratio.high if ratio.n > 1 else ratio.value
                record["verdict"] = ratio.word
            found.append(record)
    return found


def times_chart(data: list[dict[str, Any]]) -> Any:
    """ns per operation: a row per workload, a chart per figure, each with its own scale from zero."""
    import altair as alt

    def chart(part: list[dict[str, Any]], order: list[str]) -> Any:
        base = alt.Chart(alt.InlineData(values=part)).encode(
            y=alt.Y("strategy:N", sort=order, title=None), color=alt.Color("strategy:N", sort=order, legend=None)
        )
        x = alt.X("mean:Q", title="ns", scale=alt.Scale(zero=True))
        points = base.mark_point(filled=True, size=50).encode(x=x)
        return alt.layer(base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title="ns"), x2="high:Q"), points)

    return _grid(data, chart, "Time per operation: mean and 95 % interval")


def ratio_chart(data: list[dict[str, Any]]) -> Any:
    """Ratio to the baseline on a logarithmic axis, where 2x faster and 2x slower are equally far from the line at 1."""
    import altair as alt

    verdicts = alt.Scale(domain=["faster", "undecided", "slower"], range=["#1b7837", "#777777", "#b2182b"])
    ends = [record[end] for record in data for end in ("ratio_low", "ratio_high")]
    axis = alt.Scale(type="log", domain=[0.97 * min([1.0, *ends]), 1.03 * max([1.0, *ends])], nice=False)

    def chart(part: list[dict[str, Any]], order: list[str]) -> Any:
        base = alt.Chart(alt.InlineData(values=part)).encode(
            y=alt.Y("strategy:N", sort=order, title=None), color=alt.Color("verdict:N", scale=verdicts, title=None)
        )
        x = alt.X("ratio:Q", title="ratio to the baseline (log)", scale=axis)
        rules = base.mark_rule(strokeWidth=2).encode(x=alt.X("ratio_low:Q", scale=axis), x2="ratio_high:Q")
        one = alt.Chart(alt.InlineData(values=[{"one": 1.0}])).mark_rule(strokeDash=[4, 3], color="#444444")
        return alt.layer(
            one.encode(x=alt.X("one:Q", scale=axis)), rules, base.mark_point(filled=True, size=50).encode(x=x)
        )

    return _grid(data, chart, "Ratio to the baseline with 95 % interval; left is faster")


def _grid(data: list[dict[str, Any]], chart: Callable[[list[dict[str, Any]], list[str]], Any], title: str) -> Any:
    """A row of charts per workload. Not a facet: those misplace what follows a missing combination."""
    import altair as alt

    order = list(dict.fromkeys(record["strategy"] for record in data))
    rows = []
    for label in dict.fromkeys(record["workload"] for record in data):
        charts = []
        for head in FIGURES.values():
            part = [r for r in data if r["workload"] == label and r["figure"] == head]
            if part:
                name = alt.Title([head, label], fontSize=11, anchor="start")
                charts.append(chart(part, order).properties(width=_WIDTH, height=alt.Step(_STEP), title=name))
        rows.append(alt.hconcat(*charts))
    return alt.vconcat(*rows).properties(title=title)


def save_charts(cells: Iterable[Cell], folder: Path) -> list[Path]:
    """Write ``times`` and ``ratios`` as SVG and PNG into ``folder``; gives the SVG paths. What has no data is left
    out. Raises ResultsError if the disk refuses."""
    data = records(cells)
    compared = [record for record in data if "ratio" in record]
    saved = []
    for name, make, shown in (("times", times_chart, data), ("ratios", ratio_chart, compared)):
        if not shown:
            continue
        chart = make(shown)
        path = folder / f"{name}.svg"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            chart.save(str(path))
            chart.save(str(path.with_suffix(".png")), scale_factor=2)
        except OSError as error:
            raise disk_error(path, error, "written") from None
        saved.append(path)
    return saved
