"""The process that performs a program on its own kernel, once.

This file is run as a script by :mod:`benchframe.host.measure` and uses nothing but the standard library and the judging
process's file (:mod:`benchframe.judge.child`), so that its own address space is small. Its argument is a JSON object;
what it prints is one, too. The program and the answers are in files that it inherits and maps.
"""

import ctypes
import importlib.util
import json
import mmap
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

PAGE = 4096
CLOCKS = 200
"""Pairs of both clocks at the beginning and at the end; the closest pair of each counts."""
SPAN = 0.02
"""Seconds between the two, at least: the clocks are read to 50 ns, so their ratio is good to 1 in 200 000."""
_MAP_POPULATE = 0x8000
_held: list[mmap.mmap] = []
"""Mappings that live as long as this process."""
_PR_SET_PDEATHSIG, _PR_SET_THP_DISABLE = 1, 41


def mapped(descriptor: int, size: int, kind: int = mmap.MAP_SHARED) -> int:
    """The address of an inherited file (-1: of new memory) as memory whose pages are present."""
    area = mmap.mmap(descriptor, size, kind | _MAP_POPULATE, mmap.PROT_READ | mmap.PROT_WRITE)
    _held.append(area)
    if kind == mmap.MAP_SHARED:
        view = memoryview(area)
        for at in range(0, size, PAGE):  # a write each, so that none is write-protected for the first
            view[at] = 0
    return ctypes.addressof(ctypes.c_char.from_buffer(area))


def executable(code: bytes) -> int:
    """The address of ``code``, in memory of its own."""
    area = mmap.mmap(-1, -(-len(code) // PAGE) * PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    area.write(code)
    _held.append(area)
    return ctypes.addressof(ctypes.c_char.from_buffer(area))


def clocks(run: Any, scratch: int) -> tuple[int, int]:
    """(cycle counter, monotonic ns) at the same moment, as well as can be."""
    ops = (ctypes.c_int64 * 8)()
    out = ctypes.cast(scratch, ctypes.POINTER(ctypes.c_int64))
    best = (1 << 62, 0, 0)
    for _ in range(CLOCKS):
        before = time.monotonic_ns()
        run(ctypes.addressof(ops), 1, scratch, 0)
        after = time.monotonic_ns()
        best = min(best, (after - before, out[0], (before + after) // 2))
    return best[1], best[2]


def catch(handler: int) -> None:
    """Let ``handler`` (machine code) serve SIGSEGV and SIGBUS; it returns through what glibc's sigaction adds."""
    action = (ctypes.c_uint64 * 19)()  # struct sigaction: handler, 128 bytes of mask, flags, restorer
    action[0], action[17] = handler, 4 | 0x40000000  # SA_SIGINFO | SA_NODEFER
    libc = ctypes.CDLL(None, use_errno=True)
    for number in (signal.SIGSEGV, signal.SIGBUS):
        if libc.sigaction(int(number), ctypes.byref(action), None):
            raise OSError(ctypes.get_errno(), "sigaction")


def areas(low: int, high: int) -> tuple[int, int]:
    """(VMAs of this process, those of them that overlap [low, high))."""
    spans = [line.split(" ", 1)[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
    return len(spans), sum(int(start, 16) < high and int(end, 16) > low for start, end in spans)


def judge_child(path: str) -> Any:
    """:mod:`benchframe.judge.child`, from its file."""
    spec = importlib.util.spec_from_file_location("judge_child", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Perform the program, then fork as often as asked."""
    job = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    word = ctypes.c_ulong
    libc.prctl(_PR_SET_PDEATHSIG, word(signal.SIGKILL))
    if job["cpu"] >= 0:
        os.sched_setaffinity(0, {job["cpu"]})
    if libc.prctl(_PR_SET_THP_DISABLE, word(1), word(0), word(0), word(0)):
        raise OSError("the kernel cannot turn huge pages off for a process")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    code = {name: executable(bytes.fromhex(text)) for name, text in job["code"].items()}
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
    run = kind(code["run"])
    scratch = mapped(-1, PAGE)
    own, inside = areas(job["low"], job["high"])
    if inside:
        raise OSError(f"{inside} areas of the process lie where the program's should")
    rows = job["rows"]
    out = mapped(job["out"], job["size"])
    answer: dict[str, Any] = {"areas": own}
    start = clocks(run, scratch)
    ops = mapped(job["ops"], max(PAGE, rows * 64), mmap.MAP_PRIVATE)
    for number, descriptor in enumerate(job["files"], job["first_file"]):
        opened = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
        os.dup2(opened, number)
        os.close(opened)
    if job["brk"]:
        answer["brk"] = judge_child(job["judge"]).move_brk(*job["brk"])
    catch(code["trap"])
    usage = (ctypes.c_int64 * 18)()
    run(ops, rows, out, ctypes.addressof(usage) if job["counting"] else 0)
    answer["total"], _ = areas(job["low"], job["high"])
    if job["forks"]:
        kind(code["forks"])(job["forks"], out + rows * 24, 0, 0)
    while time.monotonic_ns() - start[1] < SPAN * 1e9:
        time.sleep(SPAN / 4)
    end = clocks(run, scratch)
    answer["ticks"], answer["ns"] = end[0] - start[0], end[1] - start[1]
    print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
