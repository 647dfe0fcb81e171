"""What a trace file's footer may claim: columns, types, codecs, places. Checked before a Parquet library sees the file.

Field ids are those of ``parquet.thrift`` (parquet-format 2.10): FileMetaData, SchemaElement, RowGroup, ColumnChunk,
ColumnMetaData. Nested, optional, encrypted, external and annotated columns are refused: a trace has none.
"""

from dataclasses import dataclass
from typing import Any

from benchframe.trace.thrift import Compact

INT32, INT64 = 1, 2
REQUIRED = 0
CODECS = {0: "none", 1: "snappy", 2: "gzip", 6: "zstd"}
ENCODINGS = {0, 2, 3, 5, 8, 9}
"""PLAIN, PLAIN_DICTIONARY, RLE, DELTA_BINARY_PACKED, RLE_DICTIONARY, BYTE_STREAM_SPLIT."""
MAX_ROW_GROUP = 1 << 22
MAX_GROUPS = 1 << 16


@dataclass(frozen=True)
class Group:
    """A row group: its rows, and (first byte, length) of each column's pages."""

    rows: int
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Footer:
    """A footer that has been checked: rows in all, its groups, and the file's key-value metadata."""

    rows: int
    groups: tuple[Group, ...]
    metadata: dict[bytes, bytes]


def read_footer(data: bytes, size: int, columns: dict[str, str]) -> Footer:
    """Check the footer ``data`` of a file of ``size`` bytes that should hold ``columns`` (name to i4 or i8).

    Raises ``ValueError`` saying what a trace has not. O(footer).
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
