"""Layouts: every area of a maps file is a VMA of the replay, whatever lies beside it; what cannot be one is named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchframe.errors import TraceError
from benchframe.oracle import replay
from benchframe.record.command import import_any, import_maps
from benchframe.record.procfs import parse_maps
from benchframe.trace.verify import verify

PAGE = 4096
BASE = 0x10000000

Told = list[tuple[int, int, str, int, bool]]
areas = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 0, 1]),  # pages of hole before it
        st.integers(1, 3),
        st.sampled_from(["rw-p", "rw-p", "rw-p", "r--p", "rw-s", "---p"]),
        st.sampled_from([0, 0, 0, 7, 9]),  # inode
        st.booleans(),  # the file offset follows the neighbour's
    ),
    max_size=30,
)


def text_of(told: Told) -> str:
    """A maps file of these areas, upwards from BASE."""
    lines, addr, offset = [], BASE, 0
    for hole, pages, perms, inode, follows in told:
        addr += hole * PAGE
        offset = offset if follows else offset + 5 * PAGE
        inode = inode or (8 if perms[3] == "s" else 0)
        end = addr + pages * PAGE
        shown = f"{offset:08x} 00:2a {inode} /a" if inode else "00000000 00:00 0 "
        lines.append(f"{addr:08x}-{end:08x} {perms} {shown}")
        addr, offset = end, offset + pages * PAGE
    return "\n".join(lines) + "\n"


@given(areas)
def test_as_many_vmas_as_lines(tmp_path_factory: pytest.TempPathFactory, told: Told) -> None:
    """Alike neighbours stay apart, anonymous, private and shared files, however many there are in a row."""
    path = tmp_path_factory.mktemp("maps") / "maps"
    path.write_text(text_of(told))
    rows = parse_maps(path.read_text())
    layout = replay(import_maps(path).events).layouts.get(0, [])
    assert [row[:4] for row in layout] == [(row.start, row.end, row.prot, int(row.shared)) for row in rows]
    assert verify(import_maps(path)).good


def test_a_thousand_alike_neighbours(tmp_path: Path) -> None:
    """What many maps files of Go programs are: each is a VMA; a merged one does not pass for a border unknown."""
    path = tmp_path / "maps"
    path.write_text(text_of([(0, 1, "rw-p", 0, True)] * 1000))
    trace = import_maps(path)
    assert len(replay(trace.events).layouts[0]) == 1000
    trace.events["flags"] = 2
    verdict = verify(trace)
    assert (verdict.snapshots_differ, verdict.snapshots_hazy, verdict.good) == (1, 0, False)


def test_the_heap_grows_on() -> None:
    """Of two alike neighbours the one that the program goes on to extend is plain: a heap's last, else the first."""
    from benchframe.record.builder import told_apart

    two = f"{BASE:x}-{BASE + PAGE:x} rw-p 0 00:00 0\n{BASE + PAGE:x}-{BASE + 2 * PAGE:x} rw-p 0 00:00 0"
    assert told_apart(parse_maps(two)) == [False, True]
    assert told_apart(parse_maps(two + " [heap]")) == [True, False]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("10000000-10000000 rw-p 00000000 00:00 0", "line 2: the area 10000000-10000000 is empty"),
        ("10002000-10001000 rw-p 00000000 00:00 0", "line 2: the area 10002000-10001000 ends before it begins"),
        ("10000800-10002000 rw-p 00000000 00:00 0", "line 2: the area 10000800-10002000 is not whole pages"),
        ("10000000-10001000 r--p 00000200 08:01 5 /a", "line 2: the area 10000000-10001000 has the file offset 200"),
        ("00000000-00002000 rw-p 00000000 00:00 0", "line 2: the areas are not in order: 0-2000"),
        ("00001000-00002000 rw-p 00000000 00:00 0", "line 2: the areas are not in order: 1000-2000"),
        ("ffff80000000-ffff80001000 rw-p 00000000 00:00 0 /lib", "1 of 2 areas lie above 2^47 (line 2: ffff80000000"),
        ("ff00000000000-ff00000001000 rw-p 00000000 00:00 0", "1 of 2 areas lie above 2^47 (line 2: ff00000000000"),
        ("what is this", "line 2 is not a line of /proc/PID/maps"),
    ],
)
def test_what_is_no_area_is_named(tmp_path: Path, line: str, what: str) -> None:
    """Empty, odd, overlapping, foreign: refused with its line, never left out; wherever in the file it stands."""
    path = tmp_path / "maps"
    path.write_text(f"00001000-00003000 rw-p 00000000 00:00 0\n{line}\n")
    with pytest.raises(TraceError) as caught:
        import_any(path, path.read_bytes())
    assert what in str(caught.value)


def test_the_kernels_pages_are_no_areas() -> None:
    """[vsyscall] lies above every user address: left out, and nothing else is."""
    text = "1000-2000 r--p 0 00:00 0\nffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n"
    assert [row.start for row in parse_maps(text)] == [0x1000]


def test_smaps_is_read_with_its_flags() -> None:
    """/proc/PID/smaps tells of flags that merges depend on."""
    text = "1000-2000 rw-p 0 00:00 0 \nSize:   4 kB\nVmFlags: rd wr nr \n2000-3000 rw-p 0 00:00 0 \nVmFlags: rd\n"
    assert ["nr" in row.flags for row in parse_maps(text)] == [True, False]
