"""The output of `benchframe trace info|head|convert|select|split|verify`.

Each function returns an exit code: 0 success, 1 the trace does not agree with the kernel's reports (verify). Each
raises TraceError when a file cannot be read or written.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchframe.errors import TraceError, UsageError
from benchframe.events import NIL, UNKNOWN, Attr, Kind
from benchframe.files import printable
from benchframe.trace.trace import MARK, Trace, read_csv, read_file, read_trace, write_csv, write_trace


def run_trace_info(path: str | Path) -> int:
    """Print provenance, counts, locality, VMAs over time and a picture of the largest address space."""
    from benchframe.trace.analysis import REUSE_BINS, figures, peaks, picture, sparkline

    trace = read_file(path)
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
    _representative(trace)
    return 0


def _representative(trace: Trace) -> None:
    """Where the trace lies among the shipped ones; a trace that is one of them is left out of those."""
    from benchframe.registry import load
    from benchframe.trace.analysis import lines, nominal, same

    own = nominal(trace)
    found = lines(own, {name: values for name, values in load().recorded().items() if not same(values, own)})
    if found:
        print("beside the shipped traces (docs/workloads.md):")
    for line in found:
        print(f"{'':12} {line}")


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
"""The number of address spaces that ``trace info`` lists, those with the most faults first."""


def _processes(trace: Trace, peak: dict[int, int]) -> None:
    """The processes of each address space of a tree: ``trace select`` chooses from them."""
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
    """Write one address space of a tree as a trace of its own; exactly one option must choose it."""
    from benchframe.trace import trace as split

    trace = read_file(path)
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
        raise TraceError(path, "no address space matches", "benchframe trace info lists them")
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
    trace = read_file(path)
    for mm, part in enumerate(split_trace(trace)):
        target = output.with_suffix(f".{mm}{output.suffix}")
        _write(target, part)
        print(f"{path} mm {mm} -> {target}: {len(part)} events, {part.tasks} tasks")
    return 0


def _write(path: Path, trace: Trace) -> None:
    if path.suffix not in (".parquet", ".csv"):
        raise TraceError(
            path, f"its ending {path.suffix or '(none)'} is not a trace format", "name it .parquet or .csv"
        )
    (write_csv if path.suffix == ".csv" else write_trace)(path, trace)


def run_trace_head(path: str | Path, n: int = 20) -> int:
    """Print the first ``n`` events, one per line, in the style of strace."""
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


def describe(event: object, name: str = "") -> str:
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
    if kind == Kind.RLIMIT:
        return f"rlimit(stack) is {size}"
    if kind == Kind.WALK:
        part = f", {e['new_len']} VMAs a read" if e["new_len"] else ""
        return f"walk of all VMAs{part}" + (f", not counting {where}, {size}" if e["len"] else "")
    rest = {
        Kind.MPROTECT: f", {size}, {bits}",
        Kind.MREMAP: f", {size}, {e['new_len']:#x}, flags {e['flags']:#x}, {e['offset']:#x}",
        Kind.BRK: "",
        Kind.MADVISE: f", {size}, {e['flags']}",
        Kind.ATTR: f", {size}, {Attr(e['flags']).name.lower() if e['flags'] in list(Attr) else '?'} {e['prot']}",
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
    from benchframe.record.command import import_any

    return import_any(path, head, allow_loss)


def run_trace_verify(path: str | Path) -> int:
    """Replay the trace in the oracle and compare it with everything that the kernel reported; 0 if they agree, 1 if
    not."""
    from benchframe.trace.verify import verify

    trace = read_file(path)
    verdict = verify(trace)
    for line in verdict.lines:
        print(printable(line))
    outside = f", {verdict.faults_outside} outside every VMA" if verdict.faults_outside else ", each in a VMA"
    refused = f", {verdict.faults_refused} in kernel mode refused: EFAULT" if verdict.faults_refused else ""
    print(f"faults       {verdict.faults}{outside} ({verdict.signals} ended in a signal{refused})")
    print(f"calls        {verdict.calls}, {verdict.calls_differ} returned something else")
    print(f"reported     {verdict.reports} VMAs after calls, {verdict.reports_differ} differ from the replay")
    print(f"layouts      {verdict.snapshots} from /proc/PID/maps, {verdict.snapshots_differ} differ from the replay")
    if verdict.snapshots_hazy:
        print(f"note         {verdict.snapshots_hazy} agree except at borders that unrecorded faults decide")
    if verdict.unplayed and (verdict.reports_differ or verdict.calls_differ):
        print("note         calls that cannot be replayed (trace info names them) may explain the differences")
    for name, count in verdict.explained.most_common():
        print(f"explained    {count} difference{'s' * (count > 1)} by {printable(name)}, not replayed")
    but = f", but for {verdict.explained.total()} differences that calls explain which are not replayed"
    print(f"{path}: {'holds' if verdict.good else 'DOES NOT HOLD'}{but if verdict.explained else ''}")
    return 0 if verdict.good else 1
