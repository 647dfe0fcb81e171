"""A set of integers kept as sorted, disjoint, half-open spans, so that those of a huge range stay small."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable


class Spans:
    """Which integers are in. Adding and discarding cost O(spans), however long the ranges are.

    >>> some = Spans()
    >>> some.add(2, 5); some.add(5, 7); some.discard(3, 4)
    >>> some.clip(0, 10), 3 in some, 4 in some
    ([(2, 3), (4, 7)], False, True)
    """

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        for start, end in sorted(spans):
            if self.ends and start <= self.ends[-1]:
                self.ends[-1] = max(end, self.ends[-1])
            else:
                self.starts.append(start)
                self.ends.append(end)

    def __bool__(self) -> bool:
        return bool(self.starts)

    def __contains__(self, item: int) -> bool:
        at = bisect_right(self.starts, item) - 1
        return at >= 0 and item < self.ends[at]

    def add(self, start: int, end: int) -> None:
        """Put [start, end) in; joins spans that touch."""
        if start >= end:
            return
        low, high = bisect_left(self.ends, start), bisect_right(self.starts, end)
        if low < high:
            start, end = min(start, self.starts[low]), max(end, self.ends[high - 1])
        self.starts[low:high], self.ends[low:high] = [start], [end]

    def discard(self, start: int, end: int) -> None:
        """Take [start, end) out."""
        if start >= end:
            return
        low, high = bisect_right(self.ends, start), bisect_left(self.starts, end)
        if low >= high:
            return
        left = [(self.starts[low], start)] if self.starts[low] < start else []
        right = [(end, self.ends[high - 1])] if end < self.ends[high - 1] else []
        self.starts[low:high] = [span[0] for span in left + right]
        self.ends[low:high] = [span[1] for span in left + right]

    def clip(self, start: int, end: int) -> list[tuple[int, int]]:
        """The spans inside [start, end), cut at its edges."""
        low, high = bisect_right(self.ends, start), bisect_left(self.starts, end)
        pairs = zip(self.starts[low:high], self.ends[low:high], strict=True)
        return [(max(one, start), min(other, end)) for one, other in pairs] if start < end else []

    def add_all(self, spans: Iterable[tuple[int, int]]) -> None:
        """Put many spans in at once. O((old + new) log)."""
        merged = Spans([*zip(self.starts, self.ends, strict=True), *spans])
        self.starts, self.ends = merged.starts, merged.ends

    def copy(self) -> "Spans":
        """An equal set that changes on its own."""
        twin = Spans()
        twin.starts, twin.ends = self.starts[:], self.ends[:]
        return twin
