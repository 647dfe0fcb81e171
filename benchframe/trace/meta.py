"""The metadata of a trace: provenance, file table, recorded layouts; and its JSON form.

The JSON is one object under the key ``benchframe`` of the Parquet file's key-value metadata. It is untrusted input, so
:func:`meta_from_json` checks the type and range of each member and raises a ``ValueError`` that names a wrong one.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from benchframe.files import printable

FORMAT_VERSION = 1
PAGE = 4096
ADDRESS_LIMIT = 1 << 47
"""One past the highest user address: x86-64 with four-level page tables (arch/x86/include/asm/page_64_types.h)."""
MAX_FILES = 1 << 20
MAX_SNAPSHOTS = 1 << 18
MAX_PROCESSES = 1 << 20
MAX_AREAS = 1 << 17
"""The most areas in one snapshot: twice the default vm.max_map_count."""
MAX_UNPLAYED = 1 << 16
MAX_TEXT = 1 << 16
BORDERS, MAPPINGS = 1, 2
"""What a call that is not replayed can change: where VMAs of the same protection begin and end, or what is mapped at
all."""


@dataclass(frozen=True)
class FileEntry:
    """A mapped file: its name, size in bytes (0: unknown) and a number that distinguishes files with the same name."""

    name: str
    size: int = 0
    inode: int = 0


Area = tuple[int, int, int, int, int, int]
"""One VMA of a snapshot: vm_start, vm_end, prot bits (1 r, 2 w, 4 x), shared 0/1, file offset in bytes, file or NIL."""


@dataclass(frozen=True)
class Snapshot:
    """The layout that the kernel reported (``/proc/PID/maps``) for one mm before event ``row``.

    ``when`` is ``exec``, ``exit`` or ``attach``. Areas are in address order and do not overlap.
    """

    mm: int
    row: int
    when: str
    areas: tuple[Area, ...]


@dataclass(frozen=True)
class Unplayed:
    """A call or state that is not among the events: ``name`` took effect before event ``row`` in ``mm``, somewhere in
    [start, end) (0, 0: anywhere), and may have changed BORDERS or MAPPINGS (``sort``)."""

    name: str
    mm: int
    row: int
    start: int = 0
    end: int = 0
    sort: int = MAPPINGS


@dataclass(frozen=True)
class Process:
    """The process of an address space: process id, command (or name), the kernel's count of faults (-1: unknown)."""

    mm: int
    pid: int
    command: str
    faults: int


@dataclass(frozen=True)
class TraceMeta:
    """Provenance of a trace, and what its rows refer to.

    ``lost`` counts events that the recorder knows it lost; ``faults`` compares the recorded faults with
    getrusage (``recorded``, ``expected``); ``limits`` holds the limits that the programs ran under
    (``stack``: RLIMIT_STACK in bytes, ``max_map_count``, ``mmap_min_addr``); ``level`` says how it was recorded
    (``full``, ``user``, ``strace``, ``maps``, ``perf-script``, ``synthetic``).
    """

    command: tuple[str, ...] = ()
    kernel: str = ""
    date: str = ""
    machine: str = ""
    level: str = "synthetic"
    lost: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    files: tuple[FileEntry, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    limits: dict[str, int] = field(default_factory=dict)
    exit_status: int = 0
    tool: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()
    unplayed: tuple[Unplayed, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    """The numbers of records that an importer or the recorder read, used and left out, by name."""
    processes: tuple[Process, ...] = ()


def meta_to_json(meta: TraceMeta) -> str:
    """``meta`` as compact JSON; areas are packed in pages, each start relative to the end of the one before."""
    data: dict[str, Any] = {member.name: getattr(meta, member.name) for member in fields(meta)}
    data["version"] = FORMAT_VERSION
    data["files"] = [[f.name, f.size, f.inode] for f in meta.files]
    data["processes"] = [[p.mm, p.pid, p.command, p.faults] for p in meta.processes]
    data["snapshots"] = [
        {"mm": s.mm, "row": s.row, "when": s.when, "areas": _pack_areas(s.areas)} for s in meta.snapshots
    ]
    data["unplayed"] = [[u.name, u.mm, u.row, u.start, u.end, u.sort] for u in meta.unplayed]
    return json.dumps(data, separators=(",", ":"), ensure_ascii=True)


def fitted_json(meta: TraceMeta, room: int) -> str:
    """``meta`` as JSON that a reader accepts: within the limits of every member and ``room`` bytes in all.

    Long texts are cut; of too many layouts or processes only the first are kept; the metadata records both.
    """
    notes = list(meta.notes)
    texts = [*meta.command, *meta.notes, *(f.name for f in meta.files), *(p.command for p in meta.processes)]
    if any(len(text) > MAX_TEXT for text in texts):
        notes.append(f"texts longer than {MAX_TEXT} characters were cut")
    command = meta.command[:MAX_TEXT]
    kept = [snapshot for snapshot in meta.snapshots[:MAX_SNAPSHOTS] if len(snapshot.areas) <= MAX_AREAS]
    processes, files = meta.processes[:MAX_PROCESSES], meta.files
    # In characters, a little more than needed: a layout's area, a process's numbers.
    kept = kept[: _fit((48 + 24 * len(snapshot.areas) for snapshot in kept), room // 2)]
    processes = processes[: _fit((len(json.dumps(p.command)) + 32 for p in processes), room * 3 // 8)]
    unplayed = meta.unplayed[: _fit((len(u.name) + 64 for u in meta.unplayed[:MAX_UNPLAYED]), room // 8)]
    for what, before, after in (
        ("layouts", len(meta.snapshots), len(kept)),
        ("processes", len(meta.processes), len(processes)),
        ("arguments", len(meta.command), len(command)),
        ("calls that are not replayed", len(meta.unplayed), len(unplayed)),
    ):
        if after < before:
            notes.append(f"of {before} {what} the metadata hold the first {after}")
    fitted = replace(
        meta,
        command=tuple(_cut(text) for text in command),
        notes=tuple(_cut(text) for text in notes[:MAX_TEXT]),
        snapshots=tuple(kept),
        processes=tuple(replace(p, command=_cut(p.command)) for p in processes),
        files=tuple(replace(f, name=_cut(f.name)) for f in files),
        unplayed=unplayed,
    )
    text = meta_to_json(fitted)
    while len(text) > room and (sum(map(len, fitted.command)) > 4096 or fitted.snapshots):
        if sum(map(len, fitted.command)) > 4096:
            first = f"{' '.join(fitted.command)[:2048]} ..."
            fitted = replace(fitted, command=(first,), notes=(*fitted.notes, "a long command line was cut"))
        else:
            fitted = replace(fitted, snapshots=(), notes=(*fitted.notes, "there was no room for layouts"))
        text = meta_to_json(fitted)
    return text


def _fit(sizes: Iterable[int], room: int) -> int:
    """How many of the items of these sizes fit, at least one."""
    count = used = 0
    for size in sizes:
        used += size
        if used > room and count:
            break
        count += 1
    return count


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 4] + " ..."


def meta_from_json(text: str | bytes) -> TraceMeta:
    """Check and rebuild the metadata. Raises ``ValueError``, which says which member is wrong."""
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError("the metadata is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"the metadata is not JSON ({error})") from None
    if not isinstance(data, dict):
        raise ValueError("the metadata is not a JSON object")
    version = data.get("version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        shown = version if isinstance(version, int) and abs(version) < 10**6 else "?"
        raise ValueError(f"format version {shown}, this benchframe reads version {FORMAT_VERSION}")
    files = tuple(
        FileEntry(_text(row[0], "files"), _integer(row[1], "files", 0, 1 << 63), _integer(row[2], "files", 0, 1 << 64))
        for row in _rows(data, "files", MAX_FILES, 3)
    )
    raw = data.get("snapshots", [])
    if not isinstance(raw, list) or len(raw) > MAX_SNAPSHOTS:
        raise ValueError("metadata member 'snapshots' is not a list of a plausible length")
    return TraceMeta(
        command=_texts(data, "command"),
        kernel=_text(data.get("kernel", ""), "kernel"),
        date=_text(data.get("date", ""), "date"),
        machine=_text(data.get("machine", ""), "machine"),
        level=_text(data.get("level", ""), "level"),
        lost=_integer(data.get("lost", 0), "lost", 0, 1 << 63),
        faults=_counts(data, "faults"),
        files=files,
        snapshots=tuple(_snapshot(s, len(files)) for s in raw),
        limits=_counts(data, "limits"),
        exit_status=_integer(data.get("exit_status", 0), "exit_status", -(1 << 31), 1 << 31),
        tool=_text(data.get("tool", ""), "tool"),
        licence=_text(data.get("licence", ""), "licence"),
        notes=_texts(data, "notes"),
        unplayed=tuple(_unplayed(row) for row in _rows(data, "unplayed", MAX_UNPLAYED, 6)),
        counts=_counts(data, "counts"),
        processes=tuple(
            Process(
                _integer(row[0], "processes", 0, 1 << 31),
                _integer(row[1], "processes", -1, 1 << 31),
                _text(row[2], "processes"),
                _integer(row[3], "processes", -1, 1 << 62),
            )
            for row in _rows(data, "processes", MAX_PROCESSES, 4)
        ),
    )


def _unplayed(row: list[Any]) -> Unplayed:
    name, (mm, at, start, end, sort) = _text(row[0], "unplayed"), row[1:]
    limit = ADDRESS_LIMIT + 1
    return Unplayed(
        name,
        _integer(mm, "unplayed", 0, 1 << 31),
        _integer(at, "unplayed", 0, 1 << 62),
        _integer(start, "unplayed", 0, limit),
        _integer(end, "unplayed", 0, limit),
        _integer(sort, "unplayed", BORDERS, MAPPINGS + 1),
    )


def _pack_areas(areas: tuple[Area, ...]) -> list[int]:
    packed: list[int] = []
    end = 0
    for vm_start, vm_end, prot, shared, offset, file in areas:
        packed += [(vm_start - end) // PAGE, (vm_end - vm_start) // PAGE, prot | shared << 3, offset // PAGE, file]
        end = vm_end
    return packed


def _snapshot(data: object, files: int) -> Snapshot:
    if not isinstance(data, dict):
        raise ValueError("a snapshot is not a JSON object")
    packed = data.get("areas")
    if not isinstance(packed, list) or len(packed) % 5 or len(packed) > 5 * MAX_AREAS:
        raise ValueError("a snapshot's areas are not groups of five numbers")
    areas = _unpacked(packed, files)
    when = _text(data.get("when", ""), "snapshots")
    mm, row = _integer(data.get("mm"), "snapshots", 0, 1 << 31), _integer(data.get("row"), "snapshots", 0, 1 << 62)
    return Snapshot(mm, row, when, areas)


def _unpacked(packed: list[Any], files: int) -> tuple[Area, ...]:
    """The areas of a snapshot, whose numbers are in groups of five."""
    import numpy as np

    if not set(map(type, packed)) <= {int}:
        raise ValueError("metadata member 'snapshots' holds something other than integers")
    limit = ADDRESS_LIMIT // PAGE
    try:
        gap, pages, bits, offset, file = np.array(packed, np.int64).reshape(-1, 5).T
    except OverflowError:
        raise ValueError("metadata member 'snapshots' holds a number of more than 64 bits") from None
    for column, name, low, below in (
        (gap, "gap", 0, limit), (pages, "length", 1, limit + 1), (bits, "bits", 0, 16), (offset, "offset", 0, 1 << 51),
        (file, "file", -1, files),
    ):  # fmt: skip
        if not ((column >= low) & (column < below)).all():
            raise ValueError(f"metadata member 'snapshots' holds a {name} outside [{low}, {below})")
    end = np.cumsum(gap + pages)  # in pages: no more than 2^17 areas of 2^36
    if len(end) and end[-1] > limit:
        raise ValueError("metadata member 'snapshots' has an area above the user address space")
    start = (end - pages) * PAGE
    columns = start, end * PAGE, bits & 7, bits >> 3, offset * PAGE, file
    return tuple(zip(*(column.tolist() for column in columns), strict=True))


def _integer(value: object, name: str, low: int, below: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < below:
        raise ValueError(f"metadata member '{name}' holds something other than an integer in [{low}, {below})")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"metadata member '{name}' holds something other than text of at most {MAX_TEXT} characters")
    return printable(value)


def _texts(data: dict[str, Any], name: str) -> tuple[str, ...]:
    value = data.get(name, [])
    if not isinstance(value, list) or len(value) > MAX_TEXT:
        raise ValueError(f"metadata member '{name}' is not a list of texts")
    return tuple(_text(v, name) for v in value)


def _rows(data: dict[str, Any], name: str, limit: int, width: int) -> list[list[Any]]:
    value = data.get(name, [])
    if not isinstance(value, list) or len(value) > limit:
        raise ValueError(f"metadata member '{name}' is not a list of at most {limit} rows")
    for row in value:
        if not isinstance(row, list) or len(row) != width:
            raise ValueError(f"metadata member '{name}' has a row that is not {width} values")
    return value


def _counts(data: dict[str, Any], name: str) -> dict[str, int]:
    value = data.get(name, {})
    if not isinstance(value, dict) or len(value) > 64:
        raise ValueError(f"metadata member '{name}' is not a small JSON object")
    return {_text(key, name): _integer(count, name, -1, 1 << 63) for key, count in value.items()}
