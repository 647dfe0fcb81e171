"""A lock per VMA: faults take it for read under RCU, writers mark VMAs by a sequence number. Linux 6.4 to 6.14.

History: Suren Baghdasaryan's per-VMA locks (6.4), after thirteen years of speculative page faults that were refused. A
fault locks the one VMA it is in; mapping calls keep mmap_lock for write and write-lock, one by one, the VMAs they
change. It brought about 75 % of the gain that speculation had promised, without its rules about what may be accessed.

Layout: `vm_lock`, a rw_semaphore of 40 bytes outside the VMA (inside, its line was written by every fault and read by
every walk), the VMA's `vm_lock_seq`, the mm's `mm_lock_seq`.
```
  mm.mm_lock_seq  7        VMA.vm_lock_seq  7    equal: write-locked          6    not
```
Lookup (lock_vma_under_rcu): walk the maple tree under rcu_read_lock; give up for a file's VMA, for equal numbers, or if
down_read_trylock fails. Then, *with the lock held*, check the numbers again, the anon_vma, the range, and whether the
VMA has been detached (then walk again). Giving up means mmap_lock for read and find_vma. It also gives up at a hole:
without mmap_lock that may be a VMA just being moved.

Writers (vma_start_write): take the VMA's lock for write, which waits for its readers; store the mm's number; release
the lock. The VMA stays write-locked until mm_lock_seq is raised, once, when mmap_lock is released or downgraded: that
unlocks all. Called before bounds or flags change, before a VMA leaves the tree, for both sides of a merge or split, for
every VMA of a forking parent, when a stack grows, and for a new VMA before it can be found.

Cost: the walk, two atomics on the VMA's lock line, two loads of numbers. No line is shared by faults in different VMAs.
In 6.4 these faults still take mmap_lock: file mappings, VMAs without an anon_vma yet, swap-in, kernel mode. The model
has the state of 6.4; the lock is the same up to 6.14, but 6.6 took swap-ins and file reads, 6.7 the other file faults
under it.

Concurrency: VMAs and maple nodes are freed after a grace period. A held VMA can neither change nor be freed, so nothing
is checked at commit. Page tables under a held VMA stay, since they are freed only with their VMAs. Bugs of the first
weeks (`benchframe check --historic`): fork did not lock (B19), nor did growing stacks (B20), new VMAs entered the tree
unlocked (B21), and the anon_vma was read before the lock was held (B23). Text: the code that all such faults share is
in `speculation`.
Sources: Linux 6.4 include/linux/mm.h, include/linux/mmap_lock.h, mm/memory.c; Documentation/mm/process_addrs.rst;
657b5146955e, fb49c455323f, c137381f71ae, 33313a747e81; posted as
20230227173632.3292573-1-surenb@google.com.
"""

from benchframe.api import Field, PrivateSlab, Protocol, Strategy, hookimpl, native
from benchframe.kernel import (
    NULL,
    READ_ONCE,
    SITE_SWAP,
    TASK,
    VMA,
    WRITE_ONCE,
    grow_under_write_lock,
    index_find,
    load_acquire,
    lock_acquired,
    lock_contended,
    rcu_read_lock,
    rcu_read_unlock,
    rwsem,
    store_release,
    write_downgrade,
    write_unlock,
)
from benchframe_plugins import speculation
from benchframe_plugins.speculation import exchanged, free_vma

VMA_LOCK = PrivateSlab(
    "vma_lock",
    [
        Field("count", "i8", "rwsem: readers, who waits, the writer", lock="itself"),
        Field("tail", "i8", "rwsem: tickets", lock="itself"),
        Field("head", "i8", "rwsem: whose turn it is", lock="itself"),
        Field("owner", "i8", "the kernel's lock has this word, too", lock="none"),
        Field("osq", "i8", "and this", lock="none"),
    ],
    number=4,
    at_rest=("count",),
)
"""Record i is the lock of VMA i: one slab object per VMA, as in the kernel's vma_lock cache."""
LOCK = rwsem("count", "tail", "head")
down_read_trylock, up_read = LOCK.down_read_trylock, LOCK.up_read
down_write_trylock, down_write, up_write = LOCK.down_write_trylock, LOCK.down_write, LOCK.up_write


# ---- readers ---------------------------------------------------------------------------------------------------------


@native
def vma_start_read(mm, vma):
    """1: the VMA is locked for read. 0: it is write-locked, or a writer waits."""
    v = VMA(mm, vma)
    if READ_ONCE(v, "vm_lock_seq") == READ_ONCE(mm, "mm_lock_seq"):
        return 0
    if not down_read_trylock(VMA_LOCK(mm, vma)):
        return 0
    # The number may have been stored just before the lock was taken. The acquire load pairs with vma_end_write_all.
    if READ_ONCE(v, "vm_lock_seq") == load_acquire(mm, "mm_lock_seq"):
        up_read(VMA_LOCK(mm, vma))
        return 0
    return 1


@native
def vma_end_read(mm, task, vma):
    """Release the lock. The RCU section keeps the lock's memory until up_read has returned."""
    rcu_read_lock(mm, task)
    up_read(VMA_LOCK(mm, vma))
    rcu_read_unlock(mm, task)
    return 0


@native
def lockable(mm, vma, addr):
    """With the VMA locked: whether this lock suffices for the fault. ``addr`` is inside, and no neighbours are needed
    for an anon_vma."""
    v = VMA(mm, vma)
    return v.vm_start <= addr and addr < v.vm_end and v.anon_vma != 0


@native
def lock_vma_under_rcu(mm, task, addr):
    """The VMA that contains ``addr``, locked for read; NULL if the lookup needs mmap_lock."""
    rcu_read_lock(mm, task)
    vma = index_find(mm, addr)
    found = NULL
    while vma != NULL and found == NULL:
        if VMA(mm, vma).vm_start > addr or VMA(mm, vma).vm_file != 0:  # never changes, so no lock is needed to see it
            vma = NULL
        elif not vma_start_read(mm, vma):
            vma = NULL
        elif VMA(mm, vma).detached:  # replaced meanwhile: walk again (VMA_LOCK_MISS)
            vma_end_read(mm, task, vma)
            vma = index_find(mm, addr)
        elif not lockable(mm, vma, addr):
            vma_end_read(mm, task, vma)
            vma = NULL
        else:
            found = vma
    rcu_read_unlock(mm, task)
    return found


@native
def valid(mm, task, vma, site):
    """A locked VMA cannot change. 6.4 nevertheless retries swap-ins under mmap_lock (VM_FAULT_RETRY in
    do_swap_page)."""
    return site != SITE_SWAP or not TASK(mm, task).speculative


# ---- writers ---------------------------------------------------------------------------------------------------------


@native
def start_write(mm, vma):
    """vma_start_write: wait for the VMA's readers, mark it. Nothing to do if it is already marked."""
    v = VMA(mm, vma)
    if v.vm_lock_seq == mm.mm_lock_seq:
        return 0
    if not down_write_trylock(VMA_LOCK(mm, vma)):
        since = lock_contended(mm)
        down_write(VMA_LOCK(mm, vma))
        lock_acquired(mm, since)
    WRITE_ONCE(v, "vm_lock_seq", mm.mm_lock_seq)
    up_write(VMA_LOCK(mm, vma))
    return 0


@native
def attach(mm, vma):
    """A new VMA is not locked; but in an mm that is being written it is locked before any reader can find it
    (33313a747e81)."""
    VMA(mm, vma).vm_lock_seq = -1
    if mm.owner != 0:
        start_write(mm, vma)
    return 0


@native
def end_write_all(mm):
    """vma_end_write_all: unlock every VMA of the mm by one store. A release, so that the changes are visible first."""
    store_release(mm, "mm_lock_seq", mm.mm_lock_seq + 1)
    return 0


@native
def mm_write_unlock(mm, task):
    """mmap_write_unlock."""
    end_write_all(mm)
    return write_unlock(mm, task)


@native
def mm_write_downgrade(mm, task):
    """mmap_write_downgrade."""
    end_write_all(mm)
    return write_downgrade(mm, task)


HOOKS = {
    **speculation.HOOKS,
    "mmap_write_unlock": mm_write_unlock,
    "mmap_write_downgrade": mm_write_downgrade,
    "vma_valid": valid,
    "vma_grow": grow_under_write_lock,
    "vma_start_write": start_write,
    "vma_attach": attach,
    "vma_free": free_vma,
}


def protocol(**changed):
    """The protocol, with some hooks replaced (None: the default): for variants and reintroduced bugs."""
    bind = {"speculate": lock_vma_under_rcu, "speculation_end": vma_end_read}
    return Protocol((VMA_LOCK,), bind, **exchanged(HOOKS, changed))


@hookimpl
def benchframe_strategies():
    """The strategy over the maple tree in RCU mode."""
    return [
        Strategy(
            "per_vma_rwsem",
            "a lock per VMA and a sequence number for writers, over maple, 6.4",
            "maple_rcu",
            protocol=protocol(),
            scenarios=(speculation.CUT,),
        )
    ]
