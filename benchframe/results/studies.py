"""What is stored beside the cells: strategies' sources, simulated figures, the running kernel's own times, studies.

A simulated cell stores ``simulated/<key>.json`` in the run's folder beside its pyperf file, one object per run. A
*run* is one seed on one machine: the given machine (``corner`` is empty), or a corner of the box of its uncertain
parameters. Only the former are in the cell's pyperf file, one process per seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from msgspec import Meta

from benchframe.errors import ResultsError, disk_error
from benchframe.files import slug, write_json
from benchframe.results.figures import base_label, leading
from benchframe.results.folder import Cell, RunFolder
from benchframe.results.manifest import (
    MAX_CELLS,
    CellEntry,
    Count,
    Digest,
    Name,
    Number,
    Numbers,
    Text,
    Texts,
    checked,
    host,
    read_document,
    read_object,
    wrong,
)

if TYPE_CHECKING:
    from benchframe.strategy import Strategy


# ----------------------------------------------------------------------------------------------------------------------
# The source of each strategy of a run, kept in ``sources.json``.
#
# A report shows the text that was measured, though the plugin may be edited or gone by then. Texts are shown, never
# run.

SOURCES = "sources.json"
MAX_SOURCE = 1 << 18
"""The most characters of one source to store (256 KiB; the longest built-in one has 35)."""
MAX_SOURCES = 4096


@dataclass(frozen=True)
class Source:
    """One plugin's text: ``module`` is its module's name, ``text`` the content of its file, or of all files of its
    package, ``summary`` the strategy's line, ``digest`` sha256 (hex) of ``text``."""

    module: str
    summary: str
    text: str
    digest: str


@dataclass(frozen=True)
class _Entry:
    module: Text
    summary: Text
    digest: Digest


_Texts = Annotated[dict[Digest, Annotated[str, Meta(max_length=MAX_SOURCE)]], Meta(max_length=MAX_SOURCES)]
_Entries = Annotated[dict[Name, _Entry], Meta(max_length=MAX_SOURCES)]


def sources_of(strategies: Iterable[Strategy]) -> dict[str, Source]:
    """The text of each strategy that can be read, by the strategy's name: its file; of a package all files, each under
    a line with its name. O(bytes)."""
    found = {}
    for strategy in strategies:
        with suppress(OSError, UnicodeDecodeError, AttributeError):
            path = Path(strategy.file)
            if path.name == "__init__.py":
                files = sorted(path.parent.glob("*.py"))
                text = "\n\n".join(
                    f"# ==== {file.parent.name}/{file.name} ====\n\n{file.read_text('utf-8')}" for file in files
                )
            else:
                text = path.read_text(encoding="utf-8")
            text = text[:MAX_SOURCE]
            digest = hashlib.sha256(text.encode()).hexdigest()
            found[strategy.name] = Source(strategy.module, strategy.summary, text, digest)
    return found


def write_sources(folder: Path, sources: Mapping[str, Source]) -> None:
    """Write ``sources.json``, each text once (strategies often share a file). Raises ResultsError."""
    texts = {source.digest: source.text for source in sources.values()}
    entries = {}
    for name, source in sources.items():
        entries[name] = {key: value for key, value in asdict(source).items() if key != "text"}
    write_json(folder / SOURCES, {"version": 1, "strategies": entries, "texts": texts})


def read_sources(folder: Path) -> dict[str, Source]:
    """The content that :func:`write_sources` wrote; empty for a run without the file. Raises ResultsError."""
    path = folder / SOURCES
    if not path.exists():
        return {}
    data = read_object(path)
    texts = checked(path, data.get("texts", {}), _Texts, "texts")  # unchanged: their digests cover every character
    found = {}
    for name, entry in checked(path, data.get("strategies", {}), _Entries, "strategies").items():
        text = texts.get(entry.digest)
        if text is None or hashlib.sha256(text.encode()).hexdigest() != entry.digest:
            raise wrong(path, f"texts.{entry.digest}", "has another digest: it was edited")
        found[name] = Source(entry.module, entry.summary, text, entry.digest)
    return found


# ----------------------------------------------------------------------------------------------------------------------
# The running kernel's own times of a run's workloads (``run --host``), kept in ``host.json``.

HOST = "host.json"
_Means = Annotated[tuple[Number, ...], Meta(max_length=1000)]


@dataclass(frozen=True)
class HostWorkload:
    """A workload performed for real: ns per page fault and per mapping call, a mean of each process; empty if there
    were none. ``faults`` and ``calls`` say how many of them a process had, ``strategy`` whose lookup is to be compared
    with a fault, ``cut`` which events are left out, or why; "" if none are."""

    workload: Name
    strategy: Name
    fault: _Means
    mapping: _Means
    faults: Count
    calls: Count
    cut: Text = ""


@dataclass(frozen=True)
class HostFigures:
    """What the kernel ``release`` took for each of the ``workloads``."""

    release: Text
    workloads: Annotated[tuple[HostWorkload, ...], Meta(max_length=MAX_CELLS)]

    @property
    def name(self) -> str:
        """What a table calls it, in the place of a strategy: ``this kernel (6.18.44)``."""
        return f"this kernel ({self.release})"

    def workload(self, label: str) -> HostWorkload | None:
        """The times of workload ``label``, if it was performed."""
        return next((one for one in self.workloads if one.workload == label), None)


def write_host(folder: Path, times: HostFigures) -> None:
    """Write ``host.json``, in place of an earlier one. Raises ResultsError."""
    write_json(folder / HOST, {"version": 1, **asdict(times)})


def read_host(folder: Path) -> HostFigures | None:
    """What :func:`write_host` wrote; None for a run without it. Raises ResultsError."""
    path = folder / HOST
    return read_document(path, HostFigures, version=1) if path.exists() else None


# ----------------------------------------------------------------------------------------------------------------------
# Studies kept beside a run (``explain``, ``breakeven``, ``simulate`` ...): ``studies/NAME.json``, a table and what to
# draw.
#
# A report shows them as sections. They hold texts and numbers only; what is drawn of them is decided by who draws.

STUDIES = "studies"
MAX_STUDIES = 64
"""The most studies of one run that are read."""
MAX_POINTS = 1024
MAX_ROWS = 4096
Kind = Literal["explain", "breakeven", "layout", "fork", "simulate"]


@dataclass(frozen=True)
class Mark:
    """A number with its 95 % interval, at ``x`` (a curve's points) or under ``label`` (bars)."""

    value: float
    low: float
    high: float
    x: float = 0.0
    label: Text = ""

    @property
    def positive(self) -> bool:
        """Whether all of its numbers are above zero, as a ratio's must be."""
        return min(self.value, self.low, self.high) > 0


Marks = Annotated[tuple[Mark, ...], Meta(max_length=MAX_POINTS)]


@dataclass(frozen=True)
class Curve:
    """A ratio against a parameter; at the ``crossings`` (value, low, high on the x axis) it passes through 1."""

    title: Text
    x_title: Text
    y_title: Text
    log: bool
    points: Marks
    crossings: Marks = ()
    below: Text = ""
    """What a ratio below 1 means."""

    def __post_init__(self) -> None:
        """Raises ValueError for points that are not of a ratio, or cannot be on a logarithmic axis."""
        if not self.points or not all(p.positive and (p.x > 0 or not self.log) for p in self.points):
            raise ValueError("points are not points of a ratio")


@dataclass(frozen=True)
class Bars:
    """Numbers by label, each with its interval; ``axis`` has their unit."""

    title: Text
    axis: Text
    items: Marks


@dataclass(frozen=True)
class Series:
    """One strategy's points of a plot; ``low`` and ``high`` of a mark are its band."""

    label: Text
    points: Marks


@dataclass(frozen=True)
class Plot:
    """Numbers of several strategies by a count, both axes logarithmic; ``ideal`` is the line without contention."""

    title: Text
    x_title: Text
    y_title: Text
    series: Annotated[tuple[Series, ...], Meta(max_length=64)]
    ideal: Marks = ()

    def __post_init__(self) -> None:
        """Raises ValueError for points that cannot be on logarithmic axes."""
        every = [mark for marks in (self.ideal, *(one.points for one in self.series)) for mark in marks]
        if not every or not all(mark.positive and mark.x > 0 for mark in every):
            raise ValueError("series are not points above zero")


@dataclass(frozen=True)
class Stack:
    """Bars of parts that add up: (label, ((part, value), ...)) each; ``axis`` has the unit."""

    title: Text
    axis: Text
    bars: Annotated[tuple[tuple[Text, tuple[tuple[Text, float], ...]], ...], Meta(max_length=MAX_POINTS)]


@dataclass(frozen=True)
class SavedStudy:
    """One study: ``title`` and ``note`` in words, its table, its pictures, the ``command`` that repeats it, when
    (``created``) and where (``host``) it was made."""

    kind: Kind
    title: Text
    note: Text
    command: Texts
    heads: Annotated[tuple[Text, ...], Meta(max_length=32)]
    right: tuple[bool, ...]
    rows: Annotated[tuple[tuple[Text, ...], ...], Meta(max_length=MAX_ROWS)]
    notes: Texts
    curves: Annotated[tuple[Curve, ...], Meta(max_length=16)] = ()
    bars: Annotated[tuple[Bars, ...], Meta(max_length=64)] = ()
    strategies: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    created: Text = ""
    hostname: Text = ""
    plots: Annotated[tuple[Plot, ...], Meta(max_length=16)] = ()
    stacks: Annotated[tuple[Stack, ...], Meta(max_length=16)] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for a table that is not a rectangle with a flag for each of its heads."""
        if len(self.right) != len(self.heads):
            raise ValueError("right is not a flag per head")
        for i, row in enumerate(self.rows):
            if len(row) != len(self.heads):
                raise ValueError(f"rows[{i}] does not have {len(self.heads)} members")


def write_study(folder: Path, study: SavedStudy) -> Path:
    """Store ``study`` in the run ``folder``, replacing one with the same title; returns its path. Raises
    ResultsError."""
    path = folder / STUDIES / f"{study.kind}-{slug(study.title.lower(), 80, otherwise='study')}.json"
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise disk_error(path, error, "written") from None
    write_json(path, {"version": 1, **asdict(study), "created": now, "hostname": host()["hostname"]})
    return path


def read_studies(folder: Path) -> tuple[SavedStudy, ...]:
    """The studies stored in a run, by kind and name; empty if there are none. Raises ResultsError."""
    paths = sorted((folder / STUDIES).glob("*.json"))
    if len(paths) > MAX_STUDIES:
        raise ResultsError(folder / STUDIES, f"it holds more than {MAX_STUDIES} studies", "move some of them away")
    found = [read_document(path, SavedStudy, version=1) for path in paths]
    return tuple(sorted(found, key=lambda study: (get_args(Kind).index(study.kind), study.title)))


VERSION = 1
FOLDER = "simulated"
MAX_RUNS, SIMULATED_ROWS, MAX_CPUS = 10_000, 256, 1024


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
    fields: Annotated[tuple[FieldCost, ...], Meta(max_length=SIMULATED_ROWS)]
    pairs: Annotated[tuple[PairCost, ...], Meta(max_length=SIMULATED_ROWS)]

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
