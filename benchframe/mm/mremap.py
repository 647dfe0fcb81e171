"""mremap, all modes: shrink, grow in place, move, MREMAP_FIXED, MREMAP_DONTUNMAP, old_len 0 (mm/mremap.c, 6.17)."""

from benchframe.dialect import NULL, native
from benchframe.mm.flags import (
    E_PRESENT,
    E_PSE,
    EFAULT,
    EINVAL,
    ENOMEM,
    EPERM,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    RULE_DONTUNMAP_ACCOUNT,
    RULE_MREMAP_617,
    VM_ACCOUNT,
    VM_DONTEXPAND,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYSHARE,
    VM_PFNMAP,
    VM_SHARED,
)
from benchframe.mm.hooks import cache_copied, lookup, vma_start_write
from benchframe.mm.layout import PAGE, PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, PTE, PTRS_PER_TABLE, VMA
from benchframe.mm.memory import ZAP, change_range, populate_range
from benchframe.mm.mmap import ANYWHERE, do_munmap, unmapped_area
from benchframe.mm.pagetable import next_step, pmd_alloc, pmd_slot, pte_alloc, spin_lock, spin_unlock
from benchframe.mm.vma import (
    anon_vma_clone,
    has_close,
    page_align,
    unlink_anon_vmas,
    vma_alloc,
    vma_link,
    vma_merge_new,
    vma_prev_of,
)


@native
def move_ptes(mm, table, index, target, target_index, length):
    """Move the entries of ``length`` bytes from one PTE page to another, with both locks held: a fault without
    mmap_lock sees each entry in one of the two places."""
    spin_lock(mm, table)
    if target != table:
        spin_lock(mm, target)
    i = 0
    while i < length >> PAGE_SHIFT:
        slot = table * PTRS_PER_TABLE + index + i
        entry = PTE(mm, slot).entry
        if entry != 0:
            PTE(mm, slot).entry = 0
            PTE(mm, target * PTRS_PER_TABLE + target_index + i).entry = entry
            if entry & E_PRESENT:
                PAGE(mm, table).nr_present -= 1
                PAGE(mm, target).nr_present += 1
        i += 1
    if target != table:
        spin_unlock(mm, target)
    spin_unlock(mm, table)
    return 0


@native
def move_page_tables(mm, old, new, length):
    """Move every entry of [old, old + length) to ``new``: 0, or -ENOMEM if a table could not be allocated.

    A huge page is dropped instead (the kernel moves or splits it); its range faults in again.
    """
    end = old + length
    addr = old
    while addr < end:
        pmd = pmd_slot(mm, addr)
        if pmd == 0 or PTE(mm, pmd).entry == 0:
            if pmd == 0:
                addr = next_step(mm, addr, end)
            else:
                addr = min(end, (addr & ~(PMD_SIZE - 1)) + PMD_SIZE)
            continue
        if PTE(mm, pmd).entry & E_PSE:
            stop = min(end, (addr & ~(PMD_SIZE - 1)) + PMD_SIZE)
            change_range(mm, mm.owner, addr, stop, ZAP, 0)
            addr = stop
            continue
        to = new + addr - old
        extent = min(PMD_SIZE - (addr & (PMD_SIZE - 1)), PMD_SIZE - (to & (PMD_SIZE - 1)), end - addr)
        target_pmd = pmd_alloc(mm, to)
        if target_pmd == 0:
            return -ENOMEM
        target = pte_alloc(mm, target_pmd)
        if target == NULL:
            return -ENOMEM
        move_ptes(mm, PTE(mm, pmd).entry >> 12, (addr >> PAGE_SHIFT) & 511, target, (to >> PAGE_SHIFT) & 511, extent)
        addr += extent
    return 0


@native
def copy_vma(mm, task, vma, addr, length, pgoff):
    """A VMA like ``vma`` for [addr, addr + length): merged with its neighbours if possible, else new. NULL: no memory,
    or the address that a recording names is taken (then it does not fit this address space).

    An anonymous VMA that was never touched takes its new address as offset, which makes merging likely.
    """
    v = VMA(mm, vma)
    if v.vm_file == 0 and v.anon_vma == 0:
        pgoff = addr >> PAGE_SHIFT
    following = lookup(mm, task, addr)
    end = addr + length
    if following != NULL and VMA(mm, following).vm_start < end:
        return NULL
    prev = vma_prev_of(mm, following)
    # Copy the fields first: the merge may remove ``vma`` itself.
    anon_vma = v.anon_vma
    chain = v.anon_vma_chain
    merged = vma_merge_new(mm, prev, addr, end, v.vm_flags, anon_vma, chain, v.vm_file, pgoff, 0)
    if merged != NULL:
        m = VMA(mm, merged)
        if m.anon_vma == 0 and anon_vma != 0:
            m.anon_vma = anon_vma
            m.anon_vma_chain = chain
            anon_vma_clone(mm, merged, vma)
        return merged
    new = vma_alloc(mm, addr, end)
    if new == NULL:
        return NULL
    n = VMA(mm, new)
    n.vm_flags = v.vm_flags
    n.vm_file = v.vm_file
    n.vm_pgoff = pgoff
    n.anon_vma = anon_vma
    n.anon_vma_chain = chain
    anon_vma_clone(mm, new, vma)
    cache_copied(mm, new)
    vma_link(mm, new, prev)
    return new


@native
def move_vma(mm, task, vma, old, old_length, new, new_length, flags):
    """Copy the VMA, move its entries, unmap the source: ``new`` or -ENOMEM (move_vma)."""
    if mm.map_count >= mm.max_map_count - 3:
        return -ENOMEM
    v = VMA(mm, vma)
    start = v.vm_start
    end = v.vm_end
    vma_start_write(mm, vma)
    pgoff = v.vm_pgoff + ((old - start) >> PAGE_SHIFT)
    vm_flags = v.vm_flags
    copy = copy_vma(mm, task, vma, new, new_length, pgoff)
    if copy == NULL:
        return -ENOMEM
    if move_page_tables(mm, old, new, min(old_length, new_length)) != 0:
        return -ENOMEM
    if flags & MREMAP_DONTUNMAP:
        source = lookup(mm, task, old)
        s = VMA(mm, source)
        s.vm_flags &= ~(VM_LOCKED | VM_LOCKONFAULT)
        if mm.rules & RULE_DONTUNMAP_ACCOUNT:
            s.vm_flags &= ~VM_ACCOUNT
        if source != copy and old == start and old + old_length == end:
            unlink_anon_vmas(mm, source)
            s.anon_vma = 0
            s.anon_vma_chain = 0
    elif old_length > 0:
        do_munmap(mm, task, old, old_length)
    if vm_flags & VM_LOCKED and new_length > old_length:
        populate_range(mm, task, new + old_length, new + new_length, 1)
    return new


@native
def check_vma(mm, vma, addr, old_length, new_length, flags):
    """Whether ``vma`` may be moved or grown this way: 0 or -errno (check_prep_vma). The part to shrink may extend into
    other VMAs."""
    v = VMA(mm, vma)
    if old_length == 0 and not v.vm_flags & (VM_SHARED | VM_MAYSHARE):
        return -EINVAL
    if flags & MREMAP_DONTUNMAP and v.vm_flags & (VM_DONTEXPAND | VM_PFNMAP):
        return -EINVAL
    if min(old_length, new_length) > v.vm_end - addr:
        return -EFAULT
    if new_length > old_length and v.vm_flags & (VM_DONTEXPAND | VM_PFNMAP):
        return -EFAULT
    return 0


@native
def grow_in_place(mm, task, vma, addr, old_length, new_length):
    """Extend the VMA at its end if it ends there and the space above is free: 1 done, 0 not possible."""
    v = VMA(mm, vma)
    end = v.vm_end
    delta = new_length - old_length
    if addr + old_length != end or end + delta > mm.task_size:
        return 0
    if v.vm_next != NULL and VMA(mm, v.vm_next).vm_start < end + delta:
        return 0
    pgoff = v.vm_pgoff + ((end - v.vm_start) >> PAGE_SHIFT)
    flags = v.vm_flags
    # 1: the added range has no fork history to compare (vma_merge_extend has no source VMA).
    merged = vma_merge_new(mm, vma, end, end + delta, flags, v.anon_vma, 1, v.vm_file, pgoff, 0)
    if merged == NULL:
        return 0
    if flags & VM_LOCKED:
        populate_range(mm, task, end, end + delta, 1)
    return 1


@native
def move_to(mm, task, addr, old_length, new_length, flags, new_addr, at):
    """MREMAP_FIXED and MREMAP_DONTUNMAP of one VMA (mremap_to)."""
    if flags & MREMAP_FIXED:
        error = do_munmap(mm, task, new_addr, new_length)
        if error != 0:
            return error
    if old_length > new_length:
        error = do_munmap(mm, task, addr + new_length, old_length - new_length)
        if error != 0:
            return error
        old_length = new_length
    vma = lookup(mm, task, addr)
    if vma == NULL or VMA(mm, vma).vm_start > addr:
        return -EFAULT
    if not flags & MREMAP_FIXED:
        new_addr = unmapped_area(mm, task, new_addr, new_length, at)
        if new_addr < 0:
            return new_addr
    elif new_addr < mm.mmap_min_addr:
        return -EPERM
    return move_vma(mm, task, vma, addr, old_length, new_addr, new_length, flags)


@native
def move_many(mm, task, addr, length, flags, new_addr):
    """6.17: MREMAP_FIXED with equal lengths moves every VMA of the range and keeps the holes between them (remap_move).
    A part of a System V segment is moved alone or not at all."""
    end = addr + length
    target = new_addr
    result = -EFAULT
    last_end = addr
    cursor = addr
    while cursor < end:
        vma = lookup(mm, task, cursor)
        if vma == NULL or VMA(mm, vma).vm_start >= end:
            return result
        v = VMA(mm, vma)
        start = max(v.vm_start, addr)
        if result < 0 and start > addr:
            return -EFAULT
        stop = min(v.vm_end, end)
        if has_close(mm, vma) and (start > addr or stop < end):  # vma_multi_allowed: its file chooses addresses itself
            return -EFAULT
        target += start - last_end
        error = check_vma(mm, vma, start, stop - start, stop - start, flags)
        if error != 0:
            return error
        moved = move_to(mm, task, start, stop - start, stop - start, flags, target, ANYWHERE)
        if moved < 0:
            return moved
        if result < 0:
            result = moved
        target += stop - start
        last_end = stop
        cursor = stop
    return result


@native
def do_mremap(mm, task, addr, old_length, new_length, flags, new_addr, at):
    """mremap(2): the address, or -EINVAL, -EFAULT, -ENOMEM. Caller holds mmap_lock for write."""
    if flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) or addr & (PAGE_SIZE - 1):
        return -EINVAL
    if new_length < 0 or new_length > mm.task_size or old_length < 0 or old_length > 1 << 60:
        return -EINVAL
    old_length = page_align(old_length)
    new_length = page_align(new_length)
    if new_length == 0:
        return -EINVAL
    moves = flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)
    if moves:
        if new_addr < 0 or new_addr > mm.task_size - new_length or new_addr & (PAGE_SIZE - 1):
            return -EINVAL
        if not flags & MREMAP_MAYMOVE or (flags & MREMAP_DONTUNMAP and old_length != new_length):
            return -EINVAL
        if addr + old_length > new_addr and new_addr + new_length > addr:
            return -EINVAL
        if mm.map_count + 2 >= mm.max_map_count - 3:
            return -ENOMEM
    if addr < 0 or addr >= mm.task_size:
        return -EFAULT
    if flags & MREMAP_FIXED and old_length == new_length and mm.rules & RULE_MREMAP_617:
        return move_many(mm, task, addr, old_length, flags, new_addr)
    vma = lookup(mm, task, addr)
    if vma == NULL or VMA(mm, vma).vm_start > addr:
        return -EFAULT
    if not moves and new_length <= old_length:
        if new_length < old_length:
            error = do_munmap(mm, task, addr + new_length, old_length - new_length)
            if error != 0:
                return error
        return addr
    error = check_vma(mm, vma, addr, old_length, new_length, flags)
    if error != 0:
        return error
    if moves:
        return move_to(mm, task, addr, old_length, new_length, flags, new_addr, at)
    if (at == ANYWHERE or at == addr) and grow_in_place(mm, task, vma, addr, old_length, new_length):
        return addr
    if not flags & MREMAP_MAYMOVE:
        return -ENOMEM
    place = unmapped_area(mm, task, 0, new_length, at)
    if place < 0:
        return place
    return move_vma(mm, task, vma, addr, old_length, place, new_length, flags)
