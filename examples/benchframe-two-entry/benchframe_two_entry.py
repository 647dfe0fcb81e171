"""two-entry: the last two VMAs that a lookup found, per mm, in front of the rb-tree. Freeing any VMA forgets both."""

from benchframe.api import Cache, Protocol, Strategy, hookimpl, native
from benchframe.kernel import NULL, VMA, vma_free_now


@native
def find(mm, task, addr):
    for vma in (mm.strategy0, mm.strategy1):
        if vma != NULL and VMA(mm, vma).vm_start <= addr and addr < VMA(mm, vma).vm_end:
            return vma
    return NULL


@native
def store(mm, task, addr, vma):
    mm.strategy1, mm.strategy0 = mm.strategy0, vma
    return 0


@native
def free(mm, vma):
    mm.strategy0 = mm.strategy1 = NULL
    return vma_free_now(mm, vma)


@hookimpl
def benchframe_strategies():
    cache, protocol = Cache(find=find, store=store), Protocol(vma_free=free)
    return [Strategy("two-entry", "the last two VMAs found", "rbtree", cache=cache, protocol=protocol)]
