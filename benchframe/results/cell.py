"""The two files of a cell: ``<key>.json``, a pyperf suite, and ``<key>.state.json``, all that pyperf has no place for.

The suite decides which rounds are done. The state is written first: a kill between the two costs one round.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchframe.engine.job import FIGURES, STATES
from benchframe.files import Fields, read_object, write_json

MAX_RUNS = 100_000
MAX_VALUES = 100_000
MAX_POINTS = 10_000
MAX_COSTS = 1000


def cell_key(content: Mapping[str, Any]) -> str:
    """The content hash that names a cell: 128 bits (hex) of sha256 over canonical JSON of all it depends on.

    >>> cell_key({"a": 1, "b": [-1]}) == cell_key({"b": [-1], "a": 1}) != cell_key({"a": 1, "b": [1]})
    True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class LatencyRow:
    """Per-operation latency: ``n`` operations of ``figure`` with ``outcome`` (all, hit, miss); quantiles in ns;
    ``bins`` is the histogram of :mod:`benchframe.engine.latency`, (bin, operations), for outcome ``all``."""

    figure: str
    outcome: str
    n: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    bins: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class CellState:
    """How a cell stands. ``state`` is one of STATES; ``message`` one line; ``detail`` a worker's last words;
    ``event`` the event that was answered wrongly (-1); ``round`` the round of a failure (-1); ``loops`` replays per
    value, fixed by the first round; ``hints`` pyperf's instability warnings by figure; ``cost`` what the counted
    replay found (docs/cost.md names the keys): the same on every machine, empty if none was asked for."""

    state: str = "skipped"
    message: str = "not run yet"
    detail: str = ""
    event: int = -1
    round: int = -1
    loops: int = 0
    counts: Mapping[str, float] = field(default_factory=dict)
    latencies: tuple[LatencyRow, ...] = ()
    timer_overhead_ns: float = 0.0
    threads: Mapping[str, Any] = field(default_factory=dict)
    hints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether the cell will not be timed again."""
        return self.state in ("wrong", "crashed", "timed_out")

    def write(self, path: Path) -> None:
        """Write the state, atomically; raises ResultsError."""
        data = asdict(self)
        for row in data["latencies"]:  # a text, so that a histogram is one line of the file
            row["bins"] = " ".join(f"{number}:{count}" for number, count in row["bins"])
        write_json(path, data)


@dataclass(frozen=True)
class Process:
    """One worker process of one figure: ``values`` and ``warmups`` in ns per operation."""

    round: int
    values: tuple[float, ...]
    warmups: tuple[float, ...]
    loops: int
    operations: int
    metadata: Mapping[str, str | int | float]

    @property
    def mean(self) -> float:
        """The process mean in ns: the unit of all statistics."""
        return sum(self.values) / len(self.values)


def read_state(path: Path) -> CellState:
    """The state of a cell; a cell without the file was not run yet. Raises ResultsError."""
    if not path.exists():
        return CellState()
    data = Fields(path, read_object(path))
    return CellState(
        state=data.text("state", pattern="|".join(STATES)),
        message=data.text("message", ""),
        detail=data.text("detail", ""),
        event=data.integer("event", -1, 1 << 62, -1),
        round=data.integer("round", -1, MAX_RUNS, -1),
        loops=data.integer("loops", 0, 1 << 40, 0),
        counts=data.numbers("counts"),
        latencies=tuple(_latency(row) for row in data.objects("latencies", 64)),
        timer_overhead_ns=data.number("timer_overhead_ns", 0.0),
        threads=_threads(data.object("threads")) if data.data.get("threads") else {},
        cost=data.numbers("cost", MAX_COSTS),
        hints={figure: data.object("hints").texts(figure) for figure in FIGURES if figure in data.object("hints").data},
    )


def _threads(data: Fields) -> dict[str, Any]:
    """What a cell with threads has beside: counts, and per figure the points (ns, operations) of its histogram."""
    histograms: dict[str, list[tuple[float, int]]] = {}
    inside = data.object("histograms")
    for figure in FIGURES:
        if figure in inside.data:
            points = []
            for pair in inside.items(figure, MAX_POINTS):
                if not isinstance(pair, list) or len(pair) != 2:
                    raise inside.wrong(figure, "is not a list of pairs")
                point = Fields(inside.where, {"ns": pair[0], "n": pair[1]}, inside.inside)
                points.append((point.number("ns"), point.integer("n", 0, 1 << 62)))
            histograms[figure] = points
    return {
        "threads": data.integer("threads", 1, 1024),
        "cores": data.integer("cores", 1, 1 << 20),
        "ordered": data.integer("ordered", 0, 1),
        "address_spaces": data.integer("address_spaces", 1, 1 << 20),
        "histograms": histograms,
    }


def _latency(data: Fields) -> LatencyRow:
    return LatencyRow(
        figure=data.text("figure", pattern="[a-z_]{1,40}"),
        outcome=data.text("outcome", pattern="[a-z_]{1,40}"),
        n=data.integer("n", 0, 1 << 62),
        p50=data.number("p50"),
        p90=data.number("p90"),
        p99=data.number("p99"),
        p999=data.number("p999"),
        max=data.number("max"),
        bins=_bins(data),
    )


def _bins(data: Fields) -> tuple[tuple[int, int], ...]:
    """``bin:operations`` separated by spaces, with rising bins; a row without them has none."""
    text = data.text("bins", "", pattern=r"(\d{1,3}:\d{1,18}( (?!$)|$))*")
    pairs = tuple((int(number), int(count)) for number, _, count in (pair.partition(":") for pair in text.split()))
    if any(a[0] >= b[0] for a, b in itertools.pairwise(pairs)):
        raise data.wrong("bins", "is not in the order of bins")
    return pairs


def read_processes(path: Path) -> dict[str, list[Process]]:
    """Figures of a cell's pyperf file, each with its processes in round order; calibration runs are left out.

    Checks what it reads and needs no pyperf. A cell without the file has no figures. Raises ResultsError.
    """
    if not path.exists():
        return {}
    data = Fields(path, read_object(path))
    common = _metadata(data)
    figures: dict[str, list[Process]] = {}
    for bench in data.objects("benchmarks", 64):
        shared = {**common, **_metadata(bench)}
        runs = [_process(run, shared) for run in bench.objects("runs", MAX_RUNS) if run.data.get("values")]
        name = str(runs[0].metadata.get("name", "")) if runs else ""
        if name not in FIGURES or name in figures:
            raise bench.wrong("", f"is not one of the figures {', '.join(FIGURES)}, or is there twice")
        if len({run.round for run in runs}) != len(runs):
            raise bench.wrong("runs", "holds a round twice")
        figures[name] = sorted(runs, key=lambda run: run.round)
    return figures


def _metadata(data: Fields) -> dict[str, str | int | float]:
    value = data.data.get("metadata", {})
    if not isinstance(value, dict) or len(value) > 1000:
        raise data.wrong("metadata", "is not a small object")
    return {str(k): v for k, v in value.items() if isinstance(v, (str, int, float)) and len(str(k)) < 200}


def _process(data: Fields, shared: Mapping[str, str | int | float]) -> Process:
    metadata = {**shared, **_metadata(data)}
    checked = Fields(data.where, metadata, data.inside + "metadata.")
    numbers = data.items("values", MAX_VALUES)
    values = tuple(Fields(data.where, {"values": v}, data.inside).number("values") * 1e9 for v in numbers)
    if not all(v > 0 for v in values):
        raise data.wrong("values", "holds a time that is not above zero")
    warmups = []
    for pair in data.items("warmups", MAX_VALUES):
        if not isinstance(pair, list) or len(pair) != 2:
            raise data.wrong("warmups", "is not a list of pairs")
        warmups.append(Fields(data.where, {"warmups": pair[1]}, data.inside).number("warmups") * 1e9)
    return Process(
        round=checked.integer("benchframe_round", 0, MAX_RUNS),
        values=values,
        warmups=tuple(warmups),
        loops=checked.integer("loops", 1, 1 << 40, 1),
        operations=checked.integer("inner_loops", 1, 1 << 40, 1),
        metadata=metadata,
    )
