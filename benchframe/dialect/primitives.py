"""Operations on shared memory, under the kernel's names.

Each is a plain function here, which runs when strategy code is interpreted. In compiled code the linker replaces it by
an LLVM instruction of the stated ordering (:mod:`benchframe.dialect.llvm`). A scheduler may interleave tasks at these
operations, and the cost engine counts them; plain field accesses are for memory that a lock protects or that only one
task sees.

Read-modify-writes have the kernel's four orderings: without a suffix fully ordered, then ``_relaxed``, ``_acquire`` and
``_release``. On x86 all four are the same instruction; on arm64 they differ, and under the kernel's memory model each
allows other outcomes (docs/memory-model.md).

``ref`` is a reference from a slab, ``field`` the field's name as a literal string. Source of the names and orderings:
Linux Documentation/memory-barriers.txt and include/linux/{compiler,atomic}.h.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


class Primitive:
    """A named operation that each engine implements; calling it runs the interpreted form."""

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
    """``atomic_fetch_add``: adds and returns the value before; full ordering."""
    return ref.world.rmw(ref, field, "add", delta)  # type: ignore[no-any-return]


def _xchg(ref: Any, field: str, value: int) -> int:
    """``xchg``: stores and returns the value before; full ordering."""
    return ref.world.rmw(ref, field, "xchg", value)  # type: ignore[no-any-return]


def _cmpxchg(ref: Any, field: str, old: int, new: int) -> int:
    """``cmpxchg``: stores ``new`` if the value is ``old``; returns the value before; full ordering."""
    return ref.world.cmpxchg(ref, field, old, new)  # type: ignore[no-any-return]


_ORDERS = {
    "relaxed": "no ordering",
    "acquire": "later accesses stay after it",
    "release": "earlier accesses stay before it",
}
"""The orderings of a read-modify-write that are not full, as include/linux/atomic/atomic-arch-fallback.h names them."""


def _adding(ordering: str) -> Any:
    def fetch_add(ref: Any, field: str, delta: int) -> int:
        return ref.world.rmw(ref, field, "add", delta, ordering)  # type: ignore[no-any-return]

    fetch_add.__doc__ = f"``atomic_fetch_add_{ordering}``: adds and returns the value before; {_ORDERS[ordering]}."
    return fetch_add


def _exchanging(ordering: str) -> Any:
    def xchg(ref: Any, field: str, value: int) -> int:
        return ref.world.rmw(ref, field, "xchg", value, ordering)  # type: ignore[no-any-return]

    xchg.__doc__ = f"``xchg_{ordering}``: stores and returns the value before; {_ORDERS[ordering]}."
    return xchg


def _comparing(ordering: str) -> Any:
    def cmpxchg(ref: Any, field: str, old: int, new: int) -> int:
        return ref.world.cmpxchg(ref, field, old, new, ordering)  # type: ignore[no-any-return]

    cmpxchg.__doc__ = f"``cmpxchg_{ordering}``: as cmpxchg; {_ORDERS[ordering]}. If the value differs: no ordering."
    return cmpxchg


def _rcu_dereference(ref: Any, field: str) -> int:
    """``rcu_dereference``: READ_ONCE of a reference. Reads of the record it points to come after it."""
    return ref.world.load(ref, field, "dereference")  # type: ignore[no-any-return]


def _rcu_assign_pointer(ref: Any, field: str, value: int) -> None:
    """``rcu_assign_pointer``: publishes a record; a release, so all stores to its fields come before."""
    ref.world.store(ref, field, value, "release")


def _smp_store_mb(ref: Any, field: str, value: int) -> None:
    """``smp_store_mb``: WRITE_ONCE, then a full barrier. On x86 one xchg."""
    ref.world.store(ref, field, value, "mb")


def _smp_mb() -> None:
    """``smp_mb``: a full barrier. Interpreted runs are sequentially consistent: nothing to do."""


def _smp_rmb() -> None:
    """``smp_rmb``: loads before it come before loads after it. On x86 no instruction: loads keep their order."""


def _smp_wmb() -> None:
    """``smp_wmb``: stores before it come before stores after it. Likewise."""


def _smp_mb__before_atomic() -> None:
    """``smp_mb__before_atomic``: a full barrier before the atomic operation that follows. On x86 no instruction: the
    operation is one."""


def _smp_mb__after_atomic() -> None:
    """``smp_mb__after_atomic``: a full barrier after the atomic operation before it. Likewise."""


def _smp_acquire__after_ctrl_dep() -> None:
    """``smp_acquire__after_ctrl_dep``: turns the load that decided a branch into an acquire. On x86 no instruction."""


def _cpu_relax() -> None:
    """``cpu_relax``: declares that the surrounding loop waits for another task."""


def _cond_resched() -> None:
    """``cond_resched``: lets other tasks run on this core."""


def _cycles() -> int:
    """The cycle counter (rdtsc), for latencies. Interpreted: 0, since interpreted code has no time."""
    return 0


def _fls(x: int) -> int:
    """``fls64``: the number of the highest bit set, counted from 1; 0 if none is (include/asm-generic/bitops/fls64.h).

    One instruction. Touches no memory: no scheduling point, no cost but its own.
    """
    return (x & (1 << 64) - 1).bit_length()


GOLDEN_RATIO_64 = 0x61C8864680B583EB
"""The factor of include/linux/hash.h."""


def _hash_64(x: int, bits: int) -> int:
    """``hash_64``: ``bits`` bits (1 to 63) that depend on all of ``x`` (include/linux/hash.h).

    One multiplication and one shift. Touches no memory. The product keeps 64 bits, compiled and interpreted.
    """
    return (x * GOLDEN_RATIO_64 & (1 << 64) - 1) >> (64 - bits)


def _trace(x: int) -> None:
    """``trace_printk``: ``x`` and the line appear in the story of a check's failure. Compiled code has no trace of it.

    ``x`` is not computed where nothing else needs it, so a trace costs nothing in timed and counted runs.
    """
    if _listening:
        caller = sys._getframe(2)  # behind Primitive.__call__
        _listening[-1](x, caller.f_code.co_name, caller.f_code.co_filename, caller.f_lineno)


Heard = Callable[[int, str, str, int], None]
"""Is told what ``trace`` was given: value, function, file, line."""
_listening: list[Heard] = []


class Listening:
    """While it is entered, ``heard`` is told what strategy code traces; the innermost one alone."""

    def __init__(self, heard: Heard) -> None:
        self.heard = heard

    def __enter__(self) -> None:
        _listening.append(self.heard)

    def __exit__(self, *error: object) -> None:
        _listening.pop()


def _wait_until(ref: Any, field: str, mask: int, value: int) -> int:
    """``wait_event(wq, (field & mask) == value)``: waits until it holds, returns 0; an acquire load.

    Interpreted with one task: DialectError if it does not hold, since no other task could change it.
    """
    return ref.world.wait(ref, field, mask, value, False)  # type: ignore[no-any-return]


def _wait_interruptible(ref: Any, field: str, mask: int, value: int) -> int:
    """``wait_event_interruptible``: as wait_until, but returns 1 if a signal came first. Signals occur in checks
    only."""
    return ref.world.wait(ref, field, mask, value, True)  # type: ignore[no-any-return]


def _wait_while(ref: Any, field: str, mask: int, value: int) -> int:
    """Waits while ``field & mask`` is ``value``, returns 0; an acquire load. Wait queues sleep with it."""
    return ref.world.wait_while(ref, field, mask, value, False)  # type: ignore[no-any-return]


def _wait_while_interruptible(ref: Any, field: str, mask: int, value: int) -> int:
    """As wait_while, but returns 1 if a signal came first. Signals occur in checks only."""
    return ref.world.wait_while(ref, field, mask, value, True)  # type: ignore[no-any-return]


def _wait_then_add(ref: Any, field: str, mask: int, delta: int) -> int:
    """Waits until no bit of ``mask`` is set in the field and adds ``delta`` in the same atomic step; returns the value
    before. Locks are made of it. Natively one atomic operation without contention."""
    return ref.world.wait_then_add(ref, field, mask, delta)  # type: ignore[no-any-return]


READ_ONCE = Primitive("READ_ONCE", _read_once)
WRITE_ONCE = Primitive("WRITE_ONCE", _write_once)
load_acquire = Primitive("load_acquire", _load_acquire)
store_release = Primitive("store_release", _store_release)
fetch_add = Primitive("fetch_add", _fetch_add)
xchg = Primitive("xchg", _xchg)
cmpxchg = Primitive("cmpxchg", _cmpxchg)
fetch_add_relaxed = Primitive("fetch_add_relaxed", _adding("relaxed"))
fetch_add_acquire = Primitive("fetch_add_acquire", _adding("acquire"))
fetch_add_release = Primitive("fetch_add_release", _adding("release"))
xchg_relaxed = Primitive("xchg_relaxed", _exchanging("relaxed"))
xchg_acquire = Primitive("xchg_acquire", _exchanging("acquire"))
xchg_release = Primitive("xchg_release", _exchanging("release"))
cmpxchg_relaxed = Primitive("cmpxchg_relaxed", _comparing("relaxed"))
cmpxchg_acquire = Primitive("cmpxchg_acquire", _comparing("acquire"))
cmpxchg_release = Primitive("cmpxchg_release", _comparing("release"))
rcu_dereference = Primitive("rcu_dereference", _rcu_dereference)
rcu_assign_pointer = Primitive("rcu_assign_pointer", _rcu_assign_pointer)
smp_store_mb = Primitive("smp_store_mb", _smp_store_mb)
wait_until = Primitive("wait_until", _wait_until)
wait_interruptible = Primitive("wait_interruptible", _wait_interruptible)
wait_while = Primitive("wait_while", _wait_while)
wait_while_interruptible = Primitive("wait_while_interruptible", _wait_while_interruptible)
wait_then_add = Primitive("wait_then_add", _wait_then_add)
smp_mb = Primitive("smp_mb", _smp_mb)
smp_rmb = Primitive("smp_rmb", _smp_rmb)
smp_wmb = Primitive("smp_wmb", _smp_wmb)
smp_mb__before_atomic = Primitive("smp_mb__before_atomic", _smp_mb__before_atomic)
smp_mb__after_atomic = Primitive("smp_mb__after_atomic", _smp_mb__after_atomic)
smp_acquire__after_ctrl_dep = Primitive("smp_acquire__after_ctrl_dep", _smp_acquire__after_ctrl_dep)
cpu_relax = Primitive("cpu_relax", _cpu_relax)
cond_resched = Primitive("cond_resched", _cond_resched)
cycles = Primitive("cycles", _cycles)
fls = Primitive("fls", _fls)
hash_64 = Primitive("hash_64", _hash_64)
trace = Primitive("trace", _trace)
