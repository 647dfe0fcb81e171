"""Run a corpus of litmus tests whose verdicts are recorded: ``tests/support/litmus_corpus.py FOLDER CSV [SECONDS]``.

Each line of CSV is ``path below FOLDER,verdict``: 1 if what ``exists`` asks for can be (or what ``forall`` says holds),
0 if not. That is what Dat3M keeps as dartagnan/src/test/resources/LKMM-expected.csv, beside litmus/LKMM. A test gets
SECONDS of CPU (2). Each that differs is named with its cause, as far as it can be told: it reads plain accesses as
READ_ONCE and WRITE_ONCE; or an independent enumeration says that it takes load buffering.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchframe.check.axioms import WORDS
from benchframe.check.litmus import Tasks, Test, Unsupported, finals, holds, read_test
from benchframe.check.trust import Seen, Trust

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
from support import candidates

LONGEST = 20.0
"""Seconds of CPU for an enumeration."""


def verdict(test: Test, seconds: float, values: set[Any]) -> tuple[str, bool]:
    """1, 0, or ? where the time did not do; whether a plain access was seen. ``values`` gets all that was stored."""
    end = time.process_time() + seconds
    found = {True: 0, False: 0}
    plain = False

    def see(seen: Seen) -> bool:
        nonlocal plain
        for one in itertools.chain.from_iterable(seen.graph.tasks):
            plain |= one.plain
            if one.kind == "W" and one.tag not in WORDS:
                values.add(one.value)
        if seen.outcome == "done":
            assert isinstance(seen.tasks, Tasks)
            final = finals(test, seen.graph, seen.tasks)
            if test.filter is None or holds(test.filter, final):
                found[holds(test.condition, final)] += 1
        return not found[test.quantifier != "forall"]

    counts = Trust(lambda: Tasks(test), "lkmm", stop=lambda: time.process_time() > end).explore(see)
    if found[test.quantifier != "forall"]:
        return ("0" if test.quantifier == "forall" else "1"), plain
    if not counts.complete:
        return "?", plain
    return ("1" if test.quantifier == "forall" else "0"), plain


def takes_load_buffering(test: Test, values: set[Any]) -> str:
    """Does the enumeration find the condition in an execution with a cycle of program order and reads-from, if loads
    give 0, what a location begins with, any of ``values``, or what the condition asks for?"""
    end = time.process_time() + LONGEST
    domain = tuple(sorted({0, *test.init.values(), *values, *_asked(test.condition)}, key=str))
    runs = [list(candidates.traces(test, task, domain)) for task in range(len(test.tasks))]
    for parts in itertools.product(*runs):
        if time.process_time() > end:
            return "not known: the enumeration did not end"
        if any(candidates.reached(test, parts, lambda values: holds(test.condition, values), buffering=True)):
            return "load buffering"
    plain = any(event.label.plain for run in runs for events, _ in run for event in events)
    return "plain accesses" if plain else "not known"


def _asked(condition: Any) -> set[Any]:
    """The values in a condition: one out of thin air is stored in no other execution."""
    if condition[0] == "is":
        return set() if isinstance(condition[2], tuple) else {condition[2]}
    return set().union(*(_asked(part) for part in condition[1:])) if condition[0] != "true" else set()


def main(folder: Path, table: Path, seconds: float = 2.0) -> int:
    """Print what differs, then how many of each; the exit code is 1 if the cause of one is not known."""
    kinds: Counter[str] = Counter()
    for line in table.read_text().splitlines():
        name, _, wanted = line.rpartition(",")
        try:
            test = read_test(folder / name)
            values: set[Any] = set()
            got, plain = verdict(test, seconds, values)
        except Unsupported as error:
            kinds[f"not read: {error}"] += 1
            continue
        except (OSError, RecursionError) as error:
            kinds[f"not read: {type(error).__name__}"] += 1
            continue
        if got in ("?", wanted):
            kinds["did not end" if got == "?" else "agree"] += 1
            continue
        try:
            cause = "plain accesses" if plain else takes_load_buffering(test, values)
        except Unsupported as error:
            cause = f"not known: {error}"
        kinds[f"differ: {cause}"] += 1
        print(f"{name}: {wanted} there, {got} here: {cause}", flush=True)
    for kind, count in kinds.most_common():
        print(f"{count:6} {kind}")
    return 1 if any(kind.startswith("differ: not known") for kind in kinds) else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:])))
