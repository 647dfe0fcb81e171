"""strace logs in the forms in which people have them: calls, without faults.

``strace -f -o FILE CMD`` is the clearest form. A log of ``strace -f CMD 2> FILE`` or one pasted from a terminal is
accepted too: there the first process has no number until a second one exists, and ``Process N attached`` may split a
line. The forms of -r, -t, -tt, -ttt, -T, -i, -n, -k, -y, -yy, -Y, -X and -N are accepted, and 32-bit programs.
"""

import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchframe.record import records as R
from benchframe.record.records import CLONE_THREAD, CLONE_VM, CLONES, EXECS, MM_CALLS, NR, Rec, hash_name
from benchframe.record.tally import MAX_LINE, Tally, build, imported, text_lines
from benchframe.trace.meta import ADDRESS_LIMIT
from benchframe.trace.trace import Trace

_HEAD = re.compile(
    r"^\s*(?:\[pid +(?P<pid>\d{1,10})(?:<[^\n]{0,200}?>)?\]\s*|(?P<tid>\d{1,7})(?:<[^\n]{0,200}?>)?\s+)?"
    r"(?:(?:\d+:\d+:\d+(?:\.\d+)?|\d{9,11}(?:\.\d+)?|\d+\.\d+)\s+)?(?:\(\+\s*[\d.]+\)\s+)?"
    r"(?:\[\s*\d+\]\s+)?(?:\[(?:[0-9a-f]{8,16}|\?{8,16})\]\s+)?(?P<rest>\S.*)?$"
)
_CALL = re.compile(r"^([a-z_][a-z0-9_]*)\((.*)$")
_RESUMED = re.compile(r"^<\.\.\. ([a-z_][a-z0-9_]*) resumed>(.*)$")
_RESULT = re.compile(
    r"^\s*= (?P<value>-?\d+|0x[0-9a-f]+|\?)(?:<.*?>)?(?: /\* (?P<outer>\d+) in strace's PID NS \*/)?"
    r"(?: (?P<errno>E[A-Z0-9]+)| \(errno (?P<number>\d+)\))?(?:\s|$)"
)
_ATTACHED = re.compile(r"^(?P<cut>.*?)(?:strace: )?Process (?P<tid>\d{1,10}) attached(?: with \d+ threads?)?\s*$")
_SUPERSEDED = re.compile(r"^\+\+\+ superseded by execve in pid (\d{1,10}) \+\+\+")
_REST = re.compile(r"^(?:\s*<(?:unfinished|detached) \.\.\.>|,|\s*=>|\s*\)|\s+=\s)")
_MODE = re.compile(r"\[ Process PID=\d+ runs in (.*?) mode\. \]")
_OWN_TID = ("getpid", "gettid", "set_tid_address")
_MM_WORD = re.compile(r"\b(?:mmap2?|old_mmap|munmap|mprotect|mremap|brk|madvise|mlock2?|munlock|pkey_mprotect)\(")
_UNFINISHED = "<unfinished ...>"
ALIASES = {"mmap2": "mmap", "old_mmap": "mmap", "__clone2": "clone"}
"""strace's names for calls of 32-bit programs; it prints the offset of mmap2 in bytes."""
WANTED = MM_CALLS | CLONES | EXECS
TASK_LIMIT = 1 << 22
"""PID_MAX_LIMIT (include/linux/threads.h): a larger number at the beginning of a line is a time."""
ANONYMOUS = 0x7FFFFFF0
"""Thread id of a first process whose number does not occur in the log."""

CONSTANTS = {
    "PROT_NONE": 0, "PROT_READ": 1, "PROT_WRITE": 2, "PROT_EXEC": 4, "PROT_SEM": 8, "PROT_GROWSDOWN": 0x01000000,
    "PROT_GROWSUP": 0x02000000, "NULL": 0, "MAP_FILE": 0, "MAP_SHARED": 1, "MAP_PRIVATE": 2, "MAP_SHARED_VALIDATE": 3,
    "MAP_DROPPABLE": 8, "MAP_FIXED": 0x10, "MAP_ANONYMOUS": 0x20, "MAP_ANON": 0x20, "MAP_32BIT": 0x40,
    "MAP_ABOVE4G": 0x80, "MAP_GROWSDOWN": 0x100, "MAP_DENYWRITE": 0x800, "MAP_EXECUTABLE": 0x1000, "MAP_LOCKED": 0x2000,
    "MAP_NORESERVE": 0x4000, "MAP_POPULATE": 0x8000, "MAP_NONBLOCK": 0x10000, "MAP_STACK": 0x20000,
    "MAP_HUGETLB": 0x40000, "MAP_SYNC": 0x80000, "MAP_FIXED_NOREPLACE": 0x100000, "MAP_UNINITIALIZED": 0x4000000,
    "MAP_HUGE_2MB": 21 << 26, "MAP_HUGE_1GB": 30 << 26, "MREMAP_MAYMOVE": 1, "MREMAP_FIXED": 2, "MREMAP_DONTUNMAP": 4,
    "MADV_NORMAL": 0, "MADV_RANDOM": 1, "MADV_SEQUENTIAL": 2, "MADV_WILLNEED": 3, "MADV_DONTNEED": 4, "MADV_FREE": 8,
    "MADV_REMOVE": 9, "MADV_DONTFORK": 10, "MADV_DOFORK": 11, "MADV_MERGEABLE": 12, "MADV_UNMERGEABLE": 13,
    "MADV_HUGEPAGE": 14, "MADV_NOHUGEPAGE": 15, "MADV_DONTDUMP": 16, "MADV_DODUMP": 17, "MADV_WIPEONFORK": 18,
    "MADV_KEEPONFORK": 19, "MADV_COLD": 20, "MADV_PAGEOUT": 21, "MADV_POPULATE_READ": 22, "MADV_POPULATE_WRITE": 23,
    "MADV_DONTNEED_LOCKED": 24, "MADV_COLLAPSE": 25, "MADV_HWPOISON": 100, "MADV_SOFT_OFFLINE": 101,
    "MADV_GUARD_INSTALL": 102, "MADV_GUARD_REMOVE": 103, "MLOCK_ONFAULT": 1, "MCL_CURRENT": 1, "MCL_FUTURE": 2,
    "MCL_ONFAULT": 4, "CLONE_VM": 0x100, "CLONE_THREAD": 0x10000, "CLONE_VFORK": 0x4000,
}  # fmt: skip
LAYOUT_ONLY = "layout only: an strace log has no page faults, and no mappings that the kernel made at exec"


def is_strace_line(line: str) -> bool:
    """Whether a line looks like strace's."""
    match = _HEAD.match(line) if len(line) < MAX_LINE else None
    call = _CALL.match(match["rest"]) if match and match["rest"] else None
    if call is None:
        return bool(match and match["rest"] and _MODE.search(match["rest"]))
    end = _closing(call[2])
    return call[2].endswith(_UNFINISHED) or (end >= 0 and bool(_RESULT.match(call[2][end + 1 :])))


def import_strace(path: Path, tally: Tally) -> Trace:
    """The mapping calls of a log. Raises ValueError, which names an invalid line."""
    log = _Log(path, tally)
    recs = list(log.read())
    return build(recs, imported(path, "strace-log", (LAYOUT_ONLY, *log.notes())), True, tally)


class _Log:
    """Reads the lines in order; the order of the lines is the order of the events, since timestamps may be wrong."""

    def __init__(self, path: Path, tally: Tally) -> None:
        self.path, self.tally = path, tally
        self.root = ANONYMOUS
        self.open: dict[int, str] = {}  # calls that have not returned, by task
        self.cut: tuple[int, str] | None = None  # a line that "Process N attached" cut in two
        self.known: set[int] = set()
        self.live: set[int] = set()
        self.early: dict[int, list[int]] = {}  # by maker: children told of before its call returned
        self.unclaimed: list[int] = []  # children that a call returned and no line has named yet
        self.named: dict[int, int] = {}  # number in the log -> number that clone returned (a PID namespace)
        self.aliases: dict[int, int] = {}  # those of them whose events go by the number that clone returned
        self.execs = False
        self.adopted = 0
        self.narrow = False
        self.unknown: dict[str, int] = {}
        self.now = 0
        self.number = 0

    def notes(self) -> tuple[str, ...]:
        out = []
        if self.narrow:
            out.append("a 32-bit program: its calls are those of i386 (or x32)")
        if self.adopted:
            out.append(f"{self.adopted} tasks that ran before the log began are taken for threads of one process")
        if self.named:
            out.append(f"{len(self.named)} tasks are numbered otherwise inside their PID namespace: paired by order")
        if self.unknown:
            names = ", ".join(sorted(self.unknown)[:8])
            out.append(f"constants that benchframe does not know count as 0: {names}")
        return tuple(out)

    def read(self) -> Iterator[Rec]:
        self.root = self._find_root()
        for number, line in text_lines(self.path, self.tally):
            self.number = number
            self.now += 1000
            if self.cut is not None and _REST.match(line):
                tid, begun = self.cut
                self.cut = None
                yield from self._text(tid, begun + line)
                continue
            match = _HEAD.match(line)
            text = match["rest"] if match else None
            if match is None or text is None:
                if line.strip():
                    self._junk(line)
                continue
            named = int(match["pid"] or match["tid"] or 0)
            if match["tid"] and named > TASK_LIMIT:
                named = 0
            if (attached := _ATTACHED.match(text)) is not None and not text.startswith("+++"):
                self.tally.skip("lines of strace about itself")
                self.live.add(int(attached["tid"]))
                if attached["cut"].strip():
                    self.cut = (self._task(named), attached["cut"])
                continue
            if (mode := _MODE.search(text)) is not None:
                self.narrow = self.narrow or mode[1] != "64 bit"
                self.tally.skip("lines of strace about itself")
                continue
            if not _known_form(text):
                self._junk(text)
                continue
            tid = self._task(named)
            yield from self._meet(tid)
            yield from self._text(tid, text)
        for begun in self.open.values():
            call = _CALL.match(begun)
            if call and NR.get(ALIASES.get(call[1], call[1]), -1) in MM_CALLS:
                self.tally.skip("calls that did not return")

    def _find_root(self) -> int:
        """The number of the process whose lines have none: the first one that no clone created; ANONYMOUS if
        unknown."""
        made: set[int] = set()
        named: list[int] = []
        begun = False
        with self.path.open(errors="replace") as file:
            while line := file.readline(MAX_LINE):
                if "attached" in line and (attached := _ATTACHED.match(line.rstrip())):
                    if not begun and not attached["cut"].strip():
                        return int(attached["tid"])  # strace -p: it was already running
                    made.add(int(attached["tid"]))
                match = _HEAD.match(line.rstrip())
                text = (match["rest"] or "") if match else ""
                if match is None or not _known_form(text):
                    continue
                number = int(match["pid"] or 0) or int(match["tid"] or 0)
                if not begun and number and number <= TASK_LIMIT:
                    return number  # every line has its number
                begun = True
                if number and number not in named:
                    named.append(number)
                name = text[5:].split(" ")[0] if text.startswith("<... ") else text.split("(")[0]
                if (number == 0 and name in _OWN_TID) or NR.get(ALIASES.get(name, name), -1) in CLONES:
                    result = re.search(r"= (\d{1,10})(?:<.*>)?(?: <[\d.]+>)?\s*$", text)
                    if result and name in _OWN_TID:
                        return int(result[1])
                    if result:
                        made.add(int(result[1]))
        return next((number for number in named if number not in made), ANONYMOUS)

    def _task(self, named: int) -> int:
        if named:
            return self.aliases.get(named, named) & 0x7FFFFFFF
        alive = self.live & self.known
        if self.known and self.root not in self.live and len(alive) == 1:
            return next(iter(alive))  # strace prints no number when one task is left
        return self.root & 0x7FFFFFFF

    def _meet(self, tid: int) -> Iterator[Rec]:
        """A task's first line: the call that made it may not have returned (vfork does so after the child's exec)."""
        self.live.add(tid)
        if tid in self.known:
            return
        first = not self.known
        self.known.add(tid)
        if tid in self.unclaimed:
            self.unclaimed.remove(tid)
            return
        if first:
            return
        maker = next((t for t, begun in self.open.items() if _number(begun) in CLONES), None)
        if maker is None and self.cut is not None and _number(self.cut[1]) in CLONES:
            maker = self.cut[0]
        if maker is not None:
            begun = self.open.get(maker) or (self.cut[1] if self.cut else "")
            self.early.setdefault(maker, []).append(tid)
            yield Rec(self.now - 500, R.NEW, maker, (tid, _clone_flags(begun)))
        elif self.unclaimed:  # clone returned the number of another PID namespace
            inner = self.unclaimed.pop(0)
            self.named[tid] = self.aliases[tid] = inner
            self.known.add(inner)
            self.live.add(inner)
        elif not self.execs:
            self.adopted += 1
            yield Rec(self.now - 500, R.NEW, self.root & 0x7FFFFFFF, (tid, CLONE_VM | CLONE_THREAD))

    def _text(self, tid: int, text: str) -> Iterator[Rec]:
        """One event of a task: a call's beginning, end, or both; its end; a signal."""
        tid = self.aliases.get(tid, tid)
        if (superseded := _SUPERSEDED.match(text)) is not None:
            # A thread's exec ends the others, and the thread goes on under the leader's number.
            thread = int(superseded[1])
            if thread in self.open:
                self.open[tid] = self.open.pop(thread)
            yield from self._gone(thread)
            return
        if text.startswith("+++ "):
            yield from self._gone(tid)
            return
        if text.startswith("--- "):
            self.tally.skip("signals")
            return
        if text.startswith("> "):
            self.tally.skip("stack lines")
            return
        if text.rstrip().endswith(_UNFINISHED) and not text.startswith("<..."):
            self.open[tid] = text.rstrip()[: -len(_UNFINISHED)]
            yield from self._entry(tid, self.open[tid])
            return
        resumed = _RESUMED.match(text)
        if resumed is not None:
            if tid not in self.open:
                name = ALIASES.get(resumed[1], resumed[1])
                if NR.get(name, -1) in WANTED:
                    self.tally.miss("ends of calls whose beginning is not in the log", f"line {self.number}")
                else:
                    self.tally.skip("other calls")
                return
            text = self.open.pop(tid) + resumed[2]
            if text.rstrip().endswith(_UNFINISHED):  # strace was told to let go of it
                self.open[tid] = text.rstrip()[: -len(_UNFINISHED)]
                return
        else:
            yield from self._entry(tid, text)
        for rec in self._exit(tid, text):
            if rec.what == R.NEW:
                child = rec.values[0]
                early = self.early.get(tid)
                if early:
                    if child in early:
                        early.remove(child)
                    else:  # the number that the maker sees is that of its own PID namespace
                        self.named[early.pop(0)] = child
                    continue
                if child in self.known:
                    continue
                self.unclaimed.append(child)
            yield rec

    def _gone(self, tid: int) -> Iterator[Rec]:
        self.known.discard(tid)
        self.live.discard(tid)
        self.open.pop(tid, None)
        self.tally.skip("ends of tasks")
        yield Rec(self.now, R.GONE, tid)

    def _entry(self, tid: int, text: str) -> Iterator[Rec]:
        number = _number(text)
        if number in WANTED:
            yield Rec(self.now, R.ENTER, tid, (number, (0,) * 6))

    def _exit(self, tid: int, text: str) -> Iterator[Rec]:
        call = _CALL.match(text)
        number = _number(text)
        if call is None or number not in WANTED:
            self.tally.skip("other calls")
            return
        self.narrow = self.narrow or call[1] in ("mmap2", "old_mmap")
        end = _closing(call[2])
        result = _RESULT.match(call[2][end + 1 :]) if end >= 0 else None
        if result is None:
            if "<unavailable>" in text or "<detached" in text or "(To be restarted)" in text:
                self.tally.skip("calls that did not return")
            else:
                self._miss(f"{call[1]} calls that cannot be read", number)
            return
        if result["value"] == "?":
            self.tally.skip("calls that did not return")
            return
        ret = self._result(result)
        if number in EXECS:
            if ret == 0:
                self.execs = True
                self.tally.skip("execs, forks and threads")
                yield Rec(self.now + 1, R.EXEC, tid, (tid,))
                yield Rec(self.now + 2, R.LEAVE, tid, (number, 0))
            else:
                self.tally.skip("other calls")
            return
        if number in CLONES:
            self.tally.skip("execs, forks and threads" if ret > 0 else "other calls")
            if ret > 0:
                yield Rec(self.now + 1, R.NEW, tid, (ret & 0x7FFFFFFF, _clone_flags(text)))
            return
        try:
            args = self._arguments(number, call[2][:end])
        except ValueError as error:
            self._miss(f"{call[1]} calls with a wrong argument: {error}", number)
            return
        if ret >= ADDRESS_LIMIT:
            raise ValueError(
                f"line {self.number}: address {ret:#x} lies above 2^47: not an x86-64 program with page tables of "
                "four levels, which is what benchframe models"
            )
        self.tally.used += 1
        yield Rec(self.now + 1, R.ENTER, tid, (number, args))
        yield Rec(self.now + 2, R.LEAVE, tid, (number, ret))

    def _result(self, result: "re.Match[str]") -> int:
        ret = int(result["outer"] or 0) or int(result["value"], 0)
        if ret == -1 and result["errno"]:
            code = getattr(errno, result["errno"], None)
            if not isinstance(code, int):
                self.unknown[result["errno"]] = self.number
                code = errno.EINVAL
            return -code
        if ret == -1 and result["number"]:
            return -int(result["number"])
        return ret

    def _arguments(self, number: int, text: str) -> tuple[Any, ...]:
        parts = split_arguments(text)
        args: list[Any] = [value_of(part, self.unknown) for part in parts]
        args = (args + [0] * 6)[:6]
        if number == NR["mmap"] and len(parts) > 4 and (path := re.match(r"^\d+<(/.*?)>(?:\(deleted\))?$", parts[4])):
            args.append((0, hash_name(path[1]), path[1], 0))
        return tuple(args)

    def _miss(self, why: str, number: int) -> None:
        if number in MM_CALLS:
            self.tally.miss(why, f"line {self.number}")
        else:
            self.tally.miss("execs, forks and threads that cannot be read", f"line {self.number}")

    def _junk(self, text: str) -> None:
        if _MM_WORD.search(text) and not text.lstrip().startswith("> "):
            self.tally.miss("calls in lines that cannot be read", f"line {self.number}")
        else:
            self.tally.skip("stack lines" if text.lstrip().startswith("> ") else "lines that are not strace's")


def _known_form(text: str) -> bool:
    return text.startswith(("+++ ", "--- ", "<... ")) or _CALL.match(text) is not None


def _number(text: str) -> int:
    name = text.partition("(")[0]
    return NR.get(ALIASES.get(name, name), -1)


def _clone_flags(text: str) -> int:
    name, _, rest = text.partition("(")
    flags = 0x4000 | CLONE_VM if name == "vfork" else 0
    match = re.search(r"flags=([A-Za-z0-9_|]+)", rest)
    if match is None and name in ("clone", "__clone2") and (raw := re.match(r"\s*(0x[0-9a-f]+|\d+)\b", rest)):
        return int(raw[1], 0)
    for word in match[1].split("|") if match else ():
        flags |= CONSTANTS.get(word, int(word, 0) if re.fullmatch(r"0x[0-9a-f]+|[1-9]\d*|0", word) else 0)
    return flags


def _scan(text: str) -> Iterator[tuple[int, str]]:
    """(place, character) of ``text`` outside strings, comments and what descriptors carry in angle brackets."""
    at, size, depth = 0, len(text), 0
    while at < size:
        char = text[at]
        if char == '"':
            at += 1
            while at < size and text[at] != '"':
                at += 2 if text[at] == "\\" else 1
        elif text.startswith("/*", at):
            at = text.find("*/", at)
            if at < 0:
                return
            at += 1
        elif char == "<" and (depth or (at and text[at - 1].isalnum())) and not text.startswith("<<", at):
            depth += 1
        elif char == "<" and text.startswith("<<", at):
            at += 1
        elif char == ">" and depth and text[at - 1] != "-":
            depth -= 1
        elif not depth:
            yield at, char
        at += 1


def _closing(text: str) -> int:
    """Where the call's own closing parenthesis is, the opening one being before ``text``; -1 if it has none."""
    depth = 0
    for at, char in _scan(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            if depth == 0 and char == ")":
                return at
            depth -= 1
    return -1


def split_arguments(text: str) -> list[str]:
    """Arguments at top level: commas in strings, brackets and names of files do not count.

    >>> split_arguments('NULL, 4096, PROT_READ, MAP_PRIVATE, 3</a, b>, 0')
    ['NULL', '4096', 'PROT_READ', 'MAP_PRIVATE', '3</a, b>', '0']
    """
    parts, depth, start = [], 0, 0
    for at, char in _scan(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    rest = text[start:].strip()
    return [*parts, rest] if rest else parts


def value_of(text: str, unknown: dict[str, int] | None = None) -> int:
    """One argument as an unsigned 64-bit number: hexadecimal, decimal, or names joined by |. Raises ValueError.

    A constant that benchframe does not know counts as 0 and is put into ``unknown``.

    >>> value_of("MAP_PRIVATE|MAP_ANONYMOUS|0x8000000 /* MAP_??? */")
    134217762
    """
    text = re.sub(r"/\*.*?\*/", "", text).strip()
    text = re.sub(r"^[a-z_]+=", "", text)
    text = re.sub(r"^(-?\w+)<.*>(?:\(deleted\))?$", r"\1", text)
    total = 0
    for word in text.split("|"):
        word = word.strip()
        shift = re.fullmatch(r"(\d{1,2})<<MAP_HUGE_SHIFT", word)
        if re.fullmatch(r"-?(0x[0-9a-f]{1,16}|\d{1,20})", word):
            total |= int(word, 8) if re.fullmatch(r"0[0-7]+", word) else int(word, 0)
        elif word in CONSTANTS:
            total |= CONSTANTS[word]
        elif shift:
            total |= int(shift[1]) << 26
        elif re.fullmatch(r"[A-Z][A-Z0-9_]*", word):
            if unknown is not None:
                unknown[word] = 1
        elif word and not re.fullmatch(r"\{.*|.*\}|\".*|\[.*", word):
            raise ValueError(f"{word[:40]!r} is not understood")
    return total & (1 << 64) - 1
