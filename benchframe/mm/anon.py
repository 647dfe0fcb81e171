"""anon_vma as far as merging sees it: identities, singular chains, reuse from a neighbour (mm/rmap.c, mm/vma.c).

The model gives each anon_vma a number and keeps the length of a VMA's chain: 1 is singular, more means that the
VMA came through fork and inherits its parent's anon_vmas.
"""

from benchframe.dialect import NULL, native
from benchframe.mm.flags import RULE_ANON_VMA_616, VM_ACCESS, VM_IGNORE_MERGE
from benchframe.mm.layout import MM, PAGE_SHIFT, VMA
from benchframe.mm.pagetable import spin_lock, spin_unlock


@native
def anon_vma_new(mm):
    """A number no VMA of any mm has."""
    root = MM(mm, 1)
    root.nr_anon_vmas += 1
    return root.nr_anon_vmas


@native
def anon_vma_compatible(mm, a, b):
    """Could a later mprotect merge ``a`` with the ``b`` above it? (anon_vma_compatible)"""
    va = VMA(mm, a)
    vb = VMA(mm, b)
    if va.vm_end != vb.vm_start or va.vm_file != vb.vm_file:
        return 0
    if (va.vm_flags ^ vb.vm_flags) & ~(VM_ACCESS | VM_IGNORE_MERGE):
        return 0
    if vb.vm_pgoff != va.vm_pgoff + ((vb.vm_start - va.vm_start) >> PAGE_SHIFT):
        return 0
    return 1


@native
def anon_vma_prepare(mm, vma):
    """First anonymous page of a private VMA: take a neighbour's anon_vma if a merge may follow, the next VMA's
    first (find_mergeable_anon_vma), else a new one. Caller holds mmap_lock for read."""
    if VMA(mm, vma).anon_vma != 0:
        return 0
    spin_lock(mm, mm.pgd)
    if VMA(mm, vma).anon_vma == 0:
        anon_vma_choose(mm, vma)
    spin_unlock(mm, mm.pgd)
    return 0


@native
def anon_vma_choose(mm, vma):
    """The part of anon_vma_prepare under page_table_lock (which is the top table's own lock)."""
    v = VMA(mm, vma)
    v.anon_vma_chain = 1
    above = v.vm_next
    if above != NULL:
        n = VMA(mm, above)
        if n.anon_vma != 0 and n.anon_vma_chain == 1 and anon_vma_compatible(mm, vma, above):
            v.anon_vma = n.anon_vma
            return 0
    below = v.vm_prev
    if below != NULL:
        p = VMA(mm, below)
        if p.anon_vma != 0 and p.anon_vma_chain == 1 and anon_vma_compatible(mm, below, vma):
            v.anon_vma = p.anon_vma
            return 0
    v.anon_vma = anon_vma_new(mm)
    return 0


@native
def anon_vma_dup(mm, target, source):
    """``target`` swallows pages of ``source``: it needs its anon_vma (dup_anon_vma)."""
    t = VMA(mm, target)
    s = VMA(mm, source)
    if s.anon_vma != 0 and t.anon_vma == 0:
        t.anon_vma = s.anon_vma
        t.anon_vma_chain = s.anon_vma_chain
    return 0


@native
def anon_vma_mergeable(mm, target, anon_vma, chain):
    """May ``target`` absorb a range with ``anon_vma`` and a chain of that length? (is_mergeable_anon_vma)

    6.16 let an unfaulted VMA absorb a faulted one; before, the chain of ``target`` had to be singular, which an
    unfaulted one's is not.
    """
    t = VMA(mm, target)
    if t.anon_vma == anon_vma:
        return 1
    if t.anon_vma != 0 and anon_vma != 0:
        return 0
    if mm.rules & RULE_ANON_VMA_616:
        if t.anon_vma == 0:
            return chain <= 1
        return t.anon_vma_chain <= 1
    return t.anon_vma_chain == 1
