"""Who may import whom, read from the sources with ast: imports point one way."""

import ast
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LAYERS = (
    {"errors", "events", "files"},
    {"dialect"},
    {"oracle"},
    {"mm", "trace"},
    {"verify"},
    {"stream", "workload", "races", "scenario", "strategy", "csource", "interpreted"},
    {"hookspecs", "discovery", "registry", "plugin_paths", "scaffold"},
    {"engine", "check", "judge", "record"},
    {"results", "stats", "testing"},
    {"charts", "tables"},
    {"report", "compare", "selftest", "bundle", "study", "claims"},
    {"cli"},
    {"__main__"},
)
"""Lowest first. A module may import its own part, any part of its layer, and all below."""

SIBLINGS = (*map(set, combinations(("engine", "check", "judge", "record"), 2)), {"mm", "trace"})
"""Parts of one layer that do not import each other."""

EXCEPTIONS = {
    ("trace", "record"): "`trace convert` asks the recorder's importers, inside the function that needs them",
}
"""Imports that break the rule, (from, to), and why they may. Keep this short."""
FACADE = {"api"}
"""Names for plugins: imports from the parts below the engines only, and nobody in the core imports it."""


def rank(part: str) -> int:
    """The layer's number; a part that is in no layer must be put into one."""
    for number, layer in enumerate(LAYERS):
        if part in layer:
            return number
    raise AssertionError(f"benchframe/{part} is in no layer: add it to LAYERS in tests/packaging/test_layers.py")


def imports(path: Path, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of each import in a file; names imported from a package count as its submodules."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def core() -> Iterator[tuple[Path, str, int, str]]:
    """(file, its part, line, imported module) for all imports in benchframe/."""
    for path in sorted((ROOT / "benchframe").rglob("*.py")):
        inside = path.relative_to(ROOT).with_suffix("").parts
        package = inside[:-1]
        part = inside[1]
        if part == "__init__":
            continue
        for line, module in imports(path, package):
            yield path, part, line, module


def part_of(module: str) -> str | None:
    """The part of benchframe that ``module`` belongs to; None for other packages and for benchframe itself."""
    names = module.split(".")
    if names[0] != "benchframe" or len(names) < 2:
        return None
    here = ROOT / "benchframe" / names[1]
    return names[1] if here.exists() or here.with_suffix(".py").exists() else None


def test_imports_point_down() -> None:
    """No module imports a higher layer, nor a sibling part that it must not know."""
    wrong = []
    for path, part, line, module in core():
        other = part_of(module)
        if other is None or other == part or part in FACADE:
            continue
        if other in FACADE:
            wrong.append(f"{path.relative_to(ROOT)}:{line}: the core imports {module}, which is for plugins")
            continue
        upward, sideways = rank(other) > rank(part), {part, other} in SIBLINGS
        if (upward or sideways) and (part, other) not in EXCEPTIONS:
            wrong.append(f"{path.relative_to(ROOT)}:{line}: {part} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_api_stays_below_the_engines() -> None:
    """What plugins see comes from the strategy and workload layer and below."""
    from benchframe import api

    for home in api._HOMES:
        part = part_of(home)
        assert part is None or rank(part) <= rank("registry"), home


def test_core_knows_no_plugin() -> None:
    """The core never imports benchframe_plugins or benchframe_workloads: they arrive through entry points."""
    for path, _, line, module in core():
        assert not module.startswith(("benchframe_plugins", "benchframe_workloads")), f"{path}:{line}: {module}"


@pytest.mark.parametrize("folder", ["plugins/benchframe_plugins", "workloads/benchframe_workloads"])
def test_plugins_import_the_api_only(folder: str) -> None:
    """A built-in plugin uses of benchframe what a third party may use: benchframe.api."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        for line, module in imports(path, path.relative_to(ROOT).with_suffix("").parts[1:-1]):
            if module.split(".")[0] == "benchframe":
                assert module.startswith("benchframe.api."), f"{path.relative_to(ROOT)}:{line}: {module}"


def test_every_part_has_a_layer() -> None:
    """A new module or package of benchframe must be given its place."""
    for path in (ROOT / "benchframe").iterdir():
        if path.name != "__pycache__" and (path.suffix == ".py" or path.is_dir()) and path.stem != "__init__":
            assert path.stem in FACADE or rank(path.stem) >= 0


def test_the_reader_sees_imports(tmp_path: Path) -> None:
    """The import reader itself: plain, from, relative and function-local imports are all found."""
    source = "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\ndef h():\n    import i\n"
    path = tmp_path / "probe.py"
    path.write_text(source)
    found = [module for _, module in imports(path, ("p", "q"))]
    assert found == ["a.b", "c.d", "p.q.e", "p.f.g", "i"]
