"""Process means by round, for tests of statistics."""

import numpy as np


def means(values: list[float]) -> dict[int, float]:
    """Process means by round."""
    return dict(enumerate(values))


def noisy(rounds: int, level: float = 10.0, sd: float = 0.01, seed: int = 1) -> dict[int, float]:
    """``rounds`` process means around ``level``."""
    rng = np.random.default_rng(seed)
    return means((level * np.exp(rng.normal(0, sd, rounds))).tolist())
