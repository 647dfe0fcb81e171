"""Allocators: where every object is, whatever was called; what `free` costs; sheaves, the barn and grace periods;
anon_vmas."""

from collections import Counter
from typing import Any

import pytest
from support.programs import HEAP, STACK, long_program
from support.space import PAGE, SIZES

from benchframe.api import Allocator, Strategy, native
from benchframe.mm import kmem
from benchframe.mm.layout import ARENA_PRIVATE0, ARENA_VMA
from benchframe.mm.machine import Machine, Parameters, Space
from benchframe.mm.validate import ValidationError, free_objects, objects_in_use
from benchframe.registry import load
from benchframe.runner import InterpretedRunner
from benchframe.strategy import StrategyError, resolve
from benchframe_plugins import sheaves, slub

ALLOCATORS = {
    "freelists": slub.freelists(),
    "sheaves": sheaves.sheaves(),
    "sheaves, each by callback": sheaves.sheaves(rcu=False),
}
ARENA_NODE = ARENA_PRIVATE0 + 1


def with_allocator(index: str, allocator: Allocator) -> Strategy:
    """The index of a strategy with an allocator."""
    return resolve(Strategy("mine", "x", index, allocator=allocator), load().strategies)


class Caches(Space):
    """An address space whose objects come from an allocator, interpreted."""

    def __init__(self, index: str, allocator: Allocator, seed: int = 0) -> None:
        self.strategy = with_allocator(index, allocator)
        self.runner = InterpretedRunner(self.strategy, allocating=True)
        super().__init__(Machine(self.runner, SIZES, Parameters(), self.strategy.slabs, layout_seed=seed))

    def calls(self, ops: list[Any]) -> None:
        """Perform a program, and check every invariant now and then."""
        current: Any = self
        for number, (name, *arguments) in enumerate(ops):
            if name == "fork":
                current = current.fork()
            else:
                getattr(current, name)(*arguments)
            if number % 40 == 0:
                self.runner.validate(self.machine)
        self.runner.validate(self.machine)


@pytest.mark.parametrize("index", ["maple_rcu", "rbtree"])
@pytest.mark.parametrize("kind", ALLOCATORS)
def test_every_object_is_in_one_place(kind: str, index: str) -> None:
    """After any calls each object is in use or in one place of the allocator; at the end nothing is in use: no leak."""
    space = Caches(index, ALLOCATORS[kind], seed=3)
    space.exec(HEAP)
    space.exec_map(STACK, 4 * PAGE, 3, 1 << 24)
    space.calls([*long_program("kmem", 239), ("fork",), *long_program("kmem", 40)])
    assert objects_in_use(space.machine, ARENA_VMA) > 10
    for number in range(SIZES.mms):
        if space.machine.mm(number)["pgd"]:
            Space(space.machine, number, number).exit()
    left = {which: objects_in_use(space.machine, which) for which in space.machine.caches}
    assert left == dict.fromkeys(left, 0)
    assert index != "maple_rcu" or ARENA_NODE in left


def churn(space: Caches, rounds: int) -> None:
    """Map single pages with holes between, and unmap them again: VMAs and nodes come and go in bursts."""
    for _ in range(rounds):
        for page in range(0, 160, 2):
            space.mmap(0x10000000 + page * PAGE, PAGE, 3, 0x32)
        space.munmap(0x10000000, 160 * PAGE)


def test_what_is_freed_in_bursts_goes_to_the_barn() -> None:
    """More objects than two sheaves hold: full ones go to the barn, and come back from it."""
    space = Caches("maple_rcu", ALLOCATORS["sheaves"])
    churn(space, 6)
    where = set()
    for which in (ARENA_VMA, ARENA_NODE):
        where |= {place.partition(", ")[2] for place in free_objects(space.machine)[which].values()}
    assert {"node 0's full ones", "CPU 1's main", "CPU 1's rcu_free"} <= where
    node = space.machine.arrays[kmem.KMEM_NODE.base]
    assert 0 < node["nr_full"].max() <= sheaves.MAX_FULL


def test_slabs_go_to_the_node_and_come_back() -> None:
    """Freelists: a CPU keeps few partial slabs, the node has the others; what is needed again is not made anew."""
    space = Caches("rbtree", ALLOCATORS["freelists"])
    for page in range(0, 600, 2):
        space.mmap(0x10000000 + page * PAGE, PAGE, 3, 0x32)
    for first in (0, 2):
        for page in range(first, 600, 4):
            space.munmap(0x10000000 + page * PAGE, PAGE)
        space.runner.validate(space.machine)
    cpu, node = (space.machine.arrays[slab.base] for slab in (kmem.KMEM_CPU, kmem.KMEM_NODE))
    assert node["nr_partial"].max() > 0
    assert cpu["nr_partial"].max() <= space.machine.arrays[kmem.KMEM.base]["cpu_partial_slabs"].max()
    made = int(space.machine.arrays[kmem.KMEM.base]["nr_slabs"][ARENA_VMA])
    churn(space, 2)
    assert int(space.machine.arrays[kmem.KMEM.base]["nr_slabs"][ARENA_VMA]) == made


def test_a_store_takes_its_nodes_beforehand() -> None:
    """A store that splits asks for more nodes than it takes: the rest goes back, to the slabs or into the sheaf."""
    asked = []

    class Noting(InterpretedRunner):
        def __init__(self, made: Strategy) -> None:
            def prefill(mm: Any, which: int, count: int) -> int:
                asked.append((which, count))
                return 0

            super().__init__(made, replace={kmem.kmem_cache_prefill: prefill})

    known = load()
    kernel = known.strategy("linux-6.12")
    space = Space(Machine(Noting(kernel), SIZES, Parameters(), kernel.slabs))
    for page in range(0, 60, 2):
        space.mmap(0x10000000 + page * PAGE, PAGE, 3, 0x32)
    assert {which for which, _ in asked} == {ARENA_NODE}
    assert (ARENA_NODE, 1) in asked  # one leaf is replaced: a single node
    assert (ARENA_NODE, 3) in asked  # the only leaf overflows: twice the height, and one
    assert not known.strategy("maple_rcu").binding.get("mas_preallocate")


def test_validate_finds_an_object_in_two_places() -> None:
    """Each of the three damages is told with its place."""
    for kind, base, field, value, told in (
        ("freelists", kmem.KMEM_NODE.base, "list_lock", 1, "list_lock is 1"),
        ("freelists", kmem.KMEM_CPU.base, "nr_partial", 7, "nr_partial is 7, the list has"),
        ("sheaves", kmem.KMEM_NODE.base, "nr_full", 9, "nr_full is 9, the list has"),
    ):
        space = Caches("rbtree", ALLOCATORS[kind])
        churn(space, 1)
        space.machine.arrays[base][field][0] = value
        with pytest.raises(ValidationError, match=told):
            space.runner.validate(space.machine)
    space = Caches("rbtree", ALLOCATORS["sheaves"])
    churn(space, 1)
    slots = space.machine.arrays[kmem.IN_SHEAF.base]["slot"]
    first = (int(space.machine.arrays[kmem.KMEM_CPU.base]["main"].max())) * kmem.SHEAF_CAPACITY
    slots[first + 1] = slots[first]
    with pytest.raises(ValidationError, match=r"object \d+ is in sheaf .* and in sheaf"):
        free_objects(space.machine)


class Rmap:
    """What mm/rmap.c allocates and frees, in objects of Python: cumulative counts by slab."""

    class Anon:
        """An anon_vma: the VMAs in its tree."""

        def __init__(self, parent: "Rmap.Anon | None") -> None:
            self.parent, self.root = parent or self, parent.root if parent else self
            self.vmas: set[int] = set()
            self.children = self.active = 0
            self.refs = 1

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()
        self.own: dict[int, Rmap.Anon] = {}
        self.chains: dict[int, list[Rmap.Anon]] = {}  # the oldest first

    def _anon(self, parent: "Rmap.Anon | None" = None) -> "Rmap.Anon":
        self.counts["alloc", kmem.ARENA_ANON_VMA] += 1
        return self.Anon(parent)

    def _link(self, vma: int, anon: "Rmap.Anon") -> None:
        self.counts["alloc", kmem.ARENA_ANON_VMA_CHAIN] += 1
        self.chains.setdefault(vma, []).append(anon)
        anon.vmas.add(vma)

    def _put(self, anon: "Rmap.Anon") -> None:
        anon.refs -= 1
        if anon.refs == 0:
            self.counts["free", kmem.ARENA_ANON_VMA] += 1
            if anon.root is not anon:
                self._put(anon.root)

    def write(self, vma: int, neighbour: int | None = None) -> None:
        """First write: a neighbour's anon_vma, or a new one."""
        anon = self.own[neighbour] if neighbour is not None else self._anon()
        anon.children += neighbour is None
        anon.active += 1
        self.own[vma] = anon
        self._link(vma, anon)

    def clone(self, vma: int, source: int) -> None:
        """A split, or a copy by mremap."""
        for anon in self.chains[source]:
            self._link(vma, anon)
        self.own[vma] = self.own[source]
        self.own[vma].active += 1

    def fork(self, vma: int, source: int) -> bool:
        """A child's VMA; whether it reuses an anon_vma."""
        for anon in self.chains[source]:
            self._link(vma, anon)
            if vma not in self.own and anon.children < 2 and anon.active == 0:
                self.own[vma] = anon
        reused = vma in self.own
        if not reused:
            parent = self.own[source]
            self.own[vma] = self._anon(parent)
            parent.root.refs += 1
            parent.children += 1
            self._link(vma, self.own[vma])
        self.own[vma].active += 1
        return reused

    def unlink(self, *vmas: int) -> None:
        """munmap, exit."""
        for vma in vmas:
            empty = []
            for anon in reversed(self.chains.pop(vma)):
                self.counts["free", kmem.ARENA_ANON_VMA_CHAIN] += 1
                anon.vmas.remove(vma)
                if not anon.vmas:
                    anon.parent.children -= 1
                    empty.append(anon)
            self.own.pop(vma).active -= 1
            for anon in empty:
                self._put(anon)


def test_anon_vmas_are_allocated_and_freed_as_in_rmap() -> None:
    """First writes, splits, forks (one reuses an anon_vma), mremap, munmap, exec and exit: after each step as many
    anon_vmas and chains have been allocated and freed as in a model of mm/rmap.c; none is left."""
    counts: Counter[tuple[str, int]] = Counter()
    stacks: dict[int, list[int]] = {}

    def alloc(mm: Any, cpu: int, which: int) -> int:
        counts["alloc", which] += 1
        stack = stacks.setdefault(which, list(range(200, 0, -1)))
        return stack.pop()

    def free(mm: Any, cpu: int, which: int, slot: int) -> int:
        counts["free", which] += 1
        stacks[which].append(slot)
        return 0

    strategy = with_allocator("rbtree", ALLOCATORS["freelists"])
    runner = InterpretedRunner(strategy, replace={kmem.alloc: alloc, kmem.free: free}, allocating=True)
    init = Space(Machine(runner, SIZES, Parameters(), strategy.slabs))
    model = Rmap()

    def same() -> None:
        """The counts of both slabs agree."""
        slabs = (kmem.ARENA_ANON_VMA, kmem.ARENA_ANON_VMA_CHAIN)
        assert {key: n for key, n in counts.items() if key[1] in slabs} == dict(model.counts)

    at = 0x10000000
    init.mmap(at, 8 * PAGE, 3, 0x32)
    init.mprotect(at + 4 * PAGE, 4 * PAGE, 7)  # two VMAs that nobody has written
    same()
    init.fault(at, 2)
    model.write(0)
    init.fault(at + 5 * PAGE, 2)
    model.write(1, neighbour=0)
    same()
    init.mprotect(at + PAGE, PAGE, 1)  # two splits
    model.clone(2, 0)
    model.clone(3, 0)
    same()
    init.fault(at + 2 * PAGE, 2)
    child = init.fork()
    reused = [model.fork(10 + i, i) for i in range(4)]
    same()
    grandchild = child.fork()
    reused += [model.fork(20 + i, 10 + i) for i in range(4)]
    assert not any(reused)
    same()
    child.exit()
    model.unlink(*range(10, 14))
    same()
    last = grandchild.fork()
    reused = [model.fork(30 + i, 20 + i) for i in range(4)]
    assert all(reused)  # the child's, which are nobody's own
    same()
    init.mremap(at + 4 * PAGE, 4 * PAGE, 4 * PAGE, 3, at + 64 * PAGE)
    model.clone(4, 1)
    model.unlink(1)
    same()
    init.munmap(at, 4 * PAGE)
    model.unlink(0, 2, 3)
    same()
    last.exec(HEAP)
    model.unlink(*range(30, 34))
    same()
    for space, vmas in ((init, [4]), (grandchild, range(20, 24)), (last, [])):
        space.exit()
        model.unlink(*vmas)
        same()
    assert not model.own
    for which in (kmem.ARENA_ANON_VMA, kmem.ARENA_ANON_VMA_CHAIN):
        assert counts["alloc", which] == counts["free", which] > 4


def test_an_allocator_must_be_whole() -> None:
    """What is missing or too much is named."""

    @native
    def alloc(mm: Any, cpu: int, which: int) -> int:
        return 0

    for allocator, told in (
        (Allocator(kmem_cache_alloc=alloc), r"lacks the hook kmem_cache_free\(mm, cpu, which, slot\)"),
        (
            Allocator(
                kmem_cache_alloc=slub.slub_alloc, kmem_cache_free=slub.slab_free, kmem_cache_prefill=slub.slub_prefill
            ),
            r"lacks the hook kmem_cache_return\(mm, cpu, which\)",
        ),
    ):
        with pytest.raises(StrategyError, match=told):
            with_allocator("rbtree", allocator)


def test_presets_name_the_allocator_of_their_kernel() -> None:
    """SLUB's freelists to 6.17, sheaves in 6.18; 2.4.0 had another; parts of a kernel have none."""
    known = load()
    named = {name: known.strategy(name).allocator for name in known.strategies}
    assert [name for name, one in named.items() if one is not None] == [
        name for name in named if name.startswith("linux-") and name != "linux-2.4.0"
    ]
    assert named["linux-6.18"].binding["kmem_cache_alloc"] is sheaves.sheaf_alloc  # type: ignore[union-attr]
    assert named["linux-6.15"].binding["kmem_cache_alloc"] is slub.slub_alloc  # type: ignore[union-attr]
