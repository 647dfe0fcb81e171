"""The kernel's own files as judge: building, comparing, shrinking, drawing. Sources come from Debian's package."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.space import registry

from benchframe.errors import BenchframeError
from benchframe.judge.kernel_sources import maple_calls, maple_forks, maple_stores, maple_trace, run_sources_command
from benchframe.judge.trees import (
    BASE,
    LEAF,
    LENGTH,
    MAPLE,
    KernelMaple,
    Node,
    Store,
    build,
    calls,
    height,
    maple_difference,
    part,
    shrunk,
)
from benchframe.linux import SourcesError, find_trees
from benchframe.oracle.rules import PAGE

SOURCES = Path(os.environ.get("BENCHFRAME_KERNEL_SOURCES", "/nonexistent"))


def sources() -> Path:
    """The folder of source trees, or a skip."""
    if not SOURCES.is_dir():
        pytest.skip("no kernel sources: set BENCHFRAME_KERNEL_SOURCES to a folder with Debian's linux-source-6.12")
    return SOURCES


# ---- without sources ---------------------------------------------------------------------------------------------


def test_what_is_no_source_tree_is_an_error(tmp_path: Path) -> None:
    """No such folder, a folder without sources, a tree without a version: one line that says what to do."""
    with pytest.raises(SourcesError, match="no such folder"):
        find_trees([tmp_path / "none"])
    with pytest.raises(SourcesError, match=r"no kernel sources.*make kernel-judge"):
        find_trees([tmp_path])
    (tmp_path / "linux" / "lib").mkdir(parents=True)
    (tmp_path / "linux" / "lib" / "rbtree.c").write_text("")
    with pytest.raises(SourcesError, match="version is unknown"):
        find_trees([tmp_path])
    (tmp_path / "linux" / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 0\n")
    assert [tree.version for tree in find_trees([tmp_path])] == [(6, 12)]


def test_an_unknown_generator_is_named(tmp_path: Path) -> None:
    """A misspelt part is refused before anything is built."""
    with pytest.raises(BenchframeError, match="did you mean maple"):
        run_sources_command([tmp_path], registry(), part="mapel")


def test_without_gcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler is missing: exit code 3, and what to install."""
    (tmp_path / "linux-6.12" / "lib").mkdir(parents=True)
    for name in ("lib/maple_tree.c", "include/linux/maple_tree.h"):
        path = tmp_path / "linux-6.12" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SourcesError, match="install gcc") as caught:
        build(find_trees([tmp_path])[0], MAPLE, tmp_path / "out")
    assert caught.value.exit_code == 3


@pytest.mark.needs_debian("gcc")
def test_files_that_do_not_compile_are_an_error(tmp_path: Path) -> None:
    """A tree whose lib/maple_tree.c is something else: the compiler's first error, not its whole output."""
    for name in MAPLE.files:
        path = tmp_path / "linux-7.0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("int unknown = because_of_this;\n")
    with pytest.raises(SourcesError, match=r"does not compile with Linux 7\.0's files.*because_of_this"):
        build(find_trees([tmp_path])[0], MAPLE, tmp_path / "out")


def test_shrunk_keeps_what_is_needed_and_the_last() -> None:
    """Of 200 items two are needed, beside the last one."""

    def differs(items: Sequence[int]) -> bool:
        return {17, 103} <= set(items)

    assert shrunk(range(200), differs) == [17, 103, 199]


def test_a_program_depends_on_its_seed_alone() -> None:
    """The same seed makes the same calls, another one others."""
    assert list(calls("1")) == list(calls("1")) != list(calls("2"))
    assert len(list(calls("1"))) == LENGTH


def test_a_maple_difference_is_drawn() -> None:
    """Leaves that only one side has are marked and listed; a hole is a dash."""
    low, high = BASE + 4 * PAGE - 1, BASE + 9 * PAGE - 1
    first, second = Node(LEAF, 0, low, ((low, 1, 0),)), Node(LEAF, low + 1, high, ((high, 0, 0),))
    top = Node(3, 0, high, ((low, 1, 0), (high, 1, PAGE)))
    store = Store(BASE, high, 3)
    text = maple_difference([first], [store], [top, first, second], [first])
    assert "store pages [0, 9): VMA 3" in text
    assert "kernel    [1 1*]" in text
    assert "kernel's leaf from 4: - to 9" in text
    assert height([top, first, second]) == 2


def test_a_strategy_without_a_maple_tree_is_refused() -> None:
    """The comparison finds the strategy's mas_store by name, and says so where there is none."""
    with pytest.raises(BenchframeError, match="calls no mas_store"):
        part(registry().strategy("rbtree"), "mas_store")


# ---- with sources ------------------------------------------------------------------------------------------------


@pytest.mark.needs_debian("gcc")
def test_rbtree_and_oracle_are_the_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    """lib/rbtree.c makes the same trees, colours and gaps included; mm/vma.c merges and splits as oracle and model,
    and leaves the model's maple trees."""
    folder = sources()
    for part_, rows in (("rbtree", 2), ("vma", 3)):
        assert run_sources_command([folder], registry(), ops=LENGTH, part=part_) == 0
        assert len(re.findall(r" 6\.12 +500 \w+ +all equal", capsys.readouterr().out)) == rows


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> KernelMaple:
    """lib/maple_tree.c of the newest source tree."""
    tree = [tree for tree in find_trees([sources()]) if not tree.lacks(MAPLE.files)][-1]
    return KernelMaple(build(tree, MAPLE, tmp_path_factory.mktemp("maple")), tree.name)


@pytest.mark.needs_debian("gcc")
def test_maple_is_the_kernels(kernel: KernelMaple) -> None:
    """Node by node after each of 3,000 random stores, those of 500 calls, of forks, and the same holes
    are found."""
    rows = list(maple_stores(registry().strategy("maple"), [kernel], 6 * LENGTH, 1))[-1]
    rows += list(maple_stores(registry().strategy("maple_rcu"), [kernel], LENGTH, 2))[-1]
    rows += list(maple_calls(registry().strategy("maple"), [kernel], 1, 1))[-1]
    rows += list(maple_forks(registry().strategy("maple_rcu"), [kernel], 1, 1))[-1]
    rows += list(maple_forks(registry().strategy("maple"), [kernel], 1, 2))[-1]
    assert len(rows) == 13
    assert {row.what: row.differ for row in rows} == {row.what: 0 for row in rows}
    assert sum(row.compared for row in rows) > 8000


@pytest.mark.needs_debian("gcc")
def test_the_stores_of_a_trace_are_the_kernels(kernel: KernelMaple) -> None:
    """sqlite-index has a join with a neighbour under another parent."""
    rows = maple_trace(registry().strategy("maple"), [kernel], "sqlite-index", registry().spec("sqlite-index").trace(0))
    assert [(row.compared, row.differ) for row in rows] == [(142, 0), (142, 0)]


@pytest.mark.needs_debian("gcc")
def test_a_kernels_tree_is_loaded_as_it_was(kernel: KernelMaple) -> None:
    """What is read from a tree of the kernel's makes the same tree again, gaps included, and its search agrees."""
    one = kernel.tree()
    for number in range(1, 400):
        assert one.store(Store(BASE + number * 7 % 400 * PAGE, BASE + (number * 7 % 400 + 1) * PAGE - 1, number))
    nodes = one.nodes()
    assert height(nodes) == 3
    two = kernel.tree(nodes=nodes)
    assert two.nodes() == nodes
    assert two.hole(0, BASE + 500 * PAGE, 9 * PAGE) == one.hole(0, BASE + 500 * PAGE, 9 * PAGE) == BASE + 491 * PAGE


@pytest.mark.needs_debian("gcc")
def test_a_wrong_maple_tree_is_noticed(tmp_path: Path) -> None:
    """A kernel whose leaves may be smaller (mt_min_slots) differs from the strategy, and the difference is drawn."""
    tree = next(tree for tree in find_trees([sources()]) if not tree.lacks(MAPLE.files))
    changed = tmp_path / "linux-6.12"
    for file in MAPLE.files:
        (changed / file).parent.mkdir(parents=True, exist_ok=True)
        text = (tree.path / file).read_text()
        assert file != "lib/maple_tree.c" or "(MAPLE_RANGE64_SLOTS / 2) - 2" in text
        (changed / file).write_text(text.replace("(MAPLE_RANGE64_SLOTS / 2) - 2", "(MAPLE_RANGE64_SLOTS / 2) - 4"))
    kernel = KernelMaple(build(find_trees([changed])[0], MAPLE, tmp_path), "wrong")
    rows = next(maple_stores(registry().strategy("maple"), [kernel], 1, 0))
    assert rows[0].what == "maple, random stores: one store from the same tree"
    assert rows[0].differ
