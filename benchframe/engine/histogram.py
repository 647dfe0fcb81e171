"""Log-linear histograms of cycle counts, after HdrHistogram: fixed memory, a relative error below 1/16, any tail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.engine.latency import Latency
from benchframe.mm.crew import BUCKETS, SUB

Array = npt.NDArray[Any]


def edges() -> Array:
    """Lower edge in cycles of each bucket, and one more: BUCKETS + 1 values. The inverse of mm.drive.bucket_of."""
    number = np.arange(BUCKETS + 1)
    octave, part = number // SUB, number % SUB
    return np.where(octave == 0, part, (SUB + part).astype(np.int64) << np.maximum(octave - 1, 0))


@dataclass(frozen=True)
class Histogram:
    """``counts`` per bucket; ``ns`` is one cycle, ``cost`` the cycles of the clock that are in each value."""

    counts: Array
    ns: float
    cost: float = 0.0

    def quantiles(self, shares: tuple[float, ...]) -> list[float]:
        """ns below which these parts of the operations lie: the middle of the bucket, the clock's cost taken off."""
        below = np.cumsum(self.counts)
        edge = edges()
        middle = (edge[:-1] + edge[1:] - 1) / 2
        wanted = np.ceil(np.asarray(shares) * below[-1])
        found = np.searchsorted(below, np.maximum(wanted, 1))
        values: list[float] = (np.maximum(middle[found] - self.cost, 0) * self.ns).tolist()
        return values

    def latency(self, figure: str) -> Latency:
        """As a row of the tail table."""
        p50, p90, p99, p999, top = self.quantiles((0.5, 0.9, 0.99, 0.999, 1.0))
        return Latency(figure, "all", int(self.counts.sum()), p50, p90, p99, p999, top)

    def points(self) -> list[tuple[float, int]]:
        """(lower edge in ns, count) of each bucket that is not empty: what a result file keeps."""
        edge = np.maximum(edges()[:-1] - self.cost, 0) * self.ns
        return [(round(float(edge[i]), 2), int(self.counts[i])) for i in np.flatnonzero(self.counts)]
