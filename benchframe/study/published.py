"""Published figures, each with its source, and the workload that represents the published load here.

A *hit* is a share of lookups, in percent: counted, so the same on every machine. A *time* is a ratio of two
strategies' ns per operation: measured in paired rounds. ``cpus`` is how many CPUs the published effect needs; with
fewer the claim is not judged. A *curve* needs more CPUs than most machines have: it is simulated, not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchframe.engine.caches import UNTOUCHED, USUAL, Caches

BUESO = "D. Bueso, commit 615d6e8756c8 (Linux 3.15), 80 cores, 8 sockets"
RIENTJES = "D. Rientjes, vmacache by PMD, 9 July 2018 (Linux 4.19), production profiles"
COMMENT = "comment in find_vma, mm/mmap.c (Linux 2.2 to 3.14)"
LARGEST = "D. Bueso, 'mm: cache largest vma', 1 November 2013, desktops, Hadoop, aim7"
COVER = "H. Kamezawa, cover of 'speculative page fault', 18 December 2009, 8 cores, 2 sockets, 8 threads"
WASH = "M. Wilcox, 27 April 2022, mmtests: 'performance-wise it's a wash'"
RCU_MODE = "L. Howlett, 27 March 2023, will-it-scale brk1-processes: 15 to 20 % slower"
PER_VMA = (
    "S. Baghdasaryan, per-VMA locks v4, 27 February 2023: about 75 % of the gain of speculative faults, which was 3.7x "
    "on 48 threads (M. Lespinasse, 30 April 2021, pft)"
)
REFCNT = (
    "S. Baghdasaryan, 'reimplement per-vma lock as a refcount', 2025 (Linux 6.15), pft, faults per second by number of "
    "CPUs"
)

ZIJLSTRA = (
    "P. Zijlstra's table in a mail of L. Torvalds, 8 January 2010 (alpine.LFD.2.00.1001080911340.7821), 2 sockets, "
    "faults per minute: 56.4 M, with an xadd rwsem 174.8 M, with speculative faults as well 200.2 M"
)
LESPINASSE = "M. Lespinasse, 'Speculative page faults', 30 April 2021, pft with 48 threads on 2 x E5-2690 v3, 24 cores"
BONSAI = "A. Clements and others, Bonsai, ASPLOS 2012, abstract: with 80 cores a fault costs as much as with one"
FAULT_2014 = "fault=400,mapping=300,page=600"
"""Declared work between the profiles server-2010 and server."""
PFT = "pft:vmas=30"
SPLIT = "multi-fault-all-split:vmas=300"


@dataclass(frozen=True)
class Hit:
    """One published hit rate: ``percent`` for ``strategy`` on ``load``, re-enacted by ``workload``; ``first`` selects
    the share of hits in the hashed slot."""

    load: str
    workload: str
    strategy: str
    percent: float
    first: bool = False


@dataclass(frozen=True)
class HitClaim:
    """Hit rates published together; in each load the later strategy has more hits (or the same, for one strategy
    alone). ``within`` is how many percentage points a figure may differ to be of the same order."""

    name: str
    says: str
    source: str
    hits: tuple[Hit, ...]
    within: float = 15.0
    low: float | None = None
    """For one strategy on many loads: the published range is from here to ``hits[..].percent``."""


@dataclass(frozen=True)
class TimeClaim:
    """``strategy`` against ``baseline``: ``ratio`` of ``figure`` (lookup, fault, mapping, replay) as published; below 1
    is faster.

    ``same`` claims say that there is no difference, within ``tolerance``; for other claims a ratio on the same side of
    1 whose distance from 1 is within a factor of ``tolerance`` is of the same order. ``threads`` is how many real
    threads it was measured with (0: one replay): here there are as many as CPUs, and if those are fewer only the side
    of 1 is judged. A claim with fewer CPUs here than ``cpus`` is not judged. ``caches``: the state in which the
    published load found the caches; if that is not warm, the ratio with warm ones is told beside it.
    """

    name: str
    says: str
    source: str
    strategy: str
    baseline: str
    figure: str
    workloads: tuple[str, ...]
    ratio: float
    tolerance: float
    same: bool = False
    cpus: int = 1
    threads: int = 0
    caches: Caches = UNTOUCHED


@dataclass(frozen=True, kw_only=True)
class CurveClaim:
    """Throughput of ``strategy`` on ``cpus`` simulated CPUs of ``machine``."""

    name: str
    says: str
    source: str
    strategy: str
    cpus: int
    workload: str
    machine: str
    work: str
    """What is declared around each event: a profile of simulator/work.toml, or ns by event (``fault=400,page=600``)."""
    value: float
    """As published: operations per second of all CPUs; with a ``baseline`` the ratio of two such throughputs."""
    low: float
    """In the unit of ``value``: a simulated figure from here to ``high`` reproduces it."""
    high: float
    assumed: str
    """What the publication leaves open and was chosen here."""
    baseline: str = ""
    """The strategy to whose throughput on ``baseline_cpus`` CPUs ``value`` is relative."""
    baseline_cpus: int = 0
    layout: str = "model"
    """The layout of fields with which ``strategy`` is simulated (simulator/layouts.toml)."""
    baseline_layout: str = "model"


Claim = HitClaim | TimeClaim | CurveClaim

CLAIMS: tuple[Claim, ...] = (
    HitClaim(
        "vmacache-hits",
        "four VMAs per task hit more often than one per mm",
        BUESO,
        (
            Hit("system boot", "sh-pipeline", "mmap_cache", 50.61),
            Hit("system boot", "sh-pipeline", "vmacache", 73.45),
            Hit("kernel build", "gcc-project", "mmap_cache", 75.28),
            Hit("kernel build", "gcc-project", "vmacache", 88.09),
            Hit("data mining, Oracle 11g", "sqlite-index", "mmap_cache", 70.66),
            Hit("data mining, Oracle 11g", "sqlite-index", "vmacache", 91.15),
        ),
    ),
    HitClaim(
        "vmacache-ebizzy",
        "80 threads that each work in their own arena evict each other from a single pointer per mm",
        BUESO,
        (
            Hit("ebizzy, 80 threads", "@threads", "mmap_cache", 1.06),
            Hit("ebizzy, 80 threads", "@threads", "vmacache", 99.97),
        ),
        within=1.0,
    ),
    HitClaim(
        "pmd-hash",
        "hashed by 2 MiB region, the slot that is probed first answers most hits",
        RIENTJES,
        (
            Hit("kernel build for production", "gcc-project", "vmacache", 25.0, first=True),
            Hit("kernel build for production", "gcc-project", "vmacache_pmd", 70.0, first=True),
            Hit("JVM for production", "java-version", "vmacache", 25.0, first=True),
            Hit("JVM for production", "java-version", "vmacache_pmd", 70.0, first=True),
        ),
        within=20.0,
    ),
    HitClaim(
        "mmap-cache-range",
        "one pointer per mm hits in 35 % (the comment) to 75 % (a kernel build) of lookups",
        f"{COMMENT}; {BUESO}; {LARGEST}",
        tuple(
            Hit("mixed loads", name, "mmap_cache", 75.28)
            for name in ("python-json", "gcc-project", "git-log", "sqlite-index", "javac-hello", "redis-load")
        ),
        low=35.0,
    ),
    TimeClaim(
        "vmacache-cycles",
        "find_vma takes 9.31 instead of 11.03 G cycles in a kernel build",
        BUESO,
        "vmacache",
        "mmap_cache",
        "lookup",
        ("gcc-project",),
        9.31 / 11.03,
        2.0,
        caches=USUAL,
    ),
    TimeClaim(
        "speculative-faults",
        "39 800 221 instead of 15 774 882 faults in 60 s",
        COVER,
        "pmdcache",
        "rbtree",
        "fault",
        ("multi-fault-all-split",),
        15_774_882 / 39_800_221,
        2.0,
        threads=8,
    ),
    TimeClaim(
        "maple-wash",
        "the maple tree alone is as fast as rb-tree, list and vmacache together",
        WASH,
        "linux-6.1",
        "linux-5.10",
        "replay",
        ("python-json", "gcc-project", "java-version"),
        1.0,
        0.1,
        same=True,
        caches=USUAL,
    ),
    TimeClaim(
        "rcu-mode",
        "nodes are replaced instead of written in place, which makes brk slower",
        RCU_MODE,
        "maple_rcu",
        "maple",
        "mapping",
        ("@brk",),
        1.175,
        3.0,
    ),
    TimeClaim(
        "per-vma-lock",
        "a fault that holds one VMA does not wait for mmap_lock",
        PER_VMA,
        "per_vma_rwsem",
        "maple_rcu",
        "fault",
        ("multi-fault-all-split",),
        1 / (1 + 0.75 * 2.7),
        2.0,
        threads=48,
    ),
    TimeClaim(
        "refcnt-one-cpu",
        "a count instead of a rwsem in each VMA: -0.28 % faults per second on 1 CPU",
        REFCNT,
        "per_vma_refcnt",
        "per_vma_rwsem",
        "fault",
        ("multi-fault-all-split",),
        1.0028,
        0.05,
        same=True,
    ),
    TimeClaim(
        "refcnt-two-cpus",
        "a count instead of a rwsem in each VMA: between -0.28 % (1 CPU) and +0.34 % (4 CPUs) faults per second",
        REFCNT,
        "per_vma_refcnt",
        "per_vma_rwsem",
        "fault",
        ("multi-fault-all-split",),
        1.0,
        0.05,
        same=True,
        threads=2,
    ),
    TimeClaim(
        "refcnt-many-cpus",
        "a count instead of a rwsem in each VMA: +14.77 % faults per second on 21 CPUs",
        REFCNT,
        "per_vma_refcnt",
        "per_vma_rwsem",
        "fault",
        ("multi-fault-all-split",),
        1 / 1.1477,
        2.0,
        cpus=21,
    ),
    CurveClaim(
        name="xadd-2010",
        says="174 753 190 faults a minute on 8 CPUs once a reader takes mmap_sem by one xadd",
        source=ZIJLSTRA,
        strategy="rbtree",
        cpus=8,
        workload=SPLIT,
        machine="nehalem-2s",
        work="server-2010",
        value=174_753_190 / 60,
        low=0.9 * 174_753_190 / 60,
        high=1.1 * 174_753_190 / 60,
        assumed="the machine is a Nehalem of 2 x 4 cores; the work around a fault was chosen so that one thread alone "
        "comes near the published figures, so only what mmap_lock takes away is simulated",
    ),
    CurveClaim(
        name="spf-2010",
        says="speculative faults beside the xadd rwsem: 1.15 times as many",
        source=ZIJLSTRA,
        strategy="spf_seqcount",
        cpus=8,
        workload=SPLIT,
        machine="nehalem-2s",
        work="server-2010",
        value=200_174_641 / 174_753_190,
        low=1.07,
        high=1.22,
        assumed="as xadd-2010; reproduced: from half of the published gain to one and a half of it",
        baseline="rbtree",
        baseline_cpus=8,
    ),
    CurveClaim(
        name="spf-scales",
        says="speculative faults: 24 times one thread's throughput",
        source=LESPINASSE,
        strategy="spf_mmseq",
        cpus=24,
        workload=PFT,
        machine="haswell-2s",
        work=FAULT_2014,
        value=24.0,
        low=22.0,
        high=26.0,
        assumed="24 threads, one a core, in one VMA, for 48 hyperthreads; 1000 ns of work around a fault",
        baseline="spf_mmseq",
        baseline_cpus=1,
    ),
    CurveClaim(
        name="spf-mmap-lock",
        says="speculative faults: 3.7 times as many as with mmap_lock",
        source=LESPINASSE,
        strategy="spf_mmseq",
        cpus=24,
        workload=PFT,
        machine="haswell-2s",
        work=FAULT_2014,
        value=3.7,
        low=3.7 / 1.25,
        high=3.7 * 1.25,
        assumed="as spf-scales; the ratio falls as more work is declared",
        baseline="rbtree",
        baseline_cpus=24,
    ),
    CurveClaim(
        name="spf-vma-atomic",
        says="one atomic variable per VMA, written by every fault, costs 62 % of the throughput",
        source=LESPINASSE,
        strategy="per_vma_refcnt",
        cpus=24,
        workload=PFT,
        machine="haswell-2s",
        work=FAULT_2014,
        value=0.38,
        low=0.38 / 1.5,
        high=0.38 * 1.5,
        assumed="as spf-scales; per_vma_refcnt has two atomics a fault, one to take and one to give back",
        baseline="spf_mmseq",
        baseline_cpus=24,
    ),
    CurveClaim(
        name="per-vma-lock-48",
        says="per-VMA locks give 75 % of the gain of speculative faults, which was 3.7x on 48 threads",
        source=PER_VMA,
        strategy="per_vma_rwsem",
        cpus=48,
        workload=SPLIT,
        machine="icelake-2s",
        work="server",
        value=1 + 0.75 * 2.7,
        low=1 + 0.75 * 2.7 / 2,
        high=1 + 0.75 * 2.7 * 2,
        assumed="the machine is not named; each thread faults in a VMA of its own (in one VMA for all there is no gain "
        "here)",
        baseline="maple_rcu",
        baseline_cpus=48,
    ),
    CurveClaim(
        name="refcnt-21",
        says="a count instead of a rwsem in each VMA: +14.77 % faults per second on 21 CPUs",
        source=REFCNT,
        strategy="per_vma_refcnt",
        layout="linux-6.15",
        cpus=21,
        workload=PFT,
        machine="icelake-2s",
        work="fault=800,page=1120",
        value=1.1477,
        low=1.07,
        high=1.22,
        assumed="the machine is not named; one VMA; 1.92 us around a fault, with which one CPU makes the published "
        "0.51 million faults per second; each strategy in its kernel's layout; the rwsem stores no owner",
        baseline="per_vma_rwsem",
        baseline_cpus=21,
        baseline_layout="linux-6.12",
    ),
    CurveClaim(
        name="bonsai-faults",
        says="faults under RCU: 80 cores make 80 times as many as one",
        source=BONSAI,
        strategy="rcu_fault",
        cpus=80,
        workload=SPLIT,
        machine="milan-2s",
        work="server",
        value=80.0,
        low=64.0,
        high=88.0,
        assumed="rcu_fault stands for Bonsai's faults: RCU, nothing shared is written, a check under the page table's "
        "lock; its tree is a maple tree; nobody maps meanwhile",
        baseline="rcu_fault",
        baseline_cpus=1,
    ),
)
"""Every claim, in the table's order."""
