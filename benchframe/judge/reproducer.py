"""A program of operations as something to run by hand: Python with ctypes, and C."""

import errno as errnos
import os
from collections.abc import Sequence

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
    SYSCALL,
    TOUCH,
)
from benchframe.judge.judge import Mismatch
from benchframe.judge.programs import NAMES, Op

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
        else:
            args = [f"{arg:#x}UL" for arg in op[1 : 1 + op.argument_count]]
            if op.code == MMAP:
                args[4] = _file_argument(op, "(long)file{}", "-1L")
            name = NAMES[op.code]
            body.append(f'\tCALL("{name}", SYS_{name}, {", ".join(args)});')
    helpers = (_C_FORK if any(op.code == FORK for op in ops) else "") + (_C_BRK if brk else "")
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
