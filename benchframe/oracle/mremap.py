"""mremap(2): shrink, grow in place, move, MREMAP_FIXED, MREMAP_DONTUNMAP, duplicate (mm/mremap.c, Linux 6.18).

The order of checks and effects matters: a call that fails late does not undo what it unmapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchframe.events import UNKNOWN
from benchframe.oracle import rules as f
from benchframe.oracle.space import Area, Range, Refused, Spans, merge_new

if TYPE_CHECKING:
    from benchframe.oracle.space import Space


@dataclass
class Remap:
    """One request, for one area; lengths are whole pages."""

    addr: int
    old_len: int
    new_len: int
    flags: int
    new_addr: int
    at: int = UNKNOWN

    @property
    def elsewhere(self) -> bool:
        """Whether the caller gave a new address, or asked for one."""
        return bool(self.flags & (f.MREMAP_FIXED | f.MREMAP_DONTUNMAP))


def mremap(space: Space, addr: int, old_len: int, new_len: int, flags: int, new_addr: int, at: int) -> int:
    """The whole call; returns the address of the mapping.

    Raises:
        Refused: with the errno of the call.
    """
    remap = Remap(addr, f.page_align(old_len), f.page_align(new_len), flags, new_addr, at)
    if flags & f.MREMAP_DONTUNMAP and old_len != new_len and not space.rules.dontunmap_rounds_lengths:
        raise Refused(f.EINVAL)
    _check_arguments(space, remap)
    if flags & f.MREMAP_FIXED and remap.old_len == remap.new_len and space.rules.mremap_many:
        return _move_many(space, remap)
    area = space.lookup(addr)
    if area is None:
        raise Refused(f.EFAULT)
    locked = bool(area.vm_flags & f.VM_LOCKED)
    if space.rules.mremap_checks_first or not remap.elsewhere:
        _check_source(space, remap, area)
    result = _to(space, remap) if remap.elsewhere else _in_place(space, remap, area)
    if locked and remap.new_len > remap.old_len:
        space.populate(result + remap.old_len, result + remap.new_len)
    return result


def _check_arguments(space: Space, remap: Remap) -> None:
    """Errors that do not depend on the areas (check_mremap_params)."""
    limits, rules = space.limits, space.rules
    if remap.flags & ~(f.MREMAP_MAYMOVE | f.MREMAP_FIXED | f.MREMAP_DONTUNMAP):
        raise Refused(f.EINVAL)
    if remap.addr % f.PAGE or not remap.new_len:
        raise Refused(f.EINVAL)
    if rules.mremap_checks_length_first and remap.new_len > limits.task_size:
        raise Refused(f.EINVAL)
    if not remap.elsewhere:
        return
    if not rules.mremap_checks_length_first:  # then mremap_to checks lengths and addresses, after finding the area
        if not remap.flags & f.MREMAP_MAYMOVE:
            raise Refused(f.EINVAL)
        if remap.flags & f.MREMAP_DONTUNMAP and remap.old_len != remap.new_len:
            raise Refused(f.EINVAL)
        if space.lookup(remap.addr) is None:
            raise Refused(f.EFAULT)
    if remap.new_len > limits.task_size or remap.new_addr > limits.task_size - remap.new_len:
        raise Refused(f.EINVAL)
    if remap.new_addr % f.PAGE or not remap.flags & f.MREMAP_MAYMOVE:
        raise Refused(f.EINVAL)
    if remap.flags & f.MREMAP_DONTUNMAP and remap.old_len != remap.new_len:
        raise Refused(f.EINVAL)
    old_end = (remap.addr + remap.old_len) % (1 << 64)
    if old_end > remap.new_addr and remap.new_addr + remap.new_len > remap.addr:
        raise Refused(f.EINVAL)
    if len(space.areas) + 2 >= limits.max_map_count - 3:
        raise Refused(f.ENOMEM)


def _check_source(space: Space, remap: Remap, area: Area) -> None:
    """What the area at the old address must allow for growing or moving (check_prep_vma)."""
    if not remap.elsewhere and remap.new_len <= remap.old_len:
        return
    if not remap.old_len and not area.vm_flags & (f.VM_SHARED | f.VM_MAYSHARE):
        raise Refused(f.EINVAL)
    if remap.flags & f.MREMAP_DONTUNMAP and area.vm_flags & f.VM_DONTEXPAND:
        raise Refused(f.EINVAL)
    if min(remap.old_len, remap.new_len) > area.vm_end - remap.addr:
        raise Refused(f.EFAULT)
    if remap.new_len <= remap.old_len:
        return
    if area.pgoff_at(remap.addr) + (remap.new_len >> f.PAGE_SHIFT) >= 1 << 64:
        raise Refused(f.EINVAL)
    if area.vm_flags & f.VM_DONTEXPAND:
        raise Refused(f.EFAULT)
    if not space.may_lock(area.vm_flags, remap.new_len - remap.old_len):
        raise Refused(f.EAGAIN)


def _move_many(space: Space, remap: Remap) -> int:
    """MREMAP_FIXED with equal lengths: move every area in the range, and keep the gaps between them (remap_move,
    6.17). A part of a System V segment is moved alone or not at all."""
    end = remap.addr + remap.old_len
    start = remap.addr
    target = remap.new_addr
    seen = False
    last_end = start
    while True:
        area = space.first_in(last_end, end) if last_end < end else None
        if area is None:
            break
        if not seen and area.vm_start > start:
            raise Refused(f.EFAULT)
        addr = max(area.vm_start, start)
        length = min(area.vm_end, end) - addr
        if seen:
            target += area.vm_start - last_end
        last_end = area.vm_end
        if area.closes and (seen or area.vm_end < end):  # vma_multi_allowed: its file chooses addresses itself
            raise Refused(f.EFAULT)
        one = Remap(addr, length, length, remap.flags, target)
        _check_source(space, one, area)
        _to(space, one)
        target += length
        seen = True
    if not seen:
        raise Refused(f.EFAULT)
    return remap.new_addr


def _to(space: Space, remap: Remap) -> int:
    """Move to a new address: unmap a fixed target, shrink first, then move (mremap_to)."""
    if remap.flags & f.MREMAP_FIXED:
        space.unmap(remap.new_addr, remap.new_len)
    area = space.lookup(remap.addr)
    if area is None:
        raise Refused(f.EFAULT)
    if remap.new_len < remap.old_len:
        space.unmap(remap.addr + remap.new_len, remap.old_len - remap.new_len)
        remap.old_len = remap.new_len
        area = space.lookup(remap.addr)
        if area is None:
            raise Refused(f.EFAULT)
    if not space.rules.mremap_checks_first:
        _check_source(space, remap, area)
    if not remap.flags & f.MREMAP_FIXED:
        remap.new_addr = _free_place(space, remap, remap.new_addr)
    space.check_fixed(remap.new_addr, remap.new_len)
    return _move(space, remap, area)


def _free_place(space: Space, remap: Remap, hint: int) -> int:
    """The target of a move: the recorded address, if it is free here too, else the result of a search.

    Raises:
        Refused: ENOMEM if nothing is free, or the recorded address is not (then the recording is not of this space).
    """
    if remap.at == UNKNOWN:
        return space.unmapped_area(hint, remap.new_len)
    if space.first_in(remap.at, remap.at + remap.new_len) is not None:
        raise Refused(f.ENOMEM)
    return remap.at


def _in_place(space: Space, remap: Remap, area: Area) -> int:
    """No new address requested: do nothing, shrink, grow in place, or move if allowed (mremap_at)."""
    if remap.new_len == remap.old_len:
        return remap.addr
    if remap.new_len < remap.old_len:
        space.unmap(remap.addr + remap.new_len, remap.old_len - remap.new_len)
        return remap.addr
    delta = remap.new_len - remap.old_len
    end = area.vm_end
    whole = area.vm_end - remap.addr == remap.old_len
    moved = remap.at not in (UNKNOWN, remap.addr)
    if whole and not moved and space.first_in(end, end + delta) is None and end + delta <= space.limits.task_size:
        if area.vm_flags & f.VM_ACCOUNT:
            space.charge(delta)
        if area.closes and not space.rules.merge_closing:  # 6.1.192 calls vma_expand for such an area
            space.prealloc()
            area.vm_end = end + delta
            return remap.addr
        new = Range(end, end + delta, area.vm_flags, area.pgoff_at(end), area.vm_file, area.anon_vma)
        if merge_new(space, new, area, space.find_vma(end)) is None:
            raise Refused(f.ENOMEM)
        return remap.addr
    if not remap.flags & f.MREMAP_MAYMOVE:
        raise Refused(f.ENOMEM)
    remap.new_addr = _free_place(space, remap, 0)
    space.check_fixed(remap.new_addr, remap.new_len)
    return _move(space, remap, area)


def _move(space: Space, remap: Remap, area: Area) -> int:
    """Copy the area to its new place (merging there if possible), move its pages, drop or strip the source."""
    if len(space.areas) >= space.limits.max_map_count - 3:
        raise Refused(f.ENOMEM)
    dontunmap, rules = bool(remap.flags & f.MREMAP_DONTUNMAP), space.rules
    if dontunmap and area.vm_flags & f.VM_LOCKED and rules.dontunmap_splits_locked:
        if area.vm_start < remap.addr:
            area = space.split(area, remap.addr)
        if remap.addr + remap.old_len < area.vm_end:
            space.split(area, remap.addr + remap.old_len)
    if area.vm_flags & f.VM_ACCOUNT:
        space.charge(remap.new_len if dontunmap else remap.new_len - remap.old_len)
    whole = remap.addr == area.vm_start and remap.old_len == area.vm_end - area.vm_start
    pgoff = area.pgoff_at(remap.addr)
    end = remap.new_addr + remap.new_len
    unfaulted = area.anonymous and not area.anon_vma
    if unfaulted and rules.mremap_resets_pgoff:
        pgoff = remap.new_addr >> f.PAGE_SHIFT
    new = Range(remap.new_addr, end, area.vm_flags, pgoff, area.vm_file, area.anon_vma, area, copied=True)
    prev, nxt = space.before(remap.new_addr), space.find_vma(remap.new_addr)
    if dontunmap and not rules.dontunmap_merges_source:
        prev, nxt = (None if one is area else one for one in (prev, nxt))
    beside = remap.new_addr == area.vm_end or end == area.vm_start
    if dontunmap and unfaulted and beside and not rules.dontunmap_merges_beside_source:
        prev = nxt = None
    target = merge_new(space, new, prev, nxt)
    if target is None:
        target = area.copy()
        target.vm_start, target.vm_end, target.vm_pgoff = remap.new_addr, end, pgoff
        space.insert(target)
    elif target.vm_start <= remap.addr < target.vm_end:
        area = target
    _move_pages(space, remap)
    if not dontunmap:
        if remap.old_len:
            space.unmap_range(remap.addr, remap.addr + remap.old_len)
        return remap.new_addr
    area.vm_flags &= ~f.VM_LOCKED
    if rules.dontunmap_clears_account:
        area.vm_flags &= ~f.VM_ACCOUNT
    if area is not target and whole:
        area.anon_vma, area.chain = 0, ()
        if area.anonymous and rules.dontunmap_resets_pgoff:
            area.vm_pgoff = area.vm_start >> f.PAGE_SHIFT
    return remap.new_addr


def _move_pages(space: Space, remap: Remap) -> None:
    """Guard markers and page tables move with the pages. A whole page table, or a huge page, leaves none behind if it
    fits at the new place (mm/mremap.c move_normal_pmd, move_huge_pmd); else the entries move, and the table stays.
    Even a table without an entry leads to a new one. Moving goes upwards, table by table (move_page_tables), so if the
    new place begins where the last table of the old one is, then that table may be there because of the move itself."""
    start, end = remap.addr, remap.addr + remap.old_len
    shift = remap.new_addr - start
    moving = space.guards.clip(start, end)
    space.guards.discard(start, end)
    space.guards.add_all((one + shift, other + shift) for one, other in moving)
    tables = space.tables.clip(start // f.PMD, -(-end // f.PMD))
    both = remap.new_addr // f.PMD
    if shift > 0 and both == (end - 1) // f.PMD:
        before = min(both * f.PMD, (both + 1) * f.PMD - shift)  # what is below moves to this table
        if start < before and space.tables.clip(start // f.PMD, -(-before // f.PMD)):
            tables.append((both, both + 1))
    low, high, step = -(-start // f.PMD), end // f.PMD, shift // f.PMD
    if shift % f.PMD == 0 and low < high:
        whole, taken = Spans(space.tables.clip(low, high)), space.tables.clip(low + step, high + step)
        space.tables.discard(low, high)
        for one, other in taken:
            space.tables.add_all(whole.clip(one - step, other - step))
    for one, other in tables:
        first, last = max(start, one * f.PMD) + shift, min(end, other * f.PMD) + shift
        space.tables.add(first // f.PMD, -(-last // f.PMD))
