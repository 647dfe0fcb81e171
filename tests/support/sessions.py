"""Runs of made-up strategies on a toy workload with real worker processes, for tests of folders and sittings."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchframe.dialect import native
from benchframe.engine.job import Outcome, worker_command
from benchframe.events import EVENT, NIL, Kind
from benchframe.results import RunFolder
from benchframe.results.campaign import Campaign, Observer, Stream, plan
from benchframe.results.manifest import Options, WorkloadEntry
from benchframe.trace.trace import Trace

WORKER = worker_command("support.fake_worker")
OPTIONS = Options(mode="quick", rounds=2, values=2, warmups=0, min_time=0.004, timeout=60)


@native
def find_one(addr):  # type: ignore[no-untyped-def]
    return addr + 1


def strategy(name: str, hook: Any = find_one) -> Any:
    """As much of a Strategy as planning looks at."""
    return SimpleNamespace(name=name, binding={"find_vma": hook}, slabs=(), functions=lambda: [hook])


def stream(label: str = "toy", rows: int = 10) -> Stream:
    """A workload of ``rows`` events whose baseline is fake30."""
    events = np.zeros(rows, EVENT)
    events["kind"] = Kind.LOOKUP
    events["kind"][0] = Kind.EXEC
    events["file"] = NIL
    trace = Trace(events)
    entry = WorkloadEntry(label, label, "", 0, trace.digest, rows, rows - 1, "fake30")
    return Stream(entry, trace)


class Log(Observer):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.order: list[tuple[int, str]] = []
        self.notes: list[str] = []
        self.planned = 0

    def begin(self, processes: int) -> None:
        self.planned = processes

    def process(self, entry: Any, round_: int, outcome: Outcome) -> None:
        self.order.append((round_, entry.strategy))

    def note(self, text: str) -> None:
        self.notes.append(text)


def start(
    path: Path, asked: list[str], options: Options = OPTIONS, hooks: dict[str, Any] | None = None
) -> tuple[RunFolder, dict[str, Any]]:
    """A new run of ``asked`` beside the baseline on the toy workload."""
    strategies = {name: strategy(name, (hooks or {}).get(name, find_one)) for name in ["fake30", *asked]}
    manifest = plan(asked, strategies, [stream()], options, seed=5, command=["benchframe", "run"])
    return RunFolder.create(path, manifest), strategies


def sit(folder: RunFolder, strategies: dict[str, Any], log: Log | None = None) -> Log:
    """One sitting."""
    log = log or Log()
    Campaign(
        folder, strategies, {"toy": stream().trace}, log, worker=WORKER, compile=lambda strategies, progress: None
    ).run()
    return log
