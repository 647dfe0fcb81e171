"""vma_merge's eight cases by number, what forbids a merge, splits, and the map_count limit at its edges."""

import pytest
from support.space import ANON, BASE, ENGINES, FIXED, PAGE, RW, RWX, SHARED, Kit, R

from benchframe.mm.flags import EEXIST, ENOMEM


@pytest.fixture(params=ENGINES)
def kit(request: pytest.FixtureRequest) -> Kit:
    """An empty space over the gap-augmented tree, whose check looks hardest at what a merge does."""
    return Kit("rbtree_gap", request.param)


def merges(kit: Kit) -> int:
    """How many merges so far."""
    return int(kit.mm["nr_merges"])


# ---- the eight cases: the VMA that survives, its bounds, and that the one that goes is gone from index and list ----


def test_case_1_new_range_fills_the_hole(kit: Kit) -> None:
    """P and N touch the new range: P grows over both, N goes."""
    p, n = kit.map(0, 2), kit.map(4, 2)
    assert kit.map(2, 2) == p
    assert kit.spans() == [(0, 6, RW)]
    assert merges(kit) == 1
    assert kit.at(5) == p != n
    kit.validate()


def test_case_2_prev_grows(kit: Kit) -> None:
    """Only P touches: it grows."""
    p = kit.map(0, 2)
    kit.map(6, 1)
    assert kit.map(2, 2) == p
    assert kit.spans() == [(0, 4, RW), (6, 7, RW)]
    assert merges(kit) == 1
    kit.validate()


def test_case_3_next_grows_down(kit: Kit) -> None:
    """Only N touches: it grows down, and its offset with it."""
    kit.map(0, 1)
    n = kit.map(4, 2)
    assert kit.map(2, 2) == n
    assert kit.spans() == [(0, 1, RW), (2, 6, RW)]
    assert kit.vma("vm_pgoff")[n] == (BASE >> 12) + 2
    kit.validate()


def test_case_4_next_takes_the_tail(kit: Kit) -> None:
    """mprotect of C's tail to N's rights: N grows down, C shrinks."""
    c, n = kit.map(0, 4), kit.map(4, 2, RWX)
    assert kit.protect(2, 2, RWX) == 0
    assert kit.spans() == [(0, 2, RW), (2, 6, RWX)]
    assert (kit.at(0), kit.at(2)) == (c, n)
    assert kit.vma("vm_pgoff")[n] == (BASE >> 12) + 2
    assert (merges(kit), int(kit.mm["nr_splits"])) == (1, 0)
    kit.validate()


def test_case_5_prev_takes_the_head(kit: Kit) -> None:
    """mprotect of C's head to P's rights: P grows, C shrinks and its offset moves."""
    p, c = kit.map(0, 2, RWX), kit.map(2, 4)
    assert kit.protect(2, 2, RWX) == 0
    assert kit.spans() == [(0, 4, RWX), (4, 6, RW)]
    assert (kit.at(2), kit.at(4)) == (p, c)
    assert kit.vma("vm_pgoff")[c] == (BASE >> 12) + 4
    assert (merges(kit), int(kit.mm["nr_splits"])) == (1, 0)
    kit.validate()


def test_case_6_prev_takes_all(kit: Kit) -> None:
    """mprotect of C to the rights of both sides: P grows over C and N."""
    p = kit.map(0, 2, RWX)
    kit.map(2, 2)
    kit.map(4, 2, RWX)
    assert kit.protect(2, 2, RWX) == 0
    assert kit.spans() == [(0, 6, RWX)]
    assert kit.at(5) == p
    assert int(kit.mm["map_count"]) == 1
    kit.validate()


def test_case_7_prev_takes_the_whole(kit: Kit) -> None:
    """mprotect of C to P's rights only: P grows over C, C goes."""
    p = kit.map(0, 2, RWX)
    kit.map(2, 2)
    kit.map(4, 2, R)
    assert kit.protect(2, 2, RWX) == 0
    assert kit.spans() == [(0, 4, RWX), (4, 6, R)]
    assert kit.at(3) == p
    kit.validate()


def test_case_8_next_takes_the_whole(kit: Kit) -> None:
    """mprotect of C to N's rights only: N grows down over C, C goes."""
    kit.map(0, 2, R)
    kit.map(2, 2)
    n = kit.map(4, 2, RWX)
    assert kit.protect(2, 2, RWX) == 0
    assert kit.spans() == [(0, 2, R), (2, 6, RWX)]
    assert kit.at(2) == n
    assert kit.vma("vm_pgoff")[n] == (BASE >> 12) + 2
    kit.validate()


# ---- anon_vmas: inherited by the survivor, and what they forbid ----


@pytest.mark.parametrize("case", [1, 2, 3, 4, 5, 6, 7, 8])
def test_survivor_keeps_the_anon_vma(kit: Kit, case: int) -> None:
    """Written pages on one side only: the survivor has their anon_vma, whichever side it was on."""
    if case <= 3:
        sides = {1: [0, 4], 2: [0], 3: [4]}[case]
        for page in sides:
            kit.map(page, 2)
        kit.touch(sides[-1])
        kit.map(2, 2)
    else:
        first, count = {4: (0, 4), 5: (2, 4)}.get(case, (2, 2))
        kit.map(first, count)
        kit.touch(2)
        if case in (5, 6, 7):
            kit.map(0, 2, RWX)
        if case in (4, 6, 8):
            kit.map(4, 2, RWX)
        assert kit.protect(2, 2, RWX) == 0
    survivor = kit.at(2)
    assert int(kit.vma("anon_vma")[survivor]) == 1
    assert int(kit.vma("anon_vma_chain")[survivor]) == 1
    kit.validate()


def test_case_6_takes_nexts_anon_vma_over_currents(kit: Kit) -> None:
    """P is untouched, C and N share an anon_vma: P has it afterwards."""
    kit.map(0, 2, RWX)
    kit.map(2, 2)
    kit.map(4, 2, RWX)
    kit.touch(4)
    assert kit.protect(2, 2, RWX) == 0
    assert kit.spans() == [(0, 6, RWX)]
    assert int(kit.vma("anon_vma")[kit.at(0)]) == 1
    kit.validate()


def test_different_anon_vmas_stay_apart(kit: Kit) -> None:
    """Two VMAs written before they touched keep their own anon_vma: only one side takes the new range."""
    p, n = kit.map(0, 2), kit.map(4, 2)
    kit.touch(0)
    kit.touch(4)
    kit.map(2, 2)
    assert kit.spans() == [(0, 4, RW), (4, 6, RW)]
    assert (kit.at(2), kit.at(4)) == (p, n)
    assert {int(kit.vma("anon_vma")[v]) for v in (p, n)} == {1, 2}
    kit.validate()


def test_neighbours_share_an_anon_vma(kit: Kit) -> None:
    """A first write next to a compatible VMA takes its anon_vma, so that a later mprotect can merge them."""
    kit.map(0, 2)
    kit.map(2, 2, RWX)
    kit.map(4, 2)
    kit.touch(4)
    kit.touch(2)
    kit.touch(0)
    assert set(kit.vma("anon_vma")[kit.vmas()].tolist()) == {1}
    assert kit.protect(2, 2, RW) == 0
    assert kit.spans() == [(0, 6, RW)]


def test_fork_blocks_merges(kit: Kit) -> None:
    """In a child an inherited anon_vma has a chain of two: nothing faulted merges with it. New ranges beside it may."""
    kit.map(0, 2)
    kit.map(2, 2, RWX)
    kit.touch(0)
    kit.touch(2)
    child = kit.fork()
    assert child.mprotect(BASE + 2 * PAGE, 2 * PAGE, RW) == 0
    assert [row[:3] for row in child.layout()] == [(BASE, BASE + 2 * PAGE, RW), (BASE + 2 * PAGE, BASE + 4 * PAGE, RW)]
    assert kit.protect(2, 2, RW) == 0
    assert kit.spans() == [(0, 4, RW)]
    kit.validate()


def test_what_must_fit(kit: Kit) -> None:
    """Other flags, another file, a gap in the offsets, another shared object: no merge."""
    kit.map(0, 2)
    kit.map(2, 2, R)
    kit.map(4, 2, RW, FIXED | 0x4000)
    kit.map(8, 2, R, 0x12, 0, 0)
    kit.map(10, 2, R, 0x12, 1, 2)
    kit.map(12, 2, R, 0x12, 1, 5)
    kit.map(14, 2, RW, SHARED | 0x10)
    kit.map(16, 2, RW, SHARED | 0x10)
    assert (kit.map_count, merges(kit)) == (8, 0)
    kit.map(18, 2, R, 0x12, 2, 0)
    kit.map(20, 2, R, 0x12, 2, 2)
    assert (kit.map_count, merges(kit)) == (9, 1)
    kit.validate()


def test_special_never_merges(kit: Kit) -> None:
    """VM_SPECIAL (a vdso) beside its like stays alone, new or changed."""
    special = 1 << 25
    for page in (0, 2):
        assert kit.exec_map(BASE + page * PAGE, 2 * PAGE, R, special) == BASE + page * PAGE
    assert kit.protect(1, 1, R | 4) == 0
    assert kit.spans() == [(0, 1, R), (1, 2, R | 4), (2, 4, R)]
    kit.map(4, 2, R)
    assert kit.protect(1, 1, R) == 0
    assert kit.spans() == [(0, 1, R), (1, 2, R), (2, 4, R), (4, 6, R)]
    kit.validate()


# ---- splits and limits ----


def test_split_keeps_offsets_and_pages(kit: Kit) -> None:
    """munmap of the middle leaves two VMAs with linear file offsets and the anon_vma in both; their pages stay."""
    kit.map(0, 6, RW, 0x12, 3, 8)
    for page in range(6):
        kit.touch(page)
    assert kit.unmap(2, 2) == 0
    low, high = kit.vmas()
    assert kit.vma("vm_pgoff")[[low, high]].tolist() == [8, 12]
    assert kit.vma("anon_vma")[[low, high]].tolist() == [1, 1]
    assert int(kit.mm["rss"]) == 4
    assert int(kit.mm["nr_splits"]) == 2
    kit.validate()


def test_mprotect_splits_in_three(kit: Kit) -> None:
    """The middle of a VMA gets other rights: two splits, three VMAs, offsets as addresses."""
    kit.map(0, 6)
    assert kit.protect(2, 2, R) == 0
    assert kit.spans() == [(0, 2, RW), (2, 4, R), (4, 6, RW)]
    assert kit.vma("vm_pgoff")[kit.vmas()].tolist() == [(BASE >> 12) + page for page in (0, 2, 4)]
    assert int(kit.mm["nr_splits"]) == 2
    kit.validate()


@pytest.mark.parametrize("engine", ENGINES)
def test_mmap_fails_above_the_limit(engine: str) -> None:
    """mmap and brk compare with '>': at the limit one more VMA fits, above it none."""
    kit = Kit(engine=engine, max_map_count=4)
    heap = BASE + 100 * PAGE
    kit.exec(heap)
    for page in range(0, 8, 2):
        kit.map(page, 1)
    assert kit.map_count == 4
    assert kit.brk(heap + PAGE) == heap + PAGE
    assert kit.map_count == 5
    assert kit.mmap(0, PAGE, RW, ANON) == -ENOMEM
    assert kit.unmap(0, 1) == 0
    assert kit.mmap(0, PAGE, RW, ANON) > 0
    assert kit.mmap(0, PAGE, RW, ANON) == -ENOMEM
    assert kit.unmap(2, 1) == 0
    kit.map(0, 1)
    assert kit.brk(heap + 2 * PAGE) == heap + PAGE
    kit.validate()


@pytest.mark.parametrize("engine", ENGINES)
def test_split_fails_at_the_limit(engine: str) -> None:
    """A split compares with '>=': at the limit mprotect of a part and a hole in the middle fail, munmap of an end
    does not, and a change that merges needs no room."""
    kit = Kit(engine=engine, max_map_count=3)
    kit.map(0, 6)
    kit.map(8, 2, RWX)
    kit.map(10, 2)
    assert kit.map_count == 3
    assert kit.protect(2, 1, R) == -ENOMEM
    assert kit.protect(0, 1, R) == -ENOMEM
    assert kit.unmap(2, 2) == -ENOMEM
    assert kit.spans() == [(0, 6, RW), (8, 10, RWX), (10, 12, RW)]
    assert kit.protect(10, 1, RWX) == 0
    assert kit.unmap(0, 1) == 0
    assert kit.unmap(5, 1) == 0
    assert kit.spans() == [(1, 5, RW), (8, 11, RWX), (11, 12, RW)]
    kit.validate()


def test_split_succeeds_below_the_limit() -> None:
    """One VMA below the limit one split fits, and the second of the same call does not: half of it stays done."""
    kit = Kit(max_map_count=2)
    kit.map(0, 6)
    assert kit.protect(2, 2, R) == -ENOMEM
    assert kit.spans() == [(0, 2, RW), (2, 6, RW)]
    kit.validate()


def test_fixed_noreplace_sees_any_overlap(kit: Kit) -> None:
    """A VMA that begins inside the range is in the way too (4.17 to 4.18 looked at the first byte only)."""
    kit.map(4, 2)
    noreplace = ANON | 0x100000
    for first, count in ((3, 2), (4, 1), (5, 4), (0, 8), (4, 2)):
        assert kit.mmap(BASE + first * PAGE, count * PAGE, RW, noreplace) == -EEXIST
    assert kit.mmap(BASE, 4 * PAGE, RW, noreplace) == BASE
    assert kit.mmap(BASE + 6 * PAGE, PAGE, RW, noreplace) == BASE + 6 * PAGE
    assert kit.spans() == [(0, 7, RW)]
