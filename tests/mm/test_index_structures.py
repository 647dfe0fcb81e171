"""Each index's own structure: what its check finds when one word is wrong, and long mixed programs on many VMAs."""

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from support.space import BASE, PAGE, RW, RWX, Kit, R, strategy

from benchframe.judge.kernel_sources import MapleModel
from benchframe.judge.trees import LEAF, Store
from benchframe.judge.trees import maple as drawn
from benchframe.mm.machine import Sizes

SIZES = Sizes(mms=6, tasks=12, vmas=4096, tables=256, pages=1024, files=64)
INDEXES = ("linked_list", "avl", "avl_2_4", "sorted_array", "eytzinger", "btree", "maple", "maple_rcu")


def check(kit: Kit) -> int:
    """The number of the first invariant that the index finds broken."""
    return int(kit.runner.hook("index_check"))


def words(kit: Kit, slab: int = 0) -> Any:
    """A private slab's only or first column."""
    array = kit.machine.arrays[f"private{slab}_base"]
    return array[array.dtype.names[0]]


def filled(name: str, count: int = 40) -> Kit:
    """``count`` VMAs of one page with a hole after each."""
    kit = Kit(name, sizes=SIZES)
    for page in range(count):
        kit.map(2 * page, 1)
    assert check(kit) == 0
    return kit


# ---- one wrong word is found, and by its number --------------------------------------------------------------------


def vma_field(field: str, change: Callable[[int], int], position: int = 5) -> Callable[[Kit], None]:
    """Change a field of the VMA at ``position`` in address order."""

    def damage(kit: Kit) -> None:
        vma = kit.vmas()[position]
        kit.vma(field)[vma] = change(int(kit.vma(field)[vma]))

    return damage


def root_field(field: str, change: Callable[[int], int]) -> Callable[[Kit], None]:
    """Change a field of the VMA that is the root."""

    def damage(kit: Kit) -> None:
        root = int(kit.mm["mm_rb"])
        kit.vma(field)[root] = change(int(kit.vma(field)[root]))

    return damage


def mm_field(field: str, change: Callable[[int], int]) -> Callable[[Kit], None]:
    """Change a field of mm_struct."""

    def damage(kit: Kit) -> None:
        kit.mm[field] = change(int(kit.mm[field]))

    return damage


def entry(slab: int, column: str, position: int) -> Callable[[Kit], None]:
    """Change an array's entry at ``position`` in its block."""

    def damage(kit: Kit) -> None:
        for page in range(3 * kit.map_count):  # an order that is built when it pays is there now
            kit.find_vma(BASE + page * PAGE)
        kit.machine.arrays[f"private{slab}_base"][column][int(kit.mm["mm_rb"]) + position] += 8

    return damage


def btree_word(offset: int, change: Callable[[int], int], child: int | None = 0) -> Callable[[Kit], None]:
    """Change a word of the root's ``child`` (None: of the root) in a tree of two levels."""

    def damage(kit: Kit) -> None:
        all_words, node = words(kit), int(kit.mm["mm_rb"])
        assert int(kit.mm["strategy0"]) == 1
        if child is not None:
            node = int(all_words[node * 40 + 24 + child])
        all_words[node * 40 + offset] = change(int(all_words[node * 40 + offset]))

    return damage


def maple_word(offset: int, change: Callable[[int], int], child: int | None = 1) -> Callable[[Kit], None]:
    """Change a word of the root's ``child`` (None: of the root) in a tree of two levels."""

    def damage(kit: Kit) -> None:
        all_words, node = words(kit), int(kit.mm["mm_rb"]) >> 8
        if child is not None:
            enode = int(all_words[node * 32 + 10 + child])
            assert enode & 0x78 == 1 << 3
            node = enode >> 8
        all_words[node * 32 + offset] = change(int(all_words[node * 32 + offset]))

    return damage


def child_of_root(kit: Kit, child: int) -> int:
    """One of the root's children, by node number."""
    return int(words(kit)[(int(kit.mm["mm_rb"]) >> 8) * 32 + 10 + child]) >> 8


def dead_leaf(kit: Kit) -> None:
    """A node in the tree is its own parent."""
    node = child_of_root(kit, 1)
    words(kit)[node * 32] = node << 8


def few_ranges(kit: Kit) -> None:
    """A leaf has two ranges, a hole and a VMA up to the leaf's end."""
    base = child_of_root(kit, 4) * 32
    all_words = words(kit)
    end = int(all_words[base + 31])
    assert 5 <= end < 14
    assert [bool(all_words[base + 16 + slot]) for slot in (0, 1, end)] == [False, True, True]
    all_words[base + 1 + 1] = all_words[base + 1 + end]
    all_words[base + 31] = 1


DAMAGE: dict[str, tuple[str, Callable[[Kit], None], int]] = {
    "list: order": ("linked_list", vma_field("vm_start", lambda v: v - 4 * PAGE), 1),
    "list: vm_prev": ("linked_list", vma_field("vm_prev", lambda v: v + 1), 2),
    "avl: height": ("avl", vma_field("rb_subtree_gap", lambda v: v + 7), 1),
    "avl: height under the root": ("avl", root_field("rb_subtree_gap", lambda v: v - 1), 1),
    "avl: order": ("avl", mm_field("mmap", lambda v: v + 1), 3),
    "avl: parent": ("avl", vma_field("rb_parent_color", lambda v: v + 1), 4),
    "avl_2_4: no tree": ("avl_2_4", mm_field("mm_rb", lambda v: 0), 5),
    "array: count": ("sorted_array", mm_field("strategy0", lambda v: v - 1), 1),
    "array: entry": ("sorted_array", entry(1, "vma", 7), 2),
    "array: key": ("sorted_array", entry(0, "vm_end", 7), 3),
    "array: start": ("sorted_array", entry(1, "vm_start", 39), 3),
    "eytzinger: key": ("eytzinger", entry(3, "vm_end", 7), 4),
    "eytzinger: vma": ("eytzinger", entry(3, "vma", 39), 4),
    "btree: value": ("btree", btree_word(24, lambda v: v + 1), 1),
    "btree: key": ("btree", btree_word(8 + 3, lambda v: v + 8 * PAGE), 2),
    "btree: key left over": ("btree", btree_word(8 + 15, lambda v: v - 1), 2),
    "btree: inner key": ("btree", btree_word(8 + 1, lambda v: v + PAGE, None), 3),
    "btree: parent": ("btree", btree_word(0, lambda v: v + 1), 4),
    "btree: level": ("btree", btree_word(2, lambda v: v + 1), 4),
    "btree: empty": ("btree", btree_word(1, lambda v: 0), 5),
    "maple: slot": ("maple", maple_word(16 + 1, lambda v: v + 1 if v else 1), 1),
    "maple: pivot order": ("maple", maple_word(1 + 2, lambda v: v - 3 * PAGE), 2),
    "maple: inner pivot": ("maple", maple_word(1 + 4, lambda v: v + PAGE, None), 2),
    "maple: hole after hole": ("maple", maple_word(16 + 1, lambda v: 0), 3),
    "maple: parent": ("maple", maple_word(0, lambda v: v + 8), 4),
    "maple: dead": ("maple", dead_leaf, 4),
    "maple: gap": ("maple", maple_word(20 + 1, lambda v: v + PAGE, None), 5),
    "maple: few": ("maple", few_ranges, 6),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_check_finds(case: str) -> None:
    """Each numbered invariant is what its check reports when just that is broken."""
    name, damage, number = DAMAGE[case]
    kit = filled(name)
    damage(kit)
    assert check(kit) == number
    assert number in kit.runner.strategy.check_messages


# ---- many VMAs -----------------------------------------------------------------------------------------------------


def program(seed: str, count: int, pages: int) -> list[tuple[Any, ...]]:
    """``count`` calls over ``pages`` pages: grow, mixed, shrink, mixed with long ranges."""
    draw = random.Random(seed)
    ops: list[tuple[Any, ...]] = []
    for step in range(count):
        phase = 4 * step // count
        addr, length = BASE + draw.randrange(pages) * PAGE, draw.choice([1, 1, 1, 2, 3, 5, 30 if phase == 3 else 2])
        prot = draw.choice([R, RW, RWX, 0])
        what = draw.random()
        if phase == 2 and what < 0.6:
            ops.append(("munmap", addr, length * PAGE))
        elif what < 0.4:
            ops.append(("mmap", addr, length * PAGE, prot, 0x32))
        elif what < 0.5:
            ops.append(("mmap", 0, length * PAGE, prot, 0x22))
        elif what < 0.6:
            ops.append(("munmap", 0x7FFFF7FFF000 - draw.randrange(100) * PAGE, length * PAGE))
        elif what < 0.65:
            ops.append(("mremap", addr, PAGE, 2 * PAGE, 1))
        elif what < 0.66:
            ops.append(("mprotect", addr, 100 * PAGE, prot))
        else:
            ops.append(("mprotect", addr, length * PAGE, prot))
    return ops


def play(name: str, ops: list[tuple[Any, ...]]) -> Kit:
    """Run ``ops`` beside rbtree_gap: the same results, and the index sound after each call."""
    kit, right = Kit(name, sizes=SIZES), Kit("rbtree_gap", sizes=SIZES)
    for number, (call, *arguments) in enumerate(ops):
        got, wanted = (getattr(side, call)(*arguments) for side in (kit, right))
        assert got == wanted, f"{name}, op {number} {call}{arguments}: {got:#x}, rbtree_gap {wanted:#x}"
        assert (broken := check(kit)) == 0, f"{name}, op {number} {call}{arguments}: invariant {broken}"
    assert kit.layout() == right.layout()
    kit.validate()
    return kit


@pytest.mark.parametrize("name", INDEXES)
def test_many_vmas(name: str) -> None:
    """Hundreds of VMAs come, split, merge and go: the same answers as the tree with gaps, hole search included."""
    ops = program("many", 500, 400)
    assert play(name, ops).machine.arrays["slab_base"]["peak"][0] > 100


@pytest.mark.parametrize("name", INDEXES)
def test_nothing_leaks(name: str) -> None:
    """A tree's records are all given back when the address space ends; an array's block is taken again."""
    kit = play(name, program("leak", 120, 200))
    child = kit.fork()
    child.munmap(BASE, 400 * PAGE)
    child.exit()
    kit.exec()
    live = kit.machine.arrays["slab_base"]["live"].tolist()[4:]
    if "array" in name or name == "eytzinger":
        play_again = live
        kit.fork().exit()
        kit.exec()
        assert kit.machine.arrays["slab_base"]["live"].tolist()[4:] == play_again
    else:
        assert not any(live)


@pytest.mark.parametrize("name", INDEXES)
def test_a_stack_keeps_its_guard_gap(name: str) -> None:
    """The search from the top leaves room below a stack, and looks below whatever lies in that room."""
    sides = [Kit(side, sizes=SIZES) for side in (name, "rbtree_gap")]
    top = int(sides[0].mm["mmap_base"])
    found = []
    for kit in sides:
        assert kit.exec_map(top - 64 * PAGE, 4 * PAGE, RW, 1 << 24) > 0
        assert kit.mmap(top - 200 * PAGE, PAGE, R, 0x32) > 0
        found.append([kit.mmap(0, pages * PAGE, 0, 0x22) for pages in (1, 60, 61, 200, 300)])
        kit.validate()
    assert found[0] == found[1]


# ---- maple trees, as the kernel's lib/maple_tree.c makes them ----------------------------------------------------


def stored(page: int, pages: int = 1, vma: int = 0) -> Store:
    """Of a VMA, or of a hole."""
    return Store(BASE + page * PAGE, BASE + (page + pages) * PAGE - 1, vma)


def one_each(pages: Iterable[int]) -> list[Store]:
    """VMAs of one page, in this order."""
    return [stored(page, 1, number) for number, page in enumerate(pages, 1)]


APART, DENSE = one_each(37 * i % 101 * 2 for i in range(1, 101)), one_each(37 * i % 101 for i in range(1, 101))
WIDE = one_each(37 * i % 401 * 2 for i in range(1, 401))
SHAPES: dict[str, tuple[list[Store], str]] = {
    "ascending": (one_each(range(0, 120, 2)), "[16 16 16 16 16 16 12 13]"),
    "descending": (one_each(range(118, -1, -2)), "[12 10 14 14 14 14 14 14 15]"),
    "with holes": (APART, "[[14 16 16 8 10 16 12 14 12] [12 14 14 14 16 13]]"),
    "without": (DENSE, "[16 15 9 8 16 14 13 11]"),
    "a hole over several leaves": ([*APART, stored(60, 40)], "[[14 16 16 8 12 12] [12 14 14 14 16 13]]"),
    "a hole that takes a level away": ([*APART, stored(0, 150)], "[10 14 16 13]"),
    "a hole over all but the ends": ([*APART, stored(6, 180)], "[8 13]"),
    "a VMA over several leaves": ([*DENSE, stored(20, 50, 101)], "[16 13 13 11]"),
    "one after the other": (
        [*APART, *map(stored, range(2, 60, 2))],
        "[[10 12 12 14 12] [12 14 14 14 16 13]]",
    ),
    "a hole over several inner nodes": (
        [*WIDE, stored(300, 260)],
        (
            "[[14 14 8 14 14 14 16 10 14] [14 16 16 16 14 8 12] [12 16 16 8 12] [8 10 8 14 16 14] "
            "[12 14 16 10 14 16] [10 14 8 10 14 16 14 16 9]]"
        ),
    ),
    "a VMA that ends where an inner node ends": (
        [*WIDE, stored(200, 79, 401)],
        (
            "[[14 14 8 14 14 14 16 10 14] [14 16 16 16 14 14 10 14] [14 12 16 14 16 10 12] [8 14 14 16 8 12] "
            "[16 14 16 16 14] [12 14 16 14 12 14 16 10 14 16] [10 14 8 10 14 16 14 16 9]]"
        ),
    ),
    "all": ([*APART, stored(0, 300)], "empty"),
}
"""Stores, and how many ranges each leaf has afterwards. The shapes are the kernel's."""


@pytest.mark.parametrize("what", SHAPES)
def test_stores_of_7_2_make_the_kernels_nodes(what: str) -> None:
    """Which entries share a node after splits, joins and stores over several leaves, by struct maple_copy's rules."""
    program, shape = SHAPES[what]
    tree = MapleModel(strategy("maple_copy"))
    tree.play(program)
    assert drawn(tree.nodes()) == shape


def test_a_store_that_ends_where_an_inner_node_ends() -> None:
    """It takes nothing of the next node in, before struct maple_copy either."""
    tree = MapleModel(strategy("maple_rcu"))
    tree.play(WIDE)
    ends = [node.high for node in tree.nodes() if node.kind != LEAF][1:]
    tree.store(Store(ends[2] + 1 - 60 * PAGE, ends[2], 401))
    assert drawn(tree.nodes()) == (
        "[[10 16 10 16 16 14 10 16 12] [10 10 14 12 16 14] [11 16 14 10 16 16 14 16 16 16] "
        "[10 16 12 14 16 10 8 16 14 10] [16 16 16 10 8 16 10 16 16 14] [10 10 16 10 16 10] [10 10 16 16 13]]"
    )
