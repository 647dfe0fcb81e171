"""Importers on damaged input: a short, seeded run of benchmarks/fuzz_importers.py."""

import sys
from pathlib import Path

import pytest

from benchframe.cli.inspect import load_any
from benchframe.errors import TraceError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import fuzz_importers


def test_damaged_files() -> None:
    """Two hundred damaged files of every form: each becomes a trace whose counts add up, or one line."""
    tried, findings = fuzz_importers.run(7, 60, 200, None, fuzz_importers.seeds(None))
    assert tried > 20
    assert findings == []


def test_findings_are_seen(tmp_path: Path) -> None:
    """The fuzz notices what it looks for: a traceback, and a trace that counts nothing."""
    (tmp_path / "input").write_text(fuzz_importers.STRACE)
    trace, _ = load_any(tmp_path / "input")
    assert fuzz_importers.silent(trace) == ""
    object.__setattr__(trace.meta, "counts", {"lines read": 3})
    assert "trace of nothing" in fuzz_importers.silent(trace)
    object.__setattr__(trace.meta, "counts", {"lines read": 1, "lines used": 3})
    assert "more was told" in fuzz_importers.silent(trace)
    (tmp_path / "input").write_text("nothing")
    with pytest.raises(TraceError, match="not a format"):
        load_any(tmp_path / "input")
