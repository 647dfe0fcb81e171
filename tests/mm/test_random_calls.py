"""The model against the oracle: random calls, and after each one the same result, layout and flags, all invariants."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.programs import HEAP, STACK, Op, _addr, long_program
from support.space import BASE, PAGE, PMD, STRATEGIES, Kit

from benchframe.mm.machine import Machine
from benchframe.verify import oracle

FILES = ((0, 1 << 30, True), (1, 40 * PAGE + 5, True), (2, 24 * PAGE, False))
"""(number, size, open for writing)."""

pages = st.integers(0, 47)
counts = st.sampled_from([1, 1, 1, 2, 3, 4, 8, 16])
far = st.sampled_from([0, 0, 0, 0, 0, 500, 509, 1020])
"""Now and then near or over the end of a 2 MiB region."""
prots = st.sampled_from([3, 3, 3, 1, 7, 0, 2, 5])


places = st.builds(_addr, pages, far)
lengths = counts.map(lambda n: n * PAGE)
odd = st.sampled_from([0, 1, 4095, PAGE - 1, 1 << 47, 1 << 62])
mmaps = st.tuples(
    st.just("mmap"),
    places | st.just(0),
    lengths | odd,
    prots,
    st.sampled_from([0x32, 0x32, 0x32, 0x22, 0x31, 0x100022, 0x8032, 0x132, 0x4032, 0x2032, 0x20032, 0x33]),
)
file_mmaps = st.tuples(
    st.just("mmap"),
    places,
    lengths,
    prots,
    st.sampled_from([0x12, 0x12, 0x11, 2, 0x13, 0x8012, 0x112]),
    st.integers(0, 2),
    st.sampled_from([0, 0, 4, 16, 20]).map(lambda n: n * PAGE),
)
remaps = st.tuples(
    st.just("mremap"),
    places,
    lengths | st.sampled_from([0, PAGE * 40]),
    lengths | odd,
    st.sampled_from([0, 1, 1, 1, 3, 3, 5, 7, 2, 8]),
    places | st.just(0),
)
ADVICE = [0, 1, 2, 3, 4, 8, 9, 10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 102, 103, 99]
operations: st.SearchStrategy[Op] = st.one_of(
    mmaps,
    mmaps,
    file_mmaps,
    st.tuples(st.just("munmap"), places, lengths),
    st.tuples(st.just("munmap"), places, lengths | odd),
    st.tuples(st.just("mprotect"), places, lengths, prots),
    st.tuples(st.just("mprotect"), places, lengths | odd, prots | st.just(0x01000003)),
    remaps,
    st.tuples(st.just("brk"), st.integers(-2, 40).map(lambda n: HEAP + n * 1000)),
    st.tuples(st.just("madvise"), places, lengths, st.sampled_from(ADVICE)),
    st.tuples(st.just("mlock"), places, lengths),
    st.tuples(st.just("munlock"), places, lengths),
    st.tuples(st.just("fault"), places, st.sampled_from([1, 2, 2, 2, 4])),
    st.tuples(st.just("fault"), st.integers(-40, 4).map(lambda n: STACK + n * 7 * PAGE), st.sampled_from([1, 2])),
    st.tuples(st.just("fork")),
)
KEPT: dict[tuple[str, str], tuple[Kit, Any]] = {}


def fresh(name: str, engine: str, **parameters: int) -> Kit:
    """A space as new: one machine per strategy and engine, restored."""
    key = (name, f"{engine}{parameters}")
    if key not in KEPT:
        kit = Kit(name, engine, **parameters)
        for number, size, writable in FILES:
            kit.set_file(number, size, writable=writable)
        KEPT[key] = kit, kit.machine.save()
    kit, saved = KEPT[key]
    kit.machine.restore(saved)
    return kit


def run(kit: Kit, ops: list[Op], validate_each: bool = True) -> None:
    """Perform ``ops`` on the model and on the oracle; AssertionError at the first difference."""
    machine: Machine = kit.machine
    right = oracle(machine.parameters)
    for number, size, writable in FILES:
        right.set_file(number, size, True, writable)
    ours: Any = kit
    kit.exec(HEAP)
    right.start_brk = right.brk_now = HEAP
    for side in (ours, right):
        side.exec_map(STACK, 4 * PAGE, 3, 1 << 24)
    forks = 0
    for number, (name, *arguments) in enumerate(ops):
        if name == "fork":
            if forks < 3:
                ours, right, forks = ours.fork(), right.fork(), forks + 1
        else:
            got, wanted = getattr(ours, name)(*arguments), getattr(right, name)(*arguments)
            assert got == wanted, f"op {number} {name}{arguments}: {got:#x}, the oracle {wanted:#x}"
            if name == "fault":
                found, area = ours.find_vma(arguments[0], user=number % 2 == 0), right.find_vma(arguments[0])
                assert found == (None if area is None else (area.vm_start, area.vm_end))
        assert ours.layout() == right.layout(), f"op {number} {name}{arguments}"
        assert ours.layout_flags() == right.layout_flags(), f"op {number} {name}{arguments}"
        if validate_each:
            kit.validate()
    kit.validate()


@pytest.mark.parametrize("name", STRATEGIES)
@given(ops=st.lists(operations, min_size=1, max_size=40))
def test_native_agrees_with_oracle(name: str, ops: list[Op]) -> None:
    """Any program of calls, faults and forks, run by compiled code: results, layout, VmFlags as the oracle has them."""
    run(fresh(name, "native"), ops)


@pytest.mark.parametrize("name", STRATEGIES)
@given(ops=st.lists(operations, min_size=1, max_size=25))
def test_interpreted_agrees_with_oracle(name: str, ops: list[Op]) -> None:
    """The same by the interpreter, where an index outside a slab raises."""
    run(fresh(name, "interpreted"), ops)


@pytest.mark.parametrize("engine", ["native", "interpreted"])
@given(ops=st.lists(operations, min_size=8, max_size=25))
def test_agrees_at_the_map_count_limit(engine: str, ops: list[Op]) -> None:
    """With room for six VMAs most calls meet vm.max_map_count; errors and half-done work are the oracle's."""
    run(fresh("rbtree", engine, max_map_count=6), ops)


@pytest.mark.parametrize("engine", ["native", "interpreted"])
@given(ops=st.lists(operations, min_size=8, max_size=25))
def test_agrees_with_huge_pages(engine: str, ops: list[Op]) -> None:
    """Transparent huge pages by madvise: tables and anon_vmas differ, the answers follow."""
    run(fresh("rbtree", engine, thp=1), ops)


@pytest.mark.parametrize(("name", "seed"), list(zip(STRATEGIES, itertools.cycle("ab"), strict=False)))
def test_long_programs(name: str, seed: str) -> None:
    """A program of 900 calls on few pages, native: state that only builds up slowly is compared too."""
    run(fresh(name, "native"), long_program(seed, 900), validate_each=False)


def test_long_program_interpreted() -> None:
    """A shorter one with every invariant checked after each call, by the interpreter."""
    run(fresh("rbtree_gap", "interpreted"), long_program("c", 250))


@pytest.mark.parametrize("engine", ["native", "interpreted"])
def test_found_before(engine: str) -> None:
    """Programs on which the model was once wrong: a move that also shrinks may name a range beyond its VMA."""
    a, far_off = BASE, BASE + 2 * PMD
    shrinking = [("mmap", a, 2 * PAGE, 3, 0x32), ("mmap", a + 2 * PAGE, 2 * PAGE, 1, 0x32)]
    run(fresh("rbtree", engine), [*shrinking, ("mremap", a, 4 * PAGE, PAGE, 3, far_off)])
