"""The hooks that a strategy fills, how a replay calls them, and `find_vma` above them."""

from __future__ import annotations

import linecache
from collections.abc import Container
from types import FunctionType

from benchframe.dialect.functions import Hook, hook, native
from benchframe.dialect.records import NULL

# ----------------------------------------------------------------------------------------------------------------------
# The hooks through which the model calls a strategy. Most have a default, so a plugin writes only what is new in it.
#
# Three parts. The *index* finds the first VMA above an address among all. The *cache* sits in front of it. The
# *protocol* says what a lookup must hold, and what a writer must do, so that the two can run side by side.
# Order of calls and locks is the kernel's; docs/strategy-interface.md shows which hooks vmacache, a maple tree and
# per-VMA locks fill. All arguments and results are integers; ``vma``, ``task``, ``table`` are slab indices, NULL = 0.
#
# What is known of a hook is written at it (:class:`~benchframe.dialect.Hook`). Those that are ``hot`` are bound
# directly into the replay and inline; the others are called through the mm's hook entry from code that is compiled
# once for all strategies. ``lookup`` marks what a fault spends on finding its VMA; cache_find and cache_store are
# called inside vma_get, which is marked. A default that is more than "return 0" stands in
# :mod:`benchframe.mm.defaults`.

# ---- index ------------------------------------------------------------------------------------------------


@hook("index", mandatory=True, hot=True, called=True, holds="what the protocol took; mmap_lock write in calls")
def index_find(mm, addr):
    """The first VMA with ``addr < vm_end``, NULL if there is none. The caller holds what the protocol took."""


@hook("index", holds="mmap_lock write; what the fault took when a stack grows")
def index_prepare(mm, start, end):
    """A VMA, or in munmap NULL, is about to be stored over [start, end), and nothing has changed yet: 0, or 1 if there
    is no memory for it. Then the call says -ENOMEM and nothing changes, and a stack does not grow (mas_preallocate).
    Called before a split, a merge, a new VMA, a stack's growth and munmap (after its splits). In a merge more than this
    range is stored."""
    return 0


@hook("index", mandatory=True, holds="mmap_lock write")
def index_insert(mm, vma):
    """Insert ``vma``, which is already on the list (vm_prev, vm_next are set). Caller holds mmap_lock for write."""


@hook("index", mandatory=True, holds="mmap_lock write")
def index_erase(mm, vma):
    """Remove ``vma``. It has already left the list, but its own links still name its old neighbours; after a merge the
    surviving VMA already covers its range, in munmap ``erase_range`` follows. Caller holds mmap_lock for write."""


@hook("index", holds="mmap_lock write")
def index_erase_range(mm, start, end):
    """munmap has erased every VMA within [start, end), one by one. An index of ranges may leave that work to this hook,
    which then empties the range by one store, as the maple tree does. Caller holds mmap_lock for write (after ``dup``:
    the parent's)."""
    return 0


@hook("index", holds="mmap_lock write; what the fault took when a stack grows")
def index_resize(mm, vma, old_start, old_end):
    """``vma``'s bounds changed (order and neighbours did not). A VMA shrinks only if another one takes over that space:
    in a merge one that was reported to grow before, in a split the new one, which is inserted next. So an index of
    ranges need not store a shrink. Caller holds mmap_lock for write (stack growth: for read, before 6.5)."""
    return 0


@hook("index", mandatory=True, holds="mmap_lock write")
def index_gap_below(mm, length, low, high):
    """The start of a ``length``-byte range at the top of the highest hole within [low, high) that fits, or -1. The
    default walks the list from the top. If nothing fits below mmap_base, the model itself searches upwards."""


@hook("index", holds="mmap_lock write of the parent; nobody knows the child yet")
def index_dup(mm, new):
    """fork begins. 1: the index of the child, ``MM(mm, new)``, which was empty, is now a copy of ``mm``'s (__mt_dup).
    Then each VMA in it is replaced: by ``insert`` of its copy, which has the same range, or, where the child gets none,
    by ``erase_range``. 2: it stays empty until ``bulk`` fills it. 0, the default: ``insert`` fills it, VMA by VMA."""
    return 0


@hook("index", holds="mmap_lock write of the parent; nobody knows the child yet")
def index_bulk(mm):
    """fork ends, and ``dup`` has said 2: put all VMAs of the child ``mm``, which are on its list, into its empty index
    (mas_expected_entries and what follows, 6.1 to 6.7)."""
    return 0


@hook("index", holds="none: nothing else runs")
def index_check(mm):
    """0 if every invariant of the structure holds, else the number of the first broken one (the docstring of the index
    lists them). The list is correct when this is called."""
    return 0


@hook("index", holds="none: the last task is gone")
def index_exit(mm):
    """The mm ends: free private records. Its VMAs were not erased one by one."""
    return 0


# ---- cache ------------------------------------------------------------------------------------------------


@hook("cache", hot=True, holds="mmap_lock: read in a fault, write in a call")
def cache_find(mm, task, addr):
    """A cached VMA that *contains* ``addr``, else NULL. Called by find_vma before the index."""
    return NULL


@hook("cache", hot=True, holds="mmap_lock: read in a fault, write in a call")
def cache_store(mm, task, addr, vma):
    """find_vma searched the index for ``addr`` and found ``vma`` (not NULL; it may lie above ``addr``)."""
    return 0


@hook("cache", lookup=True, holds="the PTE page's ptl, and what vma_get took")
def cache_fault(mm, table, vma):
    """A fault in ``vma`` set an entry of page-table page ``table``; its ptl is held (RFC 3/4: six sites)."""
    return 0


@hook("cache", lookup=True, holds="mmap_lock write")
def cache_merge(mm, start, end, next_vma):
    """vma_merge begins for [start, end); ``next_vma`` is the first VMA that the merge may remove (RFC 3/4)."""
    return 0


@hook("cache", lookup=True, holds="mmap_lock write")
def cache_munmap(mm, start, end, vma):
    """munmap begins for [start, end); ``vma`` is the first that overlaps (RFC 3/4: before any split)."""
    return 0


@hook("cache", lookup=True, holds="mmap_lock write")
def cache_brk(mm, start, end):
    """brk is about to map [start, end) (RFC 3/4)."""
    return 0


@hook("cache", lookup=True, holds="mmap_lock write")
def cache_detached(mm):
    """munmap has taken its VMAs out of the index (detach_vmas_to_be_unmapped)."""
    return 0


@hook("cache", lookup=True, holds="mmap_lock write")
def cache_unlinked(mm, vma, prev):
    """A merge has taken ``vma`` out of the index (__vma_unlink); ``prev`` is its predecessor or NULL."""
    return 0


@hook("cache", lookup=True, holds="mmap_lock write (fork: the parent's)")
def cache_linked(mm, vma):
    """``vma`` has entered the index (__vma_link_rb)."""
    return 0


@hook("cache", lookup=True, holds="mmap_lock write")
def cache_copied(mm, vma):
    """copy_vma made ``vma``; it is not linked yet."""
    return 0


@hook("cache", lookup=True, holds="what the fault or call holds; no ptl")
def cache_table_prepared(mm, table):
    """A page was allocated as a page table (prep_new_page)."""
    return 0


@hook("cache", lookup=True, holds="none: nobody knows the mm")
def cache_mm_init(mm):
    """A new mm, including the child's after fork."""
    return 0


@hook("cache", lookup=True, holds="none: the last task is gone")
def cache_mm_exit(mm):
    """exit_mmap begins."""
    return 0


@hook("cache", lookup=True, holds="none: the task has not run")
def cache_task_init(mm, task):
    """A new task in ``mm`` (fork, clone, exec)."""
    return 0


# ---- protocol ---------------------------------------------------------------------------------------------


@hook("protocol", mandatory=True, hot=True, called=True, holds="takes it")
def mmap_read_lock(mm, task):
    """Take mmap_lock for read. Default: one atomic add if there is no writer (the rwsem's fast path)."""


@hook("protocol", mandatory=True, hot=True, called=True, holds="gives it back")
def mmap_read_unlock(mm, task):
    """Release mmap_lock, taken for read."""


@hook("protocol", mandatory=True, holds="takes it")
def mmap_write_lock(mm, task):
    """Take mmap_lock for write: a system call that changes the address space begins."""


@hook("protocol", mandatory=True, holds="gives it back")
def mmap_write_unlock(mm, task):
    """Release mmap_lock, taken for write: the call is done."""


@hook("protocol", mandatory=True, holds="mmap_lock write, then read")
def mmap_write_downgrade(mm, task):
    """Downgrade from write to read without a gap: no other writer can come in between. mmap_read_unlock ends it."""


@hook("protocol", mandatory=True, hot=True, lookup=True, holds="none; takes what it needs")
def vma_get(mm, task, addr):
    """A user fault at ``addr`` begins: return find_vma's answer, and keep it alive until vma_put.

    The default is the kernel's from 2.4 to 6.3: mmap_lock for read, then find_vma.
    """


@hook("protocol", mandatory=True, hot=True, lookup=True, holds="gives back what vma_get took")
def vma_put(mm, task, vma):
    """The fault is done with ``vma`` (NULL if there was none)."""


@hook("protocol", mandatory=True, hot=True, lookup=True, holds="none; takes mmap_lock read")
def vma_get_locked(mm, task, addr):
    """As vma_get, but without speculation: vma_valid refused the first attempt."""


@hook(
    "protocol",
    mandatory=True,
    lookup=True,
    holds="the PTE page's ptl (SITE_END, SITE_TABLE, SITE_REFUSED, SITE_MAPS: none)",
)
def vma_valid(mm, task, vma, site):
    """Whether the fault may still commit. ``site`` (SITE_*) says where it is called: with the ptl held before an entry
    is set, before a page table is allocated (no ptl), before the fault is refused because of ``vma``'s fields (no ptl),
    and at the end. 0 restarts the fault with vma_get_locked. At SITE_MAPS a walk has read ``vma``'s bounds; 0 makes it
    ask get_next_vma again. The default returns 1: a lock is held."""


@hook("protocol", mandatory=True, hot=True, holds="what vma_get took; the same afterwards")
def vma_grow(mm, task, vma, addr):
    """The VMA from vma_get or vma_get_locked lies above ``addr``: it is a stack that may grow down. Return the VMA that
    now covers ``addr``, or NULL if it may not grow; in both cases held as before, for vma_put. The default grows it
    under what is held, as the kernel did up to 6.4; ``grow_under_write_lock`` does it as since 6.5."""


@hook("protocol", holds="mmap_lock write; what the fault took when a stack grows")
def vma_start_write(mm, vma):
    """A writer is about to change ``vma``'s bounds, flags or position. Caller holds mmap_lock for write."""
    return 0


@hook("protocol", mandatory=True, holds="mmap_lock write")
def vma_dup(mm, vma):
    """fork is about to copy ``vma`` and write-protect its pages. The default calls vma_start_write, as the kernel does
    since 6.5."""


@hook("protocol", holds="mmap_lock write (fork: the parent's)")
def vma_attach(mm, vma):
    """``vma`` is complete and about to become visible."""
    return 0


@hook("protocol", holds="mmap_lock write")
def vma_detach(mm, vma):
    """``vma`` has left list and index (vma_mark_detached); its pages and tables still exist."""
    return 0


@hook("protocol", mandatory=True, holds="mmap_lock write (at exit: none)")
def vma_free(mm, vma):
    """``vma`` has left every structure: free it, at once (the default) or after the readers have finished."""


@hook("protocol", mandatory=True, holds="mmap_lock write (at exit: none)")
def table_release(mm, table):
    """Page table ``table`` has been unlinked: free it, at once (the default) or after the walkers have finished."""


@hook("protocol", mandatory=True, holds="none; takes what it needs")
def lock_vma_range(mm, task):
    """A read of /proc/PID/maps, or a PROCMAP_QUERY, begins (``fs/proc/task_mmu.c``). The default takes mmap_lock for
    read until unlock_vma_range, as the kernel does up to 6.16."""


@hook("protocol", mandatory=True, holds="what lock_vma_range took, and ``vma``")
def get_next_vma(mm, task, vma, addr):
    """Release ``vma``, which this hook returned before (NULL if none), and return the first VMA with ``addr < vm_end``,
    NULL if there is none. Its fields are readable until the next call of a walk's hooks, if vma_valid at SITE_MAPS says
    so afterwards. The default follows the list, from find_vma's answer."""


@hook("protocol", mandatory=True, holds="gives back what lock_vma_range and get_next_vma took")
def unlock_vma_range(mm, task, vma):
    """The read is over; ``vma`` is what get_next_vma returned last."""


@hook("protocol", mandatory=True, holds="none; takes what it needs")
def madvise_pages(mm, task, start, length, advice):
    """madvise with advice that changes no VMA (mm/madvise.c, madvise_lock): do_madvise's result. The default takes
    mmap_lock for read meanwhile, as the kernel does up to 6.16."""


# ---- engine -----------------------------------------------------------------------------------------------


@hook("engine", mandatory=True, holds="mmap_lock write")
def lookup(mm, task, addr):
    """find_vma as mapping operations call it: one call through the hook entry instead of three."""


@hook("engine", hot=True, holds="any")
def count(mm, task, what):
    """Something to count happened (COUNT_*). Timed runs do nothing; the counted build adds it up."""
    return 0


@hook("engine", holds="the PTE page's ptl")
def copy_user_page(mm, new, old):
    """A page's content is copied to another frame. Only the checker models content."""
    return 0


@hook("engine", holds="the PTE page's ptl")
def page_add_anon(mm, vma, addr, frame):
    """A new anonymous page was mapped at ``addr``: its index in the anon_vma follows from the VMA's bounds
    (__page_set_anon_rmap). Only the checker models it."""
    return 0


@hook("engine", holds="mmap_lock, and no ptl")
def flush_tlb(mm, start, end):
    """Entries of [start, end) have lost permissions: every CPU must drop what its TLB holds for them. Only the checker
    models TLBs."""
    return 0


@hook("engine", holds="what get_next_vma returned")
def show_map(mm, task, start, end):
    """A walk shows a VMA (show_map_vma). The checker notes the range, the simulator adds the work of printing a
    line."""
    return 0


# ---- allocator ----------------------------------------------------------------------------------------------
#
# Where objects of a slab cache come from: VMAs, and the nodes of an index whose PrivateSlab says ``kmem_cache``. Code
# does not call these hooks: it calls arena_alloc, arena_free and kfree_rcu, for which a build with an allocator puts
# these functions (:mod:`benchframe.mm.kmem`). A strategy that names none keeps the model's stacks of free slots, called
# directly: the allocator ``free``. ``cpu`` is the simulated or real thread that plays the task; 1 without threads; 0 if
# no task is known, as where a stack grows under mmap_lock for read.


@hook("allocator", called=False, holds="mmap_lock write; what the fault took when a stack grows")
def kmem_cache_alloc(mm, cpu, which):
    """A free object of cache ``which``, contents undefined; NULL if there is none. Mandatory for an allocator."""
    return NULL


@hook("allocator", called=False, holds="mmap_lock write (at exit, and after a grace period: none)")
def kmem_cache_free(mm, cpu, which, slot):
    """Free an object that no task uses any more. Mandatory for an allocator."""
    return 0


@hook("allocator", called=False, holds="mmap_lock write; cpu is never 0")
def kfree_rcu(mm, cpu, which, slot):
    """Free an object after a grace period. Without it objects wait in the mm's queue, and are freed one by one."""
    return 0


@hook("allocator", called=False, holds="mmap_lock write; cpu is never 0")
def kmem_cache_prefill(mm, cpu, which, count):
    """A store begins that needs up to ``count`` objects. Until kmem_cache_return, this CPU allocates no others."""
    return 0


@hook("allocator", called=False, holds="mmap_lock write; cpu is never 0")
def kmem_cache_return(mm, cpu, which):
    """The store is over: what kmem_cache_prefill took and nobody used goes back."""
    return 0


COUNT_LOOKUP, COUNT_HIT, COUNT_RETRY, COUNT_FALLBACK = 0, 1, 2, 3
"""``what`` of :data:`count`."""
SITE_ANON, SITE_FILE, SITE_WP, SITE_SWAP, SITE_ACCESS, SITE_END, SITE_TABLE, SITE_REFUSED = 0, 1, 2, 3, 4, 5, 6, 7
SITE_MAPS = 8
"""``site`` of :data:`vma_valid`."""

ALL = tuple(h for h in list(globals().values()) if isinstance(h, Hook))
"""Every hook, in the order of their numbers in the hook entry."""
BY_NAME = {h.name: h for h in ALL}


# ----------------------------------------------------------------------------------------------------------------------
# find_vma: ask the cache, then the index, then update the cache (mm/mmap.c find_vma, all versions up to 6.0).


@native
def find_vma(mm, task, addr):
    """The first VMA with ``addr < vm_end``, NULL if there is none; it need not contain ``addr``.

    Caller holds mmap_lock. A cache may answer only for an address inside its VMA: a VMA above a hole is the right
    answer only as long as nothing is mapped in between.
    """
    count(mm, task, COUNT_LOOKUP)
    vma = cache_find(mm, task, addr)
    if vma != NULL:
        count(mm, task, COUNT_HIT)
        return vma
    vma = index_find(mm, addr)
    if vma != NULL:
        cache_store(mm, task, addr, vma)
    return vma


# ----------------------------------------------------------------------------------------------------------------------
# The strategy's hook entry: one compiled function through which the shared mapping operations reach its hooks.

SOURCE = "<hook entry>"
"""The file name of its text in tracebacks."""


def hook_mask(filled: Container[str]) -> int:
    """``mm.hook_mask`` of a strategy that fills the hooks named in ``filled``: bit i for hook i of ALL."""
    return sum(1 << i for i, h in enumerate(ALL) if h.name in filled and h.called)


def _write() -> FunctionType:
    """``hook_entry(mm, number, a, b, c, d)`` as a chain of comparisons of the hook's number; hot hooks are not called
    through it."""
    lines = ["def hook_entry(mm, number, a, b, c, d):"]
    for number, one in enumerate(ALL):
        if one.called:
            arguments = ", ".join(["mm", "a", "b", "c", "d"][: one.arity])
            lines += [f"    if number == {number}:", f"        return {one.name}({arguments})"]
    lines.append("    return 0")
    scope: dict[str, object] = {one.name: one for one in ALL}
    scope["__name__"] = __name__
    linecache.cache[SOURCE] = (0, None, [f"{line}\n" for line in lines], SOURCE)  # for tracebacks and identities
    exec(compile("\n".join(lines), SOURCE, "exec"), scope)  # written from our own table only
    function = scope["hook_entry"]
    assert isinstance(function, FunctionType)
    return native(function)


hook_entry = _write()
