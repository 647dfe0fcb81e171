"""Assertions for a plugin's own tests: correct answers, no races, hit rates. `benchframe new` creates tests that use
them.

Each function takes the registry from :func:`load_plugin` and a name, and raises AssertionError with the checker's
message. Nothing here depends on time. The first call compiles the strategy (seconds); later calls load it from the
store.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchframe.check.jobs import Saved
    from benchframe.registry import Registry

__all__ = [
    "assert_no_race",
    "assert_repeats",
    "assert_right",
    "assert_stays_away",
    "counts",
    "load_plugin",
    "saved_failures",
]


def load_plugin(*paths: str | Path) -> Registry:
    """The registry with the plugins of these files or project folders, in addition to the installed ones.

    Raises AssertionError if one of them has a problem (it cannot be imported, implements no hook ...).
    """
    from benchframe.registry import expand, load

    files = [file for path in paths for file in expand(Path(path))]
    known = load(files)
    ours = {str(file) for file in files} | {file.stem for file in files}
    problems = [str(p) for p in known.problems if p.file in ours or p.plugin in ours]
    assert not problems, "\n".join(problems)
    return known


def assert_right(known: Registry, strategy: str, workload: str, seed: int = 1) -> None:
    """Assert that every answer of ``strategy`` on ``workload`` equals the oracle's, and that all invariants hold at the
    end."""
    from benchframe.engine.session import Session

    verdict = Session(known.strategy(strategy), known.spec(workload).trace(seed), layout_seed=seed).verify()
    assert verdict.ok, f"{strategy} on {workload}: {verdict.what}"


def assert_no_race(known: Registry, strategy: str, scenarios: Sequence[str] = (), seconds: float = 60.0) -> None:
    """Assert that `benchframe check` finds nothing wrong within ``seconds``; the error's text is the counterexample."""
    from benchframe.check.command import run_check_command

    told: list[str] = []
    code = run_check_command([known.strategy(strategy)], scenarios, seconds, say=told.append)
    assert code == 0, "\n".join(told)


def saved_failures(folder: str | Path) -> list[Saved]:
    """The failures that `benchframe check --save --saved FOLDER` stored, for ``pytest.mark.parametrize``. Empty without
    the folder."""
    from benchframe.check.jobs import read

    return read(Path(folder))


def assert_stays_away(known: Registry, failure: Saved, seconds: float = 20.0) -> None:
    """Assert that ``failure`` does not recur: neither under its schedule nor, since an edit may have changed where that
    schedule leads, in a search of its scenario within ``seconds``."""
    from benchframe.check.command import scenario
    from benchframe.check.jobs import run_again

    strategy = known.strategy(failure.strategy)
    again = run_again(failure, strategy, scenario(failure.scenario, strategy))
    assert not again.fails, f"{again.text}\n{again.story}"
    assert_no_race(known, failure.strategy, [failure.scenario], seconds)


def counts(known: Registry, strategy: str, workload: str, seed: int = 1) -> dict[str, float]:
    """The counts of one pass: ``lookups``, ``hits``, ``hit_rate`` (0 to 1), ``invalidations``, ``retries`` and more."""
    from benchframe.engine.session import Session

    return Session(known.strategy(strategy), known.spec(workload).trace(seed)).counts()


def assert_repeats(known: Registry, workload: str, seed: int = 1) -> None:
    """Assert that no call of ``workload`` fails, and that its timed part leaves layout and page count as it found
    them."""
    from benchframe.engine.session import Session
    from benchframe.events import Kind
    from benchframe.oracle import replay

    trace = known.spec(workload).trace(seed)
    before, after = replay(trace.events[: trace.setup]), replay(trace.events)
    kinds = trace.events["kind"]
    quiet = (kinds == Kind.LOOKUP) | (kinds == Kind.FAULT)
    failed = ((after.ret < 0) & ~quiet).nonzero()[0]
    assert not len(failed), (
        f"{workload}: event {failed[0]} ({Kind(int(kinds[failed[0]])).name}) fails: {after.ret[failed[0]]}"
    )
    assert before.layouts == after.layouts, f"{workload}: the VMAs at the end differ from those after the setup"
    session = Session(known.strategy("rbtree"), trace)
    rss = [int(session.machine.arrays["mm_base"]["rss"].sum())]
    session.runner.replay(session.first, session.last)
    rss.append(int(session.machine.arrays["mm_base"]["rss"].sum()))
    assert rss[0] == rss[1], (
        f"{workload}: {rss[0]} pages after the setup, {rss[1]} at the end: free the pages that are faulted in"
    )
