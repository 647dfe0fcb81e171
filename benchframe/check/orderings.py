"""``benchframe check --orderings``: which orderings of a strategy can be weakened without a failure in any scenario.

Each ordering of the strategy's own text is weakened by itself, one step, and every scenario that runs it is searched
again. "Needed" names the failure that the weaker one has. "Not needed" is said of scenarios that were searched whole,
and these are finite and small: it is a question to the author, not a proof. "Open": the time was up before that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchframe.check.accesses import Place
from benchframe.check.cases import COMMON
from benchframe.check.execution import Broken
from benchframe.check.graph import Graph
from benchframe.check.memory import OutOfRecords
from benchframe.check.trust import Seen
from benchframe.check.weak import ALONE, GraphCase, operation_of
from benchframe.check.weak_hunt import Change, GraphHunt, order_of, searched
from benchframe.scenario import Scenario
from benchframe.strategy import Strategy

WEAKER = {
    ("load", "acquire"): ("once",),
    ("store", "release"): ("once",),
    ("rmw", "acquire"): ("relaxed",),
    ("rmw", "release"): ("relaxed",),
    ("rmw", "full"): ("acquire", "release"),
}
"""Of an operation and its ordering, those one step weaker."""
LOCKS = ("locks.py", "defaults.py")
"""Files of locks that strategies share: their orderings are the kernel's, and not the strategy's to choose."""
SEQCOUNT = "seqcount"
"""In names of functions there that are weakened all the same: a sequence count is nothing but its barriers."""


@dataclass
class Weakened:
    """What came of one change: the failure (scenario, text), else how much was searched."""

    change: Change
    failure: str = ""
    scenario: str = ""
    graphs: int = 0
    whole: bool = True
    scenarios: list[str] = field(default_factory=list)


def weaker(graph: Graph) -> set[Change]:
    """The changes that weaken one ordering of what ran in ``graph``."""
    found: set[Change] = set()
    for events in graph.tasks:
        for index, label in enumerate(events):
            if label.place is None or label.tag in ("gp", "slab", "free", "kfree_rcu", "queue", "wait_then_add", ALONE):
                continue
            if Path(label.place[0]).name in LOCKS and SEQCOUNT not in label.place[2]:
                continue
            if label.kind == "F":
                if label.order in ("mb", "rmb", "wmb"):
                    found.add(Change(label.place, label.order, label.order, "none"))
                continue
            operation = operation_of(label)
            if operation == "rmw" and label.kind == "W":
                continue
            after = events[index + 1] if operation == "rmw" and index + 1 < len(events) else None
            order = order_of(label, after)
            for now in WEAKER.get((operation, order), ()):
                found.add(Change(label.place, operation, order, now))
    return found


def met(
    strategy: Strategy, scenarios: Sequence[Scenario], deadline: float, say: Callable[[str], None]
) -> dict[Change, list[Scenario]]:
    """Every ordering that some scenario runs, and which do. Each scenario is searched first as it is; one that fails
    is left out, and said."""
    found: dict[Change, list[Scenario]] = {}
    for number, one in enumerate(scenarios):
        now = time.monotonic()
        share = now + max(deadline - now, 0.5) / (len(scenarios) - number)
        try:
            case = GraphCase(one, strategy)
            hunt = GraphHunt(case, 1)
            changes: set[Change] = set()

            def see(seen: Seen, hunt: GraphHunt = hunt, changes: set[Change] = changes) -> bool:
                changes |= weaker(seen.graph)
                return hunt._see(seen)

            hunt._explore(see, share)
        except (Broken, OutOfRecords) as error:
            say(f"{one.name}: left out: {error}")
            continue
        if hunt.failures:
            say(f"{one.name}: left out, it fails as it is: {next(iter(hunt.failures.values())).broken}")
            continue
        for change in changes:
            found.setdefault(change, []).append(one)
    return found


def weaken(strategy: Strategy, change: Change, scenarios: Sequence[Scenario], deadline: float) -> Weakened:
    """Search each scenario with the change until one fails."""
    result = Weakened(change)
    for number, one in enumerate(scenarios):
        now = time.monotonic()
        until = now + max(deadline - now, 0.2) / (len(scenarios) - number)
        hunt = searched(one, strategy, dict([change.rule]), until)
        result.graphs += hunt.verdict.coverage.executions
        result.whole &= hunt.verdict.coverage.complete
        result.scenarios.append(one.name)
        if hunt.verdict.findings:
            finding = hunt.verdict.findings[0]
            result.failure, result.scenario = f"{finding.kind}: {finding.text}", one.name
            return result
    return result


def run_orderings(
    strategy: Strategy, names: Sequence[str], budget: float, say: Callable[[str], None] = print
) -> list[Weakened]:
    """Weaken each ordering of ``strategy`` in ``budget`` seconds; tells a line or two for each."""
    scenarios = [one for one in (*COMMON, *strategy.scenarios) if not names or one.name in names]
    scenarios = [one for one in scenarios if not one.hardware]
    began = time.monotonic()
    changes = met(strategy, scenarios, began + budget * 0.3, say)
    say(f"{strategy.name}: {len(changes)} orderings can be weakened by a step, in {len(scenarios)} scenarios")
    results = []
    for number, (change, where) in enumerate(sorted(changes.items(), key=lambda item: _key(item[0]))):
        now = time.monotonic()
        until = now + max(began + budget - now, 0.5) / (len(changes) - number)
        result = weaken(strategy, change, where, until)
        results.append(result)
        if result.failure:
            say(f"  needed      {change}\n              {result.scenario}: {result.failure}")
        else:
            word, whole = ("not needed", "") if result.whole else ("open      ", ", not all of them")
            say(f"  {word}  {change}\n              {result.graphs} graphs of {len(where)} scenarios{whole}")
    needed = sum(bool(result.failure) for result in results)
    cut = sum(not result.failure and not result.whole for result in results)
    say(
        f"{needed} needed; {len(results) - needed - cut} not needed in these scenarios, which are small and finite: "
        f"a reason to look, not a proof; {cut} open, for want of time"
    )
    return results


def _key(change: Change) -> tuple[Place, str, str]:
    return change.place, change.operation, change.now
