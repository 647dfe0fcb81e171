"""What a simulated cell stores beside its pyperf file: ``simulated/<key>.json`` in the run's folder, one object per
run.

A *run* is one seed on one machine: the given machine (``corner`` is empty), or a corner of the box of its uncertain
parameters. Only the former are in the cell's pyperf file, one process per seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from benchframe.files import write_json
from benchframe.results.document import Count, Number, Numbers, Text, read_document
from benchframe.results.figures import base_label, leading
from benchframe.results.folder import Cell, RunFolder
from benchframe.results.manifest import CellEntry

VERSION = 1
FOLDER = "simulated"
MAX_RUNS, MAX_ROWS, MAX_CPUS = 10_000, 256, 1024


@dataclass(frozen=True)
class FieldCost:
    """A field that had costs: transactions by kind; ns, summed over all CPUs, that its line was in transit, that
    requests queued for it, that CPUs waited for it to be written. ``line`` is the number of its line within the
    record."""

    name: Text
    line: Annotated[int, Meta(ge=-1, le=1 << 20)]
    loads: Count
    stores: Count
    atomics: Count
    transfer: Number
    queue: Number
    wait: Number
    far: Count

    @property
    def structure(self) -> str:
        """The structure to which the field belongs."""
        return self.name.partition(".")[0]

    @property
    def ns(self) -> float:
        """The sum of its times."""
        return self.transfer + self.queue + self.wait

    @property
    def transactions(self) -> int:
        """How often its line was transferred."""
        return self.loads + self.stores + self.atomics


@dataclass(frozen=True)
class PairCost:
    """``reader`` had to fetch a line written by ``writer`` ("": from memory or a cache) ``n`` times, which took ``ns``
    summed over all CPUs."""

    reader: Text
    writer: Text
    n: Count
    ns: Number


@dataclass(frozen=True)
class SimulatedRun:
    """One run: ``window`` ns of simulated time; ``operations`` by figure; ``parts`` ns of all CPUs by cause;
    ``accesses`` modelled, of which ``transfers`` had to fetch a line; ``rounds`` each CPU made on average."""

    seed: Count
    corner: Text
    window: Number
    rounds: Number
    cpus: Annotated[int, Meta(ge=1, le=MAX_CPUS)]
    operations: Annotated[dict[Text, Count], Meta(max_length=64)]
    parts: Numbers
    accesses: Count
    transfers: Count
    fields: Annotated[tuple[FieldCost, ...], Meta(max_length=MAX_ROWS)]
    pairs: Annotated[tuple[PairCost, ...], Meta(max_length=MAX_ROWS)]

    def throughput(self, figure: str) -> float:
        """Operations of ``figure`` per second."""
        return 1e9 * self.operations.get(figure, 0) / self.window if self.window else 0.0

    @property
    def ns(self) -> float:
        """CPU time per operation, all figures together."""
        return sum(self.parts.values()) / max(1, sum(self.operations.values()))


def simulated_path(folder: Path, entry: CellEntry) -> Path:
    """The path of a cell's runs."""
    return folder / FOLDER / f"{entry.key}.json"


def write_runs(folder: Path, entry: CellEntry, runs: Sequence[SimulatedRun]) -> None:
    """Replace a cell's runs. Raises ResultsError."""
    path = simulated_path(folder, entry)
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"version": VERSION, "runs": [asdict(run) for run in runs]})


def read_runs(folder: Path, entry: CellEntry) -> list[SimulatedRun]:
    """A cell's runs, validated; empty without the file. Raises ResultsError."""
    path = simulated_path(folder, entry)
    if not path.exists():
        return []
    return list(read_document(path, _Runs, version=VERSION).runs)


@dataclass(frozen=True)
class _Runs:
    runs: Annotated[tuple[SimulatedRun, ...], Meta(max_length=MAX_RUNS)]


@dataclass(frozen=True)
class SimulatedCell:
    """A cell with its runs. ``figure`` is its leading figure; ``workload`` is the label without the number of CPUs."""

    cell: Cell
    workload: str
    cpus: int
    figure: str
    runs: tuple[SimulatedRun, ...]

    @property
    def strategy(self) -> str:
        """The name of the strategy."""
        return self.cell.entry.strategy

    @property
    def asked(self) -> list[SimulatedRun]:
        """The runs on the given machine, one per seed."""
        return [run for run in self.runs if not run.corner]

    @property
    def throughput(self) -> float:
        """Operations per second on that machine, mean of the seeds."""
        return sum(run.throughput(self.figure) for run in self.asked) / max(1, len(self.asked))

    @property
    def band(self) -> tuple[float, float]:
        """Minimum and maximum over all seeds and corners."""
        found = [run.throughput(self.figure) for run in self.runs]
        return min(found), max(found)

    def parts(self) -> dict[str, float]:
        """CPU time per operation of all figures, ns by part, mean of the seeds."""
        total: dict[str, float] = {}
        for run in self.asked:
            n = max(1, sum(run.operations.values()))
            for name, ns in run.parts.items():
                total[name] = total.get(name, 0.0) + ns / n / len(self.asked)
        return total


def simulated_cells(folder: RunFolder) -> list[SimulatedCell]:
    """Every simulated cell that has runs, in the order workload, strategy, CPUs. Raises ResultsError."""
    if not folder.manifest.simulated:
        return []
    found = []
    for cell in folder.cells():
        runs = tuple(read_runs(folder.path, cell.entry)) if cell.state.state == "ok" else ()
        if any(not run.corner for run in runs):
            found.append(SimulatedCell(cell, base_label(cell), cell.workload.threads, leading(cell), runs))
    order: dict[tuple[str, str], int] = {}
    for one in found:
        order.setdefault((one.workload, one.strategy), len(order))
    return sorted(found, key=lambda one: (order[one.workload, one.strategy], one.cpus))
