"""A background load that can be switched on: processes that only burn CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from types import TracebackType

_BURN = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    for _ in range(100000):\n        pass\n"
"""Ends by itself when its parent is gone, even if that was before it could look."""


class Load:
    """``hogs`` processes (default: one per CPU) from :meth:`start` on until the ``with`` block ends."""

    def __init__(self, hogs: int | None = None) -> None:
        self.hogs = hogs or os.cpu_count() or 1
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Switch the load on; a second time changes nothing."""
        if not self._processes:
            command = [sys.executable, "-I", "-S", "-c", _BURN, str(os.getpid())]
            self._processes = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(self.hogs)]

    @property
    def running(self) -> int:
        """How many burn now."""
        return sum(process.poll() is None for process in self._processes)

    def __enter__(self) -> Load:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
