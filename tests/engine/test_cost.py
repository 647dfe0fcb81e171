"""The cost engine: counts by hand, against proxies, the same in every process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.counting import numbers, replay
from support.space import registry, runner, strategy

from benchframe.api import native
from benchframe.dialect.interpreter import PlainWorld, dejit, proxy_class
from benchframe.dialect.records import DialectError, Slab
from benchframe.engine import cost as count
from benchframe.engine.cost.records import ATOMIC, BARRIER, BRANCH, LOAD, OPERAND, SHIFT, STORE
from benchframe.engine.cost.rewrite import Translator
from benchframe.kernel import ARENA_PRIVATE0, MM, NULL, PAGE, VMA, fetch_add, smp_mb
from benchframe.mm.replay import one_event

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "cost_python_json.json"
NAMES = ("rbtree", "pmdcache", "maple", "vmacache")


# ---- what is counted ----


class Watched(PlainWorld):
    """Proxies that note every access: (kind, slab base, field, index)."""

    def __init__(self, arrays: Any) -> None:
        super().__init__(arrays)
        self.seen: list[tuple[int, str, str, int]] = []

    def _prepare(self, slab: Slab) -> Any:
        _, columns, count = super()._prepare(slab)
        names = list(slab.struct.fields)

        def get(column: int) -> Any:
            def load(ref: Any) -> int:
                self.seen.append((LOAD, slab.base, names[column], ref.index))
                return int(ref._columns[column][ref.index])

            return load

        def put(column: int) -> Any:
            def store(ref: Any, value: int) -> None:
                self.seen.append((STORE, slab.base, names[column], ref.index))
                ref._columns[column][ref.index] = value

            return store

        prepared = (proxy_class(slab.struct, get, put), columns, count)
        self._slabs[slab.base] = prepared
        return prepared

    def rmw(self, ref: Any, field: str, operation: str, value: int, ordering: str = "full") -> int:
        before = len(self.seen)
        old = super().rmw(ref, field, operation, value)
        self.seen[before:] = [(ATOMIC, ref.slab.base, field, ref.index)]
        return old

    def cmpxchg(self, ref: Any, field: str, old: int, new: int, ordering: str = "full") -> int:
        before = len(self.seen)
        found = super().cmpxchg(ref, field, old, new)
        self.seen[before:] = [(ATOMIC, ref.slab.base, field, ref.index)]
        return found

    def wait_then_add(self, ref: Any, field: str, mask: int, delta: int) -> int:
        before = len(self.seen)
        old = super().wait_then_add(ref, field, mask, delta)
        self.seen[before:] = [(ATOMIC, ref.slab.base, field, ref.index)]
        return old


@pytest.mark.parametrize("spec", ["zipf:vmas=40,events=150,faults=1,writes=0.2", "mmap-churn:vmas=30,events=60"])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_accesses_as_proxies_see(name: str, spec: str) -> None:
    """The rewritten text leaves, access by access, what an independent world behind the original text notes."""
    counted, watched = replay(name, spec), replay(name, spec)
    world = Watched(watched.machine.arrays)
    binding = strategy(name).binding
    interpreted = dejit(one_event, {**binding, "count": _count_nothing}, binding)
    memory = counted.memory
    by_base = {region.base: region for region in memory.regions}
    slabs = {slab.base: slab for slab in (MM, VMA, PAGE, *strategy(name).slabs)}
    records: list[int] = counted._records
    counted._flush = lambda first, last: None  # type: ignore[method-assign]
    for index in range(counted.first, counted.last):
        records.clear()
        counted.count(index, index + 1)
        ours = [r for r in records if r >> SHIFT <= ATOMIC]
        world.seen.clear()
        interpreted(world.ref(MM, 1), index)
        theirs = []
        for kind, base, field, number in world.seen:
            slab = world_slab(slabs, base, world)
            if base in by_base and memory.counts(slab, field):
                place = by_base[base].first * 64 + number * slab.struct.size + slab.struct.offset(field)
                theirs.append((kind << SHIFT) + place)
        assert sorted(ours) == sorted(theirs), f"event {index}"


def world_slab(slabs: dict[str, Slab], base: str, world: Watched) -> Slab:
    """The slab at ``base``; those of the model that are not named above are found by their struct."""
    from benchframe.mm import layout

    if base not in slabs:
        slabs[base] = next(s for s in vars(layout).values() if isinstance(s, Slab) and s.base == base)
    return slabs[base]


@native
def _count_nothing(mm, task, what):  # type: ignore[no-untyped-def]
    """No books."""
    return 0


@pytest.mark.parametrize("name", NAMES)
def test_counting_changes_nothing(name: str) -> None:
    """After a counted replay the memory is what a compiled replay leaves, but for the model's own words."""
    spec = "mmap-churn:vmas=40,events=300"
    counted, compiled = replay(name, spec), replay(name, spec)
    counted.run(0)
    compiled.runner.timed(compiled.first, compiled.last)
    for base, ours in counted.machine.arrays.items():
        theirs = compiled.machine.arrays[base]
        for field in ours.dtype.names or ():
            if base == "answer_base" or (base == "mm_base" and field.startswith(("replay_", "clock_", "hook_"))):
                continue
            if base == "mm_base" and field.endswith(("_base", "_entry")):
                continue
            np.testing.assert_array_equal(ours[field], theirs[field], f"{base}.{field}")


@native
def _sample(mm, vma, other):  # type: ignore[no-untyped-def]
    """One of everything."""
    v = VMA(mm, vma)
    if v.vm_start == 0 and v.vm_end == 0:
        return 0
    while v.vm_next != NULL:
        v = VMA(mm, v.vm_next)
    for i in range(2):
        v.vm_pgoff += i
    fetch_add(mm, "mmap_lock", 1)
    smp_mb()
    VMA(mm, other).vm_start, mm.mm_rb = v.vm_end, vma
    return 1 if v.vm_start else 2


def test_by_hand() -> None:
    """Loads, stores, atomics, branches and operands of a small function, counted on paper."""
    one = replay("rbtree", "uniform:vmas=6,events=1")
    records: list[int] = []
    translator = Translator(one.memory, strategy("rbtree").binding, records.append)
    vma = one.machine.arrays["vma_base"]
    vma[40]["vm_start"], vma[40]["vm_end"], vma[40]["vm_next"] = 5, 0, 41
    vma[41]["vm_start"], vma[41]["vm_end"], vma[41]["vm_next"] = 0, 99, 0
    before = int(one.machine.mm(0)["mmap_lock"])
    assert translator.function(_sample, (MM, None, None))(1, 40, 42) == 2
    kinds = np.bincount([r >> SHIFT for r in records], minlength=8).tolist()
    # vm_start; vm_next, vm_next, vm_next; vm_pgoff twice; vm_end; vm_start
    assert kinds[LOAD] == 8
    assert kinds[STORE] == 4
    assert kinds[ATOMIC] == 1
    assert kinds[BARRIER] == 1
    assert kinds[BRANCH] == 1 + 2 + 3 + 1
    assert kinds[OPERAND] == 0  # vm_start was not 0, so vm_end was not asked
    assert vma[42]["vm_start"] == 99
    assert vma[41]["vm_pgoff"] == 1
    assert int(one.machine.mm(0)["mmap_lock"]) == before + 1


@native
def _chained(mm, x):  # type: ignore[no-untyped-def]
    """A chain of assignments with a tuple in it."""
    (a, b) = c = (x, x)
    return a + b + c[0]


@native
def _two_slabs(mm, x):  # type: ignore[no-untyped-def]
    """One name for two kinds."""
    v = VMA(mm, x)
    v = PAGE(mm, x)
    return v.flags


@native
def _unknown_field(mm, x):  # type: ignore[no-untyped-def]
    """A misspelt field."""
    return VMA(mm, x).vm_begin


@native
def _listed(mm, x):  # type: ignore[no-untyped-def]
    """Not of the dialect."""
    return len([x, ARENA_PRIVATE0])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_chained, "a chain of assignments with a tuple"),
        (_two_slabs, "v refers to two slabs"),
        (_unknown_field, "vm_area_struct has no field vm_begin"),
        (_listed, "a List"),
    ],
)
def test_what_cannot_be_counted_is_said(function: Any, words: str) -> None:
    """A DialectError names file, function, line and reason."""
    one = replay("rbtree", "uniform:vmas=6,events=1")
    with pytest.raises(DialectError, match=rf"test_cost\.py.*{function.__name__}.*line \d+ of it: {words}"):
        Translator(one.memory, {}, lambda record: None).function(function, (MM, None))


def test_a_function_without_text_is_said() -> None:
    """Code made by exec has no text to rewrite."""
    scope: dict[str, Any] = {"native": native}
    exec("@native\ndef nowhere(mm, x):\n    return x", scope)
    one = replay("rbtree", "uniform:vmas=6,events=1")
    with pytest.raises(DialectError, match="its source cannot be found"):
        Translator(one.memory, {}, lambda record: None).function(scope["nowhere"], (MM, None))


# ---- the same everywhere ----


def test_golden() -> None:
    """The counts of a recorded program are those in the file, to the last bit. Who changes the model or a strategy
    writes the file anew: BENCHFRAME_GOLDEN=1 pytest tests/engine/test_cost.py -k golden."""
    found = {name: numbers(name, "python-json", 4_000_000) for name in ("rbtree", "pmdcache", "maple")}
    if os.environ.get("BENCHFRAME_GOLDEN"):  # write it anew
        GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(GOLDEN.read_text())


CHILD = """
import json, sys
from benchframe.registry import load
from benchframe.engine.cost import count_cost
known = load()
found = [dict(count_cost(known.strategy(name), known.spec(spec).trace(1), budget).numbers)
         for name, spec, budget in json.loads(sys.argv[1])]
print(json.dumps(found, sort_keys=True))
"""


def test_every_process_counts_the_same() -> None:
    """Two processes with other hash seeds and other addresses: equal texts, sampled and whole."""
    for name in ("pmdcache", "maple"):
        runner(name, "native")
    work = [("pmdcache", "zipf:vmas=300,events=4000,faults=1", 60_000), ("maple", "mmap-churn:vmas=60,events=400", 0)]
    texts = []
    for seed in ("0", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, json.dumps(work)],
            env={**os.environ, "PYTHONHASHSEED": seed, "MALLOC_TOP_PAD_": f"{len(seed)}000000"},
            capture_output=True,
            text=True,
            check=True,
        )
        texts.append(done.stdout)
    assert texts[0] == texts[1]
    assert json.loads(texts[0])[0]["counted"] < 4000


# ---- kept ----


def test_counts_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted once is read from the cache, to the last bit; another strategy, budget or stream is counted, and
    so is one whose file is damaged or of something else."""
    asked: list[str] = []

    def counted(one: Any, trace: Any, budget: int) -> Any:
        asked.append(one.name)
        return count.Cost({"loads": 0.1 + len(asked), "none": float("nan")}, 1)

    monkeypatch.setenv("BENCHFRAME_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(count, "count_cost", counted)
    tree, other = strategy("rbtree"), strategy("pmdcache")
    stream = registry().spec("zipf:events=100").trace(1)
    first = count.stored_cost(tree, stream, 1000)
    again = count.stored_cost(tree, stream, 1000)
    assert first["loads"] == again["loads"] == 1.1
    assert np.isnan(again["none"])
    count.stored_cost(other, stream, 1000)
    count.stored_cost(tree, stream, 2000)
    count.stored_cost(tree, registry().spec("zipf:events=100").trace(2), 1000)
    assert asked == ["rbtree", "pmdcache", "rbtree", "rbtree"]
    files = sorted((tmp_path / "counts").iterdir())
    assert len(files) == 4
    for damage in (b"", b'{"key": "x", "numbers": {}}', b"[" * 99999, files[1].read_bytes()):
        files[0].write_bytes(damage)
        before = len(asked)
        for one, budget in ((tree, 1000), (other, 1000), (tree, 2000)):
            count.stored_cost(one, stream, budget)
        count.stored_cost(tree, registry().spec("zipf:events=100").trace(2), 1000)
        assert len(asked) == before + 1
