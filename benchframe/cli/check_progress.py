"""How far a check is, on a terminal: parts done, executions a second, time left. Elsewhere the results say enough."""

import sys
import time
from typing import Any

from benchframe.check.parts import Result
from benchframe.check.pool import Watcher


def watcher(parts: int, budget: float) -> Watcher:
    """A bar on stderr if that is a terminal; ``budget`` seconds at most."""
    return Bar(parts, budget) if sys.stderr.isatty() else Watcher()


class Bar(Watcher):
    """rich's bar, drawn when something happened: no thread draws it, so workers can be forked beside it."""

    def __init__(self, parts: int, budget: float, console: Any = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
        self._progress = Progress(*columns, console=console or Console(stderr=True), transient=True, auto_refresh=False)
        self._task = self._progress.add_task("", total=parts)
        self._progress.start()
        self._parts, self._budget = parts, budget
        self._began = self._drawn = time.monotonic()
        self._done = self._failures = 0
        self._executions = 0

    def executions(self, more: int) -> None:
        """Count them."""
        self._executions += more
        self._draw()

    def done(self, index: int, result: Result) -> None:
        """Move the bar."""
        self._done += 1
        self._progress.update(self._task, completed=self._done)
        self._draw(True)

    def found(self, index: int, text: str) -> None:
        """One more failure."""
        self._failures += 1
        self._draw()

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    def words(self) -> str:
        """What stands beside the bar. The time left is guessed from the parts done, and never above the budget."""
        spent = max(time.monotonic() - self._began, 0.001)
        left = max(self._budget - spent, 0.0)
        if self._done:
            left = min(left, spent / self._done * (self._parts - self._done))
        failures = f", {self._failures} failures" if self._failures else ""
        return f"{self._executions / spent:.0f} executions/s, about {left:.0f} s left{failures}"

    def _draw(self, now: bool = False) -> None:
        if now or time.monotonic() - self._drawn > 0.3:
            self._drawn = time.monotonic()
            self._progress.update(self._task, description=self.words(), refresh=True)
