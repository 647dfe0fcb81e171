"""The nominal statistics of the shipped workloads: ``data/nominal.json``, which ``python tools/nominal.py`` writes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files

from benchframe.workloads import Workload


@cache
def table() -> dict[str, dict[str, float]]:
    """From a workload's name to its statistics."""
    text = (files("benchframe_workloads") / "data" / "nominal.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, float]] = json.loads(text)
    return found


def with_nominal(workloads: Sequence[Workload]) -> list[Workload]:
    """The workloads, each with its statistics; one that the file does not have stays without."""
    return [replace(workload, nominal=table().get(workload.name, {})) for workload in workloads]
