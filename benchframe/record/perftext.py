"""Text with page faults, as ``perf script --show-task-events --show-mmap-events -F +addr`` writes it."""

import re
from collections.abc import Iterator
from pathlib import Path

from benchframe.record import perf as R
from benchframe.record.importers import MAX_LINE, build, imported
from benchframe.record.perf import CLONE_THREAD, CLONE_VM, Rec
from benchframe.trace.trace import Trace

_LINE = re.compile(
    r"^\s*(?P<comm>.{1,64}?)\s+(?:(?P<pid>\d+)/)?(?P<tid>\d+)\s+(?:\[\d+\]\s+)?(?P<time>\d+\.\d+):\s+(?P<rest>.*)$"
)
_SOFTWARE = re.compile(r"^(?:\d+ +)?(?:page-faults|faults|minor-faults|major-faults)(?::[a-zA-Z]+)?:\s+([0-9a-f]+)\b")
_TRACEPOINT = re.compile(
    r"^exceptions:page_fault_(user|kernel):\s+address=(?:0x)?([0-9a-f]+) .*error_code=(0x[0-9a-f]+|\d+)"
)
_MMAP2 = re.compile(
    r"^PERF_RECORD_MMAP2? -?\d+/\d+: \[(0x[0-9a-f]+)\((0x[0-9a-f]+)\) @ (0x[0-9a-f]+|0)"
    r"(?: ([0-9a-f]+):([0-9a-f]+) (\d+) \d+)?\]: ([-r][-w][-x])([-ps]) (.*)$"
)
_EXEC = re.compile(r"^PERF_RECORD_COMM exec: .*:(\d+)/(\d+)$")
_TASK = re.compile(r"^PERF_RECORD_(FORK|EXIT)\((\d+):(\d+)\):\((\d+):(\d+)\)$")


def is_perf_line(line: str) -> bool:
    """Does a line look like perf script's, with something that is of use here?"""
    match = _LINE.match(line) if len(line) < MAX_LINE else None
    return bool(match and any(p.match(match["rest"]) for p in (_SOFTWARE, _TRACEPOINT, _MMAP2, _EXEC, _TASK)))


def import_perf_script(path: Path) -> Trace:
    """Faults and reported mappings of a text; raises ValueError."""
    notes = ("mappings are those that perf reported: unmapping was not recorded",)
    return build(_read(path), imported(path, "perf-script", notes), calls=False)


def _read(path: Path) -> Iterator[Rec]:
    with path.open(errors="replace") as file:
        while line := file.readline(MAX_LINE):
            match = _LINE.match(line.rstrip())
            if match is None:
                continue
            whole, _, part = match["time"].partition(".")
            time = int(whole[:12]) * 1_000_000_000 + int(f"{part[:9]:0<9}")
            rec = _record(time, int(match["tid"]) & 0x7FFFFFFF, match["rest"])
            if rec is not None:
                yield rec


def _record(time: int, tid: int, rest: str) -> Rec | None:
    if found := _SOFTWARE.match(rest):
        return Rec(time, R.FAULT, tid, (int(found[1], 16), -1, True))
    if found := _TRACEPOINT.match(rest):
        return Rec(time, R.FAULT, tid, (int(found[2], 16), int(found[3], 0), found[1] == "user"))
    if found := _MMAP2.match(rest):
        start, length, offset = int(found[1], 16), int(found[2], 16), int(found[3], 16)
        prot = sum(bit for bit, letter in zip((1, 2, 4), found[7], strict=True) if letter != "-")
        where = (int(found[4] or "0", 16), int(found[5] or "0", 16), int(found[6] or "0") & (1 << 63) - 1)
        name = found[9].strip()
        if not where[2] and name.startswith("/") and not name.startswith("//"):
            where = (0, 0, hash_name(name))
        return Rec(time, R.AREA, tid, (start, start + length, offset, prot, 1 if found[8] == "s" else 2, where, name))
    if found := _EXEC.match(rest):
        return Rec(time, R.EXEC, int(found[2]) & 0x7FFFFFFF, (int(found[1]),))
    if found := _TASK.match(rest):
        pid, child, parent_pid, parent = (int(found[i]) & 0x7FFFFFFF for i in (2, 3, 4, 5))
        if found[1] == "EXIT":
            return Rec(time, R.GONE, child)
        return Rec(time, R.NEW, parent, (child, CLONE_VM | CLONE_THREAD if pid == parent_pid else 0))
    return None


def hash_name(name: str) -> int:
    """A number that stands for an inode where only a name was recorded (FNV-1a, 62 bits)."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value >> 2 or 1
