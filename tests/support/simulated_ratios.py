"""Simulated runs with a known truth: how often verdicts are wrong, how often intervals miss it, and how often effects
are found.

The model of a process mean, in logarithms: drift that both strategies of a round share (a random walk), layout that
differs from process to process, and the noise of the process itself, which is three times as large in a tenth of them:

    log m = log truth + drift(round) + layout(process) + noise(process)

Everything is vectorised over runs; docs/statistics.md has the table that :func:`characteristics` makes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.stats.verdict import ALPHA, MOST, TAU, WITHIN, log_evidence, prior_of, radius

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Standard deviations, as shares: ``layout`` and ``noise`` of each process, ``step`` of the drift per round;
    ``heavy`` is the share of processes whose noise is three times as large (a neighbour on the machine)."""

    layout: float = 0.01
    noise: float = 0.01
    step: float = 0.02
    heavy: float = 0.1


def log_ratios(world: World, runs: int, rounds: int, effect: float, rng: np.random.Generator) -> Array:
    """Log ratios of a strategy that is ``effect`` (0.03: 3 %) slower, paired by round: (runs, rounds)."""
    drift = np.cumsum(rng.normal(0, world.step, (runs, rounds)), axis=1)
    return (
        math.log1p(effect)
        + (drift + _process(world, (runs, rounds), rng))
        - (drift + _process(world, (runs, rounds), rng))
    )


def _process(world: World, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    scale = np.where(rng.random(shape) < world.heavy, 3.0, 1.0)
    return rng.normal(0, world.layout, shape) + scale * rng.normal(0, world.noise, shape)


def p_values(logs: Array, within: float = WITHIN) -> tuple[Array, Array]:
    """(differs, same) of each run, uncorrected, as in :mod:`benchframe.stats.verdict`."""
    from scipy.special import stdtr  # type: ignore[import-untyped]

    n, bound = logs.shape[1], math.log1p(within)
    mean, error = logs.mean(axis=1), logs.std(axis=1, ddof=1) / math.sqrt(n)
    differs = 2 * stdtr(n - 1, -np.abs(mean) / error)
    same = np.maximum(stdtr(n - 1, (mean - bound) / error), stdtr(n - 1, (-bound - mean) / error))
    return differs, same


def decided(p_differs: Array, p_same: Array, alpha: float = ALPHA) -> tuple[Array, Array]:
    """(differs, same) after Holm over the last axis, "same" winning: booleans as 0 and 1."""
    differs, same = (holm_rejects(p, alpha) for p in (p_differs, p_same))
    return differs & ~same, same


def holm_rejects(p: Array, alpha: float = ALPHA) -> Any:
    """The hypotheses that Holm's method rejects, over the last axis."""
    k = p.shape[-1]
    order = np.argsort(p, axis=-1)
    ranked = np.take_along_axis(p, order, -1) * np.arange(k, 0, -1) <= alpha
    rejected = np.empty(p.shape, dtype=bool)
    np.put_along_axis(rejected, order, np.logical_and.accumulate(ranked, axis=-1), -1)
    return rejected


def coverage(logs: Array, truth: float) -> float:
    """The share of 95 % t intervals that contain the true log ratio."""
    from scipy.special import stdtrit

    n = logs.shape[1]
    half = stdtrit(n - 1, 0.975) * logs.std(axis=1, ddof=1) / math.sqrt(n)
    return float((np.abs(logs.mean(axis=1) - truth) <= half).mean())


def looked_at(logs: Array, first: int = 4, alpha: float = ALPHA) -> tuple[float, float, Array]:
    """Test after each round from ``first`` on, and stop at the first decision that the strategies differ: (how often
    the usual t test decides so, how often the anytime-valid one does, after how many rounds the latter does)."""
    from scipy.special import stdtr

    rounds = logs.shape[1]
    n = np.arange(1, rounds + 1)
    total, squares = np.cumsum(logs, axis=1), np.cumsum(logs**2, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.maximum(squares - total**2 / n, 0) / (n - 1)
        t = (total / n) / np.sqrt(variance / n)
    t, n = t[:, first - 1 :], n[first - 1 :]
    usual = (2 * stdtr(n - 1, -np.abs(t)) <= alpha).any(axis=1)
    found = log_evidence(t, n, TAU) >= -math.log(alpha)
    when = np.where(found.any(axis=1), np.argmax(found, axis=1) + first, rounds)
    return float(usual.mean()), float(found.any(axis=1).mean()), when


def covered_throughout(logs: Array, truth: float, alpha: float = ALPHA) -> float:
    """The share of runs whose confidence sequence contains the true log ratio after every round from the second on."""
    rounds = logs.shape[1]
    n = np.arange(2, rounds + 1)
    total, squares = np.cumsum(logs, axis=1)[:, 1:], np.cumsum(logs**2, axis=1)[:, 1:]
    error = np.sqrt(np.maximum(squares - total**2 / n, 0) / (n - 1) / n)
    return float((np.abs(total / n - truth) <= radius(n, alpha) * error).all(axis=1).mean())


def tables_of(
    world: World, shape: tuple[int, int, int, int], effect: float, uneven: float, rng: np.random.Generator
) -> Array:
    """Log ratios of one figure in many tables; ``shape`` is (tables, workloads, strategies, rounds), the result
    (tables, ratios, rounds). The strategies of a workload share its baseline; ``uneven`` is the standard deviation of
    the logarithm of a cell's own spread."""
    tables, workloads, strategies, rounds = shape
    cells = _process(world, (tables * workloads * (strategies + 1), rounds), rng)
    cells *= np.exp(rng.normal(0, uneven, (len(cells), 1)))
    cells = cells.reshape(tables, workloads, strategies + 1, rounds)
    logs: Array = math.log1p(effect) + cells[:, :, 1:] - cells[:, :, :1]
    return logs.reshape(tables, workloads * strategies, rounds)


def moderated_p(logs: Array, most: float = MOST) -> tuple[Array, Array, Array]:
    """(differs, same, half width of the 95 % interval) of each ratio, as in :mod:`benchframe.stats.verdict`, with a
    prior of at most ``most`` degrees; 0 for none."""
    from scipy.special import stdtr, stdtrit

    n, bound = logs.shape[-1], math.log1p(WITHIN)
    mean, variance = logs.mean(axis=-1), logs.var(axis=-1, ddof=1)
    degrees = np.full(variance.shape, n - 1.0)
    for i, row in enumerate(variance if most else ()):
        prior = prior_of(row, degrees[i], most)
        variance[i] = (prior.degrees * prior.variance + (n - 1) * row) / (prior.degrees + n - 1)
        degrees[i] += prior.degrees
    error = np.sqrt(variance / n)
    differs = 2 * stdtr(degrees, -np.abs(mean) / error)
    same = np.maximum(stdtr(degrees, (mean - bound) / error), stdtr(degrees, (-bound - mean) / error))
    return differs, same, stdtrit(degrees, 0.975) * error


def moderation(tables: int = 2000, seed: int = 1) -> list[dict[str, float]]:
    """One record per number of rounds, unevenness and limit of the prior (0: plain; MOST; none), of tables of fifteen
    strategies on three workloads with three figures, 126 comparisons: ``table`` (A/A tables with a false verdict),
    ``coverage`` of the intervals, ``found`` (of what is 10 % slower), ``wrong_same`` (tables that call something 2 %
    slower the same). O(tables)."""
    records = []
    for rounds in (2, 3, 5, 10):
        for uneven in (0.0, 0.5, 1.0):
            for most in (0.0, MOST, math.inf):
                record = {"rounds": rounds, "uneven": uneven, "most": most}
                rng = np.random.default_rng(seed)  # the same values for each limit
                for effect in (0.0, 0.1, WITHIN):
                    figures = [tables_of(World(), (tables, 3, 14, rounds), effect, uneven, rng) for _ in range(3)]
                    logs = np.concatenate(figures, axis=1)
                    parts = [moderated_p(figure, most) for figure in figures]
                    p, q, half = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
                    differs, same = decided(p, q)
                    if not effect:
                        record["table"] = float(differs.any(axis=1).mean())
                        record["coverage"] = float((np.abs(logs.mean(axis=-1)) <= half).mean())
                    elif effect == WITHIN:
                        record["wrong_same"] = float(same.any(axis=1).mean())
                    else:
                        record["found"] = float(differs.mean())
                records.append(record)
    return records


def characteristics(runs: int = 20_000, seed: int = 1, world: World | None = None) -> list[dict[str, float]]:
    """One record per number of rounds: ``false`` (A/A, a comparison alone), ``table`` (A/A tables of 12 with a false
    verdict after Holm), ``coverage``, ``found`` (3 % slower, alone), ``same`` (A/A read as same within 2 %),
    ``wrong_same`` (2 % slower read as same), ``looks_t`` and ``looks`` (A/A read as different by looking after each
    round, with the usual test and with ours). O(runs x rounds)."""
    world, rng = world or World(), np.random.default_rng(seed)
    records = []
    for rounds in (3, 5, 10, 25, 50):
        equal = log_ratios(world, runs, rounds, 0.0, rng)
        slower = log_ratios(world, runs, rounds, 0.03, rng)
        edge = log_ratios(world, runs, rounds, WITHIN, rng)
        p, q = p_values(equal)
        whole = runs // 12 * 12
        table = decided(p[:whole].reshape(-1, 12), q[:whole].reshape(-1, 12))[0].any(axis=1)
        usual, ours, _ = looked_at(equal) if rounds >= 4 else (math.nan, math.nan, p)
        records.append(
            {
                "rounds": rounds,
                "false": float((p <= ALPHA).mean()),
                "table": float(table.mean()),
                "coverage": coverage(equal, 0.0),
                "found": float((p_values(slower)[0] <= ALPHA).mean()),
                "same": float((q <= ALPHA).mean()),
                "wrong_same": float((p_values(edge)[1] <= ALPHA).mean()),
                "looks_t": usual,
                "looks": ours,
            }
        )
    return records
