"""A run as one file for others: pack it, unpack it with validation, and verify it."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from benchframe.engine.job import layout_seed, order, spare_cpu
from benchframe.errors import ResultsError, TraceError, disk_error
from benchframe.files import write_atomic
from benchframe.report.compare import ABSOLUTE, Comparison, Line, Side, compare, cost_changes
from benchframe.results.campaign import Stream, make_stream, plan
from benchframe.results.figures import FIGURES
from benchframe.results.folder import RunFolder
from benchframe.results.manifest import MANIFEST, MAX_FILE, Digest, Manifest, Text, WorkloadEntry, read_document
from benchframe.results.studies import HOST, SOURCES, STUDIES, read_host, read_sources, read_studies
from benchframe.stats import Judging, holm
from benchframe.stats.verdict import above, below
from benchframe.trace.trace import Trace, read_file, read_trace, write_trace
from benchframe.workload import WorkloadError

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace


# ----------------------------------------------------------------------------------------------------------------------
# Archives of small named files, ``.tar.zst`` or ``.zip``, validated when read.
#
# Only the names of a bundle's members are accepted, so no path leads anywhere else; links, devices and
# folders are refused; sizes are counted while unpacking, not trusted. Writing is deterministic: the same members give
# the same bytes.

SUFFIXES = (".tar.zst", ".zip")
NAMES = re.compile(
    r"bundle\.json|manifest\.json|sources\.json|host\.json|cells/[0-9a-f]{32}(\.state)?\.json|traces/[0-9a-f]{64}\.parquet"
    r"|studies/[a-z0-9-]{1,120}\.json"
)
"""Every name that a member may have, as patterns for the whole name."""
MAX_MEMBERS = 20_000
MAX_MEMBER = 1 << 26
MAX_TOTAL = 1 << 29
"""The most bytes of one member (64 MiB) and of all (512 MiB), unpacked; the archive itself may have as many."""
_MEND = "the file is damaged or not a bundle; get it again"


def write_archive(path: Path, members: Mapping[str, bytes]) -> None:
    """Write ``members`` in the format of the name's suffix. Raises ResultsError (another suffix, disk)."""
    if path.name.endswith(".zip"):
        data = _zip(members)
    elif path.name.endswith(".tar.zst"):
        data = _tar(members)
    else:
        raise ResultsError(path, "a bundle ends in .tar.zst or .zip", "give it a name that ends so with -o")
    write_atomic(path, data)


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def _tar(members: Mapping[str, bytes]) -> bytes:
    import pyarrow as pa  # type: ignore[import-untyped]

    sink = pa.BufferOutputStream()
    with (
        pa.CompressedOutputStream(sink, "zstd") as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def read_archive(path: Path) -> dict[str, bytes]:
    """All members by name. Raises ResultsError for anything that is not a bundle of a reasonable size."""
    try:
        if path.stat().st_size > MAX_TOTAL:
            raise _bad(path, f"it is larger than {MAX_TOTAL >> 20} MiB")
        with path.open("rb") as file:
            begin = file.read(4)
            file.seek(0)
            if begin[:4] == b"PK\x03\x04":
                found = _collect(path, _zip_members(path, file))
            elif begin == b"\x28\xb5\x2f\xfd":
                found = _collect(path, _tar_members(path, file))
            else:
                raise _bad(path, "it is neither a zip nor a zstd-compressed tar archive")
    except OSError as error:
        if error.errno is None:  # Arrow's own errors
            raise _bad(path, f"it cannot be unpacked ({' '.join(str(error).split())[:200]})") from None
        raise disk_error(path, error, "read") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise _bad(path, f"it cannot be unpacked ({' '.join(str(error).split())[:200]})") from None
    return found


def _collect(path: Path, members: Iterator[tuple[str, IO[bytes]]]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    total = 0
    for name, stream in members:
        if not NAMES.fullmatch(name):
            raise _bad(path, f"it has a member {name[:80]!r}, which does not belong in a bundle")
        if name in found:
            raise _bad(path, f"it has {name} twice")
        if len(found) >= MAX_MEMBERS:
            raise _bad(path, f"it has more than {MAX_MEMBERS:,} members")
        data = stream.read(min(MAX_MEMBER, MAX_TOTAL - total) + 1)
        total += len(data)
        if len(data) > MAX_MEMBER or total > MAX_TOTAL:
            limits = f"{MAX_MEMBER >> 20} MiB ({name}), or {MAX_TOTAL >> 20} MiB in all"
            raise _bad(path, f"it unpacks to more than {limits}")
        found[name] = data
    return found


def _zip_members(path: Path, file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise _bad(path, f"{info.filename[:80]!r} is encrypted")
            with archive.open(info) as stream:
                yield info.filename, stream


def _tar_members(path: Path, file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    import pyarrow as pa

    with (
        pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as stream,
        tarfile.open(fileobj=_Bounded(stream), mode="r|") as tar,  # type: ignore[call-overload]
    ):
        for entry in tar:
            if not entry.isreg():
                raise _bad(path, f"{entry.name[:80]!r} is a link, a folder or a device")
            member = tar.extractfile(entry)
            assert member is not None
            yield entry.name, member


class _Bounded:
    """Reads at most MAX_TOTAL bytes and some headers from a stream: a small archive may unpack without end."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.left = MAX_TOTAL + 1024 * MAX_MEMBERS

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; raises ValueError beyond the limit."""
        data: bytes = self.stream.read(min(size, 1 << 20))
        self.left -= len(data)
        if self.left < 0:
            raise ValueError(f"more than {MAX_TOTAL >> 20} MiB")
        return data


def _bad(path: Path, what: str) -> ResultsError:
    return ResultsError(path, what, _MEND)


# ----------------------------------------------------------------------------------------------------------------------
# ``benchframe bundle RUN``: everything that somebody needs to check a run, in one file.
#
# ``bundle.json`` lists each member's SHA-256 and each round's order of processes and layout seed, so the schedule can
# be read without benchframe. Events are packed as trace files, so that the verifier needs neither the plugin that
# made them nor the recording; sources are there to be read, and are never run.

INDEX = "bundle.json"
VERSION = 1
MAX_EVENTS = 2_000_000
"""Longer streams are left out: their spec, seed and digest, or the file's digest, must suffice."""


def pack(folder: RunFolder, target: Path, known: Registry | None = None) -> tuple[int, list[str]]:
    """Write the bundle of ``folder``; returns its size in bytes and notes for the user, one line each.

    ``known`` makes the events of workloads from plugins. Raises ResultsError (no results, disk, too large).
    """
    manifest = folder.manifest
    members: dict[str, bytes] = {MANIFEST: _read(folder.path / MANIFEST)}
    cells = folder.cells()  # checks every file before it is packed
    if not any(cell.figures for cell in cells):
        raise ResultsError(folder.path, "no cell has figures", "finish the run first: benchframe run --resume")
    for cell in cells:
        for path in (folder.suite_path(cell.entry), folder.state_path(cell.entry)):
            if path.exists():
                members[f"cells/{path.name}"] = _read(path)
    for name, read in {SOURCES: read_sources, HOST: read_host}.items():
        if (folder.path / name).exists():
            read(folder.path)
            members[name] = _read(folder.path / name)
    read_studies(folder.path)
    for path in sorted((folder.path / STUDIES).glob("*.json")):
        if NAMES.fullmatch(f"{STUDIES}/{path.name}"):
            members[f"{STUDIES}/{path.name}"] = _read(path)
    notes = []
    for entry in manifest.workloads:
        data, note = _events(entry, known)
        if data:
            members[f"traces/{entry.digest}.parquet"] = data
        if note:
            notes.append(f"{entry.label}: {note}")
    index = json.dumps(_index(folder, manifest, members), indent=1, sort_keys=True).encode()
    write_archive(target, {INDEX: index, **members})
    return target.stat().st_size, notes


def _index(folder: RunFolder, manifest: Manifest, members: Mapping[str, bytes]) -> dict[str, Any]:
    names = [f"{cell.workload}\n{cell.strategy}" for cell in manifest.cells]
    rounds = max((r for cell in folder.cells() for r in cell.done), default=-1) + 1
    return {
        "version": VERSION,
        "run": folder.path.resolve().name,
        "members": {name: {"sha256": _sha(data), "bytes": len(data)} for name, data in sorted(members.items())},
        "strategies": {cell.strategy: cell.strategy_digest for cell in manifest.cells},
        "events": {entry.label: entry.digest for entry in manifest.workloads},
        "environment": {**manifest.host, **manifest.versions},
        "schedule": [
            {"round": r, "layout_seed": layout_seed(manifest.seed, r), "order": order(manifest.seed, r, names)}
            for r in range(rounds)
        ],
    }


def _events(entry: WorkloadEntry, known: Registry | None) -> tuple[bytes, str]:
    """The workload's events as a trace file, or "" and why they are left out."""
    if entry.events > MAX_EVENTS:
        return b"", f"{entry.events:,} events are not packed; its digest is"
    try:
        trace: Trace
        if entry.path:
            trace = read_file(entry.path)
        elif known is not None:
            trace = known.spec(entry.spec).trace(entry.seed, entry.threads)
        else:
            return b"", "its events are not packed; spec, seed and digest are"
    except (OSError, TraceError, WorkloadError, KeyError) as error:
        return b"", f"its events are not packed ({' '.join(str(error).split())})"
    if trace.digest != entry.digest:
        return b"", "its events are not packed: the file or the plugin now has other events"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "events.parquet"
        write_trace(path, trace)
        return _read(path), ""


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise disk_error(path, error, "read") from None
    if len(data) > MAX_FILE:
        raise ResultsError(path, f"it is larger than {MAX_FILE >> 20} MiB", "such a run cannot be bundled")
    return data


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ----------------------------------------------------------------------------------------------------------------------
# Unpack a bundle into a run folder and check each digest. Nothing in it is executed, and no path in it is followed.


@dataclass(frozen=True)
class Bundle:
    """A bundle that was unpacked into ``folder``; ``name`` is the run's name when it was packed."""

    folder: RunFolder
    name: str

    def trace(self, digest: str) -> Trace | None:
        """The packed events with this digest. Raises TraceError or ResultsError (other events)."""
        path = self.folder.path / "traces" / f"{digest}.parquet"
        if not path.exists():
            return None
        trace = read_trace(path)
        if trace.digest != digest:
            raise ResultsError(path.name, "the packed events have another digest", "the bundle was altered")
        return trace


@dataclass(frozen=True)
class _Member:
    sha256: Digest


@dataclass(frozen=True)
class _Index:
    run: Annotated[str, Meta(pattern=r"^[^/\\\x00]{1,200}\Z")]
    members: Annotated[dict[Text, _Member], Meta(max_length=MAX_MEMBERS)]


def unpack(path: Path, into: Path) -> Bundle:
    """Unpack a bundle below ``into`` and check every digest and every cell. Raises ResultsError."""
    members = read_archive(path)
    if INDEX not in members:
        raise ResultsError(path, f"it has no {INDEX}", "name a file made by `benchframe bundle`")
    target = into / "run"
    for part in (target, target / "cells", target / "traces", target / STUDIES):
        part.mkdir(parents=True, exist_ok=True)
    for name, data in members.items():
        write_atomic(target / name, data)  # NAMES has admitted only plain names
    index = read_document(target / INDEX, _Index, version=VERSION)
    if set(index.members) != set(members) - {INDEX}:
        raise ResultsError(path, "its members differ from its list", "the bundle was altered; get it again")
    for name, member in index.members.items():
        if hashlib.sha256(members[name]).hexdigest() != member.sha256:
            raise ResultsError(path, f"{name} has another digest", "the bundle was altered; get it again")
    folder = RunFolder.open(target)
    folder.cells()
    read_sources(target)
    read_host(target)
    read_studies(target)
    return Bundle(folder, index.run)


# ----------------------------------------------------------------------------------------------------------------------
# ``benchframe verify BUNDLE``: the same cells again, here, and whether they agree beyond noise.
#
# What is compared is each strategy's ratio to the baseline of its own run, so another, faster machine can agree; the
# baseline itself has no ratio. What is counted (hits, invalidations, cost) must agree exactly.

AGREES, DIFFERS, UNVERIFIED = 0, 1, 2
MAX_ROUNDS = 10
"""Rounds of a verification, unless the user says otherwise."""
MAX_SECONDS = 600
"""The most seconds of measuring in one process that a bundle may request; a rigorous run has 2."""
COUNTS = ("lookups", "hits", "invalidations", "splits", "merges", "faults", "mapping_ops", "events")


@dataclass(frozen=True)
class Verification:
    """``code`` AGREES, DIFFERS or UNVERIFIED; one text per compared cell; the differences between the two hosts."""

    code: int
    lines: tuple[str, ...]
    differences: tuple[str, ...]


def prepare(bundle: Bundle, known: Registry) -> tuple[dict[str, Strategy], list[Stream]]:
    """The installed strategies and the packed (or newly made) events of a bundle's run.

    Raises ResultsError if a strategy's code or a workload's events are not those that were measured, and UnknownName
    if a strategy is not installed.
    """
    from benchframe.units import strategy_digest

    manifest = bundle.folder.manifest
    strategies = {cell.strategy: known.strategy(cell.strategy) for cell in manifest.cells}
    for cell in manifest.cells:
        if strategy_digest(strategies[cell.strategy]) != cell.strategy_digest:
            raise ResultsError(
                bundle.name,
                f"strategy {cell.strategy} here is not the one that was measured (other code)",
                "install the version named in the bundle, or give its file with --plugin",
            )
    return strategies, [_stream(bundle, entry, known) for entry in manifest.workloads]


def _stream(bundle: Bundle, entry: WorkloadEntry, known: Registry) -> Stream:
    trace = bundle.trace(entry.digest)
    if trace is None and entry.spec:
        trace = make_stream(known.spec(entry.spec), entry.seed, threads=entry.threads).trace
    if trace is None or trace.digest != entry.digest:
        what = "are not in the bundle" if trace is None else "are made differently here"
        raise ResultsError(bundle.name, f"the events of {entry.label} {what}", "they cannot be run again")
    return Stream(replace(entry, path=""), trace)


def plan_again(
    bundle: Bundle,
    strategies: Mapping[str, Strategy],
    streams: Sequence[Stream],
    rounds: int | None,
    plugins: Sequence[str],
    blocked: Sequence[str],
) -> Manifest:
    """The manifest of the second run: the same cells, depth, schedule and layouts, on this machine.

    ``rounds`` None: as many as the first run had, at least 2 and at most MAX_ROUNDS. Raises ResultsError if the bundle
    requests processes that would take very long.
    """
    then = bundle.folder.manifest
    seconds = then.options.min_time * (then.options.values + then.options.warmups)
    if seconds > MAX_SECONDS or then.options.timeout > 100 * MAX_SECONDS:
        raise ResultsError(
            bundle.name, f"it asks for {seconds:,.0f} s in each process", f"more than {MAX_SECONDS} s is not run again"
        )
    done = max((len(cell.done) for cell in bundle.folder.cells()), default=2)
    cpu = spare_cpu()
    options = replace(
        then.options,
        rounds=rounds or max(2, min(done, MAX_ROUNDS)),
        cpu=-1 if cpu is None else cpu,
        until_decided=False,
        budget=0.0,
    )
    asked = list(dict.fromkeys(cell.strategy for cell in then.cells))
    command = ["benchframe", "verify", bundle.name]
    manifest = plan(
        asked, strategies, streams, options, seed=then.seed, command=command, plugins=plugins, blocked=blocked
    )
    measured = {(cell.workload, cell.strategy) for cell in then.cells}
    return replace(manifest, cells=tuple(c for c in manifest.cells if (c.workload, c.strategy) in measured))


def judge_again(bundle: Bundle, again: RunFolder) -> tuple[Verification, Comparison]:
    """The conclusions of the second run about the first."""
    a, b = Side(bundle.folder), Side(again)
    found = compare(a, b)
    code, lines = AGREES, []
    told = [line for line in found.lines if line.how != ABSOLUTE]
    for line, p in zip(told, _beyond(told, found.judging), strict=True):
        differs = p <= found.judging.alpha
        code = max(code, DIFFERS if differs else AGREES)
        ratio = line.verdict.ratio
        lines.append(
            f"{_word(line, differs, found.judging)}: {line.strategy} on {line.workload}, {FIGURES[line.figure]}: "
            f"{100 * (ratio.value - 1):+.1f} % [{100 * (ratio.low - 1):+.1f}, {100 * (ratio.high - 1):+.1f}]"
        )
    for before, after in found.pairs:
        where = f"{after.entry.strategy} on {after.entry.workload}"
        if before.state.state != after.state.state:
            code = DIFFERS
            lines.append(f"differs: {where} was {before.state.state} and is {after.state.state}")
            continue
        if before.workload.threads:  # the counts of real threads depend on their interleaving
            lines.append(f"agrees: {where}: every answer is right again")
            continue
        counted = _counts(before.state.counts, after.state.counts)
        counted = [f"{where}, {text}" for text in counted]
        exact = found.same_model and bool(before.state.cost and after.state.cost)
        if exact:
            worse, better, _ = cost_changes(before, after)
            counted += worse + better
        code = max(code, DIFFERS if counted else AGREES)
        lines += [f"differs: {text}" for text in counted]
        if not counted:
            lines.append(f"agrees: {where}: counts{' and cost' * exact} exactly")
    if found.missing:
        code = UNVERIFIED if code == AGREES else code
        lines += [f"not verified: {text}" for text in found.missing if "is not in" in text]
    return Verification(code, tuple(lines), tuple(map(str, found.differences))), found


def _beyond(lines: Sequence[Line], judging: Judging) -> list[float]:
    """Corrected p values of the null hypothesis "the ratio changed by no more than the smallest effect of interest".

    Two runs at different times differ by a little more than the spread within each shows; so a verification, like a
    gate, reports "differs" only if the change is significantly larger than that effect.
    """
    bound = math.log1p(judging.within)
    ratios = [line.verdict.ratio for line in lines]
    return holm([min(1.0, 2 * min(above(ratio, bound), below(ratio, -bound))) for ratio in ratios])


def _word(line: Line, differs: bool, judging: Judging) -> str:
    if differs:
        return "differs beyond noise"
    within = f"{100 * judging.within:g} %"
    return f"agrees within {within}" if line.verdict.word == "same" else "agrees within the noise"


def _counts(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    return [
        f"{name}: {before[name]:,.0f} -> {after[name]:,.0f}"
        for name in COUNTS
        if name in before and name in after and before[name] != after[name]
    ]
