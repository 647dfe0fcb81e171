"""What a recording keeps on disk while it runs: raw perf records by CPU, and what ptrace saw, one JSON line each.

The trace is built from these files afterwards, by whoever is left: the journal survives the death of the recorder.
While one of its processes works on them, a lock says so: nobody else builds a trace of half a recording.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from benchframe.errors import BenchframeError
from benchframe.record.procfs import Maps, from_raw
from benchframe.record.records import Rec

PREFIX = "benchframe-record-"


class Journal:
    """A folder with the files of one recording."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines: IO[str] | None = None
        self._lock = -1

    @classmethod
    def make(cls) -> Journal:
        """A new, empty journal in the folder for temporary files, held. Raises OSError."""
        journal = cls(Path(tempfile.mkdtemp(prefix=PREFIX)))
        journal.hold()
        return journal

    def hold(self) -> None:
        """Keep others from building the trace, as long as this process or one that it forks from now on lives: flock(2)
        ends with the last of them, whatever ends it. Raises BenchframeError if others hold it."""
        if self._lock < 0:
            try:
                self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                told = os.read(self._lock, 20)
                holder = told.decode() if told.isdigit() else "PID"
                self.release()
                raise BenchframeError(
                    f"this recording still runs, or its trace is being written (process {holder})",
                    where=self.folder,
                    hint=f"kill -TERM {holder} ends it, and it writes its trace itself",
                ) from None
            except OSError:  # a file system without locks, or one that can only be read
                self.release()
                return
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """This process has no more to do with it; what it forked may."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Delete the files."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    # -- written while recording ------------------------------------------------------------------------------

    def describe(self, **about: Any) -> None:
        """Keep what is known before the start."""
        self._write("about.json", about)

    def identify(self, ids: dict[int, str]) -> None:
        """Keep which event each perf id is."""
        self._write("ids.json", {str(number): name for number, name in ids.items()})

    def end(self, end: dict[str, Any]) -> None:
        """Keep how it ended."""
        self._write("end.json", end)

    def _write(self, name: str, data: object) -> None:
        part = self.folder / f"{name}.part"
        part.write_text(json.dumps(data))
        part.replace(self.folder / name)

    def record(self, rec: Rec) -> None:
        """Keep one record of the tracer. Raises OSError."""
        self._line([rec.time, rec.what, rec.tid, rec.values])

    def layout(self, raw: dict[str, Any]) -> None:
        """Keep one layout as /proc showed it. Raises OSError."""
        self._line(raw)

    def begin_threads(self, threads: dict[int, list[int]]) -> None:
        """Keep which threads ran when an attached recording began, by process."""
        self._line({"threads": [[pid, tids] for pid, tids in threads.items()]})

    def _line(self, data: object) -> None:
        if self._lines is None:
            self._lines = (self.folder / "tracer.jsonl").open("w", buffering=1 << 16)
        self._lines.write(json.dumps(data, separators=(",", ":")) + "\n")

    def flush(self) -> None:
        """Hand what was kept to the system, so that it survives us. Raises OSError."""
        if self._lines is not None:
            self._lines.flush()

    def close(self) -> None:
        """All is kept. Raises OSError."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def ring(self, number: int) -> IO[bytes]:
        """The file that a CPU's records go to."""
        return (self.folder / f"cpu-{number}.ring").open("w+b", buffering=0)

    # -- read afterwards --------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """What :meth:`describe` kept. Raises BenchframeError."""
        try:
            return dict(json.loads((self.folder / "about.json").read_text()))
        except (OSError, ValueError) as error:
            raise BenchframeError(
                f"this is not the folder of a recording ({error})",
                where=self.folder,
                hint=f"their names begin with {PREFIX}",
            ) from None

    def ids(self) -> dict[str, str]:
        """What :meth:`identify` kept."""
        return self._read("ids.json")

    def ended(self) -> dict[str, Any]:
        """How it ended; a journal without an end is one whose recorder was killed."""
        return self._read("end.json") or {"killed": "the recorder was killed"}

    def _read(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / name).read_text()))
        except (OSError, ValueError):
            return {}

    def streams(self) -> list[Path]:
        """The files of raw perf records."""
        return sorted(self.folder.glob("cpu-*.ring"), key=lambda path: int(path.stem[4:]))

    def tracer(self) -> tuple[list[Rec], list[Maps]]:
        """All records of the tracer in time order, and the layouts; of two ends of one process the later holds."""
        recs: list[Rec] = []
        maps: list[Maps] = []
        ends: dict[tuple[int, int, int], int] = {}
        for data in self._all():
            if isinstance(data, list):
                time, what, tid, values = data
                recs.append(Rec(time, what, tid, tuple(tuple(v) if isinstance(v, list) else v for v in values)))
            elif "maps" in data:
                with contextlib.suppress(ValueError):
                    seen = from_raw(data)
                    if seen is None:
                        continue
                    if seen.when == "exit":
                        place = ends.setdefault((seen.pid, seen.started, seen.start_brk), len(maps))
                        if place < len(maps):
                            maps[place] = seen
                            continue
                    maps.append(seen)
        recs.sort(key=lambda rec: rec.time)
        return [_deep(rec) for rec in recs], maps

    def threads(self) -> dict[int, list[int]]:
        """What :meth:`begin_threads` kept."""
        for data in self._all(lambda line: line.startswith('{"threads"')):
            return {int(pid): [int(tid) for tid in tids] for pid, tids in data["threads"]}
        return {}

    def _all(self, wanted: Callable[[str], bool] = lambda line: True) -> Any:
        with contextlib.suppress(FileNotFoundError), (self.folder / "tracer.jsonl").open() as file:
            for line in file:
                if wanted(line):
                    with contextlib.suppress(ValueError):  # the last line of a killed recorder may be cut
                        yield json.loads(line)


def _deep(rec: Rec) -> Rec:
    """An mmap's file, a list in JSON, is a tuple in a record."""
    values = rec.values
    if len(values) == 2 and isinstance(values[1], tuple) and values[1] and isinstance(values[1][-1], list):
        values = (values[0], (*values[1][:-1], tuple(values[1][-1])))
    return Rec(rec.time, rec.what, rec.tid, values)
