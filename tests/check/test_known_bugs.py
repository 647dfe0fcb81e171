"""Known bugs are told from new ones: a seed with one bug more is reported, although it shows where the old ones do."""

from dataclasses import replace
from typing import Any

import pytest

from benchframe.api import Cache, Protocol, Strategy, native
from benchframe.check.command import run_check_command
from benchframe.kernel import NULL, TASK, VMA, index_find, read_unlock
from benchframe.registry import load
from benchframe.scenario import KnownBug, Sites
from benchframe.strategy import resolve
from benchframe_plugins.pmdcache import get_locked, mm_version_check, vma_hold, vma_release, wait_vmas_cache_access

KNOWN = load()


@native
def get_by_the_tree(mm, task, addr):  # type: ignore[no-untyped-def]
    """The tree is walked without a lock: the record may be gone when it is held, in vma_hold as in B1."""
    if mm_version_check(mm, task):
        vma = index_find(mm, addr)
        if vma != NULL and VMA(mm, vma).vm_start <= addr:
            vma_hold(mm, vma)
            if mm_version_check(mm, task):
                TASK(mm, task).speculative = 1
                return vma
            vma_release(mm, vma)
    return get_locked(mm, task, addr)


@native
def put_and_look(mm, task, vma):  # type: ignore[no-untyped-def]
    """The VMA is looked at once more after it was given back; in the scenario of B4."""
    t = TASK(mm, task)
    if t.speculative:
        t.speculative = 0
        vma_release(mm, vma)
        return VMA(mm, vma).vm_pgoff
    return read_unlock(mm, task)


@native
def wait_only(mm, start, end, vma):  # type: ignore[no-untyped-def]
    """munmap forgets the pointers: a stale one from before the call, in vma_hold as in B6."""
    return wait_vmas_cache_access(mm, vma, end)


def seed_with(cache: dict[str, object] | None = None, **protocol: object) -> Strategy:
    """pmdcache with some hooks exchanged, and with its list of known bugs."""
    seed = KNOWN.strategy("pmdcache")
    parts = {kind: dict(part.binding) for kind, part in (("cache", seed.cache), ("protocol", seed.protocol)) if part}
    hooks = {name.removeprefix("cache_"): function for name, function in parts["cache"].items()}
    made = Strategy(
        "mutated",
        "the seed with one bug more",
        "rbtree",
        Cache(**{**hooks, **(cache or {})}),  # type: ignore[arg-type]
        Protocol(**{**parts["protocol"], **protocol}),  # type: ignore[arg-type]
        scenarios=seed.scenarios,
        known_bugs=seed.known_bugs,
    )
    return resolve(made, KNOWN.strategies)


MUTANTS = {
    "walk": (seed_with(vma_get=get_by_the_tree), "lookup-munmap", "in vma_hold < get_by_the_tree < bare_lookup"),
    "look": (seed_with(vma_put=put_and_look), "fault-munmap-signal", "in put_and_look < page_fault"),
    "stale": (seed_with({"munmap": wait_only}), "fault-munmap", "in vma_hold < lookup_vma_cache < get_speculative"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_new_bug_beside_known_ones(name: str) -> None:
    """`check --allow-known` fails for a bug that is not on the list, calls it new, and says which functions met."""
    strategy, where, place = MUTANTS[name]
    lines: list[str] = []
    assert run_check_command([strategy], [where], 60, allow_known=True, say=lines.append) == 1
    new = [at for at, line in enumerate(lines) if line.endswith("[new]")]
    assert new, lines
    assert any(lines[at + 1].strip().startswith(place) for at in new), lines


def test_the_seed_put_together_again_is_known() -> None:
    """The same parts without a mutation: every failure has its name, so that it is the mutation that was new."""
    where = ["lookup-munmap", "fault-munmap-signal", "fault-mprotect-part"]
    lines: list[str] = []
    assert run_check_command([seed_with()], where, 60, allow_known=True, say=lines.append) == 0, lines
    assert not any("[new]" in line for line in lines)


BUG = KnownBug(
    "x",
    "",
    ("hold < look_up",),
    dangling=False,
    scenarios=("s",),
    freed=("free < unmap",),
    source=("page.cache < update",),
    says="T0: add of VMA #*",
)
SITES = Sites(("hold", "look_up", "get"), ("free", "unmap", "call"), ("page.cache", "update", "set-up"))
TEXT = "T0: add of VMA #7, which T1 freed, in hold"
STUCK = KnownBug("y", "", ("put", "wait"), kind="deadlock")


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "double free"},
        {"text": TEXT.replace("freed", "freed before this call began")},
        {"text": TEXT.replace("add", "load")},
        {"scenario": "other"},
        {"sites": replace(SITES, used=("hold", "walk", "get"))},
        {"sites": replace(SITES, used=("look_up", "get"))},
        {"sites": replace(SITES, freed=("free", "merge"))},
        {"sites": replace(SITES, freed=())},
        {"sites": replace(SITES, source=("page.cache", "set-up"))},
    ],
)
def test_every_trait_counts(changed: dict[str, Any]) -> None:
    """A finding that differs in one thing that the list names is another bug."""
    finding: dict[str, Any] = {"kind": "use after free", "text": TEXT, "scenario": "s", "sites": SITES}
    assert BUG.shows(**finding)
    assert not BUG.shows(**{**finding, **changed})
    assert replace(BUG, functions=()).shows(**{**finding, "sites": replace(SITES, used=())})


@pytest.mark.parametrize(("used", "same"), [(("put", "wait"), True), (("wait",), False), (("other", "put"), False)])
def test_where_tasks_were_stopped(used: tuple[str, ...], same: bool) -> None:
    """Failures without a place: the first function must have taken part, and none that is not on the list."""
    assert STUCK.shows("deadlock", "", "s", Sites(used)) == same
