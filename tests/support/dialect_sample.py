"""Strategy code for the tests of the dialect: a tiny struct, one function per primitive."""

from benchframe.dialect import (
    READ_ONCE,
    WRITE_ONCE,
    Slab,
    Struct,
    cmpxchg,
    cmpxchg_acquire,
    cmpxchg_relaxed,
    cmpxchg_release,
    cpu_relax,
    fetch_add,
    fetch_add_acquire,
    fetch_add_relaxed,
    fetch_add_release,
    fls,
    hash_64,
    hook,
    load_acquire,
    native,
    rcu_assign_pointer,
    rcu_dereference,
    smp_acquire__after_ctrl_dep,
    smp_mb,
    smp_mb__after_atomic,
    smp_mb__before_atomic,
    smp_store_mb,
    store_release,
    trace,
    xchg,
    xchg_acquire,
    xchg_relaxed,
    xchg_release,
)

tiny = Struct("tiny", [("rec_base", "i8", "slab REC"), ("total", "i8", "a word")], size=64)
rec = Struct("rec", [("a", "i8", "a word"), ("b", "i4", "half a word"), ("c", "i4", "half a word")])
TINY = Slab("TINY", tiny, "tiny_base")
REC = Slab("REC", rec, "rec_base")
STEP = 3


@hook("index")
def maybe(mm, x):
    """A hook with a default."""
    return x + 1


@hook("index", mandatory=True)
def needed(mm, x):
    """A hook without."""


@native
def plain(mm, i, x, y):
    """Ordinary loads and stores."""
    r = REC(mm, i)
    r.a = x + r.a * STEP
    mm.total += r.a
    return r.a - y


@native
def once(mm, i, x, y):
    """READ_ONCE and WRITE_ONCE."""
    WRITE_ONCE(REC(mm, i), "a", x)
    return READ_ONCE(REC(mm, i), "a") + y


@native
def ordered(mm, i, x, y):
    """Acquire and release."""
    store_release(REC(mm, i), "a", x)
    smp_mb()
    cpu_relax()
    return load_acquire(REC(mm, i), "a") - y


@native
def highest(mm, i, x, y):
    """fls of any word."""
    return fls(x) + 100 * fls(y)


@native
def hashed(mm, i, x, y):
    """Ten bits of a word; a trace changes nothing."""
    trace(x + y)
    return hash_64(x, 10) + y


@native
def added(mm, i, x, y):
    """fetch_add gives the value before."""
    return fetch_add(REC(mm, i), "a", x) + y


@native
def exchanged(mm, i, x, y):
    """xchg gives the value before."""
    return xchg(REC(mm, i), "a", x) + y


@native
def compared(mm, i, x, y):
    """cmpxchg gives the value before, stores only on a match."""
    return cmpxchg(REC(mm, i), "a", x, y)


@native
def halves(mm, i, x, y):
    """The same on fields of four bytes."""
    r = REC(mm, i)
    r.c = 7
    old = fetch_add(r, "b", x) + xchg(r, "c", y) * 10
    return old + cmpxchg(r, "b", 0, 1) * 100 + READ_ONCE(r, "c") * 1000


@native
def hooked(mm, i, x, y):
    """What a binding fills."""
    return maybe(mm, x) + y


@native
def hooked_twice(mm, i, x, y):
    """A mandatory hook."""
    return needed(mm, x) + y


@native
def fill(mm, x):
    """Fills either."""
    return x * 2


@native
def looped(mm, i, x, y):
    """Loops, min, max, bit operations, floor division of negative numbers."""
    total = 0
    for k in range(x):
        total += min(k, y) ^ (k << 2)
    while total > 1000:
        total //= 3
    return (total // -7) + (-total % 5) + max(i, abs(y))


PRIMITIVES = (plain, once, ordered, added, exchanged, compared, looped)


@native
def relaxed(mm, i, x, y):
    """Read-modify-writes of each ordering, on fields of eight and of four bytes."""
    r = REC(mm, i)
    r.c = 3
    total = fetch_add_relaxed(r, "a", x) + 3 * fetch_add_acquire(r, "b", y) + 5 * fetch_add_release(r, "c", 2)
    total += xchg_relaxed(r, "a", y) + 7 * xchg_acquire(r, "c", 9) + 11 * xchg_release(r, "a", x)
    total += cmpxchg_relaxed(r, "c", 9, 4) + cmpxchg_acquire(r, "c", 9, 8) + 13 * cmpxchg_release(r, "c", 4, 6)
    return total


@native
def published(mm, i, x, y):
    """Stores and loads of references, and the barriers beside atomic operations."""
    r = REC(mm, i)
    rcu_assign_pointer(r, "a", x)
    smp_mb__before_atomic()
    seen = fetch_add_relaxed(r, "b", y)
    smp_mb__after_atomic()
    if seen == 0:
        smp_acquire__after_ctrl_dep()
    smp_store_mb(r, "c", 5)
    return rcu_dereference(r, "a") + seen + READ_ONCE(r, "c")


PRIMITIVES = (plain, once, ordered, highest, hashed, added, exchanged, compared, looped)
