"""RCU: readers that take no lock, and memory that is given back only when they have gone.

One thread is its own grace period: natively the sections cost nothing and kfree_rcu frees at once. The checker puts
its own in their place, where a freed record waits until every task has been outside a section.
"""

from benchframe.dialect import native
from benchframe.mm.arena import arena_free


@native
def rcu_read_lock(mm, task):
    """Until rcu_read_unlock nothing that this task may have seen is given back. Sections nest: the outermost counts."""
    return 0


@native
def rcu_read_unlock(mm, task):
    """The section ends: references got inside are void, unless something else keeps them."""
    return 0


@native
def kfree_rcu(mm, which, slot):
    """arena_free after a grace period. The caller does not wait."""
    return arena_free(mm, which, slot)


@native
def synchronize_rcu(mm, task):
    """Wait until every section that had begun has ended. Not from inside a section."""
    return 0


@native
def free_typesafe_by_rcu(mm, which, slot):
    """kmem_cache_free of a SLAB_TYPESAFE_BY_RCU cache: the slot may be handed out again at once, but stays a record of
    its kind until a grace period is over. Who found it under rcu_read_lock must look again whose it is."""
    return arena_free(mm, which, slot)
