"""Replay in bounded memory: batches give what the whole gives."""

from importlib.resources import files

import numpy as np
import pytest

from benchframe import registry
from benchframe.engine.session import StreamReplay
from benchframe.events import Kind
from benchframe.oracle import Answers
from benchframe.trace.trace import read_trace


@pytest.mark.parametrize("rows", [97, 1000, 1 << 16])
@pytest.mark.parametrize("name", ["gcc-project", "mt-alloc"])
def test_batches_answer_as_the_oracle(name: str, rows: int) -> None:
    """However a recorded process tree is cut, every answer of every batch is the oracle's."""
    trace = read_trace(str(files("benchframe_workloads") / "data" / f"{name}.parquet"))
    replayer = StreamReplay(registry.load().strategy("pmdcache"), rows, verify=True)
    cuts = np.array_split(trace.events, range(rows, len(trace.events), rows))
    done = replayer.run(cuts)
    assert (done.events, done.wrong, done.first_wrong) == (len(trace.events), 0, "")


def test_a_wrong_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where model and oracle differ the row is counted, and the first such event is named with both answers."""
    trace = read_trace(str(files("benchframe_workloads") / "data" / "python-json.parquet"))
    replayer = StreamReplay(registry.load().strategy("rbtree"), len(trace.events), verify=True)
    assert replayer.oracle is not None
    honest = replayer.oracle.feed
    row = int(np.flatnonzero(trace.events["kind"] == Kind.FAULT)[7])

    def feed(events: np.ndarray) -> Answers:
        answers = honest(events)
        answers.vm_end[row] += 4096
        return answers

    monkeypatch.setattr(replayer.oracle, "feed", feed)
    done = replayer.run([trace.events])
    assert done.wrong == 1
    assert done.first_wrong.startswith(f"event {row} (FAULT ")
