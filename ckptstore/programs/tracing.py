"""An exported graph of torch's as a program's: the same calls, under names that need no pickle."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export.graph_signature import InputKind, OutputKind

from ckptstore.errors import ProgramError, UnsupportedValueError
from ckptstore.format.tree import encode
from ckptstore.programs import conditions
from ckptstore.programs.document import PLAIN, Input
from ckptstore.programs.graph import Graph, Step, Value
from ckptstore.programs.operators import name_of
from ckptstore.programs.structure import Path
from ckptstore.state.tensors import dtype_name

STATE = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
MUTATIONS = (
    OutputKind.BUFFER_MUTATION,
    OutputKind.USER_INPUT_MUTATION,
    OutputKind.PARAMETER_MUTATION,
)


@dataclass(frozen=True)
class Traced:
    """What torch.export made of a module, in a program's terms."""

    tensors: list[torch.Tensor]
    """Parameters, buffers and constants, as the module has them."""
    inputs: list[Input]
    conditions: list[Any]
    batches: list[Any]
    """Sizes that only first dimensions have, so that a batch can be cut to one row: conditions."""
    graph: Graph


def traced(
    exported: torch.export.ExportedProgram,
    leaves: Sequence[Any],
    paths: Mapping[Path, int],
    guards: Sequence[str],
) -> Traced:
    """Return an exported program as a graph.

    Args:
        exported: What torch.export returned.
        leaves: The inputs it was exported with.
        paths: The place of each by the name and keys that torch's guards know it by.
        guards: What torch says must hold of their sizes: :func:`guards_of`.

    Raises:
        ProgramError: It has something in it that a program has no word for.
        UnknownConditionError: It is for some sizes only, and it can't be told here for which.
    """
    tensors: list[torch.Tensor] = []
    nodes = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    order: list[tuple[Any, torch.Tensor | None]] = []
    for spec in exported.graph_signature.input_specs:
        node = nodes[spec.arg.name]
        if spec.kind in STATE:
            tensor = _held(exported, str(spec.target))
            tensors.append(tensor)
            order.append((node, tensor))
        elif spec.kind == InputKind.USER_INPUT:
            order.append((node, None))
        else:
            raise ProgramError(f"it takes a {spec.kind.name.lower()} ({spec.arg.name}) as an input")
    inputs = [node for node, tensor in order if tensor is None]
    if len(inputs) != len(leaves):
        raise ProgramError(
            f"torch.export sees {len(inputs)} inputs where there are {len(leaves)}: pass tensors, "
            "numbers, and plain lists, tuples and dicts of them"
        )
    sizes = _Sizes(inputs, leaves)
    begin = [node for node, tensor in order if tensor is not None] + inputs
    graph = _Tracer(exported.graph_module, begin).graph(exported.graph)
    return Traced(
        tensors,
        [_input(node, leaf) for node, leaf in zip(inputs, leaves, strict=True)],
        sizes.conditions(exported, paths, guards),
        sizes.batches(),
        _with_mutations(exported, graph, begin),
    )


def guards_of(exported: torch.export.ExportedProgram) -> Sequence[str]:
    """Return what must hold of the sizes of a program's inputs, as Python's text.

    Not in torch's documentation, and older ones have none. Without them a branch that the sample's
    size took would be taken for every size.
    """
    return tuple(getattr(exported, "_guards_code", ()))


def _held(exported: torch.export.ExportedProgram, name: str) -> torch.Tensor:
    found = exported.state_dict.get(name)
    if found is None:
        found = exported.constants.get(name)
    if not isinstance(found, torch.Tensor):
        raise ProgramError(f"its constant {name!r} is a {type(found).__qualname__}, not a tensor")
    return found


def _input(node: Any, leaf: Any) -> Input:
    value = node.meta.get("val")
    if isinstance(leaf, torch.Tensor):
        shape = tuple(map(_fixed, value.shape))
        return Input("tensor", dtype_name(leaf.dtype), shape)
    if isinstance(value, (torch.SymInt, torch.SymFloat)):
        return Input("number")
    if type(leaf) not in PLAIN:
        raise ProgramError(
            f"one of its inputs is a {type(leaf).__qualname__}: pass tensors, numbers, strings, "
            "None, and plain lists, tuples and dicts of them"
        )
    return Input("constant", value=leaf)


def _fixed(size: Any) -> int | None:
    """Return a size that can be no other, None where it may vary."""
    if isinstance(size, int):
        return size
    # Tracing may find out only later that it is always the same.
    text = str(size.node.expr)
    return int(text) if text.isdecimal() else None


class _Sizes:
    """The symbols that torch calls sizes by, and where each is first seen."""

    def __init__(self, inputs: Sequence[Any], leaves: Sequence[Any]) -> None:
        self._symbols: dict[str, Any] = {}
        self._seen: list[tuple[Any, str]] = []
        for place, (node, leaf) in enumerate(zip(inputs, leaves, strict=True)):
            value = node.meta.get("val")
            if isinstance(leaf, torch.Tensor):
                for axis, size in enumerate(value.shape):
                    if _fixed(size) is None:
                        self._see(["dim", place, axis], size)
            elif isinstance(value, (torch.SymInt, torch.SymFloat)):
                self._see(["number", place], value)

    def _see(self, where: Any, size: Any) -> None:
        text = str(size.node.expr)
        self._seen.append((where, text))
        if text.isidentifier():
            self._symbols.setdefault(text, where)

    def conditions(
        self,
        exported: torch.export.ExportedProgram,
        paths: Mapping[Path, int],
        guards: Sequence[str],
    ) -> list[Any]:
        """Return what must hold of the sizes: that equal ones are, their ranges, torch's guards."""
        found = []
        for where, text in self._seen:
            expected = conditions.parse(text, self._symbols, {})
            if expected != where:
                found.append(["==", where, expected])
        for symbol, limits in exported.range_constraints.items():
            where = self._symbols.get(str(symbol))
            if where is not None:
                found += _range(where, limits)
        for guard in guards:
            condition = conditions.parse(guard, self._symbols, paths)
            if condition not in found and ["==", *reversed(condition[1:])] not in found:
                found.append(condition)
        return found

    def batches(self) -> list[Any]:
        """Return those sizes that are nothing but the first dimension of tensors."""
        firsts = {text for where, text in self._seen if where[0] == "dim" and where[2] == 0}
        others = " ".join(text for where, text in self._seen if where[0] != "dim" or where[2])
        others += " ".join(text for text in firsts if not text.isidentifier())
        words = set(re.findall(r"\w+", others))
        return [self._symbols[text] for text in sorted(firsts - words) if text.isidentifier()]


def _range(where: Any, limits: Any) -> Iterator[Any]:
    lower, upper = str(limits.lower), str(limits.upper)
    if lower.isdecimal() and int(lower) > 0:
        yield [">=", where, int(lower)]
    if upper.isdecimal() and int(upper) < 2**62:
        yield ["<=", where, int(upper)]


def _with_mutations(
    exported: torch.export.ExportedProgram, graph: Graph, begin: Sequence[Any]
) -> Graph:
    """Return a graph that writes to buffers and inputs what torch returns for them."""
    specs = exported.graph_signature.output_specs
    names = {spec.target: spec.arg.name for spec in exported.graph_signature.input_specs}
    places = {node.name: place for place, node in enumerate(begin)}
    steps, outputs = list(graph.steps), []
    for spec, output in zip(specs, graph.outputs, strict=True):
        if spec.kind in MUTATIONS:
            name = names.get(spec.target, spec.target)
            target = Value(places[str(name)])
            steps.append(Step("aten.copy_.default", (target, output), {}))
        elif spec.kind == OutputKind.USER_OUTPUT:
            outputs.append(output)
        else:
            raise ProgramError(f"it gives back a {spec.kind.name.lower()}")
    return Graph(graph.inputs, tuple(steps), tuple(outputs))


class _Tracer:
    """Takes the nodes of one graph; *begin* are the values that it begins with."""

    def __init__(self, owner: torch.nn.Module, begin: Sequence[Any]) -> None:
        self._owner = owner
        self._places = {node: place for place, node in enumerate(begin)}
        self._graphs: dict[Any, Graph] = {}
        self._count = len(begin)

    def graph(self, graph: torch.fx.Graph) -> Graph:
        steps: list[Step] = []
        outputs: list[Any] = []
        for node in graph.nodes:
            if node.op == "get_attr":
                self._graphs[node] = self._inner(str(node.target))
            elif node.op == "call_function":
                steps.append(self._step(node))
                self._places[node] = self._count + len(steps) - 1
            elif node.op == "output":
                outputs = self._argument(node.args[0], "an output")
            elif node.op != "placeholder":
                raise ProgramError(f"it has a {node.op} of {node.target!r} in it")
        return Graph(self._count, tuple(steps), tuple(outputs))

    def _inner(self, name: str) -> Graph:
        inner = self._owner.get_submodule(name) if name else self._owner
        if not isinstance(inner, torch.fx.GraphModule):
            raise ProgramError(f"it uses {name!r}, a {type(inner).__qualname__}, as a graph")
        begin = [node for node in inner.graph.nodes if node.op == "placeholder"]
        return _Tracer(inner, begin).graph(inner.graph)

    def _step(self, node: torch.fx.Node) -> Step:
        name = name_of(node.target)
        if name is None:
            raise ProgramError(f"it calls {_called(node)}, which a program has no word for")
        where = f"an argument of {name}"
        args = [self._argument(each, where) for each in node.args]
        if name == "autocast":
            # The kind of device, which goes along when the program is loaded on another.
            args[0] = encode(torch.device(str(args[0])), where)
        kwargs = {key: self._argument(each, where) for key, each in node.kwargs.items()}
        return Step(name, tuple(args), kwargs)

    def _argument(self, value: Any, where: str) -> Any:
        if isinstance(value, torch.fx.Node):
            if value in self._graphs:
                return self._graphs[value]
            return Value(self._places[value])
        if isinstance(value, (list, tuple)):
            return [self._argument(each, where) for each in value]
        try:
            return encode(value, where)
        except UnsupportedValueError as error:
            raise ProgramError(f"a {type(value).__qualname__} is {where}") from error


def _called(node: torch.fx.Node) -> str:
    """Return what a node calls and where the module's code does, as people read it."""
    target: Any = node.target
    what = str(getattr(target, "__name__", None) or target)
    if isinstance(target, torch._ops.HigherOrderOperator):  # noqa: SLF001 - the only name of that class
        what = f"torch.ops.higher_order.{target.name()}"  # type: ignore[no-untyped-call] # torch left it untyped
    lines = [line.strip() for line in (node.stack_trace or "").strip().splitlines()]
    return f"{what} (at {' '.join(lines[-2:])})" if lines else what


def guard_paths(signature: inspect.Signature, paths: Sequence[Path]) -> dict[Path, int]:
    """Return the place of each input by the path that torch's guards name it with.

    Args:
        signature: Of the module's ``forward``.
        paths: Where each input sits in ``(args, kwargs)``.
    """
    positional = [
        name
        for name, each in signature.parameters.items()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    named = set(positional) | {
        name for name, each in signature.parameters.items() if each.kind == each.KEYWORD_ONLY
    }
    rest = {each.kind: name for name, each in signature.parameters.items()}
    found: dict[Path, int] = {}
    for place, (kind, first, *inner) in enumerate(paths):
        if kind == 0 and isinstance(first, int) and first >= len(positional):
            of_rest = rest.get(inspect.Parameter.VAR_POSITIONAL, "args")
            path: Path = (of_rest, first - len(positional), *inner)
        elif kind == 0 and isinstance(first, int):
            path = (positional[first], *inner)
        elif first in named:
            path = (first, *inner)
        else:
            path = (rest.get(inspect.Parameter.VAR_KEYWORD, "kwargs"), first, *inner)
        found[path] = place
    return found
