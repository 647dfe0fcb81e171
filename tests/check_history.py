"""Small protocols for single races: vmacache's sequence number that wraps (B15), barriers that store buffers need."""

from check_mutants import twin

from benchframe.api import TASK, VMA, Cache, native, smp_mb, wait_until, write_lock
from benchframe_plugins.pmdcache_rcu import forget
from benchframe_plugins.vmacache import mm_init as vmacache_mm_init
from benchframe_plugins.vmacache import task_init as vmacache_task_init
from benchframe_plugins.vmacache import unlinked as vmacache_unlinked
from benchframe_plugins.vmacache import (
    vmacache_find,
    vmacache_flush,
    vmacache_invalidate,
    vmacache_update,
)

# ---- store buffers --------------------------------------------------------------------------------------------------


@native
def plain_version(mm, task):
    """The version changes by a plain store, which may wait in a buffer."""
    write_lock(mm, task)
    mm.version += 1
    return 0


@native
def write_unfenced(mm, vma):
    """No barrier between the version and the look at the holders."""
    if mm.version & 1:
        wait_until(VMA(mm, vma), "cache_access", -1, 0)
        forget(mm, vma)
    return 0


@native
def write_fenced(mm, vma):
    """With the barrier."""
    if mm.version & 1:
        smp_mb()
        wait_until(VMA(mm, vma), "cache_access", -1, 0)
        forget(mm, vma)
    return 0


PLAIN_VERSION = twin("t1", mmap_write_lock=plain_version, vma_start_write=write_unfenced)
"""Right under sequential consistency only."""
TWIN_VERSION = twin("t2", mmap_write_lock=plain_version, vma_start_write=write_fenced)
"""Right on x86, too."""


# ---- B15 ----------------------------------------------------------------------------------------------------------


@native
def users_of(mm):
    """How many tasks run in this mm."""
    users = 0
    task = 1
    while task <= mm.strategy3:
        if TASK(mm, task).mm == mm.id:
            users += 1
        task += 1
    return users


@native
def flushes_all(mm):
    """A counter of two bits that, at 0, empties the slots of every task."""
    mm.vmacache_seqnum &= 3
    if mm.vmacache_seqnum == 0:
        task = 1
        while task <= mm.strategy3:
            vmacache_flush(mm, task)
            task += 1
    return 0


@native
def skips_one_user(mm):
    """3.16: with one user the flush is left out, since its next lookup would find the numbers unequal."""
    if (mm.vmacache_seqnum & 3) == 0 and users_of(mm) == 1:
        mm.vmacache_seqnum = 0
        return 0
    return flushes_all(mm)


def vmacache_with(overflow):
    """vmacache with another way to meet the overflow."""
    return Cache(
        find=vmacache_find,
        store=vmacache_update,
        detached=vmacache_invalidate,
        unlinked=vmacache_unlinked,
        mm_init=vmacache_mm_init,
        task_init=vmacache_task_init,
        bind={"vmacache_overflow": overflow},
    )
