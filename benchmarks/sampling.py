"""What the benchmarks share: interleaved samples, their spread, and a plain table.

The machine is assumed to be noisy. So whatever is compared runs in turn, in an order shuffled for each round, and
ratios are taken within a round. What runs in this process alone is timed by the CPU time of its thread, so that turns
of other programs do not count; what starts processes is timed by the wall clock.
"""

from __future__ import annotations

import os
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles


@dataclass(frozen=True)
class Spread:
    """Median, quartiles, extremes and number of ``values``, in their unit."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """25 % and 75 %; equal to the extremes where there are fewer than four values."""
        if len(self.values) < 4:
            return min(self.values), max(self.values)
        cuts = quantiles(self.values, n=4, method="inclusive")
        return cuts[0], cuts[2]

    def text(self, digits: int = 2) -> str:
        """``median [25 % .. 75 %]``."""
        low, high = self.quartiles
        return f"{self.median:.{digits}f} [{low:.{digits}f} .. {high:.{digits}f}]"


def interleave(
    jobs: Mapping[str, Callable[[], object]],
    rounds: int,
    seed: int = 1,
    clock: Callable[[], float] = time.thread_time,
    before: Callable[[str], object] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each job in each round; the order within a round is shuffled. One round before is not kept.

    ``before`` is told the job's name and puts things in order; its time does not count.
    """
    shuffled = random.Random(seed)
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for round_ in range(rounds + 1):
        names = list(jobs)
        shuffled.shuffle(names)
        for name in names:
            if before is not None:
                before(name)
            began = clock()
            jobs[name]()
            seconds = clock() - began
            if round_:
                taken[name].append(seconds)
    return taken


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Ratio in each round."""
    return Spread(tuple(a / b for a, b in zip(over, under, strict=True)))


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table on stdout, the first column to the left."""
    print(f"\n{title}\n")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, ["-" * w for w in widths], *rows):
        cells = [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        print(f"| {' | '.join(cells)} |")


def machine() -> str:
    """One line: CPU, CPUs that may be used, kernel, Python, load before the start."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    system = f"{platform.system()} {platform.release().split('-')[0]}"
    load = os.getloadavg()[0]
    return f"{cpu}, {len(os.sched_getaffinity(0))} CPUs, {system}, Python {platform.python_version()}, load {load:.1f}"
