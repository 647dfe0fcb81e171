"""Files that appear whole or not at all, and JSON that is read with suspicion."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from benchframe.errors import ResultsError, disk_error

MAX_FILE = 1 << 26
"""Bytes of the largest results file that is read (64 MiB; a rigorous cell has some 200 KiB)."""
MAX_TEXT = 1 << 16
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of text around or end a line unseen."""
_MEND = "the file is damaged: restore it, or remove it and continue with --resume"
_MEND_MANIFEST = "the file is damaged: restore it from a copy, or repeat the run"


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` when the block ends: a reader, or who comes after a crash,
    finds the old content or the new, never a part. After an exception the old content is still there.

    A new file ``.NAME.XXXXXXXX.part`` in the same folder, fsync, rename, fsync of the folder. ``durable=False`` leaves
    both fsyncs out: for what a checksum protects and anyone can make again. ``mode`` is restricted by the umask. Raises
    OSError.
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
        with contextlib.suppress(OSError):  # a disk that is read-only by now refuses this too
            part.unlink(missing_ok=True)
        raise
    if durable:
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` as :func:`replacing` does. Raises ResultsError if the disk refuses; the old content is then still
    there."""
    try:
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        raise disk_error(path, error, "written") from None


def write_json(path: Path, data: object) -> None:
    """``data`` as readable JSON, atomically."""
    write_atomic(path, (json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def _mend(path: Path) -> str:
    """What to do about a damaged file: a run can do without one of its cells, but not without its manifest."""
    return _MEND_MANIFEST if path.name == "manifest.json" else _MEND


def read_object(path: Path) -> dict[str, Any]:
    """Read one JSON object of at most MAX_FILE bytes; raises ResultsError for everything else."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise disk_error(path, error, "read") from None
    if len(data) > MAX_FILE:
        raise ResultsError(path, f"it is larger than {MAX_FILE >> 20} MiB", _mend(path))
    try:
        value = json.loads(data, parse_constant=_no_constant)
    except RecursionError:
        raise ResultsError(path, "it is nested too deeply", _mend(path)) from None
    except ValueError as error:
        raise ResultsError(path, f"it is not JSON ({error})", _mend(path)) from None
    if not isinstance(value, dict):
        raise ResultsError(path, "it is not a JSON object", _mend(path))
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number here")


def other_version(path: Path, found: object, known: int) -> ResultsError:
    """The error for a file whose ``version`` is not the one that is read here."""
    told = f"of version {found}" if isinstance(found, int) and not isinstance(found, bool) else "without a version"
    mend = "read it with the version of benchframe that wrote it, or repeat the run"
    return ResultsError(path, f"it is {told}, and this benchframe reads version {known}", mend)


class Fields:
    """Checked access to the members of one JSON object; every error names the file and the member.

    ``where`` is the file; ``inside`` is the path of members that leads here ("cells[3].").
    """

    def __init__(self, where: Path, data: object, inside: str = "") -> None:
        self.where = where
        self.inside = inside
        if not isinstance(data, dict):
            raise self.wrong("", "is not an object")
        self.data: Mapping[str, Any] = data

    def wrong(self, name: str, what: str) -> ResultsError:
        """The error for member ``name``."""
        member = f"{self.inside}{name}".rstrip(".") or "the file"
        return ResultsError(self.where, f"member '{member}' {what}", _mend(self.where))

    def text(self, name: str, default: str | None = None, *, pattern: str | None = None) -> str:
        """A string without control characters; with ``pattern`` it must match whole."""
        value = self.data.get(name, default)
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise self.wrong(name, "is not a text")
        if pattern is not None and not re.fullmatch(pattern, value):
            raise self.wrong(name, f"is not of the form {pattern}")
        return printable(value)

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """An integer in [low, high]."""
        value = self.data.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.wrong(name, f"is not an integer in [{low}, {high}]")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number >= 0."""
        return _number(self, name, self.data.get(name, default))

    def flag(self, name: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self.data.get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "is neither true nor false")
        return value

    def items(self, name: str, limit: int) -> list[Any]:
        """A list of at most ``limit`` members; absent means empty."""
        value = self.data.get(name, [])
        if not isinstance(value, list) or len(value) > limit:
            raise self.wrong(name, f"is not a list of at most {limit} members")
        return value

    def objects(self, name: str, limit: int) -> list[Fields]:
        """A list of objects."""
        return [Fields(self.where, v, f"{self.inside}{name}[{i}].") for i, v in enumerate(self.items(name, limit))]

    def object(self, name: str) -> Fields:
        """A nested object; absent means empty."""
        return Fields(self.where, self.data.get(name, {}), f"{self.inside}{name}.")

    def texts(self, name: str, limit: int = 4096) -> tuple[str, ...]:
        """A list of texts."""
        values = self.items(name, limit)
        if not all(isinstance(v, str) and len(v) <= MAX_TEXT for v in values):
            raise self.wrong(name, "is not a list of texts")
        return tuple(printable(v) for v in values)

    def mapping(self, name: str, limit: int = 256) -> dict[str, str]:
        """An object of texts."""
        value = self.data.get(name, {})
        if not isinstance(value, dict) or len(value) > limit or not all(isinstance(v, str) for v in value.values()):
            raise self.wrong(name, "is not an object of texts")
        return {printable(k): printable(v[:MAX_TEXT]) for k, v in value.items()}

    def numbers(self, name: str, limit: int = 256) -> dict[str, float]:
        """An object of finite numbers."""
        value = self.data.get(name, {})
        if not isinstance(value, dict) or len(value) > limit:
            raise self.wrong(name, "is not an object of numbers")
        return {printable(k): _number(self, f"{name}.{k}", v, low=-math.inf) for k, v in value.items()}


def _number(fields: Fields, name: str, value: object, low: float = 0.0) -> float:
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number) and number >= low:
                return number
    except OverflowError:
        pass
    raise fields.wrong(printable(name[:80]), "is not a number of a plausible size")


def printable(text: str) -> str:
    """``text`` without control characters: a results file must not steer the terminal that shows it.

    >>> printable("a\\x1b[31mb")
    'a?[31mb'
    """
    return _CONTROL.sub("?", text)


def slug(text: str, longest: int = 48, *, keep: str = "", otherwise: str = "x") -> str:
    """``text`` as a name for a file or an anchor: what is not a letter, a digit or in ``keep`` becomes one dash.

    >>> slug("zipf:vmas=50 <b>"), slug("my/../strategy"), slug("../a_b", keep="._"), slug("*", otherwise="run")
    ('zipf-vmas-50-b', 'my-strategy', 'a_b', 'run')
    """
    return re.sub(f"[^A-Za-z0-9{re.escape(keep)}]+", "-", text).lstrip("-.")[:longest].rstrip("-") or otherwise
