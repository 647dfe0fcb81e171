"""Compile native functions to machine code: lower atomics, their orderings and waiting loops, and build a unit.

Orderings become what the kernel's macros give on x86-64 and on arm64, as LLVM instructions. x86-64
(arch/x86/include/asm/barrier.h): loads and stores keep their order but for a store before a load, and every locked
instruction is a full barrier. So acquire, release, smp_rmb, smp_wmb, smp_mb__before_atomic and smp_mb__after_atomic
only bind the compiler, and smp_store_mb is an xchg.

arm64 (arch/arm64/include/asm/barrier.h, atomic_lse.h, atomic_ll_sc.h): ldar, stlr, dmb ishld, dmb ishst, dmb ish. With
LSE atomics (ARMv8.1) an ordering is a letter of the instruction: ldadd, ldadda, ldaddl, ldaddal. Without, a fully
ordered operation is a release and a dmb ish behind it. Where LLVM may use ldapr (ARMv8.3), a load_acquire can pass an
earlier store_release to another place, which the kernel's ldar cannot: the kernel's memory model allows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, NamedTuple

import numba
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import NumbaError
from numba.extending import intrinsic
from numba.np import numpy_support

from benchframe.dialect.functions import (
    Binding,
    CCall,
    FarCall,
    Hook,
    Identities,
    Replacements,
    is_native,
    referenced,
    resolve,
    where,
)
from benchframe.dialect.lint import check_function, near, returned, translated
from benchframe.dialect.numba_internals import (
    Pipeline,
    Reuse,
    emit,
    integers_as_int64,
    module_of,
    optimise,
    unoptimised,
)
from benchframe.dialect.primitives import GOLDEN_RATIO_64, Primitive
from benchframe.dialect.records import DialectError, Slab, Struct
from benchframe.dialect.store import CODEGEN, Functions, linked, toolchain_key

cgutils: Any = numba_cgutils
ISHLD, ISHST, ISH = 9, 10, 11
"""Operands of dmb: loads before loads and stores, stores before stores, everything."""
DMB = {"smp_mb": ISH, "smp_rmb": ISHLD, "smp_wmb": ISHST, "smp_mb__before_atomic": ISH, "smp_mb__after_atomic": ISH,
       "smp_acquire__after_ctrl_dep": ISHLD}  # fmt: skip
"""The dmb that each barrier is on arm64."""
LLVM_FENCE = {"smp_mb": "seq_cst", "smp_rmb": "acquire", "smp_wmb": "release", "smp_mb__before_atomic": "seq_cst",
              "smp_mb__after_atomic": "seq_cst", "smp_acquire__after_ctrl_dep": "acquire"}  # fmt: skip
"""For each barrier, the LLVM fence that is at least as strong on any machine."""
RMW = {"": "seq_cst", "_relaxed": "monotonic", "_acquire": "acquire", "_release": "release"}
"""LLVM's ordering for each suffix of a read-modify-write."""


class Target(NamedTuple):
    """The machine that code is made for: ``kind`` is x86, arm64 or other; ``lse``: whether it has the atomics of
    ARMv8.1."""

    kind: str
    lse: bool = False


def target_of(triple: str, lse: bool) -> Target:
    """The target of an LLVM triple.

    >>> target_of("x86_64-unknown-linux-gnu", False).kind
    'x86'
    """
    architecture = triple.partition("-")[0]
    if architecture in ("x86_64", "i686"):
        return Target("x86")
    return Target("arm64", lse) if architecture in ("aarch64", "arm64") else Target("other")


def host() -> Target:
    """The target that this process runs on."""
    return target_of(llvm.get_default_triple(), bool(llvm.get_host_cpu_features().get("lse", False)))


def barrier(builder: Any, name: str, target: Target) -> None:
    """The barrier ``name`` (a key of DMB)."""
    if target.kind == "arm64":
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [i32])
        dmb = cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.dmb")
        builder.call(dmb, [ir.Constant(i32, DMB[name])])
    elif target.kind == "x86" and name in ("smp_mb__before_atomic", "smp_mb__after_atomic"):
        builder.fence("seq_cst", "singlethread")  # the adjacent locked instruction is the barrier
    else:
        builder.fence(LLVM_FENCE[name])


def read_modify_write(builder: Any, operation: str, pointer: Any, value: Any, suffix: str, target: Target) -> Any:
    """``operation`` is add or xchg; returns the value before."""
    full = suffix == "" and target.kind == "arm64" and not target.lse
    before = builder.atomic_rmw(operation, pointer, value, "release" if full else RMW[suffix])
    if full:
        barrier(builder, "smp_mb", target)
    return before


def compare_exchange(builder: Any, pointer: Any, old: Any, new: Any, suffix: str, target: Target) -> Any:
    """Returns the value before. If a suffixed form fails, it orders nothing."""
    full = suffix == "" and target.kind == "arm64" and not target.lse
    success = "release" if full else RMW[suffix]
    failure = "seq_cst" if success == "seq_cst" else "monotonic"
    before = builder.extract_value(builder.cmpxchg(pointer, old, new, success, failure), 0)
    if full:
        barrier(builder, "smp_mb", target)
    return before


def store_mb(builder: Any, pointer: Any, width: int, value: Any, target: Target) -> None:
    """smp_store_mb: an xchg on x86, on other machines a store and a full barrier."""
    if target.kind == "x86":
        builder.atomic_rmw("xchg", pointer, value, "seq_cst")
    else:
        builder.store_atomic(value, pointer, "monotonic", width)
        barrier(builder, "smp_mb", target)


# ----------------------------------------------------------------------------------------------------------------------
# Waiting in native code: LLVM for wait_until, wait_while and wait_then_add.
#
# A waiter looks, pauses, and gives its core away every 64 looks, so that threads may outnumber cores. Nobody in the
# way: one load, or one atomic operation.

X86 = llvm.get_default_triple().startswith(("x86_64", "i686"))

YIELDS = llvm.get_default_triple().startswith("x86_64") and "linux" in llvm.get_default_triple()
try:
    llvm.initialize_native_asmparser()
except (AttributeError, RuntimeError):  # llvmlite before it had inline assembly in object files
    YIELDS = False


def llvm_call(builder: Any, name: str, returns: Any) -> Any:
    """Call the LLVM intrinsic ``name`` without arguments."""
    kind = ir.FunctionType(returns, [])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])


def _spin(builder: Any, pointer: Any, width: int, go_on: Any) -> Any:
    """A loop of relaxed loads until ``go_on(value)`` branches out of it: it pauses each time, with sched_yield every
    64th.

    ``go_on(builder, value, again)`` must end the current block, branching to ``again`` to retry.
    """
    i64 = ir.IntType(64)
    tries = cgutils.alloca_once_value(builder, ir.Constant(i64, 0))
    builder.store(ir.Constant(i64, 0), tries)
    look = builder.append_basic_block("look")
    again = builder.append_basic_block("again")
    builder.branch(look)
    builder.position_at_end(again)
    if X86:
        llvm_call(builder, "llvm.x86.sse2.pause", ir.VoidType())
    count = builder.add(builder.load(tries), ir.Constant(i64, 1))
    builder.store(count, tries)
    with builder.if_then(builder.icmp_unsigned("==", builder.and_(count, ir.Constant(i64, 63)), ir.Constant(i64, 0))):
        yield_cpu(builder)
    builder.branch(look)
    builder.position_at_end(look)
    go_on(builder.load_atomic(pointer, "acquire", width), again)


def yield_cpu(builder: Any) -> None:
    """The system call sched_yield, as an instruction: compiled code refers to no outside symbol. On platforms other
    than x86-64 Linux the loop just spins."""
    if YIELDS:
        i64 = ir.IntType(64)
        kind = ir.FunctionType(i64, [i64])
        builder.asm(kind, "syscall", "={rax},0,~{rcx},~{r11},~{memory}", [ir.Constant(i64, 24)], side_effect=True)


def wait_until(builder: Any, pointer: Any, width: int, values: Any) -> Any:
    """wait_until: spins until the masked value equals the wanted one; returns 0."""
    return _wait(builder, pointer, width, values, "==")


def wait_while(builder: Any, pointer: Any, width: int, values: Any) -> Any:
    """wait_while: spins until the masked value changes; returns 0."""
    return _wait(builder, pointer, width, values, "!=")


def _wait(builder: Any, pointer: Any, width: int, values: Any, relation: str) -> Any:
    out = builder.append_basic_block("waited")

    def go_on(seen: Any, again: Any) -> None:
        builder.cbranch(builder.icmp_signed(relation, builder.and_(seen, values[0]), values[1]), out, again)

    _spin(builder, pointer, width, go_on)
    builder.position_at_end(out)
    return ir.Constant(values[0].type, 0)


def wait_then_add(builder: Any, pointer: Any, width: int, values: Any) -> Any:
    """One atomic operation without contention: a compare-and-exchange from 0 if every bit is in the mask (the branch
    folds, since masks are constants), else an add that is undone if the lock was taken."""
    mask, delta = values
    kind = mask.type
    zero = ir.Constant(kind, 0)
    before = cgutils.alloca_once(builder, kind)
    whole, part, slow, out = (builder.append_basic_block(n) for n in ("whole", "part", "slow", "taken"))
    builder.cbranch(builder.icmp_signed("==", mask, ir.Constant(kind, -1)), whole, part)
    builder.position_at_end(whole)
    pair = builder.cmpxchg(pointer, zero, delta, "acquire", "monotonic")
    builder.store(zero, before)
    builder.cbranch(builder.extract_value(pair, 1), out, slow)
    builder.position_at_end(part)
    seen = builder.atomic_rmw("add", pointer, delta, "acquire")
    builder.store(seen, before)
    undo = builder.append_basic_block("undo")
    builder.cbranch(builder.icmp_signed("==", builder.and_(seen, mask), zero), out, undo)
    builder.position_at_end(undo)
    builder.atomic_rmw("sub", pointer, delta, "monotonic")
    builder.branch(slow)
    builder.position_at_end(slow)

    def go_on(seen: Any, again: Any) -> None:
        free = builder.append_basic_block("free")
        builder.cbranch(builder.icmp_signed("==", builder.and_(seen, mask), zero), free, again)
        builder.position_at_end(free)
        pair = builder.cmpxchg(pointer, seen, builder.add(seen, delta), "acquire", "monotonic")
        builder.store(seen, before)
        builder.cbranch(builder.extract_value(pair, 1), out, again)

    _spin(builder, pointer, width, go_on)
    builder.position_at_end(out)
    return builder.load(before)


# ----------------------------------------------------------------------------------------------------------------------
# The LLVM code for a slab, a primitive, or a call that leaves the unit.
#
# Each is a Numba *intrinsic*: a rule for its types, and a function that writes its instructions where it is called.
# :mod:`benchframe.dialect.llvm` puts them in the place of the names.

HOST = host()
_record_types: dict[str, Any] = {}
_slab_intrinsics: dict[str, Any] = {}


def record_type(struct: Struct) -> Any:
    """The Numba record type of a struct; one object per layout."""
    if struct.layout not in _record_types:
        _record_types[struct.layout] = numpy_support.from_dtype(struct.dtype)
    return _record_types[struct.layout]


def record_names() -> dict[str, str]:
    """From Numba's name of each record type to its struct's name."""
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
    """A primitive is given a field that its record does not have."""

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


def _fetch_add(suffix: str) -> Any:
    def emit(builder: Any, pointer: Any, _width: int, values: Any) -> Any:
        return read_modify_write(builder, "add", pointer, values[0], suffix, HOST)

    return _atomic(f"fetch_add{suffix}", 1, emit, True)


def _xchg(suffix: str) -> Any:
    def emit(builder: Any, pointer: Any, _width: int, values: Any) -> Any:
        return read_modify_write(builder, "xchg", pointer, values[0], suffix, HOST)

    return _atomic(f"xchg{suffix}", 1, emit, True)


def _cmpxchg(suffix: str) -> Any:
    def emit(builder: Any, pointer: Any, _width: int, values: Any) -> Any:
        return compare_exchange(builder, pointer, values[0], values[1], suffix, HOST)

    return _atomic(f"cmpxchg{suffix}", 2, emit, True)


def _barrier(name: str) -> Any:
    """An intrinsic without arguments: a barrier."""

    def fence(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            barrier(builder, name, HOST)
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


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _hash(typingctx: Any, x: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word, count = (context.cast(builder, args[n], signature.args[n], types.int64) for n in (0, 1))
        i64 = ir.IntType(64)
        product = builder.mul(word, ir.Constant(i64, GOLDEN_RATIO_64))
        return builder.lshr(product, builder.sub(ir.Constant(i64, 64), count))

    return types.int64(x, bits), codegen


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _nothing(typingctx: Any, x: Any) -> Any:
    return types.none(x), lambda context, builder, signature, args: context.get_dummy_value()


PRIMITIVES: dict[str, Any] = {
    "READ_ONCE": _atomic("READ_ONCE", 0, lambda b, p, w, v: b.load_atomic(p, "monotonic", w), True),
    "WRITE_ONCE": _atomic("WRITE_ONCE", 1, lambda b, p, w, v: b.store_atomic(v[0], p, "monotonic", w), False),
    "load_acquire": _atomic("load_acquire", 0, lambda b, p, w, v: b.load_atomic(p, "acquire", w), True),
    "store_release": _atomic("store_release", 1, lambda b, p, w, v: b.store_atomic(v[0], p, "release", w), False),
    "rcu_dereference": _atomic("rcu_dereference", 0, lambda b, p, w, v: b.load_atomic(p, "monotonic", w), True),
    "rcu_assign_pointer": _atomic(
        "rcu_assign_pointer", 1, lambda b, p, w, v: b.store_atomic(v[0], p, "release", w), False
    ),
    "smp_store_mb": _atomic("smp_store_mb", 1, lambda b, p, w, v: store_mb(b, p, w, v[0], HOST), False),
    **{f"fetch_add{suffix}": _fetch_add(suffix) for suffix in RMW},
    **{f"xchg{suffix}": _xchg(suffix) for suffix in RMW},
    **{f"cmpxchg{suffix}": _cmpxchg(suffix) for suffix in RMW},
    "wait_until": _atomic("wait_until", 2, wait_until, True),
    "wait_interruptible": _atomic("wait_interruptible", 2, wait_until, True),
    "wait_while": _atomic("wait_while", 2, wait_while, True),
    "wait_while_interruptible": _atomic("wait_while_interruptible", 2, wait_while, True),
    "wait_then_add": _atomic("wait_then_add", 2, wait_then_add, True),
    **{name: _barrier(name) for name in DMB},
    "cpu_relax": _pause,
    "cond_resched": _resched,
    "cycles": _read_cycles,
    "fls": _find_last_set,
    "hash_64": _hash,
    "trace": _nothing,
}
"""A primitive's name to its intrinsic."""


def _call_through(builder: Any, record: Any, header: Any, field: str, values: list[Any]) -> Any:
    """Call ``int64 f(mm, values...)`` at the address in ``header->field``."""
    i64 = ir.IntType(64)
    address = builder.load(_field_pointer(builder, header, record, field)[0])
    kind = ir.FunctionType(i64, [i64] * (len(values) + 1))
    return builder.call(builder.inttoptr(address, kind.as_pointer()), [builder.ptrtoint(header, i64), *values])


def _integer_call(arity: int, lower: Any) -> Any:
    """An intrinsic with ``arity`` arguments, the first an mm reference, whose int64 result ``lower`` makes."""
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
"""From symbol to C call: what units compiled in this process may need at link time."""


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
    """An unbound hook: a call of the strategy's hook entry, whose address is in ``mm.hook_entry``.

    The entry is ``int64 entry(mm, index, a, b, c, d)``. If the strategy does not fill the hook, its bit in
    ``mm.hook_mask`` is clear and the call is skipped (result 0). About 2 ns: the arguments are one pointer and
    integers.
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


# ----------------------------------------------------------------------------------------------------------------------
# From native functions to machine code: Numba types and lowers, one LLVM pass optimises, an object file comes out.
#
# This module is imported only when something has to be compiled (it imports numba: 0.5 s). The steps for one
# *unit*, an entry function with all it calls:
#
# 1. each function is cloned with its global names bound: hooks to the strategy's functions, slabs and primitives
#    to intrinsics (:mod:`benchframe.dialect.llvm`), native functions to their own compiled clones (memoised by
#    content hash, and lowered functions on disk under the same hash);
# 2. Numba lowers each clone to LLVM IR **without** linking or optimising it: Numba would do both for every callee again
#    in every caller, which made cold compiles about three times as long. Integers are passed as int64, so that a clone
#    is lowered once whatever its callers pass;
# 3. the clones are linked, the module gets a plain C entry point, is optimised once, and is emitted as an object file
#    that refers to nothing of Python or Numba. :mod:`benchframe.dialect.store` maps it with llvmlite alone.
#
# The clones carry their content hash in their names, so that equal symbols are equal code.

if X86:  # on other architectures LLVM does not know these options
    for _option in CODEGEN:
        llvm.set_option("benchframe", _option)
_OPTIONS = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@dataclass(frozen=True)
class Lowering:
    """How a build lowers each primitive: ``table`` has an intrinsic for every name. ``name`` tells it from other builds
    and changes with what the table does, since lowered functions are kept under it."""

    name: str
    table: dict[str, Any]


NATIVE = Lowering("native", PRIMITIVES)
_clones: dict[tuple[str, str], Any] = {}
"""Build and content hash to dispatcher: what was compiled in this process."""
_reuse: dict[str, Reuse] = {}


def _reusing(mm: Struct, hook_index: dict[str, int], build: Lowering) -> Reuse:
    """The lowered functions of this build."""
    told = repr(("symbols 2", mm.layout, sorted(hook_index.items()), build.name, toolchain_key()))
    context = hashlib.sha256(told.encode()).hexdigest()
    if context not in _reuse:
        _reuse[context] = Reuse(Functions(), context, _kinds)
    return _reuse[context]


def _kinds() -> dict[str, Any]:
    """The types that a function may take and return, by a name that says all of them."""
    records = {hashlib.sha256(layout.encode()).hexdigest(): kind for layout, kind in _record_types.items()}
    return {"int64": types.int64, "bool": types.boolean, "none": types.none, **records}


def _clone(
    function: FunctionType, identities: Identities, hook_index: dict[str, int], build: Lowering, reuse: Reuse
) -> Any:
    """The dispatcher of ``function`` with everything it names bound; compiled on first use."""
    key = identities.of(function)
    if (build.name, key) in _clones:
        return _clones[build.name, key]
    if not (function.__module__ or "").startswith("benchframe."):  # the model's own text: a test lints it
        check_function(function)
    scope: dict[str, Any] = {"__builtins__": __builtins__, "__name__": function.__module__}
    for name, obj in referenced(function).items():
        if isinstance(obj, Hook):
            bound = identities.callee(obj, function)
            if bound is None:
                scope[name] = indirect_call(obj, hook_index[obj.name])
            else:
                scope[name] = _clone(bound, identities, hook_index, build, reuse)
        elif is_native(obj):
            scope[name] = _clone(identities.callee(obj, function), identities, hook_index, build, reuse)
        elif isinstance(obj, CCall):
            scope[name] = c_call(obj)
        elif isinstance(obj, FarCall):
            scope[name] = far_call(obj)
        elif isinstance(obj, Slab):
            scope[name] = slab_intrinsic(obj)
        elif isinstance(obj, Primitive):
            scope[name] = build.table[obj.name]
        else:
            scope[name] = obj
    own = f"{function.__name__}_{key[:16]}" + ("" if build is NATIVE else f"_{build.name}")
    clone = FunctionType(function.__code__, scope, own, function.__defaults__)
    clone.__module__ = function.__module__
    clone.__qualname__ = clone.__name__
    compiled: Any = numba.njit
    dispatcher = compiled(pipeline_class=Pipeline, **_OPTIONS)(clone)
    _clones[build.name, key] = integers_as_int64(dispatcher, reuse, key)
    return _clones[build.name, key]


def lowered(
    entry: FunctionType,
    arity: int,
    mm: Struct,
    binding: Binding | None,
    hook_index: dict[str, int],
    replace: Replacements | None = None,
    build: Lowering = NATIVE,
) -> tuple[Any, str]:
    """The library of ``entry`` and everything it calls, lowered but not optimised, and its symbol there.

    Raises DialectError, as :func:`compile_unit`.
    """
    reuse = _reusing(mm, hook_index, build)
    with global_compiler_lock, unoptimised():
        identities = Identities(binding, replace)
        dispatcher = _clone(entry, identities, hook_index, build, reuse)
        signature = (record_type(mm), *[types.int64] * (arity - 1))
        try:
            reuse.ensure(dispatcher, identities.of(entry), signature)
        except (NumbaError, TypeError) as error:  # Numba passes on some TypeErrors of a call
            raise DialectError(translate(error, entry)) from error
        except NoField as error:
            raise DialectError(f"{_users(error.field, entry, binding)}: {error}") from error
        except KeyError as error:  # what Numba raises for a field that the record does not have
            field = str(error.args[0])
            what = f"the struct has no field {field!r}; docs/dialect.md lists the fields"
            raise DialectError(f"{_users(field, entry, binding)}: {what}") from error
        result = dispatcher.overloads[signature]
    unliteral: Any = types.unliteral
    if unliteral(result.signature.return_type) != types.int64:
        what, mend = returned(str(result.signature.return_type), record_names())
        raise DialectError(f"{where(entry)}: {what}; {mend}")
    return result.library, str(result.fndesc.llvm_func_name)


def compile_unit(
    entry: FunctionType,
    arity: int,
    mm: Struct,
    binding: Binding | None,
    hook_index: dict[str, int],
    replace: Replacements | None = None,
) -> bytes:
    """Compile ``entry(mm, a1, ..., a_arity-1)`` to an object file with the C symbol ``entry``.

    The C signature is ``int64_t entry(struct mm_struct *mm, int64_t...)``. Raises DialectError, with the author's file
    and line, if the dialect or Numba's typing refuses the code.
    """
    library, symbol = lowered(entry, arity, mm, binding, hook_index, replace)
    module = module_of(library)
    module.link_in(llvm.parse_assembly(entry_text(symbol, arity)))
    for defined in module.functions:
        if not defined.is_declaration:
            defined.linkage = "external" if defined.name == "entry" else "internal"
    optimise(library, module)
    undefined = [f.name for f in module.functions if f.is_declaration and not f.name.startswith(("llvm.", "mem"))]
    c_calls = [C_CALLS[name] for name in undefined if name in C_CALLS]
    undefined = [name for name in undefined if name not in C_CALLS]
    if undefined:
        raise needs(entry, undefined)
    obj = emit(library, module)
    return linked(obj, [source.build for source in {call.source for call in c_calls}]) if c_calls else obj


def needs(entry: FunctionType, undefined: list[str]) -> DialectError:
    """The error for compiled code that calls something no unit provides."""
    return DialectError(
        f"{where(entry)}: the compiled code needs {', '.join(undefined[:3])}: an operation that can raise or "
        "allocate; the dialect has integers and references only"
    )


def entry_text(symbol: str, arity: int) -> str:
    """LLVM text of the C entry around Numba's calling convention (return slot, error slot, arguments)."""
    kinds = ", ".join(["ptr", *["i64"] * (arity - 1)])
    params = ", ".join(["ptr %a0", *[f"i64 %a{i}" for i in range(1, arity)]])
    return f"""
declare i32 @"{symbol}"(ptr, ptr, {kinds})
define i64 @entry({params}) {{
  %result = alloca i64
  %error = alloca ptr
  %status = call i32 @"{symbol}"(ptr %result, ptr %error, {params})
  %value = load i64, ptr %result
  ret i64 %value
}}
"""


def _users(field: str, entry: FunctionType, binding: Binding | None) -> str:
    """Which functions reachable from ``entry`` use an attribute, or its literal name, that none of their structs
    has."""
    users: dict[FunctionType, bool] = {}

    def visit(function: FunctionType) -> None:
        if function in users:
            return
        users[function] = field in function.__code__.co_names or field in function.__code__.co_consts
        for obj in referenced(function).values():
            callee = resolve(obj, binding) if isinstance(obj, Hook) else obj
            if isinstance(callee, FunctionType) and is_native(callee):
                visit(callee)

    visit(entry)
    return ", ".join([where(function) for function, uses in users.items() if uses] or [where(entry)])


def translate(error: Exception, entry: FunctionType) -> str:
    """Numba's report reduced to what an author needs: the place, the reason, a hint."""
    return translated(str(error), where(entry), record_names())
