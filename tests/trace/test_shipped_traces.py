"""The recorded traces as workloads: each file is one, is described, and reads as a trace."""

import numpy as np

from benchframe.events import Kind
from benchframe.trace.trace import read_trace
from benchframe_workloads import traces

WORKLOADS = traces.benchframe_workloads()


def test_every_file_is_described() -> None:
    """Each data file has its summary and meaning; nothing is described that is not there; three run by default."""
    assert {w.name for w in WORKLOADS} == {path.stem for path in traces.DATA.glob("*.parquet")} == set(traces.ABOUT)
    assert {w.name for w in WORKLOADS if "default" in w.tags} == set(traces.DEFAULT)
    assert all("trace" in w.tags and not w.problem() for w in WORKLOADS)


def test_they_read() -> None:
    """Every trace passes the checks of the format, has faults to time, and is below 2 MiB; together below 5."""
    sizes = [path.stat().st_size for path in traces.DATA.glob("*.parquet")]
    assert max(sizes) < 2 << 20
    assert sum(sizes) < 5 << 20
    for workload in WORKLOADS:
        trace = workload.spec().trace()
        assert 0 < trace.setup < len(trace), workload.name
        assert trace.meta.command, workload.name
        assert trace.meta.kernel, workload.name


def test_parts_are_of_their_trees() -> None:
    """The renderer and the backend hold the faults of one address space of their tree, and say which."""
    for part, tree in (("chromium-renderer", "chromium-page"), ("postgres-backend", "postgres-pgbench")):
        one, whole = (read_trace(traces.DATA / f"{name}.parquet") for name in (part, tree))
        (note,) = (note for note in one.meta.notes if note.startswith("address space "))
        mine = (whole.events["mm"] == int(note.split()[2])) & (whole.events["kind"] == Kind.FAULT)
        assert one.mms == 1
        assert np.array_equal(one.events["addr"][one.events["kind"] == Kind.FAULT], whole.events["addr"][mine])


def test_nothing_tells_of_a_workplace() -> None:
    """File names and notes inside the traces name system folders or bare names only."""
    for workload in WORKLOADS:
        meta = workload.spec().trace().meta
        for name in (*meta.command, *(f.name for f in meta.files), *(p.command for p in meta.processes)):
            assert not any(place in name for place in ("/work/", "/home/", "/root/", "/tmp/")), (
                f"{workload.name}: {name}"
            )


def test_tags_choose() -> None:
    """Every tag names traces that are there, and `list traces --tag` shows those alone; a misspelt tag is named."""
    from typer.testing import CliRunner

    from benchframe.cli import app

    assert {name for names in traces.TAGS.values() for name in names} <= {w.name for w in WORKLOADS}
    shown = CliRunner().invoke(app, ["list", "traces", "--tag", "server"])
    rows = [line for line in shown.output.splitlines()[1:] if not line.startswith(" ")]  # a long text is folded
    assert [line.split()[0] for line in rows] == sorted(traces.TAGS["server"])
    wrong = CliRunner().invoke(app, ["list", "traces", "--tag", "servr"])
    assert (wrong.exit_code, "did you mean server?" in wrong.output) == (2, True)
