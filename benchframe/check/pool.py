"""The parts of a check on several cores: worker processes that ask for one part after the other.

Workers are forked, so they have strategies and scenarios as they are, with nothing to pickle on the way in.
The parts and their order do not depend on the number of workers; only a part that its deadline cuts can come out
otherwise. What a share of the time cuts gets a second chance with what the others left over.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from benchframe.check.parts import Part, Result, do_part, share

EVERY = 0.2
"""Seconds between two reports of one worker."""


class Watcher:
    """Who hears how a check goes; overridden by a progress bar."""

    def executions(self, more: int) -> None:
        """``more`` executions have been made."""

    def done(self, index: int, result: Result) -> None:
        """Part ``index`` is done."""

    def found(self, index: int, text: str) -> None:
        """Part ``index`` has met a failure; it will be told again, shortened, with the part's result."""

    def close(self) -> None:
        """There will be no more."""


def run_parts(parts: Sequence[Part], deadline: float, jobs: int, watcher: Watcher) -> None:
    """Do all ``parts`` by ``deadline`` (time.monotonic), or nearly, in ``jobs`` processes. KeyboardInterrupt passes."""
    agenda = _Agenda(len(parts), deadline, max(1, min(jobs, len(parts))))
    if agenda.jobs == 1:
        while (piece := agenda.take()) is not None:
            index, until = piece
            reporter = _Reporter(lambda text, index=index: watcher.found(index, text), watcher.executions)  # type: ignore[misc]
            final = agenda.hand_in(index, do_part(parts[index], until, reporter.tick, reporter.found))
            if final is not None:
                watcher.done(index, final)
        return
    context = multiprocessing.get_context("fork")
    working: dict[Connection, tuple[int, Any]] = {}
    processes = []
    try:
        for _ in range(agenda.jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(parts, theirs, [ours, *working]), daemon=True)
            with warnings.catch_warnings():
                # 3.12 on: the fork of a process with threads. NumPy's are idle, and the checker does not use them.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            processes.append(process)
            working[ours] = (-1, process)
            _next(ours, process, agenda, working)
        while any(index >= 0 for index, _ in working.values()):
            for ready in wait(list(working)):
                assert isinstance(ready, Connection)
                index, process = working[ready]
                try:
                    kind, value = ready.recv()
                except (EOFError, OSError):
                    process.join()
                    del working[ready]
                    if index >= 0:
                        died = f"{parts[index].name:24} NOT checked: its process ended with code {process.exitcode}"
                        watcher.done(index, Result((died,), wrong=True))
                    if not working and agenda:
                        raise RuntimeError("no worker process is left") from None
                    continue
                if kind == "executions":
                    watcher.executions(value)
                elif kind == "found":
                    watcher.found(index, value)
                else:
                    final = agenda.hand_in(index, value)
                    if final is not None:
                        watcher.done(index, final)
                    _next(ready, process, agenda, working)
                    for idle, (other, its) in list(working.items()):  # what was handed in may be for who had nothing
                        if other < 0 and idle is not ready and agenda:
                            _next(idle, its, agenda, working)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        for connection in working:
            connection.close()


def _next(connection: Connection, process: Any, agenda: _Agenda, working: dict[Connection, tuple[int, Any]]) -> None:
    piece = agenda.take()
    if piece is None:
        working[connection] = (-1, process)
        return
    index, until = piece
    working[connection] = (index, process)
    connection.send((index, until - time.monotonic()))


class _Agenda:
    """Which part is next, and until when. A search that its share cut begins anew when all others are done, if there is
    twice the time that it had: few parts need much of it, and nobody knows which."""

    def __init__(self, parts: int, deadline: float, jobs: int) -> None:
        self.jobs = jobs
        self._deadline = deadline
        self._first = list(range(parts))
        self._again: list[int] = []
        self._began: dict[int, float] = {}
        self._cut: dict[int, Result] = {}

    def __bool__(self) -> bool:
        return bool(self._first or self._again)

    def take(self) -> tuple[int, float] | None:
        """A part's number and its deadline; None if there is none left to begin."""
        now = time.monotonic()
        if self._first:
            until = share(self._deadline, len(self._first))
            index = self._first.pop(0)
        elif self._again:
            until = now + max(self._deadline - now, 0.2) * min(1.0, self.jobs / len(self._again))
            index = self._again.pop(0)
        else:
            return None
        self._began[index] = now
        return index, until

    def hand_in(self, index: int, result: Result) -> Result | None:
        """The part's final result, or None if it will be taken again."""
        now = time.monotonic()
        before = self._cut.pop(index, None)
        if before is not None:
            return result if result.complete or result.findings or result.executions > before.executions else before
        cut = not (result.complete or result.wrong) and result.executions > 0
        if cut and self._deadline - now > 2 * (now - self._began[index]):
            self._cut[index] = result
            self._again.append(index)
            return None
        return result


class _Reporter:
    """Passes counts on now and then, failures at once."""

    def __init__(self, found: Callable[[str], None], executions: Callable[[int], None]) -> None:
        self.found, self._executions = found, executions
        self._told, self._when = 0, time.monotonic()

    def tick(self, executions: int) -> None:
        """There were ``executions`` so far."""
        now = time.monotonic()
        if now - self._when >= EVERY:
            self._executions(executions - self._told)
            self._told, self._when = executions, now


def _work(parts: Sequence[Part], connection: Connection, others: Sequence[Connection]) -> None:
    """A worker's life: Ctrl-C is the parent's to handle, and when the parent is gone there is nothing left to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:
        other.close()
    try:
        while True:
            index, seconds = connection.recv()
            reporter = _Reporter(
                lambda text: connection.send(("found", text)), lambda more: connection.send(("executions", more))
            )
            result = do_part(parts[index], time.monotonic() + seconds, reporter.tick, reporter.found)
            connection.send(("done", result))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
