"""A trace too large for memory: write N synthetic events to a file, replay it streamed, print rate and peak memory.

    python benchmarks/stream_rate.py [--events 100000000] [--vmas 1000] [--strategy rbtree] [--file trace.parquet]

The events are faults over many VMAs with a mapping operation now and then. The peak is this process's ru_maxrss.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchframe import registry
from benchframe.engine.session import StreamReplay
from benchframe.events import EVENT, NIL, REPORT, UNKNOWN, Batch, FaultFlag, Kind
from benchframe.trace.trace import TraceMeta, iter_batches, write_batches

PAGE, BASE, BATCH = 4096, 0x10000000, 1 << 20


def layout(vmas: int) -> np.ndarray:
    """EXEC and one anonymous mapping of four pages per VMA, a page apart."""
    events = np.zeros(vmas + 1, EVENT)
    events["file"], events["ret"] = NIL, UNKNOWN
    events["kind"][0], events["addr"][0] = Kind.EXEC, NIL
    events["kind"][1:], events["len"][1:], events["prot"][1:], events["flags"][1:] = Kind.MMAP, 4 * PAGE, 3, 0x32
    events["addr"][1:] = BASE + np.arange(vmas) * 5 * PAGE
    return events


def batches(count: int, vmas: int) -> Iterator[Batch]:
    """``count`` events after the layout; one in a thousand is an mprotect back and forth."""
    rng = np.random.default_rng(1)
    made = 0
    first = layout(vmas)
    zeros = np.zeros(len(first), np.int64)
    yield Batch(0, first, zeros, zeros.astype(np.int32), np.zeros(0, REPORT))
    while made < count:
        rows = min(BATCH, count - made)
        events = np.zeros(rows, EVENT)
        events["file"], events["ret"] = NIL, UNKNOWN
        vma = rng.zipf(1.3, rows) % vmas
        events["kind"], events["flags"], events["prot"] = Kind.FAULT, FaultFlag.USER, 1
        events["addr"] = BASE + vma * 5 * PAGE + rng.integers(0, 4, rows) * PAGE
        events["kind"][::1000], events["prot"][::1000], events["flags"][::1000] = Kind.MPROTECT, 3, 0
        events["prot"][::2000] = 1
        events["addr"][::1000] = BASE + vma[::1000] * 5 * PAGE
        events["len"][::1000] = 4 * PAGE
        stamps = len(first) + made + np.arange(rows, dtype=np.int64)
        yield Batch(len(first) + made, events, stamps, np.zeros(rows, np.int32), np.zeros(0, REPORT))
        made += rows


def main() -> None:
    """Write, replay, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000_000)
    parser.add_argument("--vmas", type=int, default=1000)
    parser.add_argument("--strategy", default="rbtree")
    parser.add_argument("--file", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.file or Path(folder) / "stream.parquet"
        if not path.exists():
            began = time.perf_counter()
            write_batches(path, TraceMeta(), batches(args.events, args.vmas))
            print(f"written: {path.stat().st_size / 2**20:.0f} MiB in {time.perf_counter() - began:.0f} s")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        replayer = StreamReplay(registry.load().strategy(args.strategy), BATCH)
        began = time.perf_counter()
        done = replayer.run(batch.events for batch in iter_batches(path, BATCH))
        wall = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{done.events:,} events through {args.strategy}: {done.rate / 1e6:.1f} M events/s inside the replay")
    print(f"{done.events / wall / 1e6:.1f} M events/s with reading and checking the file ({wall:.0f} s in all)")
    print(f"peak memory {peak:.0f} MiB, {before:.0f} MiB of it before the replay began")


if __name__ == "__main__":
    main()
