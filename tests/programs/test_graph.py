"""Graphs come back from JSON as they were; what names a value before there is one is refused."""

from __future__ import annotations

import weakref

import pytest
import torch

from ckptstore.errors import IntegrityError
from ckptstore.programs.graph import (
    Graph,
    Runner,
    Step,
    Value,
    calls,
    decode_graph,
    encode_graph,
    on_device,
)

CPU, META = torch.device("cpu"), torch.device("meta")
INNER = Graph(1, (Step("add", (Value(0), 1), {}),), (Value(1),))
GRAPH = Graph(
    2,
    (
        Step("add", (Value(0), Value(1)), {"alpha": 2}),
        Step("each", (INNER, [Value(2), 3.5, None, "text"]), {}),
    ),
    (Value(3), Value(0), 7),
)


def each(part, values):
    return [part(value)[0] if isinstance(value, int) else value for value in values]


OPERATORS = {"add": lambda one, two, alpha=1: one + alpha * two, "each": each}


def test_a_graph_comes_back_from_json():
    assert decode_graph(encode_graph(GRAPH), "a program") == GRAPH
    assert calls(GRAPH) == {"add", "each"}


def test_a_graph_computes_step_by_step():
    assert Runner(GRAPH, OPERATORS)(1, 2) == ([6, 3.5, None, "text"], 1, 7)


def test_a_value_is_let_go_once_nothing_needs_it():
    kept: list[weakref.ref[torch.Tensor]] = []

    def make(_):
        made = torch.ones(3)
        kept.append(weakref.ref(made))
        return made

    def count(_):
        return sum(each() is not None for each in kept)

    steps = (
        Step("make", (Value(0),), {}),
        Step("make", (Value(1),), {}),
        Step("count", (Value(0),), {}),
        Step("make", (Value(2),), {}),
    )
    graph = Graph(1, steps, (Value(3), Value(4)))
    found, _ = Runner(graph, {"make": make, "count": count})(0)
    assert found == 1


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": -1},
        {"inputs": None},
        {"steps": {}},
        {"steps": [{"call": 3, "args": []}]},
        {"steps": [{"call": "add"}]},
        {"steps": [{"call": "add", "args": [], "kwargs": []}]},
        {"steps": [{"call": "add", "args": [{"value": 2}]}]},
        {"steps": [{"call": "add", "args": [[{"value": -1}]]}]},
        {"steps": [{"call": "add", "args": [{"value": True}]}]},
        {"steps": [{"call": "add", "args": [{"value": "0"}]}]},
        {"steps": [{"call": "add", "args": [{"$unknown": 1}]}]},
        {"steps": [{"call": "add", "args": [{"$torch.dtype": "nothing"}]}]},
        {"steps": [{"call": "add", "args": [{"graph": 3}]}]},
        {"outputs": [{"value": 2}]},
        {"outputs": None},
    ],
)
def test_what_is_no_graph_is_refused(change):
    with pytest.raises(IntegrityError, match="a program"):
        decode_graph({"inputs": 2, "steps": [], "outputs": []} | change, "a program")


def test_graphs_in_graphs_have_an_end():
    value = {"inputs": 0, "steps": [], "outputs": []}
    for _ in range(17):
        step = {"call": "each", "args": [{"graph": value}]}
        value = {"inputs": 0, "steps": [step], "outputs": []}
    with pytest.raises(IntegrityError, match="lie in more than 16"):
        decode_graph(value, "a program")


def test_devices_are_those_that_it_is_loaded_on():
    inner = Graph(0, (Step("make", (), {"device": CPU}),), (Value(0),))
    steps = (
        Step("make", ([CPU, torch.device("cpu", 0)],), {"device": CPU}),
        Step("each", (inner,), {"device": torch.device("cuda", 1)}),
    )
    moved = on_device(Graph(0, steps, (CPU,)), CPU, META)
    assert moved.steps[0] == Step("make", ([META, META],), {"device": META})
    assert moved.steps[1].args[0].steps[0].kwargs == {"device": META}
    assert moved.steps[1].kwargs == {"device": torch.device("cuda", 1)}
    assert moved.outputs == (META,)
