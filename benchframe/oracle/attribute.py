"""Attributes of an area that merges compare: seal, userfaultfd, memory policy, name (mm/vma.c, vma_modify_*)."""

from __future__ import annotations

from benchframe.events import Attr
from benchframe.oracle import rules as f
from benchframe.oracle.merge import change_flags
from benchframe.oracle.space import Refused, Space

PLACES = {Attr.SEAL: (42, 1), Attr.USERFAULTFD: (44, 4), Attr.POLICY: (48, 6), Attr.NAME: (54, 7)}
"""First bit and number of bits of each attribute in vm_flags; the upper bits of a larger value are lost."""
USERFAULTFD = 0xF << 44
"""The attribute that a child does not inherit (dup_userfaultfd, without UFFD_FEATURE_EVENT_FORK)."""


def modify(space: Space, start: int, length: int, which: int, value: int) -> int:
    """Give all areas of the range the attribute; holes are skipped.

    Raises:
        Refused: EINVAL for a bad range or attribute, ENOMEM if a split would exceed ``max_map_count``.
    """
    if which not in list(Attr) or start % f.PAGE:
        raise Refused(f.EINVAL)
    shift, width = PLACES[Attr(which)]
    mask = (1 << width) - 1
    end = start + f.page_align(length)
    while start < end:
        area = space.first_in(start, end)
        if area is None:
            break
        start = max(start, area.vm_start)
        vm_flags = area.vm_flags & ~(mask << shift) | (value & mask) << shift
        if vm_flags != area.vm_flags:
            area = change_flags(space, area, start, min(area.vm_end, end), vm_flags)
        start = area.vm_end
    return 0
