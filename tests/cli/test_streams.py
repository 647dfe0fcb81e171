"""The synthetic workloads: the layout asked for, no call that fails, no fault that misses, the same again on replay."""

import numpy as np
import pytest

from benchframe import stream
from benchframe.events import EVENT, Kind
from benchframe.oracle import Limits, Replayer, replay
from benchframe.trace.trace import Trace
from benchframe.workload import Workload, WorkloadError
from benchframe_workloads import churn, faults, synthetic

WORKLOADS = {w.name: w for module in (synthetic, faults, churn) for w in module.benchframe_workloads()}
LOOKUPS = [Kind.FAULT, Kind.LOOKUP]


def trace_of(workload: Workload, seed: int = 1, /, **params: int | float | str) -> Trace:
    """A short stream; parameters that the workload does not have are left out."""
    known = {p.name for p in workload.parameters}
    given = {"events": 3000, **params}
    return workload.with_params({k: v for k, v in given.items() if k in known}).trace(seed)


@pytest.mark.parametrize("gap", [0, 1])
@pytest.mark.parametrize("vmas", [6, 23, 400])
@pytest.mark.parametrize("name", WORKLOADS)
def test_replay_again_and_again(name: str, vmas: int, gap: int) -> None:
    """Every call succeeds and every lookup lands in a VMA; a second replay gives the same answers and layout."""
    if name in ("multi-fault-all-split", "pft", "one-vma"):
        vmas = max(vmas, 7)
    trace = trace_of(WORKLOADS[name], vmas=vmas, gap=gap, maps=min(8, (vmas - 5) // 2))
    before, timed = trace.events[: trace.setup], trace.events[trace.setup :]
    replayer = Replayer()
    assert (replayer.feed(before).ret >= 0).all()
    layout = replayer.spaces[0].layout()
    assert len(layout) == vmas
    first, second = replayer.feed(timed), replayer.feed(timed)
    assert replayer.spaces[0].layout() == layout
    for answers in (first, second):
        assert (answers.ret >= 0).all(), f"event {int(np.argmax(answers.ret < 0))} failed"
        looked = np.isin(timed["kind"], LOOKUPS)
        assert ((answers.vm_start <= timed["addr"]) & (timed["addr"] < answers.vm_end))[looked].all()
    for column in ("ret", "vm_start", "vm_end"):
        np.testing.assert_array_equal(getattr(first, column), getattr(second, column))


@pytest.mark.parametrize("name", WORKLOADS)
def test_seeds(name: str) -> None:
    """One seed, one stream; another seed, another stream (but for those that have nothing random)."""
    one, same, other = (trace_of(WORKLOADS[name], seed) for seed in (1, 1, 2))
    assert one.digest == same.digest
    assert (one.digest == other.digest) == (name in ("multi-fault-all-split", "pft", "one-vma"))


@pytest.mark.parametrize("name", WORKLOADS)
def test_default_size_and_definition(name: str) -> None:
    """Definitions are sound; the default stream is as long as its events parameter says, within a round; those
    of pft and one-vma are one round."""
    workload = WORKLOADS[name]
    assert workload.problem() == ""
    assert workload.baseline == "rbtree"
    spec = workload.spec()
    trace = spec.trace()
    timed = len(trace) - trace.setup
    events = spec.params["events"] if "events" in spec.params else spec.params["pages"] + 1
    assert 0.95 * events <= timed <= 1.35 * events
    assert workload.make.__doc__


def test_uniform_is_uniform() -> None:
    """Each of 10 tiles gets its share of 20 000 lookups within five standard deviations."""
    trace = trace_of(WORKLOADS["uniform"], vmas=12, pages=4, events=20_000)
    counts = np.bincount(
        (trace.events["addr"][trace.setup :] - trace.events["addr"][trace.setup :].min()) // (5 * 4096)
    )
    assert len(counts) == 10
    assert (abs(counts - 2000) < 5 * np.sqrt(2000)).all()


def test_sequential_walks() -> None:
    """Addresses rise page by page and wrap once per round; a stride skips pages."""
    trace = trace_of(WORKLOADS["sequential"], vmas=12, pages=4, gap=0, events=80)
    step = np.diff(trace.events["addr"][trace.setup :])
    assert sorted(set(step.tolist())) == [-39 * 4096, 4096]
    skipping = trace_of(WORKLOADS["sequential"], vmas=12, pages=4, gap=0, events=20, stride=2)
    assert np.isin(np.diff(skipping.events["addr"][skipping.setup :]), [2 * 4096, -38 * 4096]).all()


def test_zipf_popularity_and_runs() -> None:
    """At alpha 1 over 100 tiles the most popular takes 1/H(100) = 19 %; run=8 makes neighbours repeat 7 times in 8."""

    def tile(**params: float) -> np.ndarray:
        trace = trace_of(WORKLOADS["zipf"], vmas=102, pages=1, events=50_000, **{"run": 1.0, **params})
        return trace.events["addr"][trace.setup :] // 8192

    most = np.unique(tile(alpha=1.0), return_counts=True)[1].max() / 50_000
    assert most == pytest.approx(0.1928, abs=0.01)
    flat = np.unique(tile(alpha=0.0), return_counts=True)[1].max() / 50_000
    assert flat < 0.015
    assert np.mean(np.diff(tile(alpha=0.0, run=8.0)) == 0) == pytest.approx(7 / 8, abs=0.01)


@pytest.mark.parametrize("name", ["uniform", "sequential", "zipf"])
@pytest.mark.parametrize("faults", [0, 1])
def test_writes_come_in_pairs(name: str, faults: int) -> None:
    """writes=0.1 adds an mprotect call per ten accesses, evenly, each undone by the next; accesses stay as they are."""
    plain = trace_of(WORKLOADS[name], vmas=40, events=1000, gap=0, faults=faults)
    trace = trace_of(WORKLOADS[name], vmas=40, events=1000, gap=0, faults=faults, writes=0.1)
    timed = trace.events[trace.setup :]
    calls = timed["kind"] == Kind.MPROTECT
    assert np.count_nonzero(calls) == 100
    np.testing.assert_array_equal(timed[~calls], plain.events[plain.setup :])
    first, second = timed[calls][::2], timed[calls][1::2]
    np.testing.assert_array_equal(first["addr"], second["addr"])
    assert (first["prot"] ^ second["prot"] == 2).all()
    assert np.diff(np.flatnonzero(calls)[::2]).max() < 1.2 * len(timed) / 50
    assert (replay(trace.events).ret >= 0).all()


@pytest.mark.parametrize("name", ["uniform", "sequential", "zipf"])
@pytest.mark.parametrize("events", [1, 64, 1000])
def test_faults_are_real(name: str, events: int) -> None:
    """With faults=1 every access is a fault of a page that is not there, and all pages go back after 64 accesses."""
    trace = trace_of(WORKLOADS[name], vmas=40, pages=64, gap=0, events=events, faults=1)
    timed = trace.events[trace.setup :]
    assert (replay(trace.events).ret >= 0).all()
    present: set[int] = set()
    run = 0
    for event in timed:
        addr, kind = int(event["addr"]), event["kind"]
        if kind == Kind.FAULT:
            assert addr not in present
            present.add(addr)
            run += 1
        else:
            assert kind == Kind.MADVISE
            assert run == 64 or run == events % 64 or not run
            run = 0
            inside = {page for page in present if addr <= page < addr + int(event["len"])}
            assert inside
            present -= inside
    assert not present
    assert (timed["kind"] == Kind.FAULT).sum() == events
    bare = trace_of(WORKLOADS[name], vmas=40, pages=64, gap=0, events=events)
    faulting = timed["addr"][timed["kind"] == Kind.FAULT] // (64 * 4096)
    np.testing.assert_array_equal(faulting, bare.events["addr"][bare.setup :] // (64 * 4096))


def test_ebizzy_round() -> None:
    """A round is mmap, then source lookup and copy fault per page, then munmap; source=0 leaves lookups out."""
    trace = trace_of(WORKLOADS["ebizzy"], vmas=30, chunk=4, events=100)
    kinds = trace.events["kind"][trace.setup :]
    once = [Kind.MMAP, *[Kind.LOOKUP, Kind.FAULT] * 4, Kind.MUNMAP]
    assert kinds.tolist() == once * 10
    bare = trace_of(WORKLOADS["ebizzy"], vmas=30, chunk=4, events=100, source=0)
    assert set(bare.events["kind"][bare.setup :]) == {Kind.MMAP, Kind.FAULT, Kind.MUNMAP}
    vary = trace_of(WORKLOADS["ebizzy"], vmas=30, chunk=9, vary=1)
    calls = vary.events[vary.setup :]
    assert set(calls["len"][calls["kind"] == Kind.MUNMAP] // 4096) == set(range(2, 10))
    assert (replay(vary.events).ret >= 0).all()


def test_multi_fault_touches_every_page_once() -> None:
    """A round faults in each page of 2 MiB per area; both orders touch the same pages; areas straddle PTE pages."""
    pages = {}
    for order in ("turns", "lockstep"):
        trace = trace_of(WORKLOADS["multi-fault-all-split"], maps=3, vmas=40, order=order, events=1)
        timed = trace.events[trace.setup :]
        touched = timed["addr"][timed["kind"] == Kind.FAULT]
        assert len(touched) == len(set(touched.tolist())) == 3 * 512
        pages[order] = touched
    assert sorted(pages["turns"]) == sorted(pages["lockstep"])
    assert (np.diff(pages["turns"][:512]) == 4096).all()
    assert not (np.diff(pages["lockstep"]) == 4096).any()
    with pytest.raises(WorkloadError, match="vmas must be at least 21"):
        trace_of(WORKLOADS["multi-fault-all-split"], maps=8, vmas=20)
    # Without a number of VMAs there are as many as the areas need: 128 threads have one each.
    trace = WORKLOADS["multi-fault-all-split"].spec().trace(0, 128)
    assert len(set(trace.events["task"][trace.setup :].tolist())) == 128


def test_scatter_touches_every_page_once_per_round() -> None:
    """A round of fault-scatter visits each page exactly once, in runs where asked, whatever the run's length."""
    for run in (1, 3, 8, 100):
        trace = trace_of(WORKLOADS["fault-scatter"], vmas=12, pages=8, events=1, run=run)
        timed = trace.events[trace.setup :]
        touched = timed["addr"][timed["kind"] == Kind.FAULT]
        assert len(touched) == len(set(touched.tolist())) == 80
        together = int((np.diff(touched) == 4096).sum())
        assert together >= {1: 0, 3: 50, 8: 70, 100: 70}[run]


def test_churn_mixes() -> None:
    """Weights choose the pairs; a flip without gaps merges with both neighbours, a punch splits twice."""
    common = {"vmas": 12, "gap": 0, "events": 40, "fault": 0.0}
    for chosen, change in (("flip", -2), ("punch", 2), ("remap", -1)):
        mix = {"remap": 0.0, "punch": 0.0, "flip": 0.0, chosen: 1.0}
        trace = trace_of(WORKLOADS["mmap-churn"], **{**common, **mix})
        replayer = Replayer()
        replayer.feed(trace.events[: trace.setup])
        counts = []
        for event in range(trace.setup, len(trace)):
            replayer.feed(trace.events[event : event + 1])
            counts.append(len(replayer.spaces[0].layout()))
        assert counts[1::2] == [12] * 20
        assert 12 + change in counts[0::2]
    hinted = trace_of(WORKLOADS["mmap-churn"], **common, search=0)
    assert (hinted.events["addr"][hinted.events["kind"] == Kind.MMAP] > 0).all()
    with pytest.raises(WorkloadError, match="all 0"):
        trace_of(WORKLOADS["mmap-churn"], remap=0.0, punch=0.0, flip=0.0)
    with pytest.raises(WorkloadError, match="middle page"):
        trace_of(WORKLOADS["mmap-churn"], pages=2)


@pytest.mark.parametrize(("vmas", "lifted"), [(65_530, False), (70_000, True)])
def test_large_layouts(vmas: int, lifted: bool) -> None:
    """65 530 VMAs fit under the default vm.max_map_count; more ask for a higher one, and the oracle agrees."""
    layout = stream.tiles(vmas, 4, 1)
    trace = stream.build(layout.setup(), stream.lookup(layout.vm_start[:5]), map_count=layout.map_count)
    assert ("max_map_count" in trace.meta.limits) == lifted
    limits = Limits(max_map_count=trace.meta.limits.get("max_map_count", 65530))
    answers = replay(trace.events, limits=limits)
    assert (answers.ret >= 0).all()
    assert len(answers.layouts[0]) == vmas


def test_tables_cover_every_lookup() -> None:
    """The setup faults once in each 2 MiB region of each tile: no lookup's page table is missing."""
    for pages in (1, 3, 512, 700, 1500):
        layout = stream.tiles(20, pages, 1)
        regions = set((layout.tables()["addr"] >> 21).tolist())
        all_pages = layout.vm_start[:, None] + np.arange(pages) * 4096
        assert regions == set((all_pages >> 21).ravel().tolist())


def test_tiles_refuse_what_does_not_fit() -> None:
    """Too few VMAs for the layout, too much address space, too many events: refused with the numbers, at once."""
    with pytest.raises(ValueError, match="at least 6"):
        stream.tiles(5, 1, 1)
    with pytest.raises(ValueError, match="do not fit"):
        stream.tiles(8_000_000, 1 << 18, 1)
    with pytest.raises(WorkloadError, match="take fewer VMAs or pages"):
        trace_of(WORKLOADS["fault-scatter"], vmas=100_000, pages=2000)
    row = np.broadcast_to(stream.lookup(0), stream.MAX_EVENTS // 2 + 1)
    with pytest.raises(ValueError, match="more than the 16777216 of a stream"):
        stream.build([], [row, row], map_count=6)


def test_rows_broadcast() -> None:
    """Scalars fill, arrays run along; the rest of a row is the neutral value."""
    made = stream.rows(Kind.MMAP, [4096, 8192], 4096, prot=[1, 3])
    assert made.dtype == EVENT
    assert made["len"].tolist() == [4096, 4096]
    assert made["prot"].tolist() == [1, 3]
    assert set(made["file"]) == {-1}
    assert len(stream.rows(Kind.EXEC, -1)) == 1
