"""The public interface for workloads: parameters, and a stream of events as a :class:`Trace`.

A plugin provides :class:`Workload` objects, each with its :class:`Parameter` list and a function that makes a trace for
a seed. :mod:`stream` lays out address spaces and makes rows in bulk. :class:`Kind` and :class:`FaultFlag` describe
events. docs/writing-a-workload.md begins with an example. All names stay stable between versions.
"""

from benchframe import stream
from benchframe.events import EVENT, NIL, UNKNOWN, FaultFlag, Kind
from benchframe.trace.meta import FileEntry, TraceMeta
from benchframe.trace.trace import Trace, read_trace
from benchframe.workload import Parameter, Workload, trace_workload

__all__ = [
    "EVENT",
    "NIL",
    "UNKNOWN",
    "FaultFlag",
    "FileEntry",
    "Kind",
    "Parameter",
    "Trace",
    "TraceMeta",
    "Workload",
    "read_trace",
    "stream",
    "trace_workload",
]
