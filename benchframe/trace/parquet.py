"""The Parquet side of the trace format: everything that touches pyarrow, and the checks that come before it."""

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from numpy.typing import NDArray

from benchframe.errors import TraceError
from benchframe.events import EVENT, NIL, REPORT, Batch
from benchframe.trace.footer import Footer, Group, read_footer
from benchframe.trace.meta import ADDRESS_LIMIT, PAGE, TraceMeta, meta_from_json, meta_to_json
from benchframe.trace.pages import column_pages

KEY = b"benchframe"
ROW_GROUP = 1 << 20
MAX_FOOTER = 1 << 24
MAX_META = 1 << 23
MAX_PAGE = 1 << 26
MAGIC = b"PAR1"

COLUMNS: dict[str, str] = {
    "time": "i8",
    "tid": "i4",
    "task": "i4",
    "mm": "i4",
    "kind": "i4",
    "addr": "i8",
    "len": "i8",
    "prot": "i4",
    "flags": "i4",
    "offset": "i8",
    "new_len": "i8",
    "file": "i4",
    "ret": "i8",
    "vm_start": "i8",
    "vm_end": "i8",
}
"""Name and type of each column, in file order; vm_start and vm_end are the REPORT of the row, NIL if there is none."""

_DELTA = {"time", "addr"}
"""Columns of ever new values: delta encoded. The others repeat and take a dictionary."""

SCHEMA: Any = pa.schema(
    [pa.field(name, pa.int64() if kind == "i8" else pa.int32(), nullable=False) for name, kind in COLUMNS.items()]
)
AGAIN = "record or convert it again"


class TraceFile:
    """An open trace file whose footer and metadata have been checked; a context manager.

    ``rows`` is the number of events, ``meta`` the TraceMeta. :meth:`batches` unpacks one row group at a time,
    after its page headers have been walked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = self._open()
        try:
            self._footer = self._check_footer()
            self.meta = self._read_meta()
        except BaseException:
            self._file.close()
            raise
        self.rows = self._footer.rows

    def __enter__(self) -> "TraceFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self._file.close()

    def _wrong(self, what: str, mend: str = AGAIN) -> TraceError:
        return TraceError(self.path, what, mend)

    def _open(self) -> BinaryIO:
        try:
            mode = self.path.stat().st_mode
            if not stat.S_ISREG(mode):
                raise self._wrong("it is not a regular file", "give the path of a trace file")
            return self.path.open("rb")
        except OSError as error:
            raise self._wrong(f"cannot be read ({error.strerror})", "check the path and its permissions") from None
        except ValueError:
            raise self._wrong("this is no path", "give the path of a trace file") from None

    def _check_footer(self) -> Footer:
        size = self._file.seek(0, 2)
        self._file.seek(0)
        if size < 12 or self._file.read(4) != MAGIC:
            raise self._wrong(
                "this is not a Parquet file", "benchframe record makes traces, trace convert imports them"
            )
        self._file.seek(size - 8)
        tail = self._file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or length > size - 12:
            raise self._wrong("the file is cut short", "copy or record it again")
        if length > MAX_FOOTER:
            raise self._wrong(f"its footer claims {length} bytes")
        self._file.seek(size - 8 - length)
        try:
            return read_footer(self._file.read(length), size, COLUMNS)
        except ValueError as error:
            raise self._wrong(
                str(error), "see docs/trace-format.md for what a trace holds, or record it again"
            ) from None

    def _read_meta(self) -> TraceMeta:
        text = self._footer.metadata.get(KEY)
        if text is None:
            raise self._wrong("this Parquet file is not a benchframe trace", "trace convert imports other data")
        if len(text) > MAX_META:
            raise self._wrong(f"its metadata claims {len(text)} bytes, more than {MAX_META}")
        try:
            return meta_from_json(text)
        except ValueError as error:
            raise self._wrong(str(error)) from None

    def _parse(self) -> Any:
        """The library's reader, on a file whose footer has been checked."""
        self._file.seek(0)
        try:
            reader = pq.ParquetFile(
                self._file,
                pre_buffer=False,
                buffer_size=1 << 16,
                thrift_string_size_limit=MAX_FOOTER,
                thrift_container_size_limit=1 << 20,
                page_checksum_verification=True,
            )
            good = reader.schema_arrow.types == SCHEMA.types
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, RecursionError) as error:
            raise self._wrong(f"its footer cannot be read ({_first_line(error)})") from None
        if not good:
            raise self._wrong("its columns are not plain signed integers")
        return reader

    def batches(self, rows: int) -> Iterator[Batch]:
        """Yield unchecked batches of at most ``rows`` rows, in order; raises TraceError on damaged pages."""
        reader = self._parse()
        row = 0
        for g, group in enumerate(self._footer.groups):
            if not group.rows:
                continue
            self._check_pages(g, group)
            end = row + group.rows
            try:
                for part in reader.iter_batches(batch_size=rows, row_groups=[g], use_threads=True):
                    batch = _to_batch(row, part)
                    row += len(batch.events)
                    yield batch
            except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
                raise self._wrong(f"row group {g} cannot be unpacked ({_first_line(error)})") from None
            if row != end:
                raise self._wrong(f"row group {g} holds fewer rows than it says")

    def _check_pages(self, g: int, group: Group) -> None:
        for (start, length), (name, kind) in zip(group.places, COLUMNS.items(), strict=True):
            # Twice the plain size covers a dictionary of all-different values and its indices.
            room = 2 * int(kind[1]) * group.rows + (1 << 16)
            try:
                column_pages(self._file, start, length, min(MAX_PAGE, room), room)
            except ValueError as error:
                raise self._wrong(f"column {name} of row group {g}: {error}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _to_batch(row: int, part: Any) -> Batch:
    count = part.num_rows
    columns: dict[str, NDArray[Any]] = {name: part.column(i).to_numpy() for i, name in enumerate(COLUMNS)}
    for column, kind in zip(columns.values(), COLUMNS.values(), strict=True):
        if column.dtype != np.dtype(kind) or len(column) != count:
            raise ValueError("a column did not unpack to integers")
    events = np.empty(count, EVENT)
    for name in EVENT.names or ():
        events[name] = columns[name]
    rows = np.flatnonzero(columns["vm_end"] != NIL)
    reports = np.empty(len(rows), REPORT)
    reports["row"] = rows + row
    for name in ("vm_start", "vm_end"):
        reports[name] = columns[name][rows]
    start, end = reports["vm_start"], reports["vm_end"]
    if not ((start >= 0) & (start < end) & (end <= ADDRESS_LIMIT) & ((start | end) & (PAGE - 1) == 0)).all():
        raise ValueError("a reported VMA is not a range of user pages")
    return Batch(row, events, np.array(columns["time"]), np.array(columns["tid"]), reports)


def _to_table(batch: Batch) -> Any:
    columns: dict[str, NDArray[Any]] = {name: np.ascontiguousarray(batch.events[name]) for name in EVENT.names or ()}
    columns["time"], columns["tid"] = batch.time, batch.tid
    for name in ("vm_start", "vm_end"):
        column = np.full(len(batch.events), NIL, np.int64)
        column[batch.reports["row"] - batch.row] = batch.reports[name]
        columns[name] = column
    arrays = [pa.array(columns[name].astype(kind, copy=False)) for name, kind in COLUMNS.items()]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def write_table(sink: BinaryIO, meta: TraceMeta, batches: Iterable[Batch]) -> None:
    """Write batches as one Parquet file; raises OSError."""
    writer = pq.ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        compression_level=9,
        use_dictionary=[name for name in COLUMNS if name not in _DELTA],
        column_encoding=dict.fromkeys(sorted(_DELTA), "DELTA_BINARY_PACKED"),
        write_statistics=False,
        store_schema=False,
        write_page_checksum=True,
        data_page_version="1.0",
    )
    try:
        for batch in batches:
            writer.write_table(_to_table(batch), row_group_size=ROW_GROUP)
        writer.add_key_value_metadata({KEY: meta_to_json(meta).encode()})
    finally:
        writer.close()
