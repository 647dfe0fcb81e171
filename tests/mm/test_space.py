"""Where mappings go, brk, full slabs, validate_mm against damage, save and restore."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.space import ANON, BASE, ENGINES, FIXED, PAGE, PMD, RW, RWX, SIZES, STRATEGIES, Kit, R

from benchframe.mm.flags import EINVAL, ENOMEM, EPERM, PG_RESERVED
from benchframe.mm.machine import Machine, Sizes
from benchframe.mm.validate import ValidationError, dump, validate_mm

TOP = 0x7FFFF7FFF000
EVERY = [(name, engine) for name in STRATEGIES for engine in ENGINES]


@pytest.fixture(params=EVERY, ids=lambda p: f"{p[0]}-{p[1]}")
def kit(request: pytest.FixtureRequest) -> Kit:
    """An empty space, on every strategy and engine: each has its own hole search."""
    return Kit(*request.param)


# ---- the place of a mapping ----


def test_top_down(kit: Kit) -> None:
    """The highest hole that fits, below mmap_base; a smaller request later takes a higher hole again."""
    assert kit.mmap(0, 4 * PAGE, RW, ANON) == TOP - 4 * PAGE
    assert kit.mmap(0, 2 * PAGE, R, ANON) == TOP - 6 * PAGE
    assert kit.munmap(TOP - 3 * PAGE, PAGE) == 0
    assert kit.mmap(0, 2 * PAGE, RW, ANON) == TOP - 8 * PAGE
    assert kit.mmap(0, PAGE, RWX, ANON) == TOP - 3 * PAGE
    assert kit.mmap(0, 3 * PAGE, RWX, ANON) == TOP - 11 * PAGE
    assert kit.munmap(TOP - 4 * PAGE, 4 * PAGE) == 0
    assert kit.mmap(0, 4 * PAGE, RWX, ANON) == TOP - 4 * PAGE
    kit.validate()


def test_hints(kit: Kit) -> None:
    """A free hint is taken, rounded down to a page, or up to mmap_min_addr; a hint in the way is forgotten."""
    assert kit.mmap(BASE + 5, PAGE, RW, ANON) == BASE
    assert kit.mmap(BASE, PAGE, R, ANON) == TOP - PAGE
    assert kit.mmap(BASE - PAGE, 2 * PAGE, RWX, ANON) == TOP - 3 * PAGE
    assert kit.mmap(1, PAGE, RW, ANON) == TOP - 4 * PAGE
    assert kit.mmap(0x1234, PAGE, R, ANON) == 0x10000
    assert kit.mmap(0xF000, PAGE, RW, FIXED) == -EPERM
    assert kit.mmap(BASE + 1, PAGE, RW, FIXED) == -EINVAL
    assert kit.mmap(BASE, 0, RW, FIXED) == -EINVAL
    kit.validate()


def test_guard_gap_of_a_stack(kit: Kit) -> None:
    """Neither search nor hint come nearer than stack_guard_gap below a stack; MAP_FIXED does."""
    gap = kit.machine.parameters.stack_guard_gap
    assert kit.exec_map(TOP - 4 * PAGE, 4 * PAGE, RW, 1 << 24) == TOP - 4 * PAGE
    stack = TOP - 4 * PAGE
    assert kit.mmap(0, PAGE, R, ANON) == stack - gap - PAGE
    assert kit.mmap(stack - gap, PAGE, R, ANON) == stack - gap - 2 * PAGE
    assert kit.mmap(stack - PAGE, PAGE, R, FIXED) == stack - PAGE
    kit.validate()


def test_only_the_next_vmas_guard_gap_counts(kit: Kit) -> None:
    """Below a VMA that lies inside a stack's gap there is room right up to it, also after an earlier search."""
    gap = kit.machine.parameters.stack_guard_gap
    stack = TOP - 4 * PAGE
    assert kit.exec_map(stack, 4 * PAGE, RW, 1 << 24) == stack
    assert kit.mmap(0, PAGE, R, ANON) == stack - gap - PAGE
    assert kit.mmap(stack - gap - 4 * PAGE, 2 * PAGE, R, FIXED) == stack - gap - 4 * PAGE
    assert kit.mmap(0, PAGE, RW, ANON) == stack - gap - 2 * PAGE
    assert kit.mmap(stack - 2 * PAGE, PAGE, R, FIXED) == stack - 2 * PAGE
    assert kit.mmap(0, 3 * PAGE, RW, ANON) == stack - 5 * PAGE
    assert kit.mmap(0, PAGE, R, ANON) == stack - 6 * PAGE
    kit.validate()


@pytest.mark.parametrize("name", STRATEGIES)
def test_bottom_up_when_the_top_is_full(name: str) -> None:
    """With no room below mmap_base the lowest hole above a third of the address space is taken; then -ENOMEM."""
    task_size = 12 << 21
    kit = Kit(name, mmap_base=4 * PMD, task_size=task_size, mmap_min_addr=0)
    assert kit.mmap(PAGE, 4 * PMD - PAGE, R, FIXED) == PAGE
    assert kit.mmap(0, PAGE, RW, ANON) == 4 * PMD
    assert kit.mmap(0, 8 * PMD - PAGE, RWX, ANON) == 4 * PMD + PAGE
    assert kit.mmap(0, PAGE, RW, ANON) == -ENOMEM
    assert kit.mmap(0, task_size + 1, RW, ANON) == -ENOMEM
    kit.validate()


def test_brk(kit: Kit) -> None:
    """The heap grows and shrinks by pages, keeps odd ends, and stops before what is in its way."""
    heap = BASE + 100
    assert kit.exec(heap) == 0
    assert kit.brk(0) == heap
    assert kit.brk(heap + 3 * PAGE) == heap + 3 * PAGE
    assert kit.spans() == [(1, 4, RW)]
    assert kit.brk(heap + 5 * PAGE) == heap + 5 * PAGE
    assert kit.map_count == 1
    kit.map(9, 1)
    assert kit.brk(heap + 8 * PAGE) == heap + 5 * PAGE
    assert kit.brk(heap + 7 * PAGE) == heap + 7 * PAGE
    assert kit.brk(heap + PAGE) == heap + PAGE
    assert kit.spans() == [(1, 2, RW), (9, 10, RW)]
    assert kit.brk(heap - 1) == heap + PAGE
    assert kit.brk(heap) == heap
    assert kit.spans() == [(9, 10, RW)]
    kit.validate()


def test_edges_of_the_address_space(kit: Kit) -> None:
    """The first and last pages a program can have; lookups at 0, at and above TASK_SIZE."""
    task_size = kit.machine.parameters.task_size
    assert kit.mmap(0x10000, PAGE, RW, FIXED) == 0x10000
    assert kit.mmap(task_size - PAGE, PAGE, RW, FIXED) == task_size - PAGE
    assert kit.mmap(task_size, PAGE, RW, FIXED) == -ENOMEM
    assert kit.munmap(task_size - PAGE, 2 * PAGE) == -EINVAL
    for user in (False, True):
        assert kit.find_vma(0, user) == (0x10000, 0x11000)
        assert kit.find_vma(0x10FFF, user) == (0x10000, 0x11000)
        assert kit.find_vma(0x11000, user) == (task_size - PAGE, task_size)
        assert kit.find_vma(task_size - 1, user) == (task_size - PAGE, task_size)
        assert kit.find_vma(task_size, user) is None
    assert kit.fault(task_size - 1, 2) == 0
    assert kit.fault(task_size, 2) == -1
    kit.validate()


# ---- full slabs ----


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("which", "sizes", "spacing", "fault"),
    [
        ("VMAs", Sizes(vmas=8, tables=64, pages=64, files=8), 2, False),
        ("page tables", Sizes(vmas=64, tables=8, pages=64, files=8), 512, True),
        ("pages", Sizes(vmas=64, tables=64, pages=8, files=8), 2, True),
    ],
)
def test_a_full_slab_is_an_error(engine: str, which: str, sizes: Sizes, spacing: int, fault: bool) -> None:
    """A slab too small raises MemoryError that names it; the run never passes for a result."""
    kit = Kit(engine=engine, sizes=sizes)

    def fill() -> None:
        for number in range(60):
            kit.mmap(BASE + number * spacing * PAGE, PAGE, RW, FIXED)
            if fault:
                kit.fault(BASE + number * spacing * PAGE, 2)

    with pytest.raises(MemoryError, match=f"ran out of {which}: give Sizes more"):
        fill()


def test_full_file_slab() -> None:
    """Shared anonymous objects are files."""
    kit = Kit(sizes=Sizes(vmas=64, tables=64, pages=64, files=8))
    objects = [kit.mmap(0, PAGE, RW, 0x21) for _ in range(5)]
    assert len(set(objects)) == 5
    with pytest.raises(MemoryError, match="ran out of files"):
        kit.mmap(0, PAGE, RW, 0x21)


def test_bad_file_numbers() -> None:
    """set_file says what it cannot do."""
    kit = Kit()
    with pytest.raises(ValueError, match="room for files 0 to"):
        kit.set_file(10_000, 1)
    with pytest.raises(ValueError, match="cannot be read"):
        kit.set_file(0, 1, readable=False)


# ---- validate_mm finds damage ----


def small() -> Kit:
    """Four VMAs, some pages, a child."""
    kit = Kit("rbtree_gap")
    for page, prot in ((0, RW), (2, R), (4, RW), (600, RW)):
        kit.map(page, 2, prot)
    for page in (0, 4, 600):
        kit.touch(page)
    kit.fork()
    kit.validate()
    return kit


def _vma(field: str, value: Any, which: int = 1) -> Callable[[Kit], None]:
    def damage(kit: Kit) -> None:
        column, slot = kit.vma(field), kit.vmas()[which]
        column[slot] = value(int(column[slot])) if callable(value) else value

    return damage


def _mm(field: str, change: int) -> Callable[[Kit], None]:
    def damage(kit: Kit) -> None:
        kit.mm[field] += change

    return damage


def _page(field: str, change: int, frame: bool) -> Callable[[Kit], None]:
    def damage(kit: Kit) -> None:
        number = kit.machine.zero_page + 1 if frame else int(kit.mm["pgd"])
        kit.machine.arrays["page_base"][number][field] += change

    return damage


def _arena(which: int) -> Callable[[Kit], None]:
    def damage(kit: Kit) -> None:
        kit.machine.arrays["slab_base"][which]["live"] += 1

    return damage


def _pte_page(change: Callable[[Kit, int], None]) -> Callable[[Kit], None]:
    """Apply ``change(kit, PTE page)`` to the table of the first pages."""

    def damage(kit: Kit) -> None:
        entries = kit.machine.arrays["pte_base"]["entry"]
        table = int(kit.mm["pgd"])
        for shift in (39, 30, 21):
            table = int(entries[table * 512 + ((BASE >> shift) & 511)]) >> 12
        change(kit, table)

    return damage


def _lost_entry(kit: Kit, table: int) -> None:
    kit.machine.arrays["pte_base"]["entry"][table * 512] = 0


def _stray_entry(kit: Kit, table: int) -> None:
    entries = kit.machine.arrays["pte_base"]["entry"]
    entries[table * 512 + 200] = entries[table * 512]


def _wrong_count(kit: Kit, table: int) -> None:
    kit.machine.arrays["page_base"][table]["nr_present"] += 1


def _held_lock(kit: Kit, table: int) -> None:
    kit.machine.arrays["page_base"][table]["ptl"] = 1


DAMAGE: dict[str, tuple[Callable[[Kit], None], str]] = {
    "map_count": (_mm("map_count", 1), "map_count says 5, the list has 4"),
    "last_vma": (_mm("last_vma", -1), "last_vma is"),
    "overlap": (_vma("vm_end", lambda end: end + PAGE), "overlaps, is empty, unaligned or out of order"),
    "empty": (_vma("vm_end", lambda end: end - 2 * PAGE), "overlaps, is empty, unaligned or out of order"),
    "unaligned": (_vma("vm_end", lambda end: end - 1), "unaligned"),
    "prev": (_vma("vm_prev", 0), "vm_prev is #0, must be"),
    "owner": (_vma("vm_mm", 2), "vm_mm is 2"),
    "circle": (_vma("vm_next", lambda v: v - 1), "is circular"),
    "chain": (_vma("anon_vma_chain", 3), "anon_vma 0 with a chain of 3"),
    "held": (_vma("cache_access", 1), "cache_access 1"),
    "detached": (_vma("detached", 1), "detached 1"),
    "mmap_cache": (_mm("mmap_cache", 777), "mmap_cache is #777"),
    "mmap_lock": (_mm("mmap_lock", 1), "mmap_lock is 1"),
    "version": (_mm("version", 1), "version 1 at rest"),
    "nr_ptes": (_mm("nr_ptes", 1), "nr_ptes says"),
    "rss": (_mm("rss", -1), "rss says"),
    "mapcount": (_page("mapcount", 1, True), "its mapcount 3"),
    "refcount": (_page("refcount", -1, True), "its refcount says 1"),
    "not a table": (_page("mapping", 1, False), "mapping 2"),
    "lost entry": (_pte_page(_lost_entry), "nr_present 2, has 1"),
    "stray entry": (_pte_page(_stray_entry), "an entry for .* is left where there is no VMA"),
    "nr_present": (_pte_page(_wrong_count), "nr_present 3, has 2"),
    "ptl": (_pte_page(_held_lock), "ptl 1"),
    "leaked VMA": (_arena(0), "VMAs are allocated, 8 are reachable: a leak"),
    "leaked table": (_arena(1), "tables are allocated, .* a leak"),
    "leaked frame": (_arena(2), "frames are allocated, 3 are reachable: a leak"),
    "index loses one": (_vma("rb_left", 0), "the index"),
    "gap": (_vma("rb_subtree_gap", 1), "the index breaks invariant 5: rb_subtree_gap is wrong"),
    "colour": (_vma("rb_parent_color", lambda word: word ^ 1), "the index breaks invariant"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_validate_finds(what: str) -> None:
    """Each kind of damage is found, named, and shown with the address space."""
    kit = small()
    damage, message = DAMAGE[what]
    if what == "index loses one":
        root = int(kit.mm["mm_rb"])
        kit.vma("rb_left")[root] = 0
    else:
        damage(kit)
    with pytest.raises(ValidationError, match=message):
        kit.validate()


@pytest.mark.parametrize(
    "what", ["overlap", "empty", "unaligned", "prev", "owner", "circle", "chain", "held", "detached"]
)
def test_validate_finds_it_in_long_lists(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above ASKED VMAs all rows are checked at once: the same damage is found, and named as before."""
    monkeypatch.setattr("benchframe.mm.validate.ASKED", 0)
    kit = small()
    kit.validate()
    damage, message = DAMAGE[what]
    damage(kit)
    with pytest.raises(ValidationError, match=message):
        kit.validate()


def test_validate_names_a_link_to_nowhere() -> None:
    """A vm_next beyond the slab is a finding, not a traceback."""
    kit = small()
    kit.vma("vm_next")[kit.vmas()[1]] = 1 << 40
    with pytest.raises(ValidationError, match="leads to #1099511627776, which was never allocated"):
        kit.validate()


def test_validate_finds_a_table_left_behind() -> None:
    """A VMA that vanished with its pages still mapped."""
    kit = small()
    kit.vma("vm_next")[kit.vmas()[2]] = 0
    kit.mm["last_vma"], kit.mm["map_count"] = kit.vmas()[-1], 3
    with pytest.raises(ValidationError, match="where there is no VMA"):
        validate_mm(kit.machine)


def test_dump_shows_the_address_space() -> None:
    """One line a VMA, cut after as many as asked for."""
    text = dump(small().machine, 0, most=2)
    assert text.splitlines()[0] == "mm 0: 4 VMAs"
    assert "000010000000-000010002000 rw--" in text
    assert text.endswith("...")


# ---- save and restore ----


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("seed", [0, 7])
def test_restore_is_exact(name: str, engine: str, seed: int) -> None:
    """After any amount of work restore gives back each record in use; the same calls then do the same again."""
    kit = Kit(name, engine, seed=seed)
    kit.map(0, 8)
    kit.touch(1)

    def work() -> list[Any]:
        kit.map(8, 8, R)
        kit.protect(4, 8, RWX)
        for page in (0, 1, 4, 5):
            kit.touch(page)
        child = kit.fork()
        kit.unmap(2, 3)
        kit.touch(0)
        return [*kit.layout(), *kit.layout_flags(), *child.layout(), child.fault(BASE, 2), kit.mmap(0, PAGE, RW, ANON)]

    saved = kit.machine.save()
    before = {base: array.copy() for base, array in used(kit.machine).items()}
    first = work()
    after = {base: array.copy() for base, array in used(kit.machine).items()}
    kit.machine.restore(saved)
    for base, array in used(kit.machine).items():
        assert np.array_equal(array, before[base]), base
    assert work() == first
    for base, array in used(kit.machine).items():
        assert np.array_equal(array, after[base]), base
    kit.validate()


def used(machine: Machine) -> dict[str, np.ndarray[Any, Any]]:
    """What is in use of the slabs whose unused part need not be restored; the strategy's own slabs whole."""
    arrays = machine.arrays
    tops = arrays["slab_base"]["top"].tolist()
    parts = {base: arrays[base] for base in arrays if base.startswith("private") or base in ("mm_base", "task_base")}
    return parts | {
        "vma_base": arrays["vma_base"][: tops[0]],
        "pte_base": arrays["pte_base"][: tops[1] * 512],
        "page_base": arrays["page_base"][: tops[1]],
        "frames": arrays["page_base"][SIZES.tables : tops[2]],
        "slab_base": arrays["slab_base"],
    }


def test_layout_seed_shuffles_records() -> None:
    """Another seed, another order of VMA records; the address space is the same, and seed 0 is in order."""
    spaces = [Kit(seed=seed) for seed in (0, 1, 2)]
    for kit in spaces:
        for page in range(0, 20, 2):
            kit.map(page, 1)
        kit.validate()
    orders = [kit.vmas() for kit in spaces]
    assert orders[0] == list(range(1, 11))
    assert len({tuple(order) for order in orders}) == 3
    assert spaces[0].layout() == spaces[1].layout() == spaces[2].layout()


def test_zero_page_is_reserved() -> None:
    """The zero page is marked as no ordinary page: the caches of page-table pages look at the bit."""
    kit = Kit()
    assert kit.machine.arrays["page_base"][kit.machine.zero_page]["flags"] == PG_RESERVED
