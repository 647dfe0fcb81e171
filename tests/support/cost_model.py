"""A made-up machine of which the cost of each operation is known."""

import numpy as np

from benchframe.study.model import Sample, terms

UNITS = {"work": 0.1, "mispredictions": 6.0, "atomics": 2.0, "depth": 0.5, "lines": 0.3, "from L2": 8.0,
         "from LLC": 20.0, "from memory": 90.0}  # fmt: skip
"""ns per unit of the made-up machine below; the base is 1 ns."""


def cost(rng: np.random.Generator, scale: float = 1.0) -> dict[str, float]:
    """Random counts of a lookup."""
    ranges = {"loads": 40, "stores": 4, "branches": 50, "mispredicted": 4, "atomics": 4, "barriers": 1, "steps": 15,
              "lines": 20}  # fmt: skip
    found = {f"lookup.{key}": float(scale * rng.uniform(0.1, 1) * high) for key, high in ranges.items()}
    lost = found["lookup.lines"] * np.cumprod(rng.uniform(0.1, 0.6, 3))
    return {**found, **{f"lookup.missed_{level}": float(lost[n]) for n, level in enumerate(("l1", "l2", "llc"))}}


def true_ns(found: dict[str, float]) -> float:
    """What the made-up machine takes."""
    return 1.0 + sum(UNITS[name] * value for name, value in terms(found).items())


def calibration(noise: float = 0.01, cells: int = 60) -> list[Sample]:
    """Cells of the made-up machine, six strategies on ten workloads."""
    rng = np.random.default_rng(5)
    samples = []
    for number in range(cells):
        found = cost(rng)
        ns = tuple(true_ns(found) * np.exp(rng.normal(0, noise, 5)))
        samples.append(Sample(f"s{number % 6}", f"w{number // 6}", found, ns))
    return samples
