"""What is saved beside the cells: studies, and the sources of the strategies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from benchframe.errors import ResultsError, disk_error
from benchframe.files import Fields, other_version, read_object, slug, write_json
from benchframe.results.manifest import host

if TYPE_CHECKING:
    from benchframe.strategy import Strategy


# ----------------------------------------------------------------------------------------------------------------------
# The source of each strategy of a run, kept in ``sources.json``.
#
# A report shows the text that was measured, though the plugin may be edited or gone by then. Texts are shown, never
# run.

SOURCES = "sources.json"
MAX_SOURCE = 1 << 18
"""Characters of one source that are kept (256 KiB; the longest built-in one has 35)."""
MAX_SOURCES = 4096


@dataclass(frozen=True)
class Source:
    """One plugin's text: ``module`` is where it is imported from, ``text`` its file, or those of its package,
    ``summary`` the strategy's line, ``digest`` sha256 (hex) of ``text``."""

    module: str
    summary: str
    text: str
    digest: str


def sources_of(strategies: Iterable[Strategy]) -> dict[str, Source]:
    """The text of each strategy that can be read, by the strategy's name: its file; of a package all files, each under
    a line with its name. O(bytes)."""
    found = {}
    for strategy in strategies:
        with suppress(OSError, UnicodeDecodeError, AttributeError):
            path = Path(strategy.file)
            if path.name == "__init__.py":
                files = sorted(path.parent.glob("*.py"))
                text = "\n\n".join(
                    f"# ==== {file.parent.name}/{file.name} ====\n\n{file.read_text('utf-8')}" for file in files
                )
            else:
                text = path.read_text(encoding="utf-8")
            text = text[:MAX_SOURCE]
            digest = hashlib.sha256(text.encode()).hexdigest()
            found[strategy.name] = Source(strategy.module, strategy.summary, text, digest)
    return found


def write_sources(folder: Path, sources: Mapping[str, Source]) -> None:
    """Write ``sources.json``, each text once (strategies often share a file); raises ResultsError."""
    texts = {source.digest: source.text for source in sources.values()}
    entries = {}
    for name, source in sources.items():
        entries[name] = {key: value for key, value in asdict(source).items() if key != "text"}
    write_json(folder / SOURCES, {"version": 1, "strategies": entries, "texts": texts})


def read_sources(folder: Path) -> dict[str, Source]:
    """What :func:`write_sources` wrote; empty for a run without the file. Raises ResultsError."""
    path = folder / SOURCES
    if not path.exists():
        return {}
    data = Fields(path, read_object(path))
    texts = data.data.get("texts", {})
    entries = data.object("strategies")
    if not isinstance(texts, dict) or len(texts) > MAX_SOURCES or len(entries.data) > MAX_SOURCES:
        raise data.wrong("texts", "is not an object of a plausible size")
    found = {}
    for name in entries.data:
        entry = entries.object(name)
        digest = entry.text("digest", pattern="[0-9a-f]{64}")
        text = texts.get(digest)
        if not isinstance(text, str) or len(text) > MAX_SOURCE:
            raise data.wrong(f"texts.{digest}", "is not a text")
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            raise data.wrong(f"texts.{digest}", "has another digest: it was edited")
        found[name] = Source(entry.text("module"), entry.text("summary"), text, digest)
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Studies kept beside a run (``explain``, ``breakeven``, ``simulate`` ...): ``studies/NAME.json``, a table and what to
# draw.
#
# A report shows them as sections. They hold texts and numbers only; what is drawn of them is decided by who draws.

STUDIES = "studies"
KINDS = ("explain", "breakeven", "layout", "simulate")
MAX_STUDIES = 64
"""Studies of one run that are read."""
MAX_POINTS = 1024
MAX_ROWS = 4096


@dataclass(frozen=True)
class Mark:
    """A number with its 95 % interval, at ``x`` (a curve's points) or under ``label`` (bars)."""

    value: float
    low: float
    high: float
    x: float = 0.0
    label: str = ""


@dataclass(frozen=True)
class Curve:
    """A ratio against a parameter; ``crossings`` (value, low, high on the x axis) are where it goes through 1."""

    title: str
    x_title: str
    y_title: str
    log: bool
    points: tuple[Mark, ...]
    crossings: tuple[Mark, ...] = ()
    below: str = ""
    """What it means to be below 1."""


@dataclass(frozen=True)
class Bars:
    """Numbers by label, each with its interval; ``axis`` has their unit."""

    title: str
    axis: str
    items: tuple[Mark, ...]


@dataclass(frozen=True)
class Series:
    """One strategy's points of a plot; ``low`` and ``high`` of a mark are its band."""

    label: str
    points: tuple[Mark, ...]


@dataclass(frozen=True)
class Plot:
    """Numbers of several strategies by a count, both axes logarithmic; ``ideal`` is the line without contention."""

    title: str
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    ideal: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Stack:
    """Bars of parts that add up: (label, ((part, value), ...)) each; ``axis`` has the unit."""

    title: str
    axis: str
    bars: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]


@dataclass(frozen=True)
class SavedStudy:
    """One study: ``title`` and ``note`` in words, its table, its pictures, the ``command`` that makes it again, when
    (``created``) and where (``host``) it was made."""

    kind: str
    title: str
    note: str
    command: tuple[str, ...]
    heads: tuple[str, ...]
    right: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    curves: tuple[Curve, ...] = ()
    bars: tuple[Bars, ...] = ()
    strategies: tuple[str, ...] = ()
    created: str = ""
    hostname: str = ""
    plots: tuple[Plot, ...] = ()
    stacks: tuple[Stack, ...] = ()


def write_study(folder: Path, study: SavedStudy) -> Path:
    """Keep ``study`` in the run ``folder``, in the place of one of the same title; gives its path. ResultsError."""
    path = folder / STUDIES / f"{study.kind}-{slug(study.title.lower(), 80, otherwise='study')}.json"
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise disk_error(path, error, "written") from None
    write_json(path, {"version": 1, **asdict(study), "created": now, "hostname": host()["hostname"]})
    return path


def read_studies(folder: Path) -> tuple[SavedStudy, ...]:
    """The studies kept in a run, by kind and name; none for a run without. Raises ResultsError."""
    paths = sorted((folder / STUDIES).glob("*.json"))
    if len(paths) > MAX_STUDIES:
        raise ResultsError(folder / STUDIES, f"it holds more than {MAX_STUDIES} studies", "move some of them away")
    found = [_read(path) for path in paths]
    return tuple(sorted(found, key=lambda study: (KINDS.index(study.kind), study.title)))


def _read(path: Path) -> SavedStudy:
    data = Fields(path, read_object(path))
    if data.data.get("version") != 1:
        raise other_version(data.where, data.data.get("version"), 1)
    heads = data.texts("heads", 32)
    rows = [_row(data, i, row, len(heads)) for i, row in enumerate(data.items("rows", MAX_ROWS))]
    right = data.items("right", 32)
    if len(right) != len(heads) or not all(isinstance(flag, bool) for flag in right):
        raise data.wrong("right", "is not a flag per head")
    return SavedStudy(
        kind=data.text("kind", pattern="|".join(KINDS)),
        title=data.text("title"),
        note=data.text("note", ""),
        command=data.texts("command"),
        heads=heads,
        right=tuple(right),
        rows=tuple(rows),
        notes=data.texts("notes"),
        curves=tuple(_curve(curve) for curve in data.objects("curves", 16)),
        bars=tuple(
            Bars(bars.text("title"), bars.text("axis"), _marks(bars, "items")) for bars in data.objects("bars", 64)
        ),
        plots=tuple(_plot(plot) for plot in data.objects("plots", 16)),
        stacks=tuple(_stack(stack) for stack in data.objects("stacks", 16)),
        strategies=data.texts("strategies", 64),
        created=data.text("created", ""),
        hostname=data.text("hostname", ""),
    )


def _row(data: Fields, number: int, row: object, width: int) -> tuple[str, ...]:
    texts = Fields(data.where, {"row": row}, f"rows[{number}].").texts("row", 32)
    if len(texts) != width:
        raise data.wrong(f"rows[{number}]", f"does not have {width} members")
    return texts


def _curve(data: Fields) -> Curve:
    points = _marks(data, "points")
    log = data.flag("log")
    if not points or (log and any(point.x <= 0 for point in points)) or not _positive(points):
        raise data.wrong("points", "are not points of a ratio")
    return Curve(
        data.text("title"),
        data.text("x_title"),
        data.text("y_title"),
        log,
        points,
        _marks(data, "crossings"),
        data.text("below", ""),
    )


def _plot(data: Fields) -> Plot:
    series = tuple(Series(one.text("label"), _marks(one, "points")) for one in data.objects("series", 64))
    ideal = _marks(data, "ideal")
    every = [mark for marks in (ideal, *(one.points for one in series)) for mark in marks]
    if not every or not _positive(every) or any(mark.x <= 0 for mark in every):
        raise data.wrong("series", "are not points above zero")
    return Plot(data.text("title"), data.text("x_title"), data.text("y_title"), series, ideal)


def _stack(data: Fields) -> Stack:
    bars = []
    for number, bar in enumerate(data.items("bars", MAX_POINTS)):
        if not isinstance(bar, list) or len(bar) != 2 or not isinstance(bar[1], list) or len(bar[1]) > 64:
            raise data.wrong(f"bars[{number}]", "is not a label and its parts")
        pairs = [pair for pair in bar[1] if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)]
        if len(pairs) != len(bar[1]):
            raise data.wrong(f"bars[{number}]", "has a part that is not a name and a number")
        label = Fields(data.where, {"label": bar[0]}, data.inside).text("label")
        numbers = Fields(data.where, {"parts": dict(pairs)}, data.inside).numbers("parts", 64)
        bars.append((label, tuple(numbers.items())))
    return Stack(data.text("title"), data.text("axis"), tuple(bars))


def _positive(marks: Sequence[Mark]) -> bool:
    return all(min(mark.value, mark.low, mark.high) > 0 for mark in marks)


def _marks(data: Fields, name: str) -> tuple[Mark, ...]:
    found = []
    for mark in data.objects(name, MAX_POINTS):
        numbers = {key: mark.data[key] for key in ("value", "low", "high", "x") if key in mark.data}
        values = Fields(mark.where, {"numbers": numbers}, mark.inside).numbers("numbers", 4)
        if not {"value", "low", "high"} <= values.keys():
            raise mark.wrong("", "lacks value, low or high")
        found.append(Mark(values["value"], values["low"], values["high"], values.get("x", 0.0), mark.text("label", "")))
    return tuple(found)
