"""What an author is told of a mistake: the line in the author's file, what is wrong, the mend; not Numba's words."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchframe.api import Cache, Strategy
from benchframe.dialect import DialectError
from benchframe.dialect.lint import c_habits, c_places, lint, readable, translated
from benchframe.dialect.llvm import compile_unit
from benchframe.engine.compile import check_texts
from benchframe.mm.layout import mm_struct
from benchframe.registry import load
from benchframe.strategy import StrategyError, resolve

HEAD = """from benchframe.api import native
from benchframe.kernel import NULL, TASK, VMA, READ_ONCE

RATIO = 2.5
NOTHING = None


@native
def helper(mm, vma):
    return VMA(mm, vma).vm_start


@native
def halved(mm, task, addr, vma):
    return vma / 2


@native
def bad_helper(mm, vma):
    return VMA(mm, vma) + vma


def find_maker():
    shift = 3

    {body}

    return find
"""
FUNCTION = "@native\ndef find(mm, task, addr):\n"


def author(folder: Path, body: str, closure: bool = False) -> tuple[ModuleType, int]:
    """A plugin file with the function ``find``; the module, and the line of the function's first statement."""
    file = folder / "author.py"
    function = FUNCTION + "".join(f"    {line}\n" for line in body.splitlines())
    if closure:
        text = HEAD.replace("{body}", function.replace("\n", "\n    ").rstrip()) + "\n\nfind = find_maker()\n"
    else:
        text = HEAD.partition("\n\ndef find_maker")[0] + "\n\n" + function
    file.write_text(text)
    name = f"author_{folder.name}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    lines = text.splitlines()
    return module, next(i for i, line in enumerate(lines, 1) if "def find(" in line) + 1


MISTAKES = [
    ("a float", "half = addr * 0.5\nreturn half", 0, "the float 0.5; use integers"),
    ("a float field", "TASK(mm, task).strategy0 = addr / 2\nreturn 0", 0, "true division; use //"),
    ("a float constant", "return addr * RATIO", None, "'RATIO' is a float"),
    ("a list", "found = [addr]\nreturn 0", 0, "a list; use a slab"),
    ("a string", "kind = 'heap'\nreturn 0", 0, "a text; strategy code has integers only"),
    (
        "wrong arity",
        "x = 1\nreturn helper(mm, addr, x)",
        1,
        "helper takes 2 arguments, (mm, vma), but is called with 3",
    ),
    ("wrong arity of a slab", "return VMA(addr).vm_start", 0, "VMA takes 2 arguments, (mm, i), but is called with 1"),
    ("unknown field", "return VMA(mm, addr).vm_strat", 0, "no field vm_strat (did you mean vm_start?)"),
    ("unknown field by name", "t = TASK(mm, task)\nt.strateg0 = 1\nreturn 0", 1, "(did you mean strategy0?)"),
    ("unbound name", "return addr + OFFSET", 0, "OFFSET is not defined"),
    ("unbound call", "return hlper(mm, addr)", 0, "hlper is not defined (did you mean helper?)"),
    ("what the header file has", "cpu_relax()\nreturn 0", 0, "write above: from benchframe.kernel import cpu_relax"),
    (
        "a field of a parameter",
        "mm.strategy0 = addr\nreturn addr.vm_end",
        1,
        "addr is an index, a number: it has no field",
    ),
    ("a field of an index", "vma = mm.strategy0\nreturn vma.vm_end", 1, "make a record of it: VMA(mm, vma).vm_end"),
    ("a field through an mm", "return TASK(mm, task).mm.mmap_cache", 0, "MM(mm, TASK(mm, task).mm).mmap_cache"),
    ("recursion", "if addr == 0:\n    return 0\nreturn find(mm, task, addr - 1)", None, "recursion"),
    ("returning nothing", "if addr > 5:\n    return 1", 1, "ends without a return on some path"),
    ("returning None", "if addr > 5:\n    return None\nreturn 1", 1, "returns nothing; return an integer"),
    ("returning two", "return addr, 1", 0, "returns two values"),
    ("returning a record", "return VMA(mm, addr)", 0, "returns a vm_area_struct record; return its index"),
    (
        "returning a record by name",
        "v = VMA(mm, addr)\nreturn v",
        1,
        "returns a vm_area_struct record; return its index",
    ),
    ("a global None", "return NOTHING", None, "'NOTHING' is a NoneType"),
    (
        "an assignment expression",
        "if (x := addr) > 5:\n    return x\nreturn 0",
        0,
        "an assignment inside an expression",
    ),
    ("an endless loop", "while True:\n    addr += 1", 0, "a loop that never ends; give it a condition"),
    ("None", "vma = None\nreturn 0", 0, "None; use NULL"),
    (
        "mixed types",
        "v = VMA(mm, addr)\nif addr > 5:\n    v = NULL\nreturn v",
        3,
        "v is a vm_area_struct record on one path",
    ),
    ("two records", "r = VMA(mm, 1)\nif addr:\n    r = TASK(mm, 1)\nreturn r.strategy0", 3, "a task_struct record on"),
    ("a record as a number", "return VMA(mm, addr) + 1", 0, "a vm_area_struct record + the number 1 is not possible"),
    ("a record compared", "if VMA(mm, addr) == NULL:\n    return 1\nreturn 0", 0, "record == the number 0"),
    ("a field of a number", "return addr.vm_start", 0, "a number has no field vm_start; make a record"),
    (
        "an unknown atomic field",
        "return READ_ONCE(mm, 'mmap_cach')",
        -2,
        "no field 'mmap_cach'; did you mean mmap_cache?",
    ),
]


@pytest.mark.parametrize(("body", "line", "says"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake(body: str, line: int | None, says: str, tmp_path: Path) -> None:
    """The message names the author's file and line (None: the function's), what and how to mend it, and is short."""
    module, first = author(tmp_path, body)
    with pytest.raises(DialectError) as told:
        compile_unit(module.find, 3, mm_struct, {}, {})
    text = str(told.value)
    assert says in text
    assert f"author.py:{first + line}" in text if line is not None else "author.py:" in text
    for word in ("Record(", "int64", "Literal", "\x1b", "Cannot unify", "No implementation", "numba"):
        assert word not in text
    assert len(text) < 600


def test_one_mistake_is_one_finding(tmp_path: Path) -> None:
    """A lambda and a comprehension are refused as such; their own names are not called undefined as well."""
    module, _ = author(tmp_path, "f = lambda x: x + 1\nreturn min(i for i in range(3))")
    assert [(f.what, f.mend) for f in lint(module.find)] == [
        ("a lambda", "write a module-level @native function"),
        ("a generator", "write a loop"),
    ]


@pytest.mark.parametrize(
    ("line", "column", "hint"),
    [
        ("    if a && b:", 10, "`and`"),
        ("    if a || b:", 10, "`or`"),
        ("    return vma->vm_start", 15, "VMA(mm, i).vm_start"),
        ("    if !vma:", 8, "`not`"),
        ("    i++", 6, "x += 1"),
        ("    return a ? b : c", 14, "b if a else c"),
        ("    goto out", 5, "no goto"),
        ("    unsigned long start = 0", 1, "not declared"),
        ("    x = 10UL", 9, "no suffix"),
        ("    if (a) {", 12, "indented"),
        ("    VMA(mm, a) = VMA(mm, b)", 14, "copy the fields"),
    ],
)
def test_c_is_told_with_its_column(line: str, column: int, hint: str) -> None:
    """What a writer of C does by habit and Python's parser refuses: the column, and how it is written here."""
    with pytest.raises(SyntaxError):
        compile(f"def f():\n{line}\n", "f.py", "exec")
    found = c_habits(line)
    assert found[0][0] == column
    assert hint in found[0][1]


def test_all_that_is_c_is_told_at_once() -> None:
    """Python's parser stops at the first line that it refuses; the author is told of the others, too. A comment, a
    text and what is Python are none."""
    text = "def f(a):\n    # a && b\n    if a->x && a->y {\n        a.x++\n    return 'p->q' if a -b else !a\n"
    assert [(line, column) for line, column, _ in c_places(text)] == [(3, 9), (3, 13), (3, 21), (4, 12), (5, 32)]
    assert c_places("def f(a):\n    return a b\n    a++\n") == []  # of the first nothing is known


def test_every_function_is_told_at_once(tmp_path: Path) -> None:
    """What has to be compiled is read first: all findings of all functions of a strategy, a line each."""
    module, _ = author(tmp_path, "t = TASK(mm, task)\nt.strategy0 = VMA(mm, 1)\nreturn 0.5")
    strategy = Strategy("mine", "", "rbtree", Cache(find=module.find, store=module.halved))
    with pytest.raises(DialectError) as told:
        check_texts([resolve(strategy, load().strategies)])
    assert "the float 0.5" in str(told.value)
    assert "stores a vm_area_struct record in the field strategy0" in str(told.value)
    assert "true division" in str(told.value)


def test_memory_that_nobody_lists_is_named(tmp_path: Path) -> None:
    """A private slab that a function uses and no part lists: its name, the function, and what to write."""
    text = 'NOTE = PrivateSlab("note", [Field("vma", "i8")], 0)\n\n\n'
    text += FUNCTION + "    return helper(mm, addr)\n\n\n@native\ndef helper(mm, i):\n    return NOTE(mm, i).vma\n"
    file = tmp_path / "author.py"
    file.write_text("from benchframe.api import Field, PrivateSlab, native\n" + text)
    scope: dict[str, Any] = {"__name__": "author"}
    exec(compile(file.read_text(), str(file), "exec"), scope)
    strategy = Strategy("mine", "", "rbtree", Cache(find=scope["find"]))
    with pytest.raises(StrategyError, match=r"author\.py.*helper.*the slab NOTE.*Cache\(\.\.\., slabs=\[NOTE\]\)"):
        resolve(strategy, load().strategies)
    listed = Strategy("mine", "", "rbtree", Cache(find=scope["find"], slabs=[scope["NOTE"]]))
    assert resolve(listed, load().strategies).slabs


def test_a_closure(tmp_path: Path) -> None:
    """A value of an enclosing function is named, with the mend."""
    module, first = author(tmp_path, "return addr >> shift", closure=True)
    with pytest.raises(DialectError, match="uses the enclosing function's shift; pass it as an argument"):
        compile_unit(module.find, 3, mm_struct, {}, {})
    assert first > 0


def test_a_mistake_in_a_callee(tmp_path: Path) -> None:
    """A mistake below the hook is told at its own line, not at the call."""
    module, _ = author(tmp_path, "return bad_helper(mm, addr)")
    with pytest.raises(DialectError) as told:
        compile_unit(module.find, 3, mm_struct, {}, {})
    source = (tmp_path / "author.py").read_text().splitlines()
    line = next(i for i, text in enumerate(source, 1) if "+ vma" in text)
    assert f"author.py:{line}: a vm_area_struct record + a number is not possible" in str(told.value)


def test_right_code_has_no_findings(tmp_path: Path) -> None:
    """Names, fields and returns of correct code are left alone, also where a name is first one record, then another."""
    body = (
        '"""Words in a docstring, None of them code."""\nv = VMA(mm, addr)\nv.strategy0 = 1\n'
        "first, second = v.strategy0, v.strategy1\nwhile 1:\n    if first:\n"
        "        return READ_ONCE(mm, 'mmap_cache')\n"
        "    elif second:\n        return max(first, 2)\n    first = second"
    )
    module, _ = author(tmp_path, body)
    assert lint(module.find) == []
    module, _ = author(tmp_path, "r = VMA(mm, 1)\nr = TASK(mm, 1)\nreturn r.nr_hits")
    assert lint(module.find) == []


def test_what_the_table_does_not_know() -> None:
    """An unknown report keeps its first sentence, without colours and types, and the place that it names."""
    report = '\x1b[1mFailed in nopython mode\x1b[0m\nA new thing of Literal[int](3)\nFile "/a/mine.py", line 7:\n  x\n'
    told = translated(report, "/a/mine.py:1 (f)", {})
    assert told.startswith("/a/mine.py:7: A new thing of the number 3; ")
    assert translated("", "here:1 (f)", {}).startswith("here:1 (f): it cannot be typed")
    assert readable("Record(x[type=int64;offset=0];8;False)", {}) == "a record"
