"""The cache of the RFC of 2009: the last-faulted VMA, in the struct page of the page-table page, read without
mmap_lock. Never merged.

KAMEZAWA Hiroyuki, "[RFC 3/4] lockless vma caching", 18 Dec 2009, with patches 2/4 (mm version) and 4/4 (speculative
page fault) of the series, on the rb-tree of 2.6.32. Names are the patch's.

Layout: `page->cache` (in a union with index and freelist) of each PTE page: one VMA per 2 MiB of address space. Each
VMA has `cache_access`, the number of holders, and `cache_wait`, where a writer waits for them. `mm->version` is odd
while mmap_lock is held for write; `task->mm_version` is its value when the task last held the lock for read.

Lookup (a user fault): mm_version_check, walk pgd, pud, pmd; `page->cache`; vma_hold; mm_version_check again and the
containing test; the fault runs; vma_release. If a check fails: release, mmap_lock, find_vma. After ANY write-lock cycle
each task must take the lock once before it may speculate again.

Update: update_vma_cache under the PTE lock at six sites of mm/memory.c (reuse, copy, swap-in, anonymous, file,
access flag). The last writer wins: two VMAs in one 2 MiB region evict each other.

Invalidation: invalidate_vma_cache_range clears `page->cache` of every PTE page in the range, under its lock, in
vma_merge, do_munmap and do_brk; vma_merge and do_munmap then wait_vmas_cache_access. prep_new_page clears
`page->cache`. __vma_link_rb and copy_vma reset the holders.

Differences from the patch: if a speculative fault fails there (SIGSEGV, SIGBUS, no memory), do_page_fault releases a
mmap_sem that it has not taken, or returns with the VMA held for ever, so that the next munmap hangs (B30). Here each
fault ends in `put`. The check after the work is also made for major faults (4/4: only for minor ones), and before a
page table is allocated (4/4: not; one can be missing there only after B4 or B5).

Cost: three table entries, the struct page, the VMA's line, two atomics on the VMA, the mm's and the task's version.
A range of n bytes costs one lock and one store per 2 MiB that has a PTE page.

As posted it has bugs, which are kept here:
  B1  lookup loads page->cache and takes the reference later; munmap frees in between (no RCU)
  B2  vma_merge invalidates only the new range: the range of a VMA that the merge frees still points to it
  B3  vma_merge waits from `next` on, not for the VMA it frees
  B4  the wait is interruptible and its result is ignored
  B5  the pmd is read without protection; of a huge page, or a freed and reused table, index is taken for a VMA
  B6  do_anonymous_page does not re-check and may put a VMA back after its invalidation
  B7  mm_version_check succeeds for an mm that is not the caller's
and one that is in no mail and was found by `benchframe check --scenario fault-mprotect-part`:
  refused  mprotect splits a VMA and changes its flags without waiting for its holders, and a fault that is refused does
      not check the version again: a write that is allowed before, meanwhile and after gets SIGSEGV
Under the kernel's memory model (`benchframe check --memory lkmm`; W8 puts these bugs into the repaired strategy) also:
  W8  vma_hold is atomic_inc, which orders nothing: the second check of the version may happen before the hold is
      visible, so the writer finds no holder and frees a VMA that is in use. This alone is a use after free
  W8  `int version` is changed and read without barriers: a writer's changes may be visible before the version is odd,
      and be loaded before the version is read. Shown only together with the wait's missing full barrier or with the
      hold; on x86 the locked instruction of atomic_inc hides both
B2 needs no second thread: if a merge frees a VMA that spans several PTE pages, the first lookup there takes the slow
path and is right (the version has changed), but the next ones find the freed record with its old bounds. A run shows
such a cell as wrong.
Sources: the four mails of 18 Dec 2009 (20091218093849.8ba69ad9.kamezawa.hiroyu@jp.fujitsu.com) and Kamezawa's and
Minchan Kim's replies.
"""

from benchframe.api import Cache, Protocol, Strategy, hookimpl, native
from benchframe.kernel import (
    COUNT_FALLBACK,
    COUNT_HIT,
    COUNT_LOOKUP,
    NULL,
    PAGE,
    PG_RESERVED,
    PMD_SIZE,
    PTE,
    SITE_ANON,
    SITE_REFUSED,
    TASK,
    VMA,
    count,
    fetch_add,
    fetch_add_relaxed,
    find_vma,
    next_step,
    pmd_slot,
    read_lock,
    read_unlock,
    spin_lock,
    spin_unlock,
    wait_interruptible,
    write_lock,
    write_unlock,
)
from benchframe_plugins.races.known import KNOWN_BUGS
from benchframe_plugins.speculation import PART

# ---- 2/4: mm event counter -------------------------------------------------------------------------------------------


@native
def mm_write_lock(mm, task):
    """down_write, then make the version odd."""
    write_lock(mm, task)
    mm.version += 1
    return 0


@native
def mm_write_unlock(mm, task):
    """Make the version even, then up_write."""
    mm.version += 1
    write_unlock(mm, task)
    return 0


@native
def mm_read_lock(mm, task):
    """down_read; the task has now seen this version."""
    read_lock(mm, task)
    t = TASK(mm, task)
    if t.mm == mm.id:
        t.mm_version = mm.version
    return 0


@native
def mm_version_check(mm, task):
    """0 if there was a writer since the task last held the lock for read. 1 for any other mm (B7)."""
    t = TASK(mm, task)
    return t.mm != mm.id or t.mm_version == mm.version


# ---- 3/4: the cache --------------------------------------------------------------------------------------------------


@native
def vma_hold(mm, vma):
    """Add a holder: atomic_inc, which orders nothing."""
    fetch_add_relaxed(VMA(mm, vma), "cache_access", 1)
    return 0


@native
def __vma_release(mm, vma):
    """wake_up(&vma->cache_wait): the waiters check again."""
    VMA(mm, vma).cache_wait = 0
    return 0


@native
def vma_release(mm, vma):
    """Remove a holder; the last one wakes a waiting writer."""
    v = VMA(mm, vma)
    if fetch_add(v, "cache_access", -1) == 1:
        if v.cache_wait != 0:
            __vma_release(mm, vma)
    return 0


@native
def lookup_vma_cache(mm, address):
    """The VMA cached for ``address``'s 2 MiB, held; NULL if a table is missing or nothing is cached. The caller must
    check its range."""
    pmd = pmd_slot(mm, address)
    if pmd == 0:
        return NULL
    entry = PTE(mm, pmd).entry
    if entry == 0:
        return NULL
    page = PAGE(mm, entry >> 12)
    if page.flags & PG_RESERVED:
        return NULL
    vma = page.cache
    if vma != NULL:
        vma_hold(mm, vma)
    return vma


@native
def update_vma_cache(mm, table, vma):
    """``page->cache = vma``; the PTE lock is held."""
    PAGE(mm, table).cache = vma
    return 0


@native
def invalidate_vma_cache_range(mm, start, end):
    """Clear page->cache of every PTE page in [start, end), each under its PTE lock."""
    address = start
    while address < end:
        pmd = pmd_slot(mm, address)
        if pmd == 0:
            address = next_step(mm, address, end)
            continue
        entry = PTE(mm, pmd).entry
        if entry != 0:
            spin_lock(mm, entry >> 12)
            PAGE(mm, entry >> 12).cache = NULL
            spin_unlock(mm, entry >> 12)
            mm.nr_invalidations += 1
        address = min(end, (address & ~(PMD_SIZE - 1)) + PMD_SIZE)
    return 0


@native
def wait_vmas_cache_access(mm, vma, end):
    """Wait until ``vma``, and every later VMA that begins below ``end``, has no holders. Called under mm_write_lock.

    Uses wait_event_interruptible, and no caller checks whether a signal ended it (B4).
    """
    while vma != NULL and VMA(mm, vma).vm_start < end:
        v = VMA(mm, vma)
        if v.cache_access != 0:
            v.cache_wait = 1
            wait_interruptible(v, "cache_access", -1, 0)
        vma = VMA(mm, vma).vm_next
    return 0


@native
def before_merge(mm, start, end, next_vma):
    """The hook in vma_merge."""
    invalidate_vma_cache_range(mm, start, end)
    return wait_vmas_cache_access(mm, next_vma, end)


@native
def before_munmap(mm, start, end, vma):
    """The hook in do_munmap."""
    invalidate_vma_cache_range(mm, start, end)
    return wait_vmas_cache_access(mm, vma, end)


@native
def reset_holders(mm, vma):
    """__vma_link_rb and copy_vma: atomic_set(&vma->cache_access, 0)."""
    VMA(mm, vma).cache_access = 0
    VMA(mm, vma).cache_wait = 0
    return 0


@native
def prep_new_page(mm, table):
    """``page->cache = NULL`` for a page that becomes a page table."""
    PAGE(mm, table).cache = NULL
    return 0


# ---- 4/4: the speculative fault --------------------------------------------------------------------------------------


@native
def get_speculative(mm, task, addr):
    """do_page_fault up to found_vma: speculate, or take mmap_lock and call find_vma."""
    t = TASK(mm, task)
    if mm_version_check(mm, task):
        vma = lookup_vma_cache(mm, addr)
        if vma != NULL:
            v = VMA(mm, vma)
            if mm_version_check(mm, task) and v.vm_start <= addr and addr < v.vm_end:
                count(mm, task, COUNT_LOOKUP)
                count(mm, task, COUNT_HIT)
                t.speculative = 1
                return vma
            vma_release(mm, vma)
    count(mm, task, COUNT_FALLBACK)
    return get_locked(mm, task, addr)


@native
def get_locked(mm, task, addr):
    """retry_with_lock."""
    TASK(mm, task).speculative = 0
    mm_read_lock(mm, task)
    return find_vma(mm, task, addr)


@native
def put(mm, task, vma):
    """The end of do_page_fault: vma_release, or release mmap_lock."""
    t = TASK(mm, task)
    if t.speculative:
        t.speculative = 0
        return vma_release(mm, vma)
    return read_unlock(mm, task)


RECHECKED = ~(1 << SITE_ANON | 1 << SITE_REFUSED)
"""The sites at which the patch re-checks, a bit each."""


@native
def test_valid_pte(mm, task, vma, site):
    """The patch's re-checks: a speculative fault commits only if no writer came. do_anonymous_page does not check, nor
    does the code that refuses an access."""
    if TASK(mm, task).speculative and RECHECKED >> site & 1:
        return mm_version_check(mm, task)
    return 1


@hookimpl
def benchframe_strategies():
    """The RFC's cache as posted, over the plain rb-tree."""
    cache = Cache(
        fault=update_vma_cache,
        merge=before_merge,
        munmap=before_munmap,
        brk=invalidate_vma_cache_range,
        linked=reset_holders,
        copied=reset_holders,
        table_prepared=prep_new_page,
    )
    protocol = Protocol(
        mmap_write_lock=mm_write_lock,
        mmap_write_unlock=mm_write_unlock,
        mmap_read_lock=mm_read_lock,
        mmap_read_unlock=read_unlock,
        vma_get=get_speculative,
        vma_get_locked=get_locked,
        vma_put=put,
        vma_valid=test_valid_pte,
    )
    return [
        Strategy(
            "pmdcache",
            "last-faulted VMA in the page-table page's struct page, RFC 3/4 of Dec 2009 as posted",
            index="rbtree",
            cache=cache,
            protocol=protocol,
            scenarios=(PART,),
            known_bugs=KNOWN_BUGS,
        )
    ]
