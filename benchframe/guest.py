"""Another kernel: boot it in a virtual machine and run a command of benchframe there.

The machine's root is an ext4 image of the running environment: the interpreter, the standard library and the packages
that the command imports. It is made once (mke2fs) and stored in the cache folder; what a machine writes to it is gone
with the machine. QEMU boots the kernel on it without an initramfs, which works where NVMe and ext4 are built in, as in
Debian's cloud kernels. Init is a Python script.

Files go in and come out as tar archives on two more disks. In which order the kernel numbers the disks is not known
(6.12 scans them at the same time). So the root is a partition with an identifier, and init looks at what the others
begin with.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchframe import __version__
from benchframe.dialect.store import cache_folder
from benchframe.errors import ENVIRONMENT, BenchframeError
from benchframe.files import replacing

Say = Callable[[str], None]
READY, DONE = "benchframe-guest: ready", "benchframe-guest: done"
OUT = "/out"
"""The folder in the guest whose files come out."""
MEMORY = 1536
"""Memory of the virtual machine in MiB."""
FREE = 1024
"""Free space of its root in MiB."""
_OUT_BYTES = 4 << 30
"""The size of the disk for what comes out; it is sparse."""
_JOB = "benchframe-job.json"
_TARGET = b"benchframe: what comes out"
_DISK = 0x62656E63
"""The identifier of the root's disk in its partition table."""
_OFFSET = 1 << 20
"""Where the partition begins."""
_OMITTED = shutil.ignore_patterns(
    "__pycache__",
    "test",
    "tests",
    "site-packages",
    "idlelib",
    "lib2to3",
    "ensurepip",
    "tkinter",
    "turtledemo",
    "config-*",
)
_SHORT = {
    "host": ["host", "--rounds", "1", "--icount", "listed.json"],
    "oracle": ["oracle", "--judged", "oracle", "--ops", "256"],
    "record": ["record", "--allow-loss", "--output", "listed.parquet", "--", "/bin/true"],
}
"""For each command that a guest can run, a short use of it: it imports the packages that the command needs."""
_LISTING = """
import json, sys
sys.stdout = sys.stderr
from benchframe.__main__ import main
sys.argv = ["benchframe", *json.loads(sys.argv[1])]
try:
    main()
except SystemExit:
    pass
files = [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
print(json.dumps(files), file=sys.__stdout__)
"""
_INIT = '''#!{python} -sS
"""Init of the virtual machine: mounts, unpacks the files, runs benchframe, packs what it left, powers off."""
import ctypes, json, os, subprocess, sys, tarfile
libc = ctypes.CDLL(None)
for kind, where in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"),
                    ("tmpfs", "/dev/shm")):
    os.makedirs(where, exist_ok=True)
    libc.mount(kind.encode(), where.encode(), kind.encode(), 0, None)
console = os.open("/dev/console", os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(console, number)
disks = {{}}
for name in os.listdir("/sys/block"):
    with open("/dev/" + name, "rb") as disk:
        disks[disk.read({length})] = "/dev/" + name
tarfile.TarFile.extraction_filter = staticmethod(lambda member, path: member)
with tarfile.open(next(disk for head, disk in disks.items() if head.startswith(b"{job}")), "r|") as files:
    for entry in files:
        if not entry.isdir() and os.path.lexists("/" + entry.name):
            os.unlink("/" + entry.name)  # a library in use must not be overwritten
        files.extract(entry, "/")
with open("/{job}") as file:
    job = json.load(file)
os.makedirs("{out}", exist_ok=True)
os.makedirs(job["folder"], exist_ok=True)
environment = {{"HOME": "/run", "TMPDIR": "/tmp", "PYTHONPATH": {path!r}, "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONUNBUFFERED": "1", "COLUMNS": "120", "TERM": "dumb", "PATH": job["path"]}}
print("\\n{ready}", os.uname().release, flush=True)
command = [{python!r}, "-m", "benchframe", *job["arguments"]]
code = subprocess.run(command, cwd=job["folder"], env=environment).returncode
with open(disks[{target!r}], "wb") as disk, tarfile.open(fileobj=disk, mode="w|") as files:
    for entry in os.scandir("{out}"):
        if entry.is_file(follow_symlinks=False):
            files.add(entry.path, entry.name)
os.sync()
print("\\n{done}", code, flush=True)
libc.reboot(0x4321FEDC)
'''


class GuestError(BenchframeError):
    """A kernel could not be booted, or its machine did not last; the message says why and what to do."""

    exit_code = ENVIRONMENT


@dataclass(frozen=True)
class Guest:
    """A virtual machine to boot."""

    kernel: Path
    """A bzImage, as in /boot."""
    accel: str = "tcg"
    """QEMU's accelerator: ``tcg`` emulates the processor, slowly; ``kvm`` uses this one's."""
    cpu: str = ""
    """The processor as QEMU's -cpu names it. Empty: with tcg all that QEMU knows (``max``: five levels of page tables,
    protection keys), with kvm this one."""
    limit: float = 3600.0
    """Seconds that the machine may run."""
    icount: bool = False
    """The machine's clock is its instructions: the cycle counter counts one for each (QEMU's -icount; tcg only)."""

    def command(self, qemu: str, disks: Sequence[str], append: str) -> list[str]:
        """The command line of QEMU. ``disks``: root, files in, files out."""
        cpu = self.cpu or ("host" if self.accel == "kvm" else "max")
        command = [qemu, "-M", "q35", "-accel", self.accel, "-cpu", cpu, "-smp", "1", "-m", str(MEMORY)]
        command += ["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
        command += ["-kernel", str(self.kernel), "-append", append, "-device", "nvme,id=disks,serial=disks"]
        if self.icount:
            command += ["-icount", "shift=0,sleep=off"]
        for number, (disk, how) in enumerate(
            zip(disks, ("snapshot=on", "readonly=on", "cache=unsafe"), strict=True), 1
        ):
            command += ["-drive", f"file={disk.replace(',', ',,')},if=none,id=disk{number},format=raw,{how}"]
            command += ["-device", f"nvme-ns,drive=disk{number},bus=disks,nsid={number}"]
        return command


def run_in_guest(
    guest: Guest,
    arguments: Sequence[str],
    *,
    say: Say,
    files: Iterable[Path] = (),
    folder: Path | None = None,
    results: Path | None = None,
) -> int:
    """Boot the guest and run ``benchframe ARGUMENTS`` there; returns its exit code.

    Args:
        arguments: the first names the command: ``oracle``, ``record`` or ``host``.
        say: takes each line that the command prints, with the paths of ``OUT`` as those of ``results``.
        files: files and folders of this machine that the guest has under the same paths, besides the environment's.
            Programs get the libraries that they are linked to.
        folder: the folder that the command runs in; it is made if ``files`` has none of it. Default: /run.
        results: where the files go that the command leaves in ``OUT``; existing ones are replaced.

    Raises:
        GuestError: a program or file is missing, the kernel does not boot, the command was killed, or the machine ran
            into its limit.
    """
    qemu = _ready(guest)
    image = root_image(arguments[0], say)
    with tempfile.TemporaryDirectory(prefix="benchframe-guest-") as name:
        inward, outward = Path(name) / "in.tar", Path(name) / "out.tar"
        path = os.environ.get("PATH", "/bin")
        job = {"arguments": list(arguments), "folder": str(folder or "/run"), "path": path}
        _pack(inward, job, files)
        with outward.open("wb") as file:
            file.write(_TARGET)
            file.truncate(_OUT_BYTES)
        append = (
            f"console=ttyS0 root=PARTUUID={_DISK:08x}-01 rw rootwait rootfstype=ext4 init=/init panic=-1 quiet "
            "no_timer_check "  # a busy machine's emulated timer may be too late for the test
            "PYTHONHASHSEED=0"  # for init: without RDRAND there may be no random numbers yet
        )
        here = f"{results}/" if results is not None else f"{OUT}/"
        command = guest.command(qemu, [str(image), str(inward), str(outward)], append)
        code = _boot(guest, command, lambda line: say(line.replace(f"{OUT}/", here)))
        if code >= 0 and results is not None:
            _unpack(outward, results)
    if code < 0:
        hint = "name a processor that has what NumPy needs (x86-64-v2): --cpu Nehalem" if code == -signal.SIGILL else ""
        raise GuestError(f"the command was killed by {signal.Signals(-code).name} there", where=guest.kernel, hint=hint)
    return code


def _ready(guest: Guest) -> str:
    """The path of QEMU, if everything is there to boot this guest. Raises GuestError."""
    hint = "name a bzImage, such as /boot/vmlinuz-6.1.0"
    try:
        with guest.kernel.open("rb") as file:
            head = file.read(0x206)
    except OSError as error:
        what = "there is no such kernel image" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise GuestError(what, where=guest.kernel, hint=hint) from None
    if head[0x202:] != b"HdrS":
        raise GuestError("that is no kernel image for x86", where=guest.kernel, hint=hint)
    if not re.fullmatch(r"[\w.,=+-]*", guest.cpu):
        raise GuestError(f"{guest.cpu!r} names no processor", hint="qemu-system-x86_64 -cpu help lists them")
    if guest.accel not in ("tcg", "kvm"):
        raise GuestError(f"there is no accelerator {guest.accel!r}", hint="choose tcg or kvm")
    if guest.accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise GuestError("/dev/kvm cannot be used here", hint="tcg needs no privileges and no hardware: --accel tcg")
    return _program("qemu-system-x86_64", "qemu-system-x86")


def _boot(guest: Guest, command: Sequence[str], say: Say) -> int:
    """Run QEMU and pass on what the command prints; returns the command's exit code, or its signal negated."""
    told: list[str] = []
    code: int | None = None
    ready = False
    empty = 0  # empty lines not passed on yet: the last one is not the command's
    with subprocess.Popen(
        ["timeout", "--kill-after=5", str(guest.limit), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as machine:
        assert machine.stdout is not None
        try:
            for line in machine.stdout:
                text = line.rstrip("\r\n")
                told.append(text)
                if done := re.match(rf"{DONE} (-?\d+)", text):
                    code = int(done[1])
                elif text.startswith(READY):
                    ready = True
                elif ready and code is None:
                    if not text:
                        empty += 1
                        continue
                    for one in (*[""] * empty, text):
                        say(one)
                    empty = 0
                if text.startswith("KVM internal error"):  # QEMU would stop the machine and wait
                    machine.terminate()
        except BaseException:
            machine.terminate()
            raise
    if code is not None:
        return code
    if machine.returncode == 124:
        hint = "give it a longer --budget or --duration" if ready else "the kernel was still booting"
        raise GuestError(f"the virtual machine was ended after {guest.limit:g} s", where=guest.kernel, hint=hint)
    what = "the virtual machine ended before the command did" if ready else "the kernel did not boot"
    worst = ("panic", "Assertion", "KVM internal error")
    fatal = next((number for number, text in enumerate(told) if any(word in text for word in worst)), len(told) - 1)
    last = "; ".join(text for text in told[max(0, fatal - 1) : fatal + 1] if text)
    hint = "this machine's KVM cannot run it: --accel tcg" if guest.accel == "kvm" else "NVMe and ext4 must be built in"
    raise GuestError(f"{what}: {last[:300]}", where=guest.kernel, hint=hint)


def program_files(command: Sequence[str]) -> list[Path]:
    """The files that a command line needs: the program, the interpreters that a script names, and the arguments that
    are files here.

    Raises:
        GuestError: there is no such program.
    """
    found = shutil.which(command[0])
    if found is None:
        raise GuestError(f"there is no program {command[0]!r} here", hint="name one after --")
    files = [Path(found).absolute()]
    with files[0].open("rb") as file:
        first = file.readline(256)
    if first.startswith(b"#!"):
        for word in first[2:].decode(errors="replace").split():
            program = shutil.which(word)
            files += [Path(program)] if program else []
    return files + [Path(word).absolute() for word in command[1:] if Path(word).is_file()]


def _pack(path: Path, job: Mapping[str, object], files: Iterable[Path]) -> None:
    """Write the archive that the guest unpacks over its root: the job, the files, and their libraries. A file that is a
    link goes in as what it names; links inside a folder stay links."""
    wanted = [file.absolute() for file in files]
    programs = []
    for file in wanted:
        if not file.exists():
            raise GuestError("there is no such file to copy", where=file)
        for each in file.rglob("*") if file.is_dir() else (file,):
            if each.is_file() and _is_elf(each):
                programs.append(str(each))
    with tarfile.open(path, "w") as archive:
        text = json.dumps(job).encode()
        entry = tarfile.TarInfo(_JOB)
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
        for file in dict.fromkeys([*wanted, *map(Path, _linked(programs))]):
            archive.dereference = not file.is_dir()
            archive.add(file, str(file).lstrip("/"))


def _unpack(path: Path, results: Path) -> None:
    """Copy the regular files of the guest's archive into a folder. The guest is not trusted with paths."""
    with tarfile.open(path, "r:") as archive:
        for entry in archive:
            source = archive.extractfile(entry) if entry.isreg() else None
            if source is None or entry.name in ("", ".", "..") or "/" in entry.name:
                continue
            with replacing(results / entry.name, durable=False) as target:
                shutil.copyfileobj(source, target)


def _is_elf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def root_image(command: str, say: Say) -> Path:
    """The image of the running environment for one command; it is made if there is none yet for this interpreter,
    version and command."""
    source = Path(__file__).parent
    newest = max(path.stat().st_mtime_ns for path in source.rglob("*.py"))
    what = [sys.version, sys.prefix, __version__, str(source), str(newest), _INIT, str(FREE)]
    key = hashlib.sha256("\n".join(what).encode()).hexdigest()[:32]
    folder = cache_folder() / "guest"
    path = folder / f"{command}-{key}.img"
    if path.exists():
        return path
    mke2fs = _program("mke2fs", "e2fsprogs")
    say("making the virtual machine's root from this environment, once; some ten seconds")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in folder.glob(f"{command}-*.img"):  # remove those of other versions; they are large
        old.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as elsewhere:  # the command may write files into the current folder
        short = json.dumps(_SHORT[command])
        listed = subprocess.run([sys.executable, "-c", _LISTING, short], cwd=elsewhere, capture_output=True, text=True)
    if listed.returncode:
        raise GuestError(f"the environment cannot be listed: {listed.stderr.strip()[-300:]}")
    files = json.loads(listed.stdout.splitlines()[-1])
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name) / "root"
        _copy_interpreter(root)
        _copy_packages(root, files)
        _copy_libraries(root, _linked([os.path.realpath(sys.executable), *(f for f in files if ".so" in f)]))
        for empty in ("proc", "sys", "dev", "run", "tmp"):
            (root / empty).mkdir(exist_ok=True)
        python = os.path.realpath(sys.executable)
        paths = ":".join([str(Path(__file__).resolve().parents[1]), *(p for p in sys.path if p and Path(p).is_dir())])
        init = root / "init"
        names = {"ready": READY, "done": DONE, "job": _JOB, "out": OUT, "target": _TARGET, "length": len(_TARGET)}
        init.write_text(_INIT.format(python=python, path=paths, **names))
        init.chmod(0o755)
        size = sum(f.stat().st_size for f in root.rglob("*") if f.is_file() and not f.is_symlink()) >> 20
        size += size // 4 + FREE
        part = Path(name) / "image"
        made = subprocess.run(
            [mke2fs, "-q", "-t", "ext4", "-E", f"offset={_OFFSET}", "-d", root, part, f"{size}M"],
            capture_output=True,
            text=True,
        )
        if made.returncode:
            raise GuestError(f"mke2fs: {made.stderr.strip()[-300:]}", hint="is the disk full?")
        with part.open("r+b") as file:
            file.write(_partition_table(size << 20))
            file.truncate(_OFFSET + (size << 20))
        part.replace(path)
    return path


def _partition_table(size: int) -> bytes:
    """The first sector of a disk with one Linux partition of ``size`` bytes from ``_OFFSET`` on (MBR).

    >>> len(_partition_table(1 << 30))
    512
    """
    entry = struct.pack("<BBBBBBBBII", 0, 0xFE, 0xFF, 0xFF, 0x83, 0xFE, 0xFF, 0xFF, _OFFSET >> 9, size >> 9)
    return (struct.pack("<440xIH", _DISK, 0) + entry).ljust(510, b"\0") + b"\x55\xaa"


def _copy_interpreter(root: Path) -> None:
    """Copy the interpreter and its standard library, under the same paths."""
    python = os.path.realpath(sys.executable)
    _copy(root, Path(python))
    stdlib = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(stdlib, root / stdlib.relative_to("/"), ignore=_OMITTED, symlinks=True)


def _copy_packages(root: Path, files: Iterable[str]) -> None:
    """Copy whole packages of which a module was imported, from every package folder, and benchframe with what names its
    plugins."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    folders = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    home = Path(__file__).resolve().parent
    wanted = {home, *(info for folder in folders for info in folder.glob("benchframe-*.dist-info"))}
    for file in map(Path, files):
        for folder in folders:
            if folder in file.parents:
                wanted.add(folder / file.relative_to(folder).parts[0])
        if not folders & set(file.parents) and stdlib not in file.parents and home not in file.parents:
            wanted.add(file)
    for package in sorted(wanted):
        if package.is_dir():
            target = root / package.relative_to("/")
            ignore = shutil.ignore_patterns("__pycache__", "tests", "test")
            shutil.copytree(package, target, ignore=ignore, symlinks=True, dirs_exist_ok=True)
            bundled = package.with_name(
                package.name + ".libs"
            )  # the folder in which a wheel keeps its shared libraries
            if bundled.is_dir():
                shutil.copytree(bundled, root / bundled.relative_to("/"), dirs_exist_ok=True)
        else:
            _copy(root, package)


def _copy_libraries(root: Path, libraries: Iterable[str]) -> None:
    """Copy shared libraries under the names by which the loader looks for them."""
    for name in sorted(set(libraries)):
        if Path(name).is_file() and not (root / name.lstrip("/")).exists():
            _copy(root, Path(name))


def _linked(programs: Sequence[str]) -> list[str]:
    """The libraries that the programs need according to ldd, including the loader."""
    if not programs:
        return []
    found = subprocess.run(["ldd", *programs], capture_output=True, text=True).stdout
    return [word for line in found.splitlines() for word in line.split() if word.startswith("/") and word[-1] != ":"]


def _copy(root: Path, file: Path) -> None:
    target = root / str(file).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, target)


def _program(name: str, package: str) -> str:
    """The path of a program. Raises GuestError if there is none."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/sbin", "/usr/sbin"]))
    if found is None:
        raise GuestError(f"there is no {name} here", hint=f"install it: apt-get install {shlex.quote(package)}")
    return found
