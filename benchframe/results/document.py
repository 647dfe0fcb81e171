"""Validated reading of JSON files that benchframe wrote: anyone may have changed them in between.

:func:`read_document` returns a dataclass whose annotations say what is allowed: types, ranges, lengths, patterns
(msgspec checks them); ``__post_init__`` checks conditions on several members. Every error names the file and the
member. Texts come without control characters: a results file must not control the terminal that shows it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from benchframe.errors import ResultsError
from benchframe.files import printable, read_limited

MAX_FILE = 1 << 26
"""The size of the largest results file that is read, in bytes (64 MiB; a rigorous cell has some 200 KiB)."""
MAX_TEXT = 1 << 16

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Texts = Annotated[tuple[Text, ...], msgspec.Meta(max_length=4096)]
Words = Annotated[Mapping[Text, Text], msgspec.Meta(max_length=256)]
"""A few texts by name."""
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""A sha256."""
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
Number = Annotated[float, msgspec.Meta(ge=0)]
Numbers = Annotated[Mapping[Text, float], msgspec.Meta(max_length=1000)]
"""Some numbers by name; they may be negative."""

T = TypeVar("T")
_MEND = "the file is damaged: restore it, or remove it and continue with --resume"
_MEND_MANIFEST = "the file is damaged: restore it from a copy, or repeat the run"
_PLACE = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
_MISSING = re.compile(r"Object missing required field `(.*)`$")


def read_document(path: Path, kind: type[T], *, version: int | None = None) -> T:
    """The JSON object in ``path`` as a ``kind``; members that ``kind`` does not have are ignored.

    With ``version``, the object's member ``version`` must have this value. Raises ResultsError. O(bytes).
    """
    data = read_object(path)
    if version is not None and (found := data.get("version")) != version:
        told = f"of version {found}" if type(found) is int else "without a version"
        mend = "read it with the version of benchframe that wrote it, or repeat the run"
        raise ResultsError(path, f"it is {told}, and this benchframe reads version {version}", mend)
    return checked(path, data, kind)


def checked(path: Path, data: object, kind: type[T], inside: str = "") -> T:
    """``data``, the member ``inside`` of ``path``, as a ``kind``. Raises ResultsError, which names the wrong member."""
    try:
        msgspec.convert(data, kind, str_keys=True)  # patterns must see the control characters
        return msgspec.convert(clean(data), kind, str_keys=True)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        member, what = (place[1], text[: place.start()]) if place else ("", text)
        if missing := _MISSING.match(what):
            member, what = f"{member}.{missing[1]}".lstrip("."), "is missing"
        raise wrong(path, ".".join(filter(None, (inside, member))), what[0].lower() + what[1:]) from None


def wrong(path: Path, member: str, what: str) -> ResultsError:
    """The error for a member of ``path`` ("" stands for the whole file)."""
    subject = f"member '{member[:200]}': " if member else ""
    return ResultsError(path, printable(subject + what), _mend(path))


def read_object(path: Path) -> dict[str, Any]:
    """One JSON object of at most MAX_FILE bytes, not checked any further. Raises ResultsError for anything else."""
    data = read_limited(path, MAX_FILE, _mend(path))
    try:
        value = json.loads(data, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ResultsError(path, "it is nested too deeply", _mend(path)) from None
    except ValueError as error:
        raise ResultsError(path, f"it is not JSON ({error})", _mend(path)) from None
    if not isinstance(value, dict):
        raise ResultsError(path, "it is not a JSON object", _mend(path))
    return value


def clean(value: Any) -> Any:
    """``value`` with every text, including keys, made :func:`printable`. O(size)."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [clean(one) if isinstance(one, (str, list, dict)) else one for one in value]
    if isinstance(value, dict):
        return {printable(key): clean(one) for key, one in value.items()}
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number here")
    return number


def _mend(path: Path) -> str:
    """What to do about a damaged file: a run can do without one of its cells, but not without its manifest."""
    return _MEND_MANIFEST if path.name == "manifest.json" else _MEND
