"""Advice: the kernel at home, verdicts in one family, sentences that say no more than the figures, the command."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.space import registry
from typer.testing import CliRunner

from benchframe.cli import app
from benchframe.report.table import render
from benchframe.study.advice import (
    NOTHING,
    Advice,
    Kernel,
    PerVma,
    advice_table,
    advise,
    hints,
    home,
    parts,
    presets,
    sentences,
    verdicts,
)
from benchframe.trace.analysis import Figures, Habits, Layout

ROUNDS = 8


def kernel(name: str, level: float, sd: float = 0.004, seed: int = 0, **counts: float) -> Kernel:
    """A kernel whose events take ``level`` ns."""
    drawn = np.exp(np.random.default_rng(seed).normal(0, sd, ROUNDS))
    ns = {
        figure: {r: float(value * x) for r, x in enumerate(drawn)}
        for figure, value in (("lookup", 10.0), ("fault", 60.0), ("mapping", 400.0), ("replay", level))
    }
    plain = {"events": 1000.0, "mapping_ops": 100.0, "lookups": 900.0, "hits": 0.0, "hit_rate": 0.0, "fallbacks": 0.0}
    return Kernel(name, f"what {name} is", ns, {**plain, **counts})


def advice(*kernels: Kernel, at: int = -1, habits: Habits | None = None, span: float = 1.0) -> Advice:
    """The advice on these kernels; the last one is at home."""
    against, steps = verdicts(kernels, range(len(kernels))[at])
    figures = Figures(lookups=900, operations=100, same_vma=0.5)
    return Advice(
        "toy",
        kernels,
        kernels[at],
        against,
        steps,
        habits or Habits(),
        figures,
        span,
        PerVma((20.0, 60.0), 210.0, 120.0),
        ROUNDS,
        cold=6.0,
    )


def test_the_kernel_at_home() -> None:
    """The newest preset that is no newer than the recording's kernel; presets older than 2.6.32 are left out."""
    names = presets(list(registry().strategies))
    assert names[0] == "linux-2.6.32"
    assert names == sorted(names, key=lambda name: tuple(map(int, name[6:].split("."))))
    for release, wanted in (
        ("Linux 6.18.44-fc-v595 #1 SMP", "linux-6.18"),
        ("Linux 6.3.1", "linux-6.1"),
        ("5.15.0-91-generic", "linux-5.10"),
        ("Linux 2.4.37", "linux-2.6.32"),
        ("", names[-1]),
        ("Darwin", names[-1]),
    ):
        assert home(release, names) == wanted, release


def test_the_largest_step_is_told() -> None:
    """The release with the largest decided change is named with its ratio; the fastest is told against home."""
    found = advice(kernel("linux-1", 100), kernel("linux-2", 70, seed=1), kernel("linux-3", 72, seed=2))
    said = sentences(found)
    assert "Kernel: the largest step is linux-2 (what linux-2 is): 0.7" in said[1]
    assert said[1].endswith("of linux-3's time.")
    assert "Fastest is linux-2" in said[1]
    assert "2 of 2 comparisons with linux-3 are decided after 8 rounds" in said[2]
    assert "this favours 2.6.32" in said[2], "a recorded trace has no search for a hole"


def test_undecided_is_an_answer() -> None:
    """Where noise hides every step, no kernel is praised, and the rounds that would decide are forecast."""
    noisy = [kernel(f"linux-{i}", 100 + i, sd=0.3, seed=i) for i in range(1, 4)]
    found = advice(*noisy)
    said = sentences(found)
    assert "no step from linux-1 to linux-3 is decided" in said[1]
    assert "No kernel is decided to be faster than linux-3." in said[1]
    assert "0 of 2 comparisons" in said[2]
    assert "more rounds)" in said[2]
    same = advice(*(kernel(f"linux-{i}", 100, sd=0.001, seed=i) for i in range(1, 4)))
    assert "None is faster than linux-3." in sentences(same)[1]


def test_no_false_praise_among_equals() -> None:
    """Kernels that are equal: over 25 drawn tables of seven, hardly any names a step or a faster kernel."""
    wrong = 0
    for seed in range(25):
        equal = [kernel(f"linux-{i}", 100, sd=0.1, seed=100 * seed + i) for i in range(7)]
        against, steps = verdicts(equal, 6)
        wrong += any(v is not None and v.word in ("faster", "slower") for v in (*against, *steps))
    assert wrong <= 4, "the chance of more than 4 of 25 at 5 % is below 1 %"


def test_what_limits() -> None:
    """Shares add up to the modelled time, and its share of the recorded time decides how much VMAs matter."""
    own = kernel("linux-3", 90)
    share = parts(advice(own))
    assert math.isclose(sum(share.values()), 1.0)
    assert share["mapping"] == pytest.approx(400 * 100 / 90_000, rel=0.01)
    assert share["lookups"] == pytest.approx(10 * 900 / 90_000, rel=0.01)
    for span, words in (
        (1.0, "VMAs hardly limit this program"),
        (90e-6 / 0.05, "VMAs limit this program by 30 % at most"),
        (90e-6 / 0.5, "VMAs can limit this program"),
    ):
        assert words in sentences(advice(own, span=span))[0]
    disturbed = sentences(replace(advice(own), cold=0.3))[0]
    assert "took 0.3 times as long, so the machine disturbed the warm replays" in disturbed
    assert (
        "5 %, or 30 % with caches as after a program's work, where an event takes 6 times"
        in sentences(advice(own, span=90e-6 / 0.05))[0]
    )
    unknown = sentences(replace(advice(own, span=90e-6 / 0.05), cold=math.nan))[0]
    assert "caches" not in unknown, "noise hid the colder figure"
    assert "VMAs limit this program by 5 % at most" in unknown
    text = sentences(advice(own, span=0.0))[0]
    assert "favours" not in sentences(advice(own, span=0.0))[2], "a synthetic stream may search"
    assert "recorded" not in text, "a synthetic stream has no time of its own"
    assert "9.0 faults per mapping call" in text
    assert (
        text.index("the rest of page faults 46 %") < text.index("mapping calls 44 %") < text.index("finding VMAs 10 %")
    )


def test_locks_are_told_of_threads_and_refusals() -> None:
    """A program of several tasks is told that nothing waits in the replay; refusals of the VMA's lock are counted."""
    assert not any(text.startswith("Locks") for text in sentences(advice(kernel("linux-3", 90))))
    threads = advice(
        replace(kernel("linux-3", 90), fallbacks={"file": 9, "no anon_vma": 36}),
        habits=Habits(shared_faults=900, beside=30),
    )
    said = next(text for text in sentences(threads) if text.startswith("Locks"))
    assert "of 900 faults in address spaces with several tasks 30 came" in said
    assert "took mmap_lock: linux-3 5 % (no anon_vma: 4 %, file: 1 %)" in said


FULL = Habits(
    touched=1000,
    again=Counter(munmap=300, madvise=20),
    in_order=400,
    stretches=8,
    huge=700,
    huge_ranges=2,
    mmaps=100,
    remapped=60,
    mprotects=80,
    toggled=40,
    layout=Layout(0, 200, 60, 120, 30),
)


def test_hints_need_their_counts() -> None:
    """Each hint appears with its own count and no other; below its bound, absolute or as a share, it does not."""
    assert len(hints(FULL)) == 7
    assert hints(Habits()) == []
    assert f"Program: {NOTHING}" in sentences(advice(kernel("linux-3", 90)))
    empty = Habits(touched=1000, mmaps=100, mprotects=80, layout=Layout(0, 200, 0, 0, 0))
    for changes, word in (
        ({"again": Counter(brk=60)}, "60 of 1,000 first touches of anonymous pages (6 %)"),
        ({"remapped": 60}, "60 of 100 anonymous mmap calls"),
        ({"in_order": 400, "stretches": 8}, "400 pages (40 % of the first touches)"),
        ({"huge": 700, "huge_ranges": 2}, "2 ranges of 2 MiB"),
        ({"toggled": 40}, "40 of 80 mprotect calls"),
        ({"layout": Layout(0, 200, 60, 0, 0)}, "60 of 200 VMAs allow no access"),
        ({"layout": Layout(0, 200, 0, 120, 30)}, "120 of 200 VMAs are parts of 30 files (4.0 each)"),
    ):
        (said,) = hints(replace(empty, **changes))  # type: ignore[arg-type]
        assert word in said
    for few in ({"again": Counter(brk=49)}, {"remapped": 9}, {"in_order": 99}, {"huge": 99}, {"toggled": 7}):
        assert hints(replace(empty, **few)) == []  # type: ignore[arg-type]


def test_every_form_of_the_table() -> None:
    """JSON and CSV have full numbers and verdicts per kernel, and the sentences; no hit rate without a cache."""
    cached = replace(kernel("linux-2", 70, hit_rate=0.75), cached=True)
    table = advice_table(advice(cached, kernel("linux-3", 90, seed=3), habits=FULL))
    found = json.loads(render(table, "json"))
    assert [row["verdict"] for row in found["rows"]] == ["faster", ""]
    assert found["rows"][0]["ratio"] == pytest.approx(70 / 90, rel=0.02)
    assert [row["hit_rate"] for row in found["rows"]] == [0.75, None]
    assert sum(note.startswith("Program: ") for note in found["notes"]) == 7
    assert [row[-1] for row in table.rows] == ["75 %", ""]
    assert "home" in render(table, "csv").splitlines()[0]


def test_a_trace_is_replayed_under_each_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kernels on a small stream, end to end: counts and times of both, verdicts, and what a VMA costs."""
    monkeypatch.setattr("benchframe.study.advice.SWEEP", (10, 100))
    monkeypatch.setattr("benchframe.study.sweeps.SIZES", (10, 60))
    known = registry()
    names = ("linux-2.6.32", "linux-5.10")  # without their allocator: the code of strategies that other tests compile
    two = replace(known, strategies={name: replace(known.strategies[name], allocator=None) for name in names})
    trace = known.spec("mmap-churn:vmas=20,events=200").trace(0)
    told: list[str] = []
    found = advise(two, trace, "churn", 2, told.append, clock=0.001)
    assert [k.name for k in found.kernels] == ["linux-2.6.32", "linux-5.10"]
    assert told[-1] == "round 2 of 2"
    assert found.home.name == "linux-5.10", "a synthetic stream names no kernel"
    assert found.against[1] is None
    assert found.against[0] is not None
    assert found.span == 0.0
    assert found.habits.layout.vmas >= 20
    assert found.per_vma.bytes == 192, "the nodes of an rb-tree are part of the VMA"
    assert all(k.cached and 0 <= k.counts["hit_rate"] <= 1 for k in found.kernels)
    assert found.per_vma.fork > 0
    assert len(sentences(found)) >= 5


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "give one trace, or a program after --"),
        (["--"], 2, "give one trace, or a program after --"),
        (["a", "b"], 2, "give one trace, or a program after --"),
        (["python-jso"], 2, "did you mean python-json?"),
        (["python-json", "-o", "x.parquet"], 2, "--output keeps the trace of a program"),
        (["python-json", "--format", "mail"], 2, "no mail format"),
        (["--", "/no/such/program"], 1, "there is no trace to advise on"),
    ],
)
def test_what_cannot_be_advised_on(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mistake ends in one line and the documented exit code."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["advise", *arguments])
    assert result.exit_code == code, result.output
    assert words in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_a_program_is_recorded_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows -- is the program with all its words; --output keeps its trace; its exit code is told."""
    from benchframe.study import advice as study

    seen = []

    def stand_in(known: object, trace: object, label: str, *rest: object, **more: object) -> Advice:
        seen.append((trace.meta.command, label))  # type: ignore[attr-defined]
        return advice(kernel("linux-2", 70), kernel("linux-3", 90, seed=3))

    monkeypatch.setattr(study, "advise", stand_in)
    monkeypatch.setattr("benchframe.engine.compile.compile_strategies", lambda *_: None)
    monkeypatch.setattr("benchframe.record.command.run_record_command", recorded)
    kept = tmp_path / "kept.parquet"
    result = CliRunner().invoke(app, ["advise", "-o", str(kept), "--", "sh", "-c", "exit 3", "--", "--rounds"])
    assert result.exit_code == 0, result.output
    assert seen == [(("sh", "-c", "exit 3", "--", "--rounds"), "sh")]
    assert "the program ended with exit code 3" in result.output
    assert kept.is_file()


def recorded(program: list[str], file: Path) -> int:
    """A recorder that needs no kernel: a trace of one page, made by ``program``."""
    from benchframe import stream
    from benchframe.trace.trace import write_trace

    trace = stream.build([], stream.mmap(1 << 40, stream.PAGE, 3), map_count=1)
    write_trace(file, replace(trace, meta=replace(trace.meta, command=tuple(program))))
    return 3
