"""Replays with cold caches: what is asked for, what this machine can do, which events are timed, and that every timed
answer is compared."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.space import registry, runner, strategy
from typer.testing import CliRunner

from benchframe.cli import app
from benchframe.engine import caches
from benchframe.engine.caches import (
    COUNTS,
    FOOTPRINT,
    LEVELS,
    LINE,
    PROGRAM,
    Cache,
    Caches,
    KnownLines,
    Ring,
    Toucher,
    cpu_caches,
    from_text,
    known_lines,
    known_lines_text,
    parse,
    state,
)
from benchframe.engine.cold import REPLAYS, ColdSession, Pass, chosen_events, smaller_of_two
from benchframe.engine.session import Quiet, Session
from benchframe.errors import EngineError, UsageError
from benchframe.events import Kind

SERVER = [Cache(1, 48 << 10, 2), Cache(2, 2 << 20, 2), Cache(3, 60 << 20, 64)]
CHURN = "mmap-churn:vmas=40,events=2000"


# ---- what is asked for ----


@given(st.sampled_from(LEVELS[1:]), st.integers(1, caches.MOST))
def test_a_state_survives_its_text(level: str, touched: int) -> None:
    """What a manifest stores is read back; its label is what --caches takes, for a footprint with its exact size."""
    made = Caches(level, touched)
    assert from_text(str(made)) == made
    if level == PROGRAM and touched >= LINE:
        assert parse(made.label) == [made]


@pytest.mark.parametrize("text", ["llc", "llc=", "warm=1", "l4=5", "llc=-1", "llc=1e3", "llc=99999999999", "x" * 1000])
def test_a_manifest_cannot_ask_for_anything_else(text: str) -> None:
    """A text that no run wrote is refused."""
    with pytest.raises(ValueError, match="not a state of caches"):
        from_text(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("lukewarm", "warm"),
        ("llc=5", "only program takes a footprint"),
        ("program=lots", "give the bytes"),
        ("program=1", "from 64 to 1 GiB"),
        ("program=2G", "from 64 to 1 GiB"),
    ],
)
def test_a_wrong_word_says_what_is_right(text: str, told: str) -> None:
    """Each mistake is one error that names the option and what it takes."""
    with pytest.raises(UsageError, match=told) as error:
        parse(text)
    assert "--caches" in str(error.value)


def test_a_list_keeps_its_order_and_names_each_once() -> None:
    """--caches program,warm,program=40K: two states, since the footprint is the usual one."""
    assert parse("program,warm,program=40K") == [Caches(PROGRAM, FOOTPRINT), Caches()]


# ---- what this machine can do ----


def _sysfs(root: Path, caches_: list[tuple[str, str, str]]) -> None:
    for number, (kind, level, size) in enumerate(caches_):
        folder = root / "cpu3" / "cache" / f"index{number}"
        folder.mkdir(parents=True)
        for name, word in (("type", kind), ("level", level), ("size", size), ("shared_cpu_list", "0-3,8")):
            (folder / name).write_text(word + "\n")


def test_sizes_are_read(tmp_path: Path) -> None:
    """Data and unified caches in the order of levels; an instruction cache and a file that says nonsense are left
    out."""
    _sysfs(tmp_path, [("Unified", "2", "1024K"), ("Data", "1", "48K"), ("Instruction", "1", "32K"), ("Data", "3", "?")])
    assert cpu_caches(3, tmp_path) == [Cache(1, 48 << 10, 5), Cache(2, 1 << 20, 5)]
    assert cpu_caches(4, tmp_path) == []


def test_levels_come_from_the_sizes() -> None:
    """A level is emptied by twice its size; L2 keeps the model while L1 is emptied."""
    assert state("l2", caches=SERVER) == Caches("l2", 96 << 10)
    assert state("llc", caches=SERVER) == Caches("llc", 4 << 20)


@pytest.mark.parametrize(
    ("level", "there", "told"),
    [
        ("llc", [], "does not tell the sizes"),
        ("memory", SERVER[2:], "does not tell the sizes"),
        ("llc", SERVER[:2], "no cache behind L2"),
        ("l2", [Cache(1, 64 << 10, 1), Cache(2, 128 << 10, 1)], "L2 is too small"),
    ],
)
def test_what_cannot_be_done_is_said(level: str, there: list[Cache], told: str) -> None:
    """A machine without the level, or without sizes, is refused: no size is assumed."""
    with pytest.raises(UsageError, match=told):
        state(level, caches=there)


# ---- which events are timed ----


@given(st.lists(st.sampled_from([Kind.FAULT, Kind.LOOKUP, Kind.MMAP, Kind.EXIT]), min_size=1, max_size=300),
       st.integers(1, 40), st.integers(0, 1 << 31))  # fmt: skip
def test_timed_events_are_spread_over_the_stream(kinds: list[int], most: int, seed: int) -> None:
    """Sorted, each once, as many lookups as asked for or all, one from each stretch; the same for the same seed."""
    rows = np.array(kinds)
    chosen = chosen_events(rows, most, seed)
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, chosen_events(rows, most, seed))
    quick = np.flatnonzero(np.isin(rows, (Kind.FAULT, Kind.LOOKUP)))
    mine = np.searchsorted(quick, chosen[np.isin(chosen, quick)])
    assert len(mine) == min(most, len(quick))
    if len(quick) > most:
        edges = np.linspace(0, len(quick), most + 1).astype(int)
        assert ((edges[:-1] <= mine) & (mine < edges[1:])).all()


# ---- replays ----


def cold(spec: str, state_: Caches, most: int = 2048) -> ColdSession:
    """The rb-tree on a stream with caches in such a state, at most so many lookups timed."""
    runner("rbtree", "native")
    return ColdSession(Session(strategy("rbtree"), registry().spec(spec).trace(1), layout_seed=5), state_, 5, most)


def test_cold_replays_answer_as_warm_ones() -> None:
    """Events are timed one by one, with stretches between them replayed as they are: every answer is the checked one,
    figures are finite, and counts are those of a warm replay."""
    found = cold(CHURN, Caches(PROGRAM, 8 << 10))
    times = found.measure(1)
    assert min(times.fault_ns, times.mapping_ns, times.replay_ns) > 0
    assert np.isfinite(times.lookup_ns)
    warm = Session(strategy("rbtree"), found.trace, layout_seed=5)
    assert found.counts() == warm.counts()
    rows = {row.figure: row.n for row in found.latencies() if row.outcome == "all"}
    assert sum(rows.values()) == len(found.chosen)


def test_what_is_disturbed_does_not_count() -> None:
    """Where the control before an event, or before the next one, is long, the event does not count, however long it
    takes; without any undisturbed replay all count, and none is called quiet."""
    found = cold(CHURN, Caches(PROGRAM, 64), 100)
    found.measure(1)
    calm = np.full(len(found.chosen), 300)
    busy = np.where(np.arange(len(calm)) == 7, 500, calm)
    found._quiet = Quiet()
    found._quiet.see(calm)
    assert np.flatnonzero(~found._calm(Pass(calm * 1.0, busy, 1.0, 1.0, 0.0))).tolist() == [6, 7]
    pair = tuple(Pass(calm * cycles, control, 1.0, 1.0, 0.0) for cycles, control in ((2.0, calm), (1.0, calm)))
    late = tuple(Pass(calm * 9.0, 2 * calm, 1.0, 1.0, 0.0) for _ in range(2))
    times = [found._evaluated(2, [pair, pair, *more]) for more in ([], [late, late])]  # type: ignore[list-item]
    assert [one.lookup_ns for one in times] == [300, 300]
    alone = found._evaluated(2, [late, late])  # type: ignore[list-item]
    assert (alone.lookup_ns, alone.quiet) == (0, 0)
    assert alone.fault_ns == 2700


def test_a_short_pause_of_what_disturbs_does_not_count() -> None:
    """Single undisturbed controls amid disturbed ones are none. If half of the events were never undisturbed, the
    figures are the others', and the value counts as disturbed. If nearly all were, the figures are of all: one of the
    few that was interrupted would be the mean."""
    found = cold(CHURN, Caches(PROGRAM, 64), 100)
    found.measure(1)
    calm = np.full(len(found.chosen), 300)
    number = np.arange(len(calm))
    found._quiet = Quiet()
    found._quiet.see(calm)
    pauses = np.where(number % 8 < 5, calm, 2 * calm)
    assert not found._calm(Pass(calm * 1.0, pauses, 1.0, 1.0, 0.0)).any()
    half = np.where(number < len(calm) // 2, calm, 2 * calm)
    pair = tuple(Pass(half * cycles, half, 1.0, 1.0, 0.0) for cycles in (2.0, 1.0))
    times = found._evaluated(6, [pair] * 6)  # type: ignore[list-item]
    assert (times.lookup_ns, times.quiet) == (300, 0)
    few = np.where(number < len(calm) // 8, calm, 2 * calm)
    held = tuple(np.where(number == 3, 1e9, cycles * calm) for cycles in (2.0, 1.0))
    some = tuple(Pass(cycles, few, 1.0, 1.0, 0.0) for cycles in held)
    rest = tuple(Pass(cycles * calm, 2 * calm, 1.0, 1.0, 0.0) for cycles in (2.0, 1.0))
    times = found._evaluated(4, [some, rest, rest, rest])  # type: ignore[list-item]
    assert (times.lookup_ns, times.quiet) == (300, 0)
    late = tuple(Pass(half * 1.0, np.where(number == 7, 2 * calm, calm), 1.0, 1.0, 0.0) for _ in range(2))
    assert found._evaluated(4, [late] * 4).quiet == 4, "one event too few in each is no replay less"  # type: ignore


def test_a_column_beside_warm_figures_changes_nothing_of_theirs() -> None:
    """Lookups are timed again on the machine of a verified session: they are as many as asked for, and the session
    counts and answers as before."""
    runner("rbtree", "native")
    warm = Session(strategy("rbtree"), registry().spec(CHURN).trace(1), layout_seed=5)
    assert warm.verify().ok
    before = warm.counts()
    beside = ColdSession(warm, caches.USUAL, 5, 64)
    assert beside.machine is warm.machine
    assert beside.timed_lookups == min(64, warm.n_lookups)
    assert beside.measure(1, seconds=1e-9).loops == REPLAYS
    assert beside.measure(REPLAYS + 3).loops == REPLAYS + 3
    assert warm.counts() == before
    assert warm.measure(2).fault_ns > 0


@pytest.mark.parametrize("alone", [True, False])
def test_a_timed_answer_that_differs_is_an_error(alone: bool) -> None:
    """A VMA that one timed event, or a stretch between two, does not answer: no figure comes out."""
    found = cold(CHURN, Caches(PROGRAM, 64), 100)
    found.measure(1)
    assert len(found.chosen) < found.n_events
    right = found._wanted if alone else found._before
    right[50] += 1
    with pytest.raises(EngineError, match="answers something else than the checked one"):
        found.measure(1)


@pytest.mark.skipif(not caches.flushes(), reason="no instruction to flush a line is known here")
def test_what_is_flushed_is_the_models_memory() -> None:
    """The lines are distinct, hold every VMA in use, and flushing them changes no answer."""
    found = cold(CHURN, Caches("memory", 1 << 16))
    assert found.measure(1).fault_ns > 0
    lines = found._lines
    assert len(np.unique(lines)) == len(lines)
    assert not (lines % LINE).any()
    vmas = found.machine.arrays["vma_base"]
    used = np.flatnonzero(vmas["vm_mm"])
    starts = vmas.ctypes.data + used * vmas.dtype.itemsize
    assert np.isin(starts // LINE * LINE, lines).all()


def test_a_footprint_moves_on() -> None:
    """Half of what a program touches is new each time, and at the end of the memory it begins again."""
    made = Toucher(Caches(PROGRAM, 1 << 20))
    assert made._step == 1 << 19
    assert Toucher(Caches(PROGRAM, 64))._step == caches.PAGE
    assert Toucher(Caches("llc", 1 << 20))._step == 0


# ---- the control ----


@pytest.mark.parametrize("alone", [False, True])
def test_a_ring_leads_through_every_line(alone: bool) -> None:
    """Following the addresses, every line of the ring and of each chain is met once before the first comes again."""
    ring = Ring(64 << 10, (0, 1, 5), alone=alone)
    assert len(np.unique(ring.lines // caches.PAGE)) == (64 << 10) // caches.PAGE
    memory, base = ring._memory, int(ring._memory.ctypes.data)
    for start, count in (
        (int(ring.lines[0]), len(ring.lines)),
        (int(ring._chains[5][0]), 5),
        (int(ring._chains[1][0]), 1),
    ):
        met, at = [], start
        while at not in met:
            met.append(at)
            at = int(memory[(at - base) // 8])
        assert (at, len(met)) == (start, count)


def test_known_lines_are_read_outside_of_what_is_touched() -> None:
    """A reading of no line takes fewer cycles than one of many, and a chase goes on where it ended."""
    found = known_lines([Caches(PROGRAM, 4096)], 1)
    assert found[0].level == ()
    assert found[0].good
    ring = Ring(64 << 10, COUNTS)
    ring.chase(len(ring.lines) + 3)
    assert ring._at == ring.lines[3]
    assert "program=4K" in known_lines_text(found)


def test_the_control_says_what_is_wrong() -> None:
    """Lines that cost half as much again as their level fail, those within 15 % pass."""
    good = KnownLines(Caches("llc", 1 << 20), (20.0, 20.0), (22.0, 21.0), (22.0,) * 6)
    bad = KnownLines(Caches("l2", 1 << 16), (5.0, 5.0), (7.5, 7.6), (7.5,) * 6)
    assert good.good
    assert not bad.good
    assert "l2: a known line does not cost" in known_lines_text([good, bad])
    assert "llc: a known line" not in known_lines_text([good, bad])
    elsewhere = KnownLines(Caches("llc", 1 << 20), (160.0,), (160.0,), (160.0,) * 6, (18.0,))
    assert not elsewhere.good
    assert "the lines are elsewhere" in known_lines_text([elsewhere])
    assert KnownLines(Caches("llc", 1 << 20), (20.0,), (21.0,), (21.0,) * 6, (17.0,)).good


@pytest.mark.parametrize("words", ["warm", "program=4K,program --minutes 1", "l4"])
def test_selftest_says_what_it_cannot_check(words: str) -> None:
    """Warm caches, two states to measure the tool in, a level that does not exist: exit code 2."""
    assert CliRunner().invoke(app, ["selftest", "--caches", *words.split()]).exit_code == 2


def test_the_time_of_an_event_does_not_depend_on_how_often_it_was_read() -> None:
    """Skewed readings of 20,000 events, three of each and twelve: the same mean to 1 %, where that of the lower half
    differs by more than 10 %; one reading is none."""
    rng = np.random.default_rng(7)
    few, many = (rng.exponential(1.0, (n, 20_000)) for n in (3, 12))
    means = [float(smaller_of_two(list(x), list(np.ones(x.shape, np.bool_))).mean()) for x in (few, many)]
    assert means == pytest.approx([0.5, 0.5], abs=0.005)
    halves = [np.sort(x, axis=0)[: (len(x) + 1) // 2].mean() for x in (few, many)]
    assert abs(halves[0] / halves[1] - 1) > 0.1
    assert np.isnan(smaller_of_two([np.array([1.0])], [np.array([True])])).all()
