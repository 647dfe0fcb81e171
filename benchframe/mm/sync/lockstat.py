"""Where a task begins and ends to wait for a lock of a VMA (include/linux/lockdep.h: lock_contended, lock_acquired).

A protocol calls them around a wait, after it has found that it must wait: nothing in runs of one thread, which never
wait, and in checks; a build for threads adds up how often and how long (:mod:`benchframe.mm.shared`).
"""

from benchframe.dialect import native


@native
def lock_contended(mm):
    """Somebody is in the way of a VMA's lock. Gives what :func:`lock_acquired` is to be told."""
    return 0


@native
def lock_acquired(mm, since):
    """The wait that began at ``since`` is over."""
    return 0
