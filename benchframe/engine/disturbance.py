"""Which replays were measured while the machine was quiet.

A neighbour on the other thread of a core, or another guest of the host, makes everything half as slow again for
milliseconds to seconds. The timed replay of a strategy alternates with the *control*, the replay with known answers:
the same code for every strategy, and none of its own. So the control can say when the machine was disturbed without
looking at what is measured. A replay counts if the controls before and after it were quiet; the others are set
aside, and how many is kept with the result. A slow strategy is never set aside for being slow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

SLACK = 0.03
"""A control up to so much above the quiet level is quiet: undisturbed ones lie within 2 % of each other."""
STRETCH = 1.05
"""A process whose own quiet level lies above that of an earlier one by more than this was disturbed throughout. Layouts
move it by 2 %."""
FEW = 10
"""With fewer replays than this nothing is set aside: they are long, and each sees a mixture."""
MIN_QUIET = 5
MIN_SHARE = 0.05
"""Fewer quiet replays than this, or a smaller share of those made, are none: a few that look quiet amid disturbance are
there by chance. Then all count, as disturbed as they are, and the process says so."""
ENOUGH = 0.5
"""Replays are added until so many of those asked for were quiet, ..."""
MOST = 2.0
"""... or so many times those asked for were made."""

Array = npt.NDArray[Any]


class Quiet:
    """The quiet level of a session's control, in cycles; ``known`` is what an earlier process of the cell found (0:
    none). It only falls."""

    def __init__(self, known: float = 0.0) -> None:
        self._known = known
        self._own = 0.0

    @property
    def own(self) -> float:
        """What this process itself found; 0 before it saw FEW replays."""
        return self._own

    @property
    def level(self) -> float:
        """The level that counts: this process's own, unless it is too far above the earlier one."""
        if self._known and self._own > self._known * STRETCH:
            return self._known * STRETCH
        return self._own

    def see(self, control: Array) -> None:
        """Learn from the controls of a batch of replays, in order of time."""
        if len(control) >= FEW:
            low = float(np.quantile(control, 0.05))
            self._own = min(self._own, low) if self._own else low

    def choose(self, control: Array) -> Array:
        """Which replays count: booleans, in order. The control of the replay before stands before each."""
        if len(control) < FEW or not self.level:
            return np.ones(len(control), dtype=np.bool_)
        quiet = control <= self.level * (1 + SLACK)
        chosen: Array = np.array(quiet)
        chosen[1:] &= quiet[:-1]
        return chosen


def believable(quiet: int, taken: int) -> bool:
    """Whether ``quiet`` of ``taken`` replays are enough to stand for a value.

    >>> believable(5, 100), believable(5, 101), believable(3, 3)
    (True, False, True)
    """
    return quiet >= min(taken, max(MIN_QUIET, MIN_SHARE * taken))


def batches(loops: int, most: float = MOST) -> tuple[int, int, int]:
    """(replays of a further batch, quiet ones that are enough, most replays) for ``loops`` that were asked for.

    >>> batches(100)
    (25, 50, 200)
    """
    return max(1, loops // 4), max(1, int(ENOUGH * loops)), max(loops, int(most * loops))
