"""The public interface for plugins. It stays stable between versions and consists of three modules.

======================  ===============================================================================================
`benchframe.api`        any plugin: :data:`hookimpl`. A strategy: :class:`Strategy` = :class:`Index` + :class:`Cache` +
                        :class:`Protocol` + :class:`Allocator`; :class:`PrivateSlab` of :class:`Field`: its own memory;
                        :func:`native` marks its functions, :func:`hook` declares hooks that another plugin may fill;
                        :class:`CSource`: code in C; :mod:`scenario`: scenarios for the checker, and known races
`benchframe.kernel`     what strategy code calls: records, flags, primitives, locks, functions of the model's mm
`benchframe.workloads`  what a workload is made of: parameters, streams, traces
======================  ===============================================================================================

In 0.1 this module held all names. They can still be imported from here, with a :class:`DeprecationWarning`, until 0.3.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchframe.cstrategy import CSource
from benchframe.dialect import Field, hook, native
from benchframe.strategy import Allocator, Cache, Index, Moved, PrivateSlab, Protocol, Strategy, hookimpl

if TYPE_CHECKING:
    from benchframe import scenario

__all__ = [
    "Allocator",
    "CSource",
    "Cache",
    "Field",
    "Index",
    "PrivateSlab",
    "Protocol",
    "Strategy",
    "hook",
    "hookimpl",
    "native",
    "scenario",
]

_DOORS = ("benchframe.kernel", "benchframe.workloads")


def __getattr__(name: str) -> Any:
    """Import :mod:`scenario` (which needs NumPy) on first use, or a name that moved to another module since 0.1, with a
    warning (PEP 562). Raises AttributeError for any other name."""
    if name == "scenario":
        return import_module("benchframe.scenario")
    for door in _DOORS:
        module = import_module(door)
        if name in module.__all__:
            warnings.warn(f"{name} is in {door} now, no longer in benchframe.api", Moved, stacklevel=2)
            return getattr(module, name)
    raise AttributeError(f"benchframe.api has no {name!r}")
