"""pyperf's own warnings about unsteady figures, kept per cell and figure. Hints, not verdicts: see benchframe.stats."""

from __future__ import annotations

from pathlib import Path


def instability(path: Path) -> dict[str, tuple[str, ...]]:
    """The warnings that ``python -m pyperf check`` would print for each figure of a cell's file.

    The text comes from a private function of pyperf (the command prints it for all figures in one heap); should a
    later pyperf not have it, there are no hints.
    """
    if not path.exists():
        return {}
    import pyperf  # type: ignore[import-untyped]

    try:
        from pyperf._cli import format_checks  # type: ignore[import-untyped]
    except ImportError:
        return {}
    suite = pyperf.BenchmarkSuite.load(str(path))
    found = {}
    for bench in suite.get_benchmarks():
        lines = tuple(line[2:] for line in format_checks(bench) if line.startswith("* "))
        if lines:
            found[bench.get_name()] = lines
    return found
