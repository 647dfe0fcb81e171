"""Archives of small named files, ``.tar.zst`` or ``.zip``, read with suspicion.

Only names that a bundle has are taken, so no path leads anywhere else; links, devices and folders are refused; sizes
are counted while unpacking, not believed. Writing is deterministic: the same members give the same bytes.
"""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from benchframe.errors import ResultsError, disk_error
from benchframe.files import write_atomic

SUFFIXES = (".tar.zst", ".zip")
NAMES = re.compile(
    r"bundle\.json|manifest\.json|sources\.json|cells/[0-9a-f]{32}(\.state)?\.json|traces/[0-9a-f]{64}\.parquet"
    r"|studies/[a-z0-9-]{1,120}\.json"
)
"""Every name that a member may have, whole."""
MAX_MEMBERS = 20_000
MAX_MEMBER = 1 << 26
MAX_TOTAL = 1 << 29
"""Bytes of one member (64 MiB) and of all (512 MiB), unpacked; the archive itself may have as many."""
_MEND = "the file is damaged or no bundle: ask for it again"


def write_archive(path: Path, members: Mapping[str, bytes]) -> None:
    """Write ``members`` in the form that the name's end says; raises ResultsError (another end, disk)."""
    if path.name.endswith(".zip"):
        data = _zip(members)
    elif path.name.endswith(".tar.zst"):
        data = _tar(members)
    else:
        raise ResultsError(path, "a bundle ends in .tar.zst or .zip", "name it so with -o")
    write_atomic(path, data)


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def _tar(members: Mapping[str, bytes]) -> bytes:
    import pyarrow as pa  # type: ignore[import-untyped]

    sink = pa.BufferOutputStream()
    with (
        pa.CompressedOutputStream(sink, "zstd") as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def read_archive(path: Path) -> dict[str, bytes]:
    """All members by name; raises ResultsError for everything that is not a bundle of a sane size."""
    try:
        if path.stat().st_size > MAX_TOTAL:
            raise _bad(path, f"it is larger than {MAX_TOTAL >> 20} MiB")
        with path.open("rb") as file:
            begin = file.read(4)
            file.seek(0)
            if begin[:4] == b"PK\x03\x04":
                found = _collect(path, _zip_members(path, file))
            elif begin == b"\x28\xb5\x2f\xfd":
                found = _collect(path, _tar_members(path, file))
            else:
                raise _bad(path, "it is neither a zip nor a zstd-compressed tar archive")
    except OSError as error:
        if error.errno is None:  # Arrow's own errors
            raise _bad(path, f"it cannot be unpacked ({' '.join(str(error).split())[:200]})") from None
        raise disk_error(path, error, "read") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise _bad(path, f"it cannot be unpacked ({' '.join(str(error).split())[:200]})") from None
    return found


def _collect(path: Path, members: Iterator[tuple[str, IO[bytes]]]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    total = 0
    for name, stream in members:
        if not NAMES.fullmatch(name):
            raise _bad(path, f"it has a member {name[:80]!r}, which no bundle has")
        if name in found:
            raise _bad(path, f"it has {name} twice")
        if len(found) >= MAX_MEMBERS:
            raise _bad(path, f"it has more than {MAX_MEMBERS:,} members")
        data = stream.read(min(MAX_MEMBER, MAX_TOTAL - total) + 1)
        total += len(data)
        if len(data) > MAX_MEMBER or total > MAX_TOTAL:
            limits = f"{MAX_MEMBER >> 20} MiB ({name}), or {MAX_TOTAL >> 20} MiB in all"
            raise _bad(path, f"it unpacks to more than {limits}")
        found[name] = data
    return found


def _zip_members(path: Path, file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise _bad(path, f"{info.filename[:80]!r} is encrypted")
            with archive.open(info) as stream:
                yield info.filename, stream


def _tar_members(path: Path, file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    import pyarrow as pa

    with (
        pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as stream,
        tarfile.open(fileobj=_Bounded(stream), mode="r|") as tar,  # type: ignore[call-overload]
    ):
        for entry in tar:
            if not entry.isreg():
                raise _bad(path, f"{entry.name[:80]!r} is a link, a folder or a device")
            member = tar.extractfile(entry)
            assert member is not None
            yield entry.name, member


class _Bounded:
    """Reads at most MAX_TOTAL and some headers from a stream: a small archive may unpack without end."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.left = MAX_TOTAL + 1024 * MAX_MEMBERS

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; raises ValueError beyond the limit."""
        data: bytes = self.stream.read(min(size, 1 << 20))
        self.left -= len(data)
        if self.left < 0:
            raise ValueError(f"more than {MAX_TOTAL >> 20} MiB")
        return data


def _bad(path: Path, what: str) -> ResultsError:
    return ResultsError(path, what, _MEND)
