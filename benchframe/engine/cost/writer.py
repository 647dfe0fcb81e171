"""Statements of a function that is rewritten for counting: branches, stores, and the whole new text."""

from __future__ import annotations

import ast

from benchframe.dialect.struct import Slab
from benchframe.engine.cost.expressions import OPERATORS, Expressions
from benchframe.engine.cost.memory import LOAD, STORE


class Writer(Expressions):
    """Writes one function anew."""

    def text(self, name: str) -> str:
        """The whole new function."""
        arguments = self.owner.parameters([argument.arg for argument in self.definition.args.args])
        body = self.block(self.definition.body, 1)
        return "\n".join([f"def {name}({arguments}):", *body, ""])

    # ---- statements -------------------------------------------------------------------------------------------

    def block(self, nodes: list[ast.stmt], depth: int) -> list[str]:
        lines = [line for node in nodes for line in self.statement(node, depth)]
        return lines or [" " * depth + "pass"]

    def statement(self, node: ast.stmt, depth: int) -> list[str]:
        pad = " " * depth
        if isinstance(node, ast.Expr):
            if isinstance(node.value, ast.Constant):
                return []
            return [pad + self.value(node.value)]
        if isinstance(node, ast.Return):
            return [pad + f"return {self.value(node.value) if node.value else 0}"]
        if isinstance(node, ast.Assign):
            return [pad + line for line in self.assign(node)]
        if isinstance(node, ast.AugAssign):
            return [pad + line for line in self.augment(node)]
        if isinstance(node, (ast.If, ast.While, ast.For)):
            return self.branch(node, depth)
        if isinstance(node, (ast.Pass, ast.Break, ast.Continue)):
            return [pad + ast.unparse(node)]
        raise self.wrong(node, f"a {type(node).__name__} statement is not part of the dialect")

    def branch(self, node: ast.If | ast.While | ast.For, depth: int) -> list[str]:
        pad = " " * depth
        if isinstance(node, ast.For):
            if not isinstance(node.target, ast.Name):
                raise self.wrong(node, "a loop over more than one name")
            head = f"for {node.target.id} in {self.iterated(node.iter)}:"
        else:
            word = "if" if isinstance(node, ast.If) else "while"
            head = f"{word} {self.value(node.test)}:"
            if isinstance(node.test, ast.Constant):  # `while True`: nothing is decided
                return [pad + head, *self.block(node.body, depth + 1)]
        site = self.owner.site()
        taken = [pad + head, f"{pad} {self.owner.note(str(site))}", *self.block(node.body, depth + 1)]
        other = [f"{pad} {self.owner.note(str(site + 1))}", *self.block(node.orelse, depth + 1)]
        return [*taken, pad + "else:", *other]

    def iterated(self, node: ast.expr) -> str:
        """What a ``for`` runs over: range(...), or a tuple of integers."""
        if isinstance(node, ast.Tuple):
            return "(" + "".join(f"{self.value(item)}, " for item in node.elts) + ")"
        return self.value(node)

    def assign(self, node: ast.Assign) -> list[str]:
        if len(node.targets) > 1:  # a = b = value: the value once, then the targets from left to right
            if any(isinstance(target, ast.Tuple) for target in node.targets):
                raise self.wrong(node, "a chain of assignments with a tuple")
            kept = self.temporary()
            lines = [f"{kept} = {self.value(node.value)}"]
            for target in node.targets:
                lines += self.put(target, kept, None)
            return lines
        target = node.targets[0]
        if not isinstance(target, ast.Tuple):
            return self.put(target, self.referring(node.value) if isinstance(target, ast.Name) else None, node.value)
        if not isinstance(node.value, ast.Tuple) or len(target.elts) != len(node.value.elts):
            raise self.wrong(node, "unpacking of something that is not a tuple")
        names = [self.temporary() for _ in target.elts]
        lines = [f"{name} = {self.value(value)}" for name, value in zip(names, node.value.elts, strict=True)]
        for one, name in zip(target.elts, names, strict=True):
            lines += self.put(one, name, None)
        return lines

    def put(self, target: ast.expr, text: str | None, value: ast.expr | None) -> list[str]:
        """Store ``text``, or the value of ``value``, in a name or field."""
        if text is None:
            assert value is not None
            text = self.value(value)
        if isinstance(target, ast.Name):
            return [f"{target.id} = {text}"]
        if not isinstance(target, ast.Attribute):
            raise self.wrong(target, "an assignment to this")
        slab, index = self.reference(target.value)
        lines = []
        if not index.isidentifier():
            name, kept = self.temporary(), self.temporary()
            lines, text, index = [f"{kept} = {text}", f"{name} = {index}"], kept, name
        field = self.field(slab, target)
        lines.append(f"{self.owner.element(slab, field, index)} = {text}")
        return lines + self.mark(slab, field, STORE, index)

    def augment(self, node: ast.AugAssign) -> list[str]:
        operator = OPERATORS[type(node.op)]
        value = self.value(node.value)
        if isinstance(node.target, ast.Name):
            return [f"{node.target.id} {operator}= {value}"]
        if not isinstance(node.target, ast.Attribute):
            raise self.wrong(node, "an assignment to this")
        slab, index = self.reference(node.target.value)
        lines = []
        if not index.isidentifier():
            name = self.temporary()
            lines, index = [f"{name} = {index}"], name
        element = self.owner.element(slab, self.field(slab, node.target), index)
        lines += self.mark(slab, node.target.attr, LOAD, index)
        lines.append(f"{element} {operator}= {value}")
        return lines + self.mark(slab, node.target.attr, STORE, index)

    def mark(self, slab: Slab, field: str, kind: int, index: str) -> list[str]:
        """The statement that records an access, none if it costs nothing."""
        if not self.owner.memory.counts(slab, field):
            return []
        return [self.owner.note(self.owner.place(slab, field, kind, index))]
