"""Nominal statistics: values of made streams, ranks, the nearest program, the shipped file, where they are shown."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from support.space import registry
from typer.testing import CliRunner

from benchframe import stream
from benchframe.cli import app
from benchframe.cli.run import make_streams
from benchframe.trace.analysis import ENOUGH, STATISTICS, lines, nearest, nominal, same, standings
from benchframe.trace.trace import Trace
from benchframe.workload import Workload

PAGE = stream.PAGE
SHIPPED: dict[str, dict[str, float]] = json.loads(
    (files("benchframe_workloads") / "data" / "nominal.json").read_text(encoding="utf-8")
)


def over(tiles: list[int], vmas: int = 40) -> Trace:
    """Faults on the first page of these tiles, one after the other, and one mapping call."""
    layout = stream.tiles(vmas, 4, 1)
    timed = [stream.fault(layout.vm_start[np.array(tiles)], stream.WRITE), stream.dontneed(layout.vm_start[:1], PAGE)]
    return stream.build(layout.setup(), timed, map_count=vmas)


def test_values_of_a_known_stream() -> None:
    """Only the timed part counts: 40 VMAs, as many faults per call as there are, locality as laid out."""
    again = nominal(over([0, 0, 1, 1]))
    assert again == {
        "vmas": 40.0, "faults_per_call": 4.0, "same_vma": pytest.approx(2 / 3), "same_2mib": 1.0, "far": 0.0,
        "tasks": 1.0, "spaces": 1.0,
    }  # fmt: skip
    wide = nominal(over([*range(20), *range(20)]))
    assert wide["far"] == 1.0, "each VMA after 19 others"
    assert wide["same_vma"] == 0.0
    near = nominal(over([*range(15), *range(15)]))
    assert near["far"] == 0.0
    assert "same_vma" not in nominal(over([0]))


def test_tasks_and_spaces() -> None:
    """Tasks of the busiest space, not of all; spaces that do something."""
    layout = stream.tiles(10, 4, 1)
    first = stream.fault(layout.vm_start[:3])
    work = [stream.by(i, first) for i in range(3)]
    threads = stream.build_threads([stream.begin_threads(3), *layout.setup()], work, map_count=10)
    assert (nominal(threads)["tasks"], nominal(threads)["spaces"]) == (3.0, 1.0)
    setup = [stream.begin_threads(3, processes=True), *(stream.by(i, *layout.setup(), mm=i) for i in range(3))]
    work = [stream.by(i, first, mm=i) for i in range(3)]
    processes = stream.build_threads(setup, work, map_count=10)
    assert (nominal(processes)["tasks"], nominal(processes)["spaces"]) == (1.0, 3.0)


def test_ranks() -> None:
    """Rank 1 is the largest; equal values share half of the percentile; outside is said; too few give no rank."""
    others = [{"vmas": float(v)} for v in (10, 20, 20, 40, 50)]
    (found,) = standings({"vmas": 20.0}, others)
    assert (found.rank, found.n, found.percentile, found.middle) == (3, 5, 0.4, 20.0)
    (high,) = standings({"vmas": 60.0}, others)
    assert high.outside
    assert (high.rank, high.percentile) == (1, 1.0)
    assert "above all 5" in lines({"vmas": 60.0}, {str(i): other for i, other in enumerate(others)})[0]
    assert "below all 5" in lines({"vmas": 6.0}, {str(i): other for i, other in enumerate(others)})[0]
    assert standings({"vmas": 60.0}, others[: ENOUGH - 1]) == []
    assert standings({"far": 0.5}, others) == []


def test_the_nearest_program() -> None:
    """A stream equal to a program has distance 0 to it; twice the VMAs is as far from half as from double."""
    programs = {f"p{i}": {"vmas": 10.0 * 2**i, "same_vma": 0.5} for i in range(6)}
    found = nearest({"vmas": 40.0, "same_vma": 0.5}, programs)
    assert found is not None
    assert (found.name, found.distance) == ("p2", 0.0)
    assert found.usual == pytest.approx(found.most), "programs at equal distances"
    far = nearest({"vmas": 1e9, "same_vma": 0.5}, programs)
    assert far is not None
    assert far.name == "p5"
    assert "farther than any program" in lines({"vmas": 1e9}, programs)[-1]
    assert nearest({"vmas": 1.0}, dict(list(programs.items())[: ENOUGH - 1])) is None
    assert lines({"vmas": 1.0}, {}) == []


def test_every_shipped_workload_has_its_statistics() -> None:
    """The file names the shipped workloads, no other, with known statistics alone; each workload carries its own."""
    known = registry()
    assert sorted(SHIPPED) == sorted(known.workloads)
    for name, values in SHIPPED.items():
        assert set(values) <= set(STATISTICS), name
        assert known.workloads[name].nominal == values
    assert len(known.recorded()) == sum("trace" in w.tags for w in known.workloads.values())


@pytest.mark.parametrize("name", ["python-json", "sh-pipeline", "go-compile", "pft", "one-vma", "mixed", "sequential"])
def test_the_file_is_what_the_streams_give(name: str) -> None:
    """Computed again from the stream. If this fails after a change to a workload: python tools/nominal.py NAME."""
    assert same(SHIPPED[name], nominal(registry().spec(name).trace(0)))


def test_a_workload_without_statistics_is_measured() -> None:
    """A definition may leave them out; what is no number by name is a problem of the plugin."""
    bare = Workload("w", "s", "t", (), lambda params, seed: over([0]))
    assert bare.nominal == {}
    assert bare.problem() == ""
    bad = Workload("w", "s", "t", (), lambda params, seed: over([0]), nominal={"vmas": "many"})  # type: ignore[dict-item]
    assert "statistics" in bad.problem()


def test_show_and_trace_info_tell_them(tmp_path: Path) -> None:
    """show places a workload among recorded programs, trace info a file; a shipped trace is not its own neighbour."""
    shown = CliRunner().invoke(app, ["show", "uniform"]).output
    assert f"beside the {len(registry().recorded())} recorded programs" in shown
    assert "rank " in shown
    assert "nearest: " in shown
    path = Path(str(files("benchframe_workloads"))) / "data" / "python-json.parquet"
    told = CliRunner().invoke(app, ["trace", "info", str(path)])
    assert told.exit_code == 0
    assert f"of {len(registry().recorded()) - 1}, percentile" in told.output
    assert "nearest: python-json" not in told.output


def test_a_run_tells_the_nearest_program() -> None:
    """Each workload of a run has it: a shipped one's nearest is another program, another stream's is measured."""
    streams = make_streams(registry(), ["sh-pipeline", "zipf:vmas=30,events=300"], [], 1, None, [0])
    for made in streams:
        assert "standard deviations" in made.entry.nearest
    assert not streams[0].entry.nearest.startswith("sh-pipeline")
