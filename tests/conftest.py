"""What all tests share: in CI a test marked needs_debian must run."""

import os
from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """With BENCHFRAME_CI set, a skipped needs_debian test fails: .ci/run installs what it needs."""
    report = yield
    if report.skipped and item.get_closest_marker("needs_debian") and os.environ.get("BENCHFRAME_CI"):
        report.outcome = "failed"
        report.longrepr = f"marked needs_debian, but skipped in CI: {report.longrepr}"
    return report
