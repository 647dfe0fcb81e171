"""What fills a hook where a strategy does not and "return 0" is not enough."""

from benchframe.dialect import native
from benchframe.mm.arena import arena_free
from benchframe.mm.find import find_vma
from benchframe.mm.flags import PAGE_FREE
from benchframe.mm.gap import list_gap_below
from benchframe.mm.hooks import (
    COUNT_FALLBACK,
    COUNT_HIT,
    COUNT_LOOKUP,
    COUNT_RETRY,
    mmap_read_lock,
    mmap_read_unlock,
    vma_start_write,
)
from benchframe.mm.layout import ARENA_TABLE, PAGE, TASK
from benchframe.mm.records import vma_free_now
from benchframe.mm.stack import grow_as_held
from benchframe.mm.sync.mmap_lock import (
    mmap_down_read,
    mmap_down_write,
    mmap_downgrade_write,
    mmap_up_read,
    mmap_up_write,
)


@native
def read_lock(mm, task):
    """mmap_read_lock: one atomic add, unless somebody writes or waits."""
    return mmap_down_read(mm)


@native
def read_unlock(mm, task):
    """mmap_read_unlock."""
    return mmap_up_read(mm)


@native
def write_lock(mm, task):
    """mmap_write_lock: one compare-and-exchange, unless anybody is there; then wait, with new readers kept out."""
    mmap_down_write(mm)
    mm.owner = task
    return 0


@native
def write_unlock(mm, task):
    """mmap_write_unlock."""
    mm.owner = 0
    return mmap_up_write(mm)


@native
def write_downgrade(mm, task):
    """mmap_write_downgrade: who wrote goes on as a reader."""
    mm.owner = 0
    return mmap_downgrade_write(mm)


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


@native
def dup_as_write(mm, vma):
    """dup_mmap since 6.5: fork writes, too (fb49c455323f)."""
    return vma_start_write(mm, vma)


DEFAULTS = {
    "index_gap_below": list_gap_below,
    "mmap_read_lock": read_lock,
    "mmap_read_unlock": read_unlock,
    "mmap_write_lock": write_lock,
    "mmap_write_unlock": write_unlock,
    "mmap_write_downgrade": write_downgrade,
    "vma_dup": dup_as_write,
    "vma_grow": grow_as_held,
    "vma_get": get_under_mmap_lock,
    "vma_put": put_under_mmap_lock,
    "vma_get_locked": get_under_mmap_lock,
    "vma_valid": always_valid,
    "vma_free": vma_free_now,
    "table_release": table_release_now,
    "lookup": find_vma,
}
"""Hook name to default."""
