"""Small protocols for single races: barriers that store buffers need."""

from benchframe.api import native
from benchframe.kernel import VMA, smp_mb, wait_until, write_lock
from benchframe_plugins.pmdcache_rcu import forget
from support.mutants import twin

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
