"""How much of an ELF image the kernel really maps: needed where an exec's layout is known from VMA reports alone.

fs/binfmt_elf.c maps a position-independent image whole, reports that, and unmaps the tail without a report; so the
first report of a file must be clamped to its first PT_LOAD segment (ELF specification: program headers).
"""

import struct
from pathlib import Path
from typing import TYPE_CHECKING

from benchframe.trace.meta import PAGE, FileEntry

if TYPE_CHECKING:
    from benchframe.record.finish import Row

PT_LOAD = 1


def load_segments(path: str) -> list[tuple[int, int, int]]:
    """(file offset, virtual address, file size) of each PT_LOAD segment; empty if ``path`` is no 64-bit ELF file."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(64)
            if head[:5] != b"\x7fELF\x02" or len(head) < 64:
                return []
            table, size, count = struct.unpack_from("<Q14xHH", head, 32)
            if size != 56 or count > 128:
                return []
            file.seek(table)
            data = file.read(size * count)
    except (OSError, OverflowError, ValueError):
        return []
    segments = []
    for at in range(0, len(data) - size + 1, size):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, at)
        if kind == PT_LOAD:
            segments.append((offset, address, length))
    return segments


def settle(rows: "list[Row]", files: tuple[FileEntry, ...] | list[FileEntry]) -> "list[Row]":
    """The layout that a sequence of VMA reports during exec leaves behind: later reports lie over earlier ones."""
    areas: list[Row] = []
    seen: set[int] = set()
    for row in rows:
        if row.file >= 0 and row.file not in seen:
            seen.add(row.file)
            segments = load_segments(files[row.file].name)
            if segments:
                offset, address, length = segments[0]
                first = -(-((address & (PAGE - 1)) + length) // PAGE) * PAGE
                if offset // PAGE * PAGE == row.offset and first < row.len:
                    row.len = first
        areas = [part for area in areas for part in _cut(area, row.addr, row.addr + row.len)]
        areas.append(row)
    return sorted(areas, key=lambda area: area.addr)


def _cut(area: "Row", start: int, end: int) -> "list[Row]":
    """What remains of ``area`` outside [start, end)."""
    from dataclasses import replace

    parts = []
    if area.addr < start:
        parts.append(replace(area, len=min(area.addr + area.len, start) - area.addr))
    if area.addr + area.len > end:
        low = max(area.addr, end)
        shift = low - area.addr if area.file >= 0 else 0
        parts.append(replace(area, addr=low, len=area.addr + area.len - low, offset=area.offset + shift))
    return parts
