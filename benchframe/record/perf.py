"""perf events: tracefs, perf_event_open(2) through ctypes, and a ring buffer per CPU, drained while the program runs.

Layouts are those of include/uapi/linux/perf_event.h (Linux 6.0 for PERF_FORMAT_LOST): ``struct perf_event_attr``,
``struct perf_event_mmap_page`` and the PERF_RECORD_* records.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import platform
import re
import resource
import select
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchframe.errors import BenchframeError

# ----------------------------------------------------------------------------------------------------------------------
# The kernel's tracepoints: the place of tracefs, the number of an event, the offsets of its fields.

PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")

_FIELD = re.compile(r"field:(?P<decl>[^;]*);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);\s*signed:(?P<signed>\d)")


class TracefsError(BenchframeError):
    """tracefs cannot be used; the text says why, and what would help."""


@dataclass(frozen=True)
class Tracepoint:
    """One event: its id for perf_event_open, and (offset, size) in bytes of each field of its raw data."""

    name: str
    id: int
    fields: dict[str, tuple[int, int]]


@contextmanager
def tracefs() -> Iterator[tuple[Path, str]]:
    """Yield (tracefs folder, what was done to get it); mounts it if it is not mounted and the user may, and unmounts it
    afterwards. The mount is in a private folder, so that two concurrent recordings do not disturb each other.

    Raises :class:`TracefsError`.
    """
    for place in PLACES:
        try:
            if os.access(place, os.R_OK | os.X_OK) and Path(place, "events").is_dir():
                yield Path(place), ""
                return
        except OSError:
            continue
    if os.geteuid() != 0:
        raise TracefsError("tracefs is not readable (root, or a mount with mode=0755, would change that)")
    libc = ctypes.CDLL(None, use_errno=True)
    detached = detached_mount("tracefs")
    if detached >= 0:
        try:
            yield Path(f"/proc/self/fd/{detached}"), "tracefs was mounted for this recording alone, at no place"
        finally:
            os.close(detached)
        return
    with tempfile.TemporaryDirectory(prefix="benchframe-tracefs-") as place:
        if libc.mount(b"nodev", place.encode(), b"tracefs", 0, None) != 0:
            raise TracefsError(f"tracefs cannot be mounted ({os.strerror(ctypes.get_errno())})")
        try:
            yield Path(place), "mounted tracefs for the duration of the recording"
        finally:
            libc.umount2(place.encode(), 2)  # MNT_DETACH: our own descriptors may be open still


def detached_mount(kind: str) -> int:
    """A file system without a mount point (fsmount(2), Linux 5.2), which disappears with the descriptor however this
    process ends; -1 if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = libc.syscall
    context = call(430, kind.encode(), 1)  # fsopen, FSOPEN_CLOEXEC
    if context < 0:
        return -1
    try:
        if call(431, context, 6, None, None, 0) < 0:  # fsconfig, FSCONFIG_CMD_CREATE
            return -1
        return int(call(432, context, 1, 0))  # fsmount, FSMOUNT_CLOEXEC
    finally:
        os.close(context)


def tracepoint(root: Path, name: str) -> Tracepoint:
    """Read ``events/<system>/<event>/{id,format}`` of ``system:event``. Raises :class:`TracefsError`."""
    folder = root / "events" / name.replace(":", "/")
    try:
        number = int((folder / "id").read_text())
        text = (folder / "format").read_text()
    except (OSError, ValueError) as error:
        raise TracefsError(f"tracepoint {name} is missing ({error})") from None
    return Tracepoint(name, number, parse_format(text))


def parse_format(text: str) -> dict[str, tuple[int, int]]:
    """From field name to (offset, size), from an event's ``format`` file.

    >>> parse_format("field:unsigned long address;\\toffset:8;\\tsize:8;\\tsigned:0;")
    {'address': (8, 8)}
    """
    fields = {}
    for match in _FIELD.finditer(text):
        name = re.sub(r"\[.*\]$", "", match["decl"].split()[-1])
        fields[name] = (int(match["offset"]), int(match["size"]))
    return fields


def function_names(root: Path) -> dict[int, str]:
    """From address to text of ``printk_formats``: what a tracepoint's ``fn`` pointer names. Empty if unreadable."""
    names = {}
    try:
        lines = (root / "printk_formats").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    for line in lines:
        address, _, text = line.partition(" : ")
        try:
            names[int(address, 16)] = text.strip().strip('"')
        except ValueError:
            continue
    return names


# ----------------------------------------------------------------------------------------------------------------------
# perf_event_open(2) and the rings.

NR_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
TYPE_SOFTWARE, TYPE_TRACEPOINT = 1, 2
COUNT_SW_PAGE_FAULTS = 2
SAMPLE_IP, SAMPLE_TID, SAMPLE_TIME, SAMPLE_ADDR, SAMPLE_READ = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 4
SAMPLE_CALLCHAIN, SAMPLE_ID, SAMPLE_CPU, SAMPLE_PERIOD, SAMPLE_STREAM = 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 9
SAMPLE_RAW, SAMPLE_IDENTIFIER = 1 << 10, 1 << 16
"""perf_event_attr.sample_type (include/uapi/linux/perf_event.h) of the recorder, and of perf.data's reader."""
FORMAT_ID, FORMAT_LOST = 1 << 2, 1 << 4
DISABLED, INHERIT, EXCLUDE_KERNEL, EXCLUDE_HV, MMAP, COMM = 1, 1 << 1, 1 << 5, 1 << 6, 1 << 8, 1 << 9
ENABLE_ON_EXEC, TASK, WATERMARK, MMAP_DATA, SAMPLE_ID_ALL = 1 << 12, 1 << 13, 1 << 14, 1 << 17, 1 << 18
MMAP2, COMM_EXEC, USE_CLOCKID = 1 << 23, 1 << 24, 1 << 25
IOC_ENABLE, IOC_DISABLE, IOC_SET_OUTPUT, IOC_SET_FILTER = 0x2400, 0x2401, 0x2405, 0x40082406
FLAG_PID_CGROUP, FLAG_FD_CLOEXEC = 1 << 2, 1 << 3
CLOCK_MONOTONIC = 1
ATTR = struct.Struct("=IIQQQQQIIQQQQIiQIHH")
HEAD, TAIL = 1024 // 8, 1032 // 8

_libc = ctypes.CDLL(None, use_errno=True)


class PerfError(OSError):
    """perf_event_open or the ring was refused; ``strerror`` explains why to the user."""


@dataclass(frozen=True)
class Source:
    """One event to open: perf type and config, more attr flags, an optional tracepoint filter."""

    name: str
    type: int
    config: int
    flags: int = 0
    filter: str = ""
    sample: int = SAMPLE_RAW


def open_event(
    source: Source, pid: int, cpu: int, flags: int, watermark: int, lost: bool, *, group: bool = False
) -> int:
    """One perf_event_open; returns the descriptor. ``pid`` is a task, whose children inherit the event, or the
    descriptor of a control ``group``'s folder. Raises PerfError."""
    number = NR_PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise PerfError(38, f"recording is not written for {platform.machine()}")
    sample = SAMPLE_IDENTIFIER | SAMPLE_TID | SAMPLE_TIME | source.sample
    bits = DISABLED | WATERMARK | SAMPLE_ID_ALL | USE_CLOCKID | flags | source.flags | (0 if group else INHERIT)
    read_format = FORMAT_ID | (FORMAT_LOST if lost else 0)
    attr = ATTR.pack(
        source.type, ATTR.size, source.config, 1, sample, read_format, bits, watermark, 0,
        0, 0, 0, 0, 0, CLOCK_MONOTONIC, 0, 0, 0, 0,
    )  # fmt: skip
    how = FLAG_FD_CLOEXEC | (FLAG_PID_CGROUP if group else 0)
    fd = _libc.syscall(ctypes.c_long(number), attr, pid, cpu, -1, ctypes.c_ulong(how))
    if fd < 0:
        code = ctypes.get_errno()
        raise PerfError(code, f"perf_event_open of {source.name}: {os.strerror(code)}")
    return int(fd)


class Recorder:
    """Rings on all CPUs for one process and its children, or for the processes of a control group.

    ``Recorder(sources, [pid])`` opens everything disabled; the first source also carries the side band (MMAP2, COMM
    with the exec bit, FORK, EXIT). Events start at the process's exec, or at :meth:`enable`; those of a ``group`` (its
    folder's descriptor, instead of processes) at :meth:`enable`. :meth:`start` begins to
    drain the rings into temporary files (bounded memory), :meth:`stop` ends this, :meth:`streams` returns each CPU's
    raw records.
    """

    def __init__(
        self,
        sources: list[Source],
        pids: list[int],
        pages: int,
        on_exec: bool = True,
        spool: Callable[[int], IO[bytes]] | None = None,
        often: Callable[[], None] = lambda: None,
        group: int = -1,
    ) -> None:
        """``spool`` returns the file for a CPU's records (by default a temporary one); ``often`` is called after each
        draining. Raises PerfError."""
        self.ids: dict[int, Source] = {}
        self.drained = 0
        self._group = group
        self._spool = spool or _temporary
        self._often = often
        self.lost = 0
        self.counts_lost = True
        self._fds: list[int] = []
        self._rings: list[tuple[mmap.mmap, memoryview, IO[bytes]]] = []
        self._size = pages * mmap.PAGESIZE
        self._poll = select.poll()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.error: OSError | None = None
        # One descriptor per event, CPU and thread: raise the limit. The program was forked before, with its own limit.
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
        for pid in pids if self._group < 0 else [self._group]:
            for i, source in enumerate(sources):
                flags = ENABLE_ON_EXEC if on_exec and self._group < 0 else 0
                if i == 0:
                    flags |= MMAP | MMAP2 | MMAP_DATA | COMM | COMM_EXEC | TASK
                fd = self._open_one(source, pid, cpu, flags)
                self._fds.append(fd)
                if source.filter:
                    fcntl.ioctl(fd, IOC_SET_FILTER, source.filter.encode() + b"\0")
                if leader < 0:
                    leader = fd
                    self._map(fd, cpu)
                else:
                    fcntl.ioctl(fd, IOC_SET_OUTPUT, leader)
                self.ids[self._read(fd)[1]] = source

    def _open_one(self, source: Source, pid: int, cpu: int, flags: int) -> int:
        def opened(lost: bool) -> int:
            return open_event(source, pid, cpu, flags, self._size // 8, lost, group=self._group >= 0)

        if self.counts_lost:
            try:
                return opened(True)
            except PerfError as error:
                if error.errno != 22:  # EINVAL: a kernel before 6.0 does not have PERF_FORMAT_LOST
                    raise
                fd = opened(False)
                self.counts_lost = False
                return fd
        return opened(False)

    def _map(self, fd: int, cpu: int) -> None:
        try:
            ring = mmap.mmap(fd, self._size + mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            limit = "ulimit -v" if error.errno == errno.ENOMEM else "kernel.perf_event_mlock_kb"
            raise PerfError(error.errno, f"the ring buffer was refused ({error.strerror}; see {limit})") from None
        view = memoryview(ring)
        self._rings.append((ring, view, self._spool(cpu)))
        self._poll.register(fd, select.POLLIN)

    def _read(self, fd: int) -> tuple[int, ...]:
        size = 24 if self.counts_lost else 16
        data = os.read(fd, 24)
        return struct.unpack(f"={len(data) // 8}Q", data[:size])

    def enable(self) -> None:
        """Start recording now (for a running process)."""
        for fd in self._fds:
            fcntl.ioctl(fd, IOC_ENABLE, 0)

    def disable(self) -> None:
        """Stop recording."""
        for fd in self._fds:
            fcntl.ioctl(fd, IOC_DISABLE, 0)

    def start(self) -> None:
        """Drain the rings in a thread: a full ring drops events, and may not even report it."""
        self._thread = threading.Thread(target=self._run, name="benchframe-drain", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._poll.poll(20)
                self._drain()
                self._often()
        except (OSError, ValueError) as error:  # a full disk: keep the records so far; the recording ends
            self.error = error if isinstance(error, OSError) else OSError(str(error))

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
            self.drained += count
            control[TAIL] = head

    def stop(self) -> None:
        """Stop draining, take the last records and sum up the lost events; ``error`` tells if the disk was full."""
        self.disable()
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self.error is None:
            try:
                self._drain()
            except OSError as error:
                self.error = error
        if self.counts_lost:
            self.lost = sum(self._read(fd)[2] for fd in self._fds)

    def close(self) -> None:
        """Close descriptors, rings and temporary files."""
        for ring, view, spool in self._rings:
            view.release()
            with contextlib.suppress(BufferError):
                ring.close()
            spool.close()
        self._rings.clear()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


def _temporary(cpu: int) -> IO[bytes]:
    return tempfile.TemporaryFile(prefix="benchframe-")


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
