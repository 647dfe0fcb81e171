"""Machines, work profiles and layouts of fields: what a simulation is given, each number with its source.

The processor for which simulated units are compiled: always the same one, on any host. The compiler decides how many
accesses a text has. A unit for the host's own CPU would give other figures on another host.

A machine is a TOML file, shipped beside this module or written by the user. Each number has its ``value``, its
``source`` and its ``standing``: ``measured`` (here), ``published`` (elsewhere) or ``guess``. ``low`` and ``high`` bound
its possible values: a result is robust if it holds in the whole box (:func:`box`).

The cache line of each field of a record: in the model's order, in a kernel's order, or in one of the user's choice. A
layout does not move memory. It tells the simulator for which line an access counts, so the same compiled code is
simulated with any order of fields.

The simulator's own memory has these numbers, a record per simulated CPU and per cache line, and its counters. Times in
it are picoseconds of simulated time, lines are 64 bytes. The functions that work on these records are written in the
dialect, like the model's: compiled once, they need no C compiler.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchframe.dialect import Slab, Struct
from benchframe.dialect.store import LOWERING
from benchframe.errors import BenchframeError
from benchframe.files import parse_toml

if TYPE_CHECKING:
    from benchframe.dialect.records import Struct

MAX_CPUS = 256
"""A heap key holds the CPU's number in its low 8 bits."""
MAIN = MAX_CPUS
"""The record of the host's own stack, among the CPUs'."""
MAX_REGIONS, MAX_WORDS, KINDS = 32, 128, 3
"""The most slabs that are distinguished, and the most 8-byte words of a record; and LOAD, STORE, ATOMIC."""
MAX_PAIRS = 4096
WAYS, MEMORY_WAYS = 8, 16
"""Ways of the private caches, and of a shared last-level one."""
MAX_DOMAINS, MAX_SOCKETS = 32, 8
LOAD, STORE, ATOMIC = 0, 1, 2
NEW, READY, PARKED, DONE = 0, 1, 2, 3
"""States of a CPU."""
UNSEEN, FREE, MIXED, COUNTED = 0, 1, 2, 3
"""What is known about a line: nothing; it costs nothing; look up each of its words; it costs."""
BREATH, ENDED, DEADLOCK, LIMIT = 1, 2, 3, 4
"""Why the simulation returned to the host: BREATH every so many accesses, so that the host can check its progress."""

NUMBERS = {
    "insn": "one instruction of the compiler's intermediate code",
    "l2": "a hit in the second private cache",
    "llc": "a hit in the last-level cache of one's own domain",
    "near": "a line that another core of the same domain owns",
    "socket": "a line of another domain of the same socket",
    "far": "a line of another socket",
    "memory": "a line of no cache",
    "atomic": "an atomic operation on a line that one owns",
    "read_occupancy": "how long a read keeps a line that nobody has modified",
    "store_buffer": "how far stores may lag behind",
    "pause": "one cpu_relax()",
    "hold": "how long an owner keeps a line that somebody else has asked for",
    "wake_after": "a waiter that waited longer than this sleeps",
    "wake": "what waking a sleeper adds to its wait",
    "ipi_send": "sending one interrupt for a TLB shootdown",
    "ipi_handle": "handling it on the CPU that gets it",
    "memory_service": "a memory controller's time for one line; 0: memory has no limit",
    "quantum": "how far a CPU may run ahead on lines that nobody else ever had",
    "quantum_shared": "how far it may run ahead when it reads a line that it has",
    "jitter": "each event takes up to half of it longer or shorter, by chance",
}
"""From a machine's numbers that are times, in ps, to their meaning."""
COUNTS = {
    "batch": "so many requests in a row may be served nearest first before the oldest is; 0: first come, first served",
    "l1_sets": "sets of the first private cache, 8 ways",
    "l2_sets": "sets of the second, 8 ways",
    "llc_sets": "sets of a domain's last-level cache, 16 ways; 0: it holds everything",
    "per_domain": "CPUs that share a last-level cache",
    "per_socket": "CPUs of one socket",
    "seed": "of the jitter",
}
WORKS = ("fault", "lookup", "mapping", "page", "line")
"""Declared work: around a fault, a bare lookup, a call (mapping or walk); and for each allocated page frame, and each
VMA that a walk prints."""
PARTS = {
    "instructions": "computing",
    "private": "hits in the second private cache",
    "atomics": "atomic operations on lines that one owns",
    "transfers": "lines coming from other CPUs and caches",
    "memory": "lines coming from memory",
    "queueing": "standing in line for a cache line or a memory controller",
    "waiting": "waiting for a lock, a barrier or another thread",
    "stores": "waiting for stores to leave the store buffer",
    "shootdowns": "TLB shootdowns, sent and got",
    "work": "declared work around the lookup",
    "jitter": "chance",
}
"""The parts of a CPU's time. They add up to it."""


def _words(names: dict[str, str], prefix: str = "") -> list[tuple[str, str, str]]:
    return [(prefix + name, "i8", text) for name, text in names.items()]


simulator = Struct(
    "simulator",
    [
        # What every access reads.
        ("pending", "i8", "instructions since the last access"),
        ("low", "i8", "address of the first modelled byte"),
        ("span", "i8", "how many there are"),
        ("free", "i8", "1: nothing costs anything now"),
        ("current", "i8", "the CPU that runs"),
        ("top", "i8", "smallest key in the heap, the largest integer if it is empty"),
        ("accesses", "i8", "modelled accesses"),
        ("ready", "i8", "CPUs in the heap"),
        *_words(NUMBERS),
        *_words(COUNTS),
        *_words({f"work_{name}": "declared work" for name in WORKS}),
        # The run.
        ("cpus", "i8", "how many"),
        ("alive", "i8", "CPUs whose thread has not ended"),
        ("mark", "i8", "the time after which no thread should go on"),
        ("reason", "i8", "why the host was told: BREATH, ENDED, DEADLOCK or LIMIT"),
        ("coast", "i8", "1: to the end of their rounds all run at no cost, one after the other"),
        ("idle", "i8", "accesses that cost nothing"),
        ("warming", "i8", "1: what costs nothing fills the caches all the same"),
        ("breath", "i8", "number of accesses at which the host wants to look"),
        ("stepped", "i8", "CPUs that came to run"),
        ("entry", "i8", "address of the thread's function"),
        ("root", "i8", "its first argument"),
        ("command", "i8", "its third"),
        ("regions", "i8", "how many"),
        ("nothing_base", "i8", "0: WORD of an address"),
        *[(f"{name}_base", "i8", "slab") for name in ("cpu", "line", "heap", "near_tag", "far_tag", "llc_tag", "region",
                                                     "field", "pair", "histogram", "socket", "remap")],
    ],
)  # fmt: skip

cpu = Struct(
    "cpu",
    [
        ("sp", "i8", "stack pointer while it does not run; first, since the switch wants it there"),
        ("clock", "i8", "its time"),
        ("state", "i8", "NEW, READY, PARKED or DONE"),
        ("task", "i8", "the task that it runs"),
        ("store_last", "i8", "when its last store is done"),
        ("keep_line", "i8", "a line that somebody has asked for, which is still here; -1: none"),
        ("keep_until", "i8", "until when"),
        ("stolen", "i8", "time that interrupts take from it, not yet on its clock"),
        ("drift", "i8", "chance, not yet on its clock; below 0: what comes next takes less"),
        ("next_waiter", "i8", "the next that waits for the same line, its number + 1"),
        ("next_request", "i8", "the next that stands in line for the same line, likewise"),
        ("granted", "i8", "1: the line is its own now; 2: it decides who is next"),
        ("exclusive", "i8", "1: of those who wait so, a write wakes one"),
        ("parked_at", "i8", "since when"),
        ("parked_field", "i8", "for which field"),
        ("began", "i8", "when its event began"),
        ("random", "i8", "state of its generator"),
        ("domain", "i8", "bit of its domain"),
        ("socket", "i8", "its socket"),
        ("mm", "i8", "the address space of its events, 0: several"),
        ("domains", "i8", "bits of its socket's domains"),
        ("done_fault", "i8", "faults done"),
        ("done_lookup", "i8", "lookups done"),
        ("done_mapping", "i8", "mapping calls done"),
        ("done_walk", "i8", "walks of all VMAs done"),
        ("accesses", "i8", "modelled accesses"),
        ("counted_from", "i8", "how many there were when its event began"),
        ("in_fault", "i8", "accesses inside faults"),
        ("in_lookup", "i8", "inside bare lookups"),
        ("in_mapping", "i8", "inside mapping calls"),
        ("in_walk", "i8", "inside walks"),
        ("transfers", "i8", "lines that had to come from somewhere"),
        *[(f"near{i}", "i8", "bits of the CPUs of its domain") for i in range(MAX_CPUS // 64)],
        *[(f"same{i}", "i8", "bits of the CPUs of its socket") for i in range(MAX_CPUS // 64)],
        *_words(PARTS, "t_"),
    ],
    size=448,
)

line = Struct(
    "line",
    [
        *[(f"sharers{i}", "i8", "bits of the CPUs that have it") for i in range(MAX_CPUS // 64)],
        ("owner", "i8", "who may write it, a CPU + 1; 0: nobody"),
        ("free_at", "i8", "when it can serve the next request"),
        ("llc", "i8", "bits of the domains whose last-level cache has it"),
        ("place", "i8", "UNSEEN, FREE, MIXED or COUNTED"),
        ("moved", "i8", "1: more than one CPU has had it"),
        ("waiter", "i8", "first of those who wait for a write, a CPU + 1"),
        ("head", "i8", "first of those who stand in line for it, a CPU + 1"),
        ("tail", "i8", "last"),
        ("served", "i8", "who had it last, a CPU + 1"),
        ("run", "i8", "how often in a row the nearest was served"),
        ("region", "i8", "its slab; from bit 8 the socket whose memory holds it, + 1"),
        ("written", "i8", "where it was last written: bytes from the first modelled one, + 1; 0: never"),
    ],
    size=128,
)

region = Struct(
    "region",
    [
        ("base", "i8", "address of the slab"),
        ("size", "i8", "bytes"),
        ("record", "i8", "bytes of a record"),
        ("counted", "i8", "0: it costs nothing"),
        ("remap", "i8", "first of its words in REMAP; -1: every word lies where it lies"),
        ("lines", "i8", "lines that a record has in its layout"),
        ("first", "i8", "number of record 0's first line in that layout; 0: lines are where they are"),
        ("pad", "i8", ""),
    ],
)

heap = Struct("heap", [("key", "i8", "clock << 8 | CPU")])
tag = Struct("tag", [("line", "i8", "number of a line + 1; 0: empty")])
word = Struct("word", [("value", "i8", "whatever lies there")])
remap = Struct("remap", [("line", "i8", "the line of its record in which this word lies; -1: it costs nothing")])
field = Struct(
    "field",
    [
        ("n", "i8", "transactions"),
        ("time", "i8", "spent on the way"),
        ("queue", "i8", "spent standing in line"),
        ("wait", "i8", "spent waiting for a write"),
        ("far", "i8", "how many came from another socket"),
        ("pad", "i8", ""),
        ("pad1", "i8", ""),
        ("pad2", "i8", ""),
    ],
)
pair = Struct(
    "pair",
    [
        ("key", "i8", "reader's field << 16 | writer's, + 1"),
        ("n", "i8", "transactions"),
        ("time", "i8", "with queueing"),
    ],
)
histogram = Struct("sim_histogram", [("count", "i8", "operations of this length")])
socket = Struct("socket", [("free_at", "i8", "when its memory controller can serve the next line")])

CPU = Slab("CPU", cpu, "cpu_base", first=0)
LINE = Slab("LINE", line, "line_base", first=0)
SHARERS = Slab("SHARERS", word, "line_base", first=0)
"""The words of LINE: the four masks of line ``i`` are words ``16 * i`` to ``16 * i + 3``."""
HEAP = Slab("HEAP", heap, "heap_base", first=0)
NEAR_TAG = Slab("NEAR_TAG", tag, "near_tag_base", first=0)
FAR_TAG = Slab("FAR_TAG", tag, "far_tag_base", first=0)
LLC_TAG = Slab("LLC_TAG", tag, "llc_tag_base", first=0)
REGION = Slab("REGION", region, "region_base", first=0)
FIELD = Slab("FIELD", field, "field_base", first=0)
PAIR = Slab("PAIR", pair, "pair_base", first=0)
LENGTHS = Slab("LENGTHS", histogram, "histogram_base", first=0)
SOCKET = Slab("SOCKET", socket, "socket_base", first=0)
REMAP = Slab("REMAP", remap, "remap_base", first=0)
WORD = Slab("WORD", word, "nothing_base", first=0)
"""Any memory: word ``address >> 3``."""


TARGET = {"x86_64": "x86-64-v2", "aarch64": "generic"}
"""From a machine to LLVM's name of the processor."""


class SimulateError(BenchframeError):
    """Something that cannot be simulated, and why; one line."""


def architecture() -> str:
    """The host's architecture, if units can be simulated on it. Raises SimulateError."""
    name = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if name not in TARGET or not sys.platform.startswith("linux"):
        raise SimulateError(f"benchframe simulates on Linux on x86-64 and arm64; this is {platform.system()} on {name}")
    return name


def toolchain() -> dict[str, str]:
    """Everything besides the sources that decides the code of simulated units; part of every result."""
    return {
        "target": f"{architecture()} {TARGET[architecture()]}",
        "llvmlite": version("llvmlite"),
        "numba": version("numba"),
        "python": "{}.{}".format(*sys.version_info[:2]),
    }


def target_key() -> str:
    """The toolchain as a hash: part of the content keys of compiled code."""
    return hashlib.sha256(repr((LOWERING, sorted(toolchain().items()))).encode()).hexdigest()


FOLDER = Path(__file__).with_name("machines")
PROFILES = Path(__file__).with_name("work.toml")
STANDINGS = ("measured", "published", "guess")
MAX_FILE = 1 << 20
SETTINGS = {"quantum": 1000.0, "quantum_shared": 10.0, "jitter": 20.0}
"""ns: times of the simulator, not of a machine, and their defaults."""
TIMES = tuple(name for name in NUMBERS if name not in SETTINGS)
SIZES = ("batch", "l1_sets", "l2_sets", "llc_sets")
LATENCIES = ("llc", "near", "socket", "far", "memory")
BOX = (
    ("latency", LATENCIES),
    ("hold", ("hold", "read_occupancy")),
    ("order", ("batch",)),
    ("speed", ("insn", "atomic")),
)
"""Groups of numbers that go to their bounds together in the box."""


@dataclass(frozen=True)
class Number:
    """One number of a machine: ns, or a count. ``low`` and ``high`` bound its possible values."""

    name: str
    value: float
    low: float
    high: float
    standing: str
    source: str


@dataclass(frozen=True)
class Machine:
    """A machine: ``sockets`` of ``domains`` of ``cores``; its numbers by name."""

    name: str
    title: str
    about: str
    sockets: int
    domains: int
    cores: int
    numbers: Mapping[str, Number]

    @property
    def cpus(self) -> int:
        """The number of its CPUs."""
        return self.sockets * self.domains * self.cores

    def changed(self, values: Mapping[str, float]) -> Machine:
        """The machine with other values of some numbers. Raises SimulateError for a name that it does not have."""
        numbers = dict(self.numbers)
        for name, value in values.items():
            if name not in numbers:
                raise SimulateError(f"machine {self.name} has no number {name!r}; {near(name, numbers)}")
            if not 0 <= value <= 1e9:
                raise SimulateError(f"{name}={value:g} is not a number from 0 to 1e9")
            numbers[name] = replace(numbers[name], value=value)
        return replace(self, numbers=numbers)

    def digest(self) -> str:
        """sha256 (hex) of everything that decides a figure: not of titles and sources."""
        told = (self.sockets, self.domains, self.cores, sorted((n.name, n.value) for n in self.numbers.values()))
        return hashlib.sha256(repr(told).encode()).hexdigest()

    def header(self) -> dict[str, int]:
        """The simulator's fields: times in ps, counts, and the topology that accesses need."""
        fields = {name: round(1000 * self.numbers[name].value) for name in NUMBERS}
        fields |= {name: round(self.numbers[name].value) for name in SIZES}
        return fields | {"per_domain": self.cores, "per_socket": self.domains * self.cores}


@dataclass(frozen=True)
class Work:
    """A work profile: ns by WORKS; ``about`` describes it."""

    name: str
    about: str
    numbers: Mapping[str, Number]

    def told(self) -> str:
        """A description: what is declared, or that nothing is."""
        parts = [f"{n.value:g} ns a {name}" for name, n in self.numbers.items() if n.value]
        return f"{self.name} ({', '.join(parts)})" if parts else "none: the model's own code alone"


def near(name: str, known: Any) -> str:
    """The end of a message about an unknown name."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def machine_names() -> list[str]:
    """The shipped machines."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file. Raises SimulateError, with the line where the file is not TOML."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
        if len(raw) > MAX_FILE:
            raise SimulateError(f"{path}: larger than {MAX_FILE >> 10} KiB; a machine file has a few lines")
        data: dict[str, Any] = parse_toml(raw)
    except OSError as error:
        raise SimulateError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise SimulateError(f"{path}: {error}") from None
    return data


def load_machine(name: str) -> Machine:
    """A shipped machine by its name, or one from a file. Raises SimulateError, naming file, member and hint."""
    path = Path(name) if "/" in name or name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise SimulateError(f"there is no machine {name!r}; {near(name, machine_names())}, or name a file.toml")
    data = read_toml(path)
    wrong = sorted(set(data) - {"title", "about", "sockets", "domains", "cores", "times", "counts"})
    if wrong:
        raise SimulateError(f"{path}: member {wrong[0]!r} is not known")
    sizes = {key: _whole(path, data, key) for key in ("sockets", "domains", "cores")}
    machine = Machine(
        name=path.stem,
        title=_text(path, data, "title"),
        about=_text(path, data, "about"),
        **sizes,
        numbers={
            **_numbers(path, data, "times", TIMES),
            **_numbers(path, data, "counts", SIZES),
            **{
                name: Number(name, value, value, value, "guess", "a setting of the simulator")
                for name, value in SETTINGS.items()
            },
        },
    )
    if machine.cpus > MAX_CPUS or machine.sockets * machine.domains > MAX_DOMAINS or machine.sockets > MAX_SOCKETS:
        limits = f"{MAX_CPUS} CPUs, {MAX_DOMAINS} domains and {MAX_SOCKETS} sockets are the most"
        raise SimulateError(f"{path}: {machine.cpus} CPUs in {machine.sockets * machine.domains} domains; {limits}")
    for key in ("l1_sets", "l2_sets", "llc_sets"):
        sets = machine.numbers[key].value
        if sets != int(sets) or int(sets) & (int(sets) - 1) or (key != "llc_sets" and sets < 1) or sets > 1 << 20:
            raise SimulateError(f"{path}: counts.{key} must be a power of two up to 2^20")
    return machine


def machine_toml(machine: Machine) -> str:
    """The machine as a file that :func:`load_machine` reads."""
    lines = [f"title = {json.dumps(machine.title)}", f"about = {json.dumps(machine.about)}"]
    lines += [f"{key} = {getattr(machine, key)}" for key in ("sockets", "domains", "cores")]
    for table, names in (("times", TIMES), ("counts", SIZES)):
        lines += ["", f"[{table}]"]
        for name in names:
            one = machine.numbers[name]
            values = f"value = {one.value:g}, low = {one.low:g}, high = {one.high:g}"
            told = f"standing = {json.dumps(one.standing)}, source = {json.dumps(one.source)}"
            lines.append(f"{name} = {{ {values}, {told} }}")
    return "\n".join(lines) + "\n"


def _text(path: Path, data: Mapping[str, Any], key: str) -> str:
    value = data.get(key, "")
    if not isinstance(value, str) or len(value) > 1000 or not value.isprintable():
        raise SimulateError(f"{path}: {key} is not a line of text")
    return value


def _whole(path: Path, data: Mapping[str, Any], key: str) -> int:
    value = data.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_CPUS:
        raise SimulateError(f"{path}: {key} must be a whole number from 1 to {MAX_CPUS}")
    return value


def _numbers(path: Path, data: Mapping[str, Any], table: str, names: tuple[str, ...]) -> dict[str, Number]:
    inside = data.get(table)
    if not isinstance(inside, dict):
        raise SimulateError(f"{path}: the table [{table}] is missing")
    for name in inside:
        if name not in names:
            raise SimulateError(f"{path}: {table}.{name} is not known; {near(name, names)}")
    for name in names:
        if name not in inside:
            raise SimulateError(f"{path}: {table}.{name} is missing: {NUMBERS.get(name) or COUNTS.get(name)}")
    return {name: _number(path, f"{table}.{name}", name, inside[name]) for name in names}


def _number(path: Path, where: str, name: str, told: Any) -> Number:
    if not isinstance(told, dict) or not {"value", "standing", "source"} <= set(told):
        raise SimulateError(f"{path}: {where} needs value, standing and source")
    found: list[Any] = [told.get(key, told["value"]) for key in ("value", "low", "high")]
    value, low, high = found
    for number in found:
        if not isinstance(number, (int, float)) or isinstance(number, bool) or not 0 <= number <= 1e9:
            raise SimulateError(f"{path}: {where} is not a number from 0 to 1e9")
    if not low <= value <= high:
        raise SimulateError(f"{path}: {where}: {value:g} does not lie between low and high")
    if told["standing"] not in STANDINGS:
        raise SimulateError(f"{path}: {where}: standing is one of {', '.join(STANDINGS)}")
    if name == "insn" and value <= 0:
        raise SimulateError(f"{path}: {where} must be above 0")
    return Number(name, float(value), float(low), float(high), told["standing"], _text(path, told, "source"))


def profile_names() -> list[str]:
    """The shipped work profiles."""
    return list(read_toml(PROFILES))


def load_work(text: str) -> Work:
    """A work profile by its name, or ``fault=300,page=400`` in ns. Raises SimulateError."""
    if "=" in text:
        numbers = {name: Number(name, 0.0, 0.0, 0.0, "guess", "not declared") for name in WORKS}
        for part in text.split(","):
            name, _, value = part.partition("=")
            if name.strip() not in WORKS:
                raise SimulateError(f"--work {text}: {name.strip()!r} is not one of {', '.join(WORKS)}")
            try:
                ns = float(value)
            except ValueError:
                ns = -1.0
            if not 0 <= ns <= 1e6:
                raise SimulateError(f"--work {text}: {name.strip()} must be from 0 to 1000000 ns")
            numbers[name.strip()] = Number(name.strip(), ns, ns, ns, "guess", "told on the command line")
        return Work("declared", "told on the command line", numbers)
    data = read_toml(PROFILES)
    if text not in data:
        raise SimulateError(f"there is no work profile {text!r}; {near(text, data)}, or write fault=300,page=400")
    told = data[text]
    return Work(text, told["about"], {name: _number(PROFILES, f"{text}.{name}", name, told[name]) for name in WORKS})


def box(machine: Machine) -> list[tuple[str, Machine]]:
    """The machine at corners of the box of its numbers' bounds: a half fraction of the four groups of BOX, in which
    each group's bounds occur equally often with each bound of every other. 8 machines, named by what is high."""
    corners = []
    for number in range(8):
        ends = [number >> 2 & 1, number >> 1 & 1, number & 1]
        ends.append(ends[0] ^ ends[1] ^ ends[2])
        values = {
            name: (machine.numbers[name].high if end else machine.numbers[name].low)
            for (_, names), end in zip(BOX, ends, strict=True)
            for name in names
        }
        label = "+".join(group for (group, _), end in zip(BOX, ends, strict=True) if end) or "all low"
        corners.append((label, machine.changed(values)))
    return corners


LAYOUTS = Path(__file__).with_name("layouts.toml")


@dataclass(frozen=True)
class Layout:
    """``lines`` has, by structure (mm, vma, page ...), the lines of its record, each a list of fields; fields that it
    does not name stay in lines of their own, in the model's order."""

    name: str = "model"
    about: str = ""
    lines: Mapping[str, Sequence[Sequence[str]]] = dataclasses.field(default_factory=dict)
    apart: Sequence[str] = ()
    """``structure.field``: fields in lines of their own."""
    free: Sequence[str] = ()
    """Structures that cost nothing."""

    def told(self) -> str:
        """A description: which layout it is, and the fields in lines of their own."""
        return self.name + (f", with {', '.join(self.apart)} in lines of their own" if self.apart else "")

    def words(self, name: str, struct: Struct, costless: set[int]) -> list[int] | None:
        """The line of each 8-byte word of a record, -1 where it costs nothing; None if every word is in its own line of
        the model.

        Raises SimulateError for a field that the record does not have.
        """
        told = self.lines.get(name, ())
        alone = [one.partition(".")[2] for one in self.apart if one.partition(".")[0] == name]
        if not told and not alone and not costless:
            return None
        if not told and not alone:
            return [-1 if word in costless else word // 8 for word in range(struct.size // 8)]
        place: dict[int, int] = {}
        for number, fields in enumerate([*told, *([one] for one in alone)]):
            for one in fields:
                if one not in struct.fields:
                    raise SimulateError(f"layout {self.name}: {name} has no field {one!r}")
                place[struct.fields[one][0] // 8] = number
        rest = len(told) + len(alone)
        last: dict[int, int] = {}
        found = []
        for word in range(struct.size // 8):
            if word in costless:
                found.append(-1)
            elif word in place:
                found.append(place[word])
            else:  # lines of the model, numbered in order
                found.append(last.setdefault(word // 8, rest + len(last)))
        return found


def layout_names() -> list[str]:
    """The shipped layouts, and the model's own."""

    return ["model", *read_toml(LAYOUTS)]


def load_layout(name: str, apart: Sequence[str] = ()) -> Layout:
    """A shipped layout, with the fields ``apart`` in lines of their own. Raises SimulateError, also for a field that
    the model does not have."""
    from benchframe.mm.layout import mm_struct, vm_area_struct

    if name == "model":
        layout = as_it_is(apart)
    else:
        data = read_toml(LAYOUTS)
        if name not in data:
            raise SimulateError(f"there is no layout {name!r}; {near(name, ['model', *data])}")
        lines = {one: tuple(map(tuple, data[name][one])) for one in ("mm", "vma") if one in data[name]}
        layout = Layout(name, data[name]["about"], lines, tuple(apart))
    for one, struct in (("mm", mm_struct), ("vma", vm_area_struct)):
        layout.words(one, struct, set())
    return layout


def as_it_is(apart: Sequence[str] = ()) -> Layout:
    """The model's own order; ``apart`` are fields in lines of their own (what if?)."""
    return Layout("model", "the order of fields in mm/layout.py", {}, tuple(apart))
