"""Worker processes: start them, place them in memory by a seed, and read their results."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from benchframe.engine.job import Depth, Job, Outcome

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
# Start one worker process, wait for it, and turn whatever happens to it into an :class:`Outcome`.
#
# The worker runs in a session of its own: Ctrl-C reaches the parent alone, which then ends the worker. If the
# parent is killed the kernel kills the worker (``PR_SET_PDEATHSIG``, set by the worker itself).

MAX_ANSWER = 1 << 26
"""The most bytes of an answer read from a worker; more is a fault of the worker."""
TAIL = 4000
"""The number of characters of a worker's stderr to keep."""

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


def command_line(job_file: Path, depth: Depth, loops: int, cpu: int | None, pipe: int) -> list[str]:
    """A worker's arguments: pyperf's own worker options and ``--job``. ``loops`` 0 asks it to calibrate."""
    args = ["--worker", "--pipe", str(pipe), "--job", str(job_file)]
    args += ["--values", str(depth.values), "--warmups", str(depth.warmups), "--min-time", str(depth.min_time)]
    args += ["--loops", str(loops)] if loops else ["--calibrate-loops"]
    return args + ([f"--affinity={cpu}"] if cpu is not None else [])


def run_worker(
    job: Job,
    depth: Depth,
    *,
    loops: int,
    cpu: int | None,
    timeout: float,
    folder: Path,
    command: Sequence[str] = (),
) -> Outcome:
    """Run ``job`` in a process of its own and wait at most ``timeout`` seconds.

    ``folder`` takes the job file; ``command`` starts the worker (default: :func:`worker_command`). A signal, a
    traceback, an exit without an answer and a timeout each result in an Outcome; only KeyboardInterrupt and OSError (no
    process, no disk) are raised, with the worker ended.
    """
    job_file = folder / "job.json"
    job.write(job_file)
    start = time.perf_counter()
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as stderr, os.fdopen(reader, "rb", buffering=0) as answers:
        arguments = [*(command or worker_command()), *command_line(job_file, depth, loops, cpu, writer)]
        try:
            with fixed_addresses():
                process = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    pass_fds=(writer,),
                    env=environment(worker_environment(), arguments, job.layout_seed),
                    start_new_session=True,
                )
        finally:
            os.close(writer)
        try:
            text = _read(answers, start + timeout)
            code = process.wait(max(0.0, start + timeout - time.perf_counter()) + 5)
        except (TimeoutError, subprocess.TimeoutExpired):
            return Outcome("timed_out", f"no answer within {timeout:g} s", detail=_tail(stderr)).with_wall(timeout)
        finally:
            _end(process)
        tail = _tail(stderr)
    return _judge(text, code, tail).with_wall(time.perf_counter() - start)


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


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker and everything that it started, if still alive."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
