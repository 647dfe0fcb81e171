"""perf.data files, without the perf tool: page faults (software event or tracepoints), MMAP2, tasks, mm system calls.

Format: tools/perf/Documentation/perf.data-file-format.txt and include/uapi/linux/perf_event.h (Linux 6.1). Event names
are taken from the EVENT_DESC feature section; raw tracepoint data have the layouts of x86-64.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from benchframe.record import perf as R
from benchframe.record.importers import build, imported
from benchframe.record.perf import (
    ALL,
    CLONE_THREAD,
    CLONE_VM,
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
    Rec,
)
from benchframe.trace.trace import Trace

EVENT_DESC = 12
RECORD_FORK = 7
MAX_EVENTS = 4096


def import_perf_data(path: Path) -> Trace:
    """All that a perf.data file says of faults and mappings; raises ValueError."""
    data = path.read_bytes()
    names, attrs, (start, size) = _header(data)
    calls = any(name.startswith("raw_syscalls") for name in names.values())
    notes = () if calls else ("mappings are those that perf reported: unmapping was not recorded",)
    reader = _Reader(names, attrs)
    trace = build(reader.read(data, start, min(start + size, len(data))), imported(path, "perf-data", notes), calls)
    from dataclasses import replace

    trace.meta = replace(trace.meta, lost=reader.lost)
    return trace


def _header(data: bytes) -> tuple[dict[int, str], dict[int, tuple[int, int, int]], tuple[int, int]]:
    """(names by id, (sample_type, type, config) by id, place of the data); id 0 stands for a lone event."""
    if len(data) < 104:
        raise ValueError("the perf.data header is cut short")
    size, attr_size, attrs_at, attrs_size, start, length = struct.unpack_from("<6Q", data, 8)
    features = int.from_bytes(data[72:104], "little")
    if size != 104 or attr_size < 80 or attrs_at + attrs_size > len(data) or attrs_size // attr_size > MAX_EVENTS:
        raise ValueError("the perf.data header makes no sense")
    if start + length > len(data) or length == 0:
        raise ValueError("perf.data was not closed properly or is cut short")
    names: dict[int, str] = {}
    attrs: dict[int, tuple[int, int, int]] = {}
    for at in range(attrs_at, attrs_at + attrs_size - attr_size + 1, attr_size):
        kind, _, config, _, sample = struct.unpack_from("<IIQQQ", data, at)
        ids_at, ids_size = struct.unpack_from("<QQ", data, at + attr_size - 16)
        if ids_at + ids_size > len(data) or ids_size > 8 * MAX_EVENTS:
            raise ValueError("the ids of an event lie outside the file")
        for number in struct.unpack_from(f"<{ids_size // 8}Q", data, ids_at):
            attrs[number] = (sample, kind, config)
        attrs.setdefault(0, (sample, kind, config))
    place = start + length
    for feature in range(256):
        if features >> feature & 1:
            at, size = struct.unpack_from("<QQ", data, place)
            place += 16
            if feature == EVENT_DESC and at + size <= len(data):
                names = _names(data[at : at + size])
    return names, attrs, (start, length)


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

    def __init__(self, names: dict[int, str], attrs: dict[int, tuple[int, int, int]]) -> None:
        self.names, self.attrs, self.lost = names, attrs, 0
        self.sample = attrs.get(0, (0, 0, 0))[0]
        if any(
            (sample ^ self.sample)
            & (SAMPLE_IDENTIFIER | SAMPLE_ID | SAMPLE_TID | SAMPLE_TIME | SAMPLE_CPU | SAMPLE_STREAM)
            for sample, _, _ in attrs.values()
        ):
            raise ValueError("its events have different sample formats")
        if not self.sample & SAMPLE_TIME or not self.sample & SAMPLE_TID:
            raise ValueError("its samples have no time or thread (perf record -T, or -d, adds them)")

    def read(self, data: bytes, at: int, end: int) -> Iterator[Rec]:
        while at + 8 <= end:
            kind, misc, size = struct.unpack_from("<IHH", data, at)
            if size < 8 or at + size > end:
                raise ValueError(f"the record at byte {at} makes no sense")
            body, stop = at + 8, at + size
            if kind == R.RECORD_SAMPLE:
                rec = self._sample(data[body:stop])
                if rec is not None:
                    yield rec
            elif kind in (R.RECORD_MMAP2, R.RECORD_COMM, R.RECORD_EXIT, RECORD_FORK, R.RECORD_LOST):
                yield from self._side(kind, misc, data[body:stop])
            at += size

    def _trailer_time(self, body: bytes) -> int:
        """sample_id_all: TID, TIME, ID, STREAM_ID, CPU, IDENTIFIER at the end of a record, each if asked for."""
        behind = sum(8 for bit in (SAMPLE_ID, SAMPLE_STREAM, SAMPLE_CPU, SAMPLE_IDENTIFIER) if self.sample & bit)
        return int(struct.unpack_from("<Q", body, len(body) - behind - 8)[0])

    def _side(self, kind: int, misc: int, body: bytes) -> Iterator[Rec]:
        time = self._trailer_time(body)
        if kind == R.RECORD_LOST:
            self.lost += struct.unpack_from("<QQ", body)[1]
            return
        pid, tid, third, fourth = struct.unpack_from("<IIII", body)
        if time == 0:
            return  # made up by perf for processes that ran before: no part of the tree
        if kind == R.RECORD_EXIT:
            yield Rec(time, R.GONE, third)
        elif kind == RECORD_FORK:
            yield Rec(time, R.NEW, fourth, (third, CLONE_VM | CLONE_THREAD if pid == tid else 0))
        elif kind == R.RECORD_COMM:
            if misc & R.MISC_COMM_EXEC:
                yield Rec(time, R.EXEC, tid, (pid,))
        else:
            _, _, start, length, offset, major, minor, inode, _, prot, flags = struct.unpack_from("<IIQQQIIQQII", body)
            name = body[64:].split(b"\0", 1)[0].decode(errors="replace")
            if misc & 1 << 14:  # MISC_MMAP_BUILD_ID: no inode is told
                from benchframe.record.perftext import hash_name

                major = minor = 0
                inode = hash_name(name) if name.startswith("/") and not name.startswith("//") else 0
            where = (major, minor, inode & (1 << 63) - 1)
            yield Rec(time, R.AREA, tid, (start, start + length, offset, prot & 7, flags, where, name))

    def _sample(self, body: bytes) -> Rec | None:
        sample, at = self.sample, 0
        number = struct.unpack_from("<Q", body, 0)[0] if sample & SAMPLE_IDENTIFIER else 0
        at += 8 if sample & SAMPLE_IDENTIFIER else 0
        at += 8 if sample & SAMPLE_IP else 0
        tid = struct.unpack_from("<II", body, at)[1]
        time = struct.unpack_from("<Q", body, at + 8)[0]
        at += 16
        addr = struct.unpack_from("<Q", body, at)[0] if sample & SAMPLE_ADDR else 0
        at += 8 if sample & SAMPLE_ADDR else 0
        if sample & SAMPLE_ID:
            number = struct.unpack_from("<Q", body, at)[0]
        at += sum(8 for bit in (SAMPLE_ID, SAMPLE_STREAM, SAMPLE_CPU, SAMPLE_PERIOD) if sample & bit)
        own, kind, config = self.attrs.get(number, self.attrs[0])
        name = self.names.get(number, "")
        if kind == TYPE_SOFTWARE and config == COUNT_SW_PAGE_FAULTS:
            return Rec(time, R.FAULT, tid, (addr, -1, True))
        if not own & SAMPLE_RAW or own & (SAMPLE_READ | SAMPLE_CALLCHAIN):
            return None
        return _tracepoint(name, time, tid, body[at + 4 :])


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
