"""Seconds from Ctrl-C to the prompt: ``python benchmarks/interrupt.py [COMMAND...]``.

Each command runs once whole; then it gets SIGINT at random moments of that time (seeded), as a terminal sends it: to
the command and all its processes; not before Python itself has started, which prints a traceback of its
own. A row says how long the prompt took, and how much of that time the command itself had a CPU, which a busy machine
does not stretch; what was wrong (a traceback, nothing said, another exit code than 130), and what the command said
last. A command that ended before its signal, or had said where its results are, is tried again. Every other try has
an empty cache of compiled code, so that compiling is interrupted, too. Exit code 1 if a try took longer than
``--limit`` or was wrong.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sampling import machine, print_table

COMMANDS = {
    "run": "run --quick -s pmdcache,mmap_cache -w zipf",
    "check": "check -s pmdcache_rcu --budget 20s",
    "cost": "cost -s pmdcache,mmap_cache -w zipf",
    "explain": "explain rbtree mmap_cache -w zipf",
    "record": "record -o loop.parquet -- sh -c 'while :; do :; done'",
    "simulate": "simulate -s maple_rcu,rbtree -w pft --cpus 1,2,4",
}
"""``record`` ends with its program, so its program does not end."""
ENDLESS = 6.0
"""Seconds within which a command without an end is interrupted."""
ENDING = 0.5
"""A command that has told where its results are, and ends within so many seconds of its signal, had done its work."""
PATIENCE = 60.0
"""Seconds after which a command is killed."""
LONGEST = 40.0
"""A command is interrupted within its first seconds, at most this many."""


@dataclass(frozen=True)
class Try:
    """One interrupted command: the moment, seconds to the prompt, seconds of CPU time that the command itself (not its
    children) took for it, what was wrong, and what it said last."""

    moment: float
    seconds: float
    cpu: float
    wrong: str
    last: str


def start(words: str, folder: Path, cache: Path) -> "subprocess.Popen[str]":
    """``benchframe`` with these words, in a process group of its own."""
    command = f"exec {sys.executable} -m benchframe {words}"
    environment = os.environ | {"BENCHFRAME_CACHE_DIR": str(cache)}
    return subprocess.Popen(
        ["sh", "-c", command], cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def cpu_time(pid: int) -> float:
    """Seconds of CPU time of a process that has not been waited for (proc(5), /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def interrupted(words: str, moment: float, folder: Path, cache: Path) -> Try | None:
    """Send SIGINT after ``moment`` seconds; None if the command had ended by then, but for Python's own end."""
    process = start(words, folder, cache)
    try:
        process.wait(timeout=moment)
        return None
    except subprocess.TimeoutExpired:
        pass
    before = cpu_time(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    began = time.perf_counter()
    while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
        time.sleep(0.005)
        if time.perf_counter() - began > PATIENCE:
            os.killpg(process.pid, signal.SIGKILL)
    spent = cpu_time(process.pid) - before
    _, said = process.communicate()
    took = time.perf_counter() - began
    lines = [line for line in said.splitlines() if line.strip()]
    if process.returncode in (0, -signal.SIGINT) and took < ENDING and any("results:" in line for line in lines[-2:]):
        return None
    wrong = [
        *(["traceback"] if "Traceback" in said or "Exception ignored" in said else []),
        *([] if any("interrupted" in line or "wrote" in line for line in lines) else ["nothing said"]),
        *([] if process.returncode == 130 else [f"exit code {process.returncode}"]),
    ]
    return Try(moment, took, spent, ", ".join(wrong), said if "traceback" in wrong else " / ".join(lines[-2:]))


def main() -> int:
    """Parse the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--tries", type=int, default=10, help="moments of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=2.0, help="seconds that are too many")
    options = parser.parse_args()
    names = options.commands or list(COMMANDS)
    if unknown := [name for name in names if name not in COMMANDS]:
        parser.error(f"no such command: {', '.join(unknown)}; there are {', '.join(COMMANDS)}")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored, which children inherit
    rows, bad = [], False
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import benchframe.__main__, runpy"], check=True)
    started = 2 * (time.perf_counter() - began)
    for name in names:
        draw, tries = random.Random(f"{options.seed} {name}"), list[Try]()
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            whole = ENDLESS
            if name != "record":
                began = time.perf_counter()
                start(COMMANDS[name], folder, folder / "warm").communicate()
                cold = time.perf_counter() - began
                began = time.perf_counter()
                start(COMMANDS[name], folder, folder / "warm").communicate()
                whole = time.perf_counter() - began
            while len(tries) < options.tries:
                empty = name != "record" and len(tries) % 2 == 1
                moment = draw.uniform(started, min(cold if empty else whole, LONGEST))
                done = interrupted(COMMANDS[name], moment, folder, folder / ("cold" if empty else "warm"))
                shutil.rmtree(folder / "cold", ignore_errors=True)
                if done is not None:
                    tries.append(done)
                    bad = bad or bool(done.wrong) or done.seconds > options.limit
                    times = f"{done.seconds:.2f} s, CPU {done.cpu:.2f} s"
                    print(f"{name} at {done.moment:.2f} s: {times} {done.wrong}: {done.last}", flush=True)
        waits, spent = [each.seconds for each in tries], [each.cpu for each in tries]
        figures = (f"{median(waits):.2f}", f"{max(waits):.2f}", f"{median(spent):.2f}", f"{max(spent):.2f}")
        rows.append((name, str(len(tries)), *figures, str(sum(bool(each.wrong) for each in tries))))
    columns = ("command", "tries", "median, s", "longest, s", "median, CPU s", "longest, CPU s", "wrong")
    print_table(machine(), columns, rows)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
