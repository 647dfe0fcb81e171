"""Progress of runs and checks on the terminal."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from benchframe.check.jobs import Result, Watcher
from benchframe.engine.job import Outcome
from benchframe.results.campaign import Observer
from benchframe.results.folder import RunFolder
from benchframe.results.manifest import CellEntry

# ----------------------------------------------------------------------------------------------------------------------
# A campaign's progress on stderr: a bar with the time left on a terminal, a line per round elsewhere.


class Lines(Observer):
    """For logs: a line when compilation takes time, and repeated lines during it; one line per round and failed
    cell."""

    PATIENCE, EVERY = 3.0, 15.0
    """Seconds before compilation is reported, and between lines about it."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.round = -1
        self.left = 0
        self.start = 0.0
        self.done = 0
        self.said = 0.0
        self.soon = threading.Timer(self.PATIENCE, self._compiling, ["compiling; the code is cached for later runs"])
        self.soon.daemon = True

    def _compiling(self, text: str) -> None:
        self.said = time.monotonic()
        self._say(text)

    def _say(self, text: str) -> None:
        print(f"benchframe: {text}", file=sys.stderr, flush=True)

    def compiling(self, unit: str, fraction: float) -> None:
        """Report that it takes a while, if it does, its progress, and its end."""
        if not unit and not self.soon.ident:
            self.soon.start()
        elif fraction >= 1:
            self.soon.cancel()
            self._say("compiled")
        elif self.said and time.monotonic() - self.said >= self.EVERY:
            self._compiling(f"compiling: {100 * fraction:.0f} %")

    def begin(self, processes: int) -> None:
        """Start the clock."""
        self.soon.cancel()
        self.left, self.start = processes, time.monotonic()
        self._say(f"{processes} processes")

    def process(self, entry: CellEntry, round_: int, outcome: Outcome) -> None:
        """A line when a round begins, with an estimate of the time left; a line for a failure."""
        if outcome.state != "ok":
            self._say(f"{entry.strategy} on {entry.workload}: {outcome.state}: {outcome.message}")
        self.done, self.left = self.done + 1, self.left - 1
        if round_ != self.round:
            self.round = round_
            rest = (time.monotonic() - self.start) / self.done * self.left
            self._say(f"round {round_ + 1} of {self.rounds}, about {rest:.0f} s left")

    def more(self, processes: int) -> None:
        """More processes than announced."""
        self.left += processes

    def dropped(self, processes: int) -> None:
        """Fewer processes than announced."""
        self.left -= processes

    def note(self, text: str) -> None:
        """Print it."""
        self._say(text)


class Bars(Observer):
    """For a terminal: rich's bars, and above them the table as it is after each round. ``table`` gives its text.

    A table is made while no worker is at work, since it would disturb one: if it takes long, not after every round.
    """

    SHARE = 0.02
    """Of a run's time, what its tables may take; the first is made in any case."""

    def __init__(self, progress: Any, rounds: int, table: Callable[[], str]) -> None:
        self.progress = progress
        self.rounds = rounds
        self.table = table
        self.compilation: Any = None
        self.timing: Any = None
        self.start = time.monotonic()
        self.spent = 0.0

    def compiling(self, unit: str, fraction: float) -> None:
        """Advance the compilation's bar; it pulses until the first unit is done."""
        if self.compilation is None:
            self.compilation = self.progress.add_task("compiling", total=None)
        elif unit:
            done = {"total": 100, "completed": round(100 * fraction)}
            self.progress.update(self.compilation, description=f"compiling: {unit} done"[:60], **done)

    def begin(self, processes: int) -> None:
        """Show the timing's bar."""
        if self.compilation is not None:
            self.progress.remove_task(self.compilation)
        self.timing = self.progress.add_task("timing", total=processes)

    def process(self, entry: CellEntry, round_: int, outcome: Outcome) -> None:
        """Advance the timing's bar; a failure is printed above it."""
        if outcome.state != "ok":
            self.progress.console.print(
                f"{entry.strategy} on {entry.workload}: {outcome.state}: {outcome.message}",
                markup=False,
                highlight=False,
                style="red",
            )
        text = f"round {round_ + 1}/{self.rounds} {entry.strategy} on {entry.workload}"
        self.progress.update(self.timing, advance=1, description=text[:60])

    def round_ended(self, done: int) -> None:
        """Show the table of the rounds so far in the place of the one before."""
        began = time.monotonic()
        if done == self.rounds or self.spent > self.SHARE * (began - self.start):
            return
        first = "a first look: one process a cell" if done == 1 else f"{done} processes a cell"
        self.progress.table = f"after round {done} of {self.rounds}, {first}; more follow\n{self.table()}"
        self.spent += time.monotonic() - began

    def more(self, processes: int) -> None:
        """Lengthen the timing's bar."""
        self.dropped(-processes)

    def dropped(self, processes: int) -> None:
        """Shorten the timing's bar."""
        if self.timing is not None:
            task = next(t for t in self.progress.tasks if t.id == self.timing)
            self.progress.update(self.timing, total=(task.total or 0) - processes)

    def note(self, text: str) -> None:
        """Print it above the bars."""
        self.progress.console.print(text, markup=False, highlight=False)


def bars_below_table(console: Any, **settings: Any) -> Any:
    """rich's Progress on ``console``, with a ``table`` above its bars: a text, "" for none."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Refined(Progress):
        table = ""

        def get_renderables(self) -> Iterable[Any]:
            if self.table:
                yield Text.from_ansi(self.table, no_wrap=True, overflow="crop")
            yield from super().get_renderables()

    left = TimeRemainingColumn(elapsed_when_finished=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), left)
    return Refined(*columns, console=console, **settings)


@contextmanager
def watching(folder: RunFolder) -> Iterator[Observer]:
    """An observer for a campaign in ``folder``: bars on a terminal, lines elsewhere."""
    rounds = folder.manifest.options.rounds
    if not sys.stderr.isatty():
        lines = Lines(rounds)
        try:
            yield lines
        finally:
            lines.soon.cancel()
        return
    from rich.console import Console

    from benchframe.cli.report import tables
    from benchframe.report.table import to_text

    console = Console(stderr=True)

    def table() -> str:
        return to_text(replace(tables(folder)[0], notes=()), console.width, not console.no_color)

    with bars_below_table(console, transient=True, refresh_per_second=2) as progress:
        yield Bars(progress, rounds, table)


# ----------------------------------------------------------------------------------------------------------------------
# Progress of a check on a terminal: parts done, executions per second, time left. Elsewhere the results suffice.


def watcher(parts: int, budget: float) -> Watcher:
    """A bar on stderr if that is a terminal, for at most ``budget`` seconds."""
    return Bar(parts, budget) if sys.stderr.isatty() else Watcher()


class Bar(Watcher):
    """rich's bar, drawn on events only: no thread draws it, so workers can be forked beside it."""

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
        """Advance the bar."""
        self._done += 1
        self._progress.update(self._task, completed=self._done)
        self._draw(True)

    def found(self, index: int, text: str) -> None:
        """One more failure."""
        self._failures += 1
        self._draw()

    def close(self) -> None:
        """Remove the bar."""
        self._progress.stop()

    def words(self) -> str:
        """The text beside the bar. The time left is estimated from the parts done, and is never above the budget."""
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
