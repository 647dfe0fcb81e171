"""Simulated CPUs: what is counted, what a line shared by many does, answers, deadlocks, the same figures everywhere."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.command import run
from support.compile import simulated

import benchframe.simulator.machines
import benchframe_workloads
from benchframe.cli.run import make_streams
from benchframe.dialect import READ_ONCE, cmpxchg, fetch_add, native, wait_until
from benchframe.dialect.records import DialectError
from benchframe.engine.cost import Cost, CountedReplay
from benchframe.engine.cost.records import ATOMIC, BARRIER, EVENT, LINE, LOW, SHIFT, STORE
from benchframe.engine.cost.records import LOAD as LOADED
from benchframe.mm.layout import ARENA_VMA, MM, TASK, VMA, mm_struct
from benchframe.mm.replay import CLASS_FAULT
from benchframe.mm.smp import CREW
from benchframe.mm.validate import free_objects
from benchframe.registry import load
from benchframe.results.folder import RunFolder, find_run
from benchframe.results.manifest import CellEntry
from benchframe.results.studies import simulated_cells, simulated_path
from benchframe.simulator import search
from benchframe.simulator.build import instrument, sim_begin, sim_end
from benchframe.simulator.campaign import Answer, Watcher, cluster, do_job, jobs_of, plan_cells, run_cells
from benchframe.simulator.machines import (
    MAIN,
    Layout,
    Machine,
    SimulateError,
    Work,
    as_it_is,
    box,
    layout_names,
    load_layout,
    load_machine,
    load_work,
    machine_names,
    machine_toml,
)
from benchframe.simulator.search import fit, lines_of, search_layout
from benchframe.simulator.session import Depth, Figures, SimulatedSession, Stopped, costless
from benchframe.simulator.study import mean_latency, mva
from benchframe.strategy import Strategy, resolve
from benchframe.units import UnitSpec
from benchframe_plugins.sheaves import sheaves

NOTHING = load_work("none")
MICRO = Depth(rounds=1e9, warm_rounds=1e9, accesses=300_000)
"""Micro-programs have no rounds: so many accesses."""
ENDLESS = 1 << 40
LOAD = "multi-fault-all-split:vmas=40"


@cache
def session(cpus: int, label: str = LOAD, strategy: str = "rbtree") -> SimulatedSession:
    """rbtree on a small workload."""
    known = load([])
    return SimulatedSession(simulated(known.strategy(strategy)), known.spec(label).trace(0, cpus), cpus)


def steady(name: str = "milan-2s", **values: float) -> Machine:
    """A machine without chance, whose lines leave at once when they are asked for."""
    return load_machine(name).changed({"jitter": 0, "hold": 0, **values})


@native
def adders(root, task, what):
    """Everybody adds to one word."""
    crew = CREW(root, 0)
    for _ in range(ENDLESS):
        if READ_ONCE(crew, "stop") != 0:
            return 0
        sim_begin(0)
        fetch_add(VMA(root, 1), "vm_refcnt", 1)
        sim_end(0)
    return 0


@native
def exchangers(root, task, what):
    """The same by compare-and-exchange in a loop."""
    crew = CREW(root, 0)
    v = VMA(root, 1)
    for _ in range(ENDLESS):
        if READ_ONCE(crew, "stop") != 0:
            return 0
        sim_begin(0)
        old = READ_ONCE(v, "vm_refcnt")
        seen = cmpxchg(v, "vm_refcnt", old, old + 1)
        while seen != old:
            old = seen
            seen = cmpxchg(v, "vm_refcnt", old, old + 1)
        sim_end(0)
    return 0


@native
def owners(root, task, what):
    """Everybody adds to a line of its own."""
    crew = CREW(root, 0)
    for _ in range(ENDLESS):
        if READ_ONCE(crew, "stop") != 0:
            return 0
        sim_begin(0)
        TASK(root, task).strategy0 += 1
        sim_end(0)
    return 0


@native
def neighbours(root, task, what):
    """Two words of one line: one task writes the one, all others read the other. False sharing."""
    crew = CREW(root, 0)
    v = VMA(root, 1)
    for _ in range(ENDLESS):
        if READ_ONCE(crew, "stop") != 0:
            return 0
        sim_begin(0)
        if task == 1:
            v.strategy0 += 1
        else:
            READ_ONCE(v, "vm_sequence")
        sim_end(0)
    return 0


@native
def waiters(root, task, what):
    """Everybody waits for what nobody does."""
    wait_until(VMA(root, 1), "vm_sequence", -1, 77)
    return 0


@native
def turns(root, task, what):
    """Two tasks take turns, five accesses each. At no cost others go first once in 65536 accesses, no multiple of five:
    so before each of them in turn."""
    v = VMA(root, 1)
    for _ in range(50_000):
        wait_until(v, "vm_sequence", 1, task & 1)
        READ_ONCE(v, "vm_start")
        v.vm_sequence += 1
    return 0


def micro(
    program, cpus: int, machine: Machine, layout: Layout | None = None, depth: Depth | None = MICRO, coast: bool = False
) -> Figures:
    """Run a program of a few lines in the place of the threads' own; ``coast``: at no cost."""
    own = session(cpus)
    kept = own.runner._entry
    v = own.memory.arrays["vma_base"]
    saved = v[1].copy()
    own.runner._entry = own.runner.units.get(UnitSpec(program.__name__, program, {}, None))
    own._prepare_simulator(machine, NOTHING, layout or as_it_is(), 1)
    try:
        own._set_crew(0)
        if coast:
            own.simulator.header["current"] = 0
            own._coast()
            own.simulator.header["current"] = MAIN
        return own._go(depth)
    finally:
        own._bare()
        own.runner._entry = kept
        v[1] = saved


def test_one_line_has_one_throughput() -> None:
    """However many CPUs of a domain add to one word, they get no further than two: a transfer an operation."""
    rates = [micro(adders, n, steady()).throughput for n in (2, 3, 6, 8)]
    assert max(rates) / min(rates) < 1.03
    alone = micro(adders, 1, steady()).throughput
    assert alone > 2 * rates[0]


def test_an_allocator_of_two_nodes() -> None:
    """Two CPUs of each of two sockets map and unmap, their VMAs from sheaves, after one to three rounds each without
    cost: all answers are right, at rest each VMA is in one place of the allocator, and each CPU has its sheaf."""
    known = load([])
    made = resolve(Strategy("sheaved", "rbtree, VMAs from sheaves", "rbtree", allocator=sheaves()), known.strategies)
    found = SimulatedSession(simulated(made), known.spec("mmap2:variant=processes").trace(0, 4), 4, rcu_batch=64)
    machine = replace(steady(), sockets=2, domains=1, cores=2)
    one, same = (found.run(machine, NOTHING, rounds=2, free_rounds=(1, 3)) for _ in range(2))
    assert (one.accesses, one.window) == (same.accesses, same.window)
    assert found.verdict.ok, found.verdict.what
    assert found.memory.arrays["kmem_base"]["rcu_batch"][ARENA_VMA] == 64
    found._set_phases(1, 3, seed=1)
    assert found.memory.arrays["thread_base"]["rounds"][1:5].tolist() == [2, 2, 3, 3]
    first, records = int(found.memory.arrays["kmem_base"]["first_cpu"][ARENA_VMA]), found.memory.arrays["cpu_base"]
    assert records["node"][first + 1 : first + 5].tolist() == [0, 0, 1, 1]
    places = {place.partition(", ")[2] for place in free_objects(found.memory)[ARENA_VMA].values()}
    assert {f"CPU {cpu}'s main" for cpu in range(1, 5)} <= places


def test_one_line_is_what_theory_says() -> None:
    """Mean value analysis of that line, which knows nothing of the simulation, is within a factor of 1.6."""
    machine = steady()
    think = 1 / micro(adders, 1, machine).throughput
    for cpus in (2, 8):
        demand = 1e-9 * (mean_latency(machine, cpus) + machine.numbers["atomic"].value)
        assert 1 / 1.6 < micro(adders, cpus, machine).throughput / mva(cpus, demand, think) < 1.6


def test_compare_and_exchange_does_not_starve() -> None:
    """A loop of compare-and-exchange goes on with 8 CPUs, for all of them, slower than one fetch_add each: an owner
    keeps the line long enough to use it. (Without, the first loop starves the others.)"""
    figures = micro(exchangers, 8, steady(hold=8))
    assert min(figures.cpus) > 0.3 * max(figures.cpus)
    added = micro(adders, 8, steady(hold=8)).throughput
    assert 0.2 * added < figures.throughput < added


def test_lines_of_ones_own_scale_exactly() -> None:
    """CPUs that share nothing do not slow each other down, over domains and sockets."""
    one = micro(owners, 1, steady()).throughput
    assert micro(owners, 8, steady(), None).throughput == pytest.approx(8 * one, rel=2e-3)
    assert micro(owners, 8, steady("nehalem-2s")).throughput == pytest.approx(
        8 * micro(owners, 1, steady("nehalem-2s")).throughput, rel=2e-3
    )


def test_false_sharing_is_named() -> None:
    """A line that is fetched for one field since another was written is told as such, and is gone on lines apart."""
    shared = micro(neighbours, 4, steady())
    assert shared.fields[0].name in ("vma.vm_sequence", "vma.strategy0")
    assert ("vma.vm_sequence", "vma.strategy0") in {(p.reader, p.writer) for p in shared.pairs[:2]}
    apart = micro(neighbours, 4, steady(), as_it_is(["vma.strategy0"]))
    assert not apart.fields or apart.fields[0].ns < 0.01 * shared.fields[0].ns
    assert apart.throughput > 1.2 * shared.throughput


def test_distance_is_paid() -> None:
    """A line that goes between sockets makes fewer operations than one that stays in a domain."""
    near, far = (micro(adders, 8, steady(name)).throughput for name in ("milan-2s", "nehalem-2s"))
    assert 1.5 < near / far < 4


def test_deadlock_is_told() -> None:
    """All wait: the run says who waits for what instead of going on for ever."""
    with pytest.raises(Stopped, match=r"deadlock.*CPU 0, 1, 2.* vma\.vm_sequence"):
        micro(waiters, 3, steady())


def test_no_wake_up_is_lost_at_no_cost() -> None:
    """In a round that does not count, too, who waits for a write is woken when it has been made, not before."""
    micro(turns, 2, steady(), depth=None, coast=True)


def test_a_wrong_answer_is_seen() -> None:
    """The oracle's answers are compared in the very run that counts; one that is not as told makes the run wrong."""
    own = session(2)
    works = own.program.works
    event = works[1].first + 3
    answers = own.memory.arrays["answer_base"]
    kept = int(answers["vm_end"][event])
    answers["vm_end"][event] = kept + 4096
    try:
        own.run(steady(), NOTHING, depth=Depth(rounds=2, warm_rounds=1, accesses=200_000))
        assert not own.verdict.ok
        assert f"event {event} of thread 1" in own.verdict.what
    finally:
        answers["vm_end"][event] = kept
    own.run(steady(), NOTHING, depth=Depth(rounds=2, warm_rounds=1, accesses=200_000))
    assert own.verdict.ok
    assert own.checked > 500


def test_parts_add_up_and_a_machine_without_latency_scales() -> None:
    """What a CPU's time went into is its clock. With no latency anywhere, eight CPUs do eight times as much."""
    rates = {}
    for cpus in (1, 8):
        own = session(cpus)
        for name in ("ideal", "milan-2s"):
            found = own.run(load_machine(name), NOTHING, depth=Depth(rounds=3, warm_rounds=1, accesses=600_000))
            assert own.verdict.ok, own.verdict.what
            assert sum(found.parts.values()) == pytest.approx(found.clock, rel=1e-3)
            rates[name, cpus] = found.throughput
    assert rates["ideal", 8] == pytest.approx(8 * rates["ideal", 1], rel=0.05)
    assert rates["milan-2s", 8] < 2 * rates["milan-2s", 1]


class Kept(CountedReplay):
    """A counted replay that also keeps, of its last pass, the accesses of faults that threads make in machine code:
    by structure, per fault. A load of a word that was loaded or stored before, with no store, atomic operation or
    barrier in between, is none: the compiler keeps the value. Nor is ``mm.rss`` accessed, since in runs with threads
    each task has its own count (2.6.34 on)."""

    def _replay(self, budget: int) -> Cost:
        self.kept, self.faults, self._known = Counter[str](), 0, set[int]()
        return super()._replay(budget)

    def _flush(self, first: int, last: int) -> None:
        rss, record_size = self.memory.code(MM, "rss", LOADED)
        rss += record_size  # of MM record 1
        fault = False
        for record in self._records:
            kind, address = record >> SHIFT, record & LOW
            if kind == EVENT:
                fault = address == CLASS_FAULT
                self.faults += fault
                self._known.clear()
            elif kind in (LOADED, STORE, ATOMIC):
                region = next(r for r in reversed(self.memory.regions) if address >= r.first * LINE)
                if fault and address != rss and not (kind == LOADED and address in self._known):
                    self.kept[region.name] += 1
                if kind != LOADED:
                    self._known.clear()
                if kind != ATOMIC:
                    self._known.add(address)
            elif kind == BARRIER:
                self._known.clear()
        super()._flush(first, last)


def test_one_cpu_makes_the_accesses_that_cost_counts() -> None:
    """One simulated CPU makes as many accesses per fault as the counted replay of the text, within 5 %, and in each
    structure within one: what the compiler merges and what threads do not keep is taken from the count. Without
    that the count is higher by these few, 52 to 48 here."""
    known = load([])
    counted = Kept(known.strategy("rbtree"), known.spec(LOAD).trace(0, 1))
    cost = counted.run(0).numbers
    own = session(1)

    def accesses(*free: str) -> float:
        books = Layout("no books", free=("thread", "crew", "slab", "freed", "rcu_head", *free))  # cost counts none
        return own.run(steady(), NOTHING, depth=Depth(rounds=3, warm_rounds=1), layout=books).each("fault")

    told = sum(counted.kept.values()) / counted.faults
    whole = accesses()
    assert whole == pytest.approx(told, rel=0.05)
    assert sum(cost[f"fault.{what}"] for what in ("loads", "stores", "atomics")) > whole
    for structure, number in counted.kept.items():
        assert whole - accesses(structure) == pytest.approx(number / counted.faults, abs=1.05), structure


SAME = """
import hashlib, sys
from test_simulate import Depth, NOTHING, adders, session
from benchframe.simulator.build import SIMULATED, instrument
from benchframe.simulator.machines import load_machine
own = session(4)
found = own.run(load_machine("milan-2s"), NOTHING, seed=3, depth=Depth(rounds=3, warm_rounds=1, accesses=400_000))
assert own.verdict.ok
told = repr((found.window, found.operations, found.cpus, found.parts, found.accesses, found.fields, found.pairs))
print(hashlib.sha256(told.encode()).hexdigest())
"""


def test_the_same_to_the_bit() -> None:
    """Another process, another hash seed, another layout of the address space: the same figures."""
    session(4)
    found = set()
    for seed, wrapper in (("1", []), ("77", ["setarch", "-R"])):
        command = [*wrapper, sys.executable, "-c", SAME]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1


def test_every_access_is_told() -> None:
    """The instrumented text has a call before each access to memory, none for the stack, and counts instructions; an
    access of a form that it does not know is an error, no gap."""
    text = """define i64 @entry(ptr %a) {
  %own = alloca i64, align 8
  %x = load i64, ptr %a, align 8
  %y = add i64 %x, 1
  store atomic i64 %y, ptr %a release, align 8
  store i64 %y, ptr %own, align 8
  %old = atomicrmw add ptr %a, i64 1 seq_cst, align 8
  %pair = cmpxchg ptr %a, i64 0, i64 1 seq_cst seq_cst, align 8
  fence seq_cst
  fence acquire
  %v = load <2 x i64>, ptr %a, align 8
  call void @llvm.memset.p0.i64(ptr nonnull align 8 %a, i8 0, i64 128, i1 false)
  ret i64 %y
}
"""
    lines = instrument(text).splitlines()
    calls = [line.partition("@benchframe_")[2] for line in lines if " = call i64 @benchframe_" in line]
    kinds = [call.partition("(")[0] for call in calls]
    assert kinds == ["access", "access", "access", "access", "barrier", "access", "range"]
    told = [re.findall(r"i64 (\d+)", call) for call in calls[:4]]
    assert told == [["1", "0"], ["2", "1"], ["2", "2"], ["1", "2"]]  # instructions, and LOAD, STORE or ATOMIC
    with pytest.raises(DialectError, match="does not know this access"):
        instrument("define void @f(ptr %a) {\n  %x = load x86_fp80, ptr %a\n}\n")


def test_machines_say_where_their_numbers_come_from(tmp_path: Path) -> None:
    """Each shipped machine is complete; the box is balanced; a damaged file is told by its member."""
    for name in machine_names():
        machine = load_machine(name)
        assert all(number.source and number.low <= number.value <= number.high for number in machine.numbers.values())
    corners = [corner for _, corner in box(load_machine("milan-2s"))]
    for one in ("near", "hold", "batch", "insn"):
        values = [corner.numbers[one].value for corner in corners]
        assert sorted(values) == sorted([min(values)] * 4 + [max(values)] * 4)
    good = (Path(benchframe.simulator.machines.__file__).with_name("machines") / "milan-2s.toml").read_text()
    bad = tmp_path / "bad.toml"
    for damage, told in (
        (("sockets = 2", "sockets = 900"), "sockets must be a whole number"),
        (("hold = {", "hald = {"), "times.hald is not known; did you mean hold"),
        (("l1_sets = { value = 64", "l1_sets = { value = 63"), "l1_sets must be a power of two"),
        (('standing = "guess"', 'standing = "sure"'), "standing is one of"),
        (("value = 23, low = 18", "value = 23, low = 28"), "does not lie between"),
        (("[times]", "[times"), "bad.toml"),
    ):
        bad.write_text(good.replace(*damage, 1))
        with pytest.raises(SimulateError, match=told):
            load_machine(str(bad))
    with pytest.raises(SimulateError, match="did you mean milan-2s"):
        load_machine("milan2s")


def test_calibration_finds_what_was_planted(tmp_path: Path) -> None:
    """From counts and times the fit finds the two numbers; a number that would be negative is 0; the machine file has
    them as measured, with bounds, and everything else as the base has it, as a guess."""
    counts = [(100.0, 2.0), (40.0, 9.0), (70.0, 4.0), (900.0, 30.0)]
    cells = [search.Cell("s", f"w{i}", 0.2 * i + 3.0 * a + 7.0, i, a, 7.0) for i, a in counts]
    assert fit(cells) == pytest.approx((0.2, 3.0))
    assert search.error(cells, *fit(cells)) < 1e-9
    assert fit([replace(cell, native=cell.instructions - cell.atomics + 7.0) for cell in cells])[1] == 0.0
    off = [replace(cells[0], native=1.1 * cells[0].native), *cells[1:]]
    base = load_machine("nehalem-2s")
    path = tmp_path / "here.toml"
    path.write_text(machine_toml(search.calibrated(base, off, 'a "CPU"')))
    found = load_machine(str(path))
    assert (found.cpus, found.title) == (base.cpus, 'a "CPU", calibrated')
    for name in ("insn", "atomic"):
        number = found.numbers[name]
        assert number.standing == "measured"
        assert number.low < number.high
    for name in ("l2", "near", "hold", "batch", "l1_sets"):
        assert found.numbers[name].value == base.numbers[name].value
        assert found.numbers[name].standing == "guess"
    assert found.numbers["insn"].low <= 0.2 <= found.numbers["insn"].high, "one of the fits leaves the wrong cell out"


def test_layouts_are_lines_of_the_record() -> None:
    """No kernel's layout puts more into a line than 64 bytes hold, nor a field into two; mmap_lock has a line; what a
    layout does not name costs as in the model; a field of another record is an error."""
    for name in layout_names():
        layout = load_layout(name)
        assert name == "model" or "mmap_lock" in {field for line in layout.lines["mm"] for field in line}
        for structure, slab in (("mm", MM), ("vma", VMA)):
            lines = layout.lines.get(structure, ())
            named = [field for line in lines for field in line]
            assert len(set(named)) == len(named), name
            assert all(len(line) <= 8 for line in lines), name
            words = layout.words(structure, slab.struct, costless(slab)) or []
            for line in lines:
                places = {words[slab.struct.fields[field][0] // 8] for field in line}
                assert len(places) == 1, (name, line)
    moved = load_layout("linux-6.12", ["mm.mmap_lock"]).words("mm", mm_struct, costless(MM)) or []
    assert moved.count(moved[mm_struct.fields["mmap_lock"][0] // 8]) == 1
    with pytest.raises(SimulateError, match="mm has no field 'vm_start'"):
        load_layout("linux-3.10", ["mm.vm_start"])
    with pytest.raises(SimulateError, match=r"did you mean linux-3\.10"):
        load_layout("linux3.10")


def test_a_search_for_a_layout_gains_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each move of --search-layout is worth at least 2 %, and its throughput is that of a run in the final order."""
    monkeypatch.setattr(search, "CANDIDATES", 2)
    monkeypatch.setattr(search, "MOVES", 2)
    own, depth = session(4), Depth(rounds=2, warm_rounds=1, accesses=60_000)
    start, moves = search_layout(own, steady(), NOTHING, as_it_is(), depth=depth)
    assert moves, "one line has mmap_lock, which all write, and fields that all read"
    assert all(move.factor >= search.GAIN for move in moves)
    layout = as_it_is([move.field for move in moves])
    assert own.run(steady(), NOTHING, depth=depth, layout=layout).throughput == moves[-1].throughput > start
    alone = [line for line in lines_of(as_it_is(), moves) if len(line) == 1]
    assert {f"mm.{line[0]}" for line in alone} >= {move.field for move in moves if move.field.startswith("mm.")}


def test_the_adversary_finds_the_worst_of_a_known_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """--adversary comes near the load that is worst by construction, says each load as options, and says the same
    again."""
    known, machine = load([]), steady()

    def rate(known: object, strategy: Strategy, load: search.Load, machine: object, work: Work) -> float:
        vmas = int(load.spec.partition("vmas=")[2] or 2000)
        return 1.0 if strategy.name == "rbtree" else 1.0 + abs(vmas - 60) + 100 * (load.cpus != 8)

    monkeypatch.setattr(search, "_rate", rate)
    monkeypatch.setattr(search, "SPACE", {"multi-fault-all-split": {"vmas": (40, 2000)}})
    found = search.adversary(known, "maple", "rbtree", machine, lambda ns: NOTHING, tries=60)
    assert [trial.ratio for trial in found] == sorted(trial.ratio for trial in found)
    worst = search.adversary(known, "rbtree", "maple", machine, lambda ns: NOTHING, tries=60)
    assert worst == search.adversary(known, "rbtree", "maple", machine, lambda ns: NOTHING, tries=60)
    assert found[0].load.cpus == 8
    assert found[0].ratio < 50
    assert worst[0].ratio < 1 / 1000
    words = found[0].load.options().split()
    assert words[0] == "-w"
    assert known.spec(words[1]).trace(0, 8).events.size


class OneByOne(Executor):
    """Runs what is submitted at once, in this process; ``broken`` submissions end as if the process had died."""

    def __init__(self, broken: int = 0) -> None:
        self.broken, self.given = broken, 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """As concurrent.futures.Executor."""
        future: Future[Any] = Future()
        self.given += 1
        if self.given <= self.broken:
            future.set_exception(BrokenProcessPool("killed"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def test_any_executor_computes_the_same_cells(tmp_path: Path) -> None:
    """The seam behind --cluster takes any executor: threads, or one that dies once, leave the bytes of one that does
    cell after cell. A worker with another compiler or other sources refuses, and says which."""
    known, machine = load([]), load_machine("milan-2s")
    rbtree = {"rbtree": simulated(known.strategy("rbtree"))}
    streams = make_streams(known, [LOAD], [], 0, None, [1, 2])
    plan = plan_cells(["rbtree"], rbtree, streams, machine, NOTHING, as_it_is(), seeds=1, command=["benchframe"])
    jobs = jobs_of(plan, machine, NOTHING, as_it_is(), seeds=1, corners=False, rounds=2, accesses=100_000)
    found = []
    for number, makers in enumerate(([OneByOne()], [ThreadPoolExecutor(2)], [OneByOne(1), *map(OneByOne, (0, 0, 0))])):
        folder = RunFolder.create(tmp_path / str(number), plan)
        run_cells(folder, jobs, rbtree, Watcher(), iter(makers).__next__)
        assert not any(cell.state.failed for cell in folder.cells())
        found.append([simulated_path(folder.path, entry).read_bytes() for entry in jobs])
    assert found[0] == found[1] == found[2]
    job = next(iter(jobs.values()))
    with pytest.raises(SimulateError, match=r"this worker has numba .*, the run was begun with 0\.1"):
        do_job(replace(job, tools=(("numba", "0.1"),)))
    with pytest.raises(SimulateError, match="other sources of benchframe"):
        do_job(replace(job, sources="another"))
    with pytest.raises(SimulateError, match="another source of strategy rbtree"):
        do_job(replace(job, digest="another"))


class Killer(Watcher):
    """Kills one worker of a scheduler when the first cell has come."""

    client: Any = None
    killed = 0

    def cell(self, entry: CellEntry, answer: Answer) -> None:
        """As Watcher's."""
        if not self.killed:
            self.killed = next(iter(self.client.run(os.getpid).values()))
            os.kill(self.killed, signal.SIGKILL)


def test_a_scheduler_whose_worker_is_killed_loses_nothing(tmp_path: Path) -> None:
    """`--cluster local:2`, a real Dask scheduler with two workers on loopback, one of which is killed half-way, leaves
    the bytes of a serial run."""
    if not os.environ.get("BENCHFRAME_CI"):
        pytest.importorskip("distributed", reason="Dask is not installed: pip install 'benchframe[cluster]'")
    known, machine = load([]), load_machine("milan-2s")
    rbtree = {"rbtree": simulated(known.strategy("rbtree"))}
    streams = make_streams(known, [LOAD], [], 0, None, [1, 2, 3])
    plan = plan_cells(["rbtree"], rbtree, streams, machine, NOTHING, as_it_is(), seeds=1, command=["benchframe"])
    jobs = jobs_of(plan, machine, NOTHING, as_it_is(), seeds=1, corners=False, rounds=2, accesses=100_000)
    serial = RunFolder.create(tmp_path / "serial", plan)
    run_cells(serial, jobs, rbtree, Watcher(), OneByOne)
    killer = Killer()

    with cluster("local:2") as executors:

        def executor() -> Executor:
            made: Any = executors()
            killer.client = made._client
            return made  # type: ignore[no-any-return]

        folder = RunFolder.create(tmp_path / "cluster", plan)
        run_cells(folder, jobs, rbtree, killer, executor)
    assert killer.killed
    assert not any(cell.state.failed for cell in folder.cells())
    for entry in jobs:
        assert simulated_path(folder.path, entry).read_bytes() == simulated_path(serial.path, entry).read_bytes()


def test_a_trace_with_more_threads_than_the_machine_has_cpus(tmp_path: Path) -> None:
    """It is left out; if nothing else was asked for that is an error, which says what to do, and no empty run."""
    trace = Path(benchframe_workloads.__file__).parent / "data" / "chromium-page.parquet"
    code, _, err = run(tmp_path, "simulate", "-s", "rbtree", "--trace", str(trace), "--machine", "nehalem-2s")
    assert code == 2
    assert "name a machine with more CPUs (--machine)" in " ".join(err.split())
    assert not (tmp_path / "reports").exists()


def test_command_from_run_to_report(tmp_path: Path) -> None:
    """`benchframe simulate` leaves a run's folder that table and report read; a cell that was lost is simulated again
    by --resume, with the same figures; other options than the run's are refused. An experiment file stands for the
    options, and for nothing else."""
    simulated(load([]).strategy("rbtree"))
    words = ["simulate", "-s", "rbtree", "-w", LOAD, "--cpus", "1,2", "--accesses", "0.3", "--band"]
    file = tmp_path / "two.toml"
    file.write_text(f'strategies = ["rbtree"]\nworkloads = ["{LOAD}"]\ncpus = [1, 2]\naccesses = 0.3\nband = true\n')
    code, _, err = run(tmp_path, "simulate", "two.toml", "--cpus", "1")
    assert (code, "--cpus stands in the experiment file two.toml" in err) == (2, True), err
    code, out, err = run(tmp_path, "simulate", "two.toml", "--lines")
    assert code == 0, err
    assert "rbtree on multi-fault-all-split:vmas=40 peaks at 1 CPU" in out
    assert "mm.mmap_lock" in out
    folder = RunFolder.open(find_run("last", tmp_path / "reports/runs"))
    cells = simulated_cells(folder)
    assert [cell.cpus for cell in cells] == [1, 2]
    assert all(len(cell.runs) == 9 and cell.band[0] < cell.throughput < cell.band[1] for cell in cells)
    lost = simulated_path(folder.path, cells[1].cell.entry)
    before = lost.read_bytes()
    lost.unlink()
    code, _, err = run(tmp_path, *words, "--resume", "last")
    assert code == 0, err
    assert lost.read_bytes() == before
    code, _, err = run(tmp_path, *words, "--resume", "last", "--set", "near=50")
    assert code == 2
    assert "was begun with other" in err
    assert "simulated, not measured" in run(tmp_path, "table", "last")[1]
    code, _, err = run(tmp_path, "report", "last", "-o", "report", "--format", "html,markdown")
    assert code == 0, err
    page = (tmp_path / "report/report.html").read_text()
    assert "Simulated CPUs: throughput" in page
    assert "Simulated, not measured" in page
    assert "another machine" not in page


# ---- hooks that the simulator fills ---------------------------------------------------------------------------------


def test_each_line_of_a_walk_is_work() -> None:
    """A mapper beside two scanners: what the text of a line is declared to take is in each walk, and a mapping call
    under mmap_lock waits for a whole walk."""
    short = Depth(rounds=20, accesses=60_000)
    one = session(1, "proc-maps:vmas=50,turns=5")
    machine = load_machine("milan-2s")
    plain, told = (one.run(machine, load_work(work), depth=short) for work in ("mapping=300", "mapping=300,line=1000"))
    assert one.verdict.ok, one.verdict.what
    assert told.histograms["walk"].latency("walk").p50 > 40_000 > plain.histograms["walk"].latency("walk").p50
    assert told.histograms["mapping"].latency("mapping").p50 > 40_000


def test_shootdowns_reach_mapping_calls() -> None:
    """madvise of pages that others may have in their TLBs sends interrupts, if they cost something."""
    spent = [
        session(2).run(steady(ipi_send=ns), NOTHING, depth=Depth(rounds=1, accesses=100_000)).parts["shootdowns"]
        for ns in (0, 100)
    ]
    assert spent[0] == 0 < spent[1]
