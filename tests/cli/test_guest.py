"""Another kernel in a virtual machine: what it prints, what goes in and comes out, and how it ends. A script stands in
for QEMU; the real one takes minutes (docs/oracle.md has the commands and what they printed)."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchframe import guest
from benchframe.cli import app
from benchframe.guest import DONE, OUT, READY, Guest, GuestError, program_files, run_in_guest
from benchframe.judge.child import ARENA, MREMAP, MUNMAP, TASK_SIZE, TASK_SIZE_5, find_task_size, harmless

STAND_IN = """#!{python}
import io, json, sys, tarfile, time
files = [word[5:].split(",")[0] for word in sys.argv if word.startswith("file=")]
with tarfile.open(files[1]) as archive:
    names = sorted(archive.getnames())
    job = json.load(archive.extractfile("benchframe-job.json"))
with tarfile.open(files[2], "w") as archive:
    def add(name, kind=tarfile.REGTYPE):
        entry = tarfile.TarInfo(name)
        entry.type, entry.size, entry.linkname = kind, 4 * (kind == tarfile.REGTYPE), "/etc/passwd"
        archive.addfile(entry, io.BytesIO(b"good"))
    for name in {out!r}:
        add(name)
    add("link", tarfile.SYMTYPE)
with open({seen!r}, "w") as file:
    json.dump([sys.argv, names, job], file)
for line in {lines!r}:
    print(line, flush=True)
    if line == "sleep":
        time.sleep(60)
"""


class Stage:
    """A folder with a kernel image and a program in QEMU's place."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kernel = folder, folder / "vmlinuz"
        self.kernel.write_bytes(b"\0" * 0x202 + b"HdrS")
        self.said: list[str] = []

    def set(self, *lines: str, out: tuple[str, ...] = ()) -> None:
        """What the machine will print, and the files that it will leave."""
        program = self.folder / "qemu-system-x86_64"
        seen = str(self.folder / "seen.json")
        program.write_text(STAND_IN.format(python=sys.executable, out=out, seen=seen, lines=lines))
        program.chmod(0o755)

    def boot(self, *lines: str, limit: float = 60, **options: str) -> int:
        """Boot with lines to print."""
        self.set(*lines)
        return run_in_guest(Guest(self.kernel, limit=limit, **options), ["oracle"], say=self.said.append)  # type: ignore[arg-type]

    @property
    def seen(self) -> tuple[list[str], list[str], dict[str, object]]:
        """QEMU's arguments, the names of the files that went in, the job."""
        arguments, names, job = json.loads((self.folder / "seen.json").read_text())
        return arguments, names, job


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """QEMU's place is taken."""
    folder = tmp_path / "stage"
    folder.mkdir()
    monkeypatch.setattr(guest, "root_image", lambda command, say: folder / "root.img")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return Stage(folder)


def test_what_the_command_prints_comes_out(stage: Stage) -> None:
    """Only what stands between the two marks; and the exit code of the command, not the machine's."""
    assert stage.boot("[0.1] booting", f"{READY} 6.1.0", "", "0 mismatches", "", f"{DONE} 1", "reboot: Power down") == 1
    assert stage.said == ["", "0 mismatches"]


def test_a_machine_counts_instructions(stage: Stage) -> None:
    """icount: QEMU's clock is the instructions; otherwise it is not asked for."""
    for icount in (True, False):
        stage.set(f"{READY} 6.1.0", f"{DONE} 0")
        assert run_in_guest(Guest(stage.kernel, icount=icount), ["host"], say=print) == 0
        assert ("shift=0,sleep=off" in stage.seen[0]) == icount


def test_a_kernel_that_does_not_boot(stage: Stage) -> None:
    """The line before the panic and the panic; a machine that ends early or hangs; a KVM that cannot."""
    with pytest.raises(GuestError, match="did not boot: VFS: Cannot open root device; Kernel panic"):
        stage.boot("[0.1] a", "VFS: Cannot open root device", "Kernel panic - not syncing", "Call Trace:")
    with pytest.raises(GuestError, match="ended before the command did"):
        stage.boot(f"{READY} 6.1.0", "Killed")
    with pytest.raises(GuestError, match=r"ended after 1 s; give it a longer --budget"):
        stage.boot(f"{READY} 6.1.0", "sleep", limit=1)
    with pytest.raises(GuestError, match=r"did not boot: KVM internal error\. Suberror: 1"):
        stage.boot("KVM internal error. Suberror: 1", "sleep")
    with pytest.raises(GuestError, match=r"killed by SIGILL there; name a processor that has what NumPy needs"):
        stage.boot(f"{READY} 6.1.0", f"{DONE} -4")


def test_what_cannot_be_booted(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No image, a file that is none, a processor or accelerator that cannot be; the message says what to do."""
    with pytest.raises(GuestError, match="nowhere: there is no such kernel image; name a bzImage"):
        run_in_guest(Guest(Path("nowhere")), ["oracle"], say=print)
    (tmp_path / "text").write_text("no kernel")
    with pytest.raises(GuestError, match="that is no kernel image for x86"):
        run_in_guest(Guest(tmp_path / "text"), ["oracle"], say=print)
    with pytest.raises(GuestError, match="names no processor"):
        stage.boot(cpu="max -hda /dev/sda")
    with pytest.raises(GuestError, match="no accelerator 'hvf'; choose tcg or kvm"):
        stage.boot(accel="hvf")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(GuestError, match=r"/dev/kvm cannot be used here; .*--accel tcg"):
        stage.boot(accel="kvm")
    monkeypatch.setattr("shutil.which", lambda *a, **k: None)
    with pytest.raises(GuestError, match="apt-get install qemu-system-x86"):
        stage.boot()


def test_files_go_in_and_come_out(stage: Stage, tmp_path: Path) -> None:
    """A file, a folder, a program's libraries go in under their own paths. Of what comes out, regular files with plain
    names are taken: nothing leaves the folder."""
    folder = tmp_path / "with"
    folder.mkdir()
    (folder / "data").write_text("x")
    (tmp_path / "results").mkdir()
    stage.set(f"{READY} 6.1.0", f"wrote {OUT}/good", f"{DONE} 0", out=("good", "../evil", "/evil", "a/evil"))
    files = [folder, Path("/bin/true")]
    results = tmp_path / "results"
    assert run_in_guest(Guest(stage.kernel), ["oracle"], say=stage.said.append, files=files, results=results) == 0
    assert stage.said == [f"wrote {results}/good"]
    assert [(path.name, path.read_text()) for path in (tmp_path / "results").iterdir()] == [("good", "good")]
    _, names, _ = stage.seen
    assert {f"{folder}/data"[1:], "bin/true"} < set(names)
    assert any("libc.so" in name for name in names)
    with pytest.raises(GuestError, match="nowhere: there is no such file to copy"):
        run_in_guest(Guest(stage.kernel), ["oracle"], say=print, files=[Path("/nowhere")])


def test_what_a_program_needs(tmp_path: Path) -> None:
    """The program, the interpreter of a script, and arguments that are files."""
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env sh\n")
    script.chmod(0o755)
    (tmp_path / "input").write_text("")
    found = program_files([str(script), "-v", str(tmp_path / "input"), str(tmp_path)])
    assert [path.name for path in found] == ["script", "env", "sh", "input"]
    with pytest.raises(GuestError, match="no program 'nosuchprogram'"):
        program_files(["nosuchprogram"])


def test_recording_under_another_kernel(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace lands where --output says, the exit code is the program's, and our own failure is 125."""
    monkeypatch.chdir(tmp_path)
    stage.set(f"{READY} 6.1.0", f"{DONE} 7", out=("a.parquet",))
    record = ["record", "--kernel", str(stage.kernel), "--cpu", "max,la57=off", "-o", "a.parquet", "--only", "true"]
    done = CliRunner().invoke(app, [*record, "--", "true", "-x"])
    assert done.exit_code == 7, done.output
    assert (tmp_path / "a.parquet").read_text() == "good"
    qemu, names, job = stage.seen
    assert "max,la57=off" in qemu
    assert "usr/bin/true" in names
    arguments = job["arguments"]
    assert isinstance(arguments, list)
    assert arguments[-5:] == ["--output", f"{OUT}/a.parquet", "--", "/usr/bin/true", "-x"]
    assert job["folder"] == str(tmp_path)
    stage.set("Kernel panic")
    assert CliRunner().invoke(app, [*record, "--", "true"]).exit_code == 125
    assert CliRunner().invoke(app, [*record, "--attach", "1"]).exit_code == 2
    assert CliRunner().invoke(app, ["record", "--copy", "/etc", "--", "true"]).exit_code == 2


def test_the_size_of_a_process() -> None:
    """It is one of two; with five levels of page tables less is refused, so less is harmless."""
    assert find_task_size() in (TASK_SIZE, TASK_SIZE_5)
    far = (MUNMAP, ARENA, 1 << 50, 0, 0, 0, 0)
    assert harmless(far)
    assert not harmless(far, TASK_SIZE_5)
    assert not harmless((MREMAP, ARENA, 4096, 4096, 3, 1 << 48, 0), TASK_SIZE_5)
