"""Replaying a trace that does not fit into memory: batch by batch on one machine, each batch judged, then dropped.

A batch is replayed once, timed; with ``verify`` the answers are taken too (the counted build: its rate is lower) and
compared with the oracle, which is fed the same batches. Memory is bounded by a batch and the address spaces.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.engine.runner import NativeRunner, unit_store
from benchframe.engine.stream import prepare
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.oracle import Replayer
from benchframe.verify import differs, limits, rules, wrong_answers

if TYPE_CHECKING:
    from benchframe.strategy import Strategy

Array = npt.NDArray[Any]
ROOM = Sizes(mms=1 << 10, tasks=1 << 16, vmas=1 << 21, tables=1 << 18, pages=1 << 23, files=1 << 16)
"""Capacities where the length of the stream is not known; what is not used is never touched."""


@dataclass
class Progress:
    """What a streamed replay did so far. ``seconds`` is the time inside the native replay."""

    events: int = 0
    seconds: float = 0.0
    wrong: int = 0
    first_wrong: str = ""

    @property
    def rate(self) -> float:
        """Events a second inside the replay."""
        return self.events / self.seconds if self.seconds else 0.0


class StreamReplay:
    """One strategy and a stream that comes in batches of at most ``rows`` events.

    Raises DialectError (does not compile) and MemoryError (a slab of ROOM is full).
    """

    def __init__(self, strategy: Strategy, rows: int = 1 << 20, *, verify: bool = False) -> None:
        self.strategy, self.parameters = strategy, Parameters()
        self.runner = NativeRunner(strategy, unit_store())
        self.machine = Machine(self.runner, replace(ROOM, events=rows), self.parameters, strategy.slabs)
        self.oracle = Replayer(rules(self.parameters), limits(self.parameters)) if verify else None
        self.progress = Progress()
        self._tasks: dict[int, set[int]] = {}

    def run(self, batches: Iterable[Array]) -> Progress:
        """Replay all ``batches`` (arrays of EVENT)."""
        for events in batches:
            self.feed(events)
        return self.progress

    def feed(self, events: Array) -> None:
        """Replay one batch."""
        stream = prepare(events, self._tasks)
        for number in stream.boots:
            self.machine.boot(number)
        count = len(events)
        self.machine.arrays["event_base"][:count] = stream.records
        began = time.perf_counter()
        if self.oracle is None:
            self.runner.timed(0, count)
        else:
            self.runner.replay(0, count)
        self.progress.seconds += time.perf_counter() - began
        self.machine.raise_if_full()
        if self.oracle is not None:
            self._judge(events)
        self.progress.events += count

    def _judge(self, events: Array) -> None:
        assert self.oracle is not None
        right = self.oracle.feed(events)
        ours = self.machine.arrays["answer_base"][: len(events)]
        wrong = wrong_answers(events, ours, right.ret, right.vm_start, right.vm_end)
        if wrong.any() and not self.progress.first_wrong:
            row = int(np.argmax(wrong))
            wanted = (int(right.ret[row]), int(right.vm_start[row]), int(right.vm_end[row]))
            number = self.progress.events + row
            self.progress.first_wrong = differs(number, events[row], ours[row], wanted, self.strategy.name)
        self.progress.wrong += int(np.count_nonzero(wrong))
