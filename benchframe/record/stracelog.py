"""strace logs, as ``strace -f -ttt -o FILE CMD`` writes them (-r, -T, -X raw, -y too): calls, without faults."""

import re
from collections.abc import Iterator
from pathlib import Path

from benchframe.record import perf as R
from benchframe.record.importers import MAX_LINE, build, imported
from benchframe.record.perf import CLONE_VM, CLONES, EXECS, MM_CALLS, NR, Rec
from benchframe.trace.trace import Trace

_LINE = re.compile(r"^(?:\[pid +(\d+)\] |(\d+) +)?(?:(\d+(?::\d+:\d+)?\.\d+|\d+:\d+:\d+) +)?(.*)$")
_CALL = re.compile(r"^([a-z_][a-z0-9_]*)\((.*)$")
_RESUMED = re.compile(r"^<\.\.\. ([a-z_][a-z0-9_]*) resumed>(.*)$")
_RESULT = re.compile(
    r"^(.*)\)\s*= (-?\d+|0x[0-9a-f]+|\?)(?: ([A-Z][A-Z0-9_]*))?(?:<[^>]*>)?(?: \(.*\))?(?: <[\d.]+>)?\s*$"
)

CONSTANTS = {
    "PROT_NONE": 0, "PROT_READ": 1, "PROT_WRITE": 2, "PROT_EXEC": 4, "PROT_GROWSDOWN": 0x01000000, "NULL": 0,
    "PROT_GROWSUP": 0x02000000, "MAP_FILE": 0, "MAP_SHARED": 1, "MAP_PRIVATE": 2, "MAP_SHARED_VALIDATE": 3,
    "MAP_DROPPABLE": 8, "MAP_FIXED": 0x10, "MAP_ANONYMOUS": 0x20, "MAP_32BIT": 0x40, "MAP_GROWSDOWN": 0x100,
    "MAP_DENYWRITE": 0x800, "MAP_EXECUTABLE": 0x1000, "MAP_LOCKED": 0x2000, "MAP_NORESERVE": 0x4000,
    "MAP_POPULATE": 0x8000, "MAP_NONBLOCK": 0x10000, "MAP_STACK": 0x20000, "MAP_HUGETLB": 0x40000,
    "MAP_SYNC": 0x80000, "MAP_FIXED_NOREPLACE": 0x100000, "MREMAP_MAYMOVE": 1, "MREMAP_FIXED": 2,
    "MREMAP_DONTUNMAP": 4, "MADV_NORMAL": 0, "MADV_RANDOM": 1, "MADV_SEQUENTIAL": 2, "MADV_WILLNEED": 3,
    "MADV_DONTNEED": 4, "MADV_FREE": 8, "MADV_REMOVE": 9, "MADV_DONTFORK": 10, "MADV_DOFORK": 11,
    "MADV_MERGEABLE": 12, "MADV_UNMERGEABLE": 13, "MADV_HUGEPAGE": 14, "MADV_NOHUGEPAGE": 15, "MADV_DONTDUMP": 16,
    "MADV_DODUMP": 17, "MADV_WIPEONFORK": 18, "MADV_KEEPONFORK": 19, "MADV_COLD": 20, "MADV_PAGEOUT": 21,
    "MADV_POPULATE_READ": 22, "MADV_POPULATE_WRITE": 23, "MADV_COLLAPSE": 25, "MLOCK_ONFAULT": 1,
    "CLONE_VM": 0x100, "CLONE_THREAD": 0x10000, "CLONE_VFORK": 0x4000,
}  # fmt: skip
ERRNO = {
    "EPERM": 1, "EINTR": 4, "EBADF": 9, "EAGAIN": 11, "ENOMEM": 12, "EACCES": 13, "EFAULT": 14, "EEXIST": 17,
    "ENODEV": 19, "EINVAL": 22, "ENOSYS": 38, "EOVERFLOW": 75, "EOPNOTSUPP": 95,
}  # fmt: skip


def is_strace_line(line: str) -> bool:
    """Does a line look like strace's?"""
    match = _LINE.match(line)
    call = _CALL.match(match[4]) if match else None
    return bool(call and _RESULT.match(call[2]) and call[2].count("(") < 64)


def import_strace(path: Path) -> Trace:
    """The mapping calls of a log; raises ValueError naming a line that makes no sense."""
    notes = ("layout only: an strace log has no page faults, and no mappings that the kernel made at exec",)
    return build(_read(path), imported(path, "strace-log", notes), calls=True)


def _read(path: Path) -> Iterator[Rec]:
    open_calls: dict[int, str] = {}
    now = 0
    root = 0
    known: set[int] = set()
    early: set[int] = set()  # children told of before their maker's call returned
    with path.open(errors="replace") as file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            match = _LINE.match(line.rstrip("\n"))
            if match is None or not match[4]:
                continue
            tid = int(match[1] or match[2] or root or 1) & 0x7FFFFFFF
            root = root or tid
            known = known or {tid}
            now += 1000  # the order of the lines is the order of the events; their clocks may lie
            text = match[4]
            if tid not in known:
                # The child of a call that has not returned yet: vfork returns only after the child's exec.
                known.add(tid)
                maker = next((t for t, begun in open_calls.items() if NR.get(begun.split("(")[0], -1) in CLONES), None)
                if maker is not None:
                    begun = open_calls[maker]
                    early.add(tid)
                    yield Rec(now - 500, R.NEW, maker, (tid, _clone_flags(begun.split("(")[0], begun)))
            if text.startswith("+++ "):
                known.discard(tid)
                yield Rec(now, R.GONE, tid)
                continue
            if text.endswith("<unfinished ...>"):
                open_calls[tid] = text[: -len("<unfinished ...>")]
                yield from _entry(now, tid, open_calls[tid])
                continue
            resumed = _RESUMED.match(text)
            if resumed is None:
                yield from _entry(now, tid, text)
            elif tid in open_calls:
                text = open_calls.pop(tid) + resumed[2]
            for rec in _exit(now + 1, tid, text, number):
                if rec.what == R.NEW:
                    if rec.values[0] in early:
                        early.discard(rec.values[0])
                        continue
                    known.add(rec.values[0])
                yield rec


def _entry(now: int, tid: int, text: str) -> Iterator[Rec]:
    call = _CALL.match(text)
    if call and NR.get(call[1], -1) in MM_CALLS | CLONES | EXECS:
        yield Rec(now, R.ENTER, tid, (NR[call[1]], (0,) * 6))


def _exit(now: int, tid: int, text: str, line: int) -> Iterator[Rec]:
    call = _CALL.match(text)
    number = NR.get(call[1], -1) if call else -1
    if call is None or number not in MM_CALLS | CLONES | EXECS:
        return
    result = _RESULT.match(call[2])
    if result is None or result[2] == "?":
        return
    ret = int(result[2], 0)
    if ret == -1 and result[3]:
        ret = -ERRNO.get(result[3], 22)
    if number in EXECS:
        if ret == 0:
            yield Rec(now, R.EXEC, tid, (tid,))
            yield Rec(now + 1, R.LEAVE, tid, (number, 0))
        return
    if number in CLONES:
        if ret > 0:
            yield Rec(now, R.NEW, tid, (ret & 0x7FFFFFFF, _clone_flags(call[1], result[1])))
        return
    try:
        args = [_value(text) for text in _split(result[1])]
    except ValueError as error:
        raise ValueError(f"line {line}: {error}") from None
    args = (args + [0] * 6)[:6]
    yield Rec(now, R.ENTER, tid, (number, tuple(args)))
    yield Rec(now + 1, R.LEAVE, tid, (number, ret))


def _clone_flags(name: str, text: str) -> int:
    flags = 0x4000 | CLONE_VM if name == "vfork" else 0
    match = re.search(r"flags=([A-Za-z0-9_|]+)", text)
    for word in match[1].split("|") if match else ():
        flags |= CONSTANTS.get(word, int(word, 0) if re.fullmatch(r"0x[0-9a-f]+|\d+", word) else 0)
    return flags


def _split(text: str) -> list[str]:
    """Arguments at top level; descriptors may carry a path in angle brackets."""
    text = re.sub(r"/\*[^*]*\*/", "", text)
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _value(text: str) -> int:
    """One argument as an unsigned 64-bit number: hexadecimal, decimal, or names joined by |."""
    text = re.sub(r"<[^>]*>$", "", text)
    total = 0
    for word in text.split("|"):
        word = word.strip()
        shift = re.fullmatch(r"(\d+)<<MAP_HUGE_SHIFT", word)
        if re.fullmatch(r"-?(0x[0-9a-f]{1,16}|\d{1,20})", word):
            total |= int(word, 8) if re.fullmatch(r"0[0-7]+", word) else int(word, 0)
        elif word in CONSTANTS:
            total |= CONSTANTS[word]
        elif shift:
            total |= int(shift[1]) << 26
        elif word and not re.fullmatch(r"[A-Z][A-Z0-9_]*|\{.*|.*\}|\".*", word):
            raise ValueError(f"argument {word[:40]!r} is not understood")
    return total & (1 << 64) - 1
