"""Which rows are a trace: each rule of the checker has a stream that breaks it; a whole process tree keeps them."""

import numpy as np
import pytest

from benchframe.events import EVENT, NIL, UNKNOWN, Kind
from benchframe.trace.trace import Checker, RowError, Trace, split_trace

BASE = 0x10000000


def stream(*rows: dict[str, int]) -> np.ndarray:
    """EVENT rows from keyword values; file is NIL unless given."""
    events = np.zeros(len(rows), EVENT)
    events["file"] = NIL
    for i, row in enumerate(rows):
        for name, value in row.items():
            events[name][i] = value
    return events


def row(kind: Kind, **values: int) -> dict[str, int]:
    """One row."""
    return {"kind": int(kind), **values}


EXEC = row(Kind.EXEC, addr=NIL)
FAULT = row(Kind.FAULT, addr=BASE)


def check(events: np.ndarray, cut: int | None = None) -> None:
    """Check a stream, whole or in two batches."""
    checker = Checker(1)
    for part in (events,) if cut is None else (events[:cut], events[cut:]):
        zeros = np.zeros(len(part))
        checker.check(part, zeros.astype(np.int64), zeros.astype(np.int32))


TREE = stream(
    EXEC,
    row(Kind.MAP, addr=BASE, len=4096, ret=0),
    row(Kind.THREAD, len=1),
    row(Kind.FORK, addr=1, len=2),
    row(Kind.FAULT, addr=BASE, task=2, mm=1),
    row(Kind.FAULT, addr=BASE, task=1),
    row(Kind.EXEC, addr=NIL, task=2, mm=2),
    row(Kind.FAULT, addr=BASE, task=2, mm=2),
    row(Kind.THREAD, len=3, task=2, mm=2),
    row(Kind.EXIT, task=3, mm=2),
    row(Kind.EXIT, task=2, mm=2),
    row(Kind.EXIT, task=1),
    row(Kind.EXIT),
)


def test_a_process_tree_passes() -> None:
    """Threads, fork and exec: the whole stream passes, and so does every way of cutting it in two batches."""
    check(TREE)
    for cut in range(len(TREE) + 1):
        check(TREE, cut)


BAD = [
    ("task was never created", (FAULT,)),
    ("task was never created", (EXEC, row(Kind.FAULT, addr=BASE, task=1))),
    ("exec's mm is not", (row(Kind.EXEC, addr=NIL, mm=1),)),
    ("exec's mm is not", (EXEC, row(Kind.EXEC, addr=NIL, mm=0))),
    ("new task's index", (EXEC, row(Kind.THREAD, len=2))),
    ("new task's index", (EXEC, row(Kind.THREAD, len=0))),
    ("fork's mm is not", (EXEC, row(Kind.FORK, addr=2, len=1))),
    ("fork's mm is not", (EXEC, row(Kind.FORK, addr=0, len=1))),
    ("does not live", (EXEC, row(Kind.FORK, addr=1, len=1), row(Kind.FAULT, addr=BASE, mm=1))),
    ("does not live", (EXEC, row(Kind.FORK, addr=1, len=1), row(Kind.FAULT, addr=BASE, task=1))),
    ("does not live", (EXEC, row(Kind.EXEC, addr=NIL, mm=1), FAULT)),
    ("does not live", (EXEC, row(Kind.FORK, addr=1, len=1), row(Kind.THREAD, len=2, task=1))),
    ("kernel-made", (EXEC, row(Kind.MAP, addr=BASE, len=4095))),
    ("kernel-made", (EXEC, row(Kind.MAP, addr=BASE))),
    ("kernel-made", (EXEC, row(Kind.MAP, addr=(1 << 47) - 4096, len=8192))),
    ("addr is not page-aligned", (EXEC, row(Kind.MAP, addr=BASE + 1, len=4096))),
    ("addr is not page-aligned", (EXEC, row(Kind.MUNMAP, addr=BASE + 8, len=4096))),
    ("addr is not page-aligned", (EXEC, row(Kind.MPROTECT, addr=BASE + 8, len=4096))),
    ("ret is not page-aligned", (EXEC, row(Kind.MMAP, len=4096, ret=BASE + 1))),
    ("ends above", (EXEC, row(Kind.MMAP, len=1 << 40, ret=(1 << 47) - 4096))),
    ("ends above", (EXEC, row(Kind.MREMAP, addr=BASE, len=1, new_len=1 << 40, ret=(1 << 47) - 4096))),
    ("no bytes", (EXEC, row(Kind.MMAP, ret=BASE))),
    ("offset is not page-aligned", (EXEC, row(Kind.MMAP, len=1, ret=BASE, offset=5))),
    ("not a user address", (EXEC, row(Kind.LOOKUP, addr=1 << 47))),
    ("addr is negative", (EXEC, row(Kind.FAULT, addr=NIL))),
    ("prot of a lookup", (EXEC, row(Kind.FAULT, addr=BASE, prot=3))),
    ("flags of a fault", (EXEC, row(Kind.FAULT, addr=BASE, flags=8))),
    ("ret is not an address", (EXEC, row(Kind.BRK, ret=-4096))),
    ("file is not an index", (EXEC, row(Kind.MMAP, len=1, ret=BASE, file=1))),
]


@pytest.mark.parametrize(("what", "rows"), BAD)
def test_bad_rows(what: str, rows: tuple[dict[str, int], ...]) -> None:
    """Each bad row is named by its number, in one batch and when it begins the second."""
    events = stream(*rows)
    for cut in (None, len(rows) - 1):
        with pytest.raises(RowError, match=what) as caught:
            check(events, cut)
        assert caught.value.row == len(rows) - 1


def test_what_programs_may_do() -> None:
    """Failing calls with odd arguments, and results that nobody recorded, are part of real traces."""
    check(
        stream(
            EXEC,
            row(Kind.MUNMAP, addr=BASE + 1, len=1 << 47, ret=-22),
            row(Kind.MMAP, addr=1 << 47, len=0, ret=-22, offset=5, prot=2**31 - 1, flags=2**31 - 1),
            row(Kind.MMAP, len=4096, ret=UNKNOWN),
            row(Kind.BRK, ret=BASE + 17),
            row(Kind.FAULT, addr=0, flags=5),
        )
    )


def test_time_runs_forward() -> None:
    """Time may stand still, not run backwards, across batches too."""
    checker = Checker(0)
    tid = np.zeros(2, np.int32)
    checker.check(stream(EXEC, FAULT), np.array([5, 5]), tid)
    with pytest.raises(RowError, match="time runs backwards") as caught:
        checker.check(stream(FAULT, FAULT), np.array([4, 9]), tid)
    assert caught.value.row == 2


def test_split_a_tree() -> None:
    """Each address space, a forked one with its parent's layout, becomes a trace of its own that passes."""
    parts = split_trace(Trace(TREE))
    assert [len(p) for p in parts] == [6, 3, 5]
    for part in parts:
        part.check()
        assert part.mms == 1
    assert parts[1].events["kind"].tolist() == [Kind.EXEC, Kind.MAP, Kind.FAULT]
    assert parts[2].events["kind"].tolist() == [Kind.EXEC, Kind.FAULT, Kind.THREAD, Kind.EXIT, Kind.EXIT]
    assert parts[2].events["task"].tolist() == [0, 0, 0, 1, 0]
