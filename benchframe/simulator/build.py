"""The simulated build: a threaded unit's text, compiled as usual, with a call of the simulator before every access.

LLVM's text is instrumented after optimisation, so that accesses that the compiler merged or removed are merged or
removed here too. Instructions are counted between accesses and passed on with the next one. Waiting, the clock and the
spin hint become calls of the simulator; everything else is the code that real threads run, for a fixed processor.
"""

from __future__ import annotations

import re
from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils
from numba.extending import intrinsic

from benchframe.dialect import llvm as backend
from benchframe.dialect.llvm import C_CALLS, PRIMITIVES, _atomic, _field_pointer, _integer_call
from benchframe.dialect.numba_internals import interruptible, module_of
from benchframe.dialect.records import DialectError
from benchframe.dialect.units import Units, UnitSpec
from benchframe.simulator.records import ATOMIC, LOAD, STORE
from benchframe.simulator.target import TARGET, architecture

cgutils: Any = numba_cgutils
PREFIX = "benchframe_"
I64 = ir.IntType(64)


def _call(builder: Any, name: str, values: list[Any]) -> Any:
    kind = ir.FunctionType(I64, [I64] * len(values))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, PREFIX + name), values)


def _constant(value: int) -> Any:
    return ir.Constant(I64, value)


def _wait(unlike: int, exclusive: int = 0) -> Any:
    def emit(builder: Any, pointer: Any, _width: int, values: Any) -> Any:
        told = [builder.ptrtoint(pointer, I64), *values, _constant(unlike), _constant(exclusive)]
        return _call(builder, "wait", told)

    return emit


def _wait_then_add(builder: Any, pointer: Any, _width: int, values: Any) -> Any:
    return _call(builder, "wait_then_add", [builder.ptrtoint(pointer, I64), *values])


def _nothing(typingctx: Any) -> Any:
    return types.none(), lambda context, builder, signature, args: context.get_dummy_value()


def _relax(typingctx: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _call(builder, "relax", [])
        return context.get_dummy_value()

    return types.none(), codegen


def _clock(typingctx: Any) -> Any:
    return types.int64(), lambda context, builder, signature, args: _call(builder, "clock", [])


def _told(name: str) -> Any:
    """An intrinsic of one integer that calls ``benchframe_NAME``."""

    def one(typingctx: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _call(builder, name, [context.cast(builder, args[0], signature.args[0], types.int64)])

        return types.int64(value), codegen

    return intrinsic(one)


SIMULATED: dict[str, Any] = {
    **PRIMITIVES,
    **{name: _atomic(name, 2, _wait(0), True) for name in ("wait_until", "wait_interruptible")},
    **{name: _atomic(name, 2, _wait(1), True) for name in ("wait_while", "wait_while_interruptible")},
    "wait_one": _atomic("wait_one", 2, _wait(0, 1), True),
    "wait_then_add": _atomic("wait_then_add", 2, _wait_then_add, True),
    "cycles": intrinsic(_clock),
    "cpu_relax": intrinsic(_relax),
    "cond_resched": intrinsic(_nothing),
    **{f"sim_{name}": _told(name) for name in ("work", "begin", "end", "uncounted", "shootdown")},
}
"""The lowering of each primitive in a simulated unit."""


def _switch(typingctx: Any, one: Any, other: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, pointer])
        function = cgutils.get_or_insert_function(builder.module, kind, f"{PREFIX}switch")
        builder.call(function, [builder.bitcast(arg, pointer) for arg in args])
        return _constant(0)

    return types.int64(one, other), codegen


def _run_thread(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    record = signature.args[0]
    entry, root, command = (
        builder.load(_field_pointer(builder, args[0], record, name)[0]) for name in ("entry", "root", "command")
    )
    kind = ir.FunctionType(I64, [I64] * 3)
    task = context.cast(builder, args[1], signature.args[1], types.int64)
    return builder.call(builder.inttoptr(entry, kind.as_pointer()), [root, task, command])


RUNTIME_PRIMITIVES: dict[str, Any] = {
    **PRIMITIVES,
    "switch_stack": intrinsic(_switch),
    "run_thread": _integer_call(2, _run_thread),
}
"""The lowering of each primitive in the simulator itself."""


# ---- instrumentation -------------------------------------------------------------------------------------------------
_NAME = r'%"[^"]+"|%[-\w.$]+'
_POINTER = rf"ptr ({_NAME}|@[-\w.$]+)"
_TYPE = r"(?:i\d+|<\d+ x i\d+>|ptr)"
_LOAD = re.compile(rf"^\s+(?:{_NAME}) = load (?:atomic )?(?:volatile )?{_TYPE}, {_POINTER}")
_STORE = re.compile(rf"^\s+store (?:atomic )?(?:volatile )?{_TYPE} .*?, {_POINTER}(?:,| )")
_RMW = re.compile(rf"^\s+(?:{_NAME}) = (?:atomicrmw (?:volatile )?\w+|cmpxchg (?:weak )?(?:volatile )?) ?{_POINTER}")
_MEMSET = re.compile(rf"call void @llvm\.memset\.\S*\(ptr (?:[\w()]+ )*?({_NAME}), i8 [^,]+, i64 ([^,]+),")
_MEMCPY = re.compile(
    rf"call void @llvm\.mem(?:cpy|move)\.\S*\(ptr (?:[\w()]+ )*?({_NAME}), ptr (?:[\w()]+ )*?({_NAME}), i64 ([^,]+),"
)
_ALLOCA = re.compile(rf"^\s+({_NAME}) = alloca ")
_ACCESS = re.compile(r"^\s+(?:\S+ = )?(?:load|store|atomicrmw|cmpxchg)\b|@llvm\.mem(?:cpy|move|set)")
_END = re.compile(r"^\s+(?:br|ret|switch|unreachable|indirectbr)\b")
_FREE = re.compile(
    r"= (?:phi|getelementptr|inttoptr|ptrtoint|bitcast|freeze|zext|sext|trunc|alloca|extractvalue|insertvalue)\b"
)
_LABEL = re.compile(r'^(?:"[^"]+"|[-\w.$]+):')
_HOOKS = {"access": 3, "range": 4, "barrier": 1}


class _Function:
    """One function's lines during instrumentation."""

    def __init__(self, out: list[str], numbers: list[int]) -> None:
        self.out, self.numbers = out, numbers
        self.count = 0
        self.stack: set[str] = set()

    def fresh(self) -> str:
        self.numbers[0] += 1
        return f"%benchframe.{self.numbers[0]}"

    def address(self, pointer: str) -> str:
        name = self.fresh()
        self.out.append(f"  {name} = ptrtoint ptr {pointer} to i64")
        return name

    def call(self, hook: str, *values: str | int) -> None:
        told = ", ".join(f"i64 {value}" for value in values)
        self.out.append(f"  {self.fresh()} = call i64 @{PREFIX}{hook}({told})")
        self.count = 0

    def line(self, line: str) -> None:
        """Copy a line, preceded by what it needs."""
        if found := _ALLOCA.match(line):
            self.stack.add(found.group(1))
        kind, found = next(
            ((kind, m) for kind, rule in ((LOAD, _LOAD), (STORE, _STORE), (ATOMIC, _RMW)) if (m := rule.match(line))),
            (LOAD, None),
        )
        if found and found.group(1) not in self.stack:
            self.call("access", self.address(found.group(1)), self.count + 1, kind)
        elif found:
            self.count += 1
        elif found := _MEMSET.search(line):
            self.call("range", self.address(found.group(1)), found.group(2), STORE, self.count + 1)
        elif found := _MEMCPY.search(line):
            self.call("range", self.address(found.group(2)), found.group(3), LOAD, self.count + 1)
            self.call("range", self.address(found.group(1)), found.group(3), STORE, 1)
        elif _ACCESS.search(line):
            raise DialectError(f"the simulated build does not know this access: {line.strip()}; please report it")
        elif line.lstrip().startswith("fence ") and "seq_cst" in line:
            self.call("barrier", self.count + 1)
        elif _END.match(line):
            if self.count:
                seen, more = self.fresh(), self.fresh()
                self.out += [
                    f"  {seen} = load i64, ptr @{PREFIX}pending",
                    f"  {more} = add i64 {seen}, {self.count + 1}",
                    f"  store i64 {more}, ptr @{PREFIX}pending",
                ]
            self.count = 0
        elif not _FREE.search(line) and not line.lstrip().startswith("fence "):
            self.count += 1
        self.out.append(line)


def instrument(text: str) -> str:
    """LLVM text with the calls inserted. Raises DialectError for an access of an unknown form."""
    out: list[str] = []
    numbers = [0]
    function: _Function | None = None
    for line in text.splitlines():
        if line.startswith("define "):
            function = _Function(out, numbers)
            out.append(line)
        elif line.startswith("}"):
            function = None
            out.append(line)
        elif function is None or not line.strip() or line.lstrip().startswith(";") or _LABEL.match(line):
            out.append(line)
        else:
            function.line(line)
    whole = "\n".join(out)
    for name, arity in _HOOKS.items():
        if f"@{PREFIX}{name}(" in whole:
            out.append(f"declare i64 @{PREFIX}{name}({', '.join(['i64'] * arity)})")
    out.append(f"@{PREFIX}pending = external global i64\n")
    return "\n".join(out)


# ---- machine code ----------------------------------------------------------------------------------------------------
def _target_machine() -> Any:
    name = architecture()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    # The large code model: called functions may be anywhere in the address space.
    return target.create_target_machine(
        cpu=TARGET[name], features="", opt=3, reloc="static", codemodel="large", jit=True
    )


def optimised(module: Any, keep: frozenset[str]) -> Any:
    """``module`` with everything except ``keep`` internal, optimised by the passes of an ordinary unit, for the fixed
    processor."""
    machine = _target_machine()
    for defined in module.functions:
        if not defined.is_declaration:
            defined.linkage = "external" if defined.name in keep else "internal"
    passes = llvm.create_pass_builder(
        machine, llvm.create_pipeline_tuning_options(speed_level=3)
    ).getModulePassManager()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    with interruptible():
        passes.run(module, builder)
    return module


def emit(module: Any, keep: frozenset[str]) -> bytes:
    """``module``, optimised, as an object file."""
    made = optimised(module, keep)
    with interruptible():
        return bytes(_target_machine().emit_object(made))


def compile_simulated(spec: UnitSpec, units: Units) -> bytes:
    """The object file of a simulated unit. Raises DialectError, also for C code, whose accesses the simulator cannot
    see."""
    index = {h.name: i for i, h in enumerate(units.hooks)}
    library, symbol = backend.lowered(spec.entry, spec.arity, units.mm, spec.binding, index, spec.replace, SIMULATED)
    module = module_of(library)
    module.link_in(llvm.parse_assembly(backend.entry_text(symbol, spec.arity)))
    module = optimised(module, frozenset({"entry"}))
    undefined = [
        f.name for f in module.functions if f.is_declaration and not f.name.startswith(("llvm.", "mem", PREFIX))
    ]
    if undefined:
        if undefined[0] in C_CALLS:
            raise DialectError(
                f"{spec.name}: it contains C code, whose accesses the simulator cannot see; it is not simulated"
            )
        raise backend.needs(spec.entry, undefined)
    made = llvm.parse_assembly(instrument(str(module)))
    made.verify()
    with interruptible():
        return bytes(_target_machine().emit_object(made))
