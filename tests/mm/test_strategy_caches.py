"""mmap_cache and pmdcache: set and invalidated exactly where their docstrings say, seen in memory after each call."""

import pytest
from support.space import BASE, ENGINES, PAGE, PMD, RW, RWX, Kit, R

from benchframe.mm import flags

# ---- mmap_cache ----


@pytest.fixture(params=ENGINES)
def last(request: pytest.FixtureRequest) -> Kit:
    """A space over mmap_cache with VMAs at pages 0, 4 and 8, nothing cached."""
    kit = Kit("mmap_cache", request.param)
    for page in (0, 4, 8):
        kit.map(page, 2)
    kit.mm["mmap_cache"] = 0
    return kit


def cached(kit: Kit) -> int:
    """mm->mmap_cache."""
    return int(kit.mm["mmap_cache"])


def look(kit: Kit, page: int) -> int:
    """A find_vma; what is cached afterwards."""
    kit.find_vma(BASE + page * PAGE)
    return cached(kit)


def invalidated(kit: Kit) -> int:
    """Invalidations so far, of all mms."""
    return int(kit.machine.arrays["mm_base"]["nr_invalidations"].sum())


def hits(kit: Kit) -> int:
    """Lookups that the cache answered."""
    return int(kit.machine.arrays["task_base"][kit.task + 1]["nr_hits"])


def test_mmap_cache_is_set_by_a_miss(last: Kit) -> None:
    """Whatever the tree gave is stored, a VMA above a hole too; nothing found stores nothing."""
    assert look(last, 4) == last.at(4)
    assert look(last, 1) == last.at(0)
    assert look(last, 2) == last.at(4)
    assert look(last, 100) == last.at(4)
    assert hits(last) == 0


def test_mmap_cache_answers_inside_only(last: Kit) -> None:
    """First and last byte hit; the hole below the cached VMA asks the tree, since something may have come there."""
    look(last, 4)
    for addr in (BASE + 4 * PAGE, BASE + 6 * PAGE - 1):
        assert last.find_vma(addr) == (BASE + 4 * PAGE, BASE + 6 * PAGE)
    assert hits(last) == 2
    last.find_vma(BASE + 4 * PAGE - 1)
    last.find_vma(BASE + 6 * PAGE)
    assert hits(last) == 2
    last.map(2, 1, R)
    last.mm["mmap_cache"] = last.at(4)
    assert last.find_vma(BASE + 2 * PAGE) == (BASE + 2 * PAGE, BASE + 3 * PAGE)
    last.mm["mmap_cache"] = last.at(4)
    assert last.fault(BASE + 2 * PAGE, 1) == 0


def test_mmap_cache_is_cleared_by_munmap(last: Kit) -> None:
    """detach_vmas_to_be_unmapped clears it, whichever VMA goes; munmap of a hole does not."""
    look(last, 8)
    before = invalidated(last)
    assert last.unmap(0, 1) == 0
    assert (cached(last), invalidated(last)) == (0, before + 1)
    look(last, 8)
    assert last.unmap(6, 2) == 0
    assert (cached(last), invalidated(last)) == (last.at(8), before + 1)
    assert last.unmap(8, 2) == 0
    assert (cached(last), invalidated(last)) == (0, before + 2)
    last.validate()


def test_mmap_cache_moves_to_the_predecessor(last: Kit) -> None:
    """__vma_unlink: a merged-away VMA is replaced by the VMA before it; none before, none cached."""
    before = invalidated(last)
    kept = last.at(0)
    last.map(2, 2)  # case 1: the search for room finds (and caches) the next VMA, which then goes
    assert (cached(last), invalidated(last)) == (kept, before + 1)
    last.map(6, 2, RWX)
    assert look(last, 6) == last.at(6)
    assert last.protect(6, 2, RW) == 0  # case 6: the middle one was cached
    assert (cached(last), invalidated(last)) == (kept, before + 2)
    last.map(20, 2)
    last.map(22, 2, RWX)
    assert last.unmap(0, 10) == 0
    assert look(last, 20) == last.at(20)
    assert last.protect(20, 2, RWX) == 0  # case 8: the first VMA goes
    assert (cached(last), invalidated(last)) == (0, before + 4)
    last.validate()


def test_mmap_cache_of_another_vma_stays_over_a_merge(last: Kit) -> None:
    """A merge that removes a VMA that is not the cached one leaves the cache alone."""
    kept = last.at(0)
    last.map(20, 2)
    gone = last.at(20)
    last.map(22, 2, RWX)
    look(last, 0)
    before = invalidated(last)
    last.runner.hook("cache_unlinked", gone, last.at(8))
    assert (cached(last), invalidated(last)) == (kept, before)
    look(last, 20)
    last.runner.hook("cache_unlinked", gone, last.at(8))
    assert (cached(last), invalidated(last)) == (last.at(8), before + 1)


def test_mmap_cache_survives_what_moves_no_vma(last: Kit) -> None:
    """Flags, splits, moved bounds, a grown stack: the object stays, so does the cache."""
    vma = last.at(4)
    before = invalidated(last)
    look(last, 4)
    assert last.protect(4, 2, R) == 0
    assert cached(last) == vma
    assert last.protect(5, 1, RW) == 0
    assert cached(last) == vma
    assert last.exec_map(BASE + 400 * PAGE, PAGE, RW, 1 << 24) > 0
    assert look(last, 400) == last.at(400)
    stack = last.at(400)
    assert last.fault(BASE + 390 * PAGE, 2) == 0
    assert (cached(last), last.at(390)) == (stack, stack)
    assert invalidated(last) == before
    last.validate()


def test_mmap_cache_of_a_child_and_at_exit(last: Kit) -> None:
    """fork starts without, exit_mmap clears it."""
    look(last, 4)
    child = last.fork()
    assert int(child.machine.mm(child.number)["mmap_cache"]) == 0
    child.find_vma(BASE)
    assert int(child.machine.mm(child.number)["mmap_cache"]) != 0
    assert child.exit() == 0
    assert int(child.machine.mm(child.number)["mmap_cache"]) == 0
    assert cached(last) == last.at(4)
    last.validate()


# ---- pmdcache ----


@pytest.fixture(params=ENGINES)
def pmd(request: pytest.FixtureRequest) -> Kit:
    """A space over pmdcache with one VMA of three PTE pages, each touched."""
    kit = Kit("pmdcache", request.param)
    kit.map(0, 1536)
    for page in (0, 512, 1024):
        kit.touch(page)
    return kit


def table(kit: Kit, page: int) -> int:
    """The PTE page behind a page, 0 if there is none."""
    entries = kit.machine.arrays["pte_base"]["entry"]
    addr, number = BASE + page * PAGE, int(kit.mm["pgd"])
    for shift in (39, 30, 21):
        number = int(entries[number * 512 + ((addr >> shift) & 511)]) >> 12
        if number == 0:
            return 0
    return number


def page_cache(kit: Kit, page: int) -> int:
    """page->cache of the PTE page."""
    return int(kit.machine.arrays["page_base"][table(kit, page)]["cache"])


def forget(kit: Kit, page: int) -> None:
    """Clear page->cache by hand."""
    kit.machine.arrays["page_base"][table(kit, page)]["cache"] = 0


def counts(kit: Kit) -> tuple[int, int]:
    """(hits, fallbacks) of the task."""
    t = kit.machine.arrays["task_base"][kit.task + 1]
    return int(t["nr_hits"]), int(t["nr_fallbacks"])


def test_pmdcache_is_one_vma_per_2_mib(pmd: Kit) -> None:
    """Each fault sets its own PTE page's cache; two VMAs in one 2 MiB evict each other."""
    big = pmd.at(0)
    assert [page_cache(pmd, page) for page in (0, 512, 1024)] == [big] * 3
    pmd.map(1536, 4, R)
    other = pmd.at(1536)
    pmd.touch(1536, 1)
    assert page_cache(pmd, 1536) == other
    assert pmd.protect(8, 4, R) == 0
    small = pmd.at(8)
    pmd.touch(8, 1)
    assert page_cache(pmd, 0) == small
    pmd.touch(0, 1)
    pmd.touch(1, 2)
    assert page_cache(pmd, 0) == pmd.at(0) != small


SITES = ["reuse", "copy", "swap", "anonymous", "file", "access"]


@pytest.mark.parametrize("site", SITES)
def test_pmdcache_is_set_at_six_sites(pmd: Kit, site: str) -> None:
    """update_vma_cache of RFC 3/4: reuse, copy, swap-in, anonymous, file, access flag."""
    page, access, expected = 700, 2, ""
    if site == "reuse":
        pmd.touch(page)
        pmd.fork().exit()
        expected = "write-protect: reuse"
    elif site == "copy":
        pmd.touch(page, 1)
        expected = "write-protect: copy"
    elif site == "swap":
        pmd.touch(page)
        assert pmd.madvise(BASE + page * PAGE, PAGE, flags.MADV_PAGEOUT) == 0
        expected = "swap-in"
    elif site == "anonymous":
        expected = "anon write"
    elif site == "file":
        pmd.map(page, 32, RW, 0x11 | 0x10, 0)
        access, expected = 1, "file read"
    else:
        pmd.map(page, 32, RW, 0x11 | 0x10, 0)
        pmd.touch(page + 2, 1)
        access, expected = 1, "access flag"
    forget(pmd, page)
    assert pmd.touch(page, access) == expected
    assert page_cache(pmd, page) == pmd.at(page) != 0


def test_pmdcache_is_not_set_elsewhere(pmd: Kit) -> None:
    """A spurious fault and a NUMA hint have no hook."""
    forget(pmd, 0)
    assert pmd.touch(0, 1) == "spurious"
    assert page_cache(pmd, 0) == 0
    assert pmd.madvise(BASE, PAGE, flags.MADV_MODEL_NUMA) == 0
    forget(pmd, 0)
    assert pmd.touch(0, 1) == "NUMA hint"
    assert page_cache(pmd, 0) == 0


def test_pmdcache_version_and_the_slow_fault(pmd: Kit) -> None:
    """Each write cycle adds two to the version and costs each task one fault under the lock before it hits again."""
    pmd.touch(0, 1)
    hits_before, slow_before = counts(pmd)
    for number in range(1, 4):
        version = int(pmd.mm["version"])
        pmd.map(2000 + 2 * number, 1)
        assert int(pmd.mm["version"]) == version + 2
        pmd.touch(0, 1)
        assert counts(pmd) == (hits_before + 2 * (number - 1), slow_before + number)
        pmd.touch(0, 1)
        pmd.touch(512, 1)
        assert counts(pmd) == (hits_before + 2 * number, slow_before + number)
    other = pmd.thread()
    other.fault(BASE, 1)
    other.fault(BASE, 1)
    task = pmd.machine.arrays["task_base"][other.task + 1]
    assert (int(task["nr_fallbacks"]), int(task["nr_hits"])) == (1, 1)
    assert int(task["mm_version"]) == int(pmd.mm["version"])
    pmd.validate()


def test_pmdcache_holders_return_to_zero(pmd: Kit) -> None:
    """After hits, misses and failed faults nobody holds a VMA and no task is left speculating."""
    pmd.protect(100, 10, R)
    for page, access in ((0, 1), (0, 1), (100, 2), (100, 1), (100, 2), (3000, 1), (0, 2), (50, 2), (51, 1)):
        pmd.fault(BASE + page * PAGE, access)
    assert counts(pmd)[0] > 0
    assert set(pmd.vma("cache_access").tolist()) == {0}
    assert set(pmd.machine.arrays["task_base"]["speculative"].tolist()) == {0}
    assert int(pmd.mm["mmap_lock"]) == 0
    pmd.validate()


def test_pmdcache_reads_the_reserved_bit(pmd: Kit) -> None:
    """A PTE page that says PG_RESERVED is not speculated on."""
    pmd.touch(0, 1)
    before = counts(pmd)
    pmd.machine.arrays["page_base"][table(pmd, 0)]["flags"] = flags.PG_RESERVED
    pmd.touch(0, 1)
    assert counts(pmd) == (before[0], before[1] + 1)


def test_pmdcache_invalidated_by_munmap(pmd: Kit) -> None:
    """Every PTE page of the range, before any split, and no other."""
    big = pmd.at(0)
    before = invalidated(pmd)
    assert pmd.unmap(600, 500) == 0
    assert [page_cache(pmd, page) for page in (0, 512, 1024)] == [big, 0, 0]
    assert invalidated(pmd) == before + 2
    pmd.validate()


def test_pmdcache_invalidated_by_merge(pmd: Kit) -> None:
    """vma_merge invalidates the new range only. Bug B2, as posted: a VMA that the merge freed stays cached elsewhere;
    the version saves the first lookup, the next believes the freed record."""
    pmd.map(3 * 512 + 2, 1024 - 2)
    gone = pmd.at(3 * 512 + 600)
    assert gone != pmd.at(0)
    for page in (3 * 512 + 5, 3 * 512 + 600):
        pmd.touch(page, 1)
    before = invalidated(pmd)
    pmd.map(1536, 2)
    assert invalidated(pmd) == before + 1
    assert page_cache(pmd, 3 * 512) == 0
    assert page_cache(pmd, 4 * 512) == gone
    assert int(pmd.vma("vm_mm")[gone]) == 0
    freed = (BASE + (3 * 512 + 2) * PAGE, BASE + 5 * PMD)
    found = [pmd.find_vma(BASE + (4 * 512 + 1) * PAGE, user=True) for _ in range(2)]
    assert found == [(BASE, BASE + 5 * PMD), freed]
    pmd.touch(4 * 512 + 1, 2)
    pmd.unmap(0, 1)
    assert pmd.find_vma(BASE + (4 * 512 + 1) * PAGE, user=True) == (BASE + PAGE, BASE + 5 * PMD)


def test_pmdcache_invalidated_by_mprotect(pmd: Kit) -> None:
    """mprotect comes through vma_merge: its range, whether it merges or not."""
    assert pmd.protect(512, 512, RWX) == 0
    assert [page_cache(pmd, page) > 0 for page in (0, 512, 1024)] == [True, False, True]


@pytest.mark.parametrize("engine", ENGINES)
def test_pmdcache_invalidated_by_brk(engine: str) -> None:
    """do_brk invalidates what it is about to map: a PTE page that the heap shares with a neighbour."""
    kit = Kit("pmdcache", engine)
    kit.exec(BASE + 100 * PAGE)
    kit.map(0, 4)
    kit.touch(0)
    assert page_cache(kit, 0) == kit.at(0)
    before = invalidated(kit)
    assert kit.brk(BASE + 104 * PAGE) == BASE + 104 * PAGE
    assert page_cache(kit, 0) == 0
    assert invalidated(kit) == before + 1
    kit.touch(0)
    assert kit.brk(BASE + 108 * PAGE) == BASE + 108 * PAGE
    assert page_cache(kit, 0) == 0
    kit.validate()


def test_pmdcache_holders_are_reset(pmd: Kit) -> None:
    """__vma_link_rb and copy_vma: a recycled record starts without holders, also the copy that mremap makes."""
    pmd.unmap(0, 1536)
    slot = pmd.map(4, 2)
    pmd.unmap(4, 2)
    for field in ("cache_access", "cache_wait"):
        pmd.vma(field)[slot] = 5
    assert pmd.map(8, 2) == slot
    assert [int(pmd.vma(field)[slot]) for field in ("cache_access", "cache_wait")] == [0, 0]
    assert pmd.mremap(BASE + 8 * PAGE, 2 * PAGE, 2 * PAGE, 3, BASE + 40 * PAGE) > 0
    pmd.validate()
    pmd.vma("cache_access")[slot] = 5
    for name in ("cache_linked", "cache_copied"):
        pmd.vma("cache_access")[slot] = 5
        pmd.runner.hook(name, slot)
        assert int(pmd.vma("cache_access")[slot]) == 0


def test_pmdcache_table_is_prepared(pmd: Kit) -> None:
    """prep_new_page: a page-table page that had a cached VMA starts without, when it is used again."""
    reused = table(pmd, 1024)
    assert pmd.unmap(0, 1536) == 0
    pmd.machine.arrays["page_base"]["cache"][: pmd.machine.zero_page] = 77
    pmd.map(0, 1536)
    for page in (0, 512, 1024):
        pmd.touch(page, 1)
        forget(pmd, page)
    assert reused in {table(pmd, page) for page in (0, 512, 1024)}
    pgd = int(pmd.mm["pgd"])
    live = [
        t for t in range(1, pmd.machine.zero_page) if pmd.machine.arrays["page_base"][t]["mapping"] == 1 and t != pgd
    ]
    assert {int(pmd.machine.arrays["page_base"][t]["cache"]) for t in live} == {0}


@pytest.mark.parametrize("engine", ENGINES)
def test_pmdcache_of_a_forked_mm(engine: str) -> None:
    """A child's tables are its own: its first fault is slow, its cache names its own VMA."""
    kit = Kit("pmdcache", engine)
    kit.map(0, 4)
    kit.touch(0)
    child = kit.fork()
    assert child.fault(BASE, 2) == 0
    assert child.fault(BASE, 2) == 0
    assert child.find_vma(BASE, user=True) == (BASE, BASE + 4 * PAGE)
    task = kit.machine.arrays["task_base"][child.task + 1]
    assert (int(task["nr_fallbacks"]), int(task["nr_hits"])) == (1, 2)
    assert page_cache(kit, 0) == kit.at(0)
    kit.validate()
