"""The kernel's tracepoints: where tracefs is, which number an event has, where its fields lie."""

import ctypes
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchframe.errors import BenchframeError

PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")

_FIELD = re.compile(r"field:(?P<decl>[^;]*);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);\s*signed:(?P<signed>\d)")


class TracefsError(BenchframeError):
    """tracefs cannot be used; the text says why, and what would change it."""


@dataclass(frozen=True)
class Tracepoint:
    """One event: its id for perf_event_open, and (offset, size) in bytes of each field of its raw data."""

    name: str
    id: int
    fields: dict[str, tuple[int, int]]


@contextmanager
def tracefs() -> Iterator[tuple[Path, str]]:
    """Yield (tracefs folder, what was done to get it); mounts it if root may and nobody has, and undoes that.

    The mount is a private folder's: two recordings at once do not take it from each other.

    Raises :class:`TracefsError`.
    """
    for place in PLACES:
        try:
            if os.access(place, os.R_OK | os.X_OK) and Path(place, "events").is_dir():
                yield Path(place), ""
                return
        except OSError:
            continue
    if os.geteuid() != 0:
        raise TracefsError("tracefs is not readable (root, or a mount with mode=0755, would change that)")
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory(prefix="benchframe-tracefs-") as place:
        if libc.mount(b"nodev", place.encode(), b"tracefs", 0, None) != 0:
            raise TracefsError(f"tracefs cannot be mounted ({os.strerror(ctypes.get_errno())})")
        try:
            yield Path(place), "mounted tracefs for the time of the recording"
        finally:
            libc.umount2(place.encode(), 2)  # MNT_DETACH: our own descriptors may be open still


def tracepoint(root: Path, name: str) -> Tracepoint:
    """Read ``events/<system>/<event>/{id,format}`` of ``system:event``; raises :class:`TracefsError`."""
    folder = root / "events" / name.replace(":", "/")
    try:
        number = int((folder / "id").read_text())
        text = (folder / "format").read_text()
    except (OSError, ValueError) as error:
        raise TracefsError(f"tracepoint {name} is missing ({error})") from None
    return Tracepoint(name, number, parse_format(text))


def parse_format(text: str) -> dict[str, tuple[int, int]]:
    """Field name to (offset, size) from an event's ``format`` file.

    >>> parse_format("field:unsigned long address;\\toffset:8;\\tsize:8;\\tsigned:0;")
    {'address': (8, 8)}
    """
    fields = {}
    for match in _FIELD.finditer(text):
        name = re.sub(r"\[.*\]$", "", match["decl"].split()[-1])
        fields[name] = (int(match["offset"]), int(match["size"]))
    return fields


def function_names(root: Path) -> dict[int, str]:
    """Address to text of ``printk_formats``: what a tracepoint's ``fn`` pointer names. Empty if unreadable."""
    names = {}
    try:
        lines = (root / "printk_formats").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    for line in lines:
        address, _, text = line.partition(" : ")
        try:
            names[int(address, 16)] = text.strip().strip('"')
        except ValueError:
            continue
    return names
