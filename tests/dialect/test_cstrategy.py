"""Strategies in C: right answers, one identity per text, errors with file and line. Skipped without a C compiler."""

import re
import subprocess
from pathlib import Path

import pytest
from support.environments import ROOT

from benchframe.cstrategy import CSource, header, unseen
from benchframe.dialect.functions import Identities
from benchframe.dialect.records import DialectError
from benchframe.engine.session import Session
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
