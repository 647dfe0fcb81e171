"""The simulator as machine code in this process: compiled from the dialect, with a stack switch in assembly.

There is one per process, since compiled units find it by symbols. :func:`runtime` compiles it (some seconds, then
stored) and maps it; :func:`provide` defines the symbols for units. No C compiler is needed.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchframe.dialect.functions import Identities
from benchframe.dialect.store import Library, Store, add_symbol
from benchframe.simulator import access, schedule
from benchframe.simulator.records import simulator
from benchframe.simulator.target import architecture, target_key

PREFIX = "benchframe_"
EXPORTS: dict[str, Any] = {
    "access": access.access,
    "range": access.sim_range,
    "barrier": access.sim_barrier,
    "relax": access.sim_relax,
    "clock": access.sim_clock,
    "wait": access.sim_wait,
    "wait_then_add": access.sim_wait_then_add,
    "work": access.sim_work,
    "begin": access.sim_begin,
    "end": access.sim_end,
    "uncounted": access.sim_uncounted,
    "shootdown": access.sim_shootdown,
    "live": schedule.live,
    "resume": schedule.resume,
}
"""From a symbol, without its prefix, to the function behind it; the function's first argument is the simulator's
record."""
VERSION = 1

SWITCH = {
    "x86_64": """
 push %rbp
 push %rbx
 push %r12
 push %r13
 push %r14
 push %r15
 mov %rsp,(%rdi)
 mov (%rsi),%rsp
 pop %r15
 pop %r14
 pop %r13
 pop %r12
 pop %rbx
 pop %rbp
 ret""",
    "aarch64": """
 sub sp, sp, #160
 stp x19, x20, [sp]
 stp x21, x22, [sp, #16]
 stp x23, x24, [sp, #32]
 stp x25, x26, [sp, #48]
 stp x27, x28, [sp, #64]
 stp x29, x30, [sp, #80]
 stp d8, d9, [sp, #96]
 stp d10, d11, [sp, #112]
 stp d12, d13, [sp, #128]
 stp d14, d15, [sp, #144]
 mov x9, sp
 str x9, [x0]
 ldr x9, [x1]
 mov sp, x9
 ldp x19, x20, [sp]
 ldp x21, x22, [sp, #16]
 ldp x23, x24, [sp, #32]
 ldp x25, x26, [sp, #48]
 ldp x27, x28, [sp, #64]
 ldp x29, x30, [sp, #80]
 ldp d8, d9, [sp, #96]
 ldp d10, d11, [sp, #112]
 ldp d12, d13, [sp, #128]
 ldp d14, d15, [sp, #144]
 add sp, sp, #160
 ret""",
}
"""Save the callee-saved registers, exchange the stack pointers at the two addresses, and return on the other stack."""


def _asm(label: str, body: str) -> str:
    lines = [".text", f".globl {label}", f"{label}:", *body.strip("\n").splitlines()]
    return "".join(f'module asm "{line}"\n' for line in lines)


def _wrapper(name: str, symbol: str, arity: int) -> str:
    """LLVM text of ``benchframe_NAME`` around Numba's calling convention."""
    params = ", ".join(f"i64 %a{i}" for i in range(1, arity))
    kinds = ", ".join(["ptr", *["i64"] * (arity - 1)])
    given = "".join(f", i64 %a{i}" for i in range(1, arity))
    return f"""
declare i32 @"{symbol}"(ptr, ptr, {kinds})
define i64 @{PREFIX}{name}({params}) {{
  %result = alloca i64
  %error = alloca ptr
  %status = call i32 @"{symbol}"(ptr %result, ptr %error, ptr @{PREFIX}simulator{given})
  %value = load i64, ptr %result
  ret i64 %value
}}
"""


def _key() -> str:
    identities = Identities(None)
    parts = [(name, identities.of(function)) for name, function in EXPORTS.items()]
    told = repr((VERSION, parts, simulator.layout, SWITCH, target_key()))
    return hashlib.sha256(told.encode()).hexdigest()


def _compile() -> bytes:
    from llvmlite import binding as llvm

    from benchframe.dialect.llvm import lowered
    from benchframe.dialect.numba_internals import module_of
    from benchframe.simulator.build import RUNTIME_PRIMITIVES, emit

    module: Any = None
    text = [_asm(f"{PREFIX}switch", SWITCH[architecture()]), f"@{PREFIX}simulator = external global i8\n"]
    for name, function in EXPORTS.items():
        arity = function.__code__.co_argcount
        library, symbol = lowered(function, arity, simulator, None, {}, None, RUNTIME_PRIMITIVES)
        part = module_of(library)
        if module is None:
            module = part
        else:
            module.link_in(part)
        text.append(_wrapper(name, symbol, arity))
    module.link_in(llvm.parse_assembly("".join(text)))
    return emit(module, frozenset(PREFIX + name for name in EXPORTS))


class Runtime:
    """The simulator of this process: ``header`` is its record, ``resume()`` continues the simulation, ``live`` is where
    a CPU begins."""

    def __init__(self, obj: bytes) -> None:
        self._room = np.zeros(simulator.size + 64, np.uint8)
        start = -self._room.ctypes.data % 64
        self.header: Any = self._room[start : start + simulator.size].view(simulator.dtype)[0]
        self.address = self._room.ctypes.data + start
        add_symbol(f"{PREFIX}simulator", self.address)
        add_symbol(f"{PREFIX}pending", self.address + simulator.offset("pending"))
        library = Library(obj)
        for name in EXPORTS:
            add_symbol(PREFIX + name, library.address(PREFIX + name))
        self.live = library.address(f"{PREFIX}live")
        resume: Callable[[], int] = ctypes.CFUNCTYPE(ctypes.c_int64)(library.address(f"{PREFIX}resume"))
        self.resume = resume


_one: list[Runtime] = []


def runtime(note: Callable[[str], None] | None = None) -> Runtime:
    """The simulator of this process, mapped; it is compiled first if the store does not have it (``note`` is called
    with its name). Raises SimulateError if there is no stack switch for this processor."""
    architecture()
    if not _one:
        store, key = Store(), _key()
        obj = store.load("simulator", key)
        if obj is None:
            if note is not None:
                note("simulator")
            obj = _compile()
            store.save("simulator", key, obj)
        _one.append(Runtime(obj))
    return _one[0]


def compiled() -> bool:
    """Whether the simulator is in this process, or in the store."""
    architecture()
    return bool(_one) or Store().load("simulator", _key()) is not None


def first_frame(stack_top: int) -> tuple[int, bytes]:
    """The initial stack pointer of a new CPU below ``stack_top`` (a multiple of 64), and the content of its stack: the
    registers that the switch restores, and ``live`` as return address."""
    if architecture() == "x86_64":
        words = [0] * 6 + [runtime().live, 0]
    else:
        words = [0] * 11 + [runtime().live] + [0] * 8
    return stack_top - 8 * len(words), np.array(words, np.int64).tobytes()
