"""Why a cell of a run failed: its stream by the interpreter, compiled code with every access tested, scenarios.

A command is told only if the work that it does was done here first and found the fault: nobody is sent to a check that
passes. Where nothing finds it, that is said, with how far the search went.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from benchframe.check.jobs import Part, command_of, do_part, scenarios_of
from benchframe.cstrategy import unseen
from benchframe.engine.guard import guard_apart
from benchframe.study.interpreted import MOST, first_failure, first_use_after_free, part, save, shortened
from benchframe.trace.trace import read_trace

if TYPE_CHECKING:
    from benchframe.results.folder import Cell
    from benchframe.scenario import KnownBug
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace

SEARCH, EACH = 30.0, 6.0
"""Seconds for random calls and scenarios together, and for each of them."""
GUARDED = 120.0
"""Seconds for the replay with every access tested; compiling takes some 10 to 30 of them."""
Say = Callable[[str], None]


def diagnose(
    strategies: Callable[[str], Strategy],
    cells: Iterable[Cell],
    traces: Mapping[str, Trace],
    plugins: Sequence[str],
    again: Callable[[Cell], list[str]],
    say: Say,
) -> None:
    """Tell why the failed ``cells`` failed, each strategy until one of its cells is explained. ``plugins``: files that
    the commands must name; ``again`` gives the words that run one cell again. Takes some minutes at most a strategy."""
    explained: set[str] = set()
    for cell in cells:
        name, trace = cell.entry.strategy, traces.get(cell.entry.workload)
        if cell.state.failed and name not in explained and trace is not None:
            try:
                found = _Diagnosis(strategies(name), cell, trace, plugins, again, say).tell()
            except Exception as error:  # whatever happens here, the table and the exit code must follow
                why = next(iter(str(error).splitlines()), type(error).__name__)
                say(f"{name} on {cell.entry.workload}: not looked into: {why}")
                continue
            if found:
                explained.add(name)


class _Diagnosis:
    """What is tried for one cell, in order, until something is found."""

    def __init__(
        self,
        strategy: Strategy,
        cell: Cell,
        trace: Trace,
        plugins: Sequence[str],
        again: Callable[[Cell], list[str]],
        say: Say,
    ) -> None:
        self.strategy, self.cell, self.trace, self.again = strategy, cell, trace, again
        self.plugins = tuple(plugins)
        self.files = [word for path in plugins for word in ("--plugin", path)]
        self.where = f"{strategy.name} on {cell.entry.workload}"
        self.say: Say = lambda text: say(f"{self.where}: {text}")
        self.tried: list[str] = []

    def tell(self) -> bool:
        """Whether the cause was found and told, with the command that shows it."""
        if hidden := unseen(self.strategy.functions()):
            self.say(f"{hidden[0]}() is C without a twin, so no check can look into it: write one, or use a debugger")
            return True
        alone = self.cell.workload.threads == 0
        if alone and (self._known() or self._interpreted() or self._compiled()):
            return True
        if self._searched(scenarios_of(self.strategy), EACH):
            return True
        if not alone:
            self.tried.append(
                "real threads meet in more ways than scenarios have calls: `run` it again, or search longer"
            )
        self.say(f"the cause was not found: {'; '.join(self.tried)}")
        return False

    def _known(self) -> bool:
        """A known bug, seen in the stream of one task, and in a scenario."""
        state, bugs = self.cell.state, self.strategy.known_bugs
        if state.state != "wrong" or state.event < 0 or not bugs:
            return False
        found = first_use_after_free(self.strategy, self.trace, state.event)
        if found is None or found.bug is None:
            names = ", ".join(dict.fromkeys(bug.name for bug in bugs))
            self.say(f"none of the known bugs ({names}) was seen in one task alone")
            return False
        bug = found.bug
        self.say(f"wrong by a known bug, {bug.name}: {bug.summary} (event {found.event}: {found.text})")
        here = [one for one in scenarios_of(self.strategy) if one.name in bug.scenarios]
        return self._searched(here, SEARCH, bug)

    def _interpreted(self) -> bool:
        """The same events, by the interpreter; kept as a file if they fail there."""
        state = self.cell.state
        last = state.event if state.state == "wrong" and state.event >= 0 else len(self.trace) - 1
        cut = part(self.trace, range(min(last + 1, len(self.trace), MOST)))
        failure = first_failure(self.strategy, cut)
        if failure is None:
            self.tried.append(f"the same text is right by the interpreter in {len(cut)} of {len(self.trace)} events")
            return False
        short, failure = shortened(self.strategy, cut, failure)
        path = save(short, self.strategy.name)
        if (seen := first_failure(self.strategy, read_trace(path))) is None:
            self.tried.append(f"the interpreter finds {failure.text}, but not once more")
            return False
        self.say(seen.text)
        words = ["benchframe", "check", "--strategy", self.strategy.name, "--trace", str(path), *self.files]
        self.say(f"{len(short)} of {len(self.trace)} events reproduce it in the interpreter: {shlex.join(words)}")
        return True

    def _compiled(self) -> bool:
        """What compiled code does alone, as with sums of more than 64 bits: with every access tested."""
        said, right = guard_apart(self.strategy, self.trace, GUARDED, lambda unit: None)
        if right is not False:
            self.tried.append(f"compiled, with every access tested: {said}")
            return False
        self.say(f"compiled, with every access tested: {said}")
        self.say(f"to see it again: {shlex.join([*self.again(self.cell), '--debug-native', *self.files])}")
        return True

    def _searched(self, scenarios: Sequence[object], each: float, bug: KnownBug | None = None) -> bool:
        """The scenarios, and before all of them random calls, as ``check`` does them, until one fails."""
        end = time.monotonic() + SEARCH
        parts = [Part(self.strategy, one, plugins=self.plugins) for one in scenarios]  # type: ignore[arg-type]
        done = 0
        for piece in [*([] if bug else [Part(self.strategy, plugins=self.plugins)]), *parts]:
            if time.monotonic() > end:
                break
            result = do_part(piece, min(end, time.monotonic() + each), lambda executions: None, lambda text: None)
            done += 1
            if not result.wrong or (result.findings and bug and all(f.known != bug.name for f in result.findings)):
                continue
            self.say(" ".join(result.lines[0].split()))
            self.say(f"from call to call: {command_of(piece, result)}")
            return True
        self.tried.append(
            f"{done} of {len(parts) + (not bug)} parts of `benchframe check` find nothing in {SEARCH:.0f} s"
        )
        return False
