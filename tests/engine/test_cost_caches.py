"""Misses of caches in the cost engine: against a naive simulation, and against the count of distinct lines."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.space import registry, runner, strategy
from typer.testing import CliRunner

from benchframe.cli import app
from benchframe.engine.caches import L2, LINE, LLC, MEMORY, PAGE, PROGRAM, ROOM, Caches
from benchframe.engine.cost import count_cost
from benchframe.engine.cost.hierarchy import TERMS, WINDOW, CacheSizes, CriticalPath, Hierarchy
from benchframe.engine.cost.records import (
    ATOMIC,
    BRANCH,
    COUNTED,
    ENTER,
    EVENT,
    LEAVE,
    LINE_SHIFT,
    LOAD,
    LOW,
    SHIFT,
    STORE,
    Region,
)
from benchframe.mm.hooks import COUNT_HIT
from benchframe.mm.replay import CLASS_FAULT, CLASS_LOOKUP, CLASS_MAPPING

TINY = CacheSizes("tiny", (2, 4, 8), (2, 2, 4))
ENDLESS = CacheSizes("endless", (2, 4, 0), (2, 2, 16))
MILAN = CacheSizes("milan-2s", (64, 1024, 0), (8, 8, 16))
LINES = 64
STATES = [Caches(), Caches(L2, 64), Caches(LLC, 64), Caches(MEMORY, 64), Caches(PROGRAM, 200)]


def naive(records: Sequence[int], sizes: CacheSizes, asked: Caches, other: int) -> list[tuple[int, int]]:
    """What :class:`Hierarchy` does, in plain Python with lists: (line, levels missed) of each access."""
    contents: list[dict[int, list[int]]] = [{}, {}, {}]
    at, emptied, found = 0, False, []
    lines = -(-asked.touched // LINE) if asked.level == PROGRAM else 0
    room = max(ROOM, 2 * lines * LINE) // LINE
    step = max(PAGE, asked.touched // 2 // PAGE * PAGE) // LINE

    def missed(line: int) -> int:
        for number, (sets, ways) in enumerate(zip(sizes.sets, sizes.ways, strict=True)):
            here = contents[number].setdefault(line % sets if sets else 0, [])
            had = line in here
            if sets == 0 and not had and not emptied:
                had = True
            if line in here:
                here.remove(line)
            here.insert(0, line)
            if sets:
                del here[ways:]
            if had:
                return number
        return len(contents)

    for value in records:
        kind, low = value >> SHIFT, value & LOW
        if kind == EVENT:
            for number in range({L2: 1, LLC: 2, MEMORY: 3}.get(asked.level, 0)):
                contents[number].clear()
                emptied |= number == 2
            for line in range(other + at, other + at + lines):
                missed(line)
            at = at + step if at + step <= room - lines else 0
        elif kind <= ATOMIC:
            found.append((low >> LINE_SHIFT, missed(low >> LINE_SHIFT)))
    return found


operation = st.tuples(
    st.sampled_from([CLASS_FAULT, CLASS_LOOKUP, CLASS_MAPPING]),
    st.lists(st.tuples(st.sampled_from([LOAD, STORE, ATOMIC]), st.integers(0, LINES - 1), st.booleans()), max_size=30),
)


@pytest.mark.parametrize("sizes", [TINY, ENDLESS], ids=lambda sizes: sizes.machine)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.level)
@given(operations=st.lists(operation, min_size=1, max_size=12))
@settings(max_examples=30, deadline=None)
def test_misses_are_those_of_a_naive_simulation(sizes: CacheSizes, state: Caches, operations: list[Any]) -> None:
    """Random operations on 64 lines of two structures, in two batches: misses by view, level and structure."""
    regions = [Region("mm", "", 0, 16, 1, 64), Region("vma", "", 16, 48, 3, 192)]
    memory: Any = SimpleNamespace(regions=regions, lines=LINES)
    tested = Hierarchy(memory, sizes, state)
    records, views = [], []
    for kind, accesses in operations:
        batch = [(EVENT << SHIFT) + kind]
        for what, line, inside in accesses:
            access = (what << SHIFT) + line * LINE + 8
            batch += [ENTER << SHIFT, access, LEAVE << SHIFT] if inside else [access]
            lookup = kind == CLASS_LOOKUP or (kind == CLASS_FAULT and inside)
            where = {"mapping"} if kind == CLASS_MAPPING else {"lookup"} if lookup else set()
            views.append(where | ({"fault"} if kind == CLASS_FAULT else set()))
        tested.add(np.array(batch))
        records += batch
    found = tested.numbers()
    expected: dict[str, int] = {}
    for (line, missed), where in zip(naive(records, sizes, state, LINES), views, strict=True):
        for level in ("l1", "l2", "llc")[:missed]:
            for view in where:
                for key in (f"{view}.missed_{level}", f"{view}.missed_{level}.{'mm' if line < 16 else 'vma'}"):
                    expected[key] = expected.get(key, 0) + 1
    kinds = [kind for kind, _ in operations]
    n = {"mapping": kinds.count(CLASS_MAPPING), "fault": kinds.count(CLASS_FAULT)}
    n["lookup"] = len(kinds) - n["mapping"]
    ours = {key: round(value * n[key.partition(".")[0]]) for key, value in found.items() if value}
    assert ours == expected


def test_with_empty_caches_every_line_misses() -> None:
    """What the engine counts as distinct lines, by another piece of code: with all levels empty each misses once."""
    runner("rbtree", "native")
    trace = registry().spec("mmap-churn:vmas=40,events=600").trace(1)
    states = [Caches(), Caches(MEMORY, 1 << 20)]
    found, again = (count_cost(strategy("rbtree"), trace, caches=states, sizes=MILAN) for _ in range(2))
    assert found.misses == again.misses
    (_, warm), (_, cold) = found.misses
    for view in ("lookup", "fault", "mapping"):
        assert cold[f"{view}.missed_llc"] == pytest.approx(found.numbers[f"{view}.lines"], rel=1e-12)
        assert warm[f"{view}.missed_llc"] == 0
        assert warm[f"{view}.missed_l1"] < cold[f"{view}.missed_l1"]
    plain = count_cost(strategy("rbtree"), trace)
    assert plain.misses == ()
    assert plain.numbers == found.numbers


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--caches", "l4"], "--caches l4"),
        (["--caches", "llc", "--machine", "nowhere"], "there is no machine 'nowhere'"),
    ],
)
def test_a_wrong_word_is_an_error(words: list[str], told: str) -> None:
    """A state or a machine that does not exist: exit code 2, before anything is counted."""
    done = CliRunner().invoke(app, ["cost", "-s", "rbtree", "-w", "zipf", *words])
    assert done.exit_code == 2
    assert told in done.stderr


# ---- the critical path ----

UNITS = dict(zip(TERMS, (1.0, 100.0, 10.0, 5.0, 20.0, 50.0, 200.0), strict=True))
"""ns: a record enters in 1, a load takes 5, 25 from L2, 55 from the last level."""
LOOKUP, FAULT = (EVENT << SHIFT) + CLASS_LOOKUP, (EVENT << SHIFT) + CLASS_FAULT
MISPREDICTED = (BRANCH << SHIFT) + 2
"""A branch that is not taken, which nobody has seen before."""


def load(line: int, what: int = LOAD) -> int:
    """The record of an access."""
    return (what << SHIFT) + line * LINE


def path(*records: int, view: str = "lookup", chosen: Sequence[int] = (1, 0), state: Caches = STATES[0]) -> list[float]:
    """The path of the timed operations; mm has lines 0 to 15, a node four lines from 16 on, page tables 40 to 63."""
    regions = [Region("mm", "", 0, 16, 1, 64), Region("node", "", 16, 24, 4, 256), Region("pte", "", 40, 24, 4, 8)]
    memory: Any = SimpleNamespace(regions=regions, lines=LINES)
    tested = CriticalPath(memory, MILAN, state, UNITS, np.array(chosen))
    tested.add(np.array([*records, LOOKUP]), 0)
    found = tested.numbers()
    return [found[f"{view}.path.{name}"] for name in TERMS]


def test_a_lookup_waits_for_its_chain() -> None:
    """Two lines of a node are loaded side by side, the next node after them, and the branch after all: its path has the
    two records that entered before the later line, two loads from the last level, and itself. A node may be found in a
    page table, so it waits for that; a table's entry does not wait for a node, nor anything for a load without need."""
    nodes = load(16), load(17), load(20)
    assert path(LOOKUP, *nodes, MISPREDICTED) == [2, 1, 0, 2, 0, 2, 0]
    assert path(LOOKUP, *nodes) == [3, 0, 0, 0, 0, 0, 0]
    assert path(LOOKUP, load(40), *nodes, load(44), MISPREDICTED) == [1, 1, 0, 3, 0, 3, 0]
    assert path(LOOKUP, *nodes, load(44), MISPREDICTED)[3] == 2
    # the same line again waits for the line that is on its way, and no longer
    assert path(LOOKUP, load(16), load(16), MISPREDICTED) == [1, 1, 0, 1, 0, 1, 0]


def test_stores_and_atomics_on_the_path() -> None:
    """Nothing waits for a store; an atomic operation is waited for as a load, and takes its own time."""
    assert path(LOOKUP, load(16, STORE), MISPREDICTED) == [2, 1, 0, 0, 0, 0, 0]
    assert path(LOOKUP, load(0, ATOMIC), MISPREDICTED) == [1, 1, 1, 1, 0, 1, 0]


def test_a_full_window_waits() -> None:
    """A record cannot enter before the one WINDOW before has left, which waits for a load from memory."""
    few, many = ([(BRANCH << SHIFT) + 3] * n for n in (WINDOW - 1, WINDOW + 9))
    state = Caches(MEMORY, 64)
    assert path(LOOKUP, load(16), *few, state=state) == [WINDOW, 0, 0, 0, 0, 0, 0]
    assert path(LOOKUP, load(16), *many, state=state) == [1 + 10, 0, 0, 1, 0, 0, 1]


def test_a_path_is_the_lookups_alone() -> None:
    """What a fault does outside its lookup is in the replay with known answers too; hits have a path of their own; in a
    cold replay the events between two timed ones leave their lines in the caches."""
    inside = ENTER << SHIFT, load(16), MISPREDICTED, LEAVE << SHIFT
    outside = load(40), (BRANCH << SHIFT) + 4
    assert path(FAULT, *inside, *outside) == path(FAULT, *inside)
    hit = (COUNTED << SHIFT) + COUNT_HIT
    two = FAULT, *inside, FAULT, ENTER << SHIFT, hit, load(16), (BRANCH << SHIFT) + 6, LEAVE << SHIFT
    assert path(*two, view="hit", chosen=(1, 1, 0))[3:6] == [1, 0, 0]
    program = Caches(PROGRAM, 64 << 10)
    assert path(LOOKUP, load(16), LOOKUP, load(16), MISPREDICTED, chosen=(0, 1, 0), state=program)[4:6] == [1, 0]
