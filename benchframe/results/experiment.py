"""An experiment file: what `benchframe run` is to measure, in TOML, to be kept beside a paper's text and run again.
:class:`Scaling` is the same for `benchframe simulate`.

::

    strategies = ["pmdcache", "vmacache"]
    workloads = ["zipf:vmas=10..1e4:log,alpha=1.2", "uniform"]
    traces = ["firefox.parquet"]
    skip = ["vmacache@uniform"]
    mode = "rigorous"

    [labels]
    uniform = "Uniform accesses"

    [[plugins]]
    file = "mine.py"
    sha256 = "9f86d081..."

Every member is an option of `benchframe run` and has its default. Paths are relative to the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from benchframe.engine.caches import Caches
from benchframe.engine.job import DEPTHS
from benchframe.errors import ResultsError, did_you_mean, disk_error
from benchframe.files import parse_toml, read_limited
from benchframe.results.manifest import (
    MAX_THREADS,
    Few,
    Manifest,
    Name,
    Seed,
    Text,
    Texts,
    Words,
    WorkloadEntry,
    suffix,
)

MAX_FILE = 1 << 20
_UNKNOWN = "Object contains unknown field `"


class PluginFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plugin's Python file; if ``sha256`` is given, the file must be the one that was measured then."""

    file: Text
    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


class Experiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an experiment file holds; `benchframe run --help` explains each as an option. ``within`` is in per cent;
    ``labels`` maps a workload, as tables would name it, to how they are to name it."""

    strategies: Annotated[tuple[Name, ...], Meta(max_length=1000)] = ()
    workloads: Texts = ()
    traces: Texts = ()
    skip: Texts = ()
    plugins: Annotated[tuple[PluginFile, ...], Meta(max_length=100)] = ()
    labels: Words = {}
    baseline: Text = ""
    mode: Literal["quick", "default", "rigorous"] = "default"
    rounds: Few | None = None
    seed: Seed = 0
    stream_seed: Seed = 0
    threads: Annotated[tuple[Annotated[int, Meta(ge=0, le=MAX_THREADS)], ...], Meta(min_length=1, max_length=100)] = (
        0,
    )
    caches: Texts = ()
    budget: Text = ""
    timeout: Text = ""
    until_decided: bool = False
    within: Annotated[float, Meta(ge=0.1, le=50)] = 2.0
    decide: Texts = ("lookup", "fault")
    cost: bool = True
    host: bool = False
    pin: bool = True

    def plugin_files(self, folder: Path) -> list[Path]:
        """The plugins' files, from the experiment file's ``folder``. Raises ResultsError for one that was edited."""
        found = []
        for plugin in self.plugins:
            path = folder / plugin.file
            if plugin.sha256 and (digest := _sha256(path)) != plugin.sha256:
                mend = f"restore it, or write sha256 = {json.dumps(digest)}"
                raise ResultsError(path, "it is not the plugin that the experiment names: its sha256 differs", mend)
            found.append(path)
        return found


class Scaling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an experiment file of `benchframe simulate` holds; its help explains each member as an option. ``numbers``
    are other numbers for the machine (--set), ``accesses`` are in millions."""

    strategies: Annotated[tuple[Name, ...], Meta(max_length=1000)] = ()
    workloads: Texts = ()
    traces: Texts = ()
    cpus: Annotated[tuple[Annotated[int, Meta(ge=1, le=MAX_THREADS)], ...], Meta(min_length=1, max_length=100)] = (
        1, 2, 4, 8, 16, 32, 64, 128,
    )  # fmt: skip
    machine: Text = "milan-2s"
    numbers: Annotated[dict[str, float], Meta(max_length=100)] = {}
    work: Text = "none"
    layout: Text = "model"
    what_if: Texts = ()
    seeds: Annotated[int, Meta(ge=1, le=64)] = 1
    band: bool = False
    rounds: Annotated[float, Meta(ge=0.5, le=1000)] = 10.0
    accesses: Annotated[float, Meta(ge=0.1, le=1000)] = 4.0
    baseline: Text = ""
    stream_seed: Seed = 0


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise disk_error(path, error, "read") from None


def read_experiment(path: Path) -> Experiment:
    """Read and check an experiment file; raises ResultsError, which names the line or the member."""
    return _read(path, Experiment)


def read_scaling(path: Path) -> Scaling:
    """As :func:`read_experiment`, for a file of `benchframe simulate`."""
    return _read(path, Scaling)


File = TypeVar("File", bound=msgspec.Struct)


def _read(path: Path, kind: type[File]) -> File:
    mend = "correct it; docs/experiments.md lists what it may have"
    try:
        return msgspec.convert(parse_toml(read_limited(path, MAX_FILE, mend)), kind, strict=True)
    except msgspec.ValidationError as error:
        text = str(error)
        if text.startswith(_UNKNOWN):
            name = text.removeprefix(_UNKNOWN).partition("`")[0]
            known = [*kind.__struct_fields__, *PluginFile.__struct_fields__]
            raise ResultsError(path, f"it has a member {name!r}", did_you_mean(name, known)) from None
        what, _, place = text.partition(" - at `$.")
        member = f"member {place.rstrip('`')!r}: " if place else ""
        raise ResultsError(path, f"{member}{what[0].lower()}{what[1:]}", mend) from None
    except (ValueError, RecursionError) as error:
        raise ResultsError(path, f"it is not TOML ({error})", mend) from None


Plays = Callable[[WorkloadEntry, int], bool]
"""Can so many threads play the workload of this entry?"""


def like(manifest: Manifest, plays: Plays = lambda entry, threads: False) -> Experiment:
    """The experiment that measures again what a run measured, cell by cell; ``plays`` says which other numbers of
    threads would be tried, and have to be left out. Raises ResultsError for a simulated run.
    """
    if manifest.simulated:
        raise ResultsError("--like", "that run was simulated", "repeat the command that its manifest names")
    options, entries = manifest.options, manifest.workloads
    cells = {(cell.strategy, cell.workload) for cell in manifest.cells}
    names = list(dict.fromkeys(cell.strategy for cell in manifest.cells))
    baselines = {entry.baseline for entry in entries}
    labels = {}
    for entry in entries:
        own = entry.spec or Path(entry.path).stem
        if entry.base != own:
            labels[own] = entry.base
    crews = tuple(dict.fromkeys(entry.threads for entry in entries)) or (0,)
    states = tuple(dict.fromkeys(entry.state for entry in entries)) or (Caches(),)
    column = states == (Caches(),) and any(entry.cold or entry.threads for entry in entries)
    shown_as = {(entry.spec or entry.path, entry.threads, entry.state): entry for entry in entries}
    whole = []
    for source, entry in {source: entry for (source, *_), entry in shown_as.items()}.items():
        for crew, state in product(crews, states):
            if (source, crew, state) not in shown_as and (crew == 0 or plays(entry, crew)):
                whole.append(f"*@{_literally(entry.base + suffix(crew, state))}")
    left_out = [(name, entry) for entry in entries for name in names if (name, entry.label) not in cells]
    return Experiment(
        strategies=tuple(names),
        workloads=tuple(dict.fromkeys(entry.spec for entry in entries if entry.spec)),
        traces=tuple(dict.fromkeys(entry.path for entry in entries if entry.path)),
        skip=(*whole, *(f"{_literally(name)}@{_literally(entry.label)}" for name, entry in left_out)),
        plugins=tuple(PluginFile(path, _digest_now(Path(path))) for path in manifest.plugins),
        labels=labels,
        baseline=next(iter(baselines)) if len(baselines) == 1 else "",
        mode=options.mode if options.mode in DEPTHS else "default",  # type: ignore[arg-type]
        rounds=None if options.rounds == DEPTHS.get(options.mode, DEPTHS["default"]).rounds else options.rounds,
        seed=manifest.seed,
        stream_seed=entries[0].seed if entries else 0,
        threads=crews,
        caches=() if column else tuple(state.label for state in states),
        budget=f"{options.budget:g}s" if options.budget else "",
        timeout=f"{options.timeout:g}s",
        until_decided=options.until_decided,
        within=100 * options.within,
        decide=options.decide,
        cost=options.cost > 0,
        host=options.host,
        pin=options.cpu >= 0,
    )


def _literally(text: str) -> str:
    """A pattern of file names that matches ``text`` alone."""
    return "".join(f"[{one}]" if one in "*?[" else one for one in text)


def _digest_now(path: Path) -> str:
    """The digest of a plugin that is there, else nothing."""
    return _sha256(path) if path.is_file() else ""


def as_toml(experiment: Experiment, head: str = "") -> str:
    """The experiment file: what differs from the defaults, below ``head`` as a comment.

    >>> print(as_toml(Experiment(strategies=("rbtree",), rounds=5, labels={"zipf:vmas=6": "small"})), end="")
    strategies = ["rbtree"]
    rounds = 5
    <BLANKLINE>
    [labels]
    "zipf:vmas=6" = "small"
    """
    lines = [f"# {line}" for line in head.splitlines()]
    tables: list[str] = []
    default = Experiment()
    for name in Experiment.__struct_fields__:
        value = getattr(experiment, name)
        if value == getattr(default, name):
            continue
        if name == "labels":
            tables += ["", "[labels]", *(f"{_toml(key)} = {_toml(label)}" for key, label in value.items())]
        elif name == "plugins":
            for plugin in value:
                digest = [f"sha256 = {_toml(plugin.sha256)}"] if plugin.sha256 else []
                tables += ["", "[[plugins]]", f"file = {_toml(plugin.file)}", *digest]
        elif isinstance(value, tuple) and len(value) > 1 and isinstance(value[0], str):
            lines += [f"{name} = [", *(f"  {_toml(one)}," for one in value), "]"]
        else:
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _toml(value: Any) -> str:
    """A value as TOML has it; what JSON writes of texts and numbers is TOML too."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value).replace("\x7f", "\\u007f")


def labelled(labels: Mapping[str, str], label: str, threads: int, caches: Caches) -> str:
    """What tables call a workload with so many threads, or with caches in such a state."""
    return labels.get(label, label) + suffix(threads, caches)
