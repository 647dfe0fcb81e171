"""Small protocols: for single races that store buffers need, and what a branch of strategy text orders."""

from benchframe.api import Protocol, Strategy, hook, native
from benchframe.kernel import (
    READ_ONCE,
    TASK,
    VMA,
    WRITE_ONCE,
    fetch_add,
    fetch_add_relaxed,
    smp_acquire__after_ctrl_dep,
    smp_mb,
    wait_until,
    write_lock,
)
from benchframe_plugins.pmdcache_rcu import forget
from support.mutants import twin

# ---- store buffers --------------------------------------------------------------------------------------------------


@native
def plain_version(mm, task):
    """The version changes by a plain store, which may wait in a buffer."""
    write_lock(mm, task)
    mm.version += 1
    return 0


@native
def write_unfenced(mm, vma):
    """No barrier between the version and the look at the holders."""
    if mm.version & 1:
        wait_until(VMA(mm, vma), "cache_access", -1, 0)
        forget(mm, vma)
    return 0


@native
def write_fenced(mm, vma):
    """With the barrier."""
    if mm.version & 1:
        smp_mb()
        wait_until(VMA(mm, vma), "cache_access", -1, 0)
        forget(mm, vma)
    return 0


PLAIN_VERSION = twin("t1", mmap_write_lock=plain_version, vma_start_write=write_unfenced)
"""Right under sequential consistency only."""
TWIN_VERSION = twin("t2", mmap_write_lock=plain_version, vma_start_write=write_fenced)
"""Right on x86, too."""


# ---- branches --------------------------------------------------------------------------------------------------------
# Each loads cache_access, decides a branch by it, and stores to cache_wait.


@native
def arm_stores(mm, v):
    """In an arm."""
    if READ_ONCE(v, "cache_access") == 0:
        WRITE_ONCE(v, "cache_wait", 1)
    return 0


@native
def store(v):
    """Called from an arm."""
    WRITE_ONCE(v, "cache_wait", 1)
    return 0


@native
def arm_calls(mm, v):
    """In a function that an arm calls."""
    if READ_ONCE(v, "cache_access") == 0:
        store(v)
    return 0


@native
def joined(mm, v):
    """Behind the arms: a compiler may do it first."""
    if READ_ONCE(v, "cache_access") == 0:
        TASK(mm, 1).speculative = 0
    WRITE_ONCE(v, "cache_wait", 1)
    return 0


@native
def returned(mm, v):
    """Behind an arm that returns: only the other one comes here."""
    if READ_ONCE(v, "cache_access") != 0:
        return 0
    WRITE_ONCE(v, "cache_wait", 1)
    return 1


@native
def look(v):
    """Both of its arms return to the caller."""
    if READ_ONCE(v, "cache_access") == 0:
        return 0
    return 1


@native
def caller_stores(mm, v):
    """Behind a call whose arms both return."""
    look(v)
    WRITE_ONCE(v, "cache_wait", 1)
    return 0


@native
def chosen(mm, v):
    """A number that a branch chose: a compiler may store it by any way."""
    number = 1 if READ_ONCE(v, "cache_access") == 0 else 2
    WRITE_ONCE(v, "cache_wait", number)
    return 0


@native
def behind_loop(mm, v):
    """Behind a loop, which might not have ended."""
    while READ_ONCE(v, "cache_access") > 5:
        TASK(mm, 1).speculative = 0
    WRITE_ONCE(v, "cache_wait", 1)
    return 0


@native
def behind_break(mm, v):
    """The same, left in its middle."""
    while True:
        if READ_ONCE(v, "cache_access") <= 5:
            break
        TASK(mm, 1).speculative = 0
    WRITE_ONCE(v, "cache_wait", 1)
    return 0


@native
def behind_turns(mm, v):
    """Behind a branch in a loop that ends in any case."""
    for _ in range(2):
        if READ_ONCE(v, "cache_access") == 0:
            TASK(mm, 1).speculative = 0
    WRITE_ONCE(v, "cache_wait", 1)
    return 0


@native
def both_tests(mm, v):
    """In the arm of two tests."""
    if mm.id == 1 and READ_ONCE(v, "cache_access") == 0:
        WRITE_ONCE(v, "cache_wait", 1)
    return 0


@native
def acquired(mm, v):
    """Behind an arm that makes an acquire of the branch; if it is not taken, nothing does."""
    if READ_ONCE(v, "cache_access") == 0:
        smp_acquire__after_ctrl_dep()
    WRITE_ONCE(v, "cache_wait", 1)
    return 0


@native
def arm_loads(mm, v):
    """A load in an arm: a CPU guesses the branch and does it first."""
    WRITE_ONCE(v, "cache_wait", 1)
    if READ_ONCE(v, "cache_access") == 0:
        READ_ONCE(v, "anon_vma")
    return 0


@hook("protocol")
def decide(mm, v):
    """One of these."""
    return 0


@native
def get_and_decide(mm, task, addr):
    """Every lookup decides by what the other one changes."""
    v = VMA(mm, 1)
    decide(mm, v)
    fetch_add_relaxed(v, "cache_access", -1)
    WRITE_ONCE(v, "anon_vma", 0)
    return 1


@native
def put_nothing(mm, task, vma):
    """Nothing is held."""
    return 0


def branching(text):
    """A strategy whose lookups do ``text``."""
    protocol = Protocol(vma_get=get_and_decide, vma_put=put_nothing, bind={"decide": text})
    return Strategy("branch", "a branch", "rbtree", protocol=protocol)


@native
def get_behind_full(mm, task, addr):
    """Between a load and a store a fully ordered read-modify-write of memory that no other task uses."""
    v = VMA(mm, 1)
    READ_ONCE(v, "cache_access")
    fetch_add(TASK(mm, task), "speculative", 1)
    WRITE_ONCE(v, "cache_wait", 1)
    fetch_add_relaxed(v, "cache_access", -1)
    return 1


@native
def get_behind_relaxed(mm, task, addr):
    """The same, relaxed."""
    v = VMA(mm, 1)
    READ_ONCE(v, "cache_access")
    fetch_add_relaxed(TASK(mm, task), "speculative", 1)
    WRITE_ONCE(v, "cache_wait", 1)
    fetch_add_relaxed(v, "cache_access", -1)
    return 1


def alone(get):
    """A strategy whose lookups are ``get``."""
    return Strategy("alone", "a barrier", "rbtree", protocol=Protocol(vma_get=get, vma_put=put_nothing))


YES, NO = frozenset({True}), frozenset({False})
BRANCHES = {
    arm_stores: YES, arm_calls: YES, both_tests: YES, returned: YES, behind_loop: YES, behind_break: YES,
    acquired: YES | NO, joined: NO, caller_stores: NO, chosen: NO, behind_turns: NO, arm_loads: NO,
}  # fmt: skip
"""Does the load that decides come before the store, or the load, that stands last? Both: if the arm is taken."""
