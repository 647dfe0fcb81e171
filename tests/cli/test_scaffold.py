"""``benchframe new``: each kind is made, loaded or installed, and passes its own tests; nothing else is touched."""

import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from support.compile import compiled
from support.environments import clean_environment, run
from support.space import BASE, PAGE, SIZES
from typer.testing import CliRunner, Result

from benchframe.cli.manage import KINDS, ScaffoldError, make
from benchframe.cstrategy import c_sources
from benchframe.dialect.records import DialectError
from benchframe.judge.trees import calls, perform
from benchframe.linux import find_trees
from benchframe.mm.layout import ARENA_PRIVATE0
from benchframe.mm.machine import Machine, Space
from benchframe.oracle import Oracle
from benchframe.registry import PluginPathError, expand, forget, listed, load, plugin_files, remember
from benchframe.runner import InterpretedRunner
from benchframe.strategy import Strategy

SOURCE = "from benchframe.api import hookimpl\n\n@hookimpl\ndef benchframe_metadata():\n    return {}\n"


@pytest.fixture(autouse=True)
def own_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has an empty list of plugins."""
    monkeypatch.setenv("BENCHFRAME_CONFIG_DIR", str(tmp_path / "config"))


def benchframe(*arguments: str | Path) -> Result:
    """The command line in this process."""
    from benchframe.cli import app

    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*KINDS} - {"cache"}))
def test_its_own_tests_pass(kind: str, tmp_path: Path) -> None:
    """What `new` makes passes the tests that it makes, run as its author would (a cache: test_tutorial.py)."""
    project = make("fresh-one", kind, tmp_path)
    if kind != "workload":
        compiled(load([project.source]).strategy("fresh-one"))
    out = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", project.folder], project.folder)
    assert " passed" in out
    assert "skipped" not in out


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_known_at_once(kind: str, tmp_path: Path) -> None:
    """After `new` list and show know it; after `plugin remove` they do not, and its files are still there."""
    made = benchframe("new", "fresh-one", "--kind", kind, "-o", tmp_path)
    assert made.exit_code == 0, made.output
    what = "workloads" if kind == "workload" else "strategies"
    assert "fresh-one" in benchframe("list", what).stdout
    shown = benchframe("show", "fresh-one")
    assert str(tmp_path / "fresh-one" / "src" / "benchframe_fresh_one.py") in shown.stdout
    assert benchframe("plugin", "remove", "fresh-one").exit_code == 0
    assert "fresh-one" not in benchframe("list", what).stdout
    assert (tmp_path / "fresh-one" / "README.md").is_file()


@pytest.mark.needs_debian("cc")
def test_it_may_begin_in_c(tmp_path: Path) -> None:
    """``new --lang c``: the hot path in C beside its twin. The C compiles, the twin is checked. Another
    kind has no such beginning."""
    made = benchframe("new", "in-c", "--lang", "c", "-o", tmp_path, "--no-remember")
    assert made.exit_code == 0, made.output
    source = tmp_path / "in-c" / "src" / "benchframe_in_c.py"
    done = benchframe("check", "-s", "in-c", "--scenario", "lookup-munmap", "--plugin", source)
    assert done.exit_code == 0, done.output
    strategy = load([source]).strategy("in-c")
    (compiled_c,) = c_sources(strategy.functions())
    assert compiled_c.build()
    assert source.with_suffix(".c").read_text().count("int64_t cache_") == 2
    assert '"src/benchframe_in_c.c"' in (tmp_path / "in-c" / "pyproject.toml").read_text()
    made = benchframe("new", "tree-in-c", "--lang", "c", "--kind", "index", "-o", tmp_path)
    assert made.exit_code == 2
    assert "a cache may begin in c" in made.output
    assert not (tmp_path / "tree-in-c").exists()


def test_own_text_comes_first(tmp_path: Path) -> None:
    """``show`` prints the strategy's own functions before those of the index that it takes over."""
    made = benchframe("new", "fresh-one", "-o", tmp_path, "--no-remember")
    assert made.exit_code == 0, made.output
    shown = benchframe("show", "fresh-one", "--source", "--plugin", tmp_path / "fresh-one").stdout
    assert 0 < shown.index("def find(mm, task, addr)") < shown.index("# ---- ") < shown.index("def rb_find(")


def test_watch_checks_again_what_is_written(tmp_path: Path) -> None:
    """``check --watch FILE``: its strategies are checked, and again once the file was written; Ctrl-C ends with 130."""
    assert benchframe("new", "fresh-one", "-o", tmp_path, "--no-remember").exit_code == 0
    source = tmp_path / "fresh-one" / "src" / "benchframe_fresh_one.py"
    command = [sys.executable, "-m", "benchframe", "check", "--scenario", "lookup-munmap", "--watch", str(source)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stderr is not None
        assert watching.stdout is not None
        while "waiting for" not in (line := watching.stderr.readline()):
            assert line, watching.stdout.read()
        source.write_text(source.read_text().replace("def find(", "def find(:"))
        while "SyntaxError" not in (line := watching.stderr.readline()):
            assert line
        watching.send_signal(signal.SIGINT)
        said = watching.stdout.read()
        assert watching.wait() == 130
    assert "right in every interleaving" in said
    assert "pmdcache" not in said


def test_it_is_remembered_though_nobody_reads_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`benchframe new mine | head -1`: the project is on the list before the first line is printed."""

    def gone(*args: object, **options: object) -> None:
        raise BrokenPipeError

    with monkeypatch.context() as patch:
        patch.setattr("benchframe.cli.manage.typer.echo", gone)
        patch.setattr("benchframe.cli.options.os.dup2", lambda *handles: None)
        benchframe("new", "unread", "-o", tmp_path)
    assert "unread" in benchframe("list", "strategies").stdout


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "workload"])
def test_plugin_option_takes_file_and_folder(kind: str, tmp_path: Path) -> None:
    """Not remembered, it is loaded with --plugin FOLDER, a cache with --plugin FILE too, and only then; check finds
    nothing wrong."""
    made = benchframe("new", "fresh-one", "-k", kind, "-o", tmp_path, "--no-remember")
    assert made.exit_code == 0, made.output
    assert listed() == []
    folder = tmp_path / "fresh-one"
    source = folder / "src" / "benchframe_fresh_one.py"
    for path in (folder, source) if kind == "cache" else (folder,):
        done = benchframe("check", "-s", "fresh-one", "--scenario", "lookup-munmap", "--plugin", path)
        assert done.exit_code == 0, done.output
        assert "right in every interleaving" in done.stdout
    assert benchframe("check", "-s", "fresh-one").exit_code == 2


@pytest.mark.slow
def test_it_can_be_installed(tmp_path: Path) -> None:
    """pip installs it, and from there it is found without any list; named as a file as well, it counts once."""
    project = make("fresh-one", "cache", tmp_path / "source")
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    run([*pip, "--target", target, project.folder], tmp_path)
    command = [sys.executable, "-m", "benchframe", "list", "strategies"]
    environment = clean_environment(PYTHONPATH=str(target), BENCHFRAME_CONFIG_DIR=str(tmp_path / "none"))
    for extra in ([], ["--plugin", str(target / "benchframe_fresh_one.py")]):
        done = subprocess.run([*command, *extra], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\nfresh-one ") == 1
        assert not done.stderr


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Mine", "small letters"),
        ("../mine", "small letters"),
        ("a/b", "small letters"),
        ("a--b", "small letters"),
        ("1a", "small letters"),
        ("", "small letters"),
        ("x" * 41, "too long"),
        ("plugins", "own package"),
    ],
)
def test_names_that_are_refused(name: str, says: str, tmp_path: Path) -> None:
    """A name that could leave the folder or be no module is refused, and nothing is made."""
    with pytest.raises(ScaffoldError, match=says):
        make(name, "cache", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """An existing file, folder or dangling link of that name stops it; so does the name of a known strategy."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("mine")
    (tmp_path / "c").symlink_to(tmp_path / "nowhere")
    for name in "abc":
        with pytest.raises(ScaffoldError, match="exists"):
            make(name, "cache", tmp_path)
    assert (tmp_path / "b").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]
    done = benchframe("new", "rbtree", "-o", tmp_path)
    assert done.exit_code == 2
    assert "already the name" in done.stderr
    assert "did you mean cache?" in benchframe("new", "x", "-k", "cash", "-o", tmp_path).stderr


def test_the_list(tmp_path: Path) -> None:
    """What is remembered comes first, given files last; each file once; a path is remembered once."""
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    for path in (one, two):
        path.write_text(SOURCE)
    assert remember(one)
    assert not remember(one)
    assert plugin_files([two]) == ([one, two], [])
    assert plugin_files([two, one]) == ([two, one], [])
    assert forget("two.py") == []
    assert forget("one.py") == [one]
    assert plugin_files() == ([], [])


def test_a_remembered_file_that_is_gone(tmp_path: Path) -> None:
    """It is one warning with the way out; commands go on."""
    path = tmp_path / "gone.py"
    path.write_text(SOURCE)
    remember(path)
    path.unlink()
    done = benchframe("list", "strategies")
    assert done.exit_code == 0
    assert "benchframe plugin remove gone.py" in done.stderr
    assert "rbtree" in done.stdout


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners here")
def test_what_others_could_write_is_not_loaded(tmp_path: Path) -> None:
    """A list or a remembered file that anybody may write is refused with a warning, not run."""
    path = tmp_path / "open.py"
    path.write_text("raise SystemExit('was run')")
    remember(path)
    path.chmod(0o666)
    files, problems = plugin_files()
    assert files == []
    assert "other users can write it" in problems[0]
    path.chmod(0o600)
    (tmp_path / "config" / "plugins.txt").chmod(0o666)
    files, problems = plugin_files()
    assert files == []
    assert "other users can write it" in problems[0]


@pytest.mark.parametrize(
    ("project", "says"),
    [
        (None, "no pyproject.toml"),
        ("[project", "correct it"),
        ("[project]\nname = 'x'", "entry-points.benchframe"),
        ("[project.entry-points.benchframe]\nx = 3", "entry-points.benchframe"),
        ("[project.entry-points.benchframe]\nx = 'gone'", "module gone is neither"),
        ("[project.entry-points.benchframe]\nx = '../../etc/passwd'", "not a module name"),
    ],
)
def test_folders_that_are_no_plugin(project: str | None, says: str, tmp_path: Path) -> None:
    """A folder without a usable pyproject.toml is refused with what is missing."""
    if project is not None:
        (tmp_path / "pyproject.toml").write_text(project)
    with pytest.raises(PluginPathError, match=says):
        expand(tmp_path)


def test_a_package_with_several_modules(tmp_path: Path) -> None:
    """A project's module may be a package whose modules import each other."""
    package = tmp_path / "src" / "mypack"
    package.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[project.entry-points.benchframe]\nmine = 'mypack'\n")
    (package / "__init__.py").write_text("from .inner import benchframe_metadata\n")
    (package / "inner.py").write_text(SOURCE.replace("{}", "{'inner': 'yes'}"))
    known = load(expand(tmp_path))
    assert known.problems == []
    assert known.metadata()["inner"] == "yes"
    assert "mypack" in known.plugins


# ---- a kernel source tree's own text as a strategy ---------------------------------------------------------------


def made_up_tree(folder: Path) -> Path:
    """A source tree whose lib/rbtree.c does not compile."""
    (folder / "lib").mkdir(parents=True)
    (folder / "include" / "linux").mkdir(parents=True)
    (folder / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 12\n")
    (folder / "lib" / "rbtree.c").write_text("#include <linux/rbtree.h>\n#include <linux/export.h>\nint x = typo;\n")
    (folder / "include" / "linux" / "rbtree.h").write_text("struct rb_node { int x; };\n")
    return folder


@pytest.mark.needs_debian("cc")
def test_from_linux_reads_the_tree_where_it_lies(tmp_path: Path) -> None:
    """Nothing of the tree is copied; an edit of its file, or of a header of it, is another strategy; what does not
    compile is told with the line of the tree's own file."""
    tree = made_up_tree(tmp_path / "linux")
    made = benchframe(
        "new", "own", "--from-linux", tree, "--file", "lib/rbtree.c", "-o", tmp_path, "--no-remember"
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert f"edit {tree}/lib/rbtree.c, then" in made.output
    assert not any("typo" in path.read_text() for path in (tmp_path / "own").rglob("*") if path.is_file())
    strategy = load([tmp_path / "own" / "src" / "benchframe_own.py"]).strategy("own")
    assert strategy.summary == "Linux 6.12: lib/rbtree.c itself"
    (source,) = c_sources(strategy.functions())
    with pytest.raises(DialectError, match=rf"{tree}/lib/rbtree\.c:3:9: error: .typo. undeclared"):
        source.build()
    before = source.content()
    (tree / "include" / "linux" / "rbtree.h").write_text("struct rb_node { long x; };\n")
    header = source.content()
    (tree / "lib" / "rbtree.c").write_text("#include <linux/rbtree.h>\n")
    assert len({before, header, source.content()}) == 3
    (tree / "lib" / "rbtree.c").unlink()
    with pytest.raises(DialectError, match=r"includes no file of .*linux; is that a kernel's source tree"):
        source.content()


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["--from-linux", "none"], "none: no such folder", 3),
        (["--from-linux", "linux"], "linux has no lib/maple_tree.c; name another source tree", 2),
        (
            ["--from-linux", "linux", "--file", "mm/mmap.c"],
            "mm/mmap.c cannot be an index; choose lib/",
            2,
        ),
        (["--from-linux", "linux", "--lang", "c"], "leave --kind and --lang out", 2),
        (["--file", "lib/rbtree.c"], "--file names a file of the source tree", 2),
        (["--from-linux", "."], "it contains 2 source trees; name one: ", 3),
    ],
)
def test_from_linux_says_what_is_wrong(
    words: list[str], said: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, and no folder is made."""
    monkeypatch.chdir(tmp_path)
    for name in ("linux", "linux-b"):
        made_up_tree(tmp_path / name)
    done = benchframe("new", "own", *words)
    assert (done.exit_code, said in done.output) == (code, True), done.output
    assert not (tmp_path / "own").exists()


@pytest.mark.needs_debian("cc")
def test_from_linux_answers_as_the_oracle_does(tmp_path: Path) -> None:
    """lib/maple_tree.c of real sources on the model's memory: random calls leave the oracle's layout, fork a copy, each
    lookup is right, its own check holds, and after exit every node is free. A wrong line in a copy gives wrong answers.
    """
    folder = Path(os.environ.get("BENCHFRAME_KERNEL_SOURCES", "/nonexistent"))
    if not folder.is_dir():
        pytest.skip("no kernel sources: set BENCHFRAME_KERNEL_SOURCES to a folder with Debian's linux-source-6.12")
    newest = find_trees([folder])[-1].path
    right = "while (mas_is_active(&mas) && (mas.last < max)) {"  # in mt_find: the VMA above a hole
    for number, line in enumerate((right, "while (0) {")):
        tree = tmp_path / str(number) / "linux-6.12"
        for file in ("lib/maple_tree.c", "include/linux/maple_tree.h"):
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            (tree / file).write_text((newest / file).read_text().replace(right, line))
        project = make("own", "index", tmp_path / str(number), linux=find_trees([tree])[0])
        strategy = load([project.source]).strategy("own")
        assert (wrong_answers(strategy) > 0) == (line != right)


def wrong_answers(strategy: Strategy) -> int:
    """How many calls and lookups are answered otherwise than by the oracle; random calls up to the first such one."""
    runner = InterpretedRunner(strategy)
    machine = Machine(runner, SIZES, private=strategy.slabs)
    space, oracle = Space(machine), Oracle()
    for call in islice(calls("from-linux"), 300):
        if perform(space, call) != perform(oracle, call):
            return 1
    layout = [(row[0], row[1]) for row in oracle.layout()]
    assert layout == [(row[0], row[1]) for row in space.layout()]
    wrong = 0
    for addr in range(BASE - PAGE, layout[-1][1] + PAGE, PAGE // 2):
        wrong += space.find_vma(addr) != next(((start, end) for start, end in layout if addr < end), None)
    assert runner.hook("index_check") == 0
    child = space.fork()
    assert [(row[0], row[1]) for row in child.layout()] == layout
    wrong += [child.find_vma(start) for start, _ in layout] != layout
    child.exit()
    space.exit()
    assert int(machine.arrays["slab_base"]["live"][ARENA_PRIVATE0]) == 0
    return wrong
