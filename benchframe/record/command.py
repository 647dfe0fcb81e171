"""The command ``benchframe record``: a session, what is done with its recording, and what is said about it; and traces
from what other tools wrote.

Other tools' files are perf.data, ``perf script`` text, strace logs and ``/proc/PID/maps`` snapshots. All become the
recorder's own records, so one builder gives them their order. None of it is trusted: sizes are bounded, and what makes
no sense ends in a TraceError that names the line. What is read is counted (:class:`~benchframe.record.tally.Tally`):
what was used, what has no place in a trace, and what belongs in it but was not understood.
"""

import contextlib
import os
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchframe.errors import BenchframeError, TraceError
from benchframe.record.builder import Builder
from benchframe.record.procfs import Maps, is_maps_line, parse_maps
from benchframe.record.recording import Recording
from benchframe.record.records import Journal
from benchframe.record.session import Ends, RecordError, Session, planned, read_journal
from benchframe.record.tally import MAX_INPUT, MAX_LINE, Tally, imported
from benchframe.trace.meta import MAX_AREAS
from benchframe.trace.trace import MAX_ROWS, Trace, write_batches, write_csv, write_trace

EXIT_FAILED = 125
"""Our own failure, as in env(1) and timeout(1): a code that programs rarely use, since theirs is passed on."""
FAR_BELOW = {"full": 0.9, "user": 0.5}
"""Recorded faults below this share of the kernel's own count are no recording of the program."""
SLACK = 30
"""Faults that may be missing in any case: the kernel's own (get_user_pages) and those before the first layout."""


@dataclass(frozen=True)
class Wanted:
    """What is to be written, and what is done about a recording that misses something."""

    output: Path
    allow_loss: bool = False
    split: bool = False
    only: tuple[str, ...] = field(default=())


def run_record_command(
    command: list[str],
    output: Path,
    level: str = "auto",
    allow_loss: bool = False,
    attach: int | None = None,
    split: bool = False,
    *,
    tree: bool = False,
    only: tuple[str, ...] = (),
    ends: Ends | None = None,
    grouped: bool = True,
    recover: Path | None = None,
) -> int:
    """Record ``command`` (or process ``attach``) to ``output`` (CSV if it ends so); returns the program's exit code.

    The program keeps its stdin, stdout, signals and exit code (128 + n if signal n ended it); we speak on stderr, and
    only when the trace is on the disk. ``split`` writes one file per address space, ``NAME.0.parquet`` and so on;
    ``only`` keeps the processes of these commands; ``grouped`` as for :class:`Session`. A trace that lost events, has
    far fewer faults than the kernel counted, or lacks a process that changed its control group, is refused unless
    ``allow_loss``. ``recover`` builds the trace of a journal that a killed recorder left;
    while the recording still runs, it is refused.
    Our own failures end in one line and exit code 125.
    """
    if sys.stderr is None:  # closed: no file that is opened later may take its number
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    if sum((bool(command), attach is not None, recover is not None)) != 1:
        return _fail("give a command after --, or --attach PID")
    if not sys.platform.startswith("linux"):
        return _fail("recording needs Linux; traces recorded there can be replayed anywhere")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        return _fail(f"{output.parent}: not a writable folder; choose another with -o")
    if output.is_dir():
        return _fail(f"{output} is a folder; name a file with -o, such as {output / 'trace.parquet'}")
    wanted = Wanted(output, allow_loss, split, only)
    if recover is not None:
        return _recover(Journal(recover), wanted)
    session = None
    try:
        with planned(level) as plan:
            session = Session(plan, ends, lambda left: _orphaned(left, wanted), grouped)
            if attach is not None:
                session.attach(attach, tree)
            else:
                session.run(command)
    except OSError as error:
        return _fail(f"recording failed: {error.strerror or error}; TMPDIR names the folder for what it keeps", session)
    except RecordError as error:
        return _fail(str(error), session)
    return _keep(session.journal, wanted, session)


def _recover(journal: Journal, wanted: Wanted) -> int:
    try:
        journal.about()
        journal.hold()
    except BenchframeError as error:
        return _fail(str(error))
    return _keep(journal, wanted)


def _orphaned(session: Session, wanted: Wanted) -> None:
    """Our front process was killed: the trace is written all the same."""
    _keep(session.journal, wanted, session)


def _keep(journal: Journal, wanted: Wanted, session: Session | None = None) -> int:
    """Build and write the trace of a journal, then say so and let go of it. The journal stays if that fails."""
    try:
        return _built(journal, wanted, session)
    finally:
        journal.release()


def _built(journal: Journal, wanted: Wanted, session: Session | None) -> int:
    said: list[str] = []
    output = wanted.output
    try:
        recording = session.recording(_progress()) if session is not None else read_journal(journal, _progress())
        said.append(f"level {recording.meta.level}: {summary(recording)}")
        said += recording.meta.notes
        left = journal.ended().get("left", "")
        if left:
            left += "; what they did then was not recorded (--inherit follows them)"
            said.append(left)
        refused = "" if wanted.allow_loss else incomplete(recording) or left
        if refused:
            hint = f"--allow-loss accepts such a trace; {_left(journal, output)} --allow-loss"
            return _fail(f"{refused}, so nothing was written; {hint}", None, said)
        written = _write(recording, wanted)
        said += [f"wrote {path} ({path.stat().st_size / 1024:.1f} KiB)" for path in written]
        said += [note for note in recording.meta.notes if note not in said]
    except (MemoryError, ImportError) as error:  # a library that does not fit into the address space
        return _fail(f"out of memory, see ulimit -v ({error}); {_left(journal, output)}", None, said)
    except (BenchframeError, OSError, ValueError) as error:
        text = str(error) if not isinstance(error, OSError) else f"{output}: {error.strerror or error}"
        return _fail(f"{text}; {_left(journal, output)}", None, said)
    _say(*said)
    end = journal.ended()
    journal.remove()
    code = recording.meta.exit_status
    if end.get("killed") and session is not None:
        return EXIT_FAILED
    if session is not None and session.signals and end.get("running"):
        return 128 + session.signals[0]
    return code if code >= 0 else 128 - code


def _left(journal: Journal, output: Path) -> str:
    return f"the recording is kept: benchframe record --recover {journal.folder} -o {output.name}"


def incomplete(recording: Recording) -> str:
    """Why a recording is no full one; empty if it is."""
    meta = recording.meta
    if meta.lost:
        return f"{meta.lost} events were lost"
    recorded, expected = meta.faults.get("recorded", 0), meta.faults.get("expected", 0)
    if recorded + SLACK < FAR_BELOW.get(meta.level, 0.0) * expected:
        return f"only {recorded} of {expected} page faults were recorded"
    return ""


def summary(recording: Recording) -> str:
    """One line: events, tasks, address spaces, lost events, faults against getrusage."""
    faults = recording.meta.faults
    return (
        f"{recording.rows} events, {recording.tasks} tasks, {recording.mms} address spaces, "
        f"{recording.meta.lost} lost, "
        f"faults {faults.get('recorded', 0)} recorded, {faults.get('expected', 0)} by getrusage"
    )


def _write(recording: Recording, wanted: Wanted) -> list[Path]:
    """Write what is wanted; returns the files. Raises TraceError."""
    output = wanted.output
    if not wanted.split and not wanted.only and output.suffix != ".csv":
        try:
            write_batches(output, lambda: recording.meta, recording.batches())
        except ValueError as error:
            raise TraceError(output, f"not written: {error}", "this trace was built wrongly") from None
        return [output]
    if recording.rows > MAX_ROWS:
        raise TraceError(output, f"more than {MAX_ROWS} events", "record to .parquet without --split and --only")
    from benchframe.trace.trace import of_command, select_all, split_trace

    trace = recording.trace()
    if wanted.only:
        spaces = [mm for name in wanted.only for mm in of_command(trace, name)]
        if not spaces:
            known = sorted({process.command.split(" ")[0] for process in trace.meta.processes})
            raise TraceError(
                output, f"no process of {', '.join(wanted.only)} was recorded", f"there are {', '.join(known)}"
            )
        parts = list(select_all(trace, dict.fromkeys(spaces)))
    else:
        parts = split_trace(trace) if wanted.split and trace.mms > 1 else [trace]
    files = []
    for i, part in enumerate(parts):
        path = output if len(parts) == 1 else output.with_suffix(f".{i}{output.suffix}")
        (write_csv if path.suffix == ".csv" else write_trace)(path, part)
        files.append(path)
    return files


def _progress() -> Callable[[float], None] | None:
    """Say how far it is, on a terminal, once it takes long."""
    if not sys.stderr.isatty():
        return None
    begun = last = time.monotonic()

    def tell(share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now > begun + 2 and now > last + 0.5:
            last = now
            with contextlib.suppress(OSError, ValueError):
                print(f"\rbenchframe record: {share:4.0%} of the records put in order", end="\r", file=sys.stderr)

    return tell


def _say(*texts: str) -> None:
    """Lines on stderr; where nobody listens any more, nothing is lost by that."""
    try:
        for text in texts:
            print(f"benchframe record: {text}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)  # what Python still holds for stderr must not fail again at exit


def _fail(text: str, session: Session | None = None, before: list[str] | None = None) -> int:
    if session is not None:
        session.close()
    _say(*(before or []), text)
    return EXIT_FAILED


# ----------------------------------------------------------------------------------------------------------------------
# Import of other tools' files.

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
