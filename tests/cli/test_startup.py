"""What a start imports: `benchframe --help` and a plugin's import must stay light. Modules are looked at, not times."""

import json
import subprocess
import sys

import pytest

HEAVY = {"numba", "llvmlite", "pandas", "pyarrow", "scipy", "vl_convert", "jinja2", "pyperf"}


def imported_after(code: str) -> set[str]:
    """The heavy top-level modules that a fresh interpreter has after running ``code``."""
    probe = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1])) & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["list", "--help"]])
def test_help_is_light(arguments: list[str]) -> None:
    """No help text needs the compiler, the tables, the traces or the statistics."""
    code = (
        f"import sys\nsys.argv = {['benchframe', *arguments]!r}\nfrom benchframe.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
    )
    assert imported_after(code) == set()


def test_registry_is_light() -> None:
    """Finding, importing and asking all plugins compiles nothing and reads no trace."""
    code = "from benchframe.registry import load\nassert load().workloads"
    assert imported_after(code) == set()


def test_api_is_lazy() -> None:
    """Importing the API costs not even numpy; a workload plugin's names pull in numpy at most."""
    assert imported_after("import benchframe.api, sys\nassert 'numpy' not in sys.modules") == set()
    names = "EVENT, Kind, Parameter, Trace, Workload, hookimpl, stream"
    assert imported_after(f"from benchframe.api import {names}") == set()


def test_api_is_complete() -> None:
    """Every promised name has a home and can be imported; an unknown one is an AttributeError."""
    from benchframe import api

    assert sorted(api.__all__) == sorted(api._HOME)
    for name in api.__all__:
        assert getattr(api, name) is not None
    assert dir(api) == sorted(api.__all__)
    with pytest.raises(AttributeError, match="no 'nonsense'"):
        _ = api.nonsense
