"""The latency table for a mail to a kernel list: plain ASCII, at most 72 columns, one block per workload."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchframe.results.figures import FIGURES, Figure, Row, rows_of
from benchframe.results.folder import Cell
from benchframe.tables.build import short_text, spread

WIDTH = 72
_HEADS = {"lookup": "ns/lookup", "fault": "ns/fault", "mapping": "ns/map op"}
_NAME = 11


def mail(cells: Iterable[Cell], *, rows: Sequence[Row] | None = None) -> str:
    """All cells as text of at most 72 columns; figures that no cell of a workload has are left out. O(cells).

    ``rows`` are those of ``cells``, if they are at hand.
    """
    rows = rows_of(cells) if rows is None else rows
    blocks = []
    for label in dict.fromkeys(row.cell.entry.workload for row in rows):
        blocks.append(_block(label, [row for row in rows if row.cell.entry.workload == label]))
    legend = [
        "ns: mean of process means +- standard deviation. x: ratio to the first",
        "line, paired by round; ~ undecided, = the same within the smallest",
        f"effect of interest, both corrected for {_compared(rows)} comparisons (Holm, 5 %).",
    ]
    return "\n\n".join([*blocks, "\n".join(legend)]) + "\n"


def _compared(rows: Sequence[Row]) -> int:
    return sum(name in FIGURES and f.verdict is not None for row in rows for name, f in row.figures.items())


def _block(label: str, rows: list[Row]) -> str:
    present = [name for name in FIGURES if any(name in row.figures for row in rows)]
    processes = max((f.summary.n for row in rows for f in row.figures.values()), default=0)
    head = f"{_ascii(label)}: {rows[0].cell.workload.timed} events, {processes} processes"
    lines = [head[:WIDTH], _line("", [text for name in present for text in (_HEADS[name], "x")], "hit")]
    for row in rows:
        name, state = row.cell.entry.strategy, row.cell.state
        if state.state != "ok":
            lines.append(f"{_cut(name)} {state.state}: {_ascii(state.message)}"[:WIDTH])
            continue
        texts = []
        for figure in (row.figures.get(name) for name in present):
            texts += ["", ""] if figure is None else [_time(figure), _ratio(figure)]
        rate = state.counts.get("hit_rate")
        lines.append(_line(name, texts, "" if rate is None else f"{100 * rate:.0f}%"))
    return "\n".join(lines)


def _time(figure: Figure) -> str:
    mean = figure.summary.mean
    return _fit(11, spread(figure, "+-"), f"{mean:,.0f}", f"{mean:.3g}")


def _ratio(figure: Figure) -> str:
    return "" if figure.ratio is None else _fit(5, short_text(figure), f"{figure.ratio.value:.0f}", "huge")


def _fit(width: int, *candidates: str) -> str:
    """The first candidate that fits; the last in any case."""
    return next((text for text in candidates if len(text) <= width), candidates[-1][:width])


def _line(name: str, texts: list[str], last: str) -> str:
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return (_cut(name) + "".join(f"{value:>12} {ratio:>5}" for value, ratio in pairs) + f"{last:>6}").rstrip()


def _cut(name: str) -> str:
    name = _ascii(name)
    return (name if len(name) <= _NAME else name[: _NAME - 1] + "~").ljust(_NAME)


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
