"""Record the shipped traces again: ``python benchmarks/record_shipped.py [NAME...]``.

Needs root, or CAP_PERFMON and a readable tracefs. Each program runs in an empty folder under the system's temporary
folder. A program that is not installed is left out, and said.
Names of files outside the system's folders are cut to what does not tell of the machine.
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchframe.events import Kind
from benchframe.record.session import RecordError, Session, planned
from benchframe.trace.trace import Trace, of_command, select, write_trace

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "workloads" / "benchframe_workloads" / "data"
LICENCE = "CC0-1.0: facts about one run of a program, recorded by the benchframe developers"
LIMIT = 2 << 20


@dataclass(frozen=True)
class Program:
    """A trace to ship: its name, what it stands for, the command, and what must be there first."""

    name: str
    about: str
    command: tuple[str, ...]
    prepare: Callable[[Path], None] = lambda folder: None
    choose: Callable[[Trace], int] | None = None
    """The address space that is shipped, of a tree too large or too mixed to ship whole."""


def c_project(folder: Path) -> None:
    """Three small C files that use a few headers."""
    headers = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
    (folder / "table.c").write_text(
        headers
        + "int table[256];\nvoid fill(int seed) { for (int i = 0; i < 256; i++) table[i] = (i * seed) % 251; }\n"
    )
    (folder / "sort.c").write_text(
        headers + "static int less(const void *a, const void *b) { return *(int *)a - *(int *)b; }\n"
        "void order(int *t, size_t n) { qsort(t, n, sizeof *t, less); }\n"
    )
    (folder / "main.c").write_text(
        headers + "extern int table[256];\nvoid fill(int);\nvoid order(int *, size_t);\n"
        "int main(int argc, char **argv)\n{\n  fill(argc + 7);\n  order(table, 256);\n"
        '  printf("%d\\n", table[255]);\n  return 0;\n}\n'
    )


def java_source(folder: Path) -> None:
    """One small class."""
    (folder / "Hello.java").write_text(
        "import java.util.*;\npublic class Hello { public static void main(String[] a) {\n"
        "  Map<String, Integer> m = new TreeMap<>();\n"
        "  for (String s : a) m.merge(s, 1, Integer::sum);\n  System.out.println(m); } }\n"
    )


def git_repository(folder: Path) -> None:
    """A repository of 800 commits over 40 files, made by git fast-import."""
    stream = []
    for i in range(800):
        text = "".join(f"line {j} of version {i}: {(i * 7919 + j * 104729) % 9973}\n" for j in range(60 + i % 40))
        stream.append(
            f"commit refs/heads/main\ncommitter A U Thor <author@example.com> {1700000000 + i * 3600} +0000\n"
            f"data {len(str(i)) + 7}\ncommit {i}\n"
            f"M 100644 inline dir{i % 5}/file{i % 40}.txt\ndata {len(text)}\n{text}\n"
        )
    subprocess.run(["git", "init", "-q", "-b", "main", "."], cwd=folder, check=True)
    subprocess.run(["git", "fast-import", "--quiet"], cwd=folder, check=True, input="".join(stream).encode())


def allocator(folder: Path) -> None:
    """The allocator stress, compiled."""
    subprocess.run(["gcc", "-O2", "-pthread", "-o", "mt_alloc", str(HERE / "mt_alloc.c")], cwd=folder, check=True)


def redis_script(folder: Path) -> None:
    """A server on a local socket, a bounded load, and an orderly end."""
    (folder / "redis.sh").write_text(
        "redis-server --port 0 --unixsocket redis.sock --save '' --dir . >/dev/null &\n"
        "until redis-cli -s redis.sock ping >/dev/null 2>&1; do sleep 0.05; done\n"
        "redis-benchmark -s redis.sock -q -n 8000 -c 20 -r 20000 -d 300 -t set,get,lpush,hset,sadd >/dev/null\n"
        "redis-cli -s redis.sock bgsave >/dev/null\nsleep 0.3\n"
        "redis-cli -s redis.sock shutdown nosave\nwait\n"
    )


def storm(folder: Path) -> None:
    """The programs that are hard to record, compiled for x86-64, and for i386 where the compiler can."""
    source = str(HERE / "record_storm.c")
    subprocess.run(["gcc", "-O2", "-pthread", "-o", "storm", source], cwd=folder, check=True)
    subprocess.run(["gcc", "-m32", "-O2", "-pthread", "-o", "storm32", source], cwd=folder, check=False)


def web_page(folder: Path) -> None:
    """A page whose script makes 3000 paragraphs and draws, and a folder for an ordinary user's browser."""
    (folder / "page.html").write_text(
        "<canvas id=c></canvas><div id=d></div><script>\nlet rows=[];\n"
        "for(let i=0;i<3000;i++)rows.push({n:i,t:'row '+(i*7919%9973)});\nrows.sort((a,b)=>a.t<b.t?-1:1);\n"
        "document.getElementById('d').innerHTML=rows.map(r=>'<p>'+r.n+' '+r.t+'</p>').join('');\n"
        "const g=document.getElementById('c').getContext('2d');\n"
        "for(let i=0;i<500;i++)g.fillRect(i%300,i*7%200,5,5);\n"
        "document.title=document.body.scrollHeight;</script>\n"
    )
    (folder / "browse.sh").write_text(
        "HOME=$PWD exec chromium --headless --user-data-dir=$PWD/profile --dump-dom file://$PWD/page.html\n"
    )
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, "nobody")


def postgres_script(folder: Path) -> None:
    """A server, its tables, and 1000 transactions of four clients."""
    (folder / "server.sh").write_text(
        "set -e\nB=$(ls -d /usr/lib/postgresql/*/bin | tail -1)\n"
        '$B/pg_ctl -D data -o "-k $PWD -c listen_addresses= -c shared_buffers=16MB" -w -l log start\n'
        "$B/pgbench -h $PWD -i -s 1 -q postgres\n$B/pgbench -h $PWD -c 4 -j 2 -t 250 postgres\n"
        "$B/pg_ctl -D data -m fast -w stop\n"
    )
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, "postgres")
    init = "exec $(ls -d /usr/lib/postgresql/*/bin | tail -1)/initdb -D data -A trust"
    subprocess.run([*AS_POSTGRES, "sh", "-c", init], cwd=folder, check=True, capture_output=True)


def rust_source(folder: Path) -> None:
    """One small program."""
    (folder / "main.rs").write_text(
        "use std::collections::BTreeMap;\nfn main() {\n    let mut m = BTreeMap::new();\n"
        '    for i in 0..1000u64 { m.insert(i * 7919 % 997, format!("row {i}")); }\n'
        '    println!("{} {:?}", m.len(), m.values().next());\n}\n'
    )


def go_source(folder: Path) -> None:
    """One small program."""
    (folder / "main.go").write_text(
        'package main\n\nimport (\n\t"fmt"\n\t"sort"\n\t"strings"\n)\n\nfunc main() {\n'
        '\twords := strings.Fields("the quick brown fox")\n\tsort.Strings(words)\n\tfmt.Println(words)\n}\n'
    )


def of(command: str, argument: str = "") -> Callable[[Trace], int]:
    """Chooses the address space of ``command`` with the most faults; ``argument`` is a word of its command line."""

    def choose(trace: Trace) -> int:
        having = {one.mm for one in trace.meta.processes if not argument or argument in one.command.split(" ")}
        faults = np.bincount(trace.events["mm"][trace.events["kind"] == Kind.FAULT], minlength=trace.mms)
        return max(having & set(of_command(trace, command)), key=lambda mm: int(faults[mm]))

    return choose


AS_NOBODY = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups")
AS_POSTGRES = ("setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups")
JAVASCRIPT = (
    "const m=new Map();for(let i=0;i<200000;i++)m.set('k'+i%5000,[i,String(i)]);let n=0;"
    "function f(x){return x*31%977};for(let i=0;i<3e6;i++)n+=f(i);console.log(m.size,n)"
)
LISP = (
    "(progn (defun work (n) (let ((l nil)) (dotimes (i n) (push (list i (* i i)) l)) (length l))) (compile 'work)"
    " (print (work 400000)) (gc :full t) (print (work 400000)) (exit))"
)
MACHINE = "(sleep 4; echo quit) | qemu-system-x86_64 -accel tcg -m 64 -display none -net none -monitor stdio >/dev/null"
CONTAINER = "ps -e; ls /usr/bin | sort -r | head -5 | wc -l; cat /proc/self/status | wc -l"
SQL = (
    "import sqlite3\nc = sqlite3.connect(':memory:')\nc.execute('create table t (a integer, b text)')\n"
    "c.executemany('insert into t values (?, ?)', ((i * 7919 % 20011, 'row %d' % i) for i in range(20000)))\n"
    "c.execute('create index i on t (a)')\nprint(c.execute('select count(*), max(b) from t where a > 500').fetchone())"
)
MMAP_PY = (
    "import mmap, concurrent.futures as f\n"
    "def work(n):\n    m = [mmap.mmap(-1, 65536) for _ in range(24)]\n    [x.write(b'a' * 20000) for x in m]\n"
    "    [x.close() for x in m]\n    return n\n"
    "p = f.ThreadPoolExecutor(6)\nprint(sum(p.map(work, range(24))))"
)

PYTHON = "/usr/bin/python3"
SCIENCE = "import pandas, pyarrow.parquet, scipy.stats, scipy.optimize, scipy.signal, numba"
PIPELINE = "ls /usr/bin | sort -r | head -5 | wc -l"

PROGRAMS = (
    Program("python-json", "start of an interpreter and one import; 1 thread", (PYTHON, "-c", "import json")),
    Program(
        "gcc-project",
        "a compiler driver and what it starts: cc1, as, collect2, ld; vfork and exec",
        ("gcc", "-O2", "-o", "project", "main.c", "sort.c", "table.c"),
        c_project,
    ),
    Program("java-version", "start of a JVM; many threads, much mprotect", ("java", "-version")),
    Program("node-start", "start of a JavaScript engine; reserved ranges, few operations", ("node", "-e", "0")),
    Program("javac-hello", "a compiler on a JVM: the heap grows by mprotect", ("javac", "Hello.java"), java_source),
    Program(
        "git-log", "history with diffs: brk and pack files", ("git", "--no-pager", "log", "--stat"), git_repository
    ),
    Program("sqlite-index", "a database in memory: 20 000 rows and an index", (PYTHON, "-c", SQL)),
    Program("redis-load", "a server and its clients, with one fork for a snapshot", ("sh", "redis.sh"), redis_script),
    Program(
        "python-pandas", "import of large packages: hundreds of VMAs", (sys.executable, "-c", "import pandas, pyarrow")
    ),
    Program(
        "python-science", "import of most of a scientific stack: over a thousand VMAs", (sys.executable, "-c", SCIENCE)
    ),
    Program("mt-alloc", "four threads that map, unmap and fault at once", ("./mt_alloc", "4", "400"), allocator),
    Program("python-threads", "six Python threads that map and unmap", (PYTHON, "-c", MMAP_PY)),
    Program("sh-pipeline", "a shell and short-lived children; fork and exec", ("sh", "-c", PIPELINE)),
    Program(
        "chromium-page",
        "a browser shows one page, in its sandbox: a tree of processes, most of them born by fork",
        (*AS_NOBODY, "sh", "browse.sh"),
        web_page,
    ),
    Program(
        "postgres-pgbench",
        "a database server under pgbench: a process for each client, born by fork, with shared memory",
        (*AS_POSTGRES, "sh", "server.sh"),
        postgres_script,
    ),
    Program(
        "rustc-hello",
        "a compiler in Rust, with LLVM: threads, a heap grown by mmap",
        (shutil.which("rustc") or "rustc", "-O", "--edition", "2021", "main.rs"),
        rust_source,
        of("rustc"),
    ),
    Program(
        "go-compile",
        "a compiler in Go: arenas of a garbage-collected heap, threads",
        ("env", "GOFLAGS=-mod=mod", "sh", "-c", "HOME=$PWD GOCACHE=$PWD/cache go build -o hello main.go"),
        go_source,
        of("compile"),
    ),
    Program("node-jit", "a JavaScript engine with work for its compiler and its collector", ("node", "-e", JAVASCRIPT)),
    Program(
        "qemu-boot",
        "an emulator runs a firmware for four seconds",
        ("sh", "-c", MACHINE),
        choose=of("qemu-system-x86_64"),
    ),
    Program(
        "sbcl-gc",
        "a Lisp with a moving collector that protects pages",
        ("sbcl", "--noinform", "--eval", LISP),
    ),
    Program(
        "mappings-10000",
        "10 000 VMAs: every other page of a reservation made writable",
        ("./storm", "mappings", "10000"),
        storm,
    ),
    Program("threads-2000", "2 000 threads that live at once", ("./storm", "threads", "2000"), storm),
    Program("i386-threads", "a 32-bit program with 40 threads", ("./storm32", "threads", "40"), storm),
    Program(
        "container",
        "a shell in user, PID and mount namespaces of its own",
        ("unshare", "-Urmpf", "--mount-proc", "sh", "-c", CONTAINER),
    ),
)

PARTS = (
    ("chromium-page", "chromium-renderer", "a browser's renderer, born by fork", of("chromium", "--type=renderer")),
    ("postgres-pgbench", "postgres-backend", "a database's process for one client, born by fork", of("postgres:")),
)
"""What is taken out of a tree besides: the tree, the name of the part, what it is, which address space."""


def clean(name: str) -> str:
    """A file name without what tells of this machine."""
    system = ("/usr/", "/lib", "/etc/", "/dev/", "/proc/", "/memfd:", "/SYSV")
    if name.startswith(system) or not name.startswith("/"):
        return name
    return re.sub(r"^.*/(site-packages/.*|lib/python[^/]*/.*|[^/]*)$", r"\1", name)


def scrubbed(trace: Trace, program: Program) -> Trace:
    """The trace with neutral names, a licence and what it stands for."""
    files = tuple(replace(entry, name=clean(entry.name)) for entry in trace.meta.files)
    command = (Path(program.command[0]).name, *program.command[1:])
    notes = (program.about, *(n for n in trace.meta.notes if not n.startswith("mounted")))
    place = re.compile(r"/tmp/bf-?[^ /]*|(/work|/home|/root)/[^ ]*/")
    processes = tuple(replace(p, command=place.sub("FOLDER", p.command)) for p in trace.meta.processes)
    meta = replace(trace.meta, files=files, command=command, licence=LICENCE, notes=notes, processes=processes)
    return Trace(trace.events, trace.time, trace.tid, meta, trace.reports)


@contextlib.contextmanager
def _inside(folder: str) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def record(program: Program) -> Trace:
    """Run one program in a fresh folder at level full."""
    with tempfile.TemporaryDirectory(prefix="bf-") as name, _inside(name):
        program.prepare(Path(name))
        quiet = os.open(os.devnull, os.O_RDWR)
        saved = os.dup(1), os.dup(2)
        try:
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            with planned("full") as plan:
                session = Session(plan)
                session.run(list(program.command))
                trace = session.recording().trace()
                session.close()
        finally:
            for target, fd in zip((1, 2), saved, strict=True):
                os.dup2(fd, target)
                os.close(fd)
            os.close(quiet)
    if trace.meta.lost or trace.meta.exit_status:
        raise RecordError(f"{program.name}: {trace.meta.lost} events lost, exit status {trace.meta.exit_status}")
    if program.choose is not None:
        chosen = program.choose(trace)
        trace = select(trace, chosen)
    return scrubbed(trace, program)


def main() -> int:
    """Record the named programs, or all; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="which traces (all)")
    parser.add_argument("--to", type=Path, default=DATA, help="where the files go")
    wanted = parser.parse_args()
    wanted.to.mkdir(parents=True, exist_ok=True)
    # The environment of the recorder must not colour the programs.
    for name in [n for n in os.environ if n not in ("HOME", "LANG", "TERM")]:
        del os.environ[name]
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    failed = 0
    for program in PROGRAMS:
        if wanted.names and program.name not in wanted.names:
            continue
        if shutil.which(program.command[0]) is None and not program.command[0].startswith("./"):
            print(f"{program.name}: left out, {program.command[0]} is not installed")
            continue
        try:
            trace = record(program)
        except (RecordError, subprocess.CalledProcessError) as error:
            print(f"{program.name}: {error}")
            failed = 1
            continue
        failed |= written(wanted.to / f"{program.name}.parquet", trace)
        for tree, name, about, choose in PARTS:
            if tree == program.name:
                failed |= written(wanted.to / f"{name}.parquet", part(trace, about, choose))
    return failed


def part(tree: Trace, about: str, choose: Callable[[Trace], int]) -> Trace:
    """One address space of a shipped tree."""
    one = select(tree, choose(tree))
    return replace(one, meta=replace(one.meta, notes=(about, *one.meta.notes[1:])))


def written(path: Path, trace: Trace) -> bool:
    """Write a trace and say so; True if it is too large to be shipped."""
    write_trace(path, trace)
    size = path.stat().st_size
    what = f"{len(trace)} events, {trace.tasks} tasks, {trace.mms} address spaces"
    print(f"{path.stem}: {what}, {size / 1024:.1f} KiB")
    return size > LIMIT


if __name__ == "__main__":
    sys.exit(main())
