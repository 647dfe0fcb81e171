"""A strategy whose lookup is off by one page, for the tests that must notice."""

from benchframe.api import Protocol, Strategy, native
from benchframe.kernel import find_vma
from benchframe.mm.hooks import mmap_read_lock


@native
def off_by_one(mm, task, addr):
    """Looks one page too high."""
    mmap_read_lock(mm, task)
    return find_vma(mm, task, addr + 4096)


WRONG = Strategy("off-by-one", "wrong at the last page of each VMA", "rbtree", protocol=Protocol(vma_get=off_by_one))
