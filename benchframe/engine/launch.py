"""Start one worker process, wait for it, and turn whatever happens to it into an :class:`Outcome`.

The worker runs in a session of its own: Ctrl-C reaches the parent alone, which then ends the worker. If the
parent is killed the kernel kills the worker (``PR_SET_PDEATHSIG``, set by the worker itself).
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from benchframe.engine.job import Job, Outcome
from benchframe.engine.placement import environment, fixed_addresses
from benchframe.engine.rounds import Depth

MAX_ANSWER = 1 << 26
"""Bytes of answer taken from a worker; more is a fault of the worker."""
TAIL = 4000
"""Characters of a worker's stderr that are kept."""

_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "LC_CTYPE", "XDG_CACHE_HOME")
_PREFIXES = ("BENCHFRAME_", "NUMBA_")


def worker_command(module: str = "benchframe.engine.worker") -> tuple[str, ...]:
    """The command that runs ``main()`` of ``module`` in a new interpreter with this one's import path.

    Not ``python -m``: that would put the current folder first, where anything may lie.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; sys.exit(main())"
    optimize = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []  # -OO: the same code, or none is the same
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
    traceback, an exit without an answer and a timeout each give an Outcome; only KeyboardInterrupt and OSError (no
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
    """Kill what is left of the worker and of anything that it started."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tail(stderr: IO[bytes]) -> str:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - TAIL))
    return stderr.read().decode("utf-8", "replace").strip()


def _judge(text: str, code: int, tail: str) -> Outcome:
    """What an ended worker's answer, exit code and last words amount to."""
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
