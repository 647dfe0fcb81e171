"""An end to strategy code that has none: a limit on the CPU time of what runs by the interpreter.

An endless loop that meets no other task gives the scheduler no turn, and Python cannot see that it is endless. The
timer is the process's own CPU time, so a busy machine does not shorten it.
"""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = str(Path(__file__).resolve().parent.parent)
MISTAKES = (
    IndexError, ArithmeticError, RuntimeError, MemoryError, AttributeError, TypeError, NameError, ValueError,
)  # fmt: skip
"""What Python raises where strategy code goes wrong."""


class Endless(Exception):
    """Strategy code took more CPU time than it was given."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Raise Endless in what runs within after ``seconds`` of CPU time. In another thread than the main one, and where
    there is no such timer, nothing is limited."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Endless(f"no end after {seconds:g} s of CPU time; is there an endless loop?")

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def told(error: BaseException) -> str:
    """``error`` as one line, with the innermost line of a plugin's file that was running."""
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, Endless) else f"{type(error).__name__}: "
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((PACKAGE, "<"))]
    place = f", in {own[-1].name} ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return f"{kind}{text}{place}"
