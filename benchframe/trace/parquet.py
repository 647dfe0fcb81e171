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

from benchframe.trace.errors import TraceError
from benchframe.trace.events import EVENT, NIL
from benchframe.trace.format import REPORT, Batch
from benchframe.trace.meta import ADDRESS_LIMIT, PAGE, TraceMeta, meta_from_json, meta_to_json
from benchframe.trace.pages import column_pages

KEY = b"benchframe"
ROW_GROUP = 1 << 20
MAX_ROW_GROUP = 1 << 22
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
            self._reader = self._parse()
            self.meta = self._check_footer()
        except BaseException:
            self._file.close()
            raise
        self.rows: int = self._reader.metadata.num_rows

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

    def _parse(self) -> Any:
        size = self._file.seek(0, 2)
        self._file.seek(0)
        head = self._file.read(4)
        if size < 12 or head != MAGIC:
            raise self._wrong(
                "this is not a Parquet file", "benchframe record makes traces, trace convert imports them"
            )
        self._file.seek(size - 8)
        tail = self._file.read(8)
        footer = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or footer > size - 12:
            raise self._wrong("the file is cut short", "copy or record it again")
        if footer > MAX_FOOTER:
            raise self._wrong(f"its footer claims {footer} bytes", AGAIN)
        try:
            return pq.ParquetFile(
                self._file,
                pre_buffer=False,
                buffer_size=1 << 16,
                thrift_string_size_limit=MAX_FOOTER,
                thrift_container_size_limit=1 << 20,
                page_checksum_verification=True,
            )
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, RecursionError) as error:
            raise self._wrong(f"its footer cannot be read ({_first_line(error)})") from None

    def _check_footer(self) -> TraceMeta:
        try:
            footer = self._reader.metadata
            schema = self._reader.schema
            names = [schema.column(i).name for i in range(len(schema))]
            self._check_columns(names, schema)
            self._check_groups(footer)
            text = (footer.metadata or {}).get(KEY)
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
            raise self._wrong(f"its footer cannot be read ({_first_line(error)})") from None
        if text is None:
            raise self._wrong("this Parquet file is not a benchframe trace", "trace convert imports other data")
        if len(text) > MAX_META:
            raise self._wrong(f"its metadata claims {len(text)} bytes, more than {MAX_META}")
        try:
            return meta_from_json(text)
        except ValueError as error:
            raise self._wrong(str(error)) from None

    def _check_columns(self, names: list[str], schema: Any) -> None:
        if names != list(COLUMNS):
            missing = [n for n in COLUMNS if n not in names]
            what = f"column {missing[0]} is missing" if missing else "it has columns that a trace has not"
            raise self._wrong(what, "see docs/trace-format.md for the columns of a trace")
        for i, (name, kind) in enumerate(COLUMNS.items()):
            column = schema.column(i)
            flat = column.max_definition_level == 0 and column.max_repetition_level == 0
            if not flat or column.physical_type != ("INT64" if kind == "i8" else "INT32"):
                raise self._wrong(
                    f"column {name} is not a plain column of {'64' if kind == 'i8' else '32'}-bit integers"
                )
        if self._reader.schema_arrow.types != SCHEMA.types:
            raise self._wrong("its columns are not plain signed integers")

    def _check_groups(self, footer: Any) -> None:
        size = self._file.seek(0, 2)
        total = 0
        for g in range(footer.num_row_groups):
            group = footer.row_group(g)
            if not 0 <= group.num_rows <= MAX_ROW_GROUP:
                raise self._wrong(f"row group {g} has {group.num_rows} rows, more than {MAX_ROW_GROUP}")
            total += group.num_rows
            if not group.num_rows:
                continue
            for c in range(len(COLUMNS)):
                chunk = group.column(c)
                start, length = _place(chunk)
                if start < 4 or length < 0 or start + length > size or chunk.num_values != group.num_rows:
                    raise self._wrong(f"column {list(COLUMNS)[c]} of row group {g} does not lie in the file")
                if chunk.compression not in ("ZSTD", "SNAPPY", "GZIP", "UNCOMPRESSED"):
                    raise self._wrong(f"column {list(COLUMNS)[c]} is packed with {chunk.compression}")
        if total != footer.num_rows:
            raise self._wrong("its row groups do not add up to its number of rows")

    def batches(self, rows: int) -> Iterator[Batch]:
        """Yield unchecked batches of at most ``rows`` rows, in order; raises TraceError on damaged pages."""
        row = 0
        for g in range(self._reader.metadata.num_row_groups):
            if not self._reader.metadata.row_group(g).num_rows:
                continue
            self._check_pages(g)
            try:
                for part in self._reader.iter_batches(batch_size=rows, row_groups=[g], use_threads=True):
                    batch = _to_batch(row, part)
                    row += len(batch.events)
                    yield batch
            except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
                raise self._wrong(f"row group {g} cannot be unpacked ({_first_line(error)})") from None

    def _check_pages(self, g: int) -> None:
        group = self._reader.metadata.row_group(g)
        for c, (name, kind) in enumerate(COLUMNS.items()):
            start, length = _place(group.column(c))
            # Twice the plain size covers a dictionary of all-different values and its indices.
            room = 2 * int(kind[1]) * group.num_rows + (1 << 16)
            try:
                column_pages(self._file, start, length, min(MAX_PAGE, room), room)
            except ValueError as error:
                raise self._wrong(f"column {name} of row group {g}: {error}") from None


def _place(chunk: Any) -> tuple[int, int]:
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    return int(start), int(chunk.total_compressed_size)


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


def write_table(path: Path, meta: TraceMeta, batches: Iterable[Batch]) -> None:
    """Write batches as one Parquet file and sync it to disk; raises OSError."""
    import os

    with path.open("wb") as sink:
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
        sink.flush()
        os.fsync(sink.fileno())
