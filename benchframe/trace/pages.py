"""A walk over Parquet page headers: how large would this column become? Asked before anything is decompressed.

A Parquet reader believes each page header's ``uncompressed_page_size`` and allocates that much, so a file of a
few kilobytes can ask for gigabytes. The headers are Thrift structs in the compact protocol
(parquet-format, ``parquet.thrift`` struct PageHeader; Thrift "compact protocol" specification); the few lines
here read only what is needed: three integers per page, everything else is skipped.
"""

from typing import BinaryIO

MAX_HEADER = 1 << 13
_BOOL_TRUE, _BOOL_FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


class _Compact:
    """A reader of Thrift's compact protocol over one short buffer; raises ``ValueError`` on nonsense."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise ValueError("a page header is cut short")
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            b = self.byte()
            value |= (b & 0x7F) << shift
            if not b & 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a page header has a number that is too long")

    def zigzag(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def skip(self, kind: int, depth: int = 0) -> None:
        if depth > 8:
            raise ValueError("a page header is nested too deeply")
        if kind in (_BOOL_TRUE, _BOOL_FALSE):
            return
        if kind == _BYTE:
            self.at += 1
        elif kind in (_I16, _I32, _I64):
            self.varint()
        elif kind == _DOUBLE:
            self.at += 8
        elif kind == _BINARY:
            length = self.varint()  # moves self.at itself
            self.at += length
        elif kind in (_LIST, _SET):
            head = self.byte()
            count = head >> 4 if head >> 4 != 15 else self.varint()
            if count > MAX_HEADER:
                raise ValueError("a page header has a list that is too long")
            for _ in range(count):
                if head & 15 in (_BOOL_TRUE, _BOOL_FALSE):
                    self.at += 1
                else:
                    self.skip(head & 15, depth + 1)
        elif kind == _STRUCT:
            while (field := self.field(0))[1]:
                self.skip(field[1], depth + 1)
        else:
            raise ValueError("a page header holds a type that no page header has")

    def field(self, previous: int) -> tuple[int, int]:
        """The next field's (id, type); type 0 ends the struct."""
        head = self.byte()
        if head == 0:
            return previous, 0
        number = previous + (head >> 4) if head >> 4 else self.zigzag()
        return number, head & 15


def page_header(data: bytes) -> tuple[int, int, int]:
    """(uncompressed size, compressed size, header length), all in bytes, of the page header at ``data``'s start."""
    reader = _Compact(data)
    sizes = {2: -1, 3: -1}
    number = 0
    while True:
        number, kind = reader.field(number)
        if kind == 0:
            break
        if number in sizes and kind == _I32:
            sizes[number] = reader.zigzag()
        else:
            reader.skip(kind)
    if min(sizes.values()) < 0 or reader.at > len(data):
        raise ValueError("a page header has no sizes")
    return sizes[2], sizes[3], reader.at


def column_pages(file: BinaryIO, start: int, length: int, max_page: int, max_total: int) -> int:
    """Bytes that the column chunk at ``file[start:start + length]`` becomes when decompressed.

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
        raise ValueError("a column's pages do not fill the place that the file gives it")
    return total
