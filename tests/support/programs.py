"""Random programs of mapping calls and faults, seeded."""

import random
from typing import Any

from support.space import BASE, PAGE, PMD

Op = tuple[Any, ...]


HEAP = BASE + 4 * PMD


STACK = BASE + 6 * PMD


def _addr(page: int, region: int) -> int:
    return BASE + (page + region) * PAGE


def long_program(seed: str, count: int) -> list[Op]:
    """``count`` calls that meet each other: few pages, mostly private anonymous memory, many faults."""
    draw = random.Random(seed)

    def place() -> int:
        return _addr(draw.randrange(48), draw.choice([0, 0, 0, 500, 1020]))

    def length() -> int:
        return draw.choice([1, 1, 1, 2, 2, 3, 4, 8, 24]) * PAGE

    makers: list[Any] = [
        *[lambda: ("mmap", place(), length(), draw.choice([3, 3, 1, 7]), draw.choice([0x32, 0x32, 0x22, 0x31]))] * 5,
        lambda: (
            "mmap",
            place(),
            length(),
            draw.choice([3, 1]),
            draw.choice([0x12, 0x11]),
            0,
            draw.randrange(8) * PAGE,
        ),
        lambda: ("munmap", place(), length()),
        *[lambda: ("mprotect", place(), length(), draw.choice([3, 3, 1, 7]))] * 6,
        *[lambda: ("fault", place(), draw.choice([1, 2, 2]))] * 6,
        lambda: ("mremap", place(), length(), length(), draw.choice([1, 3]), place()),
        lambda: ("madvise", place(), length(), draw.choice([0, 1, 4, 8, 10, 11, 18, 19, 21])),
        lambda: ("brk", HEAP + draw.randrange(20) * PAGE),
        lambda: (draw.choice(["mlock", "munlock"]), place(), length()),
    ]
    return [draw.choice(makers)() if at % 300 else ("fork",) for at in range(1, count + 1)]
