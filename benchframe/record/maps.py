"""``/proc/PID/maps`` and ``/proc/PID/stat``: what the kernel itself says about an address space."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

_LINE = re.compile(
    r"(?P<start>[0-9a-f]{1,16})-(?P<end>[0-9a-f]{1,16}) (?P<perms>[r-][w-][x-][ps]) (?P<offset>[0-9a-f]{1,16}) "
    r"(?P<dev>[0-9a-f]+:[0-9a-f]+) (?P<inode>\d{1,20})(?:\s+(?P<name>.*))?$"
)
USER_END = 1 << 47


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

    ``faults`` is the process's minor + major fault count so far, ``start_brk`` from /proc/PID/stat (0: unknown).
    """

    time: int
    pid: int
    when: str
    rows: list[MapsRow] = field(default_factory=list)
    start_brk: int = 0
    faults: int = 0


def parse_maps(text: str) -> list[MapsRow]:
    """Parse a maps file; lines above the user address space ([vsyscall]) are left out.

    Raises ``ValueError`` naming the first line that is none.

    >>> parse_maps("1000-3000 rw-p 00000000 00:00 0 [heap]")[0].name
    '[heap]'
    """
    rows: list[MapsRow] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"line {number} is not a line of /proc/PID/maps")
        start, end, perms = int(match["start"], 16), int(match["end"], 16), match["perms"]
        if end > USER_END:
            continue
        if start >= end or (rows and start < rows[-1].end):
            raise ValueError(f"line {number}: the areas are not in order")
        prot = (perms[0] == "r") | (perms[1] == "w") << 1 | (perms[2] == "x") << 2
        inode = int(match["inode"]) & ((1 << 63) - 1)
        offset = int(match["offset"], 16)
        rows.append(MapsRow(start, end, prot, perms[3] == "s", offset, match["dev"], inode, match["name"] or ""))
    return rows


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
    rows = parse_maps(text)
    if not rows:
        return None
    if when == "attach":
        rows = _with_flags(rows, tid or pid)
    return Maps(time, pid, when, rows, int(fields[44]), int(fields[7]) + int(fields[9]))


def _with_flags(rows: list[MapsRow], pid: int) -> list[MapsRow]:
    """Add the flags that maps does not show and merges depend on; a process that is held still has equal addresses."""
    try:
        text = Path(f"/proc/{pid}/smaps").read_text(errors="replace")
    except OSError:
        return rows
    flags: dict[int, frozenset[str]] = {}
    start = 0
    for line in text.splitlines():
        if line.startswith("VmFlags:"):
            flags[start] = frozenset(line.split()[1:])
        elif (match := _LINE.match(line)) is not None:
            start = int(match["start"], 16)
    return [replace(row, flags=flags.get(row.start, frozenset())) for row in rows]
