"""Steps in a series: found where they are, and not where none is."""

import random

import pytest

from benchframe.stats.ratios import levels


def test_noise_is_no_step_and_a_step_is_found() -> None:
    """400 histories of each length: what docs/compare.md says of both errors holds."""
    for runs, least in ((5, 0.85), (10, 0.97), (30, 0.97)):
        rng, false, found, loose = random.Random(runs), 0, 0, 0
        for _ in range(400):
            noise = [rng.gauss(0, 0.03) for _ in range(runs)]
            false += len(levels(noise, [0.03] * runs)) > 1
            loose += len(levels(noise, [0.01] * runs)) > 1
            stepped = levels([value + 0.2 * (at >= runs // 2) for at, value in enumerate(noise)], [0.03] * runs)
            found += len(stepped) == 2 and abs(stepped[1].first - runs // 2) <= 1
        assert false <= 4
        assert loose <= 40
        assert found >= least * 400


def test_several_steps_and_small_ones() -> None:
    """Up and down again are three levels; a step within what is of no interest is none, however certain."""
    series = [0.0] * 6 + [0.3] * 4 + [0.1] * 5
    found = levels(series, [0.01] * 15)
    assert [(level.first, level.last, round(level.mean, 3)) for level in found] == [
        (0, 6, 0),
        (6, 10, 0.3),
        (10, 15, 0.1),
    ]
    assert len(levels([0.0] * 8 + [0.015] * 8, [0.001] * 16)) == 1
    assert len(levels([0.0] * 8 + [0.015] * 8, [0.001] * 16, within=0.01)) == 2
    assert levels([], []) == []
    assert len(levels([1.0], [0.1])) == 1


def test_a_precise_run_weighs_more() -> None:
    """The mean of a level is weighted by the errors; a value far out with a large error makes no step."""
    found = levels([0.0, 0.0, 0.0, 0.5, 0.0, 0.0], [0.01, 0.01, 0.01, 0.4, 0.01, 0.01])
    assert len(found) == 1
    assert abs(found[0].mean) < 0.01


@pytest.mark.parametrize(("values", "errors"), [([1.0], []), ([1.0], [0.0]), ([0.0] * 2001, [1.0] * 2001)])
def test_bad_series_are_refused(values: list[float], errors: list[float]) -> None:
    """Lengths, errors of zero, and series that would take too long."""
    with pytest.raises(ValueError, match=r"errors|positive"):
        levels(values, errors)
