"""The cost model finds what was put in; explanations add up and know their limits."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.cost_model import UNITS, calibration, cost, true_ns

from benchframe.dialect import Slab
from benchframe.dialect.interpreter import PlainWorld, dejit
from benchframe.engine.cost.hierarchy import TERMS
from benchframe.errors import ResultsError
from benchframe.report.table import render
from benchframe.study import model as units
from benchframe.study.explain import Side, explain, explanation_table, in_words
from benchframe.study.model import (
    STRENGTHS,
    Calibration,
    Sample,
    _machine,
    fit,
    read_calibration,
    write_calibration,
)

# ---- the model ----


def test_fit_finds_the_units() -> None:
    """Every coefficient within its bootstrap interval and near the truth; differences are predicted to 2 %."""
    model = fit(calibration())
    assert model.names[1:] == tuple(TERMS)
    for number, name in enumerate(TERMS):
        low, high = model.interval(name)
        assert low <= model.coefficients[number + 1] <= high
        assert model.coefficients[number + 1] == pytest.approx(UNITS[name], rel=0.25, abs=0.1)
    assert model.difference_error < 0.02
    assert model.cells == 60
    np.testing.assert_array_equal(fit(calibration()).replicates, model.replicates)


def test_intervals_cover() -> None:
    """Over many calibrations with 3 % of noise the 95 % intervals of a coefficient hold the truth at least 85 times in
    100: the bootstrap of 60 cells is a little narrow, not misleading."""
    rng = np.random.default_rng(8)
    held = 0
    for _ in range(40):
        samples = []
        for number in range(48):
            found = cost(rng)
            samples.append(
                Sample(
                    f"s{number % 6}", f"w{number // 6}", found, tuple(true_ns(found) * np.exp(rng.normal(0, 0.03, 3)))
                )
            )
        low, high = fit(samples, replicates=60).interval("mispredictions")
        held += low <= UNITS["mispredictions"] <= high
    assert held >= 34


def under_one_lock(noise: float = 0.02) -> list[Sample]:
    """Cells as strategies under one lock leave them: two atomic operations each, a base that differs by stream."""
    rng = np.random.default_rng(11)
    samples = []
    for number in range(48):
        found = {**cost(rng), "lookup.path.atomics": 2.0}
        ns = (true_ns(found) + 3.0 * (number // 6)) * np.exp(rng.normal(0, noise, 5))
        samples.append(Sample(f"s{number % 6}", f"w{number // 6}", found, tuple(ns)))
    return samples


def test_what_the_cells_cannot_tell_is_taken_from_the_loops() -> None:
    """No cell differs in atomics: without the loops they cost nothing, with them what the loops say. What the cells can
    tell stays theirs, though the loops say something else; streams may differ in their base."""
    alone = {**UNITS, "atomics": 1.7, "mispredictions": 4.0}
    bare, drawn = fit(under_one_lock(), replicates=20), fit(under_one_lock(), alone, replicates=20)
    units = dict(zip(drawn.names, drawn.coefficients, strict=True))
    assert dict(zip(bare.names, bare.coefficients, strict=True))["atomics"] == 0
    assert units["atomics"] == pytest.approx(1.7, rel=0.01)
    assert units["mispredictions"] == pytest.approx(UNITS["mispredictions"], rel=0.08)
    assert drawn.high["base"] - drawn.low["base"] == pytest.approx(21, rel=0.1)
    assert drawn.difference_error < 0.05
    assert (bare.strength, bare.alone) == (0, {})
    assert drawn.strength > 0


def test_a_prior_that_predicts_badly_is_weak() -> None:
    """Loops that say ten times too much are hardly listened to; right ones are believed fully."""
    wrong = fit(under_one_lock(), {name: 10 * ns for name, ns in UNITS.items()}, replicates=5)
    right = fit(under_one_lock(), UNITS, replicates=5)
    assert wrong.strength < right.strength == STRENGTHS[-1]
    found = dict(zip(wrong.names, wrong.coefficients, strict=True))
    assert found["mispredictions"] == pytest.approx(UNITS["mispredictions"], rel=0.15)


def test_the_loops_are_what_they_say() -> None:
    """Interpreted: the chain visits every record once before it comes back, the coin falls on both sides."""
    state, cells = _machine(64)
    world = PlainWorld({"bench_base": state, "cell_base": cells})
    bench = world.ref(Slab("BENCH", units.bench, "bench_base", first=0), 0)
    entry = dejit(units.bench_entry)
    seen = [entry(bench, units.CHAIN, count) for count in range(64)]
    assert sorted(seen) == list(range(64))
    assert entry(bench, units.CHAIN, 64) == 0
    assert entry(bench, units.INDEPENDENT, 50) == 50
    assert entry(bench, units.ATOMIC, 7) == 7
    entry(bench, units.STEADY, 64)
    assert not cells["value"].any()
    entry(bench, units.COIN, 64)
    assert 16 < int((cells["value"] != 0).sum()) < 48


def test_units_are_measured() -> None:
    """Compiled and run, short: a number for every term, none below 0."""
    found = units.measured(iterations=200, repeats=2)
    assert set(found) == set(TERMS)
    assert min(found.values()) >= 0
    assert found["depth"] > 0


def test_too_few_cells() -> None:
    """A fit without enough cells is refused."""
    with pytest.raises(ValueError, match="12 cells are too few to fit 8 coefficients; 24 would do"):
        fit(calibration(cells=12))


def test_calibration_file(tmp_path: Path) -> None:
    """Samples survive the file; a damaged file is an error that names it."""
    path = tmp_path / "calibration.json"
    kept = Calibration(tuple(calibration(cells=6)), {"atomics": 1.5})
    write_calibration(path, kept)
    assert read_calibration(path) == kept
    path.write_text(path.read_text().replace('"ns": [', '"ns": [], "x": ['))
    with pytest.raises(ResultsError, match=r"calibration\.json.*samples\[0\]\.ns.*length >= 1"):
        read_calibration(path)


# ---- explain ----


def side(name: str, found: dict[str, float], extra: float = 0.0, rounds: int = 6) -> Side:
    """A strategy on the made-up machine; ``extra`` ns come from nowhere."""
    rng = np.random.default_rng(len(name))
    return Side(name, found, {r: true_ns(found) + extra + float(rng.normal(0, 0.05)) for r in range(rounds)})


def pair(extra: float = 0.0) -> tuple[Side, Side]:
    """Two strategies that differ by two mispredictions, one line from L2 and some work."""
    base = {key: 0.5 * value for key, value in cost(np.random.default_rng(1)).items()}
    other = dict(base)
    for term, more in (("mispredictions", 2), ("from L2", 1), ("work", -10)):
        other[f"lookup.path.{term}"] += more
    return side("a", base), side("bb", other, extra)


def test_a_difference_is_attributed() -> None:
    """Two mispredictions of 6 ns, a miss of 8 and ten records that are not waited for: found as such, nothing left, no
    limit said."""
    a, b = pair()
    found = explain(a, b, fit(calibration()))
    parts = {c.term: c.ns for c in found.contributions}
    assert parts["mispredictions"] == pytest.approx(12, abs=0.7)
    assert parts["from L2"] == pytest.approx(8, abs=0.7)
    assert parts["work"] == pytest.approx(-1, abs=0.3)
    assert sum(parts.values()) == pytest.approx(found.explained[0])
    assert found.difference[0] == pytest.approx(true_ns(dict(b.cost)) - true_ns(dict(a.cost)), abs=0.3)
    assert abs(found.remainder) < 1
    assert found.share[0] < found.remainder / found.difference[0] < found.share[1]
    assert found.limits == ()


def test_the_reason_is_said_in_words() -> None:
    """One sentence names the largest contributions, the largest first, by what a reader of kernel code calls them; a
    difference that may be zero has no reason, one below the model's error a guess."""
    model = fit(calibration())
    a, b = pair()
    (text,) = in_words(explain(a, b, model))
    assert re.match(
        r"bb is [\d.]+ ns \(\d+ %\) slower a lookup than a: according to the model, \+1\d\.\d for 2 more mispredicted",
        text,
    )
    assert (
        text.index("mispredicted branches") < text.index("more of their lines that only L2 had") < text.index("unexp")
    )
    (text,) = in_words(explain(b, a, model))
    assert "faster a lookup than bb: according to the model, -1" in text
    assert "for 2 fewer mispredicted branches" in text
    assert in_words(explain(a, Side("bb", a.cost, {r: a.ns[r] + (0.1, -0.1)[r % 2] for r in a.ns}), model)) == []
    unsure = in_words(replace(explain(a, b, model), model_error=99.0))
    assert "according to a model whose error is larger than that, " in unsure[0]


def test_what_no_term_explains_is_said() -> None:
    """30 ns from nowhere stay in the remainder, and two limits say so."""
    found = explain(*pair(extra=30.0), fit(calibration()))
    assert found.remainder == pytest.approx(30, abs=1.5)
    assert any("more than half of the difference is not explained" in text for text in found.limits)
    assert any(re.search(r"bb is measured \+(29|30|31)\.\d ns off its prediction", text) for text in found.limits)


def test_limits() -> None:
    """A difference of nothing, a term outside the calibration, a time beyond it, sampled counts: each is said."""
    model = fit(calibration())
    a, b = pair()
    same = explain(a, Side("bb", a.cost, dict(enumerate(a.ns[r] + (0.1, -0.1)[r % 2] for r in a.ns))), model)
    assert any("its interval contains 0" in text for text in same.limits)
    assert not any("half of the difference" in text for text in same.limits)
    assert "unexplained: undecided" in render(explanation_table(same, model, "w"), "text")
    assert any("within the model's own error" in text for text in same.limits)
    far = {**b.cost, "lookup.path.depth": 500.0, "events": 10.0, "counted": 5.0, "lookup.lines_se": 0.05}
    wide = explain(a, side("bb", far, extra=400.0), model)
    assert any("bb: depth 500.0 is beyond the calibration's" in text for text in wide.limits)
    assert any("more than the slowest calibrated cell" in text for text in wide.limits)
    assert any("standard error of lines 1 %" in text for text in wide.limits)
    with pytest.raises(ValueError, match="no round in common"):
        explain(a, Side("bb", b.cost, {99: 5.0}), model)


def test_hits_are_weighed() -> None:
    """With a cache the text says what a hit and a miss take and what the hits save."""
    a, b = pair()
    hits = {f"hit.{k.removeprefix('lookup.')}": 0.2 * v for k, v in b.cost.items()}
    cached = {**b.cost, **hits, "hit.n": 50.0, "lookup.hits": 0.5, "lookup.misses": 0.5}
    model = fit(calibration())
    found = explain(a, side("bb", cached), model)
    assert found.caches[0].startswith("bb hits 50.0 %: according to the model a hit takes ")
    assert "hits take" in found.caches[1]
    table = explanation_table(found, model, "w")
    text = render(table, "text")
    assert "unexplained" in text
    assert "measured" in text
    assert [row[0] for row in table.rows][: len(TERMS)] == list(TERMS)
    assert "term,a,b" in render(table, "csv")
