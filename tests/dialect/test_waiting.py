"""wait_until, wait_then_add and the locks made of them: by one task interpreted, by real threads compiled."""

import threading
from types import FunctionType

import numpy as np
import pytest

from benchframe.dialect import DialectError, fetch_add, native, wait_interruptible, wait_then_add, wait_until
from benchframe.dialect.interpreter import PlainWorld, dejit
from benchframe.mm.defaults import read_lock, read_unlock, write_lock, write_unlock
from benchframe.mm.layout import MM, mm_struct
from benchframe.mm.locks import WRITER

THREADS, TURNS = 6, 3000
"""More threads than cores: a waiter must give its core away."""


@native
def locked_turns(mm, turns):  # type: ignore[no-untyped-def]
    """Plain increments under the lock for write, and a look under the lock for read: 1 in rss for a torn look."""
    i = 0
    while i < turns:
        write_lock(mm, 1)
        mm.start_brk = mm.start_brk + 1
        mm.brk = mm.brk + 1
        write_unlock(mm, 1)
        read_lock(mm, 1)
        if mm.brk != mm.start_brk:
            fetch_add(mm, "rss", 1)
        read_unlock(mm, 1)
        i += 1
    return 0


@native
def ping(mm, turns):  # type: ignore[no-untyped-def]
    """Waits for an even word and makes it odd."""
    i = 0
    while i < turns:
        wait_until(mm, "version", 1, 0)
        fetch_add(mm, "version", 1)
        i += 1
    return wait_interruptible(mm, "rss", -1, 0)


@native
def pong(mm, turns):  # type: ignore[no-untyped-def]
    """Waits for an odd word and makes it even."""
    i = 0
    while i < turns:
        wait_until(mm, "version", 1, 1)
        fetch_add(mm, "version", 1)
        i += 1
    return 0


@native
def take(mm, mask):  # type: ignore[no-untyped-def]
    """The value before."""
    return wait_then_add(mm, "mmap_lock", mask, WRITER)


def compiled(function: FunctionType) -> tuple[object, np.ndarray]:  # type: ignore[type-arg]
    """A compiled unit and an mm for it."""
    from benchframe.dialect.llvm import compile_unit
    from benchframe.dialect.store import Unit

    return Unit(function.__name__, compile_unit(function, 2, mm_struct, None, {}), 2), np.zeros(2, mm_struct.dtype)


def run(units: list[object], mm: np.ndarray, turns: int) -> None:  # type: ignore[type-arg]
    """Every unit in a thread of its own, on one mm."""
    address = mm.ctypes.data
    threads = [threading.Thread(target=unit, args=(address, turns)) for unit in units]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a waiter was never let go"


def test_lock_excludes_threads() -> None:
    """Threads that outnumber the cores: no increment is lost, no reader sees half of one, the lock ends free."""
    unit, mm = compiled(locked_turns)
    run([unit] * THREADS, mm, TURNS)
    assert mm[0]["brk"] == mm[0]["start_brk"] == THREADS * TURNS
    assert mm[0]["rss"] == 0
    assert mm[0]["mmap_lock"] == 0


def test_waiters_take_turns() -> None:
    """Two threads that wait for each other, a thousand times."""
    first, mm = compiled(ping)
    second, _ = compiled(pong)
    run([first, second], mm, 1000)
    assert mm[0]["version"] == 2000


def test_compiled_lock_gives_the_value_before() -> None:
    """Both ways to take a lock: nobody may be there, or no writer."""
    unit, mm = compiled(take)
    assert unit(mm.ctypes.data, -1) == 0  # type: ignore[operator]
    assert mm[0]["mmap_lock"] == WRITER
    mm[0]["mmap_lock"] = 3
    assert unit(mm.ctypes.data, WRITER) == 3  # type: ignore[operator]
    assert mm[0]["mmap_lock"] == WRITER + 3


@pytest.mark.parametrize(("function", "word", "value"), [(ping, "version", 1), (take, "mmap_lock", 1)])
def test_one_task_that_would_wait_is_a_deadlock(function: FunctionType, word: str, value: int) -> None:
    """Interpreted alone, nobody can end the wait: an error that names the word, instead of silence."""
    memory = np.zeros(2, mm_struct.dtype)
    memory[1][word] = value
    mm = PlainWorld({"mm_base": memory}).ref(MM, 1)
    with pytest.raises(DialectError, match=f"deadlock.*{word}"):
        dejit(function)(mm, -1 if function is take else 1)


def test_interpreted_locks_are_the_same_words() -> None:
    """The interpreter leaves in memory what compiled code would."""
    memory = np.zeros(2, mm_struct.dtype)
    mm = PlainWorld({"mm_base": memory}).ref(MM, 1)
    dejit(locked_turns)(mm, 2)
    assert memory[1]["brk"] == 2
    assert memory[1]["mmap_lock"] == 0
    assert dejit(take)(mm, -1) == 0
    assert memory[1]["mmap_lock"] == WRITER
