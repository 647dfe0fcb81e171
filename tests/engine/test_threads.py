"""Runs with real threads: what each plays, that every answer is right, that what is wrong is seen, and the numbers."""

import csv
import io
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.command import run
from support.threads import registry, session, trace

from benchframe import stream
from benchframe.dialect import native
from benchframe.dialect.functions import Identities
from benchframe.engine import threads as engine_crew
from benchframe.engine.session import Histogram, edges
from benchframe.engine.threads import ProgramError, ThreadSession, make_program, scaling
from benchframe.engine.worker import sample
from benchframe.errors import EngineError
from benchframe.events import Kind
from benchframe.mm.defaults import read_unlock
from benchframe.mm.layout import ARENA_VMA, TASK, arena_alloc, kfree_rcu, synchronize_rcu
from benchframe.mm.machine import Parameters
from benchframe.mm.memory import anon_page
from benchframe.mm.smp import BUCKETS, REPLACE
from benchframe.mm.smp_replay import bucket_of
from benchframe.report.details import scaling_table
from benchframe.results.figures import points
from benchframe.results.folder import RunFolder, find_run
from benchframe.runner import unit_store
from benchframe.units import UnitSpec
from benchframe.workload import WorkloadError
from benchframe_plugins.pmdcache_rcu import vma_release

PAGE = stream.PAGE
CROWD = 5
"""More threads than the cores of most test machines."""


# ---- the build ------------------------------------------------------------------------------------------------------


@native
def twice(mm):  # type: ignore[no-untyped-def]
    """Calls what a build may exchange."""
    return arena_alloc(mm, 0) + arena_alloc(mm, 0)


@native
def counted(mm, which):  # type: ignore[no-untyped-def]
    """A replacement that calls what it replaces."""
    return arena_alloc(mm, which) + 1


def test_a_build_exchanges_functions() -> None:
    """Another function in place of one changes the identity of its callers; a replacement may call the original."""
    plain, other = Identities(None), Identities(None, {arena_alloc: counted})
    assert plain.of(twice) != other.of(twice)
    assert plain.of(arena_alloc) == other.of(arena_alloc)
    assert other.callee(arena_alloc, twice) is counted
    assert other.callee(arena_alloc, counted) is arena_alloc
    assert plain.of(anon_page) != Identities(None, REPLACE).of(anon_page)


# ---- histograms -----------------------------------------------------------------------------------------------------


def test_buckets_and_edges_agree() -> None:
    """Every value lies between its bucket's edges, and buckets are at most 1/16 wide."""
    edge = edges()
    values = [*range(300), *(1 << np.arange(8, 40)), *((1 << np.arange(8, 40)) - 1), *range(10**6, 10**6 + 99999, 977)]
    for value in map(int, values):
        bucket = bucket_of(value)
        assert edge[bucket] <= value < edge[bucket + 1]
        assert edge[bucket + 1] - edge[bucket] <= max(1, value / 16)
    assert bucket_of(1 << 60) == BUCKETS - 1
    assert bucket_of(-5) == 0


def test_histogram_quantiles() -> None:
    """Quantiles of a known histogram; the clock's cost is taken off, cycles become ns."""
    counts = np.zeros(BUCKETS, np.int64)
    counts[bucket_of(100)], counts[bucket_of(1000)] = 99, 1
    row = Histogram(counts, ns=0.5, cost=20).latency("fault")
    assert row.n == 100
    assert row.p50 == row.p99 == pytest.approx(40, rel=1 / 16)
    assert row.max == pytest.approx(490, rel=1 / 16)
    assert [n for _, n in Histogram(counts, 0.5).points()] == [99, 1]


# ---- who plays what -------------------------------------------------------------------------------------------------


def test_program_of_a_made_stream() -> None:
    """Each thread gets its own task's rows in one piece, and the barrier where the workload put it."""
    program = make_program(trace("multi-fault-all-split", 3), 3, Parameters())
    assert [work.task for work in program.works] == [1, 2, 3]
    for work in program.works:
        assert set(program.records["task"][work.first : work.last]) == {work.task - 1}
        assert work.barrier == work.first + 512
        assert program.records["kind"][work.barrier] == Kind.MADVISE
    assert not program.ordered
    alone = make_program(trace("multi-fault-all-split", 1), 1, Parameters())
    assert alone.works[0].barrier == -1, "nobody to meet"


def test_program_of_a_recording() -> None:
    """All events but the last EXIT are there, once; threads get about equal shares; each event waits for the mapping
    operation that stands before it in the trace."""
    recorded = trace("mt-alloc", 2)
    program = make_program(recorded, 2, Parameters())
    assert program.ordered
    assert len(program.records) == len(recorded.events) - 1
    sizes = [work.last - work.first for work in program.works]
    assert max(sizes) < 1.2 * min(sizes)
    mapping = ~np.isin(program.records["kind"], (Kind.FAULT, Kind.LOOKUP))
    waits = program.after[program.setup :]
    assert mapping[waits[waits >= 0]].all()
    assert sorted(program.number[program.setup :][mapping[program.setup :]]) == list(
        range(mapping.sum() - program.setup)
    )
    with pytest.raises(ProgramError, match="has 5 recorded threads, 6 were asked for"):
        make_program(recorded, 6, Parameters())


def test_forks_are_refused() -> None:
    """A trace of several address spaces cannot be played by threads of one."""
    with pytest.raises(ProgramError, match="several address spaces"):
        make_program(trace("sh-pipeline", 2), 2, Parameters())


def test_workload_without_a_form_for_threads() -> None:
    """Says so, and where to look."""
    with pytest.raises(WorkloadError, match="cannot run with threads"):
        trace("uniform", 2)


def test_rows_of_another_task_are_refused() -> None:
    """A maker that gives thread 1 rows of task 0 would race with thread 0."""
    rows = stream.fault(stream.TOP - PAGE)
    with pytest.raises(ValueError, match="must be of task i"):
        stream.build_threads([], [rows, rows], map_count=1)


# ---- right ----------------------------------------------------------------------------------------------------------

LOADS = (
    "multi-fault-all-split",
    "page_fault1:mib=1",
    "page_fault2:mib=1,variant=processes",
    "page_fault3:mib=1",
    "mmap2:turns=50",
    "brk1:turns=50",
    "mixed:pages=64,turns=20",
    "ebizzy:vmas=20,chunk=8,events=600",
    "mt-alloc",
)


@pytest.mark.parametrize("label", LOADS)
@pytest.mark.parametrize("name", ["rbtree", "pmdcache_rcu"])
def test_every_answer_with_threads(name: str, label: str) -> None:
    """Three threads: all answers compared and right, the address spaces valid, then a short measurement adds up."""
    made = session(name, label, 3)
    verdict = made.verify()
    assert verdict.ok, verdict.what
    assert made.checked >= len(made.program.records) - made.program.setup
    found = made.measure(0.02)
    assert len(found.rates) == made.threads
    assert sum(found.operations.values()) > 0
    assert 0 <= found.lock_share <= 1
    assert 0 < found.fairness <= 1 + 1e-9
    total = sum(1e9 / ns for figure, ns in found.figures.items() if figure != "replay")
    assert 1e9 / found.figures["replay"] == pytest.approx(total)


def test_stress_with_more_threads_than_cores() -> None:
    """Two seconds of faults beside mapping calls: every answer right, validate_mm clean, holders zero, RCU drained."""
    made = session("pmdcache_rcu", "mixed:mappers=2,pages=128,turns=100", CROWD)
    for _ in range(4):
        verdict = made.judge(made.lap(seconds=0.5, checks=True).threads)
        assert verdict.ok, verdict.what
    queue = made.machine.arrays["crew_base"]
    assert queue["freed"].sum() > 0, "the writers freed VMAs through RCU"
    assert queue["queued"].sum() == 0
    assert not made.machine.arrays["vma_base"]["cache_access"].any()


def test_counts_and_tails() -> None:
    """Hits and lookups of the threaded build add up; the histogram has one entry per operation of its pass."""
    made = session("pmdcache_rcu", "multi-fault-all-split", 2)
    counts = made.counts()
    assert counts["lookups"] == counts["faults"] + counts["mapping_ops"]
    assert counts["hits"] >= 0.99 * counts["faults"]
    rows = made.histograms(0.02)
    assert set(rows) == {"fault", "mapping"}
    assert rows["fault"].latency("fault").n >= 1024


def test_a_wrong_answer_is_seen() -> None:
    """If one expected bound is another, the verdict names the event, the thread and both answers."""
    made = session("rbtree", "multi-fault-all-split", 2)
    event = made.program.works[1].first + 7
    made.machine.arrays["answer_base"]["vm_end"][event] += PAGE
    verdict = made.verify()
    assert not verdict.ok
    assert verdict.event == event
    assert "of thread 1 (FAULT" in verdict.what
    with pytest.raises(EngineError, match="not timed, because an answer is wrong"):
        made.measure(0.01)


@native
def forgetful_put(mm, task, vma):  # type: ignore[no-untyped-def]
    """A vma_put that keeps hold or lock once the test has said so."""
    t = TASK(mm, task)
    if t.strategy1 != 0:
        return 0
    if t.speculative:
        t.speculative = 0
        return vma_release(mm, vma)
    return read_unlock(mm, task)


def forgetful() -> ThreadSession:
    """A twin of pmdcache_rcu that will forget to release, on a workload that maps while it faults."""
    twin = registry().strategy("pmdcache_rcu")
    leaky = replace(twin, name="forgetful", binding={**twin.binding, "vma_put": forgetful_put})
    made = session(leaky, "multi-fault-all-split:barrier=0", 2)
    made.machine.arrays["task_base"]["strategy1"] = 1
    return made


def test_a_forgotten_hold_is_seen() -> None:
    """Answers are right, but at the end somebody still holds something."""
    made = forgetful()
    made.lap(rounds=1)
    assert "cache_access" in made.at_rest() or "mmap_lock" in made.at_rest()
    assert not made.verify().ok


STUCK = """
import os, sys
sys.path[:0] = {folders!r}
import test_threads as t
t.engine_crew.PATIENCE = 1.0
made = t.forgetful()
made.lap(rounds=1)
events = made.machine.arrays["event_base"]
first = made.program.works[0].first
events["kind"][first] = int(t.Kind.MPROTECT)
events["len"][first], events["prot"][first] = 1 << 21, 1
try:
    made.lap(seconds=0.01)
except t.engine_crew.Stuck as error:
    print(error, flush=True)
os._exit(0)
"""


def test_a_deadlock_ends() -> None:
    """A hold that is never given back stops the writer that waits for it: Stuck says that threads wait for ever."""
    tests = Path(__file__).resolve().parents[1]
    code = STUCK.format(folders=[str(tests), str(tests / "engine")])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
    assert "waits for ever" in done.stdout, done.stderr
    assert engine_crew.PATIENCE > 10, "a busy machine is no deadlock"


@native
def wait_for_readers(mm, task):  # type: ignore[no-untyped-def]
    """synchronize_rcu of the threaded build."""
    return synchronize_rcu(mm, task)


@native
def give_up(mm, slot):  # type: ignore[no-untyped-def]
    """kfree_rcu of a VMA."""
    return kfree_rcu(mm, ARENA_VMA, slot)


def test_grace_periods_wait_for_readers() -> None:
    """A thread that has read since before holds up synchronize_rcu and kfree_rcu; when it goes offline both go on."""
    made = session("rbtree", "multi-fault-all-split", 2)
    units = unit_store()
    wait, free = (
        units.get(UnitSpec(f.__name__, f, {}, REPLACE))
        for f in (wait_for_readers, give_up)  # type: ignore[attr-defined]
    )
    reader, queue = made.machine.arrays["thread_base"][2], made.machine.arrays["crew_base"][1]
    reader["rcu_seen"] = made.machine.arrays["crew_base"][0]["gp_started"]
    freed, slot = int(queue["freed"]), int(made.machine.arrays["slab_base"]["top"][ARENA_VMA]) - 1
    free(made.machine.root, slot)
    writer = threading.Thread(target=wait, args=(made.machine.root, 1), daemon=True)
    writer.start()
    writer.join(0.1)
    assert writer.is_alive()
    assert queue["freed"] == freed
    reader["rcu_seen"] = 0
    writer.join(60)
    assert not writer.is_alive()
    made.machine.arrays["thread_base"]["rcu_seen"] = 0
    assert made.runner.drain() == 0
    assert queue["freed"] == freed + 1


def test_laps_are_weighted_by_time() -> None:
    """Two equal laps are one of the same rates."""
    made = session("rbtree", "mmap1:turns=20", 2)
    lap = made.lap(rounds=2)
    one, two = scaling([lap]), scaling([lap, lap])
    assert one.figures == pytest.approx(two.figures)
    assert two.operations["mapping"] == 2 * one.operations["mapping"] == 2 * 2 * 2 * 40


def test_a_sample_in_which_nothing_ended_is_followed_by_a_longer_one() -> None:
    """Walks alone do not count. After three more tries what there is is taken."""
    asked: list[float] = []

    def told(figures: list[dict[str, float]]) -> Any:
        def measure(seconds: float) -> Any:
            asked.append(seconds)
            return SimpleNamespace(figures=figures[min(len(asked), len(figures)) - 1])

        asked.clear()
        return sample(SimpleNamespace(measure=measure), 0.1).figures  # type: ignore[arg-type]

    assert told([{"replay": 1.0}, {}, {"mapping": 2.0}]) == {"mapping": 2.0}
    assert asked == pytest.approx([0.1, 0.4, 1.6])
    assert told([{}]) == {}
    assert asked == pytest.approx([0.1, 0.4, 1.6, 6.4])


# ---- the command ----------------------------------------------------------------------------------------------------


def test_run_with_threads(tmp_path: Path) -> None:
    """`run --threads 1,2` leaves a cell per number, a table with the speed-up, and files that read back."""
    load_ = "multi-fault-all-split:barrier=0"
    options = ["-s", "rbtree", "-w", load_, "--threads", "1,2", "--quick", "--rounds", "2", "--seed", "1"]
    code, out, err = run(tmp_path, "run", *options)
    assert code == 0, out + err
    assert "speed-up" in out
    folder = RunFolder.open(find_run(str(next((tmp_path / "reports/runs").iterdir()))))
    cells = folder.cells()
    assert [cell.workload.threads for cell in cells] == [1, 2]
    found = points(cells)
    assert [(p.threads, p.real, p.workload, p.ideal) for p in found] == [(1, 1, load_, 1.0), (2, 2, load_, 2.0)]
    assert found[0].speed_up is None
    assert found[1].speed_up is not None
    assert found[1].speed_up.n == 2
    assert len(found[1].rates) == 2
    assert sum(found[1].rates) > 0
    assert cells[1].state.threads["threads"] == 2
    assert cells[1].state.threads["histograms"]["fault"]
    table = scaling_table(cells)
    assert [row[2].rstrip("*") for row in table.rows] == ["1", "2"]
    silent = scaling_table([replace(cell, figures={}) for cell in cells])  # no operation came to its end
    assert [row[3] for row in silent.rows] == ["", ""]
    assert sum("no figure" in note for note in silent.notes) == 2
    code, text, err = run(tmp_path, "table", "--format", "csv")
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["threads"] for row in rows] == ["1", "2"]
    assert float(rows[1]["per_second"]) > 0
    code, out, err = run(tmp_path, "run", "--resume", "last", "--rounds", "3")
    assert code == 0, err
    assert all(len(cell.done) == 3 for cell in folder.cells())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threads", "257"], "give numbers up to 256"),
        (["--threads", "two"], "give numbers up to 256"),
        (["--threads", "2", "-w", "uniform"], "cannot run with threads"),
    ],
)
def test_bad_numbers_of_threads(tmp_path: Path, options: list[str], message: str) -> None:
    """One line, exit code 2, nothing left behind."""
    code, _, err = run(tmp_path, "run", "-s", "rbtree", *options)
    assert code == 2
    assert message in err
    assert not (tmp_path / "reports").exists()
