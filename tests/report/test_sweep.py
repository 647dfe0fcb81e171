"""The sweep to a million VMAs: what is committed is whole and shows what theory says; its streams are what they say."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchframe import stream
from benchframe.oracle import Limits, replay
from benchframe.registry import load
from benchframe.report.charts import charts_of
from benchframe.report.charts.spec import families
from benchframe.report.text import Run
from benchframe.results.folder import RunFolder

FOLDER = Path(__file__).resolve().parents[2] / "reports" / "sweep"
SIZES = [6, 50, 500, 5000, 65530, 1_000_000]


def lines() -> dict[str, dict[int, float]]:
    """Cache lines per lookup, counted: by strategy and size."""
    found: dict[str, dict[int, float]] = {}
    for cell in RunFolder.open(FOLDER).cells():
        size = int(cell.entry.workload.partition("vmas=")[2].partition(",")[0])
        assert cell.state.cost is not None
        found.setdefault(cell.entry.strategy, {})[size] = cell.state.cost["lookup.lines"]
    return found


def test_the_committed_sweep_is_whole() -> None:
    """Every cell is right; the chart has each index at each size, the list up to 65 530, one mark each."""
    run = Run.read(RunFolder.open(FOLDER))
    assert {cell.state.state for cell in run.cells} == {"ok"}
    assert [list(family.sizes) for family in run.data.families] == [SIZES]
    (chart,) = charts_of(run.cells, ["sweep"])
    (panel,) = chart.panels
    marks = [(record["strategy"], record["vmas"]) for record in panel.spec["data"]["values"]]
    assert len(marks) == len(set(marks))
    for name in run.data.strategies:
        assert [vmas for strategy, vmas in marks if strategy == name] == SIZES[: 5 if name == "linked_list" else 6]


def test_curves_bend_where_theory_says() -> None:
    """Lines per lookup, counted: half the list; at most 1.44 per doubling in trees; a maple tree's nodes are wide."""
    found = lines()
    for size in SIZES[1:5]:
        assert found["linked_list"][size] == pytest.approx(size / 2, rel=0.12)
    for name in ("rbtree", "avl", "sorted_array", "eytzinger"):
        for small, large in pairwise(SIZES[1:]):
            added = found[name][large] - found[name][small]
            assert 0.8 * np.log2(large / small) < added < 1.44 * np.log2(large / small), (name, large)
    assert found["maple"][1_000_000] / found["maple"][50] < found["rbtree"][1_000_000] / found["rbtree"][50]


def test_labels_of_one_size_share_a_place() -> None:
    """How long a size is measured makes no other family; the label with most events comes first."""
    labels = ["uniform:vmas=6,events=20000", "uniform:vmas=50,events=20000", "uniform:vmas=50,events=200,touch=0"]
    (family,) = families(labels, least=2)
    assert family.name == "uniform"
    assert family.sizes == {6: (labels[0],), 50: (labels[1], labels[2])}
    assert len(families([*labels, "uniform:vmas=6,gap=0", "uniform:vmas=50,gap=0"], least=2)) == 2


def test_touch_leaves_one_fault_per_table() -> None:
    """touch=0 reads one VMA per 2 MiB in the setup; the tables, answers and timed lookups are those of touch=1."""
    known = load()
    every, few = (known.spec(f"uniform:vmas=1500,events=50,touch={touch}").trace(3) for touch in (1, 0))
    assert np.array_equal(every.events[every.setup :], few.events[few.setup :])

    def tables(trace: stream.Trace) -> list[int]:
        setup = trace.events[: trace.setup]
        return (setup["addr"][setup["kind"] == every.events["kind"][every.setup - 1]] >> 21).tolist()

    assert set(tables(every)) == set(tables(few))
    assert len(tables(few)) == len(set(tables(few))) < 20
    assert len(tables(every)) >= 1498


def test_layouts_above_the_limit_are_made_from_the_floor() -> None:
    """Above vm.max_map_count the same tiles are mapped in rising order, under a lifted limit: same layout."""
    small, large = stream.tiles(65_530, 1, 1), stream.tiles(65_531, 1, 1)
    assert (np.diff(small.setup()[1]["addr"]) < 0).all()
    trace = stream.build(large.setup(), stream.lookup(large.vm_start[:2]), map_count=large.map_count)
    assert (np.diff(trace.events["addr"][2:-4]) > 0).all()
    answers = replay(trace.events, limits=Limits(max_map_count=trace.meta.limits["max_map_count"]))
    assert (answers.ret >= 0).all()
    assert len(answers.layouts[0]) == 65_531
