"""Locks and counts as the kernel has them, each one text over words of any record.

=============  ==================================================================================================
module         what it makes
=============  ==================================================================================================
spinlock       :func:`~benchframe.mm.sync.spinlock.spinlock`: a page table's lock
rwsem          :func:`~benchframe.mm.sync.rwsem.rwsem`: mmap_lock, a VMA's lock of 6.4
seqcount       :func:`~benchframe.mm.sync.seqcount.seqcount`: a number that is odd while somebody writes
refcount       :func:`~benchframe.mm.sync.refcount.refcount`: a count that stays zero once it is zero
waitqueue      :func:`~benchframe.mm.sync.waitqueue.waitqueue`: sleepers that must be woken
mmap_lock      the instance every mm has
=============  ==================================================================================================

Each is a named tuple of ``@native`` functions that take the record. Natively they are atomic instructions and a waiter
gives its core away; interpreted by one task a wait that nobody could end is an error; under the checker each
operation is a scheduling point.
"""
