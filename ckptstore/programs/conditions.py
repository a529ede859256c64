"""What must hold of the sizes of a program's inputs, as JSON that is computed, never executed.

A condition is a whole or real number, a boolean, ``["dim", input, axis]`` (a tensor's size),
``["number", input]`` (a number that was passed), or a list of an operator's name and operands. They
are made of the text that torch.export gives its guards in, and of the symbols it names sizes by.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ckptstore.errors import IntegrityError
from ckptstore.programs.structure import Path

MOST_DEPTH = 50
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
MANY: dict[str, Callable[[Sequence[Any]], Any]] = {"and": all, "or": any, "max": max, "min": min}
UNARY: dict[str, Callable[[Any], Any]] = {"not": operator.not_, "neg": operator.neg}
PYTHON: dict[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.And: "and",
    ast.Or: "or",
    ast.Not: "not",
    ast.USub: "neg",
}
CALLS = {"max": "max", "Max": "max", "min": "min", "Min": "min", "FloorDiv": "//", "Mod": "%"}


class UnknownConditionError(ValueError):
    """A guard of torch's that has no counterpart here."""


def parse(text: str, symbols: Mapping[str, Any], sources: Mapping[Path, int]) -> Any:
    """Return a Python expression about sizes as a condition. Nothing of it is evaluated.

    Args:
        text: E.g. ``L['x'].size()[0] % 2 == 0`` or ``2*s0 + 1``.
        symbols: What each name stands for.
        sources: The place of each input by the path that ``L[…]`` names it with.

    Raises:
        UnknownConditionError: It has something in it that a condition has no word for.
    """
    try:
        return _Parser(symbols, sources).parse(ast.parse(text, mode="eval").body)
    except (SyntaxError, RecursionError) as error:
        raise UnknownConditionError(text) from error


class _Parser:
    def __init__(self, symbols: Mapping[str, Any], sources: Mapping[Path, int]) -> None:
        self._symbols = symbols
        self._sources = sources

    def parse(self, node: ast.expr) -> Any:
        found: Any
        match node:
            case ast.Constant(value=bool() | int() | float() as value):
                found = value
            case ast.Name(id=name) if name in self._symbols:
                found = self._symbols[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in PYTHON:
                found = [PYTHON[type(op)], self.parse(left), self.parse(right)]
            case ast.UnaryOp(op=op, operand=operand) if type(op) in PYTHON:
                found = [PYTHON[type(op)], self.parse(operand)]
            case ast.BoolOp(op=op, values=values):
                found = [PYTHON[type(op)], *map(self.parse, values)]
            case ast.Compare():
                found = self._comparison(node)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in CALLS:
                found = [CALLS[name], *map(self.parse, args)]
            case _:
                found = self._size(node)
        return found

    def _comparison(self, node: ast.Compare) -> Any:
        values = [self.parse(each) for each in (node.left, *node.comparators)]
        if not all(type(op) in PYTHON for op in node.ops):
            raise UnknownConditionError(ast.unparse(node))
        each = [
            [PYTHON[type(op)], left, right]
            for op, left, right in zip(node.ops, values, values[1:], strict=False)
        ]
        return each[0] if len(each) == 1 else ["and", *each]

    def _size(self, node: ast.expr) -> Any:
        """Read ``L['x'].size()[0]``, ``L['x'].shape[0]`` or ``L['n']``."""
        match node:
            case ast.Subscript(
                value=ast.Call(func=ast.Attribute(value=source, attr="size"), args=[])
                | ast.Attribute(value=source, attr="shape"),
                slice=ast.Constant(value=int() as axis),
            ):
                return ["dim", self._input(source), axis]
        return ["number", self._input(node)]

    def _input(self, node: ast.expr) -> int:
        path: list[str | int] = []
        while isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            path.insert(0, node.slice.value)  # type: ignore[arg-type] # any other is no key of sources
            node = node.value
        place = self._sources.get(tuple(path))
        if place is None or not isinstance(node, ast.Name) or node.id != "L":
            raise UnknownConditionError(ast.unparse(node))
        return place


def holds(condition: Any, dims: Sequence[Sequence[int] | None], numbers: Sequence[Any]) -> bool:
    """Say whether a checked condition is true.

    Args:
        condition: The condition.
        dims: Each input's shape, None where it is no tensor.
        numbers: Each input itself, where it is a number.
    """
    try:
        return bool(_value(condition, dims, numbers))
    except ZeroDivisionError:
        return False


def _value(
    condition: Any, dims: Sequence[Sequence[int] | None], numbers: Sequence[Any]
) -> int | float | bool:
    if not isinstance(condition, list):
        value: int | float | bool = condition
        return value
    name, *operands = condition
    if name == "dim":
        shape = dims[operands[0]]
        return 0 if shape is None else shape[operands[1]]
    if name == "number":
        number: int | float | bool = numbers[operands[0]]
        return number
    computed: int | float | bool = _applied(
        name, [_value(each, dims, numbers) for each in operands]
    )
    return computed


def _applied(name: str, values: Sequence[int | float | bool]) -> Any:
    if name in MANY:
        return MANY[name](values)
    if name in UNARY:
        return UNARY[name](values[0])
    return BINARY[name](values[0], values[1])


def check(condition: Any, ranks: Sequence[int | None], where: str, depth: int = 0) -> None:
    """Refuse what is no condition about inputs of these numbers of dimensions.

    Args:
        condition: Parsed JSON.
        ranks: Of each input; None where it is no tensor.
        where: Names it in errors.
        depth: How deep it lies in another.

    Raises:
        IntegrityError: It is none.
    """
    if isinstance(condition, (int, float)):
        return
    if isinstance(condition, list) and condition and depth < MOST_DEPTH:
        name, *operands = condition
        if name in ("dim", "number"):
            if _names_input(name, operands, ranks):
                return
        elif isinstance(name, str) and _takes(name, len(operands)):
            for each in operands:
                check(each, ranks, where, depth + 1)
            return
    raise IntegrityError(f"{where}: {condition!r:.80} is no condition that can be computed")


def _names_input(name: str, operands: Sequence[Any], ranks: Sequence[int | None]) -> bool:
    if not operands or not all(type(each) is int and each >= 0 for each in operands):
        return False
    if operands[0] >= len(ranks):
        return False
    rank = ranks[operands[0]]
    if name == "number":
        return len(operands) == 1 and rank is None
    return len(operands) == 2 and rank is not None and operands[1] < rank  # noqa: PLR2004 - input and axis


def _takes(name: str, count: int) -> bool:
    if name in BINARY:
        return count == 2  # noqa: PLR2004 - that is what binary says
    return count == 1 if name in UNARY else name in MANY and count > 0


def words(condition: Any, names: Sequence[str]) -> str:
    """Return a condition as people read it, e.g. ``x.shape[0] % 2 == 0``."""
    if not isinstance(condition, list):
        return str(condition)
    name, *operands = condition
    if name == "dim":
        return f"{names[operands[0]]}.shape[{operands[1]}]"
    if name == "number":
        return names[operands[0]]
    parts = [
        f"({words(each, names)})"
        if isinstance(each, list) and each[0] in BINARY
        else words(each, names)
        for each in operands
    ]
    if name in UNARY:
        return f"{'-' if name == 'neg' else 'not '}{parts[0]}"
    if name in ("max", "min"):
        return f"{name}({', '.join(parts)})"
    return f" {name} ".join(parts)
