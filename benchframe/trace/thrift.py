"""A reader for Thrift's compact protocol, bounded in depth, size and count: enough for a Parquet file's own claims.

The trace reader must know what a file claims before it hands the file to a Parquet library: some claims make a
library allocate gigabytes, and some (an unknown codec) make one abort the whole process. Source: Apache Thrift,
"Thrift compact protocol"; field ids: Apache parquet-format, ``parquet.thrift``.
"""

BOOL_TRUE, BOOL_FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
MAX_DEPTH = 12


class Compact:
    """Reads from ``data``; raises ``ValueError`` on nonsense. ``budget`` bounds the number of values."""

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
