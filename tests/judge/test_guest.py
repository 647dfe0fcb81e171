"""Another kernel as judge: what the virtual machine prints and how it ends. A script stands in for QEMU; the real one
takes minutes (docs/oracle.md has the commands and what they printed)."""

from pathlib import Path

import pytest

from benchframe.judge import guest
from benchframe.judge.child import ARENA, MREMAP, MUNMAP, TASK_SIZE, TASK_SIZE_5, find_task_size, harmless
from benchframe.judge.guest import DONE, READY, GuestError, run_in_guest


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Boots a kernel in a machine that prints the given lines: (exit code, what was said)."""
    (tmp_path / "vmlinuz").write_bytes(b"")
    monkeypatch.setattr(guest, "root_image", lambda say: tmp_path / "root.img")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def run(*lines: str, limit: float = 60, code: int = 0) -> tuple[int, list[str]]:
        script = "\n".join(["#!/bin/sh", *(f"echo '{line}'" for line in lines), f"exit {code}"])
        (tmp_path / "qemu-system-x86_64").write_text(script.replace("echo 'sleep'", "exec sleep 60"))
        (tmp_path / "qemu-system-x86_64").chmod(0o755)
        said: list[str] = []
        return run_in_guest(tmp_path / "vmlinuz", ["oracle", "--ops", "9"], limit=limit, say=said.append), said

    return run


def test_what_the_command_prints_comes_out(boot) -> None:  # type: ignore[no-untyped-def]
    """Only what stands between the two marks, without files that are gone with the machine; and the exit code of the
    command, not the machine's."""
    assert boot(
        "[0.1] booting", f"{READY} 6.1.0", "0 mismatches", "saved as x.py", f"{DONE} 1", "reboot: Power down"
    ) == (
        1,
        ["0 mismatches"],
    )


def test_a_kernel_that_does_not_boot(boot) -> None:  # type: ignore[no-untyped-def]
    """The line before the panic and the panic; a machine that ends early or hangs; no image, no QEMU."""
    with pytest.raises(GuestError, match="did not boot: VFS: Cannot open root device; Kernel panic"):
        boot("[0.1] a", "VFS: Cannot open root device", "Kernel panic - not syncing", "Call Trace:")
    with pytest.raises(GuestError, match="ended before the command did"):
        boot(f"{READY} 6.1.0", "Killed")
    with pytest.raises(GuestError, match=r"ended after 1 s; give it a longer --budget"):
        boot(f"{READY} 6.1.0", "sleep", limit=1)
    with pytest.raises(GuestError, match="there is no such kernel image"):
        run_in_guest(Path("nowhere"), [], limit=1, say=print)


def test_without_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the package."""
    (tmp_path / "vmlinuz").write_bytes(b"")
    monkeypatch.setattr("shutil.which", lambda *a, **k: None)
    with pytest.raises(GuestError, match="apt-get install qemu-system-x86"):
        run_in_guest(tmp_path / "vmlinuz", [], limit=1, say=print)


def test_the_size_of_a_process() -> None:
    """It is one of two; with five levels of page tables less is refused, so less is harmless."""
    assert find_task_size() in (TASK_SIZE, TASK_SIZE_5)
    far = (MUNMAP, ARENA, 1 << 50, 0, 0, 0, 0)
    assert harmless(far)
    assert not harmless(far, TASK_SIZE_5)
    assert not harmless((MREMAP, ARENA, 4096, 4096, 3, 1 << 48, 0), TASK_SIZE_5)
