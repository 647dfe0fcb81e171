"""Rows of a trace in the order in which they were recorded, before they are sorted, and the files that they name.

Rows are kept as columns, so that ten million faults fit in some 300 MB.
"""

from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchframe.events import EVENT, NIL, Kind
from benchframe.trace.meta import FileEntry


@dataclass(slots=True)
class Row:
    """One event before sorting; ``task`` and ``mm`` are provisional numbers."""

    time: int
    order: int
    kind: Kind
    task: int
    mm: int
    addr: int = 0
    len: int = 0
    prot: int = 0
    flags: int = 0
    offset: int = 0
    new_len: int = 0
    file: int = NIL
    ret: int = 0
    report: tuple[int, int] | None = None


FAULT_ROW = np.dtype([("time", "i8"), ("addr", "i8"), ("order", "u4"), ("task", "i4"), ("mm", "i4"), ("what", "u1")])
"""A fault that nothing was added to: ``what`` is its access in the lower 4 bits, its flags above them."""
FIELDS = ("addr", "len", "offset", "new_len", "ret", "kind", "task", "mm", "prot", "flags", "file")
ROW = np.dtype([(name, EVENT[name]) for name in FIELDS]
               + [(name, "i8") for name in ("time", "order", "vm_start", "vm_end")])  # fmt: skip
PLAIN = (*FIELDS, "time", "order")
"""Fields that a row and a column share."""
SETTLED = 1 << 15
"""Rows that are kept as objects at most, but for those that may change."""


class Rows:
    """The rows so far, in the order in which they were added."""

    def __init__(self) -> None:
        self.open: list[Row] = []
        self.settled: list[NDArray[np.void]] = []
        self.faults: list[NDArray[np.void]] = []
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def add(self, row: Row, order: int = -1) -> Row:
        """Add one row, in the last place or in that of an earlier one."""
        row.order = self.count if order < 0 else order
        self.count += 1
        self.open.append(row)
        return row

    def add_faults(self, time: Any, addr: Any, task: Any, mm: Any, prot: Any, flags: Any) -> None:
        """Add many faults at once."""
        block = np.empty(len(time), FAULT_ROW)
        block["time"], block["addr"], block["task"], block["mm"] = time, addr, task, mm
        block["what"] = prot | flags << 4
        block["order"] = (self.count + np.arange(len(time))) & 0xFFFFFFFF
        self.count += len(time)
        self.faults.append(block)

    def settle(self, changing: set[int], final: bool = False) -> None:
        """Turn rows into columns, but for those whose ``id()`` is in ``changing``."""
        if not final and len(self.open) < SETTLED:
            return
        done = [row for row in self.open if id(row) not in changing]
        self.open = [row for row in self.open if id(row) in changing]
        block = np.zeros(len(done), ROW)
        if done:
            for name, values in zip(PLAIN, zip(*map(attrgetter(*PLAIN), done), strict=True), strict=True):
                block[name] = values
        block["vm_start"] = [row.report[0] if row.report is not None else NIL for row in done]
        block["vm_end"] = [row.report[1] if row.report is not None else NIL for row in done]
        self.settled.append(block)


class FileTable:
    """The files that mappings name, and which index each open file got."""

    def __init__(self) -> None:
        self.entries: list[FileEntry] = []
        self._of_key: dict[tuple[Any, ...], int] = {}
        self._of_inode: dict[int, int] = {}

    def index(self, key: tuple[Any, ...], name: str, inode: int, size: int = 0) -> int:
        """Index of a file. Linux compares open files, not inodes: ``key`` should tell two opens apart."""
        index = self._of_key.get(key)
        if index is None:
            index = self._of_key[key] = len(self.entries)
            self.entries.append(FileEntry(name, max(0, size), inode))
            self._of_inode.setdefault(inode, index)
        return index

    def of_inode(self, inode: int) -> int:
        """The first file with this inode, NIL if none (or no inode: anonymous memory)."""
        return self._of_inode.get(inode, NIL) if inode else NIL

    def table(self) -> tuple[FileEntry, ...]:
        """The entries, with sizes looked up where the file is still the one that was mapped."""
        return tuple(replace(entry, size=entry.size or _size(entry)) for entry in self.entries)


def _size(entry: FileEntry) -> int:
    if not entry.name.startswith("/") or entry.name.startswith("/dev/"):
        return 0
    try:
        about = Path(entry.name).stat()
    except (OSError, ValueError):
        return 0
    return about.st_size if about.st_ino == entry.inode else 0
