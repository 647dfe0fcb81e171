"""Calibration: the single-CPU numbers of a machine, fitted to native runs on this host.

With one CPU nothing is contended, so a simulated operation takes its instructions times ``insn``, its atomic operations
times ``atomic``, and what private caches, memory and the store buffer add. The simulation counts the first two; it
takes the rest from the machine that is the base. :func:`fit` finds the two numbers for which the cells come nearest to
what one native thread took. On a busy machine a native thread takes longer, and so do the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from benchframe.engine.threads import ThreadSession
from benchframe.simulator.machines import Machine, Number, load_work
from benchframe.simulator.session import Depth, SimulatedSession

if TYPE_CHECKING:
    from benchframe.registry import Registry

STRATEGIES = ("rbtree", "maple_rcu", "pmdcache_rcu")
WORKLOADS = ("multi-fault-all-split:vmas=300", "page_fault1:mib=1", "mmap1:mib=1")
ROUNDS, SECONDS = 20, 0.02
"""Native runs of each cell, and how long each lasts."""
LEAST = 1e-3
"""ns: an instruction takes this at least."""


@dataclass(frozen=True)
class Cell:
    """One strategy on one workload, per operation: what one native thread took, ``instructions`` and ``atomics`` as the
    simulation counts them, and the ``rest`` of the simulated time. Times in ns."""

    strategy: str
    workload: str
    native: float
    instructions: float
    atomics: float
    rest: float

    def simulated(self, insn: float, atomic: float) -> float:
        """ns of an operation on a machine with these numbers."""
        return self.instructions * insn + self.atomics * atomic + self.rest


def measured(known: Registry, base: Machine, say: Callable[[str], None]) -> list[Cell]:
    """The cells. A cell's native time is that of the fastest of ROUNDS rounds, since other load only adds to it. Raises
    EngineError (a wrong answer), DialectError, SimulateError."""
    nothing, unit = load_work("none"), base.changed({"insn": 1.0, "atomic": 1.0, "jitter": 0.0})
    found = []
    natives = []
    for name in STRATEGIES:
        for label in WORKLOADS:
            say(f"{name} on {label}")
            strategy, trace = known.strategy(name), known.spec(label).trace(0, 1)
            run = SimulatedSession(strategy, trace, 1, note=say).right_run(unit, nothing, depth=Depth())
            operations = max(1, sum(run.operations.values()))
            parts = {part: ns / operations for part, ns in run.parts.items()}
            instructions, atomics = parts.pop("instructions"), parts.pop("atomics")
            natives.append(ThreadSession(strategy, trace, 1, note=say))
            found.append(Cell(name, label, 0.0, instructions, atomics, sum(parts.values())))
    best = [float("inf")] * len(found)
    for number in range(ROUNDS):
        say(f"round {number + 1} of {ROUNDS}")
        for index, session in enumerate(natives):
            lap = session.measure(SECONDS)
            best[index] = min(best[index], 1e9 * lap.seconds / max(1, sum(lap.operations.values())))
    return [replace(cell, native=ns) for cell, ns in zip(found, best, strict=True)]


def fit(cells: Sequence[Cell]) -> tuple[float, float]:
    """``insn`` and ``atomic`` with the least sum of squared relative errors; neither is negative.

    >>> cells = [Cell("a", "w", 2.0 * i + 5.0 * a + 3.0, i, a, 3.0) for i, a in ((10, 1), (30, 2), (20, 9))]
    >>> [round(number, 6) for number in fit(cells)]
    [2.0, 5.0]
    """
    matrix = np.array([[cell.instructions / cell.native, cell.atomics / cell.native] for cell in cells])
    wanted = np.array([1 - cell.rest / cell.native for cell in cells])
    insn, atomic = (float(number) for number in np.linalg.lstsq(matrix, wanted, rcond=None)[0])
    if atomic < 0:
        atomic = 0.0
        insn = float(matrix[:, 0] @ wanted / (matrix[:, 0] @ matrix[:, 0]))
    if insn < LEAST:
        insn = LEAST
        left = wanted - insn * matrix[:, 0]
        atomic = max(0.0, float(matrix[:, 1] @ left / max(float(matrix[:, 1] @ matrix[:, 1]), 1e-12)))
    return insn, atomic


def error(cells: Sequence[Cell], insn: float, atomic: float) -> float:
    """The root mean square of the logarithm of simulated over native time."""
    return float(np.sqrt(np.mean([np.log(cell.simulated(insn, atomic) / cell.native) ** 2 for cell in cells])))


def calibrated(base: Machine, cells: Sequence[Cell], title: str) -> Machine:
    """``base`` with the fitted numbers. Their bounds are the least and the most of the fits without one of the cells;
    everything else keeps its value and says whose it is."""
    value = fit(cells)
    fits = [value, *(fit([*cells[:left], *cells[left + 1 :]]) for left in range(len(cells)))]
    numbers = {
        name: replace(old, standing="guess", source=f"as {base.name}: {old.source}")
        for name, old in base.numbers.items()
    }
    source = f"fitted to one native thread on {title}, {len(cells)} cells (benchframe simulate --calibrate)"
    for index, name in enumerate(("insn", "atomic")):
        own = [one[index] for one in fits]
        low, high = float(f"{min(own):.3g}"), float(f"{max(own):.3g}")
        middle = min(max(float(f"{value[index]:.3g}"), low), high)
        numbers[name] = Number(name, middle, low, high, "measured", source)
    about = f"{base.name}, with the time of an instruction and of an atomic operation as on {title}."
    return replace(base, title=f"{title}, calibrated", about=about, numbers=numbers)
