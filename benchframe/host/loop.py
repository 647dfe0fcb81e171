"""The timed loops as machine code: LLVM builds them here, and a small process runs them without Numba or NumPy.

Each is one function without relocations, so its bytes run wherever they are mapped. The clock is ``rdtsc`` between two
``lfence``: it is read after what precedes and before what follows. A system call is the instruction itself, so no
library code is timed.
"""

from __future__ import annotations

from functools import cache

NOTHING, READ, WRITE, CALL = range(4)
"""What a row of a program does: its first word."""
WORDS = 8
"""Words of a row: the action, the address or the number of the system call, six arguments."""
TIMES = 3
"""Words of an answer: clock before, clock after, result. A touch returns 0, or SIGNALLED; in a counting run the number
of page faults that it caused."""
SIGNALLED = -1
"""Result of a touch that raised SIGSEGV or SIGBUS."""
ARENA, ROOM = 0x100000000000, 1 << 45
"""The addresses that programs use: 32 TiB from 16 TiB on, far from where Linux loads programs and libraries."""
GETRUSAGE, FORK, EXIT_GROUP, WAIT4 = 98, 57, 231, 61
"""System call numbers of x86-64."""

_CLOCK = """
  call void asm sideeffect "lfence", "~{memory}"()
  %NAME = call i64 asm sideeffect "rdtsc; shlq $$32, %rdx; orq %rdx, %rax", "={rax},~{rdx},~{memory},~{flags}"()
  call void asm sideeffect "lfence", "~{memory}"()
"""
_SYSCALL = (
    'call i64 asm sideeffect "syscall", "={rax},0,{rdi},{rsi},{rdx},{r10},{r8},{r9},~{rcx},~{r11},~{memory}"'
    "(i64 NUMBER, i64 %a, i64 %b, i64 %c, i64 %d, i64 %e, i64 %f)"
)


def _clock(name: str) -> str:
    return _CLOCK.replace("NAME", name)


def _simple(number: int, first: str = "0", second: str = "0", third: str = "0") -> str:
    text = _SYSCALL.replace("NUMBER", str(number))
    for name, value in zip("abcdef", (first, second, third, "0", "0", "0"), strict=True):
        text = text.replace(f"i64 %{name}", f"i64 {value}")
    return text


def _faults(name: str) -> str:
    """The number of page faults of this process so far: ru_minflt + ru_majflt."""
    return f"""
  %{name}.done = {_simple(GETRUSAGE, "0", "%usage.at")}
  %{name}.minor.at = getelementptr i8, ptr %usage, i64 64
  %{name}.minor = load volatile i64, ptr %{name}.minor.at
  %{name}.major.at = getelementptr i8, ptr %usage, i64 72
  %{name}.major = load volatile i64, ptr %{name}.major.at
  %{name} = add i64 %{name}.minor, %{name}.major
"""


def _touch(kind: str, instruction: str) -> str:
    """A touch, alone or between two counts of page faults. The handler of a signal (:func:`trap`) skips the two bytes
    of the instruction and stores 1 in rcx."""
    asm = f'call i64 asm sideeffect "{instruction}", "={{rcx}},0,{{rdi}},~{{rax}},~{{memory}}"(i64 0, i64 %second)'
    return f"""
{kind}:
  br i1 %counting, label %{kind}.counted, label %{kind}.timed
{kind}.timed:
{_clock(f"{kind}.t0")}
  %{kind}.signal = {asm}
{_clock(f"{kind}.t1")}
  %{kind}.result = sub i64 0, %{kind}.signal
  br label %next
{kind}.counted:
{_faults(f"{kind}.before")}
{_clock(f"{kind}.c0")}
  %{kind}.csignal = {asm}
{_clock(f"{kind}.c1")}
{_faults(f"{kind}.after")}
  %{kind}.faults = sub i64 %{kind}.after, %{kind}.before
  %{kind}.failed = icmp ne i64 %{kind}.csignal, 0
  %{kind}.count = select i1 %{kind}.failed, i64 -1, i64 %{kind}.faults
  br label %next
"""


_ARGUMENTS = "\n".join(
    f"  %{name}.at = getelementptr i64, ptr %code.at, i64 {at}\n  %{name} = load i64, ptr %{name}.at"
    for at, name in enumerate("abcdef", 2)
)
_RUN = f"""
define void @run(ptr %ops, i64 %n, ptr %out, ptr %usage) nounwind "no-jump-tables"="true" {{
entry:
  %usage.at = ptrtoint ptr %usage to i64
  %counting = icmp ne i64 %usage.at, 0
  %none = icmp eq i64 %n, 0
  br i1 %none, label %end, label %loop
loop:
  %i = phi i64 [0, %entry], [%following, %next]
  %row = mul i64 %i, {WORDS}
  %code.at = getelementptr i64, ptr %ops, i64 %row
  %code = load i64, ptr %code.at
  %second.at = getelementptr i64, ptr %code.at, i64 1
  %second = load i64, ptr %second.at
  switch i64 %code, label %nothing [i64 {READ}, label %read i64 {WRITE}, label %write i64 {CALL}, label %call]
nothing:
{_clock("n0")}{_clock("n1")}
  br label %next
{_touch("read", "movb (%rdi), %al")}
{_touch("write", "movb %al, (%rdi)")}
call:
{_ARGUMENTS}
{_clock("call.t0")}
  %call.result = {_SYSCALL.replace("NUMBER", "%second")}
{_clock("call.t1")}
  br label %next
next:
  %before = phi i64 [%n0, %nothing], [%read.t0, %read.timed], [%read.c0, %read.counted], [%write.t0, %write.timed],
    [%write.c0, %write.counted], [%call.t0, %call]
  %after = phi i64 [%n1, %nothing], [%read.t1, %read.timed], [%read.c1, %read.counted], [%write.t1, %write.timed],
    [%write.c1, %write.counted], [%call.t1, %call]
  %result = phi i64 [0, %nothing], [%read.result, %read.timed], [%read.count, %read.counted],
    [%write.result, %write.timed], [%write.count, %write.counted], [%call.result, %call]
  %place = mul i64 %i, {TIMES}
  %before.at = getelementptr i64, ptr %out, i64 %place
  store i64 %before, ptr %before.at
  %after.at = getelementptr i64, ptr %before.at, i64 1
  store i64 %after, ptr %after.at
  %result.at = getelementptr i64, ptr %before.at, i64 2
  store i64 %result, ptr %result.at
  %following = add i64 %i, 1
  %done = icmp eq i64 %following, %n
  br i1 %done, label %end, label %loop
end:
  ret void
}}
"""

_RSI, _RIP, _RCX = 16, 168, 152
"""Offsets of si_addr in siginfo_t, of RIP and RCX in ucontext_t (x86-64)."""
_TRAP = f"""
define void @trap(i32 %signal, ptr %info, ptr %context) nounwind {{
entry:
  %where.at = getelementptr i8, ptr %info, i64 {_RSI}
  %where = load i64, ptr %where.at
  %offset = sub i64 %where, {ARENA}
  %ours = icmp ult i64 %offset, {ROOM}
  br i1 %ours, label %skip, label %die
skip:
  %rip.at = getelementptr i8, ptr %context, i64 {_RIP}
  %rip = load i64, ptr %rip.at
  %later = add i64 %rip, 2
  store i64 %later, ptr %rip.at
  %rcx.at = getelementptr i8, ptr %context, i64 {_RCX}
  store i64 1, ptr %rcx.at
  ret void
die:
  %gone = {_simple(EXIT_GROUP, "139")}
  ret void
}}
"""

_FORKS = f"""
define void @forks(i64 %n, ptr %out) nounwind "no-jump-tables"="true" {{
entry:
  %none = icmp eq i64 %n, 0
  br i1 %none, label %end, label %loop
loop:
  %i = phi i64 [0, %entry], [%following, %parent]
  %place = mul i64 %i, 4
  %start.at = getelementptr i64, ptr %out, i64 %place
  %forked.at = getelementptr i64, ptr %start.at, i64 1
  %exits.at = getelementptr i64, ptr %start.at, i64 2
  %gone.at = getelementptr i64, ptr %start.at, i64 3
{_clock("start")}
  %pid = {_simple(FORK)}
  %child = icmp eq i64 %pid, 0
  br i1 %child, label %exit, label %parent
exit:
{_clock("exits")}
  store volatile i64 %exits, ptr %exits.at
  %never = {_simple(EXIT_GROUP)}
  ret void
parent:
{_clock("forked")}
  %reaped = {_simple(WAIT4, "%pid")}
{_clock("gone")}
  store volatile i64 %start, ptr %start.at
  store volatile i64 %forked, ptr %forked.at
  %refused = icmp slt i64 %pid, 0
  %ended = select i1 %refused, i64 %pid, i64 %gone
  store volatile i64 %ended, ptr %gone.at
  %following = add i64 %i, 1
  %done = icmp eq i64 %following, %n
  br i1 %done, label %end, label %loop
end:
  ret void
}}
"""


@cache
def machine_code() -> dict[str, bytes]:
    """The functions by name. ``run(ops, n, out, usage)`` performs n rows; ``usage`` 0, or a buffer of 144 bytes: count
    page faults of touches. ``trap`` is a handler of SIGSEGV and SIGBUS. ``forks(n, out)`` forks and waits n times: four
    words each, clock before fork, after it in the parent, in the child before it exits, after the parent's wait."""
    return {name: _compiled(text) for name, text in (("run", _RUN), ("trap", _TRAP), ("forks", _FORKS))}


def _compiled(text: str) -> bytes:
    """The text section of a module with one function; LLVM IR in, position-independent code out."""
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    triple = llvm.get_default_triple()
    module = llvm.parse_assembly(f'target triple = "{triple}"\n{text}')
    module.verify()
    machine = llvm.Target.from_triple(triple).create_target_machine(opt=2, reloc="pic", codemodel="small")
    parts = llvm.ObjectFileRef.from_data(machine.emit_object(module)).sections()
    sections = {_text(part.name()): part.data() for part in parts}
    moved = [name for name in sections if name.startswith(".rel") and ".text" in name]
    assert not moved, f"the loop must not need relocations: {moved}"
    return bytes(sections[".text"])


def _text(name: str | bytes | None) -> str:
    """A section's name: llvmlite gives text or bytes, by its version, and None for the first."""
    return name.decode() if isinstance(name, bytes) else name or ""
