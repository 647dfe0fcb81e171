"""Tail latency: percentiles and a compact histogram of single operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.events import Kind


@dataclass(frozen=True)
class Latency:
    """Percentiles in ns of ``n`` operations of one ``figure`` (lookup, fault, mapping) and ``outcome`` (all, hit or
    miss).

    The clock's own cost is taken off each sample, which can leave 0 for what is shorter than the clock's step.
    ``bins``: the distribution as (bin, operations) in the order of bins, only for outcome ``all``; see
    :func:`bin_edge`.
    """

    figure: str
    outcome: str
    n: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    bins: tuple[tuple[int, int], ...] = ()


BINS_PER_OCTAVE = 8
"""Bins of a histogram between a time and its double: each is 9 % wide."""


def bin_edge(number: int) -> float:
    """The upper edge in ns of histogram bin ``number``; bin 0 begins at 0, each other where the one before ends.

    The edges are powers of two of eighths of an octave (as in HdrHistogram, a constant relative width), so that some
    hundred bins cover 1 ns to 100 us.

    >>> bin_edge(0), bin_edge(8), round(bin_edge(9), 2)
    (1.0, 2.0, 2.18)
    """
    return float(2.0 ** (number / BINS_PER_OCTAVE))


def histogram(ns: npt.NDArray[Any]) -> tuple[tuple[int, int], ...]:
    """(bin, operations) of each bin that holds a time of ``ns`` (>= 0), in order. O(n log n).

    >>> histogram(np.array([0.0, 1.0, 1.9, 2.0]))
    ((0, 2), (8, 2))
    """
    numbers = np.ceil(BINS_PER_OCTAVE * np.log2(np.maximum(ns, 1.0)) - 1e-9).astype(np.int64)
    found, count = np.unique(numbers, return_counts=True)
    return tuple(zip(found.tolist(), count.tolist(), strict=True))


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
                bins = histogram(values) if outcome == "all" else ()
                rows.append(Latency(figure, outcome, len(values), p50, p90, p99, p999, float(values.max()), bins))
    return rows
