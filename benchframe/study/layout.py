"""The influence of the layout: one strategy and stream under several layout seeds and alignments to 2 MiB.

A layout seed determines the place of each VMA record, the alignment which addresses share a page of page-table entries,
the process the addresses of code and slabs. Every process measures every combination, so the logarithms of the times
are a crossed design: log ns = mean + seed + alignment + seed x alignment + process + residual, all effects random.
Components are those of the analysis of variance (Searle, Casella, McCulloch, Variance Components, ch. 4), negative ones
set to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.engine.probe import Point, ProbeError, Study
from benchframe.trace.trace import shifted

if TYPE_CHECKING:
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace

Array = npt.NDArray[Any]
COMPONENTS = ("layout seed", "alignment", "seed x alignment", "process", "residual")
REPLICATES = 1000


@dataclass(frozen=True)
class Component:
    """One source of variance: its standard deviation as a share of the time, its share of all variance with a
    parametric bootstrap interval, and the p value of the null hypothesis "it is zero" (NaN: the residual has no
    test)."""

    name: str
    sd: float
    share: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Sensitivity:
    """``times[seed, shift, process]`` in ns of ``figure``; ``components`` in the order of COMPONENTS."""

    strategy: str
    workload: str
    figure: str
    seeds: tuple[int, ...]
    shifts: tuple[int, ...]
    times: Array
    components: tuple[Component, ...]


def measure(
    strategy: Strategy,
    trace: Trace,
    label: str,
    *,
    seeds: Sequence[int],
    shifts: Sequence[int],
    rounds: int,
    figure: str = "lookup",
    note: Callable[[str], None],
    cpu: int = -1,
    plugins: Sequence[str] = (),
    blocked: Sequence[str] = (),
    seconds: float = 0.02,
) -> Sensitivity:
    """Time every (seed, shift) in ``rounds`` processes; some 0.3 s each. Raises ProbeError, also if the figure is lost
    in noise, and ValueError for fewer than two seeds, shifts or rounds."""
    if min(len(seeds), len(shifts), rounds) < 2:
        raise ValueError("an analysis of variance needs at least two seeds, two shifts and two rounds")
    streams = [shifted(trace, pages) for pages in shifts]
    points = [Point(strategy.name, j, seed) for seed in seeds for j in range(len(shifts))]
    study = Study({strategy.name: strategy}, streams, points, seconds, cpu, plugins, blocked)
    found = study.measure(rounds, 1, lambda done: note(f"layout: round {done + 1} of {rounds}"))
    if any(figure not in row for rows in found for row in rows):
        raise ProbeError(f"{strategy.name} on {label}: ns per {figure} does not exist or is hidden by noise")
    times = np.array([[row[figure] for row in rows] for rows in found]).T.reshape(len(seeds), len(shifts), rounds)
    return Sensitivity(strategy.name, label, figure, tuple(seeds), tuple(shifts), times, components(times))


def components(times: Array, seed: int = 0) -> tuple[Component, ...]:
    """The components of variance of ``log(times)``, (seeds, shifts, processes)."""
    from scipy.stats import f  # type: ignore[import-untyped]

    logs = np.log(times)
    squares, degrees = _mean_squares(logs)
    variances = _variances(squares, logs.shape)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(REPLICATES):
        parts = _variances(_mean_squares(_simulated(variances, logs.shape, rng))[0], logs.shape)
        drawn.append(parts / max(parts.sum(), 1e-300))
    low, high = np.quantile(np.array(drawn), (0.025, 0.975), axis=0)
    tests = [
        float(f.sf(squares[0] / squares[2], degrees[0], degrees[2])),
        float(f.sf(squares[1] / squares[2], degrees[1], degrees[2])),
        float(f.sf(squares[2] / squares[4], degrees[2], degrees[4])),
        float(f.sf(squares[3] / squares[4], degrees[3], degrees[4])),
        float("nan"),
    ]
    shares = variances / max(variances.sum(), 1e-300)
    return tuple(
        Component(name, float(np.sqrt(variances[n])), float(shares[n]), float(low[n]), float(high[n]), tests[n])
        for n, name in enumerate(COMPONENTS)
    )


def _simulated(variances: Array, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Logarithms of times drawn from the fitted model."""
    i, j, k = shape
    sd = np.sqrt(variances)
    effects = [rng.normal(0, sd[0], (i, 1, 1)), rng.normal(0, sd[1], (1, j, 1)), rng.normal(0, sd[2], (i, j, 1))]
    return np.asarray(sum(effects) + rng.normal(0, sd[3], (1, 1, k)) + rng.normal(0, sd[4], shape))


def _mean_squares(logs: Array) -> tuple[Array, tuple[int, ...]]:
    """Mean squares and degrees of freedom of seed, alignment, seed x alignment, process, residual."""
    i, j, k = logs.shape
    mean = logs.mean()
    rows, columns, depths = logs.mean(axis=(1, 2)), logs.mean(axis=(0, 2)), logs.mean(axis=(0, 1))
    cells = logs.mean(axis=2)
    interaction = cells - rows[:, None] - columns[None, :] + mean
    residual = logs - cells[:, :, None] - depths[None, None, :] + mean
    degrees = (i - 1, j - 1, (i - 1) * (j - 1), k - 1, (i * j - 1) * (k - 1))
    sums = (
        j * k * ((rows - mean) ** 2).sum(),
        i * k * ((columns - mean) ** 2).sum(),
        k * (interaction**2).sum(),
        i * j * ((depths - mean) ** 2).sum(),
        (residual**2).sum(),
    )
    return np.array([total / degree for total, degree in zip(sums, degrees, strict=True)]), degrees


def _variances(squares: Array, shape: tuple[int, ...]) -> Array:
    """Variance components from mean squares, by their expected values."""
    i, j, k = shape
    found = (
        (squares[0] - squares[2]) / (j * k),
        (squares[1] - squares[2]) / (i * k),
        (squares[2] - squares[4]) / k,
        (squares[3] - squares[4]) / (i * j),
        squares[4],
    )
    return np.asarray(np.maximum(0.0, np.array(found)))
