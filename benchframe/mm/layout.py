"""The records of the model: mm_struct, vm_area_struct, struct page, page-table entries, tasks, and their slabs.

Field names are the kernel's. ``lock`` says what protects a field: a task that changes the address space holds
``mmap_lock`` for write, a page fault holds it for read; ``ptl`` is the lock of one page-table page. ``model`` marks
fields that the kernel keeps elsewhere or does not have: accesses to them are not counted as costs. ``pointer`` marks
fields that may hold the number of a record.

References between records are slab indices; 0 is NULL (:data:`~benchframe.dialect.NULL`). Below the records are the
functions that allocate and free them: slabs with free lists, and memory that RCU frees later.
"""

from benchframe.dialect import Field, Slab, Struct
from benchframe.dialect.functions import native
from benchframe.dialect.records import NULL

PAGE_SHIFT, PMD_SHIFT, PUD_SHIFT, PGDIR_SHIFT = 12, 21, 30, 39
"""x86-64, four levels: an entry spans 4 KiB, 2 MiB, 1 GiB, 512 GiB (arch/x86/include/asm/pgtable_64_types.h)."""
PAGE_SIZE = 1 << PAGE_SHIFT
PMD_SIZE = 1 << PMD_SHIFT
PTRS_PER_TABLE = 512
TASK_SIZE = (1 << 47) - PAGE_SIZE
"""End of user addresses with four levels: 2^47 less one guard page."""
DEFAULT_MAX_MAP_COUNT = 65530
"""USHRT_MAX - MAPCOUNT_ELF_CORE_MARGIN (include/linux/mm.h)."""

mm_struct = Struct(
    "mm_struct",
    [
        # Model: the addresses of the slabs. Written once when the mm is made; every function reads them through mm.
        Field("mm_base", "i8", "slab MM", lock="constant"),
        Field("vma_base", "i8", "slab VMA", lock="constant"),
        Field("page_base", "i8", "slab PAGE", lock="constant"),
        Field("pte_base", "i8", "slab PTE", lock="constant"),
        Field("task_base", "i8", "slab TASK", lock="constant"),
        Field("file_base", "i8", "slab FILE", lock="constant"),
        Field("slab_base", "i8", "slab ARENA: the allocators' own records", lock="constant"),
        Field("freed_base", "i8", "slab FREED: stacks of freed slots", lock="constant"),
        Field("event_base", "i8", "slab EVENT: the stream being replayed", lock="constant during a replay"),
        Field(
            "answer_base", "i8", "slab ANSWER: what a replay answered, or is told to answer", lock="the replaying task"
        ),
        Field("sample_base", "i8", "slab SAMPLE: cycles of each operation", lock="the replaying task"),
        Field("private0_base", "i8", "first private slab of the strategy", lock="constant"),
        Field("private1_base", "i8", "second private slab of the strategy", lock="constant"),
        Field("private2_base", "i8", "third private slab of the strategy", lock="constant"),
        Field("private3_base", "i8", "fourth private slab of the strategy", lock="constant"),
        Field("hook_entry", "i8", "address of the strategy's hook entry, native runs only", lock="constant"),
        Field("mapping_entry", "i8", "address of the compiled mapping operations, native runs only", lock="constant"),
        Field("hook_mask", "i8", "bit i is set if the strategy fills hook i", lock="constant"),
        # What lookup touches: two lines.
        Field("mm_rb", "i8", "root of the strategy's index, whatever it is", lock="mmap_lock", pointer=True),
        Field(
            "mmap_cache", "i8", "last find_vma result, 2.2-3.14", lock="racy hint under mmap_lock read", pointer=True
        ),
        Field("pgd", "i8", "the top page table, an index of struct page", lock="constant"),
        Field("zero_page", "i8", "frame of the zero page", lock="constant"),
        Field("mmap_lock", "i8", "rwsem: readers in the low bits, who waits and WRITER above", lock="itself"),
        Field("version", "i8", "RFC 2/4: odd while write-locked", lock="mmap_lock; read without"),
        Field("vmacache_seqnum", "i8", "3.15-6.0", lock="mmap_lock"),
        Field("mm_lock_seq", "i8", "6.4+: VMAs whose vm_lock_seq equals it are write-locked", lock="mmap_lock"),
        Field("owner", "i8", "the task whose call holds mmap_lock for write", lock="mmap_lock"),
        # The address space.
        Field("mmap", "i8", "first VMA of the list sorted by address", lock="mmap_lock", pointer=True),
        Field("last_vma", "i8", "last VMA of the list", lock="mmap_lock", model=True, pointer=True),
        Field("map_count", "i8", "number of VMAs", lock="mmap_lock"),
        Field("mmap_base", "i8", "top of the mmap region, exclusive", lock="constant"),
        Field("start_brk", "i8", "start of the heap", lock="mmap_lock"),
        Field("brk", "i8", "end of the heap, not page aligned", lock="mmap_lock"),
        Field("start_stack", "i8", "where the stack began", lock="constant"),
        Field(
            "hole_hint",
            "i8",
            "no hole of hole_size or more lies above this below mmap_base",
            lock="mmap_lock",
            model=True,
        ),
        Field("hole_size", "i8", "see hole_hint", lock="mmap_lock", model=True),
        Field("def_flags", "i8", "flags every new mapping gets (mlockall)", lock="mmap_lock"),
        # Limits and rules: parameters.
        Field("task_size", "i8", "TASK_SIZE", lock="constant"),
        Field("max_map_count", "i8", "vm.max_map_count", lock="constant"),
        Field("mmap_min_addr", "i8", "vm.mmap_min_addr", lock="constant"),
        Field("stack_limit", "i8", "RLIMIT_STACK in bytes; record 0: what an exec begins with", lock="mmap_lock"),
        Field("stack_guard_gap", "i8", "bytes kept free below a growing stack", lock="constant"),
        Field("rules", "i8", "Rule bits: what differs between kernel versions", lock="constant"),
        Field("fault_around", "i8", "pages that a file read fault maps at most (fault_around_bytes)", lock="constant"),
        Field("thp", "i8", "transparent huge pages: 0 never, 1 madvise, 2 always", lock="constant"),
        Field("crew_base", "i8", "slab CREW of a run with threads", lock="constant"),
        # Accounting.
        Field("id", "i8", "this record's index in MM", lock="constant", model=True),
        Field("nr_ptes", "i8", "page-table pages in use", lock="page_table_lock"),
        Field(
            "nr_anon_vmas", "i8", "how many anon_vma identities were given out, all mms", lock="mmap_lock", model=True
        ),
        Field("rss", "i8", "mapped pages", lock="ptl"),
        Field("error", "i8", "a slab ran out; the run is void", lock="any", model=True),
        # Counters, always on: they are in the update path only.
        Field("nr_invalidations", "i8", "cache invalidations by the strategy", lock="mmap_lock", model=True),
        Field("nr_splits", "i8", "VMA splits", lock="mmap_lock", model=True),
        Field("nr_merges", "i8", "VMA merges", lock="mmap_lock", model=True),
        Field("replay_fault", "i8", "cycles of this replay spent in faults", lock="the replaying task", model=True),
        Field("replay_lookup", "i8", "cycles spent in bare lookups", lock="the replaying task", model=True),
        Field("replay_mapping", "i8", "cycles spent in mapping operations", lock="the replaying task", model=True),
        Field("replay_clock", "i8", "cycle count at the last change of class", lock="the replaying task", model=True),
        Field(
            "clock_now", "i8", "the counter at the end of the last timed replay", lock="the replaying task", model=True
        ),
        Field("replay_switches", "i8", "how often the clock was read", lock="the replaying task", model=True),
        Field("replay_cursor", "i8", "the next known answer", lock="the replaying task", model=True),
        Field(
            "strategy0", "i8", "for the strategy: an mm-wide word of its own", lock="as the strategy says", pointer=True
        ),
        Field("strategy1", "i8", "likewise", pointer=True),
        Field("strategy2", "i8", "likewise", pointer=True),
        Field("strategy3", "i8", "likewise", pointer=True),
        # Fields that only waiters read.
        Field("mmap_lock_tail", "i8", "rwsem: tickets handed out to those who wait", lock="itself"),
        Field("mmap_lock_head", "i8", "rwsem: the ticket whose turn it is", lock="itself"),
        Field("mm_count", "i8", "references to the record: 1 while it has tasks", lock="atomic"),
        Field("private4_base", "i8", "fifth private slab of the strategy", lock="constant"),
        Field("private5_base", "i8", "sixth private slab of the strategy", lock="constant"),
        Field("vma_writer_wait", "i8", "6.15+: a writer waits for the readers of a VMA", lock="atomic"),
    ],
    size=576,
)

vm_area_struct = Struct(
    "vm_area_struct",
    [
        # Line 0: what a tree walk reads, in the order of Linux 3.8-6.0.
        Field("vm_start", "i8", "first address", lock="mmap_lock"),
        Field("vm_end", "i8", "first address after", lock="mmap_lock"),
        Field("vm_next", "i8", "list sorted by address", lock="mmap_lock", pointer=True),
        Field("vm_prev", "i8", "list sorted by address", lock="mmap_lock", pointer=True),
        Field("rb_parent_color", "i8", "parent << 1 | black; other indexes use it as they like", lock="mmap_lock"),
        Field("rb_right", "i8", "", lock="mmap_lock", pointer=True),
        Field("rb_left", "i8", "", lock="mmap_lock", pointer=True),
        Field("rb_subtree_gap", "i8", "largest hole below any VMA of this subtree, 3.8+", lock="mmap_lock"),
        # Line 1: what a fault and the merge rules read.
        Field("vm_mm", "i8", "the mm it belongs to; 0 = free", lock="mmap_lock"),
        Field("vm_flags", "i8", "VM_*", lock="mmap_lock"),
        Field("anon_vma", "i8", "identity of the anon_vma, 0 = none yet", lock="mmap_lock read + page_table_lock"),
        Field("anon_vma_chain", "i8", "length of the chain: 1 = singular, more after fork", lock="mmap_lock"),
        Field("vm_pgoff", "i8", "offset in vm_file, or address >> 12 at creation, in pages", lock="mmap_lock"),
        Field("vm_file", "i8", "index in FILE, 0 = anonymous", lock="constant"),
        Field("page_size_hint", "i8", "unused by the rules; pads", lock="none", model=True),
        Field("vm_private_data", "i8", "for a strategy", lock="as it says"),
        # Line 2: what lock-free lookups write.
        Field("cache_access", "i8", "RFC 3/4: speculating holders", lock="atomic"),
        Field("cache_wait", "i8", "RFC 3/4: waiters on cache_access == 0", lock="atomic"),
        Field("vm_lock_seq", "i8", "6.4+", lock="vm_lock or vm_refcnt"),
        Field("vm_refcnt", "i8", "6.15+", lock="atomic"),
        Field("vm_sequence", "i8", "speculative page faults: seqcount", lock="mmap_lock; read without"),
        Field("detached", "i8", "6.4+: no longer in the tree", lock="mmap_lock"),
        Field("strategy0", "i8", "for the strategy", lock="as it says", pointer=True),
        Field("strategy1", "i8", "for the strategy", lock="as it says", pointer=True),
    ],
    size=192,
)

page = Struct(
    "page",
    [
        Field("flags", "i8", "PG_*", lock="atomic"),
        Field(
            "cache",
            "i8",
            "RFC 3/4: union of index, freelist and the cached VMA of a page-table page",
            lock="ptl",
            pointer=True,
        ),
        Field("mapping", "i8", "what the page is for: see PAGE_*", lock="owner"),
        Field("refcount", "i8", "references", lock="atomic"),
        Field("mapcount", "i8", "page-table entries that map it", lock="ptl"),
        Field("ptl", "i8", "spinlock of a page-table page", lock="itself"),
        Field("nr_present", "i8", "present entries of a page-table page", lock="ptl", model=True),
        Field("private", "i8", "for a strategy; cleared when the page is prepared", lock="as it says", pointer=True),
    ],
    size=64,
)

pte = Struct(
    "pte", [Field("entry", "i8", "frame << 12 | bits, 0 = none", lock="ptl of its table; upper levels page_table_lock")]
)

task_struct = Struct(
    "task_struct",
    [
        Field("mm", "i8", "index of its mm, 0 = exited", lock="the task"),
        Field("mm_version", "i8", "RFC 2/4: mm.version at the last read lock", lock="the task"),
        Field("speculative", "i8", "RFC 4/4: the current fault runs without mmap_lock", lock="the task"),
        Field("vmacache_seqnum", "i8", "3.15-6.0", lock="the task"),
        Field("vmacache0", "i8", "3.15-6.0", lock="the task", pointer=True),
        Field("vmacache1", "i8", "3.15-6.0", lock="the task", pointer=True),
        Field("vmacache2", "i8", "3.15-6.0", lock="the task", pointer=True),
        Field("vmacache3", "i8", "3.15-6.0", lock="the task", pointer=True),
        Field("nr_lookups", "i8", "counted runs: lookups", lock="the task"),
        Field("nr_hits", "i8", "counted runs: answered by the cache", lock="the task"),
        Field("nr_retries", "i8", "counted runs: faults started over", lock="the task"),
        Field("nr_fallbacks", "i8", "counted runs: speculation given up for the lock", lock="the task"),
        Field("answer", "i8", "next recorded answer of a replay with known answers", lock="the task", model=True),
        Field("fault_kind", "i8", "what the last fault did, FAULT_*", lock="the task", model=True),
        Field("strategy0", "i8", "for the strategy", lock="as it says", pointer=True),
        Field("strategy1", "i8", "for the strategy", lock="as it says", pointer=True),
    ],
    size=128,
)

file_struct = Struct(
    "file",
    [
        Field("size", "i8", "bytes; beyond it a touch is SIGBUS", lock="none"),
        Field("flags", "i8", "FILE_*", lock="none"),
    ],
)

arena = Struct(
    "arena",
    [
        Field("capacity", "i8", "records, slot 0 included", lock="constant"),
        Field("top", "i8", "first slot never used", lock="mmap_lock"),
        Field("free", "i8", "how many freed slots wait on its stack", lock="mmap_lock"),
        Field("live", "i8", "records in use", lock="mmap_lock"),
        Field("peak", "i8", "most ever in use", lock="mmap_lock"),
        Field("stack", "i8", "where its stack of freed slots begins in FREED", lock="constant"),
        Field("lock", "i8", "spinlock, in runs with threads", lock="itself"),
        Field("kmem_base", "i8", "slab KMEM, where a strategy names an allocator (mm.kmem)", lock="constant"),
    ],
    size=64,
)

freed = Struct("freed", [Field("slot", "i8", "a freed slot", lock="mmap_lock")])

event = Struct(
    "event",
    [
        Field("addr", "i8", "see benchframe.events", lock="constant during a replay"),
        Field("len", "i8", "likewise"),
        Field("offset", "i8", "likewise"),
        Field("new_len", "i8", "likewise"),
        Field("ret", "i8", "likewise"),
        Field("kind", "i4", "likewise"),
        Field("task", "i4", "likewise"),
        Field("mm", "i4", "likewise"),
        Field("prot", "i4", "likewise"),
        Field("flags", "i4", "likewise"),
        Field("file", "i4", "likewise"),
    ],
)

answer = Struct(
    "answer",
    [
        Field("ret", "i8", "the call's result; a fault's 0 or negative code", lock="the replaying task"),
        Field("vm_start", "i8", "of the VMA a lookup or fault found, -1 if none"),
        Field("vm_end", "i8", "likewise"),
        Field("vma", "i8", "its index"),
    ],
)

sample = Struct(
    "sample",
    [
        Field("cycles", "i8", "of one operation, the counter's own cost included", lock="the replaying task"),
        Field("hit", "i8", "1 if the strategy's cache answered", lock="the replaying task"),
    ],
)

MM = Slab("MM", mm_struct, "mm_base")
EXEC_LIMITS = Slab("EXEC_LIMITS", mm_struct, "mm_base", first=0)
"""Record 0 of MM is not an address space: it keeps the limits with which each exec begins."""
VMA = Slab("VMA", vm_area_struct, "vma_base")
PAGE = Slab("PAGE", page, "page_base")
PTE = Slab("PTE", pte, "pte_base", first=PTRS_PER_TABLE)
TASK = Slab("TASK", task_struct, "task_base")
FILE = Slab("FILE", file_struct, "file_base")
ARENA = Slab("ARENA", arena, "slab_base", first=0)
FREED = Slab("FREED", freed, "freed_base", first=0)
EVENT = Slab("EVENT", event, "event_base", first=0)
ANSWER = Slab("ANSWER", answer, "answer_base", first=0)
SAMPLE = Slab("SAMPLE", sample, "sample_base", first=0)

PRIVATE_BASES = tuple(f"private{number}_base" for number in range(6))
"""Where a strategy's own slabs hang."""
MODEL_SLABS = frozenset(slab.base for slab in (MM, VMA, PAGE, PTE, TASK, FILE, ARENA, FREED, EVENT, ANSWER, SAMPLE))
"""Where the model's hang."""
ARENA_VMA, ARENA_TABLE, ARENA_PAGE, ARENA_FILE, ARENA_PRIVATE0 = 0, 1, 2, 3, 4
"""Indices in ARENA; a strategy's private slabs follow from ARENA_PRIVATE0."""


# ----------------------------------------------------------------------------------------------------------------------
# Slab allocators: allocate and free a record, both O(1), last freed first.
#
# Freed slots wait on a stack beside the records, so a freed record keeps its contents until it is taken again: what
# a stale reference would read (the checker poisons it instead). An allocator that is full sets ``mm.error`` and
# gives NULL; the caller returns -ENOMEM and the run is void, so that a too small capacity never passes for a result.


@native
def arena_alloc(mm, which):
    """Allocate a slot of arena ``which``, contents undefined; NULL if it is full. Caller holds mmap_lock for write (or
    ptl)."""
    a = ARENA(mm, which)
    if a.free > 0:
        a.free -= 1
        slot = FREED(mm, a.stack + a.free).slot
    else:
        slot = a.top
        if slot >= a.capacity:
            mm.error = which + 1
            return NULL
        a.top = slot + 1
    a.live += 1
    if a.live > a.peak:
        a.peak = a.live
    return slot


@native
def arena_free(mm, which, slot):
    """Free ``slot``. Caller holds the lock that :func:`arena_alloc` needs; no task may use the slot any more."""
    a = ARENA(mm, which)
    FREED(mm, a.stack + a.free).slot = slot
    a.free += 1
    a.live -= 1
    return 0


@native
def arena_room(mm, which):
    """How many more slots can be allocated. A hint where others allocate: the lock is not taken."""
    a = ARENA(mm, which)
    return a.free + a.capacity - a.top


@native
def page_alloc(mm, task):
    """A frame for ``task``, contents undefined; NULL if there is none. Caller holds a ptl or mmap_lock."""
    return arena_alloc(mm, ARENA_PAGE)


@native
def page_free(mm, task, frame):
    """Free a frame of ``task``."""
    return arena_free(mm, ARENA_PAGE, frame)


# ----------------------------------------------------------------------------------------------------------------------
# RCU: readers take no lock, and memory is freed only after they have finished.
#
# One thread is its own grace period: natively the sections cost nothing and kfree_rcu frees at once. The checker puts
# its own in their place, where a freed record waits until every task has been outside a section.


@native
def rcu_read_lock(mm, task):
    """Until rcu_read_unlock, nothing that this task may have seen is freed. Sections nest: the outermost counts."""
    return 0


@native
def rcu_read_unlock(mm, task):
    """End the section: references obtained inside it are invalid, unless something else keeps them alive."""
    return 0


@native
def kfree_rcu(mm, which, slot):
    """arena_free after a grace period. The caller does not wait."""
    return arena_free(mm, which, slot)


@native
def synchronize_rcu(mm, task):
    """Wait until every section that had begun has ended. Must not be called inside a section."""
    return 0


@native
def start_poll_synchronize_rcu(mm):
    """Ask for a grace period that begins after now; the number by which :func:`poll_state_synchronize_rcu` knows it."""
    return 0


@native
def poll_state_synchronize_rcu(mm, number):
    """Whether that grace period is over. With one thread every one is."""
    return 1


@native
def kmem_cache_prefill(mm, which, count):
    """A store that needs up to ``count`` objects of slab ``which`` begins: an allocator takes them now, so that the
    store itself cannot fail. ``kmem_cache_return`` ends it. Nothing where the strategy names no allocator."""
    return 0


@native
def kmem_cache_return(mm, which):
    """The store is over: give back what it did not need."""
    return 0


@native
def free_typesafe_by_rcu(mm, which, slot):
    """kmem_cache_free of a SLAB_TYPESAFE_BY_RCU cache: the slot may be reused at once, but stays a record of its kind
    until a grace period is over. A reader that found it under rcu_read_lock must check again what it is."""
    return arena_free(mm, which, slot)
