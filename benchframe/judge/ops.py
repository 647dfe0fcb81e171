"""Operations: what the judge asks of both sides, and what any judged side must offer.

An :class:`Op` is a system call with concrete arguments (or a touch, or a fork), so that a list of them is a program:
it can be run again, cut down, and printed as Python or C.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from benchframe.judge.child import (
    ARENA,
    ARENA_END,
    BRK,
    ELSEWHERE,
    FILES,
    FORK,
    MADVISE,
    MLOCK,
    MMAP,
    MPROTECT,
    MREMAP,
    MUNLOCK,
    MUNMAP,
    TOUCH,
    page_align,
)

Row = tuple[int, int, int, int, int, int]
EFAULT = 14
O_RDONLY, O_WRONLY, ACCESS_MODE = 0, 1, 3

NAMES = {
    MMAP: "mmap",
    MUNMAP: "munmap",
    MPROTECT: "mprotect",
    MREMAP: "mremap",
    BRK: "brk",
    MADVISE: "madvise",
    MLOCK: "mlock",
    MUNLOCK: "munlock",
    TOUCH: "touch",
    FORK: "fork",
}


class Op(NamedTuple):
    """One operation: a code of :mod:`benchframe.judge.child` and six arguments in the order of the system call.

    ``touch`` takes an address and 1 (read) or 2 (write). The file of mmap is an index into ``FILES``.
    """

    code: int
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0
    e: int = 0
    f: int = 0

    @property
    def argument_count(self) -> int:
        """How many of the six arguments the call takes."""
        return {MMAP: 6, MREMAP: 5, MPROTECT: 3, MADVISE: 3, BRK: 1, FORK: 0}.get(self.code, 2)

    def __str__(self) -> str:
        return f"{NAMES[self.code]}({', '.join(hex(arg) for arg in self[1 : 1 + self.argument_count])})"


class Calls(Protocol):
    """The judged side: an address space that answers as the kernel does (the oracle, the compiled model)."""

    def mmap(self, addr: int, length: int, prot: int, flags: int, file: int = -1, offset: int = 0, /) -> int:
        """An address, or -errno."""

    def munmap(self, addr: int, length: int, /) -> int:
        """0, or -errno; so do the others unless said otherwise."""

    def mprotect(self, addr: int, length: int, prot: int, /) -> int: ...

    def mremap(self, addr: int, old_len: int, new_len: int, flags: int, new_addr: int = 0, /) -> int:
        """An address, or -errno."""

    def brk(self, addr: int, /) -> int:
        """The break afterwards."""

    def madvise(self, addr: int, length: int, advice: int, /) -> int: ...

    def mlock(self, addr: int, length: int, /) -> int: ...

    def munlock(self, addr: int, length: int, /) -> int: ...

    def fault(self, addr: int, access: int, /) -> int:
        """0, or any negative number if the access fails."""

    def fork(self) -> "Calls":
        """The child's address space."""

    def layout(self) -> list[Row]:
        """Every area: (vm_start, vm_end, prot, shared, file offset in bytes, file)."""

    def layout_flags(self) -> list[str]:
        """Every area's VmFlags words, sorted and joined by spaces; an empty list if this side has none."""


Make = Callable[[], Calls]


def elsewhere(op: Op, result: int, munmap: Callable[[int, int], int]) -> int:
    """What the worker does with a mapping outside the arena: unmap it and forget where it was."""
    if op.code in (MMAP, MREMAP) and result >= 0 and not ARENA <= result < ARENA_END:
        munmap(result, page_align(op.b if op.code == MMAP else op.c))
        return ELSEWHERE
    return result


def apply(side: Calls, op: Op) -> tuple[Calls, int]:
    """Perform ``op`` on the judged side: the side to go on with (another one after fork), and the result."""
    code, a, b, c, d, e, f = op
    if code == MMAP:
        return side, elsewhere(op, side.mmap(a, b, c, d, e if e < len(FILES) else -1, f), side.munmap)
    if code == TOUCH:
        return side, -EFAULT if side.fault(a, b) < 0 else 0
    if code == MREMAP:
        return side, elsewhere(op, side.mremap(a, b, c, d, e), side.munmap)
    if code == BRK:
        return side, side.brk(a)
    if code == FORK:
        return side.fork(), 0
    if code == MUNMAP:
        return side, side.munmap(a, b)
    if code == MPROTECT:
        return side, side.mprotect(a, b, c)
    if code == MADVISE:
        return side, side.madvise(a, b, c)
    return side, side.mlock(a, b) if code == MLOCK else side.munlock(a, b)


def words_of(layout: list[Row]) -> list[int]:
    """The areas of the arena in the worker's form: start, end, access bits with 8 for shared, offset."""
    words: list[int] = []
    for start, end, prot, shared, offset, _ in layout:
        if ARENA <= start < ARENA_END:
            words += (start, end, prot | shared << 3, offset)
    return words


def file_table() -> list[tuple[int, int, bool, bool, int]]:
    """The files of a judged side: (number, size, readable, writable, inode)."""
    return [
        (number, size, how & ACCESS_MODE != O_WRONLY, how & ACCESS_MODE != O_RDONLY, inode)
        for number, (size, how, inode) in enumerate(FILES)
    ]
