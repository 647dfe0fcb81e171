"""``/proc/PID/maps`` and ``/proc/PID/stat``: what the kernel itself says about an address space."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

_LINE = re.compile(
    r"(?P<start>[0-9a-f]{1,16})-(?P<end>[0-9a-f]{1,16}) (?P<perms>[r-][w-][x-][ps]) (?P<offset>[0-9a-f]{1,16}) "
    r"(?P<dev>[0-9a-f]+:[0-9a-f]+) (?P<inode>\d{1,20})(?:\s+(?P<name>.*))?$"
)
_DETAIL = re.compile(r"[A-Z]\w*:\s")
"""A line of smaps below an area's own."""
USER_END = 1 << 47
KERNEL_HALF = 1 << 63
PAGE = 4096
MAX_OFFSET = 1 << 62
UNSEEN = -1
NO_LIMIT = 1 << 47
"""An unlimited stack: it may grow over the whole user address space."""


@dataclass(frozen=True)
class MapsRow:
    """One line of a maps file; ``prot`` is 1 r, 2 w, 4 x; ``name`` is a path, ``[stack]``-like, or empty."""

    start: int
    end: int
    prot: int
    shared: bool
    offset: int
    device: str
    inode: int
    name: str
    flags: frozenset[str] = frozenset()
    """Two-letter words of smaps' VmFlags, where they were read (proc(5)): nr no reserve, nh no huge page, lo locked."""


@dataclass
class Maps:
    """A layout seen at ``time`` (CLOCK_MONOTONIC ns) in process ``pid``: ``when`` is exec, exit or attach.

    ``faults`` is the process's minor + major fault count so far, ``start_brk`` from /proc/PID/stat (0: unknown),
    ``stack_limit`` its RLIMIT_STACK in bytes (:data:`NO_LIMIT`, :data:`UNSEEN`).
    """

    time: int
    pid: int
    when: str
    rows: list[MapsRow] = field(default_factory=list)
    start_brk: int = 0
    faults: int = 0
    stack_limit: int = UNSEEN


def is_maps_line(line: str) -> bool:
    """Does a line look like one of /proc/PID/maps, whatever area it tells of?"""
    return _LINE.match(line) is not None


def parse_maps(text: str, strict: bool = True) -> list[MapsRow]:
    """Parse a maps or smaps file; [vsyscall] and other kernel addresses are left out.

    Raises ``ValueError`` naming the first line that is none, or whose area no x86-64 process can have: empty, not whole
    pages, inside another, above 2^47. Without ``strict`` areas above 2^47 are left out.

    >>> parse_maps("1000-3000 rw-p 00000000 00:00 0 [heap]")[0].name
    '[heap]'
    >>> parse_maps("1000-1000 rw-p 00000000 00:00 0")
    Traceback (most recent call last):
    ValueError: line 1: the area 1000-1000 is empty
    """
    rows: list[MapsRow] = []
    above: list[str] = []
    areas = place = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or (areas and _DETAIL.match(line)):
            if line.startswith("VmFlags:") and rows and place == len(rows):
                rows[-1] = replace(rows[-1], flags=frozenset(line.split()[1:]))
            continue
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"line {number} is not a line of /proc/PID/maps")
        areas += 1
        place = -1
        row = _row(number, match)
        if row.start >= KERNEL_HALF or row.name == "[vsyscall]":
            continue
        if row.end > USER_END:
            above.append(f"line {number}: {row.start:x}-{row.end:x} {row.name}".rstrip())
            continue
        if rows and row.start < rows[-1].end:
            raise ValueError(
                f"line {number}: the areas are not in order: {row.start:x}-{row.end:x} is not above the last"
            )
        rows.append(row)
        place = len(rows)
    if above and strict:
        raise ValueError(
            f"{len(above)} of {areas} areas lie above 2^47 ({above[0][:60]}): this is not the user space of x86-64 "
            "with four page-table levels, which is what is modelled"
        )
    return rows


def _row(number: int, match: "re.Match[str]") -> MapsRow:
    """One line's area, as far as it can be judged alone."""
    start, end, offset = int(match["start"], 16), int(match["end"], 16), int(match["offset"], 16)
    area = f"line {number}: the area {start:x}-{end:x}"
    if start >= end:
        raise ValueError(f"{area} {'is empty' if start == end else 'ends before it begins'}")
    if (start | end) % PAGE:
        raise ValueError(f"{area} is not whole pages of {PAGE} bytes")
    if offset % PAGE or offset > MAX_OFFSET:
        raise ValueError(f"{area} has the file offset {offset:x}, which is {'odd' if offset % PAGE else 'too large'}")
    perms = match["perms"]
    prot = (perms[0] == "r") | (perms[1] == "w") << 1 | (perms[2] == "x") << 2
    inode = int(match["inode"]) & ((1 << 63) - 1)
    return MapsRow(start, end, prot, perms[3] == "s", offset, match["dev"], inode, (match["name"] or "").rstrip())


def read_maps(pid: int, when: str, time: int, tid: int = 0) -> Maps | None:
    """The layout of ``pid`` now, or None if it is gone or hidden.

    ``tid`` names a thread of it that still lives: a leader that has ended shows no mappings.
    """
    try:
        text = Path(f"/proc/{tid or pid}/maps").read_text(errors="replace")
        stat = Path(f"/proc/{tid or pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # Field 2 may hold spaces and parentheses: count from the last one (proc(5): 10 minflt, 12 majflt, 47 start_brk).
    fields = stat[stat.rindex(")") + 2 :].split()
    rows = parse_maps(text, strict=False)
    if not rows:
        return None
    if when == "attach":
        rows = _with_flags(rows, tid or pid)
    return Maps(time, pid, when, rows, int(fields[44]), int(fields[7]) + int(fields[9]), _stack_limit(tid or pid))


def _stack_limit(pid: int) -> int:
    """RLIMIT_STACK of a process now."""
    try:
        text = Path(f"/proc/{pid}/limits").read_text(errors="replace")
    except OSError:
        return UNSEEN
    match = re.search(r"^Max stack size +(\d+|unlimited)", text, re.MULTILINE)
    if match is None:
        return UNSEEN
    return NO_LIMIT if match[1] == "unlimited" else min(int(match[1]), NO_LIMIT)


def _with_flags(rows: list[MapsRow], pid: int) -> list[MapsRow]:
    """Add the flags that maps does not show and merges depend on; a process that is held still has equal addresses."""
    try:
        text = Path(f"/proc/{pid}/smaps").read_text(errors="replace")
    except OSError:
        return rows
    flags = {row.start: row.flags for row in parse_maps(text, strict=False)}
    return [replace(row, flags=flags.get(row.start, frozenset())) for row in rows]
