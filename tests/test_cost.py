"""The cost engine: counts by hand, against proxies, the same in every process; sampling; the predictor."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmkit import registry, runner, strategy

from benchframe.api import ARENA_PRIVATE0, MM, NULL, PAGE, VMA, fetch_add, native, smp_mb
from benchframe.dialect.interp import PlainWorld, dejit, proxy_class
from benchframe.dialect.struct import DialectError, Slab
from benchframe.engine.cost import count_cost
from benchframe.engine.cost.memory import ATOMIC, BARRIER, BRANCH, LOAD, OPERAND, SHIFT, STORE
from benchframe.engine.cost.predictor import BRANCH as BRANCHES
from benchframe.engine.cost.predictor import ENTRY, ROWS, TABLES, Predictor, predict, predictor
from benchframe.engine.cost.run import CountedReplay, ratio_error
from benchframe.engine.cost.sums import reuse_class
from benchframe.engine.cost.tally import Reuse, quantile
from benchframe.engine.cost.translate import Translator
from benchframe.mm.replay import one_event
from benchframe.trace.events import Kind
from benchframe.trace.format import Trace

GOLDEN = Path(__file__).parent / "data" / "cost_python_json.json"
NAMES = ("rbtree", "pmdcache", "maple", "vmacache")


def replay(name: str, spec: str, seed: int = 0) -> CountedReplay:
    """A counted replay, nothing counted yet."""
    runner(name, "native")
    return CountedReplay(strategy(name), registry().spec(spec).trace(seed))


def numbers(name: str, spec: str, budget: int = 0) -> dict[str, float]:
    """What is counted of a stream."""
    return dict(replay(name, spec).run(budget).numbers)


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

    def rmw(self, ref: Any, field: str, operation: str, value: int) -> int:
        before = len(self.seen)
        old = super().rmw(ref, field, operation, value)
        self.seen[before:] = [(ATOMIC, ref.slab.base, field, ref.index)]
        return old

    def cmpxchg(self, ref: Any, field: str, old: int, new: int) -> int:
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
    with pytest.raises(DialectError, match="its text cannot be found"):
        Translator(one.memory, {}, lambda record: None).function(scope["nowhere"], (MM, None))


# ---- the same everywhere ----


def test_golden() -> None:
    """The counts of a recorded program are those in the file, to the last bit. Who changes the model or a strategy
    writes the file anew: BENCHFRAME_GOLDEN=1 pytest tests/test_cost.py -k golden."""
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


# ---- sampling ----


@pytest.mark.parametrize("name", ["rbtree", "pmdcache"])
def test_a_sample_is_near_the_whole(name: str) -> None:
    """Windows of a twentieth: means within four standard errors of the whole's, and the error is small."""
    spec = "zipf:vmas=200,events=12000,run=3"
    whole, part = numbers(name, spec), numbers(name, spec, 40_000)
    assert whole["counted"] == whole["events"] == 12000
    assert 200 < part["counted"] < 3000
    assert "lookup.loads_se" not in whole
    for key in ("loads", "lines", "branches", "steps"):
        mean, error = part[f"lookup.{key}"], part[f"lookup.{key}_se"]
        assert 0 < error < 0.1 * mean
        assert abs(mean - whole[f"lookup.{key}"]) < 4 * error


def test_records_of_a_budget() -> None:
    """The budget bounds the records, about."""
    for budget in (20_000, 100_000):
        cost = replay("rbtree", "zipf:events=20000").run(budget)
        assert 0.7 * budget < cost.records < 1.3 * budget
        assert not cost.whole


def test_ratio_error() -> None:
    """The estimator's error against a simulation: systematic windows of independent operations."""
    rng = np.random.default_rng(1)
    means, errors = [], []
    for _ in range(400):
        windows = [(int(rng.poisson(5, n).sum()), n) for n in rng.integers(20, 40, 12)]
        means.append(sum(y for y, _ in windows) / sum(n for _, n in windows))
        errors.append(ratio_error(windows, 0.0))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)
    assert ratio_error([(3, 1)], 0.1) == 0


# ---- what the numbers mean ----


def test_known_shapes() -> None:
    """What is known of the strategies shows: one atomic more per hold, hits, invalidations, lines of the right kind."""
    tree = numbers("rbtree", "zipf:vmas=60,events=2000,faults=1")
    cached = numbers("pmdcache", "zipf:vmas=60,events=2000,faults=1,run=20,pages=511")
    maple = numbers("maple", "zipf:vmas=60,events=2000,faults=1")
    assert tree["lookup.atomics"] == 2  # mmap_lock taken and released
    assert tree["lookup.stores"] == 0
    assert tree["lookup.hits"] == 0
    assert "hit.n" not in tree
    assert tree["lookup.steps"] < 2 * np.log2(61)
    assert tree["lookup.lines"] == tree["lookup.lines.vma"] + tree["lookup.lines.mm"]
    assert cached["lookup.hits"] > 0.9
    assert cached["hit.atomics"] == 2  # cache_access up and down
    assert cached["hit.lines.pte"] == 3  # pgd, pud, pmd
    assert cached["lookup.dirty_shared"] > 0
    assert maple["lookup.lines.maple_word"] > 0
    assert maple["bytes.per_vma"] > tree["bytes.per_vma"] == 192
    for found in (tree, cached, maple):
        assert found["fault.loads"] > found["lookup.loads"]
        assert found["lookup.lines_p50"] <= found["lookup.lines_p99"]
        assert found["fault.dirty"] >= found["fault.dirty_shared"]


def test_lines_that_other_tasks_read() -> None:
    """mmap_lock is written by each lookup and read by the others': between tasks only if there are two."""
    runner("rbtree", "native")
    trace = registry().spec("zipf:vmas=20,events=200").trace(0)
    events = trace.events.copy()
    lone = count_cost(strategy("rbtree"), trace, 0).numbers
    assert (lone["lookup.dirty_shared"], lone["lookup.dirty_tasks"]) == (1, 0)
    events["task"][trace.setup :] = np.arange(len(events) - trace.setup) % 2
    both = count_cost(strategy("rbtree"), type(trace)(events, meta=trace.meta), 0).numbers
    assert (both["lookup.dirty_shared"], both["lookup.dirty_tasks"]) == (1, 1)


def test_nothing_to_count() -> None:
    """A trace that is all setup is an EngineError."""
    from benchframe.engine.native import EngineError

    trace = registry().spec("zipf:vmas=20,events=200").trace(0)

    class AllSetup(Trace):
        """Nothing timed."""

        @property
        def setup(self) -> int:
            return len(self.events)

    with pytest.raises(EngineError, match="no events after its setup"):
        count_cost(strategy("rbtree"), AllSetup(trace.events, meta=trace.meta))
    assert Kind.LOOKUP in trace.events["kind"]


# ---- predictor and line distances ----


@pytest.mark.parametrize(
    ("name", "least", "most"), [("taken", 0, 0.001), ("loop", 0, 0.001), ("period", 0, 0.01), ("random", 0.45, 0.55)]
)
def test_predictor(name: str, least: float, most: float) -> None:
    """What can be learned is learned; a fair coin is not."""
    rng = np.random.default_rng(7)
    count = 40_000
    outcome = {
        "taken": np.ones(count, np.int64),
        "loop": (np.arange(count) % 9 != 0).astype(np.int64),
        "period": np.tile(rng.integers(0, 2, 40), count // 40),
        "random": rng.integers(0, 2, count),
    }[name]
    missed = Predictor().missed(2 * 11 + outcome)
    assert least <= missed[count // 2 :].mean() <= most


def test_predictor_is_the_same_interpreted() -> None:
    """Compiled and interpreted, the same branches are missed and the tables are the same: integers only."""
    rng = np.random.default_rng(3)
    codes = 2 * rng.integers(0, 40, 3000) + (rng.random(3000) < 0.8)
    compiled = Predictor()
    missed = compiled.missed(codes)
    arrays = {
        "p_base": np.zeros(1, predictor.dtype),
        "branch_base": np.zeros(3000, BRANCHES.struct.dtype),
        "entry_base": np.zeros(TABLES * ROWS, ENTRY.struct.dtype),
    }
    arrays["branch_base"]["code"] = codes
    world = PlainWorld(arrays)
    wrong = dejit(predict)(world.ref(Slab("P", predictor, "p_base"), 0), 0, 3000)
    assert wrong == missed.sum() > 0
    np.testing.assert_array_equal(arrays["branch_base"]["missed"] != 0, missed)
    for field in ("tag", "counter", "useful"):
        np.testing.assert_array_equal(arrays["entry_base"][field], compiled._entries[field])


def test_how_long_a_cache_remembers() -> None:
    """Round and round over 128 lines: 64 are touched in 64 touches, 200 never are; with a second, longer loop later."""

    def note(into: Reuse, time: int) -> None:
        into.counts[dejit(reuse_class)(time)] += 1000

    reuse = Reuse()
    note(reuse, 128)
    assert reuse.time(64) == pytest.approx(64, abs=1)
    assert reuse.time(200) == 1 << 62
    note(reuse, 4096)
    # 128 touches hold 128 lines, then every second touch is to a line of the long loop
    assert reuse.time(228) == pytest.approx(128 + 2 * 100, rel=0.02)


def test_quantile() -> None:
    """The smallest value that covers the share."""
    histogram = np.array([0, 90, 9, 0, 1])
    assert [quantile(histogram, share) for share in (0.5, 0.9, 0.99, 1.0)] == [1, 1, 2, 4]
