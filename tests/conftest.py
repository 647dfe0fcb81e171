"""What all tests share: a folder of compiled code, seeded Hypothesis; in CI what is marked needs_debian must run."""

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

from benchframe.units import COLLECT_AFTER

CACHE = "BENCHFRAME_CACHE_DIR"
CONFIG = "BENCHFRAME_CONFIG_DIR"
_made: list[str] = []

# The same examples in every run; BENCHFRAME_EXPLORE=1 draws new ones, and many more.
settings.register_profile("seeded", derandomize=True, database=None, deadline=None, max_examples=25, print_blob=True)
settings.register_profile("explore", database=None, deadline=None, max_examples=400, print_blob=True)
settings.load_profile("explore" if os.environ.get("BENCHFRAME_EXPLORE") else "seeded")


def pytest_configure(config: pytest.Config) -> None:
    """All tests, of every xdist worker and in every child process, share one folder of compiled code: the one that the
    environment names, else one in pytest's own cache. A second run then compiles only what changed
    (`pytest --cache-clear` empties it)."""
    gc.set_threshold(COLLECT_AFTER)
    # Ignored in a shell's background job and under nohup: children would inherit it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    kept = config.pluginmanager.hasplugin("cacheprovider")
    if not os.environ.get(CACHE):
        os.environ[CACHE] = str(config.cache.mkdir("compiled")) if kept else _folder("cache")
    if not os.environ.get(CONFIG):  # plugins that the developer has remembered must not be in any test
        os.environ[CONFIG] = _folder("config")


def _folder(name: str) -> str:
    _made.append(tempfile.mkdtemp(prefix=f"benchframe-test-{name}-"))
    return _made[-1]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Whoever made a folder removes it."""
    for folder in _made:
        for name in (CACHE, CONFIG):
            if os.environ.get(name) == folder:
                del os.environ[name]
        shutil.rmtree(folder, ignore_errors=True)
    _made.clear()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than CPUs: many tests wait for a child, a signal or a clock."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: at the end one of them would run alone while the other processes have nothing left to do."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """What is there stays: the garbage collector need not visit it again and again (a tenth of the suite's time)."""
    gc.freeze()


def missing(item: pytest.Item) -> list[str] | None:
    """The programs that needs_debian names and that are not here; None if the test is not marked."""
    marker = item.get_closest_marker("needs_debian")
    return None if marker is None else [tool for tool in marker.args if shutil.which(tool) is None]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked needs_debian("cc") is skipped where there is no cc."""
    tools = missing(item)
    if tools:
        pytest.skip(f"{', '.join(tools)}: not installed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """With BENCHFRAME_CI set, a skipped needs_debian test fails: .ci/run installs what it needs. A skip before the test
    begins that is for another reason than a missing program (a kernel that is too old) stays one."""
    report = yield
    tools = missing(item)
    if report.skipped and tools is not None and (tools or report.when == "call") and os.environ.get("BENCHFRAME_CI"):
        report.outcome = "failed"
        report.longrepr = f"marked needs_debian, but skipped in CI: {report.longrepr}"
    return report
