"""The mutation score: which faults are made of a text, that they are found, and what is said of those that are not."""

import json
from pathlib import Path
from types import FunctionType

from support.mistakes import memo_find_after_exec

from benchframe.check import mutate
from benchframe.check.conform import CHURN_CHECKED, Conformance, churning
from benchframe.check.mutate import (
    Outcome,
    Score,
    chosen,
    faults_of,
    functions_of,
    judged,
    judgements,
    mutants_of,
    score,
    table,
)
from benchframe.registry import load

KNOWN = load()


def test_faults_of_a_text() -> None:
    """A test left out or forced, an operand dropped, bounds swapped, a comparison off by one: with their lines."""
    found = {fault.what: fault for fault in faults_of(memo_find_after_exec)}
    for what in (
        "`m.mm != mm.id` dropped from `m.mm != mm.id or m.seq != mm.strategy0 or m.vma == NULL`",
        "`v.vm_start <= addr` with <",
        "`v.vm_end` is vm_start",
        "`v.vm_start <= addr and addr < v.vm_end` always holds",
    ):
        assert what in found
        assert found[what].code != memo_find_after_exec.__code__
        assert found[what].line > memo_find_after_exec.__code__.co_firstlineno


def test_every_strategy_has_enough() -> None:
    """60 faults and more can be made of each of these; names of faults are unique, so that a judgement fits one."""
    for name in ("mmap_cache", "vmacache"):
        faults = mutants_of(KNOWN.strategy(name))
        assert len(faults) >= 60
        for function in {fault.function for fault in faults}:
            keys = [fault.key for fault in faults if fault.function is function]
            assert len(set(keys)) == len(keys)


def test_what_judges_an_index_is_left_alone() -> None:
    """No fault is made of ``index_check``, nor of what only it calls: a blind judge finds nothing."""
    for name, judge in (("avl", "avl_node_wrong"), ("btree", "bt_check_node")):
        names = {function.__name__ for function in functions_of(KNOWN.strategy(name))}
        assert judge not in names
        assert {"avl_insert", "bt_insert"} & names


def test_a_sample_is_found() -> None:
    """CI's sample: of seeded faults of mmap_cache all are found, but those that were judged."""
    result = score(KNOWN.strategy("mmap_cache"), 3, seed=1)
    assert len(result.outcomes) == 3
    assert result.share == 1.0, [o.fault.key for o in result.outcomes if not o.found]
    assert result.caught >= 2


def test_leaks_and_wrong_holes_are_found() -> None:
    """Records that an index never gives back, and a search for a hole that ignores what is mapped: by random calls."""
    for name, key, said in (
        ("sorted_array", "array_exit: call `block_free(mm, mm.mm_rb, mm.strategy1)` dropped", "a leak"),
        ("maple", "mas_empty_area_rev: `mm.mm_rb == NULL` with !=", "mmap(0, "),
    ):
        strategy = KNOWN.strategy(name)
        (fault,) = [fault for fault in mutants_of(strategy) if fault.key == key]
        ((_, found, _),) = judged(strategy, [fault])
        assert found.startswith("random calls: ")
        assert said in found


def test_a_full_node_is_searched() -> None:
    """The long program fills a node of ten children: a lookup that passes the last pivot then leaves the node."""
    maple = KNOWN.strategy("maple")
    what = "`slot < end` dropped from `slot < end and WORD(mm, base + PIVOTS + slot).word < addr` (2)"
    (fault,) = [f for f in mutants_of(maple) if f.key == f"mt_find: {what}"]
    right = fault.function.__code__
    fault.function.__code__ = fault.code
    try:
        assert "wild reference" in Conformance(maple, 0).fails(churning(1), CHURN_CHECKED)
    finally:
        fault.function.__code__ = right


def test_what_survives_is_judged() -> None:
    """A survivor that is judged does not count; the share is of the others, and the table says how many of each."""
    strategy = KNOWN.strategy("mmap_cache")
    fault = next(f for f in mutants_of(strategy) if f.what.endswith("never holds"))
    made = Score("mmap_cache", (Outcome(fault, "", 1, "why"), Outcome(fault, "", 1), Outcome(fault, "x", 1)), 200)
    assert (made.caught, made.excused, made.share) == (1, 1, 0.5)
    assert table([made]).splitlines()[-1].split() == ["mmap_cache", "3", "200", "1", "1", "1", "50", "%"]


def test_judgements_fit() -> None:
    """Each judgement of the shipped strategies is of a fault that can be made: none outlives its line unnoticed."""
    folder = Path(mutate.__file__).resolve().parents[2] / "plugins" / "benchframe_plugins"
    files = sorted(folder.rglob("*.mutants.json"))
    assert files
    texts = {f for strategy in KNOWN.strategies.values() for f in functions_of(strategy) if _judged(f)}
    known = {fault.key for function in texts for fault in faults_of(function)}
    for path in files:
        for key, reason in json.loads(path.read_text()).items():
            assert reason
            assert key in known, f"{path.name}: {key}"


def _judged(function: FunctionType) -> bool:
    return Path(function.__code__.co_filename).with_suffix(".mutants.json").is_file()


def test_draw_is_seeded() -> None:
    """The same faults each time, in their order."""
    faults = mutants_of(KNOWN.strategy("mmap_cache"))
    drawn = chosen(faults, 10, 3)
    assert drawn == chosen(faults, 10, 3)
    assert [faults.index(f) for f in drawn] == sorted(faults.index(f) for f in drawn)
    assert "rb_insert" in " ".join(judgements(KNOWN.strategy("mmap_cache")))
