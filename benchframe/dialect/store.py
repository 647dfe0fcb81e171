"""Compiled units on disk, stored under their identity, and loading them into a process; the C compiler."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchframe.dialect.records import DialectError
from benchframe.files import replacing

# ----------------------------------------------------------------------------------------------------------------------
# The store of compiled units: object files under a content key in the user's cache folder.
#
# Key: what was compiled (:class:`~benchframe.dialect.functions.Identities`), for which CPU, by which versions. A
# file is written to a temporary name and renamed, so two concurrent runs are safe and a killed one leaves nothing
# half-written. A unit name keeps at most :data:`KEEP` files: editing a strategy all day does not fill the disk.
# Where the folder cannot be written the compiled code lives as long as the process, with a warning.

KEEP = 6
"""Versions kept per unit name; the least recently used are deleted first."""
CODEGEN = ("-x86-cmov-converter=0",)
"""Options of LLVM's x86 code generator. The pass turns conditional moves in loops into branches where it expects that
to pay; it does not know that a binary search is mispredicted every other time. Off, `sorted_array` is as fast as C."""
LOWERING = 3
"""The version of what :mod:`benchframe.dialect.llvm` makes of a text: raise it when units must be compiled again."""
FUNCTIONS = 8192
"""Lowered functions kept; beyond that the half that was not used longest is deleted."""
_MAGIC = b"benchframe-unit-1\n"


def cache_folder() -> Path:
    """``$BENCHFRAME_CACHE_DIR`` or the platform's user cache folder for benchframe."""
    chosen = os.environ.get("BENCHFRAME_CACHE_DIR")
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("benchframe"))


def toolchain_key() -> str:
    """Everything besides the source that decides the machine code: CPU and its features, LLVM, Numba, Python."""
    from importlib.metadata import version

    from llvmlite import binding as llvm

    parts = (
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
        version("llvmlite"),
        version("numba"),
        sys.version_info[:2],
        os.environ.get("NUMBA_OPT", ""),
        os.environ.get("NUMBA_CPU_NAME", ""),
        CODEGEN,
        LOWERING,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class Store:
    """Compiled units on disk. ``load`` and ``save`` never raise for a missing, damaged or unwritable file."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder()) / "units"
        self._warned = False

    def path(self, name: str, key: str) -> Path:
        """The path of the unit ``name`` with content ``key``."""
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}-{key[:32]}.o"

    def load(self, name: str, key: str) -> bytes | None:
        """The object file, or None if it is missing or its checksum is wrong. Only the key decides: a unit compiled
        under another name is used too."""
        path = self.path(name, key)
        with contextlib.suppress(OSError):
            if not path.exists():
                path = next(self.folder.glob(f"*-{key[:32]}.o"), path)
        return _read(path)

    def save(self, name: str, key: str, obj: bytes) -> None:
        """Write atomically, then delete the oldest versions of this unit beyond :data:`KEEP`."""
        path = self.path(name, key)
        try:
            _write(path, obj)
            versions = sorted(self.folder.glob(path.name[:-34] + "?" * 32 + ".o"), key=lambda p: p.stat().st_mtime)
            for old in versions[:-KEEP]:
                old.unlink(missing_ok=True)
        except OSError as error:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"compiled code cannot be cached: {error}; set BENCHFRAME_CACHE_DIR to a writable folder",
                    RuntimeWarning,
                    stacklevel=2,
                )


class Functions:
    """Lowered functions on disk, each under the key of all that decides it: what an edit has not changed, or what
    another strategy has in common, is not lowered again. ``load`` and ``save`` never raise; O(1) files each."""

    def __init__(self) -> None:
        self._saved = 0

    @property
    def folder(self) -> Path:
        """Where they are now."""
        return cache_folder() / "functions"

    def load(self, key: str) -> bytes | None:
        """What was saved; None if it is missing or damaged."""
        return _read(self.folder / key[:40])

    def save(self, key: str, data: bytes) -> None:
        """Write atomically; once in a process make room beyond :data:`FUNCTIONS`."""
        with contextlib.suppress(OSError):  # the store of units warns
            _write(self.folder / key[:40], data)
            self._saved += 1
            if self._saved == 1:
                used = sorted((entry.stat().st_mtime, entry.path) for entry in os.scandir(self.folder))
                for _, path in used[: len(used) // 2 if len(used) > FUNCTIONS else 0]:
                    Path(path).unlink(missing_ok=True)


def clear(folder: Path) -> tuple[int, int]:
    """Remove every file of a folder of the cache; returns (files, bytes) removed. Raises OSError."""
    files = size = 0
    for path in folder.glob("*"):
        size += path.stat().st_size
        path.unlink(missing_ok=True)
        files += 1
    return files, size


def _read(path: Path) -> bytes | None:
    """A file's content, now the most recently used; None if it is missing or its checksum is wrong."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    head = len(_MAGIC) + 32
    body = data[head:]
    if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != data[len(_MAGIC) : head]:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # in a read-only folder only the order is lost
    return body


def _write(path: Path, body: bytes) -> None:
    """Write atomically, with a checksum. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with replacing(path, durable=False, mode=0o600) as file:
        file.write(_MAGIC + hashlib.sha256(body).digest() + body)


# ----------------------------------------------------------------------------------------------------------------------
# Maps a unit's object file into the process and returns its entry point; needs only llvmlite, not numba.

_engines: list[Any] = []
_machine: Any = None


def _engine() -> Any:
    """A fresh MCJIT engine, one per object, so that equal symbols never clash."""
    global _machine
    from llvmlite import binding as llvm

    if _machine is None:
        with contextlib.suppress(RuntimeError):
            llvm.initialize()  # needed up to llvmlite 0.44, an error after it
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        _machine = llvm.Target.from_default_triple()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine.create_target_machine())


class Unit:
    """A compiled entry function: call it with integers; ``address`` is its C address.

    Calls release the GIL. The first argument is the address of an ``mm_struct``.
    """

    def __init__(self, name: str, obj: bytes, arity: int) -> None:
        from llvmlite import binding as llvm

        engine = _engine()
        engine.add_object_file(llvm.ObjectFileRef.from_data(obj))
        engine.finalize_object()
        _engines.append(engine)  # the code must outlive every address handed out
        self.name = name
        self.address: int = engine.get_function_address("entry")
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * arity)
        self._call: Callable[..., int] = kind(self.address)

    def __call__(self, *args: int) -> int:
        return self._call(*args)


class Library:
    """An object file with several C symbols, mapped into the process for good."""

    def __init__(self, obj: bytes) -> None:
        from llvmlite import binding as llvm

        self._engine = _engine()
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(obj))
        self._engine.finalize_object()
        _engines.append(self._engine)

    def address(self, symbol: str) -> int:
        """The address of ``symbol``; 0 if the file has no such symbol."""
        return int(self._engine.get_function_address(symbol))


def add_symbol(name: str, address: int) -> None:
    """Allow object files that are mapped from now on to refer to ``name``."""
    from llvmlite import binding as llvm

    _engine()
    llvm.add_symbol(name, address)


# ----------------------------------------------------------------------------------------------------------------------
# The C compiler: from a C file to an object file, several of them linked into one, a shared library for ctypes.

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
