"""The Parquet file of a trace, checked page by page before a library reads it."""

import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from numpy.typing import NDArray

from benchframe.errors import TraceError, address_limit, out_of_memory
from benchframe.events import EVENT, NIL, REPORT, Batch
from benchframe.trace.meta import ADDRESS_LIMIT, PAGE, TraceMeta, fitted_json, meta_from_json

# ----------------------------------------------------------------------------------------------------------------------
# A reader for Thrift's compact protocol, bounded in depth, size and count: enough for a Parquet file's header data.
#
# The trace reader must know what a file claims before it hands the file to a Parquet library: some claims make a
# library allocate gigabytes, and some (an unknown codec) make one abort the whole process. Source: Apache Thrift,
# "Thrift compact protocol"; field ids: Apache parquet-format, ``parquet.thrift``.

BOOL_TRUE, BOOL_FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
MAX_DEPTH = 12


class Compact:
    """Reads from ``data``; raises ``ValueError`` on invalid data. ``budget`` bounds the number of values."""

    def __init__(self, data: bytes, what: str, budget: int = 1 << 20) -> None:
        self.data = data
        self.at = 0
        self.what = what
        self.budget = budget

    def _wrong(self, text: str) -> ValueError:
        return ValueError(f"{self.what} {text}")

    def byte(self) -> int:
        """The next byte."""
        if self.at >= len(self.data):
            raise self._wrong("is cut short")
        self.at += 1
        return self.data[self.at - 1]

    def _bytes(self, count: int) -> bytes:
        if count < 0 or count > len(self.data) - self.at:
            raise self._wrong("is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self) -> int:
        """An unsigned number of at most 64 bits."""
        value = shift = 0
        while True:
            b = self.byte()
            value |= (b & 0x7F) << shift
            if not b & 0x80:
                return value
            shift += 7
            if shift > 63:
                raise self._wrong("has a number that is too long")

    def zigzag(self) -> int:
        """A signed number."""
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def struct(self, depth: int = 0) -> "dict[int, object]":
        """The fields of a struct by id; a repeated id is an error."""
        fields: dict[int, object] = {}
        number = 0
        while True:
            head = self.byte()
            if head == 0:
                return fields
            number = number + (head >> 4) if head >> 4 else self.zigzag()
            if number in fields:
                raise self._wrong("has a field twice")
            fields[number] = self.value(head & 15, depth + 1)

    def value(self, kind: int, depth: int, in_list: bool = False) -> object:
        """One value of a type; bytes stand for strings, 0 for doubles (none is of use here)."""
        self.budget -= 1
        if depth > MAX_DEPTH or self.budget < 0:
            raise self._wrong("is nested too deeply or too long")
        if kind in (BOOL_TRUE, BOOL_FALSE):
            return self.byte() == BOOL_TRUE if in_list else kind == BOOL_TRUE
        if kind == BYTE:
            return self.byte()
        if kind in (I16, I32, I64):
            return self.zigzag()
        if kind == DOUBLE:
            self._bytes(8)
            return 0
        if kind == BINARY:
            return self._bytes(self.varint())
        if kind in (LIST, SET):
            head = self.byte()
            count = head >> 4 if head >> 4 != 15 else self.varint()
            if count > self.budget:
                raise self._wrong("has a list that is too long")
            return [self.value(head & 15, depth + 1, True) for _ in range(count)]
        if kind == STRUCT:
            return self.struct(depth)
        raise self._wrong("contains a type that Parquet does not have")


# ----------------------------------------------------------------------------------------------------------------------
# A walk over Parquet page headers, to compute a column's size before anything is decompressed.
#
# A Parquet reader believes each page header's ``uncompressed_page_size`` and allocates that much, so a file of a
# few kilobytes can ask for gigabytes (parquet-format, ``parquet.thrift`` struct PageHeader: 2 uncompressed_page_size,
# 3 compressed_page_size).

MAX_HEADER = 1 << 13


def page_header(data: bytes) -> tuple[int, int, int]:
    """(uncompressed size, compressed size, header length), all in bytes, of the page header at the start of
    ``data``."""
    reader = Compact(data, "a page header", 1000)
    fields = reader.struct()
    plain, packed = fields.get(2), fields.get(3)
    if not isinstance(plain, int) or not isinstance(packed, int) or min(plain, packed) < 0:
        raise ValueError("a page header has no sizes")
    return plain, packed, reader.at


def column_pages(file: BinaryIO, start: int, length: int, max_page: int, max_total: int) -> int:
    """The decompressed size in bytes of the column chunk at ``file[start:start + length]``.

    Raises ``ValueError`` if one page is above ``max_page``, all are above ``max_total``, or the pages do not fill
    the chunk. Cost: one read of a header per page.
    """
    at, end, total = start, start + length, 0
    while at < end:
        file.seek(at)
        plain, packed, header = page_header(file.read(min(MAX_HEADER, end - at)))
        total += plain
        if plain > max_page or total > max_total:
            raise ValueError(f"a column unpacks to more than {max_page if plain > max_page else max_total} bytes")
        at += header + packed
    if at != end:
        raise ValueError("a column's pages do not fill the space that the file gives it")
    return total


# ----------------------------------------------------------------------------------------------------------------------
# What a trace file's footer may contain: columns, types, codecs, places. Checked before a Parquet library reads it.
#
# Field ids are those of ``parquet.thrift`` (parquet-format 2.10): FileMetaData, SchemaElement, RowGroup, ColumnChunk,
# ColumnMetaData. Nested, optional, encrypted, external and annotated columns are refused: a trace has none.

INT32, INT64 = 1, 2
REQUIRED = 0
CODECS = {0: "none", 1: "snappy", 2: "gzip", 6: "zstd"}
ENCODINGS = {0, 2, 3, 5, 8, 9}
"""PLAIN, PLAIN_DICTIONARY, RLE, DELTA_BINARY_PACKED, RLE_DICTIONARY, BYTE_STREAM_SPLIT."""
MAX_ROW_GROUP = 1 << 22
MAX_GROUPS = 1 << 16


@dataclass(frozen=True)
class Group:
    """A row group: its number of rows, and (first byte, length) of each column's pages."""

    rows: int
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Footer:
    """A checked footer: the total of rows, its groups, and the file's key-value metadata."""

    rows: int
    groups: tuple[Group, ...]
    metadata: dict[bytes, bytes]


def read_footer(data: bytes, size: int, columns: dict[str, str]) -> Footer:
    """Check the footer ``data`` of a file of ``size`` bytes that should hold ``columns`` (name to i4 or i8).

    Raises ``ValueError``, which says what a trace cannot have. O(footer).
    """
    reader = Compact(data, "the footer", 4 << 20)
    fields = reader.struct()
    if 8 in fields:
        raise ValueError("the file is encrypted")
    _check_schema(_list(fields, 2), columns)
    rows = _number(fields, 3)
    raw = _list(fields, 4)
    if len(raw) > MAX_GROUPS:
        raise ValueError(f"it has {len(raw)} row groups")
    groups = tuple(_group(_struct(group), i, size, columns) for i, group in enumerate(raw))
    if sum(group.rows for group in groups) != rows:
        raise ValueError("its row groups do not add up to its number of rows")
    metadata = {}
    for pair in _list(fields, 5) if 5 in fields else []:
        key, value = _struct(pair).get(1), _struct(pair).get(2, b"")
        if isinstance(key, bytes) and isinstance(value, bytes):
            metadata[key] = value
    return Footer(rows, groups, metadata)


def _check_schema(schema: list[Any], columns: dict[str, str]) -> None:
    root = _struct(schema[0]) if schema else {}
    elements = [_struct(element) for element in schema[1:]]
    names = [element.get(4) for element in elements]
    shown = [name.decode(errors="replace") if isinstance(name, bytes) else "?" for name in names]
    missing = [name for name in columns if name not in shown]
    if missing:
        raise ValueError(f"column {missing[0]} is missing")
    if shown != list(columns) or root.get(5) != len(columns):
        raise ValueError("it has columns that a trace does not have")
    for element, (name, kind) in zip(elements, columns.items(), strict=True):
        plain = element.get(1) == (INT64 if kind == "i8" else INT32) and not {2, 5, 6, 7, 8, 10} & set(element)
        if not plain or element.get(3) != REQUIRED:
            bits = "64" if kind == "i8" else "32"
            raise ValueError(f"column {name} is not a plain column of signed {bits}-bit integers")


def _group(fields: dict[int, Any], number: int, size: int, columns: dict[str, str]) -> Group:
    rows = _number(fields, 3)
    if not 0 <= rows <= MAX_ROW_GROUP:
        raise ValueError(f"row group {number} has {rows} rows, more than {MAX_ROW_GROUP}")
    chunks = _list(fields, 1)
    if len(chunks) != len(columns):
        raise ValueError(f"row group {number} has {len(chunks)} columns")
    places = []
    for chunk, (name, kind) in zip(map(_struct, chunks), columns.items(), strict=True):
        where = f"column {name} of row group {number}"
        if {1, 8, 9} & set(chunk):
            raise ValueError(f"{where} is encrypted or in another file")
        meta = _struct(chunk.get(3))
        if meta.get(1) != (INT64 if kind == "i8" else INT32) or meta.get(3) != [name.encode()]:
            raise ValueError(f"{where} is another column")
        if meta.get(4) not in CODECS:
            raise ValueError(f"{where} is compressed in a way that benchframe does not read")
        if not set(map(str, _list(meta, 2))) <= set(map(str, ENCODINGS)):
            raise ValueError(f"{where} is encoded in a way that benchframe does not read")
        start, length = _number(meta, 9), _number(meta, 7)
        dictionary = _number(meta, 11) if 11 in meta else 0
        if 0 < dictionary < start:
            start = dictionary
        if _number(meta, 5) != rows or (rows and (start < 4 or length < 0 or start + length > size)):
            raise ValueError(f"{where} does not lie in the file")
        places.append((start, length))
    return Group(rows, tuple(places))


def _struct(value: object) -> dict[int, Any]:
    if not isinstance(value, dict):
        raise ValueError("the footer is not a valid Parquet footer")
    return value


def _list(fields: dict[int, Any], number: int) -> list[Any]:
    value = fields.get(number)
    if not isinstance(value, list):
        raise ValueError("the footer is not a valid Parquet footer")
    return value


def _number(fields: dict[int, Any], number: int) -> int:
    value = fields.get(number)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("the footer is not a valid Parquet footer")
    return value


# ----------------------------------------------------------------------------------------------------------------------
# The Parquet side of the trace format: everything that uses pyarrow, and the checks before it.

KEY = b"benchframe"
ROW_GROUP = 1 << 20
MAX_FOOTER = 1 << 25
MAX_META = 1 << 24
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
"""Columns whose values mostly differ: delta encoded. The others repeat values and use a dictionary."""

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
            raise self._wrong("this is not a path", "give the path of a trace file") from None

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
        """Open the library's reader, for a file whose footer has been checked."""
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
            _pass_on_if_limited(error)
            raise self._wrong(f"its footer cannot be read ({_first_line(error)})") from None
        if not good:
            raise self._wrong("its columns are not plain signed integers")
        return reader

    def batches(self, rows: int) -> Iterator[Batch]:
        """Yield unchecked batches of at most ``rows`` rows, in order. Raises TraceError on damaged pages."""
        reader = self._parse()
        row = 0
        for g, group in enumerate(self._footer.groups):
            if not group.rows:
                continue
            self._check_pages(g, group)
            end = row + group.rows
            try:
                for part in reader.iter_batches(batch_size=rows, row_groups=[g], use_threads=not address_limit()):
                    batch = _to_batch(row, part)
                    row += len(batch.events)
                    yield batch
            except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
                _pass_on_if_limited(error)
                raise self._wrong(f"row group {g} cannot be unpacked ({_first_line(error)})") from None
            if row != end:
                raise self._wrong(f"row group {g} has fewer rows than it states")

    def _check_pages(self, g: int, group: Group) -> None:
        for (start, length), (name, kind) in zip(group.places, COLUMNS.items(), strict=True):
            # Twice the plain size covers a dictionary of all-different values and its indices.
            room = 2 * int(kind[1]) * group.rows + (1 << 16)
            try:
                column_pages(self._file, start, length, min(MAX_PAGE, room), room)
            except ValueError as error:
                raise self._wrong(f"column {name} of row group {g}: {error}") from None


def _pass_on_if_limited(error: Exception) -> None:
    """Raise MemoryError if one of the user's limits (``ulimit -v``), and not the file, stopped the library."""
    if address_limit() and out_of_memory(error):
        raise MemoryError(_first_line(error)) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def to_numpy(column: Any) -> NDArray[Any]:
    """A column of integers without nulls. Pyarrow's own ``to_numpy`` and ``array`` import pandas, which takes half a
    second."""
    if not (pa.types.is_integer(column.type) and column.null_count == 0):
        raise ValueError("a column did not unpack to integers")
    kind = np.dtype(f"i{column.type.bit_width // 8}")
    if not len(column):
        return np.zeros(0, kind)
    return np.frombuffer(column.buffers()[1], kind, len(column), column.offset * kind.itemsize)


def _to_column(values: NDArray[Any], field: Any) -> Any:
    whole = np.ascontiguousarray(values, dtype=f"i{field.type.bit_width // 8}")
    return pa.Array.from_buffers(field.type, len(whole), [None, pa.py_buffer(whole)], null_count=0)


def _to_batch(row: int, part: Any) -> Batch:
    count = part.num_rows
    columns: dict[str, NDArray[Any]] = {name: to_numpy(part.column(i)) for i, name in enumerate(COLUMNS)}
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
    arrays = [_to_column(columns[field.name], field) for field in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def write_table(sink: BinaryIO, meta: TraceMeta | Callable[[], TraceMeta], batches: Iterable[Batch]) -> None:
    """Write batches as one Parquet file. Raises OSError."""
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
        writer.add_key_value_metadata({KEY: fitted_json(meta() if callable(meta) else meta, MAX_META).encode()})
    finally:
        writer.close()
