"""``benchframe oracle``: compare a model with the running kernel, and report differences as programs to run by hand."""

from __future__ import annotations

import errno as errnos
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchframe.errors import UsageError, did_you_mean
from benchframe.judge.child import (
    ARENA,
    ARENA_END,
    BRK,
    BRK_BASE,
    ELSEWHERE,
    FILES,
    FORK,
    MASK,
    MMAP,
    SHMAT,
    SYSCALL,
    TOUCH,
    harmless,
)
from benchframe.judge.judge import (
    BATCH,
    Accept,
    JudgeError,
    JudgeResult,
    Kernel,
    Mismatch,
    Side,
    host_limits,
    judge,
    maker,
    oracle_side,
    probe,
    readable_only,
    shrink,
)
from benchframe.judge.programs import NAMES, ZONES, Make, Op
from benchframe.oracle import RULE_NAMES, Limits, Rules, flip
from benchframe.verify import MODEL_RULES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


_MODES = {os.O_RDWR: "O_RDWR", os.O_RDONLY: "O_RDONLY", os.O_WRONLY: "O_WRONLY"}

_PYTHON = '''\
#!/usr/bin/env python3
"""{what}"""
import ctypes
import os
import struct

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
scratch = os.memfd_create("scratch")
os.ftruncate(scratch, 4096)


def call(name, number, *args):
    ret = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(arg) for arg in args))
    print(name, *(hex(arg) for arg in args), "=", hex(ret) if ret >= 0 else os.strerror(ctypes.get_errno()))


def touch(addr, access):
    """Access one byte from kernel mode: a bad address is EFAULT, not a signal."""
    move = libc.pread if access == 2 else libc.pwrite
    ret = move(scratch, ctypes.c_void_p(addr), ctypes.c_size_t(1), ctypes.c_long(0))
    print("write" if access == 2 else "read", hex(addr), "=", "ok" if ret == 1 else os.strerror(ctypes.get_errno()))


def fork():
    """Go on in the child."""
    pid = os.fork()
    if pid:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def shmat(addr, length):
    """Attach a new System V segment; it ends with its last mapping."""
    new = libc.syscall(ctypes.c_long(29), ctypes.c_ulong(0), ctypes.c_ulong(length), ctypes.c_ulong(0o600))
    call("shmat", 30, new, addr, 0o40000)  # SHM_REMAP
    libc.syscall(ctypes.c_long(31), ctypes.c_ulong(new), ctypes.c_ulong(0), ctypes.c_ulong(0))


def move_brk(base):
    """Put the break at base: prctl(PR_SET_MM, PR_SET_MM_MAP)."""
    stat = [0, 0, 0] + [int(v) for v in open("/proc/self/stat").read().rsplit(")", 1)[1].split()[1:]]
    f = dict(enumerate(stat, 1))
    known = f[26], f[27], f[45], f[46], base, base, f[28], f[48], f[49], f[50], f[51], 0
    block = struct.pack("=12QIi", *known, 0, -1)
    print("move_brk", libc.prctl(35, ctypes.c_ulong(14), block, ctypes.c_ulong(len(block)), ctypes.c_ulong(0)))


{body}
for line in open("/proc/self/smaps"):
    if line[0] in "0123456789abcdef":
        inside = {low:#x} <= int(line.split("-")[0], 16) < {high:#x}
    if inside and (line[0] in "0123456789abcdef" or line.startswith("VmFlags")):
        print(line, end="", flush=True)
'''

_C = """\
/* {what} */
/* cc -o case case.c && ./case */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void show(const char *name, long ret)
{{
	if (ret == -1)
		printf("%s = %s\\n", name, strerror(errno));
	else
		printf("%s = %#lx\\n", name, ret);
	fflush(stdout);
}}

#define CALL(text, ...) show(text, syscall(__VA_ARGS__))
#define READ(addr) show("read " #addr, pwrite(scratch, (void *)(addr), 1, 0))
#define WRITE(addr) show("write " #addr, pread(scratch, (void *)(addr), 1, 0))

{helpers}
int main(void)
{{
	char path[64], line[512];
	unsigned long start;
	int inside = 0, scratch = memfd_create("scratch", 0);
	FILE *smaps;

	(void)path;
	if (ftruncate(scratch, 4096))
		return 1;
{body}
	smaps = fopen("/proc/self/smaps", "r");
	while (smaps && fgets(line, sizeof(line), smaps)) {{
		int head = sscanf(line, "%lx-", &start) == 1 && strchr(line, '-') == line + strcspn(line, "-");
		if (head && strchr(line, '-') && strchr(line, '-') < strchr(line, ' '))
			inside = start >= {low:#x}UL && start < {high:#x}UL;
		else
			head = 0;
		if (inside && (head || !strncmp(line, "VmFlags", 7)))
			fputs(line, stdout);
	}}
	return 0;
}}
"""

_C_FORK = """
static void go_on_in_child(void)
{
	int status;

	if (fork()) {
		wait(&status);
		exit(WEXITSTATUS(status));
	}
}
"""

_C_SHM = """
static void attach(unsigned long addr, unsigned long length)
{
	long segment = syscall(SYS_shmget, 0, length, 0600);

	CALL("shmat", SYS_shmat, segment, addr, 040000); /* SHM_REMAP */
	syscall(SYS_shmctl, segment, 0, 0); /* it ends with its last mapping */
}
"""

_C_BRK = """
static void move_brk(unsigned long base)
{
	struct prctl_mm_map map = { 0 };
	char text[2048], *at;
	unsigned long f[64] = { 0 };
	int n = 4;
	FILE *stat = fopen("/proc/self/stat", "r");

	if (!stat || !fgets(text, sizeof(text), stat))
		exit(1);
	for (at = strtok(strrchr(text, ')') + 4, " "); at && n < 64; at = strtok(NULL, " "))
		f[n++] = strtoul(at, NULL, 10);
	map.start_code = f[26], map.end_code = f[27], map.start_data = f[45], map.end_data = f[46];
	map.start_brk = map.brk = base, map.start_stack = f[28];
	map.arg_start = f[48], map.arg_end = f[49], map.env_start = f[50], map.env_end = f[51];
	map.exe_fd = -1;
	show("move_brk", prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0));
}
"""


def result_text(result: int) -> str:
    """A result for display.

    >>> result_text(-12), result_text(4096)
    ('-ENOMEM', '0x1000')
    """
    if result == ELSEWHERE:
        return "an address outside the arena"
    if -4096 < result < 0:
        return f"-{errnos.errorcode.get(-result, str(-result))}"
    return hex(result)


def _used_files(ops: Sequence[Op]) -> list[int]:
    return sorted({op.e for op in ops if op.code == MMAP and op.e < len(FILES)})


def _file_argument(op: Op, form: str, bad: str) -> str:
    return bad if op.e == MASK or op.e >= len(FILES) else form.format(op.e)


def as_python(ops: Sequence[Op], what: str) -> str:
    """The program as a Python script that prints each result and the areas at the end."""
    body = []
    for inode in sorted({FILES[file][2] for file in _used_files(ops)}):
        size = next(entry[0] for entry in FILES if entry[2] == inode)
        body += [f'inode{inode} = os.memfd_create("file-{inode}")', f"os.ftruncate(inode{inode}, {size})"]
    for file in _used_files(ops):
        _, mode, inode = FILES[file]
        body.append(f'file{file} = os.open(f"/proc/self/fd/{{inode{inode}}}", os.{_MODES[mode]})')
    if any(op.code == BRK for op in ops):
        body.append(f"move_brk({BRK_BASE:#x})")
    for op in ops:
        if op.code == TOUCH:
            body.append(f"touch({op.a:#x}, {op.b})")
        elif op.code == FORK:
            body.append("fork()")
        elif op.code == SHMAT:
            body.append(f"shmat({op.a:#x}, {op.b:#x})")
        else:
            args = [hex(arg) for arg in op[1 : 1 + op.argument_count]]
            if op.code == MMAP:
                args[4] = _file_argument(op, "file{}", hex(MASK))
            body.append(f'call("{NAMES[op.code]}", {SYSCALL[op.code]}, {", ".join(args)})')
    return _PYTHON.format(what=what, body="\n".join(body), low=ARENA, high=ARENA_END)


def as_c(ops: Sequence[Op], what: str) -> str:
    """The same as a C program."""
    body = []
    for inode in sorted({FILES[file][2] for file in _used_files(ops)}):
        size = next(entry[0] for entry in FILES if entry[2] == inode)
        body.append(f'\tint inode{inode} = memfd_create("file-{inode}", 0);')
        body.append(f"\tif (ftruncate(inode{inode}, {size}))\n\t\treturn 1;")
    for file in _used_files(ops):
        _, mode, inode = FILES[file]
        body.append(f'\tsnprintf(path, sizeof(path), "/proc/self/fd/%d", inode{inode});')
        body.append(f"\tint file{file} = open(path, {_MODES[mode]});")
    brk = any(op.code == BRK for op in ops)
    if brk:
        body.append(f"\tmove_brk({BRK_BASE:#x}UL);")
    for op in ops:
        if op.code == TOUCH:
            body.append(f"\t{'WRITE' if op.b & 2 else 'READ'}({op.a:#x}UL);")
        elif op.code == FORK:
            body.append("\tgo_on_in_child();")
        elif op.code == SHMAT:
            body.append(f"\tattach({op.a:#x}UL, {op.b:#x}UL);")
        else:
            args = [f"{arg:#x}UL" for arg in op[1 : 1 + op.argument_count]]
            if op.code == MMAP:
                args[4] = _file_argument(op, "(long)file{}", "-1L")
            name = NAMES[op.code]
            body.append(f'\tCALL("{name}", SYS_{name}, {", ".join(args)});')
    codes = {op.code for op in ops}
    helpers = "".join(text for code, text in ((FORK, _C_FORK), (SHMAT, _C_SHM), (BRK, _C_BRK)) if code in codes)
    return _C.format(what=what, body="\n".join(body), low=ARENA, high=ARENA_END, helpers=helpers)


def report(mismatch: Mismatch) -> str:
    """The mismatch in words: the program, both results, both lists of areas where they differ."""
    lines = [mismatch.what, "", "program:", *(f"  {op}" for op in mismatch.ops), ""]
    for side, (result, layout) in (("kernel", mismatch.expected), ("judged", mismatch.got)):
        lines.append(f"{side}: {result_text(result)}; areas afterwards (start, end, access, file offset):")
        for at in range(0, len(layout), 4):
            start, end, bits, offset = layout[at : at + 4]
            access = "".join(letter if bits >> n & 1 else "-" for n, letter in enumerate("rwx"))
            lines.append(f"  {start:#x}-{end:#x} {access}{'s' if bits & 8 else 'p'} {offset:#x}")
    if mismatch.flags:
        for one, other in zip(*mismatch.flags, strict=True):
            if one != other:
                lines.append(f"flags: kernel {one!r}, judged {other!r}")
    return "\n".join(lines)


DEFAULT_OPS = 100_000
TURN = 8 * BATCH
"""Operations of one generator before the next one's turn, when a rule is switched off."""
EQUAL, DIFFERENT, CANNOT = 0, 1, 2
"""Exit codes: no mismatch; at least one (or a rule not caught); the kernel cannot be asked."""


def run_oracle_command(
    ops: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    generator: str = "all",
    judged: Side = oracle_side,
    ablate: str | None = None,
    save: Path = Path("oracle-mismatch"),
    accept: Accept = harmless,
) -> int:
    """Run the differential test and print the result.

    Args:
        ops: how many operations, over all generators; 100 000 if neither this nor ``minutes`` is given.
        minutes: stop after this long.
        seed: batch n of a generator depends on the seed, its name and n only.
        generator: ``mixed``, ``merge``, ``huge``, ``brk``, ``shm``, or ``all``.
        judged: makes the judged side.
        ablate: a rule to switch off (see :class:`~benchframe.oracle.Rules`), or ``all``: each in turn, and say
            whether it was caught.
        accept: which operations the judged side speaks (``judge.judge.speaks`` for the compiled model).
        save: a mismatch is written to this path with ``.txt``, ``.py`` and ``.c`` appended.

    Returns:
        0: no mismatch; 1: a mismatch, or with ``ablate="all"`` a rule that was not caught; 2: cannot judge here.

    Raises:
        UsageError: no such generator or rule.
    """
    from rich.console import Console

    console = Console(highlight=False)
    names = list(ZONES) if generator == "all" else [generator]
    unknown = [name for name in names if name not in ZONES]
    if unknown:
        raise _unknown("generator", unknown[0], ZONES)
    if ablate is not None and ablate not in ("all", *RULE_NAMES):
        raise _unknown("rule", ablate, RULE_NAMES)
    if ops is None:
        ops = DEFAULT_OPS if minutes is None else 1 << 62
    try:
        with Kernel() as kernel:
            limits = host_limits()
            found = probe(kernel, limits)
            console.print(f"kernel {kernel_name()}; {_about(kernel)}")
            if found.changed:
                console.print(f"rules that differ from the defaults: {', '.join(found.changed)}")
            if found.unclear:
                console.print(f"rules unknown to the oracle: {', '.join(found.unclear)}")
            if not kernel.has_brk and "brk" in names:
                console.print("generator brk omitted: this kernel cannot move the break (CONFIG_CHECKPOINT_RESTORE)")
                names.remove("brk")
            if found.rules.execute_only and accept is not harmless:
                console.print("the model has no protection keys: operations with PROT_EXEC alone are left out")
                accept = readable_only(accept)
            lacking = [name for name in found.changed if name not in MODEL_RULES]
            if lacking and judged is not oracle_side:
                console.print(f"the model keeps to Linux 6.18 in: {', '.join(lacking)}; a mismatch may come from there")
            run = Request(kernel, ops, minutes, seed, names, save, accept)
            if ablate == "all":
                return _ablate_all(console, judged, found.rules, limits, run)
            rules = flip(found.rules, ablate) if ablate else found.rules
            return _judge_all(console, maker(judged, rules, limits), run)
    except JudgeError as error:
        console.print(f"cannot judge: {error}")
        return CANNOT
    except KeyboardInterrupt:
        console.print("stopped; no mismatch so far")
        return 130


def _unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for an unknown name, with the nearest known one, or all."""
    return UsageError(f"no {kind} is called {name!r}", hint=did_you_mean(name, known, "choose one of {}, or all"))


def kernel_name() -> str:
    """The running kernel's version number, without its builder's suffix."""
    import platform

    match = re.match(r"[\d.]+", platform.release())
    return match.group().rstrip(".") if match else "of unknown version"


def _about(kernel: Kernel) -> str:
    return "areas read through PROCMAP_QUERY" if kernel.has_query else "areas read from /proc/PID/maps"


@dataclass
class Request:
    """The parameters of a command; see :func:`run_oracle_command`."""

    kernel: Kernel
    ops: int
    minutes: float | None
    seed: int
    names: list[str]
    save: Path
    accept: Accept


def _judge_all(console: Console, make: Make, run: Request) -> int:
    """Run each generator for its share; ends at the first mismatch."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    total = JudgeResult()
    columns = (TextColumn("{task.description:>6}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    for at, name in enumerate(run.names):
        share = -(-(run.ops - total.ops) // (len(run.names) - at))
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(name, total=share if share < 1 << 50 else None)
            time_left = run.minutes / len(run.names) if run.minutes else None
            tick = _ticker(progress, task)
            outcome = judge(make, share, run.seed, name, run.kernel, time_left, 1, tick, run.accept)
        total.add(outcome)
        console.print(
            f"{name:>6}: {outcome.ops:>9,} operations, {outcome.rate:>7,.0f}/s, "
            f"{outcome.areas / max(1, outcome.ops):.0f} areas on average, {outcome.forks} forks, "
            f"{outcome.flag_checks} flag checks, "
            f"{len(outcome.mismatches)} mismatches",
            soft_wrap=True,
        )
        if outcome.mismatches:
            _explain(console, make, outcome.mismatches[0], run.kernel, run.save)
            return DIFFERENT
    refused = sum(total.errnos.values())
    console.print(
        f"{total.ops:,} operations, {total.rate:,.0f} a second, {refused:,} refused with the same errno: 0 mismatches",
        soft_wrap=True,
    )
    return EQUAL


def _ticker(progress: Progress, task: TaskID) -> Callable[[JudgeResult], None]:
    """The callback that advances the bar after each batch."""
    return lambda done: progress.update(task, completed=done.ops)


def _explain(console: Console, make: Make, mismatch: Mismatch, kernel: Kernel, save: Path) -> None:
    """Shrink a mismatch, print it, and save it as text, Python and C."""
    small = shrink(make, mismatch, kernel)
    text = report(small)
    console.print(f"\nmismatch, {len(mismatch.ops)} operations shrunk to {len(small.ops)}:", markup=False)
    console.print(text, markup=False, soft_wrap=True)
    python = as_python(small.ops, small.what)
    console.print("\nto run it on the kernel: \n\n" + python, markup=False, soft_wrap=True)
    for suffix, content in ((".txt", text + "\n"), (".py", python), (".c", as_c(small.ops, small.what))):
        path = save.with_name(save.name + suffix)
        try:
            path.write_text(content, encoding="utf-8")
        except OSError as error:
            console.print(f"not saved: {path}: {error.strerror}", markup=False)
            return
    console.print(f"saved as {save}.txt, {save}.py and {save}.c", markup=False)


def _ablate_all(console: Console, judged: Side, rules: Rules, limits: Limits, run: Request) -> int:
    """Negate each rule in turn: does some generator notice within its share of ``ops``?"""
    missed = []
    for rule in RULE_NAMES:
        seen, name = _caught(maker(judged, flip(rules, rule), limits), run)
        if name:
            console.print(f"{rule:>30}: noticed after {seen:>7,} operations by {name}", markup=False)
        else:
            missed.append(rule)
            console.print(f"{rule:>30}: NOT noticed in {seen:,} operations", markup=False)
    console.print(f"{len(RULE_NAMES) - len(missed)} of {len(RULE_NAMES)} rules noticed")
    return DIFFERENT if missed else EQUAL


def _caught(make: Make, run: Request) -> tuple[int, str]:
    """(operations so far, the generator that found a mismatch, empty if none did). The generators take turns: most
    rules show soon, but some only to certain generators."""
    share, seen = run.ops // len(run.names), 0
    for done in range(0, share, TURN):
        for name in run.names:
            ops = min(TURN, share - done)
            outcome = judge(make, ops, run.seed, name, run.kernel, accept=run.accept, first=done // BATCH)
            seen += outcome.ops
            if outcome.mismatches:
                return seen, name
    return seen, ""
