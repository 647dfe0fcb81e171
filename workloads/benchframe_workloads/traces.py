"""The recorded traces in ``data/``, one workload each: real programs, event by event.

Each file says in its metadata how it was recorded (``benchframe trace info``). Every file in ``data/`` is a workload;
:data:`ABOUT` describes it.
"""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from benchframe.api import hookimpl
from benchframe.workloads import Workload, trace_workload
from benchframe_workloads._nominal import with_nominal

DATA = Path(str(files("benchframe_workloads"))) / "data"

DEFAULT = ("python-json", "gcc-project", "java-version")
"""The traces that `benchframe run` uses if no workload is named: one thread, a tree of processes, many threads."""

ABOUT = {
    "python-json": (
        "an interpreter starts and imports one module (python3 -c 'import json'); 1 thread",
        "scripts, tests and command-line tools: short processes that map libraries and fault in a small heap",
    ),
    "gcc-project": (
        "gcc compiles three small C files: driver, cc1, as, collect2, ld",
        "builds: vfork and exec again and again, each process with its own address space and a growing heap",
    ),
    "java-version": (
        "a JVM starts (java -version); many threads",
        "managed runtimes: reserved PROT_NONE ranges, mprotect as memory is committed, many threads in one mm",
    ),
    "node-start": (
        "a JavaScript engine starts (node -e 0)",
        "command-line tools on a JIT engine: reserved ranges, guard pages, few mapping calls",
    ),
    "javac-hello": (
        "javac compiles one class",
        "compilers on a JVM: a heap that grows by mprotect while several threads fault",
    ),
    "git-log": (
        "git log --stat over 800 commits",
        "version control: pack files mapped and read in pieces, a heap grown by brk",
    ),
    "sqlite-index": (
        "a database in memory: 20 000 rows and an index",
        "single-threaded data work: a heap that grows steadily, faults nearly all in one VMA",
    ),
    "redis-load": (
        "a key-value server under load, its clients, one fork for a snapshot",
        "servers: first touches of a growing heap, then copy-on-write faults after a fork",
    ),
    "python-pandas": (
        "an interpreter imports large packages (pandas, pyarrow)",
        "scientific Python: hundreds of shared objects, so hundreds of VMAs, and file faults all over them",
    ),
    "python-science": (
        "an interpreter imports most of a scientific stack; over 1 300 VMAs at its peak",
        "the largest address spaces of ordinary programs: deep trees, and a working set of few VMAs among very many",
    ),
    "mt-alloc": (
        "four threads map, unmap and fault at once",
        "multi-threaded allocators: arenas that come and go while other threads fault",
    ),
    "python-threads": (
        "six Python threads that map, fill and unmap buffers",
        "thread pools that work in mapped buffers: mapping calls from several threads between short bursts of faults",
    ),
    "sh-pipeline": (
        "a shell starts five short programs in a pipe",
        "shell scripts: fork, exec and exit, few faults in each of many address spaces",
    ),
    "chromium-page": (
        "a browser shows one page, in its sandbox; forty address spaces, up to a thousand VMAs each",
        "browsers: processes born by fork with most of their mappings, heaps in reserved ranges, many threads",
    ),
    "postgres-pgbench": (
        "a database server and its clients (pgbench), a process for each",
        "servers of many processes: born by fork, shared memory, few mapping calls and a small working set",
    ),
    "chromium-renderer": (
        "a browser's renderer: the largest of the processes of chromium-page",
        "one process of a browser: born by fork with 600 mappings, then threads, a JavaScript heap, more than 900 VMAs",
    ),
    "postgres-backend": (
        "a database's process for one client: the largest of postgres-pgbench",
        "one process of a database server: born by fork with its shared memory, a small heap, few mapping calls",
    ),
    "rustc-hello": (
        "a compiler in Rust compiles one file (rustc -O)",
        "large native compilers: LLVM, several threads, a heap grown by mmap",
    ),
    "go-compile": (
        "a compiler in Go compiles one file",
        "Go programs: arenas reserved at fixed addresses, a collector in threads of its own",
    ),
    "node-jit": (
        "a JavaScript engine compiles a loop and fills a map",
        "JIT engines at work: code pages that change protection, a heap that is collected",
    ),
    "qemu-boot": (
        "an emulator runs a firmware for four seconds",
        "emulators and virtual machines: guest memory in one large mapping, a code buffer, hundreds of libraries",
    ),
    "sbcl-gc": (
        "a Lisp conses, collects and conses again",
        "moving collectors: memory unmapped, protected and faulted in again",
    ),
    "mappings-10000": (
        "10 000 VMAs, made one by one by mprotect, then touched in a mixed order",
        "address spaces of many VMAs: allocators with guard pages, databases that map each file",
    ),
    "threads-2000": (
        "2 000 threads that live at once",
        "servers with a thread for each client: a stack and its guard page each, thousands of VMAs",
    ),
    "i386-threads": (
        "a 32-bit program with 40 threads",
        "32-bit programs: 4 GiB of address space, other addresses than any 64-bit program has",
    ),
    "container": (
        "a shell and its children in user, PID and mount namespaces of their own",
        "containers: the same calls as outside, in a process tree of its own",
    ),
}
"""From a file's name without suffix to its summary and what it represents."""

TAGS = {
    "interpreter": (
        "python-json",
        "python-pandas",
        "python-science",
        "python-threads",
        "sqlite-index",
        "sh-pipeline",
        "container",
    ),
    "compiler": ("gcc-project", "javac-hello", "rustc-hello", "go-compile"),
    "runtime": (
        "java-version",
        "javac-hello",
        "node-start",
        "node-jit",
        "go-compile",
        "sbcl-gc",
        "chromium-page",
        "chromium-renderer",
    ),
    "server": ("redis-load", "postgres-pgbench", "postgres-backend", "threads-2000"),
    "browser": ("chromium-page", "chromium-renderer"),
    "emulator": ("qemu-boot",),
    "tree": ("chromium-page", "postgres-pgbench", "gcc-project", "redis-load", "sh-pipeline", "container"),
    "threads": (
        "java-version",
        "javac-hello",
        "mt-alloc",
        "python-threads",
        "chromium-page",
        "chromium-renderer",
        "threads-2000",
        "i386-threads",
    ),
    "many-vmas": ("python-science", "mappings-10000", "threads-2000"),
    "32-bit": ("i386-threads",),
}
"""The tags for `benchframe list traces --tag`: the kinds of program, and special properties of their address spaces."""


@hookimpl
def benchframe_workloads() -> list[Workload]:
    """One workload for each ``data/*.parquet``, in order of name; a file is read only when its trace is needed."""
    found = []
    for path in sorted(DATA.glob("*.parquet")):
        workload = trace_workload(path)
        summary, stands_for = ABOUT.get(path.stem, (f"recorded trace of {path.stem}", workload.stands_for))
        tags = (
            "trace",
            *(["default"] if path.stem in DEFAULT else []),
            *(t for t, of in TAGS.items() if path.stem in of),
        )
        found.append(replace(workload, summary=summary, stands_for=stands_for, tags=tags))
    return with_nominal(found)
