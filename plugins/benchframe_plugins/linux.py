"""The index, cache and protocol of given kernel versions, under the version's name.

```
                 index                           cache            fault holds
linux-2.4.0      AVL tree from 32 VMAs, list     mmap_cache       mmap_sem, a mutex: one fault at a time
linux-2.6.32     red-black tree                  mmap_cache       mmap_sem for read
linux-3.10       red-black tree with gaps        mmap_cache       mmap_sem for read
linux-3.15       red-black tree with gaps        vmacache, page   mmap_sem for read
linux-5.10       red-black tree with gaps        vmacache, 2 MiB  mmap_lock for read
linux-6.1        maple tree                      none             mmap_lock for read
linux-6.4        maple tree, RCU mode            none             the VMA's rw_semaphore, else mmap_lock
linux-6.12       as linux-6.4; fork copies the tree
linux-6.15       maple tree, RCU mode            none             a reference to the VMA, else mmap_lock
linux-6.18       as linux-6.15; /proc/PID/maps is read under one VMA's lock after another, MADV_DONTNEED and MADV_FREE
                 hold one VMA's, before mmap_lock
linux-7.2        as linux-6.18; the maple tree splits and joins nodes by struct maple_copy
```
Which maple tree: after a store the nodes are those of lib/maple_tree.c of 6.1 and of 6.12 alike, in linux-7.2 those of
7.2 (`make kernel-judge`; 7.0 and 7.1 have not been compared). linux-6.1 rewrites a leaf in place; from linux-6.4 on it
is replaced, since 6.3 set RCU mode. In all of them a replaced node is marked dead after its replacement is visible, as
since 6.6. fork copies the tree from linux-6.12 on (__mt_dup, 6.8); before, it stores the child's VMAs in bulk mode
(mas_expected_entries).

From linux-2.6.32 on VMAs and maple nodes come from the kernel's allocator: SLUB's freelists per CPU (`slub`), from
linux-6.18 on sheaves (`sheaves`). 2.4.0 had SLAB, which is not modelled: there they cost nothing. The maple trees ask
for the nodes of a store beforehand, as 6.12 does; 6.1 asked for the worst case before every store.

mmap_sem became a rw_semaphore in 2.4.3; `avl_2_4` itself corresponds to 2.4.3 to 2.4.9, with concurrent faults. Only
the lookup is that kernel's. System calls, merging, limits and page faults are the model's for every strategy, so that a
difference in a table is the lookup's. 3.15 counted its sequence with 32 bits: no run is long enough to see it
(`vmacache_32` has a counter that is). 2.6.32's hole search remembered where it last succeeded, 2.4.0's walked the list
from the bottom; here both use the model's own search, since every strategy must give the same answer.

But for the allocator each uses the code of another strategy under a new name (2.4.0 with the mutex): see `avl_2_4`,
`mmap_cache`, `rbtree_gap`, `vmacache`, `vmacache_pmd`, `maple`, `maple_copy`, `per_vma_rwsem`, `per_vma_refcnt` for
layout, cost, points of invalidation and sources.
Sources: mm/mmap.c and mm/vmacache.c of the versions named, 2.4.0 arch/i386/mm/fault.c.
"""

from benchframe.api import Cache, Protocol, Strategy, hookimpl
from benchframe.kernel import write_lock, write_unlock
from benchframe_plugins import avl, maple, mmap_cache, per_vma_refcnt, per_vma_rwsem, rbtree, sheaves, slub, vmacache

MUTEX = Protocol(mmap_read_lock=write_lock, mmap_read_unlock=write_unlock)
"""2.4.0: both do_page_fault and the calls do `down(&mm->mmap_sem)` (arch/i386/mm/fault.c, mm/mmap.c)."""


def last_found() -> Cache:
    """mmap_cache as in 2.2 to 3.14."""
    return Cache(
        find=mmap_cache.find_cached,
        store=mmap_cache.store,
        detached=mmap_cache.detached,
        unlinked=mmap_cache.unlinked,
        mm_exit=mmap_cache.mm_exit,
    )


@hookimpl
def benchframe_strategies():
    """Eleven kernels."""
    gaps, slots = rbtree.augmented, vmacache.vmacache
    made = [
        ("linux-2.4.0", "AVL tree from 32 VMAs on, mmap_cache", avl.hybrid, last_found(), avl.MESSAGES),
        ("linux-2.6.32", "red-black tree, mmap_cache", rbtree.plain, last_found(), rbtree.MESSAGES),
        ("linux-3.10", "red-black tree with gaps, mmap_cache", gaps, last_found(), rbtree.MESSAGES),
        ("linux-3.15", "red-black tree with gaps, vmacache by page", gaps, slots(), rbtree.MESSAGES),
        ("linux-5.10", "red-black tree with gaps, vmacache by 2 MiB region", gaps, slots(pmd=True), rbtree.MESSAGES),
        ("linux-6.1", "maple tree", maple.maple(preallocate=True), None, maple.MESSAGES),
    ]
    kernels = [
        Strategy(
            name,
            what,
            index,
            cache,
            MUTEX if name == "linux-2.4.0" else None,
            None if name == "linux-2.4.0" else slub.freelists(),
            check_messages=messages,
            known_bugs=(maple.HALF_WRITTEN,) if name == "linux-6.1" else (),
        )
        for name, what, index, cache, messages in made
    ]
    locks = [
        ("linux-6.4", "maple tree, a lock per VMA", per_vma_rwsem.protocol()),
        ("linux-6.12", "maple tree, a lock per VMA", per_vma_rwsem.protocol()),
        (
            "linux-6.15",
            "maple tree, a reference count per VMA as its lock",
            per_vma_refcnt.protocol(**dict.fromkeys(per_vma_refcnt.SINCE_6_17)),
        ),
        ("linux-6.18", "as 6.15, and maps are read, and pages given up, under VMAs' locks", per_vma_refcnt.protocol()),
        ("linux-7.2", "as 6.18, and the maple tree splits and joins by struct maple_copy", per_vma_refcnt.protocol()),
    ]
    for name, what, protocol in locks:
        rcu = maple.maple(rcu=True, dup=name != "linux-6.4", preallocate=True, copy=name == "linux-7.2")
        given = sheaves.sheaves() if name in ("linux-6.18", "linux-7.2") else slub.freelists()
        kernels.append(Strategy(name, what, rcu, protocol=protocol, allocator=given, check_messages=maple.MESSAGES))
    return kernels
