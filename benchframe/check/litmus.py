"""Litmus tests in the C of the kernel's tools/memory-model: parse them, and run them as tasks of the search.

Supported: READ_ONCE to smp_store_mb, barriers, xchg and cmpxchg, atomic_t, spinlocks, RCU, plain accesses, pointers to
locations, if and else, local variables, integer expressions. Not supported: SRCU, loops, arrays, structs.

Two things are read, but not searched: load buffering, and what plain accesses that tasks share may do beyond READ_ONCE
and WRITE_ONCE. Both only allow more. So "Sometimes" holds; "Never" and "Always" hold if the test has neither, which
:attr:`Answer.beyond` tells.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchframe.check.axioms import LKMM, WORDS
from benchframe.check.graph import SHIFT, WAITS, Graph, Label
from benchframe.check.trust import Seen, Trust, replay, value_of

Value = int | str
"""A number, or ``&x``: the address of location x."""
Task = Generator[Label, Any, None]


class Unsupported(Exception):
    """A test that uses something unsupported."""


@dataclass
class Test:
    """One litmus test. ``quantifier`` is exists, ~exists or forall; ``result`` is the expectation in the file's
    comment."""

    name: str
    init: dict[str, Value]
    tasks: list[tuple[list[str], list[Any]]]
    """For each task: its parameters, its statements."""
    quantifier: str
    condition: Any
    result: str = ""
    filter: Any = None


@dataclass
class Answer:
    """The result of a test: graphs in which the condition holds and in which it does not; graphs that were cut off."""

    holds: int = 0
    fails: int = 0
    outcomes: set[tuple[tuple[str, Value], ...]] = field(default_factory=set)
    """The final values that the condition mentions."""
    complete: bool = True
    checks: int = 0
    beyond: str = ""
    """Why executions that are not searched might have another outcome: "plain accesses" or "load buffering"."""

    def verdict(self, quantifier: str) -> str:
        """Never, Sometimes or Always, for the proposition as herd7 prints it."""
        if not self.holds:
            return "Never"
        return "Sometimes" if self.fails else "Always"


# ---- reading ---------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"\s*(?:(0x[0-9a-fA-F]+|\d+)|([A-Za-z_]\w*)|(->|&&|\|\||==|!=|<=|>=|<<|>>|/\\|\\/|[-+*/%&|^!~<>=(){}\[\],;:.?@]))"
)
_LEVELS = (("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", ">", "<=", ">="), ("<<", ">>"), ("+", "-"),
           ("*", "/", "%"))  # fmt: skip
_TYPES = frozenset(
    {"int", "long", "short", "char", "unsigned", "signed", "volatile", "const", "struct", "intptr_t", "uintptr_t"}
    | {"atomic_t", "atomic64_t", "atomic_long_t", "spinlock_t", "u8", "u16", "u32", "u64", "s64", "bool"}
)


class _Parser:
    def __init__(self, text: str) -> None:
        text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)
        self.tokens: list[str] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise Unsupported(f"the text {text[at : at + 20]!r}")
            self.tokens.append(found[1] or found[2] or found[3])
            at = found.end()
        self.at = 0

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise Unsupported(f"{token!r} where {wanted or 'more'!r} is expected")
        self.at += 1
        return token

    def skip_type(self) -> bool:
        """Skip the words of a type; returns whether there were any."""
        began = self.at
        while self.peek() in _TYPES:
            if self.take() == "struct":
                raise Unsupported("a struct")
        found = self.at > began
        while found and self.peek() == "*":
            self.take()
        return found

    # ---- expressions: ("num", n) ("name", x) ("addr", x) ("deref", e) (op, a, b) ("call", f, args) -------------------

    def expression(self, level: int = 0) -> Any:
        if level == len(_LEVELS):
            return self.unary()
        left = self.expression(level + 1)
        while self.peek() in _LEVELS[level]:
            operator = self.take()
            left = (operator, left, self.expression(level + 1))
        return left

    def unary(self) -> Any:
        token = self.peek()
        if token in ("!", "-", "~"):
            return ("u" + self.take(), self.unary())
        if token == "*":
            self.take()
            return ("deref", self.unary())
        if token == "&":
            self.take()
            return ("addr", self.unary())
        if token == "(":
            self.take()
            if self.peek() in _TYPES:
                self.skip_type()
                self.take(")")
                return self.unary()
            inner = self.expression()
            self.take(")")
            return inner
        self.take()
        if re.fullmatch(r"0x[0-9a-fA-F]+|\d+", token):
            return ("num", int(token, 0))
        if not re.fullmatch(r"[A-Za-z_]\w*", token):
            raise Unsupported(f"the expression at {token!r}")
        if self.peek() == "(":
            self.take()
            arguments = []
            while self.peek() != ")":
                arguments.append(self.expression())
                if self.peek() == ",":
                    self.take()
            self.take(")")
            return ("call", token, arguments)
        if self.peek() in ("[", "->", "."):
            raise Unsupported("an array or a struct")
        return ("name", token)

    # ---- statements --------------------------------------------------------------------------------------------------

    def block(self) -> list[Any]:
        self.take("{")
        found: list[Any] = []
        while self.peek() != "}":
            found += self.statement()
        self.take("}")
        return found

    def body(self) -> list[Any]:
        return self.block() if self.peek() == "{" else self.statement()

    def statement(self) -> list[Any]:
        token = self.peek()
        if token == ";":
            self.take()
            return []
        if token == "{":
            return self.block()
        if token == "if":
            self.take()
            self.take("(")
            condition = self.expression()
            self.take(")")
            yes = self.body()
            no: list[Any] = []
            if self.peek() == "else":
                self.take()
                no = self.body()
            return [("if", condition, yes, no)]
        if token in ("while", "for", "do", "goto", "switch", "return", "break"):
            raise Unsupported(token)
        if self.skip_type():
            name = self.take()
            if self.peek() == ";":
                self.take()
                return [("set", ("name", name), ("num", 0))]
            self.take("=")
            value = self.expression()
            self.take(";")
            return [("set", ("name", name), value)]
        left = self.expression()
        if self.peek() == "=":
            self.take()
            right = self.expression()
            self.take(";")
            return [("set", left, right)]
        self.take(";")
        return [("do", left)]

    # ---- the whole ---------------------------------------------------------------------------------------------------

    def condition(self) -> Any:
        """exists (...): ("and", a, b), ("or", a, b), ("not", a), ("is", place, value)."""
        left = self.conjunction()
        while self.peek() in ("\\/", "||"):
            self.take()
            left = ("or", left, self.conjunction())
        return left

    def conjunction(self) -> Any:
        left = self.atom()
        while self.peek() in ("/\\", "&&"):
            self.take()
            left = ("and", left, self.atom())
        return left

    def atom(self) -> Any:
        if self.peek() in ("~", "not"):
            self.take()
            return ("not", self.atom())
        if self.peek() == "(":
            self.take()
            inner = self.condition()
            self.take(")")
            return inner
        if self.peek() == "true":
            self.take()
            return ("true",)
        place = self.take()
        if place == "[":
            place = self.take()
            self.take("]")
        if place == "*":
            place = self.take()
        if self.peek() == ":":
            self.take()
            place = f"{place}:{self.take()}"
        operator = self.take()
        if operator not in ("=", "==", "!=", "<>"):
            raise Unsupported(f"the condition {operator}")
        value: Any = self.constant()
        if self.peek() == ":":
            self.take()
            value = ("at", f"{value}:{self.take()}")
        return ("is", place, value) if operator in ("=", "==") else ("not", ("is", place, value))

    def constant(self) -> Value:
        if self.peek() == "&":
            self.take()
            return "&" + self.take()
        if self.peek() == "-":
            self.take()
            return -int(self.take(), 0)
        token = self.take()
        if token.upper() == "NULL":
            return 0
        return int(token, 0) if token[0].isdigit() else "&" + token

    def init(self) -> dict[str, Value]:
        self.take("{")
        found: dict[str, Value] = {}
        while self.peek() != "}":
            if self.peek() == ";":
                self.take()
                continue
            self.skip_type()
            if self.peek() == "*":
                self.take()
            name = self.take()
            if name.isdigit() and self.peek() == ":":
                self.take()
                name = f"{name}:{self.take()}"
            if self.peek() == "[":
                raise Unsupported("an array")
            found[name] = 0
            if self.peek() == "=":
                self.take()
                if self.peek() == "(":
                    self.take()
                    self.skip_type()
                    self.take(")")
                if self.peek() == "ATOMIC_INIT":
                    self.take()
                    self.take("(")
                    found[name] = self.constant()
                    self.take(")")
                else:
                    found[name] = self.constant()
            if self.peek() == ";":
                self.take()
        self.take("}")
        return found


def parse(text: str, name: str = "") -> Test:
    """Parse a litmus test. Raises Unsupported for unsupported parts."""
    result = re.search(r"Result:\s*(Never|Sometimes|Always|DEADLOCK)", text)
    comment = r"(?:\(\*(?=[\s*])|^[ \t]*\(\*).*?\*\)"  # and not READ_ONCE(*x)
    body = re.sub(comment, " ", text, flags=re.DOTALL | re.MULTILINE)
    head = re.match(r"\s*C\s+(\S+)", body)
    if head is None:
        raise Unsupported("a test that is not C")
    body = body[head.end() :]
    opening = body.find("{")
    parser = _Parser(body[opening:])
    init = parser.init()
    tasks: list[tuple[list[str], list[Any]]] = []
    while re.fullmatch(r"P\d+", parser.peek()):
        parser.take()
        parser.take("(")
        names = []
        while parser.peek() != ")":
            parser.skip_type()
            names.append(parser.take())
            if parser.peek() == ",":
                parser.take()
        parser.take(")")
        tasks.append((names, parser.block()))
    only: Any = None
    while parser.peek() in ("locations", "filter"):
        if parser.take() == "filter":
            only = parser.condition()
        else:
            while parser.take() != "]":
                pass
    quantifier = parser.take()
    if quantifier == "~":
        quantifier += parser.take()
    if quantifier not in ("exists", "~exists", "forall"):
        raise Unsupported(f"the quantifier {quantifier}")
    condition = parser.condition()
    return Test(name or head[1], init, tasks, quantifier, condition, result[1] if result else "", only)


def read_test(path: Path) -> Test:
    """The test in a file."""
    return parse(path.read_text(errors="replace"), path.stem)


# ---- running ---------------------------------------------------------------------------------------------------------

_RMW_ORDERS = {"": "full", "_relaxed": "once", "_acquire": "acquire", "_release": "release"}
_FENCES = {"smp_mb": "mb", "smp_rmb": "rmb", "smp_wmb": "wmb", "smp_mb__before_atomic": "before-atomic",
           "smp_mb__after_atomic": "after-atomic", "smp_mb__after_spinlock": "after-spinlock",
           "smp_mb__after_unlock_lock": "after-unlock-lock", "barrier": "barrier"}  # fmt: skip
_READS = {"READ_ONCE": "once", "smp_load_acquire": "acquire", "rcu_dereference": "once", "atomic_read": "once",
          "atomic_read_acquire": "acquire", "atomic_long_read": "once"}  # fmt: skip
_WRITES = {"WRITE_ONCE": "once", "smp_store_release": "release", "rcu_assign_pointer": "release", "atomic_set": "once",
           "atomic_set_release": "release", "smp_store_mb": "mb"}  # fmt: skip
_ATOMIC = re.compile(
    r"atomic(?:_long|64)?_(fetch_)?(add|sub|inc|dec|or|and|xor|xchg|cmpxchg)"
    r"(_return|_and_test|_negative|_unless)?(_relaxed|_acquire|_release)?$"
)


class _Thread:
    """One task: registers, each with its dependencies."""

    def __init__(self, number: int, names: list[str], init: Mapping[str, Value], others: int) -> None:
        mine = f"{number}:"
        self.number, self.locations = number, set(names) | {name for name in init if ":" not in name}
        self.registers: dict[str, tuple[Value, int]] = {
            name.removeprefix(mine): (value, 0) for name, value in init.items() if name.startswith(mine)
        }
        self.index = 0
        self.arm = 0
        """The loads that decided on the arms of if and else in which it is."""
        self.sections = 0
        self.others = others

    def event(self, label: Label) -> Generator[Label, Any, Any]:
        label.arm = self.arm
        self.index += 1
        return (yield label)

    def run(self, statements: list[Any]) -> Task:
        for one in statements:
            if one[0] == "if":
                value, deps = yield from self.value(one[1])
                outside, self.arm = self.arm, self.arm | deps
                yield from self.run(one[2] if value else one[3])
                self.arm = outside
            elif one[0] == "do":
                yield from self.value(one[1])
            else:
                value, deps = yield from self.value(one[2])
                target = one[1]
                if target[0] == "name" and target[1] not in self.locations:
                    self.registers[target[1]] = (value, deps)
                else:
                    loc, addr = yield from self.place(target[1] if target[0] == "deref" else ("addr", target))
                    yield from self.event(Label("W", loc, value, addr=addr, data=deps, plain=True))

    def value(self, e: Any) -> Generator[Label, Any, tuple[Value, int]]:
        """An expression: its value, and the mask of the loads on which it depends."""
        kind = e[0]
        if kind == "num":
            return e[1], 0
        if kind == "name":
            if e[1] in self.registers:
                return self.registers[e[1]]
            if e[1] in self.locations:  # a parameter used as a pointer
                return "&" + e[1], 0
            return 0, 0  # a register that only the other branch would have set
        if kind == "addr":
            return (yield from self.value(("name", e[1][1]) if e[1][0] == "name" else e[1][1]))
        if kind == "deref":
            loc, addr = yield from self.place(e[1])
            at = self.index
            value = yield from self.event(Label("R", loc, addr=addr, plain=True))
            return value, 1 << at
        if kind == "call":
            return (yield from self.call(e[1], e[2]))
        if kind[0] == "u":
            value, deps = yield from self.value(e[1])
            if isinstance(value, str):
                raise Unsupported("arithmetic on addresses")
            return (int(not value) if kind == "u!" else -value if kind == "u-" else ~value), deps
        left, first = yield from self.value(e[1])
        if kind in ("&&", "||"):
            if bool(left) == (kind == "||"):
                return int(bool(left)), first
            right, second = yield from self.value(e[2])
            return int(bool(right)), first | second
        right, second = yield from self.value(e[2])
        return _operate(kind, left, right), first | second

    def place(self, e: Any) -> Generator[Label, Any, tuple[str, int]]:
        """The location to which the expression points, and the dependencies of the address."""
        value, deps = yield from self.value(e)
        if not isinstance(value, str):
            raise Unsupported("a pointer that leads nowhere")
        return value[1:], deps

    def target(self, e: Any) -> Generator[Label, Any, tuple[str, int]]:
        """The location of READ_ONCE(*x) and of smp_load_acquire(x)."""
        return (yield from self.place(e[1] if e[0] == "deref" else e))

    def call(self, name: str, args: list[Any]) -> Generator[Label, Any, tuple[Value, int]]:
        if name in _FENCES:
            yield from self.event(Label("F", order=_FENCES[name]))
            return 0, 0
        if name in _READS:
            loc, addr = yield from self.target(args[0])
            at = self.index
            tag = "dereference" if name == "rcu_dereference" else ""
            value = yield from self.event(Label("R", loc, order=_READS[name], addr=addr, tag=tag))
            return value, 1 << at
        if name in _WRITES:
            loc, addr = yield from self.target(args[0])
            value, deps = yield from self.value(args[1])
            order = _WRITES[name]
            yield from self.event(Label("W", loc, value, order.replace("mb", "once"), addr=addr, data=deps))
            if order == "mb":
                yield from self.event(Label("F", order="mb"))
            return 0, 0
        if name in ("spin_lock", "spin_unlock", "spin_trylock", "spin_is_locked"):
            return (yield from self.lock(name, args))
        if name in ("rcu_read_lock", "rcu_read_unlock"):
            return (yield from self.section(1 if name == "rcu_read_lock" else -1))
        if name in ("synchronize_rcu", "synchronize_rcu_expedited"):
            return (yield from self.grace_period())
        exchange = re.fullmatch(r"(?:atomic_)?(xchg|cmpxchg)(_relaxed|_acquire|_release)?", name)
        if exchange:
            return (yield from self.exchange(exchange[1], exchange[2] or "", args))
        atomic = _ATOMIC.match(name)
        if atomic:
            return (yield from self.atomic(name, atomic, args))
        raise Unsupported(f"the call {name}()")

    def update(
        self, loc: str, addr: int, deps: int, order: str, change: Callable[[Any], Any], quiet: bool = False
    ) -> Generator[Label, Any, tuple[Any, int]]:
        """A read-modify-write; ``change`` returns the new value, None for no store."""
        at = self.index
        full = order == "full"
        read = "acquire" if order == "acquire" else "once"
        old = yield from self.event(
            Label("R", loc, order=read, rmw=True, full=full, addr=addr, tag="noreturn" if quiet else "")
        )
        new = change(old)
        if new is not None:
            write = "release" if order == "release" else "once"
            yield from self.event(Label("W", loc, new, write, rmw=True, full=full, addr=addr, data=deps))
        return old, 1 << at

    def exchange(self, what: str, suffix: str, args: list[Any]) -> Generator[Label, Any, tuple[Value, int]]:
        loc, addr = yield from self.target(args[0])
        first, deps = yield from self.value(args[1])
        if what == "xchg":
            return (yield from self.update(loc, addr, deps, _RMW_ORDERS[suffix], lambda old: first))
        second, more = yield from self.value(args[2])
        order = _RMW_ORDERS[suffix]
        return (yield from self.update(loc, addr, deps | more, order, lambda old: second if old == first else None))

    def atomic(self, name: str, found: re.Match[str], args: list[Any]) -> Generator[Label, Any, tuple[Value, int]]:
        fetch, what, tail, suffix = found[1], found[2], found[3] or "", found[4] or ""
        if what in ("xchg", "cmpxchg"):
            return (yield from self.exchange(what, suffix, args))
        if tail == "_unless":
            loc, addr = yield from self.target(args[0])
            amount, deps = yield from self.value(args[1])
            unless, more = yield from self.value(args[2])
            old, seen = yield from self.update(
                loc, addr, deps | more, "full", lambda old: None if old == unless else old + amount
            )
            return int(old != unless), seen
        if what in ("inc", "dec"):
            loc, addr = yield from self.target(args[0])
            amount, deps = 1, 0
        else:
            amount, deps = yield from self.value(args[0])
            loc, addr = yield from self.target(args[1])
        step: Callable[[Any], Any] = {
            "add": lambda old: old + amount,
            "inc": lambda old: old + amount,
            "sub": lambda old: old - amount,
            "dec": lambda old: old - amount,
            "or": lambda old: old | amount,
            "and": lambda old: old & amount,
            "xor": lambda old: old ^ amount,
        }[what]
        quiet = not fetch and not tail
        order = "once" if quiet else _RMW_ORDERS[suffix]
        old, seen = yield from self.update(loc, addr, deps, order, step, quiet)
        if fetch:
            return old, seen
        new = step(old)
        return {"": 0, "_return": new, "_and_test": int(new == 0), "_negative": int(new < 0)}[tail], seen

    def lock(self, name: str, args: list[Any]) -> Generator[Label, Any, tuple[Value, int]]:
        loc, addr = yield from self.target(args[0])
        if name == "spin_unlock":
            yield from self.event(Label("W", loc, 0, "release", tag="unlock"))
            return 0, 0
        if name == "spin_lock":
            yield from self.event(Label("R", loc, order="acquire", rmw=True, wait=_free, tag="lock"))
            yield from self.event(Label("W", loc, 1, rmw=True, tag="lock"))
            return 0, 0
        at = self.index
        if name == "spin_is_locked":
            held = yield from self.event(Label("R", loc, addr=addr))
            return int(held != 0), 1 << at
        old = yield from self.event(Label("R", loc, order="acquire", rmw=True, tag="lock"))
        if not old:
            yield from self.event(Label("W", loc, 1, rmw=True, tag="lock"))
        return int(not old), 1 << at

    def section(self, change: int) -> Generator[Label, Any, tuple[Value, int]]:
        self.sections += change
        if self.sections == (1 if change > 0 else 0):
            tag = "rcu_read_lock" if change > 0 else "rcu_read_unlock"
            yield from self.event(Label("W", ("rcu", self.number), self.sections, tag=tag))
        return 0, 0

    def grace_period(self) -> Generator[Label, Any, tuple[Value, int]]:
        yield from self.event(Label("F", order="sync-rcu"))
        for other in range(self.others):
            if other != self.number or self.sections:  # inside its own section it waits for ever
                yield from self.event(Label("R", ("rcu", other), wait=_free, tag="gp"))
        yield from self.event(Label("F", order="mb"))
        return 0, 0


def _free(value: Any) -> bool:
    return bool(value == 0)


def _operate(kind: str, left: Any, right: Any) -> Value:
    if kind in ("==", "!="):
        return int((left == right) == (kind == "=="))
    if isinstance(left, str) or isinstance(right, str):
        # (long)p & 0, p ^ p and so on: only the existence of the dependency matters
        if kind == "^" and left == right:
            return 0
        if kind == "&" and 0 in (left, right):
            return 0
        if kind in ("+", "-", "|") and right == 0:
            return left  # type: ignore[no-any-return]
        if kind == "+" and left == 0:
            return right  # type: ignore[no-any-return]
        raise Unsupported("arithmetic on addresses")
    result: int = {
        "+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right, "/": lambda: left // right,
        "%": lambda: left % right, "&": lambda: left & right, "|": lambda: left | right, "^": lambda: left ^ right,
        "<": lambda: left < right, ">": lambda: left > right, "<=": lambda: left <= right,
        ">=": lambda: left >= right, "<<": lambda: left << right, ">>": lambda: left >> right,
    }[kind]()  # fmt: skip
    return int(result)


class Tasks:
    """A test's tasks, with the interface that the search needs."""

    def __init__(self, test: Test) -> None:
        self.count = len(test.tasks)
        self.test = test
        self.graph = Graph(self.count)
        self.threads = [_Thread(number, names, test.init, self.count) for number, (names, _) in enumerate(test.tasks)]
        self._bodies = [thread.run(body) for thread, (_, body) in zip(self.threads, test.tasks, strict=True)]

    def start(self, task: int) -> Label | None:
        """The first event."""
        return next(self._bodies[task], None)

    def resume(self, task: int) -> Label | None:
        """Run a task through its events of the graph."""
        return replay(self, self.graph, task)

    def go_on(self, task: int, value: Any) -> Label | None:
        """The next event."""
        try:
            return self._bodies[task].send(value)
        except StopIteration:
            return None

    def initial(self, loc: Any) -> Any:
        """The test's initial value, else 0."""
        return self.test.init.get(loc, 0) if isinstance(loc, str) else 0

    def daemon(self, task: int) -> bool:
        """No task is a daemon."""
        return False

    def may_store(self, task: int, loc: Any, done: int) -> bool:
        """Every task may store."""
        return True

    def broken(self) -> bool:
        """Never broken."""
        return False

    def look(self, graph: Graph) -> None:
        """Remember the current graph."""
        self.graph = graph

    def close(self) -> None:
        """Nothing to do."""


def finals(test: Test, graph: Graph, tasks: Tasks) -> dict[str, Value]:
    """Registers as ``0:r1`` and locations at the end of an execution."""
    found: dict[str, Value] = {
        f"{number}:{name}": value
        for number, thread in enumerate(tasks.threads)
        for name, (value, _) in thread.registers.items()
    }
    for loc in {*(name for name in test.init if ":" not in name), *(loc for loc in graph.co if isinstance(loc, str))}:
        chain = graph.co.get(loc)
        found[loc] = graph.label(chain[-1]).value if chain else test.init.get(loc, 0)
    return found


def holds(condition: Any, values: Mapping[str, Value]) -> bool:
    """Whether the condition holds for the final values. Values never set are 0."""
    if condition[0] == "true":
        return True
    if condition[0] == "is":
        wanted = condition[2]
        if isinstance(wanted, tuple):
            wanted = values.get(wanted[1], 0)
        return bool(values.get(condition[1], 0) == wanted)
    if condition[0] == "not":
        return not holds(condition[1], values)
    both = holds(condition[1], values), holds(condition[2], values)
    return all(both) if condition[0] == "and" else any(both)


def named(condition: Any) -> set[str]:
    """The places that a condition mentions."""
    if condition[0] == "is":
        return {condition[1], condition[2][1]} if isinstance(condition[2], tuple) else {condition[1]}
    return set().union(*(named(part) for part in condition[1:])) if condition[0] != "true" else set()


@dataclass
class Beyond:
    """What a test's graphs show of executions that no graph shows. Load buffering is a ring of tasks, each of which
    loads what the one before stores, and stores behind the load: the model forbids it if it orders all these stores
    after their loads. A plain access that another task's store or plain store meets may do more than a marked one."""

    plain: bool = False
    """Was there such an access?"""
    steps: dict[tuple[int, Any, Any], bool] = field(default_factory=dict)
    """(task, loaded location, stored location): whether the model always ordered the store after the load."""

    def look(self, graph: Graph) -> None:
        """Note a whole graph. O(events squared)."""
        before, number = graph.rows.before, graph.rows.index
        users: dict[Any, int] = {}
        stored, plain = set(), set()
        for task, labels in enumerate(graph.tasks):
            loads: dict[Any, int] = {}
            for index, label in enumerate(labels):
                loc, event = label.loc, task << SHIFT | index
                if label.kind not in "RW" or label.tag in WORDS or graph.rf.get(event) == WAITS:
                    continue
                users[loc] = users.get(loc, 0) | 1 << task
                if label.plain:
                    plain.add(loc)
                if label.kind == "R":
                    loads[loc] = loads.get(loc, 0) | 1 << number[event]
                    continue
                stored.add(loc)
                for source, mask in loads.items():
                    step = task, source, loc
                    ordered = source == loc or not mask & ~before[number[event]]
                    self.steps[step] = self.steps.get(step, True) and ordered
        self.plain |= any(users[loc] & (users[loc] - 1) for loc in plain & stored)

    @property
    def why(self) -> str:
        """What might change a verdict: "plain accesses", "load buffering" or ""."""
        if self.plain:
            return "plain accesses"
        ring = any(not ordered and self._closes([step]) for step, ordered in self.steps.items())
        return "load buffering" if ring else ""

    def _closes(self, path: list[tuple[int, Any, Any]]) -> bool:
        if path[-1][2] == path[0][1] and len(path) > 1:
            return True
        tasks = {task for task, _, _ in path}
        return any(
            self._closes([*path, step]) for step in self.steps if step[1] == path[-1][2] and step[0] not in tasks
        )


def run_test(test: Test, model: str, deadline: float | None = None) -> Answer:
    """Search the test's executions. Raises Unsupported if it executes something unsupported, UsageError for an unknown
    model."""
    answer, beyond = Answer(), Beyond()
    names = sorted(named(test.condition))

    def see(seen: Seen) -> bool:
        assert isinstance(seen.tasks, Tasks)
        if model == LKMM:
            beyond.look(seen.graph)
        if seen.outcome != "done":
            return True
        values = finals(test, seen.graph, seen.tasks)
        if test.filter is None or holds(test.filter, values):
            answer.outcomes.add(tuple((name, values.get(name, 0)) for name in names))
            if holds(test.condition, values):
                answer.holds += 1
            else:
                answer.fails += 1
        return True

    search = Trust(lambda: Tasks(test), model)
    counts = search.explore(see, deadline)
    answer.complete, answer.checks = counts.complete, counts.checks
    if not answer.holds or not answer.fails:
        answer.beyond = beyond.why
    return answer


__all__ = [
    "Answer",
    "Beyond",
    "Tasks",
    "Test",
    "Unsupported",
    "finals",
    "holds",
    "parse",
    "read_test",
    "run_test",
    "value_of",
]
