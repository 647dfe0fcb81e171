"""Caches of objects for an allocator: their records, and how arena_alloc and its kin reach it (mm/slub.c, 6.12, 6.18).

A cache's objects are slots of one slab of the model. An allocator groups them into *slabs*, and keeps free ones per
CPU, per node, and in *sheaves*. The records here have room for all of that; which of them an allocator uses is its own
matter. What is free stands in exactly one place (:func:`benchframe.mm.validate.free_objects`).
"""

from benchframe.dialect import NULL, READ_ONCE, Field, Slab, Struct, fetch_add, native, store_release, wait_then_add
from benchframe.dialect.functions import Binding, Native, Replacements
from benchframe.mm import hooks
from benchframe.mm.layout import (
    ARENA,
    ARENA_PRIVATE0,
    FREED,
    PRIVATE_BASES,
    VMA,
    arena_alloc,
    arena_free,
    arena_room,
    kfree_rcu,
    kmem_cache_prefill,
    kmem_cache_return,
)
from benchframe.mm.pagetable import spin_lock, spin_unlock
from benchframe.mm.smp import (
    CREW,
    REPLACE,
    THREAD,
    arena_alloc_shared,
    arena_free_shared,
    arena_lock,
    arena_unlock,
    free_queued,
    kfree_rcu_shared,
)
from benchframe.mm.vma import (
    anon_vma_clone,
    anon_vma_compatible,
    anon_vma_fork,
    anon_vma_new,
    anon_vma_prepare,
    unlink_anon_vmas,
)

# ----------------------------------------------------------------------------------------------------------------------
# Records. ARENA's record 0 leads to KMEM, and each record of KMEM to the others.

SHEAF_CAPACITY = 32
"""Objects of a sheaf: sheaf_capacity of maple_node and vm_area_struct, 59faa4da7cd4 and 3accabda4da1 (6.18)."""
RCU_BATCH = 128
"""Objects for which a CPU asks for a grace period at once, if nobody says more: see rcu_batch."""
RCU_SLACK = 768
"""A CPU waits for its grace period if twice its batch, and so many objects more, wait."""
PARKED = 2048
"""Objects of each cache, per CPU, that may be free in the allocator beside what waits for a grace period."""
PAGE_BATCH = 63
"""Pages that a CPU's list takes from the zone at once, under its lock (zone_batchsize, 6.12: 252 KiB)."""
NODES = 8
"""Most memory nodes. Without simulated CPUs there is one."""

kmem_cache = Struct(
    "kmem_cache",
    [
        Field("node_base", "i8", "slab KMEM_NODE", lock="constant", model=True),
        Field("cpu_base", "i8", "slab KMEM_CPU", lock="constant", model=True),
        Field("object_base", "i8", "slab KMEM_OBJECT", lock="constant", model=True),
        Field("slabs_base", "i8", "slab KMEM_SLAB", lock="constant", model=True),
        Field("sheaf_base", "i8", "slab KMEM_SHEAF", lock="constant", model=True),
        Field("in_sheaf_base", "i8", "slab IN_SHEAF", lock="constant", model=True),
        Field("anon_vma_base", "i8", "slab ANON_VMA", lock="constant", model=True),
        Field("anon_vma_chain_base", "i8", "slab ANON_VMA_CHAIN", lock="constant", model=True),
        Field("vma_anon_base", "i8", "slab VMA_ANON", lock="constant", model=True),
        Field(
            "objects", "i8", "objects of a slab (oo_objects); 0: no cache; -n: on the stack, n per CPU", lock="constant"
        ),
        Field("cpu_partial_slabs", "i8", "partial slabs that a CPU keeps (slub_set_cpu_partial)", lock="constant"),
        Field("sheaf_capacity", "i8", "objects of a sheaf, if the allocator has some; 0: none here", lock="constant"),
        Field("slab_batch", "i8", "slabs whose pages a CPU takes at once (nr_pcp_alloc)", lock="constant", model=True),
        Field("rcu_batch", "i8", "objects for which a CPU asks for a grace period", lock="constant", model=True),
        Field("first_node", "i8", "its first record in KMEM_NODE", lock="constant", model=True),
        Field("first_cpu", "i8", "... in KMEM_CPU", lock="constant", model=True),
        Field(
            "first_object", "i8", "... in KMEM_OBJECT; on the stack: the record of CPU 1", lock="constant", model=True
        ),
        Field("first_slab", "i8", "... in KMEM_SLAB", lock="constant", model=True),
        Field("first_sheaf", "i8", "... in KMEM_SHEAF", lock="constant", model=True),
        Field(
            "max_sheaves",
            "i8",
            "no more are made; one per CPU is left for those that looked before",
            lock="constant",
            model=True,
        ),
        Field("nr_slabs", "i8", "slabs for which there are pages", lock="the lock in ARENA", model=True, align=64),
        Field("nr_sheaves", "i8", "sheaves made so far", lock="atomic", model=True),
    ],
)

kmem_cache_node = Struct(
    "kmem_cache_node",
    [
        Field("list_lock", "i8", "spinlock of the partial slabs", lock="itself"),
        Field("nr_partial", "i8", "how many there are", lock="list_lock; a racy hint without"),
        Field("partial", "i8", "the first of them", lock="list_lock"),
        Field("partial_tail", "i8", "the last", lock="list_lock"),
        Field("barn_lock", "i8", "spinlock of the barn", lock="itself", align=64),
        Field("nr_full", "i8", "full sheaves", lock="barn_lock; a racy hint without"),
        Field("full", "i8", "the first of them", lock="barn_lock"),
        Field("nr_empty", "i8", "empty sheaves", lock="barn_lock; a racy hint without"),
        Field("empty", "i8", "the first of them", lock="barn_lock"),
    ],
    size=128,
)

kmem_cache_cpu = Struct(
    "kmem_cache_cpu",
    [
        Field("freelist", "i8", "free objects of the CPU's slab, linked by their next", lock="the CPU"),
        Field("page", "i8", "the slab from which the CPU allocates, frozen", lock="the CPU"),
        Field("partial", "i8", "partial slabs of the CPU's own, linked by their next", lock="the CPU"),
        Field("nr_partial", "i8", "how many", lock="the CPU"),
        Field("node", "i8", "its memory node", lock="constant"),
        Field("prefilled", "i8", "what kmem_cache_prefill took: objects linked by next, or a sheaf", lock="the CPU"),
        Field("pages", "i8", "empty slabs that went back to the CPU's list of pages", lock="the CPU"),
        Field("main", "i8", "the sheaf that serves", lock="the CPU", align=64),
        Field("spare", "i8", "a second one", lock="the CPU"),
        Field("rcu_free", "i8", "the sheaf that kfree_rcu fills", lock="the CPU"),
        Field("sheaves", "i8", "sheaves that kfree took back, linked by their next", lock="the CPU"),
        Field("fresh", "i8", "the first slab of those whose pages the CPU has taken (pcp list)", lock="the CPU"),
        Field("nr_fresh", "i8", "how many", lock="the CPU"),
        Field("rcu_head", "i8", "the objects that wait for rcu_gp, linked by their next", lock="the CPU", align=64),
        Field("rcu_gp", "i8", "a grace period", lock="the CPU"),
        Field("rcu_next_head", "i8", "the objects that will wait for a later one", lock="the CPU"),
        Field("rcu_next_tail", "i8", "the youngest", lock="the CPU"),
        Field("rcu_next", "i8", "how many", lock="the CPU"),
        Field("rcu_sheaf_head", "i8", "the oldest sheaf that does", lock="the CPU"),
        Field("rcu_sheaf_tail", "i8", "the youngest", lock="the CPU"),
        Field("rcu_waiting", "i8", "how many objects wait, those in sheaves too", lock="the CPU"),
    ],
    size=192,
)

kmem_object = Struct(
    "kmem_object",
    [
        Field(
            "next", "i8", "the free pointer: in the kernel within the object, so a line of its own", lock="its place"
        ),
        Field("page", "i8", "its slab, in the kernel known by its address", lock="constant", model=True),
    ],
    size=64,
)

slab = Struct(
    "slab",
    [
        Field("freelist", "i8", "first free object << 32 | objects not in this list << 1 | frozen", lock="atomic"),
        Field("next", "i8", "the next slab of the list", lock="list_lock, or the CPU whose list it is"),
        Field("prev", "i8", "the one before in the node's list", lock="list_lock"),
        Field("node_partial", "i8", "1: on the node's list (SL_partial)", lock="list_lock"),
        Field("node", "i8", "its memory node", lock="constant"),
        Field("objects", "i8", "how many it has", lock="constant"),
        Field("first", "i8", "the first of their slots, or where these stand in FREED", lock="constant", model=True),
        Field("on_stack", "i8", "1: they stand there", lock="constant", model=True),
    ],
    size=64,
)

slab_sheaf = Struct(
    "slab_sheaf",
    [
        Field("size", "i8", "objects in it", lock="the CPU, or who took it from the barn"),
        Field("next", "i8", "the next sheaf of its list", lock="barn_lock, or the CPU whose list it is"),
        Field("prev", "i8", "the one before, in the barn's lists; NULL: the first", lock="barn_lock"),
        Field("gp", "i8", "the grace period for which it waits (rcu_head)", lock="the CPU"),
    ],
    size=64,
)

in_sheaf = Struct("in_sheaf", [Field("slot", "i8", "a free object", lock="as its sheaf's size")])

anon_vma = Struct(
    "anon_vma",
    [
        Field("root", "i8", "the oldest of its tree, whose rwsem protects all", lock="constant"),
        Field("rwsem", "i8", "of a root: taken for write alone, since reclaim and migration read", lock="itself"),
        Field("refcount", "i8", "of a root: anon_vmas in its tree", lock="atomic", align=16),
        Field("num_children", "i8", "anon_vmas whose parent it is, itself if a root", lock="root's rwsem", align=16),
        Field("num_active_vmas", "i8", "VMAs whose own it is", lock="root's rwsem"),
        Field("parent", "i8", "the one from which fork made it; a root: itself", lock="constant", align=64),
        Field("rb_root", "i8", "the VMAs in its interval tree: how many", lock="root's rwsem"),
    ],
    size=128,
)

anon_vma_chain = Struct(
    "anon_vma_chain",
    [
        Field("vma", "i8", "a VMA", lock="constant"),
        Field("anon_vma", "i8", "one of its anon_vmas", lock="constant"),
        Field("next", "i8", "same_vma: the next older anon_vma of the VMA", lock="mmap_lock and page_table_lock"),
        Field("prev", "i8", "the next younger", lock="mmap_lock and page_table_lock"),
    ],
    size=64,
)

vma_anon = Struct(
    "vma_anon",
    [
        Field("anon_vma", "i8", "the VMA's own; in the kernel vma.anon_vma", lock="as there", model=True),
        Field("head", "i8", "its youngest chain; in the kernel vma.anon_vma_chain", lock="as there", model=True),
        Field("tail", "i8", "its oldest", lock="as there", model=True),
        Field("pad", "i8", "", lock="none", model=True),
    ],
)

KMEM = Slab("KMEM", kmem_cache, "kmem_base", first=0)
KMEM_NODE = Slab("KMEM_NODE", kmem_cache_node, "node_base", first=0)
KMEM_CPU = Slab("KMEM_CPU", kmem_cache_cpu, "cpu_base", first=0)
KMEM_OBJECT = Slab("KMEM_OBJECT", kmem_object, "object_base")
KMEM_SLAB = Slab("KMEM_SLAB", slab, "slabs_base")
KMEM_SHEAF = Slab("KMEM_SHEAF", slab_sheaf, "sheaf_base")
IN_SHEAF = Slab("IN_SHEAF", in_sheaf, "in_sheaf_base", first=SHEAF_CAPACITY)
ANON_VMA = Slab("ANON_VMA", anon_vma, "anon_vma_base")
ANON_VMA_CHAIN = Slab("ANON_VMA_CHAIN", anon_vma_chain, "anon_vma_chain_base")
VMA_ANON = Slab("VMA_ANON", vma_anon, "vma_anon_base")
"""One for each VMA: valid if its chain has a length."""
SLABS = (
    KMEM,
    KMEM_NODE,
    KMEM_CPU,
    KMEM_OBJECT,
    KMEM_SLAB,
    KMEM_SHEAF,
    IN_SHEAF,
    ANON_VMA,
    ANON_VMA_CHAIN,
    VMA_ANON,
)
"""Every slab of an allocator."""
ARENA_ANON_VMA = ARENA_PRIVATE0 + len(PRIVATE_BASES)
ARENA_ANON_VMA_CHAIN = ARENA_ANON_VMA + 1
"""Their numbers in ARENA, after those of the strategy."""
OBJECT_SIZES = {ARENA_ANON_VMA: 104, ARENA_ANON_VMA_CHAIN: 64}
"""Bytes of an object (6.12: 96, and a free pointer beside them, since the cache is SLAB_TYPESAFE_BY_RCU; 64)."""
CHAINS = 4
"""anon_vma_chains per VMA for which there is room: each generation of processes that forked adds one."""
NAMES = {
    KMEM.base: "kmem_cache", KMEM_NODE.base: "kmem_node", KMEM_CPU.base: "kmem_cpu", KMEM_OBJECT.base: "object",
    KMEM_SLAB.base: "slab_page", KMEM_SHEAF.base: "sheaf", IN_SHEAF.base: "in_sheaf", ANON_VMA.base: "anon_vma",
    ANON_VMA_CHAIN.base: "anon_vma_chain", VMA_ANON.base: "vma_anon",
}  # fmt: skip
"""Their names in figures."""


def order_objects(size: int, cpus: int) -> int:
    """Objects of a slab in a cache of ``size`` bytes an object: calculate_order, with slub_max_order 3.

    >>> order_objects(256, 1), order_objects(256, 192), order_objects(192, 192)
    (16, 64, 42)
    """
    wanted = 4 * (cpus.bit_length() + 1)
    order = next((order for order in range(4) if (4096 << order) // size >= wanted), 3)
    return (4096 << order) // size


def cpu_partial(size: int) -> int:
    """Objects that the partial slabs of a CPU should have together (set_cpu_partial)."""
    return 6 if size >= 4096 else 24 if size >= 1024 else 52 if size >= 256 else 120


# ----------------------------------------------------------------------------------------------------------------------
# From the calls of the model and of strategies to the allocator's hooks.


@native
def plain_alloc(mm, which):
    """arena_alloc, for what is no object of a cache."""
    return arena_alloc(mm, which)


@native
def plain_room(mm, which):
    """arena_room, likewise."""
    return arena_room(mm, which)


@native
def plain_free(mm, which, slot):
    """arena_free, likewise."""
    return arena_free(mm, which, slot)


@native
def plain_kfree_rcu(mm, which, slot):
    """kfree_rcu, likewise."""
    return kfree_rcu(mm, which, slot)


@native
def cpu_of(mm, task):
    """The CPU on which ``task`` runs: without threads there is one."""
    return 1


@native
def cpu_of_thread(mm, task):
    """The thread that plays ``task``; 0 for task 0, nobody."""
    return THREAD(CREW(mm, 0), task).leader


alloc: Native = hooks.kmem_cache_alloc.default
free: Native = hooks.kmem_cache_free.default
free_rcu: Native = hooks.kfree_rcu.default
prefill: Native = hooks.kmem_cache_prefill.default
give_back: Native = hooks.kmem_cache_return.default


@native
def alloc_object(mm, which):
    """arena_alloc in a build with an allocator. What the kernel has on the stack costs nothing, and each CPU has its
    own."""
    k = KMEM(ARENA(mm, 0), which)
    if k.objects <= 0:
        if k.objects < 0 and cpu_of(mm, mm.owner) != 0:
            return k.first_object - k.objects * (cpu_of(mm, mm.owner) - 1)
        return plain_alloc(mm, which)
    slot = alloc(mm, cpu_of(mm, mm.owner), which)
    if slot == NULL:
        mm.error = which + 1
    return slot


@native
def room_of_cache(mm, which):
    """arena_room in a build with an allocator: what is free stands in many places, and nobody counts it. Enough: a full
    cache makes the run invalid."""
    if KMEM(ARENA(mm, 0), which).objects == 0:
        return plain_room(mm, which)
    return PARKED


@native
def free_object(mm, which, slot):
    """arena_free in a build with an allocator."""
    k = KMEM(ARENA(mm, 0), which)
    if k.objects <= 0:
        if k.objects < 0 and slot >= k.first_object:
            return 0
        return plain_free(mm, which, slot)
    return free(mm, cpu_of(mm, mm.owner), which, slot)


@native
def free_object_queued(mm, which, slot):
    """free_queued in a build with an allocator: on no particular CPU."""
    if KMEM(ARENA(mm, 0), which).objects <= 0:
        return plain_free(mm, which, slot)
    return free(mm, 0, which, slot)


@native
def free_object_rcu(mm, which, slot):
    """kfree_rcu in a build with an allocator."""
    cpu = cpu_of(mm, mm.owner)
    if cpu == 0 or KMEM(ARENA(mm, 0), which).objects <= 0:
        return plain_kfree_rcu(mm, which, slot)
    return free_rcu(mm, cpu, which, slot)


@native
def prefill_objects(mm, which, count):
    """kmem_cache_prefill in a build with an allocator."""
    cpu = cpu_of(mm, mm.owner)
    if cpu == 0:
        return 0
    return prefill(mm, cpu, which, count)


@native
def return_objects(mm, which):
    """kmem_cache_return in a build with an allocator."""
    cpu = cpu_of(mm, mm.owner)
    if cpu == 0:
        return 0
    return give_back(mm, cpu, which)


@native
def grab_pages(mm, cpu, which):
    """Pages for slabs of cache ``which`` go to the CPU's list, up to ``slab_batch`` slabs at once (rmqueue_bulk). The
    slab's lock stands for the zone's."""
    k = KMEM(ARENA(mm, 0), which)
    c = KMEM_CPU(k, k.first_cpu + cpu)
    a = ARENA(mm, which)
    arena_lock(mm, which)
    left = a.free
    if left == 0:
        left = a.capacity - a.top
    count = min(k.slab_batch, (left + k.objects - 1) // k.objects)
    number = k.first_slab + k.nr_slabs + 1
    c.fresh = number
    c.nr_fresh = count
    k.nr_slabs += count
    a.live += min(left, count * k.objects)
    if a.live > a.peak:
        a.peak = a.live
    while count > 0:
        s = KMEM_SLAB(k, number)
        s.objects = min(k.objects, left)
        s.on_stack = int(a.free > 0)
        if s.on_stack:
            a.free -= s.objects
            s.first = a.stack + a.free
        else:
            s.first = a.top
            a.top += s.objects
        left -= s.objects
        number += 1
        count -= 1
    arena_unlock(mm, which)
    return c.nr_fresh


@native
def grab_objects(mm, cpu, which):
    """A new slab of cache ``which`` (allocate_slab): slots of the model's slab, linked in the order in which it gives
    them. Its number, NULL if the model's slab is full."""
    k = KMEM(ARENA(mm, 0), which)
    c = KMEM_CPU(k, k.first_cpu + cpu)
    if c.nr_fresh == 0 and grab_pages(mm, cpu, which) == 0:
        return NULL
    number = c.fresh
    c.fresh = number + 1
    c.nr_fresh -= 1
    s = KMEM_SLAB(k, number)
    head = NULL
    linked = 0
    while linked < s.objects:
        slot = s.first + s.objects - 1 - linked
        if s.on_stack:
            slot = FREED(mm, s.first + linked).slot
        KMEM_OBJECT(k, k.first_object + slot).page = number
        KMEM_OBJECT(k, k.first_object + slot).next = head
        head = slot
        linked += 1
    s.freelist = head << 32
    s.next = NULL
    s.prev = NULL
    s.node_partial = 0
    s.node = c.node
    return number


# ----------------------------------------------------------------------------------------------------------------------
# anon_vmas: one record of a VMA's own, and one of anon_vma_chain for each that it is in (mm/rmap.c, 6.12). The model's
# number of an anon_vma and the length of its chain stay what merges depend on (:mod:`benchframe.mm.vma`); the records
# are what they cost. The interval tree in which reclaim finds a page's VMAs is a number here, since nobody walks it.


@native
def lock_anon_vma_root(k, number):
    """anon_vma_lock_write: its root, locked."""
    root = ANON_VMA(k, number).root
    wait_then_add(ANON_VMA(k, root), "rwsem", -1, 1)
    return root


@native
def unlock_anon_vma_root(k, root):
    """anon_vma_unlock_write."""
    store_release(ANON_VMA(k, root), "rwsem", 0)
    return 0


@native
def anon_vma_alloc(mm, k, cpu):
    """A root without children or VMAs; NULL, and the run is void, if there is no room."""
    number = alloc(mm, cpu, ARENA_ANON_VMA)
    if number == NULL:
        mm.error = ARENA_ANON_VMA + 1
        return NULL
    a = ANON_VMA(k, number)
    a.root = number
    a.parent = number
    a.refcount = 1
    a.num_children = 0
    a.num_active_vmas = 0
    a.rb_root = 0
    return number


@native
def anon_vma_chain_alloc(mm, cpu):
    """A record of anon_vma_chain; NULL, and the run is void, if there is no room."""
    avc = alloc(mm, cpu, ARENA_ANON_VMA_CHAIN)
    if avc == NULL:
        mm.error = ARENA_ANON_VMA_CHAIN + 1
    return avc


@native
def put_anon_vma(mm, k, cpu, number):
    """Drop the reference of an anon_vma without VMAs: it is freed, and its root with the last one (__put_anon_vma)."""
    if fetch_add(ANON_VMA(k, number), "refcount", -1) == 1:
        root = ANON_VMA(k, number).root
        free(mm, cpu, ARENA_ANON_VMA, number)
        if root != number and fetch_add(ANON_VMA(k, root), "refcount", -1) == 1:
            free(mm, cpu, ARENA_ANON_VMA, root)
    return 0


@native
def anon_vma_chain_link(k, vma, avc, number):
    """``vma`` is in anon_vma ``number``, its youngest. Caller holds the root's rwsem."""
    x = ANON_VMA_CHAIN(k, avc)
    own = VMA_ANON(k, vma)
    x.vma = vma
    x.anon_vma = number
    x.next = own.head
    x.prev = NULL
    if own.head == NULL:
        own.tail = avc
    else:
        ANON_VMA_CHAIN(k, own.head).prev = avc
    own.head = avc
    ANON_VMA(k, number).rb_root += 1
    return 0


@native
def find_mergeable_anon_vma(mm, vma):
    """The neighbour whose anon_vma ``vma`` will share, NULL if none: what anon_vma_choose finds, without a lock."""
    above = VMA(mm, vma).vm_next
    if above != NULL and READ_ONCE(VMA(mm, above), "anon_vma") != 0:
        if VMA(mm, above).anon_vma_chain == 1 and anon_vma_compatible(mm, vma, above):
            return above
    below = VMA(mm, vma).vm_prev
    if below != NULL and READ_ONCE(VMA(mm, below), "anon_vma") != 0:
        if VMA(mm, below).anon_vma_chain == 1 and anon_vma_compatible(mm, below, vma):
            return below
    return NULL


@native
def prepare_anon_vma(mm, task, vma):
    """anon_vma_prepare in a build with an allocator: both records are allocated before the locks are taken, and freed
    if another fault was faster (__anon_vma_prepare)."""
    v = VMA(mm, vma)
    if v.anon_vma != 0:
        return 0
    k = KMEM(ARENA(mm, 0), 0)
    cpu = cpu_of(mm, task)
    avc = anon_vma_chain_alloc(mm, cpu)
    near = find_mergeable_anon_vma(mm, vma)
    allocated = NULL
    if near != NULL:
        number = VMA_ANON(k, near).anon_vma
    else:
        allocated = anon_vma_alloc(mm, k, cpu)
        number = allocated
        ANON_VMA(k, number).num_children = 1
    if avc == NULL or number == NULL:
        return 0
    root = lock_anon_vma_root(k, number)
    spin_lock(mm, mm.pgd)
    if v.anon_vma == 0:
        own = VMA_ANON(k, vma)
        own.anon_vma = number
        own.head = NULL
        anon_vma_chain_link(k, vma, avc, number)
        ANON_VMA(k, number).num_active_vmas += 1
        v.anon_vma_chain = 1
        told = 0
        if near != NULL:
            told = VMA(mm, near).anon_vma
        else:
            told = anon_vma_new(mm)
        store_release(v, "anon_vma", told)  # who sees it sees the record
        avc = NULL
        allocated = NULL
    spin_unlock(mm, mm.pgd)
    unlock_anon_vma_root(k, root)
    if allocated != NULL:
        put_anon_vma(mm, k, cpu, allocated)
    if avc != NULL:
        free(mm, cpu, ARENA_ANON_VMA_CHAIN, avc)
    return 0


@native
def clone_chains(mm, k, cpu, target, source):
    """``target``, in no anon_vma yet, joins all of ``source``, the oldest first; without an own one it reuses one that
    is no VMA's own and has not two children (anon_vma_clone)."""
    own = VMA_ANON(k, target)
    own.head = NULL
    root = NULL
    pavc = VMA_ANON(k, source).tail
    while pavc != NULL:
        avc = anon_vma_chain_alloc(mm, cpu)
        if avc == NULL:
            break
        number = ANON_VMA_CHAIN(k, pavc).anon_vma
        if root == NULL:
            root = lock_anon_vma_root(k, number)
        anon_vma_chain_link(k, target, avc, number)
        a = ANON_VMA(k, number)
        if own.anon_vma == NULL and a.num_children < 2 and a.num_active_vmas == 0:
            own.anon_vma = number
        pavc = ANON_VMA_CHAIN(k, pavc).prev
    if own.anon_vma != NULL:
        ANON_VMA(k, own.anon_vma).num_active_vmas += 1
    if root != NULL:
        unlock_anon_vma_root(k, root)
    return 0


@native
def clone_anon_vma(mm, target, source):
    """anon_vma_clone in a build with an allocator, after a split, mremap or merge."""
    if VMA(mm, source).anon_vma_chain == 0:
        return 0
    k = KMEM(ARENA(mm, 0), 0)
    VMA_ANON(k, target).anon_vma = VMA_ANON(k, source).anon_vma
    return clone_chains(mm, k, cpu_of(mm, mm.owner), target, source)


@native
def fork_anon_vma(mm, copy, vma):
    """anon_vma_fork in a build with an allocator: ``copy`` joins the parent's, and gets its own, unless one can be
    reused."""
    k = KMEM(ARENA(mm, 0), 0)
    cpu = cpu_of(mm, mm.owner)
    own = VMA_ANON(k, copy)
    own.anon_vma = NULL
    clone_chains(mm, k, cpu, copy, vma)
    if own.anon_vma != NULL:
        return 0
    number = anon_vma_alloc(mm, k, cpu)
    avc = anon_vma_chain_alloc(mm, cpu)
    if number == NULL or avc == NULL:
        return 0
    parent = VMA_ANON(k, vma).anon_vma
    a = ANON_VMA(k, number)
    a.num_active_vmas = 1
    a.root = ANON_VMA(k, parent).root
    a.parent = parent
    fetch_add(ANON_VMA(k, a.root), "refcount", 1)
    own.anon_vma = number
    root = lock_anon_vma_root(k, number)
    anon_vma_chain_link(k, copy, avc, number)
    ANON_VMA(k, parent).num_children += 1
    return unlock_anon_vma_root(k, root)


@native
def unlink_chains(mm, vma):
    """unlink_anon_vmas in a build with an allocator: the chains are freed, the youngest first, under the root's rwsem;
    after it anon_vmas that no VMA is in any more."""
    if VMA(mm, vma).anon_vma_chain == 0:
        return 0
    k = KMEM(ARENA(mm, 0), 0)
    cpu = cpu_of(mm, mm.owner)
    own = VMA_ANON(k, vma)
    empty = NULL
    last = NULL
    root = NULL
    avc = own.head
    while avc != NULL:
        x = ANON_VMA_CHAIN(k, avc)
        following = x.next
        if root == NULL:
            root = lock_anon_vma_root(k, x.anon_vma)
        a = ANON_VMA(k, x.anon_vma)
        a.rb_root -= 1
        if a.rb_root == 0:
            ANON_VMA(k, a.parent).num_children -= 1
            x.next = NULL
            if last == NULL:
                empty = avc
            else:
                ANON_VMA_CHAIN(k, last).next = avc
            last = avc
        else:
            free(mm, cpu, ARENA_ANON_VMA_CHAIN, avc)
        avc = following
    if own.anon_vma != NULL:
        ANON_VMA(k, own.anon_vma).num_active_vmas -= 1
    if root != NULL:
        unlock_anon_vma_root(k, root)
    while empty != NULL:
        x = ANON_VMA_CHAIN(k, empty)
        following = x.next
        put_anon_vma(mm, k, cpu, x.anon_vma)
        free(mm, cpu, ARENA_ANON_VMA_CHAIN, empty)
        empty = following
    own.head = NULL
    own.tail = NULL
    own.anon_vma = NULL
    return 0


def _calls(allocator: Binding) -> dict[Native, Native]:
    """What a build with an allocator puts in the place of calls, with or without threads. Functions that stand for
    themselves may call what is replaced."""
    found: dict[Native, Native] = {
        arena_alloc: alloc_object,
        arena_free: free_object,
        arena_room: room_of_cache,
        free_queued: free_object_queued,
        alloc: allocator["kmem_cache_alloc"],
        free: allocator["kmem_cache_free"],
        anon_vma_prepare: prepare_anon_vma,
        anon_vma_clone: clone_anon_vma,
        anon_vma_fork: fork_anon_vma,
        unlink_anon_vmas: unlink_chains,
    }
    if "kfree_rcu" in allocator:
        found.update({kfree_rcu: free_object_rcu, free_rcu: allocator["kfree_rcu"]})
    if "kmem_cache_prefill" in allocator:
        found.update({kmem_cache_prefill: prefill_objects, prefill: allocator["kmem_cache_prefill"]})
        found.update({kmem_cache_return: return_objects, give_back: allocator["kmem_cache_return"]})
    return found


def one_thread(allocator: Binding) -> Replacements | None:
    """What the build for one thread replaces; None where there is no allocator: today's text."""
    if not allocator:
        return None
    return {
        **_calls(allocator),
        plain_alloc: plain_alloc,
        plain_room: plain_room,
        plain_free: plain_free,
        plain_kfree_rcu: plain_kfree_rcu,
    }


def threads(allocator: Binding, replace: Replacements = REPLACE) -> Replacements:
    """``replace``, of a build for several threads, with the allocator."""
    if not allocator:
        return replace
    return {
        **replace,
        **_calls(allocator),
        plain_alloc: arena_alloc_shared,
        plain_room: plain_room,
        plain_free: arena_free_shared,
        plain_kfree_rcu: kfree_rcu_shared,
        arena_alloc_shared: arena_alloc_shared,
        arena_free_shared: arena_free_shared,
        cpu_of: cpu_of_thread,
    }
