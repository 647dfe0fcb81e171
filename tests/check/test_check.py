"""benchframe check: the races of the RFC as posted are found and told; the repaired twin and the old ones are clean."""

import random
import time
from dataclasses import replace
from typing import Any

import pytest
from support.mutants import twin
from support.space import STRATEGIES

from benchframe.api import Index, Strategy, native
from benchframe.check.cases import COMMON, Case
from benchframe.check.checker import Hunt, exact, make_case, replay, signature_of, visible
from benchframe.check.command import run_check_command, scenario
from benchframe.check.conform import Conformance
from benchframe.check.execution import ENDLESS, ReplayError, Run, World, encode, execute
from benchframe.check.search import Explorer, Pct, Uniform, pct_bound
from benchframe.errors import UsageError
from benchframe.kernel import VMA
from benchframe.registry import load
from benchframe.strategy import resolve

KNOWN = load()


def case(name: str, where: str) -> Case:
    """A strategy of the registry in a common scenario."""
    return make_case(scenario(where), KNOWN.strategy(name))


def texts(name: str, where: str) -> list[str]:
    """Everything that goes wrong, in words; each found a second time by its replay string."""
    verdict = Hunt(case(name, where)).run(time.monotonic() + 60)
    assert all(finding.stable for finding in verdict.findings)
    return [f"{finding.kind}: {finding.text}" for finding in verdict.findings]


@pytest.mark.parametrize(
    ("bug", "where", "words"),
    [
        ("waker", "lookup-munmap", "T0: load of VMA #1, which T1 freed, in vma_release"),
        ("anon_vma", "fault-munmap-neighbour", "T0: load of VMA #2, which T1 freed, in anon_vma_choose"),
    ],
)
def test_the_rfc_as_posted(bug: str, where: str, words: str) -> None:
    """Two races that have no number, found in their scenarios; tests/check/test_historic.py has B1 to B6."""
    assert f"use after free: {words}" in texts("pmdcache", where)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rbtree", "mmap_cache", "pmdcache_rcu"])
def test_right_strategies_are_clean(name: str) -> None:
    """Every common scenario: nothing found, and nothing left out."""
    for one in COMMON:
        verdict = Hunt(make_case(one, KNOWN.strategy(name))).run(time.monotonic() + 250)
        assert not verdict.findings, (one.name, verdict.findings)
        assert verdict.coverage.complete, (one.name, verdict.coverage)


def test_signal_is_needed_for_b4() -> None:
    """A fault in flight is waited for, unless a signal ends the wait: without signals that failure is not there."""
    quiet = replace(scenario("fault-munmap-signal"), signals=())
    verdict = Hunt(make_case(quiet, KNOWN.strategy("pmdcache"))).run(time.monotonic() + 60)
    assert not any("fill_none" in finding.text for finding in verdict.findings)


def test_the_first_race_comes_early() -> None:
    """B1, the race that the posted hold loses, is among the first executions: who waits for a check sees it at once."""
    seen: list[int] = []
    when: list[int] = []

    def found(failure: Any, schedule: str) -> None:
        if "in vma_hold" in str(failure):
            when.append(len(seen))

    Hunt(case("pmdcache", "lookup-munmap"), tick=seen.append, found=found).run(time.monotonic() + 60)
    assert when
    assert when[0] < 60


# ---- stories and replay ---------------------------------------------------------------------------------------------


def test_story_and_replay() -> None:
    """The story names the tasks' calls, the steps with their lines, the record's life, and how to see it again."""
    said: list[str] = []
    files = ["my plugin.py"]
    assert run_check_command([KNOWN.strategy("pmdcache")], ["lookup-munmap"], 20, say=said.append, plugins=files) == 1
    story = next(text for text in said if text.startswith("use after free"))
    assert "T0: lookup, page 1" in story
    assert "T1: munmap of pages 0-3" in story
    assert "pmdcache.py" in story
    assert "freed by T1 at step" in story
    string, plugin = story.splitlines()[-1].split("--replay ")[1].split(" --plugin ")
    assert plugin == "'my plugin.py'"
    again: list[str] = []
    assert run_check_command([KNOWN.strategy("pmdcache")], ["lookup-munmap"], again=string, say=again.append) == 1
    assert again[0].splitlines()[:-1] == story.splitlines()[:-1]
    assert run_check_command([KNOWN.strategy("rbtree")], ["lookup-munmap"], again=string, say=said.append) == 0


@pytest.mark.parametrize("text", ["", "v2:0x1.", "v1:0x", "v1:0x1.1x-3.", "v1:0x99999999.", "v1:" + "0x9999999." * 9])
def test_bad_replay_strings(text: str) -> None:
    """What is no replay string, or an absurd one, is refused in words."""
    with pytest.raises(ReplayError):
        replay(case("rbtree", "lookup-munmap"), text)
    with pytest.raises(ReplayError):
        run_check_command([KNOWN.strategy("rbtree")], ["lookup-munmap"], again=text, say=lambda said: None)


def test_bad_options() -> None:
    """An unknown scenario gets the nearest name; a replay needs one strategy and one scenario."""
    with pytest.raises(UsageError, match="did you mean lookup-munmap"):
        run_check_command([KNOWN.strategy("rbtree")], ["lookup-munmop"])
    with pytest.raises(UsageError, match="exactly one"):
        run_check_command([KNOWN.strategy("rbtree")], again="v1:0x1.")


def test_a_replay_that_strays_ends() -> None:
    """A schedule from elsewhere is followed as far as it goes, then the lowest task runs: it always ends."""
    for seed in range(10):
        draw = random.Random(seed)
        schedule = [draw.randrange(9) for _ in range(300)]
        run = replay(case("pmdcache", "fault-munmap"), encode(schedule))
        assert run.outcome in ("done", "failed", "deadlock")


# ---- is the reduction sound? ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["lookup-munmap", "lookup-merge", "lookup-munmap-table"])
def test_shared_locations_are_enough(where: str) -> None:
    """The search over learned shared locations finds the failures that a search with every access a step finds."""
    learned = Hunt(case("pmdcache", where), most=99)
    verdict = learned.run(time.monotonic() + 60)
    whole = case("pmdcache", where)
    found: set[tuple[str, ...]] = set()

    def see(run: Run) -> bool:
        if run.failure is not None:
            found.add(signature_of(run))
        return True

    whole.memory.all_visible = True
    assert Explorer(whole.program).explore(see, time.monotonic() + 100).complete
    assert found == {finding.signature for finding in verdict.findings}


@pytest.mark.parametrize("where", [one.name for one in COMMON])
def test_random_schedules_agree_that_it_is_right(where: str) -> None:
    """Random schedules with every access a step find nothing in the repaired twin either."""
    right = case("pmdcache_rcu", where)
    with visible(right):
        for seed in range(12):
            run = execute(right.program, Uniform(seed))
            assert run.failure is None, (seed, run.failure)


def test_exact_schedule_is_the_same_execution() -> None:
    """A schedule in steps of shared locations, made exact, gives the same answers."""
    one = case("pmdcache_rcu", "two-lookups-munmap")
    Hunt(one).learn_shared()
    for seed in range(20):
        coarse = execute(one.program, Uniform(seed))
        fine = exact(one, coarse.schedule)
        assert fine.world.results == coarse.world.results
        assert len(fine.trace) > len(coarse.trace)


def test_pct_finds_b1() -> None:
    """PCT meets B1 (depth 2) within the number of runs that its bound gives for 99 %."""
    one = case("pmdcache", "lookup-munmap")
    Hunt(one).learn_shared()
    steps, runs = 32, 0
    while pct_bound(2, steps, 2, runs) < 0.99:
        runs += 1
    assert any(execute(one.program, Pct(seed, 2, steps, 2)).failure for seed in range(runs))


def test_budget_ends_an_incomplete_search() -> None:
    """A search cut by its budget says that it is not complete, and samples with the time left."""
    verdict = Hunt(case("rbtree", "faults-first")).run(time.monotonic() + 0.1)
    assert not verdict.coverage.complete
    assert verdict.sampled > 0
    assert 0 < verdict.bound < 1
    assert not verdict.findings


# ---- one task -----------------------------------------------------------------------------------------------------


@native
def forgets_the_end(mm, vma, old_start, old_end):  # type: ignore[no-untyped-def]
    """index_resize of a strategy that keeps the old end for itself."""
    VMA(mm, vma).strategy0 = old_end
    return 0


@native
def finds_by_the_list(mm, addr):  # type: ignore[no-untyped-def]
    """index_find that skips the first VMA when two follow."""
    vma = mm.mmap
    if vma != 0 and VMA(mm, vma).vm_next != 0 and VMA(mm, VMA(mm, vma).vm_next).vm_next != 0:
        vma = VMA(mm, vma).vm_next
    while vma != 0 and VMA(mm, vma).vm_end <= addr:
        vma = VMA(mm, vma).vm_next
    return vma


@native
def nothing(mm, vma):  # type: ignore[no-untyped-def]
    """Insert and erase of an index that is the list."""
    return 0


def test_conformance_shrinks() -> None:
    """An index that goes wrong with three VMAs is caught, by a program of three calls or one more."""
    broken: Any = Index(find=finds_by_the_list, insert=nothing, erase=nothing, resize=forgets_the_end)
    result = Conformance(resolve(Strategy("skips", "a broken index", broken), {})).run(3000, 1, time.monotonic() + 60)
    assert result.failure
    assert len(result.program) <= 5


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_conforms(name: str) -> None:
    """Random calls by one task agree with the oracle: a plugin gets this test by existing."""
    result = Conformance(KNOWN.strategy(name)).run(300, 7, time.monotonic() + 60)
    assert not result.failure, (result.failure, result.program)
    assert result.calls >= 300


def test_a_strategy_broken_alone_is_reported() -> None:
    """The command tells the shortest program and gives exit code 1."""
    broken: Any = Index(find=finds_by_the_list, insert=nothing, erase=nothing)
    said: list[str] = []
    strategy = resolve(Strategy("skips", "a broken index", broken), {})
    assert run_check_command([strategy], ["stack-stack"], 20, say=said.append) == 1
    assert any("the shortest program found" in line for line in said)


@native
def never_ends(mm, addr):  # type: ignore[no-untyped-def]
    """index_find that waits for what nobody changes, without a scheduling point."""
    n = 0
    while mm.map_count >= 0:
        n += 1
    return n


@native
def has_a_typo(mm, addr):  # type: ignore[no-untyped-def]
    """index_find that asks for a field that mm_struct does not have."""
    return mm.mmap_cach


PARTS = ("one task", "lookup-munmap", "stack-stack")


@pytest.mark.parametrize(
    ("find", "words"),
    [(never_ends, "no end after 0.2 s of CPU time"), (has_a_typo, "'mm_struct' object has no attribute 'mmap_cach'")],
)
def test_mistakes_that_the_text_does_not_show(find: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless loop ends the check, not the patience of who waits; Python's own error is told with the line. What
    would only show the same again is not run."""
    monkeypatch.setattr("benchframe.check.conform.PATIENCE", 0.2)
    monkeypatch.setattr("benchframe.check.conform.IMPATIENCE", 0.2)
    monkeypatch.setattr("benchframe.check.checker.PATIENCE", 0.2)
    broken: Any = Index(find=find, insert=nothing, erase=nothing)
    said: list[str] = []
    strategy = resolve(Strategy("mistaken", "a mistake", broken), {})
    assert run_check_command([strategy], ["lookup-munmap", "stack-stack"], 2, jobs=1, say=said.append) == 1
    lines = {part: line for line in said for part in PARTS if line.strip().startswith(part)}
    shown = PARTS[:1] if find is never_ends else PARTS[:2]
    for part in shown:
        assert "WRONG" in lines[part]
        assert words in lines[part]
        assert f"in {find.__name__} ({__file__}:" in lines[part]
    why = "one task alone does not end" if find is never_ends else "the set-up of lookup-munmap fails"
    for part in PARTS[len(shown) :]:
        assert lines[part].endswith(f"not run: {why}")
    with pytest.raises(UsageError, match="mistaken, lookup-munmap: the set-up by itself fails"):
        run_check_command([strategy], ["lookup-munmap"], again="v1:0x1.")


def test_a_task_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within an execution, too: a task that neither ends nor comes to a next step is a livelock."""
    monkeypatch.setattr("benchframe.check.execution.PATIENCE", 0.1)

    def turn() -> None:
        while True:
            pass

    def program() -> World:
        world = World()
        world.spawn("T0", turn)
        return world

    run = execute(program, lambda step, enabled, pending, trace: enabled[0])
    assert run.outcome == "failed"
    assert run.failure is not None
    assert run.failure.kind == "livelock"
    assert run.failure.places[0] == ENDLESS


def test_twin_from_parts_is_the_plugin() -> None:
    """The mutants' starting point is the plugin itself: same hooks."""
    made = resolve(twin("same"), KNOWN.strategies)
    assert made.binding == KNOWN.strategy("pmdcache_rcu").binding
