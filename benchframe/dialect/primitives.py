"""Operations on shared memory, under the kernel's names.

Each is a plain function here: what runs when strategy code is interpreted. When it is compiled, the linker
puts an LLVM instruction of the stated ordering in its place (:mod:`benchframe.dialect.llvm`). They are the
points that a scheduler may interleave and that the cost engine counts; plain field accesses are for memory
that a lock protects or that only one task sees.

``ref`` is a reference from a slab, ``field`` the field's name as a literal string. Source of the names and
orderings: Linux Documentation/memory-barriers.txt and include/linux/{compiler,atomic}.h.
"""

from __future__ import annotations

from typing import Any


class Primitive:
    """A named operation that each engine provides for itself; calling it runs the interpreted form."""

    def __init__(self, name: str, run: Any) -> None:
        self.name = name
        self.run = run
        self.__name__ = name
        self.__doc__ = run.__doc__

    def __call__(self, *args: Any) -> Any:
        return self.run(*args)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


def _read_once(ref: Any, field: str) -> int:
    """``READ_ONCE``: one load, never repeated or torn by the compiler; no ordering."""
    return ref.world.load(ref, field, "once")  # type: ignore[no-any-return]


def _write_once(ref: Any, field: str, value: int) -> None:
    """``WRITE_ONCE``: one store, never repeated or torn; no ordering."""
    ref.world.store(ref, field, value, "once")


def _load_acquire(ref: Any, field: str) -> int:
    """``smp_load_acquire``: later accesses stay after this load."""
    return ref.world.load(ref, field, "acquire")  # type: ignore[no-any-return]


def _store_release(ref: Any, field: str, value: int) -> None:
    """``smp_store_release``: earlier accesses stay before this store."""
    ref.world.store(ref, field, value, "release")


def _fetch_add(ref: Any, field: str, delta: int) -> int:
    """``atomic_fetch_add``: adds and gives the value before; full ordering."""
    return ref.world.rmw(ref, field, "add", delta)  # type: ignore[no-any-return]


def _xchg(ref: Any, field: str, value: int) -> int:
    """``xchg``: stores and gives the value before; full ordering."""
    return ref.world.rmw(ref, field, "xchg", value)  # type: ignore[no-any-return]


def _cmpxchg(ref: Any, field: str, old: int, new: int) -> int:
    """``cmpxchg``: stores ``new`` if the value is ``old``; gives the value before; full ordering."""
    return ref.world.cmpxchg(ref, field, old, new)  # type: ignore[no-any-return]


def _smp_mb() -> None:
    """``smp_mb``: a full barrier. Interpreted runs are sequentially consistent: nothing to do."""


def _smp_rmb() -> None:
    """``smp_rmb``: loads before it come before loads after it. On x86 no instruction: loads keep their order."""


def _smp_wmb() -> None:
    """``smp_wmb``: stores before it come before stores after it. Likewise."""


def _cpu_relax() -> None:
    """``cpu_relax``: says that the surrounding loop waits for another task."""


def _cond_resched() -> None:
    """``cond_resched``: gives the core to whoever else wants it."""


def _cycles() -> int:
    """The cycle counter (rdtsc), for latencies. Interpreted: 0, since there is no time there."""
    return 0


def _fls(x: int) -> int:
    """``fls64``: the number of the highest bit set, counted from 1; 0 if none is (include/asm-generic/bitops/fls64.h).

    One instruction. Touches no memory: no scheduling point, no cost but its own.
    """
    return (x & (1 << 64) - 1).bit_length()


def _wait_until(ref: Any, field: str, mask: int, value: int) -> int:
    """``wait_event(wq, (field & mask) == value)``: 0 when it is so; an acquire load.

    Interpreted with one task: DialectError if it is not so, since nobody could change it.
    """
    return ref.world.wait(ref, field, mask, value, False)  # type: ignore[no-any-return]


def _wait_interruptible(ref: Any, field: str, mask: int, value: int) -> int:
    """``wait_event_interruptible``: as wait_until, or 1 because a signal came first. Signals come in checks only."""
    return ref.world.wait(ref, field, mask, value, True)  # type: ignore[no-any-return]


def _wait_while(ref: Any, field: str, mask: int, value: int) -> int:
    """Waits while ``field & mask`` is ``value``: 0 when it is not; an acquire load. So sleeps a wait queue."""
    return ref.world.wait_while(ref, field, mask, value, False)  # type: ignore[no-any-return]


def _wait_while_interruptible(ref: Any, field: str, mask: int, value: int) -> int:
    """As wait_while, or 1 because a signal came first. Signals come in checks only."""
    return ref.world.wait_while(ref, field, mask, value, True)  # type: ignore[no-any-return]


def _wait_then_add(ref: Any, field: str, mask: int, delta: int) -> int:
    """Waits until no bit of ``mask`` is set in the field and adds ``delta`` in the same atomic step; gives the value
    before. What a lock is made of. Natively one atomic operation if nobody is in the way.
    """
    return ref.world.wait_then_add(ref, field, mask, delta)  # type: ignore[no-any-return]


READ_ONCE = Primitive("READ_ONCE", _read_once)
WRITE_ONCE = Primitive("WRITE_ONCE", _write_once)
load_acquire = Primitive("load_acquire", _load_acquire)
store_release = Primitive("store_release", _store_release)
fetch_add = Primitive("fetch_add", _fetch_add)
xchg = Primitive("xchg", _xchg)
cmpxchg = Primitive("cmpxchg", _cmpxchg)
wait_until = Primitive("wait_until", _wait_until)
wait_interruptible = Primitive("wait_interruptible", _wait_interruptible)
wait_while = Primitive("wait_while", _wait_while)
wait_while_interruptible = Primitive("wait_while_interruptible", _wait_while_interruptible)
wait_then_add = Primitive("wait_then_add", _wait_then_add)
smp_mb = Primitive("smp_mb", _smp_mb)
smp_rmb = Primitive("smp_rmb", _smp_rmb)
smp_wmb = Primitive("smp_wmb", _smp_wmb)
cpu_relax = Primitive("cpu_relax", _cpu_relax)
cond_resched = Primitive("cond_resched", _cond_resched)
cycles = Primitive("cycles", _cycles)
fls = Primitive("fls", _fls)
