"""The rules of the dialect, checked on the source before anything is compiled; compile errors in the author's terms."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from benchframe.dialect.functions import BUILTINS, FarCall, Hook, is_native
from benchframe.dialect.primitives import Primitive, trace
from benchframe.dialect.records import DialectError, Slab
from benchframe.errors import near as nearest

# ----------------------------------------------------------------------------------------------------------------------
# Names, calls, fields and returns in a function's own text: mistakes that typing would report later.

Told = tuple[int, str, str]
"""A finding: line within the function, what is wrong, hint."""
RecordOf = Callable[["ast.AST | None"], "Slab | None"]


def near(name: str, known: Iterable[str]) -> str:
    """``(did you mean x?)`` with a space before it, or nothing."""
    found = nearest(name, known)
    return f" (did you mean {found}?)" if found else ""


def unknown_names(definition: ast.FunctionDef, function: FunctionType) -> Iterator[Told]:
    """Names that neither the function, nor its module, nor Python defines."""
    own = {*function.__code__.co_varnames, *function.__code__.co_cellvars, *function.__code__.co_freevars}
    for node in ast.walk(definition):  # names in lambdas and comprehensions, which another rule refuses
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.arg):
            own.add(node.arg)
    scope = function.__globals__
    for node in ast.walk(definition):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            name = node.id
            if name in own or name in scope or hasattr(builtins, name):
                continue
            if _offered(name, scope) is not None:
                yield node.lineno, f"{name} is not defined", f"write above: from benchframe.kernel import {name}"
                continue
            hint = near(name, [*own, *(n for n in scope if not n.startswith("__")), *BUILTINS])
            yield node.lineno, f"{name} is not defined{hint}", "define it in this file or import it"


def _offered(name: str, scope: Mapping[str, Any]) -> Any:
    """What the header file, if it is loaded, has under a name that a module does not have; None if nothing."""
    kernel = sys.modules.get("benchframe.kernel")
    return None if kernel is None or name in scope or name not in kernel.__all__ else getattr(kernel, name)


def arguments_of(obj: Any) -> tuple[str, ...] | None:
    """The parameters of something that strategy code may call; None if they are not known."""
    if isinstance(obj, Slab):
        return ("mm", "i")
    if isinstance(obj, Hook):
        return tuple(obj.parameters)
    code = None
    if isinstance(obj, Primitive):
        code = obj.run.__code__
    elif isinstance(obj, FarCall):
        code = obj.function.__code__
    elif is_native(obj):
        code = obj.__code__
    return None if code is None else tuple(code.co_varnames[: code.co_argcount])


def wrong_arguments(node: ast.Call, name: str, obj: Any) -> Iterator[Told]:
    """A call with too many or too few arguments."""
    wanted = arguments_of(obj)
    if wanted is not None and not node.keywords and len(node.args) != len(wanted):
        what = f"{name} takes {len(wanted)} arguments, ({', '.join(wanted)}), but is called with {len(node.args)}"
        yield node.lineno, what, f"write {name}({', '.join(wanted)})"


def _record_names(definition: ast.FunctionDef, function: FunctionType) -> RecordOf:
    """The slab whose record an expression is, as far as the text shows: for a call ``VMA(mm, i)``, or a name that only
    ever stands for such a record. Otherwise None."""
    slabs = {
        name: obj for name in function.__code__.co_names if isinstance(obj := function.__globals__.get(name), Slab)
    }

    def made(value: ast.AST | None) -> Slab | None:
        named = isinstance(value, ast.Call) and isinstance(value.func, ast.Name)
        return slabs.get(value.func.id) if named else None  # type: ignore[union-attr]

    locals_: dict[str, Slab | None] = dict.fromkeys(function.__code__.co_varnames[: function.__code__.co_argcount])
    for node in ast.walk(definition):
        targets: list[tuple[ast.AST, ast.AST | None]] = []
        if isinstance(node, ast.Assign):
            targets = [(target, node.value) for target in node.targets]
        elif isinstance(node, (ast.AugAssign, ast.For)):
            targets = [(node.target, None)]
        for target, value in targets:
            for name in ast.walk(target):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    slab = made(value) if name is target else None
                    known = locals_.setdefault(name.id, slab)
                    if known is not slab:
                        locals_[name.id] = None
    return lambda value: locals_.get(value.id) if isinstance(value, ast.Name) else made(value)


def unknown_fields(definition: ast.FunctionDef, function: FunctionType) -> Iterator[Told]:
    """Fields that a record does not have, where the text shows which record it is: ``VMA(mm, i).x``, or ``v.x`` if
    ``v`` is only ever assigned ``VMA(mm, i)``."""
    record = _record_names(definition, function)
    for node in ast.walk(definition):
        if not isinstance(node, ast.Attribute):
            continue
        slab = record(node.value)
        if slab is not None and node.attr not in slab.struct.fields:
            what = f"{slab.struct.name} has no field {node.attr}{near(node.attr, slab.struct.fields)}"
            listed = len(slab.struct.fields) <= 8
            yield (
                node.lineno,
                what,
                f"it has {', '.join(slab.struct.fields)}" if listed else "docs/dialect.md lists them",
            )


def returned_records(definition: ast.FunctionDef, function: FunctionType) -> Iterator[Told]:
    """A returned record; its index must be returned instead."""
    record = _record_names(definition, function)
    for node in ast.walk(definition):
        if isinstance(node, ast.Return) and (slab := record(node.value)) is not None:
            yield node.lineno, f"returns a {slab.struct.name} record", "return its index"


def copied_records(definition: ast.FunctionDef, function: FunctionType) -> Iterator[Told]:
    """What C does with structs and pointers and the dialect does not: ``b = a`` of records, a record stored in a
    field, ``x.y.z`` through a field, which is an index, and ``x.z`` of a name for an index."""
    record, indexes = _record_names(definition, function), _index_names(definition, function)
    for node in ast.walk(definition):
        if isinstance(node, ast.Assign) and (slab := record(node.value)) is not None:
            struct = slab.struct.name
            for target in node.targets:
                if isinstance(target, ast.Attribute):
                    what = f"stores a {struct} record in the field {target.attr}"
                    yield node.lineno, what, "store its index; a field is a number"
                elif isinstance(target, ast.Name) and isinstance(node.value, ast.Name):
                    what = f"{target.id} = {node.value.id} copies nothing: both names stand for the same {struct}"
                    yield node.lineno, what, "copy the fields that you need, one by one, or use one name"
        elif isinstance(node, ast.Attribute) and (
            isinstance(node.value, ast.Attribute) or (isinstance(node.value, ast.Name) and node.value.id in indexes)
        ):
            inner = ast.unparse(node.value)
            what = f"{inner} is an index, a number: it has no field {node.attr}"
            yield (
                node.lineno,
                what,
                f"make a record of it: {_slab_with(node.attr, inner, function)}(mm, {inner}).{node.attr}",
            )


def _index_names(definition: ast.FunctionDef, function: FunctionType) -> frozenset[str]:
    """Names that stand for a number wherever they are: what is only ever assigned a field or a number, and parameters
    that the text also compares, computes with, stores in a field, or makes a record of."""
    assigned: dict[str, list[bool]] = {}
    used: set[str] = set()

    def number(value: ast.AST) -> bool:
        return isinstance(value, (ast.Attribute, ast.Constant))

    for node in ast.walk(definition):
        operands: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Attribute):
                    operands.append(node.value)
                for name in ast.walk(target):
                    if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                        assigned.setdefault(name.id, []).append(name is target and number(node.value))
        elif isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.BinOp):
            operands = [node.left, node.right]
        elif isinstance(node, ast.Call) and isinstance(_called(node, function), Slab):
            operands = node.args[1:]
        used.update(operand.id for operand in operands if isinstance(operand, ast.Name))
    parameters = [one.arg for one in definition.args.args if one.arg not in assigned]
    return frozenset(
        [name for name, numbers in assigned.items() if all(numbers)] + [one for one in parameters if one in used]
    )


def _slab_with(field: str, inner: str, function: FunctionType) -> str:
    """The slab that ``inner`` is probably an index of: one with this field, after which ``inner`` is called, as
    ``vm_mm`` is after MM."""
    scope = {name: obj for name, obj in function.__globals__.items() if isinstance(obj, Slab)}
    words = re.split(r"[\W_]+", inner.rpartition(".")[2])
    if "mm" in words:
        return "MM"
    having = [name for name, obj in scope.items() if field in obj.struct.fields]
    called = [name for name in having if name.lower() in words]
    used = [name for name in having if name in function.__code__.co_names]
    return next(iter(called or used or having), "SLAB")


def no_increments(definition: ast.FunctionDef) -> Iterator[Told]:
    """``++x`` and ``--x``, which are two signs here and change nothing."""
    for node in ast.walk(definition):
        if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.UnaryOp):
            signs = (type(node.op), type(node.operand.op))
            for kind, sign in ((ast.UAdd, "+"), (ast.USub, "-")):
                if signs == (kind, kind):
                    name = ast.unparse(node.operand.operand)
                    yield (
                        node.lineno,
                        f"{sign}{sign}{name} changes nothing",
                        f"write {name} {sign}= 1, a line of its own",
                    )


_WIDE, _WORD = 1 << 31, 1 << 63
"""A factor from here on makes a product of more than 64 bits of most words."""


def wide_products(definition: ast.FunctionDef, function: FunctionType) -> Iterator[Told]:
    """A product with a large constant, as hash functions have: compiled it keeps 64 bits, interpreted all of them."""

    def constant(node: ast.expr) -> int:
        if isinstance(node, ast.Name):
            value = function.__globals__.get(node.id)
            return value if isinstance(value, int) and node.id not in function.__code__.co_varnames else 0
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int) else 0

    def masked(node: ast.expr) -> int:
        """The mask of ``x & MASK``: what remains is no larger, and its bits are the same compiled and interpreted."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
            return max(constant(node.left), constant(node.right), 0)
        return 0

    kept = {
        id(side)
        for node in ast.walk(definition)
        if isinstance(node, ast.BinOp) and 0 < masked(node) < _WORD
        for side in (node.left, node.right)
    }
    for node in ast.walk(definition):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and id(node) not in kept:
            left, right = constant(node.left), constant(node.right)
            if 0 < abs(left or right) * max(masked(node.left), masked(node.right)) < _WORD:
                continue
            if max(abs(left), abs(right)) >= _WIDE and not (left and right):
                what = f"{ast.unparse(node)} may need more than 64 bits: compiled code drops the others"
                yield node.lineno, what, "hash with hash_64(x, bits) (benchframe.kernel), or keep the factors small"


def endless_loops(definition: ast.FunctionDef) -> Iterator[Told]:
    """``while True`` loops that leave neither the loop nor the function."""
    for node in ast.walk(definition):
        if not (isinstance(node, ast.While) and _always(node.test)):
            continue
        if not any(isinstance(inner, (ast.Break, ast.Return)) for inner in ast.walk(node)):
            yield node.lineno, "a loop that never ends", "give it a condition, a break or a return"


def _always(test: ast.expr) -> bool:
    return isinstance(test, ast.Constant) and bool(test.value)


def missing_return(definition: ast.FunctionDef) -> Iterator[Told]:
    """A path without a return value in a function that returns one elsewhere, or a function without any return."""
    returns = [node for node in ast.walk(definition) if isinstance(node, ast.Return)]
    for node in returns:
        if node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield node.lineno, "returns nothing", "return an integer: 0, or NULL"
        elif isinstance(node.value, ast.Tuple):
            yield node.lineno, "returns two values", "return one integer; keep the other in a record"
    if not _always_returns(definition.body):
        last = definition.body[-1]
        yield (
            last.end_lineno or last.lineno,
            "ends without a return on some path",
            "return an integer at its end: 0, or NULL",
        )


def _always_returns(body: list[ast.stmt]) -> bool:
    last = body[-1] if body else None
    if isinstance(last, ast.If):
        return _always_returns(last.body) and _always_returns(last.orelse)
    if isinstance(last, ast.While):
        return _always(last.test) and not any(isinstance(node, ast.Break) for node in ast.walk(last))
    return isinstance(last, ast.Return)


# ----------------------------------------------------------------------------------------------------------------------
# Numba's typing errors in the author's terms: the place in the author's file, what is wrong, a hint. Table-driven.
#
# Most mistakes never come here: :mod:`benchframe.dialect.lint` finds them in the text. What is left is about types,
# which only the compiler knows: a name that is a number on one path and a record on another, a sum of records, and so
# on.

Make = Callable[[re.Match[str]], tuple[str, str]]
_OPERATORS = {
    "add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%", "lshift": "<<", "rshift": ">>", "and_": "and",
    "or_": "or", "xor": "^", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "iadd": "+=",
    "isub": "-=", "getitem": "[]", "not_": "not", "neg": "-", "invert": "~",
}  # fmt: skip
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PLACE = re.compile(r'File "([^"\n]+)", line (\d+)|at (\S+\.py) \((\d+)\)')
_TYPES = (
    (re.compile(r"Literal\[int\]\((-?\d+)\)"), r"the number \1"),
    (re.compile(r"Literal\[str\]\((\w*)\)"), r"the text '\1'"),
    (re.compile(r"\b(?:unicode_type)\b"), "a text"),
    (re.compile(r"\b(?:u?int64|u?int32|bool|boolean|Literal\[bool\]\(\w+\))"), "a number"),
    (re.compile(r"\bfloat64\b"), "a number with a fraction"),
    (re.compile(r"\bOptionalType\((.*)\)|\bnone\b"), "nothing"),
)
_KEEP_INDEX = "keep the index (a number) in the name, and write the record where it is used: VMA(mm, i).field"


def _unified(match: re.Match[str]) -> tuple[str, str]:
    name = match["name"].partition(".")[0].lstrip("$")
    return f"{name} is {match['a']} on one path and {match['b']} on another", _KEEP_INDEX


def _operator(match: re.Match[str]) -> tuple[str, str]:
    sign = _OPERATORS.get(match["name"], match["name"])
    operands = _split(match["operands"])
    shown = f" {sign} ".join(operands) if len(operands) == 2 else f"{sign} of {', '.join(operands)}"
    return (
        f"{shown} is not possible",
        "a record has fields and nothing else: compute and compare with its index or a field",
    )


TABLE: tuple[tuple[re.Pattern[str], Make], ...] = (
    (re.compile(r"DialectError: (?P<what>[^\n]+)"), lambda m: (m["what"], "see docs/dialect.md")),
    (
        re.compile(r"Cannot unify (?P<a>.+?) and (?P<b>.+?) for '(?P<name>[^']+)'"),
        _unified,
    ),
    (
        re.compile(r"NameError: name '(?P<name>\w+)' is not defined"),
        lambda m: (f"{m['name']} is not defined", "define it in this file or import it"),
    ),
    (
        re.compile(r"Unknown attribute '(?P<field>\w+)' of type (?P<type>[^\n]+)"),
        lambda m: (f"{m['type']} has no field {m['field']}", f"make a record of the index: VMA(mm, i).{m['field']}"),
    ),
    (
        re.compile(r"No implementation of function Function\(<built-in function (?P<name>\w+)>\).*?"
                   r">>> \w+\((?P<operands>[^\n]*)\)", re.DOTALL),
        _operator,
    ),
    (
        re.compile(r"Cannot bind .* to signature '(?P<wanted>[^']*)'", re.DOTALL),
        lambda m: (f"the function takes {m['wanted']}, not the number of arguments given", "write each of them"),
    ),
    (
        re.compile(r"(?:Can't|Cannot) unify return type from the following types: (?P<types>[^\n]+)"),
        lambda m: (f"returns {' or '.join(_split(m['types']))}", "return one integer on every path"),
    ),
    (
        re.compile(r"missing (?P<n>\d+) required positional argument"),
        lambda m: ("a call has too few arguments", "docs/dialect.md lists what each call takes"),
    ),
)  # fmt: skip
"""Patterns of Numba's messages, and what they mean. The first match counts."""


def readable(text: str, records: Mapping[str, str]) -> str:
    """Numba's types in words. ``records`` maps a record type's text to the struct's name."""
    text = _ANSI.sub("", text)
    for shape, name in records.items():
        text = text.replace(shape, f"a {name} record")
    text = re.sub(r"Record\(.*?;\d+;(?:True|False)\)|Record\(\[.*?\], \d+, (?:True|False)\)", "a record", text)
    for pattern, words in _TYPES:
        text = pattern.sub(words, text)
    return text


def returned(kind: str, records: Mapping[str, str]) -> tuple[str, str]:
    """What is wrong with a function whose result has the type ``kind``, and a hint."""
    kind = readable(kind, records)
    mend = "return its index" if kind.endswith("record") else "return one integer on every path: 0, or NULL"
    return f"returns {kind}", mend


def translated(text: str, fallback: str, records: Mapping[str, str]) -> str:
    """One finding, ``FILE:LINE: what; hint``, from Numba's report; ``fallback`` is the place if the report names
    none."""
    plain = readable(text, records)
    for pattern, make in TABLE:
        match = pattern.search(plain)
        if match is not None:
            what, mend = make(match)
            return f"{place(plain, fallback)}: {what}; {mend}"
    skipped = ("Failed in", "File", "During", ">>>")
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    reason = next((line for line in lines if not line.startswith(skipped)), lines[0] if lines else "it cannot be typed")
    mend = "strategy code has 64-bit integers and records; see docs/dialect.md"
    return f"{place(plain, fallback)}: {reason[:300]}; {mend}"


def place(text: str, fallback: str) -> str:
    """The innermost line of an author's file in the report: the first one, since Numba reports from the inside out."""
    for match in _PLACE.finditer(text):
        file, line = match[1] or match[3], match[2] or match[4]
        if "/numba/" not in file and Path(file).name not in ("backend.py", "lowering.py", "waiting.py", "<string>"):
            return f"{_full(file, fallback)}:{line}"
    return fallback


def _full(file: str, fallback: str) -> str:
    """Numba may shorten a path; complete it with the folder of the entry function."""
    path = Path(file)
    if path.is_absolute() or path.exists():
        return str(path)
    other = Path(fallback.partition(":")[0]).parent / path.name
    return str(other) if other.exists() else file


def _split(text: str) -> list[str]:
    """Operands of a signature, split at the commas between them."""
    return [part.strip() for part in re.split(r",\s*(?![^()\[\]]*[)\]])", text) if part.strip()]


# ----------------------------------------------------------------------------------------------------------------------
# The rules of the dialect, checked on the syntax tree before a function is first compiled.
#
# Numba would refuse most of these too, later and in its own words; some (a spin that starves a scheduler, a
# closure that makes identity depend on values) it would accept and the engines would then disagree.

FORBIDDEN: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lambda: ("a lambda", "write a module-level @native function"),
    ast.ClassDef: ("a class", "keep state in a struct"),
    ast.Try: ("try/except", "return an error code"),
    ast.Raise: ("raise", "return an error code"),
    ast.With: ("with", "call lock and unlock"),
    ast.Yield: ("yield", "write a loop"),
    ast.YieldFrom: ("yield from", "write a loop"),
    ast.Await: ("await", "write a loop"),
    ast.ListComp: ("a list", "use a slab"),
    ast.SetComp: ("a set", "use a slab"),
    ast.DictComp: ("a dict", "use a slab"),
    ast.GeneratorExp: ("a generator", "write a loop"),
    ast.List: ("a list", "use a slab"),
    ast.Set: ("a set", "use a slab"),
    ast.Dict: ("a dict", "use a slab"),
    ast.JoinedStr: ("an f-string", "strategy code has integers only"),
    ast.Global: ("global", "keep state in a struct"),
    ast.Nonlocal: ("nonlocal", "keep state in a struct"),
    ast.Import: ("an import", "import at module level"),
    ast.ImportFrom: ("an import", "import at module level"),
    ast.Assert: ("assert", "put invariants in the strategy's check hook"),
    ast.Starred: ("* unpacking", "name each argument"),
    ast.Delete: ("del", "store NULL"),
    ast.Subscript: ("indexing", "call the slab: SLAB(mm, i)"),
    ast.NamedExpr: ("an assignment inside an expression (:=)", "write it as a statement of its own"),
}
_LOADS = frozenset({"READ_ONCE", "load_acquire", "rcu_dereference"}) | {
    name + ordering
    for name in ("cmpxchg", "xchg", "fetch_add")
    for ordering in ("", "_relaxed", "_acquire", "_release")
}
_WAITS = frozenset({"cpu_relax", "wait_until", "wait_interruptible", "wait_while", "wait_while_interruptible"})


@dataclass(frozen=True)
class Finding:
    """A broken rule: where, what, and a hint."""

    file: str
    line: int
    function: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} ({self.function}): {self.what}; {self.mend}"


def lint(function: Callable[..., Any]) -> list[Finding]:
    """All findings in one function's own text, in order of lines. Empty if its source is not available."""
    assert isinstance(function, FunctionType)
    if function.__code__.co_filename == "<string>":  # made by exec: 3.13 would return the text of `python -c` for it
        return []
    try:
        lines, first = inspect.getsourcelines(function)
    except OSError:
        return []
    tree = ast.parse(textwrap.dedent("".join(lines)))
    definition = tree.body[0]
    file = inspect.getsourcefile(function) or "?"
    if not isinstance(definition, ast.FunctionDef) or definition.name != function.__name__:
        what = "the file was edited after it was loaded" if file != "?" else "its source cannot be found"
        return [Finding(file, first, function.__name__, what, "start again")]
    found = [
        Finding(file, first + line - 1, function.__name__, what, mend)
        for line, what, mend in _walk(definition, function)
    ]
    return sorted(found, key=lambda f: f.line)


def check_function(function: FunctionType) -> None:
    """Raise DialectError with every finding, a line each."""
    check_functions([function])


def check_functions(functions: Iterable[FunctionType]) -> None:
    """Raise DialectError with every finding of every function, a line each. Some 3 ms a function."""
    findings = [finding for function in dict.fromkeys(functions) for finding in lint(function)]
    if findings:
        raise DialectError("\n".join(map(str, findings)))


def _walk(definition: ast.FunctionDef, function: FunctionType) -> Iterator[tuple[int, str, str]]:
    if function.__closure__:
        yield 1, f"uses the enclosing function's {', '.join(function.__code__.co_freevars)}", "pass it as an argument"
    arguments = definition.args
    if arguments.defaults or arguments.kwonlyargs or arguments.vararg or arguments.kwarg:
        yield definition.lineno, "default, keyword or star arguments", "take plain positional arguments"
    yield from unknown_names(definition, function)
    yield from unknown_fields(definition, function)
    yield from returned_records(definition, function)
    yield from copied_records(definition, function)
    yield from no_increments(definition)
    yield from wide_products(definition, function)
    yield from missing_return(definition)
    yield from endless_loops(definition)
    docstring = ast.get_docstring(definition, clean=False) is not None
    texts = _literals(definition, function)
    for statement in definition.body[docstring:]:
        for node in ast.walk(statement):
            line = getattr(node, "lineno", definition.lineno)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield line, "a function inside a function", "move it to module level and mark it @native"
            elif type(node) in FORBIDDEN:
                what, mend = FORBIDDEN[type(node)]
                yield line, what, mend
            elif isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.Div):
                yield line, "true division", "use // (integers only)"
            elif isinstance(node, ast.Constant) and isinstance(node.value, float):
                yield line, f"the float {node.value}", "use integers"
            elif isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)) and node not in texts:
                yield line, "a text", "strategy code has integers only; give the cases numbers"
            elif isinstance(node, ast.Constant) and node.value is None and node not in texts:
                yield line, "None", "use NULL"
            elif isinstance(node, ast.Call):
                yield from _call(node, function)
            elif isinstance(node, ast.While):
                yield from _spin(node)


def _call(node: ast.Call, function: FunctionType) -> Iterator[tuple[int, str, str]]:
    if isinstance(node.func, ast.Attribute):
        yield node.lineno, f"a method call .{node.func.attr}()", "call a @native function"
        return
    name = node.func.id if isinstance(node.func, ast.Name) else "?"
    if (obj := _called(node, function)) is not None:
        if not (is_native(obj) or isinstance(obj, (Slab, Primitive, Hook, FarCall))):
            yield node.lineno, f"calls {name}, which is not strategy code", _mend_of(name, obj)
        elif not isinstance(obj, Primitive) and (texts := _texts(node)):
            what = f"names a field by a text, {texts[0].value!r}, in the call of {name}"
            yield node.lineno, what, _LOCKS
        else:
            yield from wrong_arguments(node, name, obj)
    elif name not in BUILTINS and hasattr(builtins, name):
        yield node.lineno, f"calls {name}", f"define it with @native (builtins: {', '.join(sorted(BUILTINS))})"
    if node.keywords:
        yield node.lineno, f"keyword arguments in the call of {name}", "pass by position"


_LOCKS = 'make the functions of a lock once, outside: lock, trylock, unlock = spinlock("field") (docs/locks.md)'


def _mend_of(name: str, obj: Any) -> str:
    """What to do about a call of what is not strategy code: a maker of locks is called outside."""
    maker = isinstance(obj, FunctionType) and obj.__module__.startswith("benchframe.mm.")
    return f"call {name} once, outside of functions, and here what it gives" if maker else f"mark {name} with @native"


def _texts(node: ast.Call) -> list[ast.Constant]:
    """The arguments that are texts."""
    return [one for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]


def _literals(definition: ast.FunctionDef, function: FunctionType) -> set[ast.AST]:
    """Constants that may stand, or are told of elsewhere: field names in calls, a returned None."""
    returned: set[ast.AST] = {
        node.value
        for node in ast.walk(definition)
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Constant) and node.value.value is None
    }
    return returned | {
        argument
        for node in ast.walk(definition)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if (called := _called(node, function)) is not None and called is not trace
        for argument in (node.args if isinstance(called, Primitive) else _texts(node))
    }


def _called(node: ast.Call, function: FunctionType) -> Any:
    """What a call's name stands for, in the module or else in the header file; None if nothing."""
    if not isinstance(node.func, ast.Name):
        return None
    scope = function.__globals__
    return scope.get(node.func.id, _offered(node.func.id, scope))


def _spin(loop: ast.While) -> Iterator[tuple[int, str, str]]:
    """A loop that waits for another task must say so, or a scheduler cannot get past it."""

    def calls(nodes: list[ast.AST]) -> set[str]:
        return {
            n.func.id
            for top in nodes
            for n in ast.walk(top)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }

    if calls([loop.test]) & _LOADS and not calls([*loop.body]) & _WAITS:
        yield loop.lineno, "spins on shared memory", "call cpu_relax() in the loop, or use wait_until"


# ----------------------------------------------------------------------------------------------------------------------
# What Python's parser calls a syntax error and a writer of C wrote on purpose.

C_HABITS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), hint)
    for pattern, hint in (
        (r"&&", "&& is written `and`"),
        (r"\|\|", "|| is written `or`"),
        (r"->", "-> is written `.`, and a reference is an index: VMA(mm, i).vm_start"),
        (r"\+\+", "++ is written `x += 1`, a line of its own"),
        (r"--", "-- is written `x -= 1`, a line of its own"),
        (r"!(?!=)", "! is written `not`"),
        (r"\?", "a ? b : c is written `b if a else c`"),
        (r"\bgoto\b", "there is no goto: write a loop with break, or return from a function of its own"),
        (r"/\*|\*/", "a comment begins with #"),
        (r"\b(?:switch|case|default)\b.*[:{]", "there is no switch: write if and elif"),
        (r"\belse\s+if\b", "else if is written `elif`"),
        (r"[{}]", "a block is indented, and the line before it ends with a colon"),
        (r"\bfor\s*\(.*;", "a counting loop is written `for i in range(n):`"),
        (r"\b(?:0[xX][0-9a-fA-F]+|\d+)[uU]?[lL]{1,2}\b|\b(?:0[xX][0-9a-fA-F]+|\d+)[uU]\b", "numbers have no suffix"),
        (r"^\s*(?:(?:unsigned|struct|const|long|int|u64|u32|bool)\s+)+\**\w+", "names are not declared: write `x = 0`"),
        (r"[&*]\w+(?:\.|\s*=)", "there are no pointers: a reference is an index, VMA(mm, i).vm_start"),
        (r"\)\s*=(?!=)", "a record cannot be assigned to: copy the fields that you need, one by one"),
    )
)
"""What stands in a line, and how it is written here. What one has matched is not offered to the next."""


def c_habits(line: str) -> list[tuple[int, str]]:
    """The column (from 1) and the mend of each thing that a line of C, taken for Python, has wrong, in their order.

    >>> c_habits("    if a && b->c:")
    [(10, '&& is written `and`'), (14, '-> is written `.`, and a reference is an index: VMA(mm, i).vm_start')]
    >>> c_habits("    return addr")
    []
    """
    text = re.sub(r"""("[^"]*"|'[^']*')""", lambda match: " " * len(match[0]), line).partition("#")[0]
    found = []
    for pattern, hint in C_HABITS:
        match = pattern.search(text)
        if match is not None:
            found.append((match.start() + 1, hint))
            text = text[: match.start()] + " " * len(match[0]) + text[match.end() :]
    return sorted(found)


def c_places(source: str, most: int = 20) -> list[tuple[int, int, str]]:
    """(line, column, mend) of what is C in a file that Python's parser refuses: in each line at which it stops, as if
    those before were mended; ``most`` lines. Ends at the first line of which nothing is known."""
    lines, places = source.splitlines(), list[tuple[int, int, str]]()
    for _ in range(most):
        try:
            ast.parse("\n".join(lines))
            break
        except SyntaxError as error:
            at = (error.lineno or 0) - 1
        habits = c_habits(lines[at]) if 0 <= at < len(lines) else []
        if not habits:
            break
        places += [(at + 1, column, mend) for column, mend in habits]
        indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        lines[at] = indent + ("if 1:" if lines[at].rstrip().endswith((":", "{")) else "pass")
    return places
