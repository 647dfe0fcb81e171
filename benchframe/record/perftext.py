"""Text with page faults: ``perf script --show-task-events --show-mmap-events -F comm,pid,tid,time,event,addr``.

Posted texts often have perf script's default fields, where the number after the event is the instruction pointer: such
a line is not a fault that can be replayed, and is counted as missing. Call chains, further fields, build ids in MMAP2
lines and other events are recognised and skipped.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchframe.record import records as R
from benchframe.record.records import Rec, hash_name
from benchframe.record.syscalls import ALL, CLONE_THREAD, CLONE_VM
from benchframe.record.tally import MAX_LINE, Tally, build, imported, text_lines
from benchframe.trace.trace import Trace

_LINE = re.compile(
    r"^\s*(?P<comm>\S.{0,63}?)\s+(?:(?P<pid>-?\d{1,10})/\s*)?(?P<tid>-?\d{1,10})\s+(?:\[\d+\]\s+)?(?:[-.a-zA-Z]{4,8}\s+)?"
    r"(?P<time>\d{1,12}\.\d+):\s+(?P<rest>\S.*)$"
)
_EVENT = re.compile(r"^(?:\d+\s+)?(?P<name>[A-Za-z_][^\s]*?):(?:\s+(?P<tail>.*))?$")
_FAULT_NAME = re.compile(r"^(?:software/)?(?:page-faults|faults|minor-faults|major-faults)(?:[:/][a-zA-Z]*)*$")
_FAULT_WORD = re.compile(r"\b(?:page-faults|minor-faults|major-faults|page_fault_user|page_fault_kernel)\b")
_ADDRESS = re.compile(r"^(?:0x)?(?=[0-9a-f]*\d|0)[0-9a-f]{1,16}$")
_TRACEPOINT = re.compile(r"^address=(?:0x)?([0-9a-f]{1,16}) .*error_code=(0x[0-9a-f]{1,16}|\d{1,19})")
_ENTER = re.compile(r"^NR (-?\d{1,6}) \(([0-9a-fx, ]*)\)")
_LEAVE = re.compile(r"^NR (-?\d{1,6}) = (-?\d{1,20}|0x[0-9a-f]{1,16})")
_MMAP2 = re.compile(
    r"^PERF_RECORD_MMAP2? (?P<pid>-?\d+)/-?\d+: \[(?P<start>0x[0-9a-f]{1,16}|0)\((?P<size>0x[0-9a-f]{1,16}|0)\)"
    r" @ (?P<offset>0x[0-9a-f]{1,16}|0)(?: (?P<major>[0-9a-f]{1,8}):(?P<minor>[0-9a-f]{1,8}) (?P<inode>\d{1,20}) \d+"
    r"| <[0-9a-f]*>)?\]: (?:(?P<perms>[-r][-w][-x][-ps])|(?P<old>[rx])) (?P<name>.*)$"
)
_EXEC = re.compile(r"^PERF_RECORD_COMM exec: .*:(\d{1,10})/(\d{1,10})$")
_TASK = re.compile(r"^PERF_RECORD_(FORK|EXIT)\((\d{1,10}):(\d{1,10})\):\((-?\d{1,10}):(-?\d{1,10})\)$")
_LOST = re.compile(r"^PERF_RECORD_LOST(?:_SAMPLES)? lost (\d{1,18})")
_STACK = re.compile(r"^\s+[0-9a-f]{1,16}\s\S")
REPORTED = "mappings are those that perf reported: unmapping was not recorded"
NO_ADDRESS = (
    "page faults without an address (the number behind the event is the instruction pointer, if there is one; "
    "perf script -F +addr adds the address)"
)
IN_CODE = 8
"""If this many lone numbers are all in executable mappings, they are instruction pointers and not addresses."""


def is_perf_line(line: str) -> bool:
    """Whether a line looks like perf script's, with something useful in it, or something that was meant to be
    useful."""
    match = _LINE.match(line) if len(line) < MAX_LINE else None
    if match is None:
        return bool(len(line) < MAX_LINE and re.match(r"^\s*\S.*\s(?:\d+/)?\d+\s.*page-faults(?::[a-z]+)?:", line))
    return match["rest"].startswith("PERF_RECORD_") or _EVENT.match(match["rest"]) is not None


def import_perf_script(path: Path, tally: Tally) -> Trace:
    """Faults and reported mappings of a text (and calls, if it contains raw_syscalls). Raises ValueError."""
    text = _Text(path, tally)
    recs = list(text.read())
    text.judge(recs)
    calls = any(rec.what == R.ENTER for rec in recs)
    meta = imported(path, "perf-script", () if calls else (REPORTED,))
    return build(recs, replace(meta, lost=text.lost), calls, tally, text.before, text.pids)


class _Text:
    def __init__(self, path: Path, tally: Tally) -> None:
        self.path, self.tally = path, tally
        self.lost = 0
        self.lone = 0  # faults whose address stands alone
        self.before: dict[int, list[Rec]] = {}
        self.pids: dict[int, int] = {}

    def read(self) -> Iterator[Rec]:
        held: tuple[int, Rec] | None = None  # `hex symbol (dso)`: an address only if a call chain follows
        for number, line in text_lines(self.path, self.tally):
            if not line.strip() or line.startswith("#"):
                continue
            stack = _STACK.match(line) is not None and _LINE.match(line) is None
            if held is not None:
                yield from self._held(*held, stack)
                held = None
            if stack:
                self.tally.skip("call-chain lines")
                continue
            match = _LINE.match(line)
            if match is None:
                if _FAULT_WORD.search(line):
                    self.tally.miss("page faults in lines without a thread or a time", f"line {number}")
                else:
                    self.tally.skip("lines that are not perf script's")
                continue
            whole, _, part = match["time"].partition(".")
            time = int(whole) * 1_000_000_000 + int(f"{part[:9]:0<9}")
            tid = int(match["tid"])
            if match["pid"]:
                self.pids.setdefault(tid, int(match["pid"]))
            rest = match["rest"]
            if rest.startswith("PERF_RECORD_"):
                yield from self._side(time, tid & 0x7FFFFFFF, rest, number)
                continue
            event = _EVENT.match(rest)
            name, tail = (event["name"], event["tail"] or "") if event else ("", "")
            rec = self._sample(time, tid & 0x7FFFFFFF, name, tail, number)
            if rec is not None and _one_group(tail) and _FAULT_NAME.match(name):
                held = (number, rec)
            elif rec is not None:
                self.tally.used += 1
                yield rec
        if held is not None:
            yield from self._held(*held, False)

    def _held(self, number: int, rec: Rec, stack: bool) -> Iterator[Rec]:
        if stack:
            self.tally.used += 1
            yield rec
        else:
            self.tally.miss(NO_ADDRESS, f"line {number}")

    def _sample(self, time: int, tid: int, name: str, tail: str, number: int) -> Rec | None:
        if _FAULT_NAME.match(name):
            words = tail.split()
            if not words or not _ADDRESS.match(words[0]):
                self.tally.miss(NO_ADDRESS, f"line {number}")
                return None
            self.lone += len(words) == 1
            return Rec(time, R.FAULT, tid, (int(words[0], 16), -1, True))
        if name.startswith("exceptions:page_fault_"):
            found = _TRACEPOINT.match(tail)
            if found is None:
                self.tally.miss("page faults whose address is not a number", f"line {number}")
                return None
            return Rec(time, R.FAULT, tid, (int(found[1], 16), int(found[2], 0), name.endswith("user")))
        if name == "raw_syscalls:sys_enter" and (found := _ENTER.match(tail)):
            args = [int(word, 16) for word in found[2].replace(",", " ").split()][:6]
            if int(found[1]) in ALL:
                return Rec(time, R.ENTER, tid, (int(found[1]), tuple(args + [0] * (6 - len(args)))))
        elif name == "raw_syscalls:sys_exit" and (found := _LEAVE.match(tail)) and int(found[1]) in ALL:
            return Rec(time, R.LEAVE, tid, (int(found[1]), int(found[2], 0)))
        if _FAULT_WORD.search(name):
            self.tally.miss("page faults in lines that cannot be read", f"line {number}")
        else:
            self.tally.skip(f"samples of {name[:40] or 'no event'}")
        return None

    def _side(self, time: int, tid: int, rest: str, number: int) -> Iterator[Rec]:
        if found := _MMAP2.match(rest):
            if int(found["pid"]) <= 0 or int(found["start"], 16) >= R.KERNEL_HALF:
                self.tally.skip("mappings of the kernel")
                return
            rec = Rec(time, R.AREA, tid, _area(found))
            if time == 0:  # synthesised by perf for processes that were already running
                self.before.setdefault(tid, []).append(rec)
                self.tally.skip("mappings of processes that ran before")
                return
            self.tally.skip("reported mappings")
            yield rec
        elif found := _EXEC.match(rest):
            self.tally.skip("execs, forks and exits")
            yield Rec(time, R.EXEC, int(found[2]) & 0x7FFFFFFF, (int(found[1]),))
        elif found := _TASK.match(rest):
            self.tally.skip("execs, forks and exits")
            pid, child, parent_pid, parent = (int(found[i]) & 0x7FFFFFFF for i in (2, 3, 4, 5))
            if time == 0:
                return
            if found[1] == "EXIT":
                yield Rec(time, R.GONE, child)
            else:
                yield Rec(time, R.NEW, parent, (child, CLONE_VM | CLONE_THREAD if pid == parent_pid else 0))
        elif found := _LOST.match(rest):
            self.lost += int(found[1])
            self.tally.miss("events that perf itself lost", f"line {number}", int(found[1]))
        elif rest.startswith(("PERF_RECORD_MMAP", "PERF_RECORD_FORK", "PERF_RECORD_EXIT", "PERF_RECORD_COMM exec")):
            self.tally.miss(f"{rest.split('(')[0].split(' ')[0]} lines that cannot be read", f"line {number}")
        else:
            self.tally.skip("other perf records")

    def judge(self, recs: list[Rec]) -> None:
        """Lone numbers that are all in code are instruction pointers (``-F ip``): raises ValueError."""
        faults = [rec.values[0] for rec in recs if rec.what == R.FAULT]
        if self.lone < IN_CODE or self.lone < len(faults):
            return
        code = [(rec.values[0], rec.values[1]) for rec in recs if rec.what == R.AREA and rec.values[3] & 4]
        if code and all(addr >= R.KERNEL_HALF or any(low <= addr < high for low, high in code) for addr in faults):
            raise ValueError(
                "the numbers behind the events are instruction pointers, all in code: the addresses are missing "
                "(perf script -F comm,pid,tid,time,event,addr)"
            )


def _one_group(tail: str) -> bool:
    """A single ``hex symbol (dso)``: the address or the instruction pointer, which the fields do not distinguish."""
    words = tail.split()
    return len(words) > 1 and tail.count("(/") + tail.count("([") + tail.count("(//") <= 1 and not _two_numbers(words)


def _two_numbers(words: list[str]) -> bool:
    return len(words[1]) >= 6 and _ADDRESS.match(words[1]) is not None


def _area(found: "re.Match[str]") -> tuple[object, ...]:
    start, length, offset = int(found["start"], 16), int(found["size"], 16), int(found["offset"], 16)
    perms = found["perms"] or ("r-xp" if found["old"] == "x" else "rw-p")
    prot = sum(bit for bit, letter in zip((1, 2, 4), perms, strict=False) if letter != "-")
    where = (int(found["major"] or "0", 16), int(found["minor"] or "0", 16), int(found["inode"] or "0") & (1 << 63) - 1)
    name = found["name"].strip()
    if not where[2] and name.startswith("/") and not name.startswith("//"):
        where = (0, 0, hash_name(name))
    return (start, start + length, offset, prot, 1 if perms[3] == "s" else 2, where, name)
