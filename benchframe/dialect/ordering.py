"""Orderings in machine code: what the kernel's macros give on x86-64 and on arm64, as LLVM instructions.

x86-64 (arch/x86/include/asm/barrier.h): loads and stores keep their order but for a store before a load, and every
locked instruction is a full barrier. So acquire, release, smp_rmb, smp_wmb, smp_mb__before_atomic and
smp_mb__after_atomic only bind the compiler, and smp_store_mb is an xchg.

arm64 (arch/arm64/include/asm/barrier.h, atomic_lse.h, atomic_ll_sc.h): ldar, stlr, dmb ishld, dmb ishst, dmb ish. With
LSE atomics (ARMv8.1) an ordering is a letter of the instruction: ldadd, ldadda, ldaddl, ldaddal. Without, a fully
ordered operation is a release and a dmb ish behind it. Where LLVM may use ldapr (ARMv8.3), a load_acquire can pass an
earlier store_release to another place, which the kernel's ldar cannot: the kernel's memory model allows it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import binding as llvm
from llvmlite import ir
from numba.core import cgutils as numba_cgutils

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
