"""A cell's job: what a worker process gets, in which round, and how the process is started, placed and read."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import math
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchframe.trace.trace import Trace


# ----------------------------------------------------------------------------------------------------------------------
# What a worker process gets (:class:`Job`) and what it returns (:class:`Outcome`): plain JSON, no pickle.
#
# The parent reads or makes the trace once and spools its events as a raw ``.npy`` file; each worker maps that
# file. So a worker imports neither pyarrow nor the maker of the workload.

STATES = ("ok", "wrong", "crashed", "timed_out", "skipped")
"""The states of a cell: a wrong answer is never shown as a fast one, and a crash or a timeout is distinguished from a
wrong answer."""

FIGURES = ("lookup", "fault", "mapping", "replay")
"""Names of the benchmarks in a cell's file: ns per lookup, per page fault, per mapping operation, per event."""
COLD = "cold"
"""... and of one more, if the job asks for it: ns per lookup with colder caches."""

COST_RECORDS = 4_000_000
"""About how many records the counted replay of a cell may take: half a second to a second."""


@dataclass(frozen=True)
class Job:
    """One worker's work: verify ``strategy`` on the spooled trace, then time it.

    ``digest`` and ``model`` are the strategy's content and the model's bytecode as the parent saw them; ``events`` and
    ``trace_meta`` are paths of the spool; ``setup`` is the number of leading events that are not timed; ``extras``
    requests counts and the per-operation latencies after timing, ``cost`` a counted replay of about this many records
    (0: none); ``threads`` is how many real threads replay it (0: a single replay); ``caches`` says
    what is touched before each event (engine.caches; empty: nothing); ``cold`` asks to time lookups once more, with
    caches in this state, beside figures of warm ones (empty: do not); ``control`` is the lowest
    undisturbed level that an earlier process of the cell found (engine.disturbance; 0: none); ``patient``: make more
    replays if the machine is disturbed, and replace values without an undisturbed one; ``metadata`` goes into each
    pyperf run; ``parent`` is the process that the worker must not outlive.
    """

    strategy: str
    digest: str
    events: str
    trace_meta: str
    setup: int
    layout_seed: int
    extras: bool
    cost: int = 0
    threads: int = 0
    caches: str = ""
    cold: str = ""
    control: float = 0.0
    patient: bool = True
    plugins: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    model: str = ""
    metadata: Mapping[str, str | int] = field(default_factory=dict)
    parent: int = field(default_factory=os.getpid)

    def write(self, path: Path) -> None:
        """Write the job as JSON; raises OSError."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Job:
        """Read what :meth:`write` wrote. The file is private to one run: it is not validated beyond JSON."""
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**data, "plugins": tuple(data["plugins"]), "blocked": tuple(data["blocked"])})


@dataclass(frozen=True)
class Outcome:
    """The result of one worker process.

    ``message`` is one line, ``detail`` the end of what the worker wrote to stderr, ``event`` the event whose answer was
    wrong (-1: none). ``threads`` is the additional result of a run with threads (docs/threads.md). ``suite`` is a
    pyperf BenchmarkSuite as JSON data. ``measured`` and ``warmup`` are seconds inside measured loops and inside those
    of warm-up and calibration, ``timed`` the part of ``measured`` in which the clock ran (not while the start state is
    restored), ``wall`` the whole life of the process. ``control`` is its undisturbed level in cycles (0: not known);
    ``restless``: all its replays were disturbed.
    """

    state: str
    message: str = ""
    detail: str = ""
    event: int = -1
    loops: int = 0
    suite: dict[str, Any] | None = None
    counts: dict[str, float] | None = None
    latencies: list[dict[str, Any]] | None = None
    cost: dict[str, float] | None = None
    threads: dict[str, Any] | None = None
    timer_overhead_ns: float = 0.0
    measured: float = 0.0
    timed: float = 0.0
    warmup: float = 0.0
    wall: float = 0.0
    control: float = 0.0
    restless: bool = False

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """Rebuild an outcome; raises ValueError if the text is not one (a worker that died while writing)."""
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("state") not in STATES:
            raise ValueError("not an outcome")
        try:
            return cls(**data)
        except TypeError as error:
            raise ValueError(str(error)) from None

    def with_wall(self, wall: float) -> Outcome:
        """The same outcome with the wall time of its process."""
        return replace(self, wall=wall)


def finite(counts: Mapping[str, float]) -> dict[str, float]:
    """``counts`` without values that JSON cannot hold: the hit rate of zero lookups is NaN and is left out."""
    return {name: float(value) for name, value in counts.items() if math.isfinite(value)}


def spool(trace: Trace, folder: Path) -> tuple[Path, Path]:
    """Write the events and metadata of ``trace`` under ``folder`` for the workers; returns both paths.

    Recorded layouts and reports are left out: replays do not read them. Raises OSError.
    """
    import numpy as np

    from benchframe.trace.meta import meta_to_json

    events = folder / f"{trace.digest[:32]}.npy"
    meta = events.with_suffix(".json")
    np.save(events, np.ascontiguousarray(trace.events), allow_pickle=False)
    meta.write_text(meta_to_json(replace(trace.meta, snapshots=())), encoding="utf-8")
    return events, meta


def unspool(job: Job) -> Trace:
    """The trace of ``job``: its events are mapped copy-on-write, so no worker can change another's."""
    import numpy as np

    from benchframe.trace.meta import meta_from_json
    from benchframe.trace.trace import Trace

    events = np.asarray(np.load(job.events, mmap_mode="c", allow_pickle=False))
    meta = meta_from_json(Path(job.trace_meta).read_text(encoding="utf-8"))
    return Trace(events, meta=meta, setup=job.setup)


# ----------------------------------------------------------------------------------------------------------------------
# When each process runs: presets, rounds, their shuffled order, and the time budget.
#
# A *round* runs one worker process for every cell, in an order shuffled by the run's seed, so that drift of the
# machine (heat, other load) hits all cells alike and ratios can be paired by round. The order of round ``r``
# depends on the seed, ``r`` and the set of cells alone: a resumed run walks the same schedule as an unbroken one.

LAYOUTS = 1 << 31
"""Layout seeds are in [0, LAYOUTS)."""


@dataclass(frozen=True)
class Depth:
    """How much is measured: ``rounds`` processes per cell, each with ``warmups`` unrecorded and ``values`` recorded
    timings of at least ``min_time`` seconds. The worker always warms up for an eighth of a value."""

    rounds: int
    values: int
    warmups: int
    min_time: float


DEPTHS: dict[str, Depth] = {
    "quick": Depth(rounds=3, values=3, warmups=0, min_time=0.1),
    "default": Depth(rounds=10, values=6, warmups=0, min_time=0.25),
    "rigorous": Depth(rounds=25, values=6, warmups=0, min_time=0.25),
}


def order(seed: int, round_: int, cells: Sequence[str]) -> list[str]:
    """The names of ``cells`` in the order in which round ``round_`` runs them; O(n log n). Every other round has the
    order of the one before, reversed: so of two cells each is first equally often, also in few rounds.

    >>> order(1, 0, ["a", "b", "c"]) == order(1, 0, ["c", "b", "a"]) == order(1, 1, ["a", "b", "c"])[::-1]
    True
    """
    shuffled = sorted(cells)
    random.Random(f"benchframe order {seed} {round_ // 2}").shuffle(shuffled)
    return shuffled[::-1] if round_ % 2 else shuffled


def layout_seed(seed: int, round_: int) -> int:
    """The seed of the address-space layout for every process of round ``round_``: equal within a round, so that
    strategies are compared on one layout; different between rounds, so that no single layout decides."""
    digest = hashlib.sha256(f"benchframe layout {seed} {round_}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % LAYOUTS


class Budget:
    """Decides before each round whether it still fits in the time.

    ``limit`` is in seconds, None for no limit. A round is expected to take as long as the longest of the last three;
    the first two always run, because one round has no spread.
    """

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self._taken: list[float] = []

    def took(self, seconds: float) -> None:
        """Note the duration of a round that has ended."""
        self._taken.append(seconds)

    @property
    def expected(self) -> float | None:
        """The expected seconds of the next round, None before the first has ended."""
        return max(self._taken[-3:]) if self._taken else None

    def fits(self, elapsed: float) -> bool:
        """Whether a next round would end within the limit, ``elapsed`` seconds after the start."""
        expected = self.expected
        return self.limit is None or expected is None or len(self._taken) < 2 or elapsed + expected <= self.limit


def spare_cpu() -> int | None:
    """The CPU to which workers are pinned, or None if pinning is not possible or would not help.

    It is the last CPU that this process may use, if there are at least two: CPU 0 often serves interrupts, and the
    parent needs one. On a busy machine (load average above CPUs - 3/4) a pinned process could not avoid the others, so
    the scheduler decides.
    """
    try:
        cpus = sorted(os.sched_getaffinity(0))
        busy = os.getloadavg()[0] > len(cpus) - 0.75
    except (AttributeError, OSError):
        return None
    return cpus[-1] if len(cpus) > 1 and not busy else None


# ----------------------------------------------------------------------------------------------------------------------
# The addresses of a worker's code, memory and stack: chosen by the layout seed, not at random by the kernel.
#
# Where things lie decides which branches share a slot of the predictor and which lines share a set of a cache: the same
# lookup may cost 7.8 or 8.5 ns for it. Randomised addresses (ASLR) draw that anew for each process. Here
# the draw is the layout seed's: workers start without randomisation (``ADDR_NO_RANDOMIZE``, linux
# include/uapi/linux/personality.h) and move the top of their mappings, their stack and their hashes by amounts that the
# seed gives. Rounds still differ from each other, so no single placement decides; strategies of a round, and rounds of
# two runs with one seed, lie alike, so that the placement cancels in their ratio.
#
# Where the kernel refuses (a container's filter), addresses stay random and the process says so.

ADDR_NO_RANDOMIZE = 0x0040000
_QUERY = 0xFFFFFFFF
SEEDED, RANDOM = "seeded", "random"
"""How a process's addresses were chosen."""
PAD = "BENCHFRAME_PAD"
"""The environment variable that moves the stack."""
_HEAP = "33554432"
"""glibc's malloc keeps allocations up to this size in its heap: mappings that come and go would leave gaps between the
others."""
_moved = 0
"""The address below which this process's mappings were moved; 0 if they were not."""
_MAX_PAGES = 1 << 18
"""Mappings move by at most this many pages (1 GiB), reserved and never touched."""
_STACK = 4096
_PROT_NONE, _MAP_PRIVATE_ANONYMOUS_NORESERVE, _MAP_FIXED_NOREPLACE = 0, 0x2 | 0x20 | 0x4000, 0x100000


def usable() -> int:
    """The CPUs on which this process may be scheduled; if the system does not tell, all CPUs. At least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def fixed_addresses() -> Iterator[None]:
    """Programs executed by this thread inside the block start without randomised addresses, if the kernel allows it."""
    before = _personality(_QUERY)
    changed = before >= 0 and _personality(before | ADDR_NO_RANDOMIZE) >= 0
    try:
        yield
    finally:
        if changed:
            _personality(before)


def environment(base: Mapping[str, str], arguments: Sequence[str], seed: int) -> dict[str, str]:
    """``base`` extended so that a worker's stack and hashes depend on ``seed`` alone.

    The kernel puts arguments and environment above the stack, so their length moves it: PAD fills them up to a length
    modulo 4096 that depends on the seed, whatever the paths in them are.
    """
    found = {**base, "PYTHONHASHSEED": str(seed % (1 << 32)), "MALLOC_MMAP_THRESHOLD_": _HEAP, PAD: ""}
    length = sum(len(text.encode()) + 1 for text in arguments)
    length += sum(len(f"{name}={value}".encode()) + 1 for name, value in found.items())
    wanted = random.Random(f"benchframe stack {seed}").randrange(_STACK)
    found[PAD] = "x" * ((wanted - length) % _STACK)
    return found


def scatter(seed: int) -> str:
    """In a worker, before it maps what is measured: move all later mappings by a number of pages that depends on
    ``seed``, including those that would fit between the libraries.

    Returns SEEDED, or RANDOM if this process was started with randomised addresses.
    """
    now = _personality(_QUERY)
    if now < 0 or not now & ADDR_NO_RANDOMIZE:
        return RANDOM
    pages = 1 + random.Random(f"benchframe mappings {seed}").randrange(_MAX_PAGES)
    at = _reserve(0, 4096 * pages)
    if at < 0:
        return RANDOM
    global _moved
    _moved = at
    close_gaps()
    return SEEDED


def close_gaps() -> None:
    """Call after :func:`scatter`, once more: block gaps that have been freed since, as imports do, for what is
    measured."""
    if _moved:
        for low, high in _gaps(_moved):
            _reserve(low, high - low)


def _gaps(bottom: int) -> list[tuple[int, int]]:
    """The gaps between the mappings above ``bottom``, where the kernel would put small ones. The gap below the stack is
    kept, so that the stack can grow."""
    found, before = [], 0
    with Path("/proc/self/maps").open(encoding="ascii", errors="replace") as maps:
        for line in maps:
            low, _, high = line.split(maxsplit=1)[0].partition("-")
            start, end = int(low, 16), int(high, 16)
            if line.rstrip().endswith("[stack]"):
                break
            if bottom < before < start:
                found.append((before, start))
            before = end
    return found


def _reserve(at: int, length: int) -> int:
    """Map ``length`` bytes that cannot be touched at ``at`` (0: anywhere); returns the address, or -1 if there is no
    room."""
    mmap = ctypes.CDLL(None, use_errno=True).mmap
    mmap.restype = ctypes.c_void_p
    mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    flags = _MAP_PRIVATE_ANONYMOUS_NORESERVE | (_MAP_FIXED_NOREPLACE if at else 0)
    found = mmap(at or None, length, _PROT_NONE, flags, -1, 0)
    return -1 if found in (None, ctypes.c_void_p(-1).value) else int(found)


def _personality(value: int) -> int:
    """personality(2): returns the value before, or -1 if the call does not exist or is refused."""
    try:
        call = ctypes.CDLL(None, use_errno=True).personality
    except (OSError, AttributeError):
        return -1
    call.argtypes, call.restype = (ctypes.c_ulong,), ctypes.c_int
    return int(call(value))


# ----------------------------------------------------------------------------------------------------------------------
# Start worker processes, wait for them, and turn whatever happens to one into an :class:`Outcome`.
#
# Starting Python and importing what a measurement needs takes 0.4 s, a fork of a process that has done so some 10 ms.
# All processes of a round have the same layout seed, so they are forked from one server, as multiprocessing's
# forkserver has it: it is started with the addresses of that seed, imports, and then forks a worker for each request. A
# worker runs alone: the server only waits for it.
#
# Server and workers run in a session of their own: Ctrl-C reaches the parent alone, which then ends them. If the parent
# is killed the kernel kills the server, and with it the worker (``PR_SET_PDEATHSIG``, set by each itself).

MAX_ANSWER = 1 << 26
"""The most bytes of an answer read from a worker; more is a fault of the worker."""
TAIL = 4000
"""The number of characters of a worker's stderr to keep."""
SERVE = "--serve"
"""The first argument of a server; the number of its socket follows."""

_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "LC_CTYPE", "XDG_CACHE_HOME")
_PREFIXES = ("BENCHFRAME_", "NUMBA_")


def worker_command(module: str = "benchframe.engine.worker") -> tuple[str, ...]:
    """The command that runs ``main()`` of ``module`` in a new interpreter with this one's import path.

    Not ``python -m``: that would put the current folder first in the path, which may contain anything.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; sys.exit(main())"
    optimize = (
        ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    )  # -OO: the same code objects as here, or the digests differ
    return (sys.executable, *optimize, "-c", code)


def worker_environment() -> dict[str, str]:
    """The environment of workers: a short fixed list, as pyperf has it, because the size of the environment moves
    the stack and with it the figures."""
    return {k: v for k, v in os.environ.items() if k in _ENVIRONMENT or k.startswith(_PREFIXES)}


def command_line(job_file: Path, depth: Depth, loops: int, cpu: int | None) -> list[str]:
    """A worker's arguments: pyperf's own worker options and ``--job``. ``loops`` 0 asks it to calibrate."""
    args = ["--worker", "--job", str(job_file)]
    args += ["--values", str(depth.values), "--warmups", str(depth.warmups), "--min-time", str(depth.min_time)]
    args += ["--loops", str(loops)] if loops else ["--calibrate-loops"]
    return args + ([f"--affinity={cpu}"] if cpu is not None else [])


class Workers:
    """Runs jobs, each in a process of its own, and ends what is left at the end of a ``with`` block.

    ``folder`` takes the job file; ``command`` starts the server (default: :func:`worker_command`).
    """

    def __init__(self, folder: Path, command: Sequence[str] = ()) -> None:
        self.folder, self._command = folder, tuple(command)
        self._server: _Server | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, job: Job, depth: Depth, *, loops: int, cpu: int | None, timeout: float) -> Outcome:
        """Run ``job`` and wait at most ``timeout`` seconds.

        A signal, a traceback, an exit without an answer and a timeout each result in an Outcome; only KeyboardInterrupt
        and OSError (no process, no disk) are raised, with the worker ended.
        """
        job_file = self.folder / "job.json"
        job.write(job_file)
        start = time.perf_counter()
        if self._server is None or self._server.layout_seed != job.layout_seed:
            self._end()
            self._server = _Server(self._command or worker_command(), job_file, job.layout_seed)
        reader, writer = os.pipe()
        with tempfile.TemporaryFile() as stderr, os.fdopen(reader, "rb", buffering=0) as answers:
            try:
                try:
                    self._server.fork(command_line(job_file, depth, loops, cpu), writer, stderr.fileno())
                finally:
                    os.close(writer)
                text = _read(answers, start + timeout)
                code = self._server.wait(start + timeout + 5)
                tail = _tail(stderr)
                if code is None:
                    code, said = self._server.died(start + timeout + 5)
                    tail = tail or said
                    self._end()
            except TimeoutError:
                self._end()
                return Outcome("timed_out", f"no answer within {timeout:g} s", detail=_tail(stderr)).with_wall(timeout)
            except BaseException:
                self._end()
                raise
        return _judge(text, code, tail).with_wall(time.perf_counter() - start)

    def _end(self) -> None:
        if self._server is not None:
            self._server.end()
            self._server = None


class _Server:
    """The process from which the workers of one layout seed are forked. Raises OSError if there is no room for one."""

    def __init__(self, command: Sequence[str], job_file: Path, layout_seed: int) -> None:
        self.layout_seed = layout_seed
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._socket, theirs = socket.socketpair()
        arguments = [*command, SERVE, str(theirs.fileno()), "--job", str(job_file)]
        try:
            with fixed_addresses():
                self._process = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._stderr,
                    pass_fds=(theirs.fileno(),),
                    env=environment(worker_environment(), arguments, layout_seed),
                    start_new_session=True,
                )
        except BaseException:
            self._socket.close()
            self._stderr.close()
            raise
        finally:
            theirs.close()

    def fork(self, arguments: Sequence[str], answers: int, stderr: int) -> None:
        """Ask for a worker with these arguments; it writes its answer to the file descriptor ``answers``."""
        with contextlib.suppress(BrokenPipeError):  # it has died: wait() will tell of what
            socket.send_fds(self._socket, [json.dumps(list(arguments)).encode()], [answers, stderr])

    def wait(self, deadline: float) -> int | None:
        """The exit code of the worker; None if the server has died. Raises TimeoutError."""
        self._socket.settimeout(max(0.01, deadline - time.perf_counter()))
        with contextlib.suppress(ConnectionResetError):
            if said := self._socket.recv(64):
                return int(said)
        return None

    def died(self, deadline: float) -> tuple[int, str]:
        """Its own exit code, and the end of what it wrote to stderr. Raises TimeoutError."""
        try:
            code = self._process.wait(max(0.01, deadline - time.perf_counter()))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        return code, _tail(self._stderr)

    def end(self) -> None:
        """Kill it, its worker, and everything that that started."""
        self._socket.close()
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stderr.close()


def _read(answers: IO[bytes], deadline: float) -> str:
    parts: list[bytes] = []
    size = 0
    while size <= MAX_ANSWER:
        left = deadline - time.perf_counter()
        if left <= 0 or not select.select([answers], [], [], left)[0]:
            raise TimeoutError
        part = answers.read(1 << 16)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts).decode("utf-8", "replace")


def _tail(stderr: IO[bytes]) -> str:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - TAIL))
    return stderr.read().decode("utf-8", "replace").strip()


def _judge(text: str, code: int, tail: str) -> Outcome:
    """The outcome for an ended worker's answer, exit code and last stderr."""
    if code == 0:
        try:
            return Outcome.from_json(text)
        except ValueError:
            return Outcome("crashed", "the worker ended without an answer", tail)
    last = re.sub(r"^(?:\w+\.)+(\w+: )", r"\1", tail.splitlines()[-1].strip()) if tail else ""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        where = next((line.strip() for line in tail.splitlines() if line.startswith("Fatal Python error")), "")
        return Outcome("crashed", f"killed by {name}" + (f" ({where})" if where else ""), tail)
    return Outcome("crashed", last or f"the worker ended with exit code {code}", tail)
