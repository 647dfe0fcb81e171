"""``/proc/PID/maps`` and ``/proc/PID/stat``: what the kernel itself says about an address space."""

import errno
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
    ``bits`` is 32 for a program of i386. ``command`` and ``comm`` say what runs (an exit has no command any more).
    """

    time: int
    pid: int
    when: str
    rows: list[MapsRow] = field(default_factory=list)
    start_brk: int = 0
    faults: int = 0
    bits: int = 64
    command: tuple[str, ...] = ()
    comm: str = ""


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


def proc() -> Path:
    """The proc file system whose process numbers are ours.

    In a PID namespace without a /proc of its own (``unshare -p`` without ``--mount-proc``) /proc shows other numbers:
    then one that is mounted nowhere serves. Raises OSError if the kernel refuses that too.
    """
    global _proc
    if _proc is None:
        if Path("/proc/self").readlink() == Path(str(os.getpid())):
            _proc = Path("/proc")
        else:
            from benchframe.record.tracefs import detached_mount

            mount = detached_mount("proc")
            if mount < 0:
                raise PermissionError(errno.EACCES, "/proc is that of another PID namespace (try unshare --mount-proc)")
            _proc = Path(f"/proc/self/fd/{mount}")
    return _proc


_proc: Path | None = None


def read_raw(pid: int, when: str, time: int, tid: int = 0) -> dict[str, Any] | None:
    """What /proc says of ``pid`` now, as text that :func:`from_raw` understands; None if it is gone or hidden.

    ``tid`` names a thread of it that still lives: a leader that has ended shows no mappings.
    """
    folder = proc() / str(tid or pid)
    try:
        raw: dict[str, Any] = {"time": time, "pid": pid, "when": when}
        raw["maps"], raw["stat"] = _read(folder / "maps"), _read(folder / "stat")
        if when != "exit":
            raw["bits"] = word_size(folder / "exe")
            raw["command"] = _read(folder / "cmdline")[:4096]
        if when == "attach":
            raw["smaps"] = _read(folder / "smaps")
    except OSError:
        return raw if "stat" in raw else None
    return raw


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode(errors="replace")


def word_size(path: Path) -> int:
    """64 for an x86-64 program (and where nothing is known), 32 for i386, 33 for x32 (64-bit calls, short pointers)."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError:
        return 64
    if head[:5] != b"\x7fELF\x01":
        return 64
    return 33 if head[18:20] == b"\x3e\0" else 32


def from_raw(raw: dict[str, Any]) -> Maps | None:
    """The layout that :func:`read_raw` saw; None if it shows no area. Raises ValueError."""
    # Field 2 may hold spaces and parentheses: count from the last one (proc(5): 10 minflt, 12 majflt, 47 start_brk).
    stat = raw["stat"]
    fields = stat[stat.rindex(")") + 2 :].split()
    rows = parse_maps(raw["maps"])
    if not rows:
        return None
    if raw.get("smaps"):
        rows = _with_flags(rows, raw["smaps"])
    command = tuple(raw.get("command", "").rstrip("\0").split("\0"))
    faults = int(fields[7]) + int(fields[9])
    return Maps(
        raw["time"], raw["pid"], raw["when"], rows, int(fields[44]), faults, raw.get("bits", 64), command,
        stat[stat.index("(") + 1 : stat.rindex(")")],
    )  # fmt: skip


def read_maps(pid: int, when: str, time: int, tid: int = 0) -> Maps | None:
    """The layout of ``pid`` now, or None if it is gone or hidden."""
    raw = read_raw(pid, when, time, tid)
    return from_raw(raw) if raw is not None else None


def _with_flags(rows: list[MapsRow], text: str) -> list[MapsRow]:
    """Add the flags that maps does not show and merges depend on; a process that is held still has equal addresses."""
    flags: dict[int, frozenset[str]] = {}
    start = 0
    for line in text.splitlines():
        if line.startswith("VmFlags:"):
            flags[start] = frozenset(line.split()[1:])
        elif (match := _LINE.match(line)) is not None:
            start = int(match["start"], 16)
    return [replace(row, flags=flags.get(row.start, frozenset())) for row in rows]
