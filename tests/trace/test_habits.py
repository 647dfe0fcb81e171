"""What a program does with its memory, counted from made streams whose counts are known."""

from dataclasses import replace

import numpy as np
import pytest

from benchframe import stream
from benchframe.events import NIL, Kind
from benchframe.trace.analysis import BESIDE, HALF_HUGE, habits
from benchframe.trace.trace import Trace

PAGE, PMD = stream.PAGE, stream.PMD_SIZE
BASE = 1 << 40
ANON = stream.MAP_PRIVATE | stream.MAP_ANONYMOUS


def made(*rows: stream.Rows, times: list[int] | None = None) -> Trace:
    """A trace of these rows after an exec; ``times`` are those of all rows, exec included."""
    trace = stream.build([], list(rows), map_count=100)
    return trace if times is None else replace(trace, time=np.array(times, np.int64))


def pages(first: int, count: int, access: int = stream.WRITE) -> stream.Rows:
    """Faults on ``count`` pages in address order."""
    return stream.fault(BASE + (first + np.arange(count)) * PAGE, access)


def test_pages_given_back_and_touched_again() -> None:
    """Each way of giving pages back is told by its call; pages that stay, and further faults on them, do not count."""
    brk = [stream.rows(Kind.BRK, np.array([at])) for at in (BASE * 2, BASE * 2 + 8 * PAGE)]
    heap = stream.fault(BASE * 2 + np.arange(8) * PAGE, stream.WRITE)
    found = habits(
        made(
            *brk,
            heap,
            brk[0],
            brk[1],
            heap[:5],
            stream.mmap(BASE, 64 * PAGE, 3),
            pages(0, 12),
            stream.dontneed(BASE, 4 * PAGE),
            pages(0, 6),
            stream.munmap(BASE + 8 * PAGE, 4 * PAGE),
            stream.mmap(BASE + 8 * PAGE, 4 * PAGE, 3),
            pages(8, 3),
        )
    )
    assert found.again == {"brk": 5, "madvise": 4, "munmap": 3}
    assert found.touched == 8 + 5 + 12 + 4 + 3


def test_a_read_before_the_write_is_one_touch() -> None:
    """A page that is read and then written is touched once; file memory and refused faults are not looked at."""
    file = stream.rows(Kind.MMAP, BASE * 2, 4 * PAGE, prot=1, flags=stream.MAP_PRIVATE | stream.MAP_FIXED)
    file["file"] = 0
    outside = stream.fault(BASE * 3)
    found = habits(made(stream.mmap(BASE, PAGE, 3), pages(0, 1, 1), pages(0, 1), file, stream.fault(BASE * 2), outside))
    assert found.touched == 1


def test_stretches_of_writes_in_order() -> None:
    """16 pages in order are a stretch, 15 are none; reads, and another task in between, do not hide or make one."""
    other = stream.rows(Kind.THREAD, 0, 1)
    middle = stream.by(1, pages(80, 1))
    found = habits(
        made(
            other,
            stream.mmap(BASE, 200 * PAGE, 3),
            pages(0, 8),
            middle,
            pages(8, 8),
            pages(40, 15),
            pages(100, 30, stream.READ),
        )
    )
    assert (found.in_order, found.stretches) == (16, 1)


def test_ranges_for_huge_pages() -> None:
    """A range counts if one anonymous VMA covers it and half of its pages are touched."""
    length = 3 * PMD
    found = habits(made(stream.mmap(BASE, length, 3), pages(0, HALF_HUGE + 4), pages(512, HALF_HUGE - 1)))
    assert (found.huge, found.huge_ranges) == (HALF_HUGE + 4, 1)
    half = habits(made(stream.mmap(BASE, PMD // 2 + PAGE, 3), pages(0, HALF_HUGE)))
    assert half.huge == 0, "no VMA covers the whole range"


def test_mappings_of_the_same_length_again() -> None:
    """Each unmapped length saves one mmap; a fixed address is a choice of the program and no candidate."""
    fresh = stream.mmap(0, 4 * PAGE, 3, flags=0)
    fresh["ret"] = BASE
    gone = stream.munmap(BASE, 4 * PAGE)
    found = habits(made(fresh, gone, fresh, gone, fresh, stream.mmap(BASE * 2, 4 * PAGE, 3)))
    assert (found.mmaps, found.remapped) == (3, 2)


def test_protections_that_change_back() -> None:
    """The second mprotect of exactly the same range counts, the first does not, nor does another length; an exec
    forgets."""
    flip = stream.mprotect(np.full(4, BASE), 4 * PAGE, np.array([1, 3, 1, 3]))
    begin = stream.rows(Kind.EXEC, NIL)
    begin["ret"] = 0
    found = habits(
        made(
            stream.mmap(BASE, 8 * PAGE, 3),
            flip,
            stream.mprotect(BASE, 8 * PAGE, 1),
            begin,
            stream.mmap(BASE, 8 * PAGE, 3),
            flip[:1],
        )
    )
    assert (found.mprotects, found.toggled) == (6, 3)


def test_faults_beside_another_task() -> None:
    """A fault counts if another task's mapping call came at most 10 us before it; one's own does not."""
    other = stream.rows(Kind.THREAD, 0, 1)
    call = stream.mmap(BASE, 8 * PAGE, 3)
    steps = [0, 0, 1000, 1000 + BESIDE, 1001 + BESIDE, 2000]
    near, own = stream.by(1, pages(0, 2)), pages(4, 1)
    trace = made(other, call, near, own, times=[0, 0, 1000, *steps[3:5], 2000 + BESIDE])
    found = habits(trace)
    assert (found.shared_faults, found.beside) == (3, 1)
    alone = made(call, own, times=[0, 1000, 1500])
    assert habits(alone).shared_faults == 0
    assert habits(made(other, call, near)).shared_faults == 0, "without times nothing is known"


def test_the_layout_at_its_largest() -> None:
    """VMAs are told by kind at the moment of the most, also in a child that inherits them."""
    files = stream.rows(Kind.MMAP, BASE * 2 + np.arange(3) * 2 * PAGE, PAGE, prot=1, flags=ANON_FILE)
    files["file"] = (0, 0, 1)
    fork = stream.rows(Kind.FORK, 1, 1)
    child = stream.by(1, stream.mmap(BASE * 3, PAGE, 3), mm=1)
    found = habits(
        made(stream.mmap(BASE, PAGE, 3), stream.mmap(BASE + 4 * PAGE, PAGE, 0), files, stream.munmap(BASE, PAGE))
    )
    assert (found.layout.vmas, found.layout.guards, found.layout.mapped, found.layout.files) == (5, 1, 3, 2)
    grown = habits(made(stream.mmap(BASE, PAGE, 3), fork, child))
    assert (grown.layout.mm, grown.layout.vmas) == (1, 2)


ANON_FILE = stream.MAP_PRIVATE | stream.MAP_FIXED


@pytest.mark.parametrize("name", ["sbcl-gc", "i386-threads"])
def test_shares_of_recorded_programs(name: str) -> None:
    """In recorded programs no count exceeds what it is a part of."""
    from support.space import registry

    found = habits(registry().spec(name).trace(0))
    assert 0 < sum(found.again.values()) < found.touched
    assert found.in_order <= found.touched
    assert found.huge <= found.touched
    assert found.remapped <= found.mmaps
    assert found.toggled <= found.mprotects
    assert found.beside <= found.shared_faults
    assert found.layout.guards + found.layout.mapped <= found.layout.vmas
