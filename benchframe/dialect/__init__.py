"""The dialect: one text for compiled, interpreted, counted and scheduled runs.

Strategy authors import its names from :mod:`benchframe.api` and :mod:`benchframe.kernel`; docs/dialect.md explains it.
"""

from benchframe.dialect.functions import Binding, FarCall, Hook, hook, is_native, native
from benchframe.dialect.primitives import (
    READ_ONCE,
    WRITE_ONCE,
    cmpxchg,
    cond_resched,
    cpu_relax,
    cycles,
    fetch_add,
    fls,
    load_acquire,
    smp_mb,
    smp_rmb,
    smp_wmb,
    store_release,
    wait_interruptible,
    wait_then_add,
    wait_until,
    wait_while,
    wait_while_interruptible,
    xchg,
)
from benchframe.dialect.records import NULL, DialectError, Field, Slab, Struct

__all__ = [
    "NULL",
    "READ_ONCE",
    "WRITE_ONCE",
    "Binding",
    "DialectError",
    "FarCall",
    "Field",
    "Hook",
    "Slab",
    "Struct",
    "cmpxchg",
    "cond_resched",
    "cpu_relax",
    "cycles",
    "fetch_add",
    "fls",
    "hook",
    "is_native",
    "load_acquire",
    "native",
    "smp_mb",
    "smp_rmb",
    "smp_wmb",
    "store_release",
    "wait_interruptible",
    "wait_then_add",
    "wait_until",
    "wait_while",
    "wait_while_interruptible",
    "xchg",
]
