"""Feed every importer with real files that were damaged: no traceback, nothing dropped in silence.

    python benchmarks/fuzz_importers.py --minutes 10

Each input is one of the files below, or one that perf and strace of this machine write, changed at random: bits,
bytes, lines and pieces are flipped, cut, doubled, swapped and mixed. An import may end in a trace that passes its own
checks and whose counts add up, or in one TraceError of one line; all else is a finding, and its input is kept.
"""

import argparse
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchframe.cli.inspect import load_any
from benchframe.errors import TraceError
from benchframe.trace.trace import Trace

PROGRAM = ["sh", "-c", "ls / >/dev/null; (true); true"]
MAPS = (
    "55d000000000-55d000001000 r--p 00000000 fe:00 260131  /usr/bin/cat\n"
    "55d0000a0000-55d0000c1000 rw-p 00000000 00:00 0  [heap]\n7f3d0284a000-7f3d0284c000 r-xp 00000000 00:00 0  [vdso]\n"
    "7ffdfa8ce000-7ffdfa8ef000 rw-p 00000000 00:00 0  [stack]\n"
)
STRACE = (
    'execve("/usr/bin/x", ["x", "a, b (c)"], 0x7ffd /* 20 vars */) = 0\nbrk(NULL) = 0x5600aa000000\n'
    "mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f00aa000000\n"
    "mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3</tmp/a, b>, 0) = 0x7f00ab000000\n"
    "clone(child_stack=NULL, flags=SIGCHLDstrace: Process 901 attached\n, child_tidptr=0x7f) = 901\n"
    "[pid   900] munmap(0x7f00aa000000, 4096 <unfinished ...>\n[pid   901] mremap(0x7f00aa001000, 4096, 8192, 1) = -1 "
    "ENOMEM (Cannot allocate memory)\n[pid   900] <... munmap resumed>) = 0\n[pid   901] +++ exited with 0 +++\n"
    "madvise(0x7f00ab000000, 4096, MADV_DONTNEED) = 0 <0.000011>\n+++ exited with 0 +++\n"
)
SCRIPT = (
    "x 700/700 3663.334301: PERF_RECORD_COMM exec: x:700/700\n"
    "x 700/700 3663.334330: PERF_RECORD_MMAP2 700/700: [0x400000(0x2000) @ 0 fe:00 4242 9]: r-xp /usr/bin/x\n"
    "x 700/700 3663.334436: page-faults: 400b70\n"
    "x 700/700 3663.334444: 1 page-faults:u: 401a80 ffffffff81 symbol (dso)\n"
    "x 700 [001] 3663.334450: exceptions:page_fault_user: address=0x401000 ip=0x55 error_code=0x6\n"
    "x 700/700 3663.334460: PERF_RECORD_FORK(700:701):(700:700)\nx 700/701 3663.334470: page-faults: 400008\n"
    "x 700/700 3663.334480: PERF_RECORD_EXIT(700:701):(700:700)\n"
)


def perf_data() -> bytes:
    """A small perf.data file: exec, two mappings, faults, a fork."""
    sample = 0x10000 | 2 | 4 | 8

    def record(kind: int, body: bytes, misc: int = 0, at: int = 0) -> bytes:
        body += b"" if kind == 9 else struct.pack("<IIQQ", 9, 9, at, 55)
        return struct.pack("<IHH", kind, misc, 8 + len(body)) + body

    area = struct.pack("<IIQQQIIQQII", 9, 9, 0x400000, 0x3000, 0, 8, 1, 77, 0, 5, 2) + b"/usr/bin/x\0\0\0\0\0\0"
    data = record(3, struct.pack("<II8s", 9, 9, b"x"), 1 << 13, 1000) + record(10, area, 0, 1100)
    data += record(9, struct.pack("<QIIQQ", 55, 9, 9, 2000, 0x401234)) * 3
    data += record(7, struct.pack("<IIIIQ", 9, 9, 10, 9, 2150), 0, 2150)
    attr = struct.pack("<IIQQQ", 1, 112, 2, 1, sample).ljust(112, b"\0") + struct.pack("<QQ", 104, 8)
    header = struct.pack("<8s6Q", b"PERFILE2", 104, 128, 112, 128, 240, len(data)).ljust(104, b"\0")
    return header + struct.pack("<Q", 55) + attr + data


def seeds(folder: Path | None) -> list[bytes]:
    """Files to start from; with a folder for them, also what the tools of this machine write."""
    found = [MAPS.encode(), STRACE.encode(), SCRIPT.encode(), perf_data()]
    if folder is None:
        return found
    found.append(Path("/proc/self/maps").read_bytes())
    for options in (["-o"], ["-r", "-o"], ["-tt", "-yy", "-T", "-o"]):
        if shutil.which("strace"):
            subprocess.run(["strace", "-f", *options, str(folder / "log"), *PROGRAM], capture_output=True)
            found.append((folder / "log").read_bytes())
    if shutil.which("perf"):
        for options in (["-d"], ["-d", "-g"], ["-d", "-z"], []):
            file = folder / "perf.data"
            record = ["perf", "record", "-q", "-e", "page-faults", "-c1", *options, "-o", str(file), *PROGRAM]
            if subprocess.run(record, capture_output=True).returncode == 0:
                found.append(file.read_bytes())
                script = ["perf", "script", "-i", str(file), "--show-task-events", "--show-mmap-events", "-F", "+addr"]
                found.append(subprocess.run(script, capture_output=True).stdout)
    return [data for data in found if data]


def damaged(rng: random.Random, files: list[bytes]) -> bytes:
    """One of the files with a few random changes."""
    data = bytearray(rng.choice(files))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            return b""
        at = rng.randrange(len(data))
        end = min(len(data), at + rng.choice((1, 2, 4, 8, 60, 400)))
        how = rng.randrange(8)
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at:end] = rng.randbytes(end - at)
        elif how == 2:
            del data[at:end]
        elif how == 3:
            data[at:at] = data[at:end]
        elif how == 4:
            del data[at:]
        elif how == 5:
            other = rng.choice(files)
            start = rng.randrange(len(other))
            data[at:end] = other[start : start + 200]
        elif how == 6:
            size = rng.choice((4, 8))
            data[at : at + size] = rng.choice((0, 1, 2**31, 2**32 - 1, 2**47, 2**63)).to_bytes(9, "little")[:size]
        else:
            lines = bytes(data).split(b"\n")
            first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[first], lines[second] = lines[second], lines[first]
            data = bytearray(b"\n".join(lines))
    return bytes(data)


def wrong(path: Path) -> str:
    """What is wrong with how the file is imported; empty if nothing is."""
    try:
        trace, form = load_any(path)
    except TraceError as error:
        text = str(error)
        return "" if text and "\n" not in text and len(text) < 2000 else f"a message of no use: {text[:200]!r}"
    try:
        trace.check()
    except ValueError as error:
        return f"{form}: a trace that is none: {error}"
    return "" if form == "maps snapshot" else silent(trace)


def silent(trace: Trace) -> str:
    """Do the counts say what became of what was read?"""
    counts = trace.meta.counts
    if not counts.get("lines used", 0) and not counts.get("records used", 0):
        return "a trace of nothing"
    if "lines read" in counts:
        told = sum(count for name, count in counts.items() if name != "lines read")
        blank = counts["lines read"] - told
        if blank < 0 and not any(name.startswith("missing: events") for name in counts):
            return f"more was told than read: {counts}"
    return ""


def run(seed: int, seconds: float, count: int, keep: Path | None, files: list[bytes]) -> tuple[int, list[str]]:
    """(inputs tried, findings) until the time or the count is over."""
    rng = random.Random(seed)
    findings: list[str] = []
    tried = 0
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input"
        while tried < count and time.monotonic() < end:
            path.write_bytes(damaged(rng, files))
            tried += 1
            try:
                found = wrong(path)
            except Exception as error:
                found = f"{type(error).__name__}: {error}"
            if found:
                findings.append(found)
                if keep is not None:
                    shutil.copy(path, keep / f"finding-{seed}-{tried}")
    return tried, findings


def main() -> int:
    """Exit codes: 0, 1 (a finding; its input is in --keep)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), help="folder for inputs that fail")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = seeds(Path(folder))
    tried, findings = run(chosen.seed, 60 * chosen.minutes, sys.maxsize, chosen.keep, files)
    for text in findings[:20]:
        print(text)
    print(f"{tried} damaged inputs from {len(files)} files: {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
