"""A sorted array and binary search: a yardstick that no kernel used; its lookup reads the least memory.

Layout: one dense block per mm. The keys are stored separately, eight to a cache line; the data that only updates need
is beside them.
```
  KEY    [ vm_end 0 | vm_end 1 | ... | vm_end n-1 |   free   ]   8 bytes each
  ENTRY  [ vma, vm_start 0 | ...                  |   free   ]   16 bytes each
           ^ block (mm_rb)                  strategy0 = n, strategy1 = log2 of the capacity
```
Lookup: the first key above addr, by binary search: log2(n) + 1 keys, the last three in one line; then its entry and its
VMA. The loop has no branch that depends on the data, so it costs no mispredictions, only load latency.

Update: all entries behind the position move up or down, 24 bytes each: O(n). A full block is replaced by one of twice
the size; old blocks are kept for reuse. Changed bounds are rewritten in place.

Invariants, by number:
  1. there are as many entries as VMAs on the list
  2. entry i is the i-th VMA of the list
  3. keys and starts are copies of the VMA's bounds

Concurrency: readers hold mmap_lock for read. While a merge grows one VMA over another, keys are out of order for a
moment; updates search by start, where order always holds.
Sources: Knuth, TAOCP vol. 3, 6.2.1 (binary search).
"""

from benchframe.api import Field, Index, PrivateSlab, Strategy, hook, hookimpl, native
from benchframe.kernel import ARENA_PRIVATE0, NULL, VMA, arena_alloc

KEY = PrivateSlab("key", [Field("vm_end", "i8", "end of the i-th VMA", lock="mmap_lock")], 0, per_vma=4, fixed=4096)
ENTRY = PrivateSlab(
    "entry",
    [
        Field("vma", "i8", "the VMA; in a free block's first entry the next one", lock="mmap_lock"),
        Field("vm_start", "i8", "", lock="mmap_lock"),
    ],
    1,
    per_vma=4,
    fixed=4096,
)
FREE_BLOCK = PrivateSlab(
    "free_block", [Field("block", "i8", "first free block of 2^i entries", lock="mmap_lock")], 2, 0, fixed=40
)
MIN_SHIFT = 5


@hook("index")
def array_more(mm):
    """The slabs grow by one entry; not NULL if there is room. For a slab that must grow together with these."""
    return 1


@native
def block_alloc(mm, shift):
    """The first index of 2^shift consecutive entries, NULL if the slab is full (then mm.error is set)."""
    free = FREE_BLOCK(mm, shift)
    block = free.block
    if block != NULL:
        free.block = ENTRY(mm, block).vma
        return block
    # Nothing is ever freed in these two arenas, so they hand out consecutive slots, in step.
    count = 0
    while count < 1 << shift:
        key = arena_alloc(mm, ARENA_PRIVATE0)
        if arena_alloc(mm, ARENA_PRIVATE0 + 1) == NULL or key == NULL or array_more(mm) == NULL:
            return NULL
        if count == 0:
            block = key
        count += 1
    return block


@native
def block_free(mm, block, shift):
    """Keep the block for the next request of this size."""
    free = FREE_BLOCK(mm, shift)
    ENTRY(mm, block).vma = free.block
    free.block = block
    return 0


@hook("index")
def array_changed(mm):
    """Keys or their number changed. Nothing to do in the plain array."""
    return 0


@native
def entry_move(mm, source, target):
    """Copy one entry with its key."""
    KEY(mm, target).vm_end = KEY(mm, source).vm_end
    s = ENTRY(mm, source)
    t = ENTRY(mm, target)
    t.vma = s.vma
    t.vm_start = s.vm_start
    return 0


@native
def entry_set(mm, at, vma):
    """Copy the VMA's bounds."""
    v = VMA(mm, vma)
    KEY(mm, at).vm_end = v.vm_end
    ENTRY(mm, at).vma = vma
    ENTRY(mm, at).vm_start = v.vm_start
    return 0


@native
def array_bisect(mm, addr):
    """Index of the first key above ``addr``; block + n if there is none. O(log n), the same number of steps for every
    address."""
    first = mm.mm_rb
    count = mm.strategy0
    if count == 0 or KEY(mm, first + count - 1).vm_end <= addr:
        return first + count
    while count > 1:
        half = count >> 1
        if KEY(mm, first + half - 1).vm_end <= addr:  # a conditional move: a branch would be mispredicted half the time
            first += half
        count -= half
    return first


@native
def array_find(mm, addr):
    """The first VMA with ``addr < vm_end``, NULL if none. O(log n)."""
    at = array_bisect(mm, addr)
    if at == mm.mm_rb + mm.strategy0:
        return NULL
    return ENTRY(mm, at).vma


@native
def array_place(mm, vm_start):
    """Index of the first entry that starts at or above ``vm_start``. O(log n)."""
    first = mm.mm_rb
    count = mm.strategy0
    while count > 0:
        half = count >> 1
        if ENTRY(mm, first + half).vm_start < vm_start:
            first += half + 1
            count -= half + 1
        else:
            count = half
    return first


@native
def array_locate(mm, vma, vm_start):
    """Index of ``vma``, which was inserted with ``vm_start``. Two entries share a start while a merge extends one over
    the other."""
    at = array_place(mm, vm_start)
    while ENTRY(mm, at).vma != vma:
        at += 1
    return at


@native
def array_grow(mm):
    """Move to a block of twice the size; 1 if there is no memory."""
    old = mm.mm_rb
    shift = max(mm.strategy1 + 1, MIN_SHIFT)
    block = block_alloc(mm, shift)
    if block == NULL:
        return 1
    at = 0
    while at < mm.strategy0:
        entry_move(mm, old + at, block + at)
        at += 1
    if old != NULL:
        block_free(mm, old, mm.strategy1)
    mm.mm_rb = block
    mm.strategy1 = shift
    return 0


@native
def array_insert(mm, vma):
    """Insert it at its position, moving the entries behind. O(n)."""
    if mm.mm_rb == NULL or mm.strategy0 == 1 << mm.strategy1:
        if array_grow(mm) != 0:
            return 1
    place = array_place(mm, VMA(mm, vma).vm_start)
    at = mm.mm_rb + mm.strategy0
    while at > place:
        entry_move(mm, at - 1, at)
        at -= 1
    entry_set(mm, place, vma)
    mm.strategy0 += 1
    array_changed(mm)
    return 0


@native
def array_erase(mm, vma):
    """Remove it, moving the entries behind. O(n)."""
    at = array_locate(mm, vma, VMA(mm, vma).vm_start)
    last = mm.mm_rb + mm.strategy0 - 1
    while at < last:
        entry_move(mm, at + 1, at)
        at += 1
    mm.strategy0 -= 1
    array_changed(mm)
    return 0


@native
def array_resize(mm, vma, old_start, old_end):
    """Rewrite its bounds in place. O(log n)."""
    entry_set(mm, array_locate(mm, vma, old_start), vma)
    array_changed(mm)
    return 0


@native
def array_exit(mm):
    """Free the block."""
    if mm.mm_rb != NULL:
        block_free(mm, mm.mm_rb, mm.strategy1)
    mm.mm_rb = NULL
    mm.strategy0 = 0
    mm.strategy1 = 0
    array_changed(mm)
    return 0


@native
def array_check(mm):
    """0, or the number of the first broken invariant. O(n)."""
    vma = mm.mmap
    at = mm.mm_rb
    end = at + mm.strategy0
    while vma != NULL and at < end:
        e = ENTRY(mm, at)
        if e.vma != vma:
            return 2
        if e.vm_start != VMA(mm, vma).vm_start or KEY(mm, at).vm_end != VMA(mm, vma).vm_end:
            return 3
        vma = VMA(mm, vma).vm_next
        at += 1
    if vma != NULL or at < end or mm.strategy0 > 1 << mm.strategy1:
        return 1
    return 0


MESSAGES = {
    1: "the number of entries differs from the number of VMAs",
    2: "the entries are not in the order of the list",
    3: "a key or start is not its VMA's",
}


@hookimpl
def benchframe_strategies():
    """The array alone."""
    index = Index(
        slabs=(KEY, ENTRY, FREE_BLOCK),
        find=array_find,
        insert=array_insert,
        erase=array_erase,
        resize=array_resize,
        exit=array_exit,
        check=array_check,
    )
    return [Strategy("sorted_array", "binary search in a dense array: a yardstick", index, check_messages=MESSAGES)]
