"""Tail latency: percentiles of single operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.trace.events import Kind


@dataclass(frozen=True)
class Latency:
    """Percentiles in ns of ``n`` operations of one ``figure`` (lookup, fault, mapping) and ``outcome`` (all, hit or
    miss).

    The clock's own cost is taken off each sample, which can leave 0 for what is shorter than the clock's step.
    """

    figure: str
    outcome: str
    n: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


def summarise(samples: npt.NDArray[Any], kinds: npt.NDArray[Any], cost: float, ns: float) -> list[Latency]:
    """Rows of what occurs: ``samples`` (cycles, hit) beside the event ``kinds``; ``cost`` in cycles, ``ns`` a cycle."""
    figures = {
        "fault": kinds == Kind.FAULT,
        "lookup": kinds == Kind.LOOKUP,
        "mapping": (kinds != Kind.FAULT) & (kinds != Kind.LOOKUP),
    }
    rows = []
    spent = np.maximum(samples["cycles"] - cost, 0) * ns
    for figure, mask in figures.items():
        outcomes = {"all": mask}
        if figure != "mapping":
            outcomes.update(hit=mask & (samples["hit"] > 0), miss=mask & (samples["hit"] == 0))
        for outcome, chosen in outcomes.items():
            values = spent[chosen]
            if len(values):
                p50, p90, p99, p999 = np.percentile(values, (50, 90, 99, 99.9)).tolist()
                rows.append(Latency(figure, outcome, len(values), p50, p90, p99, p999, float(values.max())))
    return rows
