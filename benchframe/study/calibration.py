"""The calibration of this machine: cells counted and timed here, once, kept under the content that decides them.

The set is strategies that walk pointers, from no cache to three kinds, on streams from 20 to 3 000 VMAs, with and
without a fault's work, and two recorded programs. Strategies whose time is a chain of arithmetic (`sorted_array`,
`btree`) are left out: no term of the model stands for such a chain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchframe.dialect.store import cache_folder
from benchframe.engine.content import model_digest, model_name, strategy_digest
from benchframe.engine.cost import count_cost
from benchframe.engine.probe import Point, Study
from benchframe.errors import ResultsError
from benchframe.files import Fields, read_object, write_json
from benchframe.results.environment import host, versions
from benchframe.study import units
from benchframe.study.model import Sample

if TYPE_CHECKING:
    from benchframe.registry import Registry

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
"""Every event is counted, twice or more: branches and lines are then as well known as in a timed replay."""
SEED = 20091218
Note = Callable[[str], None]


@dataclass(frozen=True)
class Calibration:
    """``samples``: whole lookups; ``alone``: ns of single operations by term (:mod:`benchframe.study.units`)."""

    samples: tuple[Sample, ...]
    alone: Mapping[str, float]


def calibration(known: Registry, note: Note, *, anew: bool = False, cpu: int = -1) -> Calibration:
    """The calibration of this machine: read if it was taken with the same code here, else taken (some two minutes) and
    kept in the cache folder. ``note`` is told what goes on. Raises ProbeError, and UnknownName for a built-in
    strategy that is not there."""
    strategies = {name: known.strategy(name) for name in STRATEGIES}
    content = {
        "strategies": {name: strategy_digest(strategy) for name, strategy in strategies.items()},
        "workloads": WORKLOADS,
        "rounds": [ROUNDS, RECORDS, SEED, units.VERSION],
        "model": model_name(model_digest()),
        "host": dict(host()),
        "versions": dict(versions()),
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()[:32]
    path = cache_folder() / "calibration" / f"{key}.json"
    if path.is_file() and not anew:
        try:
            return read_calibration(path)
        except ResultsError as error:
            note(f"{error}; calibrating anew")
    found = Calibration(_take(known, strategies, note, cpu), units.measured())
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_calibration(path, found)
    except (OSError, ResultsError) as error:
        note(f"the calibration is not kept: {error}")
    return found


def _take(known: Registry, strategies: Mapping[str, Any], note: Note, cpu: int) -> tuple[Sample, ...]:
    from benchframe.engine.native import compile_strategies

    note("calibrating this machine's cost model: some two minutes, once")
    compile_strategies(list(strategies.values()))
    streams = [known.spec(spec).trace(0) for spec in WORKLOADS]
    points = [Point(name, number) for number in range(len(streams)) for name in strategies]
    found = Study(strategies, streams, points, cpu=cpu).measure(
        ROUNDS, SEED, lambda done: note(f"calibration: round {done + 1} of {ROUNDS}")
    )
    note("calibration: counting")
    samples = []
    for number, point in enumerate(points):
        ns = tuple(row[number]["lookup"] for row in found if "lookup" in row[number])
        if len(ns) > ROUNDS // 2:
            cost = count_cost(strategies[point.strategy], streams[point.stream], RECORDS).numbers
            samples.append(Sample(point.strategy, WORKLOADS[point.stream], cost, ns))
    return tuple(samples)


def write_calibration(path: Path, found: Calibration) -> None:
    """Write a calibration as JSON, atomically; raises ResultsError."""
    rows = [
        {"strategy": s.strategy, "workload": s.workload, "cost": dict(s.cost), "ns": list(s.ns)} for s in found.samples
    ]
    write_json(path, {"samples": rows, "alone": dict(found.alone)})


def read_calibration(path: Path) -> Calibration:
    """Read what :func:`write_calibration` wrote; raises ResultsError for anything else."""
    found = []
    whole = Fields(path, read_object(path))
    for row in whole.objects("samples", 10_000):
        times = row.items("ns", 10_000)
        ns = tuple(Fields(path, {"ns": value}, row.inside).number("ns") for value in times)
        if not ns:
            raise row.wrong("ns", "is empty")
        found.append(Sample(row.text("strategy"), row.text("workload"), row.numbers("cost", 1000), ns))
    return Calibration(tuple(found), whole.numbers("alone", 100))
