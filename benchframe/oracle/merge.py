"""When areas merge, and how: the eight cases of vma_merge, decided on plain objects (mm/vma.c, Linux 6.18).

A range R is new (mmap, brk, mremap) or changes flags inside an area C. P is the area before it, N the one after::

    case 1  P R N -> P          case 5  P [R c] -> P c      (c: what stays of C)
    case 2  P R   -> P          case 6  P [R] N -> P
    case 3    R N -> N          case 7  P [R]   -> P
    case 4  [c R] N -> c N      case 8    [R] N -> N
"""

from dataclasses import dataclass

from benchframe.oracle.rules import PAGE_SHIFT, VM_ACCESS, VM_MAYBE_GUARD, VM_SPECIAL, Rules
from benchframe.oracle.space import Area, Backing, Space

_STICKY = VM_MAYBE_GUARD


@dataclass
class Range:
    """The range to merge: new, or changed."""

    start: int
    end: int
    vm_flags: int
    pgoff: int
    file: Backing | None
    anon_vma: int = 0
    source: Area | None = None
    """The area to which the anon_vma belongs: the changed one, or the one that mremap copies. None when an area grows
    in place: vma_merge_extend does not pass it, so an inherited anon_vma is not noticed."""
    copied: bool = False


def _anon_vma_agrees(rules: Rules, new: Range, target: Area) -> bool:
    """Whether ``target`` may take over the range as far as anon_vmas are concerned."""
    if not rules.merge_anon_vma or new.anon_vma == target.anon_vma:
        return True
    if new.anon_vma and target.anon_vma:
        return False
    if not rules.anon_vma_merge_both_ways:
        return target.singular
    if target.anon_vma:
        return not target.inherited
    if new.source is None or (new.copied and not rules.anon_vma_copied_from):
        return True
    return not new.source.inherited


def _same_file(rules: Rules, one: Backing | None, other: Backing | None) -> bool:
    if one is other:
        return True
    if rules.merge_file or one is None or other is None:
        return False
    return one.inode != 0 and one.inode == other.inode


def compatible(rules: Rules, new: Range, target: Area) -> bool:
    """Whether an adjacent ``target`` and the range agree in everything but offset and position."""
    differ = (new.vm_flags ^ target.vm_flags) & ~_STICKY
    if (new.vm_flags | target.vm_flags) & VM_SPECIAL:
        return False
    if not rules.merge_conditions:
        return not differ & VM_ACCESS and (new.file is None) == (target.vm_file is None)
    if differ if rules.merge_flags else differ & VM_ACCESS:
        return False
    return _same_file(rules, new.file, target.vm_file) and _anon_vma_agrees(rules, new, target)


def fits_after(rules: Rules, new: Range, prev: Area | None) -> bool:
    """Whether ``prev`` can grow up over the range."""
    if prev is None or prev.vm_end != new.start or not compatible(rules, new, prev):
        return False
    return not (rules.merge_pgoff and rules.merge_conditions) or prev.pgoff_at(new.start) == new.pgoff


def fits_before(rules: Rules, new: Range, nxt: Area | None) -> bool:
    """Whether ``nxt`` can grow down over the range."""
    if nxt is None or nxt.vm_start != new.end or not compatible(rules, new, nxt):
        return False
    pages = (new.end - new.start) >> PAGE_SHIFT
    return not (rules.merge_pgoff and rules.merge_conditions) or new.pgoff + pages == nxt.vm_pgoff


def _both_agree(rules: Rules, prev: Area, nxt: Area) -> bool:
    """To join P and N through a range between them, their own anon_vmas must agree too."""
    return (
        not rules.merge_anon_vma
        or not rules.merge_conditions
        or not prev.anon_vma
        or not nxt.anon_vma
        or prev.anon_vma == nxt.anon_vma
    )


def _hand_on(target: Area, donor: Area) -> None:
    """``target`` takes over ``donor``'s anon_vma if it has none (dup_anon_vma), and its sticky flags."""
    if donor.anon_vma and not target.anon_vma:
        target.anon_vma, target.chain = donor.anon_vma, donor.chain


def _singular_agrees(prev: Area, nxt: Area) -> bool:
    """is_mergeable_anon_vma as mmap_region called it up to 6.11, for the chain of ``prev``: it must have one member."""
    return prev.anon_vma == nxt.anon_vma or (not (prev.anon_vma and nxt.anon_vma) and len(prev.chain) == 1)


def merge_new(space: Space, new: Range, prev: Area | None, nxt: Area | None, *, mapped: bool = False) -> Area | None:
    """Cases 1 to 3: let the neighbours of a free range take it over. Returns the area that did, or None if neither
    fits.

    ``mapped``: the caller is mmap.
    """
    rules = space.rules
    if new.vm_flags & VM_SPECIAL:
        return None
    left = fits_after(rules, new, prev)
    right = fits_before(rules, new, nxt)
    if left and right and prev is not None and nxt is not None:
        if mapped and not rules.mmap_joins_both:
            left = _singular_agrees(prev, nxt)
        else:
            right = _both_agree(rules, prev, nxt)
    sticky = new.vm_flags & _STICKY
    if left and prev is not None:
        if right and nxt is not None:
            space.remove(nxt)
            sticky |= nxt.vm_flags & _STICKY
            _hand_on(prev, nxt)
            prev.vm_end = nxt.vm_end
        else:
            prev.vm_end = new.end
        target = prev
    elif right and nxt is not None:
        nxt.vm_pgoff -= (nxt.vm_start - new.start) >> PAGE_SHIFT
        nxt.vm_start = new.start
        target = nxt
    else:
        return None
    if new.copied and rules.anon_vma_copied_from and new.source is not None:
        _hand_on(target, new.source)
    target.vm_flags |= sticky
    return target


def merge_changed(space: Space, area: Area, start: int, end: int, vm_flags: int) -> Area | None:
    """Cases 4 to 8: [start, end) of ``area`` gets ``vm_flags``; let a neighbour take it over.

    Returns the neighbour that grew, or None if nothing merged (then nothing changed).
    """
    rules = space.rules
    at_start, at_end = start == area.vm_start, end == area.vm_end
    if vm_flags & VM_SPECIAL or not (at_start or at_end):
        return None
    prev, nxt = space.neighbours(area)
    new = Range(start, end, vm_flags, area.pgoff_at(start), area.vm_file, area.anon_vma, area)
    left = at_start and fits_after(rules, new, prev)
    right = at_end and fits_before(rules, new, nxt)
    if left and right and prev is not None and nxt is not None:
        right = _both_agree(rules, prev, nxt)
    if left and prev is not None:
        sticky = (prev.vm_flags | area.vm_flags) & _STICKY
        if right and nxt is not None:  # case 6
            sticky |= nxt.vm_flags & _STICKY
            space.remove(nxt)
            space.remove(area)
            _hand_on(prev, nxt if nxt.anon_vma else area)
            prev.vm_end = nxt.vm_end
        elif at_end:  # case 7
            space.remove(area)
            _hand_on(prev, area)
            prev.vm_end = end
        else:  # case 5
            _hand_on(prev, area)
            area.vm_pgoff = area.pgoff_at(end)
            area.vm_start = end
            prev.vm_end = end
        prev.vm_flags |= sticky
        return prev
    if right and nxt is not None:
        _hand_on(nxt, area)
        sticky = (nxt.vm_flags | area.vm_flags) & _STICKY
        if at_start:  # case 8
            space.remove(area)
        else:  # case 4
            area.vm_end = start
        nxt.vm_pgoff -= (nxt.vm_start - start) >> PAGE_SHIFT
        nxt.vm_start = start
        nxt.vm_flags |= sticky
        return nxt
    return None


def change_flags(space: Space, area: Area, start: int, end: int, vm_flags: int) -> Area:
    """Change the flags of [start, end) of ``area``: merge if a neighbour fits, else split where necessary.

    Returns the area that holds ``start`` now.

    Raises:
        Refused: ENOMEM if a split would exceed ``max_map_count``; a split already done stays.
    """
    merged = merge_changed(space, area, start, end, vm_flags)
    if merged is not None:
        return merged
    if area.vm_start < start:
        area = space.split(area, start)
    if end < area.vm_end:
        space.split(area, end)
    area.vm_flags = vm_flags
    return area
