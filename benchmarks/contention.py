"""What cores of this machine do with one cache line: latencies, throughput, who keeps it, who gets it next.

    python benchmarks/contention.py [--seconds N] [-o FILE.toml] [--strategies] [--name NAME]

It pins threads, one per core, and takes less than five minutes on any machine. Printed: latency between cores by class
(same last-level cache, same socket, other socket), operations per second on one word by the number of cores (fetch_add;
a loop of compare-and-exchange), how many operations in a row a core makes before the line leaves it, who gets it next
(the share that goes to the same class, beside what chance would give), and what one writer and many readers do. With -o
it writes a machine file for `benchframe simulate --machine FILE`: measured numbers where it measured, the rest from
milan-2s as guesses. With --strategies it also runs five strategies with 1 to N threads.

Two cores are enough to try it, and say nothing about who comes next.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchframe.dialect import READ_ONCE, WRITE_ONCE, cmpxchg, cpu_relax, fetch_add, native, xchg
from benchframe.mm.layout import PAGE, mm_struct
from benchframe.runner import unit_store
from benchframe.simulator.machines import FOLDER, Machine, Number, load_machine, machine_toml
from benchframe.units import UnitSpec

MAX_PAIRS = 300
BURSTS, SHORT, LONG = 12, 500, 4500
CLASSES = ("near", "socket", "far")
SYS = Path("/sys/devices/system/cpu")


# ---- programs --------------------------------------------------------------------------------------------------------
@native
def ping(mm, me, rounds):
    """Two threads take turns by compare-and-exchange: ``rounds`` turns of each."""
    p = PAGE(mm, 1)
    for turn in range(rounds):
        wanted = 2 * turn + me
        while cmpxchg(p, "flags", wanted, wanted + 1) != wanted:
            cpu_relax()
    return rounds


@native
def add(mm, me, rounds):
    """fetch_add until told to stop; the record of the thread counts operations, and how often nobody came between."""
    p = PAGE(mm, 1)
    mine = PAGE(mm, 16 + 4 * me)
    stop = PAGE(mm, 8)
    done = 0
    kept = 0
    last = -1
    while READ_ONCE(stop, "flags") == 0:
        for _ in range(64):
            seen = fetch_add(p, "flags", 1)
            kept += int(seen == last + 1)
            last = seen
            done += 1
        cpu_relax()
    mine.flags = done
    mine.cache = kept
    return done


@native
def exchange(mm, me, rounds):
    """The same by a loop of compare-and-exchange."""
    p = PAGE(mm, 1)
    mine = PAGE(mm, 16 + 4 * me)
    stop = PAGE(mm, 8)
    done = 0
    while READ_ONCE(stop, "flags") == 0:
        for _ in range(64):
            old = READ_ONCE(p, "flags")
            seen = cmpxchg(p, "flags", old, old + 1)
            while seen != old:
                old = seen
                seen = cmpxchg(p, "flags", old, old + 1)
            done += 1
        cpu_relax()
    mine.flags = done
    return done


@native
def hand(mm, me, rounds):
    """Everybody stores its own number and notes whose it took: record 16 + 4 * me + 4 * n * other counts them."""
    p = PAGE(mm, 1)
    stop = PAGE(mm, 8)
    base = 1024 + 256 * me
    done = 0
    while READ_ONCE(stop, "flags") == 0:
        for _ in range(64):
            other = xchg(p, "flags", me)
            PAGE(mm, base + other).flags += 1
            done += 1
        cpu_relax()
    return done


@native
def share(mm, me, rounds):
    """Thread 0 writes, all others read; the record of a reader counts the values it saw."""
    p = PAGE(mm, 1)
    mine = PAGE(mm, 16 + 4 * me)
    stop = PAGE(mm, 8)
    done = 0
    last = -1
    while READ_ONCE(stop, "flags") == 0:
        for _ in range(64):
            if me == 0:
                done += 1
                WRITE_ONCE(p, "flags", done)
            else:
                seen = READ_ONCE(p, "flags")
                done += int(seen != last)
                last = seen
        cpu_relax()
    mine.flags = done
    return done


class Bench:
    """Memory for the programs, and threads that are pinned."""

    def __init__(self) -> None:
        self.mm = np.zeros(1, mm_struct.dtype)
        self.pages = np.zeros(1024 + 256 * 257, PAGE.struct.dtype)
        self.mm["page_base"] = self.pages.ctypes.data + -self.pages.ctypes.data % 64
        self.units = unit_store()

    def word(self, index: int, field: str = "flags") -> int:
        """A field of a record as the programs see it."""
        start = (-self.pages.ctypes.data % 64) // 8
        words = self.pages.view(np.int64)
        return int(words[start + index * PAGE.struct.size // 8 + PAGE.struct.offset(field) // 8])

    def run(self, program: Any, cpus: Sequence[int], rounds: int = 0, seconds: float = 0.0) -> float:
        """Run ``program`` on ``cpus``; the seconds that it took, or was let run."""
        unit = self.units.get(UnitSpec(f"contention-{program.__name__}", program, {}, None))
        self.pages.view(np.int64)[:] = 0
        address = int(self.mm.ctypes.data)
        barrier = threading.Barrier(len(cpus) + 1)

        def life(me: int, cpu: int) -> None:
            os.sched_setaffinity(0, {cpu})
            barrier.wait()
            unit(address, me, rounds)

        threads = [threading.Thread(target=life, args=pair) for pair in enumerate(cpus)]
        for thread in threads:
            thread.start()
        barrier.wait()
        began = time.perf_counter()
        if seconds:
            time.sleep(seconds)
            start = (-self.pages.ctypes.data % 64) // 8
            self.pages.view(np.int64)[start + 8 * PAGE.struct.size // 8] = 1
        for thread in threads:
            thread.join()
        return time.perf_counter() - began


# ---- the machine -----------------------------------------------------------------------------------------------------
def _list(path: Path) -> set[int]:
    """A kernel's CPU list: 0-3,8."""
    found: set[int] = set()
    try:
        text = path.read_text().strip()
    except OSError:
        return found
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found |= set(range(int(low), int(high or low) + 1))
    return found


class Cores:
    """One CPU per core that this process may use, with the last-level cache and the socket that it belongs to."""

    def __init__(self) -> None:
        usable, taken = sorted(os.sched_getaffinity(0)), set()
        self.cpus: list[int] = []
        self.llc: dict[int, frozenset[int]] = {}
        self.socket: dict[int, int] = {}
        for cpu in usable:
            folder = SYS / f"cpu{cpu}"
            if cpu in taken:
                continue
            taken |= _list(folder / "topology/thread_siblings_list")
            self.cpus.append(cpu)
            caches = sorted(folder.glob("cache/index*"), key=lambda path: path.name)
            self.llc[cpu] = frozenset(_list(caches[-1] / "shared_cpu_list") if caches else usable)
            packages = _list(folder / "topology/physical_package_id")
            self.socket[cpu] = min(packages, default=0)

    def distance(self, one: int, other: int) -> str:
        """near, socket or far."""
        if other in self.llc[one]:
            return "near"
        return "socket" if self.socket[one] == self.socket[other] else "far"

    def shape(self) -> tuple[int, int, int]:
        """Sockets, domains of the first, cores of its first domain."""
        sockets = sorted(set(self.socket.values()))
        first = [cpu for cpu in self.cpus if self.socket[cpu] == sockets[0]]
        domains = {self.llc[cpu] for cpu in first}
        cores = sum(cpu in self.llc[first[0]] for cpu in first)
        return len(sockets), len(domains), cores


def counts_up_to(number: int) -> list[int]:
    """1, 2, 4 ... and the number itself."""
    found = [n for n in (1, 2, 3, 4, 8, 16, 32, 64, 128, 256) if n < number]
    return [*found, number]


# ---- measures --------------------------------------------------------------------------------------------------------
def latencies(bench: Bench, cores: Cores, say: Callable[[str], None]) -> dict[str, list[float]]:
    """ns of one hand-over between pairs of cores, by class. Of two lengths the least of BURSTS, and the difference:
    what starting threads costs cancels, and a burst is short enough to be left alone once."""
    pairs = list(itertools.combinations(cores.cpus, 2))
    pairs = random.Random(1).sample(pairs, min(len(pairs), MAX_PAIRS))
    found: dict[str, list[float]] = {}
    for one, other in pairs:
        short, long = (min(bench.run(ping, (one, other), rounds=n) for _ in range(BURSTS)) for n in (SHORT, LONG))
        found.setdefault(cores.distance(one, other), []).append(1e9 * max(long - short, 0) / (2 * (LONG - SHORT)))
    for name in CLASSES:
        if name in found:
            values = found[name]
            spread = f"{min(values):.1f} to {max(values):.1f}, {len(values)} pairs"
            say(f"latency {name:7} {statistics.median(values):6.1f} ns median, {spread}")
    return found


def throughput(bench: Bench, cores: Cores, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Operations per second on one word by the number of cores, and how long runs of one owner are."""
    found: dict[str, Any] = {"add": {}, "kept": {}}
    for program in (add, exchange):
        rates = {}
        for number in counts_up_to(len(cores.cpus)):
            took = bench.run(program, cores.cpus[:number], seconds=seconds)
            done = sum(bench.word(16 + 4 * me) for me in range(number))
            rates[number] = done / took
            if program is add:
                kept = sum(bench.word(16 + 4 * me, "cache") for me in range(number))
                found["add"][number], found["kept"][number] = done / took, done / max(1, done - kept)
        say(f"{program.__name__:9} " + ", ".join(f"{n}: {rate / 1e6:.1f} M/s" for n, rate in rates.items()))
    told = ", ".join(f"{n}: {run:.1f}" for n, run in found["kept"].items() if n > 1)
    say(f"operations in a row by one core, of fetch_add: {told or 'one core only'}")
    return found


def next_owner(bench: Bench, cores: Cores, seconds: float, say: Callable[[str], None]) -> None:
    """The share of hand-overs that stay in a class, beside what chance would give."""
    number = len(cores.cpus)
    if number < 3:
        say("who is next: needs three cores or more")
        return
    bench.run(hand, cores.cpus, seconds=seconds)
    counted, chance = dict.fromkeys(CLASSES, 0), dict.fromkeys(CLASSES, 0)
    for me, other in itertools.permutations(range(number), 2):
        which = cores.distance(cores.cpus[me], cores.cpus[other])
        counted[which] += bench.word(1024 + 256 * me + other)
        chance[which] += 1
    total, pairs = sum(counted.values()) or 1, number * (number - 1)
    told = [
        f"{name} {100 * counted[name] / total:.0f} % (chance {100 * chance[name] / pairs:.0f} %)"
        for name in CLASSES
        if chance[name]
    ]
    say("who is next: " + ", ".join(told))


def readers(bench: Bench, cores: Cores, seconds: float, say: Callable[[str], None]) -> None:
    """One writer, many readers: writes and seen values per second."""
    for number in [n for n in counts_up_to(len(cores.cpus)) if n > 1]:
        took = bench.run(share, cores.cpus[:number], seconds=seconds)
        wrote = bench.word(16) / took
        seen = sum(bench.word(16 + 4 * me) for me in range(1, number)) / took / (number - 1)
        told = f"{wrote / 1e6:.1f} M writes/s, each reader sees {seen / 1e6:.2f} M values/s"
        say(f"one writer, {number - 1} readers: {told}")


def machine_file(name: str, cores: Cores, found: dict[str, list[float]], rates: dict[str, Any]) -> str:
    """A machine file: what was measured, and milan-2s's numbers for the rest."""
    base = load_machine("milan-2s")
    sockets, domains, number = cores.shape()
    measured: dict[str, tuple[float, float, float]] = {}
    known = {cls: values for cls, values in found.items() if values}
    for cls in CLASSES:
        values = known.get(cls)
        if values:
            measured[cls] = statistics.median(values), min(values), max(values)
    alone = 1e9 / rates["add"][1]
    measured["atomic"] = alone, alone * 0.8, alone * 1.2
    run = rates["kept"].get(2)
    if run is not None:
        hold = max(0.0, (run - 1) * alone)
        measured["hold"] = hold, 0.0, 2 * hold + 4
    numbers = {
        key: replace(old, standing="guess", source=f"as milan-2s: {old.source}") for key, old in base.numbers.items()
    }
    for key, told in measured.items():
        value, low, high = (round(one, 2) for one in told)
        numbers[key] = Number(key, value, low, high, "measured", "benchmarks/contention.py")
    about = f"measured by benchmarks/contention.py: {len(cores.cpus)} cores."
    return machine_toml(Machine(name, name, about, sockets, domains, number, numbers))


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each measurement of throughput")
    parser.add_argument("-o", "--output", type=Path, help="write a machine file")
    parser.add_argument("--name", default="this machine", help="the machine's title in the file")
    parser.add_argument("--strategies", action="store_true", help="five strategies with 1 to N threads, too")
    args = parser.parse_args()
    cores, bench = Cores(), Bench()
    if len(cores.cpus) < 2:
        print("contention needs two cores or more", file=sys.stderr)
        return 1
    sockets, domains, number = cores.shape()
    if os.getloadavg()[0] > 0.5:
        print(f"other programs are busy (load {os.getloadavg()[0]:.1f}): these figures will be wrong", file=sys.stderr)
    print(f"{len(cores.cpus)} cores: {sockets} socket(s) of {domains} domain(s) of {number} core(s)")
    found = latencies(bench, cores, print)
    rates = throughput(bench, cores, args.seconds, print)
    next_owner(bench, cores, args.seconds, print)
    readers(bench, cores, args.seconds, print)
    if args.output is not None:
        args.output.write_text(machine_file(args.name, cores, found, rates))
        load_machine(str(args.output))
        print(f"wrote {args.output}   (benchframe simulate --machine {args.output}; shipped ones are in {FOLDER})")
    if args.strategies:
        most = len(cores.cpus)
        threads = ",".join(map(str, counts_up_to(most)))
        names = "rbtree,pmdcache_rcu,per_vma_rwsem,per_vma_refcnt,spf_mmseq"
        load = f"multi-fault-all-split:vmas={max(40, 2 * most + 20)}"
        words = ["run", "--quick", "-s", names, "-w", load, "--threads", threads, "--budget", "2m"]
        return subprocess.run([sys.executable, "-m", "benchframe", *words], check=False).returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
