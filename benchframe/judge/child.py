"""The judging process: runs operations on its own kernel, in an arena of its own, and reports the results.

This file is run as a script by :mod:`benchframe.judge.judge` and uses nothing but the standard library. A server
process reads batches of operations from stdin. For each it forks a worker, which performs them with syscall(2), records
the return value and the exact list of areas after every one, writes them to stdout and exits. So every batch begins
with an empty arena. Nothing outside the arena is ever changed: :func:`harmless` refuses such operations.

Wire format, 64-bit little-endian words. Request: count, options, then 7 words an operation (code and 6 arguments).
Answer: count of words, then per operation: result, number of areas (or SAME), 4 words an area (start, end,
1 read 2 write 4 execute 8 shared, file offset); then the number of flag bytes, and the flag text itself. If the worker
died, the answer is ENDED, the number of the operation that it was performing, and how it ended.
"""

import ctypes
import mmap
import os
import signal
import sys
from array import array
from pathlib import Path

ARENA = 0x100000000000
ARENA_END = ARENA + (1 << 30)
BRK_BASE = ARENA + (512 << 20)
"""Where the break begins: in the top half of the arena."""
TASK_SIZE = (1 << 47) - 4096
"""User addresses are below it, with four levels of page tables."""
TASK_SIZE_5 = (1 << 56) - 4096
"""With five levels (LA57)."""
PAGE = 4096

MMAP, MUNMAP, MPROTECT, MREMAP, BRK, MADVISE, MLOCK, MUNLOCK, TOUCH, FORK, SHMAT = range(11)
SYSCALL = {MMAP: 9, MUNMAP: 11, MPROTECT: 10, MREMAP: 25, BRK: 12, MADVISE: 28, MLOCK: 149, MUNLOCK: 150}
"""System call numbers of x86-64."""
SHM_GET, SHM_AT, SHM_CTL, SHM_REMAP = 29, 30, 31, 0o40000
"""Those of System V segments, and shmat's flag for a place that need not be free."""
ELSEWHERE = -(1 << 61)
"""Result of a mapping that the kernel placed outside the arena; it is unmapped at once."""
ENDED = -1
"""In place of the count of words: the worker ended before the batch did."""
SAME = 0xFFFF
"""As number of areas it means: the same as after the previous operation."""
WITH_FLAGS, TEXT_MAPS = 1, 2
"""Options of a request: report VmFlags at the end; read maps as text even if PROCMAP_QUERY works."""
WORDS = 7
MASK = (1 << 64) - 1

FILES = (
    # (size in bytes, open flags, number of the inode): what file numbers 0... of an operation mean
    (64 * PAGE, os.O_RDWR, 1),
    (64 * PAGE, os.O_RDWR, 1),
    (64 * PAGE, os.O_RDONLY, 1),
    (2 * PAGE + 100, os.O_RDWR, 2),
    (2 * PAGE + 100, os.O_WRONLY, 2),
)
_QUERY = 0xC0686611  # PROCMAP_QUERY: _IOWR('f', 17, 104 bytes), include/uapi/linux/fs.h
_COVERING_OR_NEXT = 0x10


def page_align(length: int) -> int:
    """``length`` rounded up to pages, wrapping at 2**64."""
    return (length + PAGE - 1) & -PAGE & MASK


def harmless(op: tuple[int, ...], task_size: int = TASK_SIZE) -> bool:
    """Whether an operation cannot change anything outside the arena (it may fail; that is for the kernel to decide).

    Operations that are refused because they reach beyond ``task_size`` are harmless too.
    """
    code, addr, length = op[0], op[1], op[2]
    if code in (FORK, BRK):
        return code == FORK or addr < ARENA or BRK_BASE <= addr <= ARENA_END

    def inside(start: int, size: int) -> bool:
        return start >= ARENA and start + size <= ARENA_END

    if code == TOUCH:
        return inside(addr, 1)
    if code == SHMAT:
        return inside(addr, page_align(length))
    if code == MMAP:
        fixed = op[4] & 0x100010
        refused = addr % PAGE or length > task_size or addr > task_size
        return not fixed or bool(refused) or inside(addr, page_align(length))
    if code == MREMAP:
        source = inside(addr, op[2]) or op[2] > task_size
        shrinks = op[2] > task_size and op[3] < op[2]
        target = not op[4] & 6 or inside(op[5], op[3]) or op[5] % PAGE or op[3] > task_size or op[5] > task_size
        grown = bool(op[4] & 6) or inside(addr, op[3]) or op[3] > task_size  # what lies above the arena is not known
        return ARENA <= addr < ARENA_END and source and grown and not shrinks and bool(target)
    if code == MADVISE:
        return inside(addr, length) or bool(addr % PAGE) or addr + length > MASK
    if code == MUNMAP:
        return inside(addr, length) or length > task_size or addr > task_size or bool(addr % PAGE)
    if code == MPROTECT and op[3] & 0x01000000:  # PROT_GROWSDOWN takes the first area it meets, however far
        return inside(addr, length)
    return ARENA <= addr < ARENA_END  # mprotect, mlock, munlock stop at the hole above the arena


class Worker:
    """The state of a worker for one batch."""

    def __init__(self, files: list[int], scratch: int, text_maps: bool, task_size: int = TASK_SIZE) -> None:
        self.libc = ctypes.PyDLL(None, use_errno=True)
        self.call = self.libc.syscall
        self.call.restype = ctypes.c_long
        self.libc_plain = ctypes.PyDLL(None)
        self.ioctl = self.libc_plain.ioctl
        self.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
        self.files = files
        self.scratch = scratch
        self.task_size = task_size
        self.query = (ctypes.c_uint64 * 13)()
        self.query[0], self.query[1] = 104, _COVERING_OR_NEXT
        self.where = ctypes.addressof(self.query)
        self.text_maps = text_maps
        self.maps = -1

    def open_maps(self) -> None:
        """(Re)open this process's own maps; necessary after every fork."""
        if self.maps >= 0:
            os.close(self.maps)
        self.maps = os.open("/proc/self/maps", os.O_RDONLY | os.O_CLOEXEC)

    def layout(self) -> list[int]:
        """Four words for every area that overlaps the arena."""
        if self.text_maps:
            return self.text_layout()
        words: list[int] = []
        query, where, maps, ioctl = self.query, self.where, self.maps, self.ioctl
        addr = ARENA
        while True:
            query[2] = addr
            if ioctl(maps, _QUERY, where) < 0:
                return words
            start, addr, bits, _, offset = query[3:8]
            if start >= ARENA_END:
                return words
            words += (start, addr, bits & 15, offset)

    def text_layout(self) -> list[int]:
        """:meth:`layout` from /proc/self/maps."""
        words: list[int] = []
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, bits, offset, _ = line.split(" ", 3)
            start, end = (int(part, 16) for part in span.split("-"))
            if ARENA <= start < ARENA_END:
                prot = sum(1 << at for at, letter in enumerate("rwx") if bits[at] == letter)
                words += (start, end, prot | (8 if bits[3] == "s" else 0), int(offset, 16))
        return words

    def flags(self) -> bytes:
        """The VmFlags of every area of the arena, one line each."""
        lines = []
        inside = False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if line.startswith("VmFlags:"):
                if inside:
                    lines.append(" ".join(sorted(line[8:].split())))
            elif line[:1] in "0123456789abcdef":
                inside = ARENA <= int(line[: line.index("-")], 16) < ARENA_END
        return "\n".join(lines).encode()

    def perform(self, op: tuple[int, ...]) -> int:
        """One operation: its result, or -errno."""
        code = op[0]
        if not harmless(op, self.task_size):
            raise ValueError(f"operation {op} could reach outside the arena")
        if code == TOUCH:
            return self.touch(op[1], op[2])
        if code == FORK:
            return self.fork()
        if code == SHMAT:
            return self.shmat(op[1], op[2])
        word = ctypes.c_ulong
        args = [word(arg) for arg in op[1:]]
        if code == MMAP and not op[4] & 0x20:
            args[4] = word(self.files[op[5]] if op[5] < len(self.files) else MASK)
        elif code == MMAP:
            args[4] = word(MASK)
        result = int(self.call(SYSCALL[code], *args))
        if result == -1:
            return -ctypes.get_errno()
        if code in (MMAP, MREMAP) and not ARENA <= result < ARENA_END:
            size = page_align(op[2] if code == MMAP else op[3])
            self.call(SYSCALL[MUNMAP], word(result), word(size))
            return ELSEWHERE
        return result

    def touch(self, addr: int, access: int) -> int:
        """Access one byte from kernel mode, where a bad address gives EFAULT and not a signal."""
        move = self.libc.pread if access & 2 else self.libc.pwrite
        done = move(self.scratch, ctypes.c_void_p(addr), ctypes.c_size_t(1), ctypes.c_long(0))
        return 0 if done == 1 else -ctypes.get_errno()

    def shmat(self, addr: int, length: int) -> int:
        """Attach a new segment at ``addr``; it ends with its last mapping. The address, or -errno."""
        word = ctypes.c_ulong
        segment = self.call(SHM_GET, word(0), word(length), word(0o600))
        if segment < 0:
            return -ctypes.get_errno()
        at = self.call(SHM_AT, word(segment), word(addr), word(SHM_REMAP))
        result = -ctypes.get_errno() if at == -1 else int(at)
        self.call(SHM_CTL, word(segment), word(0), word(0))
        return result

    def fork(self) -> int:
        """Continue in a child; this process only waits for it and ends in the same way."""
        pid = os.fork()
        if pid:
            how = wait(pid)
            if how < 0:
                os.kill(os.getpid(), -how)
            os._exit(how)
        self.open_maps()
        return 0

    def run(self, words: "array[int]", with_flags: bool, reached: "memoryview[int]") -> bytes:
        """Run a whole batch; returns the answer as bytes. ``reached`` has one word, shared with the server: the number
        of the current operation."""
        self.open_maps()
        answer = array("q", [0])
        last: list[int] | None = None
        for at in range(0, len(words), WORDS):
            reached[0] = at // WORDS
            result = self.perform(tuple(words[at : at + WORDS]))
            now = self.layout()
            answer.append(result)
            if now == last:
                answer.append(SAME)
            else:
                answer.append(len(now) // 4)
                answer.extend(now)
            last = now
        text = self.flags() if with_flags else b""
        answer.append(len(text))
        answer[0] = len(answer) - 1
        return answer.tobytes() + text


def open_files() -> list[int]:
    """The files that operations map: some are two open file descriptions of one inode."""
    inodes: dict[int, int] = {}
    files = []
    for size, how, inode in FILES:
        if inode not in inodes:
            inodes[inode] = os.memfd_create(f"benchframe-{inode}")
            os.ftruncate(inodes[inode], size)
        files.append(os.open(f"/proc/self/fd/{inodes[inode]}", how))
    return files


def move_brk(start: int = BRK_BASE, now: int = BRK_BASE) -> bool:
    """Move this process's break: it begins at ``start`` and is at ``now`` (prctl PR_SET_MM_MAP, no privilege needed);
    False if the kernel cannot do it."""
    fields = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
    stat = [int(value) for value in fields[1:]]  # stat[n] is field n + 4 of proc(5)
    pick = {number: stat[number - 4] for number in (26, 27, 28, 45, 46, 48, 49, 50, 51)}
    values = [pick[26], pick[27], pick[45], pick[46], start, now, pick[28], pick[48], pick[49], pick[50]]
    block = array("Q", [*values, pick[51], 0]).tobytes() + array("I", [0, 0xFFFFFFFF]).tobytes()
    buffer = ctypes.create_string_buffer(block, len(block))
    prctl = ctypes.PyDLL(None, use_errno=True).prctl
    long = ctypes.c_ulong
    return bool(prctl(35, long(14), ctypes.byref(buffer), long(len(block)), long(0)) == 0)


def find_task_size() -> int:
    """TASK_SIZE of this process: with five levels of page tables a page can be mapped at 2**47."""
    libc = ctypes.PyDLL(None)
    call, word = libc.syscall, ctypes.c_ulong
    call.restype = ctypes.c_long
    at = call(SYSCALL[MMAP], word(1 << 47), word(PAGE), word(0), word(0x100022), word(MASK), word(0))
    if at == -1:
        return TASK_SIZE
    call(SYSCALL[MUNMAP], word(at), word(PAGE))
    return (
        TASK_SIZE_5 if at == 1 << 47 else TASK_SIZE
    )  # at another address: the kernel is too old for MAP_FIXED_NOREPLACE


def can_query() -> bool:
    """Whether this kernel has PROCMAP_QUERY (Linux 6.11)."""
    worker = Worker([], -1, False)
    worker.open_maps()
    query = worker.query
    query[2] = worker.where
    return bool(worker.ioctl(worker.maps, _QUERY, worker.where) == 0)


def wait(pid: int) -> int:
    """Wait for a child's end: its exit code, or the signal that killed it, negated."""
    _, status = os.waitpid(pid, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


def read_exactly(count: int) -> bytes:
    """``count`` bytes from stdin; fewer only at its end."""
    parts = []
    while count:
        part = os.read(0, count)
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def write_all(data: bytes) -> None:
    """Write all of ``data`` to stdout."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def main() -> None:
    """Serve batches until stdin ends. The first answer describes this kernel: [query, brk moved, TASK_SIZE]."""
    ctypes.PyDLL(None).prctl(1, ctypes.c_ulong(signal.SIGKILL))  # die with the parent
    files, scratch = open_files(), os.memfd_create("benchframe-scratch")
    os.ftruncate(scratch, PAGE)
    query, moved, task_size = can_query(), move_brk(), find_task_size()
    reached = memoryview(mmap.mmap(-1, PAGE)).cast("q")
    write_all(array("q", [query, moved, task_size]).tobytes())
    while head := read_exactly(16):
        count, options = array("q", head)
        words = array("Q", read_exactly(count * WORDS * 8))
        pid = os.fork()
        if not pid:
            try:
                worker = Worker(files, scratch, bool(options & TEXT_MAPS) or not query, task_size)
                write_all(worker.run(words, bool(options & WITH_FLAGS), reached))
            except BaseException as error:  # not raised again: a forked child must not continue in its parent's code
                print(f"judging process: {error!r}", file=sys.stderr)
                os._exit(1)
            os._exit(0)
        how = wait(pid)
        if how:
            write_all(array("q", [ENDED, reached[0], how]).tobytes())
            return


if __name__ == "__main__":
    main()
