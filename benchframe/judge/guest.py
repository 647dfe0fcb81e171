"""Another kernel as judge: boot it in a virtual machine and run ``benchframe oracle`` there.

The machine's root is an ext4 image of the running environment: the interpreter, the standard library and the packages
that the command imports. It is made once (mke2fs) and stored in the cache folder. QEMU boots the kernel on it without
an initramfs, which works where NVMe and ext4 are built in, as in Debian's cloud kernels. Init is a Python script.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchframe import __version__
from benchframe.dialect.store import cache_folder
from benchframe.errors import ENVIRONMENT, BenchframeError

Say = Callable[[str], None]
READY, DONE = "benchframe-guest: ready", "benchframe-guest: done"
MEMORY = 1536
"""Memory of the virtual machine in MiB."""
COMMAND_LINE = 1800
"""The usable length of the kernel's command line in bytes; x86 allows 2048."""
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
_LISTING = """
import json, sys
sys.stdout = sys.stderr
from benchframe.__main__ import main
sys.argv = ["benchframe", "oracle", "--judged", "oracle", "--ops", "256"]
try:
    main()
except SystemExit:
    pass
files = [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
print(json.dumps(files), file=sys.__stdout__)
"""
_INIT = '''#!{python} -IS
"""Init of the virtual machine: mounts, runs the command that the kernel's command line names, powers off."""
import base64, ctypes, json, os, subprocess, sys
libc = ctypes.CDLL(None)
for kind, where in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")):
    libc.mount(kind.encode(), where.encode(), kind.encode(), 0, None)
console = os.open("/dev/console", os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(console, number)
words = dict(word.split("=", 1) for word in open("/proc/cmdline").read().split() if "=" in word)
arguments = json.loads(base64.b64decode(words["benchframe"]))
environment = {{"PATH": "/bin", "HOME": "/run", "TMPDIR": "/run", "PYTHONPATH": {path!r},
                "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "120", "TERM": "dumb"}}
print("\\n{ready}", os.uname().release, flush=True)
code = subprocess.run([{python!r}, "-m", "benchframe", *arguments], cwd="/run", env=environment).returncode
print("\\n{done}", code, flush=True)
os.sync()
libc.reboot(0x4321FEDC)
'''


class GuestError(BenchframeError):
    """A kernel could not be booted; the message says why and what to do."""

    exit_code = ENVIRONMENT


def run_in_guest(kernel: Path, arguments: Sequence[str], *, accel: str = "tcg", limit: float, say: Say) -> int:
    """Boot ``kernel`` (a bzImage, as in /boot) and run ``benchframe ARGUMENTS`` there; returns its exit code.

    Args:
        accel: QEMU's accelerator: ``tcg`` emulates the processor, with all that QEMU knows (five levels of page
            tables, protection keys) and slowly; ``kvm`` uses this one's.
        limit: seconds that the machine may run.
        say: takes each line that the command prints.

    Raises:
        GuestError: a program is missing, the kernel does not boot, or the machine ran into the limit.
    """
    if not kernel.is_file():
        raise GuestError(
            "there is no such kernel image", where=kernel, hint="name a bzImage, such as /boot/vmlinuz-6.1.0"
        )
    qemu = _program("qemu-system-x86_64", "qemu-system-x86")
    job = base64.b64encode(json.dumps(list(arguments)).encode()).decode()
    append = f"console=ttyS0 root=/dev/nvme0n1 ro rootwait rootfstype=ext4 init=/init panic=-1 quiet benchframe={job}"
    if len(append) > COMMAND_LINE:
        raise GuestError("the arguments are too long for a kernel's command line")
    image = root_image(say)
    command = [
        *(qemu, "-M", "q35", "-accel", accel, "-cpu", "host" if accel == "kvm" else "max", "-smp", "1"),
        *("-m", str(MEMORY), "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"),
        *("-kernel", str(kernel), "-append", append),
        *("-drive", f"file={image},if=none,id=root,format=raw,readonly=on", "-device", "nvme,drive=root,serial=root"),
    ]
    told: list[str] = []
    code, ready = -1, False
    with subprocess.Popen(
        ["timeout", "--kill-after=5", str(limit), *command],
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
                if text.startswith(DONE):
                    code = int(text.split()[-1])
                elif text.startswith(READY):
                    ready = True
                elif ready and code < 0 and not text.startswith("saved as "):  # the machine's end removes it
                    say(text)
                told.append(text)
        except BaseException:
            machine.terminate()
            raise
    if code >= 0:
        return code
    if machine.returncode == 124:
        raise GuestError(
            f"the virtual machine was ended after {limit:g} s", where=kernel, hint="give it a longer --budget"
        )
    what = "the virtual machine ended before the command did" if ready else "the kernel did not boot"
    fatal = next((number for number, text in enumerate(told) if "panic" in text), len(told) - 1)
    last = "; ".join(text for text in told[max(0, fatal - 1) : fatal + 1] if text)
    raise GuestError(f"{what}: {last[:300]}", where=kernel, hint="NVMe and ext4 must be built in")


def root_image(say: Say) -> Path:
    """The image of the running environment; it is made if there is none for this interpreter, version and command
    yet."""
    source = Path(__file__).parent.parent
    newest = max(path.stat().st_mtime_ns for path in source.rglob("*.py"))
    what = [sys.version, sys.prefix, __version__, str(source), str(newest), _INIT]
    key = hashlib.sha256("\n".join(what).encode()).hexdigest()[:32]
    folder = cache_folder() / "guest"
    path = folder / f"{key}.img"
    if path.exists():
        return path
    mke2fs = _program("mke2fs", "e2fsprogs")
    say("making the virtual machine's root from this environment, once; some ten seconds")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in folder.glob("*.img"):  # remove those of other versions; they are large
        old.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as elsewhere:  # a mismatch would be saved in the current folder
        listed = subprocess.run([sys.executable, "-c", _LISTING], cwd=elsewhere, capture_output=True, text=True)
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
        paths = ":".join(p for p in sys.path if p and Path(p).is_dir())
        init = root / "init"
        init.write_text(_INIT.format(python=python, path=_python_path(paths), ready=READY, done=DONE))
        init.chmod(0o755)
        size = sum(f.stat().st_size for f in root.rglob("*") if f.is_file() and not f.is_symlink()) >> 20
        part = Path(name) / "image"
        made = subprocess.run(
            [mke2fs, "-q", "-t", "ext4", "-d", root, part, f"{size + size // 4 + 64}M"], capture_output=True, text=True
        )
        if made.returncode:
            raise GuestError(f"mke2fs: {made.stderr.strip()[-300:]}", hint="is the disk full?")
        part.replace(path)
    return path


def _python_path(paths: str) -> str:
    return ":".join([str(Path(__file__).resolve().parents[2]), paths])


def _copy_interpreter(root: Path) -> None:
    """Copy the interpreter and its standard library, under the same paths."""
    python = os.path.realpath(sys.executable)
    _copy(root, Path(python))
    stdlib = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(stdlib, root / stdlib.relative_to("/"), ignore=_OMITTED, symlinks=True)


def _copy_packages(root: Path, files: Iterable[str]) -> None:
    """Copy whole packages of which a module was imported, from every package folder, and benchframe."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    folders = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    home = Path(__file__).resolve().parents[1]
    wanted = {home}
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
