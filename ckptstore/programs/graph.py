"""A graph: operators called one after another on values that are counted through.

In JSON a graph is ``{"inputs": 3, "steps": [{"call": …, "args": […], "kwargs": {…}}, …],
"outputs": […]}``. The values are its inputs, then each step's result. An argument is
``{"value": 7}`` for one of them, ``{"graph": …}`` for a graph of its own, a list of arguments, or a
plain value as a tree has it (``{"$torch.dtype": "float32"}``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ckptstore.errors import IntegrityError
from ckptstore.format.fields import Fields
from ckptstore.format.untree import decode

MOST_GRAPHS_DEEP = 16


@dataclass(frozen=True)
class Value:
    """One of a graph's values."""

    place: int


@dataclass(frozen=True)
class Step:
    """One operator that is called."""

    call: str
    """Its name: :mod:`ckptstore.programs.operators`."""
    args: tuple[Any, ...]
    """Values, graphs, lists of these, and plain values."""
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """Operators called one after another."""

    inputs: int
    """How many values it begins with."""
    steps: tuple[Step, ...]
    outputs: tuple[Any, ...]


def encode_graph(graph: Graph) -> dict[str, Any]:
    """Return a graph as JSON. Its plain values must be encoded as trees already."""
    return {
        "inputs": graph.inputs,
        "steps": [
            {
                "call": step.call,
                "args": [_encode(each) for each in step.args],
                **(
                    {"kwargs": {k: _encode(v) for k, v in step.kwargs.items()}}
                    if step.kwargs
                    else {}
                ),
            }
            for step in graph.steps
        ],
        "outputs": [_encode(each) for each in graph.outputs],
    }


def _encode(each: Any) -> Any:
    if isinstance(each, Value):
        return {"value": each.place}
    if isinstance(each, Graph):
        return {"graph": encode_graph(each)}
    return [_encode(item) for item in each] if isinstance(each, list) else each


def decode_graph(value: object, where: str, depth: int = 0) -> Graph:
    """Read a graph; its plain values are decoded.

    Args:
        value: Parsed JSON.
        where: Names it in errors.
        depth: In how many other graphs it lies.

    Raises:
        IntegrityError: It is none, or names a value before there is one.
    """
    fields = Fields(value, where)
    if depth > MOST_GRAPHS_DEEP:
        raise IntegrityError(f"{where}: graphs lie in more than {MOST_GRAPHS_DEEP} others")
    inputs = fields.number("inputs")
    steps: list[Step] = []
    for item in fields.items("steps"):
        step = Fields(item, f"{where}, step {len(steps)}")
        known = inputs + len(steps)
        kwargs = step.mapping("kwargs") if step.get("kwargs") is not None else {}
        steps.append(
            Step(
                step.text("call"),
                tuple(_decode(each, known, step.where, depth) for each in step.items("args")),
                {name: _decode(each, known, step.where, depth) for name, each in kwargs.items()},
            )
        )
    known = inputs + len(steps)
    outputs = [_decode(each, known, f"{where}, outputs", depth) for each in fields.items("outputs")]
    return Graph(inputs, tuple(steps), tuple(outputs))


def _decode(value: Any, known: int, where: str, depth: int) -> Any:
    if isinstance(value, list):
        return [_decode(each, known, where, depth) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"value"}:
        place = value["value"]
        if type(place) is not int or not 0 <= place < known:
            raise IntegrityError(f"{where}: value {place!r:.40} is not there yet")
        return Value(place)
    if value.keys() == {"graph"}:
        return decode_graph(value["graph"], f"{where}, its graph", depth + 1)
    return decode(value, where)


def calls(graph: Graph) -> set[str]:
    """Return the names of all operators that a graph calls, those of graphs in it too."""
    found = {step.call for step in graph.steps}
    for step in graph.steps:
        for each in (*step.args, *step.kwargs.values()):
            if isinstance(each, Graph):
                found |= calls(each)
    return found


class Runner:
    """Computes a graph. Safe to use from several threads.

    Args:
        graph: The graph.
        operators: What each name that it calls stands for.
    """

    def __init__(self, graph: Graph, operators: Mapping[str, Callable[..., Any]]) -> None:
        self._inputs = graph.inputs
        self._steps = [
            (
                operators[step.call],
                [_ready(each, operators) for each in step.args],
                {name: _ready(each, operators) for name, each in step.kwargs.items()},
                ends,
            )
            for step, ends in zip(graph.steps, _ends(graph), strict=True)
        ]
        self._outputs = [_ready(each, operators) for each in graph.outputs]

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Return the outputs. A value is let go as soon as nothing further needs it."""
        values = list(inputs)
        for function, args, kwargs, ends in self._steps:
            values.append(
                function(
                    *[_given(each, values) for each in args],
                    **{name: _given(each, values) for name, each in kwargs.items()},
                )
            )
            for end in ends:
                values[end] = None
        return tuple(_given(each, values) for each in self._outputs)


def _ready(each: Any, operators: Mapping[str, Callable[..., Any]]) -> Any:
    """Return an argument with its graphs ready to be called."""
    if isinstance(each, list):
        return [_ready(item, operators) for item in each]
    return Runner(each, operators) if isinstance(each, Graph) else each


def _given(each: Any, values: Sequence[Any]) -> Any:
    if isinstance(each, Value):
        return values[each.place]
    return [_given(item, values) for item in each] if isinstance(each, list) else each


def _ends(graph: Graph) -> list[list[int]]:
    """Return for each step the values that nothing needs after it."""
    kept = {place for each in graph.outputs for place in _places(each)}
    ends: list[list[int]] = []
    for index in reversed(range(len(graph.steps))):
        step = graph.steps[index]
        used = {place for each in (*step.args, *step.kwargs.values()) for place in _places(each)}
        used.add(graph.inputs + index)
        ends.append([place for place in used if place not in kept])
        kept |= used
    return ends[::-1]


def _places(each: Any) -> list[int]:
    if isinstance(each, Value):
        return [each.place]
    return [place for item in each for place in _places(item)] if isinstance(each, list) else []


def on_device(graph: Graph, made_on: torch.device, device: torch.device) -> Graph:
    """Return a graph that makes tensors on *device* wherever it made them on *made_on*."""

    def moved(each: Any) -> Any:
        if isinstance(each, torch.device):
            return device if _where(each) == _where(made_on) else each
        if isinstance(each, list):
            return [moved(item) for item in each]
        return on_device(each, made_on, device) if isinstance(each, Graph) else each

    steps = [
        Step(
            step.call,
            tuple(map(moved, step.args)),
            {name: moved(each) for name, each in step.kwargs.items()},
        )
        for step in graph.steps
    ]
    return Graph(graph.inputs, tuple(steps), tuple(map(moved, graph.outputs)))


def _where(device: torch.device) -> tuple[str, int]:
    return device.type, device.index or 0
