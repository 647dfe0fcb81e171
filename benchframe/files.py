"""Files that are replaced as a whole or not at all, file names, and text that is safe to print on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from benchframe.errors import ResultsError, disk_error

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, and characters that reverse the direction of text or end a line invisibly."""


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces ``path`` when the block ends. A reader, or whoever looks after a crash,
    finds the old content or the new, never a part. After an exception the old content is still there.

    It writes a new file ``.NAME.XXXXXXXX.part`` in the same folder, then does fsync, rename, and fsync of the folder.
    ``durable=False`` omits both fsyncs, for files that a checksum protects and that can be made again. ``mode`` is
    restricted by the umask. Raises OSError.
    """
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # fails too if the disk has become read-only
            part.unlink(missing_ok=True)
        raise
    if durable:
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def prune(folder: Path, most: int) -> None:
    """Keep the most recently used files of a cache folder, up to ``most`` bytes; leftovers of a killed process expire
    with them. Raises OSError."""
    kept = 0
    for path in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime, reverse=True):
        kept += path.stat().st_size
        if kept > most:
            path.unlink(missing_ok=True)


def read_limited(path: Path, most: int, hint: str) -> bytes:
    """The content of a file of at most ``most`` bytes. Raises ResultsError, with ``hint`` if it is larger."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise disk_error(path, error, "read") from None
    if len(data) > most:
        size = f"{most >> 20} MiB" if most >> 20 else f"{most >> 10} KiB"
        raise ResultsError(path, f"it is larger than {size}", hint)
    return data


def parse_toml(data: bytes) -> dict[str, Any]:
    """TOML in UTF-8. Raises ValueError, with the line, if it is not, and RecursionError if it is nested too deeply."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    found: dict[str, Any] = tomllib.loads(data.decode())
    return found


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` as :func:`replacing` does. Raises ResultsError if the disk refuses; the old content is then still
    there."""
    try:
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        raise disk_error(path, error, "written") from None


def write_json(path: Path, data: object) -> None:
    """Write ``data`` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def printable(text: str) -> str:
    """``text`` without control characters: a results file must not control the terminal that shows it.

    >>> printable("a\\x1b[31mb")
    'a?[31mb'
    """
    return _CONTROL.sub("?", text)


def slug(text: str, longest: int = 48, *, keep: str = "", otherwise: str = "x") -> str:
    """``text`` as a file name or an anchor: what is not a letter, a digit or in ``keep`` becomes one dash.

    >>> slug("zipf:vmas=50 <b>"), slug("my/../strategy"), slug("../a_b", keep="._"), slug("*", otherwise="run")
    ('zipf-vmas-50-b', 'my-strategy', 'a_b', 'run')
    """
    return re.sub(f"[^A-Za-z0-9{re.escape(keep)}]+", "-", text).lstrip("-.")[:longest].rstrip("-") or otherwise
