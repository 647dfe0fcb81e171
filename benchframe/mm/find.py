"""find_vma: the cache, then the index, then the cache is told (mm/mmap.c find_vma, all versions up to 6.0)."""

from benchframe.dialect import NULL, native
from benchframe.mm.hooks import COUNT_HIT, COUNT_LOOKUP, cache_find, cache_store, count, index_find


@native
def find_vma(mm, task, addr):
    """The first VMA with ``addr < vm_end``, NULL if none; it need not contain ``addr``.

    Caller holds mmap_lock. A cache answers only for an address inside its VMA: a VMA above a hole is the right
    answer only while nothing else lies between.
    """
    count(mm, task, COUNT_LOOKUP)
    vma = cache_find(mm, task, addr)
    if vma != NULL:
        count(mm, task, COUNT_HIT)
        return vma
    vma = index_find(mm, addr)
    if vma != NULL:
        cache_store(mm, task, addr, vma)
    return vma
