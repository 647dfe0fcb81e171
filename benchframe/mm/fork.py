"""The life of an mm: a new mm, fork's copy, exit (kernel/fork.c dup_mmap, mm/mmap.c exit_mmap; COW by mm/memory.c)."""

from benchframe.dialect import NULL, fetch_add, native
from benchframe.mm.flags import (
    E_FILE,
    E_GUARD,
    E_PRESENT,
    E_PSE,
    E_RW,
    PG_RESERVED,
    VM_DONTCOPY,
    VM_GUARD,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_SHARED,
    VM_USERFAULTFD,
    VM_WIPEONFORK,
)
from benchframe.mm.hooks import (
    cache_mm_exit,
    cache_mm_init,
    cache_task_init,
    flush_tlb,
    index_bulk,
    index_dup,
    index_erase_range,
    index_exit,
    index_insert,
    vma_attach,
    vma_dup,
    vma_free,
)
from benchframe.mm.layout import MM, PAGE, PAGE_SHIFT, PMD_SIZE, PTE, PTRS_PER_TABLE, TASK, VMA
from benchframe.mm.memory import ZAP, change_range
from benchframe.mm.pagetable import (
    free_pgtables,
    next_step,
    pmd_alloc,
    pmd_slot,
    pte_alloc,
    spin_lock,
    spin_unlock,
    table_alloc,
    table_free,
)
from benchframe.mm.vma import anon_vma_fork, anon_vma_new, list_insert, unlink_anon_vmas, vma_alloc, vma_linked


@native
def task_init(mm, task):
    """A task begins in ``mm``, with an empty cache and zeroed counters (copy_process)."""
    t = TASK(mm, task)
    t.mm = mm.id
    t.mm_version = -1
    t.speculative = 0
    t.vmacache_seqnum = 0
    t.vmacache0 = NULL
    t.vmacache1 = NULL
    t.vmacache2 = NULL
    t.vmacache3 = NULL
    t.strategy0 = 0
    t.strategy1 = 0
    cache_task_init(mm, task)
    return 0


@native
def mm_init(mm):
    """Set up an empty address space in a record whose parameters are set: 0, or 1 if there is no page for the top
    table."""
    mm.mm_rb = NULL
    mm.mmap_cache = NULL
    mm.mmap_lock = 0
    mm.mmap_lock_tail = 0
    mm.mmap_lock_head = 0
    mm.mm_count = 1
    mm.vma_writer_wait = 0
    mm.version = 0
    mm.vmacache_seqnum = 0
    mm.mm_lock_seq = 1
    mm.owner = 0
    mm.mmap = NULL
    mm.last_vma = NULL
    mm.map_count = 0
    mm.hole_hint = mm.mmap_base
    mm.hole_size = 0
    mm.nr_ptes = 0
    mm.rss = 0
    mm.strategy0 = 0
    mm.strategy1 = 0
    mm.strategy2 = 0
    mm.strategy3 = 0
    mm.pgd = table_alloc(mm)
    cache_mm_init(mm)
    return mm.pgd == NULL


@native
def mm_new(mm, new):
    """An empty mm at index ``new`` of MM with ``mm``'s parameters (exec, fork): ``new``, or NULL without memory."""
    m = MM(mm, new)
    m.mm_base = mm.mm_base
    m.vma_base = mm.vma_base
    m.page_base = mm.page_base
    m.pte_base = mm.pte_base
    m.task_base = mm.task_base
    m.file_base = mm.file_base
    m.slab_base = mm.slab_base
    m.freed_base = mm.freed_base
    m.event_base = mm.event_base
    m.answer_base = mm.answer_base
    m.sample_base = mm.sample_base
    m.private0_base = mm.private0_base
    m.private1_base = mm.private1_base
    m.private2_base = mm.private2_base
    m.private3_base = mm.private3_base
    m.private4_base = mm.private4_base
    m.private5_base = mm.private5_base
    m.hook_entry = mm.hook_entry
    m.mapping_entry = mm.mapping_entry
    m.hook_mask = mm.hook_mask
    m.zero_page = mm.zero_page
    m.mmap_base = mm.mmap_base
    m.start_brk = mm.start_brk
    m.brk = mm.brk
    m.start_stack = mm.start_stack
    m.def_flags = 0
    m.task_size = mm.task_size
    m.max_map_count = mm.max_map_count
    m.mmap_min_addr = mm.mmap_min_addr
    m.stack_limit = mm.stack_limit
    m.stack_guard_gap = mm.stack_guard_gap
    m.rules = mm.rules
    m.fault_around = mm.fault_around
    m.thp = mm.thp
    m.crew_base = mm.crew_base
    m.id = new
    m.error = 0
    m.nr_invalidations = 0
    m.nr_splits = 0
    m.nr_merges = 0
    if mm_init(m) != 0:
        return NULL
    return new


@native
def copy_range(mm, child, start, end, shared):
    """Give the child the entries of [start, end); private ones lose write permission in BOTH (copy_page_range)."""
    addr = start
    while addr < end:
        pmd = pmd_slot(mm, addr)
        if pmd == 0:
            addr = next_step(mm, addr, end)
            continue
        stop = min(end, (addr & ~(PMD_SIZE - 1)) + PMD_SIZE)
        upper = PTE(mm, pmd).entry
        if upper & E_PSE:
            target = pmd_alloc(child, addr)
            if target == 0:
                return 1
            if not shared:
                upper &= ~E_RW
            PTE(mm, pmd).entry = upper
            PTE(child, target).entry = upper
            if not PAGE(mm, upper >> 12).flags & PG_RESERVED:
                PAGE(mm, upper >> 12).mapcount += 1
                PAGE(mm, upper >> 12).refcount += 1
            child.rss += PTRS_PER_TABLE
        elif upper != 0:
            target = pmd_alloc(child, addr)
            if target == 0:
                return 1
            table = pte_alloc(child, target)
            if table == NULL:
                return 1
            copy_table(mm, child, upper >> 12, table, (addr >> PAGE_SHIFT) & 511, (stop - addr) >> PAGE_SHIFT, shared)
        addr = stop
    return 0


@native
def copy_table(mm, child, source, target, first, count, shared):
    """``count`` entries of one PTE page, from index ``first``, under the parent's ptl."""
    spin_lock(mm, source)
    present = 0
    index = first
    while index < first + count:
        entry = PTE(mm, source * PTRS_PER_TABLE + index).entry
        if entry != 0:
            if not shared:
                entry &= ~E_RW
                PTE(mm, source * PTRS_PER_TABLE + index).entry = entry
            PTE(mm, target * PTRS_PER_TABLE + index).entry = entry
            if not entry & (E_FILE | E_GUARD) and not PAGE(mm, entry >> 12).flags & PG_RESERVED:
                PAGE(mm, entry >> 12).mapcount += 1
                PAGE(mm, entry >> 12).refcount += 1
            if entry & E_PRESENT:
                present += 1
        index += 1
    PAGE(mm, target).nr_present += present
    child.rss += present
    spin_unlock(mm, source)
    return 0


@native
def dup_mmap(mm, new, child_task):
    """fork(2): a copy of ``mm`` at index ``new`` of MM for ``child_task``. ``new``, or NULL if a slab ran out.

    Copies VMAs in address order: it skips VM_DONTCOPY ones, drops VM_LOCKED and userfaultfds, and makes VM_WIPEONFORK
    ones empty. A VMA with an anon_vma gets one of its own, linked to the parent's chain, which is then no longer
    singular; this prevents some merges. Tables are copied only where there are anonymous pages; file pages fault in
    again. Caller holds mmap_lock.
    """
    if mm_new(mm, new) == NULL:
        return NULL
    child = MM(mm, new)
    copied = index_dup(mm, new)
    vma = mm.mmap
    prev = NULL
    while vma != NULL:
        v = VMA(mm, vma)
        following = v.vm_next
        vma_dup(mm, vma)
        if not v.vm_flags & VM_DONTCOPY:
            copy = vma_alloc(child, v.vm_start, v.vm_end)
            if copy == NULL:
                return NULL
            c = VMA(mm, copy)
            c.vm_flags = v.vm_flags & ~(VM_LOCKED | VM_LOCKONFAULT | VM_USERFAULTFD)
            c.vm_file = v.vm_file
            c.vm_pgoff = v.vm_pgoff
            if v.anon_vma != 0 and not v.vm_flags & VM_WIPEONFORK:
                c.anon_vma = anon_vma_new(mm)
                c.anon_vma_chain = v.anon_vma_chain + 1
                anon_vma_fork(mm, copy, vma)
            vma_attach(child, copy)
            list_insert(child, copy, prev)
            if copied != 2:
                index_insert(child, copy)
            vma_linked(child, copy)
            prev = copy
            if (v.anon_vma != 0 or v.vm_flags & VM_GUARD) and not v.vm_flags & VM_WIPEONFORK:
                if copy_range(mm, child, v.vm_start, v.vm_end, v.vm_flags & VM_SHARED) != 0:
                    return NULL
        elif copied == 1:
            index_erase_range(child, v.vm_start, v.vm_end)
        vma = following
    if copied == 2:
        index_bulk(child)
    flush_tlb(mm, 0, mm.task_size)
    task_init(child, child_task)
    return new


@native
def mmgrab(mm):
    """Take a reference to the record; it does not keep the address space alive."""
    fetch_add(mm, "mm_count", 1)
    return 0


@native
def mmdrop(mm):
    """Drop a reference; the last one frees the record."""
    if fetch_add(mm, "mm_count", -1) == 1:
        return mm_free(mm)
    return 0


@native
def mm_free(mm):
    """__mmdrop. The trace numbers the records in MM, so native runs have nothing to free; the checker ends the record's
    life."""
    return 0


@native
def free_all_pgtables(mm):
    """Free every table of an address space that ends, from the lowest VMA up; close neighbours together (free_pgtables
    of mm/memory.c). There are no tables between distant VMAs, so that range is not walked."""
    vma = mm.mmap
    while vma != NULL:
        start = VMA(mm, vma).vm_start
        end = VMA(mm, vma).vm_end
        vma = VMA(mm, vma).vm_next
        while vma != NULL and VMA(mm, vma).vm_start <= end + PMD_SIZE:
            end = VMA(mm, vma).vm_end
            vma = VMA(mm, vma).vm_next
        ceiling = 0
        if vma != NULL:
            ceiling = VMA(mm, vma).vm_start
        free_pgtables(mm, start, end, 0, ceiling)
    return 0


@native
def exit_mmap(mm):
    """The last task has ended: zap everything, free all tables and VMAs. No lookup can happen any more."""
    cache_mm_exit(mm)
    vma = mm.mmap
    while vma != NULL:
        v = VMA(mm, vma)
        change_range(mm, mm.owner, v.vm_start, v.vm_end, ZAP, 0)
        vma = v.vm_next
    free_all_pgtables(mm)
    index_exit(mm)
    vma = mm.mmap
    while vma != NULL:
        following = VMA(mm, vma).vm_next
        unlink_anon_vmas(mm, vma)
        vma_free(mm, vma)
        vma = following
    mm.mmap = NULL
    mm.last_vma = NULL
    mm.mm_rb = NULL
    mm.map_count = 0
    table_free(mm, mm.pgd)
    mm.pgd = 0
    return 0
