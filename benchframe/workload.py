"""Workloads: named makers of event streams, with parameters, and the text form ``zipf:vmas=1000,alpha=1.2``.

- :class:`Parameter` - name, default (whose type is the parameter's type), bounds or choices.
- :class:`Workload` - what a plugin provides: a maker, its parameters, and what it represents.
- :class:`WorkloadSpec` - a workload with a value for every parameter; a result cell is for one of these.
- :func:`trace_workload` - a recorded trace file as a workload (``--trace FILE``).

A maker gets the parameters and a seed and returns a :class:`~benchframe.trace.trace.Trace`. It is a plugin's code,
so :meth:`WorkloadSpec.trace` checks what it returns before an engine indexes with it.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchframe.errors import BenchframeError, TraceError, did_you_mean, out_of_memory

if TYPE_CHECKING:
    from benchframe.trace.trace import Trace

Value = int | float | str
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.+-]*\Z")


class WorkloadError(BenchframeError):
    """A workload that cannot be used as asked, or that made no usable trace. ``str()`` is one line for the user."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a workload. Its type is that of ``default``: int, float or str.

    ``low`` and ``high`` bound a number (inclusive); ``choices`` lists what a text may be. ``doc`` is one line, units
    included.

    >>> Parameter("vmas", 1000, "VMAs in the address space", low=6).parse("65_530")
    65530
    """

    name: str
    default: Value
    doc: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a parameter that contradicts itself: a mistake of the plugin's author."""
        if not _NAME.match(self.name):
            raise ValueError(f"parameter name {self.name!r} is not letters, digits, '_', '.', '+' or '-'")
        if isinstance(self.default, bool) or not isinstance(self.default, (int, float, str)):
            raise ValueError(f"parameter {self.name}: the default must be an int, a float or a str")
        self.check(self.default)

    @property
    def kind(self) -> str:
        """``int``, ``float`` or ``str``."""
        return type(self.default).__name__

    @property
    def range(self) -> str:
        """The allowed values, for display.

        >>> Parameter("alpha", 1.0, "skew", low=0, high=4).range
        'float in [0, 4]'
        """
        if self.choices:
            return " | ".join(self.choices)
        if self.low is None and self.high is None:
            return self.kind
        low = "(-inf" if self.low is None else f"[{self.low:.12g}"
        high = "inf)" if self.high is None else f"{self.high:.12g}]"
        return f"{self.kind} in {low}, {high}"

    def parse(self, text: str) -> Value:
        """The value that ``text`` stands for. Raises ``ValueError``, which says what was expected."""
        value: Value = text
        if not isinstance(self.default, str):
            try:
                value = int(text) if isinstance(self.default, int) else float(text)
            except ValueError:
                raise ValueError(f"{self.name}={text} is not {self._article()}") from None
        return self.check(value)

    def check(self, value: object) -> Value:
        """``value`` in the parameter's type. Raises ``ValueError`` if it is out of range. A float parameter accepts an
        int."""
        if isinstance(self.default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(self.default):
            raise ValueError(f"{self.name}={value!r} is not {self._article()}")
        assert isinstance(value, (int, float, str))
        if isinstance(value, str):
            if self.choices and value not in self.choices:
                raise ValueError(f"{self.name}={value} is not one of {', '.join(self.choices)}")
            return value
        # written so that NaN fails too
        above = self.low is None or value >= self.low
        below = self.high is None or value <= self.high
        if not (above and below and abs(value) != float("inf") and value == value):
            raise ValueError(f"{self.name}={value} is not {self.range}")
        return value

    def _article(self) -> str:
        return {"int": "a whole number", "float": "a number", "str": "a text"}[self.kind]


@dataclass(frozen=True)
class Workload:
    """A named source of event streams.

    ``summary`` is one line; ``stands_for`` names real programs that behave so. ``make(params, seed)`` returns the
    trace: every parameter is in ``params``, checked, and all randomness must come from ``seed``. ``baseline`` is the
    strategy that results are compared with. ``make_threads(params, seed, threads)`` makes the stream for so many real
    threads (:func:`benchframe.stream.build_threads`). ``tags`` group workloads: ``trace`` (recorded), ``default``
    (run when the user names none). ``nominal`` has the statistics of the default stream
    (:mod:`benchframe.trace.analysis`), if they are known; other streams are compared with those of recorded programs.
    """

    name: str
    summary: str
    stands_for: str
    parameters: tuple[Parameter, ...]
    make: Callable[[dict[str, Any], int], Trace]
    baseline: str = "rbtree"
    tags: tuple[str, ...] = ()
    make_threads: Callable[[dict[str, Any], int, int], Trace] | None = None
    nominal: Mapping[str, float] = field(default_factory=dict, compare=False)

    def problem(self) -> str:
        """What is wrong with the definition, in a few words; empty if nothing is."""
        texts = {"name": self.name, "summary": self.summary, "stands_for": self.stands_for, "baseline": self.baseline}
        for part, text in texts.items():
            if not isinstance(text, str) or not text.strip():
                return f"its {part} is not a text"
        if not _NAME.match(self.name):
            return f"its name {self.name!r} is not letters, digits, '_', '.', '+' or '-'"
        if not isinstance(self.parameters, tuple) or not all(isinstance(p, Parameter) for p in self.parameters):
            return "its parameters are not a tuple of Parameter"
        if len({p.name for p in self.parameters}) != len(self.parameters):
            return "two of its parameters have the same name"
        if not callable(self.make):
            return "its make cannot be called"
        if self.make_threads is not None and not callable(self.make_threads):
            return "its make_threads cannot be called"
        if not isinstance(self.tags, tuple) or not all(isinstance(tag, str) for tag in self.tags):
            return "its tags are not a tuple of texts"
        if not isinstance(self.nominal, Mapping) or not all(
            isinstance(name, str) and isinstance(value, (int, float)) for name, value in self.nominal.items()
        ):
            return "its nominal statistics are not numbers by name"
        return ""

    def spec(self, text: str = "") -> WorkloadSpec:
        """Parse ``name``, ``name:key=value,...`` or ``key=value,...`` into a spec; raises :class:`WorkloadError`.

        O(length of text).
        """
        head, colon, tail = text.partition(":")
        if not colon:
            head, tail = ("", text) if "=" in text else (text, "")
        if head and head != self.name:
            raise WorkloadError(f"workload {self.name}: {text!r} names another workload")
        if colon and not tail:
            raise WorkloadError(f"workload {self.name}: no parameter follows the ':'; write {self._example()}")
        known = {p.name: p for p in self.parameters}
        given: dict[str, Value] = {}
        for part in tail.split(",") if tail else ():
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or not key or not value:
                raise WorkloadError(f"workload {self.name}: {part!r} is not key=value; write {self._example()}")
            if key in given:
                raise WorkloadError(f"workload {self.name}: {key} is given twice")
            if key not in known:
                raise WorkloadError(self._unknown(key))
            try:
                given[key] = known[key].parse(value)
            except ValueError as error:
                raise WorkloadError(f"workload {self.name}: {error}") from None
        return self.with_params(given)

    def with_params(self, given: Mapping[str, Value] | None = None) -> WorkloadSpec:
        """A spec from values instead of text; parameters missing from ``given`` keep their defaults."""
        given = given or {}
        known = {p.name: p for p in self.parameters}
        for key in given:
            if key not in known:
                raise WorkloadError(self._unknown(key))
        try:
            params = {p.name: p.check(given.get(p.name, p.default)) for p in self.parameters}
        except ValueError as error:
            raise WorkloadError(f"workload {self.name}: {error}") from None
        return WorkloadSpec(self, params)

    def _unknown(self, key: str) -> str:
        names = [p.name for p in self.parameters]
        if not names:
            return f"workload {self.name} has no parameters, so {key} cannot be set"
        return f"workload {self.name} has no parameter {key}; {did_you_mean(key, names, 'it has {}')}"

    def _example(self) -> str:
        if not self.parameters:
            return self.name
        return f"{self.name}:{self.parameters[0].name}={self.parameters[0].default}"


@dataclass(frozen=True)
class WorkloadSpec:
    """A workload with a value for every parameter. ``params`` is in the order of the workload's parameters."""

    workload: Workload
    params: dict[str, Value]

    @property
    def name(self) -> str:
        """The workload's name."""
        return self.workload.name

    @property
    def label(self) -> str:
        """The shortest text that :meth:`Workload.spec` turns into this spec: it omits parameters at their defaults."""
        changed = [
            f"{p.name}={self.params[p.name]}" for p in self.workload.parameters if self.params[p.name] != p.default
        ]
        return ":".join([self.name, ",".join(changed)]) if changed else self.name

    def _make(self, seed: int, threads: int) -> Trace:
        workload = self.workload
        if threads and workload.make_threads is not None:
            return workload.make_threads(dict(self.params), seed, threads)
        if threads and "trace" not in workload.tags:
            raise WorkloadError(
                f"workload {self.label} cannot run with threads; `benchframe list workloads` marks those that can"
            )
        return workload.make(dict(self.params), seed)

    def trace(self, seed: int = 0, threads: int = 0) -> Trace:
        """Make the stream and check every row, which takes about 0.1 us per row on top of the maker's own time.

        ``threads``: make it for this many real threads. A recorded trace is the same for any number; any other workload
        needs a maker for threads.

        Raises :class:`WorkloadError` if the parameters do not fit together (the maker's ``ValueError``), if the maker
        fails, or if it returned something else than a valid trace; errors that name a file (``TraceError``) and those
        for lack of memory pass through.
        """
        from benchframe.trace.trace import Trace

        try:
            trace = self._make(seed, threads)
        except (TraceError, WorkloadError):
            raise
        except ValueError as error:
            raise WorkloadError(f"workload {self.label}: {error}") from error
        except Exception as error:  # the maker is a plugin's code: report its mistakes with their line
            if out_of_memory(error):
                raise
            raise WorkloadError(f"workload {self.label}: {_failure(error, self.workload.make)}") from error
        if not isinstance(trace, Trace):
            raise WorkloadError(f"workload {self.label}: its make returned a {type(trace).__name__}, not a Trace")
        try:
            trace.check()
        except ValueError as error:
            raise WorkloadError(f"workload {self.label}: its make returned an invalid stream: {error}") from None
        if not 0 <= trace.setup <= len(trace):
            raise WorkloadError(f"workload {self.label}: setup is {trace.setup} of {len(trace)} events")
        return trace


MOST_VALUES = 200
"""Values of one sweep, at most."""


def sweep(text: str) -> list[str]:
    """The specs that ``text`` stands for: a parameter may have several values, ``vmas=6/50`` or ``vmas=10..1e6:log``.

    ``A..B:log`` is A and its powers of ten up to B, which is included; ``A..B:logN`` are N values with equal ratios,
    ``A..B:N`` are N with equal steps. Whole ends give whole values, each once. Two such parameters give every pair.
    Raises WorkloadError.

    >>> sweep("zipf:vmas=10..1e3:log,alpha=1.2")
    ['zipf:vmas=10,alpha=1.2', 'zipf:vmas=100,alpha=1.2', 'zipf:vmas=1000,alpha=1.2']
    >>> sweep("uniform:vmas=6/50"), sweep("uniform:vmas=0..100:5")[1], sweep("uniform")
    (['uniform:vmas=6', 'uniform:vmas=50'], 'uniform:vmas=25', ['uniform'])
    """
    head, colon, tail = text.partition(":")
    choices = []
    for part in tail.split(",") if tail else ():
        key, equals, value = part.partition("=")
        choices.append([f"{key}{equals}{one}" for one in _values(text, value)])
    return [f"{head}{colon}{','.join(chosen)}" for chosen in product(*choices)]


def _values(text: str, value: str) -> list[str]:
    """The values of one parameter, as texts."""
    if ".." not in value:
        return value.split("/")
    ends, colon, how = value.partition(":")
    first, _, last = ends.partition("..")
    log, count = how.startswith("log"), how.removeprefix("log")
    try:
        low, high = float(first), float(last)
        number = int(count) if count else 0
    except ValueError:
        low, high, number = 0.0, -1.0, 0
    if (
        not (colon and high > low and (number or log) and 0 <= number <= MOST_VALUES and (low > 0 or not log))
        or number == 1
    ):
        what = f"workload {text}: {value} is not a range"
        raise WorkloadError(f"{what}; write 10..1e6:log, 10..1e6:log9 (9 values) or 0..100:5, or a list: 6/50/500")
    if not number:
        steps = [low * 10**power for power in range(MOST_VALUES) if low * 10**power < high * (1 - 1e-9)]
        found = [*steps, high]
    elif log:
        found = [low * (high / low) ** (at / (number - 1)) for at in range(number)]
    else:
        found = [low + (high - low) * at / (number - 1) for at in range(number)]
    whole = low == int(low) and high == int(high)
    return list(dict.fromkeys(str(round(one)) if whole else f"{one:.6g}" for one in found))


def _failure(error: Exception, make: Callable[..., Any]) -> str:
    """The exception that a maker raised, with the last line of its own file that was running."""
    file = make.__code__.co_filename if hasattr(make, "__code__") else ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    place = f" ({file}:{lines[-1]})" if lines else ""
    text = " ".join(str(error).split())
    return f"its make failed with {type(error).__name__}{f': {text}' if text else ''}{place}; correct it"


def trace_workload(path: str | Path, name: str | None = None) -> Workload:
    """The recorded trace at ``path`` as a workload without parameters; its name is the file's stem by default.

    Here only the existence of the file is checked (:class:`WorkloadError`). :meth:`WorkloadSpec.trace` reads and checks
    the file and may raise ``TraceError``.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise WorkloadError(f"trace {path} {what}; give a .parquet or .csv file written by `benchframe record`")

    def make(params: dict[str, Any], seed: int) -> Trace:
        from benchframe.trace.trace import read_file

        return read_file(path)

    stem = re.sub(r"[^a-zA-Z0-9_.+-]", "-", name or path.stem)
    return Workload(
        name=stem if _NAME.match(stem) else f"trace-{stem}",
        summary=f"recorded trace {path.name}",
        stands_for="the recorded program itself: see `benchframe trace info`",
        parameters=(),
        make=make,
        tags=("trace",),
    )
