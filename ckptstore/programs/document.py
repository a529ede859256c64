"""A program as a file: one line of JSON, then the bytes of the tensors that are no part's state.

The weights are not in it: a program names them by their keys in the state of the part that it
belongs to. So one file serves every version of a run, and no weight is stored twice.

The line is padded with spaces before its line feed so that what follows begins at a multiple of 64
bytes, and so does each tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from ckptstore.errors import IntegrityError, NewerFormatError
from ckptstore.format.digest import MAX_LINE_BYTES, dump_line, parse_line
from ckptstore.format.fields import Fields
from ckptstore.format.tree import encode
from ckptstore.format.untree import decode
from ckptstore.programs import conditions, structure
from ckptstore.programs.graph import Graph, decode_graph, encode_graph

ROLE = "program"
"""What a program's file is to its version, in the head."""
ALIGNMENT = 64
MOST_DIMENSIONS = 64
PLAIN = (type(None), bool, int, float, str)


@dataclass(frozen=True)
class Held:
    """A tensor that a program computes with."""

    dtype: str
    itemsize: int
    shape: tuple[int, ...]
    key: str | None
    """Its key in the part's state, None where the file holds its bytes."""
    start: int = 0
    """Where its bytes begin in the file."""

    @property
    def size_bytes(self) -> int:
        """The bytes of its elements."""
        return prod(self.shape) * self.itemsize


@dataclass(frozen=True)
class Input:
    """What a program takes in one place: a tensor, a number, or always the same value."""

    kind: str
    """``tensor``, ``number`` or ``constant``."""
    dtype: str | None = None
    shape: tuple[int | None, ...] = ()
    """None where a size may be another each time."""
    value: Any = None
    """What it always is, where it is constant."""


@dataclass(frozen=True)
class Program:
    """All that is known of a program."""

    torch_version: str
    device: torch.device
    """What it was made on."""
    is_exact: bool
    """Whether its outputs for the samples were the module's, bit for bit."""
    held: tuple[Held, ...]
    inputs: tuple[Input, ...]
    args: Any
    """The structure of the positional arguments, a tuple; its leaves are the inputs."""
    kwargs: Any
    """The structure of the keyword arguments, a dict; its leaves are the inputs that follow."""
    names: tuple[str, ...]
    """The names of arguments that can be positional, in order."""
    conditions: tuple[Any, ...]
    """What must hold of the inputs' sizes."""
    graph: Graph
    """Its inputs are the tensors held, then the program's inputs."""
    output: Any
    """The structure of what it returns; its leaves are the graph's outputs."""
    optional: tuple[str, ...] = ()
    """Arguments that may be left out: the module would take what the sample had for them."""


def encode_program(program: Program, constants: Mapping[int, bytes]) -> list[bytes]:
    """Return a program as a file, in pieces.

    Args:
        program: The program. Where its tensors' bytes begin is settled here.
        constants: The bytes of the tensors that have no key, by their place among those held.
    """
    # The line holds the starts, and the starts depend on its length: they are counted from its end.
    at, starts = 0, {}
    for place, data in constants.items():
        starts[place] = at
        at += len(data) + -len(data) % ALIGNMENT
    line = dump_line(
        {
            "program": 1,
            "torch": program.torch_version,
            "device": str(program.device),
            "exact": program.is_exact,
            "tensors": [
                {"dtype": each.dtype, "itemsize": each.itemsize, "shape": list(each.shape)}
                | ({"start": starts[place]} if each.key is None else {"key": each.key})
                for place, each in enumerate(program.held)
            ],
            "inputs": [_encode_input(each) for each in program.inputs],
            "args": program.args,
            "kwargs": program.kwargs,
            "names": list(program.names),
            "optional": list(program.optional),
            "conditions": list(program.conditions),
            "graph": encode_graph(program.graph),
            "output": program.output,
        }
    )
    pieces = [line, b" " * (-(len(line) + 1) % ALIGNMENT) + b"\n"]
    for data in constants.values():
        pieces += [data, bytes(-len(data) % ALIGNMENT)]
    return pieces


def _encode_input(each: Input) -> dict[str, Any]:
    if each.kind == "tensor":
        return {"kind": "tensor", "dtype": each.dtype, "shape": list(each.shape)}
    if each.kind == "number":
        return {"kind": "number"}
    return {"kind": "constant", "value": encode(each.value, "an input")}


def decode_program(data: memoryview, where: str) -> Program:
    """Read a program out of its file, whose digest must have been checked.

    Raises:
        IntegrityError: It is none.
        NewerFormatError: A newer ckptstore made it.
    """
    end = bytes(data[: MAX_LINE_BYTES + 1]).find(b"\n")
    if end < 0:
        raise IntegrityError(f"{where} is no program: it has no line of JSON")
    fields = Fields(parse_line(bytes(data[:end]), where), where)
    if fields.number("program") != 1:
        raise NewerFormatError(where, f"a program of form {fields.number('program')}")
    held = tuple(_decode_held(item, end + 1, len(data), where) for item in fields.items("tensors"))
    inputs = tuple(_decode_input(item, where) for item in fields.items("inputs"))
    graph = decode_graph(fields.mapping("graph"), f"{where}, graph")
    if graph.inputs != len(held) + len(inputs):
        raise IntegrityError(f"{where}: its graph takes {graph.inputs} values, which are not there")
    ranks = [len(each.shape) if each.kind == "tensor" else None for each in inputs]
    for condition in fields.items("conditions"):
        conditions.check(condition, ranks, where)
        for place in _numbers(condition):
            if inputs[place].kind != "number":
                raise IntegrityError(f"{where}: input {place} is no number")
    args, kwargs = fields.mapping("args"), fields.mapping("kwargs")
    if args.keys() != {"tuple"} or kwargs.keys() != {"dict"}:
        raise IntegrityError(f"{where}: arguments are a tuple and a dict")
    structure.check({"tuple": [args, kwargs]}, len(inputs), f"{where}, arguments")
    output = fields.mapping("output")
    structure.check(output, len(graph.outputs), f"{where}, output")
    names, optional = fields.items("names"), fields.items("optional")
    if not all(isinstance(name, str) for name in (*names, *optional)):
        raise fields.bad("names", "names of arguments, as optional has")
    return Program(
        fields.text("torch"),
        decode({"$torch.device": fields.text("device")}, where),
        fields.flag("exact"),
        held,
        inputs,
        args,
        kwargs,
        tuple(names),
        tuple(fields.items("conditions")),
        graph,
        output,
        tuple(optional),
    )


def _decode_held(item: object, first: int, length: int, where: str) -> Held:
    fields = Fields(item, f"{where}, a tensor")
    shape = fields.numbers("shape")
    itemsize = fields.number("itemsize", least=1)
    if len(shape) > MOST_DIMENSIONS or itemsize > MOST_DIMENSIONS:
        raise fields.bad("shape", f"at most {MOST_DIMENSIONS} sizes of items of as many bytes")
    key = fields.text_or_none("key")
    start = 0 if key is not None else first + fields.number("start")
    held = Held(fields.text("dtype"), itemsize, shape, key, start)
    if prod(size or 1 for size in shape) * itemsize >= 2**62:
        raise fields.bad("shape", "of fewer than 2**62 bytes")
    if key is None and start + held.size_bytes > length:
        raise fields.bad("start", "within the file, which ends before the tensor does")
    return held


def _decode_input(item: object, where: str) -> Input:
    fields = Fields(item, f"{where}, an input")
    kind = fields.text("kind")
    if kind == "number":
        return Input(kind)
    if kind == "constant":
        value = decode(fields.get("value"), fields.where)
        if not isinstance(value, PLAIN):
            raise fields.bad("value", "a plain value")
        return Input(kind, value=value)
    if kind != "tensor":
        raise fields.bad("kind", "'tensor', 'number' or 'constant'")
    shape = fields.items("shape")
    if len(shape) > MOST_DIMENSIONS or not all(_is_size(size) for size in shape):
        raise fields.bad("shape", "a list of sizes, null where one may vary")
    return Input(kind, fields.text("dtype"), tuple(shape))


def _is_size(size: object) -> bool:
    return size is None or (type(size) is int and 0 <= size < 2**62)


def _numbers(condition: Any) -> Iterable[int]:
    """Yield the inputs that a condition takes for numbers."""
    if isinstance(condition, list):
        if condition[0] == "number":
            yield condition[1]
        elif condition[0] != "dim":
            for each in condition[1:]:
                yield from _numbers(each)
