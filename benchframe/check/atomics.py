"""Loops around a compare-and-exchange as one step each: what scenarios run in their place.

``refcount_inc_not_zero`` and ``down_read_trylock`` look, then exchange, and start over if somebody was faster. All
turns but the last only looked, so a task that runs the last one alone does the same to memory and gets the same answer:
under sequential consistency nothing is lost, and far fewer executions differ. With store buffers the loops stay.

Readers of a rw_semaphore count themselves in and out; what they find decides only by the bits of writers and of those
who wait. So two of these steps commute (ADDS), and their order is not tried. References are told their number: their
order counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchframe.check.run import ADDS, WRITES
from benchframe.dialect.instance import _made as instances_made
from benchframe.mm.sync.refcount import refcount_add_not_zero, refcount_inc_not_zero_limited_acquire
from benchframe.mm.sync.rwsem import IN_THE_WAY, down_read_trylock, up_read

Step = Callable[..., int]


def update(ref: Any, field: str, how: int, change: Callable[[int], int], ordering: str) -> int:
    """One atomic step: ``change(value)`` is added to a word. Gives the value before."""
    return ref.world.update(ref, field, how, change, ordering)  # type: ignore[no-any-return]


def _add_not_zero(field: str) -> Step:
    return lambda ref, count: update(ref, field, WRITES, lambda old: count if old != 0 else 0, "relaxed")


def _inc_limited(field: str) -> Step:
    def step(ref: Any, limit: int) -> int:
        old = update(ref, field, WRITES, lambda old: 1 if old != 0 and old + 1 <= limit else 0, "acquire")
        return -1 if old != 0 and old + 1 > limit else old

    return step


def _trylock(field: str) -> Step:
    def step(ref: Any) -> int:
        return int(not update(ref, field, ADDS, lambda seen: 0 if seen & IN_THE_WAY else 1, "acquire") & IN_THE_WAY)

    return step


def _up_read(field: str) -> Step:
    return lambda ref: update(ref, field, ADDS, lambda seen: -1, "release") * 0


TEXTS: dict[Any, tuple[str, Callable[[str], Step]]] = {
    refcount_add_not_zero: ("refs", _add_not_zero),
    refcount_inc_not_zero_limited_acquire: ("refs", _inc_limited),
    down_read_trylock: ("count", _trylock),
    up_read: ("count", _up_read),
}
"""Each text, the name of its word in it, and what makes its step for a field."""


def one_step() -> dict[Any, Step]:
    """Every instance of TEXTS that was made, and the texts themselves, to what ``dejit`` puts in their place."""
    found: dict[Any, Step] = {text: make(word) for text, (word, make) in TEXTS.items()}
    for (text, words), made in instances_made.items():
        if text in TEXTS:
            word, make = TEXTS[text]
            found[made] = make(dict(words).get(word, word))
    return found
