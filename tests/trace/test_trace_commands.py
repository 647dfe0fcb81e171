"""trace info, head, convert and verify: what they print, what they catch, and how they end."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchframe.cli.inspect import describe, run_trace_convert, run_trace_head, run_trace_info, run_trace_verify
from benchframe.errors import ENVIRONMENT, USAGE, TraceError
from benchframe.events import EVENT, NIL, FaultFlag, Kind
from benchframe.trace import analysis
from benchframe.trace.trace import Trace, read_trace, write_trace
from benchframe.trace.verify import verify

DATA = Path(__file__).resolve().parents[2] / "workloads" / "benchframe_workloads" / "data"
SHIPPED = sorted(DATA.glob("*.parquet"))
PYTHON = DATA / "python-json.parquet"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_traces_hold(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every shipped trace replays to what the kernel showed: faults, reported VMAs, layouts at exec and exit."""
    trace = read_trace(path)
    verdict = verify(trace)
    assert verdict.good, verdict.lines
    assert (verdict.faults_outside, verdict.calls_differ, verdict.snapshots_differ) == (0, 0, 0)
    assert verdict.reports_differ <= (2 if verdict.unplayed else 0)
    assert verdict.faults > 100
    assert verdict.reports > (20 if trace.meta.faults else 5)
    assert sum(s.when == "exit" for s in trace.meta.snapshots) >= 1
    assert trace.meta.lost == 0
    # The kernel counts a few more where get_user_pages faults a page in, and fewer where a fault was tried again, which
    # happens in large trees.
    if trace.meta.faults:  # not of one part of a tree
        assert -0.02 * verdict.faults <= trace.meta.faults["expected"] - trace.meta.faults["recorded"] <= 8


def _edit(trace: Trace, keep: np.ndarray | None = None, **changes: object) -> Trace:
    events = trace.events.copy() if keep is None else trace.events[keep].copy()
    meta = replace(trace.meta, **changes)
    if keep is None:
        return Trace(events, trace.time, trace.tid, meta, trace.reports)
    return Trace(events, trace.time[keep], trace.tid[keep], replace(meta, snapshots=()), trace.reports[:0])


def test_verify_catches_each_lie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A forged fault, result, report or layout makes verify say what and where, and end with 1."""
    good = read_trace(PYTHON)

    fault = _edit(good)
    row = int(np.flatnonzero(fault.events["kind"] == Kind.FAULT)[50])
    fault.events["addr"][row] = 0x123456000
    assert verify(fault).faults_outside == 1
    fault.events["flags"][row] |= FaultFlag.SEGV
    assert verify(fault).faults_outside == 0

    missing = _edit(good, good.events["kind"] != Kind.MMAP)
    assert verify(missing).faults_outside > 10

    report = _edit(good)
    report.reports = good.reports.copy()
    report.reports["vm_end"][3] += 4096
    assert verify(report).reports_differ == 1

    exit_ = good.meta.snapshots[-1]
    last = exit_.areas[:-1]
    layout = _edit(good, snapshots=(*good.meta.snapshots[:-1], replace(exit_, areas=last)))
    assert verify(layout).snapshots_differ == 1
    area = next(i for i, a in enumerate(exit_.areas) if a[5] >= 0 and a[4])
    shifted = (*exit_.areas[:area], (*exit_.areas[area][:4], 0, exit_.areas[area][5]), *exit_.areas[area + 1 :])
    layout = _edit(good, snapshots=(replace(exit_, areas=shifted),))
    assert verify(layout).snapshots_differ == 1

    # A border within anonymous memory depends on who wrote first: only a trace of every fault can be held to it.
    area = next(i for i, a in enumerate(exit_.areas) if a[5] < 0 and a[2] == 3 and a[1] - a[0] > 4096)
    whole = exit_.areas[area]
    middle = whole[0] + 4096
    halves = ((whole[0], middle, *whole[2:]), (middle, *whole[1:]))
    split = (*good.meta.snapshots[:-1], replace(exit_, areas=(*exit_.areas[:area], *halves, *exit_.areas[area + 1 :])))
    assert verify(_edit(good, snapshots=split)).snapshots_differ == 1
    hazy = verify(_edit(good, snapshots=split, level="strace"))
    assert (hazy.snapshots_differ, hazy.snapshots_hazy, hazy.good) == (0, 1, True)
    assert verify(_edit(good, snapshots=layout.meta.snapshots, level="strace")).snapshots_differ == 1

    result = _edit(good)
    row = int(np.flatnonzero((good.events["kind"] == Kind.MPROTECT) & (good.events["ret"] == 0))[0])
    result.events["addr"][row] = 0x5000
    assert verify(result).calls_differ == 1

    for number, bad in enumerate((missing, report, layout, result)):
        write_trace(tmp_path / f"{number}.parquet", bad)
        assert run_trace_verify(tmp_path / f"{number}.parquet") == 1
        assert "DOES NOT HOLD" in capsys.readouterr().out
    assert run_trace_verify(PYTHON) == 0
    assert "holds" in capsys.readouterr().out


def test_an_excuse_is_small() -> None:
    """A trace that knows of unreplayed calls may differ in one report of a hundred, and in nothing else."""
    good = read_trace(PYTHON)
    excused = _edit(good, notes=("3 calls of mbind were not replayed",))
    excused.reports = good.reports.copy()
    excused.reports["vm_end"][3] += 4096
    assert not verify(excused).good  # one of 45
    excused.reports = np.concatenate([good.reports] * 3)[:0]
    assert verify(excused).good


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    """info prints provenance, counts, locality and a picture, and its figures agree with the events."""
    assert run_trace_info(DATA / "java-version.parquet") == 0
    out = capsys.readouterr().out
    trace = read_trace(DATA / "java-version.parquet")
    assert "java -version" in out
    assert trace.digest in out
    assert f"{int((trace.events['kind'] == Kind.FAULT).sum())} fault" in out
    assert "18 tasks" in out
    assert "1 ended in a signal" in out
    pictured = [line for line in out.splitlines() if line.endswith("|")]
    assert len({len(line) for line in pictured}) == 1
    assert any("#" in line for line in pictured)


def test_locality_is_exact() -> None:
    """Shares and reuse distances of a stream small enough to count by hand."""
    base = 0x40000000
    events = np.zeros(9, EVENT)
    events["file"] = NIL
    events[0] = (NIL, 0, 0, 0, 0, Kind.EXEC, 0, 0, 0, 0, NIL)
    for i in range(2):  # two VMAs with a hole, in one 2 MiB region
        events[1 + i] = (base + i * 0x20000, 0x10000, 0, 0, 0, Kind.MAP, 0, 0, 1, 2, NIL)
    events["kind"][3:] = Kind.FAULT
    events["prot"][3:] = 1
    events["addr"][3:] = [base, base + 8, base + 0x1000, base + 0x20000, base + 0x21000, base]
    facts = analysis.figures(Trace(events), columns=4)
    assert facts.same_vma == pytest.approx(3 / 5)
    assert facts.same_page == pytest.approx(1 / 5)
    assert facts.same_pmd == pytest.approx(5 / 5)
    assert facts.reuse[0] == 3  # same VMA again
    assert facts.reuse[1] == 1  # one other VMA in between
    assert facts.reuse[-1] == 2  # first touches
    assert facts.peak_vmas == {0: 2}
    assert (facts.lookups, facts.operations) == (6, 0)


def test_head(capsys: pytest.CaptureFixture[str]) -> None:
    """head prints as many events as asked, in words."""
    assert run_trace_head(PYTHON, 40) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 40
    assert "exec, start_brk" in lines[0]
    assert any("mmap(0x0" in line and ") = 0x" in line for line in lines)
    assert run_trace_head(PYTHON, 0) == 0
    assert capsys.readouterr().out == ""


def test_every_kind_has_words() -> None:
    """No kind of event is printed as a bare number, and errors show as -errno."""
    events = np.zeros(len(Kind), EVENT)
    events["kind"] = list(Kind)
    events["ret"] = -12
    for event in events:
        text = describe(event)
        assert text.startswith(Kind(int(event["kind"])).name.lower())
        if event["kind"] in (Kind.MMAP, Kind.MUNMAP, Kind.MREMAP, Kind.BRK, Kind.MADVISE):
            assert text.endswith("= -12")


def test_csv_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parquet to CSV and back is the same trace, metadata and reports included."""
    source = DATA / "redis-load.parquet"
    assert run_trace_convert(source, tmp_path / "t.csv") == 0
    assert run_trace_convert(tmp_path / "t.csv", tmp_path / "t.parquet") == 0
    a, b = read_trace(source), read_trace(tmp_path / "t.parquet")
    assert a.digest == b.digest
    assert a.meta == b.meta
    assert np.array_equal(a.reports, b.reports)


def test_csv_by_hand(tmp_path: Path) -> None:
    """A CSV file of a few columns, without metadata, is a trace."""
    (tmp_path / "t.csv").write_text("kind,addr,len,prot\n0,-1,0,0\n1,65536,8192,3\n10,65544,0,2\n")
    assert run_trace_convert(tmp_path / "t.csv", tmp_path / "t.parquet") == 0
    assert verify(read_trace(tmp_path / "t.parquet")).good


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("kind,addr\n0,-1\n99,0\n", "event 1: kind"),
        ("kind,addr\n0,x\n", "not a CSV trace"),
        ("kind,addr\n0\n", "not a CSV trace"),
        ("kind,addr\n0,99999999999999999999\n", "not a CSV trace"),
        ("kind,addr,evil\n0,0,0\n", "unknown"),
        ("addr\n0\n", "kind"),
        ("kind,addr,kind\n0,0,0\n", "twice"),
        ("kind,addr,task\n0,-1,4294967296\n", "32 bits"),
        ("# benchframe {\n", "not JSON"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, what: str) -> None:
    """A bad CSV file ends in one line and code 2, and writes nothing."""
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TraceError, match=what) as caught:
        run_trace_convert(tmp_path / "t.csv", tmp_path / "t.parquet")
    assert caught.value.exit_code == USAGE
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "t.parquet").exists()


def test_wrong_endings(tmp_path: Path) -> None:
    """Missing files and unknown endings are bad input, a missing folder is the environment: a line each."""
    cases = [
        (lambda: run_trace_info(tmp_path / "no.parquet"), USAGE),
        (lambda: run_trace_convert(tmp_path / "no.csv", tmp_path / "t.parquet"), USAGE),
        (lambda: run_trace_convert(PYTHON, tmp_path / "t.xlsx"), USAGE),
        (lambda: run_trace_convert(PYTHON, tmp_path / "none" / "t.csv"), ENVIRONMENT),
        (lambda: run_trace_convert(PYTHON, tmp_path / "none" / "t.parquet"), ENVIRONMENT),
    ]
    for command, code in cases:
        with pytest.raises(TraceError) as caught:
            command()
        assert caught.value.exit_code == code
        assert "\n" not in str(caught.value)
