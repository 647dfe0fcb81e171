"""Plugins: found, imported, asked; a broken one is reported by name and file while the others load."""

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchframe import registry as discovery
from benchframe.cli import app
from benchframe.registry import Found, Problem, Registry, UnknownName, load
from benchframe.workload import WorkloadError

GOOD = """
from benchframe.api import hookimpl
from benchframe.workloads import Parameter, Workload
def make(params, seed):
    raise ValueError("not today")
@hookimpl
def benchframe_workloads():
    return [Workload("{name}", "a load", "nothing real", (Parameter("n", 1, "count"),), make)]
"""


STRATEGY = """
from benchframe.api import Strategy, hookimpl
@hookimpl
def benchframe_strategies():
    return [Strategy(name="{name}", summary="for a test", index="{index}")]
"""

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(name, source) makes a plugin file and returns its path."""

    def write(name: str, source: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        return path

    return write


without_entry_point = discovery.without_entry_point


@pytest.fixture(autouse=True)
def _no_install_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the built-in modules are all installed is one test's question (test_packaging asks pyproject.toml)."""
    monkeypatch.setattr("benchframe.registry.without_entry_point", lambda installed: [])


def only(registry: Registry, plugin: str) -> Problem:
    """The one problem of ``plugin``."""
    (problem,) = [p for p in registry.problems if p.plugin == plugin]
    return problem


@pytest.mark.parametrize(
    ("member", "says"),
    [
        ("index=5", "its index is of type int, not an Index(...)"),
        ('index="rbtree", cache=5', "its cache is of type int, not a Cache(...)"),
        ('index="rbtree", protocol=[]', "its protocol is of type list"),
        ('index="rbtree", scenarios=5', "its scenarios is of type int"),
    ],
)
def test_a_strategy_made_of_wrong_things(member: str, says: str, write: Write) -> None:
    """A member of another type is that plugin's problem; the others load."""
    text = STRATEGY.replace('index="{index}"', member).replace("{name}", "odd")
    registry = load([write("odd", text)])
    assert says in only(registry, "odd").what
    assert "odd" not in registry.strategies
    assert "rbtree" in registry.strategies


def test_built_in_plugins() -> None:
    """What comes with benchframe loads without a problem, strategies resolved and with their baseline."""
    registry = load()
    assert [str(p) for p in registry.problems] == []
    assert {"rbtree", "mmap_cache", "pmdcache"} <= set(registry.strategies)
    synthetic = {"uniform", "sequential", "zipf", "ebizzy", "multi-fault-all-split", "fault-scatter", "mmap-churn"}
    assert synthetic <= set(registry.workloads)
    assert all(w.baseline in registry.strategies for w in registry.workloads.values())
    origin = registry.origins["workload", "zipf"]
    assert (origin.plugin, origin.distribution) == ("synthetic", "benchframe")
    assert Path(origin.file).name == "synthetic.py"


def test_plugin_file(write: Write) -> None:
    """A file given by path is a plugin; its names come after the installed ones, its origin is the file."""
    path = write("mine", GOOD.format(name="mine-load"))
    registry = load([path])
    assert list(registry.workloads)[-1] == "mine-load"
    assert registry.origins["workload", "mine-load"].file == str(path)
    assert registry.spec("mine-load:n=3").params == {"n": 3}
    with pytest.raises(WorkloadError, match="workload mine-load: not today"):
        registry.spec("mine-load").trace()


def test_relative_path_and_equal_stems(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path works; of two files with one stem the second is a problem that names the first."""
    write("mine", GOOD.format(name="one"))
    (tmp_path / "other").mkdir()
    second = tmp_path / "other" / "mine.py"
    second.write_text(GOOD.format(name="two"))
    monkeypatch.chdir(tmp_path)
    registry = load([Path("mine.py"), second])
    assert "one" in registry.workloads
    assert "two" not in registry.workloads
    assert str(tmp_path / "mine.py") in only(registry, "mine").what


BROKEN = {
    "syntax": ("x = (\n", "column 5: SyntaxError"),
    "missing": ("import os\nimport no_such_module_at_all\n", "line 2: it cannot be imported: ModuleNotFoundError"),
    "raises": ("def f():\n    return 1 / 0\nf()\n", "line 2: it cannot be imported: ZeroDivisionError"),
    "exits": ("import sys\nsys.exit('bye')\n", "SystemExit: bye"),
    "empty": ("", "it implements no hook"),
    "unmarked": ("def benchframe_workloads():\n    return []\n", "is not marked"),
    "misspelt": (
        "from benchframe.api import hookimpl\n@hookimpl\ndef benchframe_workload():\n    return []\n",
        "benchframe_workload() is not a hook",
    ),
    "argument": (
        "from benchframe.api import hookimpl\n@hookimpl\ndef benchframe_workloads(extra):\n    return []\n",
        "PluginValidationError",
    ),
    "nolist": (
        "from benchframe.api import hookimpl\n@hookimpl\ndef benchframe_workloads():\n    return {}\n",
        "returned a dict, not a list of Workload",
    ),
    "none": (
        "from benchframe.api import hookimpl\n@hookimpl\ndef benchframe_strategies():\n    pass\n",
        "returned a NoneType, not a list of Strategy",
    ),
    "wrongitem": (
        "from benchframe.api import hookimpl\n@hookimpl\ndef benchframe_workloads():\n    return ['zipf']\n",
        "returned a str in its list, not a Workload",
    ),
    "hookraises": (
        "from benchframe.api import hookimpl\n@hookimpl\ndef benchframe_workloads():\n    return [undefined]\n",
        "benchframe_workloads() raised NameError",
    ),
    "badname": (GOOD.format(name="two words"), "its name 'two words' is not letters"),
    "takenname": (GOOD.format(name="zipf"), "workload 'zipf' is already defined in"),
    "missingindex": (STRATEGY.format(name="lost", index="no-such-index"), "strategy 'lost'"),
    "takenstrategy": (STRATEGY.format(name="rbtree", index="mmap_cache"), "strategy 'rbtree' is already defined in"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_plugin(name: str, write: Write) -> None:
    """Each way to be broken is one line with plugin, file, what and a mend; a good plugin after it still loads."""
    source, said = BROKEN[name]
    path, good = write(name, source), write("good", GOOD.format(name="good-load"))
    registry = load([path, good])
    problem = next(p for p in registry.problems if p.plugin == name)
    assert said in problem.what
    assert problem.file == str(path)
    assert problem.mend
    assert "\n" not in str(problem)
    assert str(problem).startswith(f"plugin {name} ({path}): ")
    assert "good-load" in registry.workloads
    assert {"rbtree", "pmdcache"} <= set(registry.strategies)
    assert {p.plugin for p in registry.problems} == {name}


def test_half_good_plugin(write: Write) -> None:
    """What is right in a plugin stays: one workload with a taken name does not take the other along."""
    source = GOOD.replace("return [", "return [Workload('zipf', 'x', 'x', (), make), ").format(name="still-here")
    registry = load([write("half", source)])
    assert "still-here" in registry.workloads
    assert "zipf" in only(registry, "half").what


def test_missing_file(tmp_path: Path) -> None:
    """A plugin file that is not there is a problem, not a traceback; so is one that is no Python file."""
    assert "does not exist" in only(load([tmp_path / "none.py"]), "none").what
    (tmp_path / "notes.txt").write_text("hello")
    assert "must end in .py" in only(load([tmp_path / "notes.txt"]), "notes").what


def test_blocked() -> None:
    """A blocked plugin is left out silently; a blocked name that nobody has is said, with the nearest."""
    registry = load(blocked=["churn"])
    assert "mmap-churn" not in registry.workloads
    assert registry.problems == []
    assert "did you mean churn?" in only(load(blocked=["chrun"]), "chrun").mend


def test_entry_point_of_a_module_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point whose module was removed asks for a new install; the other plugins load."""
    gone = EntryPoint("ghost", "benchframe_plugins.ghost", "benchframe")
    monkeypatch.setattr(discovery, "entry_points", lambda group: [gone])
    registry = load()
    problem = only(registry, "ghost")
    assert "reinstall" in problem.mend or "again" in problem.mend
    assert "ghost" in problem.file


def test_module_without_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """A built-in module that no entry point names is a problem with the mend, unless it was named as a file."""
    every = discovery.find()[0]
    before = without_entry_point(every)
    (problem,) = [p for p in without_entry_point([f for f in every if f.name != "churn"]) if p not in before]
    assert problem.plugin == "churn"
    assert Path(problem.file).name == "churn.py"
    assert problem.mend == "pip install -e . again"
    by_file = Found("churn", problem.file, is_file=True)
    assert without_entry_point([*(f for f in every if f.name != "churn"), by_file]) == before


def test_one_distribution_found_twice() -> None:
    """The same entry point seen through two folders of sys.path counts once; another module of that name does not."""
    first = EntryPoint("mine", "mine", "benchframe")
    found, problems = discovery.find(points=[first, first])
    assert found == [Found("mine", "mine")]
    assert problems == []
    found, problems = discovery.find(points=[first, EntryPoint("mine", "theirs", "benchframe")])
    assert [f.where for f in found] == ["mine"]
    assert problems[0].plugin == "mine"


def test_unknown_names(write: Write) -> None:
    """An unknown name gets the nearest known one, or the list, or the problem of the plugin that should have it."""
    registry = load([write("wanted", "import no_such_module_at_all\n")])
    with pytest.raises(UnknownName, match=r"no strategy is called 'rbtre'; did you mean rbtree\?"):
        registry.strategy("rbtre")
    with pytest.raises(UnknownName, match=r"known: .*zipf"):
        registry.workload("qqqqqq")
    with pytest.raises(UnknownName, match="plugin wanted has a problem: line 1"):
        registry.strategy("wanted")
    with pytest.raises(UnknownName) as caught:
        registry.spec("zip:vmas=7")
    assert caught.value.nearest == "zipf"


def test_metadata(write: Write) -> None:
    """Metadata of all plugins is merged; a key that two set differently, and a value that is no text, are problems."""
    source = "from benchframe.api import hookimpl\n@hookimpl\ndef benchframe_metadata():\n    return {}\n"
    registry = load(
        [
            write("first", source.replace("{}", "{'bios': '1.2'}")),
            write("second", source.replace("{}", "{'bios': '1.3', 'rack': 'b'}")),
            write("third", source.replace("{}", "{'bios': 12}")),
        ]
    )
    assert registry.metadata() == {"bios": "1.2", "rack": "b"}
    assert "'bios' is already set" in only(registry, "second").what
    assert "dict of strings" in only(registry, "third").what


def test_keyboard_interrupt_passes(write: Write) -> None:
    """Ctrl-C while a plugin is imported stops benchframe; it is no plugin's problem."""
    with pytest.raises(KeyboardInterrupt):
        load([write("slow", "raise KeyboardInterrupt\n")])


@pytest.mark.parametrize("name", ["a,b", "a\\nb", " a", "x" * 101, "a\\u202eb", "a\\x1b[31m"])
def test_names_that_no_command_could_give(name: str, write: Write) -> None:
    """A comma, control characters, text that turns around, edges of spaces, endless names: a problem with its mend."""
    registry = load([write("odd", STRATEGY.format(name=name, index="rbtree"))])
    assert "100 printable characters, no comma" in only(registry, "odd").mend
    assert not [known for known in registry.strategies if known.endswith("b")]


def test_a_name_may_be_hostile_as_long_as_it_is_text(write: Write) -> None:
    """Names are escaped where they are shown, so what looks like a script is a name like any other."""
    registry = load([write("evil", STRATEGY.format(name="<script>alert(1)</script>", index="rbtree"))])
    assert "<script>alert(1)</script>" in registry.strategies


def test_a_given_plugin_must_load(tmp_path: Path) -> None:
    """A file that ``--plugin`` names and that cannot be used ends the command, with the line, the column and the mend;
    a remembered one would be a warning."""
    path = tmp_path / "mine.py"
    path.write_text("def find(mm, addr):\n    return addr && 1\n")
    done = CliRunner().invoke(app, ["list", "strategies", "--plugin", str(path)])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "line 2, column 17: SyntaxError: invalid syntax; && is written `and`" in done.stderr
