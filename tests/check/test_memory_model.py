"""The kernel's memory model: litmus tests, small programs against brute force, what the search makes of strategies."""

from __future__ import annotations

import inspect
import os
import pickle
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import candidates
from support.small_protocols import BRANCHES, alone, arm_loads, branching, get_behind_full, get_behind_relaxed

from benchframe.check import jobs, litmus, paths, weak_hunt
from benchframe.check.axioms import WORDS, Relations, acyclic, all_before, closure, consistent
from benchframe.check.checker import Hunt, make_case
from benchframe.check.command import run_check_command, scenario
from benchframe.check.execution import Endless, ReplayError
from benchframe.check.graph import SHIFT, Label, Traced, on_branch
from benchframe.check.litmus import Answer, Tasks, Unsupported, finals, parse, read_test, run_test
from benchframe.check.memory import describe, running
from benchframe.check.mutate import functions_of, judgements
from benchframe.check.trust import Seen, Trust
from benchframe.check.weak import GraphCase, GraphWorld
from benchframe.check.weak_hunt import Change, GraphHunt, Met, Weakened, mend, rule_for, run_orderings
from benchframe.errors import UsageError
from benchframe.registry import load
from benchframe.scenario import Scenario, lookup, munmap
from benchframe.strategy import Strategy, resolve
from benchframe_plugins.speculation import two_written

KERNEL = Path(os.environ.get("BENCHFRAME_LITMUS", "/nonexistent"))
"""tools/memory-model/litmus-tests of a kernel's source: `.ci/run` unpacks Debian's linux-source-6.12."""
MP = """C MP
{{}}
P0(int *x, int *y) {{ WRITE_ONCE(*x, 1); {} {}; }}
P1(int *x, int *y) {{ int r0; int r1; r0 = {}; {} r1 = READ_ONCE(*x); }}
exists (1:r0=1 /\\ 1:r1=0)
"""
SB = """C SB
{{}}
P0(int *x, int *y) {{ int r0; WRITE_ONCE(*x, 1); {} r0 = READ_ONCE(*y); }}
P1(int *x, int *y) {{ int r0; WRITE_ONCE(*y, 1); {} r0 = READ_ONCE(*x); }}
exists (0:r0=0 /\\ 1:r0=0)
"""
DEPENDENCY = """C addr
{{ int *p = &z; }}
P0(int **p, int *x) {{ WRITE_ONCE(*x, 1); {} }}
P1(int **p) {{ int *r0; int r1; r0 = {}; r1 = READ_ONCE(*r0); }}
exists (1:r0=x /\\ 1:r1=0)
"""
WRITE, READ = "WRITE_ONCE(*y, 1)", "READ_ONCE(*y)"


def verdicts(text: str) -> str:
    """What sc, tso, lkmm and rc11 say: n never, s sometimes."""
    return "".join(run_test(parse(text), model).verdict("exists")[0].lower() for model in ("sc", "tso", "lkmm", "rc11"))


@pytest.mark.parametrize(
    ("before", "store", "load", "after", "expected"),
    [
        ("", WRITE, READ, "", "nnss"),
        ("smp_wmb();", WRITE, READ, "", "nnss"),
        ("", WRITE, READ, "smp_rmb();", "nnss"),
        ("smp_wmb();", WRITE, READ, "smp_rmb();", "nnnn"),
        ("", "smp_store_release(y, 1)", "smp_load_acquire(y)", "", "nnnn"),
        ("", "xchg_relaxed(y, 1)", READ, "smp_rmb();", "nnss"),
        ("", "xchg_release(y, 1)", READ, "smp_rmb();", "nnnn"),
        ("", "xchg(y, 1)", READ, "smp_mb();", "nnnn"),
        ("smp_mb__before_atomic();", "atomic_inc(y)", "smp_load_acquire(y)", "", "nnnn"),
    ],
)
def test_message_passing(before: str, store: str, load: str, after: str, expected: str) -> None:
    """Data, then a flag: it takes an order on both sides, and half of it is none."""
    assert verdicts(MP.format(before, store, load, after)) == expected


def test_store_buffering() -> None:
    """The one thing that x86 does too; a full barrier on both sides forbids it."""
    assert verdicts(SB.format("", "")) == "nsss"
    assert verdicts(SB.format("smp_mb();", "")) == "nsss"
    assert verdicts(SB.format("smp_mb();", "smp_mb();")) == "nnnn"


def test_address_dependency() -> None:
    """rcu_dereference orders what is read through it, if the pointer was published by rcu_assign_pointer. C11 has no
    dependencies: READ_ONCE does it in the kernel alone."""
    assert verdicts(DEPENDENCY.format("WRITE_ONCE(*p, x);", "rcu_dereference(*p)")) == "nnss"
    assert verdicts(DEPENDENCY.format("rcu_assign_pointer(*p, x);", "rcu_dereference(*p)")) == "nnnn"
    assert verdicts(DEPENDENCY.format("rcu_assign_pointer(*p, x);", "READ_ONCE(*p)")) == "nnns"


def test_a_section_and_a_grace_period() -> None:
    """What a section saw of before a grace period, it does not see of after it; without the section it may."""
    text = """C RCU
    {{}}
    P0(int *x, int *y) {{ int r0; int r1; {} r0 = READ_ONCE(*x); r1 = READ_ONCE(*y); {} }}
    P1(int *x, int *y) {{ WRITE_ONCE(*y, 1); synchronize_rcu(); WRITE_ONCE(*x, 1); }}
    exists (0:r0=1 /\\ 0:r1=0)
    """
    assert verdicts(text.format("", "")) == "nnss"
    assert verdicts(text.format("rcu_read_lock();", "rcu_read_unlock();")) == "nnnn"


def test_grace_periods_in_a_row() -> None:
    """Two of them and two sections: what comes before the first grace period comes before the second."""
    text = """C RCU
    {{}}
    P0(int *x, int *y) {{ WRITE_ONCE(*x, 1); {} int r0 = READ_ONCE(*y); }}
    P1(int *y, int *z) {{ rcu_read_lock(); WRITE_ONCE(*y, 1); int r0 = READ_ONCE(*z); rcu_read_unlock(); }}
    P2(int *z, int *x) {{ rcu_read_lock(); WRITE_ONCE(*z, 1); int r0 = READ_ONCE(*x); rcu_read_unlock(); }}
    exists (0:r0=0 /\\ 1:r0=0 /\\ 2:r0=0)
    """
    once = "synchronize_rcu();"
    assert verdicts(text.format(once))[2:] == "ss"
    assert verdicts(text.format(once * 2))[2:] == "nn"


def test_a_grace_period_inside_its_own_section() -> None:
    """It never ends, so no execution does."""
    body = "rcu_read_lock(); synchronize_rcu(); WRITE_ONCE(*x, 1); rcu_read_unlock();"
    assert verdicts(f"C t\n{{}}\nP0(int *x) {{ {body} }}\nexists (true)") == "nnnn"


def test_a_failed_read_modify_write() -> None:
    """It has no order of its own; smp_mb__after_atomic counts behind it all the same."""
    assert verdicts(MP.format("", "xchg(y, 1)", "cmpxchg(y, 5, 6)", "")) == "nnss"
    assert verdicts(MP.format("", "xchg(y, 1)", "cmpxchg(y, 5, 6)", "smp_mb__after_atomic();")) == "nnnn"


def test_a_branch_orders_what_stands_in_its_arms() -> None:
    """A store behind the arms may be done before the load that decided; here it is seen by a third task."""
    text = """C ctrl
    {{}}
    P0(int *x, int *y) {{ int r0 = READ_ONCE(*x); if (r0) {{ {} }} {} }}
    P1(int *y, int *z) {{ int r0 = READ_ONCE(*y); smp_mb(); WRITE_ONCE(*z, 1); }}
    P2(int *z, int *x) {{ WRITE_ONCE(*x, 1); }}
    exists (0:r0=1 /\\ 1:r0=1)
    """
    store = "WRITE_ONCE(*y, 1);"
    for test, stores in ((parse(text.format(store, "")), 1), (parse(text.format("", store)), 0)):
        orders = set()

        def see(seen: Seen, orders: set[int] = orders) -> bool:
            rows = seen.graph.rows
            for event, number in rows.index.items():
                if rows.labels[number].kind == "W" and event >> SHIFT == 0:
                    orders.add(rows.before[number] >> rows.index[0] & 1)
            return True

        Trust(lambda test=test: Tasks(test), "lkmm").explore(see)  # type: ignore[misc]
        assert orders == {stores}


@pytest.mark.parametrize("text", BRANCHES, ids=lambda text: text.__name__)
def test_what_a_branch_of_strategy_text_orders(text: Callable[..., int]) -> None:
    """A store in its arms, in what they call, behind an arm that returns, behind a loop; not a store where the arms
    have met, and never a load. Two lookups do it; the first is looked at."""
    kind, field = ("R", "anon_vma") if text is arm_loads else ("W", "cache_wait")
    assert orders_of(branching(text), kind, field) == BRANCHES[text]


@pytest.mark.parametrize(("get", "ordered"), [(get_behind_full, True), (get_behind_relaxed, False)])
def test_a_full_read_modify_write_of_memory_that_is_not_shared(get: Callable[..., int], ordered: bool) -> None:
    """It is a barrier for the task's other accesses, although nobody can see it; a relaxed one is nothing."""
    assert orders_of(alone(get), "W", "cache_wait") == {ordered}


def orders_of(strategy: Strategy, kind: str, last: str) -> set[bool]:
    """Of two lookups by two tasks: whether the first one's load of cache_access comes before its last access of the
    field ``last``, in any graph."""
    twice = Scenario("twice", "", lambda space: space.map(0, 1), ((lookup(0),), (lookup(0),)))
    case = GraphCase(twice, resolve(strategy, load().strategies))
    hunt = GraphHunt(case, 1)
    seen_orders = set()

    def see(seen: Seen) -> bool:
        if hunt._learning():
            return False
        rows = seen.graph.rows
        fields = [
            describe(*label.loc, case.memory).rpartition(".")[2] if label.loc else ""  # type: ignore[misc]
            for label in seen.graph.tasks[0]
        ]
        ends = [at for at, field in enumerate(fields) if field == last]
        if ends[-1:] and seen.graph.tasks[0][ends[0]].kind == kind:
            first = fields.index("cache_access")
            seen_orders.add(bool(rows.before[rows.index[ends[0]]] >> rows.index[first] & 1))
        return True

    hunt._explore(see, time.monotonic() + 60)
    assert hunt.search.counts.complete
    return seen_orders


def test_what_is_not_read_is_refused() -> None:
    """A test with SRCU, a loop or an array is unsupported, not misread."""
    for statement in ("srcu_read_lock(x);", "while (1) {}", "x[0] = 1;", "goto out;"):
        with pytest.raises(Unsupported):
            run_test(parse(f"C t\n{{}}\nP0(int *x) {{ {statement} }}\nexists (x=1)"), "lkmm")


LB = """C LB
{{}}
P0(int *x, int *y) {{ int r0; r0 = {}; {} WRITE_ONCE(*y, 1); }}
P1(int *x, int *y) {{ int r0; r0 = {}; {} {}; }}
exists (0:r0=1 /\\ 1:r0=1)
"""


@pytest.mark.parametrize(
    ("first", "between", "load", "behind", "store", "beyond"),
    [
        ("READ_ONCE(*x)", "", "READ_ONCE(*y)", "", "WRITE_ONCE(*x, 1)", "load buffering"),
        ("READ_ONCE(*x)", "", "READ_ONCE(*y)", "", "WRITE_ONCE(*x, r0)", "load buffering"),
        ("READ_ONCE(*x)", "smp_mb();", "READ_ONCE(*y)", "", "WRITE_ONCE(*x, r0)", ""),
        ("smp_load_acquire(x)", "", "READ_ONCE(*y)", "", "smp_store_release(x, 1)", ""),
        ("READ_ONCE(*x)", "smp_mb();", "READ_ONCE(*y)", "", "*x = 1", "plain accesses"),
        ("READ_ONCE(*x)", "", "READ_ONCE(*z)", "", "WRITE_ONCE(*x, 1)", ""),
    ],
)
def test_what_is_beyond_the_search(first: str, between: str, load: str, behind: str, store: str, beyond: str) -> None:
    """The reader says where an execution that is not searched might change "Never": a store that may come before its
    task's load in a ring of tasks, or a plain access that tasks share. Orders on all sides of the ring exclude it."""
    answer = run_test(
        parse(LB.format(first, between, load, behind, store).replace("int *y)", "int *y, int *z)")), "lkmm"
    )
    assert (answer.holds, answer.beyond) == (0, beyond)


def test_a_memory_model_that_does_not_exist() -> None:
    """It is refused by its name, and those that exist are named."""
    with pytest.raises(UsageError, match="no memory model 'lkm'; known: lkmm, rc11, sc, tso"):
        run_test(parse(SB.format("", "")), "lkm")


def test_a_replay_string_of_a_search_without_time() -> None:
    """It leads to the same failure, although the replay has all the time: what was drawn ahead of the search, and so
    what it begins with, stands in the string. One that fits no graph is refused."""
    strategy, where = load().strategy("pmdcache"), scenario("lookup-munmap")
    full = GraphHunt(GraphCase(where, strategy), 1)
    full.run(time.monotonic() + 100)
    hunt = GraphHunt(GraphCase(where, strategy), 1)
    hunt.warm_up(time.monotonic() + 100, 2)
    hunt.run(time.monotonic() + 100)
    for one, ending in ((full, ""), (hunt, "w2")):
        (failure,) = one.failures.values()
        text = one.replay_string(failure.number)
        assert text == f"v1-lkmm:{failure.number}{ending}"
        again = GraphHunt(GraphCase(where, strategy)).again(text)
        assert again is not None
        assert (str(again.broken), again.seen.graph.key()) == (str(failure.broken), failure.seen.graph.key())
    with pytest.raises(ReplayError, match="did not come to that graph"):
        GraphHunt(GraphCase(where, strategy)).again("v1-lkmm:999999")


@pytest.mark.parametrize(("slow", "cut"), [(-1, True), (10**6, False)])
def test_slow_is_not_endless(monkeypatch: pytest.MonkeyPatch, slow: int, cut: bool) -> None:
    """An execution that takes all its CPU time is cut if it goes on adding events, as a lookup that tries again and
    again does; if not it does not end, and that is a failure."""

    @contextmanager
    def late(seconds: float) -> Iterator[None]:
        yield
        raise Endless(f"no end after {seconds:g} s of CPU time")

    monkeypatch.setattr(weak_hunt, "patience", late)
    monkeypatch.setattr(weak_hunt, "SLOW", slow)
    hunt = GraphHunt(GraphCase(scenario("lookup-munmap"), load().strategy("rbtree")), 1)
    hunt.warm, hunt.graphs = True, 1
    verdict = hunt.run(time.monotonic() + 1)
    assert [finding.kind for finding in verdict.findings] == ([] if cut else ["livelock"])
    assert bool(verdict.coverage.truncated) == cut


@pytest.mark.needs_debian
def test_the_kernels_own_litmus_tests() -> None:
    """Every test of tools/memory-model/litmus-tests has the result that stands in its file, but for those that load
    buffering or plain accesses might change, as the reader says: few, and LB+poonceonces is one."""
    if not KERNEL.is_dir():
        pytest.skip("no kernel source: set BENCHFRAME_LITMUS to its tools/memory-model/litmus-tests")
    paths = sorted(KERNEL.glob("*.litmus"))
    assert len(paths) >= 30
    beyond = set()
    for path in paths:
        test = read_test(path)
        answer: Answer = run_test(test, "lkmm")
        assert answer.complete
        if answer.beyond:
            beyond.add(test.name)
        else:
            assert answer.verdict(test.quantifier) == test.result, test.name
    assert "LB+poonceonces" in beyond
    assert len(beyond) <= 3


def state_of(test: litmus.Test, seen: Seen) -> object:
    """The final values of registers, and of locations that were stored to."""
    assert isinstance(seen.tasks, Tasks)
    values = finals(test, seen.graph, seen.tasks)
    kept = {name: value for name, value in values.items() if ":" in name or seen.graph.co.get(name)}
    return tuple(sorted(kept.items(), key=str))


def searched(seed: int, model: str = "lkmm") -> tuple[set[object], int, int]:
    """The final states that the search finds for a small program, its graphs, and how many of them differ."""
    return ends_found(candidates.program(seed, model), model)


def ends_found(test: litmus.Test, model: str) -> tuple[set[object], int, int]:
    """The same of a test."""
    states, keys = set(), []

    def see(seen: Seen) -> bool:
        if seen.outcome == "done":
            states.add(state_of(test, seen))
            keys.append(seen.graph.key())
        return True

    assert Trust(lambda: Tasks(test), model).explore(see).complete
    return states, len(keys), len(set(keys))


@pytest.mark.parametrize("first", range(0, 500, 50))
def test_small_programs_against_brute_force(first: int) -> None:
    """The search finds the outcomes that an enumeration of every candidate allows, and no graph twice. The enumeration
    shares nothing with it: sets of pairs, linux-kernel.cat as it stands, RCU's recursion too. `python
    tests/support/candidates.py FIRST LAST` does more of them."""
    for seed in range(first, first + 50):
        states, graphs, different = searched(seed)
        program = candidates.program(seed)
        assert states == candidates.outcomes(program, candidates.numbers(program)), seed
        assert graphs == different, seed


@pytest.mark.parametrize("model", ["sc", "tso"])
def test_small_programs_in_one_order_of_time(model: str) -> None:
    """The same of sc and tso: each execution is an order of all events in time, and nothing else is."""
    for seed in range(60):
        states, graphs, different = searched(seed, model)
        program = candidates.program(seed)
        assert states == candidates.outcomes(program, candidates.numbers(program), model), seed
        assert graphs == different, seed


TWO_READERS = """C RCU
{}
P0(int *x, int *w) { WRITE_ONCE(*x, 1); synchronize_rcu(); WRITE_ONCE(*w, 1); }
P1(int *x, int *y) {
    rcu_read_lock(); int r0 = READ_ONCE(*x); int r1 = READ_ONCE(*y); rcu_read_unlock();
}
P2(int *x, int *y, int *w) {
    rcu_read_lock(); int r0 = READ_ONCE(*x); WRITE_ONCE(*y, 1); int r1 = READ_ONCE(*w); rcu_read_unlock();
}
exists (1:r0=0 /\\ 1:r1=1 /\\ 2:r0=1 /\\ 2:r1=1)
"""


def test_a_grace_period_waits_for_its_readers_in_no_order() -> None:
    """It waits for P1, which began before it, and not for P2, which began after it: P1 may see what P2 does, and P2
    what comes after the grace period. The enumeration has the same ends, and rc11 allows it, too."""
    test = parse(TWO_READERS)
    assert verdicts(TWO_READERS) == "ssss"
    for model in ("sc", "tso", "lkmm"):
        states, graphs, different = ends_found(test, model)
        assert states == candidates.outcomes(test, (0, 1), model)
        assert graphs == different == 24


@pytest.mark.parametrize("first", [0, 50])
def test_small_programs_under_rc11(first: int) -> None:
    """The same of the axioms of RC11 as its paper has them, psc_base too. Every other program is a ring of accesses
    with fences (SB, IRIW and so on). `python tests/support/candidates.py FIRST LAST rc11` does more of them."""
    for seed in range(first, first + 50):
        states, graphs, different = searched(seed, "rc11")
        program = candidates.program(seed, "rc11")
        assert states == candidates.outcomes(program, candidates.numbers(program), "rc11"), seed
        assert graphs == different, seed


def test_release_sequences() -> None:
    """Under RC11 who reads a later read-modify-write, or a later store of the same task, has read the release store.
    The kernel's model knows the first, not the second."""
    text = """C sequence
    {{}}
    P0(int *x, int *y) {{ WRITE_ONCE(*x, 1); smp_store_release(y, 1); {} }}
    P1(int *y) {{ {} }}
    P2(int *x, int *y) {{ int r0 = smp_load_acquire(y); int r1 = READ_ONCE(*x); }}
    exists (2:r0=2 /\\ 2:r1=0)
    """
    assert verdicts(text.format("", "xchg_relaxed(y, 2);"))[3] == "s"
    assert verdicts(text.format("", "int r2 = cmpxchg_relaxed(y, 1, 2);"))[2:] == "nn"
    assert verdicts(text.format("WRITE_ONCE(*y, 2);", ""))[2:] == "sn"


def test_executions_that_are_drawn() -> None:
    """Drawn at random, each ends as one of those that the search finds; few programs have an end that is never drawn.
    W8 is found so, and told without a replay string."""
    ends = drawn = 0
    for seed in range(30):
        test, states = candidates.program(seed), set()

        def see(seen: Seen, test: litmus.Test = test, states: set[object] = states) -> bool:
            if seen.outcome == "done":
                states.add(state_of(test, seen))
            return True

        Trust(lambda test=test: Tasks(test), "lkmm").sample(see, random.Random(seed), time.monotonic() + 60, 40)  # type: ignore[misc]
        known = searched(seed)[0]
        assert states <= known
        ends, drawn = ends + len(known), drawn + len(states)
    assert drawn > ends * 0.7
    race = load().historic()["W8"]
    case = GraphCase(scenario(race.scenario), race.broken)
    case.weaker = {(function, operation, field): rule_for(now) for function, operation, field, now in race.weaker}
    hunt = GraphHunt(case, 1)
    assert hunt.sample(time.monotonic() + 60)
    (failure,) = hunt.failures.values()
    assert failure.broken.kind == "use after free"
    assert hunt.replay_string(failure.number) == ""


@pytest.mark.parametrize("model", ["lkmm", "sc", "tso"])
def test_the_order_grows_as_the_axioms_say(model: str) -> None:
    """What the search keeps up event by event is at the end of each graph what the axioms give over the whole of it."""
    seen_graphs = 0

    def see(seen: Seen) -> bool:
        nonlocal seen_graphs
        graph = seen.graph
        assert consistent(graph, model)
        axioms, grown = closure(Relations(graph, model).order()), graph.rows
        assert grown is not None
        accesses = [at for at, one in enumerate(grown.labels) if one.kind in "RW" and one.tag not in WORDS]
        for first in accesses:
            for second in accesses:
                assert axioms[first] >> second & 1 == grown.before[second] >> first & 1
        seen_graphs += 1
        return True

    for seed in range(40):
        test = candidates.program(seed)
        Trust(lambda test=test: Tasks(test), model).explore(see, most=20)  # type: ignore[misc]
    assert seen_graphs > 150


def test_orderings_of_a_right_strategy() -> None:
    """Each ordering of the maple tree with listed dead nodes is needed: weakened by itself, each barrier has the
    failure of W2 or W3, and a walk is shown a new node before what stands in it, which was anybody's."""
    race = load().historic()["W2"]
    strategy = replace(race.mended, scenarios=(race.scenario,))
    lines: list[str] = []
    results = run_orderings(strategy, [race.scenario.name], 600, lines.append)
    assert {(one.change.place[2], one.change.now) for one in results} == {
        ("ma_free_listed", "none"), ("mt_find", "none"), ("mas_node_store", "once")
    }  # fmt: skip
    for one in results:
        assert one.failure.startswith("stale answer: T0: lookup, page 9 gave VMA")
        assert one.scenario == "walk-munmap"
    assert any(line.startswith("  needed      the smp_wmb at ") for line in lines)
    assert "a reason to look, not a proof" in lines[-1]
    with pytest.raises(UsageError, match="no scenario"):
        run_orderings(strategy, ["walk-munmp"], 1, lines.append)


def test_reasons_for_orderings_fit() -> None:
    """Each reason why an ordering is not needed is of a function of the text, and of a barrier that stands there: none
    outlives its line. It is told where no search finds a failure, and a failure counts more."""
    for name in ("maple_rcu", "per_vma_rwsem", "per_vma_refcnt", "pmdcache_rcu"):
        strategy = load().strategy(name)
        texts = {one.__name__: inspect.getsource(one) for one in functions_of(strategy)}
        reasons = judgements(strategy, "orderings")
        assert reasons
        for key in reasons:
            function, what = key.split(": ")[-2:]
            assert function in texts, key
            assert what.startswith("the ")
            assert not what.startswith("the smp_") or what.split()[1] in texts[function], key
    strategy = load().strategy("maple_rcu")
    reasons = judgements(strategy, "orderings")
    change = Change(("maple/__init__.py", 120, "mt_find"), "rmb", "rmb", "none")
    some = [Met(scenario("lookup-munmap"), GraphCase(scenario("lookup-munmap"), strategy).known(), 0)]
    result = Weakened(change, some, reasons[change.key], left=some)
    assert result.state == "not needed"
    assert f"why: {reasons[change.key]}" in str(result)
    assert replace(result, why="").state == "open"
    assert replace(result, failure="stale answer").state == "needed"


def test_the_weakest_mend() -> None:
    """What the story proposes for W2 is one stronger ordering, of the store that overtakes the dead mark."""
    race = load().historic()["W2"]
    case = GraphCase(race.scenario, race.broken)
    case.weaker = {(function, operation, field): rule_for(now) for function, operation, field, now in race.weaker}
    hunt = GraphHunt(case, 1)
    until = time.monotonic() + 120
    hunt.run(until)
    (failure,) = hunt.failures.values()
    (line,) = mend(race.scenario, race.broken, failure, until, weaker=case.weaker)
    assert re.fullmatch(r"weakest mend found: the store at order.py:\d+ ma_free_listed: plain -> release", line), line


def test_the_layout_after_a_call_that_changes_nothing() -> None:
    """The layout that a munmap of a hole leaves has in it what another task has done before, although the list of VMAs
    is memory that no access of a second task shares. (Such a lookup was called stale.)"""
    tasks = ((munmap(16, 1),), (munmap(0, 4),), (lookup(1),))
    case = GraphCase(Scenario("munmap-hole", "", two_written, tasks), load().strategy("spf_seqcount"))
    verdict = GraphHunt(case).run(time.monotonic() + 100)
    assert verdict.coverage.complete
    assert not verdict.findings, verdict.findings


@pytest.mark.parametrize("model", ["sc", "tso"])
@pytest.mark.parametrize("name", ["rbtree", "pmdcache", "rcu_rbtree"])
def test_graphs_and_interleavings_agree(name: str, model: str) -> None:
    """Under sc and tso both searches give the same verdict, whole; of a task that is alone too."""
    strategy = load().strategy(name)
    for where in ("lookup-munmap", "lookup-merge", "exec-lookup"):
        until = time.monotonic() + 100
        steps = Hunt(make_case(scenario(where), strategy, model)).run(until)
        graphs = GraphHunt(GraphCase(scenario(where), strategy, model)).run(until)
        assert {f.kind for f in steps.findings} == {f.kind for f in graphs.findings}, where
        assert steps.coverage.complete
        assert graphs.coverage.complete


def graphs_of(strategy: str, where: str) -> tuple[list[object], int]:
    """Every execution graph of a scenario, and how many shadows the searches met."""
    hunt = GraphHunt(GraphCase(scenario(where), load().strategy(strategy)))
    keys: list[object] = []
    learned = 0

    def see(seen: Seen) -> bool:
        nonlocal learned
        if hunt.verdict.learned > learned:  # the search began again
            learned = hunt.verdict.learned
            keys.clear()
        if not hunt._learning():
            keys.append(seen.graph.key())
        return not hunt._learning()

    hunt._explore(see, time.monotonic() + 100)
    assert hunt.search.counts.complete
    return keys, hunt.search.counts.shadows


@pytest.mark.parametrize("name", ["per_vma_rwsem", "rcu_rbtree"])
def test_a_wait_that_nothing_ends_is_dropped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search drops a graph in which a task waits for what no store can bring any more. It finds the same graphs as
    a search that runs each of them to its end, with fewer shadows."""
    quick, few = graphs_of(name, "lookup-munmap")
    monkeypatch.setattr("benchframe.check.trust._is_shadow", lambda graph, tasks, loc: False)
    whole, many = graphs_of(name, "lookup-munmap")
    assert len(set(quick)) == len(quick)
    assert set(quick) == set(whole)
    assert few < many


def ends_of(name: str, where: str) -> list[object]:
    """Of every execution of a scenario: its graph, the answers, the layouts that mapping calls left, and memory."""
    hunt = GraphHunt(GraphCase(scenario(where), load().strategy(name)))
    found: list[object] = []

    def see(seen: Seen) -> bool:
        world = seen.tasks
        assert isinstance(world, GraphWorld)
        broken = world.judge(seen)
        calls = sorted((span.task, span.first, span.end, result) for _, span, result in world.calls)
        layouts = [(span.task, span.first, span.rows, [part.rows for part in span.parts]) for span in world.mappings]
        arrays = hunt.case.machine.arrays
        memory = [
            array.tobytes() for array in arrays.values() if "vma_base" not in (array.dtype.names or ())
        ]  # no pointers
        found.append((seen.graph.key(), str(broken), calls, layouts, memory))
        return not hunt._learning()

    while hunt.search.explore(see) and hunt._learn():
        hunt.search.restart()
        found.clear()
    assert hunt.search.counts.complete
    return found


@pytest.mark.parametrize("name", ["rcu_rbtree", "pmdcache"])
def test_tasks_that_walk_known_paths(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task whose path is known is not interpreted again. All executions are the same ones as without that, with the
    same answers, layouts, failures and memory at the end; the tasks are interpreted far less often."""
    interpreted = 0
    run = paths.Walk._interpret

    def counted(self: paths.Walk, task: int) -> Label | None:
        nonlocal interpreted
        interpreted += 1
        return run(self, task)

    monkeypatch.setattr(paths.Walk, "_interpret", counted)
    quick = ends_of(name, "fault-munmap")
    walked, interpreted = interpreted, 0
    monkeypatch.setattr(paths, "MOST", -1)
    assert quick == ends_of(name, "fault-munmap")
    assert 0 < 2 * walked < interpreted


@pytest.mark.parametrize("model", ["lkmm", "sc"])
def test_a_walk_of_the_address_space(model: str) -> None:
    """/proc/PID/maps is read while mprotect cuts a VMA. Under its lock (`rbtree`) it is right in each graph; one that
    shows less than what is mapped all the time, or what was a VMA at no moment, is found."""
    hunt = GraphHunt(GraphCase(scenario("walk-split"), load().strategy("rbtree"), model))
    verdict = hunt.run(time.monotonic() + 100)
    assert verdict.coverage.complete
    assert not verdict.findings
    show = GraphWorld.show
    for wrong in (lambda world, start, end: 0, lambda world, start, end: show(world, start, end + 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(GraphWorld, "show", wrong)
            hunt = GraphHunt(GraphCase(scenario("walk-split"), load().strategy("rbtree"), model), 1)
            assert [one.kind for one in hunt.run(time.monotonic() + 100).findings] == ["stale answer"]


def test_graphs_by_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """`check --memory sc --graphs` finds what it finds without, and its replay string runs the graph again."""
    monkeypatch.setattr(jobs, "CALLS", 20)
    strategy, lines = load().strategy("pmdcache"), list[str]()
    assert run_check_command([strategy], ["lookup-munmap"], 60, memory="sc", graphs=True, say=lines.append) == 1
    assert lines[1] == "not looked for: livelocks, stale TLB entries"
    assert not any("load buffering" in line for line in lines)
    (again,) = re.findall(r"--replay (v1-sc-graphs:\d+)$", "\n".join(lines), re.M)
    told: list[str] = []
    assert run_check_command([strategy], ["lookup-munmap"], 60, again, say=told.append) == 1
    assert told[0].startswith("use after free: T0: load of VMA #1, which T1 freed")


def test_rc11_by_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """`check --memory rc11`: locks are enough for `rbtree`; a walk under RCU that follows plain pointers is not in C11,
    and its replay string runs the graph again."""
    monkeypatch.setattr(jobs, "CALLS", 20)
    strategy, lines = load().strategy("rbtree"), list[str]()
    assert run_check_command([strategy], ["lookup-munmap"], 60, memory="rc11", say=lines.append) == 0
    assert lines[1] == "not looked for: livelocks, stale TLB entries"
    walker, lines = load().historic()["W2"].mended, []
    walker = replace(walker, scenarios=(load().historic()["W2"].scenario,))
    assert run_check_command([walker], ["walk-munmap"], 60, memory="rc11", say=lines.append) == 1
    (again,) = set(re.findall(r"--replay (v1-rc11:\d+)$", "\n".join(lines), re.M))
    told: list[str] = []
    assert run_check_command([walker], ["walk-munmap"], 60, again, say=told.append) == 1
    assert "memory model: RC11" in told[0]


class Elsewhere(Executor):
    """Does at once what it is given, as a process of a cluster would: everything is pickled on its way."""

    def __init__(self) -> None:
        self.parts: list[jobs.Searched] = []

    def submit(self, work: Callable[..., Any], /, *asked: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        self.parts.append(pickle.loads(pickle.dumps(work(*pickle.loads(pickle.dumps(asked))))))
        done.set_result(self.parts[-1])
        return done


@pytest.mark.parametrize(
    ("name", "of", "model"), [("pmdcache_rcu", "fault-munmap", "lkmm"), ("spf_seqcount", "fault-munmap", "tso")]
)
def test_a_search_in_parts(name: str, of: str, model: str) -> None:
    """`--cluster`: the parts of a search have no graph in common, but for those before the split, which the first
    counts: together as many as one search has. Its verdict is the same."""
    strategy = load().strategy(name)
    serial = GraphHunt(GraphCase(scenario(of), strategy, model)).run(time.monotonic() + 200)
    assert serial.coverage.complete
    assert not serial.findings
    executor, watcher = Elsewhere(), jobs.Watcher()
    results: dict[int, jobs.Result] = {}
    watcher.done = results.__setitem__  # type: ignore[method-assign]
    part = jobs.Part(strategy, scenario(of), model, graphs=True)
    jobs.run_parts([part], time.monotonic() + 200, 3, watcher, executor)
    assert results[0].complete
    assert not results[0].wrong
    last = executor.parts[-3:]
    assert all(one.coverage.executions for one in last)
    assert results[0].executions == sum(one.coverage.executions for one in last) == serial.coverage.executions


def test_a_failure_on_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as without one, with a replay string; of interleavings there is no search in parts."""
    monkeypatch.setattr(jobs, "CALLS", 20)
    here, there = list[str](), list[str]()
    strategy = load().strategy("pmdcache")
    options: dict[str, Any] = {"memory": "sc", "graphs": True}
    assert run_check_command([strategy], ["lookup-munmap"], 60, say=here.append, **options) == 1
    assert run_check_command([strategy], ["lookup-munmap"], 60, say=there.append, executor=Elsewhere(), **options) == 1
    assert re.findall("v1-sc-graphs:.*", "\n".join(here)) == re.findall("v1-sc-graphs:.*", "\n".join(there))
    with pytest.raises(UsageError, match="--memory lkmm"):
        run_check_command([strategy], ["lookup-munmap"], 60, executor=Elsewhere())


def test_failures_of_graphs_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--save keeps them, too; the next check searches that far again. In a strategy that is mended nothing is found."""
    monkeypatch.setattr(jobs, "CALLS", 20)
    lines: list[str] = []
    strategy, options = load().strategy("pmdcache"), {"memory": "sc", "graphs": True, "saved": tmp_path}
    assert run_check_command([strategy], ["lookup-munmap"], 60, save_new=True, say=lines.append, **options) == 1  # type: ignore[arg-type]
    (failure,) = jobs.read(tmp_path)
    assert re.fullmatch(r"v1-sc-graphs:\d+", failure.replay)
    again = jobs.run_again(failure, strategy, scenario("lookup-munmap"))
    assert again.fails
    assert again.text.startswith("WRONG: fails as before: use after free: T0: load of VMA #1")
    mended = jobs.run_again(failure, load().strategy("pmdcache_rcu"), scenario("lookup-munmap"))
    assert not mended.fails
    assert re.match(r"no failure in \d+ graphs", mended.text)


def test_files_in_a_folder_called_check() -> None:
    """Strategy code is told from the checker's by the package's own folder, not by a word in a path."""
    scope: dict[str, object] = {"running": running}
    text = "def find():\n    return list(running())"
    exec(compile(text, "/home/check/mm/find.py", "exec"), scope)
    find = scope["find"]
    assert callable(find)
    assert [f.f_code.co_name for f in find()][:2] == ["find", "test_files_in_a_folder_called_check"]


def test_relations() -> None:
    """Cycles are seen, and what is reached through others."""
    chain, ring = [0b010, 0b100, 0], [0b010, 0b100, 0b001]
    assert acyclic(chain)
    assert not acyclic(ring)
    assert closure(chain) == [0b110, 0b100, 0]
    assert closure(ring) == [0b111] * 3
    assert all_before(chain) == closure(chain)
    assert all_before(ring) == [0b111] * 3


def test_integers_know_what_they_depend_on() -> None:
    """Arithmetic and comparisons join dependencies, a branch tells of them, and int() of Python forgets."""
    told: list[int] = []
    on_branch(lambda deps, frame: told.append(deps))
    a, b = Traced(5, 1), Traced(3, 2)
    assert ((a + b).deps, (7 - a).deps, (a & ~b).deps, (1 << b).deps) == (3, 1, 3, 2)
    assert int(a + b) == 8
    assert type(int(a)) is int
    told.clear()
    if a > b:
        told.append(0)
    assert told == [3, 0]
    on_branch(lambda deps, frame: None)
