"""Workload definitions: parameters, the text form of a spec, and what is said about bad ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchframe import stream
from benchframe.errors import TraceError
from benchframe.workload import WorkloadError
from benchframe.workloads import Parameter, Trace, Workload, trace_workload

PARAMETERS = (
    Parameter("vmas", 1000, "VMAs", low=6, high=100_000),
    Parameter("alpha", 1.0, "skew", low=0.0, high=8.0),
    Parameter("order", "turns", "order", choices=("turns", "lockstep")),
)


def make(params: dict[str, object], seed: int) -> Trace:
    """A stream of seed + 1 lookups in one page."""
    layout = stream.tiles(6, 1, 1)
    return stream.build(layout.setup(), stream.lookup(np.repeat(layout.vm_start[:1], seed + 1)), map_count=6)


LOAD = Workload("load", "a load", "nothing real", PARAMETERS, make)


def with_make(maker: object) -> Workload:
    """LOAD with another maker, of whatever type."""
    return Workload("load", "a load", "nothing real", (), maker)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["load:vmas=65_530,alpha=2", "vmas=65530,alpha=2.0", " load:vmas=65530, alpha = 2 "])
def test_spec_forms(text: str) -> None:
    """With or without the name, with spaces, underscores and an int for a float: one and the same spec."""
    spec = LOAD.spec(text.strip())
    assert spec.params == {"vmas": 65530, "alpha": 2.0, "order": "turns"}
    assert type(spec.params["alpha"]) is float


@pytest.mark.parametrize("text", ["", "load", "load:order=lockstep", "load:vmas=6,alpha=0.25", "load:alpha=1e-07"])
def test_label_parses_back(text: str) -> None:
    """A label is the shortest text of its spec: parsing it gives the spec, and defaults are left out."""
    spec = LOAD.spec(text)
    assert LOAD.spec(spec.label) == spec
    assert LOAD.spec("vmas=1000,alpha=1").label == "load"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("load:vma=7", "did you mean vmas?"),
        ("load:zzzz=7", "it has vmas, alpha, order"),
        ("load:vmas", "'vmas' is not key=value; write load:vmas=1000"),
        ("load:vmas=", "is not key=value"),
        ("load:=5", "is not key=value"),
        ("load:vmas=5", "vmas=5 is not int in [6, 100000]"),
        ("load:vmas=many", "vmas=many is not a whole number"),
        ("load:vmas=7.5", "vmas=7.5 is not a whole number"),
        ("load:alpha=nan", "alpha=nan is not float in [0, 8]"),
        ("load:alpha=inf", "alpha=inf is not float in [0, 8]"),
        ("load:order=random", "order=random is not one of turns, lockstep"),
        ("load:vmas=7,vmas=8", "vmas is given twice"),
        ("load:", "no parameter follows the ':'"),
        ("other:vmas=7", "names another workload"),
        ("load:vmas=7,,", "is not key=value"),
    ],
)
def test_bad_specs(text: str, said: str) -> None:
    """Each mistake is named in one line that begins with the workload."""
    with pytest.raises(WorkloadError) as caught:
        LOAD.spec(text)
    assert said in str(caught.value)
    assert str(caught.value).startswith("workload load")
    assert "\n" not in str(caught.value)


def test_params_from_python() -> None:
    """with_params takes values, fills in defaults, and refuses a bool or a text for a number."""
    assert LOAD.with_params({"vmas": 7}).label == "load:vmas=7"
    for bad in (True, "7", 7.0):
        with pytest.raises(WorkloadError, match="not a whole number"):
            LOAD.with_params({"vmas": bad})
    with pytest.raises(WorkloadError, match="did you mean order"):
        LOAD.with_params({"ordr": "turns"})


@pytest.mark.parametrize(
    "arguments",
    [
        ("a b", 1, ""),
        ("", 1, ""),
        ("x", True, ""),
        ("x", None, ""),
        ("x", 1, "", 2.0),
        ("x", "c", "", None, None, ("a",)),
    ],
)
def test_bad_parameters(arguments: tuple[object, ...]) -> None:
    """A parameter whose name, default or bounds make no sense is refused when it is defined."""
    with pytest.raises(ValueError, match=r"parameter|x="):
        Parameter(*arguments)  # type: ignore[arg-type]


def test_trace_is_checked() -> None:
    """A maker's ValueError, a wrong type, a bad row and a bad setup all end in a WorkloadError that names it."""

    def refuses(params: object, seed: int) -> Trace:
        raise ValueError("these do not fit together")

    def bad_row(params: dict[str, object], seed: int) -> Trace:
        trace = make(params, seed)
        trace.events["task"][-1] = 1 << 30
        return trace

    def bad_setup(params: dict[str, object], seed: int) -> Trace:
        trace = make(params, seed)
        trace.setup = 99
        return trace

    for maker, said in (
        (refuses, "these do not fit"),
        (lambda params, seed: 7, "returned a int"),
        (bad_row, "returned an invalid stream: event 7: task"),
        (bad_setup, "setup is 99 of 8"),
    ):
        with pytest.raises(WorkloadError, match=said):
            with_make(maker).spec().trace()


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda params: params["vams"], "its make failed with KeyError: 'vams'"),
        (lambda params: params["vmas"] // 0, "its make failed with ZeroDivisionError"),
        (lambda params: params.pop(), "its make failed with TypeError"),
    ],
    ids=["key", "zero", "type"],
)
def test_a_maker_with_a_mistake(mistake: Callable[[Any], Any], says: str) -> None:
    """Whatever a maker dies of is one line with its own line's number; the user sees no traceback."""

    def make(params: dict[str, Any], seed: int) -> Any:
        return mistake(params)

    workload = Workload("mine", "a load", "nothing", (Parameter("vmas", 6, "VMAs"),), make)
    with pytest.raises(WorkloadError) as told:
        workload.spec().trace()
    assert says in str(told.value)
    assert f"({__file__}:" in str(told.value)


def test_seed_reaches_the_maker() -> None:
    """The seed given to trace() is the maker's; the trace knows its setup."""
    assert [len(LOAD.spec().trace(seed)) for seed in (0, 4)] == [8, 12]
    assert LOAD.spec().trace(0).setup == 7


def test_trace_workload(tmp_path: Path) -> None:
    """A trace file is a workload named after it; a missing file is said at once, a bad one when it is read."""
    folder = tmp_path
    with pytest.raises(WorkloadError, match="does not exist"):
        trace_workload(folder / "none.parquet")
    with pytest.raises(WorkloadError, match="is a directory"):
        trace_workload(folder)
    path = folder / "7 wonders.parquet"
    path.write_bytes(b"not parquet")
    workload = trace_workload(path)
    assert workload.name == "trace-7-wonders"
    assert workload.problem() == ""
    with pytest.raises(TraceError, match="7 wonders"):
        workload.spec().trace()


def test_written_streams_keep_their_digest(tmp_path: Path) -> None:
    """A synthetic stream survives the trace file: same events, same digest, setup in the limits."""
    from benchframe.trace.trace import read_trace, write_trace

    trace = LOAD.spec().trace(3)
    path = tmp_path / "load.parquet"
    write_trace(path, trace)
    back = read_trace(path)
    assert back.digest == trace.digest
    assert back.meta.limits["setup"] == trace.setup
    assert LOAD.spec().trace(4).digest != trace.digest
