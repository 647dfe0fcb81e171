"""The cost of a counted operation in nanoseconds: units measured on this machine, and the model fitted with them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from benchframe.dialect.functions import native
from benchframe.dialect.primitives import fetch_add
from benchframe.dialect.records import Field, Slab, Struct
from benchframe.dialect.store import cache_folder
from benchframe.engine.caches import LLC, MEMORY, UNTOUCHED, Caches, cpu_caches, state
from benchframe.engine.cold import ENOUGH, timed_events
from benchframe.engine.cost import CountedReplay
from benchframe.engine.cost.hierarchy import TERMS, CriticalPath, Hierarchy, sizes_of
from benchframe.engine.probe import Point, Study
from benchframe.errors import ResultsError, UsageError
from benchframe.files import write_json
from benchframe.mm.machine import carve
from benchframe.results.manifest import Number, Numbers, Text, host, read_document, versions
from benchframe.units import Units, UnitSpec, model_digest, model_name, strategy_digest

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace


# ----------------------------------------------------------------------------------------------------------------------
# The time of single operations on this machine, each measured alone: a fitted cost model is drawn towards them.
#
# A calibration of whole lookups cannot tell terms apart that go together: each strategy under mmap_lock does two atomic
# operations, so their cost hides in the base. Loops that do one thing only can: a chain of loads that each need the one
# before, from a small table and from one that no first-level cache holds; a branch that a coin decides; a locked
# addition; loads and branches that need nothing of each other. A walk overlaps
# what a loop on its own cannot, so these are priors of the fit, not its result.

Array = npt.NDArray[Any]
VERSION = 3
"""Changes when a loop does, or how a cell is timed: part of a calibration's key."""
REPEATS = 25
"""Timings of a loop; the shortest counts, since disturbances only add time."""
ITERATIONS = 30_000
CHAIN, INDEPENDENT, COIN, STEADY, ATOMIC = range(5)
PLACES = {"l1": 64, "l2": 4096}
"""Records of 192 bytes, a line of each touched: 4 and 256 KiB of lines, as far apart as VMA records are."""

bench = Struct(
    "bench",
    [
        Field("cell_base", "i8", "slab CELL", lock="constant"),
        ("word", "i8", "what is added to"),
        ("state", "i8", "of the generator: goes on from call to call, or the predictor would know it by heart"),
        Field("mask", "i8", "places less one, a power of two", lock="constant"),
        Field("coin", "i8", "1: a random bit decides, 0: always the same way", lock="constant"),
    ],
)
cell = Struct("cell", [("after", "i8", "the next record of the chain"), ("value", "i8", "read, written")], size=192)
CELL = Slab("CELL", cell, "cell_base", first=0)


@native
def chained(b, count):
    """``count`` loads, each from the place that the previous one returned."""
    at = 0
    done = 0
    while done < count:
        at = CELL(b, at).after
        done += 1
    return at


@native
def independent(b, count):
    """``count`` times a load, a branch on it and the loop's branch."""
    done = 0
    while done < count:
        if CELL(b, done & b.mask).value < 0:
            return done
        done += 1
    return done


@native
def tossed(b, count):
    """``count`` branches by a bit of a xorshift generator, or never taken if ``coin`` is 0."""
    state = b.state
    done = 0
    while done < count:
        state = state ^ ((state << 13) & 0x3FFFFFFFFFFFFFFF)
        state = state ^ (state >> 7)
        state = state ^ ((state << 17) & 0x3FFFFFFFFFFFFFFF)
        if (state >> 20) & b.coin:
            CELL(b, done & b.mask).value = done
        done += 1
    b.state = state
    return state


@native
def locked(b, count):
    """``count`` atomic additions."""
    done = 0
    while done < count:
        fetch_add(b, "word", 1)
        done += 1
    return b.word


@native
def bench_entry(b, which, count):
    """Run one of the loops."""
    if which == CHAIN:
        return chained(b, count)
    if which == INDEPENDENT:
        return independent(b, count)
    if which == ATOMIC:
        return locked(b, count)
    b.coin = int(which == COIN)
    return tossed(b, count)


def measured(iterations: int = ITERATIONS, repeats: int = REPEATS) -> dict[str, float]:
    """ns of each term of the model (study.model.TERMS) in the loops. Takes some 0.2 s, and a compile the first time.

    ``depth``: a dependent load from the first-level cache. ``from L2``, ``from LLC``, ``from memory``: the additional
    time if only that level has the line (the last two where this machine can tell: study.selftest). ``work``: a load or
    branch of a loop in which everything overlaps. ``mispredictions``: a random branch
    is mispredicted every other time.
    """
    unit = Units(bench, ()).get(UnitSpec("bench", bench_entry, {}))

    def ns(which: int, state: Array) -> float:
        return _fastest(unit, state, which, iterations, repeats)

    chains = {}
    for level, count in PLACES.items():
        state, _cells = _machine(count)
        unit(state.ctypes.data, CHAIN, count)
        chains[level] = ns(CHAIN, state)
    state, _cells = _machine(PLACES["l1"])
    return {
        "work": ns(INDEPENDENT, state) / 3,
        "mispredictions": max(0.0, ns(COIN, state) - ns(STEADY, state)) * 2,
        "atomics": ns(ATOMIC, state),
        "depth": chains["l1"],
        "from L2": max(0.0, chains["l2"] - chains["l1"]),
        **{f"from {name}": max(0.0, ns - chains["l1"]) for name, ns in _far_levels().items()},
    }


def _far_levels() -> dict[str, float]:
    """ns of a dependent load from the last-level cache and from memory, where they can be told."""
    from benchframe.engine.caches import known_lines

    found = {}
    for name, level in (("LLC", LLC), ("memory", MEMORY)):
        with contextlib.suppress(UsageError):
            found[name] = known_lines([state(level)], 1)[0].level[0]
    return found


def _machine(count: int) -> tuple[Array, Array]:
    """The records: one cycle through all of them in random order. The first array points to the second, which is in
    huge pages as the records of a replay are: with small ones, a step among many would also miss the TLB."""
    (cells,) = carve([(count, cell.dtype)], huge=True)
    order = np.random.default_rng(0).permutation(count)
    cells["after"][order] = np.roll(order, -1)
    state = np.zeros(1, bench.dtype)
    state["state"] = 88172645463325252
    state["cell_base"], state["mask"] = cells.ctypes.data, count - 1
    return state, cells


def _fastest(unit: Callable[..., int], state: Array, which: int, iterations: int, repeats: int) -> float:
    """ns of one iteration: the shortest of ``repeats`` timings."""
    best = math.inf
    for _ in range(repeats):
        began = time.perf_counter_ns()
        unit(state.ctypes.data, which, iterations)
        best = min(best, time.perf_counter_ns() - began)
    return best / iterations


def text(units: Mapping[str, float]) -> str:
    """The units in a line.

    >>> text({"depth": 1.234, "lines": 0.0})
    'depth 1.23 ns'
    """
    return ", ".join(f"{name} {ns:.2f} ns" for name, ns in units.items() if ns > 0)


# ----------------------------------------------------------------------------------------------------------------------
# The cost model of a lookup: ns = base of the stream + sum of (count x ns per unit), fitted to cells of this machine.
#
# What is to be explained are differences between strategies on one stream, so each stream has a base of its own: what
# all lookups on it have in common, and what the processor overlaps (a base may be below 0). The units are non-
# negative (Lawson and Hanson's NNLS, scipy.optimize.nnls): a load that saves time is no mechanism.
#
# Terms that go together in every cell cannot be told apart by any fit. What each operation takes alone
# (:mod:`benchframe.study.model`) can: the fit is drawn towards it, as by a prior, the more the less the cells say. How
# strongly is decided by how well differences on a stream that was left out are predicted. A term's contribution comes
# with a bootstrap interval over cells and processes, and the sum with the model's own error on differences it has not
# seen.

BASE = "base"
FLOOR = 5.0
"""ns: cells faster than this are weighted as if they took this long; errors are relative above."""
REPLICATES = 400
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Strengths of the prior from single operations: at 1, a unit off by its whole size weighs as much as a cell off by 100
%."""


@dataclass(frozen=True)
class Sample:
    """One cell: counts (keys of CellState.cost) and ns of each process."""

    strategy: Text
    workload: Text
    cost: Numbers
    ns: Annotated[tuple[Number, ...], Meta(min_length=1, max_length=10_000)]

    @property
    def typical(self) -> float:
        """The median of the processes, which a single disturbed one does not change."""
        return float(np.median(self.ns))


def terms(cost: Mapping[str, float], view: str = "lookup") -> dict[str, float]:
    """The terms of a cell, per operation of ``view``: the counts of its critical path."""
    return {name: cost.get(f"{view}.path.{name}", 0.0) for name in TERMS}


@dataclass(frozen=True)
class Model:
    """``coefficients``: ns per unit, BASE first, the mean over the streams; ``replicates``: the same for each bootstrap
    replicate, one row each; ``low`` and ``high``: the range of each term in the calibration, and of the streams' bases;
    ``residuals``: ns of each cell, measured minus fitted; ``alone``: ns per unit towards which the fit was drawn, and
    ``strength`` (0: none); ``difference_error``: root mean square error of predicted differences between strategies on
    a workload left out of the fit, as a share of the larger of the two times."""

    names: tuple[str, ...]
    coefficients: Array
    replicates: Array
    low: Mapping[str, float]
    high: Mapping[str, float]
    residuals: Array
    difference_error: float
    cells: int
    slowest: float
    alone: Mapping[str, float]
    strength: float

    def interval(self, name: str) -> tuple[float, float]:
        """The 95 % interval of the replicates' ns per unit."""
        column = self.replicates[:, self.names.index(name)]
        low, high = np.quantile(column, (0.025, 0.975)).tolist()
        return low, high

    def predict(self, cost: Mapping[str, float]) -> float:
        """ns of a lookup with these counts."""
        return float(self.coefficients @ _row(cost))


def _row(cost: Mapping[str, float]) -> Array:
    return np.array([1.0, *terms(cost).values()])


def fit(
    samples: Sequence[Sample], alone: Mapping[str, float] | None = None, seed: int = 0, replicates: int = REPLICATES
) -> Model:
    """Fit to ``samples``, drawn towards the units ``alone`` if there are any. Raises ValueError for fewer than three
    cells per coefficient. Deterministic in ``seed``. Some 0.3 ms per replicate."""
    names = (BASE, *TERMS)
    if len(samples) < 3 * len(names):
        raise ValueError(
            f"{len(samples)} cells are too few to fit {len(names)} coefficients; {3 * len(names)} would do"
        )
    design = np.array([_row(sample.cost)[1:] for sample in samples])
    times = np.array([sample.typical for sample in samples])
    streams = np.unique([sample.workload for sample in samples], return_inverse=True)[1]
    prior = np.array([(alone or {}).get(name, 0.0) for name in TERMS])
    strength, error = _strength(design, times, streams, prior) if alone else (0.0, math.nan)
    if not alone:
        error = _difference_error(design, times, streams, prior, 0.0)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(replicates):
        cells = rng.integers(0, len(samples), len(samples))
        again = np.array([np.median(rng.choice(samples[i].ns, len(samples[i].ns))) for i in cells])
        units = _solve(design[cells], again, streams[cells], prior, strength)
        drawn.append([_bases(design[cells], again, streams[cells], units).mean(), *units])
    units = _solve(design, times, streams, prior, strength)
    bases = _bases(design, times, streams, units)
    return Model(
        names=names,
        coefficients=np.array([bases.mean(), *units]),
        replicates=np.array(drawn),
        low={BASE: float(bases.min()), **dict(zip(TERMS, design.min(axis=0).tolist(), strict=True))},
        high={BASE: float(bases.max()), **dict(zip(TERMS, design.max(axis=0).tolist(), strict=True))},
        residuals=times - design @ units - bases[streams],
        difference_error=error,
        cells=len(samples),
        slowest=float(times.max()),
        alone={name: alone[name] for name in TERMS if name in alone} if alone else {},
        strength=strength,
    )


def _solve(design: Array, times: Array, streams: Array, prior: Array, strength: float) -> Array:
    """ns per unit: non-negative least squares of relative errors, after removing a base per stream."""
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    weights = 1.0 / np.maximum(times, FLOOR)
    left, right = design * weights[:, None], times * weights
    size = np.abs(left).max(axis=0)
    for stream in np.unique(streams):
        mine = streams == stream
        along = weights[mine] / np.linalg.norm(weights[mine])
        left[mine] -= np.outer(along, along @ left[mine])
        right[mine] -= along * (along @ right[mine])
    left[:, np.abs(left).max(axis=0) < 1e-9 * size] = (
        0.0  # the same in all cells of each stream: the cells do not determine it
    )
    if strength > 0:
        # A unit of 0 alone is one that this machine cannot tell: it is held to about a third of the smallest.
        spread = np.where(prior > 0, prior, max(float(prior[prior > 0].min(initial=1.0)) / 3, 1e-3))
        left = np.vstack([left, np.diag(math.sqrt(strength) / spread)])
        right = np.concatenate([right, math.sqrt(strength) * prior / spread])
    scale = np.maximum(np.abs(left).max(axis=0), 1e-9)
    found, _ = nnls(left / scale, right, maxiter=1000)
    return np.asarray(found / scale)


def _bases(design: Array, times: Array, streams: Array, units: Array) -> Array:
    """The remaining times, per stream; without NaN: missing streams get the mean."""
    weights = 1.0 / np.maximum(times, FLOOR) ** 2
    rest = (times - design @ units) * weights
    total = np.bincount(streams, weights)
    sums = np.bincount(streams, rest)
    known = total > 0
    found = np.full(len(total), float(rest.sum() / weights.sum()))
    found[known] = sums[known] / total[known]
    return found


def _strength(design: Array, times: Array, streams: Array, prior: Array) -> tuple[float, float]:
    """(strength, its error): the strongest prior whose mean square error on streams left out is within one standard
    error, over the streams, of the smallest (Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees",
    1984, section 3.4.3): cells of a busy machine must not outvote the loops by chance."""
    errors = [_stream_errors(design, times, streams, prior, strength) for strength in STRENGTHS]
    if not all(errors):
        return STRENGTHS[-1], math.nan
    squares = np.array(errors)
    means = squares.mean(axis=1)
    least = int(np.argmin(means))
    room = float(squares[least].std(ddof=1)) / math.sqrt(squares.shape[1])
    strongest = int(np.flatnonzero(means <= means[least] + room)[-1])
    return STRENGTHS[strongest], _difference_error(design, times, streams, prior, STRENGTHS[strongest])


def _difference_error(design: Array, times: Array, streams: Array, prior: Array, strength: float) -> float:
    """The root mean square of :func:`_stream_errors`."""
    errors = _stream_errors(design, times, streams, prior, strength)
    return float(np.sqrt(np.mean(errors))) if errors else float("nan")


def _stream_errors(design: Array, times: Array, streams: Array, prior: Array, strength: float) -> list[float]:
    """Leave one stream out and predict every difference between two strategies on it: for each stream the mean square
    of the errors, each relative to the slower of the two."""
    found: list[float] = []
    for left_out in np.unique(streams):
        out = streams == left_out
        if out.all():
            continue
        units = _solve(design[~out], times[~out], streams[~out], prior, strength)
        wrong, mine = times[out] - design[out] @ units, times[out]
        errors = [(wrong[i] - wrong[j]) / max(mine[i], mine[j]) for i in range(len(mine)) for j in range(i)]
        if errors:
            found.append(float(np.mean(np.square(errors))))
    return found


# ----------------------------------------------------------------------------------------------------------------------
# The calibration of this machine: cells counted and timed here, once, stored under a hash of what determines them.
#
# The set is strategies that walk pointers, from no cache to three kinds, on streams from 20 to 3 000 VMAs, with and
# without a fault's work, and two recorded programs. Strategies whose time is a chain of arithmetic (`sorted_array`,
# `btree`) are left out: no term of the model stands for such a chain.

STRATEGIES = ("rbtree", "avl", "mmap_cache", "vmacache", "pmdcache", "maple")
WORKLOADS = (
    "uniform:vmas=20,events=30000",
    "uniform:vmas=300,events=30000",
    "uniform:vmas=3000,events=30000",
    "zipf:vmas=100,events=30000,run=8",
    "zipf:vmas=1500,events=30000",
    "zipf:vmas=500,events=30000,faults=1",
    "zipf:vmas=60,events=30000,faults=1,run=10",
    "python-json",
    "gcc-project",
)
ROUNDS = 5
RECORDS = 6_000_000
"""Enough to count every event at least twice: predictor and lines are then as warm as in a timed replay."""
SEED = 20091218
LAYOUT = 0
"""The layout seed of every timed point."""
Note = Callable[[str], None]


@dataclass(frozen=True)
class Calibration:
    """``samples``: whole lookups; ``alone``: ns of single operations by term (:mod:`benchframe.study.model`)."""

    samples: Annotated[tuple[Sample, ...], Meta(max_length=10_000)]
    alone: Numbers


def calibration(
    known: Registry, note: Note, *, anew: bool = False, cpu: int = -1, caches: Caches = UNTOUCHED
) -> Calibration:
    """The calibration of this machine with ``caches`` in this state: read if it was made with the same code here, else
    measured (some two minutes) and stored in the cache folder. ``note`` is called with the progress. Raises ProbeError,
    and UnknownName if a built-in strategy is missing."""
    strategies = {name: known.strategy(name) for name in STRATEGIES}
    content = {
        "strategies": {name: strategy_digest(strategy) for name, strategy in strategies.items()},
        "workloads": WORKLOADS,
        "rounds": [ROUNDS, RECORDS, SEED, VERSION],
        "model": model_name(model_digest()),
        "caches": [str(caches), sizes_of(cpu_caches(cpu)).told()],
        "host": dict(host()),
        "versions": dict(versions()),
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()[:32]
    path = cache_folder() / "calibration" / f"{key}.json"
    if path.is_file() and not anew:
        try:
            return read_calibration(path)
        except ResultsError as error:
            note(f"{error}; calibrating again")
    alone = measured()
    found = Calibration(_take(known, strategies, note, cpu, caches, alone), alone)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_calibration(path, found)
    except (OSError, ResultsError) as error:
        note(f"the calibration cannot be stored: {error}")
    return found


def round_text(done: int, rounds: int, seconds: float) -> str:
    """Which round begins when ``done`` took ``seconds``, and the time left.

    >>> round_text(0, 8, 0.5), round_text(3, 8, 30.0)
    ('round 1 of 8', 'round 4 of 8, about 50 s left')
    """
    left = f", about {seconds / done * (rounds - done):.0f} s left" if done else ""
    return f"round {done + 1} of {rounds}{left}"


def counts(
    strategy: Strategy,
    stream: Trace,
    budget: int,
    alone: Mapping[str, float],
    caches: Caches = UNTOUCHED,
    cpu: int = -1,
) -> dict[str, float]:
    """The counts of a lookup, its misses in the caches of ``cpu`` in state ``caches``, and its critical path if
    operations take the times ``alone``."""
    sizes = sizes_of(cpu_caches(cpu))
    replay = CountedReplay(strategy, stream)
    misses = Hierarchy(replay.memory, sizes, caches)
    chosen = np.ones(len(stream.events), np.bool_)
    if not caches.warm:
        chosen[:] = False
        chosen[timed_events(stream.events["kind"][replay.first :], caches, ENOUGH, LAYOUT) + replay.first] = True
    units = {name: alone.get(name, 0.0) for name in TERMS}
    replay.hierarchies, replay.path = [misses], CriticalPath(replay.memory, sizes, caches, units, chosen)
    return {**replay.run(budget).numbers, **misses.numbers(), **replay.path.numbers()}


def _take(
    known: Registry,
    strategies: Mapping[str, Any],
    note: Note,
    cpu: int,
    caches: Caches,
    alone: Mapping[str, float],
) -> tuple[Sample, ...]:
    from benchframe.engine.compile import compile_strategies

    where = "" if caches.warm else f" with caches as {caches.label}"
    note(f"calibrating this machine's cost model{where}, once; this takes about two minutes")
    compile_strategies(list(strategies.values()))
    streams = [known.spec(spec).trace(0) for spec in WORKLOADS]
    points = [Point(name, n, LAYOUT, caches=str(caches)) for n in range(len(streams)) for name in strategies]
    began = time.monotonic()
    found = Study(strategies, streams, points, cpu=cpu).measure(
        ROUNDS, SEED, lambda done: note(f"calibration: {round_text(done, ROUNDS, time.monotonic() - began)}")
    )
    note("calibration: counting")
    samples = []
    for number, point in enumerate(points):
        ns = tuple(row[number]["lookup"] for row in found if "lookup" in row[number])
        if len(ns) > ROUNDS // 2:
            cost = counts(strategies[point.strategy], streams[point.stream], RECORDS, alone, caches, cpu)
            samples.append(Sample(point.strategy, WORKLOADS[point.stream], cost, ns))
    return tuple(samples)


def write_calibration(path: Path, found: Calibration) -> None:
    """Write a calibration as JSON, atomically. Raises ResultsError."""
    rows = [
        {"strategy": s.strategy, "workload": s.workload, "cost": dict(s.cost), "ns": list(s.ns)} for s in found.samples
    ]
    write_json(path, {"samples": rows, "alone": dict(found.alone)})


def read_calibration(path: Path) -> Calibration:
    """Read what :func:`write_calibration` wrote. Raises ResultsError for anything else."""
    return read_document(path, Calibration)
