"""What every importer does: read lines of a bounded length, count what it used and left out, build the trace."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchframe.record import records as R
from benchframe.record.builder import Builder
from benchframe.record.records import CLONE_THREAD, CLONE_VM, Rec
from benchframe.trace.meta import TraceMeta
from benchframe.trace.trace import Trace

MAX_INPUT = 1 << 30


MAX_LINE = 1 << 16


MAX_REASONS = 12
"""Reasons that are kept apart by name; further ones are counted together."""


@dataclass
class Tally:
    """What an importer read, used and left out.

    ``beside`` counts what was understood and has no place in a trace (other calls, other events); ``missing`` what
    belongs in one and could not be used. ``where`` holds the first place of each reason.
    """

    unit: str = "lines"
    read: int = 0
    used: int = 0
    beside: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    where: dict[str, str] = field(default_factory=dict)

    def skip(self, what: str, count: int = 1) -> None:
        """Count something that has no place in a trace."""
        self.beside[what if what in self.beside or len(self.beside) < MAX_REASONS else "others"] += count

    def miss(self, why: str, where: str = "", count: int = 1) -> None:
        """Count something that belongs in the trace and is not in it."""
        why = why if why in self.missing or len(self.missing) < MAX_REASONS else "other reasons"
        self.missing[why] += count
        self.where.setdefault(why, where)

    @property
    def share(self) -> float:
        """The part that is missing of all that belongs in the trace."""
        lost = self.missing.total()
        return lost / max(1, lost + self.used)

    def notes(self) -> tuple[str, ...]:
        """The counts in words, one line each for what was read and for each reason why something is missing."""
        beside = ", ".join(f"{count} {what}" for what, count in self.beside.most_common())
        first = f"{self.read} {self.unit} read, {self.used} used"
        missing = [f"missing: {self._reason(why)}" for why, _ in self.missing.most_common()]
        return (first + (f"; of no use here: {beside}" if beside else ""), *missing)

    def _reason(self, why: str) -> str:
        where = f" (first: {self.where[why]})" if self.where.get(why) else ""
        return f"{self.missing[why]} {why}{where}"

    def counts(self) -> dict[str, int]:
        """The counts by name, as a trace's metadata hold them."""
        out = {f"{self.unit} read": self.read, f"{self.unit} used": self.used}
        out.update({f"not needed: {what}"[:200]: count for what, count in self.beside.items()})
        out.update({f"missing: {why}"[:200]: count for why, count in self.missing.items()})
        return out

    def main_reason(self) -> str:
        """The commonest reasons why something is missing."""
        return "; ".join(self._reason(why) for why, _ in self.missing.most_common(2))


def text_lines(path: Path, tally: Tally) -> Iterator[tuple[int, str]]:
    """(number, line) of a text, without line ends and colours; what is longer than MAX_LINE is cut and counted."""
    with path.open(errors="replace", newline="\n") as file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            tally.read += 1
            if not line.endswith("\n") and len(line) == MAX_LINE:
                while (rest := file.readline(MAX_LINE)) and not rest.endswith("\n"):
                    pass
                tally.skip(f"ends of lines longer than {MAX_LINE} characters")
            line = line.rstrip("\r\n")
            yield number, _strip_colours(line) if "\x1b" in line else line


def _strip_colours(line: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)


def imported(path: Path, level: str, notes: tuple[str, ...] = ()) -> TraceMeta:
    """Metadata of an imported trace: where it came from, and when."""
    from benchframe.record.session import tool

    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return TraceMeta(level=level, date=date, tool=tool(), notes=(f"imported from {path.name}", *notes))


def build(
    recs: Iterable[Rec],
    meta: TraceMeta,
    calls: bool,
    tally: Tally,
    before: dict[int, list[Rec]] | None = None,
    pids: dict[int, int] | None = None,
) -> Trace:
    """Records in any order to a trace. The first process that appears is the root, whether or not it is seen to exec.

    Events of the recording tool itself, before its child's exec, are dropped. ``before`` are the areas, by process,
    that existed when the recording began: the image of a root that is not seen to exec; ``pids`` the process of each
    thread, where that was recorded.
    """
    ordered = sorted(recs, key=lambda rec: rec.time)
    builder = Builder([], calls)
    execs = [rec for rec in ordered if rec.what == R.EXEC]
    if not execs and ordered:
        first = ordered[0]
        image = (before or {}).get(first.tid, [])
        if not image:
            unknown = "no exec was recorded: mappings made before the start are unknown"
            meta = replace(meta, notes=(*meta.notes, unknown))
        boot = [rec._replace(time=first.time, tid=first.tid) for rec in image]
        start = [Rec(first.time, R.EXEC, first.tid, (first.tid,)), *boot, Rec(first.time, R.LEAVE, first.tid, (-1, 0))]
        made = {rec.values[0] for rec in ordered if rec.what == R.NEW}
        home = (pids or {}).get(first.tid)
        others = [tid for tid, pid in (pids or {}).items() if pid == home and tid != first.tid and tid not in made]
        threads = [Rec(first.time, R.NEW, first.tid, (tid, CLONE_VM | CLONE_THREAD)) for tid in others]
        ordered[:0] = start + threads
    for rec in ordered:
        builder.add(rec)
    for what, count in builder.strays.items():
        name = {R.FAULT: "page faults", R.LEAVE: "calls"}.get(what)
        if name is not None:
            tally.used -= min(count, tally.used)
            tally.miss(f"{name} of tasks whose start is not in the recording", count=count)
    if builder.above:
        tally.used -= min(builder.above, tally.used)
        tally.miss("page faults at addresses above 2^47 (not an x86-64 layout of four levels)", count=builder.above)
    return builder.trace(meta)
