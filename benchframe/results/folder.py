"""A run's folder: its cells as files, validated when read."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from msgspec import Meta

from benchframe.engine.job import COLD, FIGURES, STATES
from benchframe.engine.session import STRETCH
from benchframe.errors import ResultsError, disk_error
from benchframe.files import write_atomic, write_json
from benchframe.results.manifest import (
    MANIFEST,
    CellEntry,
    Count,
    Manifest,
    Number,
    Numbers,
    Positive,
    Text,
    Texts,
    WorkloadEntry,
    checked,
    read_document,
    read_manifest,
    read_object,
    wrong,
)
from benchframe.stats import Judging

if TYPE_CHECKING:
    import pyperf  # type: ignore[import-untyped]


# ----------------------------------------------------------------------------------------------------------------------
# The two files of a cell: ``<key>.json``, a pyperf suite, and ``<key>.state.json``, all that pyperf cannot store.
#
# The suite decides which rounds are done. The state is written first: a kill between the two costs one round.

MAX_RUNS = 100_000
MAX_VALUES = 100_000
MAX_POINTS = 10_000

Word = Annotated[str, Meta(pattern=r"^[a-z_]{1,40}\Z")]
Round = Annotated[int, Meta(ge=-1, le=MAX_RUNS)]
Histogram = Annotated[tuple[tuple[Number, Count], ...], Meta(max_length=MAX_POINTS)]
"""(ns, operations) each."""


def cell_key(content: Mapping[str, Any]) -> str:
    """The content hash that names a cell: 128 bits (hex) of sha256 over canonical JSON of everything that the cell
    depends on.

    >>> cell_key({"a": 1, "b": [-1]}) == cell_key({"b": [-1], "a": 1}) != cell_key({"a": 1, "b": [1]})
    True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class LatencyRow:
    """Per-operation latency: ``n`` operations of ``figure`` with ``outcome`` (all, hit, miss); quantiles in ns;
    ``bins`` is the histogram of :mod:`benchframe.engine.session`, (bin, operations), for outcome ``all``."""

    figure: Word
    outcome: Word
    n: Count
    p50: Number
    p90: Number
    p99: Number
    p999: Number
    max: Number
    bins: tuple[tuple[int, int], ...] = ()


class ThreadsFound(TypedDict, total=False):
    """What a cell with real threads has in addition to its figures; ``histograms`` by figure. Empty without threads."""

    threads: Annotated[int, Meta(ge=1, le=1024)]
    cores: Positive
    ordered: Annotated[int, Meta(ge=0, le=1)]
    address_spaces: Positive
    histograms: Annotated[dict[Word, Histogram], Meta(max_length=64)]


@dataclass(frozen=True)
class CellState:
    """The state of a cell. ``state`` is one of STATES; ``message`` one line; ``detail`` the end of a worker's stderr;
    ``event`` the event that was answered wrongly (-1: none); ``round`` the round of a failure (-1); ``loops`` replays
    per value, fixed by the first round; ``hints`` pyperf's instability warnings by figure; ``cost`` what the counted
    replay found (docs/cost.md names the keys): the same on every machine, empty if it was not asked for."""

    state: Annotated[str, Meta(pattern=f"^({'|'.join(STATES)})\\Z")] = "skipped"
    message: Text = "not run yet"
    detail: Text = ""
    event: Annotated[int, Meta(ge=-1, le=1 << 62)] = -1
    round: Round = -1
    loops: Annotated[int, Meta(ge=0, le=1 << 40)] = 0
    counts: Numbers = field(default_factory=dict)
    latencies: Annotated[tuple[LatencyRow, ...], Meta(max_length=64)] = ()
    timer_overhead_ns: Number = 0.0
    threads: ThreadsFound = field(default_factory=ThreadsFound)
    hints: Annotated[dict[Word, Texts], Meta(max_length=64)] = field(default_factory=dict)
    cost: Numbers = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether the cell will not be timed again."""
        return self.state in ("wrong", "crashed", "timed_out")

    def write(self, path: Path) -> None:
        """Write the state, atomically. Raises ResultsError."""
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
    """The state of a cell; without the file, that of a cell that has not run yet. Raises ResultsError."""
    if not path.exists():
        return CellState()
    data = read_object(path)
    rows = data.get("latencies")
    for i, row in enumerate(rows if isinstance(rows, list) else ()):
        if isinstance(row, dict) and "bins" in row:
            row["bins"] = _bins(path, f"latencies[{i}].bins", row["bins"])
    return checked(path, {"state": "", "message": "", **data}, CellState)


def _bins(path: Path, member: str, text: object) -> list[list[int]]:
    """``bin:operations`` separated by spaces, with rising bins."""
    if not isinstance(text, str) or not re.fullmatch(r"(\d{1,3}:\d{1,18}( (?!$)|$))*", text):
        raise wrong(path, member, "is not of the form 'bin:operations bin:operations'")
    pairs = [[int(part) for part in pair.split(":")] for pair in text.split()]
    if any(a[0] >= b[0] for a, b in itertools.pairwise(pairs)):
        raise wrong(path, member, "is not in the order of bins")
    return pairs


@dataclass(frozen=True)
class _PyperfRun:
    """One process, as pyperf writes it: seconds per operation; of a warm-up (loops, seconds)."""

    values: Annotated[tuple[Annotated[float, Meta(gt=0)], ...], Meta(max_length=MAX_VALUES)] = ()
    warmups: Annotated[tuple[tuple[int, Number], ...], Meta(max_length=MAX_VALUES)] = ()
    metadata: Annotated[dict[Text, Any], Meta(max_length=1000)] = field(default_factory=dict)


@dataclass(frozen=True)
class _PyperfBenchmark:
    runs: Annotated[tuple[_PyperfRun, ...], Meta(max_length=MAX_RUNS)] = ()
    metadata: Annotated[dict[Text, Any], Meta(max_length=1000)] = field(default_factory=dict)


@dataclass(frozen=True)
class _PyperfSuite:
    benchmarks: Annotated[tuple[_PyperfBenchmark, ...], Meta(max_length=64)] = ()
    metadata: Annotated[dict[Text, Any], Meta(max_length=1000)] = field(default_factory=dict)


@dataclass(frozen=True)
class _RunMetadata:
    """The numbers that are read from a run's metadata."""

    benchframe_round: Annotated[int, Meta(ge=0, le=MAX_RUNS)]
    loops: Positive = 1
    inner_loops: Positive = 1


def read_processes(path: Path) -> dict[str, list[Process]]:
    """Figures of a cell's pyperf file, each with its processes in round order; calibration runs are left out.

    Validates the file and does not need pyperf. A cell without the file has no figures. Raises ResultsError.
    """
    if not path.exists():
        return {}
    suite = read_document(path, _PyperfSuite)
    figures: dict[str, list[Process]] = {}
    for number, bench in enumerate(suite.benchmarks):
        member = f"benchmarks[{number}]"
        shared = {**suite.metadata, **bench.metadata}
        runs = [
            _process(path, f"{member}.runs[{i}].metadata", run, shared)
            for i, run in enumerate(bench.runs)
            if run.values
        ]
        name = str(runs[0].metadata.get("name", "")) if runs else ""
        if name not in (*FIGURES, COLD) or name in figures:
            raise wrong(path, member, f"is not one of the figures {', '.join(FIGURES)} and {COLD}, or is there twice")
        if len({run.round for run in runs}) != len(runs):
            raise wrong(path, f"{member}.runs", "holds a round twice")
        figures[name] = sorted(runs, key=lambda run: run.round)
    return figures


def _process(path: Path, member: str, run: _PyperfRun, shared: Mapping[str, Any]) -> Process:
    metadata = {key: v for key, v in {**shared, **run.metadata}.items() if isinstance(v, (str, int, float))}
    numbers = checked(path, metadata, _RunMetadata, member)
    return Process(
        round=numbers.benchframe_round,
        values=tuple(value * 1e9 for value in run.values),
        warmups=tuple(seconds * 1e9 for _, seconds in run.warmups),
        loops=numbers.loops,
        operations=numbers.inner_loops,
        metadata=metadata,
    )


# ----------------------------------------------------------------------------------------------------------------------
# Which processes of a cell are used: those with at least one undisturbed replay.
#
# A process that was disturbed from beginning to end gives another machine's times: 10 to 60 % longer, and all of
# them. That it was is told by its control (:mod:`benchframe.engine.session`), which is the same code for every
# strategy and holds none of the strategy's, so what is left out does not depend on what was measured.

FEWEST = 2
"""With fewer undisturbed processes than this, all count: a spread needs two."""


def calm(processes: Sequence[Process]) -> list[Process]:
    """Those of one figure's ``processes`` that are used.

    A process is left out if all its replays were disturbed, or if its undisturbed level is more than STRETCH above the
    lowest of all: then it took a disturbed machine for an undisturbed one, as the first process of a cell may.
    Processes without this record (older results, threads) are used. O(processes).
    """
    lowest = min((found for process in processes if (found := level(process)) > 0), default=0.0)
    left = [p for p in processes if not restless(p) and level(p) <= STRETCH * lowest]
    return left if len(left) >= FEWEST else list(processes)


def restless(process: Process) -> bool:
    """Whether all its replays were disturbed, by its own judgement."""
    return number(process, "benchframe_replays") > 0 and not number(process, "benchframe_quiet")


def level(process: Process) -> float:
    """The undisturbed level of its control, in cycles per replay; 0 if it is not recorded."""
    return number(process, "benchframe_control")


def number(process: Process, name: str) -> float:
    """A non-negative number from its metadata; 0 for anything else."""
    value = process.metadata.get(name, 0)
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1e18 else 0.0


# ----------------------------------------------------------------------------------------------------------------------
# A run's folder: ``manifest.json``, ``cells/<key>.json`` and ``cells/<key>.state.json``.
#
# Every file is replaced as a whole, so a reader, a full disk and a kill at any moment see a folder that is valid.

RUNS = Path("reports/runs")
"""The folder of runs, below the current folder."""


@dataclass(frozen=True)
class Cell:
    """One cell as read: its entry in the run, its state, its processes by figure."""

    entry: CellEntry
    workload: WorkloadEntry
    state: CellState
    figures: dict[str, list[Process]]
    judging: Judging = field(default_factory=Judging)
    """How the run's verdicts are reached."""

    @property
    def baseline(self) -> bool:
        """Whether the other cells of its workload are compared with this one."""
        return self.entry.strategy == self.workload.baseline

    def rounds(self, figure: str) -> dict[int, float]:
        """Process means (ns per operation) of a figure by round, of the processes that are used (:func:`calm`); empty
        if the trace has no such operation."""
        return {process.round: process.mean for process in calm(self.figures.get(figure, ()))}

    @property
    def done(self) -> set[int]:
        """The number of rounds on disk."""
        return {process.round for processes in self.figures.values() for process in processes}


class RunFolder:
    """A run on disk. :meth:`create` makes one, :meth:`open` reads one; ``manifest`` is kept in memory."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def create(cls, path: Path, manifest: Manifest) -> RunFolder:
        """Create the folder (which must not exist yet) and its manifest. Raises ResultsError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            (path / "cells").mkdir()
        except FileExistsError:
            raise ResultsError(path, "it exists already", "continue it with --resume, or choose another -o") from None
        except OSError as error:
            raise disk_error(path, error, "written") from None
        manifest.write(path)
        return cls(path, manifest)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Read and check the manifest. Raises ResultsError."""
        return cls(path, read_manifest(path))

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        manifest.write(self.path)
        self.manifest = manifest

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run against a second benchframe that would write to it. Raises ResultsError if one does.

        The lock is the kernel's (flock): a killed process leaves none behind.
        """
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise disk_error(self.path, error, "read") from None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ResultsError(self.path, "another benchframe is working on it", "wait until it ends") from None
            yield
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def spool(self) -> Iterator[Path]:
        """A scratch folder inside the run, empty at first, removed afterwards; also removes what a killed session
        left."""
        path = self.path / "spool"
        for part in self.path.rglob(".*.part"):
            part.unlink(missing_ok=True)
        try:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        except OSError as error:
            raise disk_error(path, error, "written") from None
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def suite_path(self, entry: CellEntry) -> Path:
        """The cell's pyperf file."""
        return self.path / "cells" / f"{entry.key}.json"

    def state_path(self, entry: CellEntry) -> Path:
        """The cell's state file."""
        return self.path / "cells" / f"{entry.key}.state.json"

    def cell(self, entry: CellEntry) -> Cell:
        """Read one cell. Raises ResultsError."""
        return Cell(
            entry,
            self.manifest.workload(entry.workload),
            read_state(self.state_path(entry)),
            read_processes(self.suite_path(entry)),
            self.manifest.options.judging,
        )

    def cells(self) -> list[Cell]:
        """Read all cells in the manifest's order. Raises ResultsError."""
        return [self.cell(entry) for entry in self.manifest.cells]

    def write_state(self, entry: CellEntry, state: CellState) -> None:
        """Replace a cell's state."""
        state.write(self.state_path(entry))

    def add_suite(self, entry: CellEntry, data: dict[str, Any]) -> pyperf.BenchmarkSuite:
        """Add one process's suite (as JSON data) to the cell's file, atomically; returns the whole suite.

        Raises ResultsError if pyperf finds that the two were measured differently (another CPU, Python, ASLR).
        """
        import pyperf

        path = self.suite_path(entry)
        new = pyperf.BenchmarkSuite.loads(json.dumps(_without_paths(data)))
        suite = new
        if path.exists():
            read_processes(path)  # checked by us before pyperf trusts it
            suite = pyperf.BenchmarkSuite.load(str(path))
            try:
                suite.add_runs(new)
            except ValueError as error:
                raise ResultsError(
                    path, str(error), "start a new run: this one was measured on another machine"
                ) from None
        buffer = io.StringIO()
        suite.dump(buffer)
        write_atomic(path, buffer.getvalue().encode())
        return suite

    def discard_if_empty(self) -> bool:
        """Remove the folder if nothing was measured in it, so that ``last`` does not name it. Returns whether it was
        removed."""
        if any((self.path / "cells").glob("*.json")):
            return False
        try:
            with self.locked():
                shutil.rmtree(self.path, ignore_errors=True)
        except ResultsError:  # another benchframe is working in it
            return False
        return True

    def forget(self, entry: CellEntry) -> None:
        """Remove a cell's files: its strategy was edited, so the figures belong to another program."""
        for path in (self.suite_path(entry), self.state_path(entry)):
            path.unlink(missing_ok=True)


_PATHS = ("python_executable", "python_cflags", "python_config_args")
"""Metadata of pyperf that decide no figure but name a user's folders: a run may be given to anyone."""


def _without_paths(data: dict[str, Any]) -> dict[str, Any]:
    """A suite's JSON data without the metadata in _PATHS."""

    def clean(part: dict[str, Any]) -> dict[str, Any]:
        metadata = {key: value for key, value in part.get("metadata", {}).items() if key not in _PATHS}
        return {**part, "metadata": metadata} if "metadata" in part else part

    benchmarks = [
        {**clean(bench), "runs": [clean(run) for run in bench.get("runs", ())]} for bench in data.get("benchmarks", ())
    ]
    return {**clean(data), "benchmarks": benchmarks}


def find_run(name: str, root: Path = RUNS) -> Path:
    """The folder of run ``name``: a path, the name of a folder below ``root`` or its beginning, ``last``, or
    ``DIR/last``, or a name that ``run --save-baseline`` gave.

    Raises ResultsError, naming the newest runs, if there is none or more than one.
    """
    path = Path(name)
    if path.name == "last" and name != "last" and not path.exists():
        return find_run("last", path.parent)
    if name != "last" and ((path / MANIFEST).is_file() or path.exists()):
        return path.parent if path.name == MANIFEST else path
    runs = list_runs(root)
    if not runs:
        raise ResultsError(name, f"there is no run in {root}", "make one with `benchframe run`")
    if name == "last":
        return runs[-1]
    called = baseline_of(name, root)
    found = [run for run in runs if run.name == name] or [run for run in runs if run.name == called]
    found = found or [run for run in runs if run.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    newest = ", ".join(run.name for run in reversed(runs[-3:]))
    what = f"{len(found)} runs begin like this" if found else f"no such run in {root}"
    raise ResultsError(name, what, f"the newest are {newest}; `last` names the newest")


BASELINES = "baselines"
"""The folder beside the runs that keeps the names given to them: a file each, whose text is the run's own name."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


def save_baseline(name: str, run: Path) -> None:
    """Give ``run`` the name ``name``, for :func:`find_run` in the same folder; an earlier run may lose it.

    Raises ResultsError: the name cannot be used, or the disk refuses.
    """
    check_baseline(name)
    path = run.parent / BASELINES / name
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, f"{run.resolve().name}\n".encode())
    except OSError as error:
        raise disk_error(path, error, "written") from None


def check_baseline(name: str) -> None:
    """Raise ResultsError if a run cannot be called so."""
    if not _NAME.fullmatch(name) or name == "last":
        raise ResultsError(name, "a run cannot be called so", "use letters, digits, '.', '_', '+' and '-', not `last`")


def baseline_of(name: str, root: Path) -> str:
    """The name of the run that is called ``name``; "" if none is."""
    if not _NAME.fullmatch(name):
        return ""
    try:
        with (root / BASELINES / name).open("rb") as file:
            return file.read(256).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def list_runs(root: Path = RUNS) -> list[Path]:
    """All run folders below ``root``, oldest first (their names begin with the date)."""
    return sorted(p.parent for p in root.glob(f"*/{MANIFEST}"))
