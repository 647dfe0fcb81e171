"""`benchframe trace`: information, verification, conversion and splitting of trace files."""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchframe.cli.options import guarded, registry
from benchframe.errors import TraceError, UsageError
from benchframe.events import NIL, UNKNOWN, Kind
from benchframe.files import printable
from benchframe.trace.trace import Trace, read_trace, write_trace

# ----------------------------------------------------------------------------------------------------------------------
# ``benchframe trace info|head|convert|verify``: the commands behind the command line. All print to stdout.
#
# Each returns an exit code: 0 good, 1 the trace does not hold (verify). Each raises TraceError: a file cannot be read
# or written.


def run_trace_info(path: str | Path) -> int:
    """Print provenance, counts, locality, VMAs over time and a picture of the largest address space."""
    from benchframe.trace.analysis import REUSE_BINS, figures, peaks, picture, sparkline

    trace = read_trace(path)
    _provenance(trace)
    facts = figures(trace)
    print("events      ", ", ".join(f"{count} {name.lower()}" for name, count in facts.kinds.items()))
    print("faults      ", ", ".join(f"{count} {name}" for name, count in facts.faults.items()) or "none recorded")
    ratio = f"{facts.lookups / facts.operations:.1f}" if facts.operations else "no mapping operation"
    print(f"lookups      {facts.lookups}; per mapping operation: {ratio}")
    print(
        f"locality     same as the task's lookup before: VMA {facts.same_vma:.1%}, 2 MiB {facts.same_pmd:.1%}, "
        f"page {facts.same_page:.1%}"
    )
    if facts.reuse_rows:
        low, classes = 0, []
        for high, count in zip(REUSE_BINS, facts.reuse, strict=False):
            name = f"{low}" if low == high else f"{low}-{high}"
            classes.append(f"{name}: {count / facts.reuse_rows:.1%}")
            low = high + 1
        classes.append(f"more: {facts.reuse[-2] / facts.reuse_rows:.1%}")
        classes.append(f"first: {facts.reuse[-1] / facts.reuse_rows:.1%}")
        print("VMA reuse    other VMAs since the last lookup in this one:", ", ".join(classes))
    print("peak VMAs   ", peaks(facts.peak_vmas))
    _processes(trace, facts.peak_vmas)
    if facts.vmas:
        largest = max(facts.vmas, key=lambda mm: (max(facts.vmas[mm]), -mm))
        print(f"VMAs of mm {largest} over the events, up to {max(facts.vmas[largest])}:")
        print(f"{'':22}|{sparkline(facts.vmas[largest], _blocks())}|")
        print("its address space: '.' mapped, -+*# ever more faults")
        for line in picture(trace, facts, largest):
            print(line)
    return 0


def _provenance(trace: Trace) -> None:
    meta = trace.meta
    print("command     ", printable(" ".join(meta.command)).replace("\n", " ")[:200] or "none")
    print(f"recorded     {meta.date or 'never'}, level {meta.level or '?'}, {meta.machine or '?'}")
    print("kernel      ", meta.kernel or "?")
    if meta.tool or meta.licence:
        print("made by     ", f"{meta.tool}; {meta.licence}".strip("; "))
    counts = meta.faults
    against = f", faults {counts['recorded']} recorded, {counts['expected']} by getrusage" if len(counts) >= 2 else ""
    print(f"events       {len(trace)} ({trace.setup} build the layout), {meta.lost} lost{against}")
    seconds = int(trace.time[-1]) / 1e9 if len(trace) else 0.0
    print(f"span         {seconds:.3f} s, {trace.tasks} tasks, {trace.mms} address spaces, {len(meta.files)} files")
    for note in meta.notes:
        print("note        ", note)
    print("digest      ", trace.digest)


def _blocks() -> str:
    """The characters of a sparkline that stdout can show."""
    from benchframe.trace.analysis import BLOCKS, PLAIN

    try:
        BLOCKS.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeError, LookupError):
        return PLAIN
    return BLOCKS


PROCESSES = 25
"""Address spaces that ``trace info`` lists, those with the most faults first."""


def _processes(trace: Trace, peak: dict[int, int]) -> None:
    """Who lived in each address space of a tree: what ``trace select`` chooses from."""
    if trace.mms < 2 and not trace.meta.processes:
        return
    faults = np.bincount(trace.events["mm"][trace.events["kind"] == Kind.FAULT], minlength=trace.mms)
    known = {process.mm: process for process in trace.meta.processes}
    print("processes    address space, pid, faults recorded and by getrusage, most VMAs, command:")
    order = sorted(range(trace.mms), key=lambda mm: (-int(faults[mm]), mm))
    for mm in order[:PROCESSES]:
        process = known.get(mm)
        pid, counted = (process.pid, process.faults) if process is not None else (NIL, NIL)
        command = printable(process.command).replace("\n", " ")[:60] if process is not None else ""
        told = f"{pid if pid >= 0 else '?':>8} {int(faults[mm]):>8} {counted if counted >= 0 else '?':>8}"
        print(f"{'':12} mm {mm:<5}{told} {peak.get(mm, 0):>6}  {command or '?'}")
    if trace.mms > PROCESSES:
        print(f"{'':12} and {trace.mms - PROCESSES} more")


def run_trace_select(
    path: str | Path,
    output: str | Path,
    mm: int | None = None,
    pid: int | None = None,
    command: str | None = None,
    largest: bool = False,
) -> int:
    """Write one address space of a tree as a trace of its own; exactly one choice is given."""
    from benchframe.trace import trace as split

    trace = read_trace(path)
    if sum((mm is not None, pid is not None, command is not None, largest)) != 1:
        raise UsageError("choose one: --mm N, --pid PID, --command NAME or --largest (trace info lists them)")
    if mm is not None:
        chosen = [mm] if 0 <= mm < trace.mms else []
    elif pid is not None:
        chosen = split.of_pid(trace, pid)
    elif command is not None:
        chosen = split.of_command(trace, command)
    else:
        chosen = [split.largest(trace)]
    if not chosen:
        raise TraceError(path, "no address space is that one", "benchframe trace info lists them")
    lookups = np.bincount(trace.events["mm"][trace.events["kind"] == Kind.FAULT], minlength=trace.mms)
    best = max(chosen, key=lambda number: (int(lookups[number]), -number))
    part = split.select(trace, best)
    _write(Path(output), part)
    others = f" ({len(chosen)} fit: that with the most faults was taken)" if len(chosen) > 1 else ""
    print(f"{path} mm {best} -> {output}: {len(part)} events, {part.tasks} tasks{others}")
    return 0


def run_trace_split(path: str | Path, output: str | Path) -> int:
    """Write every address space of a tree as a trace of its own: NAME.0.parquet and so on."""
    from benchframe.trace.trace import split_trace

    output = Path(output)
    trace = read_trace(path)
    for mm, part in enumerate(split_trace(trace)):
        target = output.with_suffix(f".{mm}{output.suffix}")
        _write(target, part)
        print(f"{path} mm {mm} -> {target}: {len(part)} events, {part.tasks} tasks")
    return 0


def _write(path: Path, trace: Trace) -> None:
    from benchframe.trace.csvfile import write_csv

    if path.suffix not in (".parquet", ".csv"):
        raise TraceError(
            path, f"its ending {path.suffix or '(none)'} is not a trace format", "name it .parquet or .csv"
        )
    (write_csv if path.suffix == ".csv" else write_trace)(path, trace)


def run_trace_head(path: str | Path, n: int = 20) -> int:
    """Print the first ``n`` events, one a line, in the manner of strace."""
    from benchframe.trace.trace import iter_batches, read_meta

    files = read_meta(path).files
    left = max(0, n)
    for batch in iter_batches(path, min(max(left, 1), 1 << 16)):
        for i in range(min(left, len(batch.events))):
            event = batch.events[i]
            name = files[event["file"]].name if event["file"] >= 0 else ""
            when = f"{batch.row + i:>8} {int(batch.time[i]) / 1e9:12.6f}"
            print(f"{when} mm {event['mm']} task {event['task']} {describe(event, name)}")
        left -= len(batch.events)
        if left <= 0:
            break
    return 0


def describe(event: "object", name: str = "") -> str:
    """One event in words; ``event`` is a row of EVENT, ``name`` its file."""
    e = {field: int(event[field]) for field in event.dtype.names}  # type: ignore[attr-defined, index]
    kind = Kind(e["kind"])
    size, bits = f"{e['len']:#x}", "".join(c if e["prot"] & 1 << i else "-" for i, c in enumerate("rwx"))
    ret = "?" if e["ret"] == UNKNOWN else f"{e['ret']:#x}" if e["ret"] > 0 else str(e["ret"])
    where = f"{e['addr']:#x}"
    if kind in (Kind.FAULT, Kind.LOOKUP):
        access = {1: "read", 2: "write", 4: "execute"}.get(e["prot"], "")
        return f"{kind.name.lower()} {where} {access}{' -> signal' if e['flags'] & 4 else ''}".rstrip()
    if kind in (Kind.MAP, Kind.MMAP):
        source = f", {name} at {e['offset']:#x}" if e["file"] != NIL else ""
        text = f"{kind.name.lower()}({where}, {size}, {bits}, flags {e['flags']:#x}{source})"
        return text if kind == Kind.MAP else f"{text} = {ret}"
    if kind == Kind.EXEC:
        return f"exec, start_brk {where if e['addr'] != NIL else 'unknown'}"
    if kind == Kind.FORK:
        return f"fork -> mm {e['addr']}, task {e['len']}"
    if kind == Kind.THREAD:
        return f"thread -> task {e['len']}"
    if kind == Kind.EXIT:
        return "exit"
    rest = {
        Kind.MPROTECT: f", {size}, {bits}",
        Kind.MREMAP: f", {size}, {e['new_len']:#x}, flags {e['flags']:#x}, {e['offset']:#x}",
        Kind.BRK: "",
        Kind.MADVISE: f", {size}, {e['flags']}",
    }.get(kind, f", {size}")
    return f"{kind.name.lower()}({where}{rest}) = {ret}"


def run_trace_convert(src: str | Path, dst: str | Path, allow_loss: bool = False) -> int:
    """Convert between Parquet and CSV, and import perf.data, perf script text, strace logs and maps snapshots."""
    src, dst = Path(src), Path(dst)
    if dst.suffix not in (".parquet", ".csv"):
        what = f"its ending {dst.suffix or '(none)'} is not a trace format"
        raise TraceError(dst, what, "name it .parquet or .csv")
    trace, form = load_any(src, allow_loss)
    _write(dst, trace)
    print(f"{src} ({form}) -> {dst}: {len(trace)} events, {trace.tasks} tasks, {trace.mms} address spaces")
    for note in trace.meta.notes:
        print("note:", note)
    return 0


def load_any(path: Path, allow_loss: bool = False) -> tuple[Trace, str]:
    """A trace from any form that benchframe knows, told apart by content; returns (trace, name of the form)."""
    from benchframe.trace.csvfile import MARK, read_csv

    try:
        if not path.is_file():
            what = "it is not a regular file" if path.exists() else "there is no such file"
            raise TraceError(path, what, "check the path")
        with path.open("rb") as file:
            head = file.read(4096)
    except (OSError, ValueError) as error:
        raise TraceError(path, f"cannot be read ({error})", "check the path and its permissions") from None
    if head.startswith(b"PAR1") or path.suffix == ".parquet":
        return read_trace(path), "Parquet"
    if head.startswith(MARK.encode()) or path.suffix == ".csv":
        return read_csv(path), "CSV"
    from benchframe.record.importers import import_any

    return import_any(path, head, allow_loss)


def run_trace_verify(path: str | Path) -> int:
    """Replay through the oracle and hold it to all that the kernel showed; 0 if it holds, 1 if not."""
    from benchframe.trace.verify import verify

    trace = read_trace(path)
    verdict = verify(trace)
    for line in verdict.lines:
        print(line)
    outside = f", {verdict.faults_outside} outside every VMA" if verdict.faults_outside else ", each in a VMA"
    print(f"faults       {verdict.faults}{outside} ({verdict.signals} ended in a signal)")
    print(f"calls        {verdict.calls}, {verdict.calls_differ} returned something else")
    print(f"reported     {verdict.reports} VMAs after calls, {verdict.reports_differ} differ from the replay")
    print(f"layouts      {verdict.snapshots} from /proc/PID/maps, {verdict.snapshots_differ} differ from the replay")
    if verdict.snapshots_hazy:
        print(f"note         {verdict.snapshots_hazy} agree except for borders that depend on unrecorded faults")
    if verdict.unplayed and (verdict.reports_differ or verdict.calls_differ):
        print("note         calls that cannot be replayed (trace info names them) may explain the differences")
    print(f"{path}: {'holds' if verdict.good else 'DOES NOT HOLD'}")
    return 0 if verdict.good else 1


# ----------------------------------------------------------------------------------------------------------------------
# ``benchframe trace``: look into, convert and verify trace files.

app = typer.Typer(
    help="Inspect, convert and verify trace files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
File = Annotated[Path, typer.Argument(help="A trace file.")]


@app.command("info")
@guarded
def info(file: File) -> int:
    """Print provenance, counts, locality, VMAs over time and a picture of the address space.

    Exit codes: 0, 2 (the file is no trace, or damaged).

    \b
    Example:
      benchframe trace info python.parquet
    """

    return run_trace_info(file)


@app.command("head")
@guarded
def head(file: File, n: Annotated[int, typer.Option("-n", min=1, help="How many events.")] = 20) -> int:
    """Print the first events, one a line.

    Exit codes: 0, 2 (the file is no trace, or damaged).

    \b
    Example:
      benchframe trace head -n 50 python.parquet
    """

    return run_trace_head(file, n)


@app.command("convert")
@guarded
def convert(
    source: Annotated[Path, typer.Argument(help="Parquet, CSV, perf.data, perf script text, strace log or maps.")],
    target: Annotated[Path, typer.Argument(help="What to write: .parquet or .csv.")],
    allow_loss: Annotated[bool, typer.Option("--allow-loss", help="Take an import of which much is missing.")] = False,
) -> int:
    """Convert between trace formats, and import other tools' recordings.

    What an import reads, uses and leaves out is counted and printed. Where more than 1 % of what belongs in a trace is
    missing, it is refused unless --allow-loss is given.

    Exit codes: 0, 2 (a file that cannot be read as a trace, an unknown form, too much missing), 3 (the disk).

    \b
    Examples:
      benchframe trace convert perf.data program.parquet
      benchframe trace convert program.parquet program.csv
    """

    return run_trace_convert(source, target, allow_loss)


@app.command("select")
@guarded
def select(
    file: File,
    output: Annotated[Path, typer.Option("--output", "-o", help="What to write: .parquet or .csv.")],
    mm: Annotated[int | None, typer.Option(min=0, help="The address space of this number.")] = None,
    pid: Annotated[int | None, typer.Option(min=1, help="The largest one of this process.")] = None,
    command: Annotated[str | None, typer.Option(metavar="NAME", help="The largest one of this command.")] = None,
    largest: Annotated[bool, typer.Option("--largest", help="The one with the most lookups.")] = False,
) -> int:
    """Take one address space out of a trace of a process tree: a trace that stands alone.

    One that was born by fork begins with the layout that it was born with. `trace info` lists them all.

    Exit codes: 0, 2 (no such address space, the file is no trace), 3 (the disk).

    \b
    Examples:
      benchframe trace select make.parquet --command cc1 -o cc1.parquet
      benchframe trace select browser.parquet --largest -o renderer.parquet
    """

    return run_trace_select(file, output, mm, pid, command, largest)


@app.command("split")
@guarded
def split(
    file: File,
    output: Annotated[Path, typer.Option("--output", "-o", help="NAME.parquet: NAME.0.parquet and so on are written.")],
) -> int:
    """Write every address space of a process tree as a trace that stands alone.

    Exit codes: 0, 2 (the file is no trace, or damaged), 3 (the disk).

    \b
    Example:
      benchframe trace split make.parquet -o part.parquet
    """

    return run_trace_split(file, output)


@app.command("verify")
@guarded
def verify(file: File) -> int:
    """Replay a trace through the oracle and hold it to what the kernel reported.

    Exit codes: 0, 1 (they differ), 2 (the file is no trace, or damaged).

    \b
    Example:
      benchframe trace verify python.parquet
    """

    return run_trace_verify(file)


@app.command("replay")
@guarded
def replay(
    file: File,
    strategy: Annotated[str, typer.Option("--strategy", "-s", help="The strategy to replay with.")] = "rbtree",
    rows: Annotated[int, typer.Option("--rows", min=1, help="Events held in memory at once.")] = 1 << 20,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every answer with the oracle's.")] = False,
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
) -> int:
    """Replay a trace of any length through the model in bounded memory.

    Exit codes: 0, 1 (--verify finds a wrong answer), 2 (the file is no trace, or damaged; no such strategy).

    \b
    Examples:
      benchframe trace replay huge.parquet
      benchframe trace replay --strategy pmdcache --verify program.parquet
    """
    from benchframe.engine.session import StreamReplay
    from benchframe.trace.trace import iter_batches

    replayer = StreamReplay(registry(plugin).strategy(strategy), rows, verify=verify)
    done = replayer.run(batch.events for batch in iter_batches(file, rows))
    typer.echo(f"{done.events:,} events through {strategy}: {done.rate / 1e6:.1f} M events/s inside the replay")
    if verify:
        typer.echo(
            f"{done.wrong:,} answers differ from the oracle's" if done.wrong else "every answer equals the oracle's"
        )
    if done.wrong:
        typer.echo(done.first_wrong, err=True)
    return 1 if done.wrong else 0
