"""What LLVM gets where strategy code names a slab, a primitive, or a call that leaves the unit.

Each is a Numba *intrinsic*: a rule for its types, and a function that writes its instructions where it is called.
:mod:`benchframe.dialect.backend` puts them in the place of the names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils
from numba.extending import intrinsic
from numba.np import numpy_support

from benchframe.dialect.function import CCall, FarCall, Hook
from benchframe.dialect.names import near
from benchframe.dialect.struct import DialectError, Slab, Struct
from benchframe.dialect.waiting import X86, llvm_call, wait_then_add, wait_until, wait_while, yield_cpu

cgutils: Any = numba_cgutils
_record_types: dict[str, Any] = {}
_slab_intrinsics: dict[str, Any] = {}


def record_type(struct: Struct) -> Any:
    """The Numba record type of a struct; one object per layout."""
    if struct.layout not in _record_types:
        _record_types[struct.layout] = numpy_support.from_dtype(struct.dtype)
    return _record_types[struct.layout]


def record_names() -> dict[str, str]:
    """What Numba calls each record type, to its struct's name."""
    return {str(kind): name for layout, kind in _record_types.items() for name in (layout.partition(":")[0],)}


def slab_intrinsic(slab: Slab) -> Any:
    """``slab(mm, i)`` as pointer arithmetic: ``mm->base + i * size``."""
    if slab.layout in _slab_intrinsics:
        return _slab_intrinsics[slab.layout]
    record, size, base = record_type(slab.struct), slab.struct.size, slab.base

    @intrinsic  # type: ignore[untyped-decorator, unused-ignore]
    def reference(typingctx: Any, mm: Any, index: Any) -> Any:
        if not isinstance(mm, types.Record) or base not in mm.fields:
            raise DialectError(f"{slab.name}(mm, i): the first argument is not an mm_struct")
        offset = mm.offset(base)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            header, i = args
            address = builder.ptrtoint(header, ir.IntType(64))
            field = builder.inttoptr(
                builder.add(address, ir.Constant(ir.IntType(64), offset)), ir.IntType(64).as_pointer()
            )
            start = builder.load(field)
            i = context.cast(builder, i, signature.args[1], types.int64)
            at = builder.add(start, builder.mul(i, ir.Constant(ir.IntType(64), size)))
            return builder.inttoptr(at, context.get_value_type(record))

        return record(mm, index), codegen

    _slab_intrinsics[slab.layout] = reference
    return reference


def _field_pointer(builder: Any, ref: Any, record: Any, field: str) -> tuple[Any, Any]:
    kind = record.fields[field].type
    width = ir.IntType(kind.bitwidth)
    address = builder.add(builder.ptrtoint(ref, ir.IntType(64)), ir.Constant(ir.IntType(64), record.offset(field)))
    return builder.inttoptr(address, width.as_pointer()), kind


class NoField(DialectError):
    """A primitive is told a field that its record does not have."""

    def __init__(self, name: str, field: str, fields: Iterable[str]) -> None:
        self.field = field
        hint = near(field, fields)
        mend = hint.strip(" ()") if hint else f"it has {', '.join(fields)}"
        super().__init__(f"{name}: the struct has no field {field!r}; {mend}")


def _atomic(name: str, operands: int, emit: Any, returns: bool) -> Any:
    """An intrinsic ``name(ref, "field", *operands)`` whose body ``emit(builder, pointer, width, values)`` writes."""

    def typed(record: Any, field: Any, operand_types: tuple[Any, ...]) -> Any:
        if not isinstance(record, types.Record) or not isinstance(field, types.StringLiteral):
            raise DialectError(f'{name}(ref, "field", ...): needs a reference and the field\'s name as a literal')
        if field.literal_value not in record.fields:
            raise NoField(name, field.literal_value, record.fields)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer, kind = _field_pointer(builder, args[0], record, field.literal_value)
            values = [context.cast(builder, v, t, kind) for v, t in zip(args[2:], signature.args[2:], strict=True)]
            result = emit(builder, pointer, kind.bitwidth // 8, values)
            return context.cast(builder, result, kind, types.int64) if returns else context.get_dummy_value()

        return (types.int64 if returns else types.none)(record, field, *operand_types), codegen

    if operands == 0:

        def nullary(typingctx: Any, ref: Any, field: Any) -> Any:
            return typed(ref, field, ())

        return intrinsic(prefer_literal=True)(nullary)
    if operands == 1:

        def unary(typingctx: Any, ref: Any, field: Any, value: Any) -> Any:
            return typed(ref, field, (value,))

        return intrinsic(prefer_literal=True)(unary)

    def binary(typingctx: Any, ref: Any, field: Any, old: Any, new: Any) -> Any:
        return typed(ref, field, (old, new))

    return intrinsic(prefer_literal=True)(binary)


def _compare_exchange(builder: Any, pointer: Any, _width: int, values: Any) -> Any:
    return builder.extract_value(builder.cmpxchg(pointer, values[0], values[1], "seq_cst", "seq_cst"), 0)


def _fence(ordering: str) -> Any:
    """An intrinsic without arguments: a fence of ``ordering``. Acquire and release cost no instruction on x86."""

    def fence(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.fence(ordering)
            return context.get_dummy_value()

        return types.none(), codegen

    return intrinsic(fence)


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _pause(typingctx: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # The spin hint where there is one; the fence keeps the compiler from hoisting the loop's loads.
        if X86:
            llvm_call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        else:
            builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _resched(typingctx: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        yield_cpu(builder)
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _read_cycles(typingctx: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # lfence on both sides: the counter is read after what precedes and before what follows.
        if X86:
            llvm_call(builder, "llvm.x86.sse2.lfence", ir.VoidType())
        value = llvm_call(builder, "llvm.readcyclecounter", ir.IntType(64))
        if X86:
            llvm_call(builder, "llvm.x86.sse2.lfence", ir.VoidType())
        return value

    return types.int64(), codegen


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _find_last_set(typingctx: Any, x: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = context.cast(builder, args[0], signature.args[0], types.int64)
        leading = builder.ctlz(word, ir.Constant(ir.IntType(1), 0))  # 64 for 0
        return builder.sub(ir.Constant(ir.IntType(64), 64), leading)

    return types.int64(x), codegen


PRIMITIVES: dict[str, Any] = {
    "READ_ONCE": _atomic("READ_ONCE", 0, lambda b, p, w, v: b.load_atomic(p, "monotonic", w), True),
    "WRITE_ONCE": _atomic("WRITE_ONCE", 1, lambda b, p, w, v: b.store_atomic(v[0], p, "monotonic", w), False),
    "load_acquire": _atomic("load_acquire", 0, lambda b, p, w, v: b.load_atomic(p, "acquire", w), True),
    "store_release": _atomic("store_release", 1, lambda b, p, w, v: b.store_atomic(v[0], p, "release", w), False),
    "fetch_add": _atomic("fetch_add", 1, lambda b, p, w, v: b.atomic_rmw("add", p, v[0], "seq_cst"), True),
    "xchg": _atomic("xchg", 1, lambda b, p, w, v: b.atomic_rmw("xchg", p, v[0], "seq_cst"), True),
    "cmpxchg": _atomic("cmpxchg", 2, _compare_exchange, True),
    "wait_until": _atomic("wait_until", 2, wait_until, True),
    "wait_interruptible": _atomic("wait_interruptible", 2, wait_until, True),
    "wait_while": _atomic("wait_while", 2, wait_while, True),
    "wait_while_interruptible": _atomic("wait_while_interruptible", 2, wait_while, True),
    "wait_then_add": _atomic("wait_then_add", 2, wait_then_add, True),
    "smp_mb": _fence("seq_cst"),
    "smp_rmb": _fence("acquire"),
    "smp_wmb": _fence("release"),
    "cpu_relax": _pause,
    "cond_resched": _resched,
    "cycles": _read_cycles,
    "fls": _find_last_set,
}
"""A primitive's name to its intrinsic."""


def _call_through(builder: Any, record: Any, header: Any, field: str, values: list[Any]) -> Any:
    """Call ``int64 f(mm, values...)`` at the address in ``header->field``."""
    i64 = ir.IntType(64)
    address = builder.load(_field_pointer(builder, header, record, field)[0])
    kind = ir.FunctionType(i64, [i64] * (len(values) + 1))
    return builder.call(builder.inttoptr(address, kind.as_pointer()), [builder.ptrtoint(header, i64), *values])


def _integer_call(arity: int, lower: Any) -> Any:
    """An intrinsic of ``arity`` arguments, the first an mm reference, with an int64 result that ``lower`` makes."""
    names = ", ".join(f"a{i}" for i in range(arity))
    scope: dict[str, Any] = {"int64": types.int64, "lower": lower}
    exec(f"def call(typingctx, {names}):\n    return int64({names}), lower\n", scope)  # only the arity varies
    return intrinsic(scope["call"])


def far_call(call: FarCall) -> Any:
    """A far call as an intrinsic."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = [context.cast(builder, v, t, types.int64) for v, t in zip(args[1:], signature.args[1:], strict=True)]
        return _call_through(builder, signature.args[0], args[0], call.field, values)

    return _integer_call(call.arity, lower)


C_CALLS: dict[str, CCall] = {}
"""Symbol to C call: what units compiled in this process may need linked in."""


def c_call(call: CCall) -> Any:
    """A C call as an intrinsic: an external ``int64_t symbol(struct mm_struct *, int64_t...)``, linked in later."""
    symbol = call.source.symbol(call.name)
    C_CALLS[symbol] = call

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i64 = ir.IntType(64)
        values = [context.cast(builder, v, t, types.int64) for v, t in zip(args[1:], signature.args[1:], strict=True)]
        kind = ir.FunctionType(i64, [i64] * call.arity)
        function = cgutils.get_or_insert_function(builder.module, kind, symbol)
        return builder.call(function, [builder.ptrtoint(args[0], i64), *values])

    return _integer_call(call.arity, lower)


def indirect_call(hook: Hook, index: int) -> Any:
    """An unbound hook: a call of the strategy's hook entry, whose address stands in ``mm.hook_entry``.

    The entry is ``int64 entry(mm, index, a, b, c, d)``; the bit of an unfilled hook in ``mm.hook_mask`` is clear
    and the call is skipped (result 0). About 2 ns: the arguments are one pointer and integers.
    """

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i64 = ir.IntType(64)
        record = signature.args[0]
        values = [context.cast(builder, v, t, types.int64) for v, t in zip(args[1:], signature.args[1:], strict=True)]
        values = [ir.Constant(i64, index), *values, *[ir.Constant(i64, 0)] * (5 - hook.arity)]
        mask = builder.load(_field_pointer(builder, args[0], record, "hook_mask")[0])
        result = cgutils.alloca_once_value(builder, ir.Constant(i64, 0))
        builder.store(ir.Constant(i64, 0), result)
        bit = builder.and_(mask, ir.Constant(i64, 1 << index))
        with builder.if_then(builder.icmp_unsigned("!=", bit, ir.Constant(i64, 0))):
            builder.store(_call_through(builder, record, args[0], "hook_entry", values), result)
        return builder.load(result)

    return _integer_call(hook.arity, lower)
