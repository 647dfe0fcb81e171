"""What single operations take on this machine, each measured alone: what a fitted cost model is drawn towards.

A calibration of whole lookups cannot tell terms apart that go together: each strategy under mmap_lock does two atomic
operations, so their cost hides in the base. Loops that do one thing only can: a chain of loads that each need the one
before, from a small table and from one that no first-level cache holds; a branch that a coin decides; a locked
addition; loads and branches that need nothing of each other. A walk overlaps
what a loop on its own cannot, so these are priors of the fit, not its result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.dialect import Field, Slab, Struct, fetch_add, native
from benchframe.dialect.units import Units, UnitSpec

Array = npt.NDArray[Any]
VERSION = 1
"""Changes when a loop does: part of a calibration's key."""
REPEATS = 25
"""Timings of a loop; the shortest counts, as disturbances only add."""
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
CELL = Slab("CELL", cell, "cell_base")


@native
def chained(b, count):
    """``count`` loads, each of the place that the one before gave."""
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
    """One of the loops."""
    if which == CHAIN:
        return chained(b, count)
    if which == INDEPENDENT:
        return independent(b, count)
    if which == ATOMIC:
        return locked(b, count)
    b.coin = int(which == COIN)
    return tossed(b, count)


def measured(iterations: int = ITERATIONS, repeats: int = REPEATS) -> dict[str, float]:
    """ns of each term of the model (study.model.TERMS) as the loops have it. Some 0.2 s, and a compile the first time.

    ``depth``: a dependent load that the first-level cache answers. ``far steps``: what one takes more if only the
    second level has it. ``work``: a load or branch of a loop that
    overlaps all. ``mispredictions``: of a random branch every other one is. ``lines``: nothing of their own.
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
        "lines": 0.0,
        "far steps": max(0.0, chains["l2"] - chains["l1"]),
    }


def _machine(count: int) -> tuple[Array, Array]:
    """The records: one cycle through all of them in random order. The second array is what the first points to."""
    cells = np.zeros(count, cell.dtype)
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
