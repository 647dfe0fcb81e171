"""The synthetic workloads through the native engine: the VMA count asked for, faults without SIGSEGV, right answers."""

import numpy as np
import pytest
from support.compile import compiled

from benchframe.engine.session import Session
from benchframe.events import Kind
from benchframe.registry import load

REGISTRY = load()
SYNTHETIC = [name for name, w in REGISTRY.workloads.items() if "trace" not in w.tags]


def session(text: str) -> Session:
    """rbtree on the workload that ``text`` names."""
    return Session(compiled(REGISTRY.strategy("rbtree")), REGISTRY.spec(text).trace(3))


@pytest.mark.parametrize("name", SYNTHETIC)
def test_native_agrees(name: str) -> None:
    """The model agrees with the oracle on every answer, has the VMAs asked for if any were, and does all the faults."""
    sized = {"vmas", "events"} <= {p.name for p in REGISTRY.workloads[name].parameters}
    tried = session(f"{name}:vmas=90,events=3000" if sized else name)
    verdict = tried.verify()
    assert verdict.ok, verdict.what
    counts = tried.counts()
    if sized:
        assert 90 <= counts["vmas_peak"] <= 92  # a copy or two splits come and go
    timed = tried.trace.events[tried.trace.setup :]
    assert counts["faults"] == (timed["kind"] == Kind.FAULT).sum()


@pytest.mark.slow
def test_lifted_limit_reaches_the_model() -> None:
    """A stream that asks for a higher vm.max_map_count gets it: 70 000 VMAs are there, above the default 65 530."""
    tried = session("uniform:vmas=70000,events=500")
    assert tried.verify().ok
    assert tried.counts()["vmas_peak"] == 70_000


def test_same_faults_in_every_replay() -> None:
    """Replays begin where the one before ended: a second one takes as many faults and finds as many VMAs."""
    tried = session("fault-scatter:vmas=40,pages=8,gap=0,events=2000")
    assert tried.verify().ok
    first = tried.counts()
    assert np.isfinite(tried.measure(3).fault_ns)
    assert tried.counts() == first
