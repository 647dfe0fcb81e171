"""Strategies in C: right answers, one identity per text, errors with file and line. Skipped without a C compiler."""

import re
import subprocess
from pathlib import Path

import pytest
from support.environments import ROOT

from benchframe.cstrategy import CSource, header, unseen
from benchframe.dialect.functions import Identities
from benchframe.dialect.records import DialectError
from benchframe.engine.cost.records import (
    ATOMIC,
    BARRIER,
    BRANCH,
    LINE,
    LOAD,
    LOW,
    SHIFT,
    STORE,
    Memory,
)
from benchframe.engine.cost.rewrite import Translator
from benchframe.engine.session import Session
from benchframe.mm.layout import MM, VMA, vm_area_struct
from benchframe.mm.machine import Machine, Sizes, Space
from benchframe.registry import Registry, load
from benchframe.runner import InterpretedRunner
from benchframe.strategy import PrivateSlab
from benchframe.units import strategy_digest

pytestmark = pytest.mark.needs_debian("cc")
EXAMPLE = ROOT / "examples" / "c-strategy" / "c_rbtree.py"

PLUGIN = """
from benchframe_plugins.linked_list import list_erase, list_find, list_insert
from benchframe.api import CSource, Index, Strategy, hookimpl

C = CSource("walk.c")

@hookimpl
def benchframe_strategies():
    find = C.function("index_find", ("mm", "addr"){twin})
    return [Strategy("c-list", "the list in C", Index(find=find, insert=list_insert, erase=list_erase))]
"""
WALK = """
int64_t index_find(struct mm_struct *mm, int64_t addr)
{
	int64_t vma = mm->mmap;

	while (vma && VMA(mm, vma)->vm_end <= addr)
		vma = VMA(mm, vma)->vm_next;
	return vma;
}
"""


def plugin(folder: Path, text: str = WALK, twin: str = "") -> Registry:
    """A registry with a strategy whose index_find is ``text``."""
    (folder / "walk.c").write_text(text)
    (folder / "c_list.py").write_text(PLUGIN.format(twin=twin))
    return load([folder / "c_list.py"])


def test_the_header_compiles_alone(tmp_path: Path) -> None:
    """benchframe.h asserts every offset of every record; a private slab is in it."""
    slab = PrivateSlab("NODE", [("key", "i8", "a key [mmap_lock]"), ("a", "i4", "x"), ("b", "i4", "y")], number=1)
    (tmp_path / "benchframe.h").write_text(header((slab,)))
    test = '#include <stdio.h>\n#include "benchframe.h"\nint64_t f(struct mm_struct *m) { return NODE(m, 2)->b; }\n'
    (tmp_path / "t.c").write_text(test)
    command = ["cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-c", "-o", tmp_path / "t.o", tmp_path / "t.c"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_example_is_right() -> None:
    """C inside the compiled replay: every answer equals the oracle's and that of the dialect's rbtree."""
    known = load([EXAMPLE])
    for workload in ("zipf:vmas=300,events=6000", "mmap-churn:vmas=120,events=4000"):
        session = Session(known.strategy("c-rbtree"), known.spec(workload).trace(1), layout_seed=3)
        verdict = session.verify()
        assert verdict.ok, verdict.what
        assert session.measure(1).loops == 1


@pytest.mark.slow
def test_a_wrong_c_function_is_found(tmp_path: Path) -> None:
    """A C lookup that is off by one byte at the end of a VMA is wrong by the oracle, not timed."""
    known = plugin(tmp_path, WALK.replace("<= addr", "< addr"))
    spec = known.spec("sequential:vmas=20,events=500,gap=0")
    trace = spec.trace(1)
    verdict = Session(known.strategy("c-list"), trace).verify()
    assert not verdict.ok
    assert "c-list says" in verdict.what


def test_interpreted_without_a_twin(tmp_path: Path) -> None:
    """Where the text is interpreted and there is no twin, the same C runs on the same memory, also in a second mm."""
    known = plugin(tmp_path)
    runner = InterpretedRunner(known.strategy("c-list"))
    space = Space(Machine(runner, Sizes(mms=3, tasks=4, vmas=64, tables=64, pages=256, files=4)))
    page = 4096
    for number in range(6):
        assert space.mmap(0x10000000 + 2 * number * page, page, 3, 0x32) > 0
    child = space.fork()
    assert child.munmap(0x10000000, 3 * page) == 0
    for one, first in ((space, 0), (child, 4)):
        assert one.find_vma(0x10000000) == (0x10000000 + first * page, 0x10000000 + (first + 1) * page)


def test_check_says_what_it_cannot_see(tmp_path: Path) -> None:
    """C without a twin is one step for the scheduler: `check` can name it; with a twin there is none."""
    assert unseen(plugin(tmp_path).strategy("c-list").functions()) == ["index_find"]
    assert unseen(plugin(tmp_path, twin=", twin=list_find").strategy("c-list").functions()) == []


def test_the_twin_runs_where_accesses_must_be_seen(tmp_path: Path) -> None:
    """With a twin the interpreted run is the twin's: a C file that does not even compile does not matter there."""
    known = plugin(tmp_path, "#error no\n", twin=", twin=list_find")
    space = Space(Machine(InterpretedRunner(known.strategy("c-list")), Sizes(vmas=64, tables=64, pages=256, files=4)))
    assert space.mmap(0x10000000, 4096, 3, 0x32) == 0x10000000
    assert space.find_vma(0) == (0x10000000, 0x10001000)


def counted(known: Registry, name: str, space: Space, addresses: range) -> list[int]:
    """The records that lookups of these addresses leave, and that their results are right."""
    strategy, records = known.strategy(name), list[int]()
    find = strategy.binding["index_find"]
    run = Translator(Memory(space.machine, strategy), strategy.binding, records.append).function(find, (MM, None))
    for address in addresses:
        vma = run(space.number + 1, address)
        assert (vma != 0) == (space.find_vma(address) is not None)
    return records


def test_c_is_counted_as_its_twin_is(tmp_path: Path) -> None:
    """The C of rb_find and its twin leave the same records in the same order: the same fields are read, and as many
    branches are decided, alike whenever the twin's are; and they leave them again in a second replay."""
    for part in ("c_rbtree.py", "rb_find.c"):
        (tmp_path / part).write_text((EXAMPLE.parent / part).read_text().replace(", twin=rb_find", ""))
    twin, alone = load([EXAMPLE]), load([tmp_path / "c_rbtree.py"])
    sizes = Sizes(vmas=64, tables=64, pages=256, files=4)
    space = Space(Machine(InterpretedRunner(twin.strategy("c-rbtree")), sizes))
    for number in (5, 2, 8, 1, 9, 3, 30, 12, 7, 18, 21, 16):
        space.mmap(0x10000000 + 2 * number * 4096, 4096, 3, 0x32)
    asked = range(0x10000000, 0x10000000 + 64 * 4096, 2048)
    expected, found = (counted(one, "c-rbtree", space, asked) for one in (twin, alone))
    assert len(expected) > 1000
    assert [r >> SHIFT for r in found] == [r >> SHIFT for r in expected]
    assert [r for r in found if r >> SHIFT != BRANCH] == [r for r in expected if r >> SHIFT != BRANCH]
    branches = {(a, b) for a, b in zip(found, expected, strict=True) if a >> SHIFT == BRANCH}
    assert len(branches) == len({a for a, _ in branches}) == len({b for _, b in branches}) == 6
    assert counted(alone, "c-rbtree", space, asked) == found


ACCESSES = """
static int64_t calls;

int64_t index_find(struct mm_struct *mm, int64_t addr)
{
	struct vm_area_struct *v = VMA(mm, 1), copy = *v;
	int64_t old = 0, on_the_stack[4] = {addr};

	if (!calls++)
		v->vm_end = on_the_stack[addr & 3];
	__atomic_fetch_add(&v->vm_start, 1, __ATOMIC_RELAXED);
	__atomic_compare_exchange_n(&v->vm_end, &old, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	smp_mb();
	smp_store_release(&v->vm_start, READ_ONCE(v->vm_end));
	memcpy(&v->vm_start, &v->vm_end, sizeof(v->vm_start));
	return 0 * copy.vm_start;
}
"""


def test_each_kind_of_access_is_counted(tmp_path: Path) -> None:
    """Loads, stores, atomics, barriers, copies: at the field's place; the stack and the file's variables are not
    counted, and the latter are 0 again in the next replay."""
    known = plugin(tmp_path, "#include <string.h>\n" + ACCESSES)
    strategy = known.strategy("c-list")
    space = Space(Machine(InterpretedRunner(strategy), Sizes(vmas=64, tables=64, pages=256, files=4)))
    memory = Memory(space.machine, strategy)
    first = {slab.base: region.first * LINE for slab, region in memory.slabs()}[VMA.base] + vm_area_struct.size
    start, end = (first + vm_area_struct.offset(name) for name in ("vm_start", "vm_end"))
    for _ in range(2):
        records: list[int] = []
        find = strategy.binding["index_find"]
        run = Translator(memory, strategy.binding, records.append).function(find, (MM, None))
        run(1, 0)
        before = len(records)
        run(1, 0)
        told = [(r >> SHIFT, r & LOW) for r in records]
        fields = sum(memory.counts(VMA, name) for name in vm_area_struct.fields)
        assert {kind for kind, _ in told[:fields]} == {LOAD}
        branch, stored, *rest = told[fields:before]
        assert (branch[0], stored) == (BRANCH, (STORE, end))
        assert rest == [
            (ATOMIC, start),
            (ATOMIC, end),
            (BARRIER, 0),
            (LOAD, end),
            (STORE, start),
            (LOAD, end),
            (STORE, start),
        ]
        assert told[before + fields][0] == BRANCH
        assert told[before + fields][1] != branch[1]
        assert told[before + fields + 1 :] == rest


def test_counting_needs_gcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that cannot report accesses is refused with what to do."""
    known = plugin(tmp_path)
    strategy = known.strategy("c-list")
    space = Space(Machine(InterpretedRunner(strategy), Sizes(vmas=64, tables=64, pages=256, files=4)))
    other = tmp_path / "other"
    other.write_text('#!/bin/sh\ncase "$*" in *trace-pc*) echo "what is trace-pc?" >&2; exit 1;; esac\nexec cc "$@"\n')
    other.chmod(0o755)
    monkeypatch.setenv("CC", str(other))
    translator = Translator(Memory(space.machine, strategy), strategy.binding, lambda record: None)
    with pytest.raises(DialectError, match=r"what is trace-pc\?\nTo count C the cost engine needs gcc; set CC=gcc"):
        translator.function(strategy.binding["index_find"], (MM, None))


def test_an_edit_is_another_strategy(tmp_path: Path) -> None:
    """The identity follows the C file and what it includes with quotes; it does not follow the twin."""
    plain = strategy_digest(plugin(tmp_path).strategy("c-list"))
    assert strategy_digest(plugin(tmp_path).strategy("c-list")) == plain
    assert strategy_digest(plugin(tmp_path, twin=", twin=list_find").strategy("c-list")) == plain
    (tmp_path / "more.h").write_text("#define STEP 1\n")
    included = strategy_digest(plugin(tmp_path, '#include "more.h"\n' + WALK).strategy("c-list"))
    assert included != plain
    (tmp_path / "more.h").write_text("#define STEP 2\n")
    assert strategy_digest(plugin(tmp_path, '#include "more.h"\n' + WALK).strategy("c-list")) != included


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (WALK.replace("vma = VMA(mm, vma)->vm_next;", "vma = VMA(mm, vma)->vm_nxt;"), r"walk\.c:7.*vm_nxt"),
        (WALK.replace("index_find", "index_fnd"), r"does not define int64_t index_find"),
        (WALK.replace("int64_t addr)", "int addr)"), r"walk\.c:2.*conflicting types"),
        (WALK.replace("return vma", "return elsewhere(vma)"), r"elsewhere"),
    ],
)
def test_what_the_compiler_says(text: str, says: str, tmp_path: Path) -> None:
    """A misspelt field, a missing function, another signature, a call of nothing: told with the C file's line."""
    known = plugin(tmp_path, text)
    source = known.strategy("c-list").binding["index_find"].__globals__["call"].source
    with pytest.raises(DialectError) as error:
        source.build()
    assert re.search(says, str(error.value), re.DOTALL), str(error.value)


def test_no_file_and_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing C file and a missing compiler are told with what to do."""
    known = plugin(tmp_path)
    function = known.strategy("c-list").binding["index_find"]
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(DialectError, match="install gcc, or set CC"):
        function.__globals__["call"].source.build()
    (tmp_path / "walk.c").unlink()
    with pytest.raises(DialectError, match=r"walk\.c: No such file"):
        Identities(None).of(function)


@pytest.mark.parametrize(
    ("symbol", "parameters"), [("f", ()), ("f", ("task",)), ("f;", ("mm",)), ("f", ("mm", "a b")), ("", ("mm",))]
)
def test_names_that_are_refused(symbol: str, parameters: tuple[str, ...]) -> None:
    """Names become C and Python text: only identifiers are taken."""
    with pytest.raises(DialectError, match="C names"):
        CSource("x.c").function(symbol, parameters)
