"""Charts of a run: one module each, drawn from a run's cells without a browser; a page and files show the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchframe.report.charts.cost import cost_chart
from benchframe.report.charts.distribution import distribution_chart
from benchframe.report.charts.heat import heat_chart
from benchframe.report.charts.lookup import lookup_chart
from benchframe.report.charts.pareto import pareto_chart
from benchframe.report.charts.ratios import ratios_chart
from benchframe.report.charts.spec import PICTURES, Chart, Data, Panel, save, to_svg
from benchframe.report.charts.sweep import sweep_chart
from benchframe.report.charts.threads import threads_chart
from benchframe.results.folder import Cell

__all__ = ["CHARTS", "PICTURES", "Chart", "Data", "Panel", "charts_of", "save", "to_svg"]

CHARTS: dict[str, Callable[[Data], Chart | None]] = {
    "heat": heat_chart,
    "ratios": ratios_chart,
    "lookup": lookup_chart,
    "sweep": sweep_chart,
    "threads": threads_chart,
    "distribution": distribution_chart,
    "pareto": pareto_chart,
    "cost": cost_chart,
}
"""All charts by name, in the order of a report. Each gives None for a run that has nothing for it."""
NEEDS = {
    "heat": "it needs two strategies and a workload with times",
    "ratios": "it needs a strategy beside the baseline, in two rounds at least",
    "lookup": "it needs times per lookup",
    "sweep": "it needs a workload with three values of vmas, as --workload uniform:vmas=10..1e4:log has",
    "threads": "it needs cells with threads, as --threads 1,2 has",
    "distribution": "it needs times of single operations, which a run with threads alone does not have",
    "pareto": "it needs times per lookup and bytes per VMA of two strategies",
    "cost": "it needs counts, so a run without --no-cost",
}
"""What a run must have for each chart, told to who asks for it by name."""


def charts_of(cells: Iterable[Cell] | Data, names: Iterable[str] = ()) -> list[Chart]:
    """The charts ``names`` (all, if none is named) for which the cells have data."""
    data = cells if isinstance(cells, Data) else Data(cells)
    return [chart for name in (list(names) or CHARTS) if (chart := CHARTS[name](data)) is not None]
