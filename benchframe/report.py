"""A run as a Markdown report: tables, charts, environment, what makes it noisy, and how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from benchframe.results.errors import disk_error
from benchframe.results.figures import FIGURES, rows_of
from benchframe.results.files import write_atomic
from benchframe.results.folder import Cell, RunFolder
from benchframe.results.manifest import Manifest
from benchframe.tables import latency_table, render, tail_table
from benchframe.tables.build import ratio_text
from benchframe.tables.render import markdown_escape


def write_report(folder: RunFolder, target: Path) -> Path:
    """Write ``report.md`` and ``charts/`` into ``target``; gives the report's path. Raises ResultsError."""
    from benchframe.charts import save_charts

    cells = folder.cells()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(target, error, "written") from None
    charts = save_charts(cells, target / "charts")
    path = target / "report.md"
    write_atomic(path, report_text(folder, cells, [chart.relative_to(target) for chart in charts]).encode())
    return path


def report_text(folder: RunFolder, cells: Sequence[Cell], charts: Sequence[Path]) -> str:
    """The report as Markdown: the same for the same folder, wherever it is written."""
    manifest = folder.manifest
    parts = [
        f"# {markdown_escape(folder.path.resolve().name)}",
        _summary(manifest, cells),
        "## Findings\n\n" + _findings(cells),
        "## Latency\n\n" + render(latency_table(cells), "markdown"),
        *(f"![{chart.stem}]({chart.as_posix()})" for chart in charts),
        "## Tails\n\n" + render(tail_table(cells), "markdown"),
        "## Workloads\n\n" + _workloads(manifest),
        "## How far to trust it\n\n" + _trust(manifest, cells),
        "## Environment\n\n" + _environment(manifest),
        "## Do it again\n\n" + _again(manifest, folder),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _summary(manifest: Manifest, cells: Sequence[Cell]) -> str:
    processes = sum(len(cell.done) for cell in cells)
    share = f"{100 * manifest.measured / manifest.wall:.0f} %" if manifest.wall else "an unknown share"
    finished = f"finished {manifest.finished}" if manifest.finished else "not finished"
    return (
        f"{len(cells)} cells, {processes} processes in up to {manifest.options.rounds} interleaved rounds; begun "
        f"{markdown_escape(manifest.created)}, {markdown_escape(finished)}; {share} of {manifest.wall:.0f} s inside "
        "measured loops. Every process checked each answer against the oracle before it was timed."
    )


def _findings(cells: Sequence[Cell]) -> str:
    """One line per comparison, as plain as the interval allows."""
    lines = []
    for row in rows_of(cells):
        name, label = markdown_escape(row.cell.entry.strategy), markdown_escape(row.cell.entry.workload)
        if row.cell.state.state != "ok":
            lines.append(
                f"- **{name}** on {label} is {row.cell.state.state}: {markdown_escape(row.cell.state.message)}"
            )
        for key, head in FIGURES.items():
            figure = row.figures.get(key)
            if figure is None or figure.ratio is None:
                continue
            ratio = figure.ratio
            word = figure.verdict.text if figure.verdict else ratio.word
            rounds = "one round" if ratio.n == 1 else f"{ratio.n} rounds"
            lines.append(f"- {name} on {label}, {head}: {word}, ratio {markdown_escape(ratio_text(ratio))}, {rounds}")
    return (
        "\n".join(["Ratio to the baseline with its 95 % interval, paired by round.\n", *lines])
        if lines
        else "Nothing to compare: only baselines were run."
    )


def _workloads(manifest: Manifest) -> str:
    lines = ["| workload | events | timed | baseline | stream |", "|:--|--:|--:|:--|:--|"]
    for entry in manifest.workloads:
        source = f"file {Path(entry.path).name}" if entry.path else f"seed {entry.seed}"
        texts = (entry.label, f"{entry.events:,}", f"{entry.timed:,}", entry.baseline, f"{source}, {entry.digest[:12]}")
        lines.append("| " + " | ".join(markdown_escape(text) for text in texts) + " |")
    return "\n".join(lines)


def _trust(manifest: Manifest, cells: Sequence[Cell]) -> str:
    lines = [f"- {markdown_escape(note)}" for note in manifest.notes]
    lines += [f"- when the run began: {markdown_escape(reason)}" for reason in manifest.noise]
    loads = [
        float(load)
        for cell in cells
        for process in cell.figures.get("replay", ())
        if isinstance(load := process.metadata.get("load_avg_1min"), (int, float))
    ]
    if loads:
        lines.append(f"- load average during the run: {min(loads):.1f} to {max(loads):.1f}")
    for cell in cells:
        for figure, hints in cell.state.hints.items():
            where = f"{markdown_escape(cell.entry.strategy)} on {markdown_escape(cell.entry.workload)}, {figure}"
            lines += [f"- pyperf on {where}: {markdown_escape(hint)}" for hint in hints]
    return "\n".join(lines) or "- nothing unusual was noticed"


def _environment(manifest: Manifest) -> str:
    cpu = "not pinned" if manifest.options.cpu < 0 else f"pinned to CPU {manifest.options.cpu}"
    lines = [
        f"- {markdown_escape(key)}: {markdown_escape(text)}"
        for key, text in {**manifest.host, **manifest.versions, **manifest.metadata}.items()
    ]
    return "\n".join([*lines, f"- workers: {cpu}"])


def _again(manifest: Manifest, folder: RunFolder) -> str:
    """Commands in a code block; a backtick in an argument cannot end it."""
    command = list(manifest.command)
    if "--seed" not in command and not any(word.startswith("--seed=") for word in command):
        command += ["--seed", str(manifest.seed)]
    line = " ".join(shlex.quote(word) for word in command).replace("```", "` ` `")
    first = folder.manifest.cells[0].key if folder.manifest.cells else "KEY"
    return (
        f"```\n{line}\n```\n\nThe same order of processes and the same layouts come from seed {manifest.seed}. "
        f"All values are in `cells/`: `python -m pyperf stats cells/{first}.json`, or "
        '`benchframe.load("' + folder.path.resolve().name.replace("`", "") + '")` as a pandas data frame.'
    )
