"""What fills a hook where a strategy does not and "return 0" is not enough."""

from benchframe.dialect import fetch_add, native, wait_then_add
from benchframe.mm.arena import arena_free
from benchframe.mm.find import find_vma
from benchframe.mm.flags import PAGE_FREE, WRITER
from benchframe.mm.gap import list_gap_above, list_gap_below
from benchframe.mm.hooks import (
    COUNT_FALLBACK,
    COUNT_HIT,
    COUNT_LOOKUP,
    COUNT_RETRY,
    mmap_read_lock,
    mmap_read_unlock,
)
from benchframe.mm.layout import ARENA_TABLE, PAGE, TASK
from benchframe.mm.records import vma_free_now


@native
def read_lock(mm, task):
    """down_read: one atomic add, unless somebody writes; then wait. Writers do not go first, as the kernel's do."""
    wait_then_add(mm, "mmap_lock", WRITER, 1)
    return 0


@native
def read_unlock(mm, task):
    """up_read."""
    fetch_add(mm, "mmap_lock", -1)
    return 0


@native
def write_lock(mm, task):
    """down_write: one compare-and-exchange, unless somebody reads or writes; then wait."""
    wait_then_add(mm, "mmap_lock", -1, WRITER)
    mm.owner = task
    return 0


@native
def write_unlock(mm, task):
    """up_write."""
    mm.owner = 0
    fetch_add(mm, "mmap_lock", -WRITER)
    return 0


@native
def table_release_now(mm, table):
    """Give the page back at once."""
    PAGE(mm, table).mapping = PAGE_FREE
    return arena_free(mm, ARENA_TABLE, table)


@native
def get_under_mmap_lock(mm, task, addr):
    """do_page_fault of 2.4 to 6.3: mmap_lock for read around the whole fault."""
    mmap_read_lock(mm, task)
    return find_vma(mm, task, addr)


@native
def put_under_mmap_lock(mm, task, vma):
    """The end of do_page_fault."""
    mmap_read_unlock(mm, task)
    return 0


@native
def always_valid(mm, task, vma, site):
    """Whoever holds mmap_lock need not ask again."""
    return 1


@native
def count_event(mm, task, what):
    """The counted build's ``count``."""
    t = TASK(mm, task)
    if what == COUNT_LOOKUP:
        t.nr_lookups += 1
    elif what == COUNT_HIT:
        t.nr_hits += 1
    elif what == COUNT_RETRY:
        t.nr_retries += 1
    elif what == COUNT_FALLBACK:
        t.nr_fallbacks += 1
    return 0


DEFAULTS = {
    "index_gap_below": list_gap_below,
    "index_gap_above": list_gap_above,
    "mmap_read_lock": read_lock,
    "mmap_read_unlock": read_unlock,
    "mmap_write_lock": write_lock,
    "mmap_write_unlock": write_unlock,
    "vma_get": get_under_mmap_lock,
    "vma_put": put_under_mmap_lock,
    "vma_get_locked": get_under_mmap_lock,
    "vma_valid": always_valid,
    "vma_free": vma_free_now,
    "table_release": table_release_now,
    "lookup": find_vma,
}
"""Hook name to default."""
