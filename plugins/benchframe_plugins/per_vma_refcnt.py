"""A reference count per VMA that is also its lock, in a slab that is type-safe by RCU. Linux 6.15.

History: Suren Baghdasaryan again. The rw_semaphore of 6.4 was outside the VMA, so that walkers did not read its line;
one counter on a line of its own inside the VMA does the same work, saves 40 bytes and an indirection, and a VMA's
memory can be reused at once instead of after a grace period. Faults on many CPUs gained up to 15 %.

Layout: `vm_refcnt` on the VMA's third line; `vm_lock_seq` and the mm's `mm_lock_seq` as in 6.4, except that the latter
is now a seqcount, raised twice by each writer. (The kernel's begins at 0 and is odd while mmap_lock is held for write;
here it begins at 1, and is even then.)
```
  vm_refcnt   0 detached    1 attached    1 + n read by n    bit 30: a writer keeps readers out and waits
```
Lookup: the walk under rcu_read_lock; equal numbers: give up. One more reference, unless it is 0 (detached: walk again)
or a writer is there. Then, with the reference held, everything is checked again: meanwhile the memory may have become
another VMA, even of another mm. So vm_mm first, then the numbers, then the range.

Writers: vma_start_write adds bit 30, which stops new readers, sleeps on the mm's `vma_writer_wait` until it is the only
one left, stores the number, removes the bit. A VMA that leaves the tree gives up its own reference (vma_mark_detached)
and waits for late readers. The last reader wakes the writer, in the mm of the VMA it holds; if that is not the reader's
own mm, it must take a reference to the mm first (B26, 9bbffee67ffd: without it the mm could be freed between the
decrement and the wake-up).

Cost: the walk, two atomics on the VMA's third line. It serves all kinds of faults except a first write that needs an
anon_vma: that looks at neighbours, and takes mmap_lock here. (6.15 keeps the VMA locked and takes mmap_lock by
mmap_read_trylock for anon_vma_prepare alone, __vmf_anon_prepare. One fault in the life of most VMAs.)

Concurrency: maple nodes wait for a grace period, VMAs do not. A held VMA can neither change nor be freed. Orderings:
the reader's increment is an acquire, so the second check of the numbers comes after it (without: W1), and so is the
load of mm_lock_seq; puts and the writer's subtraction are releases (refcount_dec_and_test, refcount_sub_and_ test);
vma_mark_attached publishes with refcount_set_release; adding the writer's bit orders nothing, the wait behind it is a
full barrier (rcuwait). mm_lock_seqcount_begin has an smp_wmb behind its store, mm_lock_seqcount_end one before.

Readers of the whole address space hold one VMA after another: /proc/PID/maps since 6.17, PROCMAP_QUERY followed.
`linux-6.15` leaves both out, and reads under mmap_lock. A VMA that a writer has locked is taken under mmap_lock, for
that one VMA. There the walk goes on from the node where it was; here each VMA is looked up from the root.
Likewise since 6.17 MADV_DONTNEED and MADV_FREE of a range inside one VMA hold that VMA instead of mmap_lock.

Text: the code that all such faults share is in `speculation`.
Sources: Linux 6.15 include/linux/mm.h, include/linux/mmap_lock.h, mm/memory.c, mm/mmap_lock.c (6.16); 9bbffee67ffd;
6.17 fs/proc/task_mmu.c, and lock_next_vma of mm/mmap_lock.c; posted as 20250213224655.1680278-1-surenb@google.com.
"""

from benchframe.api import Protocol, Strategy, hook, hookimpl, native, scenario
from benchframe.kernel import (
    ARENA_VMA,
    MADV_DONTNEED,
    MADV_DONTNEED_LOCKED,
    MADV_FREE,
    MM,
    NULL,
    PAGE_SIZE,
    READ_ONCE,
    VMA,
    WRITE_ONCE,
    advise_pages,
    fetch_add_release,
    free_typesafe_by_rcu,
    grow_under_write_lock,
    index_find,
    load_acquire,
    lock_acquired,
    lock_contended,
    madvise_under_mmap_lock,
    mmdrop,
    mmgrab,
    page_align,
    rcu_read_lock,
    rcu_read_unlock,
    read_lock,
    read_unlock,
    refcount,
    smp_rmb,
    smp_wmb,
    waitqueue,
    write_downgrade,
    write_lock,
    write_unlock,
)
from benchframe_plugins import speculation
from benchframe_plugins.speculation import exchanged, usable

VMA_LOCK_OFFSET = 1 << 30
"""The bit by which a writer keeps readers out."""
VMA_REF_LIMIT = VMA_LOCK_OFFSET - 1
AGAIN = -1
"""vma_start_read: the VMA was detached, walk again."""
REFS = refcount("vm_refcnt")
inc_not_zero_limited, add_not_zero = REFS.refcount_inc_not_zero_limited_acquire, REFS.refcount_add_not_zero
refcount_read, set_release, dec_and_test = REFS.refcount_read, REFS.refcount_set_release, REFS.refcount_dec_and_test
refcount_inc, sub_and_test = REFS.refcount_inc, REFS.refcount_sub_and_test
WRITER_WAIT = waitqueue("vma_writer_wait")
prepare_to_wait, wake_ups, schedule = WRITER_WAIT.prepare_to_wait, WRITER_WAIT.wake_ups, WRITER_WAIT.schedule
finish_wait, wake_up = WRITER_WAIT.finish_wait, WRITER_WAIT.wake_up


# ---- readers ---------------------------------------------------------------------------------------------------------


@native
def vma_refcount_put(mm, vma):
    """Drop a reader's reference; if only the writer is left, wake it. ``mm`` is any mm; the VMA's own mm is read before
    the put."""
    v = VMA(mm, vma)
    owner = v.vm_mm
    left = fetch_add_release(v, "vm_refcnt", -1) - 1
    if left == VMA_LOCK_OFFSET or left == VMA_LOCK_OFFSET + 1:
        wake_up(MM(mm, owner))
    return 0


@hook("protocol")
def put_foreign(mm, vma):
    """Drop the reference to a VMA that turned out to belong to another mm: that mm must outlive the wake-up
    (9bbffee67ffd)."""
    owner = VMA(mm, vma).vm_mm
    mmgrab(MM(mm, owner))
    vma_refcount_put(mm, vma)
    mmdrop(MM(mm, owner))
    return 0


@native
def vma_start_read(mm, vma):
    """1: a reference is held. 0: there is a writer. AGAIN: the VMA was detached."""
    v = VMA(mm, vma)
    if READ_ONCE(v, "vm_lock_seq") == READ_ONCE(mm, "mm_lock_seq"):
        return 0
    old = inc_not_zero_limited(v, VMA_REF_LIMIT)
    if old <= 0:
        if old == 0:
            return AGAIN
        return 0
    if READ_ONCE(v, "vm_mm") != mm.id:
        put_foreign(mm, vma)
        return 0
    if READ_ONCE(v, "vm_lock_seq") == load_acquire(mm, "mm_lock_seq"):
        vma_refcount_put(mm, vma)
        return 0
    return 1


@native
def vma_end_read(mm, task, vma):
    """Drop the reference, as ``speculation_end``."""
    return vma_refcount_put(mm, vma)


@native
def lock_vma_under_rcu(mm, task, addr):
    """The VMA that contains ``addr``, held; NULL if the lookup needs mmap_lock."""
    rcu_read_lock(mm, task)
    vma = index_find(mm, addr)
    found = NULL
    while vma != NULL and found == NULL:
        got = vma_start_read(mm, vma)
        if got == AGAIN:
            vma = index_find(mm, addr)
        elif got == 0:
            vma = NULL
        elif usable(mm, VMA(mm, vma), addr):
            found = vma
        else:
            vma_refcount_put(mm, vma)
            vma = NULL
    rcu_read_unlock(mm, task)
    return found


# ---- readers of the whole address space, 6.17 ------------------------------------------------------------------------


@native
def lock_vma_range(mm, task):
    """m_start of 6.17: only an RCU section, which lasts to the end of the read."""
    return rcu_read_lock(mm, task)


@native
def lock_next_vma_under_mmap_lock(mm, task, addr):
    """The same under mmap_lock, outside the RCU section, since it may sleep: there is no writer, so the reference can
    be taken."""
    rcu_read_unlock(mm, task)
    read_lock(mm, task)
    vma = index_find(mm, addr)
    if vma != NULL:
        refcount_inc(VMA(mm, vma))
    read_unlock(mm, task)
    rcu_read_lock(mm, task)
    return vma


@native
def lock_next_vma(mm, task, addr):
    """The first VMA with ``addr < vm_end``, held; NULL if there is none.

    A VMA that begins above ``addr`` is the right one only if nothing was mapped between the two: if a writer came, the
    walk is made again with the VMA held, which cannot shrink then.
    """
    got = AGAIN
    while got == AGAIN:
        seq = load_acquire(mm, "mm_lock_seq")
        vma = index_find(mm, addr)
        if vma == NULL:
            return NULL
        got = vma_start_read(mm, vma)
    if got == 0:
        return lock_next_vma_under_mmap_lock(mm, task, addr)
    v = VMA(mm, vma)
    right = addr < v.vm_end
    if right and addr < v.vm_start:
        smp_rmb()
        if not seq & 1 or READ_ONCE(mm, "mm_lock_seq") != seq:  # even: a writer was there
            right = index_find(mm, addr) == vma
    if right:
        return vma
    vma_refcount_put(mm, vma)
    return lock_next_vma_under_mmap_lock(mm, task, addr)


@native
def get_next_vma(mm, task, vma, addr):
    """One VMA's lock after another: what is shown last is released before the next is looked for."""
    if vma != NULL:
        vma_refcount_put(mm, vma)
    return lock_next_vma(mm, task, addr)


@native
def unlock_vma_range(mm, task, vma):
    """m_stop of 6.17."""
    if vma != NULL:
        vma_refcount_put(mm, vma)
    return rcu_read_unlock(mm, task)


# ---- advice on pages, 6.17 -------------------------------------------------------------------------------------------


@native
def madvise_under_vma_lock(mm, task, start, length, advice):
    """MADV_DONTNEED and MADV_FREE of a range inside one VMA hold that VMA (try_vma_read_lock); all else mmap_lock."""
    if advice == MADV_DONTNEED or advice == MADV_DONTNEED_LOCKED or advice == MADV_FREE:
        rcu_read_lock(mm, task)
        got = AGAIN
        while got == AGAIN:
            vma = index_find(mm, start)
            got = 0
            if vma != NULL:
                got = vma_start_read(mm, vma)
        rcu_read_unlock(mm, task)
        if got == 1:
            v = VMA(mm, vma)
            end = start + page_align(length)
            if not start & (PAGE_SIZE - 1) and v.vm_start <= start and start < end and end <= v.vm_end:
                result = advise_pages(mm, task, vma, start, end, advice)
                vma_refcount_put(mm, vma)
                return result
            vma_refcount_put(mm, vma)
    return madvise_under_mmap_lock(mm, task, start, length, advice)


SINCE_6_17 = {
    "lock_vma_range": lock_vma_range,
    "get_next_vma": get_next_vma,
    "unlock_vma_range": unlock_vma_range,
    "madvise_pages": madvise_under_vma_lock,
}
"""/proc/PID/maps under one VMA's lock after another, advice on pages under one."""


def one_vma(space):
    """A VMA of four pages, two of them used."""
    space.map(0, 4)
    space.touch(0, 1)


ADVICE = scenario.Scenario(
    "madvise-munmap",
    "MADV_DONTNEED of a VMA's pages while the VMA is unmapped, and its page table freed",
    one_vma,
    ((scenario.madvise(0, 2),), (scenario.munmap(0, 4),)),
)


def beside(space):
    """Two VMAs side by side; the second cannot be written."""
    space.map(0, 4)
    space.map(4, 4, 1)


SHIFT = scenario.Scenario(
    "walk-shift",
    "/proc/PID/maps is read while the border between two VMAs moves, by one store in a leaf that stays",
    beside,
    ((scenario.walk(),), (scenario.mprotect(4, 2, 3),)),
)


# ---- writers ---------------------------------------------------------------------------------------------------------


@native
def vma_enter_locked(mm, vma, attached):
    """Keep new readers out and wait for the current ones (__vma_enter_locked): 0 if the VMA is already detached.

    ``attached`` is the VMA's own reference: 1, or 0 if it has just been given up.
    """
    v = VMA(mm, vma)
    if not add_not_zero(v, VMA_LOCK_OFFSET):
        return 0
    since = prepare_to_wait(mm)
    contended = 0
    while refcount_read(v) != VMA_LOCK_OFFSET + attached:
        if contended == 0:
            contended = lock_contended(mm)
        schedule(mm, since)
        since = wake_ups(mm)
    if contended != 0:
        lock_acquired(mm, contended)
    finish_wait(mm)
    return 1


@native
def start_write(mm, vma):
    """vma_start_write: no readers, now or until mmap_lock is released."""
    v = VMA(mm, vma)
    if v.vm_lock_seq == mm.mm_lock_seq:
        return 0
    locked = vma_enter_locked(mm, vma, 1)
    WRITE_ONCE(v, "vm_lock_seq", mm.mm_lock_seq)
    if locked:
        fetch_add_release(v, "vm_refcnt", -VMA_LOCK_OFFSET)
    return 0


@native
def attach(mm, vma):
    """Write-lock the VMA before any reader can find it, then attach it, after all stores to its fields
    (vma_mark_attached)."""
    v = VMA(mm, vma)
    WRITE_ONCE(v, "vm_lock_seq", -1)
    if mm.owner != 0:
        WRITE_ONCE(v, "vm_lock_seq", mm.mm_lock_seq)
    set_release(v, 1)
    return 0


@native
def detach(mm, vma):
    """vma_mark_detached: drop the VMA's own reference and wait for readers that found it by a stale walk."""
    v = VMA(mm, vma)
    if not dec_and_test(v):
        if vma_enter_locked(mm, vma, 0):
            fetch_add_release(v, "vm_refcnt", -VMA_LOCK_OFFSET)
    return 0


@native
def free_vma(mm, vma):
    """vm_area_free: the memory may become another VMA at once. At exit VMAs are still attached."""
    if refcount_read(VMA(mm, vma)) != 0:
        detach(mm, vma)
    return free_typesafe_by_rcu(mm, ARENA_VMA, vma)


@native
def mm_write_lock(mm, task):
    """mmap_write_lock, then mm_lock_seqcount_begin."""
    write_lock(mm, task)
    WRITE_ONCE(mm, "mm_lock_seq", mm.mm_lock_seq + 1)
    smp_wmb()
    return 0


@native
def end_write_all(mm):
    """mm_lock_seqcount_end: odd again, after the changes; this unlocks every VMA of the mm."""
    smp_wmb()
    WRITE_ONCE(mm, "mm_lock_seq", mm.mm_lock_seq + 1)
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
    **SINCE_6_17,
    "mmap_write_lock": mm_write_lock,
    "mmap_write_unlock": mm_write_unlock,
    "mmap_write_downgrade": mm_write_downgrade,
    "vma_grow": grow_under_write_lock,
    "vma_start_write": start_write,
    "vma_attach": attach,
    "vma_detach": detach,
    "vma_free": free_vma,
}


def protocol(bind=None, **changed):
    """The protocol, with some hooks replaced (None: the default), and others bound."""
    readers = {"speculate": lock_vma_under_rcu, "speculation_end": vma_end_read}
    return Protocol(bind={**readers, **(bind or {})}, **exchanged(HOOKS, changed))


@hookimpl
def benchframe_strategies():
    """The strategy over the maple tree in RCU mode."""
    return [
        Strategy(
            "per_vma_refcnt",
            "a reference count per VMA as its lock, VMAs type-safe by RCU, over maple, 6.15",
            "maple_rcu",
            protocol=protocol(),
            scenarios=(ADVICE, SHIFT, speculation.CUT),
        )
    ]
