"""What perf wrote: perf.data files, read without the perf tool, and the text of ``perf script``.

Format: tools/perf/Documentation/perf.data-file-format.txt and include/uapi/linux/perf_event.h (Linux 6.1). Files,
pipes (``perf record -o -``) and compressed records (``perf record -z``) are read. Event names are taken from the
EVENT_DESC feature section; raw tracepoint data have the layouts of x86-64.

Text with page faults: ``perf script --show-task-events --show-mmap-events -F comm,pid,tid,time,event,addr``. Posted
texts often have perf script's default fields, where the number after the event is the instruction pointer: such a line
is not a fault that can be replayed, and is counted as missing. Call chains, further fields, build ids in MMAP2 lines
and other events are recognised and skipped.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchframe.record import records as R
from benchframe.record.perf import (
    COUNT_SW_PAGE_FAULTS,
    SAMPLE_ADDR,
    SAMPLE_CALLCHAIN,
    SAMPLE_CPU,
    SAMPLE_ID,
    SAMPLE_IDENTIFIER,
    SAMPLE_IP,
    SAMPLE_PERIOD,
    SAMPLE_RAW,
    SAMPLE_READ,
    SAMPLE_STREAM,
    SAMPLE_TID,
    SAMPLE_TIME,
    TYPE_SOFTWARE,
)
from benchframe.record.records import ALL, CLONE_THREAD, CLONE_VM, Rec, hash_name
from benchframe.record.tally import MAX_LINE, Tally, build, imported, text_lines
from benchframe.trace.trace import Trace

ARCH, EVENT_DESC = 6, 12
RECORD_MMAP, RECORD_FORK, RECORD_LOST_SAMPLES = 1, 7, 13
RECORD_ATTR, RECORD_TRACING_DATA, RECORD_AUXTRACE, RECORD_FEATURE, RECORD_COMPRESSED, RECORD_COMPRESSED2 = (
    64, 66, 71, 80, 81, 83,
)  # fmt: skip
FORMAT_GROUP = 8
MAX_EVENTS = 4096
MAX_UNPACKED = 1 << 31
COUNT_FAULTS = (COUNT_SW_PAGE_FAULTS, 5, 6)
"""PERF_COUNT_SW_PAGE_FAULTS, _MIN, _MAJ."""
SOFTWARE = ("cpu-clock", "task-clock", "page-faults", "context-switches", "cpu-migrations", "minor-faults",
            "major-faults")  # fmt: skip
NO_ADDRESS = "page faults without an address (perf record -d adds it)"


@dataclass(frozen=True)
class _Attr:
    """What an event's samples contain."""

    sample: int
    type: int
    config: int
    read_format: int = 0
    sample_id_all: bool = True

    @property
    def is_fault(self) -> bool:
        return self.type == TYPE_SOFTWARE and self.config in COUNT_FAULTS


@dataclass
class _File:
    """A file's events, and the place of its records."""

    names: dict[int, str] = field(default_factory=dict)
    attrs: dict[int, _Attr] = field(default_factory=dict)
    arch: str = ""
    start: int = 0
    end: int = 0
    piped: bool = False


def import_perf_data(path: Path, tally: Tally) -> Trace:
    """All faults and mappings in a perf.data file. Raises ValueError."""
    data = path.read_bytes()
    if data.startswith(b"2ELIFREP"):
        raise ValueError("it was written on a big-endian machine: not x86-64, which is what benchframe models")
    about = _header(data)
    reader = _Reader(about, tally)
    recs = list(reader.read(data))
    if about.arch and about.arch != "x86_64":
        raise ValueError(f"it was recorded on {about.arch[:20]!r}: not x86-64, which is what benchframe models")
    calls = any(rec.what == R.ENTER for rec in recs)
    if calls and _narrow(recs):
        raise ValueError("a 32-bit program: its system calls have the numbers of i386, and perf.data does not say so")
    notes = () if calls else ("mappings are those that perf reported: unmapping was not recorded",)
    meta = replace(imported(path, "perf-data", notes), lost=reader.lost)
    return build(recs, meta, calls, tally, reader.before, reader.pids)


def _narrow(recs: list[Rec]) -> bool:
    """Whether all mappings of the recorded program are below 4 GiB."""
    ends = [rec.values[1] for rec in recs if rec.what == R.AREA]
    return bool(ends) and max(ends) <= 1 << 32


def _header(data: bytes) -> _File:
    size = struct.unpack_from("<Q", data, 8)[0] if len(data) >= 16 else 0
    if size == 16:
        return _File(start=16, end=len(data), piped=True)
    if len(data) < 104:
        raise ValueError("the perf.data header is cut short")
    _, attr_size, attrs_at, attrs_size, start, length = struct.unpack_from("<6Q", data, 8)
    features = int.from_bytes(data[72:104], "little")
    if size != 104 or attr_size < 80 or attrs_at + attrs_size > len(data) or attrs_size // attr_size > MAX_EVENTS:
        raise ValueError("the perf.data header makes no sense")
    if start + length > len(data) or length == 0:
        raise ValueError("perf.data was not closed properly (perf was killed) or is cut short")
    about = _File(start=start, end=start + length)
    for at in range(attrs_at, attrs_at + attrs_size - attr_size + 1, attr_size):
        ids_at, ids_size = struct.unpack_from("<QQ", data, at + attr_size - 16)
        if ids_at + ids_size > len(data) or ids_size > 8 * MAX_EVENTS:
            raise ValueError("the ids of an event lie outside the file")
        _add_attr(about, data[at : at + attr_size - 16], struct.unpack_from(f"<{ids_size // 8}Q", data, ids_at))
    place = start + length
    for feature in range(256):
        if features >> feature & 1:
            at, size = struct.unpack_from("<QQ", data, place)
            place += 16
            if at + size <= len(data):
                _feature(about, feature, data[at : at + size])
    return about


def _add_attr(about: _File, attr: bytes, ids: tuple[int, ...]) -> None:
    kind, _, config, _, sample, read_format, bits = struct.unpack_from("<IIQQQQQ", attr)
    made = _Attr(sample, kind, config, read_format, bool(bits >> 18 & 1))
    for number in ids:
        about.attrs[number] = made
    about.attrs.setdefault(0, made)
    if len(about.attrs) > MAX_EVENTS:
        raise ValueError("too many events")


def _feature(about: _File, feature: int, data: bytes) -> None:
    if feature == EVENT_DESC:
        about.names.update(_names(data))
    elif feature == ARCH and len(data) > 4:
        about.arch = data[4:].split(b"\0", 1)[0].decode(errors="replace")


def _names(data: bytes) -> dict[int, str]:
    count, attr_size = struct.unpack_from("<II", data, 0)
    if count > MAX_EVENTS:
        raise ValueError("too many events")
    names: dict[int, str] = {}
    at = 8
    for _ in range(count):
        at += attr_size
        ids, length = struct.unpack_from("<II", data, at)
        name = data[at + 8 : at + 8 + length].split(b"\0", 1)[0].decode(errors="replace")
        at += 8 + length
        if ids > MAX_EVENTS:
            raise ValueError("too many ids")
        for number in struct.unpack_from(f"<{ids}Q", data, at):
            names[number] = name
        at += 8 * ids
    return names


class _Reader:
    """Walks the records of the data section."""

    def __init__(self, about: _File, tally: Tally) -> None:
        self.about, self.tally, self.lost = about, tally, 0
        self.before: dict[int, list[Rec]] = {}
        self.pids: dict[int, int] = {}
        self.checked = False
        self.one = _Attr(0, 0, 0)
        self.by_identifier = False

    def read(self, data: bytes) -> Iterator[Rec]:
        """All records; compressed ones (perf -z) come after the plain ones (the builder sorts by time)."""
        packed: list[bytes] = []
        yield from self._walk(data, self.about.start, self.about.end, packed)
        if packed:
            plain = _unpacked(packed)
            yield from self._walk(plain, 0, len(plain), [])

    def _walk(self, data: bytes, at: int, end: int, packed: list[bytes]) -> Iterator[Rec]:
        while at + 8 <= end:
            kind, misc, size = struct.unpack_from("<IHH", data, at)
            if size < 8 or at + size > end:
                raise ValueError(f"the record at byte {at} makes no sense")
            body, stop = at + 8, at + size
            at += size
            self.tally.read += 1
            if kind >= RECORD_ATTR:
                if kind in (RECORD_COMPRESSED, RECORD_COMPRESSED2):
                    skip = 8 if kind == RECORD_COMPRESSED2 else 0
                    length = struct.unpack_from("<Q", data, body)[0] if skip else stop - body
                    packed.append(data[body + skip : body + skip + min(length, stop - body - skip)])
                at += self._own(kind, data[body:stop])
                continue
            if not self.checked:
                self._check()
            if kind == R.RECORD_SAMPLE:
                rec = self._sample(data[body:stop])
                if rec is not None:
                    self.tally.used += 1
                    yield rec
            elif kind in (RECORD_MMAP, R.RECORD_MMAP2, R.RECORD_COMM, R.RECORD_EXIT, RECORD_FORK):
                yield from self._side(kind, misc, data[body:stop])
            elif kind == R.RECORD_LOST:
                self._lose(struct.unpack_from("<QQ", data, body)[1])
            elif kind == RECORD_LOST_SAMPLES:
                self._lose(struct.unpack_from("<Q", data, body)[0])
            else:
                self.tally.skip("other perf records")

    def _lose(self, count: int) -> None:
        self.lost += count
        self.tally.miss("events that perf itself lost", count=count)

    def _own(self, kind: int, body: bytes) -> int:
        """A record that perf itself made (tools/lib/perf/include/perf/event.h); returns how many bytes follow it."""
        self.tally.skip("records of perf about itself")
        if kind == RECORD_ATTR and self.about.piped:
            size = struct.unpack_from("<I", body, 4)[0]
            if not 64 <= size <= len(body):
                raise ValueError("an event's attributes make no sense")
            count = (len(body) - size) // 8
            _add_attr(self.about, body[:size], struct.unpack_from(f"<{count}Q", body, size))
        elif kind == RECORD_FEATURE and self.about.piped:
            _feature(self.about, struct.unpack_from("<Q", body)[0], body[8:])
        elif kind == RECORD_TRACING_DATA:
            return int(struct.unpack_from("<I", body)[0]) + 7 & ~7
        elif kind == RECORD_AUXTRACE:
            return int(struct.unpack_from("<Q", body)[0])
        return 0

    def _check(self) -> None:
        self.checked = True
        attrs = self.about.attrs
        if not attrs:
            raise ValueError("it describes no event")
        self.one = attrs[0]
        kinds = set(attrs.values())
        self.by_identifier = all(attr.sample & SAMPLE_IDENTIFIER for attr in kinds)
        known = (
            SAMPLE_IDENTIFIER
            | SAMPLE_ID
            | SAMPLE_TID
            | SAMPLE_TIME
            | SAMPLE_CPU
            | SAMPLE_STREAM
            | SAMPLE_IP
            | SAMPLE_ADDR
        )
        if not self.by_identifier and any((attr.sample ^ self.one.sample) & known for attr in kinds):
            raise ValueError("its events have different sample formats and no identifier")
        if any(not attr.sample & SAMPLE_TIME or not attr.sample & SAMPLE_TID for attr in kinds):
            raise ValueError("its samples have no time or thread (perf record -T, or -d, adds them)")

    def _time_of(self, body: bytes) -> int:
        """sample_id_all: TID, TIME, ID, STREAM_ID, CPU, IDENTIFIER at the end of a record, each if requested."""
        attr = self.one
        if self.by_identifier:
            attr = self.about.attrs.get(struct.unpack_from("<Q", body, len(body) - 8)[0], attr)
        behind = sum(8 for bit in (SAMPLE_ID, SAMPLE_STREAM, SAMPLE_CPU, SAMPLE_IDENTIFIER) if attr.sample & bit)
        return int(struct.unpack_from("<Q", body, len(body) - behind - 8)[0])

    def _side(self, kind: int, misc: int, body: bytes) -> Iterator[Rec]:
        time = self._time_of(body)
        pid, tid, third, fourth = struct.unpack_from("<IIII", body)
        if kind in (RECORD_MMAP, R.RECORD_MMAP2):
            rec = _area(kind, misc, body, time, tid)
            if pid >= 1 << 31 or rec.values[0] >= R.KERNEL_HALF:
                self.tally.skip("mappings of the kernel")
            elif time == 0:  # synthesised by perf for processes that were already running
                self.before.setdefault(tid, []).append(rec)
                self.tally.skip("mappings of processes that ran before")
            else:
                self.tally.skip("reported mappings")
                yield rec
            return
        self.tally.skip("names, execs, forks and exits")
        if time == 0:
            if kind == RECORD_FORK:
                self.pids.setdefault(third, pid)
            return
        if kind == R.RECORD_EXIT:
            yield Rec(time, R.GONE, third)
        elif kind == RECORD_FORK:
            yield Rec(time, R.NEW, fourth, (third, CLONE_VM | CLONE_THREAD if pid == tid else 0))
        elif misc & R.MISC_COMM_EXEC:
            yield Rec(time, R.EXEC, tid, (pid,))

    def _sample(self, body: bytes) -> Rec | None:
        number = struct.unpack_from("<Q", body)[0] if self.one.sample & SAMPLE_IDENTIFIER else 0
        attr = self.about.attrs.get(number, self.one)
        sample, at = attr.sample, 0
        at += 8 if sample & SAMPLE_IDENTIFIER else 0
        at += 8 if sample & SAMPLE_IP else 0
        pid, tid = struct.unpack_from("<II", body, at)
        time = struct.unpack_from("<Q", body, at + 8)[0]
        at += 16
        addr = struct.unpack_from("<Q", body, at)[0] if sample & SAMPLE_ADDR else 0
        at += 8 if sample & SAMPLE_ADDR else 0
        if sample & SAMPLE_ID:
            number = struct.unpack_from("<Q", body, at)[0]
            attr = self.about.attrs.get(number, attr)
        self.pids.setdefault(tid, pid)
        name = self.about.names.get(number, "")
        if attr.is_fault:
            if not sample & SAMPLE_ADDR:
                self.tally.miss(NO_ADDRESS)
                return None
            return Rec(time, R.FAULT, tid, (addr, -1, True))
        tracepoint = name.startswith(("exceptions:page_fault_", "raw_syscalls:"))
        if not tracepoint or not sample & SAMPLE_RAW:
            if name.startswith("exceptions:page_fault_"):
                self.tally.miss("page faults without their data (perf record -R adds them)")
            else:
                self.tally.skip(f"samples of {name[:40] or _event_name(attr)}")
            return None
        at += sum(8 for bit in (SAMPLE_ID, SAMPLE_STREAM, SAMPLE_CPU, SAMPLE_PERIOD) if sample & bit)
        if sample & SAMPLE_READ:
            at += _read_size(attr.read_format, body, at)
        if sample & SAMPLE_CALLCHAIN:
            at += 8 + 8 * int(struct.unpack_from("<Q", body, at)[0])
        rec = _tracepoint(name, time, tid, body[at + 4 :])
        if rec is None:
            self.tally.skip("samples of other calls")
        return rec


def _event_name(attr: _Attr) -> str:
    if attr.type == TYPE_SOFTWARE and attr.config < len(SOFTWARE):
        return SOFTWARE[attr.config]
    return "hardware events" if attr.type == 0 else "other events"


def _read_size(form: int, body: bytes, at: int) -> int:
    """The size in bytes of a sample's read values (PERF_FORMAT_* 1 enabled, 2 running, 4 id, 8 group, 16 lost)."""
    times = bool(form & 1) + bool(form & 2)
    each = 1 + bool(form & 4) + bool(form & 16)
    if form & FORMAT_GROUP:
        return 8 * (1 + times + each * int(struct.unpack_from("<Q", body, at)[0]))
    return 8 * (times + each)


def _area(kind: int, misc: int, body: bytes, time: int, tid: int) -> Rec:
    if kind == RECORD_MMAP:
        start, length, offset = struct.unpack_from("<QQQ", body, 8)
        name = body[32:].split(b"\0", 1)[0].decode(errors="replace")
        inode = hash_name(name) if name.startswith("/") and not name.startswith("//") else 0
        prot = 3 if misc & 1 << 13 else 5  # MISC_MMAP_DATA
        return Rec(time, R.AREA, tid, (start, start + length, offset, prot, 2, (0, 0, inode), name))
    _, _, start, length, offset, major, minor, inode, _, prot, flags = struct.unpack_from("<IIQQQIIQQII", body)
    name = body[64:].split(b"\0", 1)[0].decode(errors="replace")
    if misc & 1 << 14:  # MISC_MMAP_BUILD_ID: there is no inode
        major = minor = 0
        inode = hash_name(name) if name.startswith("/") and not name.startswith("//") else 0
    where = (major, minor, inode & (1 << 63) - 1)
    return Rec(time, R.AREA, tid, (start, start + length, offset, prot & 7, flags, where, name))


def _unpacked(packed: list[bytes]) -> bytes:
    """The contents of ``perf record -z`` records: one zstd stream over all of them, which perf never ends."""
    import pyarrow as pa  # type: ignore[import-untyped]

    out = bytearray()
    for step in (1 << 20, 8):  # a read across the open end returns nothing: read the rest word by word
        try:
            stream = pa.CompressedInputStream(pa.BufferReader(b"".join(packed)), "zstd")
            left = len(out)
            while left:
                left -= len(stream.read(min(left, 1 << 20)))
            while part := stream.read(step):
                out += part
                if len(out) > MAX_UNPACKED:
                    raise ValueError("its compressed records unpack to more than 2 GiB")
            break
        except (OSError, pa.ArrowException):
            continue
    if not out:
        raise ValueError(
            "its records are compressed in a way that cannot be read here: record without -z, or pass it through "
            "perf inject -i perf.data -o plain.data"
        )
    return bytes(out)


def _tracepoint(name: str, time: int, tid: int, raw: bytes) -> Rec | None:
    if name.startswith("exceptions:page_fault_"):
        addr, _, code = struct.unpack_from("<QQQ", raw, 8)
        return Rec(time, R.FAULT, tid, (addr, code, name.startswith("exceptions:page_fault_user")))
    if name.startswith("raw_syscalls:sys_enter"):
        number, *args = struct.unpack_from("<q6Q", raw, 8)
        return Rec(time, R.ENTER, tid, (number, tuple(args))) if number in ALL else None
    if name.startswith("raw_syscalls:sys_exit"):
        number, ret = struct.unpack_from("<qq", raw, 8)
        return Rec(time, R.LEAVE, tid, (number, ret)) if number in ALL else None
    return None


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
NO_ADDRESS_COLUMN = (
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
            self.tally.miss(NO_ADDRESS_COLUMN, f"line {number}")

    def _sample(self, time: int, tid: int, name: str, tail: str, number: int) -> Rec | None:
        if _FAULT_NAME.match(name):
            words = tail.split()
            if not words or not _ADDRESS.match(words[0]):
                self.tally.miss(NO_ADDRESS_COLUMN, f"line {number}")
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
            rec = Rec(time, R.AREA, tid, _area_of_text(found))
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


def _area_of_text(found: "re.Match[str]") -> tuple[object, ...]:
    start, length, offset = int(found["start"], 16), int(found["size"], 16), int(found["offset"], 16)
    perms = found["perms"] or ("r-xp" if found["old"] == "x" else "rw-p")
    prot = sum(bit for bit, letter in zip((1, 2, 4), perms, strict=False) if letter != "-")
    where = (int(found["major"] or "0", 16), int(found["minor"] or "0", 16), int(found["inode"] or "0") & (1 << 63) - 1)
    name = found["name"].strip()
    if not where[2] and name.startswith("/") and not name.startswith("//"):
        where = (0, 0, hash_name(name))
    return (start, start + length, offset, prot, 1 if perms[3] == "s" else 2, where, name)
