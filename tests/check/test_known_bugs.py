"""Known bugs are told from new ones: a seed with one bug more is reported, although it shows where the old ones do."""

import time
from dataclasses import replace
from typing import Any

import pytest

from benchframe.api import Cache, Protocol, Strategy, native
from benchframe.check import jobs
from benchframe.check.checker import make_case, replay
from benchframe.check.command import run_check_command, scenario
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


def by_graphs(strategy: Strategy, where: str) -> jobs.Result:
    """What the search of execution graphs says under the kernel's memory model."""
    part = jobs.Part(strategy, scenario(where, strategy), "lkmm", graphs=True)
    return jobs.do_part(part, time.monotonic() + 100, lambda executions: None, lambda text: None)


RACY = {one.known_bugs: name for name, one in sorted(KNOWN.strategies.items()) if one.known_bugs}
"""One strategy of each list of known bugs."""
SHOWN_BY = {
    "maple": ("stack-fills-hole", {"B17"}),
    "pmdcache": ("lookup-munmap", {"B1", "waker"}),
    "rcu_rbtree_v3": ("lookup-munmap", {"B9", "waker"}),
}


@pytest.mark.parametrize("name", RACY.values())
def test_graphs_know_the_same_bugs(name: str) -> None:
    """Each failure of a racy strategy has its name in the search of graphs, too. One that is an interleaving comes with
    its schedule, which shows it again by the other search: by functions, who freed, and where the pointer came from."""
    where, names = SHOWN_BY[name]
    strategy = KNOWN.strategy(name)
    result = by_graphs(strategy, where)
    assert {finding.known for finding in result.findings} == names
    assert not any("[new]" in line for line in result.lines)
    twins = [finding.twin for finding in result.findings if finding.twin is not None]
    assert twins
    for twin in twins:
        failure = replay(make_case(scenario(where, strategy), strategy), twin.replay).failure
        assert failure is not None
        assert failure.kind == twin.kind
    if result.findings[0].twin is not None:
        assert "no ordering mends it" in result.story


@pytest.mark.parametrize("name", ["walk", "stale"])
def test_graphs_tell_a_new_bug_from_known_ones(name: str) -> None:
    """The mutants of above are as new to the search of graphs, which finds the tree's freed nodes in "walk", too."""
    strategy, where, _ = MUTANTS[name]
    result = by_graphs(strategy, where)
    assert any(not finding.known for finding in result.findings), result.lines
    assert any(line.endswith("[new]") for line in result.lines)


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
