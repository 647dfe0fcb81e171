"""A run's manifest: what was run, where and with which versions; and validated reading of the JSON files of a run.

JSON files that benchframe wrote may have been changed by anyone in between. :func:`read_document`
returns a dataclass whose annotations say what is allowed: types, ranges, lengths, patterns (msgspec checks them);
``__post_init__`` checks conditions on several members. Every error names the file and the member. Texts come without
control characters: a results file must not control the terminal that shows it.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from benchframe.engine.caches import Caches, from_text
from benchframe.engine.job import COST_RECORDS
from benchframe.errors import ResultsError
from benchframe.files import printable, read_limited, write_json
from benchframe.stats import WITHIN, Judging

MAX_FILE = 1 << 26
"""The size of the largest results file that is read, in bytes (64 MiB; a rigorous cell has some 200 KiB)."""
MAX_TEXT = 1 << 16

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Texts = Annotated[tuple[Text, ...], msgspec.Meta(max_length=4096)]
Words = Annotated[Mapping[Text, Text], msgspec.Meta(max_length=256)]
"""A few texts by name."""
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""A sha256."""
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
Number = Annotated[float, msgspec.Meta(ge=0)]
Numbers = Annotated[Mapping[Text, float], msgspec.Meta(max_length=1000)]
"""Some numbers by name; they may be negative."""

T = TypeVar("T")
_MEND = "the file is damaged: restore it, or remove it and continue with --resume"
_MEND_MANIFEST = "the file is damaged: restore it from a copy, or repeat the run"
_PLACE = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
_MISSING = re.compile(r"Object missing required field `(.*)`$")


def read_document(path: Path, kind: type[T], *, version: int | None = None) -> T:
    """The JSON object in ``path`` as a ``kind``; members that ``kind`` does not have are ignored.

    With ``version``, the object's member ``version`` must have this value. Raises ResultsError. O(bytes).
    """
    data = read_object(path)
    if version is not None and (found := data.get("version")) != version:
        told = f"of version {found}" if type(found) is int else "without a version"
        mend = "read it with the version of benchframe that wrote it, or repeat the run"
        raise ResultsError(path, f"it is {told}, and this benchframe reads version {version}", mend)
    return checked(path, data, kind)


def checked(path: Path, data: object, kind: type[T], inside: str = "") -> T:
    """``data``, the member ``inside`` of ``path``, as a ``kind``. Raises ResultsError, which names the wrong member."""
    try:
        msgspec.convert(data, kind, str_keys=True)  # patterns must see the control characters
        return msgspec.convert(clean(data), kind, str_keys=True)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        member, what = (place[1], text[: place.start()]) if place else ("", text)
        if missing := _MISSING.match(what):
            member, what = f"{member}.{missing[1]}".lstrip("."), "is missing"
        raise wrong(path, ".".join(filter(None, (inside, member))), what[0].lower() + what[1:]) from None


def wrong(path: Path, member: str, what: str) -> ResultsError:
    """The error for a member of ``path`` ("" stands for the whole file)."""
    subject = f"member '{member[:200]}': " if member else ""
    return ResultsError(path, printable(subject + what), _mend(path))


def read_object(path: Path) -> dict[str, Any]:
    """One JSON object of at most MAX_FILE bytes, not checked any further. Raises ResultsError for anything else."""
    data = read_limited(path, MAX_FILE, _mend(path))
    try:
        value = json.loads(data, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ResultsError(path, "it is nested too deeply", _mend(path)) from None
    except ValueError as error:
        raise ResultsError(path, f"it is not JSON ({error})", _mend(path)) from None
    if not isinstance(value, dict):
        raise ResultsError(path, "it is not a JSON object", _mend(path))
    return value


def clean(value: Any) -> Any:
    """``value`` with every text, including keys, made :func:`printable`. O(size)."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [clean(one) if isinstance(one, (str, list, dict)) else one for one in value]
    if isinstance(value, dict):
        return {printable(key): clean(one) for key, one in value.items()}
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number here")
    return number


def _mend(path: Path) -> str:
    """What to do about a damaged file: a run can do without one of its cells, but not without its manifest."""
    return _MEND_MANIFEST if path.name == "manifest.json" else _MEND


# ----------------------------------------------------------------------------------------------------------------------
# Where a run was made: versions, host, and what makes figures unstable on this machine.

_PACKAGES = ("benchframe", "numba", "llvmlite", "numpy", "pyperf")


def versions() -> dict[str, str]:
    """Versions of everything that decides a figure besides the strategy, the trace and the host."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def host() -> dict[str, str]:
    """The properties of the machine that decide figures: runs are not comparable if one of these differs."""
    return {
        "hostname": socket.gethostname(),
        "cpu": _cpu_model(),
        "cpus": str(os.cpu_count() or 1),
        "machine": platform.machine(),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def noise() -> list[str]:
    """Reasons to expect noise, one line each: other load, frequency scaling, no ASLR. Linux only."""
    found = []
    with suppress(OSError):
        load, cpus = os.getloadavg()[0], os.cpu_count() or 1
        if load > 0.5 * cpus:
            found.append(f"other programs keep the machine busy (load {load:.1f} on {cpus} CPUs)")
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor not in ("", "performance"):
        found.append(f"the CPU frequency governor is '{governor}'; 'performance' is steadier")
    if (
        _read("/sys/devices/system/cpu/intel_pstate/no_turbo") == "0"
        or _read("/sys/devices/system/cpu/cpufreq/boost") == "1"
    ):
        found.append("turbo frequencies are on: figures depend on heat")
    if _read("/proc/sys/kernel/randomize_va_space") == "0":
        found.append("address space randomisation is off: all processes share one layout of the heap")
    if " hypervisor" in _read("/proc/cpuinfo", 1 << 16):
        found.append("this is a virtual machine: other guests share the CPUs and caches")
    return found


def differences(then: dict[str, str], now: dict[str, str]) -> list[str]:
    """``name: then -> now`` for each member that differs."""
    return [
        f"{k}: {then.get(k, 'none')} -> {now.get(k, 'none')}"
        for k in sorted({*then, *now})
        if then.get(k) != now.get(k)
    ]


def _cpu_model() -> str:
    for line in _read("/proc/cpuinfo", 1 << 16).splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.processor() or sys.platform


def _read(path: str, limit: int = 4096) -> str:
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return printable(file.read(limit).strip())
    except OSError:
        return ""


# ----------------------------------------------------------------------------------------------------------------------
# The manifest of a run: what to run, on what machine, with which schedule; enough to continue or repeat it.
#
# ``manifest.json`` holds no figures. Cells are listed in the order in which the user named them.

VERSION = 1
MANIFEST = "manifest.json"
MAX_CELLS = 100_000
MAX_THREADS = 1024
Name = Annotated[str, Meta(pattern=r"^(?=\S)[^\x00-\x1f\x7f-\x9f]{1,100}(?<=\S)\Z")]
"""A strategy's name: one line, as the registry accepts it. It is shown as text everywhere."""
Key = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Few = Annotated[int, Meta(ge=1, le=100_000)]
Seed = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
SIMULATE = "simulate"
"""The mode of a run whose cells were simulated."""


@dataclass(frozen=True)
class Options:
    """How a run measures. ``timeout`` and ``budget`` (0: none) in seconds; ``cpu`` -1: workers are not pinned.

    ``until_decided``: only cells whose comparison is undecided get more rounds, so verdicts use tests that allow this;
    ``decide`` names the figures that count; ``within`` is the smallest effect of interest (0.02: 2 %). ``cost`` is
    roughly how many records the counted replay of a cell may take (0: no counted replay). ``host``: the running kernel
    performs the workloads, too.
    """

    mode: Annotated[str, Meta(pattern=r"^[a-z]{1,20}\Z")]
    rounds: Few
    values: Few
    warmups: Annotated[int, Meta(ge=0, le=100_000)]
    min_time: Number
    timeout: Number
    budget: Number = 0.0
    cpu: Annotated[int, Meta(ge=-1, le=1 << 16)] = -1
    until_decided: bool = False
    within: Number = WITHIN
    decide: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=8)] = ("lookup", "fault")
    cost: Annotated[int, Meta(ge=0, le=1 << 40)] = COST_RECORDS
    host: bool = False

    @property
    def judging(self) -> Judging:
        """How the run's verdicts are reached."""
        return Judging(within=self.within, anytime=self.until_decided)


@dataclass(frozen=True)
class WorkloadEntry:
    """One workload of the run: a plugin's (``spec``) or a trace file (``path``), with its stream's digest."""

    label: Text
    spec: Text
    path: Text
    seed: Seed
    digest: Digest
    events: Count
    timed: Count
    baseline: Name
    threads: Annotated[int, Meta(ge=0, le=MAX_THREADS)] = 0
    """The number of real threads that replay it together; 0: a single replay, with figures per operation."""
    caches: Annotated[str, Meta(pattern=r"^([a-z0-9]{1,10}=[0-9]{1,12})?\Z")] = ""
    """What is touched before each timed event (benchframe.engine.caches); empty: nothing, as in every older run."""
    cold: Annotated[str, Meta(pattern=r"^([a-z0-9]{1,10}=[0-9]{1,12})?\Z")] = ""
    """The state of the caches in which its lookups are timed a second time, beside the figures with warm caches; empty:
    they are not, as in every older run."""
    nearest: Text = ""
    """The recorded program nearest to its stream (benchframe.trace.analysis), as told when the run began."""
    summary: Text = ""
    """What it is, in one line, as its plugin described it when the run began."""

    def __post_init__(self) -> None:
        """Raises ValueError for a state of caches that does not exist."""
        from_text(self.caches)
        from_text(self.cold)

    @property
    def state(self) -> Caches:
        """The state of the caches at each timed event."""
        return from_text(self.caches)

    @property
    def base(self) -> str:
        """The label without ``@threads`` and ``@caches``."""
        return self.label.removesuffix(suffix(self.threads, self.state))


def suffix(threads: int, caches: Caches) -> str:
    """What follows a workload's name in a label.

    >>> suffix(0, Caches()), suffix(4, Caches()), suffix(0, Caches("llc", 1 << 20))
    ('', '@4', '@llc')
    """
    return (f"@{threads}" if threads else "") + ("" if caches.warm else f"@{caches.label}")


@dataclass(frozen=True)
class CellEntry:
    """One cell: ``key`` is the content hash that names its files."""

    key: Key
    strategy: Name
    workload: Text
    strategy_digest: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


@dataclass(frozen=True)
class Manifest:
    """See the module's docstring. ``metadata`` comes from plugins; ``noise`` lists reasons for unstable figures when
    the run began; ``wall``, ``measured``, ``timed`` and ``warmup`` (seconds, as in Outcome) add up over all sessions of
    the run."""

    created: Text
    command: Texts
    seed: Seed
    options: Options
    workloads: Annotated[tuple[WorkloadEntry, ...], Meta(max_length=MAX_CELLS)]
    cells: Annotated[tuple[CellEntry, ...], Meta(max_length=MAX_CELLS)]
    versions: Words = field(default_factory=dict)
    host: Words = field(default_factory=dict)
    metadata: Words = field(default_factory=dict)
    plugins: Texts = ()
    blocked: Texts = ()
    noise: Texts = ()
    notes: Texts = ()
    finished: Text = ""
    wall: Number = 0.0
    measured: Number = 0.0
    timed: Number = 0.0
    warmup: Number = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for a cell of a workload that is not listed, or listed twice."""
        labels = {w.label for w in self.workloads}
        for i, cell in enumerate(self.cells):
            if cell.workload not in labels:
                raise ValueError(f"cells[{i}].workload names a workload that the manifest does not list")
        if len({(c.strategy, c.workload) for c in self.cells}) != len(self.cells):
            raise ValueError("cells lists a cell twice")

    def workload(self, label: str) -> WorkloadEntry:
        """The entry of workload ``label``. Raises KeyError if there is none (which cannot happen for a manifest that
        was read)."""
        return next(w for w in self.workloads if w.label == label)

    @property
    def simulated(self) -> bool:
        """Whether its cells were simulated: then ``host`` is the simulated machine."""
        return self.options.mode == SIMULATE

    @property
    def again(self) -> list[str]:
        """The words of the command that repeats the run, including its seed if that was drawn."""
        if self.simulated:
            return list(self.command)
        drawn = "--seed" not in self.command and not any(word.startswith("--seed=") for word in self.command)
        return [*self.command, *(["--seed", str(self.seed)] if drawn else [])]

    def with_note(self, note: str) -> Manifest:
        """The manifest with one more note, once."""
        return self if note in self.notes else replace(self, notes=(*self.notes, note))

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``, atomically. Raises ResultsError."""
        data: dict[str, Any] = {"version": VERSION, **asdict(self)}
        write_json(folder / MANIFEST, data)


def read_manifest(folder: Path) -> Manifest:
    """Read and check a run's manifest. Raises ResultsError."""
    path = folder / MANIFEST
    if not path.is_file():
        if folder.name.endswith((".tar.zst", ".zip")) and folder.is_file():
            mend = f"unpack it: benchframe verify {folder} --unpack DIR"
            raise ResultsError(folder, "it is a bundle", mend)
        raise ResultsError(folder, "it has no manifest.json", "name a folder that `benchframe run` made")
    return read_document(path, Manifest, version=VERSION)
