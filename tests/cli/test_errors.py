"""The errors that commands end in, and files that take another's place whole or not at all."""

import pickle
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import benchframe
from benchframe.cli.options import exit_code
from benchframe.errors import ENVIRONMENT, FAILED, USAGE, BenchframeError, ResultsError, TraceError, did_you_mean
from benchframe.files import replacing

INSIDE = {
    "benchframe.mm.validate.ValidationError": "an assertion of tests and of verification",
    "benchframe.record.perf.PerfError": "an OSError with its errno, caught by the recording session",
    "benchframe.trace.trace.RowError": "a ValueError of a row, turned into a TraceError with its file",
}
"""Errors that no user sees, and why."""


def exceptions() -> dict[str, type[Exception]]:
    """Every exception class of benchframe by its full name."""
    found = {}
    for module in walk_packages(benchframe.__path__, "benchframe."):
        if module.name == "benchframe.__main__":
            continue
        for value in vars(import_module(module.name)).values():
            if not isinstance(value, type) or not issubclass(value, Exception) or issubclass(value, Warning):
                continue
            if value.__module__ == module.name:
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


def test_every_error_of_ours_is_a_benchframe_error() -> None:
    """What is called an Error may reach a user, so it has an exit code; the exceptions are listed with their reasons.

    What has another name (Refused, Broken ...) is caught by the code that raised it.
    """
    others = {
        name for name, kind in exceptions().items() if name.endswith("Error") and not issubclass(kind, BenchframeError)
    }
    assert others == set(INSIDE)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ResultsError("x", "what", "hint"), USAGE),
        (TraceError("x", "what", "hint", exit_code=ENVIRONMENT), ENVIRONMENT),
        (OSError(28, "full"), ENVIRONMENT),
        (ValueError("a bug"), None),
    ],
)
def test_exit_codes(error: Exception, code: int | None) -> None:
    """The class or the raiser decides; only what is a bug has no code."""
    assert exit_code(error) == code


def test_a_failed_study_is_no_bad_input() -> None:
    """A wrong answer ends a study with 1, as a failed check does."""
    from benchframe.engine.probe import ProbeError

    assert exit_code(ProbeError("rbtree: wrong")) == FAILED


def test_an_error_goes_through_a_pipe() -> None:
    """Workers hand errors to their parent: text and exit code survive pickle."""
    error = TraceError("a.parquet", "cannot be written", "free space", exit_code=ENVIRONMENT)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.exit_code, again.hint) == (str(error), ENVIRONMENT, "free space")


def test_the_hint_of_a_misspelt_name() -> None:
    """The nearest name, else what the caller says with all of them; braces in a name are only text."""
    assert did_you_mean("fnd", ["find", "{0}"]) == "did you mean find?"
    assert did_you_mean("x", ["{0}"], "it has {}") == "it has {0}"


def fail(_: int) -> None:
    """Whatever goes wrong while a file is written."""
    raise RuntimeError


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, durable: bool) -> None:
    """After an exception the old content is there and nothing else; no third file stays."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing(path, durable=durable) as file:
        fail(file.write(b"half"))
    assert path.read_bytes() == b"old"
    with replacing(path, durable=durable, mode=0o600) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
