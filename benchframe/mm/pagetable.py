"""Page tables with x86-64 geometry: walk, allocate at fault, free by the floor/ceiling rule.

A table is a struct page (its index is the frame number) and 512 entries. Its entries are at ``PTE(mm, table * 512 +
index)``; a *slot* is such a number, 0 is none. A fault, fork or mremap allocates the tables it needs; only munmap and
exit free them. MADV_DONTNEED clears entries and keeps tables (Documentation/mm).
"""

from benchframe.dialect import NULL, native
from benchframe.mm.flags import E_PRESENT, E_PSE, E_RW, E_USER, PAGE_FREE, PAGE_TABLE
from benchframe.mm.hooks import cache_table_prepared, table_release
from benchframe.mm.layout import (
    ARENA_TABLE,
    PAGE,
    PGDIR_SHIFT,
    PMD_SHIFT,
    PMD_SIZE,
    PTE,
    PTRS_PER_TABLE,
    PUD_SHIFT,
    arena_alloc,
    arena_free,
)
from benchframe.mm.locks import spinlock

TABLE_BITS = E_PRESENT | E_RW | E_USER
ptl_lock, ptl_trylock, ptl_unlock = spinlock("ptl")
PUD_SIZE, PGDIR_SIZE = 1 << PUD_SHIFT, 1 << PGDIR_SHIFT


@native
def spin_lock(mm, table):
    """The page-table lock of ``table`` (split ptlocks: one per PTE page)."""
    return ptl_lock(PAGE(mm, table))


@native
def spin_unlock(mm, table):
    """Release it."""
    return ptl_unlock(PAGE(mm, table))


@native
def add_tables(mm, tables):
    """``tables`` more tables are in use (mm_inc_nr_ptes)."""
    mm.nr_ptes += tables
    return 0


@native
def table_alloc(mm):
    """A zeroed page as a page table (pte_alloc_one: prep_new_page, then cleared); NULL if there is none."""
    table = arena_alloc(mm, ARENA_TABLE)
    if table == NULL:
        return NULL
    p = PAGE(mm, table)
    p.flags = 0
    p.mapping = PAGE_TABLE
    p.refcount = 1
    p.mapcount = 0
    p.ptl = 0
    p.nr_present = 0
    p.private = 0
    cache_table_prepared(mm, table)
    first = table * PTRS_PER_TABLE
    for i in range(PTRS_PER_TABLE):
        PTE(mm, first + i).entry = 0
    add_tables(mm, 1)
    return table


@native
def table_free(mm, table):
    """Free a page table that a concurrent walk may still read."""
    add_tables(mm, -1)
    return table_release(mm, table)


@native
def table_discard(mm, table):
    """Free a page table that no other task can have seen."""
    PAGE(mm, table).mapping = PAGE_FREE
    add_tables(mm, -1)
    return arena_free(mm, ARENA_TABLE, table)


@native
def pgd_slot(mm, addr):
    """The slot of ``addr`` in the top table."""
    return mm.pgd * PTRS_PER_TABLE + ((addr >> PGDIR_SHIFT) & 511)


@native
def below(mm, slot, addr, shift):
    """The slot of ``addr`` in the table that ``slot`` points to, 0 if there is no table."""
    entry = PTE(mm, slot).entry
    if entry == 0:
        return 0
    return (entry >> 12) * PTRS_PER_TABLE + ((addr >> shift) & 511)


@native
def pmd_slot(mm, addr):
    """The slot of ``addr``'s pmd entry, 0 if an upper table is missing. Three loads at most."""
    slot = below(mm, pgd_slot(mm, addr), addr, PUD_SHIFT)
    if slot == 0:
        return 0
    return below(mm, slot, addr, PMD_SHIFT)


@native
def table_install(mm, slot):
    """Install a new table at ``slot``, unless another fault was first (__pte_alloc): the entry, or 0 without memory.

    page_table_lock is the top table's own lock.
    """
    table = table_alloc(mm)
    if table == NULL:
        return 0
    spin_lock(mm, mm.pgd)
    entry = PTE(mm, slot).entry
    if entry == 0:
        entry = (table << 12) | TABLE_BITS
        PTE(mm, slot).entry = entry
        table = NULL
    spin_unlock(mm, mm.pgd)
    if table != NULL:
        table_discard(mm, table)
    return entry


@native
def fill_slot(mm, slot, addr, shift):
    """As :func:`below`, but allocates a missing table; 0 only if memory ran out."""
    entry = PTE(mm, slot).entry
    if entry == 0:
        entry = table_install(mm, slot)
        if entry == 0:
            return 0
    return (entry >> 12) * PTRS_PER_TABLE + ((addr >> shift) & 511)


@native
def pmd_alloc(mm, addr):
    """The slot of ``addr``'s pmd entry; allocates missing upper tables (pud_alloc, pmd_alloc). 0: out of memory."""
    slot = fill_slot(mm, pgd_slot(mm, addr), addr, PUD_SHIFT)
    if slot == 0:
        return 0
    return fill_slot(mm, slot, addr, PMD_SHIFT)


@native
def pte_alloc(mm, pmd):
    """The PTE page behind pmd slot ``pmd``, allocated if missing (pte_alloc); NULL: out of memory."""
    entry = PTE(mm, pmd).entry
    if entry == 0:
        entry = table_install(mm, pmd)
    return entry >> 12


@native
def next_step(mm, addr, end):
    """The first address after ``addr`` that another PTE page may cover, skipping ranges without upper tables."""
    top = pgd_slot(mm, addr)
    if PTE(mm, top).entry == 0:
        step = PGDIR_SIZE
    elif PTE(mm, below(mm, top, addr, PUD_SHIFT)).entry == 0:
        step = PUD_SIZE
    else:
        step = PMD_SIZE
    return min(end, (addr & ~(step - 1)) + step)


@native
def inside(start, size, floor, ceiling):
    """Whether the whole aligned span lies in [floor, ceiling). Ceiling 0 is the end of the address space."""
    return start >= floor and (ceiling == 0 or start + size <= ceiling)


@native
def free_table_level(mm, start, end, floor, ceiling, level):
    """Free tables of one level over [start, end): 0 PTE pages, 1 PMD pages, 2 PUD pages. Lower levels must be freed
    first."""
    size = PMD_SIZE
    if level == 1:
        size = PUD_SIZE
    elif level == 2:
        size = PGDIR_SIZE
    addr = start & ~(size - 1)
    while addr < end:
        slot = pgd_slot(mm, addr)
        step = PGDIR_SIZE
        if level < 2 and PTE(mm, slot).entry != 0:
            slot = below(mm, slot, addr, PUD_SHIFT)
            step = PUD_SIZE
            if level < 1 and PTE(mm, slot).entry != 0:
                slot = below(mm, slot, addr, PMD_SHIFT)
                step = PMD_SIZE
        if step == size and inside(addr, size, floor, ceiling):
            entry = PTE(mm, slot).entry
            if entry != 0 and not entry & E_PSE:
                PTE(mm, slot).entry = 0
                table_free(mm, entry >> 12)
        addr = (addr & ~(step - 1)) + step
    return 0


@native
def free_pgtables(mm, start, end, floor, ceiling):
    """Free every table whose whole span lies in [floor, ceiling): floor is the end of the VMA before, ceiling the start
    of the VMA after (0: none). Entries of [start, end) are clear. A table that a neighbour in the same span still needs
    is kept (free_pgd_range, mm/memory.c)."""
    free_table_level(mm, start, end, floor, ceiling, 0)
    free_table_level(mm, start, end, floor, ceiling, 1)
    free_table_level(mm, start, end, floor, ceiling, 2)
    return 0
