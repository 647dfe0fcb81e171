"""A made-up machine of which the cost of each operation is known."""

import numpy as np

from benchframe.study.model import Sample, terms

UNITS = {"work": 0.1, "mispredictions": 6.0, "atomics": 2.0, "depth": 0.5, "from L2": 8.0, "from LLC": 20.0,
         "from memory": 90.0}  # fmt: skip
"""ns per unit of the made-up machine below; the base is 1 ns."""
HIGH = {"work": 90.0, "mispredictions": 4.0, "atomics": 5.0, "depth": 15.0, "from L2": 6.0, "from LLC": 3.0,
        "from memory": 2.0}  # fmt: skip


def cost(rng: np.random.Generator, scale: float = 1.0) -> dict[str, float]:
    """Random counts of a lookup."""
    found = {f"lookup.path.{name}": float(scale * rng.uniform(0.1, 1) * high) for name, high in HIGH.items()}
    return {**found, "lookup.lines": 10.0, "lookup.missed_l1": 2.0, "lookup.missed_l1.vma": 1.5}


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
