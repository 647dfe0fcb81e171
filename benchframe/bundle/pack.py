"""``benchframe bundle RUN``: everything that somebody needs to check a run, in one file.

``bundle.json`` lists each member's SHA-256 and each round's order of processes and layout seed, so the schedule can be
read without benchframe. Events are packed as trace files, so that the verifier needs neither the plugin that made
them nor the recording; sources are there to be read, and are never run.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchframe.bundle.archive import NAMES, write_archive
from benchframe.engine.rounds import layout_seed, order
from benchframe.errors import ResultsError, TraceError, disk_error
from benchframe.files import MAX_FILE
from benchframe.results.folder import RunFolder
from benchframe.results.manifest import MANIFEST, Manifest, WorkloadEntry
from benchframe.results.sources import SOURCES, read_sources
from benchframe.results.studies import STUDIES, read_studies
from benchframe.trace.format import read_trace, write_trace
from benchframe.workload import WorkloadError

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.trace.format import Trace

INDEX = "bundle.json"
VERSION = 1
MAX_EVENTS = 2_000_000
"""Longer streams are left out: their spec, seed and digest, or the file's digest, must do."""


def pack(folder: RunFolder, target: Path, known: Registry | None = None) -> tuple[int, list[str]]:
    """Write the bundle of ``folder``; gives its size in bytes and notes for the user, one line each.

    ``known`` makes the events of workloads that plugins make. Raises ResultsError (no results, disk, too large).
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
    if (folder.path / SOURCES).exists():
        read_sources(folder.path)
        members[SOURCES] = _read(folder.path / SOURCES)
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
            trace = read_trace(entry.path)
        elif known is not None:
            trace = known.spec(entry.spec).trace(entry.seed, entry.threads)
        else:
            return b"", "its events are not packed; spec, seed and digest are"
    except (OSError, TraceError, WorkloadError, KeyError) as error:
        return b"", f"its events are not packed ({' '.join(str(error).split())})"
    if trace.digest != entry.digest:
        return b"", "its events are not packed: the file or the plugin gives others now"
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
