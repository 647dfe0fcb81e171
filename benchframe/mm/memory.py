"""Page faults and zapping: mm/memory.c."""

from benchframe.dialect.functions import native
from benchframe.dialect.records import NULL
from benchframe.mm.flags import (
    ACCESS_EXEC,
    ACCESS_READ,
    ACCESS_WRITE,
    DID_ACCESS,
    DID_ANON_READ,
    DID_ANON_WRITE,
    DID_FILE_COW,
    DID_FILE_READ,
    DID_FILE_SHARED,
    DID_HUGE,
    DID_NUMA,
    DID_SPURIOUS,
    DID_SWAP,
    DID_WP_COPY,
    DID_WP_REUSE,
    DID_WP_SHARED,
    E_ACCESSED,
    E_DIRTY,
    E_FILE,
    E_GUARD,
    E_PRESENT,
    E_PROTNONE,
    E_PSE,
    E_RW,
    E_SWAP,
    E_USER,
    FAULT_ACCERR,
    FAULT_MAPERR,
    FAULT_OOM,
    FAULT_RETRY,
    FAULT_SIGBUS,
    PAGE_ANON,
    PAGE_FREE,
    PAGE_HUGE,
    PG_RESERVED,
    VM_ACCESS,
    VM_EXEC,
    VM_HUGEPAGE,
    VM_IO,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_SHARED,
    VM_WRITE,
)
from benchframe.mm.hooks import (
    COUNT_RETRY,
    SITE_ACCESS,
    SITE_ANON,
    SITE_END,
    SITE_FILE,
    SITE_REFUSED,
    SITE_SWAP,
    SITE_TABLE,
    SITE_WP,
    cache_fault,
    copy_user_page,
    count,
    flush_tlb,
    lookup,
    page_add_anon,
    vma_get,
    vma_get_locked,
    vma_grow,
    vma_put,
    vma_valid,
)
from benchframe.mm.layout import (
    FILE,
    PAGE,
    PAGE_SHIFT,
    PAGE_SIZE,
    PMD_SIZE,
    PTE,
    PTRS_PER_TABLE,
    TASK,
    VMA,
    page_alloc,
    page_free,
)
from benchframe.mm.pagetable import next_step, pmd_alloc, pmd_slot, pte_alloc, spin_lock, spin_unlock
from benchframe.mm.vma import anon_vma_prepare

# ----------------------------------------------------------------------------------------------------------------------
# Removing pages and changing their permissions: munmap, MADV_DONTNEED, mprotect, fork (mm/memory.c, mm/mprotect.c).

ZAP, PAGE_OUT, NUMA_HINT, WRITE_PROTECT = 0, 1, 2, 3
"""What :func:`change_range` does to each entry."""


@native
def add_rss(mm, pages):
    """``pages`` more pages are mapped (add_mm_counter)."""
    mm.rss += pages
    return 0


@native
def frame_put(mm, task, entry):
    """Drop one mapping of the frame behind ``entry``; the last one frees the frame."""
    if entry & (E_FILE | E_GUARD):
        return 0
    p = PAGE(mm, entry >> 12)
    if p.flags & PG_RESERVED:
        return 0
    p.mapcount -= 1
    p.refcount -= 1
    if p.refcount == 0:
        p.mapping = PAGE_FREE
        page_free(mm, task, entry >> 12)
    return 0


@native
def change_entry(mm, task, table, slot, what, keep_guards):
    """Apply ``what`` to one non-zero leaf entry. Caller holds the ptl."""
    entry = PTE(mm, slot).entry
    if what == ZAP:
        if entry & E_GUARD and keep_guards:
            return 0
        frame_put(mm, task, entry)
        PTE(mm, slot).entry = 0
        if entry & E_PRESENT:
            PAGE(mm, table).nr_present -= 1
            add_rss(mm, -1)
        return 0
    if not entry & E_PRESENT:
        return 0
    if what == PAGE_OUT:
        if not entry & E_FILE and not PAGE(mm, entry >> 12).flags & PG_RESERVED:
            PTE(mm, slot).entry = (entry & ~(E_PRESENT | E_RW)) | E_SWAP
            PAGE(mm, table).nr_present -= 1
            add_rss(mm, -1)
    elif what == NUMA_HINT:
        PTE(mm, slot).entry = (entry & ~E_PRESENT) | E_PROTNONE
        PAGE(mm, table).nr_present -= 1
        add_rss(mm, -1)
    else:
        PTE(mm, slot).entry = entry & ~E_RW
    return 0


@native
def change_range(mm, task, start, end, what, keep_guards):
    """Apply ``what`` to every entry of [start, end) for ``task``, one PTE page at a time, each under its ptl."""
    addr = start
    while addr < end:
        pmd = pmd_slot(mm, addr)
        if pmd == 0:
            addr = next_step(mm, addr, end)
            continue
        stop = min(end, (addr & ~(PMD_SIZE - 1)) + PMD_SIZE)
        entry = PTE(mm, pmd).entry
        if entry & E_PSE:
            if what == ZAP:
                frame_put(mm, task, entry)
                PTE(mm, pmd).entry = 0
                add_rss(mm, -PTRS_PER_TABLE)
            elif what == WRITE_PROTECT:
                PTE(mm, pmd).entry = entry & ~E_RW
        elif entry != 0:
            table = entry >> 12
            spin_lock(mm, table)
            slot = table * PTRS_PER_TABLE + ((addr >> PAGE_SHIFT) & 511)
            last = slot + ((stop - addr) >> PAGE_SHIFT)
            while slot < last:
                if PTE(mm, slot).entry != 0:
                    change_entry(mm, task, table, slot, what, keep_guards)
                slot += 1
            spin_unlock(mm, table)
        addr = stop
    flush_tlb(mm, start, end)
    return 0


@native
def change_protection(mm, vma, start, end):
    """mprotect took away write permission for [start, end) (when it grants it, faults upgrade page by page)."""
    flags = VMA(mm, vma).vm_flags
    if not flags & VM_WRITE or not flags & VM_SHARED:
        change_range(mm, mm.owner, start, end, WRITE_PROTECT, 1)
    return 0


# ----------------------------------------------------------------------------------------------------------------------
# What a fault does to one page-table entry: the kinds of do_pte_missing, do_swap_page and do_wp_page.
#
# Every function is called with the PTE page's lock held and sets ``task.fault_kind``. ``cache_fault`` stands where the
# seed had update_vma_cache: after a reuse, after a copy, after swap-in, after an anonymous page, after a file page,
# and after an access-flag fix-up.

PRESENT = E_PRESENT | E_USER | E_ACCESSED


@native
def anon_page(mm, task):
    """A new anonymous frame, mapped once; NULL if there is none (alloc_zeroed_user_highpage_movable)."""
    frame = page_alloc(mm, task)
    if frame == NULL:
        return NULL
    p = PAGE(mm, frame)
    p.flags = 0
    p.cache = 0
    p.mapping = PAGE_ANON
    p.refcount = 1
    p.mapcount = 1
    p.private = 0
    return frame


@native
def set_new_entry(mm, table, slot, entry):
    """An empty entry becomes present."""
    PTE(mm, slot).entry = entry
    PAGE(mm, table).nr_present += 1
    add_rss(mm, 1)
    return 0


@native
def fill_none(mm, task, vma, table, slot, addr, access):
    """The entry is empty: do_anonymous_page, do_read_fault, do_cow_fault or do_shared_fault."""
    v = VMA(mm, vma)
    t = TASK(mm, task)
    site = SITE_FILE
    if v.vm_file == 0:
        site = SITE_ANON
    if not vma_valid(mm, task, vma, site):
        return FAULT_RETRY
    if v.vm_file == 0 and not access & ACCESS_WRITE:
        set_new_entry(mm, table, slot, (mm.zero_page << 12) | PRESENT)
        t.fault_kind = DID_ANON_READ
    elif not access & ACCESS_WRITE:
        map_around(mm, vma, table, slot, addr)
        t.fault_kind = DID_FILE_READ
    elif v.vm_file != 0 and v.vm_flags & VM_SHARED:
        set_new_entry(mm, table, slot, E_FILE | PRESENT | E_RW | E_DIRTY)
        t.fault_kind = DID_FILE_SHARED
    else:
        anon_vma_prepare(mm, task, vma)
        frame = anon_page(mm, task)
        if frame == NULL:
            return FAULT_OOM
        page_add_anon(mm, vma, addr, frame)
        set_new_entry(mm, table, slot, (frame << 12) | PRESENT | E_RW | E_DIRTY)
        t.fault_kind = DID_ANON_WRITE
        if v.vm_file != 0:
            t.fault_kind = DID_FILE_COW
    cache_fault(mm, table, vma)
    return 0


@native
def map_around(mm, vma, table, slot, addr):
    """A read fault on a file also maps the pages around it that are in the page cache (do_fault_around): within the
    VMA, the file, the PTE page and the aligned window of ``mm.fault_around`` pages. The model's page cache holds
    everything."""
    v = VMA(mm, vma)
    window = mm.fault_around
    if v.vm_flags & VM_RAND_READ or window < 1:
        window = 1
    index = slot - table * PTRS_PER_TABLE
    first = index & ~(window - 1)
    below = (addr - v.vm_start) >> PAGE_SHIFT
    first = max(first, index - below)
    last = (index & ~(window - 1)) + window
    above = (v.vm_end - addr + PAGE_SIZE - 1) >> PAGE_SHIFT
    last = min(last, index + above)
    in_file = ((FILE(mm, v.vm_file).size + PAGE_SIZE - 1) >> PAGE_SHIFT) - (v.vm_pgoff + below)
    last = min(last, index + in_file)
    i = first
    base = table * PTRS_PER_TABLE
    while i < last:
        if PTE(mm, base + i).entry == 0:
            set_new_entry(mm, table, base + i, E_FILE | E_PRESENT | E_USER)
        i += 1
    PTE(mm, slot).entry |= E_ACCESSED
    return 0


@native
def fill_swap(mm, task, vma, table, slot, access):
    """do_swap_page: bring the frame back, writable at once if this is its only mapping."""
    if not vma_valid(mm, task, vma, SITE_SWAP):
        return FAULT_RETRY
    entry = (PTE(mm, slot).entry & ~E_SWAP) | PRESENT
    if access & ACCESS_WRITE and PAGE(mm, entry >> 12).mapcount == 1 and VMA(mm, vma).vm_flags & VM_WRITE:
        entry |= E_RW | E_DIRTY
    set_new_entry(mm, table, slot, entry)
    TASK(mm, task).fault_kind = DID_SWAP
    if access & ACCESS_WRITE and not entry & E_RW:
        return fill_wp(mm, task, vma, table, slot)
    cache_fault(mm, table, vma)
    return 0


@native
def fill_wp(mm, task, vma, table, slot):
    """do_wp_page, a write to a present read-only entry: make it writable if shared, reuse the frame if it is mapped
    once, else copy it."""
    entry = PTE(mm, slot).entry
    v = VMA(mm, vma)
    t = TASK(mm, task)
    if not vma_valid(mm, task, vma, SITE_WP):
        return FAULT_RETRY
    if v.vm_flags & VM_SHARED:
        PTE(mm, slot).entry = entry | E_RW | E_DIRTY | E_ACCESSED
        t.fault_kind = DID_WP_SHARED
    elif not entry & E_FILE and PAGE(mm, entry >> 12).mapcount == 1 and not PAGE(mm, entry >> 12).flags & PG_RESERVED:
        PTE(mm, slot).entry = entry | E_RW | E_DIRTY | E_ACCESSED
        t.fault_kind = DID_WP_REUSE
    else:
        anon_vma_prepare(mm, task, vma)
        frame = anon_page(mm, task)
        if frame == NULL:
            return FAULT_OOM
        copy_user_page(mm, frame, entry >> 12)
        PTE(mm, slot).entry = (frame << 12) | PRESENT | E_RW | E_DIRTY
        frame_put(mm, task, entry)
        t.fault_kind = DID_WP_COPY
    cache_fault(mm, table, vma)
    return 0


@native
def touch_present(mm, task, vma, table, slot, access):
    """The entry is present and allows the access: set accessed and dirty bits (ptep_set_access_flags), or a spurious
    fault."""
    entry = PTE(mm, slot).entry
    new = entry | E_ACCESSED
    if access & ACCESS_WRITE:
        new |= E_DIRTY
    if new == entry:
        TASK(mm, task).fault_kind = DID_SPURIOUS
        return 0
    if not vma_valid(mm, task, vma, SITE_ACCESS):
        return FAULT_RETRY
    PTE(mm, slot).entry = new
    TASK(mm, task).fault_kind = DID_ACCESS
    cache_fault(mm, table, vma)
    return 0


# ----------------------------------------------------------------------------------------------------------------------
# Page faults: from the address to a page-table entry (mm/memory.c, arch/x86/mm/fault.c).
#
# ``page_fault`` is what a timed run measures: vma_get (the strategy's lookup), the checks, the fault's own work,
# vma_put. The work is that of __handle_mm_fault and handle_pte_fault: tables are allocated on the way down, the entry
# is decided and set under the PTE page's lock, and at the six places where RFC 3/4 had update_vma_cache the
# strategy's ``cache_fault`` is called.


@native
def beyond_object(mm, vma, addr):
    """Whether ``addr`` is in a page past the end of the file or shared object: an access then gets a SIGBUS."""
    v = VMA(mm, vma)
    if v.vm_file == 0:
        return 0
    index = v.vm_pgoff + ((addr - v.vm_start) >> PAGE_SHIFT)
    return index >= (FILE(mm, v.vm_file).size + PAGE_SIZE - 1) >> PAGE_SHIFT


@native
def sigbus(mm, task, vma, access):
    """A touch past the end where the entry is empty: do_cow_fault prepares a page before it reads the file."""
    if access & ACCESS_WRITE and not VMA(mm, vma).vm_flags & VM_SHARED:
        anon_vma_prepare(mm, task, vma)
    return FAULT_SIGBUS


HUGE = E_PRESENT | E_PSE | E_USER | E_ACCESSED


@native
def huge_page(mm, task):
    """A new 2 MiB page, mapped once; one frame represents it."""
    frame = anon_page(mm, task)
    if frame != NULL:
        PAGE(mm, frame).mapping = PAGE_HUGE
    return frame


@native
def huge_fault(mm, task, vma, pmd, addr, access):
    """Map a 2 MiB page where the VMA and the setting allow one (do_huge_pmd_anonymous_page): 1 done, 0 use small pages.

    The RFC has no hook here: its cache never sees huge pages, and its lookup misinterprets them (bug B5).
    """
    entry = PTE(mm, pmd).entry
    v = VMA(mm, vma)
    if entry & E_PSE:
        if not access & ACCESS_WRITE or entry & E_RW:
            PTE(mm, pmd).entry = entry | E_ACCESSED
        elif PAGE(mm, entry >> 12).mapcount == 1:
            PTE(mm, pmd).entry = entry | E_ACCESSED | E_DIRTY | E_RW
        else:  # copy it: it is the zero page, or shared with a child
            frame = huge_page(mm, task)
            if frame == NULL:
                return 0
            frame_put(mm, task, entry)
            PTE(mm, pmd).entry = (frame << 12) | HUGE | E_RW | E_DIRTY
        TASK(mm, task).fault_kind = DID_HUGE
        return 1
    if entry != 0 or v.vm_file != 0 or v.vm_flags & VM_NOHUGEPAGE:
        return 0
    if mm.thp == 1 and not v.vm_flags & VM_HUGEPAGE:
        return 0
    start = addr & ~(PMD_SIZE - 1)
    if start < v.vm_start or start + PMD_SIZE > v.vm_end:
        return 0
    anon_vma_prepare(mm, task, vma)
    entry = (mm.zero_page << 12) | HUGE
    if access & ACCESS_WRITE:
        frame = huge_page(mm, task)
        if frame == NULL:
            return 0
        entry = (frame << 12) | HUGE | E_RW | E_DIRTY
    PTE(mm, pmd).entry = entry
    add_rss(mm, PTRS_PER_TABLE)
    TASK(mm, task).fault_kind = DID_HUGE
    return 1


@native
def handle_mm_fault(mm, task, vma, addr, access):
    """Make ``addr``'s entry valid for ``access`` in ``vma``, which contains and allows it.

    0, FAULT_SIGBUS, FAULT_MAPERR (a guard marker), FAULT_OOM or FAULT_RETRY. Caller holds what vma_get took.
    """
    pmd = pmd_slot(mm, addr)
    if pmd == 0:
        if not vma_valid(mm, task, vma, SITE_TABLE):
            return FAULT_RETRY
        pmd = pmd_alloc(mm, addr)
        if pmd == 0:
            return FAULT_OOM
    outside = beyond_object(mm, vma, addr)
    if outside and PTE(mm, pmd).entry == 0:
        return sigbus(mm, task, vma, access)
    if mm.thp != 0 and huge_fault(mm, task, vma, pmd, addr, access):
        return 0
    table = PTE(mm, pmd).entry >> 12
    if table == NULL:
        if not vma_valid(mm, task, vma, SITE_TABLE):
            return FAULT_RETRY
        table = pte_alloc(mm, pmd)
        if table == NULL:
            return FAULT_OOM
    slot = table * PTRS_PER_TABLE + ((addr >> PAGE_SHIFT) & 511)
    spin_lock(mm, table)
    entry = PTE(mm, slot).entry
    if entry == 0 and outside:
        result = sigbus(mm, task, vma, access)
    elif entry == 0:
        result = fill_none(mm, task, vma, table, slot, addr, access)
    elif entry & E_PRESENT:
        if access & ACCESS_WRITE and not entry & E_RW:
            result = fill_wp(mm, task, vma, table, slot)
        else:
            result = touch_present(mm, task, vma, table, slot, access)
    elif entry & E_GUARD:
        result = FAULT_MAPERR
    elif entry & E_SWAP:
        result = fill_swap(mm, task, vma, table, slot, access)
    else:  # do_numa_page: newer than the RFC, which therefore has no hook here
        PTE(mm, slot).entry = (entry & ~E_PROTNONE) | E_PRESENT | E_ACCESSED
        PAGE(mm, table).nr_present += 1
        add_rss(mm, 1)
        TASK(mm, task).fault_kind = DID_NUMA
        result = 0
    spin_unlock(mm, table)
    return result


@native
def access_refused(vm_flags, access):
    """access_error: whether the permission for this access is missing."""
    if access & ACCESS_WRITE:
        return not vm_flags & VM_WRITE
    if access & ACCESS_EXEC:
        return not vm_flags & VM_EXEC
    return not vm_flags & VM_ACCESS


@native
def fault_in_vma(mm, task, vma, addr, access):
    """The part of a fault between vma_get and vma_put: 0 or FAULT_*."""
    if vma == NULL:
        return FAULT_MAPERR
    v = VMA(mm, vma)
    if access == 0:  # the recorder could not see the error code
        access = ACCESS_READ
    if access_refused(v.vm_flags, access):
        return FAULT_ACCERR
    result = handle_mm_fault(mm, task, vma, addr, access)
    if result == 0 and not vma_valid(mm, task, vma, SITE_END):
        return FAULT_RETRY
    return result


@native
def covering(mm, task, vma, addr):
    """The VMA from vma_get if it covers ``addr``; if it lies above, the VMA after stack growth, if that is allowed;
    else NULL."""
    if vma != NULL and VMA(mm, vma).vm_start > addr:
        if not vma_valid(mm, task, vma, SITE_REFUSED):
            return NULL
        return vma_grow(mm, task, vma, addr)
    return vma


@native
def page_fault(mm, task, addr, access):
    """A user fault: returns the VMA that served it, or FAULT_* (negative). ``access``: ACCESS_* bits, 0 if unknown."""
    if addr < 0 or addr >= mm.task_size:
        return FAULT_MAPERR
    found = vma_get(mm, task, addr)
    vma = covering(mm, task, found, addr)
    result = fault_in_vma(mm, task, vma, addr, access)
    if result == 0:
        vma_put(mm, task, vma)
        return vma
    if found != NULL and not vma_valid(mm, task, found, SITE_REFUSED):
        result = FAULT_RETRY  # what was read of it need not have been true at any time
    vma_put(mm, task, vma)
    if result == FAULT_RETRY:
        count(mm, task, COUNT_RETRY)
        vma = covering(mm, task, vma_get_locked(mm, task, addr), addr)
        result = fault_in_vma(mm, task, vma, addr, access)
        vma_put(mm, task, vma)
    if result != 0:
        return result
    return vma


@native
def populate_range(mm, task, start, end, ignore_errors):
    """Fault in every page of [start, end) as get_user_pages does for MAP_POPULATE and mlock (__mm_populate).

    0, or the first FAULT_* (unless ``ignore_errors``). Stops at a hole. Caller holds mmap_lock.
    """
    addr = start
    while addr < end:
        vma = lookup(mm, task, addr)
        if vma == NULL or VMA(mm, vma).vm_start >= end:
            return 0
        v = VMA(mm, vma)
        addr = max(addr, v.vm_start)
        stop = min(end, v.vm_end)
        access = ACCESS_READ
        if (v.vm_flags & (VM_WRITE | VM_SHARED)) == VM_WRITE:
            access = ACCESS_WRITE
        if v.vm_flags & (VM_IO | VM_PFNMAP):
            addr = stop
            continue
        result = populate_vma(mm, task, vma, addr, stop, access)
        if result != 0 and not ignore_errors:
            return result
        addr = stop
    return 0


@native
def populate_vma(mm, task, vma, start, end, access):
    """Fault in [start, end) of one VMA, stopping at the first page that fails: 0 or FAULT_*."""
    if access_refused(VMA(mm, vma).vm_flags, access):
        return FAULT_ACCERR
    addr = start
    while addr < end:
        result = handle_mm_fault(mm, task, vma, addr, access)
        if result != 0:
            return result
        addr += PAGE_SIZE
    return 0
