#!/usr/bin/env python3
"""touch(0x100004007b95, 0x1) returned 0, the kernel says -14"""
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


call("mmap", 9, 0x100004006000, 0xe000, 0x4, 0x32, 0xffffffffffffffff, 0x0)
touch(0x100004007b95, 1)
for line in open("/proc/self/smaps"):
    if line[0] in "0123456789abcdef":
        inside = 0x100000000000 <= int(line.split("-")[0], 16) < 0x100040000000
    if inside and (line[0] in "0123456789abcdef" or line.startswith("VmFlags")):
        print(line, end="", flush=True)
