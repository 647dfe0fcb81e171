"""Memory that waits for RCU when a slab is full: who allocates waits for it; and locks that are free at rest."""

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.threads import session

from benchframe.api import PrivateSlab
from benchframe.check.cases import plain_runner
from benchframe.engine.threads import ThreadSession, scaling
from benchframe.mm import flags
from benchframe.mm.machine import Machine, Parameters, Sizes, Space
from benchframe.mm.validate import ValidationError
from benchframe.registry import load
from benchframe.report.details import waiting_text
from benchframe.strategy import StrategyError

KNOWN = load()


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """The build that tests/engine/test_threads.py uses too, compiled by one process."""
    session("pmdcache_rcu", "mixed:mappers=1,turns=20", 1)


class Tight(ThreadSession):
    """Room for no more VMAs than live at once: what waits for RCU must be back before the next is made."""

    def _sizes(self) -> Sizes:
        return replace(super()._sizes(), vmas=8)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_full_slab_waits_for_rcu(threads: int) -> None:
    """Who maps and unmaps finds no free VMA until a grace period is over, and waits for it; none is lost."""
    trace = KNOWN.spec("mixed:mappers=1,turns=20").trace(0, threads)
    tight = Tight(KNOWN.strategy("pmdcache_rcu"), trace, threads)
    verdict = tight.verify()
    assert verdict.ok, verdict.what
    counts = tight.counts()
    assert counts["rcu_reclaims"] > 0


def test_a_slab_that_is_too_small() -> None:
    """Where nothing waits for RCU a full slab is an error, told with what to do."""
    with pytest.raises(MemoryError, match="ran out of VMAs"):
        TooTight(KNOWN.strategy("pmdcache_rcu"), KNOWN.spec("mixed:mappers=1,turns=20").trace(0, 3), 3)


class TooTight(ThreadSession):
    """Room for fewer VMAs than live at once."""

    def _sizes(self) -> Sizes:
        return replace(super()._sizes(), vmas=2)


@pytest.mark.parametrize(
    ("mmap_lock", "table", "vma", "text"),
    [
        (None, None, None, ""),
        (0.1, None, None, "10.0 %"),
        (0.1, 0.0001, 0.0, "10.0 %"),
        (0.1, 0.02, 0.003, "10.0+2.3 %"),
    ],
)
def test_the_table_of_threads(mmap_lock: float | None, table: float | None, vma: float | None, text: str) -> None:
    """Waiting for other locks stands behind mmap_lock's where there was any."""
    point: Any = SimpleNamespace(lock_share=mmap_lock, table_share=table, vma_share=vma)
    assert waiting_text(point) == text


def test_locks_of_vmas_are_free_at_rest() -> None:
    """A per-VMA lock that was never given back is told by validate_mm, with the VMA."""
    strategy = KNOWN.strategy("per_vma_rwsem")
    runner = plain_runner(strategy)
    machine = Machine(
        runner, Sizes(mms=2, tasks=4, vmas=16, tables=32, pages=64, files=4, events=16), Parameters(), strategy.slabs
    )
    space = Space(machine)
    space.mmap(0x10000000, 0x4000, 3, 0x32)
    runner.validate(machine)
    locks = machine.arrays[next(slab.base for slab in strategy.slabs if slab.name == "vma_lock")]
    locks["count"][1] = 1
    with pytest.raises(ValidationError, match=r"VMA #1: count of its vma_lock is 1 at rest"):
        runner.validate(machine)


def test_at_rest_names_a_field() -> None:
    """A name that is no field is the plugin's mistake."""
    with pytest.raises(StrategyError, match="at_rest names lock"):
        PrivateSlab("mine", [("count", "i8", "x")], at_rest=("lock",))


def test_waits_for_page_table_locks_are_counted() -> None:
    """Somebody holds the lock of a table for a while: the fault that waits for it says how often and how long."""
    made = session("pmdcache_rcu", "mixed:mappers=1,turns=20", 1)
    assert made.verify().ok
    pages = made.machine.arrays["page_base"]
    table = int(np.flatnonzero((pages["mapping"] == flags.PAGE_TABLE) & (pages["refcount"] == 1))[-1])
    lap = made.lap(rounds=2)
    assert (lap.waits["table"][1] > 0) == (lap.waits["table"][0] > 0)
    for held in (0.1, 1.0, 10.0):  # on a busy machine the fault may come late
        pages["ptl"][table] = 1
        threading.Timer(held, lambda: pages["ptl"].__setitem__(table, 0)).start()
        lap = made.lap(rounds=2)
        if lap.waits["table"][0] > 0:
            break
    assert lap.waits["table"][0] > 0
    assert lap.waits["table"][1] > 0
    assert made.at_rest() == ""
    assert scaling([lap]).other_locks["table"][1] == lap.waits["table"][0] > 0
