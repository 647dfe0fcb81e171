"""The sorted array with its keys also in Eytzinger order: a yardstick for lookups that branch prediction cannot help.

Layout: the block of `sorted_array`, and beside it the same keys in the order in which a breadth-first walk of the
implicit search tree meets them. Node k's children are 2k and 2k + 1, so the first levels share a few cache lines, and
the next level's addresses are known without a compare.
```
  sorted   10 20 30 40 50 60 70        HEAP   1: 40    2: 20  3: 60    4: 10  5: 30  6: 50  7: 70
```
Lookup: log2(n + 1) steps down, each `2k + (key <= addr)`; the last node where it went left has the answer. The VMA's
number is beside the key: 16 bytes a node, four nodes to a cache line.

Update: as in `sorted_array`; the second order becomes stale. While it is stale, lookups do a binary search in the
sorted keys. A reader that finds n lookups done since the last change rebuilds the order, O(n); this pays off where
lookups outnumber changes.

Invariants, by number: 1 to 3 of `sorted_array`, and
  4. where the order is not stale, node k holds the key and VMA of its rank

Concurrency: readers hold mmap_lock for read, so nothing changes while a reader builds. Of several readers one builds
(cmpxchg on the state word), the others continue with binary search; the state is stored with release, read with
acquire.
Sources: Khuong, Morin, "Array layouts for comparison-based searching", ACM JEA 22, 2017.
"""

from benchframe.api import Field, Index, PrivateSlab, Strategy, hookimpl, native
from benchframe.kernel import ARENA_PRIVATE0, NULL, arena_alloc, cmpxchg, load_acquire, store_release
from benchframe_plugins.sorted_array import (
    ENTRY,
    FREE_BLOCK,
    KEY,
    MESSAGES,
    array_bisect,
    array_check,
    array_erase,
    array_exit,
    array_insert,
    array_resize,
)

HEAP = PrivateSlab(
    "heap",
    [
        Field("vm_end", "i8", "key of node k at block + k - 1", lock="the builder"),
        Field("vma", "i8", "its VMA", lock="the builder"),
    ],
    3,
    per_vma=4,
    fixed=4096,
)
STALE, BUILDING, READY = 0, 1, 2
"""mm.strategy2."""


@native
def eytzinger_changed(mm):
    """Mark the order as stale. Caller holds mmap_lock for write."""
    mm.strategy2 = STALE
    mm.strategy3 = 0
    return 0


@native
def heap_grow(mm):
    """Grow by one record, together with the keys."""
    return arena_alloc(mm, ARENA_PRIVATE0 + 3)


@native
def next_in_order(k, count):
    """The node after ``k`` in key order, in an implicit tree of ``count`` nodes; 0 after the last."""
    if 2 * k + 1 <= count:
        k = 2 * k + 1
        while 2 * k <= count:
            k = 2 * k
        return k
    while k & 1:
        k >>= 1
    return k >> 1


@native
def first_in_order(count):
    """The leftmost node: the largest power of two that is not above ``count``; 0 if there is none."""
    k = min(count, 1)
    while 2 * k <= count and k > 0:
        k = 2 * k
    return k


@native
def eytzinger_build(mm):
    """Write the keys in their second order. O(n). Caller holds mmap_lock for read and the state word."""
    base = mm.mm_rb - 1
    k = first_in_order(mm.strategy0)
    at = mm.mm_rb
    while k > 0:
        node = HEAP(mm, base + k)
        node.vm_end = KEY(mm, at).vm_end
        node.vma = ENTRY(mm, at).vma
        at += 1
        k = next_in_order(k, mm.strategy0)
    return 0


@native
def find_stale(mm, addr):
    """Binary search in the sorted keys; build the order if there were enough such lookups."""
    mm.strategy3 += 1
    if mm.strategy3 > mm.strategy0:
        if cmpxchg(mm, "strategy2", STALE, BUILDING) == STALE:
            eytzinger_build(mm)
            store_release(mm, "strategy2", READY)
    at = array_bisect(mm, addr)
    if at == mm.mm_rb + mm.strategy0:
        return NULL
    return ENTRY(mm, at).vma


@native
def eytzinger_find(mm, addr):
    """The first VMA with ``addr < vm_end``, NULL if none. O(log n)."""
    if load_acquire(mm, "strategy2") != READY:
        return find_stale(mm, addr)
    base = mm.mm_rb - 1
    count = mm.strategy0
    k = 1
    found = 0
    while k <= count:
        right = int(HEAP(mm, base + k).vm_end <= addr)
        if right == 0:
            found = k
        k = 2 * k + right
    if found == 0:
        return NULL
    return HEAP(mm, base + found).vma


@native
def eytzinger_check(mm):
    """0, or the number of the first broken invariant. O(n)."""
    broken = array_check(mm)
    if broken != 0 or mm.strategy2 != READY:
        return broken
    k = first_in_order(mm.strategy0)
    at = mm.mm_rb
    while k > 0:
        node = HEAP(mm, mm.mm_rb - 1 + k)
        if node.vm_end != KEY(mm, at).vm_end or node.vma != ENTRY(mm, at).vma:
            return 4
        at += 1
        k = next_in_order(k, mm.strategy0)
    return 0


@hookimpl
def benchframe_strategies():
    """The array with the second order."""
    index = Index(
        slabs=(KEY, ENTRY, FREE_BLOCK, HEAP),
        find=eytzinger_find,
        insert=array_insert,
        erase=array_erase,
        resize=array_resize,
        exit=array_exit,
        check=eytzinger_check,
        bind={"array_changed": eytzinger_changed, "array_more": heap_grow},
    )
    messages = {**MESSAGES, 4: "a node of the second order does not have the key and VMA of its rank"}
    summary = "binary search in Eytzinger order, built when it pays: a yardstick"
    return [Strategy("eytzinger", summary, index, check_messages=messages)]
