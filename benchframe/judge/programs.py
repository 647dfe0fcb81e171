"""Random programs of mapping calls for the judge, and their operations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, Protocol

from benchframe.judge.child import (
    ARENA,
    ARENA_END,
    BRK,
    BRK_BASE,
    ELSEWHERE,
    FILES,
    FORK,
    MADVISE,
    MASK,
    MLOCK,
    MMAP,
    MPROTECT,
    MREMAP,
    MUNLOCK,
    MUNMAP,
    PAGE,
    SHMAT,
    TASK_SIZE,
    TOUCH,
    page_align,
)

# ----------------------------------------------------------------------------------------------------------------------
# Operations for both sides, and the interface that any judged side must have.
#
# An :class:`Op` is a system call with concrete arguments (or a touch, or a fork), so that a list of them is a program:
# it can be run again, cut down, and printed as Python or C.

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
    SHMAT: "shmat",
}


class Op(NamedTuple):
    """One operation: a code of :mod:`benchframe.judge.child` and six arguments in the order of the system call.

    ``touch`` takes an address and 1 (read) or 2 (write), ``shmat`` an address and the length of a new segment. The file
    of mmap is an index into ``FILES``.
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
        """How many of the six arguments the call uses."""
        return {MMAP: 6, MREMAP: 5, MPROTECT: 3, MADVISE: 3, BRK: 1, FORK: 0}.get(self.code, 2)

    def __str__(self) -> str:
        return f"{NAMES[self.code]}({', '.join(hex(arg) for arg in self[1 : 1 + self.argument_count])})"


class Calls(Protocol):
    """The interface of a judged side: an address space that answers as the kernel does (the oracle, the compiled
    model)."""

    def mmap(self, addr: int, length: int, prot: int, flags: int, file: int = -1, offset: int = 0, /) -> int:
        """An address, or -errno."""

    def munmap(self, addr: int, length: int, /) -> int:
        """0, or -errno; the others return the same unless stated."""

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

    def shmat(self, addr: int, length: int, /) -> int:
        """A new System V segment at this place, whatever is there (SHM_REMAP): the address, or -errno."""

    def fork(self) -> "Calls":
        """The child's address space."""

    def layout(self) -> list[Row]:
        """Every area: (vm_start, vm_end, prot, shared, file offset in bytes, file)."""

    def layout_flags(self) -> list[str]:
        """Every area's VmFlags words, sorted and joined by spaces; an empty list if this side has none."""


Make = Callable[[], Calls]


def elsewhere(op: Op, result: int, munmap: Callable[[int, int], int]) -> int:
    """The worker's treatment of a mapping outside the arena: unmap it and ignore its address."""
    if op.code in (MMAP, MREMAP) and result >= 0 and not ARENA <= result < ARENA_END:
        munmap(result, page_align(op.b if op.code == MMAP else op.c))
        return ELSEWHERE
    return result


def apply(side: Calls, op: Op) -> tuple[Calls, int]:
    """Perform ``op`` on the judged side: returns the side to continue with (another one after fork), and the result."""
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
    if code == SHMAT:
        return side, side.shmat(a, b)
    if code == MUNMAP:
        return side, side.munmap(a, b)
    if code == MPROTECT:
        return side, side.mprotect(a, b, c)
    if code == MADVISE:
        return side, side.madvise(a, b, c)
    return side, side.mlock(a, b) if code == MLOCK else side.munlock(a, b)


def words_of(layout: list[Row]) -> list[int]:
    """The areas of the arena in the worker's format: start, end, access bits with 8 for shared, offset."""
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


# ----------------------------------------------------------------------------------------------------------------------
# The sources of operations: five seeded generators, each aimed at another part of the rules.
#
# ``mixed`` has bad arguments in a quarter of its calls; ``merge`` works in a small zone on a grid, so that areas touch
# and merge, with mlock, populate, guard regions and fork; ``huge`` spreads over 31 MiB with transparent huge pages;
# ``brk`` moves the break and does everything else in the heap's area; ``shm`` has System V segments, whose areas have
# vm_ops->close. A generator sees the areas as they are, so that
# its addresses hit their edges.

_FLAG_ADVICE = (0, 1, 2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
_PAGE_ADVICE = (3, 4, 8, 9, 20, 21, 22, 23, 102, 103)
_HUGE_LENGTHS = (0, TASK_SIZE + PAGE, 1 << 62, (1 << 63) + PAGE, MASK - PAGE + 1, MASK - 100, MASK)


@dataclass(frozen=True)
class Zone:
    """Where a generator works and its preferences. Sizes are in pages."""

    name: str
    base: int
    pages: int
    step: int
    """Addresses and lengths are mostly multiples of this many pages."""
    longest: int
    """The longest usual mapping, in steps."""
    bad: float
    """How often an argument is made invalid."""
    weights: dict[int, int]
    """How often each operation is chosen."""
    simple: float
    """How often a mapping is plain private anonymous memory."""
    advice: tuple[int, ...] = _FLAG_ADVICE + _PAGE_ADVICE
    reads: float = 0.3
    """How many touches are reads."""
    journeys: float = 0.0
    """How often a scripted sequence begins (see :meth:`Generator._journey` and those behind it)."""


_ALL = {MMAP: 30, MUNMAP: 12, MPROTECT: 16, MREMAP: 14, MADVISE: 12, TOUCH: 14, MLOCK: 1, MUNLOCK: 1}

ZONES = {
    zone.name: zone
    for zone in (
        Zone("mixed", ARENA + (64 << 20), 256, 1, 12, 0.25, {**_ALL, MUNMAP: 8, MMAP: 34}, 0.3),
        Zone(
            "merge",
            ARENA + (64 << 20),
            48,
            2,
            5,
            0.03,
            {**_ALL, MUNMAP: 8, TOUCH: 24, MLOCK: 3, MUNLOCK: 3, MREMAP: 18, FORK: 1},
            0.7,
            (0, 1, 4, 10, 11, 22, 23, 23, 102, 102, 103, 15),
            journeys=0.01,
        ),
        Zone(
            "huge",
            ARENA + (64 << 20),
            31 * 256,
            64,
            20,
            0.05,
            {**_ALL, TOUCH: 20},
            0.8,
            (0, 1, 4, 14, 14, 14, 14, 14, 14, 15, 22, 22, 23, 102, 103),
            0.7,
            0.004,
        ),
        Zone("brk", BRK_BASE, 256, 1, 16, 0.1, {**_ALL, BRK: 25, FORK: 1}, 0.6),
        Zone(
            "shm",
            ARENA + (64 << 20),
            64,
            2,
            6,
            0.03,
            {**_ALL, SHMAT: 30, MMAP: 6, MPROTECT: 40, MREMAP: 24, FORK: 1},
            0.6,
        ),
    )
}
"""The generators by name."""


class Generator:
    """An endless stream of operations; the same seed and the same areas give the same stream."""

    def __init__(self, zone: Zone, seed: str) -> None:
        self.zone = zone
        self.random = Random(seed)
        self.codes = tuple(zone.weights)
        self.weights = tuple(zone.weights.values())
        self.edges: list[int] = []
        self.mapped: list[Row] = []
        self.moves: list[tuple[int, int, int]] = []
        self.queue: list[Op] = []
        self.make: dict[int, Callable[[], Op]] = {
            MMAP: self._mmap,
            MUNMAP: lambda: Op(MUNMAP, *self._range()),
            MPROTECT: self._mprotect,
            MREMAP: self._mremap,
            BRK: self._brk,
            MADVISE: self._madvise,
            MLOCK: lambda: Op(MLOCK, *self._inner_range()),
            MUNLOCK: lambda: Op(MUNLOCK, *self._inner_range()),
            TOUCH: self._touch,
            FORK: lambda: Op(FORK),
            SHMAT: lambda: Op(SHMAT, self._addr(), self.random.randint(1, zone.longest) * zone.step * PAGE),
        }

    def next(self, layout: Sequence[Row]) -> Op:
        """The next operation, given the current areas."""
        low, high = self.zone.base - (2 << 20), self.zone.base + self.zone.pages * PAGE + (2 << 20)
        rows = [row for row in layout if low <= row[0] < high]
        self.edges = [row[at] for row in rows for at in (0, 1)]
        self.mapped = [row for row in rows if row[5] >= 0]
        if self.zone.journeys and not self.queue and self.random.random() < self.zone.journeys:
            if self.zone.name == "huge":
                self._huge_journey()
            elif self.random.random() < 0.2:
                self._hole_journey()
            else:
                self._journey(rows)
        if self.queue:
            return self.queue.pop(0)
        return self.make[self.random.choices(self.codes, self.weights)[0]]()

    def _journey(self, rows: list[Row]) -> None:
        """Half of an area is written, perhaps forked, then moved away and back beside its other half: may they
        merge? Sometimes MREMAP_DONTUNMAP moves it back: may what stays merge with a new mapping?"""
        private = [row for row in rows if row[2] in (1, 3) and not row[3] and row[1] - row[0] >= 2 * PAGE]
        if not private:
            return
        start, end, prot = self.random.choice(private)[:3]
        middle = start + (end - start) // 2 // PAGE * PAGE
        target = self.zone.base + (self.zone.pages + self.random.randrange(8)) * PAGE
        size = middle - start
        back, stays = [Op(MREMAP, target, size, size, 3, start)], self.random.random() < 0.2
        if stays:
            back = [Op(MREMAP, target, size, size, 7, start), Op(MMAP, target + size, size, 3, 0x32, MASK, 0)]
        self.queue = [
            Op(MPROTECT, start, end - start, 3),
            Op(MPROTECT, middle, end - middle, 1),
            Op(TOUCH, start, 2),
            *([Op(FORK)] if self.random.random() < 0.3 else []),
            Op(MREMAP, start, size, size, 3, target),
            Op(MPROTECT, middle, end - middle, 3),
            *back,
            Op(TOUCH, middle, 2),
            Op(MPROTECT, start, PAGE, 1),
            Op(MPROTECT, start, end - start, prot),
        ]

    def _hole_journey(self) -> None:
        """A hole between two equal areas, of which one is written, is mapped: may all three merge?"""
        start = self.zone.base + (self.zone.pages + self.random.randrange(8)) * PAGE
        self.queue = [
            Op(MMAP, start, 6 * PAGE, 3, 0x32, MASK, 0),
            Op(MUNMAP, start + 2 * PAGE, 2 * PAGE),
            Op(TOUCH, start + self.random.choice((0, 4 * PAGE)), 2),
            Op(MMAP, start + 2 * PAGE, 2 * PAGE, 3, 0x32, MASK, 0),
        ]

    def _huge_journey(self) -> None:
        """Half of a new area is read where a huge page fits: after fork, may it merge with the half that was never
        touched?"""
        start = self.zone.base + self.random.randrange(0, self.zone.pages - 1024, 512) * PAGE
        half = 512 * PAGE
        self.queue = [
            Op(MMAP, start, 2 * half, 3, 0x32, MASK, 0),
            *self.random.choice(([], [Op(TOUCH, start, 1)], [Op(TOUCH, start, 1), Op(MADVISE, start, half, 4)])),
            Op(MADVISE, start, 2 * half, 14),
            Op(MPROTECT, start + half, half, 1),
            Op(TOUCH, start + self.random.randrange(half), 1),
            Op(FORK),
            Op(MPROTECT, start + half, half, 3),
        ]

    # --- arguments ----------------------------------------------------------------------------------------------

    def _bad(self) -> bool:
        return self.random.random() < self.zone.bad

    def _addr(self) -> int:
        """An address in the zone: on the grid, at an edge of an area, or near one."""
        zone, random = self.zone, self.random
        chance = random.random()
        if self.edges and chance < 0.5:
            addr = random.choice(self.edges)
            return addr if chance < 0.4 else addr + random.choice((-PAGE, PAGE))
        return zone.base + random.randrange(0, zone.pages, zone.step) * PAGE

    def _length(self, start: int) -> int:
        """A length in bytes from ``start``: on the grid, or up to an edge of an area."""
        zone, random = self.zone, self.random
        if self.edges and random.random() < 0.35:
            edge = random.choice(self.edges)
            if start < edge <= start + zone.longest * zone.step * PAGE * 2:
                return edge - start
        return random.randint(1, zone.longest) * zone.step * PAGE

    def _range(self) -> tuple[int, int]:
        """An address and a length, sometimes bad."""
        start = self._addr()
        length = self._length(start)
        if self._bad():
            choice = self.random.randrange(4)
            if choice == 0:
                start += self.random.choice((1, 8, 100))
            elif choice == 1:
                length = self.random.choice(_HUGE_LENGTHS)
            elif choice == 2:
                length -= self.random.randrange(PAGE)
            else:
                length = 0
        return start, length

    def _inner_range(self) -> tuple[int, int]:
        """An address and a length inside the arena."""
        start, length = self._range()
        return (start, length) if length < 1 << 28 else (start, PAGE)

    def _continue_file(self) -> Op:
        """A mapping that continues a file mapping where it ends, sometimes through another opening of the file."""
        _, end, prot, shared, offset, file = row = self.random.choice(self.mapped)
        if file < 2 and self.random.random() < 0.5:
            file = 1 - file
        length = self.random.randint(1, self.zone.longest) * self.zone.step * PAGE
        return Op(MMAP, end, length, prot, 0x11 if shared else 0x12, file, offset + end - row[0])

    def _mmap(self) -> Op:
        random = self.random
        if self.mapped and random.random() < 0.15:
            return self._continue_file()
        start, length = self._range()
        prot = random.choice((3, 3, 3, 1, 1, 0, 2, 4, 5, 7))
        flags, file, offset = 0x22, MASK, 0
        if random.random() > self.zone.simple:
            choice = random.randrange(10)
            if choice < 4:
                flags, file = random.choice((1, 2, 2, 3)), random.randrange(len(FILES))
                offset = random.choice((0, 0, 1, 2, 4, 8)) * PAGE
                if self.edges and random.random() < 0.5:
                    offset = abs(start - random.choice(self.edges)) % (64 * PAGE) & -PAGE
            elif choice < 6:
                flags = 0x21
            else:
                flags |= random.choice((0x4000, 0x4000, 0x100, 0x20000, 0x8000, 0x2000, 0x100))
                flags = 0x28 if random.random() < 0.1 else flags  # MAP_DROPPABLE
        if random.random() < 0.9:
            flags |= random.choice((0x10, 0x10, 0x10, 0x100000))
        if self._bad():
            choice = random.randrange(4)
            if choice == 0:
                offset += random.choice((1, 512))
            elif choice == 1:
                flags &= ~0xF
                flags |= random.choice((0, 3, 4, 15))
            elif choice == 2:
                flags |= 0x100
            else:
                file = random.randrange(len(FILES)) if file == MASK else 99
        return Op(MMAP, start, length, prot, flags, file, offset)

    def _mprotect(self) -> Op:
        random = self.random
        prot = random.choice((3, 3, 3, 1, 1, 1, 0, 2, 4, 5, 7))
        start, length = self._range()
        if self._bad():
            prot |= random.choice((8, 16, 0x01000000, 0x02000000, 0x03000000))
        return Op(MPROTECT, start, length, prot)

    def _mremap(self) -> Op:
        random = self.random
        if self.moves and random.random() < 0.25:  # back to its old place: offsets fit again
            start, size, target = self.moves.pop(random.randrange(len(self.moves)))
            return Op(MREMAP, target, size, size, 3, start)
        start, old = self._range()
        if self.edges and random.random() < 0.6:
            at = random.randrange(0, len(self.edges), 2)
            start, old = self.edges[at], self.edges[at + 1] - self.edges[at]
        chance = random.random()
        new = old if chance < 0.5 else self._length(start) if chance < 0.95 else random.choice(_HUGE_LENGTHS)
        flags = random.choice((0, 1, 1, 3, 3, 3, 3, 5, 7, 7))
        target = self._addr()
        if random.random() < 0.08:
            old = 0
        if self._bad():
            choice = random.randrange(3)
            if choice == 0:
                flags = random.randrange(16)
            elif choice == 1:
                target += random.choice((1, 2048))
            else:
                target = random.choice((TASK_SIZE - PAGE + 1 & -PAGE, start, MASK - PAGE + 1))
        if 1 << 28 < old < TASK_SIZE:
            old = PAGE
        if flags & 4 and not flags & 2 and random.random() < 0.5:
            target = 0
        if flags == 3 and old == new and 0 < old < 1 << 28:
            self.moves = [*self.moves[-3:], (start, old, target)]
        return Op(MREMAP, start, old, new, flags, target)

    def _brk(self) -> Op:
        random = self.random
        chance = random.random()
        if chance < 0.05:
            return Op(BRK, 0)
        target = self._addr() if chance < 0.7 else self.zone.base + random.randrange(self.zone.pages) * PAGE
        if random.random() < 0.4:
            target += random.randrange(PAGE)
        return Op(BRK, max(target, self.zone.base - 1))

    def _madvise(self) -> Op:
        start, length = self._range()
        advice = self.random.choice(self.zone.advice)
        if self._bad():
            advice = self.random.choice((5, 6, 7, 26, 99, 104, advice, advice))
        if (1 << 28) < length < (1 << 64) - PAGE:
            length = MASK
        return Op(MADVISE, start, length, advice)

    def _touch(self) -> Op:
        random = self.random
        addr = self._addr()
        if self.edges and random.random() < 0.15:  # below an area: a stack may grow there
            addr = random.choice(self.edges) - random.choice((1, 2, 5, 40, 300, 2100)) * PAGE
        return Op(TOUCH, addr + random.randrange(PAGE), 1 if random.random() < self.zone.reads else 2)


def generator(name: str, seed: str) -> Generator:
    """The generator called ``name``.

    Raises:
        ValueError: no such generator; the message names those that exist.
    """
    if name not in ZONES:
        raise ValueError(f"no generator {name!r}: choose one of {', '.join(ZONES)}, or all")
    return Generator(ZONES[name], seed)
