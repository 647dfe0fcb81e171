"""The layout that exec leaves behind: as /proc shows it, or as the kernel's VMA reports and the ELF file tell it."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchframe.events import NIL, MapType
from benchframe.record.procfs import MapsRow
from benchframe.record.rows import FileTable, Row
from benchframe.trace.meta import PAGE, FileEntry

MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_GROWSDOWN, MAP_NORESERVE = 1, 2, 0x10, 0x20, 0x100, 0x4000
FLAG_WORDS = {"nr": 0x4000, "nh": 0x20000, "lo": 0x2000}
"""smaps words to the MAP_* flag that makes such an area: MAP_NORESERVE, MAP_STACK (no huge pages), MAP_LOCKED."""
TOLD_BY = frozenset(FLAG_WORDS) | {"gd"}
"""smaps words that tell two areas of a replay apart."""
SPECIAL = ("[vdso]", "[vvar]", "[vvar_vclock]", "[vectors]", "[sigpage]")

# How much of an ELF image the kernel really maps: needed where an exec's layout is known from VMA reports alone.
#
# fs/binfmt_elf.c maps a position-independent image whole, reports that, and unmaps the tail without a report; so the
# first report of a file must be clamped to its first PT_LOAD segment (ELF specification: program headers).

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


def settle(rows: list[Row], files: tuple[FileEntry, ...] | list[FileEntry]) -> list[Row]:
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


def _cut(area: Row, start: int, end: int) -> list[Row]:
    """What remains of ``area`` outside [start, end)."""
    parts = []
    if area.addr < start:
        parts.append(replace(area, len=min(area.addr + area.len, start) - area.addr))
    if area.addr + area.len > end:
        low = max(area.addr, end)
        shift = low - area.addr if area.file >= 0 else 0
        parts.append(replace(area, addr=low, len=area.addr + area.len - low, offset=area.offset + shift))
    return parts


def map_event(area: MapsRow, files: FileTable, other: bool = False) -> dict[str, Any]:
    """The values of the MAP event of a line of the layout at exec. ``other``: it must differ from alike neighbours
    (:func:`told_apart`), so it becomes another open file, or MAP_NORESERVE if it is anonymous."""
    flags, file = MAP_SHARED if area.shared else MAP_PRIVATE, NIL
    if area.name == "[stack]":
        flags |= MapType.STACK
    elif area.name == "[heap]":
        flags |= MapType.HEAP
    elif area.name in SPECIAL:
        flags |= MapType.SPECIAL
    for word, bit in FLAG_WORDS.items():
        if word in area.flags and area.name != "[stack]" and area.name not in SPECIAL:
            flags |= bit
    if area.inode:
        key = ("image", area.device, area.inode, *((area.start,) if other else ()))
        file = files.index(key, area.name, area.inode)
    else:
        flags |= MAP_GROWSDOWN if "gd" in area.flags and area.name != "[stack]" else 0
        flags ^= MAP_NORESERVE if other else 0
    offset = area.offset if area.inode else 0
    size = area.end - area.start
    return {"addr": area.start, "len": size, "prot": area.prot, "flags": int(flags), "offset": offset, "file": file}


def told_apart(rows: list[MapsRow]) -> list[bool]:
    """Which areas of a layout must be made to differ, so that no two alike neighbours merge in the replay. O(n).

    The kernel keeps areas apart that look alike in maps: another name or anon_vma, another history of VM_ACCOUNT. Of
    such neighbours in a row, files become files of their own from the second on, and anonymous ones differ in turn. The
    last one of a heap, and else the first, stays plain: there the program's memory grows on.
    """
    marks: list[bool] = []
    start = 0
    for at in range(1, len(rows) + 1):
        if at < len(rows) and _alike(rows[at - 1], rows[at]):
            continue
        run = rows[start:at]
        if run[0].inode:
            marks += [place > 0 for place in range(len(run))]
        else:
            plain = (len(run) - 1) % 2 if any(row.name == "[heap]" for row in run) else 0
            marks += [place % 2 != plain for place in range(len(run))]
        start = at
    return marks


def _alike(before: MapsRow, area: MapsRow) -> bool:
    """Would the two lines be one area, for all that maps shows?"""
    if before.end != area.start or (before.prot, before.shared) != (area.prot, area.shared):
        return False
    if any(row.name in SPECIAL or row.name == "[stack]" for row in (before, area)):
        return False  # these never merge with others
    if (before.device, before.inode) != (area.device, area.inode) or (before.flags ^ area.flags) & TOLD_BY:
        return False
    return not area.inode or before.offset + before.end - before.start == area.offset
