"""The schedule: orders, layouts, the budget; the processes of a round."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from support.fake_worker import FakeSession, Times
from support.sessions import WORKER, stream

from benchframe.engine.job import DEPTHS, Budget, Depth, Job, Workers, layout_seed, order, spare_cpu, spool
from benchframe.engine.worker import Meter

CELLS = [f"workload\n{name}" for name in "abcdef"]


def test_order_depends_on_seed_round_and_cells_alone() -> None:
    """The same seed gives the same order whatever order the cells come in; another round or seed another one."""
    assert order(7, 3, CELLS) == order(7, 3, CELLS[::-1])
    assert sorted(order(7, 3, CELLS)) == sorted(CELLS)
    assert len({tuple(order(7, r, CELLS)) for r in range(50)}) > 40
    assert len({tuple(order(s, 0, CELLS)) for s in range(50)}) > 40


def test_every_cell_is_first_about_as_often() -> None:
    """Over many rounds no cell is favoured: each comes first in a sixth of 3000 rounds, within five sigma."""
    first = Counter(order(1, r, CELLS)[0] for r in range(3000))
    assert set(first) == set(CELLS)
    assert all(abs(n - 500) < 5 * 20.4 for n in first.values())


def test_layout_seed_is_recorded_by_round() -> None:
    """Layout seeds repeat for the same round and differ between rounds and runs."""
    assert layout_seed(1, 2) == layout_seed(1, 2)
    assert len({layout_seed(s, r) for s in range(20) for r in range(20)}) == 400
    assert all(0 <= layout_seed(s, 0) < 1 << 31 for s in range(100))


def test_depths_grow() -> None:
    """quick < default < rigorous in rounds, and every preset has the two rounds that an interval needs."""
    quick, default, rigorous = (DEPTHS[name] for name in ("quick", "default", "rigorous"))
    assert 2 <= quick.rounds < default.rounds < rigorous.rounds
    assert quick.values * quick.min_time < default.values * default.min_time


@pytest.mark.parametrize(
    ("limit", "taken", "elapsed", "fits"),
    [
        (None, [10, 10], 1e9, True),
        (60, [], 0, True),
        (60, [50], 55, True),  # one round has no spread: the second always runs
        (60, [10, 20], 40, True),
        (60, [10, 20], 41, False),
        (60, [50, 1, 1, 1], 58, True),  # the slow first round (cold caches) is forgotten
    ],
)
def test_budget(limit: float | None, taken: list[float], elapsed: float, fits: bool) -> None:
    """A round is started only if the longest of the last three would still fit, and two rounds always run."""
    budget = Budget(limit)
    for seconds in taken:
        budget.took(seconds)
    assert budget.fits(elapsed) is fits


@pytest.mark.parametrize(
    ("cpus", "load", "chosen"),
    [({0, 1}, 0.1, 1), ({0, 1}, 1.0, 1), ({0, 1}, 4.0, None), ({3}, 0.0, None), ({2, 5, 7}, 1.0, 7)],
)
def test_workers_are_pinned_where_it_helps(
    monkeypatch: pytest.MonkeyPatch, cpus: set[int], load: float, chosen: int | None
) -> None:
    """Pinned to the last CPU, but not if it is the only one or the machine is busy."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cpus)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 9.0, 9.0))
    assert spare_cpu() == chosen


def test_workers_of_a_round_come_from_one_server(tmp_path: Path) -> None:
    """Processes of one layout seed are forked from one server, also after one of them died; those of another seed from
    another one. The end of a server is told as that of the cell, and the next cell has a new one."""
    trace = stream().trace
    events, meta = spool(trace, tmp_path)

    def job(name: str, seed: int) -> Job:
        return Job(name, "", str(events), str(meta), trace.setup, seed, extras=False)

    with Workers(tmp_path, WORKER) as workers:

        def run(name: str, seed: int) -> tuple[str, str, int]:
            outcome = workers.run(job(name, seed), Depth(1, 1, 0, 0.004), loops=4, cpu=None, timeout=60)
            server = workers._server
            return outcome.state, outcome.message, server._process.pid if server else 0

        state, _, first = run("fake20", 1)
        assert (state, run("segv", 1)[1:]) == (
            "ok",
            ("killed by SIGSEGV (Fatal Python error: Segmentation fault)", first),
        )
        assert run("fake30", 1) == ("ok", "", first)
        state, _, second = run("fake30", 2)
        assert (state, second == first) == ("ok", False)
        os.kill(second, signal.SIGKILL)
        assert run("fake30", 2)[:2] == ("crashed", "killed by SIGKILL")
        assert run("fake30", 2)[0] == "ok"
    assert workers._server is None


def test_a_busy_machine_does_not_make_a_value_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of replays of a value follows from the fastest ones seen: here one takes 1 ms, and 3 ms before."""

    def measure(self: FakeSession, loops: int, most: float = 2.0) -> Times:
        each = 3e-3 if loops < 8 else 1e-3
        return Times(loops, each * loops, 1.0, 1.0, 1.0, 1.0, taken=loops, quiet=loops)

    monkeypatch.setattr(FakeSession, "__init__", lambda self: None)
    monkeypatch.setattr(FakeSession, "measure", measure)
    meter = Meter(FakeSession())  # type: ignore[call-arg]
    assert meter.calibrate(0.1) == 100
    assert [times.taken for times in meter.taken] == [1, 2, 4, 8, 16]
