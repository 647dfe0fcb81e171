"""Traces as CSV: a header of column names, one row per event, the metadata as JSON in the first line after ``#``."""

from pathlib import Path
from typing import Any

import numpy as np

from benchframe.errors import TraceError
from benchframe.events import EVENT, NIL, REPORT
from benchframe.files import replacing
from benchframe.trace.meta import TraceMeta, fitted_json, meta_from_json
from benchframe.trace.trace import MAX_ROWS, Trace, not_written, read_trace

MARK = "# benchframe "
MAX_LINE = 1 << 23
MAX_BYTES = 1 << 32
NEEDED = ("kind", "addr")
"""Columns that a CSV file must have; the others default to 0, file and reports to NIL."""


def write_csv(path: Path, trace: Trace) -> None:
    """Write ``trace`` as CSV, completely or not at all. Raises TraceError."""

    from benchframe.trace.parquet import COLUMNS

    vm_start = np.full(len(trace), NIL, np.int64)
    vm_end = vm_start.copy()
    vm_start[trace.reports["row"]] = trace.reports["vm_start"]
    vm_end[trace.reports["row"]] = trace.reports["vm_end"]
    extra: dict[str, Any] = {"time": trace.time, "tid": trace.tid, "vm_start": vm_start, "vm_end": vm_end}
    try:
        with replacing(path) as file:
            file.write(f"{MARK}{fitted_json(trace.meta, MAX_LINE - len(MARK))}\n{','.join(COLUMNS)}\n".encode())
            for at in range(0, len(trace), 1 << 16):
                cut = slice(at, at + (1 << 16))
                columns = [(extra[n] if n in extra else trace.events[n])[cut].tolist() for n in COLUMNS]
                file.writelines(f"{','.join(map(str, row))}\n".encode() for row in zip(*columns, strict=True))
    except OSError as error:
        raise not_written(path, error) from None


def read_csv(path: Path) -> Trace:
    """Read and check a CSV trace. Raises TraceError, which says what is wrong."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.csv as pc  # type: ignore[import-untyped]

    from benchframe.trace.parquet import COLUMNS, to_numpy

    try:
        if path.stat().st_size > MAX_BYTES:
            raise TraceError(path, f"it is larger than {MAX_BYTES} bytes", "split it, or make it Parquet")
        with path.open("rb") as file:
            first = file.readline(MAX_LINE)
            meta = TraceMeta()
            start = 0
            if first.startswith(MARK.encode()):
                meta, start = meta_from_json(first[len(MARK) :].decode()), len(first)
            file.seek(start)
            header = file.readline(1 << 16).decode().strip().split(",")
            unknown = [name for name in header if name not in COLUMNS]
            missing = [name for name in NEEDED if name not in header]
            if unknown or missing or len(set(header)) != len(header):
                what = (
                    f"column {unknown[0]!r:.40} is unknown"
                    if unknown
                    else f"columns {missing or 'twice'} in the header"
                )
                raise TraceError(path, what, "see docs/trace-format.md for the columns of a trace")
            types = {name: pa.int64() for name in header}
            options = pc.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False)
            reading = pc.ReadOptions(column_names=header)
            parts, rows = [], 0
            for batch in pc.open_csv(file, read_options=reading, convert_options=options):
                rows += batch.num_rows
                if rows > MAX_ROWS:
                    raise TraceError(path, f"it has more than {MAX_ROWS} events", "split it, or make it Parquet")
                parts.append({name: to_numpy(batch.column(i)) for i, name in enumerate(header)})
    except (OSError, UnicodeDecodeError, ValueError) as error:  # ArrowInvalid is a ValueError
        reason = (str(error).splitlines() or ["unreadable"])[0][:160]
        raise TraceError(path, f"this is not a CSV trace ({reason})", "see docs/trace-format.md") from None
    columns = {name: np.concatenate([part[name] for part in parts]) for name in header} if parts else {}
    try:
        trace = _assemble(columns, meta)
        trace.check()
    except (ValueError, OverflowError) as error:
        raise TraceError(path, str(error), "correct that row") from None
    return trace


def read_file(path: str | Path) -> Trace:
    """A trace file in either form, Parquet or CSV: told apart by how it begins, or by the ending ``.csv``. Raises
    TraceError."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            marked = file.read(len(MARK)) == MARK.encode()
    except OSError:
        marked = False  # what is wrong is told by who reads it
    return read_csv(path) if marked or path.suffix == ".csv" else read_trace(path)


def _assemble(columns: dict[str, Any], meta: TraceMeta) -> Trace:
    rows = len(next(iter(columns.values()))) if columns else 0
    events = np.zeros(rows, EVENT)
    events["file"] = NIL
    for name, values in columns.items():
        if name in (EVENT.names or ()):
            kept = values.astype(EVENT[name])
            if not np.array_equal(kept, values):
                raise ValueError(f"column {name} has a number that does not fit 32 bits")
            events[name] = kept
    trace = Trace(events, meta=meta)
    if "time" in columns:
        trace.time = columns["time"]
    if "tid" in columns:
        trace.tid = columns["tid"].astype(np.int32)
        if not np.array_equal(trace.tid, columns["tid"]):
            raise ValueError("column tid has a number that does not fit 32 bits")
    if "vm_start" in columns and "vm_end" in columns:
        at = np.flatnonzero(columns["vm_end"] != NIL)
        trace.reports = np.zeros(len(at), REPORT)
        trace.reports["row"] = at
        trace.reports["vm_start"], trace.reports["vm_end"] = columns["vm_start"][at], columns["vm_end"][at]
    return trace
