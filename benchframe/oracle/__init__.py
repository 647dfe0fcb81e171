"""The oracle: a naive model of an address space that shares no code with the compiled one and judges it.

A reading order: :mod:`flags` (the numbers), :mod:`rules` (what may differ between kernels), :mod:`area` (one
mapping), :mod:`space` (the sorted list), :mod:`merge` (the eight cases), :mod:`calls` (the system calls), then
:mod:`mremap`, :mod:`advice`, :mod:`faults`, and :mod:`replayer` (a whole trace).
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
