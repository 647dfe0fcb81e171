"""Compiled and interpreted strategy code give the same: primitives, wraparound, hooks; and what is refused."""

from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import dialect_sample as sample

from benchframe.dialect import DialectError, Field, Struct, fls, hash_64, native
from benchframe.dialect.functions import Identities
from benchframe.dialect.interpreter import PlainWorld, dejit
from benchframe.dialect.primitives import GOLDEN_RATIO_64, Listening
from benchframe.dialect.store import Store
from benchframe.units import Units, UnitSpec

BIG = (1 << 63) - 1
words = st.integers(-(1 << 63), BIG) | st.integers(-3, 3) | st.sampled_from([BIG, -BIG - 1])


class Memory:
    """One mm and four records, for both engines."""

    def __init__(self, folder: Path) -> None:
        self.units = Units(sample.tiny, [sample.maybe, sample.needed], Store(folder))
        self.mm = np.zeros(2, sample.tiny.dtype)
        self.records = np.zeros(4, sample.rec.dtype)
        self.mm["rec_base"] = self.records.ctypes.data
        self.world = PlainWorld({"rec_base": self.records, "tiny_base": self.mm})

    def native(self, function: Any, *args: int, binding: Any = None) -> int:
        """Run compiled."""
        unit = self.units.get(UnitSpec(function.__name__, function, binding or {}))
        return int(unit(self.mm.ctypes.data + sample.tiny.size, *args))

    def interpreted(self, function: Any, *args: int, binding: Any = None) -> int:
        """Run by Python."""
        return int(dejit(function, binding or {})(self.world.ref(sample.TINY, 1), *args))

    def both(self, function: Any, start: int, *args: int, binding: Any = None) -> tuple[list[int], list[int]]:
        """(result, memory afterwards) of each, from ``a == start``."""
        answers = []
        for run in (self.native, self.interpreted):
            self.records["a"], self.records["b"], self.records["c"], self.mm["total"] = start, 0, 0, 0
            result = run(function, *args, binding=binding)
            answers.append([result, *self.records["a"].tolist(), *self.records["b"].tolist(), int(self.mm["total"][1])])
        return answers[0], answers[1]


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Memory:
    """Compiled once for the module."""
    return Memory(tmp_path_factory.mktemp("units"))


@pytest.mark.parametrize("function", [f for f in sample.PRIMITIVES if f.__name__ not in ("plain", "looped")])
@given(start=words, x=words, y=st.integers(-3, 3))
def test_primitives_agree(memory: Memory, function: Any, start: int, x: int, y: int) -> None:
    """Every atomic and ordered access leaves the same memory and gives the same value; additions wrap at 64 bits."""
    if function is sample.added and abs(start + y) > BIG - 3:
        y = 0
    if function in (sample.once, sample.ordered) and abs(x) > BIG - 4:
        y = 0
    if function is sample.exchanged and abs(start) > BIG - 4:
        y = 0
    native_, interpreted = memory.both(function, start, 2, x, y)
    assert native_ == interpreted


@pytest.mark.parametrize("function", [sample.relaxed, sample.published])
@pytest.mark.parametrize("x", [0, 1, -7, 1 << 30])
def test_orderings_agree(memory: Memory, function: Any, x: int) -> None:
    """An ordering changes when others see an access, never what it does: compiled and interpreted agree."""
    native_, interpreted = memory.both(function, x, 2, x, 5)
    assert native_ == interpreted


@pytest.mark.parametrize("at", range(64))
def test_fls_counts_bits_from_one(memory: Memory, at: int) -> None:
    """The number of the highest bit set, compiled and interpreted; 0 of 0; the sign bit is the 64th."""
    word = (1 << at) - ((1 << 64) if at == 63 else 0)
    for answer in memory.both(sample.highest, 0, 1, word, 0):
        assert answer[0] == at + 1
    assert (fls(0), fls(-1)) == (0, 64)


def test_fetch_add_wraps(memory: Memory) -> None:
    """2**63 - 1 plus one is -2**63, in both."""
    for answer in memory.both(sample.added, BIG, 1, 1, 0):
        assert answer[:3] == [BIG, BIG, -BIG - 1]


@pytest.mark.parametrize("x", [0, 1, -5, 1 << 20])
def test_halves_agree(memory: Memory, x: int) -> None:
    """Fields of four bytes, atomically."""
    native_, interpreted = memory.both(sample.halves, 0, 3, x, 9)
    assert native_ == interpreted


@pytest.mark.parametrize("function", [sample.plain, sample.looped])
@given(x=st.integers(0, 60), y=st.integers(-50, 50))
def test_plain_code_agrees(memory: Memory, function: Any, x: int, y: int) -> None:
    """Loads, stores, loops, floor division and remainders of negative numbers."""
    native_, interpreted = memory.both(function, y, 1, x, y)
    assert native_ == interpreted


def test_hooks(memory: Memory) -> None:
    """A default, a filled hook, a mandatory one filled and missing."""
    assert memory.both(sample.hooked, 0, 0, 5, 100)[0][0] == 106
    filled = {"maybe": sample.fill, "needed": sample.fill}
    for function in (sample.hooked, sample.hooked_twice):
        assert [a[0] for a in memory.both(function, 0, 0, 5, 100, binding=filled)] == [110, 110]
    for run in (memory.native, memory.interpreted):
        with pytest.raises(DialectError, match=r"does not implement the mandatory hook needed\(mm, x\)"):
            run(sample.hooked_twice, 0, 1, 2)
    with pytest.raises(DialectError, match="hook maybe was called without a strategy"):
        sample.maybe(None, 1)


def test_dejit_leaves_the_original_alone(memory: Memory) -> None:
    """Clones with two bindings live side by side; the original still refuses to run unbound."""
    one, two = dejit(sample.hooked), dejit(sample.hooked, {"maybe": sample.fill})
    ref = memory.world.ref(sample.TINY, 1)
    assert (one(ref, 0, 5, 0), two(ref, 0, 5, 0)) == (6, 10)
    with pytest.raises(DialectError, match="without a strategy"):
        sample.hooked(ref, 0, 5, 0)


def test_world_checks_its_arrays(memory: Memory) -> None:
    """An index outside the slab, and an array of another struct, are errors with names."""
    with pytest.raises(IndexError, match=r"REC\(mm, 4\): the slab has 4 records"):
        memory.world.ref(sample.REC, 4)
    with pytest.raises(IndexError, match=r"REC\(mm, -1\)"):
        memory.world.ref(sample.REC, -1)
    with pytest.raises(DialectError, match="of another struct"):
        PlainWorld({"rec_base": memory.mm}).ref(sample.REC, 0)


# ---- what is refused, with file, line and mend ----

HEADER = "from benchframe.dialect import *\nfrom support.dialect_sample import REC, TINY, tiny\nLIST = [1]\n\n\n"
RULES = {
    "f = lambda: 1": "a lambda; write a module-level @native function",
    "class C: pass": "a class; keep state in a struct",
    "try:\n        return 1\n    finally:\n        pass": "try/except; return an error code",
    "raise ValueError": "raise; return an error code",
    "with x:\n        return 1": "with; call lock and unlock",
    "y = [1]": "a list; use a slab",
    "y = {1}": "a set; use a slab",
    "y = {}": "a dict; use a slab",
    "y = sum(k for k in range(x))": "a generator; write a loop",
    "y = f'{x}'": "an f-string; strategy code has integers only",
    "global x_": "global; keep state in a struct",
    "import os": "an import; import at module level",
    "y = x / 2": "true division; use // (integers only)",
    "assert x": "assert; put invariants in the strategy's check hook",
    "del x": "del; store NULL",
    "y = x[0]": "indexing; call the slab: SLAB(mm, i)",
    "y = 1.5": "the float 1.5; use integers",
    "def g(): return 1": "a function inside a function; move it to module level and mark it @native",
    "x.bit_length()": "a method call .bit_length(); call a @native function",
    "print(x)": "calls print; define it with @native",
    "helper(x)": "calls helper, which is not strategy code; mark helper with @native",
    "native_one(x, y=1)": "keyword arguments in the call of native_one; pass by position",
    "REC(mm, 1).a = REC(mm, 2)": "stores a rec record in the field a; store its index",
    "y = REC(mm, 1).a.b": "REC(mm, 1).a is an index, a number: it has no field b; make a record of it: REC(mm, ",
    "++x": "++x changes nothing; write x += 1",
    "y = x * 0x61C8864680B583EB": "x * 7046029254386353131 may need more than 64 bits",
    "native_one(x, 'a')": "names a field by a text, 'a', in the call of native_one; make the functions of a lock once",
    "while READ_ONCE(REC(mm, 1), 'a') == 0:\n        x += 1": "spins on shared memory; call cpu_relax() in the loop",
}


def _module(folder: Path, text: str) -> dict[str, Any]:
    """Run a module's text as a file, so that messages have a place."""
    path = folder / "author.py"
    path.write_text(HEADER + text)
    import linecache

    linecache.checkcache(str(path))
    scope: dict[str, Any] = {"__name__": "author", "__file__": str(path)}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    return scope


@pytest.mark.parametrize("body", RULES)
def test_lint(tmp_path: Path, body: str) -> None:
    """Each rule, at the author's file and line, with its mend; nothing else is reported there."""
    from benchframe.dialect.lint import check_function, lint

    extra = "def helper(x):\n    return x\n\n\n@native\ndef native_one(x, y):\n    return x\n\n\n"
    scope = _module(tmp_path, f"{extra}@native\ndef author(mm, x):\n    {body}\n    return x\n")
    line = (HEADER + extra).count("\n") + 3
    findings = [str(finding) for finding in lint(scope["author"])]
    wanted = f"{tmp_path / 'author.py'}:{line} (author): {RULES[body]}"
    assert any(finding.startswith(wanted) for finding in findings), findings
    assert all(f":{line} " in finding or f":{line + 1} " in finding or "def g" in body for finding in findings)
    with pytest.raises(DialectError, match=r"author\.py"):
        check_function(scope["author"])


@pytest.mark.parametrize(
    "product",
    ["(x * 0x61C8864680B583EB) & 0xFFFF", "(x & 0xFFFF) * 0x9E3779B1", "x * 4096", "2654435761 * 65536"],
)
def test_products_that_fit_are_not_reported(tmp_path: Path, product: str) -> None:
    """A product that is masked, or whose factors are known to be small, is the same compiled and interpreted."""
    from benchframe.dialect.lint import lint

    scope = _module(tmp_path, f"@native\ndef author(mm, x):\n    return {product}\n")
    assert lint(scope["author"]) == []


def test_lint_of_signatures_and_closures(tmp_path: Path) -> None:
    """Defaults, star arguments and closures."""
    from benchframe.dialect.lint import lint

    scope = _module(tmp_path, "@native\ndef author(mm, x=1):\n    return x\n")
    assert "default, keyword or star arguments" in str(lint(scope["author"])[0])
    scope = _module(tmp_path, "def make(k):\n    @native\n    def inner(mm):\n        return k\n    return inner\n")
    assert "uses the enclosing function's k; pass it as an argument" in str(lint(scope["make"](1))[0])


def test_lint_of_a_copied_struct(tmp_path: Path) -> None:
    """``b = a`` of records gives the record a second name, and copies nothing."""
    from benchframe.dialect.lint import lint

    scope = _module(tmp_path, "@native\ndef author(mm, x):\n    y = REC(mm, x)\n    z = y\n    return z.a\n")
    (found,) = lint(scope["author"])
    assert "z = y copies nothing: both names stand for the same rec; copy the fields" in str(found)
    assert found.line == HEADER.count("\n") + 4


def test_trace_is_heard_where_code_is_interpreted() -> None:
    """What strategy code traces, with its function and line; nobody listens otherwise, and hash_64 keeps 64 bits."""
    heard: list[tuple[int, str]] = []
    with Listening(lambda x, function, file, line: heard.append((x, function))):
        sample.hashed(None, 0, 5, 2)
    sample.hashed(None, 0, 6, 0)
    assert heard == [(7, "hashed")]
    assert hash_64(1, 64 - 1) == GOLDEN_RATIO_64 >> 1
    assert 0 <= hash_64(-1, 10) < 1024


def test_good_code_has_no_findings() -> None:
    """The sample is clean, a spin with cpu_relax too."""
    from benchframe.dialect.lint import lint
    from benchframe.mm.pagetable import spin_lock

    assert [finding for f in (*sample.PRIMITIVES, spin_lock) for finding in lint(f)] == []


def test_the_model_has_no_findings() -> None:
    """Every function of the units that every strategy shares; a compile takes it for granted."""
    from benchframe.dialect.functions import Hook, is_native, referenced, resolve
    from benchframe.dialect.lint import lint
    from benchframe.units import MODEL_UNITS

    seen = {unit.entry for unit in MODEL_UNITS}
    waiting = list(seen)
    bindings = [unit.binding for unit in MODEL_UNITS]
    while waiting:
        for obj in referenced(waiting.pop()).values():
            found = [resolve(obj, binding) for binding in bindings] if isinstance(obj, Hook) else [obj]
            new = {one for one in found if is_native(one)} - seen
            seen |= new
            waiting += new
    assert len(seen) > 150
    assert [finding for function in seen for finding in lint(function)] == []


def test_typing_errors_name_the_authors_line(memory: Memory, tmp_path: Path) -> None:
    """What Numba's typing refuses is told with the author's file and line, in one short message."""
    scope = _module(tmp_path, "@native\ndef author(mm, x):\n    y = x + 1\n    return REC(mm, y) + y\n")
    with pytest.raises(DialectError) as told:
        memory.units.get(UnitSpec("author", scope["author"], {}))
    message = str(told.value)
    assert "author.py" in message
    assert f"author.py:{HEADER.count(chr(10)) + 4}: " in message
    assert "a record has fields and nothing else" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("return None", "returns nothing; return an integer: 0, or NULL$"),
        ("return fetch_add(REC(mm, 1), 'zzz', 1)", "the struct has no field 'zzz'; it has a, b, c"),
        ("return LIST", "'LIST' is a list; strategy code may use integers, slabs, primitives, hooks and @native"),
        ("return author(mm, x)", "recursion .author -> author.; write it as a loop"),
    ],
)
def test_other_refusals(memory: Memory, tmp_path: Path, text: str, message: str) -> None:
    """A result that is no integer, an unknown field, a global of another kind, recursion."""
    scope = _module(tmp_path, f"@native\ndef author(mm, x):\n    {text}\n")
    with pytest.raises(DialectError, match=message):
        memory.units.get(UnitSpec("author", scope["author"], {}))


def test_a_field_that_is_not_there_names_its_user(memory: Memory, tmp_path: Path) -> None:
    """A slip in a field's name, the commonest of all: the function that uses it, not the one that was compiled."""
    text = (
        "@native\ndef leaf(mm):\n    return REC(mm, 1).vm_strat\n\n\n@native\ndef author(mm, x):\n    return leaf(mm)\n"
    )
    scope = _module(tmp_path, text)
    place = HEADER.count("\n") + 3
    with pytest.raises(DialectError, match=rf"author\.py:{place} \(leaf\): rec has no field vm_strat"):
        memory.units.get(UnitSpec("author", scope["author"], {}))


def test_structs_refuse_what_engines_disagree_on() -> None:
    """Unsigned and floating fields, a name twice, a bad alignment, too small a size."""
    for fields, size, message in (
        ([("x", "u8", "")], None, "type 'u8' is not of the dialect"),
        ([("x", "f8", "")], None, "type 'f8' is not of the dialect"),
        ([("x", "i8", ""), ("x", "i8", "")], None, "two fields named x"),
        ([("x", "i4", ""), ("y", "i8", "")], None, "put i4 fields in pairs"),
        ([("x", "i8", ""), ("y", "i8", "")], 8, "needs 16 bytes, size says 8"),
        ([Field("x", "i8", align=12)], None, "align=12 is not a power of two >= 8"),
        ([Field("x", "i8", align=4)], None, "align=4 is not a power of two"),
        ([Field("x", "i8", align=64)], 72, "size 72 is not a multiple of 64"),
    ):
        with pytest.raises(DialectError, match=message):
            Struct("s", fields, size)


def test_align_begins_a_line() -> None:
    """``align`` leaves a gap before the field and pads the record; NumPy's records have the same places."""
    made = Struct("s", [Field("x", "i8"), Field("y", "i4", "half", lock="x", align=64), ("z", "i4", "other half")])
    assert (made.size, made.fields) == (128, {"x": (0, "i8"), "y": (64, "i4"), "z": (68, "i4")})
    assert made.dtype.itemsize == 128
    assert made.dtype.fields is not None
    assert made.dtype.fields["z"][1] == 68
    assert made.members["y"].comment == "half [x]"


# ---- identity ----


def _identity(folder: Path, text: str, binding: Any = None) -> str:
    scope = _module(folder, text)
    return Identities(binding(scope) if binding else {}).of(scope["entry"])


CODE = """K = 3
S = Slab("S", Struct("s", [("a", "i8", "comment"), ("b", "i8", "")]), "rec_base")
@hook("index")
def place(mm):
    return 0
@native
def leaf(mm):
    return K
@native
def middle(mm):
    return leaf(mm) + S(mm, 1).a
@native
def filler(mm):
    return 5
@native
def entry(mm):
    '''Documentation.'''
    return middle(mm) + place(mm)  # why
"""
SAME = {
    "the same text": ("", ""),
    "docstring": ("Documentation.", "Other words."),
    "comment": ("# why", "# because"),
    "comment of a field": ('"comment"', '"another"'),
    "an unused function": ("return 5", "return 6"),
    "lines moved": ("K = 3\n", "\n\nK = 3\n"),
}
OTHER = {
    "constant": ("K = 3", "K = 4"),
    "body": ("middle(mm) + place(mm)", "middle(mm) - place(mm)"),
    "callee": ("leaf(mm) + S", "leaf(mm) * S"),
    "callee's callee": ("return K", "return K + K"),
    "struct layout": ('("a", "i8", "comment"), ("b", "i8", "")', '("b", "i8", ""), ("a", "i8", "comment")'),
    "slab": ('"rec_base")', '"total")'),
    "default of a hook": ("def place(mm):\n    return 0", "def place(mm):\n    return 1"),
}


@pytest.mark.parametrize("what", SAME)
def test_identity_stays(tmp_path: Path, what: str) -> None:
    """What does not change behaviour does not recompile."""
    assert _identity(tmp_path, CODE) == _identity(tmp_path, CODE.replace(*SAME[what]))


@pytest.mark.parametrize("what", OTHER)
def test_identity_changes(tmp_path: Path, what: str) -> None:
    """What may change behaviour, however far away, does."""
    assert CODE.replace(*OTHER[what]) != CODE
    assert _identity(tmp_path, CODE) != _identity(tmp_path, CODE.replace(*OTHER[what]))


def test_identity_depends_on_the_binding(tmp_path: Path) -> None:
    """Another function in a hook is another program; a binding that repeats the default is not."""

    def bound(scope: dict[str, Any]) -> Any:
        return {"place": scope["filler"]}

    assert _identity(tmp_path, CODE, bound) != _identity(tmp_path, CODE)
    assert _identity(tmp_path, CODE, lambda scope: {"place": scope["place"].default}) == _identity(tmp_path, CODE)
    assert _identity(tmp_path, CODE, bound) != _identity(tmp_path, CODE.replace("return 5", "return 6"), bound)


def test_native_marks_only() -> None:
    """The decorator gives the function back: it runs as Python, and importing a plugin compiles nothing."""

    def twice(x: int) -> int:
        return x + x

    assert native(twice) is twice
    assert isinstance(native(twice), FunctionType)
    assert twice(21) == 42
