"""two-entry: the last two VMAs that a lookup found, per mm, in front of the rb-tree.

Nothing is ever invalidated. A freed VMA has no vm_mm, and a reused record is a VMA of its mm again, so it is enough to
look at the record itself under mmap_lock.
"""

from benchframe.api import NULL, VMA, Cache, Strategy, hookimpl, native


@native
def find(mm, task, addr):
    for vma in (mm.strategy0, mm.strategy1):
        if VMA(mm, vma).vm_mm == mm.id and VMA(mm, vma).vm_start <= addr and addr < VMA(mm, vma).vm_end:
            return vma
    return NULL


@native
def store(mm, task, addr, vma):
    mm.strategy1, mm.strategy0 = mm.strategy0, vma
    return 0


@hookimpl
def benchframe_strategies():
    return [Strategy("two-entry", "the last two VMAs found", "rbtree", cache=Cache(find=find, store=store))]
