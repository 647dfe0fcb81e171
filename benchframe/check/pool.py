"""The parts of a check on several cores: worker processes that ask for one part after the other.

Workers are forked, so they have strategies and scenarios as they are, with nothing to pickle on the way in.
The parts and their order do not depend on the number of workers; only a part that its deadline cuts can come out
otherwise.
"""

from __future__ import annotations

import multiprocessing
import os
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
    if min(jobs, len(parts)) <= 1:
        for index, part in enumerate(parts):
            reporter = _Reporter(lambda text, index=index: watcher.found(index, text), watcher.executions)  # type: ignore[misc]
            watcher.done(index, do_part(part, share(deadline, len(parts) - index), reporter.tick, reporter.found))
        return
    context = multiprocessing.get_context("fork")
    todo = list(range(len(parts)))
    working: dict[Connection, tuple[int, Any]] = {}
    processes = []
    try:
        for _ in range(min(jobs, len(parts))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(parts, theirs, [ours, *working]), daemon=True)
            with warnings.catch_warnings():
                # 3.12 on: the fork of a process with threads. NumPy's are idle, and the checker does not use them.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            processes.append(process)
            working[ours] = (-1, process)
            _next(ours, process, todo, working, deadline)
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
                    if not working and todo:
                        raise RuntimeError("no worker process is left") from None
                    continue
                if kind == "executions":
                    watcher.executions(value)
                elif kind == "found":
                    watcher.found(index, value)
                else:
                    watcher.done(index, value)
                    _next(ready, process, todo, working, deadline)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        for connection in working:
            connection.close()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _next(
    connection: Connection, process: Any, todo: list[int], working: dict[Connection, tuple[int, Any]], deadline: float
) -> None:
    if not todo:
        working[connection] = (-1, process)
        return
    until = share(deadline, len(todo))
    index = todo.pop(0)
    working[connection] = (index, process)
    connection.send((index, until - time.monotonic()))


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
