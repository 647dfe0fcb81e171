"""Which replays were made while the machine was undisturbed.

A program on the other hardware thread of the core, or another guest of the host, makes everything half as slow again
for milliseconds to seconds. The timed replay of a strategy alternates with the *control*, the replay with known
answers: it is the same code for every strategy and contains none of the strategy's own. So the control shows when the
machine was disturbed, independently of what is measured. A replay counts if the controls before and after it were
undisturbed; the others are discarded, and the result records how many. A slow strategy is never discarded for being
slow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

SLACK = 0.03
"""A control is undisturbed if it is at most this much above the undisturbed level: undisturbed ones are within 2 % of
each other."""
STRETCH = 1.05
"""A process whose own undisturbed level is above that of an earlier one by more than this was disturbed throughout.
Layouts change it by 2 %."""
FEW = 10
"""With fewer replays than this none is discarded: they are long, and each sees a mixture."""
MIN_QUIET = 5
MIN_SHARE = 0.05
"""Fewer undisturbed replays than this, or a smaller share, count as none: a few that look undisturbed amid disturbance
occur by chance. Then all replays count, disturbed as they are, and the process records this."""
ENOUGH = 0.5
"""Replays are added until this share of the requested number was undisturbed, ..."""
MOST = 2.0
"""... or until this many times the requested number were made."""

Array = npt.NDArray[Any]


class Quiet:
    """The undisturbed level of a session's control, in cycles; ``known`` is that of an earlier process of the cell (0:
    none). It only falls."""

    def __init__(self, known: float = 0.0) -> None:
        self._known = known
        self._own = 0.0

    @property
    def own(self) -> float:
        """The level found by this process; 0 before it saw FEW replays."""
        return self._own

    @property
    def level(self) -> float:
        """The level to use: this process's own, unless it is too far above the earlier one."""
        if self._known and self._own > self._known * STRETCH:
            return self._known * STRETCH
        return self._own

    def see(self, control: Array) -> None:
        """Update the level from the controls of a batch of replays, in order of time."""
        if len(control) >= FEW:
            low = float(np.quantile(control, 0.05))
            self._own = min(self._own, low) if self._own else low

    def choose(self, control: Array) -> Array:
        """Which replays count: booleans, in order. The control before each replay is the one after the previous
        replay."""
        if len(control) < FEW or not self.level:
            return np.ones(len(control), dtype=np.bool_)
        quiet = control <= self.level * (1 + SLACK)
        chosen: Array = np.array(quiet)
        chosen[1:] &= quiet[:-1]
        return chosen


def believable(quiet: int, taken: int) -> bool:
    """Whether ``quiet`` undisturbed replays of ``taken`` are enough for a value.

    >>> believable(5, 100), believable(5, 101), believable(3, 3)
    (True, False, True)
    """
    return quiet >= min(taken, max(MIN_QUIET, MIN_SHARE * taken))


def batches(loops: int, most: float = MOST) -> tuple[int, int, int]:
    """(replays per further batch, undisturbed ones that suffice, maximum of replays) for ``loops`` requested replays.

    >>> batches(100)
    (25, 50, 200)
    """
    return max(1, loops // 4), max(1, int(ENOUGH * loops)), max(loops, int(most * loops))
