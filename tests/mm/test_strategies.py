"""Every strategy of the registry, so that a plugin is tested by existing: right answers, a sound index, sane counts."""

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.space import ANON, BASE, FIXED, PAGE, RW, RWX, STRATEGIES, Kit, R, runner, strategy
from support.space import registry as installed

from benchframe.engine.session import Session
from benchframe.mm.hooks import ALL, BY_NAME
from benchframe.results.studies import sources_of
from benchframe.strategy import Cache, Index, PrivateSlab, Protocol, Strategy, StrategyError, resolve
from benchframe.trace.trace import Trace

STREAMS = (
    "zipf:vmas=300,events=6000",
    "ebizzy:vmas=200,events=6000",
    "mmap-churn:vmas=120,events=4000",
    "multi-fault-all-split:vmas=64,events=4000",
    "python-json",
    "sh-pipeline",
)
"""Four synthetic ones and two recordings, one of them with forks."""


@cache
def trace(spec: str) -> Trace:
    """One stream, made once."""
    return installed().spec(spec).trace(1)


@pytest.mark.parametrize("spec", STREAMS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_conformance(name: str, spec: str) -> None:
    """Every answer is the oracle's, every invariant holds afterwards, and the counts make sense."""
    runner(name, "native")
    session = Session(strategy(name), trace(spec), layout_seed=3)
    verdict = session.verify()
    assert verdict.ok, verdict.what
    counts = session.counts()
    assert counts["lookups"] >= session.n_lookups > 0
    assert 0 <= counts["hits"] <= counts["lookups"]
    assert counts["misses"] == counts["lookups"] - counts["hits"]
    assert counts["retries"] <= session.n_faults
    assert (session.n_faults, session.n_mapping) == (counts["faults"], counts["mapping_ops"])
    if strategy(name).cache is None and strategy(name).protocol is None:
        assert counts["hits"] == 0
    assert session.counts() == counts


@pytest.mark.parametrize("engine", ["native", "interpreted"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_index_at_every_size(name: str, engine: str) -> None:
    """Grown from both ends and the middle and taken away again, the index is checked at each size up to 70."""
    kit = Kit(name, engine)
    order = [*range(0, 70, 3), *range(68, -1, -3), *range(1, 70, 3)]
    for page in order:
        if not kit.at(2 * page):
            kit.map(2 * page, 1)
        kit.validate()
    assert kit.map_count == 70
    for page in [*range(0, 70, 2), *range(69, -1, -2)]:
        assert kit.unmap(2 * page, 1) == 0
        kit.validate()
    assert kit.find_vma(0) is None


@pytest.mark.parametrize("name", STRATEGIES)
def test_lookups_after_every_change(name: str) -> None:
    """What a cache may hold is asked again right after each change of bounds, flags and place."""
    kit = Kit(name)
    kit.map(0, 8)

    def asked() -> list[Any]:
        for page in range(14):
            kit.fault(BASE + page * PAGE, 1)
        found = [kit.find_vma(BASE + page * PAGE, user) for page in range(14) for user in (True, False)]
        right = [
            next(((row[0], row[1]) for row in kit.layout() if row[1] > BASE + page * PAGE), None)
            for page in range(14)
            for user in (True, False)
        ]
        assert found == right
        kit.validate()
        return kit.spans()

    assert asked() == [(0, 8, RW)]
    kit.protect(2, 2, RWX)
    assert asked() == [(0, 2, RW), (2, 4, RWX), (4, 8, RW)]
    kit.protect(3, 1, RW)
    assert asked() == [(0, 2, RW), (2, 3, RWX), (3, 8, RW)]
    kit.protect(2, 1, RW)
    assert asked() == [(0, 8, RW)]
    kit.unmap(3, 2)
    assert asked() == [(0, 3, RW), (5, 8, RW)]
    kit.map(3, 1)
    assert asked() == [(0, 4, RW), (5, 8, RW)]
    assert kit.mremap(BASE, 2 * PAGE, 2 * PAGE, 3, BASE + 10 * PAGE) == BASE + 10 * PAGE
    assert asked() == [(2, 4, RW), (5, 8, RW), (10, 12, RW)]
    kit.map(4, 1)
    assert asked() == [(2, 8, RW), (10, 12, RW)]
    kit.unmap(0, 14)
    assert asked() == []


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_tasks_and_two_mms(name: str) -> None:
    """Tasks of one mm and of a forked one each get their own address space's answer."""
    kit = Kit(name, "native")
    kit.map(0, 4)
    other = kit.thread()
    for task in (kit, other):
        assert task.fault(BASE, 2) == 0
    child = kit.fork()
    assert child.munmap(BASE, PAGE) == 0
    assert child.mmap(BASE + 8 * PAGE, PAGE, RW, FIXED) == BASE + 8 * PAGE
    for _ in range(2):
        assert kit.find_vma(BASE, user=True) == (BASE, BASE + 4 * PAGE)
        assert other.find_vma(BASE, user=True) == (BASE, BASE + 4 * PAGE)
        assert child.find_vma(BASE, user=True) == (BASE + PAGE, BASE + 4 * PAGE)
        assert child.fault(BASE, 1) == -1
        assert other.fault(BASE, 1) == 0
    kit.validate()
    assert child.exit() == 0
    assert other.find_vma(BASE, user=True) == (BASE, BASE + 4 * PAGE)
    kit.validate()


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_mm_begins_again_after_exec(name: str) -> None:
    """exec of a used mm: nothing of the old address space is found, and the new one works."""
    kit = Kit(name, "native")
    for page in range(0, 40, 2):
        kit.map(page, 1)
        kit.touch(page)
    assert kit.exec(BASE) == 0
    assert kit.find_vma(0, user=True) is None
    kit.validate()
    assert kit.mmap(0, PAGE, R, ANON) > 0
    kit.validate()


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_explains_itself(name: str) -> None:
    """A summary of one line, a docstring of its module, a source file, native functions for the excerpt."""
    mine = strategy(name)
    assert mine.summary
    assert "\n" not in mine.summary
    assert len(mine.doc) > 100
    assert mine.file.endswith(".py")
    assert all(f.__doc__ for f in mine.functions())


def test_a_package_is_shown_as_its_files() -> None:
    """What is shown and kept as a strategy's source: its file, or the files of its package; functions from all."""
    mine = strategy("maple_rcu")
    assert {"mt_find", "mas_store", "mas_node_min", "mt_check"} <= {f.__name__ for f in mine.functions()}
    text = sources_of([mine])["maple_rcu"].text
    assert [line for line in text.splitlines() if line.startswith("# ==== ")] == [
        f"# ==== maple/{name}.py ====" for name in ("__init__", "check", "node", "store")
    ]
    assert "def mas_node_min" in text
    tree = strategy("rbtree_gap")
    assert {"rb_find", "rb_rotate_left", "gap_below"} <= {f.__name__ for f in tree.functions()}
    assert sources_of([tree])["rbtree_gap"].text == Path(tree.file).read_text()


# ---- what a plugin's author may get wrong ----


def _mistakes(tmp_path: Any) -> ModuleType:
    import importlib.util

    path = tmp_path / "mistakes.py"
    path.write_text(
        "from benchframe.api import native\n\n\n"
        "@native\ndef find(mm, addr):\n    return 0\n\n\n"
        "@native\ndef one(mm):\n    return 0\n\n\n"
        "@native\ndef two(mm, vma):\n    return 0\n\n\n"
        "def plain(mm, addr):\n    return 0\n"
    )
    spec = importlib.util.spec_from_file_location("mistakes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mistakes_are_named(tmp_path: Any) -> None:
    """A hook that is missing, unknown, unmarked or of the wrong arity: one line with the mend."""
    code = _mistakes(tmp_path)
    with pytest.raises(StrategyError, match=r"strategy mine: lacks the hook insert\(mm, vma\), erase\(mm, vma\)"):
        resolve(Strategy("mine", "x", Index(find=code.find)), {})
    with pytest.raises(StrategyError, match=r"Index: no hook 'fnid'; did you mean find\?"):
        Index(fnid=code.find)
    with pytest.raises(StrategyError, match=r"Index: no hook 'gap_above'; 0\.1 had it; the model walks its list"):
        Index(gap_above=code.find)
    with pytest.raises(StrategyError, match="Cache: no hook 'zzz'; it has find, store, fault"):
        Cache(zzz=code.find)
    with pytest.raises(StrategyError, match=r"Index.find: <function plain.* is not marked @native"):
        Index(find=code.plain)
    with pytest.raises(
        StrategyError,
        match=r"mistakes.py:9 \(one\): hook find takes \(mm, addr\), this function takes 1 arguments",
    ):
        Index(find=code.one)
    with pytest.raises(StrategyError, match="Protocol: no hook 'find'"):
        Protocol(find=code.find)


def test_named_index_and_slabs_are_checked(tmp_path: Any) -> None:
    """An index by name must exist and be one; private slabs must not collide; the named index is taken whole."""
    code = _mistakes(tmp_path)
    known = {name: strategy(name) for name in STRATEGIES}
    with pytest.raises(StrategyError, match=r"its index 'rbtre' is not a strategy; did you mean rbtree"):
        resolve(Strategy("mine", "x", "rbtre"), known)
    with pytest.raises(StrategyError, match="known: none"):
        resolve(Strategy("mine", "x", "rbtree"), {})
    borrowed = Strategy("lender", "x", "rbtree")
    with pytest.raises(
        StrategyError, match=r"lender has no index of its own \(it uses rbtree's\); name rbtree instead"
    ):
        resolve(Strategy("mine", "x", "lender"), {**known, "lender": borrowed})
    with pytest.raises(StrategyError, match=r"number 6 is not in 0\.\.5"):
        PrivateSlab("s", [("a", "i8", "x")], number=6)
    slabs = [PrivateSlab("s", [("a", "i8", "x")], number=1) for _ in range(2)]
    index = Index(find=code.find, insert=code.two, erase=code.two, slabs=slabs[:1])
    with pytest.raises(StrategyError, match="two private slabs have the same number; renumber one"):
        resolve(Strategy("mine", "x", index, Cache(slabs=slabs[1:])), {})
    made = resolve(Strategy("mine", "x", "rbtree"), known)
    assert isinstance(made.index, Index)
    assert made.binding["index_find"] is known["rbtree"].binding["index_find"]
    assert {h.name for h in ALL if h.default is None} <= set(made.binding)
    assert BY_NAME["cache_find"].name not in made.binding
