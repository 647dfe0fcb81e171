"""``run --debug-native``: compiled code with every access and answer tested finds the first wrong one, and its line."""

import inspect
from pathlib import Path

import numpy as np
import pytest
from support.space import strategy
from support.streams import PAGE, mapping, stream
from typer.testing import CliRunner

from benchframe.api import Cache, Field, PrivateSlab, Protocol, Strategy, native
from benchframe.cli import app
from benchframe.engine.guard import guard
from benchframe.events import Kind
from benchframe.kernel import ARENA_VMA, NULL, VMA, kfree_rcu, vma_free_now
from benchframe.strategy import resolve
from benchframe.trace.meta import TraceMeta
from benchframe.trace.trace import Trace

SLOT = PrivateSlab("slot", [Field("vma", "i8", "a VMA found before", pointer=True)], 0, per_vma=0, fixed=8)
RIGHT, LOADS, STORES, OUTSIDE, STALE, OVERFLOWS = (number << 32 for number in range(1, 7))
"""Addresses at which the strategy below makes none of its mistakes, or one."""


@native
def find(mm, task, addr):  # type: ignore[no-untyped-def]
    """Five mistakes, each in a part of the address space: so one compiled unit shows them all."""
    kind = addr >> 32
    if kind == 2 and VMA(mm, mm.mmap_cache).vm_start > addr:  # WRONG: load through NULL
        return NULL
    if kind == 3:
        VMA(mm, mm.mmap_cache).vm_private_data = 1  # WRONG: store through NULL
    if kind == 4:
        return SLOT(mm, 1 + ((addr >> 12) & 15)).vma  # WRONG: outside the slab
    if kind == 5 and mm.mmap_cache != NULL:
        return mm.mmap_cache * (VMA(mm, mm.mmap_cache).vm_start > addr)  # WRONG: use after free
    if kind == 6 and addr * mm.task_size < 1 << 60:
        return 1  # a wrong answer, where the product does not fit into 64 bits
    return NULL


@native
def remember(mm, task, addr, vma):  # type: ignore[no-untyped-def]
    """The last VMA found, for STALE; nobody forgets it."""
    if addr >> 32 == 5:
        mm.mmap_cache = vma
    return 0


@native
def free_twice(mm, vma):  # type: ignore[no-untyped-def]
    """The record is free already."""
    vma_free_now(mm, vma)
    return kfree_rcu(mm, ARENA_VMA, vma)  # WRONG: double free


@native
def free_late(mm, vma):  # type: ignore[no-untyped-def]
    """The model writes to the record before it frees it again."""
    vma_free_now(mm, vma)
    return vma_free_now(mm, vma)


@native
def free(mm, vma):  # type: ignore[no-untyped-def]
    """Of a mapping call: one slot too far."""
    SLOT(mm, 9).vma = vma  # WRONG: a store outside the slab
    return vma_free_now(mm, vma)


FIVE = Strategy("five-mistakes", "wrong in five places", "rbtree", cache=Cache([SLOT], find=find, store=remember))
LATE = Strategy("frees-late", "wrong in free", "rbtree", protocol=Protocol(vma_free=free_late))
TWICE = Strategy("frees-twice", "wrong in free", "rbtree", protocol=Protocol(vma_free=free_twice))
ONE = Strategy("store-outside", "wrong in free", "rbtree", protocol=Protocol([SLOT], vma_free=free))


def trace(*rows: dict[str, int]) -> Trace:
    """A trace of these events."""
    events = stream(*rows)
    return Trace(events, np.arange(len(events)), np.zeros(len(events), np.int32), TraceMeta())


def lookup(addr: int) -> dict[str, int]:
    """A LOOKUP row."""
    return {"kind": Kind.LOOKUP, "addr": addr}


def line_of(mark: str) -> int:
    """The line of this file that has a mark."""
    return next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if f"# WRONG: {mark}" in text)


def test_compiled_code_tells_the_line_of_a_wrong_access() -> None:
    """Loads and stores through NULL and an index outside a slab: what, in which event, and the line. Lookups before the
    wrong one pass."""
    known = resolve(FIVE, {"rbtree": strategy("rbtree")})
    wanted = {
        LOADS: ("load through NULL", "NULL dereference: VMA(mm, NULL) is read or written"),
        STORES: ("store through NULL", "NULL dereference: VMA(mm, NULL) is read or written"),
        OUTSIDE + 9 * PAGE: ("outside the slab", "wild reference: slot(mm, 10), the slab has 9 records"),
    }
    good = [mapping(RIGHT, 4), lookup(RIGHT), lookup(RIGHT + PAGE)]
    assert guard(known, trace(*good, lookup(OUTSIDE + PAGE))) is None
    for addr, (mark, what) in wanted.items():
        found = guard(known, trace(*good, lookup(addr), lookup(RIGHT)))
        assert found is not None
        assert found.what == what
        assert (found.event, found.place) == (3, (__file__, line_of(mark), "find"))
        assert found.text.endswith(f"(event 3), in find ({__file__}:{line_of(mark)})")
    gone = [mapping(STALE, 4), lookup(STALE), lookup(STALE), {"kind": Kind.MUNMAP, "addr": STALE, "len": 4 * PAGE}]
    found = guard(known, trace(*gone))
    assert found is not None
    assert (found.event, found.place) == (4, None)
    assert found.text.startswith("after the last event: mmap_cache is #1, which is not a VMA")
    found = guard(known, trace(*gone, lookup(STALE)))
    assert found is not None
    assert found.what.startswith("use after free: VMA(mm, ")
    assert (found.event, found.place) == (4, (__file__, line_of("use after free"), "find"))
    found = guard(known, trace(*good, lookup(OVERFLOWS + PAGE), lookup(RIGHT)))
    assert found is not None
    assert (found.event, found.place) == (3, None)
    assert "five-mistakes says 0 in 0x100000000-" in found.text
    assert ", the oracle 0 in -0x1-" in found.text


def test_mapping_calls_are_tested_too() -> None:
    """What a mapping call reaches is tested in its Python form, with the same words; a right one passes."""
    known = resolve(ONE, {"rbtree": strategy("rbtree")})
    events = trace(mapping(RIGHT, 4), {"kind": Kind.MUNMAP, "addr": RIGHT, "len": 4 * PAGE})
    found = guard(known, events)
    assert found is not None
    assert found.what == "wild reference: slot(mm, 9), the slab has 9 records"
    assert (found.event, found.place[1:]) == (1, (line_of("a store outside"), "free"))
    for name in ("rbtree", "maple", "pmdcache", "vmacache"):
        assert guard(strategy(name), events) is None
    found = guard(resolve(TWICE, {"rbtree": strategy("rbtree")}), events)
    assert found is not None
    assert found.what == "double free: vma #1 is freed"
    assert (found.event, found.place) == (1, (__file__, line_of("double free"), "free_twice"))
    found = guard(resolve(LATE, {"rbtree": strategy("rbtree")}), events)
    assert found is not None
    assert found.what == "use after free: VMA(mm, 1) is read or written"
    assert found.text.endswith(f", called from free_late ({__file__}:{free_late.__code__.co_firstlineno})")


def test_run_with_tested_accesses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option prints a line per cell, times nothing, keeps no run; exit code 1 if something was found."""
    plugin = tmp_path / "wrong.py"
    text = inspect.getsource(free).replace("  # type: ignore[no-untyped-def]", "")
    plugin.write_text(
        "from benchframe.api import Field, PrivateSlab, Protocol, Strategy, hookimpl, native\n"
        "from benchframe.kernel import vma_free_now\n"
        "SLOT = PrivateSlab('slot', [Field('vma', 'i8', 'x', pointer=True)], 0, per_vma=0, fixed=8)\n"
        f"{text}\n@hookimpl\ndef benchframe_strategies():\n"
        "    return [Strategy('outside', 'wrong', 'rbtree', protocol=Protocol([SLOT], vma_free=free))]\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["-s", "outside", "-w", "mmap2:mib=1,turns=2", "--plugin", str(plugin), "--debug-native"]
    done = CliRunner().invoke(app, ["run", *arguments])
    assert done.exit_code == 1
    assert "outside on mmap2:mib=1,turns=2: wild reference: slot(mm, 9), the slab has 9 records (event" in done.stdout
    assert f"in free ({plugin}:" in done.stdout
    assert "rbtree on mmap2:mib=1,turns=2: every answer is right, and every access of a live record, in" in done.stdout
    assert not list(tmp_path.glob("reports/runs/*"))
    assert CliRunner().invoke(app, ["run", "--resume", "last", "--debug-native"]).exit_code == 2
