"""A sequence count: odd while somebody writes (include/linux/seqlock.h). Readers write nothing and may have to retry.

Orderings are the kernel's: the writer has an smp_wmb behind the odd number and one before the even (raw_write_seqcount_
begin and _end), the reader an acquire (6.13; smp_rmb before) and an smp_rmb before it looks again.

The writer is alone, by a lock of its own. A reader copies what it needs between begin and retry and believes it only if
the number is still the same.
"""

from typing import NamedTuple

from benchframe.dialect import READ_ONCE, WRITE_ONCE, load_acquire, native, smp_rmb, smp_wmb, wait_until
from benchframe.dialect.function import Native
from benchframe.dialect.instance import instances


@native
def raw_read_seqcount(seq):
    """The number as it is, maybe odd: for who would rather give up than wait."""
    return load_acquire(seq, "sequence")


@native
def read_seqcount_begin(seq):
    """An even number; waits while somebody writes."""
    seen = load_acquire(seq, "sequence")
    while seen & 1:
        wait_until(seq, "sequence", 1, 0)
        seen = load_acquire(seq, "sequence")
    return seen


@native
def read_seqcount_retry(seq, start):
    """1 if what was read since ``start`` must not be used."""
    smp_rmb()
    return int(READ_ONCE(seq, "sequence") != start)


@native
def write_seqcount_begin(seq):
    """The number becomes odd, before anything is changed."""
    WRITE_ONCE(seq, "sequence", READ_ONCE(seq, "sequence") + 1)
    smp_wmb()
    return 0


@native
def write_seqcount_end(seq):
    """The number becomes even, after everything was changed."""
    smp_wmb()
    WRITE_ONCE(seq, "sequence", READ_ONCE(seq, "sequence") + 1)
    return 0


class Seqcount(NamedTuple):
    """The functions of one sequence count; each takes the record that holds it."""

    raw_read_seqcount: Native
    read_seqcount_begin: Native
    read_seqcount_retry: Native
    write_seqcount_begin: Native
    write_seqcount_end: Native


def seqcount(sequence: str) -> Seqcount:
    """A sequence count in field ``sequence`` of a record.

    >>> seqcount("vm_sequence").read_seqcount_retry.__name__
    'read_seqcount_retry'
    """
    texts = (raw_read_seqcount, read_seqcount_begin, read_seqcount_retry, write_seqcount_begin, write_seqcount_end)
    return Seqcount(*instances({"sequence": sequence}, *texts))
