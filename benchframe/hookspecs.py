"""The hooks that a plugin may fill: four plain functions, each returning what it brings.

A plugin is a module. It marks the functions it fills with :data:`hookimpl` (``from benchframe.api import hookimpl``)
and is found through an entry point of the group ``benchframe`` or named with ``--plugin FILE``; docs/plugins.md
explains it, :mod:`benchframe.registry` does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from benchframe.races import Historic
    from benchframe.strategy import Strategy
    from benchframe.workload import Workload

PROJECT = "benchframe"
"""The name of the plugin system and of the entry point group."""


class Moved(DeprecationWarning):
    """A plugin asks for a name where an earlier version had it. The registry collects these: ``Registry.notes``."""


hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def benchframe_strategies() -> list[Strategy]:  # type: ignore[empty-body]  # a specification has no body
    """The lookup strategies that this plugin brings. Called once, right after loading; must not compile anything."""


@hookspec
def benchframe_workloads() -> list[Workload]:  # type: ignore[empty-body]
    """The workloads that this plugin brings. Called once, right after loading; must not make any stream yet."""


@hookspec
def benchframe_metadata() -> dict[str, str]:  # type: ignore[empty-body]
    """Keys and texts to keep with every result, such as a firmware version. Called once per run."""


@hookspec
def benchframe_historic() -> list[Historic]:  # type: ignore[empty-body]
    """Races that once were, put back: what `benchframe check --historic` shows. Called when they are asked for."""


HOOKS = ("benchframe_strategies", "benchframe_workloads", "benchframe_metadata", "benchframe_historic")
"""The names of all hooks; each name begins with the project's."""
