"""A list, through the VMAs' strategy words, of the VMAs that a writer is changing, until it releases mmap_lock.

```
  mm.strategy1 -> VMA.strategy0 -> VMA.strategy0 -> NULL        VMA.strategy1: the one before, NULL in the first
```
Used by :mod:`~benchframe_plugins.spf_seqcount` and :mod:`~benchframe_plugins.rcu_rbtree`, where every VMA has its own
mark. (6.4 needs no list: there one store, to the mm's number, ends all marks.)
"""

from benchframe.api import hook, native
from benchframe.kernel import ARENA_VMA, NULL, VMA, kfree_rcu, write_downgrade, write_unlock


@hook("protocol")
def end_write(mm, vma):
    """The writer has finished with ``vma``: readers may use it again."""
    return 0


@native
def enlist(mm, vma):
    """Put it at the head of the list."""
    v = VMA(mm, vma)
    v.strategy0 = mm.strategy1
    v.strategy1 = NULL
    if mm.strategy1 != NULL:
        VMA(mm, mm.strategy1).strategy1 = vma
    mm.strategy1 = vma
    return 0


@native
def forget(mm, vma):
    """Take it off the list, if it is on it; its mark does not change."""
    v = VMA(mm, vma)
    if v.strategy1 != NULL:
        VMA(mm, v.strategy1).strategy0 = v.strategy0
    elif mm.strategy1 == vma:
        mm.strategy1 = v.strategy0
    if v.strategy0 != NULL:
        VMA(mm, v.strategy0).strategy1 = v.strategy1
    return 0


@native
def end_write_all(mm):
    """``end_write`` for every VMA on the list, then empty the list."""
    vma = mm.strategy1
    mm.strategy1 = NULL
    while vma != NULL:
        v = VMA(mm, vma)
        following = v.strategy0
        v.strategy0 = NULL
        v.strategy1 = NULL
        end_write(mm, vma)
        vma = following
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


@native
def free_vma(mm, vma):
    """A freed VMA stays marked for ever; a walker may still look at it."""
    forget(mm, vma)
    return kfree_rcu(mm, ARENA_VMA, vma)
