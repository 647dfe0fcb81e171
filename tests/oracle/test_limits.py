"""Limits and searches of the oracle, which the running kernel is not asked about: map count, holes, locked memory."""

import random

import pytest

from benchframe.oracle import Advice, FaultError, Limits, Oracle, Rules, flip
from benchframe.oracle.rules import VM_ACCOUNT
from benchframe.oracle.space import Spans

PAGE = 4096
BASE = 0x10000000
ANON, FIXED = 0x22, 0x32
ENOMEM, EAGAIN, EPERM, EINVAL = 12, 11, 1, 22


def striped(count: int, limits: Limits) -> Oracle:
    """An oracle with ``count`` areas of three pages that do not merge."""
    mm = Oracle(limits=limits)
    for number in range(count):
        prot = 1 if number % 2 else 3
        assert mm.mmap(BASE + number * 3 * PAGE, 3 * PAGE, prot, FIXED) > 0
    assert mm.map_count == count
    return mm


def test_mmap_may_exceed_the_map_count_by_one() -> None:
    """mmap tests with `>`: a space at the limit takes one more area, then none."""
    mm = striped(6, Limits(max_map_count=6))
    assert mm.mmap(BASE + (1 << 24), PAGE, 3, FIXED) == BASE + (1 << 24)
    assert mm.map_count == 7
    assert mm.mmap(BASE + (2 << 24), PAGE, 3, FIXED) == -ENOMEM


def test_splits_stop_at_the_map_count() -> None:
    """Splits test with `>=`: mprotect, madvise and a hole in the middle fail at the limit, the tail can go."""
    mm = striped(6, Limits(max_map_count=6))
    before = mm.layout()
    assert mm.mprotect(BASE + PAGE, PAGE, 0) == -ENOMEM
    assert mm.madvise(BASE + PAGE, PAGE, Advice.DONTFORK) == -EAGAIN
    assert mm.munmap(BASE + PAGE, PAGE) == -ENOMEM
    assert mm.layout() == before
    assert mm.munmap(BASE + PAGE, 2 * PAGE) == 0
    assert mm.layout()[0][:2] == (BASE, BASE + PAGE)


def test_a_move_needs_room_in_the_map_count() -> None:
    """mremap to another place stops three below the limit, five below with a fixed target."""
    target = BASE + (1 << 24)
    for count, moved in ((9, -ENOMEM), (6, -ENOMEM), (5, target)):
        mm = striped(count, Limits(max_map_count=11))
        assert mm.mremap(BASE, 3 * PAGE, 3 * PAGE, 3, target) == moved
    mm = striped(8, Limits(max_map_count=11))
    assert mm.mremap(BASE, 3 * PAGE, 6 * PAGE, 1) == -ENOMEM
    mm = striped(7, Limits(max_map_count=11))
    assert mm.mremap(BASE, 3 * PAGE, 6 * PAGE, 1) > 0


def test_the_search_goes_down_from_the_base() -> None:
    """Each mapping lands below the one before and merges with it; a hole that fits is taken, the highest first."""
    mm = Oracle()
    top = mm.limits.mmap_base
    assert mm.mmap(0, 2 * PAGE, 3, ANON) == top - 2 * PAGE
    assert mm.mmap(0, 4 * PAGE, 3, ANON) == top - 6 * PAGE
    assert mm.map_count == 1
    assert mm.munmap(top - 5 * PAGE, PAGE) == 0
    assert mm.munmap(top - 2 * PAGE, PAGE) == 0
    assert mm.mmap(0, PAGE, 3, ANON) == top - 2 * PAGE
    assert mm.mmap(0, 2 * PAGE, 3, ANON) == top - 8 * PAGE


def test_a_hint_is_taken_if_it_is_free() -> None:
    """An unaligned hint is rounded down, a low one up; one that does not fit is ignored."""
    mm = Oracle()
    assert mm.mmap(BASE + 5, PAGE, 3, ANON) == BASE
    assert mm.mmap(5 * PAGE, PAGE, 3, ANON) == mm.limits.mmap_min_addr
    assert mm.mmap(BASE, PAGE, 3, ANON) == mm.limits.mmap_base - PAGE


def test_the_search_keeps_the_guard_gap() -> None:
    """Nothing is placed within the gap below an area that grows down; a fixed mapping may go there."""
    mm = Oracle()
    top = mm.limits.mmap_base
    assert mm.mmap(top - PAGE, PAGE, 3, FIXED | 0x100) == top - PAGE
    assert mm.mmap(0, PAGE, 3, ANON) == top - PAGE - mm.limits.stack_guard_gap - PAGE
    assert mm.mmap(top - 3 * PAGE, PAGE, 3, ANON) < top - mm.limits.stack_guard_gap
    assert mm.mmap(top - 3 * PAGE, PAGE, 3, FIXED) == top - 3 * PAGE


def test_the_search_falls_back_to_above_the_base() -> None:
    """With no room below the base, the lowest hole above it is used; with none anywhere, ENOMEM."""
    limits = Limits(mmap_base=BASE, mmap_min_addr=BASE - 4 * PAGE, task_size=BASE + 8 * PAGE)
    mm = Oracle(limits=limits)
    assert mm.mmap(0, 3 * PAGE, 3, ANON) == BASE - 3 * PAGE
    assert mm.mmap(0, 3 * PAGE, 1, ANON) == BASE
    assert mm.mmap(0, 3 * PAGE, 3, ANON) == BASE + 3 * PAGE
    assert mm.mmap(0, 3 * PAGE, 1, ANON) == -ENOMEM


def highest_hole(mm: Oracle, length: int) -> int:
    """The place below the base that the search must find, by looking at every hole."""
    limits = mm.limits
    floor, holes = limits.mmap_min_addr, []
    for area in mm.areas:
        holes.append((floor, min(limits.mmap_base, area.start_gap(limits.stack_guard_gap))))
        floor = area.vm_end
    holes.append((floor, limits.mmap_base))
    return max((top - length for floor, top in holes if top - floor >= length), default=-1)


@pytest.mark.parametrize("seed", range(5))
def test_the_search_finds_the_highest_hole(seed: int) -> None:
    """Over random mappings, stacks and holes the search, which remembers what is full, misses no hole."""
    rng = random.Random(seed)
    mm = Oracle(limits=Limits(stack_guard_gap=3 * PAGE))
    top = mm.limits.mmap_base
    for _ in range(1500):
        if rng.random() < 0.55:
            length = rng.randint(1, 12) * PAGE
            want = highest_hole(mm, length)
            prot, stack = rng.choice((1, 3)), rng.choice((0, 0, 0, 0x100))
            assert mm.mmap(0, length, prot, ANON | stack) == want
        elif rng.random() < 0.3:
            mm.fault(top - rng.randrange(1, 400) * PAGE, 2)
        else:
            mm.munmap(top - rng.randrange(1, 400) * PAGE, rng.randint(1, 9) * PAGE)
    mm.validate()


def test_many_searches_do_not_walk_the_full_part_again() -> None:
    """10,000 mappings that do not merge, each searched for, in a moment: the packed top is not walked each time."""
    mm = Oracle()
    for number in range(10_000):
        mm.mmap(0, PAGE, 1 if number % 2 else 3, ANON)
    assert mm.map_count == 10_000
    middle = mm.areas[5000].vm_start
    assert mm.munmap(middle, PAGE) == 0
    assert mm.mmap(0, PAGE, 0, ANON) == middle


@pytest.mark.parametrize("seed", range(5))
def test_spans_are_sets(seed: int) -> None:
    """Spans do what a set of integers does, and keep themselves sorted, disjoint and apart."""
    rng = random.Random(seed)
    spans, plain = Spans(), set[int]()
    for _ in range(600):
        start = rng.randrange(60)
        end = start + rng.randrange(12)
        if rng.random() < 0.5:
            spans.add(start, end)
            plain |= set(range(start, end))
        elif rng.random() < 0.8:
            spans.discard(start, end)
            plain -= set(range(start, end))
        else:
            more = [(rng.randrange(60), 60 + rng.randrange(9)), (start, end)]
            spans.add_all(span for span in more if span[0] < span[1])
            plain |= {item for one, other in more for item in range(one, other)}
        assert {item for one, other in spans.clip(0, 99) for item in range(one, other)} == plain
        assert [item in spans for item in range(80)] == [item in plain for item in range(80)]
        edges = [edge for span in zip(spans.starts, spans.ends, strict=True) for edge in span]
        assert edges == sorted(set(edges))
        assert {item for one, other in spans.clip(start, end) for item in range(one, other)} == plain & set(
            range(start, end)
        )


def test_huge_ranges_cost_nothing() -> None:
    """A hostile trace can guard, lock and unmap 64 TiB: neither time nor memory goes with the length."""
    mm = Oracle()
    size = 1 << 46
    assert mm.mmap(BASE, size, 3, FIXED | 0x4000) == BASE
    assert mm.madvise(BASE, size, Advice.GUARD_INSTALL) == 0
    assert mm.fault(BASE + size // 2, 1) == -FaultError.MAPERR
    assert mm.madvise(BASE, size, Advice.GUARD_REMOVE) == 0
    assert mm.mlock(BASE, size) == 0
    assert mm.fork().munmap(BASE, size) == 0
    assert mm.mremap(BASE, PAGE, PAGE, 3, BASE + size + PAGE) == BASE + size + PAGE
    assert mm.munmap(BASE, size) == 0
    assert mm.tables.clip(0, 1 << 30) == [((BASE + size + PAGE) >> 21, ((BASE + size + PAGE) >> 21) + 1)]


def test_low_addresses_need_a_privilege() -> None:
    """A fixed mapping below mmap_min_addr is EPERM, unless the process may."""
    assert Oracle().mmap(PAGE, PAGE, 3, FIXED) == -EPERM
    assert Oracle(limits=Limits(may_map_low=True)).mmap(PAGE, PAGE, 3, FIXED) == PAGE


def test_locked_memory_is_limited() -> None:
    """RLIMIT_MEMLOCK: mlock ENOMEM, mmap and mremap EAGAIN; what is locked already counts once."""
    mm = Oracle(limits=Limits(rlimit_memlock=4 * PAGE))
    assert mm.mmap(BASE, 8 * PAGE, 3, FIXED) == BASE
    assert mm.mlock(BASE, 5 * PAGE) == -ENOMEM
    assert mm.mlock(BASE, 4 * PAGE) == 0
    assert mm.mlock(BASE, 4 * PAGE) == 0
    assert mm.mlock(BASE + 4 * PAGE, PAGE) == -ENOMEM
    assert mm.mmap(BASE + 16 * PAGE, PAGE, 3, FIXED | 0x2000) == -EAGAIN
    assert mm.munmap(BASE + 4 * PAGE, 4 * PAGE) == 0
    assert mm.mremap(BASE, 4 * PAGE, 5 * PAGE, 0) == -EAGAIN


@pytest.mark.parametrize(("shift", "kept"), [(2 << 21, True), ((2 << 21) + 4096, False)])
def test_a_page_table_moves_as_a_whole(shift: int, kept: bool) -> None:
    """MREMAP_DONTUNMAP leaves no page table behind where a whole one can move, so the next read may take a huge page
    and prepares an anon_vma; then the area keeps VM_ACCOUNT without write permission (found on 6.12)."""
    space, start = Oracle(Rules(thp_always=True, dontunmap_clears_account=False)), (1 << 30) + 0x140000
    assert space.mmap(start, 2 << 21, 7, 0x32) == start
    assert space.fault(start + (1 << 21), 1) == 0
    assert space.mremap(start, 2 << 21, 2 << 21, 5, start + shift) == start + shift
    assert space.fault(start + (1 << 21), 1) == 0
    assert space.mprotect(start, 2 << 21, 1) == 0
    assert bool(space.areas[0].vm_flags & VM_ACCOUNT) == kept


@pytest.mark.parametrize("neighbour", [True, False])
def test_a_page_table_made_by_a_move_is_moved_too(neighbour: bool) -> None:
    """An area moves so little upwards that it leads to a new page table where its own last part was, and this one to
    the next: then a read there takes no huge page, and no anon_vma (found on 6.12)."""
    space, start = Oracle(Rules(thp_always=True)), (1 << 30) + 0xC0000
    assert space.mmap(1 << 30, 0x40000, 3, 0x32) == 1 << 30
    assert not neighbour or space.fault(1 << 30, 1) == 0  # makes a page table, which holds nothing that moves
    assert space.mmap(start, 0x180000, 5, 0x32) == start
    assert space.mremap(start, 0x180000, 0x380000, 3, start + 0x200000) == start + 0x200000
    assert space.fault(start + 0x380000, 1) == 0
    assert bool(space.areas[-1].anon_vma) == (not neighbour)


def test_an_impossible_request_is_not_charged() -> None:
    """Overcommit refuses what all memory could not hold, but only if it is accounted."""
    mm = Oracle(limits=Limits(overcommit_max=16 * PAGE))
    assert mm.mmap(BASE, 17 * PAGE, 3, FIXED) == -ENOMEM
    assert mm.mmap(BASE, 17 * PAGE, 3, FIXED | 0x4000) == BASE


def test_a_stack_stops_at_its_limit() -> None:
    """RLIMIT_STACK counts the whole area; one page more fails and changes nothing."""
    mm = Oracle(limits=Limits(rlimit_stack=16 * PAGE))
    top = BASE + (1 << 24)
    assert mm.mmap(top - PAGE, PAGE, 3, FIXED | 0x100) == top - PAGE
    assert mm.fault(top - 16 * PAGE, 2) == 0
    assert mm.fault(top - 17 * PAGE, 2) == -FaultError.MAPERR
    assert mm.layout()[0][:2] == (top - 16 * PAGE, top)


def test_the_break_moves_and_stays_on_failure() -> None:
    """brk returns the new break, or the old one: below the start, into another mapping, or within a page of it."""
    mm = Oracle()
    assert mm.brk(0) == -1
    mm.start_brk = mm.brk_now = BASE
    assert mm.brk(0) == BASE
    assert mm.brk(BASE + 100) == BASE + 100
    assert mm.layout() == [(BASE, BASE + PAGE, 3, 0, 0, -1)]
    assert mm.brk(BASE + 5 * PAGE) == BASE + 5 * PAGE
    assert mm.map_count == 1
    assert mm.mmap(BASE + 8 * PAGE, PAGE, 1, FIXED) == BASE + 8 * PAGE
    assert mm.brk(BASE + 8 * PAGE) == BASE + 5 * PAGE
    assert mm.brk(BASE + 7 * PAGE) == BASE + 7 * PAGE
    assert mm.brk(BASE - 1) == BASE + 7 * PAGE
    assert mm.brk(BASE) == BASE
    assert mm.map_count == 1


def test_faults_tell_why_they_fail() -> None:
    """MAPERR outside and in a guard region, ACCERR without permission, BUS past the end of a file."""
    mm = Oracle()
    mm.set_file(7, PAGE + 1)
    assert mm.mmap(BASE, 4 * PAGE, 1, 0x12, 7) == BASE
    assert mm.fault(BASE - 1, 1) == -FaultError.MAPERR
    assert mm.fault(BASE, 2) == -FaultError.ACCERR
    assert mm.fault(BASE, 4) == -FaultError.ACCERR
    assert [mm.fault(BASE + page * PAGE, 1) for page in range(3)] == [0, 0, -FaultError.BUS]
    assert mm.madvise(BASE, PAGE, Advice.GUARD_INSTALL) == 0
    assert mm.fault(BASE, 1) == -FaultError.MAPERR
    assert mm.madvise(BASE, PAGE, Advice.GUARD_REMOVE) == 0
    assert mm.fault(BASE, 1) == 0


def test_fork_copies_and_parts() -> None:
    """The child has the parent's areas but for DONTFORK; afterwards neither sees the other's changes."""
    mm = Oracle()
    assert mm.mmap(BASE, 4 * PAGE, 3, FIXED) == BASE
    assert mm.mmap(BASE + 8 * PAGE, PAGE, 3, FIXED) == BASE + 8 * PAGE
    assert mm.mlock(BASE, PAGE) == 0
    assert mm.madvise(BASE + 8 * PAGE, PAGE, Advice.DONTFORK) == 0
    child = mm.fork()
    assert [row[:2] for row in child.layout()] == [(BASE, BASE + PAGE), (BASE + PAGE, BASE + 4 * PAGE)]
    assert all("lo" not in words.split() for words in child.layout_flags())
    assert child.munmap(BASE, PAGE) == 0
    assert mm.map_count == 3
    mm.validate()
    child.validate()


def test_flip_names_what_it_does_not_know() -> None:
    """A misspelt rule is refused with the list of rules."""
    assert not flip(Rules(), "guard").guard
    with pytest.raises(ValueError, match="merge_pgoff"):
        flip(Rules(), "merge_offset")
