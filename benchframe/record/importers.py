"""Traces from what other tools wrote: perf.data, ``perf script`` text, strace logs, ``/proc/PID/maps`` snapshots.

All become the recorder's own records, so one builder gives them their order. None of it is trusted: sizes are
bounded, and what makes no sense ends in a TraceError that names the line. What is read is counted (:class:`Tally`):
what was used, what has no place in a trace, and what belongs in it but was not understood.
"""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchframe.errors import TraceError
from benchframe.record.builder import Builder
from benchframe.record.procfs import Maps, is_maps_line, parse_maps
from benchframe.record.tally import MAX_INPUT, MAX_LINE, Tally, imported
from benchframe.trace.meta import MAX_AREAS
from benchframe.trace.trace import Trace

MAX_MISSING = 0.01
"""Share of what belongs in a trace that may be left out; above it an import is refused (``--allow-loss`` takes it)."""


Reader = Callable[[Path, Tally], Trace]


def import_any(path: Path, head: bytes, allow_loss: bool = False) -> tuple[Trace, str]:
    """Tell the form by its first bytes and import it; returns (trace, name of the form). Raises TraceError.

    What belongs in the trace and is missing is an error above :data:`MAX_MISSING`, unless ``allow_loss``.
    """
    from benchframe.record import perfdata, stracelog

    if path.stat().st_size > MAX_INPUT:
        raise TraceError(path, f"it is larger than {MAX_INPUT} bytes", "record it with benchframe record")
    if head.startswith((b"PERFILE2", b"2ELIFREP")):
        return _guard(path, perfdata.import_perf_data, "page fault", allow_loss, "records"), "perf.data"
    forms: tuple[tuple[Callable[[str], bool], Reader, str, str], ...] = (
        (is_maps_line, import_maps, "maps snapshot", ""),
        (stracelog.is_strace_line, stracelog.import_strace, "strace log", "mapping call"),
        (perfdata.is_perf_line, perfdata.import_perf_script, "perf script text", "page fault"),
    )
    try:
        with path.open("rb") as file:
            lines = file.read(1 << 18).decode(errors="replace").splitlines()[:400]
    except OSError as error:
        raise TraceError(path, f"cannot be read ({error.strerror})", "check its permissions") from None
    lines = [line for line in lines if line.strip() and not line.startswith("#") and len(line) < MAX_LINE]
    votes = [sum(is_form(line) for line in lines) for is_form, *_ in forms]
    if any(votes):
        _, reader, name, needs = forms[votes.index(max(votes))]
        return _guard(path, reader, needs, allow_loss, "lines"), name
    raise TraceError(
        path,
        "this is not a format that benchframe knows",
        "it reads Parquet and CSV traces, perf.data, perf script text, strace logs and /proc/PID/maps",
    )


def _guard(path: Path, reader: Reader, needs: str, allow_loss: bool, unit: str) -> Trace:
    """Run an importer; whatever is wrong with the input is a TraceError."""
    tally = Tally(unit)
    try:
        trace = reader(path, tally)
        trace.check()
    except (ValueError, KeyError, IndexError, OverflowError, struct.error) as error:
        text = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise TraceError(path, text, "the file may be cut short or from an unknown version of its tool") from None
    except OSError as error:
        raise TraceError(path, f"cannot be read ({error.strerror or error})", "check its permissions") from None
    if not needs:
        return trace
    if not tally.used:
        what = f"it holds no {needs} that could be used"
        if tally.missing:
            what += f": {tally.main_reason()}"
        elif tally.beside:
            what += ", but " + ", ".join(f"{count} {name}" for name, count in tally.beside.most_common(4))
        raise TraceError(path, what, _WAY_OUT[needs])
    if tally.share > MAX_MISSING and not allow_loss:
        lost = tally.missing.total()
        what = f"{lost} of {lost + tally.used} {unit} that belong in a trace are missing"
        raise TraceError(path, f"{what}: {tally.main_reason()}", f"{_WAY_OUT[needs]}; --allow-loss takes it as it is")
    counted = replace(trace.meta, notes=(*trace.meta.notes, *tally.notes()), counts=tally.counts())
    trace.meta = counted
    return trace


_WAY_OUT = {
    "page fault": "record with: perf record -e page-faults -c1 -d -- CMD; as text: perf script --show-task-events "
    "--show-mmap-events -F comm,pid,tid,time,event,addr",
    "mapping call": "record with: strace -f -o LOG CMD",
}


def import_maps(path: Path, tally: Tally | None = None) -> Trace:
    """A layout without events: an exec and its mappings, for synthetic lookups to run on. Raises ValueError."""
    rows = parse_maps(path.read_text(errors="replace"))
    if len(rows) > MAX_AREAS:
        raise ValueError(f"more than {MAX_AREAS} areas")
    heap = next((row.start for row in rows if row.name == "[heap]"), 0)
    seen = Maps(0, 1, "attach", rows, heap)
    builder = Builder([seen])
    builder.attach(seen, [1])
    return builder.trace(imported(path, "maps"))
