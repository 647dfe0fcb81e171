"""The files of a report: which there are, and writing them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchframe.charts import PICTURES, save
from benchframe.errors import ResultsError, disk_error
from benchframe.files import write_atomic
from benchframe.report.markdown import markdown
from benchframe.report.page import page
from benchframe.report.run import Run
from benchframe.results.folder import RunFolder
from benchframe.tables import render

FILES = {
    "html": "report.html",
    "markdown": "report.md",
    "mail": "mail.txt",
    "csv": "table.csv",
    "latex": "table.tex",
}
THREADS = {"csv": "threads.csv", "latex": "threads.tex"}
"""The table by threads, of a run that has threads; one that has nothing else has no other table."""
FORMS = (*FILES, *PICTURES)
"""What ``benchframe report --format`` takes."""


def write_report(
    folder: RunFolder, target: Path, forms: Sequence[str] = FORMS, charts: Sequence[str] = ()
) -> list[Path]:
    """Write the report of ``folder`` into ``target`` in ``forms``, with ``charts`` (all, if none is named).

    Gives the paths, the page or the first text first. Raises ResultsError: the run is damaged, a form or a chart does
    not exist, the disk refuses.
    """
    unknown = [form for form in forms if form not in FORMS]
    if unknown:
        raise ResultsError("--format", f"no format is called {unknown[0]!r}", f"there are {', '.join(FORMS)}")
    run = Run.read(folder, tuple(charts))
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(target, error, "written") from None
    written = []
    for form, name in FILES.items():
        if form in forms and (run.data.rows or form not in THREADS):
            write_atomic(target / name, text_of(run, form, forms).encode())
            written.append(target / name)
        if form in forms and form in THREADS and run.scaling.rows:
            write_atomic(target / THREADS[form], render(run.scaling, form).encode())
            written.append(target / THREADS[form])
    pictures = [form for form in PICTURES if form in forms]
    if pictures:
        written += save(run.pictures, target / "charts", pictures)
    return written


def text_of(run: Run, form: str, forms: Sequence[str] = ()) -> str:
    """The report as ``html`` or ``markdown``, or its table as ``mail``, ``csv`` or ``latex``."""
    if form == "html":
        return page(run)
    if form == "markdown":
        return markdown(run, [chart.name for chart in run.pictures] if "svg" in forms else [])
    return run.mail if form == "mail" else render(run.latency, form)
