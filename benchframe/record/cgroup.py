"""A control group of the recorded program's own, for perf events that its new processes need not inherit."""

import contextlib
import os
import time
from pathlib import Path

from benchframe.record.perf import detached_mount
from benchframe.record.procfs import proc, read_once

PREFIX = "benchframe-"
"""The name of a group is this and the recorder's process id."""
PATIENCE = 0.5
"""Seconds to wait for the last processes of a group to leave it."""


class ControlGroup:
    """A child of this process's own group in the version 2 hierarchy (Documentation/admin-guide/cgroup-v2.rst).

    perf events of a group (PERF_FLAG_PID_CGROUP) count in all its processes. A new process costs them nothing, while
    inherited events are copied for each new task: every event once per CPU. The group sets no limit of its own.

    Raises OSError where the hierarchy cannot be reached or written: no root, a container's read-only mount, version 1.
    """

    def __init__(self) -> None:
        self._mount = -1
        self.fd = -1
        """The folder's descriptor, for perf_event_open(2)."""
        try:
            self.parent = self._find()
            self._sweep()
            self.folder = self.parent / f"{PREFIX}{os.getpid()}"
            self.folder.mkdir()
            self.path = f"{_own().rstrip('/')}/{self.folder.name}"
            self.fd = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self.close()
            raise

    def _find(self) -> Path:
        own = _own()
        for line in (proc() / "self/mountinfo").read_text(errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            root, place = before.split(" ")[3:5]
            if after.startswith("cgroup2 ") and (root == "/" or f"{own}/".startswith(f"{root}/")):
                found = Path(place + own.removeprefix(root.rstrip("/")))
                if os.access(found, os.W_OK):
                    return found
        self._mount = detached_mount("cgroup2")
        if self._mount < 0:
            raise OSError("no control groups of version 2")
        return Path(f"/proc/self/fd/{self._mount}{own}")

    def _sweep(self) -> None:
        """Remove empty groups of recorders that were killed."""
        for folder in self.parent.glob(f"{PREFIX}*"):
            if not (proc() / folder.name.removeprefix(PREFIX)).exists():
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def take(self, pid: int) -> None:
        """Move a process into the group; those that it starts are born in it. Raises OSError."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def holds(self, pid: int) -> bool:
        """Is the process in the group or below it? One that has ended is said to be."""
        try:
            path = _own(pid)
        except OSError:
            return True
        return f"{path}/".startswith(f"{self.path}/")

    def close(self) -> None:
        """Give what still runs back to the parent group, and remove the group."""
        folder = getattr(self, "folder", None)
        if folder is not None:
            late = time.monotonic() + PATIENCE
            while folder.exists():
                with contextlib.suppress(OSError):
                    for pid in (folder / "cgroup.procs").read_text().split():
                        with contextlib.suppress(OSError):
                            (self.parent / "cgroup.procs").write_text(pid)
                    folder.rmdir()
                    break
                if time.monotonic() > late:
                    break
                time.sleep(0.01)
        for descriptor in (self.fd, self._mount):
            if descriptor >= 0:
                os.close(descriptor)
        self.fd = self._mount = -1


def _own(pid: int | str = "self") -> str:
    """The path of a process's group of version 2, as /proc shows it to us. Raises OSError."""
    for line in read_once(f"{proc()}/{pid}/cgroup").splitlines():
        if line.startswith("0::/") and "/../" not in line:
            return line[3:]
    raise OSError("no control groups of version 2")
