"""What a terminal changes: the width and colours of tables; lists of everything."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchframe.cli import app, options

ROOT = Path(__file__).parents[2]


def on_terminal(columns: int, *arguments: str) -> str:
    """What ``benchframe`` prints on a terminal of this width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")} | {"TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "benchframe", *arguments], stdout=theirs, stderr=subprocess.DEVNULL, env=environment
    )
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 1 << 16):
            text += piece
    except OSError:  # Linux's way to say that the other side is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return text.decode().replace("\r\n", "\n")


def test_table_on_a_terminal() -> None:
    """At 80 columns the reference run's table fits, in colour; where it goes to a file all columns stay, without."""
    text = on_terminal(80, "table", str(ROOT / "reports/reference"))
    plain = re.sub(r"\x1b\[\d+m", "", text)
    assert "\x1b[32mfaster\x1b[0m" in text
    assert "Left out, to fit 80 columns" in plain
    body = [line for part in re.split(r"\n(?=workload )", plain) for line in part.partition("\n\n")[0].splitlines()]
    assert max(map(len, body)) <= 80
    piped = CliRunner().invoke(app, ["table", str(ROOT / "reports/reference")]).stdout
    assert "invalidations" in piped
    assert "\x1b" not in piped


@pytest.mark.parametrize(
    ("variables", "shows"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_when_colours_are_shown(variables: dict[str, str], shows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, unless NO_COLOR is set to something or the terminal is dumb; never elsewhere."""
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not options.colour()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert options.colour() == shows


def test_list_alone_lists_everything_in_100_columns(tmp_path: Path) -> None:
    """Strategies, workloads with their parameters, traces and runs; --tag goes with those that have tags."""
    done = CliRunner().invoke(app, ["list", "--runs", str(tmp_path)])
    assert done.exit_code == 0
    assert all(name in done.stdout for name in ("pmdcache_rcu", "mmap-churn", "punch=0.25", "gcc-project"))
    assert "no run found" in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    wrong = CliRunner().invoke(app, ["list", "strategies", "--tag", "server"])
    assert wrong.exit_code == 2
    assert "--tag server selects workloads or traces" in wrong.stderr


def test_lists_fit_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the text of a row has no room beside the other columns it stands below them; no word is lost."""

    def words() -> list[str]:
        done = CliRunner().invoke(app, ["list", "traces"])
        assert max(map(len, done.stdout.splitlines())) <= (options.width() or 100)
        return sorted(done.stdout.replace("-", "").split())

    wide = words()
    monkeypatch.setattr(options, "width", lambda: 80)
    assert words() == wide


def test_explain_says_at_once_that_the_machine_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it measures for minutes; what is measured is out of the question here."""
    monkeypatch.setattr("benchframe.results.manifest.noise", lambda: ["load 9 on 2 CPUs"])
    done = CliRunner().invoke(app, ["explain", "rbtree", "mmap_cache"])  # no workload: it ends before it measures
    assert done.exit_code == 2
    assert "this machine is not quiet, so intervals may be wide: load 9 on 2 CPUs" in done.stderr
