"""What users install: contents of wheel and sdist, and benchframe run from each kind of install, outside the tree."""

import re
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from imports import imports
from support.environments import ROOT, Environment, build, run

import benchframe


def hookimpls(folder: Path, what: str = "@hookimpl") -> list[str]:
    """The modules and packages in a folder that implement a hook; what plugins share among themselves does not."""
    paths = [*folder.glob("[!_]*.py"), *folder.glob("*/__init__.py")]
    names = [path.parent.name if path.stem == "__init__" else path.stem for path in paths]
    return [name for name, path in zip(names, paths, strict=True) if what in path.read_text()]


PLUGINS = hookimpls(ROOT / "plugins/benchframe_plugins")
WORKLOADS = [p.stem for p in (ROOT / "workloads/benchframe_workloads").glob("[!_]*.py")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(wheel, sdist), built once."""
    wheel, sdist = sorted(build(ROOT, tmp_path_factory.mktemp("dist")), key=lambda path: path.suffix != ".whl")
    return wheel, sdist


def declared() -> dict[str, str]:
    """The entry points in pyproject.toml, read without a TOML parser (3.10 has none)."""
    text = (ROOT / "pyproject.toml").read_text()
    section = re.search(r"^\[project\.entry-points\.benchframe\]\n((?:.+\n)+)", text, re.MULTILINE)
    assert section
    return dict(re.findall(r'^([\w.-]+) = "([\w.]+)"', section[1], re.MULTILINE))


def test_wheel_content(built: tuple[Path, Path]) -> None:
    """Three packages with types, traces and licence; no test, no cache, no stray top-level name."""
    with zipfile.ZipFile(built[0]) as wheel:
        names = set(wheel.namelist())
        info = next(name.split("/")[0] for name in names if name.endswith("/METADATA"))
        points = wheel.read(f"{info}/entry_points.txt").decode()
        metadata = message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert {name.split("/")[0] for name in names} == {"benchframe", "benchframe_plugins", "benchframe_workloads", info}
    sources = {
        str(path.relative_to(top))
        for top in (ROOT, ROOT / "plugins", ROOT / "workloads")
        for package in ("benchframe", "benchframe_plugins", "benchframe_workloads")
        for path in (top / package).rglob("*.py")
    }
    assert sources <= names
    assert "benchframe/py.typed" in names
    assert f"{info}/licenses/LICENSE" in names
    traces = {f"benchframe_workloads/data/{p.name}" for p in (ROOT / "workloads/benchframe_workloads/data").iterdir()}
    assert traces
    assert traces <= names
    assets = {f"benchframe/report/assets/report.{kind}" for kind in ("html", "css", "js")}
    assert assets <= names
    stray = re.compile(r"__pycache__|/tests?/|/test_[^/]*\.py$|\.(pyc|so)$")
    assert not [name for name in names if stray.search(name)]
    for name, module in declared().items():
        assert f"{name} = {module}" in points
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "MIT"
    assert "numba" in " ".join(metadata.get_all("Requires-Dist", []))
    assert "[console_scripts]\nbenchframe = benchframe.__main__:main" in points


def test_sdist_content(built: tuple[Path, Path]) -> None:
    """The sdist can be built, tested and linted: sources, tests, Makefile and docs, but no recorded runs."""
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "CITATION.cff",
        "Makefile",
        ".ci/run",
        "tests/packaging/test_packaging.py",
    }
    assert wanted <= names
    assert "docs/plugins.md" in names
    assert not [name for name in names if name.startswith(("reports/runs", ".git/", ".venv")) or "__pycache__" in name]


def test_built_in_modules_have_entry_points() -> None:
    """Each public module of the two built-in packages is an entry point of its own name, and none is left over."""
    modules = {name: f"benchframe_plugins.{name}" for name in PLUGINS}
    modules |= {name: f"benchframe_workloads.{name}" for name in WORKLOADS}
    assert declared() == modules


def test_versions_agree(built: tuple[Path, Path]) -> None:
    """The version of the package is the wheel's, the citation's, and has its section in the changelog."""
    version = benchframe.__version__
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert built[0].name.startswith(f"benchframe-{version}-py3-none-any")
    assert version in (ROOT / "CHANGELOG.md").read_text()


def lists_everything(env: Environment, elsewhere: Path, home: Path) -> None:
    """In ``env``, run from ``elsewhere``: benchframe comes from ``home``, and lists all that is built in."""
    where = run([env.python, "-c", "import benchframe; print(benchframe.__file__)"], elsewhere).strip()
    assert Path(where).is_relative_to(home), where
    strategies = run([env.benchframe, "list", "strategies"], elsewhere, COLUMNS="200")
    for name in hookimpls(ROOT / "plugins/benchframe_plugins", "def benchframe_strategies"):
        assert name in strategies or name == "linux", name
    workloads = run([env.benchframe, "list", "workloads"], elsewhere, COLUMNS="200")
    for name in ("uniform", "ebizzy", "mmap-churn"):
        assert name in workloads
    assert "gcc-project" in run([env.benchframe, "list", "traces"], elsewhere, COLUMNS="200")


@pytest.mark.slow
def test_wheel_runs_anywhere(built: tuple[Path, Path], tmp_path: Path) -> None:
    """A wheel in a fresh environment works from another folder, without the source tree."""
    env = Environment(tmp_path / "env")
    env.install(built[0])
    lists_everything(env, tmp_path, env.site)
    traced = "from benchframe.registry import load; print(len(load().workload('python-json').spec().trace()))"
    assert int(run([env.python, "-c", traced], tmp_path)) > 100


@pytest.mark.slow
def test_editable_runs_anywhere(tmp_path: Path) -> None:
    """An editable install works from another folder and takes its code from the source tree."""
    env = Environment(tmp_path / "env")
    env.install("--editable", ROOT)
    lists_everything(env, tmp_path, ROOT)


def test_every_import_is_a_declared_dependency() -> None:
    """What benchframe imports anywhere is the standard library, itself or a dependency; every dependency is used."""
    text = (ROOT / "pyproject.toml").read_text()
    block = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert block
    declared_names = set(re.findall(r'^  "([\w-]+)', block[1], re.MULTILINE))
    of_import = {"vl_convert": "vl-convert-python", "llvmlite": "numba", "markupsafe": "jinja2"}  # pinned by those
    standard = sys.stdlib_module_names | {"tomllib"}  # of 3.11; imported from there on only
    used: set[str] = set()
    for folder in ("benchframe", "plugins/benchframe_plugins", "workloads/benchframe_workloads"):
        for path in (ROOT / folder).rglob("*.py"):
            for line, module in imports(path, ()):
                top = module.split(".")[0]
                if top and top not in standard and not top.startswith("benchframe"):
                    name = of_import.get(top, top)
                    assert name in declared_names, f"{path}:{line} imports {top}, which is no dependency"
                    used.add(name)
    assert used == declared_names
