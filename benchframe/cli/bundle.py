"""``benchframe bundle RUN`` and ``benchframe verify BUNDLE``: a run that others can check."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import fail, guarded, loaded, plugin_files, registry, split

if TYPE_CHECKING:
    from benchframe.report.bundle import Bundle


@guarded
def bundle(
    run: Annotated[str, typer.Argument(help="A run: folder, name or `last`.", autocompletion=options.runs)] = "last",
    target: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Ends in .tar.zst or .zip (default: RUN.tar.zst)."),
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    root: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of the runs.")] = Path("reports/runs"),
) -> None:
    """Pack a run into one file: raw values, manifest, environment, schedule, events, sources, and digests of all.

    Exit codes: 0, 2 (no such run, a run that is damaged), 3 (the disk).

    \b
    Examples:
      benchframe bundle last
      benchframe bundle 20261123 -o pmdcache.zip
    """
    from benchframe.report.bundle import pack
    from benchframe.results.folder import RunFolder, find_run

    folder = RunFolder.open(find_run(run, root))
    path = target or Path(f"{folder.path.resolve().name}.tar.zst")
    size, notes = pack(folder, path, registry(plugin))
    for note in notes:
        typer.echo(f"benchframe: {note}", err=True)
    typer.echo(f"{path}  ({size / 1024:,.0f} KiB)   benchframe verify {path}")


@guarded
def verify(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A file that `benchframe bundle` made.")],
    rounds: Annotated[
        int | None,
        typer.Option(
            min=2, max=100_000, metavar="N", help="Processes per cell (default: as in the bundle, at most 10)."
        ),
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out.")] = None,
    check_only: Annotated[bool, typer.Option("--check-only", help="Only check the digests.")] = False,
    keep: Annotated[
        Path | None,
        typer.Option("--unpack", metavar="DIR", help="Only unpack the run into this new folder."),
    ] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Verify despite another model or other versions.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the new run.")] = Path(
        "reports/runs"
    ),
) -> int:
    """Check a bundle's digests, run the same cells again on this machine, and say per cell whether they agree.

    Strategies come from what is installed, or from --plugin files: nothing in a bundle is executed.

    \b
    Exit codes:
      0  every cell agrees: ratios within noise, counts exactly
      1  a cell differs beyond noise, or its counts differ
      2  it cannot be verified: damaged, other code, other events

    \b
    Examples:
      benchframe verify pmdcache.tar.zst
      benchframe verify pmdcache.zip --rounds 20 --plugin mine.py
      benchframe verify pmdcache.zip --unpack reports/theirs
    """
    import tempfile

    from benchframe.report.bundle import unpack

    with tempfile.TemporaryDirectory(prefix="benchframe-verify-") as scratch:
        opened = unpack(path, Path(scratch))
        manifest = opened.folder.manifest
        typer.echo(
            f"{path}: all digests are correct; run {opened.name}, {manifest.created}, {len(manifest.cells)} cells"
        )
        if keep is not None:
            typer.echo(f"unpacked: {_keep(opened.folder.path, keep)}   (benchframe report {keep})")
        if check_only or keep is not None:
            return 0
        return _again(opened, rounds, plugin_files(plugin), split(no_plugin), anyway, output)


def _keep(folder: Path, target: Path) -> Path:
    """Move the unpacked run to the target folder. Raises ResultsError if the target exists or the disk refuses."""
    import shutil

    from benchframe.errors import ResultsError, disk_error

    if target.exists():
        raise ResultsError(target, "it exists already", "name a new folder with --unpack")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, target)
    except OSError as error:
        raise disk_error(target, error, "written") from None
    return target


def _again(
    opened: "Bundle", rounds: int | None, files: list[Path], blocked: list[str], anyway: bool, output: Path
) -> int:
    """Run the cells once more and compare; returns the exit code."""
    from benchframe.cli.progress import watching
    from benchframe.engine.content import model_digest, model_name
    from benchframe.files import slug
    from benchframe.report.bundle import UNVERIFIED, judge_again, plan_again, prepare
    from benchframe.results.campaign import Campaign
    from benchframe.results.folder import RunFolder

    model, here = opened.folder.manifest.versions.get("model", "unknown"), model_digest()[:16]
    if model_name(model) != model_name(here) and not anyway:
        what = f"it was measured with another model ({model}, here {here})"
        return fail(
            f"{opened.name}: {what}; install the version of benchframe that measured it, or add --anyway", UNVERIFIED
        )
    strategies, streams = prepare(opened, loaded(files, blocked))
    manifest = plan_again(opened, strategies, streams, rounds, [str(file) for file in files], blocked)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = RunFolder.create(output / f"{stamp}-verify-{slug(opened.name, 40)}", manifest)
    traces = {stream.entry.label: stream.trace for stream in streams}
    with watching(folder) as observer:
        Campaign(folder, strategies, traces, observer, plugins=[str(file) for file in files], blocked=blocked).run()
    found, _ = judge_again(opened, RunFolder.open(folder.path))
    for difference in found.differences:
        typer.echo(f"note: {difference}")
    for line in found.lines:
        typer.echo(line)
    words = ("agrees", "differs", "not verified")
    typer.echo(f"verify: {words[found.code]} ({folder.path})")
    return found.code
