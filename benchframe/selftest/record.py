"""What a self-test measured, as plain data: enough to repeat every conclusion without timing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchframe.files import Fields, read_object, write_json
from benchframe.results.folder import RunFolder

FIGURES = ("lookup", "fault", "mapping")
Means = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Process means: figure -> strategy -> round -> ns."""


@dataclass(frozen=True)
class Record:
    """``quiet`` and ``load`` are the process means of the two parts; in the second the load began with round
    ``loaded_from``. ``seconds`` is what one process took on average in the quiet part, ``overhead`` what reading the
    cycle counter costs (ns, lowest and highest), ``about`` host, versions, date, options, ``loads`` each strategy's
    counted loads per lookup: what was injected, free of noise."""

    workload: str
    quiet: Means
    load: Means
    loaded_from: int
    seconds: float
    overhead: tuple[float, float]
    about: Mapping[str, str]
    loads: Mapping[str, float] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write as JSON; raises ResultsError."""
        write_json(path, asdict(self))


def means_of(folder: RunFolder) -> Means:
    """Process means of a run; a cell that failed has none. Raises ResultsError."""
    cells = [cell for cell in folder.cells() if cell.state.state == "ok"]
    return {figure: {c.entry.strategy: c.rounds(figure) for c in cells if c.rounds(figure)} for figure in FIGURES}


def read_record(path: Path) -> Record:
    """Read what :meth:`Record.write` wrote, checked; raises ResultsError."""
    data = Fields(path, read_object(path))
    overhead = data.items("overhead", 2)
    quiet = _means(data.object("quiet"))
    rounds = [set(by_round) for by_round in quiet["lookup"].values()]
    if len(rounds) < 2 or not set.intersection(*rounds):
        raise data.wrong("quiet.lookup", "has no two strategies with rounds in common")
    both = Fields(path, {"low": overhead[0], "high": overhead[1]} if len(overhead) == 2 else {}, "overhead.")
    return Record(
        workload=data.text("workload"),
        quiet=quiet,
        load=_means(data.object("load")),
        loaded_from=data.integer("loaded_from", 0, 1 << 20),
        seconds=data.number("seconds"),
        overhead=(both.number("low"), both.number("high")),
        about=data.mapping("about"),
        loads=data.numbers("loads"),
    )


def _means(data: Fields) -> dict[str, dict[str, dict[int, float]]]:
    found: dict[str, dict[str, dict[int, float]]] = {}
    for figure in FIGURES:
        strategies: Any = data.object(figure).data
        found[figure] = {}
        for name in list(strategies)[:64]:
            values = data.object(figure).numbers(name, 100_000)
            if not all(round_.isdigit() and value > 0 for round_, value in values.items()):
                raise data.wrong(f"{figure}.{name}", "is not an object of rounds and positive times")
            found[figure][name] = {int(round_): value for round_, value in values.items()}
    return found
