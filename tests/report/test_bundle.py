"""Bundles: what is packed, what is refused, and verification with real worker processes and a made-up session."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.runs import made, noise
from typer.testing import CliRunner

from benchframe.cli import app
from benchframe.events import EVENT, NIL, Kind
from benchframe.registry import load
from benchframe.report import bundle as archive
from benchframe.report.bundle import (
    AGREES,
    DIFFERS,
    INDEX,
    NAMES,
    UNVERIFIED,
    Bundle,
    judge_again,
    pack,
    plan_again,
    prepare,
    read_archive,
    unpack,
    write_archive,
)
from benchframe.results import ResultsError, RunFolder
from benchframe.results.folder import CellState
from benchframe.results.manifest import WorkloadEntry
from benchframe.results.studies import HostFigures, SavedStudy, read_host, read_studies, write_host, write_study
from benchframe.trace.trace import Trace, write_trace

SUFFIXES = [".tar.zst", ".zip"]
CELLS = {"base": {"lookup": noise(10, 6, 1)}, "mine": {"lookup": noise(8, 6, 2)}}


def run(path: Path, cells: dict[str, dict[str, list[float]]] = CELLS, **changes: Any) -> RunFolder:
    """A run of made values."""
    return made(path, cells, **changes)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    """Packed and unpacked, every figure, state and the manifest are the same; the bytes are too, twice."""
    folder = run(tmp_path / "20260101-mine")
    size, notes = pack(folder, tmp_path / f"x{suffix}")
    assert size == (tmp_path / f"x{suffix}").stat().st_size < 20_000
    assert notes == ["toy: its events are not packed; spec, seed and digest are"]
    bundle = unpack(tmp_path / f"x{suffix}", tmp_path / "scratch")
    assert bundle.name == "20260101-mine"
    assert bundle.folder.manifest == folder.manifest
    assert [cell.figures for cell in bundle.folder.cells()] == [cell.figures for cell in folder.cells()]
    pack(folder, tmp_path / f"y{suffix}")
    assert (tmp_path / f"x{suffix}").read_bytes() == (tmp_path / f"y{suffix}").read_bytes()


def test_index_holds_schedule_and_environment(tmp_path: Path) -> None:
    """The index alone tells order and layout of each round, digests of strategies and events, and the machine."""
    pack(run(tmp_path / "a"), tmp_path / "a.zip")
    index = json.loads(read_archive(tmp_path / "a.zip")[INDEX])
    assert [entry["round"] for entry in index["schedule"]] == list(range(6))
    assert all(sorted(entry["order"]) == ["toy\nbase", "toy\nmine"] for entry in index["schedule"])
    assert index["strategies"] == {"base": "c" * 64, "mine": "c" * 64}
    assert index["events"] == {"toy": "b" * 64}
    assert index["environment"]["cpu"] == "Test CPU"


def test_events_of_a_trace_file_are_packed(tmp_path: Path) -> None:
    """A recorded trace goes into the bundle, and comes out with its digest; a file that has changed is left out."""
    events = np.zeros(20, EVENT)
    events["kind"], events["file"] = Kind.LOOKUP, NIL
    events["kind"][0] = Kind.EXEC
    events["addr"] = 4096 * np.arange(20)
    trace = Trace(events)
    path = tmp_path / "mine.parquet"
    write_trace(path, trace)
    entry = WorkloadEntry("toy", "", str(path), 0, trace.digest, 20, 19, "base")
    folder = run(tmp_path / "a", workloads=(entry,))
    assert pack(folder, tmp_path / "a.tar.zst")[1] == []
    found = unpack(tmp_path / "a.tar.zst", tmp_path / "scratch").trace(trace.digest)
    assert found is not None
    assert (found.events == events).all()
    folder.save(replace(folder.manifest, workloads=(replace(entry, digest="e" * 64),)))
    assert "now has other events" in pack(folder, tmp_path / "b.zip")[1][0]


def test_a_run_without_figures_is_not_packed(tmp_path: Path) -> None:
    """Nothing to check is nothing to bundle; another suffix is told what to be."""
    states = {name: CellState() for name in CELLS}
    with pytest.raises(ResultsError, match="no cell has figures"):
        pack(run(tmp_path / "a", states=states), tmp_path / "a.zip")
    with pytest.raises(ResultsError, match=r"ends in \.tar\.zst or \.zip"):
        pack(run(tmp_path / "b"), tmp_path / "b.rar")


# ---- hostile archives -------------------------------------------------------------------------------------------


def zipped(path: Path, members: dict[str, bytes]) -> None:
    """A zip archive without our writer's care."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members.items():
            out.writestr(name, data)


def tarred(path: Path, members: list[tarfile.TarInfo], data: bytes = b"{}") -> None:
    """A tar.zst archive of the given entries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for member in members:
            member.size = len(data) if member.isreg() else 0
            out.addfile(member, io.BytesIO(data) if member.isreg() else None)
    path.write_bytes(pa.compress(buffer.getvalue(), "zstd", asbytes=True))


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "cells/../../x", "a\\..\\b", "cells/X.json", "manifest.json/", "x.py", "", "C:x"]
)
def test_no_member_leads_elsewhere(tmp_path: Path, name: str) -> None:
    """Names that no bundle has are refused in both forms, and nothing is written."""
    assert not NAMES.fullmatch(name)
    if name and not name.endswith("/"):
        zipped(tmp_path / "x.zip", {name: b"{}"})
        with pytest.raises(ResultsError, match="which does not belong in a bundle"):
            unpack(tmp_path / "x.zip", tmp_path / "scratch")
    tarred(tmp_path / "x.tar.zst", [tarfile.TarInfo(name)])
    with pytest.raises(ResultsError):
        unpack(tmp_path / "x.tar.zst", tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    """A member that is no plain file, though its name is right."""
    entry = tarfile.TarInfo("manifest.json")
    entry.type, entry.linkname = kind, "/etc/passwd"
    tarred(tmp_path / "x.tar.zst", [entry])
    with pytest.raises(ResultsError, match="a link, a folder or a device"):
        read_archive(tmp_path / "x.tar.zst")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bombs_do_not_go_off(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small archive that unpacks beyond the limits (lowered here) is refused, by member and in all."""
    write_archive(tmp_path / f"x{suffix}", {"manifest.json": bytes(3 << 20)})
    assert (tmp_path / f"x{suffix}").stat().st_size < 10_000
    monkeypatch.setattr(archive, "MAX_MEMBER", 1 << 20)
    with pytest.raises(ResultsError, match="unpacks to more than 1 MiB"):
        read_archive(tmp_path / f"x{suffix}")
    monkeypatch.setattr(archive, "MAX_MEMBER", 8 << 20)
    monkeypatch.setattr(archive, "MAX_TOTAL", 1 << 20)
    monkeypatch.setattr(archive, "MAX_MEMBERS", 1)
    with pytest.raises(ResultsError, match="more than"):
        read_archive(tmp_path / f"x{suffix}")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda members: members.pop(INDEX), "it has no bundle.json"),
        (lambda members: members.pop("manifest.json"), "its members differ from its list"),
        (lambda members: members.update({f"cells/{'0' * 32}.json": b"{}"}), "its members differ from its list"),
        (lambda members: members.update({"manifest.json": members["manifest.json"] + b" "}), "has another digest"),
        (lambda members: members.update({INDEX: b"[]"}), "not a JSON object"),
        (
            lambda members: members.update({INDEX: b'{"version": 9}'}),
            "it is of version 9, and this benchframe reads version 1",
        ),
    ],
)
def test_altered_bundles_are_refused(tmp_path: Path, spoil: Callable[[dict[str, bytes]], object], said: str) -> None:
    """Missing, additional and changed members are seen."""
    pack(run(tmp_path / "a"), tmp_path / "a.zip")
    members = read_archive(tmp_path / "a.zip")
    spoil(members)
    write_archive(tmp_path / "b.zip", members)
    with pytest.raises(ResultsError, match=said.replace(".", r"\.")):
        unpack(tmp_path / "b.zip", tmp_path / "scratch")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """Cut, changed and foreign files end in one line, whichever byte it is."""
    for suffix in SUFFIXES:
        pack(run(tmp_path / f"run{suffix}"), tmp_path / f"a{suffix}")
        data = (tmp_path / f"a{suffix}").read_bytes()
        rng = np.random.default_rng(1)
        for cut in rng.integers(0, len(data), 40):
            (tmp_path / "cut").write_bytes(data[:cut])
            with pytest.raises(ResultsError):
                unpack(tmp_path / "cut", tmp_path / "scratch")
        refused = 0
        for at in rng.integers(0, len(data), 120):
            (tmp_path / "flip").write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
            try:
                bundle = unpack(tmp_path / "flip", tmp_path / "scratch")
            except ResultsError:
                refused += 1
            else:  # a byte that carries nothing, such as a date or padding: all digests are right
                assert len(bundle.folder.cells()) == 2
        assert refused > 60
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ResultsError, match="neither a zip nor"):
        read_archive(tmp_path / "text")
    with pytest.raises(ResultsError, match="cannot be read"):
        read_archive(tmp_path / "none.zip")


def test_check_only(tmp_path: Path) -> None:
    """`verify --check-only` runs nothing; a damaged file is exit code 2 with one line."""
    pack(run(tmp_path / "a"), tmp_path / "a.zip")
    done = CliRunner().invoke(app, ["verify", "--check-only", str(tmp_path / "a.zip")])
    assert (done.exit_code, "all digests are correct; run a," in done.stdout) == (0, True)
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04nonsense")
    bad = CliRunner().invoke(app, ["verify", str(tmp_path / "b.zip")])
    assert bad.exit_code == 2
    assert bad.stderr.count("\n") == 1


def test_unpacked_for_a_report(tmp_path: Path) -> None:
    """`verify --unpack` makes a run's folder that other commands read, with studies and the kernel's times; nothing is
    overwritten."""
    folder = run(tmp_path / "a")
    write_study(folder.path, SavedStudy("layout", "T", "", ("benchframe",), ("h",), (False,), (("x",),), ()))
    write_host(folder.path, HostFigures("6.18", ()))
    pack(folder, tmp_path / "a.zip")
    target = str(tmp_path / "new" / "theirs")
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "a.zip"), "--unpack", target])
    assert (done.exit_code, f"unpacked: {target}" in done.stdout) == (0, True)
    theirs = RunFolder.open(Path(target))
    assert [cell.rounds("lookup") for cell in theirs.cells()] == [cell.rounds("lookup") for cell in folder.cells()]
    assert [study.title for study in read_studies(theirs.path)] == ["T"]
    assert read_host(theirs.path) == HostFigures("6.18", ())
    again = CliRunner().invoke(app, ["verify", str(tmp_path / "a.zip"), "--unpack", target])
    assert (again.exit_code, "it exists already" in again.stderr) == (2, True)
    told = CliRunner().invoke(app, ["table", str(tmp_path / "a.zip")])
    assert (told.exit_code, "it is a bundle; unpack it: " in told.stderr) == (2, True)


# ---- verification -----------------------------------------------------------------------------------------------


def judged(tmp_path: Path, again: dict[str, dict[str, list[float]]], **changes: Any) -> tuple[int, tuple[str, ...]]:
    """What a second run of made values says of the first."""
    first = Bundle(run(tmp_path / "a", states=changes.pop("before", None)), "a")
    second = run(tmp_path / "b", again, start=60, **changes)
    found, _ = judge_again(first, second)
    return found.code, found.lines


def test_the_same_again_agrees(tmp_path: Path) -> None:
    """Twice as slow a machine with the same ratio agrees; the baseline's own ns are not judged."""
    code, lines = judged(tmp_path, {"base": {"lookup": noise(20, 6, 8)}, "mine": {"lookup": noise(16, 6, 9)}})
    assert code == AGREES
    assert [line.split(":")[0] for line in lines] == ["agrees within 2 %", "agrees", "agrees"]


def test_another_ratio_differs(tmp_path: Path) -> None:
    """A ratio that changed by 10 % differs beyond noise; by 1.5 % it agrees, however small the noise."""
    code, lines = judged(tmp_path, {"base": {"lookup": noise(10, 6, 8)}, "mine": {"lookup": noise(8.8, 6, 9)}})
    assert code == DIFFERS
    assert lines[0].startswith("differs beyond noise: mine on toy, ns/lookup: +")
    small = {"base": {"lookup": noise(10, 6, 1, 1e-4)}, "mine": {"lookup": noise(8.12, 6, 2, 1e-4)}}
    assert judged(tmp_path / "2", small)[0] == AGREES


def test_counts_are_exact(tmp_path: Path) -> None:
    """One hit more is a difference; so is a cell that fails now."""
    before = {"mine": CellState(state="ok", message="", counts={"hits": 450.0})}
    after = {"mine": CellState(state="ok", message="", counts={"hits": 451.0})}
    code, lines = judged(tmp_path, CELLS, before=before, states=after)
    assert code == DIFFERS
    assert "differs: mine on toy, hits: 450 -> 451" in lines
    failed = {"mine": CellState(state="wrong", message="x")}
    assert judged(tmp_path / "2", CELLS, states=failed)[0] == DIFFERS


def test_missing_cells_are_not_verified(tmp_path: Path) -> None:
    """A cell that was not run again leaves the bundle unverified."""
    code, lines = judged(tmp_path, {"base": CELLS["base"]})
    assert code == UNVERIFIED
    assert any(line.startswith("not verified: mine on toy") for line in lines)


def test_only_the_measured_code_is_run(tmp_path: Path) -> None:
    """A strategy whose installed code is not the measured one is refused, whatever the bundle's sources say."""
    entry = WorkloadEntry("toy", "uniform", "", 0, "b" * 64, 1000, 900, "rbtree")
    cells = {"rbtree": CELLS["base"]}
    bundle = Bundle(run(tmp_path / "a", cells, workloads=(entry,)), "a")
    with pytest.raises(ResultsError, match="is not the one that was measured"):
        prepare(bundle, load())


def test_other_events_are_refused_and_the_plan_is_the_same(tmp_path: Path) -> None:
    """With the right code but a workload that makes other events there is nothing to run; the plan keeps the seed."""
    from benchframe.units import strategy_digest

    known = load()
    digest = strategy_digest(known.strategy("rbtree"))
    entry = WorkloadEntry("toy", "uniform", "", 0, "b" * 64, 1000, 900, "rbtree")
    folder = run(tmp_path / "a", {"rbtree": CELLS["base"]}, workloads=(entry,), digests={"rbtree": digest})
    with pytest.raises(ResultsError, match="are made differently here"):
        prepare(Bundle(folder, "a"), known)
    right = replace(entry, digest=known.spec("uniform").trace(0).digest)
    folder.save(replace(folder.manifest, workloads=(right,)))
    strategies, streams = prepare(Bundle(folder, "a"), known)
    manifest = plan_again(Bundle(folder, "a"), strategies, streams, None, [], [])
    assert (manifest.seed, manifest.options.rounds, len(manifest.cells)) == (7, 6, 1)
    assert manifest.cells[0].strategy_digest == digest
    folder.save(replace(folder.manifest, options=replace(folder.manifest.options, min_time=1e6)))
    with pytest.raises(ResultsError, match="s in each process"):
        plan_again(Bundle(folder, "a"), strategies, streams, None, [], [])
