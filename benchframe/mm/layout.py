"""The records of the model: mm_struct, vm_area_struct, struct page, page-table entries, tasks, and their slabs.

Field names are the kernel's. Each comment says what the field holds and [which lock protects it]:
``mmap_lock`` is held for write by whoever changes the address space, for read by a page fault; ``ptl`` is the
lock of one page-table page. "model" marks what the kernel keeps elsewhere.

References between records are slab indices; 0 is NULL (:data:`~benchframe.dialect.NULL`).
"""

from benchframe.dialect import Slab, Struct

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
        # Model: where the slabs are. Written once when the mm is made; every function reads them through mm.
        ("mm_base", "i8", "slab MM [constant]"),
        ("vma_base", "i8", "slab VMA [constant]"),
        ("page_base", "i8", "slab PAGE [constant]"),
        ("pte_base", "i8", "slab PTE [constant]"),
        ("task_base", "i8", "slab TASK [constant]"),
        ("file_base", "i8", "slab FILE [constant]"),
        ("slab_base", "i8", "slab ARENA: the allocators' own records [constant]"),
        ("freed_base", "i8", "slab FREED: stacks of freed slots [constant]"),
        ("event_base", "i8", "slab EVENT: the stream being replayed [constant during a replay]"),
        ("answer_base", "i8", "slab ANSWER: what a replay answered, or is told to answer [the replaying task]"),
        ("sample_base", "i8", "slab SAMPLE: cycles of each operation [the replaying task]"),
        ("private0_base", "i8", "first private slab of the strategy [constant]"),
        ("private1_base", "i8", "second private slab of the strategy [constant]"),
        ("private2_base", "i8", "third private slab of the strategy [constant]"),
        ("private3_base", "i8", "fourth private slab of the strategy [constant]"),
        ("hook_entry", "i8", "address of the strategy's hook entry, native runs only [constant]"),
        ("mapping_entry", "i8", "address of the compiled mapping operations, native runs only [constant]"),
        ("hook_mask", "i8", "bit i is set if the strategy fills hook i [constant]"),
        # What lookup touches: two lines.
        ("mm_rb", "i8", "root of the strategy's index, whatever it is [mmap_lock]"),
        ("mmap_cache", "i8", "last find_vma result, 2.2-3.14 [racy hint under mmap_lock read]"),
        ("pgd", "i8", "the top page table, an index of struct page [constant]"),
        ("zero_page", "i8", "frame of the zero page [constant]"),
        ("mmap_lock", "i8", "rwsem: readers in the low bits, who waits and WRITER above [itself]"),
        ("version", "i8", "RFC 2/4: odd while write-locked [mmap_lock; read without]"),
        ("vmacache_seqnum", "i8", "3.15-6.0 [mmap_lock]"),
        ("mm_lock_seq", "i8", "6.4+: VMAs whose vm_lock_seq equals it are write-locked [mmap_lock]"),
        ("owner", "i8", "the task whose call holds mmap_lock for write [mmap_lock]"),
        # The address space.
        ("mmap", "i8", "first VMA of the list sorted by address [mmap_lock]"),
        ("last_vma", "i8", "model: last VMA of the list [mmap_lock]"),
        ("map_count", "i8", "number of VMAs [mmap_lock]"),
        ("mmap_base", "i8", "top of the mmap region, exclusive [constant]"),
        ("start_brk", "i8", "start of the heap [mmap_lock]"),
        ("brk", "i8", "end of the heap, not page aligned [mmap_lock]"),
        ("start_stack", "i8", "where the stack began [constant]"),
        ("hole_hint", "i8", "model: no hole of hole_size or more lies above this below mmap_base [mmap_lock]"),
        ("hole_size", "i8", "model: see hole_hint [mmap_lock]"),
        ("def_flags", "i8", "flags every new mapping gets (mlockall) [mmap_lock]"),
        # Limits and rules: parameters.
        ("task_size", "i8", "TASK_SIZE [constant]"),
        ("max_map_count", "i8", "vm.max_map_count [constant]"),
        ("mmap_min_addr", "i8", "vm.mmap_min_addr [constant]"),
        ("stack_limit", "i8", "RLIMIT_STACK in bytes [constant]"),
        ("stack_guard_gap", "i8", "bytes kept free below a growing stack [constant]"),
        ("rules", "i8", "Rule bits: what differs between kernel versions [constant]"),
        ("fault_around", "i8", "pages that a file read fault maps at most (fault_around_bytes) [constant]"),
        ("thp", "i8", "transparent huge pages: 0 never, 1 madvise, 2 always [constant]"),
        ("crew_base", "i8", "slab CREW of a run with threads [constant]"),
        # Accounting.
        ("id", "i8", "this record's index in MM [constant]"),
        ("nr_ptes", "i8", "page-table pages in use [page_table_lock]"),
        ("nr_anon_vmas", "i8", "model: how many anon_vma identities were given out, all mms [mmap_lock]"),
        ("rss", "i8", "mapped pages [ptl]"),
        ("error", "i8", "model: a slab ran out; the run is void [any]"),
        # Counters, always on: they are in the update path only.
        ("nr_invalidations", "i8", "cache invalidations by the strategy [mmap_lock]"),
        ("nr_splits", "i8", "VMA splits [mmap_lock]"),
        ("nr_merges", "i8", "VMA merges [mmap_lock]"),
        ("replay_fault", "i8", "model: cycles of this replay spent in faults [the replaying task]"),
        ("replay_lookup", "i8", "model: cycles spent in bare lookups [the replaying task]"),
        ("replay_mapping", "i8", "model: cycles spent in mapping operations [the replaying task]"),
        ("replay_clock", "i8", "model: cycle count at the last change of class [the replaying task]"),
        ("clock_now", "i8", "model: the counter at the end of the last timed replay [the replaying task]"),
        ("replay_switches", "i8", "model: how often the clock was read [the replaying task]"),
        ("replay_cursor", "i8", "model: the next known answer [the replaying task]"),
        ("strategy0", "i8", "for the strategy: an mm-wide word of its own [as the strategy says]"),
        ("strategy1", "i8", "likewise"),
        ("strategy2", "i8", "likewise"),
        ("strategy3", "i8", "likewise"),
        # Where nobody looks who does not have to wait.
        ("mmap_lock_tail", "i8", "rwsem: tickets handed out to those who wait [itself]"),
        ("mmap_lock_head", "i8", "rwsem: the ticket whose turn it is [itself]"),
        ("mm_count", "i8", "references to the record: 1 while it has tasks [atomic]"),
        ("private4_base", "i8", "fifth private slab of the strategy [constant]"),
        ("private5_base", "i8", "sixth private slab of the strategy [constant]"),
        ("vma_writer_wait", "i8", "6.15+: a writer waits for the readers of a VMA [atomic]"),
    ],
    size=576,
)

vm_area_struct = Struct(
    "vm_area_struct",
    [
        # Line 0: what a tree walk reads, in the order of Linux 3.8-6.0.
        ("vm_start", "i8", "first address [mmap_lock]"),
        ("vm_end", "i8", "first address after [mmap_lock]"),
        ("vm_next", "i8", "list sorted by address [mmap_lock]"),
        ("vm_prev", "i8", "list sorted by address [mmap_lock]"),
        ("rb_parent_color", "i8", "parent << 1 | black; other indexes use it as they like [mmap_lock]"),
        ("rb_right", "i8", "[mmap_lock]"),
        ("rb_left", "i8", "[mmap_lock]"),
        ("rb_subtree_gap", "i8", "largest hole below any VMA of this subtree, 3.8+ [mmap_lock]"),
        # Line 1: what a fault and the merge rules read.
        ("vm_mm", "i8", "the mm it belongs to; 0 = free [mmap_lock]"),
        ("vm_flags", "i8", "VM_* [mmap_lock]"),
        ("anon_vma", "i8", "identity of the anon_vma, 0 = none yet [mmap_lock read + page_table_lock]"),
        ("anon_vma_chain", "i8", "length of the chain: 1 = singular, more after fork [mmap_lock]"),
        ("vm_pgoff", "i8", "offset in vm_file, or address >> 12 at creation, in pages [mmap_lock]"),
        ("vm_file", "i8", "index in FILE, 0 = anonymous [constant]"),
        ("page_size_hint", "i8", "model: unused by the rules; pads [none]"),
        ("vm_private_data", "i8", "for a strategy [as it says]"),
        # Line 2: what lock-free lookups write.
        ("cache_access", "i8", "RFC 3/4: speculating holders [atomic]"),
        ("cache_wait", "i8", "RFC 3/4: waiters on cache_access == 0 [atomic]"),
        ("vm_lock_seq", "i8", "6.4+ [vm_lock or vm_refcnt]"),
        ("vm_refcnt", "i8", "6.15+ [atomic]"),
        ("vm_sequence", "i8", "speculative page faults: seqcount [mmap_lock; read without]"),
        ("detached", "i8", "6.4+: no longer in the tree [mmap_lock]"),
        ("strategy0", "i8", "for the strategy [as it says]"),
        ("strategy1", "i8", "for the strategy [as it says]"),
    ],
    size=192,
)

page = Struct(
    "page",
    [
        ("flags", "i8", "PG_* [atomic]"),
        ("cache", "i8", "RFC 3/4: union of index, freelist and the cached VMA of a page-table page [ptl]"),
        ("mapping", "i8", "what the page is for: see PAGE_* [owner]"),
        ("refcount", "i8", "references [atomic]"),
        ("mapcount", "i8", "page-table entries that map it [ptl]"),
        ("ptl", "i8", "spinlock of a page-table page [itself]"),
        ("nr_present", "i8", "model: present entries of a page-table page [ptl]"),
        ("private", "i8", "for a strategy; cleared when the page is prepared [as it says]"),
    ],
    size=64,
)

pte = Struct("pte", [("entry", "i8", "frame << 12 | bits, 0 = none [ptl of its table; upper levels page_table_lock]")])

task_struct = Struct(
    "task_struct",
    [
        ("mm", "i8", "index of its mm, 0 = exited [the task]"),
        ("mm_version", "i8", "RFC 2/4: mm.version at the last read lock [the task]"),
        ("speculative", "i8", "RFC 4/4: the current fault runs without mmap_lock [the task]"),
        ("vmacache_seqnum", "i8", "3.15-6.0 [the task]"),
        ("vmacache0", "i8", "3.15-6.0 [the task]"),
        ("vmacache1", "i8", "3.15-6.0 [the task]"),
        ("vmacache2", "i8", "3.15-6.0 [the task]"),
        ("vmacache3", "i8", "3.15-6.0 [the task]"),
        ("nr_lookups", "i8", "counted runs: lookups [the task]"),
        ("nr_hits", "i8", "counted runs: answered by the cache [the task]"),
        ("nr_retries", "i8", "counted runs: faults started over [the task]"),
        ("nr_fallbacks", "i8", "counted runs: speculation given up for the lock [the task]"),
        ("answer", "i8", "model: next recorded answer of a replay with known answers [the task]"),
        ("fault_kind", "i8", "model: what the last fault did, FAULT_* [the task]"),
        ("strategy0", "i8", "for the strategy [as it says]"),
        ("strategy1", "i8", "for the strategy [as it says]"),
    ],
    size=128,
)

file_struct = Struct(
    "file",
    [
        ("size", "i8", "bytes; beyond it a touch is SIGBUS [none]"),
        ("flags", "i8", "FILE_* [none]"),
    ],
)

arena = Struct(
    "arena",
    [
        ("capacity", "i8", "records, slot 0 included [constant]"),
        ("top", "i8", "first slot never used [mmap_lock]"),
        ("free", "i8", "how many freed slots wait on its stack [mmap_lock]"),
        ("live", "i8", "records in use [mmap_lock]"),
        ("peak", "i8", "most ever in use [mmap_lock]"),
        ("stack", "i8", "where its stack of freed slots begins in FREED [constant]"),
        ("lock", "i8", "spinlock, in runs with threads [itself]"),
    ],
    size=64,
)

freed = Struct("freed", [("slot", "i8", "a freed slot [mmap_lock]")])

event = Struct(
    "event",
    [
        ("addr", "i8", "see benchframe.events"),
        ("len", "i8", "likewise"),
        ("offset", "i8", "likewise"),
        ("new_len", "i8", "likewise"),
        ("ret", "i8", "likewise"),
        ("kind", "i4", "likewise"),
        ("task", "i4", "likewise"),
        ("mm", "i4", "likewise"),
        ("prot", "i4", "likewise"),
        ("flags", "i4", "likewise"),
        ("file", "i4", "likewise"),
    ],
)

answer = Struct(
    "answer",
    [
        ("ret", "i8", "the call's result; a fault's 0 or negative code"),
        ("vm_start", "i8", "of the VMA a lookup or fault found, -1 if none"),
        ("vm_end", "i8", "likewise"),
        ("vma", "i8", "its index"),
    ],
)

sample = Struct(
    "sample",
    [
        ("cycles", "i8", "of one operation, the counter's own cost included"),
        ("hit", "i8", "1 if the strategy's cache answered"),
    ],
)

MM = Slab("MM", mm_struct, "mm_base")
VMA = Slab("VMA", vm_area_struct, "vma_base")
PAGE = Slab("PAGE", page, "page_base")
PTE = Slab("PTE", pte, "pte_base")
TASK = Slab("TASK", task_struct, "task_base")
FILE = Slab("FILE", file_struct, "file_base")
ARENA = Slab("ARENA", arena, "slab_base")
FREED = Slab("FREED", freed, "freed_base")
EVENT = Slab("EVENT", event, "event_base")
ANSWER = Slab("ANSWER", answer, "answer_base")
SAMPLE = Slab("SAMPLE", sample, "sample_base")

PRIVATE_BASES = tuple(f"private{number}_base" for number in range(6))
"""Where a strategy's own slabs hang."""
ARENA_VMA, ARENA_TABLE, ARENA_PAGE, ARENA_FILE, ARENA_PRIVATE0 = 0, 1, 2, 3, 4
"""Indices in ARENA; a strategy's private slabs follow from ARENA_PRIVATE0."""
