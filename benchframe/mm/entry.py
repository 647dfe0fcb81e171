"""What a fault does to one page-table entry: the kinds of do_pte_missing, do_swap_page and do_wp_page.

Every function is called with the PTE page's lock held and sets ``task.fault_kind``. ``cache_fault`` stands where the
seed had update_vma_cache: after a reuse, after a copy, after swap-in, after an anonymous page, after a file page,
and after an access-flag fix-up.
"""

from benchframe.dialect import NULL, native
from benchframe.mm.anon import anon_vma_prepare
from benchframe.mm.arena import page_alloc
from benchframe.mm.flags import (
    ACCESS_WRITE,
    DID_ACCESS,
    DID_ANON_READ,
    DID_ANON_WRITE,
    DID_FILE_COW,
    DID_FILE_READ,
    DID_FILE_SHARED,
    DID_SPURIOUS,
    DID_SWAP,
    DID_WP_COPY,
    DID_WP_REUSE,
    DID_WP_SHARED,
    E_ACCESSED,
    E_DIRTY,
    E_FILE,
    E_PRESENT,
    E_RW,
    E_SWAP,
    E_USER,
    FAULT_OOM,
    FAULT_RETRY,
    PAGE_ANON,
    PG_RESERVED,
    VM_RAND_READ,
    VM_SHARED,
    VM_WRITE,
)
from benchframe.mm.hooks import (
    SITE_ACCESS,
    SITE_ANON,
    SITE_FILE,
    SITE_SWAP,
    SITE_WP,
    cache_fault,
    copy_user_page,
    page_add_anon,
    vma_valid,
)
from benchframe.mm.layout import FILE, PAGE, PAGE_SHIFT, PAGE_SIZE, PTE, PTRS_PER_TABLE, TASK, VMA
from benchframe.mm.zap import add_rss, frame_put

PRESENT = E_PRESENT | E_USER | E_ACCESSED


@native
def anon_page(mm, task):
    """A fresh anonymous frame, mapped once; NULL if there is none (alloc_zeroed_user_highpage_movable)."""
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
    """An entry that was none becomes present."""
    PTE(mm, slot).entry = entry
    PAGE(mm, table).nr_present += 1
    add_rss(mm, 1)
    return 0


@native
def fill_none(mm, task, vma, table, slot, addr, access):
    """No entry yet: do_anonymous_page, or do_read_fault, do_cow_fault, do_shared_fault."""
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
        anon_vma_prepare(mm, vma)
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
    """A file read maps the pages around it that are in the page cache (do_fault_around): within the VMA, the file,
    the PTE page and the aligned window of ``mm.fault_around`` pages. The model's page cache holds everything."""
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
    """do_swap_page: the frame comes back, writable at once if this mapping is the only one."""
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
    """do_wp_page: a write to a present, read-only entry. Shared: made writable. Mapped once: reused. Else copied."""
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
        anon_vma_prepare(mm, vma)
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
    """The entry is good: accessed and dirty bits (ptep_set_access_flags), or a spurious fault."""
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
