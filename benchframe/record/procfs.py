"""``/proc/PID/maps``, ``stat`` and their like: what the kernel itself says about an address space; and a control group
of the recorded program's own."""

import contextlib
import errno
import os
import re
import resource
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchframe.record.perf import detached_mount
from benchframe.trace.meta import PAGE

_LINE = re.compile(
    r"(?P<start>[0-9a-f]{1,16})-(?P<end>[0-9a-f]{1,16}) (?P<perms>[r-][w-][x-][ps]) (?P<offset>[0-9a-f]{1,16}) "
    r"(?P<dev>[0-9a-f]+:[0-9a-f]+) (?P<inode>\d{1,20})(?:\s+(?P<name>.*))?$"
)
_DETAIL = re.compile(r"[A-Z]\w*:\s")
"""A line of smaps below an area's own."""
USER_END = 1 << 47
KERNEL_HALF = 1 << 63
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

    ``faults`` is the process's minor + major fault count so far, ``start_brk`` from /proc/PID/stat (0: unknown).
    ``bits`` is 32 for a program of i386. ``command`` and ``comm`` say what runs (a process may rewrite both).
    ``stack_limit`` is its RLIMIT_STACK in bytes (:data:`NO_LIMIT`, :data:`UNSEEN`). ``started`` (ticks since boot)
    tells two processes of one number apart; ``personality`` is as personality(2) gives it.
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
    stack_limit: int = UNSEEN
    started: int = 0
    personality: int = 0


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
            from benchframe.record.perf import detached_mount

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
    root = proc()
    folder = f"{root}/{tid or pid}"  # as text: a storm of processes makes this the recorder's main work
    try:
        raw: dict[str, Any] = {"time": time, "pid": pid, "when": when}
        raw["maps"], raw["stat"] = read_file(f"{folder}/maps"), read_once(f"{folder}/stat")
        # What a thread's number shows counts for the whole process, but for when it began.
        raw["started"] = _fields(read_once(f"{root}/{pid}/stat") if tid not in (0, pid) else raw["stat"])[19]
        raw["command"] = read_once(f"{folder}/cmdline", 4096)
        if when != "exit":
            raw["bits"] = word_size(f"{folder}/exe")
            with contextlib.suppress(OSError):  # a set-user-id program's is hidden
                raw["personality"] = int(read_file(f"{folder}/personality"), 16)
        try:
            raw["stack"] = resource.prlimit(tid or pid, resource.RLIMIT_STACK)[0]
        except OSError:  # another user's process
            raw["limits"] = read_file(f"{folder}/limits")
        if when == "attach":
            raw["smaps"] = read_file(f"{folder}/smaps")
    except OSError:
        return raw if "stat" in raw else None
    return raw


def read_file(path: str) -> str:
    """A whole file of /proc; raises OSError. As cheap as Python can: it is read for each process of a storm."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode(errors="replace")


def read_once(path: str, size: int = 1 << 16) -> str:
    """What one read gives of a file of /proc that the kernel shows at once, as all but maps are; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, size).decode(errors="replace")
    finally:
        os.close(descriptor)


def word_size(path: str) -> int:
    """64 for an x86-64 program (and where nothing is known), 32 for i386, 33 for x32 (64-bit calls, short pointers)."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = os.read(file, 20)
        finally:
            os.close(file)
    except OSError:
        return 64
    if head[:5] != b"\x7fELF\x01":
        return 64
    return 33 if head[18:20] == b"\x3e\0" else 32


def from_raw(raw: dict[str, Any]) -> Maps | None:
    """The layout that :func:`read_raw` saw; None if it shows no area. Raises ValueError."""
    # proc(5): 10 minflt, 12 majflt, 22 starttime, 47 start_brk
    stat = raw["stat"]
    fields = _fields(stat)
    rows = parse_maps(raw["maps"], strict=False)
    if not rows:
        return None
    if raw.get("smaps"):
        rows = _with_flags(rows, raw["smaps"])
    command = tuple(raw.get("command", "").rstrip("\0").split("\0"))
    faults = int(fields[7]) + int(fields[9])
    return Maps(
        raw["time"], raw["pid"], raw["when"], rows, int(fields[44]), faults, raw.get("bits", 64), command,
        stat[stat.index("(") + 1 : stat.rindex(")")], _stack_limit(raw),
        int(raw.get("started", 0)), raw.get("personality", 0),
    )  # fmt: skip


def _fields(stat: str) -> list[str]:
    """/proc/PID/stat from field 3 on. Field 2 may hold spaces and parentheses: what follows the last one counts."""
    return stat[stat.rindex(")") + 2 :].split()


def _stack_limit(raw: dict[str, Any]) -> int:
    """RLIMIT_STACK as prlimit(2) gave it, or as /proc/PID/limits shows it."""
    if "stack" in raw:
        return min(raw["stack"], NO_LIMIT) if raw["stack"] >= 0 else NO_LIMIT
    match = re.search(r"^Max stack size +(\d+|unlimited)", raw.get("limits", ""), re.MULTILINE)
    if match is None:
        return UNSEEN
    return NO_LIMIT if match[1] == "unlimited" else min(int(match[1]), NO_LIMIT)


def read_maps(pid: int, when: str, time: int, tid: int = 0) -> Maps | None:
    """The layout of ``pid`` now, or None if it is gone or hidden."""
    raw = read_raw(pid, when, time, tid)
    return from_raw(raw) if raw is not None else None


def _with_flags(rows: list[MapsRow], text: str) -> list[MapsRow]:
    """Add the flags that maps does not show and merges depend on; a process that is held still has equal addresses."""
    flags = {row.start: row.flags for row in parse_maps(text, strict=False)}
    return [replace(row, flags=flags.get(row.start, frozenset())) for row in rows]


# ----------------------------------------------------------------------------------------------------------------------
# A control group of the recorded program's own, for perf events that its new processes need not inherit.

PREFIX = "benchframe-"
"""The name of a group is this and the recorder's process id."""
PATIENCE = 0.5
"""Seconds to wait for the last processes of a group to leave it."""


class ControlGroup:
    """A child of this process's own group in the version 2 hierarchy (Documentation/admin-guide/cgroup-v2.rst).

    perf events of a group (PERF_FLAG_PID_CGROUP) count in all its processes. A new process costs them nothing, while
    inherited events are copied for each new task: every event once per CPU. The group sets no limit of its own.

    Raises OSError where the hierarchy cannot be reached or written: no root, a container's read-only mount, version 1.
    """

    def __init__(self) -> None:
        self._mount = -1
        self.fd = -1
        """The folder's descriptor, for perf_event_open(2)."""
        try:
            self.parent = self._find()
            self._sweep()
            self.folder = self.parent / f"{PREFIX}{os.getpid()}"
            self.folder.mkdir()
            self.path = f"{_own().rstrip('/')}/{self.folder.name}"
            self.fd = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self.close()
            raise

    def _find(self) -> Path:
        own = _own()
        for line in (proc() / "self/mountinfo").read_text(errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            root, place = before.split(" ")[3:5]
            if after.startswith("cgroup2 ") and (root == "/" or f"{own}/".startswith(f"{root}/")):
                found = Path(place + own.removeprefix(root.rstrip("/")))
                if os.access(found, os.W_OK):
                    return found
        self._mount = detached_mount("cgroup2")
        if self._mount < 0:
            raise OSError("no control groups of version 2")
        return Path(f"/proc/self/fd/{self._mount}{own}")

    def _sweep(self) -> None:
        """Remove empty groups of recorders that were killed."""
        for folder in self.parent.glob(f"{PREFIX}*"):
            if not (proc() / folder.name.removeprefix(PREFIX)).exists():
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def take(self, pid: int) -> None:
        """Move a process into the group; those that it starts are born in it. Raises OSError."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def holds(self, pid: int) -> bool:
        """Is the process in the group or below it? One that has ended is said to be."""
        try:
            path = _own(pid)
        except OSError:
            return True
        return f"{path}/".startswith(f"{self.path}/")

    def close(self) -> None:
        """Give what still runs back to the parent group, and remove the group."""
        folder = getattr(self, "folder", None)
        if folder is not None:
            late = time.monotonic() + PATIENCE
            while folder.exists():
                with contextlib.suppress(OSError):
                    for pid in (folder / "cgroup.procs").read_text().split():
                        with contextlib.suppress(OSError):
                            (self.parent / "cgroup.procs").write_text(pid)
                    folder.rmdir()
                    break
                if time.monotonic() > late:
                    break
                time.sleep(0.01)
        for descriptor in (self.fd, self._mount):
            if descriptor >= 0:
                os.close(descriptor)
        self.fd = self._mount = -1


def _own(pid: int | str = "self") -> str:
    """The path of a process's group of version 2, as /proc shows it to us. Raises OSError."""
    for line in read_once(f"{proc()}/{pid}/cgroup").splitlines():
        if line.startswith("0::/") and "/../" not in line:
            return line[3:]
    raise OSError("no control groups of version 2")
