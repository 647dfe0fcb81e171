"""A worker whose session is made up: real pyperf, real processes, figures from a seed.

The name of the strategy says what happens: ``wrong``, ``crash`` (a traceback), ``segv``, ``hang``, ``mute`` (ends
without an answer), ``edited`` (its source has changed); any other name is timed, at a speed given by the digits in it
(``fake20`` is 20 ns a lookup).
"""

import os
import random
import signal
import time
from dataclasses import dataclass

from benchframe.engine.job import Job, unspool
from benchframe.engine.worker import ChangedSource
from benchframe.engine.worker import main as worker_main


@dataclass
class Correctness:
    ok: bool
    what: str = ""
    event: int = -1


@dataclass
class Times:
    loops: int
    seconds: float
    lookup_ns: float
    fault_ns: float
    mapping_ns: float
    replay_ns: float
    taken: int
    quiet: int


@dataclass
class Latency:
    figure: str
    outcome: str
    n: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class FakeSession:
    """Needs 1 ms of made-up time a loop, and no real time."""

    n_lookups, n_faults, n_mapping, n_events = 600, 400, 0, 1000
    timer_overhead_ns = 7.0
    control = 0.0

    def __init__(self, job: Job) -> None:
        self.name = job.strategy
        self.random = random.Random(f"{job.strategy} {job.layout_seed}")
        digits = "".join(c for c in job.strategy if c.isdigit())
        self.speed = float(digits or 30)
        if job.strategy == "edited":
            raise ChangedSource("strategy edited was edited during the run")
        assert len(unspool(job)) >= unspool(job).setup

    def verify(self) -> Correctness:
        if self.name == "wrong":
            return Correctness(False, "find_vma(0x1000) gave NIL,\nthe oracle says [0x1000, 0x2000)", 17)
        if self.name == "crash":
            raise IndexError("slot 99 is out of range")
        if self.name == "segv":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.name == "hang":
            time.sleep(600)
        if self.name == "mute":
            os._exit(0)
        if self.name.startswith("slow"):
            time.sleep(0.2)
        return Correctness(True)

    def measure(self, loops: int, most: float = 2.0) -> Times:
        ns = self.speed * self.random.uniform(0.99, 1.01)
        return Times(loops, 1e-3 * loops, ns, 4 * ns, float("nan"), 2 * ns, taken=loops, quiet=loops)

    def settle(self, times: Times) -> Times:
        return times

    def counts(self) -> dict[str, float]:
        return {"lookups": 600, "hits": 450, "hit_rate": 0.75, "invalidations": 3, "nan": float("nan")}

    def latencies(self) -> list[Latency]:
        never = float("nan")
        return [
            Latency("fault", "miss", 0, never, never, never, never, never),
            Latency("lookup", "hit", 450, 20, 25, 40, 90, 1000),
            Latency("lookup", "miss", 150, 60, 65, 90, 200, 2000),
        ]


def main() -> int:
    """What the worker's command calls."""
    return worker_main(opener=FakeSession)
