"""What many runs show: one strategy's history with its steps, and one static page over all of them."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchframe.errors import ResultsError
from benchframe.files import printable
from benchframe.report.bundle import SUFFIXES, unpack
from benchframe.report.table import Table, Value, bound, ns, times
from benchframe.report.write import asset, content_hash, environment
from benchframe.results.figures import rows_of
from benchframe.results.folder import RunFolder
from benchframe.results.manifest import MANIFEST, SIMULATE
from benchframe.stats.ratios import MOST, Level, levels

FLOOR = 0.001
"""The least standard error of a log value: a run of equal values is not exact either."""


@dataclass(frozen=True)
class Dated:
    """One run's value: ns, or the ratio to the baseline; ``se`` is the standard error of its logarithm."""

    run: str
    created: str
    value: float
    se: float
    digest: str
    """Of the strategy's text and what it calls."""
    versions: tuple[tuple[str, str], ...] = ()
    """Of benchframe, its model, and what it is made with."""


@dataclass(frozen=True)
class History:
    """One workload on one machine, in order of time; ``levels`` as in :mod:`benchframe.stats.ratios`, of logarithms."""

    workload: str
    machine: str
    dated: tuple[Dated, ...]
    levels: tuple[Level, ...]


def read_histories(
    folders: Iterable[Path], strategy: str, figure: str, *, absolute: bool, workloads: Sequence[str], within: float
) -> tuple[list[History], list[str]]:
    """Histories of ``strategy``, and a line for each run that cannot be read. O(values of all runs).

    A series is one workload with its baseline, events, and machine (processor, number of CPUs, kernel; its name may
    differ, as for `compare`), so that what is compared is alike. Only cells in state ok with two processes or more
    count. ``workloads``: only these labels; all if empty.
    """
    series: dict[tuple[str, ...], list[Dated]] = {}
    problems = []
    for path in folders:
        try:
            folder = RunFolder.open(path)
            if folder.manifest.options.mode == SIMULATE:
                continue
            rows = rows_of(folder.cells(), notes=False)
        except ResultsError as error:
            problems.append(error.line)
            continue
        host = folder.manifest.host
        machine = ", ".join(host[key] for key in ("cpu", "cpus", "kernel") if host.get(key))
        for row in rows:
            cell, found = row.cell, row.figures.get(figure)
            label = cell.entry.workload
            if cell.entry.strategy != strategy or found is None or (workloads and label not in workloads):
                continue
            beside = cell.workload.baseline
            if absolute:
                value = found.summary.mean
                se = found.summary.sd / math.sqrt(found.summary.n) / value if found.summary.n > 1 else math.nan
            elif found.ratio is not None:
                value, se = found.ratio.value, found.ratio.se
            else:
                continue
            if value > 0 and math.isfinite(value) and math.isfinite(se):
                key = (label, "" if absolute else beside, cell.workload.digest, machine)
                digest = cell.entry.strategy_digest
                manifest, name = folder.manifest, path.resolve().name
                versions = tuple(sorted(manifest.versions.items()))
                dated = Dated(name, manifest.created, value, max(se, FLOOR), digest, versions)
                series.setdefault(key, []).append(dated)
    histories = []
    for (label, _, _, machine), values in series.items():
        values.sort(key=lambda one: (one.created, one.run))
        kept = values[-MOST:]
        found_levels = levels([math.log(one.value) for one in kept], [one.se for one in kept], within)
        histories.append(History(label, machine, tuple(kept), tuple(found_levels)))
    return histories, problems


def changed(before: Dated, after: Dated) -> str:
    """What differs between two runs besides time: the strategy's text, versions by name; "nothing"."""
    old, new = dict(before.versions), dict(after.versions)
    others = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    return ", ".join([*(["text"] if before.digest != after.digest else []), *others]) or "nothing"


def history_table(histories: Sequence[History], strategy: str, figure: str, *, absolute: bool, within: float) -> Table:
    """A row per level: since which run it holds, its value, the step to it, and what else changed there."""
    heads = ("workload", "since", "run", "runs", "ns" if absolute else "ratio", "step", "changed")
    rows, records = [], []
    for history in histories:
        before: Level | None = None
        for level in history.levels:
            first = history.dated[level.first]
            step = math.exp(level.mean - before.mean) if before is not None else None
            text = ""
            if before is not None:
                text = changed(history.dated[level.first - 1], first)
            value = math.exp(level.mean)
            shown = ns(value) if absolute else times(value)
            change = "" if step is None else f"{100 * (step - 1):+.1f} %"
            name = "" if before is not None else printable(history.workload)
            count = f"{level.last - level.first}"
            rows.append((name, first.created[:10], printable(first.run), count, shown, change, text))
            record: dict[str, Value] = {
                "workload": history.workload, "machine": history.machine, "strategy": strategy, "figure": figure,
                "since": first.created, "run": first.run, "runs": level.last - level.first, "value": value,
                "se": level.se, "step": step, "changed": text,
            }  # fmt: skip
            records.append(record)
            before = level
    what = "ns" if absolute else "ratio to the baseline; below 1 is faster"
    notes = [
        f"{strategy}, {figure}: {what}. A row is a level that its runs share; step: from the row above.",
        f"Steps of {100 * within:g} % or less are not looked for. By chance a series shows one in 1 of 100 histories.",
        *(f"{printable(history.workload)}: {printable(history.machine)}" for history in histories),
    ]
    right = (False, False, False, True, True, True, False)
    return Table(f"history of {strategy}", heads, tuple(rows), right, tuple(records), tuple(notes), drops=((3,), (2,)))


HEADS = (
    *("strategy", "workload", "figure", "machine", "kernel", "ns", "± ns", "ratio", "low", "high"),
    *("verdict", "n", "date", "run"),
)
CHOICES = 5
"""The first columns have a choice of their values."""
MOST_ROWS = 50_000
"""The most rows of a page: browsers become slow."""


@dataclass(frozen=True)
class SiteRow:
    """A figure of a cell: texts, and the numbers to sort by (None: by text)."""

    cells: tuple[str, ...]
    sorts: tuple[float | None, ...]


@dataclass(frozen=True)
class Source:
    """A run on the page; ``link`` is the bundle beside the page or in a folder there, if it came from one."""

    name: str
    about: str
    link: str = ""


def write_site(places: Sequence[Path], target: Path, title: str) -> tuple[int, int, list[str]]:
    """Write the page of all runs and bundles at or below ``places`` to ``target``.

    Returns the number of rows and of runs, and a line for each run or bundle that cannot be read. O(all values).
    Nothing in a run or bundle is executed; every text is escaped. Raises ResultsError: nothing to show, too many rows,
    or the disk refuses.
    """
    from benchframe.files import write_atomic

    rows: list[SiteRow] = []
    sources: list[Source] = []
    problems: list[str] = []
    for path in found(places):
        try:
            if path.is_dir():
                one, about = rows_in(RunFolder.open(path), path.resolve().name)
                source = Source(printable(path.resolve().name), about)
            else:
                with tempfile.TemporaryDirectory(prefix="benchframe-site-") as scratch:
                    opened = unpack(path, Path(scratch))
                    one, about = rows_in(opened.folder, opened.name)
                beside = path.resolve().is_relative_to(folder := target.resolve().parent)
                link = quote(path.resolve().relative_to(folder).as_posix()) if beside else ""
                source = Source(printable(opened.name), about, f"./{link}" if link else "")
        except ResultsError as error:
            problems.append(printable(error.line))
            continue
        rows += one
        sources.append(source)
    where = ", ".join(map(str, places))
    if not rows:
        raise ResultsError(where, "there is no run or bundle with a figure", "make one with `benchframe run`")
    if len(rows) > MOST_ROWS:
        raise ResultsError(
            where, f"{len(rows):,} figures are more than a page takes ({MOST_ROWS:,})", "name fewer runs"
        )
    choices = [(HEADS[at], sorted({row.cells[at] for row in rows})) for at in range(CHOICES)]
    style, script = asset("site.css"), asset("site.js")
    from markupsafe import Markup

    values: dict[str, Any] = {
        "title": printable(title), "heads": HEADS, "rows": rows, "sources": sources, "problems": problems,
        "choices": choices, "style": Markup(style), "script": Markup(script), "style_hash": content_hash(style),
        "script_hash": content_hash(script),
    }  # fmt: skip
    text = environment().from_string(asset("site.html")).render(values)
    write_atomic(target, text.encode())
    return len(rows), len(sources), problems


def found(places: Sequence[Path]) -> list[Path]:
    """Runs (folders) and bundles (files) at or below ``places``, each once, in order of their names."""
    paths: dict[Path, Path] = {}
    for place in places:
        if place.is_file() or (place / MANIFEST).is_file():
            paths.setdefault(place.resolve(), place)
            continue
        if not place.is_dir():
            raise ResultsError(place, "there is no such folder or bundle", "name a folder of runs and bundles")
        below = [path.parent for path in place.rglob(MANIFEST)]
        below += [path for path in place.rglob("*") if path.name.endswith(SUFFIXES) and path.is_file()]
        for path in sorted(below):
            paths.setdefault(path.resolve(), path)
    return list(paths.values())


def rows_in(folder: RunFolder, name: str) -> tuple[list[SiteRow], str]:
    """The rows of a run, and a line about it. Raises ResultsError."""
    manifest = folder.manifest
    about = f"{manifest.created[:10]}, {len(manifest.cells)} cells, {' '.join(manifest.command)}"
    if manifest.options.mode == SIMULATE:
        return [], printable(f"{about} (simulated: not in the table)")
    host = manifest.host
    rows = []
    for row in rows_of(folder.cells(), notes=False):
        for figure, value in row.figures.items():
            summary, ratio, verdict = value.summary, value.ratio, value.verdict
            word = "disturbed" if row.disturbed else verdict.word if verdict else ""
            numbers = (summary.mean, summary.sd, *((ratio.value, ratio.low, ratio.high) if ratio else (math.nan,) * 3))
            texts = (
                *(
                    row.cell.entry.strategy,
                    row.cell.entry.workload,
                    figure,
                    host.get("cpu", ""),
                    host.get("kernel", ""),
                ),
                *(ns(number) for number in numbers[:2]),
                *(bound(number) for number in numbers[2:]),
                *(word, str(summary.n), manifest.created[:10], name),
            )
            sorts = (
                *(None,) * CHOICES,
                *(n if math.isfinite(n) else math.inf for n in numbers),
                None,
                summary.n,
                None,
                None,
            )
            safe = tuple("" if text == "-" else printable(text) for text in texts)
            rows.append(
                SiteRow(safe, tuple(None if n is None else 1e300 if n == math.inf else float(n) for n in sorts))
            )
    return rows, printable(about)
