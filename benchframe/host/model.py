"""The model's times of the same trace, for a strategy as the running kernel has it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from benchframe.engine.job import FIGURES

if TYPE_CHECKING:
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace

Figures = Mapping[str, Mapping[int, float]]
"""ns per operation by figure (lookup, fault, mapping) and round."""


def preset_of(release: str, names: Iterable[str]) -> str | None:
    """The newest of the strategies ``linux-X.Y`` that is not newer than the kernel ``release``; None if there is none.

    >>> preset_of("6.12.3-amd64", ["linux-6.1", "linux-6.4", "linux-6.15", "rbtree"])
    'linux-6.4'
    """
    here = _version(release)
    known = {_version(name.removeprefix("linux-")): name for name in names if re.fullmatch(r"linux-[\d.]+", name)}
    fitting = [version for version in known if version <= here]
    return known[max(fitting)] if fitting else None


def _version(text: str) -> tuple[int, ...]:
    match = re.match(r"[\d.]*\d", text)
    return tuple(map(int, match.group().split("."))) if match else ()


def model_figures(
    strategies: Sequence[Strategy],
    trace: Trace,
    rounds: int,
    cpu: int = -1,
    plugins: Sequence[str] = (),
    blocked: Sequence[str] = (),
    done: Callable[[int], None] | None = None,
) -> dict[str, Figures]:
    """Figures of each strategy on ``trace``; some 0.5 s per round and strategy. Strategies must be compiled. Raises
    ProbeError, for a wrong answer too."""
    from benchframe.engine.probe import Point, Study

    points = [Point(strategy.name, 0) for strategy in strategies]
    study = Study({one.name: one for one in strategies}, [trace], points, 0.02, cpu, plugins, blocked)
    found = study.measure(rounds, 0, done)
    return {
        point.strategy: {
            figure: {number: row[at][figure] for number, row in enumerate(found) if figure in row[at]}
            for figure in FIGURES
        }
        for at, point in enumerate(points)
    }
