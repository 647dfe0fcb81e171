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
    assert (
        imported_after(code.replace("import sys\n", "import sys\nsys.modules['numpy'] = None\n", 1)) == set()
    )  # nor arrays


def test_registry_is_light() -> None:
    """Finding, importing and asking all plugins compiles nothing and reads no trace."""
    code = "from benchframe.registry import load\nassert load().workloads"
    assert imported_after(code) == set()


def test_traces_need_no_tables() -> None:
    """Writing and reading a trace, as Parquet and as CSV, does not import pandas, which pyarrow likes to do."""
    code = (
        "import tempfile, pathlib, numpy as np\nfrom benchframe.events import EVENT\n"
        "from benchframe.trace.trace import Trace, read_trace, write_trace\n"
        "from benchframe.trace.trace import read_csv, write_csv\nevents = np.zeros(1, EVENT)\nevents['file'] = -1\n"
        "with tempfile.TemporaryDirectory() as place:\n  path = pathlib.Path(place, 't.parquet')\n"
        "  write_trace(path, Trace(events))\n  write_csv(path.with_suffix('.csv'), read_trace(path))\n"
        "  assert len(read_csv(path.with_suffix('.csv'))) == 1"
    )
    assert imported_after(code) == {"pyarrow"}


def test_the_modules_for_plugins_are_light() -> None:
    """Importing the API costs not even numpy; what workloads and strategy code import, numpy at most."""
    assert imported_after("import benchframe.api, sys\nassert 'numpy' not in sys.modules") == set()
    assert imported_after("import benchframe.kernel, benchframe.workloads") == set()


def test_every_name_for_plugins_is_in_one_module() -> None:
    """Every promised name is there, in one of the three modules; an unknown one is an AttributeError."""
    from benchframe import api, kernel, workloads

    names = [name for module in (api, kernel, workloads) for name in module.__all__]
    assert len(set(names)) == len(names)
    for module in (api, kernel, workloads):
        assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="no 'nonsense'"):
        _ = api.nonsense
