"""``benchframe record``: the command behind the command line."""

import os
import sys
from pathlib import Path

from benchframe.errors import TraceError
from benchframe.record.session import RecordError, Session, planned
from benchframe.trace.csvfile import write_csv
from benchframe.trace.format import Trace, write_trace

EXIT_FAILED = 125
"""Our own failure, as in env(1) and timeout(1): a code that programs rarely use, since theirs is passed on."""


def run_record_command(
    command: list[str],
    output: Path,
    level: str = "auto",
    allow_lost: bool = False,
    attach: int | None = None,
    split: bool = False,
) -> int:
    """Record ``command`` (or process ``attach``) to ``output`` (CSV if it ends so); returns the program's exit code.

    The program keeps its stdin, stdout, signals and exit code (128 + n if signal n ended it); we speak on stderr.
    ``split`` writes one file per address space, ``NAME.0.parquet`` and so on. A trace that lost events is refused
    unless ``allow_lost``. Our own failures end in one line and exit code 125.
    """
    if bool(command) == (attach is not None):
        return _fail("give a command after --, or --attach PID")
    if not sys.platform.startswith("linux"):
        return _fail("recording needs Linux; traces recorded there can be replayed anywhere")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        return _fail(f"{output.parent}: no folder that can be written to; choose another with -o")
    if output.is_dir():
        return _fail(f"{output} is a folder; name a file with -o, such as {output / 'trace.parquet'}")
    try:
        with planned(level) as plan:
            session = Session(plan)
            trace = session.attach(attach) if attach is not None else session.run(command)
        _say(f"level {plan.level}: {summary(trace)}")
        for note in trace.meta.notes:
            _say(note)
        if trace.meta.lost and not allow_lost:
            return _fail(f"{trace.meta.lost} events were lost, nothing written; --allow-lost keeps such a trace")
        for path, part in _outputs(output, trace, split):
            (write_csv if path.suffix == ".csv" else write_trace)(path, part)
            _say(f"wrote {path} ({path.stat().st_size / 1024:.1f} KiB)")
    except (RecordError, TraceError) as error:
        return _fail(str(error))
    code = trace.meta.exit_status
    return code if code >= 0 else 128 - code


def summary(trace: Trace) -> str:
    """One line: events, tasks, address spaces, lost events, faults against getrusage."""
    faults = trace.meta.faults
    return (
        f"{len(trace)} events, {trace.tasks} tasks, {trace.mms} address spaces, {trace.meta.lost} lost, "
        f"faults {faults.get('recorded', 0)} recorded, {faults.get('expected', 0)} by getrusage"
    )


def _outputs(output: Path, trace: Trace, split: bool) -> list[tuple[Path, Trace]]:
    if not split or trace.mms < 2:
        return [(output, trace)]
    from benchframe.trace.split import split_trace

    return [(output.with_suffix(f".{i}{output.suffix}"), part) for i, part in enumerate(split_trace(trace))]


def _say(text: str) -> None:
    print(f"benchframe record: {text}", file=sys.stderr)


def _fail(text: str) -> int:
    _say(text)
    return EXIT_FAILED
