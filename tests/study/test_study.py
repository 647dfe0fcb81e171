"""Studies: crossovers, components of variance, many cells in one process."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.space import registry, runner, strategy

from benchframe.engine.probe import Point, ProbeError, Study, timed
from benchframe.engine.session import Session
from benchframe.events import Kind
from benchframe.report.charts.study import study_chart
from benchframe.report.table import render
from benchframe.stats import Ratio
from benchframe.study.sweeps import (
    COMPONENTS,
    SWEEPS,
    Breakeven,
    Place,
    Sensitivity,
    breakeven_table,
    components,
    crossovers,
    layout_table,
    saved_breakeven,
)
from benchframe.trace.trace import shifted

# ---- breakeven ----


def places(ratios: list[float], half: float = 0.02) -> list[Place]:
    """Points at 1, 10, 100 ... with these ratios and narrow intervals."""
    return [
        Place(10.0**i, f"w{i}", 10.0, 10.0 * r, Ratio(6, r, r - half, r + half), math.nan) for i, r in enumerate(ratios)
    ]


def logs(ratios: list[float], noise: float = 0.01, rounds: int = 6) -> np.ndarray[Any, Any]:
    """Log ratios of rounds."""
    rng = np.random.default_rng(2)
    return np.log(np.array(ratios))[:, None] + rng.normal(0, noise, (len(ratios), rounds))


def test_a_crossover_is_found() -> None:
    """Slower, then faster: the crossing lies where the line through the logarithms does, within a narrow interval."""
    ratios = [1.5, 1.2, 1 / 1.2, 0.5]
    (found,) = crossovers(places(ratios), logs(ratios), "log")
    assert found.wins
    assert found.x == pytest.approx(math.sqrt(10 * 100), rel=0.1)
    assert found.low < math.sqrt(1000) < found.high < 2 * found.low
    assert found.found == 1.0
    back = crossovers(places(ratios[::-1]), logs(ratios[::-1]), "log")
    assert [c.wins for c in back] == [False]
    assert len(crossovers(places([1.3, 0.7, 1.3]), logs([1.3, 0.7, 1.3]), "log")) == 2


def test_no_crossover_is_said() -> None:
    """One side all along, or undecided at the end: no crossover is claimed."""
    for ratios, half, words in (
        ([1.5, 1.2, 1.1], 0.02, "bb is slower"),
        ([0.5, 0.6, 0.9], 0.02, "bb is faster"),
        ([1.4, 1.1, 0.99], 0.05, "bb is slower where the intervals decide"),
        ([1.01, 1.0, 0.99], 0.05, "bb is not distinguishable from a"),
    ):
        points = places(ratios, half)
        found = crossovers(points, logs(ratios), "log")
        assert found == ()
        study = Breakeven("a", "bb", SWEEPS["vmas"], tuple(points), found, 6)
        assert study.verdict.startswith("no crossover from 1 to 100 (VMAs)")
        assert words in study.verdict


def test_rounds_that_are_missing() -> None:
    """A round without a value (NaN) is left out of the means."""
    ratios = [1.5, 0.5]
    data = logs(ratios)
    data[0, 2] = math.nan
    (found,) = crossovers(places(ratios), data, "log")
    assert 1 < found.low < found.high < 10


def test_table_and_picture(tmp_path: Path) -> None:
    """The table says the verdict, the picture holds both sweeps and draws."""
    from benchframe.report.charts.spec import save

    ratios = [1.5, 1.2, 0.8, 0.5]
    studies = []
    for name in ("vmas", "hit_rate"):
        sweep = SWEEPS[name]
        points = places(ratios)
        studies.append(Breakeven("a", "<b>", sweep, tuple(points), crossovers(points, logs(ratios), sweep.scale), 6))
    text = render(breakeven_table(studies), "text")
    assert "vmas: <b> beats a above 28" in text
    assert "(VMAs, 95 % interval)." in text
    chart = study_chart(saved_breakeven(studies, breakeven_table(studies), ["benchframe", "breakeven", "a", "<b>"]))
    assert chart is not None
    assert len(chart.panels) == 2
    (path,) = save([chart], tmp_path, ("svg",))
    assert "&lt;b&gt;" in path.read_text()
    assert "<b>" not in path.read_text()


def test_every_sweep_makes_streams() -> None:
    """All values of all sweeps are allowed by the workload, and no two of a sweep are alike."""
    for sweep in SWEEPS.values():
        labels = [registry().spec(spec).label for spec in sweep.specs()]
        assert len(set(labels)) == len(sweep.values)


# ---- layout ----


def test_components_of_variance() -> None:
    """Made-up effects of 10 %, 5 %, 2 %, 3 % and 1 % are found again."""
    rng = np.random.default_rng(4)
    shape = (30, 30, 30)
    times = 20 * np.exp(
        rng.normal(0, 0.10, (30, 1, 1))
        + rng.normal(0, 0.05, (1, 30, 1))
        + rng.normal(0, 0.02, (30, 30, 1))
        + rng.normal(0, 0.03, (1, 1, 30))
        + rng.normal(0, 0.01, shape)
    )
    found = components(times)
    assert [part.name for part in found] == list(COMPONENTS)
    for part, sd in zip(found, (0.10, 0.05, 0.02, 0.03, 0.01), strict=True):
        assert part.sd == pytest.approx(sd, rel=0.35)
        assert part.low <= part.share <= part.high
    assert sum(part.share for part in found) == pytest.approx(1)
    assert found[0].p < 1e-6


def test_no_effect_no_share() -> None:
    """Noise alone: the residual has nearly everything, and nothing is significant in most of many draws."""
    rng = np.random.default_rng(6)
    small = 0
    for _ in range(20):
        found = components(20 * np.exp(rng.normal(0, 0.05, (4, 4, 5))))
        small += found[0].p < 0.05
        assert found[4].share > 0.5
    assert small <= 4
    study = Sensitivity("s", "w", "lookup", (1, 2), (0, 256), np.full((2, 2, 2), 9.0) + rng.random((2, 2, 2)),
                        components(np.full((2, 2, 2), 9.0) + rng.random((2, 2, 2))))  # fmt: skip
    text = render(layout_table([study]), "text")
    assert "s on w, ns/lookup by pages of shift: 0: 9." in text


@pytest.mark.parametrize(
    "spec", ["ebizzy:vmas=20,events=300", "mmap-churn:vmas=20,events=100", "python-json", "sh-pipeline"]
)
@pytest.mark.parametrize("pages", [1, 511])
def test_a_shifted_trace_is_right(spec: str, pages: int) -> None:
    """Moved by pages, every answer is still the oracle's, and layouts are the same but for the distance."""
    runner("rbtree", "native")
    trace = registry().spec(spec).trace(0)
    moved = shifted(trace, pages)
    assert moved.setup == trace.setup
    faults = trace.events["kind"] == Kind.FAULT
    assert set(trace.events["addr"][faults] - moved.events["addr"][faults]) == {pages * 4096}
    one = Session(strategy("rbtree"), moved)
    assert one.verify().ok


def test_shift_in_range() -> None:
    """A shift by whole regions would change nothing: refused; by none it is the trace itself."""
    trace = registry().spec("zipf:vmas=20,events=50").trace(0)
    assert shifted(trace, 0) is trace
    for pages in (-1, 512):
        with pytest.raises(ValueError, match=r"not in 0\.\.511"):
            shifted(trace, pages)


# ---- many cells in one process ----


def test_order_of_a_round() -> None:
    """Points of one stream follow each other, in another order each round; the same seed, the same order."""
    study = Study({}, [], [Point(name, stream) for stream in range(6) for name in "abc"])
    orders = [study.order(1, number) for number in range(4)]
    assert orders[0] != orders[1]
    assert study.order(1, 2) == orders[2]
    for order in orders:
        assert sorted(order) == list(range(18))
        streams = [index // 3 for index in order]
        assert sum(a != b for a, b in pairwise(streams)) == 5


def test_a_study_measures_every_point() -> None:
    """One round in a process of its own: a time for each point, also with cold caches."""
    runner("rbtree", "native")
    streams = [registry().spec(f"zipf:vmas={n},events=500,faults=1").trace(0) for n in (20, 60)]
    points = [Point("rbtree", stream, seed) for stream in (0, 1) for seed in (0, 7)]
    points.append(Point("rbtree", 0, caches="program=4096"))
    done: list[int] = []
    (rows,) = Study({"rbtree": strategy("rbtree")}, streams, points, 0.001).measure(1, 3, done.append)
    assert done == [0]
    assert len(rows) == 5
    assert all(row["fault"] > 0 and row["replay"] > 0 for row in rows)


def test_a_study_that_cannot_go_on(tmp_path: Path) -> None:
    """A wrong answer and an edited strategy are one line each."""
    from support.wrong_strategy import WRONG

    from benchframe.strategy import resolve

    stream = registry().spec("zipf:vmas=20,events=200").trace(0)
    other = resolve(WRONG, registry().strategies)
    runner("rbtree", "native")
    with pytest.raises(ProbeError, match="strategy rbtree was edited"):
        Study({"rbtree": other}, [stream], [Point("rbtree", 0)], 0.001).measure(1, 0)


def test_lost_figures_are_left_out() -> None:
    """A figure that is not above zero, or that the stream lacks, is not there."""

    class Fake:
        """Times as a session gives them."""

        seconds, quiet, lookup_ns, fault_ns, mapping_ns, replay_ns = 0.01, 1, -0.5, math.nan, 5.0, 7.0

        def measure(self, loops: int, most: float = 2.0) -> "Fake":
            """Itself."""
            assert loops >= 1
            return self

        def settle(self, times: "Fake") -> "Fake":
            """The same."""
            return times

    assert timed(Fake(), 0.02) == {"mapping": 5.0, "replay": 7.0}
