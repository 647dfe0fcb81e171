"""Traces from what other tools wrote: perf.data, ``perf script`` text, strace logs, ``/proc/PID/maps`` snapshots.

All become the recorder's own records, so one builder gives them their order. None of it is trusted: sizes are
bounded, and what makes no sense ends in a TraceError that names the line.
"""

import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from benchframe.errors import TraceError
from benchframe.record import perf as R
from benchframe.record.builder import GUESSED, Builder, Maps, guess_access, parse_maps
from benchframe.record.perf import Rec
from benchframe.trace.meta import MAX_AREAS, TraceMeta
from benchframe.trace.trace import Trace

MAX_INPUT = 1 << 30
MAX_LINE = 1 << 16


def import_any(path: Path, head: bytes) -> tuple[Trace, str]:
    """Tell the form by its first bytes and import it; returns (trace, name of the form). Raises TraceError."""
    from benchframe.record import perfdata, perftext, stracelog

    if path.stat().st_size > MAX_INPUT:
        raise TraceError(path, f"it is larger than {MAX_INPUT} bytes", "record it with benchframe record")
    if head.startswith(b"PERFILE2"):
        return _guard(path, perfdata.import_perf_data), "perf.data"
    lines = [line for line in head.decode(errors="replace").splitlines() if line.strip() and not line.startswith("#")]
    forms: tuple[tuple[Callable[[str], bool], Callable[[Path], Trace], str], ...] = (
        (is_maps_line, import_maps, "maps snapshot"),
        (stracelog.is_strace_line, stracelog.import_strace, "strace log"),
        (perftext.is_perf_line, perftext.import_perf_script, "perf script text"),
    )
    for is_form, reader, name in forms:
        if lines and any(is_form(line) for line in lines[:5]):
            return _guard(path, reader), name
    raise TraceError(
        path,
        "this is not a format that benchframe knows",
        "it reads Parquet and CSV traces, perf.data, perf script text, strace logs and /proc/PID/maps",
    )


def _guard(path: Path, reader: Callable[[Path], Trace]) -> Trace:
    """Run an importer; whatever is wrong with the input is a TraceError."""
    try:
        trace = reader(path)
        trace.check()
    except (ValueError, KeyError, IndexError, OverflowError, struct.error) as error:
        text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise TraceError(path, text, "the file may be cut short or from an unknown version of its tool") from None
    except OSError as error:
        raise TraceError(path, f"cannot be read ({error.strerror})", "check its permissions") from None
    if not len(trace):
        raise TraceError(path, "it contains no event that benchframe knows", "see docs/recording.md for how to record")
    return trace


def is_maps_line(line: str) -> bool:
    """Does a line look like one of /proc/PID/maps?"""
    try:
        return bool(parse_maps(line))
    except ValueError:
        return False


def import_maps(path: Path) -> Trace:
    """A layout without events: an exec and its mappings, for synthetic lookups to run on. Raises ValueError."""
    rows = parse_maps(path.read_text(errors="replace"))
    if len(rows) > MAX_AREAS:
        raise ValueError(f"more than {MAX_AREAS} areas")
    heap = next((row.start for row in rows if row.name == "[heap]"), 0)
    seen = Maps(0, 1, "attach", rows, heap)
    builder = Builder([seen])
    builder.attach(seen, [1])
    return builder.trace(imported(path, "maps"))


def imported(path: Path, level: str, notes: tuple[str, ...] = ()) -> TraceMeta:
    """Metadata of an imported trace: where it came from, and when."""
    from benchframe.record.session import tool

    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return TraceMeta(level=level, date=date, tool=tool(), notes=(f"imported from {path.name}", *notes))


def build(recs: Iterable[Rec], meta: TraceMeta, calls: bool) -> Trace:
    """Records in any order to a trace. The first process that appears is the root, whether or not it is seen to exec.

    Events of the recording tool itself, before its child's exec, are dropped.
    """
    ordered = sorted(recs, key=lambda rec: rec.time)
    builder = Builder([], calls)
    execs = [rec for rec in ordered if rec.what == R.EXEC]
    if not execs and ordered:
        first = ordered[0]
        meta = replace(meta, notes=(*meta.notes, "no exec was recorded: mappings made before the start are unknown"))
        ordered.insert(0, Rec(first.time, R.EXEC, first.tid, (first.tid,)))
        ordered.insert(1, Rec(first.time, R.LEAVE, first.tid, (-1, 0)))
    for rec in ordered:
        builder.add(rec)
    trace = builder.trace(meta)
    if guess_access(trace):
        trace.meta = replace(trace.meta, notes=(*trace.meta.notes, GUESSED))
    if builder.strays:
        note = f"{builder.strays} records of other tasks were left out"
        trace.meta = replace(trace.meta, notes=(*trace.meta.notes, note))
    return trace
