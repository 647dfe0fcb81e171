"""What a plugin is made of: the promise that benchframe keeps between versions. Three modules are for plugins.

======================  ===============================================================================================
`benchframe.api`        any plugin: :data:`hookimpl`. A strategy: :class:`Strategy` = :class:`Index` + :class:`Cache` +
                        :class:`Protocol`; :class:`PrivateSlab` of :class:`Field`: its own memory; :func:`native` marks
                        its functions, :func:`hook` declares places that another plugin may fill; :class:`CSource`: code
                        in C; :mod:`scenario`: scenarios for the checker, and races that are known
`benchframe.kernel`     what strategy code calls: records, flags, primitives, locks, functions of the model's mm
`benchframe.workloads`  what a workload is made of: parameters, streams, traces
======================  ===============================================================================================

Up to 0.1 all names were here. They still can be imported from here, with a :class:`DeprecationWarning`, until 0.3.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchframe.cstrategy import CSource
from benchframe.dialect import Field, hook, native
from benchframe.hookspecs import Moved, hookimpl
from benchframe.strategy import Cache, Index, PrivateSlab, Protocol, Strategy

if TYPE_CHECKING:
    from benchframe import scenario

__all__ = [
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
    """:mod:`scenario`, which needs NumPy, when it is asked for; or a name of 0.1 that lives in another module now, with
    a warning (PEP 562). Raises AttributeError."""
    if name == "scenario":
        return import_module("benchframe.scenario")
    for door in _DOORS:
        module = import_module(door)
        if name in module.__all__:
            warnings.warn(f"{name} is in {door} now, no longer in benchframe.api", Moved, stacklevel=2)
            return getattr(module, name)
    raise AttributeError(f"benchframe.api has no {name!r}")
