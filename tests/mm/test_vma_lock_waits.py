"""Waits for the locks of VMAs are counted: a writer that finds a reader inside, and only such a one."""

import threading
import time
from dataclasses import replace
from types import FunctionType, ModuleType
from typing import Any

import pytest
from support.space import SIZES, Kit, strategy

from benchframe.dialect import native, store_release
from benchframe.engine.threads import LOCKS
from benchframe.mm.layout import TASK
from benchframe.mm.locks import lock_contended
from benchframe.mm.smp import REPLACE, lock_contended_timed
from benchframe.runner import unit_store
from benchframe.units import UnitSpec
from benchframe_plugins import per_vma_refcnt, per_vma_rwsem
from benchframe_plugins.per_vma_rwsem import start_write, vma_end_read, vma_start_read

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

READ, LEAVE, WRITE = range(3)
WAITING = 7
PATIENCE = 60
"""Seconds after which a test gives up; on none of them does its outcome depend."""


@native
def contended_and_told(mm):
    """lock_contended of a build for threads, which tells the test that it has been called."""
    store_release(TASK(mm, 2), "strategy0", WAITING)
    return lock_contended_timed(mm)


@native
def act(mm, what, vma):
    """What a reader or a writer does, of per_vma_rwsem or of what :func:`unit_of` puts in its place."""
    if what == READ:
        return vma_start_read(mm, vma)
    if what == LEAVE:
        return vma_end_read(mm, 1, vma)
    return start_write(mm, vma)


def unit_of(module: ModuleType, name: str) -> Any:
    """``act(mm, what, vma)`` over ``module``'s own functions, compiled as a build for threads compiles them."""
    own = {key: getattr(module, key) for key in ("vma_start_read", "vma_end_read", "start_write")}
    made = native(FunctionType(act.__code__, {**globals(), **own}, "act"))
    replaced = {**REPLACE, lock_contended: contended_and_told}
    return unit_store().get(UnitSpec(f"waits-{name}", made, dict(strategy(name).binding), replaced))


@pytest.mark.parametrize("module", [per_vma_rwsem, per_vma_refcnt], ids=lambda module: module.__name__.split(".")[1])
def test_a_writer_that_waits_is_counted(module: ModuleType) -> None:
    """Nobody inside: no wait. A reader inside: the writer waits until it leaves, once, and its cycles are noted."""
    name = module.__name__.split(".")[1]
    kit = Kit(name, sizes=replace(SIZES, threads=True))
    vma, run, root = kit.map(0, 2), unit_of(module, name), kit.machine.root
    often, long = (kit.machine.arrays["crew_base"][field] for field in LOCKS["vma"])
    told = kit.machine.arrays["task_base"]["strategy0"]
    assert run(root, WRITE, vma) == 0
    assert (often.sum(), long.sum(), told[2]) == (0, 0, 0)

    kit.mm["mm_lock_seq"] += 2  # the writer gives mmap_lock back: the VMA is open to readers again
    assert run(root, READ, vma) == 1
    writer = threading.Thread(target=run, args=(root, WRITE, vma), daemon=True)
    writer.start()
    deadline = time.monotonic() + PATIENCE
    while told[2] != WAITING and time.monotonic() < deadline:
        time.sleep(0.001)
    assert told[2] == WAITING
    assert writer.is_alive()
    assert often.sum() == 0, "it still waits"
    run(root, LEAVE, vma)
    writer.join(PATIENCE)
    assert not writer.is_alive()
    assert often.sum() == 1
    assert long.sum() > 0
