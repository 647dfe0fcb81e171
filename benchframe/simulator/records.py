"""The simulator's own memory: its numbers, a record per simulated CPU and per cache line, and its counters.

Times are picoseconds of simulated time, lines are 64 bytes. The functions that work on these records are written in the
dialect, like the model's: compiled once, they need no C compiler.
"""

from benchframe.dialect import Slab, Struct

MAX_CPUS = 256
"""A heap key holds the CPU's number in its low 8 bits."""
MAIN = MAX_CPUS
"""The record of the host's own stack, among the CPUs'."""
MAX_REGIONS, MAX_WORDS, KINDS = 32, 128, 3
"""The most slabs that are distinguished, and the most 8-byte words of a record; and LOAD, STORE, ATOMIC."""
MAX_PAIRS = 4096
WAYS, MEMORY_WAYS = 8, 16
"""Ways of the private caches, and of a shared last-level one."""
MAX_DOMAINS, MAX_SOCKETS = 32, 8
LOAD, STORE, ATOMIC = 0, 1, 2
NEW, READY, PARKED, DONE = 0, 1, 2, 3
"""States of a CPU."""
UNSEEN, FREE, MIXED, COUNTED = 0, 1, 2, 3
"""What is known about a line: nothing; it costs nothing; look up each of its words; it costs."""
BREATH, ENDED, DEADLOCK, LIMIT = 1, 2, 3, 4
"""Why the simulation returned to the host: BREATH every so many accesses, so that the host can check its progress."""

NUMBERS = {
    "insn": "one instruction of the compiler's intermediate code",
    "l2": "a hit in the second private cache",
    "llc": "a hit in the last-level cache of one's own domain",
    "near": "a line that another core of the same domain owns",
    "socket": "a line of another domain of the same socket",
    "far": "a line of another socket",
    "memory": "a line of no cache",
    "atomic": "an atomic operation on a line that one owns",
    "read_occupancy": "how long a read keeps a line that nobody has modified",
    "store_buffer": "how far stores may lag behind",
    "pause": "one cpu_relax()",
    "hold": "how long an owner keeps a line that somebody else has asked for",
    "wake_after": "a waiter that waited longer than this sleeps",
    "wake": "what waking a sleeper adds to its wait",
    "ipi_send": "sending one interrupt for a TLB shootdown",
    "ipi_handle": "handling it on the CPU that gets it",
    "memory_service": "a memory controller's time for one line; 0: memory has no limit",
    "quantum": "how far a CPU may run ahead on lines that nobody else ever had",
    "quantum_shared": "how far it may run ahead when it reads a line that it has",
    "jitter": "each event takes up to half of it longer or shorter, by chance",
}
"""From a machine's numbers that are times, in ps, to their meaning."""
COUNTS = {
    "batch": "so many requests in a row may be served nearest first before the oldest is; 0: first come, first served",
    "l1_sets": "sets of the first private cache, 8 ways",
    "l2_sets": "sets of the second, 8 ways",
    "llc_sets": "sets of a domain's last-level cache, 16 ways; 0: it holds everything",
    "per_domain": "CPUs that share a last-level cache",
    "per_socket": "CPUs of one socket",
    "seed": "of the jitter",
}
WORKS = ("fault", "lookup", "mapping", "page", "line")
"""Declared work: around a fault, a bare lookup, a call (mapping or walk); and for each allocated page frame, and each
VMA that a walk prints."""
PARTS = {
    "instructions": "computing",
    "private": "hits in the second private cache",
    "atomics": "atomic operations on lines that one owns",
    "transfers": "lines coming from other CPUs and caches",
    "memory": "lines coming from memory",
    "queueing": "standing in line for a cache line or a memory controller",
    "waiting": "waiting for a lock, a barrier or another thread",
    "stores": "waiting for stores to leave the store buffer",
    "shootdowns": "TLB shootdowns, sent and got",
    "work": "declared work around the lookup",
    "jitter": "chance",
}
"""The parts of a CPU's time. They add up to it."""


def _words(names: dict[str, str], prefix: str = "") -> list[tuple[str, str, str]]:
    return [(prefix + name, "i8", text) for name, text in names.items()]


simulator = Struct(
    "simulator",
    [
        # What every access reads.
        ("pending", "i8", "instructions since the last access"),
        ("low", "i8", "address of the first modelled byte"),
        ("span", "i8", "how many there are"),
        ("free", "i8", "1: nothing costs anything now"),
        ("current", "i8", "the CPU that runs"),
        ("top", "i8", "smallest key in the heap, the largest integer if it is empty"),
        ("accesses", "i8", "modelled accesses"),
        ("ready", "i8", "CPUs in the heap"),
        *_words(NUMBERS),
        *_words(COUNTS),
        *_words({f"work_{name}": "declared work" for name in WORKS}),
        # The run.
        ("cpus", "i8", "how many"),
        ("alive", "i8", "CPUs whose thread has not ended"),
        ("mark", "i8", "the time after which no thread should go on"),
        ("reason", "i8", "why the host was told: BREATH, ENDED, DEADLOCK or LIMIT"),
        ("coast", "i8", "1: to the end of their rounds all run at no cost, one after the other"),
        ("idle", "i8", "accesses that cost nothing"),
        ("warming", "i8", "1: what costs nothing fills the caches all the same"),
        ("breath", "i8", "number of accesses at which the host wants to look"),
        ("stepped", "i8", "CPUs that came to run"),
        ("entry", "i8", "address of the thread's function"),
        ("root", "i8", "its first argument"),
        ("command", "i8", "its third"),
        ("regions", "i8", "how many"),
        ("nothing_base", "i8", "0: WORD of an address"),
        *[(f"{name}_base", "i8", "slab") for name in ("cpu", "line", "heap", "near_tag", "far_tag", "llc_tag", "region",
                                                     "field", "pair", "histogram", "socket", "remap")],
    ],
)  # fmt: skip

cpu = Struct(
    "cpu",
    [
        ("sp", "i8", "stack pointer while it does not run; first, since the switch wants it there"),
        ("clock", "i8", "its time"),
        ("state", "i8", "NEW, READY, PARKED or DONE"),
        ("task", "i8", "the task that it runs"),
        ("store_last", "i8", "when its last store is done"),
        ("keep_line", "i8", "a line that somebody has asked for, which is still here; -1: none"),
        ("keep_until", "i8", "until when"),
        ("stolen", "i8", "time that interrupts take from it, not yet on its clock"),
        ("drift", "i8", "chance, not yet on its clock; below 0: what comes next takes less"),
        ("next_waiter", "i8", "the next that waits for the same line, its number + 1"),
        ("next_request", "i8", "the next that stands in line for the same line, likewise"),
        ("granted", "i8", "1: the line is its own now; 2: it decides who is next"),
        ("exclusive", "i8", "1: of those who wait so, a write wakes one"),
        ("parked_at", "i8", "since when"),
        ("parked_field", "i8", "for which field"),
        ("began", "i8", "when its event began"),
        ("random", "i8", "state of its generator"),
        ("domain", "i8", "bit of its domain"),
        ("socket", "i8", "its socket"),
        ("mm", "i8", "the address space of its events, 0: several"),
        ("domains", "i8", "bits of its socket's domains"),
        ("done_fault", "i8", "faults done"),
        ("done_lookup", "i8", "lookups done"),
        ("done_mapping", "i8", "mapping calls done"),
        ("done_walk", "i8", "walks of all VMAs done"),
        ("accesses", "i8", "modelled accesses"),
        ("counted_from", "i8", "how many there were when its event began"),
        ("in_fault", "i8", "accesses inside faults"),
        ("in_lookup", "i8", "inside bare lookups"),
        ("in_mapping", "i8", "inside mapping calls"),
        ("in_walk", "i8", "inside walks"),
        ("transfers", "i8", "lines that had to come from somewhere"),
        *[(f"near{i}", "i8", "bits of the CPUs of its domain") for i in range(MAX_CPUS // 64)],
        *[(f"same{i}", "i8", "bits of the CPUs of its socket") for i in range(MAX_CPUS // 64)],
        *_words(PARTS, "t_"),
    ],
    size=448,
)

line = Struct(
    "line",
    [
        *[(f"sharers{i}", "i8", "bits of the CPUs that have it") for i in range(MAX_CPUS // 64)],
        ("owner", "i8", "who may write it, a CPU + 1; 0: nobody"),
        ("free_at", "i8", "when it can serve the next request"),
        ("llc", "i8", "bits of the domains whose last-level cache has it"),
        ("place", "i8", "UNSEEN, FREE, MIXED or COUNTED"),
        ("moved", "i8", "1: more than one CPU has had it"),
        ("waiter", "i8", "first of those who wait for a write, a CPU + 1"),
        ("head", "i8", "first of those who stand in line for it, a CPU + 1"),
        ("tail", "i8", "last"),
        ("served", "i8", "who had it last, a CPU + 1"),
        ("run", "i8", "how often in a row the nearest was served"),
        ("region", "i8", "its slab; from bit 8 the socket whose memory holds it, + 1"),
        ("written", "i8", "where it was last written: bytes from the first modelled one, + 1; 0: never"),
    ],
    size=128,
)

region = Struct(
    "region",
    [
        ("base", "i8", "address of the slab"),
        ("size", "i8", "bytes"),
        ("record", "i8", "bytes of a record"),
        ("counted", "i8", "0: it costs nothing"),
        ("remap", "i8", "first of its words in REMAP; -1: every word lies where it lies"),
        ("lines", "i8", "lines that a record has in its layout"),
        ("first", "i8", "number of record 0's first line in that layout; 0: lines are where they are"),
        ("pad", "i8", ""),
    ],
)

heap = Struct("heap", [("key", "i8", "clock << 8 | CPU")])
tag = Struct("tag", [("line", "i8", "number of a line + 1; 0: empty")])
word = Struct("word", [("value", "i8", "whatever lies there")])
remap = Struct("remap", [("line", "i8", "the line of its record in which this word lies; -1: it costs nothing")])
field = Struct(
    "field",
    [
        ("n", "i8", "transactions"),
        ("time", "i8", "spent on the way"),
        ("queue", "i8", "spent standing in line"),
        ("wait", "i8", "spent waiting for a write"),
        ("far", "i8", "how many came from another socket"),
        ("pad", "i8", ""),
        ("pad1", "i8", ""),
        ("pad2", "i8", ""),
    ],
)
pair = Struct(
    "pair",
    [
        ("key", "i8", "reader's field << 16 | writer's, + 1"),
        ("n", "i8", "transactions"),
        ("time", "i8", "with queueing"),
    ],
)
histogram = Struct("sim_histogram", [("count", "i8", "operations of this length")])
socket = Struct("socket", [("free_at", "i8", "when its memory controller can serve the next line")])

CPU = Slab("CPU", cpu, "cpu_base", first=0)
LINE = Slab("LINE", line, "line_base", first=0)
SHARERS = Slab("SHARERS", word, "line_base", first=0)
"""The words of LINE: the four masks of line ``i`` are words ``16 * i`` to ``16 * i + 3``."""
HEAP = Slab("HEAP", heap, "heap_base", first=0)
NEAR_TAG = Slab("NEAR_TAG", tag, "near_tag_base", first=0)
FAR_TAG = Slab("FAR_TAG", tag, "far_tag_base", first=0)
LLC_TAG = Slab("LLC_TAG", tag, "llc_tag_base", first=0)
REGION = Slab("REGION", region, "region_base", first=0)
FIELD = Slab("FIELD", field, "field_base", first=0)
PAIR = Slab("PAIR", pair, "pair_base", first=0)
LENGTHS = Slab("LENGTHS", histogram, "histogram_base", first=0)
SOCKET = Slab("SOCKET", socket, "socket_base", first=0)
REMAP = Slab("REMAP", remap, "remap_base", first=0)
WORD = Slab("WORD", word, "nothing_base", first=0)
"""Any memory: word ``address >> 3``."""
