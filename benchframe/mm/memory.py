"""The memory under a machine's records: one mapping, carved up in order.

Where a record lies decides which set of a cache its line falls into. Memory from the heap lies where the heap has room,
which depends on all the process did before; a mapping of its own does not. With 4 KiB pages the physical address, which
chooses the set in all but the first cache, is chance all the same; huge pages fix it within 2 MiB. That is also how
the kernel sees its own records: through the direct map, which has pages of 2 MiB and 1 GiB.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_PAGE = 4096
HUGE = 2 << 20
"""Bytes of a huge page."""


def carve(parts: Sequence[tuple[int, np.dtype[Any]]], *, huge: bool = False, shift: int = 0) -> list[Array]:
    """A zeroed array for each (records, dtype) on a page boundary, so that a record of 64 bytes is one cache line.

    One after the other in one mapping, which lives as long as one of them; pages are touched as they are used. ``huge``
    asks for huge pages, on a boundary of which the first part begins, ``shift`` pages behind it. Raises MemoryError.
    """
    sizes = [-(-count * dtype.itemsize // _PAGE) * _PAGE for count, dtype in parts]
    total = sum(sizes) + shift * _PAGE + _PAGE
    room = -(-total // HUGE) * HUGE + HUGE if huge else total
    try:
        memory = mmap.mmap(-1, room, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"no room for {room:,} bytes: {error}") from None
    raw = np.frombuffer(memory, np.uint8)
    at = 0
    if huge and hasattr(mmap, "MADV_HUGEPAGE"):
        at = -raw.ctypes.data % HUGE
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    at += shift * _PAGE
    found = []
    for (count, dtype), size in zip(parts, sizes, strict=True):
        found.append(raw[at : at + count * dtype.itemsize].view(dtype))
        at += size
    return found
