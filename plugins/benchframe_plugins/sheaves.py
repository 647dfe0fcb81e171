"""Sheaves, 6.18: arrays of free objects, two for each CPU, and a barn of full and empty ones for each node, above SLUB.

An allocator, not a strategy: `linux-6.18` names it. Since 59faa4da7cd4 and 3accabda4da1 maple nodes and VMAs come from
sheaves of 32 objects.

```
alloc      the main sheaf; empty: the spare one; empty: a full one from the barn, under barn_lock, which gets the empty
           one; none: 32 objects from the slabs (__pcs_replace_empty_main, refill_sheaf)
free       the main sheaf; full: the spare one; full: an empty one from the barn, which gets the full one; has that ten
           full ones: the spare sheaf's objects go to the slabs (__pcs_replace_full_main, sheaf_flush_unused)
kfree_rcu  a third sheaf; full: it waits for a grace period whole, then goes to the barn as a full one; has that ten:
           its objects go to the slabs (__kfree_rcu_sheaf, rcu_free_sheaf)
prefill    the spare sheaf, or one from the barn, filled up (kmem_cache_prefill_sheaf); afterwards the spare again, or
           filled up and into the barn (kmem_cache_return_sheaf)
```
The slabs below are `slub`'s: in 6.18 a refill takes object by object from the CPU's freelist, and a flush groups
objects by slab (__kmem_cache_alloc_bulk, build_detached_freelist). An object of another node's is freed past the
sheaves.

``sheaves(rcu=False)`` is 59faa4da7cd4 alone: maple nodes come from sheaves, but are still freed by a callback each.

Differences to the kernel's: memory for a sheaf comes from a list of the CPU's own instead of kmalloc; an allocation
larger than a sheaf takes what is missing one by one.
Sources: Linux 6.18 mm/slub.c (MAX_FULL_SHEAVES, MAX_EMPTY_SHEAVES, and the functions named), lib/maple_tree.c
(mas_alloc_nodes, mas_destroy), commits 2d517aa09bbc and following.
"""

from benchframe.api import Allocator, native
from benchframe.kernel import (
    ARENA,
    ARENA_VMA,
    IN_SHEAF,
    KMEM,
    KMEM_CPU,
    KMEM_NODE,
    KMEM_OBJECT,
    KMEM_SHEAF,
    KMEM_SLAB,
    NULL,
    RCU_SLACK,
    READ_ONCE,
    SHEAF_CAPACITY,
    fetch_add,
    poll_state_synchronize_rcu,
    start_poll_synchronize_rcu,
    store_release,
    synchronize_rcu,
    wait_then_add,
)
from benchframe_plugins.slub import (
    alloc_from_node,
    node_of,
    rcu_advance,
    rcu_dequeue,
    rcu_enqueue,
    rcu_ready,
    slab_alloc,
    slab_free,
    slab_free_list,
    slub_alloc,
    slub_kfree_rcu,
    slub_prefill,
    slub_return,
)

MAX_FULL, MAX_EMPTY = 10, 10
"""MAX_FULL_SHEAVES, MAX_EMPTY_SHEAVES: sheaves of a barn."""
MISSES = 3
"""Objects of other slabs that a flush looks past (build_detached_freelist)."""

# ---- sheaves and the barn --------------------------------------------------------------------------------------------


@native
def alloc_empty_sheaf(k, cpu):
    """A sheaf without objects; NULL if there is no memory for one."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    sheaf = c.sheaves
    if sheaf != NULL:
        c.sheaves = KMEM_SHEAF(k, sheaf).next
    else:
        if READ_ONCE(k, "nr_sheaves") >= k.max_sheaves:
            return NULL
        sheaf = k.first_sheaf + fetch_add(k, "nr_sheaves", 1) + 1
    KMEM_SHEAF(k, sheaf).size = 0
    return sheaf


@native
def free_empty_sheaf(k, cpu, sheaf):
    """kfree of a sheaf."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    KMEM_SHEAF(k, sheaf).next = c.sheaves
    c.sheaves = sheaf
    return 0


@native
def lock_barn(n):
    """spin_lock_irqsave(&barn->lock)."""
    wait_then_add(n, "barn_lock", -1, 1)
    return 0


@native
def unlock_barn(n):
    """spin_unlock_irqrestore(&barn->lock)."""
    store_release(n, "barn_lock", 0)
    return 0


@native
def add_full(k, n, sheaf):
    """One more full sheaf, as the first (list_add): a write to the former first, too. Caller holds barn_lock."""
    first = n.full
    KMEM_SHEAF(k, sheaf).next = first
    KMEM_SHEAF(k, sheaf).prev = NULL
    if first != NULL:
        KMEM_SHEAF(k, first).prev = sheaf
    n.full = sheaf
    n.nr_full += 1
    return 0


@native
def add_empty(k, n, sheaf):
    """One more empty sheaf, likewise. Caller holds barn_lock."""
    first = n.empty
    KMEM_SHEAF(k, sheaf).next = first
    KMEM_SHEAF(k, sheaf).prev = NULL
    if first != NULL:
        KMEM_SHEAF(k, first).prev = sheaf
    n.empty = sheaf
    n.nr_empty += 1
    return 0


@native
def take_full(k, n):
    """The first full sheaf (list_del): a write to the second, too. NULL if there is none. Caller holds barn_lock."""
    sheaf = n.full
    if sheaf != NULL:
        second = KMEM_SHEAF(k, sheaf).next
        if second != NULL:
            KMEM_SHEAF(k, second).prev = NULL
        n.full = second
        n.nr_full -= 1
    return sheaf


@native
def take_empty(k, n):
    """The first empty sheaf, likewise. Caller holds barn_lock."""
    sheaf = n.empty
    if sheaf != NULL:
        second = KMEM_SHEAF(k, sheaf).next
        if second != NULL:
            KMEM_SHEAF(k, second).prev = NULL
        n.empty = second
        n.nr_empty -= 1
    return sheaf


@native
def barn_get_empty_sheaf(k, node):
    """An empty sheaf of the barn, NULL if it has none."""
    n = KMEM_NODE(k, node)
    if READ_ONCE(n, "nr_empty") == 0:
        return NULL
    lock_barn(n)
    sheaf = take_empty(k, n)
    unlock_barn(n)
    return sheaf


@native
def barn_get_full_or_empty_sheaf(k, node):
    """A full sheaf of the barn, else an empty one, else NULL."""
    n = KMEM_NODE(k, node)
    if READ_ONCE(n, "nr_full") == 0 and READ_ONCE(n, "nr_empty") == 0:
        return NULL
    lock_barn(n)
    sheaf = take_full(k, n)
    if sheaf == NULL:
        sheaf = take_empty(k, n)
    unlock_barn(n)
    return sheaf


@native
def barn_put_full_sheaf(k, node, sheaf):
    """Put a full sheaf into the barn, whatever it has."""
    n = KMEM_NODE(k, node)
    lock_barn(n)
    add_full(k, n, sheaf)
    unlock_barn(n)
    return 0


@native
def barn_put_empty_sheaf(k, node, sheaf):
    """Put an empty sheaf into the barn, whatever it has."""
    n = KMEM_NODE(k, node)
    lock_barn(n)
    add_empty(k, n, sheaf)
    unlock_barn(n)
    return 0


@native
def barn_replace_empty_sheaf(k, node, sheaf):
    """A full sheaf for an empty one; NULL, and nothing has happened, if the barn has none."""
    n = KMEM_NODE(k, node)
    if READ_ONCE(n, "nr_full") == 0:
        return NULL
    lock_barn(n)
    full = take_full(k, n)
    if full != NULL:
        add_empty(k, n, sheaf)
    unlock_barn(n)
    return full


@native
def barn_replace_full_sheaf(k, node, sheaf):
    """An empty sheaf for a full one; NULL, and nothing has happened, if the barn has none. Its full ones were
    counted."""
    n = KMEM_NODE(k, node)
    if READ_ONCE(n, "nr_empty") == 0:
        return NULL
    lock_barn(n)
    empty = take_empty(k, n)
    if empty != NULL:
        add_full(k, n, sheaf)
    unlock_barn(n)
    return empty


# ---- between sheaves and slabs ---------------------------------------------------------------------------------------


@native
def refill_sheaf(mm, k, cpu, which, sheaf):
    """Fill the sheaf from the slabs; 0 if they have not enough."""
    s = KMEM_SHEAF(k, sheaf)
    while s.size < SHEAF_CAPACITY:
        slot = slab_alloc(mm, cpu, which)
        if slot == NULL:
            return 0
        IN_SHEAF(k, sheaf * SHEAF_CAPACITY + s.size).slot = slot
        s.size += 1
    return 1


@native
def flush_sheaf(k, cpu, sheaf):
    """Free all objects of a sheaf into their slabs, those of one slab together (sheaf_flush_unused)."""
    s = KMEM_SHEAF(k, sheaf)
    first = sheaf * SHEAF_CAPACITY
    size = s.size
    while size > 0:
        size -= 1
        tail = IN_SHEAF(k, first + size).slot
        number = KMEM_OBJECT(k, k.first_object + tail).page
        head = tail
        count = 1
        misses = MISSES
        at = size - 1
        while at >= 0 and misses > 0:
            slot = IN_SHEAF(k, first + at).slot
            if KMEM_OBJECT(k, k.first_object + slot).page == number:
                KMEM_OBJECT(k, k.first_object + slot).next = head
                head = slot
                count += 1
                size -= 1
                if at != size:
                    IN_SHEAF(k, first + at).slot = IN_SHEAF(k, first + size).slot
            else:
                misses -= 1
            at -= 1
        slab_free_list(k, cpu, number, head, tail, count)
    s.size = 0
    return 0


# ---- allocate and free -----------------------------------------------------------------------------------------------


@native
def replace_empty_main(mm, k, cpu, which):
    """The main sheaf is empty, or there is none yet: get one with objects; NULL if memory is full."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    spare = c.spare
    if spare != NULL and KMEM_SHEAF(k, spare).size > 0:
        c.spare = c.main
        c.main = spare
        return spare
    node = node_of(k, cpu)
    if c.main != NULL:
        full = barn_replace_empty_sheaf(k, node, c.main)
        if full != NULL:
            c.main = full
            return full
    c.spare = NULL
    full = spare
    if full == NULL:
        full = barn_get_empty_sheaf(k, node)
    if full == NULL:
        full = alloc_empty_sheaf(k, cpu)
    if full == NULL:
        return NULL
    refill_sheaf(mm, k, cpu, which, full)
    if c.main != NULL:
        c.spare = c.main
    c.main = full
    if KMEM_SHEAF(k, full).size == 0:
        return NULL
    return full


@native
def take_from_sheaf(k, sheaf):
    """The last object of a sheaf that has one."""
    s = KMEM_SHEAF(k, sheaf)
    s.size -= 1
    return IN_SHEAF(k, sheaf * SHEAF_CAPACITY + s.size).slot


@native
def put_into_sheaf(k, sheaf, slot):
    """Add an object to a sheaf that has room. Returns its size."""
    s = KMEM_SHEAF(k, sheaf)
    IN_SHEAF(k, sheaf * SHEAF_CAPACITY + s.size).slot = slot
    s.size += 1
    return s.size


@native
def sheaf_alloc(mm, cpu, which):
    """kmem_cache_alloc (alloc_from_pcs, kmem_cache_alloc_from_sheaf)."""
    if cpu == 0:
        return alloc_from_node(mm, which)
    k = KMEM(ARENA(mm, 0), which)
    if k.sheaf_capacity == 0:
        return slab_alloc(mm, cpu, which)
    c = KMEM_CPU(k, k.first_cpu + cpu)
    sheaf = c.prefilled
    if sheaf == NULL or KMEM_SHEAF(k, sheaf).size == 0:
        sheaf = c.main
    if sheaf == NULL or KMEM_SHEAF(k, sheaf).size == 0:
        sheaf = replace_empty_main(mm, k, cpu, which)
        if sheaf == NULL:
            return slab_alloc(mm, cpu, which)
    return take_from_sheaf(k, sheaf)


@native
def replace_full_main(k, cpu):
    """The main sheaf is full, or there is none yet: get one with room; NULL if there is no memory for one."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    spare = c.spare
    if spare != NULL and KMEM_SHEAF(k, spare).size < SHEAF_CAPACITY:
        c.spare = c.main
        c.main = spare
        return spare
    node = node_of(k, cpu)
    if spare == NULL:
        empty = barn_get_empty_sheaf(k, node)
    elif READ_ONCE(KMEM_NODE(k, node), "nr_full") >= MAX_FULL:
        flush_sheaf(k, cpu, spare)
        c.spare = NULL
        empty = spare
    else:
        empty = barn_replace_full_sheaf(k, node, c.main)
        if empty != NULL:
            c.main = empty
            return empty
    if empty == NULL:
        empty = alloc_empty_sheaf(k, cpu)
    if empty == NULL:
        return NULL
    if c.spare == NULL:
        c.spare = c.main
    elif c.main != NULL:
        barn_put_full_sheaf(k, node, c.main)
    c.main = empty
    return empty


@native
def is_remote(k, cpu, slot):
    """Whether the object is of another node's than the CPU's."""
    number = KMEM_OBJECT(k, k.first_object + slot).page
    return int(KMEM_SLAB(k, number).node != KMEM_CPU(k, k.first_cpu + cpu).node)


@native
def free_local(mm, k, cpu, which, slot):
    """free_to_pcs: an object of the CPU's own node."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    sheaf = c.main
    if sheaf == NULL or KMEM_SHEAF(k, sheaf).size == SHEAF_CAPACITY:
        sheaf = replace_full_main(k, cpu)
        if sheaf == NULL:
            return slab_free(mm, cpu, which, slot)
    put_into_sheaf(k, sheaf, slot)
    return 0


@native
def sheaf_free(mm, cpu, which, slot):
    """kmem_cache_free."""
    k = KMEM(ARENA(mm, 0), which)
    if cpu == 0 or k.sheaf_capacity == 0 or is_remote(k, cpu, slot):
        return slab_free(mm, cpu, which, slot)
    return free_local(mm, k, cpu, which, slot)


# ---- grace periods ---------------------------------------------------------------------------------------------------


@native
def each_by_callback(mm, cpu, which, slot):
    """call_rcu for each object, as before kfree_rcu knew sheaves (9b60811cb3b4)."""
    k = KMEM(ARENA(mm, 0), which)
    rcu_enqueue(k, cpu, slot)
    if rcu_ready(mm, k, cpu):
        while KMEM_CPU(k, k.first_cpu + cpu).rcu_head != NULL:
            sheaf_free(mm, cpu, which, rcu_dequeue(k, cpu))
    return rcu_advance(mm, k, cpu)


@native
def rcu_free_sheaf(k, cpu, sheaf):
    """The grace period of a sheaf is over."""
    node = node_of(k, cpu)
    n = KMEM_NODE(k, node)
    if READ_ONCE(n, "nr_full") < MAX_FULL:
        return barn_put_full_sheaf(k, node, sheaf)
    flush_sheaf(k, cpu, sheaf)
    if READ_ONCE(n, "nr_empty") < MAX_EMPTY:
        return barn_put_empty_sheaf(k, node, sheaf)
    return free_empty_sheaf(k, cpu, sheaf)


@native
def rcu_sheaf(k, cpu):
    """The sheaf that kfree_rcu fills; a new one if there is none; NULL if there is no memory."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    sheaf = c.rcu_free
    if sheaf == NULL:
        sheaf = c.spare
        if sheaf != NULL and KMEM_SHEAF(k, sheaf).size == 0:
            c.spare = NULL
        else:
            sheaf = barn_get_empty_sheaf(k, node_of(k, cpu))
        if sheaf == NULL:
            sheaf = alloc_empty_sheaf(k, cpu)
        c.rcu_free = sheaf
    return sheaf


@native
def sheaf_kfree_rcu(mm, cpu, which, slot):
    """kfree_rcu (__kfree_rcu_sheaf), and rcu_free_sheaf for those whose grace period is over if many wait. An object
    that gets into no sheaf waits alone (kvfree_call_rcu)."""
    k = KMEM(ARENA(mm, 0), which)
    c = KMEM_CPU(k, k.first_cpu + cpu)
    sheaf = rcu_sheaf(k, cpu)
    if sheaf == NULL or is_remote(k, cpu, slot):
        return each_by_callback(mm, cpu, which, slot)
    if put_into_sheaf(k, sheaf, slot) < SHEAF_CAPACITY:
        return 0
    c.rcu_free = NULL
    KMEM_SHEAF(k, sheaf).next = NULL
    KMEM_SHEAF(k, sheaf).gp = start_poll_synchronize_rcu(mm)
    if c.rcu_sheaf_head == NULL:
        c.rcu_sheaf_head = sheaf
    else:
        KMEM_SHEAF(k, c.rcu_sheaf_tail).next = sheaf
    c.rcu_sheaf_tail = sheaf
    c.rcu_waiting += SHEAF_CAPACITY
    if c.rcu_waiting >= 2 * k.rcu_batch + RCU_SLACK:
        synchronize_rcu(mm, cpu)
    if c.rcu_waiting >= k.rcu_batch:
        while c.rcu_sheaf_head != NULL and poll_state_synchronize_rcu(mm, KMEM_SHEAF(k, c.rcu_sheaf_head).gp):
            sheaf = c.rcu_sheaf_head
            c.rcu_sheaf_head = KMEM_SHEAF(k, sheaf).next
            c.rcu_waiting -= SHEAF_CAPACITY
            rcu_free_sheaf(k, cpu, sheaf)
    return 0


# ---- before a store --------------------------------------------------------------------------------------------------


@native
def sheaf_prefill(mm, cpu, which, count):
    """mas_alloc_nodes, kmem_cache_prefill_sheaf. A single object is taken when it is needed."""
    if count < 2:
        return 0
    k = KMEM(ARENA(mm, 0), which)
    c = KMEM_CPU(k, k.first_cpu + cpu)
    sheaf = c.spare
    if sheaf != NULL:
        c.spare = NULL
    else:
        sheaf = barn_get_full_or_empty_sheaf(k, node_of(k, cpu))
    if sheaf == NULL:
        sheaf = alloc_empty_sheaf(k, cpu)
    if sheaf == NULL:
        return 0
    if KMEM_SHEAF(k, sheaf).size < count:
        refill_sheaf(mm, k, cpu, which, sheaf)
    c.prefilled = sheaf
    return 0


@native
def sheaf_return(mm, cpu, which):
    """mas_destroy, kmem_cache_return_sheaf."""
    k = KMEM(ARENA(mm, 0), which)
    c = KMEM_CPU(k, k.first_cpu + cpu)
    sheaf = c.prefilled
    if sheaf == NULL:
        return 0
    c.prefilled = NULL
    if c.spare == NULL:
        c.spare = sheaf
        return 0
    node = node_of(k, cpu)
    if READ_ONCE(KMEM_NODE(k, node), "nr_full") >= MAX_FULL or not refill_sheaf(mm, k, cpu, which, sheaf):
        flush_sheaf(k, cpu, sheaf)
        return free_empty_sheaf(k, cpu, sheaf)
    return barn_put_full_sheaf(k, node, sheaf)


@native
def alloc_before(mm, cpu, which):
    """kmem_cache_alloc where VMAs come from sheaves, nodes from freelists."""
    if which == ARENA_VMA:
        return sheaf_alloc(mm, cpu, which)
    return slub_alloc(mm, cpu, which)


@native
def free_before(mm, cpu, which, slot):
    """kmem_cache_free, likewise."""
    if which == ARENA_VMA:
        return sheaf_free(mm, cpu, which, slot)
    return slab_free(mm, cpu, which, slot)


@native
def kfree_rcu_before(mm, cpu, which, slot):
    """call_rcu, likewise."""
    if which == ARENA_VMA:
        return each_by_callback(mm, cpu, which, slot)
    return slub_kfree_rcu(mm, cpu, which, slot)


def sheaves_of_vmas() -> Allocator:
    """The kernel right before 59faa4da7cd4: VMAs come from sheaves (3accabda4da1), maple nodes from freelists."""
    return Allocator(
        kmem_cache_alloc=alloc_before,
        kmem_cache_free=free_before,
        kfree_rcu=kfree_rcu_before,
        kmem_cache_prefill=slub_prefill,
        kmem_cache_return=slub_return,
    )


def sheaves(rcu: bool = True) -> Allocator:
    """Per-CPU sheaves; ``rcu``: kfree_rcu fills sheaves, too."""
    return Allocator(
        kmem_cache_alloc=sheaf_alloc,
        kmem_cache_free=sheaf_free,
        kfree_rcu=sheaf_kfree_rcu if rcu else each_by_callback,
        kmem_cache_prefill=sheaf_prefill,
        kmem_cache_return=sheaf_return,
    )
