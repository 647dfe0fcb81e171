"""What waiting is natively: LLVM for wait_until, wait_while and wait_then_add.

A waiter looks, pauses, and gives its core away every 64 looks, so that threads may outnumber cores. Nobody in the way:
one load, or one atomic operation.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir
from numba.core import cgutils as numba_cgutils

cgutils: Any = numba_cgutils
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
    """A loop of relaxed loads until ``go_on(value)`` branches out of it: pause each time, sched_yield every 64th.

    ``go_on(builder, value, again)`` must end the current block, going to ``again`` to try once more.
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
    """The system call sched_yield, as an instruction: compiled code refers to no symbol outside. Elsewhere than on
    x86-64 Linux the loop just spins."""
    if YIELDS:
        i64 = ir.IntType(64)
        kind = ir.FunctionType(i64, [i64])
        builder.asm(kind, "syscall", "={rax},0,~{rcx},~{r11},~{memory}", [ir.Constant(i64, 24)], side_effect=True)


def wait_until(builder: Any, pointer: Any, width: int, values: Any) -> Any:
    """wait_until: spins until the masked value is the one wanted; 0."""
    return _wait(builder, pointer, width, values, "==")


def wait_while(builder: Any, pointer: Any, width: int, values: Any) -> Any:
    """wait_while: spins until the masked value is another one; 0."""
    return _wait(builder, pointer, width, values, "!=")


def _wait(builder: Any, pointer: Any, width: int, values: Any, relation: str) -> Any:
    out = builder.append_basic_block("waited")

    def go_on(seen: Any, again: Any) -> None:
        builder.cbranch(builder.icmp_signed(relation, builder.and_(seen, values[0]), values[1]), out, again)

    _spin(builder, pointer, width, go_on)
    builder.position_at_end(out)
    return ir.Constant(values[0].type, 0)


def wait_then_add(builder: Any, pointer: Any, width: int, values: Any) -> Any:
    """One atomic operation if the way is free: compare-and-exchange from 0 where every bit is in the mask (the branch
    folds, masks are constants), else an add that is taken back when it was in vain."""
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
