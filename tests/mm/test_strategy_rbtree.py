"""The red-black tree: each rotation's shape, every line of both rebalancing functions, the gap search."""

import dis
import itertools
import random
import sys
from types import FrameType
from typing import Any

import pytest
from support.space import ANON, BASE, PAGE, PMD, Kit, R

from benchframe.verify import oracle
from benchframe_plugins import rbtree as balance


def shape(kit: Kit) -> str:
    """The tree as text: ``(left node right)``, B or R behind a node's page number."""

    def text(node: int) -> str:
        if node == 0:
            return "."
        v = kit.machine.arrays["vma_base"][node]
        page = (int(v["vm_start"]) - BASE) // (2 * PAGE)
        color = "B" if v["rb_parent_color"] & 1 else "R"
        return f"({text(int(v['rb_left']))} {page}{color} {text(int(v['rb_right']))})"

    return text(int(kit.mm["mm_rb"]))


def insert(kit: Kit, *numbers: int) -> None:
    """VMAs that do not touch, in this order."""
    for number in numbers:
        kit.map(2 * number, 1)
        assert kit.runner.hook("index_check") == 0, f"after {number}: {shape(kit)}"


def erase(kit: Kit, *numbers: int) -> None:
    """Take them away in this order."""
    for number in numbers:
        assert kit.unmap(2 * number, 1) == 0
        assert kit.runner.hook("index_check") == 0, f"after {number}: {shape(kit)}"


@pytest.fixture(params=["rbtree", "rbtree_gap"])
def kit(request: pytest.FixtureRequest) -> Kit:
    """Both trees: one text."""
    return Kit(request.param)


@pytest.mark.parametrize("order", [(3, 2, 1), (3, 1, 2), (1, 2, 3), (1, 3, 2)])
def test_insert_rotations(kit: Kit, order: tuple[int, ...]) -> None:
    """Left-left, left-right, right-right, right-left: the middle one becomes the black root."""
    insert(kit, *order)
    assert shape(kit) == "((. 1R .) 2B (. 3R .))"


@pytest.mark.parametrize(
    ("last", "shaped"), [(1, "(((. 1R .) 2B .) 3B (. 4B .))"), (5, "((. 2B .) 3B (. 4B (. 5R .)))")]
)
def test_insert_under_a_red_uncle(kit: Kit, last: int, shaped: str) -> None:
    """Only colours change, and the root stays black."""
    insert(kit, 3, 2, 4, last)
    assert shape(kit) == shaped


ERASE = {
    "far nephew red, right": ((2, 1, 3, 4), (1,), "((. 2B .) 3B (. 4B .))"),
    "far nephew red, left": ((3, 2, 4, 1), (4,), "((. 1B .) 2B (. 3B .))"),
    "near nephew red, right": ((2, 1, 4, 3), (1,), "((. 2B .) 3B (. 4B .))"),
    "near nephew red, left": ((3, 1, 4, 2), (4,), "((. 1B .) 2B (. 3B .))"),
    "both nephews black": ((2, 1, 3, 4), (4, 1), "(. 2B (. 3R .))"),
    "sibling red, right": ((2, 1, 4, 3, 5, 6), (6, 1), "((. 2B (. 3R .)) 4B (. 5B .))"),
    "sibling red, left": ((5, 6, 3, 4, 2, 1), (1, 6), "((. 2B .) 3B ((. 4R .) 5B .))"),
    "two children, successor is the child": ((2, 1, 3, 4), (2,), "((. 1B .) 3B (. 4B .))"),
    "two children, successor deeper": ((2, 1, 5, 4, 6, 3), (2,), "((. 1B .) 3B ((. 4B .) 5R (. 6B .)))"),
}


@pytest.mark.parametrize("case", ERASE)
def test_erase_cases(kit: Kit, case: str) -> None:
    """Each picture in the docstring of rb_erase_color, from the smallest tree that leads to it."""
    order, gone, shaped = ERASE[case]
    insert(kit, *order)
    erase(kit, *gone)
    assert shape(kit) == shaped
    kit.validate()


def test_all_orders_of_five(kit: Kit) -> None:
    """Every insertion order of five VMAs, each erased in another order: the invariants hold at every step."""
    saved = kit.machine.save()
    orders = list(itertools.permutations(range(5)))
    for number, order in enumerate(orders):
        insert(kit, *order)
        erase(kit, *orders[(7 * number + 1) % len(orders)])
        assert kit.mm["mm_rb"] == 0
        kit.machine.restore(saved)


def test_random_orders_reach_every_line() -> None:
    """Random orders of twenty VMAs execute each line of both rebalancing functions and of both rotations."""
    functions = (balance.rb_insert_color, balance.rb_erase_color, balance.rb_rotate_left, balance.rb_rotate_right)
    codes = {f.__code__ for f in functions}
    wanted = {
        (c.co_name, line) for c in codes for _, line in dis.findlinestarts(c) if line and line > c.co_firstlineno + 1
    }
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code not in codes:
            return None
        if event == "line":
            seen.add((frame.f_code.co_name, frame.f_lineno))
        return trace

    kit, draw = Kit("rbtree"), random.Random(5)
    old = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in range(12):
            numbers = list(range(20))
            draw.shuffle(numbers)
            insert(kit, *numbers)
            draw.shuffle(numbers)
            erase(kit, *numbers)
    finally:
        sys.settrace(old)
    assert wanted - seen == set()


@pytest.mark.parametrize("engine", ["native", "interpreted"])
@pytest.mark.parametrize("seed", range(3))
def test_gap_search_gives_the_same_addresses(engine: str, seed: int) -> None:
    """rbtree_gap descends, rbtree walks the list with its memory: always the same place, also beside stacks."""
    draw = random.Random(seed)
    small = {"stack_guard_gap": 3 * PAGE, "mmap_base": BASE + PMD}
    plain, gaps = (Kit(name, engine, **small) for name in ("rbtree", "rbtree_gap"))
    right = oracle(plain.machine.parameters)
    mapped: list[tuple[int, int]] = []
    for number in range(220):
        length = draw.choice([1, 1, 2, 3, 7]) * PAGE
        if mapped and draw.random() < 0.35:
            addr, size = mapped.pop(draw.randrange(len(mapped)))
            assert plain.munmap(addr, size) == gaps.munmap(addr, size) == right.munmap(addr, size) == 0
            continue
        flags = ANON | (0x100 if draw.random() < 0.15 else 0)
        hint = BASE + draw.randrange(512) * PAGE if draw.random() < 0.3 else 0
        plain_at, gaps_at, right_at = (
            kit.mmap(hint, length, R + 2 * (number % 2), flags) for kit in (plain, gaps, right)
        )
        assert plain_at == gaps_at == right_at > 0, f"call {number}"
        mapped.append((right_at, length))
        if number % 10 == 0:
            gaps.validate()
    assert plain.layout() == gaps.layout() == right.layout()
    plain.validate()
    gaps.validate()


def test_gap_memory_stays_exact() -> None:
    """The list walk's memory (hole_hint, hole_size) never hides a hole: after each munmap the search sees it."""
    kit = Kit("rbtree")
    top = kit.machine.parameters.mmap_base
    for count in (8, 4, 2, 1):
        assert kit.mmap(0, count * PAGE, 3 if count in (8, 2) else 1, ANON) > 0
    for addr, length in ((top - 2 * PAGE, 1), (top - 7 * PAGE, 3), (top - 12 * PAGE, 4)):
        assert kit.munmap(addr, length * PAGE) == 0
        assert kit.mmap(0, length * PAGE, 5, ANON) == addr
    assert kit.mmap(0, PAGE, 7, ANON) == top - 16 * PAGE
    kit.validate()
