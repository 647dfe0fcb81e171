"""The oracle: a naive model of an address space that shares no code with the compiled one and judges it.

Reading order: :mod:`rules` (what may differ between kernels, and the flags), :mod:`space` (one mapping, and the sorted
list of them), :mod:`merge` (the eight cases), :mod:`calls` (the system calls and faults), then :mod:`mremap`,
:mod:`madvise`, and :mod:`replayer` (a whole trace).
"""

from benchframe.oracle.calls import Oracle
from benchframe.oracle.replayer import Answers, Replayer, replay
from benchframe.oracle.rules import RULE_NAMES, Advice, FaultError, Limits, Rules, flip
from benchframe.oracle.space import Area, Backing

__all__ = [
    "RULE_NAMES",
    "Advice",
    "Answers",
    "Area",
    "Backing",
    "FaultError",
    "Limits",
    "Oracle",
    "Replayer",
    "Rules",
    "flip",
    "replay",
]
