"""Records of a threaded run: the crew, each thread's work and results, RCU's queues, histograms, a trace's order.

One CREW record 0 for all threads, and one per mm with its queue of memory that waits for a grace period. Fields that
many threads write stand in cache lines of their own; ``line`` names the first field of each.
"""

from benchframe.dialect import Slab, Struct

crew = Struct(
    "crew",
    [
        # Line 0: read by everybody all the time, written by few and seldom.
        ("thread_base", "i8", "slab THREAD [constant]"),
        ("head_base", "i8", "slab RCU_HEAD [constant]"),
        ("histogram_base", "i8", "slab HISTOGRAM [constant]"),
        ("order_base", "i8", "slab ORDER [constant]"),
        ("go", "i8", "1: the threads may begin [the driver]"),
        ("stop", "i8", "1: come to an end at the end of the round [the driver]"),
        ("gp_started", "i8", "number of the last grace period that began [gp_lock]"),
        ("last_task", "i8", "the highest task that may be in an RCU section [constant]"),
        # Line 1
        ("ready", "i8", "threads that wait for go [atomic]"),
        ("parties", "i8", "threads that meet at the barrier [constant]"),
        ("arrived", "i8", "threads at the barrier [atomic]"),
        ("stopped", "i8", "the last one at the barrier has seen stop [who comes last]"),
        ("pad0", "i8", ""),
        ("pad1", "i8", ""),
        ("pad2", "i8", ""),
        ("pad3", "i8", ""),
        # Line 2
        ("generation", "i8", "how often the barrier has opened [who comes last]"),
        ("pad4", "i8", ""),
        ("pad5", "i8", ""),
        ("pad6", "i8", ""),
        ("pad7", "i8", ""),
        ("pad8", "i8", ""),
        ("pad9", "i8", ""),
        ("pad10", "i8", ""),
        # Line 3: RCU
        ("gp_lock", "i8", "who moves grace periods on [itself]"),
        ("gp_completed", "i8", "number of the last grace period that is over [gp_lock]"),
        ("gp_wanted", "i8", "somebody waits for this one [racy hint]"),
        ("mapped", "i8", "how many mapping operations of an ordered trace have begun [whose turn it is]"),
        ("pad11", "i8", ""),
        ("pad12", "i8", ""),
        ("pad13", "i8", ""),
        ("pad14", "i8", ""),
        # Line 4, in the record of an mm: its queue
        ("queue_lock", "i8", "spinlock of the queue [itself]"),
        ("queue_head", "i8", "oldest record that waits, an index of RCU_HEAD [queue_lock]"),
        ("queue_tail", "i8", "youngest [queue_lock]"),
        ("queued", "i8", "how many [queue_lock]"),
        ("queued_peak", "i8", "most ever [queue_lock]"),
        ("freed", "i8", "how many went back to their slab [queue_lock]"),
        ("reclaims", "i8", "how often a slab was full and its allocation waited for the queue [atomic]"),
        ("pad15", "i8", ""),
        # Line 5, likewise: locks that were not free
        ("ptl_waits", "i8", "page-table locks: how often [atomic]"),
        ("ptl_cycles", "i8", "cycles spent waiting for them, all tasks together [atomic]"),
        ("vma_waits", "i8", "VMAs' locks: how often [atomic]"),
        ("vma_cycles", "i8", "likewise [atomic]"),
    ],
    size=384,
)

thread = Struct(
    "thread",
    [
        # Line 0: the task's own, and what RCU looks at.
        ("rcu_seen", "i8", "grace period seen outside any section; 0: not in any [the task; read by all]"),
        ("pages", "i8", "list of free frames, linked by page.cache [the task]"),
        ("nr_pages", "i8", "how many [the task]"),
        ("lock_waits", "i8", "how often mmap_lock was not free [the task]"),
        ("lock_cycles", "i8", "cycles spent waiting for it [the task]"),
        ("barrier_cycles", "i8", "cycles spent at the barrier [the task]"),
        ("order_cycles", "i8", "cycles spent waiting for the order of a trace [the task]"),
        ("leader", "i8", "the thread that plays this task, a task itself [constant during a lap]"),
        # Line 1: the work.
        ("first", "i8", "first event [constant]"),
        ("last", "i8", "after the last [constant]"),
        ("rounds", "i8", "how often at most [constant]"),
        ("barrier", "i8", "event at which the barrier stands, -1 none [constant]"),
        ("checks", "i8", "1: compare each answer [constant]"),
        ("samples", "i8", "1: time each operation [constant]"),
        ("ordered", "i8", "1: mapping operations in the order of ORDER [constant]"),
        ("total", "i8", "sum of all results: what is used is not left out by the compiler [the task]"),
        # Line 2: what was done until stop was seen.
        ("faults", "i8", "page faults [the task]"),
        ("lookups", "i8", "bare lookups [the task]"),
        ("mappings", "i8", "mapping operations [the task]"),
        ("done", "i8", "rounds, the last one too [the task]"),
        ("began", "i8", "cycle count at the start [the task]"),
        ("ended", "i8", "cycle count at the end of what is counted [the task]"),
        ("checked", "i8", "answers compared [the task]"),
        ("missed", "i8", "answers that differ because a later mapping operation was faster [the task]"),
        # Line 3
        ("wrong", "i8", "answers that are wrong [the task]"),
        ("wrong_event", "i8", "the first of them [the task]"),
        ("wrong_ret", "i8", "what it said [the task]"),
        ("wrong_start", "i8", "likewise [the task]"),
        ("wrong_end", "i8", "likewise [the task]"),
    ],
    size=256,
)

rcu_head = Struct(
    "rcu_head",
    [
        ("next", "i8", "the next that waits [queue_lock]"),
        ("gp", "i8", "the grace period that must be over [queue_lock]"),
        ("which", "i8", "its slab [queue_lock]"),
        ("slot", "i8", "its index there [queue_lock]"),
    ],
)

histogram = Struct("histogram", [("count", "i8", "operations of this length [the task]")])

order = Struct(
    "order",
    [
        ("after", "i8", "the mapping operation that must be done before, an event [constant]"),
        ("number", "i8", "how many mapping operations stand before this event in the trace [constant]"),
        ("done", "i8", "1: this mapping operation is done [whoever does it]"),
        ("begun", "i8", "pads [none]"),
    ],
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
