"""A walk over Parquet page headers: how large would this column become? Asked before anything is decompressed.

A Parquet reader believes each page header's ``uncompressed_page_size`` and allocates that much, so a file of a
few kilobytes can ask for gigabytes (parquet-format, ``parquet.thrift`` struct PageHeader: 2 uncompressed_page_size,
3 compressed_page_size).
"""

from typing import BinaryIO

from benchframe.trace.thrift import Compact

MAX_HEADER = 1 << 13


def page_header(data: bytes) -> tuple[int, int, int]:
    """(uncompressed size, compressed size, header length), all in bytes, of the page header at ``data``'s start."""
    reader = Compact(data, "a page header", 1000)
    fields = reader.struct()
    plain, packed = fields.get(2), fields.get(3)
    if not isinstance(plain, int) or not isinstance(packed, int) or min(plain, packed) < 0:
        raise ValueError("a page header has no sizes")
    return plain, packed, reader.at


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
        raise ValueError("a column's pages do not fill the space that the file gives it")
    return total
