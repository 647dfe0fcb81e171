"""Parts of a process tree stand alone: each address space with the layout that it was born with."""

from pathlib import Path

import numpy as np
import pytest

from benchframe.cli.inspect import run_trace_info, run_trace_select, run_trace_split
from benchframe.cli.run import make_streams
from benchframe.errors import TraceError, UsageError
from benchframe.events import Kind
from benchframe.oracle import Replayer
from benchframe.record import records as R
from benchframe.record.builder import Builder
from benchframe.record.procfs import Maps, MapsRow
from benchframe.record.records import NR, Rec
from benchframe.registry import load
from benchframe.trace.meta import TraceMeta
from benchframe.trace.trace import Trace, largest, of_command, of_pid, read_trace, select, split_trace, write_trace
from benchframe.trace.verify import verify

BASE = 0x7F0000000000
IMAGE = [
    MapsRow(0x400000, 0x401000, 5, False, 0, "fe:00", 7, "/usr/bin/shell"),
    MapsRow(0x600000, 0x621000, 3, False, 0, "00:00", 0, "[heap]"),
    MapsRow(0x7FFD00000000, 0x7FFD00021000, 3, False, 0, "00:00", 0, "[stack]"),
]


def call(name: str, tid: int, at: int, ret: int, *args: int) -> list[Rec]:
    """A system call's entry and exit."""
    padded = (*args, *([0] * (6 - len(args))))
    return [Rec(at, R.ENTER, tid, (NR[name], padded)), Rec(at + 5, R.LEAVE, tid, (NR[name], ret))]


@pytest.fixture
def tree() -> Trace:
    """A shell that maps, writes and forks; its child writes there, maps more and grows stack and heap; a grandchild
    execs another program."""
    anon = (0, 0x8000, 3, 0x22, 2**64 - 1, 0)
    recs = [
        Rec(100, R.EXEC, 10, (10,)), Rec(150, R.LEAVE, 10, (NR["execve"], 0)),
        *call("mmap", 10, 200, BASE, *anon),
        Rec(220, R.FAULT, 10, (BASE, 6, True)),
        *call("mprotect", 10, 230, 0, BASE + 0x2000, 0x1000, 1),
        *call("brk", 10, 250, 0x622000, 0x622000),
        Rec(300, R.NEW, 10, (11, 0)),
        Rec(310, R.FAULT, 11, (BASE + 0x1000, 7, True)),
        *call("mprotect", 11, 320, 0, BASE + 0x2000, 0x1000, 3),
        Rec(330, R.FAULT, 11, (0x7FFD00000000 - 0x1000, 6, True)),
        *call("brk", 11, 340, 0x640000, 0x640000),
        Rec(350, R.NEW, 11, (12, 0)),
        Rec(360, R.EXEC, 12, (12,)), Rec(365, R.LEAVE, 12, (NR["execve"], 0)),
        Rec(370, R.FAULT, 12, (0x400010, 4, True)), Rec(371, R.FAULT, 12, (0x400020, 4, True)),
        *call("munmap", 11, 380, 0, BASE, 0x4000),
        Rec(390, R.GONE, 12), Rec(391, R.GONE, 11), Rec(392, R.GONE, 10),
    ]  # fmt: skip
    maps = [
        Maps(140, 10, "exec", IMAGE, 0x600000, command=("/usr/bin/shell", "-c", "work")),
        Maps(362, 12, "exec", IMAGE, 0x600000, command=("/usr/bin/tool",)),
    ]
    builder = Builder(maps)
    for rec in recs:
        builder.add(rec)
    return builder.trace(TraceMeta())


def test_each_part_replays_as_in_the_tree(tree: Trace) -> None:
    """What the oracle answers for an address space alone is what it answers for it inside the tree."""
    whole = Replayer().feed(tree.events)
    assert (tree.tasks, tree.mms) == (3, 4)
    for mm, part in enumerate(split_trace(tree)):
        part.check()
        answers = Replayer().feed(part.events)
        inside = (tree.events["mm"] == mm) & (tree.events["kind"] != Kind.FORK)
        born = len(part) - int(inside.sum())
        assert np.array_equal(answers.vm_start[born:], whole.vm_start[inside])
        assert np.array_equal(answers.ret[born:], whole.ret[inside])
        assert verify(part).good


def test_born_by_fork(tree: Trace) -> None:
    """The child's trace begins with an exec and the parent's layout at the fork; its stack and heap grow as before."""
    part = select(tree, 1)
    assert part.setup == 7
    assert [Kind(k).name for k in part.events["kind"][:7]] == ["EXEC", *["MAP"] * 6]
    assert part.events["addr"][0] == 0x600000
    assert verify(part).faults_outside == 0
    with pytest.raises(ValueError, match="no address space 9"):
        select(tree, 9)


def test_choices(tree: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By number, process, command and size; info lists what there is to choose from, and who times a whole tree is told
    in one line."""
    assert of_command(tree, "tool") == of_command(tree, "/usr/bin/tool") == [3]
    assert of_pid(tree, 12) == [2, 3]
    assert largest(tree) == 1
    path, output = tmp_path / "t.parquet", tmp_path / "part.parquet"
    write_trace(path, tree)
    assert run_trace_info(path) == 0
    listed = capsys.readouterr().out
    assert "/usr/bin/shell -c work" in listed
    assert "mm 3" in listed
    assert run_trace_select(path, output, command="tool") == 0
    assert read_trace(output).meta.processes[0].command == "/usr/bin/tool"
    assert run_trace_split(path, output) == 0
    assert len(list(tmp_path.glob("part.*.parquet"))) == 4
    with pytest.raises(TraceError, match="trace info lists"):
        run_trace_select(path, output, pid=99)
    capsys.readouterr()
    make_streams(load(), [], [path], 1, None, [0])
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"a tree of 4 address spaces, replayed as one; to time one: benchframe trace select {path}" in told
    make_streams(load(), [], [tmp_path / "part.0.parquet"], 1, None, [0])
    assert capsys.readouterr().err == ""
    with pytest.raises(UsageError, match="choose one"):
        run_trace_select(path, output)
