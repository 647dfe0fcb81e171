"""What is set aside because the machine was disturbed, and where workers' code and memory lie."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.runs import OPTIONS, made, noise

from benchframe.engine.job import (
    PAD,
    RANDOM,
    SEEDED,
    Outcome,
    environment,
    fixed_addresses,
    scatter,
    worker_environment,
)
from benchframe.engine.session import FEW, SLACK, STRETCH, Quiet, batches
from benchframe.python import load
from benchframe.report.table import latency_table
from benchframe.results.campaign import Campaign, Observer
from benchframe.results.figures import control, controls, rows_of, set_aside
from benchframe.results.folder import CellState, Process, calm


def states(rng: np.random.Generator, n: int, slow: float, length: float = 20.0) -> np.ndarray:
    """1 or 1.5 for each replay: a machine that is disturbed for ``length`` replays at a time, a share of ``slow``."""
    leave = np.where([True, False], 1 / length, slow / (1 - slow) / length)
    found, now = np.empty(n), rng.random() < slow
    for i in range(n):
        now = now != (rng.random() < leave[0 if now else 1])
        found[i] = 1.5 if now else 1.0
    return found


@pytest.mark.parametrize("slow", [0.0, 0.2, 0.5, 0.7])
def test_what_counts_was_quiet(slow: float) -> None:
    """Replays of a machine that slows by half and back: the median of those that count is the quiet one's within 1 %,
    also where the plain median is the disturbed machine's."""
    rng = np.random.default_rng(int(100 * slow))
    machine = states(rng, 2000, slow)
    full, known = (level * machine * rng.normal(1, 0.004, 2000) for level in (300.0, 200.0))
    quiet = Quiet()
    quiet.see(known)
    chosen = quiet.choose(known)
    assert np.median(full[chosen]) == pytest.approx(300, rel=0.01)
    assert chosen.mean() > 0.6 * (1 - slow)
    if slow > 0.6:
        assert np.median(full) > 400


@pytest.mark.parametrize("spread", [0.002, 0.01])
def test_choosing_favours_nobody(spread: float) -> None:
    """Where replay and control have nothing in common, choosing by the control does not move the replay's median; where
    a strategy is slow of itself, nothing is set aside for it."""
    rng = np.random.default_rng(3)
    known = 200 * rng.normal(1, spread, 4000)
    slow = rng.random(4000) < 0.4
    full = np.where(slow, 600.0, 300.0) * rng.normal(1, 0.01, 4000)
    quiet = Quiet()
    quiet.see(known)
    chosen = quiet.choose(known)
    assert chosen.mean() > 0.75
    assert slow[chosen].mean() == pytest.approx(0.4, abs=0.02)
    assert np.median(full[chosen]) == pytest.approx(np.median(full), rel=0.005)


def test_a_process_that_was_disturbed_throughout_is_known_by_the_earlier_ones() -> None:
    """All controls are half as slow again as in an earlier process: none is quiet. A control that is 3 % slower, by
    the layout, has its own level."""
    control_ = np.full(50, 150.0)
    alone, after, moved = Quiet(), Quiet(100.0), Quiet(145.0)
    for quiet in (alone, after, moved):
        quiet.see(control_)
    assert alone.choose(control_).all()
    assert not after.choose(control_).any()
    assert after.level == pytest.approx(100 * STRETCH)
    assert moved.choose(control_).all()
    assert after.own == 150


def test_neighbours_of_a_disturbance_do_not_count() -> None:
    """A replay stands between two controls; one of them disturbed is enough."""
    control_ = np.full(40, 100.0)
    control_[20] = 100 * (1 + 2 * SLACK)
    quiet = Quiet()
    quiet.see(control_)
    assert np.flatnonzero(~quiet.choose(control_)).tolist() == [20, 21]


def test_few_replays_all_count() -> None:
    """Long replays are few, and nothing is set aside among them; nor is a level learnt."""
    quiet = Quiet()
    control_ = np.array([1.0, 9.0] * (FEW // 2 - 1))
    quiet.see(control_)
    assert quiet.own == 0
    assert quiet.choose(control_).all()
    assert batches(1) == (1, 1, 2)


def test_the_stack_is_the_seeds() -> None:
    """Arguments and environment have one length modulo 4096 per seed, whatever paths are among them."""

    def length(arguments: list[str], seed: int) -> int:
        found = environment({"HOME": "/root", "PATH": "/bin"}, arguments, seed)
        texts = [*arguments, *(f"{name}={value}" for name, value in found.items())]
        return sum(len(text.encode()) + 1 for text in texts) % 4096

    assert length(["python", "--job", "/a/job.json"], 5) == length(["python", "--job", "/a/much/longer/é/job.json"], 5)
    assert len({length(["python"], seed) for seed in range(20)}) > 15
    assert len(environment({}, [], 5)[PAD]) < 4096


_ASK = """
import sys, numpy, ctypes
sys.path[:] = {path!r}
from benchframe.engine.job import scatter
said = scatter({seed})
print(said, numpy.zeros(1 << 22).ctypes.data, id(sys.flags) >> 40)
"""


def test_addresses_are_the_seeds() -> None:
    """Two processes with one seed have their memory at the same address, another seed has another; without the parent's
    help a process says that its addresses are random."""

    def ask(seed: int) -> tuple[str, int]:
        code = _ASK.format(path=sys.path, seed=seed)
        arguments = [sys.executable, "-c", code]
        with fixed_addresses():
            done = subprocess.run(
                arguments,
                env=environment(worker_environment(), arguments, 1000 + seed),
                capture_output=True,
                text=True,
                check=True,
            )
        said, at, _ = done.stdout.split()
        return said, int(at)

    ask(3)  # a process that compiles a module to __pycache__ first has its memory elsewhere
    first, second, third = ask(1), ask(1), ask(2)
    if first[0] == RANDOM:
        pytest.skip("this kernel or container does not let a program switch address space randomisation off")
    assert first[0] == third[0] == SEEDED
    assert first == second
    assert first[1] != third[1]
    assert scatter(1) == RANDOM


def test_what_is_set_aside_is_said(tmp_path: Path) -> None:
    """The table says what share of replays was discarded, and how many processes were disturbed throughout."""
    cells = {name: {"lookup": noise(10, 4, seed)} for seed, name in enumerate(("base", "mine"))}
    marks = {"base": [(100, 90, 50.0)] * 4, "mine": [(100, 70, 60.0), (100, 0, 90.0), (100, 100, 0.0), (100, 80, 62.0)]}
    found = made(tmp_path / "run", cells, quiet=marks).cells()
    counted = set_aside(found)
    assert (counted.replays, counted.quiet) == (800, 610)
    assert (counted.processes, counted.restless, counted.left_out) == (8, 1, 1)
    assert controls(found[1]) == {0: 60.0, 3: 62.0}
    assert control(found[1]) == 60
    notes = "\n".join(latency_table(found).notes)
    assert "24 % of the replays were discarded" in notes
    assert "1 of 8 processes was disturbed throughout, according to the control, and is left out" in notes
    assert [row.shown for row in rows_of(found)] == ["ok", "ok"]
    busy = made(tmp_path / "busy", cells, quiet=marks | {"mine": [(100, 0, 90.0)] * 4}).cells()
    assert [row.shown for row in rows_of(busy)] == ["ok", "disturbed"]
    assert any(note.startswith("disturbed: no process found") for note in latency_table(busy).notes)
    plain = made(tmp_path / "plain", cells).cells()
    assert set_aside(plain).processes == 0
    assert "do not count" not in "\n".join(latency_table(plain).notes)


QUIET, NONE, HIGH = (100, 90, 50.0), (100, 0, 50.0), (100, 90, 53.0)
"""Replays, quiet ones and control's level of a process: calm; without a quiet replay; with a level 6 % too high."""


@pytest.mark.parametrize(
    ("marks", "rounds"),
    [
        ([QUIET, QUIET, QUIET, QUIET], {0, 1, 2, 3}),
        ([NONE, QUIET, QUIET, QUIET], {1, 2, 3}),
        ([HIGH, QUIET, NONE, QUIET], {1, 3}),
        ([NONE, QUIET, NONE, HIGH], {0, 1, 2, 3}),
        ([NONE, NONE, NONE, NONE], {0, 1, 2, 3}),
    ],
)
def test_what_was_disturbed_throughout_is_left_out(
    tmp_path: Path, marks: list[tuple[int, int, float]], rounds: set[int]
) -> None:
    """Means, ratios and n are of the processes that the machine left a quiet moment; of all, if fewer than two were.
    What is left out stays on disk and in the frame, marked."""
    long = [10.0 if mark is QUIET else 17.0 for mark in marks]
    cells = {"base": {"lookup": [10.0] * 4}, "mine": {"lookup": long}}
    folder = made(tmp_path / "run", cells, quiet={"base": [QUIET] * 4, "mine": marks})
    base, mine = folder.cells()
    assert set(mine.rounds("lookup")) == rounds
    assert mine.done == {0, 1, 2, 3}
    row = rows_of([base, mine])[1].figures["lookup"]
    assert row.summary.n == len(rounds)
    assert row.summary.mean == pytest.approx(sum(long[r] for r in rounds) / len(rounds))
    assert row.verdict is not None
    assert row.verdict.ratio.n == len(rounds)
    frame = load(folder.path)
    frame = frame[(frame.strategy == "mine") & (frame.figure == "lookup")]
    assert set(frame[frame.counts]["round"]) == rounds
    assert set(frame["round"]) == {0, 1, 2, 3}


def test_older_results_count() -> None:
    """A process that says nothing of its replays counts."""
    silent = Process(0, (1.0,), (), 1, 1, {})
    assert calm([silent]) == [silent]
    assert calm([silent, replace(silent, round=1, metadata={"benchframe_control": "many"})])[1].round == 1


@pytest.mark.parametrize(("rounds", "restless", "launched"), [(4, 0, 1), (4, 1, 2), (4, 9, 3), (3, 9, 1)])
def test_a_restless_process_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, restless: int, launched: int
) -> None:
    """A process that found no quiet moment is made again, twice at most, the last one counts; not in a first look."""
    folder = made(tmp_path / "run", {"base": {"lookup": [10.0]}}, options=replace(OPTIONS, rounds=rounds))
    entry = folder.manifest.cells[0]
    folder.forget(entry)
    seen: list[Outcome] = []

    def launch(*_: object) -> Outcome:
        seen.append(Outcome("ok", loops=len(seen), restless=len(seen) < restless, suite={}))
        return seen[-1]

    campaign = Campaign(folder, {}, {}, Observer())
    campaign._controls, campaign._measured, campaign._timed, campaign._warmup = {}, 0.0, 0.0, 0.0
    monkeypatch.setattr(campaign, "_launch", launch)
    monkeypatch.setattr(folder, "add_suite", lambda *_: None)
    state = campaign._process(entry, CellState(), 0, (tmp_path, tmp_path))
    assert len(seen) == launched
    assert state.loops == launched - 1
