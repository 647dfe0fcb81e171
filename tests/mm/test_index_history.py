"""What sets the historic lookups apart: AVL rotations and threshold, vmacache's slots and number, maple's nodes."""

import itertools
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from support.programs import HEAP
from support.space import ALLOCATING, BASE, FIXED, PAGE, PMD, RW, RWX, SIZES, Kit, strategy

from benchframe.judge.trees import LEAF, model_nodes, watched
from benchframe.mm.flags import FAULT_MAPERR
from benchframe.mm.layout import ARENA_VMA
from benchframe.mm.machine import Machine, Parameters, Space
from benchframe.runner import InterpretedRunner
from benchframe_plugins.maple.node import ARENA_NODE, STORE_NODES

# ---- AVL -----------------------------------------------------------------------------------------------------------


def shape(kit: Kit) -> str:
    """The tree as text: ``(left node right)`` by page number / 2."""

    def text(node: int) -> str:
        if node == 0:
            return "."
        v = kit.machine.arrays["vma_base"][node]
        return f"({text(int(v['rb_left']))} {(int(v['vm_start']) - BASE) // (2 * PAGE)} {text(int(v['rb_right']))})"

    return text(int(kit.mm["mm_rb"]))


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
def test_avl_rotations(order: tuple[int, ...]) -> None:
    """Three VMAs in any order: the middle one is the root, by a single or a double rotation."""
    kit = Kit("avl")
    for number in order:
        kit.map(2 * number, 1)
    assert shape(kit) == "((. 1 .) 2 (. 3 .))"


def test_avl_erases_in_any_order() -> None:
    """Every insertion order of five VMAs, erased in another one: the invariants hold at each step."""
    kit = Kit("avl")
    for order in itertools.permutations(range(5)):
        for number in order:
            kit.map(2 * number, 1)
            assert kit.runner.hook("index_check") == 0, order
        for number in order[2:] + order[:2]:
            assert kit.unmap(2 * number, 1) == 0
            assert kit.runner.hook("index_check") == 0, order
        assert shape(kit) == "."


def test_avl_2_4_builds_a_tree_for_32() -> None:
    """31 VMAs are a list; the 32nd has the tree built; it stays until the last VMA is gone."""
    kit = Kit("avl_2_4")
    for number in range(31):
        kit.map(2 * number, 1)
    assert int(kit.mm["mm_rb"]) == 0
    kit.map(62, 1)
    assert int(kit.mm["mm_rb"]) != 0
    for number in range(31):
        kit.unmap(2 * number, 1)
        kit.validate()
    assert int(kit.mm["mm_rb"]) != 0
    kit.unmap(62, 1)
    assert int(kit.mm["mm_rb"]) == 0


# ---- vmacache ------------------------------------------------------------------------------------------------------


def slots(kit: Kit) -> list[int]:
    """The four slots of the space's task."""
    task = kit.machine.arrays["task_base"][kit.task + 1]
    return [int(task[f"vmacache{n}"]) for n in range(4)]


@pytest.mark.parametrize("name", ["vmacache", "vmacache_32"])
def test_vmacache_slot_by_page(name: str) -> None:
    """Pages 0 to 3 of one VMA hash to four slots; the first lookup of a new number only empties them."""
    kit = Kit(name)
    vma = kit.map(0, 4)
    kit.find_vma(BASE)
    kit.unmap(20, 1)  # nothing there: the number stays
    assert slots(kit) == [vma, 0, 0, 0]
    kit.map(8, 1)
    other = kit.at(8)
    kit.find_vma(BASE + 8 * PAGE)  # slot 0 too: the earlier one goes
    assert slots(kit) == [other, 0, 0, 0]
    for page in (1, 2, 3):
        kit.find_vma(BASE + page * PAGE)
    # Page 1 was a miss and went to slot 1, which then answered for pages 2 and 3.
    assert slots(kit) == [other, vma, 0, 0]


def test_a_probe_asks_for_the_mm_up_to_4_18() -> None:
    """WARN_ON_ONCE(vma->vm_mm != mm): `vmacache` reads what a slot holds once more, `vmacache_pmd` does not."""
    for name, asks in (("vmacache", True), ("vmacache_pmd", False)):
        kit = Kit(name)
        vma = kit.map(0, 4)
        kit.find_vma(BASE)
        assert kit.runner.hook("cache_find", kit.task + 1, BASE) == vma
        kit.vma("vm_mm")[vma] += 1
        assert kit.runner.hook("cache_find", kit.task + 1, BASE) == (0 if asks else vma)


def test_vmacache_slot_by_region() -> None:
    """Since 4.19 all pages of 2 MiB share a slot, the next region has the next one."""
    kit = Kit("vmacache_pmd")
    first, second = kit.map(0, 4), kit.map(512, 4)
    for page in (0, 1, 512, 513):
        kit.find_vma(BASE + page * PAGE)
    at = (BASE // PMD) % 4
    assert slots(kit)[at] == first
    assert slots(kit)[(at + 1) % 4] == second


def test_vmacache_number() -> None:
    """munmap and a merge that frees a VMA raise the number; a split, a growth and new flags do not."""
    kit = Kit("vmacache")

    def raised(call: Any) -> int:
        before = int(kit.mm["vmacache_seqnum"])
        call()
        return int(kit.mm["vmacache_seqnum"]) - before

    assert raised(lambda: kit.map(0, 8)) == 0
    assert raised(lambda: kit.map(8, 2)) == 0  # grows
    assert raised(lambda: kit.protect(2, 2, RWX)) == 0  # two splits
    assert raised(lambda: kit.protect(2, 2, RW)) == 2  # two VMAs are freed
    assert raised(lambda: kit.protect(0, 10, RWX)) == 0
    assert raised(lambda: kit.unmap(4, 1)) == 1
    assert raised(lambda: kit.unmap(40, 1)) == 0


def test_vmacache_32_wraps() -> None:
    """256 unmaps later another task's number is current again: its slots must be empty, not stale."""
    kit = Kit("vmacache_32")
    other = kit.thread()
    kit.map(0, 1)
    assert other.find_vma(BASE, user=True) == (BASE, BASE + PAGE)
    kit.unmap(0, 1)
    kit.map(0, 3, RWX)  # the freed record is taken again, with another range
    for _ in range(255):
        kit.map(10, 1)
        kit.unmap(10, 1)
    task = kit.machine.arrays["task_base"][other.task + 1]
    assert int(task["vmacache_seqnum"]) == int(kit.mm["vmacache_seqnum"])
    assert not any(int(task[f"vmacache{n}"]) for n in range(4))
    assert other.find_vma(BASE, user=True) == (BASE, BASE + 3 * PAGE)


# ---- maple ---------------------------------------------------------------------------------------------------------


def root(kit: Kit) -> tuple[int, list[int]]:
    """The root's reference and its 32 words."""
    enode = int(kit.mm["mm_rb"])
    words = kit.machine.arrays["private0_base"]["word"]
    return enode, words[(enode >> 8) * 32 : (enode >> 8) * 32 + 32].tolist()


@pytest.mark.parametrize("name", ["maple", "maple_rcu"])
def test_maple_leaf(name: str) -> None:
    """Two VMAs and three holes: inclusive pivots, slots from word 16, the count in the last word."""
    kit = Kit(name)
    first, second = kit.map(0, 2), kit.map(4, 1)
    enode, words = root(kit)
    assert enode & 0xFF == 1 << 3
    assert words[0] == 1
    ends = [BASE - 1, BASE + 2 * PAGE - 1, BASE + 4 * PAGE - 1, BASE + 5 * PAGE - 1, (1 << 62) - 1]
    assert words[1:16] == ends + [0] * 10
    assert words[16:31] == [0, first, 0, second] + [0] * 11
    assert words[31] == 4


def test_maple_replaces_nodes_for_readers() -> None:
    """A new range rewrites the leaf in 6.1, and takes a new node in RCU mode; a moved bound is one pivot."""
    for name, replaced in (("maple", False), ("maple_rcu", True)):
        kit = Kit(name)
        kit.map(0, 2)
        before, _ = root(kit)
        kit.map(2, 1)  # grows: in place
        assert root(kit)[0] == before
        kit.map(8, 1)
        after, _ = root(kit)
        assert (after != before) == replaced
        if replaced:
            words = kit.machine.arrays["private0_base"]["word"]
            assert int(words[(before >> 8) * 32]) >> 8 == before >> 8  # dead: its parent is itself


def test_maple_levels() -> None:
    """16 ranges are a leaf, one more VMA makes two; the root then is an arange_64 with the holes' sizes."""
    kit = Kit("maple")
    for number in range(8):  # with the holes around them 17 ranges
        assert root(kit)[0] & 0xFF in (0, 1 << 3)
        kit.map(2 * number, 1)
    enode, words = root(kit)
    assert enode & 0xFF == 3 << 3
    assert words[30] == 1
    assert words[20] == BASE
    assert words[21] > 1 << 60
    for number in range(7, 1, -1):
        kit.unmap(2 * number, 1)
        kit.validate()
    assert root(kit)[0] & 0xFF == 1 << 3


def leaves(kit: Kit) -> list[int]:
    """How many ranges each leaf of a tree of two levels has, by the kernel's rule for the end of a node."""
    enode, words = root(kit)
    assert enode & 0xFF == 3 << 3
    found = []
    for child in range(words[30] + 1):
        base = (words[10 + child] >> 8) * 32
        leaf = kit.machine.arrays["private0_base"]["word"][base : base + 32].tolist()
        top = words[1 + child] if child < words[30] else (1 << 62) - 1
        found.append(1 + (leaf[31] if leaf[15] == 0 else 14 if leaf[15] == top else 15))
    return found


@pytest.mark.parametrize(
    ("name", "step", "expected", "then"),
    [
        ("maple", 1, [16, 16, 16, 16, 16, 16, 16, 10, 7], [16, 10, 7]),
        ("maple", -1, [16, 14, 14, 14, 14, 14, 14, 14, 15], [16, 8, 9]),
        ("maple_copy", 1, [16, 16, 16, 16, 16, 16, 16, 8, 9], [16, 8, 9]),
        ("maple_copy", -1, [16, 14, 14, 14, 14, 14, 14, 14, 15], [16, 8, 9]),
    ],
)
def test_maple_fills_a_sibling_before_it_splits(name: str, step: int, expected: list[int], then: list[int]) -> None:
    """mas_push_data: filled in order, up or down, its leaves are full, where a B-tree's are half empty; 7.2 halves what
    two leaves have (split_data). So too where they are joined again, as one VMA after the other goes."""
    kit = Kit(name)
    for number in range(64)[::step]:
        kit.map(2 * number, 1)
        kit.validate()
    assert leaves(kit) == expected
    for number in range(10, 58):
        kit.unmap(2 * number, 1)
        kit.validate()
    assert leaves(kit) == then


@pytest.mark.parametrize(("name", "child"), [("maple", [15, 15, 10, 15]), ("maple_rcu", [15, 15, 9, 16])])
def test_fork_stores_in_bulk_or_copies(name: str, child: list[int]) -> None:
    """40 VMAs, three at a time without a hole: 6.1's bulk mode leaves other leaves than the parent's, a copy the same
    (lib/maple_tree.c of 6.1 and 6.12 does so)."""
    kit = Kit(name)
    for number in range(40):
        kit.map(number + number // 3, 1, (RW, RWX)[number % 2])
    assert kit.fork().layout() == kit.layout()
    arrays = kit.machine.arrays
    for record, expected in enumerate(([15, 15, 9, 16], child), 1):
        nodes = model_nodes(arrays["private0_base"]["word"], int(arrays["mm_base"][record]["mm_rb"]))
        assert [len(node.items) for node in nodes if node.kind == LEAF] == expected
    kit.validate()


def maple_stores(*calls: Callable[[Space], int]) -> list[tuple[int, int, bool]]:
    """The stores that the last call makes in a maple tree: first and last page from BASE, and whether a VMA is
    stored."""
    maple, watch = strategy("maple"), Mock()
    runner = InterpretedRunner(maple, replace=watched(maple, lambda: machine.arrays, watch))
    machine = Machine(runner, SIZES, Parameters(), maple.slabs)
    space = Space(machine)
    for call in calls:
        watch.reset_mock()
        assert call(space) >= 0
    seen = [call.args[1] for call in watch.seen.call_args_list]
    assert runner.hook("index_check") == 0
    return [((one.first - BASE) // PAGE, (one.last - BASE) // PAGE, one.entry != 0) for one in seen]


def maps(first: int, count: int) -> Callable[[Space], int]:
    """mmap of pages."""
    return lambda space: space.mmap(BASE + first * PAGE, count * PAGE, RW, FIXED)


def unmaps(first: int, count: int) -> Callable[[Space], int]:
    """munmap of pages."""
    return lambda space: space.munmap(BASE + first * PAGE, count * PAGE)


def protects(first: int, count: int, prot: int = RWX) -> Callable[[Space], int]:
    """mprotect of pages."""
    return lambda space: space.mprotect(BASE + first * PAGE, count * PAGE, prot)


@pytest.mark.parametrize(
    ("calls", "stores"),
    [
        ((maps(0, 6), protects(2, 2)), [(0, 1, True), (4, 5, True)]),
        ((maps(0, 6), unmaps(2, 2)), [(2, 5, True), (2, 3, True), (2, 3, False)]),
        ((maps(0, 2), maps(3, 1), maps(5, 2), unmaps(0, 8)), [(0, 7, False)]),
        ((maps(0, 6), protects(2, 2), protects(2, 2, RW)), [(0, 5, True)]),
        ((maps(0, 6), protects(0, 3), protects(3, 1)), [(0, 3, True)]),
        ((maps(0, 6), protects(4, 2), protects(3, 1)), [(3, 5, True)]),
        ((maps(0, 2), maps(4, 2), maps(2, 2)), [(0, 5, True)]),
    ],
)
def test_maple_stores_what_mm_vma_c_stores(
    calls: tuple[Callable[[Space], int], ...], stores: list[tuple[int, int, bool]]
) -> None:
    """A cut is one store, of the new VMA (vma_complete); a munmap one more, of NULL (vma_iter_clear_gfp); a merge, also
    one that shrinks a neighbour, is the survivor's store (commit_merge)."""
    assert maple_stores(*calls) == stores


@pytest.mark.parametrize(
    ("call", "refused", "granted"),
    [
        (lambda kit: kit.protect(2, 2, RWX), -12, 0),
        (lambda kit: kit.unmap(2, 2), -12, 0),
        (lambda kit: kit.unmap(0, 6), -12, 0),
        (lambda kit: kit.mmap(BASE + 6 * PAGE, PAGE, RW, FIXED), -12, BASE + 6 * PAGE),
        (lambda kit: kit.madvise(BASE + 2 * PAGE, PAGE, 10), -11, 0),
        (lambda kit: kit.mmap(BASE + 9 * PAGE, PAGE, RW, FIXED), -12, BASE + 9 * PAGE),
        (lambda kit: kit.mremap(BASE, PAGE, PAGE, 3, BASE + 9 * PAGE), -12, BASE + 9 * PAGE),
        (lambda kit: kit.brk(HEAP + PAGE), HEAP, HEAP + PAGE),
        (lambda kit: kit.fault(BASE + 398 * PAGE, 2), FAULT_MAPERR, 0),
    ],
    ids=["mprotect", "munmap", "munmap of all", "merge", "madvise", "mmap", "mremap", "brk", "stack"],
)
def test_a_store_without_memory_changes_nothing(call: Callable[[Kit], int], refused: int, granted: int) -> None:
    """mas_preallocate fails, for the slab of nodes has 27 left: -ENOMEM (madvise: -EAGAIN), brk stays, a stack does not
    grow; VMAs and tree are as before. With one node more the same call does it."""
    kit = Kit("maple_rcu")
    kit.map(0, 6)
    assert kit.brk(HEAP) == HEAP
    kit.map(400, 1, flags=FIXED | 0x100)
    arena = kit.machine.arrays["slab_base"][ARENA_NODE]
    arena["capacity"] = arena["top"] - arena["free"] + STORE_NODES - 1
    before, nodes, free = kit.layout(), root(kit), int(kit.machine.arrays["slab_base"][ARENA_VMA]["live"])
    assert call(kit) == refused
    assert (kit.layout(), root(kit)) == (before, nodes)
    assert int(kit.machine.arrays["slab_base"][ARENA_VMA]["live"]) == free
    kit.validate()
    arena["capacity"] += 1
    assert call(kit) == granted
    assert kit.layout() != before
    kit.validate()


def test_maple_joins_a_leaf_of_six() -> None:
    """Seven ranges are the least (mt_min_slots, 6, is compared with the last slot's number): with six it is joined."""
    kit = Kit("maple")
    for number in range(9):
        kit.map(2 * number, 1)
    assert leaves(kit) == [10, 9]
    kit.unmap(2, 1)
    assert leaves(kit) == [8, 9]
    kit.protect(4, 1, RWX)
    kit.unmap(4, 1)
    assert root(kit)[0] & 0x78 == 1 << 3  # 6 + 9: one leaf again


# ---- presets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "same"),
    [
        ("linux-2.6.32", "mmap_cache"),
        ("linux-3.15", "vmacache"),
        ("linux-5.10", "vmacache_pmd"),
        ("linux-6.1", "maple"),
    ],
)
def test_a_kernel_is_the_strategy_of_its_time(kernel: str, same: str) -> None:
    """Hook for hook the same functions, but for where objects come from."""
    theirs = strategy(kernel).binding
    assert {hook: made for hook, made in theirs.items() if hook not in ALLOCATING} == strategy(same).binding


def test_linux_2_4_0_faults_one_at_a_time() -> None:
    """mmap_sem was a mutex until 2.4.3: what a fault takes keeps the next one out. All else is avl_2_4."""
    mine, later = strategy("linux-2.4.0").binding, strategy("avl_2_4").binding
    assert {name for name in mine if mine[name] is not later.get(name)} == {"mmap_read_lock", "mmap_read_unlock"}
    for name, alone in (("linux-2.4.0", True), ("avl_2_4", False)):
        kit = Kit(name)
        kit.runner.hook("mmap_read_lock", 1)
        assert (int(kit.mm["mmap_lock"]) != 1) == alone  # one reader is 1
        kit.runner.hook("mmap_read_unlock", 1)
        assert int(kit.mm["mmap_lock"]) == 0


def test_linux_3_10_is_a_combination() -> None:
    """The tree of 3.8 behind the cache of 2.2."""
    mine = strategy("linux-3.10").binding
    assert mine["index_gap_below"] is strategy("rbtree_gap").binding["index_gap_below"]
    assert mine["cache_find"] is strategy("mmap_cache").binding["cache_find"]
