"""What makes two runs incomparable: another machine, another program under test, other events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchframe.compare.sides import Side
from benchframe.engine.content import model_name
from benchframe.results.manifest import Manifest

MODEL = "the model"
_VERSIONS = {
    "python": "Python",
    "numba": "Numba",
    "llvmlite": "llvmlite",
    "numpy": "NumPy",
    "model": MODEL,
}
_HOST = {"cpu": "CPU model", "cpus": "number of CPUs", "machine": "architecture", "kernel": "kernel"}
_SETTINGS = {"aslr": "address space randomisation", "cpu_config": "CPU settings (governor, turbo, idle)"}
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Difference:
    """``what`` is ``first`` in the one run and ``second`` in the other; ``refuses``: figures are not comparable."""

    what: str
    first: str
    second: str
    refuses: bool = True

    def __str__(self) -> str:
        return f"{self.what}: {self.first} against {self.second}"


def differences(a: Side, b: Side, workloads: Iterable[str]) -> list[Difference]:
    """All that differs between the runs and may move a figure, for the ``workloads`` that are compared.

    Refused: CPU model and number, architecture, kernel, ASLR, governor and other CPU settings, Python, Numba, llvmlite,
    NumPy, the model, a workload's events, the depth of values. Only told: the host's name, the versions of benchframe
    and pyperf, pinning, and a strategy's source, which is what one usually compares. Within one run: none.
    """
    if a.folder.path.resolve() == b.folder.path.resolve():
        return []
    one, two = a.folder.manifest, b.folder.manifest
    found = []
    for names, first, second in (
        (_HOST, one.host, two.host),
        (_VERSIONS, one.versions, two.versions),
        (_SETTINGS, _settings(a), _settings(b)),
    ):
        found += [Difference(text, *pair) for key, text in names.items() if (pair := _pair(first, second, key))]
    for label in workloads:
        digests = one.workload(label).digest, two.workload(label).digest
        if digests[0] != digests[1]:
            found.append(Difference(f"events of {label}", digests[0][:12], digests[1][:12]))
    depths = _depth(one), _depth(two)
    if depths[0] != depths[1]:
        found.append(Difference("values per process", *depths))
    if pair := _pair(one.host, two.host, "hostname"):
        found.append(Difference("host", *pair, refuses=False))
    found += [
        Difference(key, *pair, refuses=False)
        for key in ("benchframe", "pyperf")
        if (pair := _pair(one.versions, two.versions, key))
    ]
    if one.options.cpu != two.options.cpu:
        found.append(Difference("pinned to", _cpu(one), _cpu(two), refuses=False))
    return found


def edited(a: Side, b: Side, pairs: Iterable[tuple[tuple[str, str], tuple[str, str]]]) -> list[Difference]:
    """Strategies of one name whose source differs between the runs: told, not refused."""
    found: dict[str, Difference] = {}
    for first, second in pairs:
        x, y = a.cells[first].entry.strategy_digest, b.cells[second].entry.strategy_digest
        if first[1] == second[1] and x != y:
            found[first[1]] = Difference(f"source of {first[1]}", x[:12] or UNKNOWN, y[:12] or UNKNOWN, refuses=False)
    return list(found.values())


def _pair(one: Mapping[str, str], two: Mapping[str, str], key: str) -> tuple[str, str] | None:
    x, y = one.get(key, UNKNOWN), two.get(key, UNKNOWN)
    if key == "model" and model_name(x) == model_name(y):
        return None
    return None if x == y else (x, y)


def _settings(side: Side) -> dict[str, str]:
    """What pyperf noted of the machine in the first process that there is."""
    for cell in side.cells.values():
        for processes in cell.figures.values():
            if processes:
                metadata = processes[0].metadata
                return {key: str(metadata.get(key, UNKNOWN)) for key in _SETTINGS}
    return {}


def _depth(manifest: Manifest) -> str:
    options = manifest.options
    return f"{options.values} of {options.min_time:g} s after {options.warmups} warm-ups"


def _cpu(manifest: Manifest) -> str:
    return "no CPU" if manifest.options.cpu < 0 else f"CPU {manifest.options.cpu}"
