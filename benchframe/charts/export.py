"""Charts as SVG, PNG and PDF: vl-convert draws them. No browser, no network; its JavaScript engine reads data only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchframe.charts.spec import Chart, Spec, together
from benchframe.errors import disk_error

PICTURES = ("svg", "png", "pdf")


def to_svg(spec: Spec) -> str:
    """``spec`` drawn as one SVG document; some 50 ms, and half a second for the first one of a process."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(spec))


def save(charts: Iterable[Chart], folder: Path, forms: Sequence[str] = PICTURES) -> list[Path]:
    """Write each chart, all panels in one picture on white, into ``folder`` in ``forms``; gives the paths.

    Raises ResultsError if the disk refuses.
    """
    import vl_convert

    from benchframe.files import write_atomic

    saved = []
    for chart in charts:
        picture = to_svg(together(chart))
        for form in forms:
            path = folder / f"{chart.name}.{form}"
            if form == "svg":
                data = picture.encode()
            elif form == "png":
                data = vl_convert.svg_to_png(picture, scale=2)
            else:
                data = vl_convert.svg_to_pdf(picture)
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise disk_error(path, error, "written") from None
            write_atomic(path, data)
            saved.append(path)
    return saved
