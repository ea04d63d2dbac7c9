# ruff: noqa: D102 - the methods without a docstring are overrides of Jinja's own
"""Compiles chat templates such that whatever can grow or repeat asks the environment first."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension
from jinja2.parser import Parser

_MAX_COMPILE_WORK = 40_000  # Qwen's and GLM's templates have 900 to 2,200


class GenerationTag(Extension):
    """``{% generation %}`` marks what the model wrote, for training; here its body is rendered as it stands."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the body in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class BudgetedGenerator(CodeGenerator):
    """Writes Python in which everything that can grow or repeat asks the environment first."""

    def macro_body(self, node: Any, frame: Frame) -> Any:
        _take_turns(node)
        return super().macro_body(node, frame)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        _take_turns(node)
        if node.test is not None:  # turns that the condition skips are turns too
            turn = nodes.EnvironmentAttribute(str(_count(node.test)), lineno=node.lineno)
            node.test = nodes.And(turn, node.test, lineno=node.lineno)
        super().visit_For(node, frame)

    def visit_EnvironmentAttribute(self, node: nodes.EnvironmentAttribute, frame: Frame) -> None:
        self.write(f"environment.turn(context, {int(node.name)})")

    def visit_Output(self, node: nodes.Output, frame: Frame) -> None:
        constant = sum(len(child.data) for child in node.nodes if isinstance(child, nodes.TemplateData))
        if constant:
            self.writeline(f"environment.literal(context, {constant})")
        super().visit_Output(node, frame)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        with self._made():
            super().visit_List(node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        with self._made():
            super().visit_Dict(node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx == "store":
            super().visit_Tuple(node, frame)
        else:
            with self._made():
                super().visit_Tuple(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.join_text(context, ")
        self._arguments(node.nodes, frame)

    def visit_Add(self, node: nodes.Add, frame: Frame) -> None:
        parts: list[nodes.Expr] = [node.right]
        left = node.left
        while isinstance(left, nodes.Add):  # texts in a chain are copied once, and cost that much
            parts.append(left.right)
            left = left.left
        parts.append(left)
        self.write("environment.add(context, ")
        self._arguments(parts[::-1], frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("environment.compare(context, ")
        self.visit(node.expr, frame)
        for operand in node.ops:
            self.write(f", {operand.op!r}, ")
            self.visit(operand.expr, frame)
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        self.write("environment.subscript(context, ")
        self._arguments([node.node, node.arg], frame)

    def visit_Slice(self, node: nodes.Slice, frame: Frame) -> None:
        self.write("slice(")
        self._arguments([node.start, node.stop, node.step], frame)

    def refuse(self, node: nodes.Node, frame: Frame) -> None:
        """Stop at statements that no chat template needs and that would reach beyond this one template."""
        self.fail(f"{type(node).__name__.lower()} statements are not available in chat templates", node.lineno)

    visit_Block = visit_Extends = visit_Include = visit_Import = visit_FromImport = refuse
    visit_EvalContextModifier = visit_ScopedEvalContextModifier = visit_OverlayScope = refuse

    @contextmanager
    def _made(self) -> Generator[None]:
        self.write("environment.made(context, ")
        yield
        self.write(")")

    def _arguments(self, parts: list[Any], frame: Frame) -> None:
        for part in parts:
            if part is None:
                self.write("None")
            else:
                self.visit(part, frame)
            self.write(", ")
        self.write(")")


def prepared(tree: nodes.Template) -> nodes.Template:
    """Make a parsed template ready to be compiled.

    Raises:
        jinja2.TemplateSyntaxError: It is so large, or nested so deeply, that compiling it would take seconds.
    """
    work = _compile_work(tree, 1)
    if work > _MAX_COMPILE_WORK:
        raise TemplateSyntaxError(f"it has {work} parts, at most {_MAX_COMPILE_WORK} were expected", 1)
    for node in tree.find_all((nodes.Call, nodes.Filter, nodes.Test)):
        if (
            node.dyn_args is not None
        ):  # ``f(*text)`` would make an object of every character, so it becomes a list first
            node.dyn_args = nodes.Filter(node.dyn_args, "list", [], [], None, None, lineno=node.lineno)
    return tree


def _compile_work(node: nodes.Node, depth: int) -> int:
    """Return how many nodes there are, each as often as it is nested: Jinja looks at a body once a level."""
    below = depth + 1 if isinstance(node, nodes.Stmt) else depth
    return depth + sum(_compile_work(child, below) for child in node.iter_child_nodes())


def _take_turns(node: Any) -> None:
    """Begin a repeated body with taking its cost, which is the number of nodes in it."""
    turn = nodes.EnvironmentAttribute(str(sum(map(_count, node.body))), lineno=node.lineno)
    node.body = [nodes.ExprStmt(turn, lineno=node.lineno), *node.body]


def _count(node: nodes.Node) -> int:
    return 1 + sum(1 for _ in node.find_all(nodes.Node))
