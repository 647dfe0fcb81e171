"""SLUB as from 3.2 to 6.17: each CPU allocates from the freelist of one slab, and keeps a few partial slabs.

An allocator, not a strategy: `linux-2.6.32` to `linux-6.15` name it. An object's slab is frozen while a CPU allocates
from it. Who frees an object of another slab puts it on that slab's own list by compare-and-exchange.

```
alloc   the CPU's freelist; empty: what others freed into its slab (get_freelist); none: the next of the CPU's partial
        slabs; none: partial slabs of the node, under list_lock, a few at once (get_partial_node); none: a new slab
free    the CPU's freelist if the object is of its slab; else the slab's list (__slab_free). A slab that was full goes
        to the CPU's partial slabs; if those are too many they all go to the node, under list_lock (put_cpu_partial). A
        slab that becomes empty takes list_lock, and leaves the node if that has MIN_PARTIAL others
```
``kfree_rcu`` is call_rcu: objects wait in a list of the CPU's, and are freed one by one after a grace period
(mt_free_rcu, vm_area_free_rcu_cb). The kernel runs callbacks from a softirq: a CPU has many thousand objects by then.
Here a grace period is asked for rcu_batch objects at once.

Before a store the maple tree takes what it may need, and gives back what it did not (mas_alloc_nodes, mas_destroy): one
by one, since kmem_cache_alloc_bulk does the same in one call.

Differences to the kernel's: 2.6.32 and 3.10 (without CONFIG_SLUB_CPU_PARTIAL) had no partial slabs per CPU; memory
cgroups, debugging and other nodes' partial slabs are left out; an empty slab stays on its CPU's list of pages.
Sources: Linux 6.12 mm/slub.c (___slab_alloc, __slab_free, put_cpu_partial, get_partial_node, set_cpu_partial,
calculate_order), lib/maple_tree.c.
"""

from benchframe.api import Allocator, native
from benchframe.kernel import (
    ARENA,
    KMEM,
    KMEM_CPU,
    KMEM_NODE,
    KMEM_OBJECT,
    KMEM_SLAB,
    NULL,
    RCU_SLACK,
    READ_ONCE,
    cmpxchg,
    grab_objects,
    poll_state_synchronize_rcu,
    start_poll_synchronize_rcu,
    store_release,
    synchronize_rcu,
    wait_then_add,
)

MIN_PARTIAL = 5
"""Slabs that a node keeps although they are empty (MIN_PARTIAL; min_partial of objects below 1 KiB)."""
RCU_CHECK = 32
"""A CPU looks whether its grace period is over with every 32nd object."""
FROZEN, INUSE, HEAD = 0, 1, 32
"""In slab.freelist: the bit of the flag; where the number of objects begins that are not in the list, and where the
number of the first object does."""
COUNT = (1 << HEAD - INUSE) - 1

# ---- slabs and the node's list ---------------------------------------------------------------------------------------


@native
def lock_list(n):
    """spin_lock_irqsave(&n->list_lock)."""
    wait_then_add(n, "list_lock", -1, 1)
    return 0


@native
def unlock_list(n):
    """spin_unlock_irqrestore(&n->list_lock)."""
    store_release(n, "list_lock", 0)
    return 0


@native
def node_of(k, cpu):
    """The record in KMEM_NODE of the CPU's node."""
    return k.first_node + KMEM_CPU(k, k.first_cpu + cpu).node


@native
def add_partial(k, node, number):
    """Put slab ``number`` last on the node's list (DEACTIVATE_TO_TAIL). Caller holds list_lock."""
    n = KMEM_NODE(k, node)
    s = KMEM_SLAB(k, number)
    s.next = NULL
    s.prev = n.partial_tail
    if n.partial_tail != NULL:
        KMEM_SLAB(k, n.partial_tail).next = number
    else:
        n.partial = number
    n.partial_tail = number
    n.nr_partial += 1
    s.node_partial = 1
    return 0


@native
def remove_partial(k, node, number):
    """Take slab ``number`` off the node's list. Caller holds list_lock."""
    n = KMEM_NODE(k, node)
    s = KMEM_SLAB(k, number)
    if s.prev == NULL:
        n.partial = s.next
    else:
        KMEM_SLAB(k, s.prev).next = s.next
    if s.next != NULL:
        KMEM_SLAB(k, s.next).prev = s.prev
    else:
        n.partial_tail = s.prev
    n.nr_partial -= 1
    s.node_partial = 0
    return 0


@native
def take_freelist(k, number):
    """All free objects of a slab, which is frozen if there are any (get_freelist, freeze_slab): the first; NULL if
    none, and the slab is full."""
    s = KMEM_SLAB(k, number)
    while 1:
        word = READ_ONCE(s, "freelist")
        head = word >> HEAD
        new = s.objects << INUSE | int(head != NULL) << FROZEN
        if cmpxchg(s, "freelist", word, new) == word:
            return head
    return NULL


@native
def discard_slab(k, cpu, number):
    """Give an empty slab back to the CPU's list of pages."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    KMEM_SLAB(k, number).next = c.pages
    c.pages = number
    return 0


@native
def put_partials(k, cpu, number):
    """The CPU has too many partial slabs: all from ``number`` on go to their nodes (__put_partials)."""
    node = k.first_node + KMEM_SLAB(k, number).node
    n = KMEM_NODE(k, node)
    lock_list(n)
    empty = NULL
    while number != NULL:
        s = KMEM_SLAB(k, number)
        following = s.next
        if k.first_node + s.node != node:
            unlock_list(n)
            node = k.first_node + s.node
            n = KMEM_NODE(k, node)
            lock_list(n)
        if (READ_ONCE(s, "freelist") >> INUSE) & COUNT == 0 and n.nr_partial >= MIN_PARTIAL:
            s.next = empty
            empty = number
        else:
            add_partial(k, node, number)
        number = following
    unlock_list(n)
    while empty != NULL:
        following = KMEM_SLAB(k, empty).next
        discard_slab(k, cpu, empty)
        empty = following
    return 0


@native
def put_cpu_partial(k, cpu, number):
    """A slab that was full has a free object: it is the CPU's."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    others = NULL
    if c.nr_partial >= k.cpu_partial_slabs:
        others = c.partial
        c.partial = NULL
        c.nr_partial = 0
    KMEM_SLAB(k, number).next = c.partial
    c.partial = number
    c.nr_partial += 1
    if others != NULL:
        put_partials(k, cpu, others)
    return 0


@native
def get_partial_node(k, cpu):
    """A partial slab of the node's, and more for the CPU: NULL if there is none."""
    node = node_of(k, cpu)
    n = KMEM_NODE(k, node)
    if READ_ONCE(n, "nr_partial") == 0:
        return NULL
    c = KMEM_CPU(k, k.first_cpu + cpu)
    lock_list(n)
    number = n.partial
    more = 0
    if number != NULL:
        remove_partial(k, node, number)
        while n.partial != NULL and more <= k.cpu_partial_slabs // 2:
            other = n.partial
            remove_partial(k, node, other)
            KMEM_SLAB(k, other).next = c.partial
            c.partial = other
            c.nr_partial += 1
            more += 1
    unlock_list(n)
    return number


@native
def next_slab(mm, k, cpu, which):
    """A slab with free objects for the CPU, NULL if memory is full."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    number = c.partial
    if number != NULL:
        c.partial = KMEM_SLAB(k, number).next
        c.nr_partial -= 1
        return number
    number = get_partial_node(k, cpu)
    if number == NULL:
        number = c.pages
        if number != NULL:
            c.pages = KMEM_SLAB(k, number).next
        else:
            number = grab_objects(mm, cpu, which)
    return number


# ---- allocate and free -----------------------------------------------------------------------------------------------


@native
def refill_freelist(mm, k, cpu, which):
    """The CPU's freelist is empty: fill it (___slab_alloc). Its first object, NULL if memory is full."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    head = NULL
    if c.page != NULL:
        head = take_freelist(k, c.page)
    while head == NULL:
        number = next_slab(mm, k, cpu, which)
        c.page = number
        if number == NULL:
            return NULL
        head = take_freelist(k, number)
    return head


@native
def slab_alloc(mm, cpu, which):
    """An object for CPU ``cpu`` (slab_alloc_node)."""
    k = KMEM(ARENA(mm, 0), which)
    c = KMEM_CPU(k, k.first_cpu + cpu)
    slot = c.freelist
    if slot == NULL:
        slot = refill_freelist(mm, k, cpu, which)
        if slot == NULL:
            return NULL
    c.freelist = KMEM_OBJECT(k, k.first_object + slot).next
    return slot


@native
def alloc_from_node(mm, which):
    """An object for nobody in particular: from a partial slab of node 0, under list_lock."""
    k = KMEM(ARENA(mm, 0), which)
    n = KMEM_NODE(k, k.first_node)
    lock_list(n)
    number = n.partial
    if number == NULL:
        number = grab_objects(mm, 0, which)
    else:
        remove_partial(k, k.first_node, number)  # before it can be full: then it is whoever frees an object of it
    slot = NULL
    while number != NULL:
        s = KMEM_SLAB(k, number)
        word = READ_ONCE(s, "freelist")
        slot = word >> HEAD
        following = KMEM_OBJECT(k, k.first_object + slot).next
        new = (following << HEAD) + (word & ((1 << HEAD) - 1)) + (1 << INUSE)
        if cmpxchg(s, "freelist", word, new) == word:
            if following != NULL:
                add_partial(k, k.first_node, number)
            break
    unlock_list(n)
    return slot


@native
def slab_free_list(k, cpu, number, head, tail, count):
    """Free ``count`` objects of slab ``number``, linked from ``head`` to ``tail`` (do_slab_free, __slab_free)."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    if cpu != 0 and number == c.page:
        KMEM_OBJECT(k, k.first_object + tail).next = c.freelist
        c.freelist = head
        return 0
    s = KMEM_SLAB(k, number)
    node = k.first_node + s.node
    n = KMEM_NODE(k, node)
    locked = 0
    while 1:
        word = READ_ONCE(s, "freelist")
        prior = word >> HEAD
        frozen = word & 1 << FROZEN
        inuse = ((word >> INUSE) & COUNT) - count
        KMEM_OBJECT(k, k.first_object + tail).next = prior
        listed = frozen == 0 and (prior == NULL or inuse == 0) and (prior != NULL or cpu == 0)
        if listed and not locked:
            lock_list(n)
            locked = 1
        elif locked and not listed:
            unlock_list(n)
            locked = 0
        if cmpxchg(s, "freelist", word, head << HEAD | inuse << INUSE | frozen) == word:
            break
    if not locked:
        if frozen == 0 and prior == NULL:
            put_cpu_partial(k, cpu, number)
        return 0
    empty = 0
    if prior == NULL:
        add_partial(k, node, number)
    elif s.node_partial and cpu != 0 and n.nr_partial >= MIN_PARTIAL:
        remove_partial(k, node, number)
        empty = 1
    unlock_list(n)
    if empty:
        discard_slab(k, cpu, number)
    return 0


@native
def slab_free(mm, cpu, which, slot):
    """Free one object on CPU ``cpu`` (0: nobody's)."""
    k = KMEM(ARENA(mm, 0), which)
    return slab_free_list(k, cpu, KMEM_OBJECT(k, k.first_object + slot).page, slot, slot, 1)


@native
def slub_alloc(mm, cpu, which):
    """kmem_cache_alloc: first what was taken beforehand."""
    if cpu == 0:
        return alloc_from_node(mm, which)
    k = KMEM(ARENA(mm, 0), which)
    c = KMEM_CPU(k, k.first_cpu + cpu)
    slot = c.prefilled
    if slot != NULL:
        c.prefilled = KMEM_OBJECT(k, k.first_object + slot).next
        return slot
    return slab_alloc(mm, cpu, which)


# ---- grace periods ---------------------------------------------------------------------------------------------------


@native
def rcu_enqueue(k, cpu, slot):
    """call_rcu: the object waits in the CPU's list, for which no grace period is asked yet (RCU_NEXT_TAIL)."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    KMEM_OBJECT(k, k.first_object + slot).next = NULL
    if c.rcu_next_head == NULL:
        c.rcu_next_head = slot
    else:
        KMEM_OBJECT(k, k.first_object + c.rcu_next_tail).next = slot
    c.rcu_next_tail = slot
    c.rcu_next += 1
    c.rcu_waiting += 1
    return 0


@native
def rcu_ready(mm, k, cpu):
    """Whether the objects that wait for rcu_gp may be freed. Asked only now and then, since the answer is in lines that
    all CPUs share. The task has no reference from a section."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    if c.rcu_waiting >= 2 * k.rcu_batch + RCU_SLACK:
        synchronize_rcu(mm, cpu)
    elif c.rcu_head == NULL or c.rcu_next & RCU_CHECK - 1:
        return 0
    return int(c.rcu_head != NULL and poll_state_synchronize_rcu(mm, c.rcu_gp))


@native
def rcu_dequeue(k, cpu):
    """Take an object out of the list of those that may be freed."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    slot = c.rcu_head
    c.rcu_head = KMEM_OBJECT(k, k.first_object + slot).next
    c.rcu_waiting -= 1
    return slot


@native
def rcu_advance(mm, k, cpu):
    """Ask for a grace period for the next objects, if they are many and no others wait (rcu_advance_cbs)."""
    c = KMEM_CPU(k, k.first_cpu + cpu)
    if c.rcu_head == NULL and c.rcu_next >= k.rcu_batch:
        c.rcu_head = c.rcu_next_head
        c.rcu_next_head = NULL
        c.rcu_next = 0
        c.rcu_gp = start_poll_synchronize_rcu(mm)
    return 0


@native
def slub_kfree_rcu(mm, cpu, which, slot):
    """call_rcu, and rcu_do_batch if a grace period is over."""
    k = KMEM(ARENA(mm, 0), which)
    rcu_enqueue(k, cpu, slot)
    if rcu_ready(mm, k, cpu):
        while KMEM_CPU(k, k.first_cpu + cpu).rcu_head != NULL:
            slab_free(mm, cpu, which, rcu_dequeue(k, cpu))
    return rcu_advance(mm, k, cpu)


# ---- before a store --------------------------------------------------------------------------------------------------


@native
def slub_prefill(mm, cpu, which, count):
    """mas_alloc_nodes: take ``count`` objects. A single one is taken when it is needed."""
    if count < 2:
        return 0
    k = KMEM(ARENA(mm, 0), which)
    c = KMEM_CPU(k, k.first_cpu + cpu)
    while count > 0:
        slot = slab_alloc(mm, cpu, which)
        if slot == NULL:
            return 0
        KMEM_OBJECT(k, k.first_object + slot).next = c.prefilled
        c.prefilled = slot
        count -= 1
    return 0


@native
def slub_return(mm, cpu, which):
    """mas_destroy: free the rest."""
    k = KMEM(ARENA(mm, 0), which)
    c = KMEM_CPU(k, k.first_cpu + cpu)
    while c.prefilled != NULL:
        slot = c.prefilled
        c.prefilled = KMEM_OBJECT(k, k.first_object + slot).next
        slab_free(mm, cpu, which, slot)
    return 0


def freelists() -> Allocator:
    """Per-CPU freelists."""
    return Allocator(
        kmem_cache_alloc=slub_alloc,
        kmem_cache_free=slab_free,
        kfree_rcu=slub_kfree_rcu,
        kmem_cache_prefill=slub_prefill,
        kmem_cache_return=slub_return,
    )
