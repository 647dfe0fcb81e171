"""The RFC's cache repaired: one VMA per page-table page, found without mmap_lock, and none of the races B1 to B6.

The idea of `pmdcache` (RFC 3/4 of December 2009) stays: `page->cache` of a PTE page names the VMA last faulted there, a
user fault reads it without mmap_lock, holds it by `cache_access`, and writers wait for holders. These parts change:

  RCU     VMAs and page tables are freed by kfree_rcu. The walk, the load of page->cache and the hold lie in one
          rcu_read_lock section, so everything that they access still exists: B1 (a hold on a freed VMA) and B5 (a freed
          page table, or a huge page's entry taken for one) are gone. A hold that came too late only disturbs the count
          of a VMA that is out of use: the version check after it fails, and the hold is given back in the same section.
  wait    where it belongs: in vma_start_write, which the model calls before a VMA changes bounds or flags, moves, or
          goes. It waits for the holders of exactly that VMA (B3: as posted, a merge waited for the wrong one), and no
          signal ends it (B4).
  order   wait first, then clear page->cache over the VMA's whole old range. As posted the order was the reverse, and
          a fault under way could put the VMA back (B6); and a merge cleared the new range only, not that of the VMA
          that it frees (B2).
  anon    a fault in a private writable VMA without an anon_vma takes the lock: anon_vma_prepare looks at neighbours,
          which a holder of one VMA does not hold (the per-VMA locks of 6.4 have the same rule).
  mm      a task speculates in its own mm only (B7).

Why this suffices: a fault holds V and then finds mm->version unchanged since it last had the lock for read, so even.
Hold and check are an atomic and a load; the writer's are version++ and a load of cache_access: with full ordering one
of the two sees the other. Either the fault sees the new version and backs out, or the writer sees the hold and waits
before it changes V. So V does not change while it is held, no page table under it can be freed, and no check at commit
is needed. page->cache is set only under mmap_lock or a hold, and is cleared after the last holder has left and before V
changes; so only PTE pages of V's current range can point to V, and none does when V is freed.

Cost against `pmdcache`: RCU sections (nothing, or a counter), no checks at commit, one walk over a changed VMA's range
instead of the call's range. As there, every write cycle makes each task take the lock once. Stack growth happens under
mmap_lock for read and moves only the start down, which does not disturb holders of the VMA: no wait.
"""

from benchframe.api import Cache, Protocol, Strategy, hookimpl, native
from benchframe.kernel import (
    ARENA_TABLE,
    ARENA_VMA,
    COUNT_FALLBACK,
    COUNT_HIT,
    COUNT_LOOKUP,
    E_PSE,
    NULL,
    PAGE,
    PMD_SIZE,
    PTE,
    READ_ONCE,
    TASK,
    VM_SHARED,
    VM_WRITE,
    VMA,
    WRITE_ONCE,
    count,
    fetch_add,
    find_vma,
    kfree_rcu,
    next_step,
    pmd_slot,
    rcu_read_lock,
    rcu_read_unlock,
    read_lock,
    read_unlock,
    smp_mb,
    spin_lock,
    spin_unlock,
    wait_until,
    write_lock,
    write_unlock,
)
from benchframe_plugins.speculation import PART

# ---- the mm's version, as in RFC 2/4 ---------------------------------------------------------------------------------


@native
def mm_write_lock(mm, task):
    """down_write, then make the version odd, before any change."""
    write_lock(mm, task)
    fetch_add(mm, "version", 1)
    return 0


@native
def mm_write_unlock(mm, task):
    """Make the version even, then up_write."""
    fetch_add(mm, "version", 1)
    write_unlock(mm, task)
    return 0


@native
def mm_read_lock(mm, task):
    """down_read; the task has now seen this version."""
    read_lock(mm, task)
    t = TASK(mm, task)
    if t.mm == mm.id:
        t.mm_version = READ_ONCE(mm, "version")
    return 0


@native
def mm_version_check(mm, task):
    """Whether no writer came since the task last held the lock for read. False for another mm than the task's own."""
    t = TASK(mm, task)
    return t.mm == mm.id and t.mm_version == READ_ONCE(mm, "version")


# ---- holders ---------------------------------------------------------------------------------------------------------


@native
def vma_hold(mm, vma):
    """Add a holder; a full barrier."""
    fetch_add(VMA(mm, vma), "cache_access", 1)
    return 0


@native
def vma_release(mm, vma):
    """Remove a holder; a waiting writer sees it."""
    fetch_add(VMA(mm, vma), "cache_access", -1)
    return 0


@native
def start_write(mm, vma):
    """``vma`` is about to change or be freed: wait for its holders, then remove it from every PTE page's cache."""
    if mm.version & 1:
        smp_mb()
        wait_until(VMA(mm, vma), "cache_access", -1, 0)
        forget(mm, vma)
    return 0


@native
def forget(mm, vma):
    """Clear page->cache wherever it is ``vma``, which is possible only in its range."""
    v = VMA(mm, vma)
    address = v.vm_start
    end = v.vm_end
    while address < end:
        pmd = pmd_slot(mm, address)
        if pmd == 0:
            address = next_step(mm, address, end)
            continue
        entry = PTE(mm, pmd).entry
        if entry != 0 and not entry & E_PSE:
            table = entry >> 12
            spin_lock(mm, table)
            if PAGE(mm, table).cache == vma:
                WRITE_ONCE(PAGE(mm, table), "cache", NULL)
            spin_unlock(mm, table)
            mm.nr_invalidations += 1
        address = min(end, (address & ~(PMD_SIZE - 1)) + PMD_SIZE)
    return 0


@native
def update(mm, table, vma):
    """``page->cache = vma``; the PTE lock is held, and ``vma`` by mmap_lock or by a hold."""
    WRITE_ONCE(PAGE(mm, table), "cache", vma)
    return 0


@native
def table_prepared(mm, table):
    """A new page table names no VMA."""
    PAGE(mm, table).cache = NULL
    return 0


@native
def free_vma(mm, vma):
    """The VMA is out of every structure; readers under RCU may still look at it."""
    return kfree_rcu(mm, ARENA_VMA, vma)


@native
def release_table(mm, table):
    """The same for a page table."""
    return kfree_rcu(mm, ARENA_TABLE, table)


# ---- the speculative fault -------------------------------------------------------------------------------------------


@native
def cached_vma(mm, address):
    """The VMA that the PTE page of ``address`` names; NULL if there is no PTE page. Caller is in an RCU section."""
    pmd = pmd_slot(mm, address)
    if pmd == 0:
        return NULL
    entry = PTE(mm, pmd).entry
    if entry == 0 or entry & E_PSE:
        return NULL
    return READ_ONCE(PAGE(mm, entry >> 12), "cache")


@native
def usable(mm, task, vma, addr):
    """With ``vma`` held: there was no writer, it covers ``addr``, and the fault will not need its neighbours."""
    if not mm_version_check(mm, task):
        return 0
    v = VMA(mm, vma)
    if v.vm_start > addr or addr >= v.vm_end:
        return 0
    return v.anon_vma != 0 or (v.vm_flags & (VM_WRITE | VM_SHARED)) != VM_WRITE


@native
def get_speculative(mm, task, addr):
    """The cached VMA, held; else mmap_lock and find_vma."""
    if mm_version_check(mm, task):
        rcu_read_lock(mm, task)
        vma = cached_vma(mm, addr)
        if vma != NULL:
            vma_hold(mm, vma)
            if usable(mm, task, vma, addr):
                rcu_read_unlock(mm, task)
                count(mm, task, COUNT_LOOKUP)
                count(mm, task, COUNT_HIT)
                TASK(mm, task).speculative = 1
                return vma
            vma_release(mm, vma)
        rcu_read_unlock(mm, task)
    count(mm, task, COUNT_FALLBACK)
    return get_locked(mm, task, addr)


@native
def get_locked(mm, task, addr):
    """mmap_lock for read, then find_vma."""
    TASK(mm, task).speculative = 0
    mm_read_lock(mm, task)
    return find_vma(mm, task, addr)


@native
def put(mm, task, vma):
    """Release the VMA, or mmap_lock."""
    t = TASK(mm, task)
    if t.speculative:
        t.speculative = 0
        return vma_release(mm, vma)
    return read_unlock(mm, task)


@hookimpl
def benchframe_strategies():
    """The repaired strategy, over the plain rb-tree."""
    cache = Cache(fault=update, table_prepared=table_prepared)
    protocol = Protocol(
        mmap_write_lock=mm_write_lock,
        mmap_write_unlock=mm_write_unlock,
        mmap_read_lock=mm_read_lock,
        mmap_read_unlock=read_unlock,
        vma_get=get_speculative,
        vma_get_locked=get_locked,
        vma_put=put,
        vma_start_write=start_write,
        vma_free=free_vma,
        table_release=release_table,
    )
    return [
        Strategy(
            "pmdcache_rcu",
            "pmdcache repaired: RCU-freed VMAs and tables, writers wait for each VMA they change",
            index="rbtree",
            cache=cache,
            protocol=protocol,
            scenarios=(PART,),
        )
    ]
