"""Run a corpus of litmus tests whose verdicts are recorded: ``tests/support/litmus_corpus.py FOLDER CSV [SECONDS]``.

Each line of CSV is ``path below FOLDER,verdict``: 1 if what ``exists`` asks for can be (or what ``forall`` says holds),
0 if not. That is what Dat3M keeps as dartagnan/src/test/resources/LKMM-expected.csv, beside litmus/LKMM. A test gets
SECONDS of CPU (2). A verdict that executions which are not searched might change is not supported, as the reader says
(:class:`benchframe.check.litmus.Beyond`); each supported one that differs is named.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

from benchframe.check.litmus import Beyond, Tasks, Test, Unsupported, finals, holds, read_test
from benchframe.check.trust import Seen, Trust


def verdict(test: Test, seconds: float) -> tuple[str, str]:
    """1, 0, or ? where the time did not do; why it is not supported, or ""."""
    end = time.process_time() + seconds
    found = {True: 0, False: 0}
    wanted = test.quantifier != "forall"
    beyond = Beyond()

    def see(seen: Seen) -> bool:
        beyond.look(seen.graph)
        if seen.outcome == "done":
            assert isinstance(seen.tasks, Tasks)
            final = finals(test, seen.graph, seen.tasks)
            if test.filter is None or holds(test.filter, final):
                found[holds(test.condition, final)] += 1
        return not found[wanted]

    counts = Trust(lambda: Tasks(test), "lkmm", stop=lambda: time.process_time() > end).explore(see)
    if found[wanted]:
        return str(int(wanted)), ""
    return (str(int(not wanted)), beyond.why) if counts.complete else ("?", "")


def main(folder: Path, table: Path, seconds: float = 2.0) -> int:
    """Print each supported test that differs, then how many of each kind; the exit code is 1 if one differs."""
    kinds: Counter[str] = Counter()
    for line in table.read_text().splitlines():
        name, _, wanted = line.rpartition(",")
        try:
            got, why = verdict(read_test(folder / name), seconds)
        except Unsupported as error:
            kinds[f"not read: {error}"] += 1
            continue
        except (OSError, RecursionError) as error:
            kinds[f"not read: {type(error).__name__}"] += 1
            continue
        if got == "?":
            kinds["did not end"] += 1
        elif why:
            kinds[f"not supported: {why}, and {'the same' if got == wanted else 'another'} verdict there"] += 1
        elif got == wanted:
            kinds["supported, agree"] += 1
        else:
            kinds["supported, differ"] += 1
            print(f"{name}: {wanted} there, {got} here", flush=True)
    for kind, count in kinds.most_common():
        print(f"{count:6} {kind}")
    return int("supported, differ" in kinds)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:])))
