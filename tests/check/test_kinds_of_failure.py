"""Each kind of failure by a toy strategy that has it: livelock, lock order, lost wake-up, leak, double free."""

import re
import time

import numpy as np
import pytest
from support.mutants import MUTANTS, plain

from benchframe.api import native
from benchframe.check.checker import Hunt, Verdict, make_case, replay
from benchframe.check.command import scenario
from benchframe.check.execution import encode
from benchframe.check.memory import describe
from benchframe.kernel import (
    ARENA_VMA,
    READ_ONCE,
    WRITE_ONCE,
    arena_free,
    cpu_relax,
    find_vma,
    read_lock,
    read_unlock,
    spin_lock,
    spin_unlock,
    vma_free_now,
    write_lock,
    write_unlock,
)
from benchframe.registry import load
from benchframe.strategy import Strategy, resolve

KNOWN = load()


@native
def free_twice(mm, vma):
    """The record goes back to its slab two times."""
    vma_free_now(mm, vma)
    return arena_free(mm, ARENA_VMA, vma)


@native
def never_free(mm, vma):
    """The record is forgotten."""
    return 0


@native
def get_table_then_mm(mm, task, addr):
    """The top table's lock outside mmap_lock."""
    spin_lock(mm, mm.pgd)
    read_lock(mm, task)
    spin_unlock(mm, mm.pgd)
    return find_vma(mm, task, addr)


@native
def write_mm_then_table(mm, task):
    """The other way round."""
    write_lock(mm, task)
    spin_lock(mm, mm.pgd)
    spin_unlock(mm, mm.pgd)
    return 0


@native
def get_politely(mm, task, addr):
    """Waits as long as a writer says so, by a flag that it takes back only when nobody waits."""
    WRITE_ONCE(mm, "strategy0", 1)
    while READ_ONCE(mm, "strategy1") != 0:
        cpu_relax()
    read_lock(mm, task)
    return find_vma(mm, task, addr)


@native
def put_politely(mm, task, vma):
    """Leaves."""
    WRITE_ONCE(mm, "strategy0", 0)
    return read_unlock(mm, task)


@native
def write_politely(mm, task):
    """After you. No, after you."""
    WRITE_ONCE(mm, "strategy1", 1)
    while READ_ONCE(mm, "strategy0") != 0:
        cpu_relax()
    write_lock(mm, task)
    return 0


@native
def unlock_politely(mm, task):
    """Leaves."""
    WRITE_ONCE(mm, "strategy1", 0)
    return write_unlock(mm, task)


def hunt(strategy: Strategy, where: str = "lookup-munmap", memory: str = "sc", seconds: float = 20) -> Verdict:
    """All that goes wrong in one scenario."""
    return Hunt(make_case(scenario(where), resolve(strategy, KNOWN.strategies), memory)).run(time.monotonic() + seconds)


@pytest.mark.parametrize("memory", ["sc", "tso"])
def test_double_free(memory: str) -> None:
    """A record given back twice."""
    verdict = hunt(plain("d", vma_free=free_twice), memory=memory)
    assert {f.kind for f in verdict.findings} == {"double free"}


def test_leak() -> None:
    """A record that nobody can reach any more."""
    assert {f.kind for f in hunt(plain("l", vma_free=never_free)).findings} == {"leak"}


@pytest.mark.parametrize("memory", ["sc", "tso"])
def test_lock_order(memory: str) -> None:
    """Two locks taken in both orders are told even where they do not meet, with the four lines; so is the deadlock."""
    strategy = plain("o", vma_get=get_table_then_mm, mmap_write_lock=write_mm_then_table)
    verdict = hunt(strategy, memory=memory)
    kinds = {f.kind for f in verdict.findings}
    assert "lock order" in kinds or "deadlock" in kinds
    order = [f for f in verdict.findings if f.kind == "lock order"]
    assert order, verdict.findings
    assert all(f.stable for f in order)
    assert "in the other order" in order[0].text
    assert "get_table_then_mm" in order[0].text or "write_mm_then_table" in order[0].text


def test_livelock() -> None:
    """Two tasks that let each other go first for ever are told, although each gets its turn; the replay string is short
    and leads there again."""
    strategy = plain(
        "p", vma_get=get_politely, vma_put=put_politely, mmap_write_lock=write_politely,
        mmap_write_unlock=unlock_politely,
    )  # fmt: skip
    verdict = hunt(strategy, seconds=1.5)
    (livelock,) = [f for f in verdict.findings if f.kind == "livelock"]
    assert "T0 in" in livelock.text
    assert "T1 in" in livelock.text
    assert livelock.stable
    assert len(livelock.replay) < 400
    case = make_case(scenario("lookup-munmap"), resolve(strategy, KNOWN.strategies))
    again = replay(case, livelock.replay)
    assert again.failure is not None
    assert again.failure.kind == "livelock"
    assert not verdict.coverage.complete


def test_lost_wake_up() -> None:
    """B9's kind: a deadlock that says nobody changed what the sleeper waits for after it went to sleep."""
    strategy, where, _ = MUTANTS["B9 test before queue"]
    verdict = hunt(strategy, where)
    lost = [f.text for f in verdict.findings if f.kind == "deadlock" and "lost wake-up" in f.text]
    assert lost, verdict.findings
    assert re.search(r"T\d waits for \w+ of vma #\d+", lost[0]), lost


def test_a_hold_kept_is_no_lost_wake_up() -> None:
    """A count that another task never takes down again is a deadlock of another kind."""
    strategy, where, _ = MUTANTS["a hold never given back"]
    assert all("lost wake-up" not in f.text for f in hunt(strategy, where).findings)


def test_right_lock_orders_are_silent() -> None:
    """Strategies with several locks: no false alarm."""
    for name in ("rbtree", "pmdcache_rcu", "per_vma_rwsem"):
        for where in ("fault-mremap", "fault-fork"):
            verdict = hunt(KNOWN.strategy(name), where, seconds=2)
            assert not [f for f in verdict.findings if f.kind == "lock order"]


def test_a_round_is_written_once() -> None:
    """A schedule that goes round and round is short as text and the same when read."""
    from benchframe.check.execution import decode

    for schedule in ([0] * 5 + [1, 0, 0, 2] * 400 + [1], [0, 1] * 3, [], [2] * 9, [0, 1, 0, 2] * 300):
        text = encode(schedule)
        assert decode(text) == schedule
        assert len(text) < 80


def test_words_of_private_slabs_have_names() -> None:
    """What a story says of a strategy's own memory: its slab and field, or the place in its node. No base of the
    machine shows, in any shipped strategy."""
    wanted = {
        ("maple", "maple_word"): (2 * 32 + 19, "maple_node #2.slot[3]"),
        ("maple_rcu", "maple_node"): (2, "maple_node #2.next"),
        ("maple", "maple_big"): (128 + 43, "maple_big_node #1.slot[3]"),
        ("btree", "btree_word"): (40 + 10, "btree_node #1.key[2]"),
        ("per_vma_rwsem", "vma_lock"): (5, "vma_lock #5.count"),
    }
    seen = set()
    for name, strategy in KNOWN.strategies.items():
        strategy = KNOWN.strategy(name)
        if not strategy.slabs or strategy.slabs in seen:
            continue
        seen.add(strategy.slabs)
        memory = make_case(scenario("lookup-munmap"), strategy).memory
        for slab in strategy.slabs:
            index, words = wanted.get((name, slab.name), (70, ""))
            key = memory.key_of(slab.base, index)
            part = 0 if key == (slab.base, index) else ("entry", index & ((1 << slab.part_of[1]) - 1))
            told = describe(key, part, memory)
            assert told == words or (not words and " #" in told and "private" not in told), told
            assert describe(key, None, memory) == f"{told.partition(' #')[0]} #{key[1]}" or part == 0


def test_figures_name_a_word_of_a_node_by_all_that_it_is() -> None:
    """A simulated run counts words by their place in a node: what is a pivot of a leaf is a slot of the root. What its
    strategy has no name for keeps its number."""
    from benchframe.simulator.session import part_name, together

    memory = make_case(scenario("lookup-munmap"), KNOWN.strategy("maple")).memory
    word = next(slab for slab in memory.machine.private if slab.name == "maple_word")
    words = {word.base: np.zeros(4 * 32, word.struct.dtype), "mm_base": np.zeros(1, [("mm_rb", "i8")])}
    words["mm_base"]["mm_rb"] = 1 << 8 | 3 << 3  # an inner node, whose first child is a leaf
    words[word.base]["word"][32 + 10] = 2 << 8 | 1 << 3
    assert together(word) == 32
    told = {place: part_name(word, place, words) for place in (0, 1, 10, 31)}
    assert told == {
        0: "maple_node.parent", 1: "maple_node.pivot[0]", 10: "maple_node.pivot[9]|slot[0]",
        31: "maple_node.gap[11]|slot[15]/meta",
    }  # fmt: skip
    words["mm_base"]["mm_rb"] = words[word.base]["word"][32 + 10] = 0
    assert part_name(word, 12, words) == "maple_word[12]"
    assert together(KNOWN.strategy("per_vma_rwsem").slabs[-1]) == 1
