"""A wrong answer explains itself: a trace run alone shows the dead record that was used, and which known bug it is."""

from dataclasses import replace
from typing import Any

import pytest
from support.space import registry, strategy
from support.streams import stream

from benchframe.engine.session import Session
from benchframe.events import Kind
from benchframe.study.diagnosis import first_use_after_free
from benchframe.trace.trace import Trace

PAGE, CHUNK = 4096, 0x20000
HEAP = 0x40000000


def heap_of_chunks() -> Trace:
    """What a JavaScript heap does: reserve, commit chunk by chunk, give one back in the middle and commit it again."""
    reserve = {"kind": Kind.MMAP, "addr": HEAP, "len": 32 << 20, "prot": 0, "flags": 0x4032, "ret": HEAP}
    rows: list[dict[str, Any]] = [{"kind": Kind.EXEC, "addr": -1}, reserve]

    def commit(chunk: int, prot: int = 3) -> None:
        rows.append({"kind": Kind.MPROTECT, "addr": HEAP + chunk * CHUNK, "len": CHUNK, "prot": prot, "ret": 0})

    def write(chunk: int, first: int, last: int) -> None:
        for page in range(first, last):
            addr = HEAP + chunk * CHUNK + page * PAGE
            rows.append({"kind": Kind.FAULT, "addr": addr, "prot": 2, "flags": 1, "ret": 0})

    for chunk in range(39):
        commit(chunk)
        write(chunk, 0, 8)
    middle = HEAP + 29 * CHUNK
    rows.append({**reserve, "addr": middle, "len": CHUNK, "ret": middle})
    write(35, 0, 32)
    write(36, 8, 32)
    commit(29)
    write(29, 0, 1)
    write(37, 8, 32)
    return Trace(stream(*rows))


def test_the_bug_is_named_with_its_scenario() -> None:
    """pmdcache as posted keeps a VMA that a merge freed: B2, by one task. The run's worker sees the wrong answer, the
    replay alone sees why, at that event or before."""
    posted, trace = strategy("pmdcache"), heap_of_chunks()
    verdict = Session(posted, trace).verify()
    assert not verdict.ok
    found = first_use_after_free(posted, trace, verdict.event)
    assert found is not None
    assert found.bug is not None
    assert found.event <= verdict.event
    assert (found.bug.name, found.bug.scenarios) == ("B2", ("merge-then-lookup",))
    assert "freed before this call began" in found.text
    bare = first_use_after_free(replace(posted, known_bugs=()), trace, verdict.event)
    assert bare is not None
    assert bare.bug is None


@pytest.mark.parametrize("name", ["rbtree", "pmdcache_rcu", "maple", "vmacache"])
def test_what_is_right_uses_nothing_dead(name: str) -> None:
    """Strategies without the bug touch no record after its life, to the end of the same trace."""
    trace = heap_of_chunks()
    assert first_use_after_free(strategy(name), trace, len(trace) - 1) is None


def test_long_traces_are_left_to_the_checker() -> None:
    """What the interpreter would not end is not begun."""
    trace = registry().spec("python-json").trace(1)
    assert first_use_after_free(strategy("pmdcache"), trace, -1) is None
    assert first_use_after_free(strategy("pmdcache"), trace, 1 << 30) is None
