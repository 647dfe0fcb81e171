"""What `benchframe check` finds in the RFC's code as posted, by name: how races are told apart.

docs/checking.md explains each bug. A pattern names the functions involved, the innermost first.
"""

from benchframe.api import scenario


def known(name, summary, *functions, **where):
    """A race that is kept in the strategy."""
    return scenario.KnownBug(name, summary, functions, **where)


MERGED = ("vma_free_now < vma_remove_merged",)
UNMAPPED = ("vma_free_now < detach_range",)
HELD = "vma_hold < lookup_vma_cache < get_speculative"
INSIDE = ("fill_none < handle_mm_fault", "anon_vma_prepare < fill_none", "beyond_object < handle_mm_fault",
          "fault_in_vma < page_fault", "covering < page_fault")  # fmt: skip
"""Where a fault uses the VMA that it assumes to hold."""
NEIGHBOUR = "anon_vma_choose < anon_vma_prepare < fill_none"
B3, B4, SPLIT = ("fault-merge",), ("fault-munmap-signal",), ("fault-mprotect-part",)
KNOWN_BUGS = (
    known("B5", "the pmd is read without protection", "lookup_vma_cache < get_speculative", dangling=False,
          freed=("table_release_now < table_free",), scenarios=("lookup-munmap-table",)),
    known("anon_vma", "a fault looks at neighbours that it does not hold", NEIGHBOUR, dangling=False, freed=UNMAPPED,
          scenarios=("fault-munmap-neighbour", "fault-mremap-neighbour")),
    known("anon_vma", "as above", "move_vma", "down_read_any", "spin_lock", kind="broken invariant",
          says="VMA #*: anon_vma * with a chain of 0", scenarios=("fault-mremap-neighbour",)),
    known("B2", "a merge leaves pointers behind", HELD, dangling=True, freed=MERGED, source=("page.cache < set-up",),
          scenarios=("merge-then-lookup",)),
    known("B6", "a fault in flight stores the VMA again after its invalidation", HELD, dangling=True, freed=UNMAPPED,
          source=("page.cache < update_vma_cache < invalidate_vma_cache_range",), scenarios=("fault-munmap",)),
    known("B1", "page->cache is loaded, the VMA freed, then held", HELD, dangling=False, freed=MERGED + UNMAPPED,
          source=("page.cache",)),
    known("B1", "as above, a merge", "get_speculative < bare_lookup", "get_speculative < page_fault", dangling=False,
          freed=MERGED),
    known("waker", "vma_release looks at the VMA after its count is down", "vma_release < put",
          "__vma_release < vma_release < put", dangling=False, freed=MERGED + UNMAPPED),
    known("waker", "as above, after a failed speculation", "vma_release < get_speculative",
          "__vma_release < vma_release < get_speculative", dangling=False, freed=MERGED + UNMAPPED),
    known("B3", "a merge waits for another VMA than it frees", *INSIDE, dangling=False, freed=MERGED, scenarios=B3),
    known("B4", "a signal ends the wait", *INSIDE, dangling=False, freed=UNMAPPED, scenarios=B4),
    known("B4", "as above", "vma_free_now", "down_read_any", "spin_lock", kind="broken invariant",
          says="an entry for * is left where there is no VMA", scenarios=B4),
    known("refused", "a fault is refused by what mprotect changes in the VMA that it holds", "fault_in_vma",
          kind="stale answer", says="T0: write fault, page 1 gave access refused,*", scenarios=SPLIT),
    known("refused", "as above: the VMA has moved, none is at the address, and the hold is not put", "vma_release",
          "put", "page_fault", "one_event", kind="NULL dereference",
          says="VMA(mm, NULL).cache_access, in vma_release*", scenarios=SPLIT),
)  # fmt: skip
"""What `benchframe check` finds, by name; docs/checking.md explains each."""
