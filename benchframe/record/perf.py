"""perf_event_open(2) through ctypes: events on a process tree, one ring per CPU, drained while the program runs.

Layouts are those of include/uapi/linux/perf_event.h (Linux 6.0 for PERF_FORMAT_LOST): ``struct perf_event_attr``,
``struct perf_event_mmap_page`` and the PERF_RECORD_* records.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import platform
import resource
import select
import struct
import tempfile
import threading
from dataclasses import dataclass
from typing import IO

NR_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
TYPE_SOFTWARE, TYPE_TRACEPOINT = 1, 2
COUNT_SW_PAGE_FAULTS = 2
SAMPLE_IP, SAMPLE_TID, SAMPLE_TIME, SAMPLE_ADDR, SAMPLE_READ = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 4
SAMPLE_CALLCHAIN, SAMPLE_ID, SAMPLE_CPU, SAMPLE_PERIOD, SAMPLE_STREAM = 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 9
SAMPLE_RAW, SAMPLE_IDENTIFIER = 1 << 10, 1 << 16
"""perf_event_attr.sample_type (include/uapi/linux/perf_event.h): of the recorder, and of perf.data's reader."""
FORMAT_ID, FORMAT_LOST = 1 << 2, 1 << 4
DISABLED, INHERIT, EXCLUDE_KERNEL, EXCLUDE_HV, MMAP, COMM = 1, 1 << 1, 1 << 5, 1 << 6, 1 << 8, 1 << 9
ENABLE_ON_EXEC, TASK, WATERMARK, MMAP_DATA, SAMPLE_ID_ALL = 1 << 12, 1 << 13, 1 << 14, 1 << 17, 1 << 18
MMAP2, COMM_EXEC, USE_CLOCKID = 1 << 23, 1 << 24, 1 << 25
IOC_ENABLE, IOC_DISABLE, IOC_SET_OUTPUT, IOC_SET_FILTER = 0x2400, 0x2401, 0x2405, 0x40082406
FLAG_FD_CLOEXEC = 1 << 3
CLOCK_MONOTONIC = 1
ATTR = struct.Struct("=IIQQQQQIIQQQQIiQIHH")
HEAD, TAIL = 1024 // 8, 1032 // 8

_libc = ctypes.CDLL(None, use_errno=True)


class PerfError(OSError):
    """perf_event_open or the ring was refused; ``strerror`` says why in the user's terms."""


@dataclass(frozen=True)
class Source:
    """One event to open: perf type and config, more attr flags, an optional tracepoint filter."""

    name: str
    type: int
    config: int
    flags: int = 0
    filter: str = ""
    sample: int = SAMPLE_RAW


def open_event(source: Source, pid: int, cpu: int, flags: int, watermark: int, lost: bool) -> int:
    """One perf_event_open; returns the descriptor or raises PerfError."""
    number = NR_PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise PerfError(38, f"recording is not written for {platform.machine()}")
    sample = SAMPLE_IDENTIFIER | SAMPLE_TID | SAMPLE_TIME | source.sample
    bits = DISABLED | INHERIT | WATERMARK | SAMPLE_ID_ALL | USE_CLOCKID | flags | source.flags
    read_format = FORMAT_ID | (FORMAT_LOST if lost else 0)
    attr = ATTR.pack(
        source.type, ATTR.size, source.config, 1, sample, read_format, bits, watermark, 0,
        0, 0, 0, 0, 0, CLOCK_MONOTONIC, 0, 0, 0, 0,
    )  # fmt: skip
    fd = _libc.syscall(ctypes.c_long(number), attr, pid, cpu, -1, ctypes.c_ulong(FLAG_FD_CLOEXEC))
    if fd < 0:
        code = ctypes.get_errno()
        raise PerfError(code, f"perf_event_open of {source.name}: {os.strerror(code)}")
    return int(fd)


class Recorder:
    """Rings over all CPUs for one process and what it starts.

    ``Recorder(sources, [pid])`` opens everything disabled; the first source also carries the side band (MMAP2, COMM
    with the exec bit, FORK, EXIT). Events start at the process's exec, or at :meth:`enable`. :meth:`start` begins to
    drain into temporary files (bounded memory), :meth:`stop` ends it, :meth:`streams` gives each CPU's raw records.
    """

    def __init__(self, sources: list[Source], pids: list[int], pages: int, on_exec: bool = True) -> None:
        self.ids: dict[int, Source] = {}
        self.lost = 0
        self.counts_lost = True
        self._fds: list[int] = []
        self._rings: list[tuple[mmap.mmap, memoryview, IO[bytes]]] = []
        self._size = pages * mmap.PAGESIZE
        self._poll = select.poll()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None
        # One descriptor per event, CPU and thread: take what we may. The program was forked before, with its own limit.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        try:
            for cpu in sorted(os.sched_getaffinity(0) | _online()):
                self._open_cpu(sources, pids, cpu, on_exec)
        except BaseException:
            self.close()
            raise

    def _open_cpu(self, sources: list[Source], pids: list[int], cpu: int, on_exec: bool) -> None:
        leader = -1
        for pid in pids:
            for i, source in enumerate(sources):
                flags = ENABLE_ON_EXEC if on_exec else 0
                if i == 0:
                    flags |= MMAP | MMAP2 | MMAP_DATA | COMM | COMM_EXEC | TASK
                fd = self._open_one(source, pid, cpu, flags)
                self._fds.append(fd)
                if source.filter:
                    fcntl.ioctl(fd, IOC_SET_FILTER, source.filter.encode() + b"\0")
                if leader < 0:
                    leader = fd
                    self._map(fd)
                else:
                    fcntl.ioctl(fd, IOC_SET_OUTPUT, leader)
                self.ids[self._read(fd)[1]] = source

    def _open_one(self, source: Source, pid: int, cpu: int, flags: int) -> int:
        if self.counts_lost:
            try:
                return open_event(source, pid, cpu, flags, self._size // 8, True)
            except PerfError as error:
                if error.errno != 22:  # EINVAL: a kernel before 6.0 knows no PERF_FORMAT_LOST
                    raise
                fd = open_event(source, pid, cpu, flags, self._size // 8, False)
                self.counts_lost = False
                return fd
        return open_event(source, pid, cpu, flags, self._size // 8, False)

    def _map(self, fd: int) -> None:
        try:
            ring = mmap.mmap(fd, self._size + mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            limit = "kernel.perf_event_mlock_kb"
            raise PerfError(error.errno, f"the ring buffer was refused ({error.strerror}; see {limit})") from None
        view = memoryview(ring)
        self._rings.append((ring, view, tempfile.TemporaryFile(prefix="benchframe-")))  # noqa: SIM115
        self._poll.register(fd, select.POLLIN)

    def _read(self, fd: int) -> tuple[int, ...]:
        size = 24 if self.counts_lost else 16
        data = os.read(fd, 24)
        return struct.unpack(f"={len(data) // 8}Q", data[:size])

    def enable(self) -> None:
        """Start counting now (for a process that runs already)."""
        for fd in self._fds:
            fcntl.ioctl(fd, IOC_ENABLE, 0)

    def disable(self) -> None:
        """Stop counting."""
        for fd in self._fds:
            fcntl.ioctl(fd, IOC_DISABLE, 0)

    def start(self) -> None:
        """Drain the rings in a thread: an undrained ring drops events, and may not even say so."""
        self._thread = threading.Thread(target=self._run, name="benchframe-drain", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._poll.poll(20)
                self._drain()
        except OSError as error:  # a full disk: keep what there is, and say so in stop()
            self._error = error

    def _drain(self) -> None:
        for _, view, spool in self._rings:
            control = view[: mmap.PAGESIZE].cast("Q")
            head, tail = control[HEAD], control[TAIL]
            if head == tail:
                continue
            data = view[mmap.PAGESIZE :]
            start, count = tail % self._size, head - tail
            first = min(count, self._size - start)
            spool.write(data[start : start + first])
            spool.write(data[: count - first])
            control[TAIL] = head

    def stop(self) -> None:
        """End the draining, take the last records and sum the lost events; raises OSError if the disk was full."""
        self.disable()
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        self._drain()
        if self.counts_lost:
            self.lost = sum(self._read(fd)[2] for fd in self._fds)

    def streams(self) -> list[bytes]:
        """The raw records of each CPU, in the order they were written."""
        out = []
        for _, _, spool in self._rings:
            spool.seek(0)
            out.append(spool.read())
        return out

    def close(self) -> None:
        """Give back descriptors, rings and temporary files."""
        for ring, view, spool in self._rings:
            view.release()
            with contextlib.suppress(BufferError):
                ring.close()
            spool.close()
        self._rings.clear()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


def _online() -> set[int]:
    try:
        with open("/sys/devices/system/cpu/online") as file:  # noqa: PTH123
            text = file.read().strip()
    except OSError:
        return set()
    cpus: set[int] = set()
    for part in text.split(","):
        low, _, high = part.partition("-")
        cpus |= set(range(int(low), int(high or low) + 1))
    return cpus
