"""What LLVM makes of each ordering, for x86-64 and for arm64 with and without LSE: the instructions of the kernel."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from llvmlite import binding as llvm
from llvmlite import ir

from benchframe.dialect.llvm import DMB, Target, barrier, compare_exchange, read_modify_write, store_mb, target_of

X86, LSE, LL_SC = Target("x86"), Target("arm64", True), Target("arm64", False)
TRIPLES = {X86: "x86_64-unknown-linux-gnu", LSE: "aarch64-unknown-linux-gnu", LL_SC: "aarch64-unknown-linux-gnu"}
BODY = re.compile(r"^\s+([a-z][a-z0-9]*)(?:\s+([^\n#/]*))?", re.MULTILINE)


def instructions(target: Target, emit: Callable[[Any, Any, list[Any]], Any]) -> list[str]:
    """The memory operations and barriers of ``f(pointer, a, b)`` with this body, in their order, as assembly."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    i64 = ir.IntType(64)
    module = ir.Module()
    module.triple = TRIPLES[target]
    function = ir.Function(module, ir.FunctionType(i64, [i64.as_pointer(), i64, i64]), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    result = emit(builder, function.args[0], list(function.args[1:]))
    builder.ret(result if result is not None else ir.Constant(i64, 0))
    machine = llvm.Target.from_triple(module.triple).create_target_machine(
        opt=2, features="+lse" if target.lse else "-outline-atomics" if target.kind == "arm64" else ""
    )
    text = machine.emit_assembly(llvm.parse_assembly(str(module)))
    kept = ("lock", "xchg", "mfence", "dmb", "ldar", "stlr", "ldadd", "ldxr", "ldaxr", "stxr", "stlxr", "swp", "cas")
    found = []
    for name, operands in BODY.findall(text):
        if name.startswith(kept) and not operands.startswith("."):
            found.append(f"{name} {operands.strip()}" if name == "dmb" else name)
    return found


def rmw(operation: str, suffix: str, target: Target) -> list[str]:
    """The instructions of a read-modify-write whose result is used."""
    return instructions(target, lambda b, p, v: read_modify_write(b, operation, p, v[0], suffix, target))


def compared(suffix: str, target: Target) -> list[str]:
    """Those of a compare-and-exchange."""
    return instructions(target, lambda b, p, v: compare_exchange(b, p, v[0], v[1], suffix, target))


@pytest.mark.parametrize("suffix", ["", "_relaxed", "_acquire", "_release"])
def test_x86_has_one_form_of_each(suffix: str) -> None:
    """Every locked instruction of x86 is a full barrier: no ordering costs more or less (atomic.h of x86)."""
    assert rmw("add", suffix, X86) == ["lock"]
    assert rmw("xchg", suffix, X86) == ["xchgq"]
    assert compared(suffix, X86) == ["lock"]


@pytest.mark.parametrize(
    ("suffix", "add", "swap", "compare"),
    [
        ("", "ldaddal", "swpal", "casal"),
        ("_relaxed", "ldadd", "swp", "cas"),
        ("_acquire", "ldadda", "swpa", "casa"),
        ("_release", "ldaddl", "swpl", "casl"),
    ],
)
def test_arm64_with_lse_has_a_letter_for_each(suffix: str, add: str, swap: str, compare: str) -> None:
    """As arch/arm64/include/asm/atomic_lse.h: a for acquire, l for release, al for fully ordered."""
    assert (rmw("add", suffix, LSE), rmw("xchg", suffix, LSE), compared(suffix, LSE)) == ([add], [swap], [compare])


def test_arm64_without_lse_has_loops() -> None:
    """As atomic_ll_sc.h: exclusive load and store with a for acquire, l for release; fully ordered is a release and a
    dmb ish behind it, since a later load may pass the store of a loop."""
    assert rmw("add", "_relaxed", LL_SC) == ["ldxr", "stxr"]
    assert rmw("add", "_acquire", LL_SC) == ["ldaxr", "stxr"]
    assert rmw("add", "_release", LL_SC) == ["ldxr", "stlxr"]
    assert rmw("add", "", LL_SC) == ["ldxr", "stlxr", "dmb ish"]
    assert compared("", LL_SC)[-1] == "dmb ish"


def test_barriers() -> None:
    """dmb of the kernel's kind on arm64. On x86 smp_mb alone is an instruction; those beside atomic operations and the
    ones for loads or stores bind the compiler."""
    arm = {"smp_mb": "ish", "smp_rmb": "ishld", "smp_wmb": "ishst", "smp_mb__before_atomic": "ish",
           "smp_mb__after_atomic": "ish", "smp_acquire__after_ctrl_dep": "ishld"}  # fmt: skip
    assert arm.keys() == DMB.keys()
    for name, kind in arm.items():
        assert instructions(LSE, lambda b, p, v, name=name: barrier(b, name, LSE)) == [f"dmb {kind}"]  # type: ignore[misc]
        x86 = instructions(X86, lambda b, p, v, name=name: barrier(b, name, X86))  # type: ignore[misc]
        assert x86 in ([["lock"], ["mfence"]] if name == "smp_mb" else [[]])


def test_smp_store_mb() -> None:
    """An xchg on x86, a store and dmb ish on arm64."""
    assert instructions(X86, lambda b, p, v: store_mb(b, p, 8, v[0], X86)) == ["xchgq"]
    assert instructions(LSE, lambda b, p, v: store_mb(b, p, 8, v[0], LSE)) == ["dmb ish"]  # and a plain str before it


def test_targets() -> None:
    """Triples of the machines that there are; an unknown one gets LLVM's fences."""
    assert target_of("aarch64-apple-darwin", True) == LSE
    assert target_of("x86_64-pc-linux-gnu", True) == X86
    assert target_of("riscv64-unknown-linux-gnu", False).kind == "other"
