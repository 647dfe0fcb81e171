"""Who may import whom: imports point one way, the core knows no plugin, a plugin knows the doors only."""

from pathlib import Path

import pytest
from imports import DOORS, ROOT, circles, graph, imports, modules, part, rank, upward


def test_imports_point_down() -> None:
    """No module imports a higher layer, nor a part of its own layer that it must not know."""
    assert not upward(graph())


def test_no_circles() -> None:
    """No two modules import each other, directly or through others, not even for types or inside functions."""
    assert not circles(graph())


def test_doors_stay_below_the_engines() -> None:
    """What plugins see comes from the strategy and workload layer and below."""
    for door in sorted(DOORS):
        for line, name in imports(ROOT / "benchframe" / f"{door}.py", ("benchframe",)):
            if name.startswith("benchframe."):
                assert part(name) in DOORS or rank(part(name)) <= rank("registry"), f"{door}:{line}: {name}"


def test_core_knows_no_plugin() -> None:
    """The core never imports benchframe_plugins or benchframe_workloads: they arrive through entry points."""
    for path in modules().values():
        for line, name in imports(path, path.relative_to(ROOT).parts[:-1]):
            assert not name.startswith(("benchframe_plugins", "benchframe_workloads")), f"{path}:{line}: {name}"


@pytest.mark.parametrize("folder", ["plugins/benchframe_plugins", "workloads/benchframe_workloads"])
def test_plugins_import_the_doors_only(folder: str) -> None:
    """A built-in plugin uses of benchframe what a third party may use."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        for line, name in imports(path, path.relative_to(ROOT).with_suffix("").parts[1:-1]):
            if name.split(".")[0] == "benchframe":
                assert name.split(".")[1] in DOORS, f"{path.relative_to(ROOT)}:{line}: {name}"


def test_every_part_has_a_layer() -> None:
    """A new module or package of benchframe must be given its place."""
    for name in modules():
        assert part(name) in DOORS | {""} or rank(part(name)) >= 0


def test_the_reader_sees_imports(tmp_path: Path) -> None:
    """The import reader itself: plain, from, relative and function-local imports are all found."""
    path = tmp_path / "probe.py"
    path.write_text("import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\ndef h():\n    import i\n")
    assert [name for _, name in imports(path, ("p", "q"))] == ["a.b", "c.d", "p.q.e", "p.f.g", "i"]


def test_circles_are_seen() -> None:
    """Two modules that import each other are a circle, directly or by a third; a diamond is none."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []
