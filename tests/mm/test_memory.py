"""Every kind of page fault by name, copy-on-write over fork, page tables that come and go, stack growth."""

from pathlib import Path

import pytest
from support.space import BASE, ENGINES, FIXED, PAGE, PMD, RW, SHARED, Kit, R

from benchframe.mm import flags
from benchframe.mm.flags import FAULT_ACCERR, FAULT_MAPERR, FAULT_SIGBUS

READ, WRITE, EXEC = 1, 2, 4
STACK = 1 << 24
UPPER = 3
"""Tables above the PTE pages of one 1 GiB: pgd, pud, pmd."""


@pytest.fixture(params=ENGINES)
def kit(request: pytest.FixtureRequest) -> Kit:
    """An empty space."""
    return Kit("rbtree", request.param)


def rss(kit: Kit) -> int:
    """Mapped pages."""
    return int(kit.mm["rss"])


def frames(kit: Kit) -> int:
    """Anonymous frames in use, all mms."""
    return int(kit.machine.arrays["slab_base"][2]["live"])


def tables(kit: Kit) -> int:
    """Page-table pages of the mm."""
    return int(kit.mm["nr_ptes"])


def test_anonymous(kit: Kit) -> None:
    """Read: the zero page, no frame. Write: a frame and an anon_vma; over the zero page it is a copy."""
    kit.map(0, 4)
    assert kit.touch(0, READ) == "anon read"
    assert (frames(kit), int(kit.vma("anon_vma")[kit.at(0)])) == (0, 0)
    assert kit.touch(1, WRITE) == "anon write"
    assert (frames(kit), int(kit.vma("anon_vma")[kit.at(0)])) == (1, 1)
    assert kit.touch(0, WRITE) == "write-protect: copy"
    assert (frames(kit), rss(kit)) == (2, 2)
    kit.validate()


def test_present(kit: Kit) -> None:
    """A fault on a good entry is spurious; one that only lacks the dirty or accessed bit sets it."""
    kit.map(0, 20, RW, 0x11, 0)
    assert kit.touch(0, WRITE) == "file shared write"
    assert kit.touch(0, READ) == "spurious"
    assert kit.touch(1, READ) == "file read"
    assert kit.touch(2, READ) == "access flag"
    assert kit.touch(2, READ) == "spurious"
    assert kit.touch(2, WRITE) == "write-protect: shared"
    assert kit.touch(2, WRITE) == "spurious"
    kit.validate()


def test_file(kit: Kit) -> None:
    """A read maps the aligned 16 pages around it, within VMA and file; a private write is a frame of its own."""
    kit.set_file(0, 12 * PAGE - 7)
    kit.map(2, 40, RW, 0x12, 0)
    assert kit.touch(5, READ) == "file read"
    assert rss(kit) == 12
    assert frames(kit) == 0
    assert kit.touch(5, WRITE) == "write-protect: copy"
    assert frames(kit) == 1
    kit.map(64, 32, RW, 0x12, 1)
    assert kit.touch(70, WRITE) == "file private write"
    assert kit.touch(71, READ) == "file read"
    assert rss(kit) == 12 + 16
    kit.validate()


def test_random_advice_maps_one_page(kit: Kit) -> None:
    """MADV_RANDOM switches fault-around off."""
    kit.map(0, 32, R, 0x12, 0)
    assert kit.madvise(BASE, 32 * PAGE, flags.MADV_RANDOM) == 0
    assert kit.touch(5, READ) == "file read"
    assert rss(kit) == 1


def test_swap(kit: Kit) -> None:
    """MADV_PAGEOUT takes the entry away; the next fault brings the same frame back, writable at once for a write."""
    kit.map(0, 4)
    kit.touch(0, WRITE)
    kit.touch(1, WRITE)
    assert kit.madvise(BASE, 4 * PAGE, flags.MADV_PAGEOUT) == 0
    assert (rss(kit), frames(kit)) == (0, 2)
    kit.validate()
    assert kit.touch(0, READ) == "swap-in"
    assert kit.touch(0, WRITE) == "write-protect: reuse"
    assert kit.touch(1, WRITE) == "swap-in"
    assert kit.touch(1, WRITE) == "spurious"
    assert (rss(kit), frames(kit)) == (2, 2)
    kit.validate()


def test_numa_hint(kit: Kit) -> None:
    """A hinting fault makes the entry present again and changes nothing else."""
    kit.map(0, 2)
    kit.touch(0, WRITE)
    assert kit.madvise(BASE, 2 * PAGE, flags.MADV_MODEL_NUMA) == 0
    assert rss(kit) == 0
    kit.validate()
    assert kit.touch(0, READ) == "NUMA hint"
    assert kit.touch(0, WRITE) == "spurious"
    assert (rss(kit), frames(kit)) == (1, 1)
    kit.validate()


@pytest.mark.parametrize("engine", ENGINES)
def test_huge(engine: str) -> None:
    """With THP a write to a free, aligned 2 MiB of a large enough VMA takes one huge page and no PTE page."""
    kit = Kit(engine=engine, thp=2)
    kit.map(0, 1024)
    assert kit.touch(5, WRITE) == "huge"
    assert (rss(kit), tables(kit), frames(kit)) == (512, UPPER, 1)
    assert kit.unmap(1023, 1) == 0
    assert kit.touch(600, WRITE) == "anon write"
    assert (rss(kit), tables(kit)) == (513, UPPER + 1)
    kit.validate()
    assert kit.unmap(0, 512) == 0
    assert (rss(kit), tables(kit), frames(kit)) == (1, UPPER + 1, 1)
    kit.validate()


@pytest.mark.parametrize("engine", ENGINES)
def test_huge_by_madvise(engine: str) -> None:
    """With thp=1 only MADV_HUGEPAGE asks for it."""
    kit = Kit(engine=engine, thp=1)
    kit.map(0, 1024)
    assert kit.touch(5, WRITE) == "anon write"
    assert kit.madvise(BASE + PMD, PMD, flags.MADV_HUGEPAGE) == 0
    assert kit.touch(700, WRITE) == "huge"
    kit.validate()


def test_every_kind_has_a_test() -> None:
    """The names above are all there are (a new kind needs its test)."""
    text = Path(__file__).read_text()
    assert [name for name in flags.FAULT_KINDS[1:] if f'"{name}"' not in text] == []


def test_refused(kit: Kit) -> None:
    """No VMA, a missing right, beyond the file, a guard marker, outside user space: each with its code."""
    kit.map(0, 2, R)
    kit.map(4, 2, 0)
    kit.set_file(0, PAGE + 1)
    kit.map(8, 4, R, 0x12, 0)
    kit.map(16, 2)
    assert kit.madvise(BASE + 16 * PAGE, PAGE, flags.MADV_GUARD_INSTALL) == 0
    expected = [
        (2, READ, FAULT_MAPERR),
        (0, WRITE, FAULT_ACCERR),
        (0, EXEC, FAULT_ACCERR),
        (4, READ, FAULT_ACCERR),
        (9, READ, 0),
        (10, READ, FAULT_SIGBUS),
        (16, READ, FAULT_MAPERR),
        (17, WRITE, 0),
    ]
    assert [kit.fault(BASE + page * PAGE, access) for page, access, _ in expected] == [code for *_, code in expected]
    for addr in (-1, -PAGE, kit.machine.parameters.task_size, 1 << 62):
        assert kit.fault(addr, READ) == FAULT_MAPERR
        assert kit.fault(addr, READ, user=False) == FAULT_MAPERR
    assert kit.fault(0, READ) == FAULT_MAPERR
    kit.validate()


# ---- fork ----


def test_copy_on_write(kit: Kit) -> None:
    """After fork both map one frame, read-only: the first writer copies, the last one left reuses."""
    kit.map(0, 2)
    kit.touch(0, WRITE)
    child = kit.fork()
    pages = kit.machine.arrays["page_base"]
    frame = kit.machine.zero_page + 1
    assert (int(pages[frame]["mapcount"]), int(pages[frame]["refcount"])) == (2, 2)
    kit.validate()
    assert child.fault(BASE, WRITE) == 0
    assert child.fault_kind() == "write-protect: copy"
    assert (int(pages[frame]["mapcount"]), frames(kit)) == (1, 2)
    assert kit.touch(0, WRITE) == "write-protect: reuse"
    kit.validate()
    assert child.exit() == 0
    assert frames(kit) == 1
    kit.validate()


def test_fork_shares_what_is_shared(kit: Kit) -> None:
    """A shared mapping stays writable in both; MADV_DONTFORK stays behind; MADV_WIPEONFORK comes empty."""
    kit.map(0, 2, RW, SHARED | 0x10)
    kit.map(4, 2)
    kit.map(8, 2)
    for page in (0, 4, 8):
        kit.touch(page, WRITE)
    assert kit.madvise(BASE + 4 * PAGE, 2 * PAGE, flags.MADV_DONTFORK) == 0
    assert kit.madvise(BASE + 8 * PAGE, 2 * PAGE, flags.MADV_WIPEONFORK) == 0
    child = kit.fork()
    assert [(row[0] - BASE) // PAGE for row in child.layout()] == [0, 8]
    assert child.fault(BASE + 8 * PAGE, WRITE) == 0
    assert child.fault_kind() == "anon write"
    assert kit.touch(0, WRITE) == "spurious"
    kit.validate()


def test_swapped_page_over_fork(kit: Kit) -> None:
    """A page that is out when its process forks belongs to both; who writes first copies."""
    kit.map(0, 1)
    kit.touch(0, WRITE)
    assert kit.madvise(BASE, PAGE, flags.MADV_PAGEOUT) == 0
    child = kit.fork()
    kit.validate()
    assert kit.touch(0, WRITE) == "write-protect: copy"
    assert child.fault(BASE, WRITE) == 0
    assert child.fault_kind() == "swap-in"
    assert frames(kit) == 2
    kit.validate()


# ---- page tables ----


def test_tables_appear_at_the_fault(kit: Kit) -> None:
    """mmap makes none; a fault makes the missing levels; another 2 MiB one PTE page; another 1 GiB one PMD page too."""
    assert tables(kit) == 1
    kit.map(0, 1024)
    assert tables(kit) == 1
    kit.touch(0)
    assert tables(kit) == UPPER + 1
    kit.touch(511)
    assert tables(kit) == UPPER + 1
    kit.touch(512)
    assert tables(kit) == UPPER + 2
    far = 1 << 18
    kit.map(far, 1)
    kit.touch(far)
    assert tables(kit) == UPPER + 2 + 2
    kit.validate()


@pytest.mark.parametrize(
    ("first", "count", "left"),
    [
        (0, 1536, 1),  # all: every level goes
        (512, 512, UPPER + 2),  # the middle PTE page, its span unmapped whole
        (513, 511, UPPER + 3),  # one page of it still mapped below: floor is inside
        (512, 511, UPPER + 3),  # one page still mapped above: ceiling is inside
        (1, 1535, UPPER + 1),  # page 0 keeps the first and all upper levels
        (0, 1535, UPPER + 1),  # the last page likewise
    ],
)
def test_tables_go_by_floor_and_ceiling(kit: Kit, first: int, count: int, left: int) -> None:
    """munmap frees a table only if no neighbour's range reaches into its span."""
    kit.map(0, 1536)
    for page in (0, 511, 512, 1023, 1024, 1535):
        kit.touch(page)
    assert tables(kit) == UPPER + 3
    assert kit.unmap(first, count) == 0
    assert tables(kit) == left
    kit.validate()


def test_neighbours_keep_a_table(kit: Kit) -> None:
    """Two VMAs in one 2 MiB: the table goes with the second."""
    kit.map(0, 2)
    kit.map(100, 2)
    kit.touch(0)
    kit.touch(100)
    assert kit.unmap(0, 2) == 0
    assert tables(kit) == UPPER + 1
    assert kit.unmap(100, 2) == 0
    assert tables(kit) == 1
    kit.validate()


def test_dontneed_of_a_part_keeps_the_table(kit: Kit) -> None:
    """MADV_DONTNEED clears the entries, the frames go, the table stays."""
    kit.map(0, 256)
    kit.touch(0)
    kit.touch(9)
    assert kit.madvise(BASE, 200 * PAGE, flags.MADV_DONTNEED) == 0
    assert (rss(kit), frames(kit), tables(kit)) == (0, 0, UPPER + 1)
    assert kit.touch(0) == "anon write"
    kit.validate()


# ---- stack growth ----


@pytest.mark.parametrize("engine", ENGINES)
def test_stack_growth_limits(engine: str) -> None:
    """A fault below the stack extends it to that page, up to RLIMIT_STACK exactly."""
    kit = Kit(engine=engine, stack_limit=16 * PAGE)
    assert kit.exec_map(BASE + 100 * PAGE, 4 * PAGE, RW, STACK) == BASE + 100 * PAGE
    assert kit.fault(BASE + 95 * PAGE + 7, WRITE) == 0
    assert kit.spans() == [(95, 104, RW)]
    assert kit.vma("vm_pgoff")[kit.at(95)] == (BASE >> 12) + 95
    assert kit.fault(BASE + 87 * PAGE, WRITE) == FAULT_MAPERR
    assert kit.fault(BASE + 88 * PAGE, READ) == 0
    assert kit.spans() == [(88, 104, RW)]
    kit.validate()


@pytest.mark.parametrize("engine", ENGINES)
def test_stack_guard_gap(engine: str) -> None:
    """Growth keeps the gap to an accessible VMA below; PROT_NONE and another stack may be met."""
    kit = Kit(engine=engine, stack_guard_gap=8 * PAGE)
    kit.map(40, 4, R)
    assert kit.exec_map(BASE + 100 * PAGE, 4 * PAGE, RW, STACK) == BASE + 100 * PAGE
    assert kit.fault(BASE + 51 * PAGE, WRITE) == FAULT_MAPERR
    assert kit.fault(BASE + 52 * PAGE, WRITE) == 0
    assert kit.protect(40, 4, 0) == 0
    assert kit.fault(BASE + 44 * PAGE, WRITE) == 0
    assert kit.spans() == [(40, 44, 0), (44, 104, RW)]
    assert kit.fault(BASE + 43 * PAGE, WRITE) == FAULT_ACCERR
    kit.validate()


def test_an_ordinary_vma_does_not_grow(kit: Kit) -> None:
    """A fault in the hole below a VMA without VM_GROWSDOWN is SEGV_MAPERR; so is one below mmap_min_addr."""
    kit.map(10, 1)
    assert kit.fault(BASE + 9 * PAGE, WRITE) == FAULT_MAPERR
    assert kit.mmap(0x12000, PAGE, RW, FIXED | 0x100) == 0x12000
    assert kit.fault(0x10000, WRITE) == 0
    assert kit.fault(0xF000, WRITE) == FAULT_MAPERR
    kit.validate()
