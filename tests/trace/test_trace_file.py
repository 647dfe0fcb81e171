"""The trace format: what is written is read back, and what is damaged or hostile ends in one clear error."""

import os
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from benchframe.events import EVENT, NIL, REPORT, UNKNOWN, Kind
from benchframe.trace import parquet
from benchframe.trace import trace as trace_format
from benchframe.trace.meta import FileEntry, Process, Snapshot, TraceMeta, meta_from_json, meta_to_json
from benchframe.trace.parquet import column_pages, page_header
from benchframe.trace.trace import Trace, TraceError, iter_batches, read_meta, read_trace, write_csv, write_trace

BASE = 0x7F0000000000


def sample(faults: int = 100) -> Trace:
    """A small, whole trace: an exec, a mapping, faults, a munmap, an exit."""
    rng = np.random.default_rng(7)
    events = np.zeros(faults + 5, EVENT)
    events["file"] = NIL
    events[0] = (NIL, 0, 0, 0, 0, Kind.EXEC, 0, 0, 0, 0, NIL)
    events[1] = (BASE, 1 << 20, 4096, 0, 0, Kind.MAP, 0, 0, 5, 2, 0)
    events[2] = (0, 1 << 20, 0, 0, BASE + (1 << 20), Kind.MMAP, 0, 0, 3, 34, NIL)
    events["kind"][3:-2] = Kind.FAULT
    events["addr"][3:-2] = BASE + rng.integers(0, 1 << 21, faults)
    events["prot"][3:-2] = 1
    events[-2] = (BASE, 4096, 0, 0, UNKNOWN, Kind.MUNMAP, 0, 0, 0, 0, NIL)
    events[-1] = (0, 0, 0, 0, 0, Kind.EXIT, 0, 0, 0, 0, NIL)
    meta = TraceMeta(
        command=("sh", "-c", "true"),
        kernel="Linux",
        lost=3,
        files=(FileEntry("/usr/lib/libc.so.6", 12, 34),),
        snapshots=(Snapshot(0, 2, "exec", ((BASE, BASE + (1 << 20), 5, 0, 4096, 0),)),),
        limits={"stack": 8 << 20},
        notes=("a note",),
    )
    reports = np.array([(2, BASE + (1 << 20), BASE + (2 << 20))], REPORT)
    return Trace(events, np.arange(len(events)) * 1000, np.full(len(events), 99, np.int32), meta, reports)


def raw_columns(trace: Trace) -> dict[str, np.ndarray]:
    """The columns as the file holds them."""
    table = parquet._to_table(trace_format.Batch(0, trace.events, trace.time, trace.tid, trace.reports))
    return {name: table.column(name).to_numpy() for name in table.column_names}


def write_raw(path: Path, columns: dict[str, object], meta: bytes | None = None) -> None:
    """Any columns under any metadata, as a hostile writer would."""
    fields, arrays = [], []
    for name, values in columns.items():
        array = values if isinstance(values, pa.Array) else pa.array(values)
        arrays.append(array)
        fields.append(pa.field(name, array.type, nullable=False))
    schema = pa.schema(fields)
    with pq.ParquetWriter(path, schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        writer.add_key_value_metadata({b"benchframe": meta_to_json(sample().meta).encode() if meta is None else meta})


def refused(path: Path) -> str:
    """The one line that reading ``path`` ends in; both readers must agree."""
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    with pytest.raises(TraceError):
        for _ in iter_batches(path, 1000):
            pass
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_round_trip(tmp_path: Path) -> None:
    """Everything that is written comes back: events, clock, threads, metadata, reports, digest."""
    trace = sample()
    write_trace(tmp_path / "t.parquet", trace)
    again = read_trace(tmp_path / "t.parquet")
    assert np.array_equal(again.events, trace.events)
    assert np.array_equal(again.time, trace.time)
    assert np.array_equal(again.tid, trace.tid)
    assert np.array_equal(again.reports, trace.reports)
    assert again.meta == trace.meta == read_meta(tmp_path / "t.parquet")
    assert again.digest == trace.digest
    assert (again.setup, again.tasks, again.mms) == (2, 1, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_empty_trace(tmp_path: Path) -> None:
    """A trace of no events is a trace."""
    write_trace(tmp_path / "t.parquet", Trace(np.zeros(0, EVENT)))
    assert len(read_trace(tmp_path / "t.parquet")) == 0
    assert list(iter_batches(tmp_path / "t.parquet", 10)) == []


def test_batches_are_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of any size, over several row groups, are the whole trace in order."""
    trace = sample(5000)
    monkeypatch.setattr(parquet, "ROW_GROUP", 1000)
    write_trace(tmp_path / "t.parquet", trace)
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups == 6
    for rows in (1, 777, 100_000):
        batches = list(iter_batches(tmp_path / "t.parquet", rows)) if rows > 1 else []
        if batches:
            assert np.array_equal(np.concatenate([b.events for b in batches]), trace.events)
            assert max(len(b.events) for b in batches) <= rows
            assert [b.row for b in batches] == np.cumsum([0] + [len(b.events) for b in batches[:-1]]).tolist()
    assert np.array_equal(read_trace(tmp_path / "t.parquet").events, trace.events)


def test_digest_is_about_content(tmp_path: Path) -> None:
    """The digest ignores the encoding and the provenance, and sees every event, time, thread, file and limit."""
    trace = sample()
    other = Trace(
        trace.events.copy(), trace.time, trace.tid, TraceMeta(files=trace.meta.files, limits=trace.meta.limits)
    )
    assert other.digest == trace.digest
    seen = {trace.digest}
    for name in EVENT.names or ():
        changed = Trace(trace.events.copy(), trace.time, trace.tid, trace.meta)
        changed.events[name][5] += 1
        seen.add(changed.digest)
    seen.add(Trace(trace.events, trace.time + 1, trace.tid, trace.meta).digest)
    seen.add(Trace(trace.events, trace.time, trace.tid + 1, trace.meta).digest)
    seen.add(Trace(trace.events, trace.time, trace.tid, TraceMeta(limits=trace.meta.limits)).digest)
    seen.add(Trace(trace.events, trace.time, trace.tid, TraceMeta(files=trace.meta.files)).digest)
    assert len(seen) == 1 + len(EVENT.names or ()) + 4


def test_write_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills leaves the old file whole, no other file, and one clear error."""
    path = tmp_path / "t.parquet"
    write_trace(path, sample(10))
    before = path.read_bytes()

    def fail(sink: BinaryIO, meta: TraceMeta, batches: object) -> None:
        sink.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet, "write_table", fail)
    with pytest.raises(TraceError, match=r"No space left on device.*free space"):
        write_trace(path, sample(20))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


@pytest.mark.parametrize("write", [write_trace, write_csv], ids=["parquet", "csv"])
def test_a_disk_that_also_refuses_to_clean_up(
    write: Callable[[Path, Trace], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a read-only disk the removal of the unfinished file fails too; what is told is the trace not written."""

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(TraceError, match="cannot be written"):
        write(tmp_path / "none" / "a", Trace(np.zeros(0, EVENT)))


def test_wrong_trace_is_not_written(tmp_path: Path) -> None:
    """A trace that no reader would take is refused at the door."""
    trace = sample()
    trace.events["mm"][4] = 7
    with pytest.raises(TraceError, match=r"event 4: mm was never created"):
        write_trace(tmp_path / "t.parquet", trace)
    assert list(tmp_path.iterdir()) == []


def test_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred thousand rows in several row groups are written and read back as the same records."""
    monkeypatch.setattr(parquet, "ROW_GROUP", 1 << 16)
    trace = sample(200_000)
    write_trace(tmp_path / "t.parquet", trace)
    assert read_trace(tmp_path / "t.parquet").digest == trace.digest


# -- what is not a trace ---------------------------------------------------------------------------------------


def test_many_processes_read_back(tmp_path: Path) -> None:
    """70 000 address spaces, each with its process, and layouts of some: the file is read again; of the layouts the
    first that fit are kept, and that is said."""
    count = 70_000
    events = np.zeros(2 * count + 1, EVENT)
    events["file"] = NIL
    events["kind"][1::2], events["kind"][2::2] = Kind.FORK, Kind.EXIT
    events["addr"][1::2] = events["len"][1::2] = events["task"][2::2] = events["mm"][2::2] = np.arange(1, count + 1)
    processes = tuple(Process(mm, 100 + mm % 30_000, f"make -j{mm}", 20) for mm in range(count + 1))
    areas = tuple((start, start + 4096, 5, 0, 0, NIL) for start in range(1 << 20, 1 << 21, 1 << 15))
    layouts = tuple(Snapshot(mm, 2 * mm, when, areas) for mm in range(1, 7001) for when in ("exec", "exit"))
    path = tmp_path / "t.parquet"
    write_trace(path, Trace(events, meta=TraceMeta(processes=processes, snapshots=layouts)))
    again = read_trace(path)
    assert (again.mms, len(again.meta.processes)) == (count + 1, count + 1)
    assert 5_000 < len(again.meta.snapshots) < 14_000
    assert any(note.startswith("of 14000 layouts the metadata hold the first ") for note in again.meta.notes)


def test_not_files(tmp_path: Path) -> None:
    """Missing, a folder, a FIFO (which would block), unreadable names: one line each, at once."""
    assert "No such file" in refused(tmp_path / "none.parquet")
    assert "not a regular file" in refused(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refused(tmp_path / "fifo")
    with pytest.raises(TraceError, match="not a path"):
        read_trace("a\0b")


def test_not_parquet(tmp_path: Path) -> None:
    """Empty files, text, pickles and footers that lie about their size are told apart from traces."""
    path = tmp_path / "t.parquet"
    touched = tmp_path / "touched"
    bomb = pickle.dumps({"a": 1}) + b"cos\nsystem\n(S'touch " + str(touched).encode() + b"'\ntR."
    for data in (b"", b"PAR1", b"hello" * 100, bomb):
        path.write_bytes(data)
        assert "not a Parquet file" in refused(path)
    assert not touched.exists()
    for footer in (0, 100, 2**31 - 1, 2**32 - 1):
        path.write_bytes(b"PAR1" + b"x" * 50 + struct.pack("<I", footer) + b"PAR1")
        refused(path)


def test_not_a_trace(tmp_path: Path) -> None:
    """Other Parquet files: without our key, columns, types."""
    path = tmp_path / "t.parquet"
    columns: dict[str, object] = dict(raw_columns(sample()))
    pq.write_table(pa.table({"a": [1, 2]}), path)
    assert "column time is missing" in refused(path)
    write_raw(path, {k: v for k, v in columns.items() if k != "prot"})
    assert "column prot is missing" in refused(path)
    write_raw(path, columns | {"more": np.zeros(105, np.int64)})
    assert "columns that a trace does not have" in refused(path)
    write_raw(path, columns | {"kind": np.zeros(105)})
    assert "column kind is not a plain column" in refused(path)
    write_raw(path, columns | {"addr": pa.array(["x"] * 105)})
    assert "column addr is not a plain column" in refused(path)
    write_raw(path, columns | {"addr": pa.array([0] * 105, pa.timestamp("us"))})
    assert "not a plain column of signed" in refused(path)
    write_raw(path, columns | {"addr": pa.array([[1]] * 105)})
    refused(path)
    pq.write_table(pa.table(columns, schema=parquet.SCHEMA), path)
    assert "not a benchframe trace" in refused(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("len", v) for v in (2**63 - 1, -1)),
        *(("addr", v) for v in (2**47 + 1, -(2**63))),
        *(("kind", v) for v in (99, -1)),
        *(("task", v) for v in (2**31 - 1, -5)),
        *(("file", v) for v in (1, -2)),
        *(("ret", v) for v in (2**62, -5000)),
        *(("vm_end", v) for v in (2**60, 5)),
        *((name, -1) for name in ("tid", "time", "prot", "flags")),
        ("mm", 2**31 - 1),
        ("offset", -4096),
        ("new_len", 2**63 - 1),
    ],
)
def test_values_out_of_range(tmp_path: Path, column: str, value: int) -> None:
    """One impossible number anywhere is found before an engine could index with it."""
    columns = raw_columns(sample())
    columns[column] = columns[column].copy()
    columns[column][50] = value
    write_raw(tmp_path / "t.parquet", dict(columns))
    refused(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("meta", "what"),
    [
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"version":2}', "format version 2"),
        (b'{"version":true}', "format version"),
        (b'{"version":1,"files":[["a",1]]}', "files"),
        (b'{"version":1,"files":[["a",-1,1]]}', "files"),
        (b'{"version":1,"command":"rm"}', "command"),
        (b'{"version":1,"lost":1e300}', "lost"),
        (b'{"version":1,"kernel":{}}', "kernel"),
        (b'{"version":1,"limits":{"a":"b"}}', "limits"),
        (b'{"version":1,"snapshots":[{"mm":0,"row":0,"when":"exit","areas":[1,2,3]}]}', "five numbers"),
        (b'{"version":1,"snapshots":[{"mm":0,"row":0,"when":"exit","areas":[34359738368,1,0,0,-1]}]}', "snapshots"),
        (b'{"version":1,"snapshots":[{"mm":4,"row":0,"when":"exit","areas":[]}]}', "not in the trace"),
        (b'{"version":1,"notes":["' + b"x" * (17 << 20) + b'"]}', "metadata claims"),
        (b'{"version":1' + b"0" * 5000 + b"}", "metadata"),
    ],
)
def test_hostile_metadata(tmp_path: Path, meta: bytes, what: str) -> None:
    """Each member of the metadata is checked; the error says which one."""
    columns = dict(raw_columns(sample()))
    columns["file"] = np.full(105, NIL, np.int32)
    write_raw(tmp_path / "t.parquet", columns, meta)
    with pytest.raises(TraceError, match=what):
        read_trace(tmp_path / "t.parquet")


def test_metadata_cannot_write_to_the_terminal() -> None:
    """Escape sequences in names lose their escape."""
    meta = meta_from_json(meta_to_json(TraceMeta(command=("\x1b]0;gone\x07",), notes=("\x9b2J",))))
    assert meta.command == ("?]0;gone?",)
    assert meta.notes == ("?2J",)


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that claims more rows than a limit (lowered here) is refused before a page of it is unpacked: by row
    group, and by count."""
    path = tmp_path / "t.parquet"
    columns = [pa.array(np.zeros(1 << 18, np.int64 if kind == "i8" else np.int32)) for kind in parquet.COLUMNS.values()]
    with pq.ParquetWriter(path, parquet.SCHEMA, compression="zstd", store_schema=False) as writer:
        writer.write_table(pa.Table.from_arrays(columns, schema=parquet.SCHEMA), row_group_size=1 << 26)
        writer.add_key_value_metadata({b"benchframe": meta_to_json(TraceMeta()).encode()})
    assert path.stat().st_size < 1 << 17
    monkeypatch.setattr(parquet.TraceFile, "batches", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(TraceError, match="it has 262144 events, more than the 131072 that fit in memory"):
        read_trace(path, max_rows=1 << 17)
    monkeypatch.setattr(parquet, "MAX_ROW_GROUP", 1 << 17)
    assert "row group 0 has 262144 rows, more than 131072" in refused(path)


def _page(plain: int, packed: int, body: bytes = b"") -> bytes:
    """A page header in the compact protocol: type, sizes, then the payload."""

    def zigzag(value: int) -> bytes:
        value = value << 1
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    return b"\x15\x00\x15" + zigzag(plain) + b"\x15" + zigzag(packed) + b"\x00" + body


def test_page_headers_are_added_up(tmp_path: Path) -> None:
    """Pages that claim to unpack to too much are found from their headers alone."""
    path = tmp_path / "pages"
    assert page_header(_page(300, 20)) == (300, 20, len(_page(300, 20)))
    two = _page(1000, 3, b"abc") + _page(2000, 2, b"de")
    path.write_bytes(two)
    with path.open("rb") as file:
        assert column_pages(file, 0, len(two), 2000, 3000) == 3000
        with pytest.raises(ValueError, match="unpacks to more than 2999"):
            column_pages(file, 0, len(two), 2000, 2999)
        with pytest.raises(ValueError, match="unpacks to more than 1999"):
            column_pages(file, 0, len(two), 1999, 3000)
        with pytest.raises(ValueError, match="do not fill"):
            column_pages(file, 0, len(two) - 1, 2000, 3000)
    for junk in (b"", b"\x15", b"\x00", b"\xff" * 100, b"\x19\xfc" + b"\xff" * 9, b"\x1c" * 5000):
        with pytest.raises(ValueError, match="page header"):
            page_header(junk)


def test_written_pages_are_understood(tmp_path: Path) -> None:
    """The page walk agrees with pyarrow's own account of each column."""
    path = tmp_path / "t.parquet"
    write_trace(path, sample(20_000))
    group = pq.ParquetFile(path).metadata.row_group(0)
    with parquet.TraceFile(path) as trace_file, path.open("rb") as file:
        for c, (start, length) in enumerate(trace_file._footer.groups[0].places):
            chunk = group.column(c)
            plain = column_pages(file, start, length, 1 << 30, 1 << 30)
            assert 0 < plain <= chunk.total_uncompressed_size <= plain + 1000


def test_truncated_and_flipped(tmp_path: Path) -> None:
    """A file cut anywhere is refused; a flipped bit is refused or changes nothing that a replay reads."""
    path = tmp_path / "t.parquet"
    trace = sample(300)
    write_trace(path, trace)
    data = path.read_bytes()
    rng = random.Random(5)
    for cut in sorted(rng.sample(range(len(data)), 60)):
        path.write_bytes(data[:cut])
        refused(path)
    harmless = 0
    for _ in range(150):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            again = read_trace(path)
        except TraceError:
            continue
        harmless += 1
        assert np.array_equal(again.events, trace.events) or len(again) < len(trace) + 1
    assert harmless < 75


SEED_TRACE: dict[str, bytes] = {}


@seed(20)
@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4), st.booleans()), min_size=1, max_size=6)
)
def test_fuzz(tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[float, bytes, bool]]) -> None:
    """Any edit of a good file - bytes replaced or inserted, footer or data - gives a checked trace or a TraceError."""
    folder = tmp_path_factory.getbasetemp()
    path = folder / "fuzz.parquet"
    if not SEED_TRACE:
        write_trace(path, sample(40))
        SEED_TRACE["data"] = path.read_bytes()
    data = bytearray(SEED_TRACE["data"])
    for where, what, insert in edits:
        at = int(where * (len(data) - 1))
        data[at : at + (0 if insert else len(what))] = what
    path.write_bytes(data)
    try:
        trace = read_trace(path)
    except TraceError:
        return
    trace.check()
