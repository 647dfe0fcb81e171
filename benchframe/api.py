"""All that a plugin may import, and nothing else: the promise that benchframe keeps between versions.

=================  ===================================================================================
for                names
=================  ===================================================================================
any plugin         :data:`hookimpl`
workloads          :class:`Workload`, :class:`Parameter`, :class:`Trace`, :class:`TraceMeta`,
                   :func:`read_trace`, :func:`trace_workload`, :mod:`stream` (rows and layouts in bulk)
events             :class:`Kind`, :class:`FaultFlag`, :data:`EVENT`, :data:`NIL`, :data:`UNKNOWN`
=================  ===================================================================================

A name is imported from its home when it is first asked for, so a plugin pays only for what it uses.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchframe import stream
    from benchframe.hookspecs import hookimpl
    from benchframe.trace.events import EVENT, NIL, UNKNOWN, FaultFlag, Kind
    from benchframe.trace.format import Trace, read_trace
    from benchframe.trace.meta import TraceMeta
    from benchframe.workload import Parameter, Workload, trace_workload

__all__ = [
    "EVENT",
    "NIL",
    "UNKNOWN",
    "FaultFlag",
    "Kind",
    "Parameter",
    "Trace",
    "TraceMeta",
    "Workload",
    "hookimpl",
    "read_trace",
    "stream",
    "trace_workload",
]

_HOMES = {
    "benchframe": ("stream",),
    "benchframe.hookspecs": ("hookimpl",),
    "benchframe.trace.events": ("EVENT", "NIL", "UNKNOWN", "FaultFlag", "Kind"),
    "benchframe.trace.format": ("Trace", "read_trace"),
    "benchframe.trace.meta": ("TraceMeta",),
    "benchframe.workload": ("Parameter", "Workload", "trace_workload"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import ``name`` from its home and keep it here (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"benchframe.api has no {name!r}")
    home = import_module(_HOME[name])
    # A submodule is an attribute of its package only once it has been imported.
    found = getattr(home, name) if hasattr(home, name) else import_module(f"{home.__name__}.{name}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
