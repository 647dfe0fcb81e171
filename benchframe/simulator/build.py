"""The simulated build: a threaded unit that calls the simulator before every access; and the simulator's own code.

LLVM's text is instrumented after optimisation, so that accesses that the compiler merged or removed are merged or
removed here too. Instructions are counted between accesses and passed on with the next one. Waiting, the clock and the
spin hint become calls of the simulator; everything else is the code that real threads run, for a fixed processor.

The simulator as machine code in this process: compiled from the dialect, with a stack switch in assembly. There is one
per process, since compiled units find it by symbols. :func:`runtime` compiles it (some seconds, then stored) and maps
it; :func:`provide` defines the symbols for units. No C compiler is needed.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils
from numba.extending import intrinsic

from benchframe.dialect import READ_ONCE, native
from benchframe.dialect import llvm as backend
from benchframe.dialect.functions import Binding, Identities, Native, instance, made_from
from benchframe.dialect.llvm import C_CALLS, PRIMITIVES, Lowering, _atomic, _field_pointer, _integer_call
from benchframe.dialect.numba_internals import interruptible, module_of
from benchframe.dialect.primitives import Primitive
from benchframe.dialect.records import DialectError
from benchframe.dialect.store import Library, Store, add_symbol
from benchframe.mm.hooks import flush_tlb, show_map
from benchframe.mm.kmem import threads
from benchframe.mm.layout import EVENT, page_alloc
from benchframe.mm.locks import READERS, SPINS, WRITER, rwsem_optimistic_spin, rwsem_try_write_lock_unqueued
from benchframe.mm.replay import one_event
from benchframe.mm.smp import CLASSES, REPLACE, page_alloc_shared
from benchframe.mm.smp_replay import compare, thread_class
from benchframe.simulator import access
from benchframe.simulator.machines import ATOMIC, LOAD, STORE, TARGET, architecture, simulator, target_key
from benchframe.units import Units, UnitSpec

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
    build = Lowering(f"simulated{VERSION}", SIMULATED)
    library, symbol = backend.lowered(spec.entry, spec.arity, units.mm, spec.binding, index, spec.replace, build)
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
    "live": access.live,
    "resume": access.resume,
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

    module: Any = None
    build = Lowering(f"simulator{VERSION}", RUNTIME_PRIMITIVES)
    text = [_asm(f"{PREFIX}switch", SWITCH[architecture()]), f"@{PREFIX}simulator = external global i8\n"]
    for name, function in EXPORTS.items():
        arity = function.__code__.co_argcount
        library, symbol = lowered(function, arity, simulator, None, {}, None, build)
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


# ----------------------------------------------------------------------------------------------------------------------
# What the model calls in a simulated build, and the surrounding work of a kernel.
#
# mmap_lock's writers spin as in Linux, one at a time (osq_lock); frames, faults and calls cost the declared work; the
# comparison with the oracle costs nothing; TLB flushes are reported to the simulator.

wait_one = Primitive("wait_one", lambda ref, field, mask, value: 0)
"""wait_until for waiters with a queue of their own: a write wakes the first of them."""
sim_work = Primitive("sim_work", lambda which: 0)
sim_begin = Primitive("sim_begin", lambda which: 0)
sim_end = Primitive("sim_end", lambda which: 0)
sim_uncounted = Primitive("sim_uncounted", lambda on: 0)
sim_shootdown = Primitive("sim_shootdown", lambda mm: 0)
PAGE_WORK, LINE_WORK = CLASSES, CLASSES + 1
"""What ``sim_work`` is told beside the class of an event."""


@native
def rwsem_spin_queued(sem):
    """rwsem_optimistic_spin as in Linux: spinners wait in a queue of their own (osq_lock), and only
    its head reads the lock. If there are readers inside, a writer queues up at once; Linux first spins some
    microseconds on them."""
    looks = 0
    while looks < SPINS:
        if READ_ONCE(sem, "count") & READERS:
            return 0
        wait_one(sem, "count", WRITER, 0)
        if rwsem_try_write_lock_unqueued(sem):
            return 1
        looks += 1
    return 0


@native
def page_alloc_simulated(mm, task):
    """page_alloc_shared, and the kernel's work on a frame: clearing, accounting, LRU, rmap (declared work)."""
    sim_work(PAGE_WORK)
    return page_alloc_shared(mm, task)


@native
def one_event_simulated(root, index):
    """one_event, and the surrounding work: entry and exit of the kernel (declared work)."""
    kind = thread_class(EVENT(root, index).kind)
    sim_begin(kind)
    result = one_event(root, index)
    sim_end(kind)
    return result


@native
def compare_simulated(root, task, index, kind, result):
    """compare, at no cost: every answer of a simulated run is compared."""
    sim_uncounted(1)
    wrong = compare(root, task, index, kind, result)
    sim_uncounted(0)
    return wrong


@native
def flush_tlb_simulated(mm, start, end):
    """flush_tlb_mm_range: interrupts to the CPUs that run the address space."""
    return sim_shootdown(mm.id)


@native
def show_map_simulated(mm, task, start, end):
    """show_map_vma: the text of one line (declared work)."""
    return sim_work(LINE_WORK)


SIMULATED_REPLACE: dict[Native, Native] = {
    **REPLACE,
    page_alloc: page_alloc_simulated,
    one_event: one_event_simulated,
    compare: compare_simulated,
    flush_tlb.default: flush_tlb_simulated,
    show_map.default: show_map_simulated,
    rwsem_optimistic_spin: rwsem_spin_queued,
}
"""From a function of the model to what a simulated build calls instead."""


def replacements(allocator: Binding) -> dict[Native, Native]:
    """SIMULATED_REPLACE with an allocator (empty: none) for every rw_semaphore that exists by now: mmap_lock's, and
    those of strategies."""
    found: dict[Native, Native] = dict(threads(allocator, SIMULATED_REPLACE))
    for made, words in made_from(rwsem_optimistic_spin):
        found[made] = instance(rwsem_spin_queued, words)
    return found
