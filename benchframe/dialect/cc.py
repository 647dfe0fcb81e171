"""The C compiler: from a C file to an object file, several of them linked into one, a shared library for ctypes."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from benchframe.dialect.records import DialectError

SECONDS = 120
"""Seconds after which the compiler is stopped."""
SHOWN = 12
"""Lines of the compiler's message to show."""


def compiler() -> list[str]:
    """The C compiler's command: ``$CC``, else ``cc``."""
    return shlex.split(os.environ.get("CC", "")) or ["cc"]


@cache
def compiler_version() -> str:
    """The first line of ``cc --version``; empty if there is no compiler (stored code still runs)."""
    try:
        done = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.partition("\n")[0]


def run_compiler(arguments: Sequence[str | Path], what: str) -> None:
    """Run the C compiler. Raises DialectError if there is none, if it takes too long, or with its message about
    ``what``."""
    command = [*compiler(), *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, errors="replace")
    except FileNotFoundError:
        raise DialectError(f"{what}: there is no C compiler {command[0]!r}; install gcc, or set CC") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DialectError(f"{what}: {command[0]} does not run: {error}; install gcc, or set CC") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("In file included")]
        told = "\n".join(lines[:SHOWN]) or f"exit code {done.returncode}"
        raise DialectError(f"{what} does not compile:\n{told}")


def linked(obj: bytes, builds: Sequence[Callable[[], bytes]]) -> bytes:
    """``obj`` and the object files that ``builds`` make, linked into one relocatable object file (``cc -r``)."""
    with tempfile.TemporaryDirectory(prefix="benchframe-link-") as folder:
        parts = []
        for number, data in enumerate([obj, *(build() for build in builds)]):
            part = Path(folder, f"part{number}.o")
            part.write_bytes(data)
            parts.append(part)
        whole = Path(folder, "whole.o")
        run_compiler(["-r", "-nostdlib", "-o", whole, *parts], "linking C into strategy code")
        return whole.read_bytes()
