"""Strategy code for the tests of the dialect: a tiny struct, one function per primitive."""

from benchframe.dialect import (
    READ_ONCE,
    WRITE_ONCE,
    Slab,
    Struct,
    cmpxchg,
    cpu_relax,
    fetch_add,
    fls,
    hook,
    load_acquire,
    native,
    smp_mb,
    store_release,
    xchg,
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


PRIMITIVES = (plain, once, ordered, highest, added, exchanged, compared, looped)
