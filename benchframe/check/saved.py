"""Failures kept as regression tests: small JSON files that `benchframe check` runs again before anything else.

    .benchframe/check/pmdcache/lookup-munmap-3f2a9c01.json

A file names strategy, scenario, kind of failure and schedule. A schedule counts accesses, so after an edit of the
strategy it may lead elsewhere, and :func:`run_again` says so: the scenario's own search decides then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchframe.check.hunt import Finding, Hunt, follow, make_case
from benchframe.check.run import Broken
from benchframe.check.schedule import ReplayError, decode, model_of
from benchframe.check.story import tell
from benchframe.errors import BenchframeError
from benchframe.files import slug, write_json
from benchframe.scenario import Scenario
from benchframe.strategy import Strategy

FOLDER = Path(".benchframe/check")
"""Where saved failures are looked for unless told otherwise."""
LARGEST = 1 << 20
"""Bytes of such a file, at most."""


class SavedError(BenchframeError):
    """A file that is no saved failure; one line with its path and what to do."""


@dataclass(frozen=True)
class Saved:
    """A failure that must not come back."""

    strategy: str
    scenario: str
    kind: str
    text: str
    replay: str

    def __str__(self) -> str:
        return f"{self.strategy}, {self.scenario}: {self.kind}"


@dataclass(frozen=True)
class Again:
    """What running it again showed: ``fails``, in words, with the story if it does."""

    fails: bool
    text: str
    story: str = ""


def save(folder: Path, strategy: str, findings: Iterable[Finding]) -> list[Path]:
    """Write each finding that has a schedule to a file of its own; the same failure gives the same file."""
    written = []
    for finding in findings:
        if not finding.replay:
            continue
        saved = Saved(strategy, finding.scenario, finding.kind, finding.text, finding.replay)
        digest = hashlib.sha256(f"{saved.kind} {saved.text} {model_of(saved.replay)}".encode()).hexdigest()[:8]
        path = folder / slug(strategy, 100, keep="_.") / f"{slug(finding.scenario, 100, keep='_.')}-{digest}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"version": 1, **asdict(saved)})
        written.append(path)
    return written


def read(folder: Path, strategies: Iterable[str] | None = None) -> list[Saved]:
    """The saved failures below ``folder`` in order of path; of ``strategies`` only, if given. No folder: none.

    Raises SavedError for a JSON file there that is something else.
    """
    wanted = None if strategies is None else set(strategies)
    found = [_read(path) for path in sorted(folder.glob("*/*.json"))]
    return [saved for saved in found if wanted is None or saved.strategy in wanted]


def run_again(saved: Saved, strategy: Strategy, scenario: Scenario | None) -> Again:
    """Follow the schedule of ``saved`` in ``strategy`` as it is now."""
    if scenario is None:
        return Again(True, f"NOT checked: no scenario {saved.scenario!r} any more; delete the file or bring it back")
    try:
        case = make_case(scenario, strategy, model_of(saved.replay))
        run, missed = follow(case, saved.replay)
    except Broken as broken:
        return Again(True, f"WRONG: {broken.text}")
    if run.failure is not None:
        what = "fails as before" if run.failure.kind == saved.kind else f"fails otherwise, not by {saved.kind}"
        Hunt(case).learn_shared()
        story = tell(
            case, run, f"benchframe check -s {strategy.name} --scenario {scenario.name} --replay {saved.replay}"
        )
        return Again(True, f"WRONG: {what}: {run.failure}", story)
    steps = len(decode(saved.replay))
    if missed or len(run.trace) < steps:
        done = steps - max(missed, steps - len(run.trace))
        text = (
            f"no longer applies: only {done} of {steps} steps can be followed in the text as it is now; not seen again"
        )
        return Again(False, text)
    return Again(False, f"no failure any more ({steps} steps followed)")


def _read(path: Path) -> Saved:
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("it is too large")
        row = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(row, dict) or row.pop("version", None) != 1:
            raise ValueError('it has no "version": 1')
        if set(row) != set(Saved.__dataclass_fields__) or not all(isinstance(v, str) for v in row.values()):
            raise ValueError(f"it must hold the texts {', '.join(Saved.__dataclass_fields__)}")
        decode(row["replay"])
    except (ValueError, RecursionError, ReplayError) as error:
        why = str(error).splitlines()[0]
        raise SavedError(f"{path}: no saved failure: {why}; delete it or name another folder with --saved") from None
    return Saved(**row)
