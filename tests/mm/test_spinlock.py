"""spinlock: every interleaving of small programs by the checker."""

from support.locks import Programs, outcomes

from benchframe.dialect import native
from benchframe.mm.locks import spinlock

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

version_lock, version_trylock, version_unlock = spinlock("version")


@native
def spins(mm):
    """An increment under a spinlock."""
    version_lock(mm)
    mm.brk = mm.brk + 1
    version_unlock(mm)
    return 0


@native
def spins_if_free(mm):
    """The same if it is free."""
    if not version_trylock(mm):
        return 0
    mm.brk = mm.brk + 1
    version_unlock(mm)
    return 1


def test_spinlock() -> None:
    """No increment is lost; a try succeeds or leaves no trace."""
    ends = outcomes(Programs([(spins,), (spins,), (spins_if_free,)], {"brk": 0}), "brk", "version")
    assert ends == {("done", 0, 0, 0, 2, 0), ("done", 0, 0, 1, 3, 0)}
