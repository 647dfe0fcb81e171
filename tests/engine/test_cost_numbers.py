"""What the cost engine says of what it counted: samples, known shapes, other tasks, predictor, line distances."""

import numpy as np
import pytest
from support.counting import numbers, replay
from support.space import registry, runner, strategy

from benchframe.dialect.interpreter import PlainWorld, dejit
from benchframe.dialect.records import Slab
from benchframe.engine.cost import count_cost, ratio_error
from benchframe.engine.cost.sums import ENTRY, ROWS, TABLES, Predictor, Reuse, predict, predictor, quantile, reuse_class
from benchframe.engine.cost.sums import PREDICTED as BRANCHES
from benchframe.events import Kind
from benchframe.trace.trace import Trace


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
    from benchframe.errors import EngineError

    trace = registry().spec("zipf:vmas=20,events=200").trace(0)
    with pytest.raises(EngineError, match="no events after its setup"):
        count_cost(strategy("rbtree"), Trace(trace.events, meta=trace.meta, setup=len(trace.events)))
    assert Kind.LOOKUP in trace.events["kind"]


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
    wrong = dejit(predict)(world.ref(Slab("P", predictor, "p_base", first=0), 0), 0, 3000)
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
