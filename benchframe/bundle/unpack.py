"""A bundle back as a run folder, each digest checked. Nothing in it is executed, and no path in it is followed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from benchframe.bundle.archive import MAX_MEMBERS, read_archive
from benchframe.bundle.pack import INDEX, VERSION
from benchframe.errors import ResultsError
from benchframe.files import Fields, other_version, read_object, write_atomic
from benchframe.results.folder import RunFolder
from benchframe.results.sources import read_sources
from benchframe.results.studies import STUDIES, read_studies
from benchframe.trace.format import Trace, read_trace


@dataclass(frozen=True)
class Bundle:
    """A bundle that was unpacked into ``folder``; ``name`` is the run's name when it was packed."""

    folder: RunFolder
    name: str

    def trace(self, digest: str) -> Trace | None:
        """The events with this digest if they were packed; raises TraceError or ResultsError (other events)."""
        path = self.folder.path / "traces" / f"{digest}.parquet"
        if not path.exists():
            return None
        trace = read_trace(path)
        if trace.digest != digest:
            raise ResultsError(path.name, "the packed events have another digest", "the bundle was altered")
        return trace


def unpack(path: Path, into: Path) -> Bundle:
    """Unpack a bundle below ``into`` and check every digest and every cell; raises ResultsError."""
    members = read_archive(path)
    if INDEX not in members:
        raise ResultsError(path, f"it has no {INDEX}", "name a file that `benchframe bundle` made")
    target = into / "run"
    for part in (target, target / "cells", target / "traces", target / STUDIES):
        part.mkdir(parents=True, exist_ok=True)
    for name, data in members.items():
        write_atomic(target / name, data)  # archive.NAMES has let only plain names through
    index = Fields(path, read_object(target / INDEX), f"{INDEX}: ")
    if index.data.get("version") != VERSION:
        raise other_version(index.where, index.data.get("version"), VERSION)
    listed = index.object("members")
    if len(listed.data) > MAX_MEMBERS or set(listed.data) != set(members) - {INDEX}:
        raise ResultsError(path, "its members are not those it lists", "the bundle was altered: ask for it again")
    for name in listed.data:
        digest = listed.object(name).text("sha256", pattern="[0-9a-f]{64}")
        if hashlib.sha256(members[name]).hexdigest() != digest:
            raise ResultsError(path, f"{name} has another digest", "the bundle was altered: ask for it again")
    folder = RunFolder.open(target)
    folder.cells()
    read_sources(target)
    read_studies(target)
    return Bundle(folder, index.text("run", pattern=r"[^/\\\x00]{1,200}"))
