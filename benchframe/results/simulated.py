"""What a simulated cell keeps beside its pyperf file: ``simulated/<key>.json`` in the run's folder, one object per run.

A *run* is one seed on one machine: the machine that was asked for (``corner`` is empty), or a corner of the box of what
its numbers might be. Only the former are in the cell's pyperf file, a process per seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchframe.engine.job import FIGURES
from benchframe.files import Fields, other_version, read_object, write_json
from benchframe.results.figures import base_label, leading
from benchframe.results.folder import Cell, RunFolder
from benchframe.results.manifest import CellEntry

VERSION = 1
FOLDER = "simulated"
MAX_RUNS, MAX_ROWS, MAX_CPUS = 10_000, 256, 1024


@dataclass(frozen=True)
class FieldCost:
    """One field that cost something: transactions by kind; ns of all CPUs that its line was on the way, that requests
    stood in line for it, that CPUs waited for it to be written. ``line`` is which line of its record it lies in."""

    name: str
    line: int
    loads: int
    stores: int
    atomics: int
    transfer: float
    queue: float
    wait: float
    far: int

    @property
    def structure(self) -> str:
        """Whose field it is."""
        return self.name.partition(".")[0]

    @property
    def ns(self) -> float:
        """All of its time."""
        return self.transfer + self.queue + self.wait

    @property
    def transactions(self) -> int:
        """How often its line had to come."""
        return self.loads + self.stores + self.atomics


@dataclass(frozen=True)
class PairCost:
    """``reader`` had to fetch a line since ``writer`` was written ("": it came from memory or a cache): ``n`` times, in
    ``ns`` of all CPUs."""

    reader: str
    writer: str
    n: int
    ns: float


@dataclass(frozen=True)
class SimulatedRun:
    """One run: ``window`` ns of simulated time; ``operations`` by figure; ``parts`` ns of all CPUs by what they went
    into; ``accesses`` modelled, ``transfers`` of them had to fetch a line; ``rounds`` each CPU made on average."""

    seed: int
    corner: str
    window: float
    rounds: float
    cpus: int
    operations: Mapping[str, int]
    parts: Mapping[str, float]
    accesses: int
    transfers: int
    fields: tuple[FieldCost, ...]
    pairs: tuple[PairCost, ...]

    def throughput(self, figure: str) -> float:
        """Operations of ``figure`` per second."""
        return 1e9 * self.operations.get(figure, 0) / self.window if self.window else 0.0

    @property
    def ns(self) -> float:
        """CPU time per operation, all figures together."""
        return sum(self.parts.values()) / max(1, sum(self.operations.values()))


def simulated_path(folder: Path, entry: CellEntry) -> Path:
    """Where a cell's runs are."""
    return folder / FOLDER / f"{entry.key}.json"


def write_runs(folder: Path, entry: CellEntry, runs: Sequence[SimulatedRun]) -> None:
    """Replace a cell's runs; raises ResultsError."""
    path = simulated_path(folder, entry)
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"version": VERSION, "runs": [asdict(run) for run in runs]})


def read_runs(folder: Path, entry: CellEntry) -> list[SimulatedRun]:
    """A cell's runs; none if there is no such file. Checks what it reads; raises ResultsError."""
    path = simulated_path(folder, entry)
    if not path.exists():
        return []
    data = Fields(path, read_object(path))
    if data.data.get("version") != VERSION:
        raise other_version(path, data.data.get("version"), VERSION)
    return [_run(run) for run in data.objects("runs", MAX_RUNS)]


def _run(data: Fields) -> SimulatedRun:
    operations = data.object("operations")
    return SimulatedRun(
        seed=data.integer("seed", 0, 1 << 62),
        corner=data.text("corner", ""),
        window=data.number("window"),
        rounds=data.number("rounds"),
        cpus=data.integer("cpus", 1, MAX_CPUS),
        operations={name: operations.integer(name, 0, 1 << 62, 0) for name in FIGURES if name in operations.data},
        parts=data.numbers("parts"),
        accesses=data.integer("accesses", 0, 1 << 62),
        transfers=data.integer("transfers", 0, 1 << 62),
        fields=tuple(_field(row) for row in data.objects("fields", MAX_ROWS)),
        pairs=tuple(
            PairCost(row.text("reader"), row.text("writer", ""), row.integer("n", 0, 1 << 62), row.number("ns"))
            for row in data.objects("pairs", MAX_ROWS)
        ),
    )


def _field(row: Fields) -> FieldCost:
    return FieldCost(
        name=row.text("name"),
        line=row.integer("line", -1, 1 << 20),
        loads=row.integer("loads", 0, 1 << 62),
        stores=row.integer("stores", 0, 1 << 62),
        atomics=row.integer("atomics", 0, 1 << 62),
        transfer=row.number("transfer"),
        queue=row.number("queue"),
        wait=row.number("wait"),
        far=row.integer("far", 0, 1 << 62),
    )


@dataclass(frozen=True)
class SimulatedCell:
    """A cell with its runs. ``figure`` leads; ``workload`` is the label without the number of CPUs."""

    cell: Cell
    workload: str
    cpus: int
    figure: str
    runs: tuple[SimulatedRun, ...]

    @property
    def strategy(self) -> str:
        """Its name."""
        return self.cell.entry.strategy

    @property
    def asked(self) -> list[SimulatedRun]:
        """The runs on the machine that was asked for, a seed each."""
        return [run for run in self.runs if not run.corner]

    @property
    def throughput(self) -> float:
        """Operations per second on that machine, mean of the seeds."""
        return sum(run.throughput(self.figure) for run in self.asked) / max(1, len(self.asked))

    @property
    def band(self) -> tuple[float, float]:
        """Least and most over all seeds and corners."""
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
