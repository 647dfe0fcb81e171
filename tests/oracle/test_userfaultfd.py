"""The running kernel judges how areas registered with a userfaultfd split and merge (vm_userfaultfd_ctx, mm/vma.c)."""

import itertools
import json
import random
import subprocess
import sys

import numpy as np
import pytest

from benchframe.events import EVENT, NIL, Attr, Kind
from benchframe.oracle import Replayer

PAGE, BASE, PAGES = 4096, 0x20_0000_0000, 24
RW, FIXED = 3, 0x32  # MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS
CHILD = """
import ctypes, fcntl, json, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    out = libc.syscall(*(ctypes.c_long(a) for a in args))
    return out if out != -1 else -ctypes.get_errno()
libc.syscall.restype = ctypes.c_long
def ioctl(file, command, *words):
    try:
        fcntl.ioctl(file, command, bytearray(struct.pack(f"={len(words)}Q", *words)))
    except OSError as error:
        return -error.errno
    return 0
files = [call(323, os.O_CLOEXEC) for _ in range(2)]
if min(files) < 0 or any(ioctl(file, 0xC018AA3F, 0xAA, 0, 0) for file in files):
    sys.exit(77)
base, size, steps = json.load(sys.stdin)
for what, start, length, value in steps:
    if what == "mmap":
        ret = call(9, start, length, value, 0x32, -1, 0)
    elif what == "munmap":
        ret = call(11, start, length)
    elif what == "mprotect":
        ret = call(10, start, length, value)
    elif what == "register":
        ret = ioctl(files[value - 1], 0xC020AA00, start, length, value, 0)  # 1 misses, 2 write protection
    else:
        ret = ioctl(files[value - 1], 0x8010AA01, start, length)
    rows = []
    for line in open("/proc/self/maps"):
        place, rights = line.split()[:2]
        low, high = (int(word, 16) for word in place.split("-"))
        if base <= low < base + size:
            rows.append([low, high, sum(bit for letter, bit in zip("rwx", (1, 2, 4)) if letter in rights)])
    print(json.dumps([ret, rows]))
"""


def steps(seed: int, count: int) -> list[tuple[str, int, int, int]]:
    """Random calls in an arena: what, start, length, and rights or the number of a userfaultfd."""
    some = random.Random(seed)
    out = [("mmap", BASE, PAGES * PAGE, RW)]
    for _ in range(count):
        what = some.choice(("mmap", "munmap", "mprotect", "register", "register", "register", "unregister"))
        first = some.randrange(PAGES)
        length = some.randint(1, min(8, PAGES - first)) * PAGE
        value = some.choice((1, RW)) if what in ("mmap", "mprotect") else some.choice((1, 2))
        out.append((what, BASE + first * PAGE, length, value))
    return out


def test_the_kernel_agrees() -> None:
    """After each of 400 random calls the oracle's areas are the kernel's: a registration keeps neighbours apart, the
    same one joins them again, and a refused one changes nothing."""
    plan = steps(12, 400)
    told = json.dumps([BASE, PAGES * PAGE, plan])
    run = subprocess.run([sys.executable, "-S", "-c", CHILD], input=told, capture_output=True, text=True)
    if run.returncode == 77:
        pytest.skip("this kernel gives us no userfaultfd")
    assert run.returncode == 0, run.stderr
    kinds = {"mmap": Kind.MMAP, "munmap": Kind.MUNMAP, "mprotect": Kind.MPROTECT}
    replayer, apart, refused = Replayer(), 0, 0
    for (what, start, length, value), line in zip(plan, run.stdout.splitlines(), strict=True):
        ret, rows = json.loads(line)
        event = np.zeros(1, EVENT)
        event["kind"], event["addr"], event["len"] = kinds.get(what, Kind.ATTR), start, length
        event["file"], event["ret"], event["prot"] = NIL, ret, value
        event["flags"] = FIXED
        if what not in kinds:
            event["flags"], event["prot"] = Attr.USERFAULTFD, value if what == "register" else 0
        replayer.feed(event)
        ours = [[area.vm_start, area.vm_end, area.row()[2]] for area in replayer.spaces[0].areas]
        assert ours == rows, f"{what} {start:x} {length:x} {value}: {ret}"
        refused += ret < 0
        apart += any(one[1:] == [other[0], other[2]] for one, other in itertools.pairwise(rows))
    assert refused > 20
    assert apart > 200
