"""The running kernel as one side: start the judging process and run batches of operations in it."""

import os
import platform
import select
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from benchframe.errors import BenchframeError
from benchframe.judge import child
from benchframe.judge.programs import Op

_MALLOC = {"MALLOC_TOP_PAD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""Lets the judging process's malloc take its heap before the break moves to the arena, and never ask for more."""


class JudgeError(BenchframeError):
    """The kernel could not be used; the message says why and what to do."""


@dataclass
class Answer:
    """The kernel's answer to one batch."""

    results: list[int]
    layouts: list[list[int]]
    """After each operation, four words per area: start, end, access bits with 8 for shared, file offset."""
    flags: list[str] = field(default_factory=list)
    """At the end, each area's VmFlags words, sorted; empty if not requested."""


def supported() -> str:
    """Why this machine cannot judge, or an empty string if it can."""
    if not sys.platform.startswith("linux"):
        return f"the judge is the running Linux kernel; this is {sys.platform}"
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"the judge knows the system calls of x86-64 only; this is {platform.machine()}"
    if not Path("/proc/self/maps").exists():
        return "/proc is not mounted"
    return ""


def ended(status: int) -> str:
    """How a process ended: with this exit code, or by the signal with this number, negated.

    >>> ended(-11), ended(1)
    ('was killed by SIGSEGV', 'ended with status 1')
    """
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


class Kernel:
    """A judging process. Use as a context manager; it ends with the block.

    Args:
        timeout: seconds that one batch may take before the process is killed. An emulated processor may need a minute.
        text_maps: read /proc/PID/maps as text even where the kernel has PROCMAP_QUERY.

    Raises:
        JudgeError: this machine cannot judge, or the process does not start.
    """

    def __init__(self, timeout: float = 300.0, text_maps: bool = False) -> None:
        reason = supported()
        if reason:
            raise JudgeError(reason)
        self.timeout = timeout
        self.options = child.TEXT_MAPS if text_maps else 0
        self.sent: Sequence[Op] = ()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(child.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
            env={**os.environ, **_MALLOC},
        )
        query, moved, self.task_size = array("q", self._read(24))
        self.has_query, self.has_brk = bool(query), bool(moved)

    def __enter__(self) -> "Kernel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the judging process and wait for it."""
        process = self.process
        if process.poll() is None:  # it leads a process group of its own: its workers end with it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self, count: int) -> bytes:
        """Exactly ``count`` bytes of the answer, within the timeout."""
        assert self.process.stdout is not None
        source = self.process.stdout.fileno()
        end = time.monotonic() + self.timeout
        parts = []
        while count:
            ready, _, _ = select.select([source], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self.close()
                raise JudgeError(f"the judging process gave no answer for {self.timeout:g} s; it was killed")
            part = os.read(source, min(count, 1 << 20))
            if not part:
                raise JudgeError(f"the judging process {ended(self.process.wait())} during a batch")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def send(self, ops: Sequence[Op], with_flags: bool = False) -> None:
        """Begin a batch; :meth:`receive` waits for its end. Only one batch may be in progress.

        Raises:
            ValueError: an operation could change memory outside the arena.
        """
        words = array("Q")
        for op in ops:
            if not child.harmless(op, self.task_size):
                raise ValueError(f"{op} could reach outside the arena")
            words.extend(op)
        head = array("q", [len(ops), self.options | (child.WITH_FLAGS if with_flags else 0)])
        assert self.process.stdin is not None
        data = memoryview(head.tobytes() + words.tobytes())
        try:
            while data:
                data = data[os.write(self.process.stdin.fileno(), data) :]
        except BrokenPipeError:
            raise JudgeError("the judging process is gone") from None
        self.sent = ops

    def receive(self) -> Answer:
        """Wait for the end of the current batch.

        Raises:
            JudgeError: the process died or did not answer in time.
        """
        count = array("q", self._read(8))[0]
        if count == child.ENDED:
            at, how = array("q", self._read(16))
            raise JudgeError(f"the judging process {ended(how)} in operation {at} of the batch: {self.sent[at]}")
        words = array("q", self._read(8 * count))
        results: list[int] = []
        layouts: list[list[int]] = []
        at = 0
        for _ in range(len(self.sent)):
            count = words[at + 1]
            results.append(words[at])
            at += 2
            if count == child.SAME:
                layouts.append(layouts[-1])
            else:
                layouts.append(words[at : at + 4 * count].tolist())
                at += 4 * count
        text = self._read(words[at]).decode()
        return Answer(results, layouts, text.split("\n") if text else [])

    def run(self, ops: Sequence[Op], with_flags: bool = False) -> Answer:
        """Run one batch from an empty arena."""
        self.send(ops, with_flags)
        return self.receive()
