"""One text, two engines: compiled and interpreted runs of the same stream leave every array bit for bit the same."""

from typing import Any

import numpy as np
import pytest
from support.programs import HEAP, STACK, Op, long_program
from support.space import BASE, PAGE, PMD, STRATEGIES, Kit, registry, strategy

from benchframe.engine.session import prepare
from benchframe.mm.machine import Machine, Sizes
from benchframe.runner import InterpretedRunner

OWN = ("hook_entry", "mapping_entry", "hook_mask")
"""What only a native run has in mm_struct."""
SPECIAL: list[Op] = [
    ("fault", STACK - 30 * PAGE, 2),
    ("fault", STACK - 90 * PAGE, 1),
    ("mmap", BASE + 8 * PMD, 2 * PMD, 3, 0x32),
    ("madvise", BASE + 8 * PMD, 2 * PMD, 14),
    ("fault", BASE + 8 * PMD + 5 * PAGE, 2),
    ("fault", BASE + 9 * PMD, 1),
    ("mprotect", BASE + 8 * PMD, PMD, 1),
    ("madvise", BASE + 9 * PMD, 4 * PAGE, 21),
    *[("fault", BASE + page * PAGE, 2) for page in range(0, 48, 3)],
    ("madvise", BASE, 48 * PAGE, 21),
    *[("fault", BASE + page * PAGE, 1 + page % 2) for page in range(0, 48, 6)],
    ("madvise", BASE, 48 * PAGE, 1000),
    *[("fault", BASE + page * PAGE, 2) for page in range(0, 48, 2)],
    ("fork",),
    *[("fault", BASE + page * PAGE, 2) for page in range(0, 48, 5)],
    ("fault", BASE + 8 * PMD + 7 * PAGE, 2),
    ("mremap", BASE, 4 * PAGE, 40 * PAGE, 1, 0),
    ("exit",),
]
"""Stack growth, huge pages, swap, NUMA hints, copy-on-write over fork, a move, the end of a child."""


def perform(kit: Kit, ops: list[Op]) -> list[Any]:
    """Every result."""
    current: Any = kit
    kit.exec(HEAP)
    kit.exec_map(STACK, 4 * PAGE, 3, 1 << 24)
    results = []
    for name, *arguments in ops:
        if name == "fork":
            current = kit.fork()
        else:
            results.append(getattr(current, name)(*arguments))
    return results


def assert_same(native: Machine, interpreted: Machine) -> None:
    """Every record of every slab, but for addresses of this process."""
    for base, ours in native.arrays.items():
        theirs = interpreted.arrays[base]
        for field in ours.dtype.names or ():
            if field.endswith("_base") or (base == "mm_base" and field in OWN):
                continue
            different = np.flatnonzero(ours[field] != theirs[field])
            assert not len(different), f"{base}[{different[0]}].{field}: {ours[field][different[0]]} natively"


@pytest.mark.parametrize("thp", [0, 1, 2])
@pytest.mark.parametrize("name", STRATEGIES)
def test_same_memory(name: str, thp: int) -> None:
    """After a program with every kind of call, fault and fork all arrays are equal, and so is each result."""
    ops = [*long_program(f"agree{thp}", 299), *SPECIAL]
    kits = [Kit(name, engine, seed=thp, thp=thp) for engine in ("native", "interpreted")]
    native, interpreted = (perform(kit, ops) for kit in kits)
    assert native == interpreted
    assert_same(kits[0].machine, kits[1].machine)
    for kit in kits:
        kit.validate()


@pytest.mark.parametrize("spec", ["zipf:vmas=40,events=400", "mmap-churn:vmas=40,events=150"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_same_replay(name: str, spec: str) -> None:
    """A whole stream replayed in one go: answers and memory are equal."""
    from support.space import runner

    trace = registry().spec(spec).trace(3)
    stream = prepare(trace.events)
    machines = []
    for engine in ("native", "interpreted"):
        machine = Machine(runner(name, engine), Sizes.of(trace.events), None, strategy(name).slabs)
        machine.arrays["event_base"][:] = stream.records
        machine.runner.replay(0, len(stream.records))
        machine.raise_if_full()
        machines.append(machine)
    assert (machines[0].arrays["answer_base"]["vma"] > 0).any()
    assert_same(machines[0], machines[1])


def test_an_index_outside_its_slab_is_an_error_when_interpreted() -> None:
    """What natively would be damage is an IndexError that names slab and index."""
    kit = Kit("rbtree")
    slot = kit.map(0, 2)
    kit.vma("rb_left")[slot] = 99999
    with pytest.raises(IndexError, match=r"VMA\(mm, 99999\): the slab has 1024 records"):
        kit.find_vma(BASE - PAGE)


def test_interpreted_runner_needs_a_machine() -> None:
    """Used before it is attached it says so."""
    with pytest.raises(RuntimeError, match="not attached"):
        InterpretedRunner(strategy("rbtree")).replay(0, 1)
