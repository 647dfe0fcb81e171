"""Records of a threaded run: the crew, each thread's work and results, RCU's queues, histograms, a trace's order.

One CREW record 0 for all threads, and one per mm with its queue of memory that waits for a grace period. Fields that
many threads write stand in cache lines of their own: ``align`` begins each.
"""

from benchframe.dialect import Field, Slab, Struct

crew = Struct(
    "crew",
    [
        # Line 0: read by everybody all the time, written by few and seldom.
        Field("thread_base", "i8", "slab THREAD", lock="constant"),
        Field("head_base", "i8", "slab RCU_HEAD", lock="constant"),
        Field("histogram_base", "i8", "slab HISTOGRAM", lock="constant"),
        Field("order_base", "i8", "slab ORDER", lock="constant"),
        Field("go", "i8", "1: the threads may begin", lock="the driver"),
        Field("stop", "i8", "1: come to an end at the end of the round", lock="the driver"),
        Field("gp_started", "i8", "number of the last grace period that began", lock="gp_lock"),
        Field("last_task", "i8", "the highest task that may be in an RCU section", lock="constant"),
        # Line 1
        Field("ready", "i8", "threads that wait for go", lock="atomic", align=64),
        Field("parties", "i8", "threads that meet at the barrier", lock="constant"),
        Field("arrived", "i8", "threads at the barrier", lock="atomic"),
        Field("stopped", "i8", "the last one at the barrier has seen stop", lock="who comes last"),
        # Line 2
        Field("generation", "i8", "how often the barrier has opened", lock="who comes last", align=64),
        # Line 3: RCU
        Field("gp_lock", "i8", "who moves grace periods on", lock="itself", align=64),
        Field("gp_completed", "i8", "number of the last grace period that is over", lock="gp_lock"),
        Field("gp_wanted", "i8", "somebody waits for this one", lock="racy hint"),
        Field("mapped", "i8", "how many mapping operations of an ordered trace have begun", lock="whose turn it is"),
        # Line 4, in the record of an mm: its queue
        Field("queue_lock", "i8", "spinlock of the queue", lock="itself", align=64),
        Field("queue_head", "i8", "oldest record that waits, an index of RCU_HEAD", lock="queue_lock"),
        Field("queue_tail", "i8", "youngest", lock="queue_lock"),
        Field("queued", "i8", "how many", lock="queue_lock"),
        Field("queued_peak", "i8", "most ever", lock="queue_lock"),
        Field("freed", "i8", "how many went back to their slab", lock="queue_lock"),
        Field("reclaims", "i8", "how often a slab was full and its allocation waited for the queue", lock="atomic"),
        # Line 5, likewise: locks that were not free
        Field("ptl_waits", "i8", "page-table locks: how often", lock="atomic", align=64),
        Field("ptl_cycles", "i8", "cycles spent waiting for them, all tasks together", lock="atomic"),
        Field("vma_waits", "i8", "VMAs' locks: how often", lock="atomic"),
        Field("vma_cycles", "i8", "likewise", lock="atomic"),
    ],
    size=384,
)

thread = Struct(
    "thread",
    [
        # Line 0: the task's own, and what RCU looks at.
        Field("rcu_seen", "i8", "grace period seen outside any section; 0: not in any", lock="the task; read by all"),
        Field("pages", "i8", "list of free frames, linked by page.cache", lock="the task"),
        Field("nr_pages", "i8", "how many", lock="the task"),
        Field("lock_waits", "i8", "how often mmap_lock was not free", lock="the task"),
        Field("lock_cycles", "i8", "cycles spent waiting for it", lock="the task"),
        Field("barrier_cycles", "i8", "cycles spent at the barrier", lock="the task"),
        Field("order_cycles", "i8", "cycles spent waiting for the order of a trace", lock="the task"),
        Field("leader", "i8", "the thread that plays this task, a task itself", lock="constant during a lap"),
        # Line 1: the work.
        Field("first", "i8", "first event", lock="constant"),
        Field("last", "i8", "after the last", lock="constant"),
        Field("rounds", "i8", "how often at most", lock="constant"),
        Field("barrier", "i8", "event at which the barrier stands, -1 none", lock="constant"),
        Field("checks", "i8", "1: compare each answer", lock="constant"),
        Field("samples", "i8", "1: time each operation", lock="constant"),
        Field("ordered", "i8", "1: mapping operations in the order of ORDER", lock="constant"),
        Field("total", "i8", "sum of all results: what is used is not left out by the compiler", lock="the task"),
        # Line 2: what was done until stop was seen.
        Field("faults", "i8", "page faults", lock="the task"),
        Field("lookups", "i8", "bare lookups", lock="the task"),
        Field("mappings", "i8", "mapping operations", lock="the task"),
        Field("done", "i8", "rounds, the last one too", lock="the task"),
        Field("began", "i8", "cycle count at the start", lock="the task"),
        Field("ended", "i8", "cycle count at the end of what is counted", lock="the task"),
        Field("checked", "i8", "answers compared", lock="the task"),
        Field("missed", "i8", "answers that differ because a later mapping operation was faster", lock="the task"),
        # Line 3
        Field("wrong", "i8", "answers that are wrong", lock="the task"),
        Field("wrong_event", "i8", "the first of them", lock="the task"),
        Field("wrong_ret", "i8", "what it said", lock="the task"),
        Field("wrong_start", "i8", "likewise", lock="the task"),
        Field("wrong_end", "i8", "likewise", lock="the task"),
    ],
    size=256,
)

rcu_head = Struct(
    "rcu_head",
    [
        Field("next", "i8", "the next that waits", lock="queue_lock"),
        Field("gp", "i8", "the grace period that must be over", lock="queue_lock"),
        Field("which", "i8", "its slab", lock="queue_lock"),
        Field("slot", "i8", "its index there", lock="queue_lock"),
    ],
)

histogram = Struct("histogram", [Field("count", "i8", "operations of this length", lock="the task")])

order = Struct(
    "order",
    [
        Field("after", "i8", "the mapping operation that must be done before, an event", lock="constant"),
        Field("number", "i8", "how many mapping operations stand before this event in the trace", lock="constant"),
        Field("done", "i8", "1: this mapping operation is done", lock="whoever does it"),
    ],
    size=32,
)

CREW = Slab("CREW", crew, "crew_base")
THREAD = Slab("THREAD", thread, "thread_base")
RCU_HEAD = Slab("RCU_HEAD", rcu_head, "head_base")
HISTOGRAM = Slab("HISTOGRAM", histogram, "histogram_base")
ORDER = Slab("ORDER", order, "order_base")

SUB, OCTAVES = 16, 36
"""Histograms: buckets per power of two (so a bucket is at most 1/16 wide), and powers of two above 16."""
BUCKETS = SUB * (OCTAVES + 1)
CLASSES = 3
"""Fault, lookup, mapping operation: CLASS_* of :mod:`benchframe.mm.replay`."""
