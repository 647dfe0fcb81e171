"""How a case is written: a few page-numbered calls, and pictures of the arena with one letter a page.

In a picture ``.`` is a hole, ``-`` no access, ``r`` read, ``w`` read and write, ``x`` read and execute, ``a`` all
three, ``e`` execute alone; a capital letter is a shared mapping; ``|`` stands between two areas that touch. Page 0 is
:data:`BASE`.
"""

from dataclasses import dataclass, field

from benchframe.judge.child import (
    ARENA,
    BRK,
    BRK_BASE,
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
    TOUCH,
)
from benchframe.judge.programs import Op

BASE = ARENA + (64 << 20)
HEAP = (BRK_BASE - BASE) // PAGE
"""The page at which the break begins."""
PROT = {"-": 0, "r": 1, "w": 3, "e": 4, "x": 5, "a": 7}
LETTER = {value: letter for letter, value in PROT.items()}


@dataclass(frozen=True)
class Case:
    """One situation and what the kernel makes of it."""

    name: str
    setup: tuple[Op, ...]
    before: str
    """The picture after ``setup``."""
    call: Op
    after: str
    ret: int = 0
    """An address for calls that return one, 0, or -errno."""
    number: int = 0
    """Which of vma_merge's eight cases it is; 0 if none."""
    needs: dict[str, bool] = field(default_factory=dict)
    """Switches of Rules on which the outcome depends: the oracle gets them, a kernel that differs is not asked."""
    first: int = 0
    """The page with which the pictures begin."""
    fail_prealloc: bool = False
    """The call finds no memory for the nodes of a store. No running kernel can be asked, but mm/vma.c can
    (tests/judge/test_sources.py)."""

    def __str__(self) -> str:
        return self.name


def p(page: int) -> int:
    """The address of a page."""
    return BASE + page * PAGE


def m(at: int, pages: int, prot: str = "w", flags: int = 0x32) -> Op:
    """Map private anonymous pages at a fixed place."""
    return Op(MMAP, p(at), pages * PAGE, PROT[prot], flags, MASK, 0)


def shared(at: int, pages: int, prot: str = "w") -> Op:
    """Map shared anonymous pages: an object of their own."""
    return m(at, pages, prot, 0x31)


def sh(at: int, pages: int) -> Op:
    """Attach a System V segment of its own: its areas have vm_ops->close."""
    return Op(SHMAT, p(at), pages * PAGE)


def mf(at: int, pages: int, offset: int, file: int = 0, prot: str = "r", flags: int = 0x12) -> Op:
    """Map pages of a file, privately unless ``flags`` say otherwise; ``offset`` in pages."""
    return Op(MMAP, p(at), pages * PAGE, PROT[prot], flags, file, offset * PAGE)


def un(at: int, pages: int) -> Op:
    """munmap."""
    return Op(MUNMAP, p(at), pages * PAGE)


def pr(at: int, pages: int, prot: str) -> Op:
    """mprotect."""
    return Op(MPROTECT, p(at), pages * PAGE, PROT[prot])


def mv(at: int, pages: int, target: int, flags: int = 3, new: int = 0) -> Op:
    """mremap to a page, by default MREMAP_MAYMOVE | MREMAP_FIXED; ``new`` pages if not the same."""
    return Op(MREMAP, p(at), pages * PAGE, (new or pages) * PAGE, flags, p(target))


def brk(pages: int) -> Op:
    """brk: the heap has so many pages."""
    return Op(BRK, BRK_BASE + pages * PAGE)


def grow(at: int, pages: int, new: int, flags: int = 0) -> Op:
    """mremap where it is."""
    return Op(MREMAP, p(at), pages * PAGE, new * PAGE, flags, 0)


def adv(at: int, pages: int, advice: int) -> Op:
    """madvise."""
    return Op(MADVISE, p(at), pages * PAGE, advice)


def wr(page: int) -> Op:
    """Write one byte: the area gets an anon_vma."""
    return Op(TOUCH, p(page), 2)


def rd(page: int) -> Op:
    """Read one byte."""
    return Op(TOUCH, p(page), 1)


def lock(at: int, pages: int) -> Op:
    """mlock."""
    return Op(MLOCK, p(at), pages * PAGE)


def unlock(at: int, pages: int) -> Op:
    """munlock."""
    return Op(MUNLOCK, p(at), pages * PAGE)


def fork() -> Op:
    """Go on in a child."""
    return Op(FORK)


def draw(words: list[int], first: int = 0) -> str:
    """The picture of areas given as four words each, from page ``first`` on.

    >>> draw([p(1), p(3), 3, 0, p(3), p(4), 1, 0, p(5), p(6), 9, 0])
    '.ww|r.R'
    """
    text, at = "", p(first)
    for index in range(0, len(words), 4):
        start, end, bits, _ = words[index : index + 4]
        text += "." * ((start - at) // PAGE) if start > at else "|" if text and start == at else ""
        letter = LETTER.get(bits & 7, "?")
        text += (letter.upper() if bits & 8 else letter) * ((end - start) // PAGE)
        at = end
    return text
