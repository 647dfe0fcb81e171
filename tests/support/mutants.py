"""pmdcache_rcu with one thing broken, and three small protocols: what the checker must catch."""

from benchframe.api import Cache, Protocol, Strategy, native
from benchframe.kernel import (
    COUNT_FALLBACK,
    NULL,
    TASK,
    VMA,
    count,
    fetch_add,
    find_vma,
    rcu_read_lock,
    rcu_read_unlock,
    read_lock,
    read_unlock,
    smp_mb,
    vma_free_now,
    wait_interruptible,
    wait_until,
    write_lock,
    write_unlock,
)
from benchframe.mm.defaults import table_release_now
from benchframe_plugins.pmdcache_rcu import (
    cached_vma,
    forget,
    free_vma,
    get_locked,
    get_speculative,
    mm_read_lock,
    mm_version_check,
    mm_write_lock,
    mm_write_unlock,
    put,
    release_table,
    start_write,
    table_prepared,
    update,
    usable,
    vma_hold,
    vma_release,
)

CACHE = {"fault": update, "table_prepared": table_prepared}
PROTOCOL = {
    "mmap_write_lock": mm_write_lock,
    "mmap_write_unlock": mm_write_unlock,
    "mmap_read_lock": mm_read_lock,
    "mmap_read_unlock": read_unlock,
    "vma_get": get_speculative,
    "vma_get_locked": get_locked,
    "vma_put": put,
    "vma_start_write": start_write,
    "vma_free": free_vma,
    "table_release": release_table,
}


@native
def free_at_once(mm, vma):
    """B1: no grace period."""
    return vma_free_now(mm, vma)


@native
def free_table_at_once(mm, table):
    """B5: walkers are not waited for."""
    return table_release_now(mm, table)


@native
def write_without_wait(mm, vma):
    """Nobody waits for holders."""
    if mm.version & 1:
        forget(mm, vma)
    return 0


@native
def wait_for_the_next(mm, vma):
    """B3: the wait is for another VMA."""
    if mm.version & 1:
        other = VMA(mm, vma).vm_prev
        if other != NULL:
            wait_until(VMA(mm, other), "cache_access", -1, 0)
        forget(mm, vma)
    return 0


@native
def wait_for_a_signal(mm, vma):
    """B4: a signal ends the wait."""
    if mm.version & 1:
        smp_mb()
        wait_interruptible(VMA(mm, vma), "cache_access", -1, 0)
        forget(mm, vma)
    return 0


@native
def forget_first(mm, vma):
    """B6: the pointer is cleared while a fault may still set it."""
    if mm.version & 1:
        forget(mm, vma)
        smp_mb()
        wait_until(VMA(mm, vma), "cache_access", -1, 0)
    return 0


@native
def never_forget(mm, vma):
    """B2: the pointers stay."""
    if mm.version & 1:
        smp_mb()
        wait_until(VMA(mm, vma), "cache_access", -1, 0)
    return 0


@native
def late_version(mm, task):
    """The version changes at the end only."""
    write_lock(mm, task)
    return 0


@native
def late_version_unlock(mm, task):
    """See late_version."""
    fetch_add(mm, "version", 2)
    write_unlock(mm, task)
    return 0


@native
def start_write_always(mm, vma):
    """start_write for a version that is never odd."""
    if mm.owner != 0:
        smp_mb()
        wait_until(VMA(mm, vma), "cache_access", -1, 0)
        forget(mm, vma)
    return 0


@native
def covers(mm, vma, addr):
    """Is ``addr`` in it?"""
    v = VMA(mm, vma)
    return v.vm_start <= addr and addr < v.vm_end


@native
def get_without_recheck(mm, task, addr):
    """No version check after the hold."""
    if mm_version_check(mm, task):
        rcu_read_lock(mm, task)
        vma = cached_vma(mm, addr)
        if vma != NULL:
            vma_hold(mm, vma)
            if covers(mm, vma, addr) and VMA(mm, vma).anon_vma != 0:
                rcu_read_unlock(mm, task)
                TASK(mm, task).speculative = 1
                return vma
            vma_release(mm, vma)
        rcu_read_unlock(mm, task)
    return get_locked(mm, task, addr)


@native
def get_check_then_hold(mm, task, addr):
    """The check comes before the hold."""
    if mm_version_check(mm, task):
        rcu_read_lock(mm, task)
        vma = cached_vma(mm, addr)
        if vma != NULL and usable(mm, task, vma, addr):
            vma_hold(mm, vma)
            rcu_read_unlock(mm, task)
            TASK(mm, task).speculative = 1
            return vma
        rcu_read_unlock(mm, task)
    return get_locked(mm, task, addr)


@native
def get_short_section(mm, task, addr):
    """The RCU section ends before the hold."""
    if mm_version_check(mm, task):
        rcu_read_lock(mm, task)
        vma = cached_vma(mm, addr)
        rcu_read_unlock(mm, task)
        if vma != NULL:
            vma_hold(mm, vma)
            if usable(mm, task, vma, addr):
                TASK(mm, task).speculative = 1
                return vma
            vma_release(mm, vma)
    return get_locked(mm, task, addr)


@native
def get_any_anon(mm, task, addr):
    """No rule about anon_vma."""
    if mm_version_check(mm, task):
        rcu_read_lock(mm, task)
        vma = cached_vma(mm, addr)
        if vma != NULL:
            vma_hold(mm, vma)
            if mm_version_check(mm, task) and covers(mm, vma, addr):
                rcu_read_unlock(mm, task)
                TASK(mm, task).speculative = 1
                return vma
            vma_release(mm, vma)
        rcu_read_unlock(mm, task)
    return get_locked(mm, task, addr)


@native
def put_without_release(mm, task, vma):
    """The hold is never given back."""
    t = TASK(mm, task)
    if t.speculative:
        t.speculative = 0
        return 0
    return read_unlock(mm, task)


@native
def sleep_after_test(mm, vma):
    """B9's kind: test, then queue, then sleep; a wake-up between test and queue is lost."""
    if mm.version & 1:
        v = VMA(mm, vma)
        if v.cache_access != 0:
            v.cache_wait = 1
            wait_until(v, "cache_wait", -1, 0)
        forget(mm, vma)
    return 0


@native
def queue_before_test(mm, vma):
    """The mend: queue, then test."""
    if mm.version & 1:
        v = VMA(mm, vma)
        v.cache_wait = 1
        smp_mb()
        if v.cache_access != 0:
            wait_until(v, "cache_wait", -1, 0)
        v.cache_wait = 0
        forget(mm, vma)
    return 0


@native
def put_and_wake(mm, task, vma):
    """The last holder wakes who waits."""
    t = TASK(mm, task)
    if t.speculative:
        t.speculative = 0
        return release_and_wake(mm, task, vma)
    return read_unlock(mm, task)


@native
def release_and_wake(mm, task, vma):
    """Inside an RCU section: after the count is down the VMA may go."""
    rcu_read_lock(mm, task)
    v = VMA(mm, vma)
    if fetch_add(v, "cache_access", -1) == 1 and v.cache_wait != 0:
        v.cache_wait = 0
    rcu_read_unlock(mm, task)
    return 0


@native
def put_wakes_wrongly(mm, task, vma):
    """v3 of the RFC: wakes when one is left, the waiter waits for none."""
    t = TASK(mm, task)
    if t.speculative:
        t.speculative = 0
        v = VMA(mm, vma)
        if fetch_add(v, "cache_access", -1) == 2 and v.cache_wait != 0:
            v.cache_wait = 0
        return 0
    return read_unlock(mm, task)


@native
def get_waking(mm, task, addr):
    """get_speculative whose way back wakes, too."""
    if mm_version_check(mm, task):
        rcu_read_lock(mm, task)
        vma = cached_vma(mm, addr)
        if vma != NULL:
            vma_hold(mm, vma)
            if usable(mm, task, vma, addr):
                rcu_read_unlock(mm, task)
                TASK(mm, task).speculative = 1
                return vma
            release_and_wake(mm, task, vma)
        rcu_read_unlock(mm, task)
    count(mm, task, COUNT_FALLBACK)
    return get_locked(mm, task, addr)


@native
def no_lock(mm, task):
    """A reader that forgets the lock."""
    return 0


@native
def get_twice_locked(mm, task, addr):
    """Takes the lock for write inside read: a deadlock with itself."""
    read_lock(mm, task)
    write_lock(mm, task)
    return find_vma(mm, task, addr)


def twin(name, cache=None, **protocol):
    """pmdcache_rcu with some hooks exchanged; None leaves the default."""
    cache_hooks = {**CACHE, **(cache or {})}
    hooks = {key: value for key, value in {**PROTOCOL, **protocol}.items() if value is not None}
    return Strategy(name, "a mutant", index="rbtree", cache=Cache(**cache_hooks), protocol=Protocol(**hooks))


def plain(name, **protocol):
    """The rb-tree with some hooks of the protocol exchanged."""
    return Strategy(name, "a mutant", index="rbtree", protocol=Protocol(**protocol))


LATE = {
    "mmap_write_lock": late_version,
    "mmap_write_unlock": late_version_unlock,
    "vma_start_write": start_write_always,
}
WAKING = {"vma_get": get_waking, "vma_put": put_and_wake}

MUTANTS = {
    # name: (strategy, scenario, what must be found)
    "B1 free at once": (twin("m1", vma_free=free_at_once), "lookup-munmap", "use after free"),
    "B2 never forget": (twin("m2", vma_start_write=never_forget), "merge-then-lookup", "use after free"),
    "B3 wait for another": (twin("m3", vma_start_write=wait_for_the_next), "fault-merge", "use after free"),
    "B4 wait ended by a signal": (
        twin("m4", vma_start_write=wait_for_a_signal), "fault-munmap-signal", "use after free|broken invariant"
    ),
    "B5 tables freed at once": (twin("m5", table_release=free_table_at_once), "lookup-munmap-table", "use after free"),
    "B6 forget, then wait": (twin("m6", vma_start_write=forget_first), "fault-munmap", "use after free"),
    "free without wait": (twin("m7", vma_start_write=write_without_wait), "fault-munmap", "use after free"),
    "no recheck": (twin("m8", vma_get=get_without_recheck), "fault-munmap", "use after free|stale|broken"),
    "check, then hold": (twin("m9", vma_get=get_check_then_hold), "fault-munmap", "use after free|stale|broken"),
    "RCU section too short": (twin("m10", vma_get=get_short_section), "lookup-munmap", "use after free"),
    "anon_vma without the lock": (twin("m11", vma_get=get_any_anon), "fault-munmap-neighbour", "use after free"),
    "a hold never given back": (twin("m12", vma_put=put_without_release), "lookup-munmap", "deadlock|broken"),
    "version too late": (twin("m13", **LATE), "fault-munmap", "use after free|stale|broken"),
    "B9 test before queue": (
        twin("m14", **{**WAKING, "vma_start_write": sleep_after_test}), "fault-munmap", "deadlock",
    ),
    "B9 as in v3": (
        twin("m15", vma_start_write=queue_before_test, vma_put=put_wakes_wrongly, vma_get=get_waking),
        "fault-munmap", "deadlock",
    ),
    "reader without lock": (plain("m16", mmap_read_lock=no_lock, mmap_read_unlock=no_lock), "lookup-munmap", ""),
}  # fmt: skip
"""One broken thing each."""
INSIDE_OUT = plain("m17", vma_get=get_twice_locked)
MENDED = {
    "B9 queue before test": (twin("g1", **{**WAKING, "vma_start_write": queue_before_test}), "fault-munmap"),
    "the twin itself": (twin("g2"), "fault-munmap"),
}
"""Variants that are right."""
