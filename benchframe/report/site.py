"""One static page over many runs and bundles, filtered and sorted in the browser: ``benchframe site``."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchframe.errors import ResultsError
from benchframe.files import printable
from benchframe.report.bundle import SUFFIXES, unpack
from benchframe.report.page import asset, content_hash, environment
from benchframe.report.table import ns, times
from benchframe.results.figures import rows_of
from benchframe.results.folder import RunFolder
from benchframe.results.manifest import MANIFEST, SIMULATE

HEADS = (
    *("strategy", "workload", "figure", "machine", "kernel", "ns", "± ns", "ratio", "low", "high"),
    *("verdict", "n", "date", "run"),
)
CHOICES = 5
"""The first columns have a choice of their values."""
MOST = 50_000
"""The most rows of a page: browsers become slow."""


@dataclass(frozen=True)
class SiteRow:
    """A figure of a cell: texts, and the numbers to sort by (None: by text)."""

    cells: tuple[str, ...]
    sorts: tuple[float | None, ...]


@dataclass(frozen=True)
class Source:
    """A run on the page; ``link`` is the bundle beside the page, if it came from one."""

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
                link = quote(path.name) if path.resolve().parent == target.resolve().parent else ""
                source = Source(printable(opened.name), about, f"./{link}" if link else "")
        except ResultsError as error:
            problems.append(printable(error.line))
            continue
        rows += one
        sources.append(source)
    where = ", ".join(map(str, places))
    if not rows:
        raise ResultsError(where, "there is no run or bundle with a figure", "make one with `benchframe run`")
    if len(rows) > MOST:
        raise ResultsError(where, f"{len(rows):,} figures are more than a page takes ({MOST:,})", "name fewer runs")
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
                *(times(number) for number in numbers[2:]),
                *(verdict.word if verdict else "", str(summary.n), manifest.created[:10], name),
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
