"""A run's figures for a mail to a kernel list: plain ASCII, at most 72 columns, one block per workload.

The header answers what a reader of the list asks first: machine, kernel, versions, how many processes, what was
disturbed; the command is below. Each line can be quoted by itself.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Collection, Iterable, Sequence

from benchframe.engine.job import COLD
from benchframe.report.details import per_second
from benchframe.report.table import (
    MARKS,
    cold_notes,
    comparisons,
    disturbed,
    host_sentences,
    ratio_text,
    short_text,
    short_times,
    what_failed,
)
from benchframe.results.figures import FIGURES, OPERATIONS, Figure, Point, Row, alone, caching, points, rows_of
from benchframe.results.folder import Cell
from benchframe.results.manifest import Manifest
from benchframe.results.studies import HostFigures
from benchframe.stats import Ratio

WIDTH = 72
_HEADS = {"lookup": "ns/lookup", "fault": "ns/fault", "mapping": "ns/map op"}
"""Figures with columns. Cold lookups have a line below the workload: a fifth pair of columns does not fit."""
_TIME, _RATIO, _HIT = 11, 6, 5
_NAMES = range(8, 25)
"""The most columns for names."""
MODEL = "No kernel code runs: a model of mm in user space replays faults and calls."
"""What a reader of a kernel list must know before the figures."""
_COMMAND_LINES = 24
"""The most lines of a command; a longer one is cut, and the report has all of it."""


def mail(
    cells: Iterable[Cell],
    *,
    rows: Sequence[Row] | None = None,
    manifest: Manifest | None = None,
    host: HostFigures | None = None,
) -> str:
    """All cells as text of at most 72 columns; figures that no cell of a workload has are left out. O(cells).

    ``rows`` are those of the cells without threads, if they are already computed; ``manifest`` adds machine, versions,
    and the command, ``host`` what the running kernel took for the workloads, in sentences.
    """
    cells = list(cells)
    rows = rows_of(alone(cells)) if rows is None else rows
    crews = points(cells)
    parts = [_where(manifest, cells)] if manifest else []
    cached = caching(cells)
    for label in dict.fromkeys(row.cell.entry.workload for row in rows):
        parts.append(_block(label, [row for row in rows if row.cell.entry.workload == label], cached))
    if rows:
        parts.append(_legend(rows))
        parts += (
            ["\n".join(_wrapped(text.replace("±", "+-"))) for _, text in host_sentences(rows, host)] if host else []
        )
    for label in dict.fromkeys(point.workload for point in crews):
        parts.append(_crew(label, [point for point in crews if point.workload == label]))
    if crews:
        parts.append(_crew_legend(crews))
    if manifest:
        parts.append(_command(manifest))
    return "\n\n".join(parts) + "\n"


# ---- above and below ------------------------------------------------------------------------------------------------


def _where(manifest: Manifest, cells: Sequence[Cell]) -> str:
    """Machine, versions, how much was measured, and what was disturbed."""
    host, versions = manifest.host, manifest.versions
    cpus = f", {host['cpus']} CPUs" if "cpus" in host else ""
    machine = f"{host.get('cpu', 'unknown CPU')}{cpus}, {host.get('kernel', 'unknown kernel')}"
    if manifest.simulated:
        runs = max(manifest.options.rounds, 1)
        lines = [
            f"benchframe {versions.get('benchframe', '')}, SIMULATED: {host.get('cpu', '')}{cpus}.",
            f"{manifest.created[:10]}; {runs} seed{'s' * (runs > 1)} per line; declared work {host.get('work', '')}.",
            *manifest.notes,
        ]
        return "\n".join(line for text in lines for line in _wrapped(text))
    lines_of = [max(map(len, map(cell.rounds, cell.figures)), default=0) for cell in cells if cell.state.state == "ok"]
    pinned = "not pinned" if manifest.options.cpu < 0 else f"pinned to CPU {manifest.options.cpu}"
    how = f"{_processes(lines_of)} per line, {pinned}, in interleaved rounds."
    python = f"{versions.get('python', 'Python')}, numba {versions.get('numba', '?')}"
    lines = [
        f"benchframe {versions.get('benchframe', '')}, {machine}.",
        f"{python}; {manifest.created[:10]}; {how}",
        MODEL,
    ]
    if manifest.noise:
        lines.append("Noise: " + "; ".join(manifest.noise) + ".")
    lines += disturbed(cells)
    return "\n".join(line for text in lines for line in _wrapped(text))


def _processes(numbers: Iterable[int]) -> str:
    """The number of processes, from the smallest to the largest.

    >>> _processes([3, 2, 3]), _processes([1]), _processes([])
    ('2 to 3 processes', '1 process', '0 processes')
    """
    low, high = min(found := list(numbers) or [0]), max(found)
    return f"{low} to {high} processes" if low < high else f"{high} process{'es' * (high != 1)}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(_ascii(text), WIDTH, break_on_hyphens=False)


def _command(manifest: Manifest) -> str:
    """The command, in lines that a shell joins again: a backslash can end a line within a word too."""
    lines = ["$ "]
    room = WIDTH - 2
    for word in map(_ascii, manifest.again):
        pieces = _pieces(word, room)
        gap = 1 if lines[-1] != "$ " else 0
        if len(pieces) == 1 and len(lines[-1]) + gap + len(pieces[0]) <= room:
            lines[-1] += " " * gap + pieces[0]
            continue
        if gap:
            lines[-1] += " \\"
            lines.append(pieces[0])
        else:
            lines[-1] += pieces[0]
        for piece in pieces[1:]:
            lines[-1] += "\\"
            lines.append(piece)
    if len(lines) > _COMMAND_LINES:
        lines = [*lines[: _COMMAND_LINES - 1], "... (shortened; the report has all of it)"]
    return "\n".join(lines)


def _pieces(word: str, room: int) -> list[str]:
    """``word``, quoted for a shell, in pieces of at most ``room`` characters, split after commas if there are any.

    >>> _pieces("rbtree,avl,maple", 12), _pieces("a b", 12)
    (['rbtree,avl,', 'maple'], ["'a b'"])
    """
    if len(shlex.quote(word)) <= room:
        return [shlex.quote(word)]
    pieces, left = [], word
    while left:
        size = min(len(left), room)
        while len(shlex.quote(left[:size])) > room:
            size -= 1
        if size < len(left) and "," in left[:size]:
            size = left.rindex(",", 0, size) + 1
        pieces.append(shlex.quote(left[:size]))
        left = left[size:]
    return pieces


# ---- one replay -----------------------------------------------------------------------------------------------------


def _legend(rows: Sequence[Row]) -> str:
    compared = [name for row in rows for name in FIGURES if (f := row.figures.get(name)) and f.verdict is not None]
    cold = compared.count(COLD)
    baselines = " or ".join(sorted({row.cell.workload.baseline for row in rows}))
    text = "ns: mean of process means +- their standard deviation."
    if compared:
        judging = rows[0].cell.judging
        text += (
            f" x: ratio to {baselines}, geometric mean of ratios paired by round, below 1 is faster; "
            f"~ undecided, = the same within {100 * judging.within:g} %, "
            f"both corrected for {comparisons(len(compared) - cold, cold)} (Holm, {100 * judging.alpha:g} %)."
        )
    return "\n".join(line for part in (text, *cold_notes(row.cell for row in rows)) for line in _wrapped(part))


def _block(label: str, rows: list[Row], cached: Collection[str]) -> str:
    present = [name for name in _HEADS if any(name in row.figures for row in rows)]
    processes = _processes(max(f.summary.n for f in row.figures.values()) for row in rows if row.figures)
    tail = f": {rows[0].cell.workload.timed:,} events, {processes}"
    hits = any(row.cell.entry.strategy in cached for row in rows)
    wide = _name_width(rows, WIDTH - len(present) * (_TIME + _RATIO) - _HIT * hits)
    compared = any(figure.verdict for row in rows for figure in row.figures.values())
    heads = [text for name in present for text in (_HEADS[name], "x" * compared)]
    lines = [_cut(label, WIDTH - len(tail)).rstrip() + tail, _line("", heads, "hit" if hits else "", wide)]
    for row in rows:
        name, state = row.cell.entry.strategy, row.cell.state
        if state.state != "ok":
            lines.append(f"{_cut(name, wide)} {state.state}: {_ascii(what_failed(state))}"[:WIDTH].rstrip())
            continue
        texts = []
        for figure in (row.figures.get(name) for name in present):
            texts += ["", ""] if figure is None else [_time(figure), _ratio(figure)]
        rate = state.counts.get("hit_rate") if name in cached else None
        lines.append(_line(name, texts, "" if rate is None else f"{100 * rate:.0f}%", wide))
    return "\n".join([*lines, *_intervals(rows, present), *_cold(rows)])


def _cold(rows: Sequence[Row]) -> list[str]:
    """A line with the time of cold lookups and its ratio."""
    texts = [
        f"{_cut(row.cell.entry.strategy, _NAMES.stop).rstrip()} {_time(figure)}"
        + (f" x {_ratio(figure)}" if figure.verdict else "")
        for row in rows
        if (figure := row.figures.get(COLD)) is not None
    ]
    return _listed("cold lookups, ns", texts) if texts else []


def _intervals(rows: Sequence[Row], present: Sequence[str]) -> list[str]:
    """The 95 % intervals of the first figure's decided ratios: what a reader would ask for next."""
    found = [(row.cell.entry.strategy, row.figures.get(present[0])) for row in rows] if present else []
    texts = [
        f"{_cut(name, _NAMES.stop).rstrip()} {ratio_text(figure.ratio)}"
        for name, figure in found
        if figure is not None and figure.verdict is not None and figure.verdict.word != "undecided"
    ]
    if not texts:
        return []
    return _listed(f"{_HEADS[present[0]]} x with 95 % interval", texts)


def _listed(what: str, texts: Sequence[str]) -> list[str]:
    """``what: text, text``, wrapped between texts."""
    kept = [text.replace(" ", "\0") for text in texts]
    lines = textwrap.wrap(f"{what}: {', '.join(kept)}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]


def _name_width(rows: Sequence[Row], room: int) -> int:
    longest = max(len(row.cell.entry.strategy) for row in rows)
    return min(max(longest, _NAMES.start), _NAMES.stop - 1, room)


def _time(figure: Figure) -> str:
    """Three significant digits of the mean, and its standard deviation to the same place."""
    mean, sd = figure.summary.mean, figure.summary.sd
    places = 2 if mean < 10 else 1 if mean < 100 else 0
    if figure.summary.n < 2:
        return _fit(_TIME - 1, f"{mean:,.{places}f}", f"{mean:.3g}")
    around = f"{sd:,.{places}f}" if sd >= 0.5 * 10**-places else f"{sd:.1g}"  # never display a spread of zero
    forms = (f"{mean:,.{places}f}+-{around}", f"{mean:.{places}f}+-{sd:.{places}f}")
    return _fit(_TIME - 1, *forms, f"{mean:,.0f}", f"{mean:.3g}")


def _ratio(figure: Figure) -> str:
    """The ratio with its mark: an undecided ratio must keep its mark where the column is narrow."""
    if figure.verdict is None:
        return ""
    mark = MARKS.get(figure.verdict.word, "")
    return _fit(_RATIO - 1, short_text(figure), f"{mark}{'tiny' if figure.verdict.ratio.value < 1 else 'huge'}")


def _fit(width: int, *candidates: str) -> str:
    """The first candidate that fits; otherwise the last."""
    return next((text for text in candidates if len(text) <= width), candidates[-1][:width])


def _line(name: str, texts: list[str], last: str, wide: int) -> str:
    pairs = zip(texts[::2], texts[1::2], strict=True)
    columns = "".join(f"{value:>{_TIME}}{ratio:>{_RATIO}}" for value, ratio in pairs)
    return (_cut(name, wide) + columns + f"{last:>{_HIT}}").rstrip()


# ---- threads --------------------------------------------------------------------------------------------------------


def _crew(label: str, found: Sequence[Point]) -> str:
    """A line per strategy and number of threads."""
    figure, processes = found[0].figure, max(p.ns.n if p.ns else 0 for p in found)
    tail = f": {OPERATIONS[figure]}, {processes} process{'es' * (processes != 1)}"
    wide = min(max(*(len(p.cell.entry.strategy) for p in found), _NAMES.start), _NAMES.stop - 1)
    head = f"{'':{wide}}{'threads':>8}{'per second':>12}{'x':>8}{'speed-up':>10}{'lock wait':>10}"
    lines = [_cut(label, WIDTH - len(tail)).rstrip() + tail, head]
    for point in found:
        name, state = point.cell.entry.strategy, point.cell.state
        if state.state != "ok":
            lines.append(f"{_cut(name, wide)} {state.state}: {_ascii(what_failed(state))}"[:WIDTH].rstrip())
            continue
        threads = f"{point.threads}{'*' * point.crowded}"
        wait = "" if point.lock_share is None else f"{100 * point.lock_share:.0f}%"
        mark = MARKS.get(point.verdict.word, "") if point.verdict else ""
        against, speed_up = _factor(point.against), _factor(point.speed_up)
        lines.append(
            f"{_cut(name, wide)}{threads:>8}{per_second(point.throughput):>12}{mark + against if against else '':>8}"
            f"{speed_up:>10}{wait:>10}".rstrip()
        )
    return "\n".join(lines)


def _factor(ratio: Ratio | None) -> str:
    return "" if ratio is None else short_times(ratio.value)


def _crew_legend(found: Sequence[Point]) -> str:
    verdicts = [point.verdict for point in found if point.verdict is not None]
    text = "per second: all threads together, mean of processes."
    if verdicts:
        baselines = " or ".join(sorted({point.cell.workload.baseline for point in found}))
        judging = found[0].cell.judging
        text += (
            f" x: throughput to that of {baselines} with as many threads, above 1 is faster; ~ undecided, = the same "
            f"within {100 * judging.within:g} %, both corrected for {comparisons(len(verdicts))} (Holm, "
            f"{100 * judging.alpha:g} %)."
        )
    text += " speed-up: to the fewest threads of the same strategy."
    if any(point.crowded for point in found):
        cores = max(point.cores for point in found)
        text += f" *: more threads than the {cores} CPUs: this shows waiting, not scaling."
    return "\n".join(_wrapped(text))


# ---- text -----------------------------------------------------------------------------------------------------------


def _cut(name: str, width: int) -> str:
    name = _ascii(name)
    return (name if len(name) <= width else name[: max(0, width - 1)] + "~").ljust(width)


_CONTROL = re.compile(r"[^ -~]")


def _ascii(text: str) -> str:
    """``text`` in characters that any mail can hold: no control characters, only ASCII."""
    return _CONTROL.sub("?", text)
