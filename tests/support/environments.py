"""Fresh environments for packaging tests: a venv that borrows the dependencies, so that nothing is downloaded."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


SHARED = ("BENCHFRAME_CACHE_DIR", "BENCHFRAME_CONFIG_DIR")
"""The tests' own folders: compiled code, remembered plugins (none)."""


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without what would let the source tree in; the tests' cache of compiled code is shared."""
    away = ("PYTHON", "BENCHFRAME", "COVERAGE")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(away) or k in SHARED}
    return {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", **more}


def run(command: list[str | Path], cwd: Path, **more: str) -> str:
    """Run a command elsewhere; its standard output. A failure shows both streams."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean_environment(**more),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Environment:
    """A venv in ``folder``: nothing of benchframe in it, its dependencies borrowed from the running interpreter.

    A path in a .pth file is not searched for .pth files of its own, so an editable install in the running
    environment stays invisible; a distribution installed here comes first on the path.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        self.benchframe = folder / "bin" / "benchframe"
        self.site = Path(
            run([self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
        )
        borrowed = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
        (self.site / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))

    def install(self, *what: str | Path) -> None:
        """pip install, offline: no dependencies, no isolated build."""
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", "--no-index", "--no-deps"]
        run([*pip, "--no-build-isolation", *what], self.site)


def build(source: Path, out: Path) -> list[Path]:
    """sdist of ``source`` and the wheel made from that sdist, in ``out``."""
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source], source)
    return sorted(out.iterdir())
