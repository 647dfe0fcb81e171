"""A report as Markdown: the same for the same run, wherever it is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchframe.report import again, words
from benchframe.report.run import Run
from benchframe.tables import cost_table, render, scaling_table, tail_table
from benchframe.tables.render import markdown_escape


def markdown(run: Run, pictures: Sequence[str] = ()) -> str:
    """The report; ``pictures`` are the charts of which ``charts/NAME.svg`` lies beside it. O(cells)."""
    parts = [
        f"# {markdown_escape(run.name)}",
        markdown_escape(words.summary(run)),
        "## At a glance\n\n" + _glance(run),
        "## Latency\n\n" + render(run.latency, "markdown") + "\n" + _code(again.tabulate(run.argument)),
    ]
    for chart in run.charts:
        picture = [f"![{chart.title}](charts/{chart.name}.svg)"] if chart.name in pictures else []
        parts.append("\n\n".join([f"## {chart.title}", chart.note, *picture, _code(again.draw(run.argument, chart))]))
    parts += [
        "## Tails\n\n"
        + render(tail_table(run.cells), "markdown")
        + "\n"
        + _code(again.tabulate(run.argument, "--tails")),
        *_scaling(run),
        *_counted(run),
        "## Comparisons\n\n" + _comparisons(run),
        "## Strategies\n\n" + _strategies(run),
        "## Workloads\n\n" + _table(("workload", "events", "timed", "baseline", "stream"), words.workloads(run)),
        "## How far to trust it\n\n" + "\n".join(f"- {markdown_escape(line)}" for line in words.trust(run)),
        "## Environment\n\n"
        + "\n".join(f"- {markdown_escape(key)}: {markdown_escape(text)}" for key, text in words.environment(run)),
        "## Do it again\n\n" + _again(run),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _code(line: str) -> str:
    """A command in a code block; a backtick in an argument cannot end it."""
    return "```\n" + line.replace("```", "` ` `").replace("\n", " ") + "\n```"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + ":--|" * len(heads)]
    lines += ["| " + " | ".join(markdown_escape(text) for text in row) + " |" for row in rows]
    return "\n".join(lines)


def _glance(run: Run) -> str:
    found = words.findings(run)
    failed = "".join(f"- **{markdown_escape(line)}**\n" for line in words.failures(run))
    if not found:
        return failed + "\nNothing to compare: only baselines were run."
    rows = [
        (f.workload, f.baseline, f.fastest, ", ".join(f.faster), ", ".join(f.same), ", ".join(f.undecided))
        for f in found
    ]
    heads = ("workload", "baseline", "fastest", "faster than the baseline", "same", "undecided")
    return (
        (failed and failed + "\n")
        + _table(heads, rows)
        + "\n\nNumbers beside names are ratios of that figure to the baseline."
    )


def _comparisons(run: Run) -> str:
    lines = [f"- {markdown_escape(line)}" for line in words.comparisons(run)]
    if not lines:
        return "Nothing to compare: only baselines were run."
    return "\n".join(["Ratio to the baseline with its 95 % interval, paired by round.", "", *lines])


def _scaling(run: Run) -> list[str]:
    """The table by threads, of a run that has them."""
    table = scaling_table(run.cells)
    return (
        [f"## By threads\n\n{render(table, 'markdown')}\n{_code(again.tabulate(run.argument))}"] if table.rows else []
    )


def _counted(run: Run) -> list[str]:
    """The table of the cost engine, where the run has it."""
    if not run.costs:
        return []
    return [
        "## What was counted\n\n"
        + render(cost_table(run.costs), "markdown")
        + "\n"
        + _code(again.tabulate(run.argument, "--cost"))
    ]


def _strategies(run: Run) -> str:
    digests = {cell.entry.strategy: cell.entry.strategy_digest for cell in run.cells}
    rows = []
    for name, digest in digests.items():
        source = run.sources.get(name)
        rows.append((name, source.summary if source else "", source.module if source else "", digest[:12]))
    return _table(("strategy", "what it is", "module", "digest"), rows)


def _again(run: Run) -> str:
    first = run.manifest.cells[0].key if run.manifest.cells else "KEY"
    return (
        _code(again.same_run(run.manifest))
        + f"\n\nThe same order of processes and the same layouts come from seed {run.manifest.seed}. "
        + f"All values are in `cells/`: `python -m pyperf stats cells/{first}.json`, or "
        + f'`benchframe.load("{run.argument.replace("`", "")}")` as a pandas data frame.'
    )
