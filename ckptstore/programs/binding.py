"""A call's arguments as a program's inputs, each checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ckptstore.errors import MismatchError
from ckptstore.programs.conditions import holds, words
from ckptstore.programs.document import Input, Program
from ckptstore.programs.structure import collect, leaves_in, rebuild
from ckptstore.state.tensors import dtype_name


class Binding:
    """Takes a program's inputs out of the arguments of a call.

    Args:
        program: The program.
        what: Names it in errors.
    """

    def __init__(self, program: Program, what: str) -> None:
        self._program = program
        self._what = what
        self._args: list[tuple[str, Any]] = [
            (program.names[place] if place < len(program.names) else f"args[{place}]", node)
            for place, node in enumerate(program.args["tuple"])
        ]
        self._kwargs: dict[Any, Any] = dict(program.kwargs["dict"])
        self.names = self._named()
        """What to call each input in messages, e.g. ``x`` or ``batch['mask']``."""

    def __call__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """Return the inputs in the program's order.

        What the module would take for itself may be left out.

        Raises:
            MismatchError: They are not what the program was made for; it lists every mismatch.
        """
        inputs: list[Any] = [each.value for each in self._program.inputs]
        given, named = list(args), dict(kwargs)
        if len(given) > len(self._args):
            # What the sample had as keyword arguments may come by position.
            rest = list(zip(self._program.names, given, strict=False))[len(self._args) :]
            taken = [(name, each) for name, each in rest if name in self._kwargs.keys() - named]
            if len(taken) == len(given) - len(self._args):
                given, named = given[: len(self._args)], named | dict(taken)
        for name, node in self._args[len(given) :]:
            if name in named:
                given.append(named.pop(name))
            elif self._may_be_left_out(name, node):
                given.append(rebuild(node, inputs))
            else:
                break
        for key, node in self._kwargs.items():
            if key not in named and self._may_be_left_out(key, node):
                named[key] = rebuild(node, inputs)
        problems = (
            self._left_out(given, named, inputs)
            or self._collected(given, named, inputs)
            or self._unfit(inputs)
        )
        if problems:
            advice = "it computes only what it was made for: save another program with such samples"
            raise MismatchError(f"{self._what} does not fit these inputs", problems, advice)
        return inputs

    def describe(self) -> str:
        """Return what it takes, in words."""
        inputs = zip(self.names, self._program.inputs, strict=True)
        taken = ", ".join(f"{name}: {_described(each)}" for name, each in inputs)
        required = [
            words(condition, self.names)
            for condition in self._program.conditions
            if condition[0] != ">=" or condition[2] != 1  # as any size is
        ]
        return f"{taken}, where {' and '.join(required)}" if required else taken

    def _may_be_left_out(self, name: Any, node: Any) -> bool:
        return name in self._program.optional and self._is_constant(node)

    def _is_constant(self, node: Any) -> bool:
        return all(self._program.inputs[leaf].kind == "constant" for leaf in leaves_in(node))

    def _left_out(
        self, given: Sequence[Any], named: Mapping[str, Any], inputs: Sequence[Any]
    ) -> list[str]:
        """Name what has to be given although only one value fits."""
        if len(given) > len(self._args):
            return []
        missing = [
            *self._args[len(given) :],
            *((key, node) for key, node in self._kwargs.items() if key not in named),
        ]
        return [
            f"{name} has to be given, as {rebuild(node, inputs)!r:.60}: left out, it would be "
            "something else"
            for name, node in missing
            if self._is_constant(node)
        ]

    def _collected(
        self, given: Sequence[Any], named: Mapping[str, Any], inputs: list[Any]
    ) -> list[str]:
        """Take the leaves out of arguments; return what is wrong with their structure."""
        problems = []
        if len(given) != len(self._args):
            problems.append(f"it takes {len(self._args)} positional argument(s), not {len(given)}")
        else:
            for (name, node), each in zip(self._args, given, strict=True):
                problems += collect(node, each, inputs.__setitem__, name)
        if set(named) != set(self._kwargs):
            problems.append(
                f"it takes the keyword arguments {list(self._kwargs)}, not {list(named)}"
            )
        else:
            for key, node in self._kwargs.items():
                problems += collect(node, named[key], inputs.__setitem__, key)
        return problems

    def _unfit(self, inputs: Sequence[Any]) -> list[str]:
        """Return what is wrong with inputs; sizes are looked at if all else fits."""
        problems = [
            problem
            for name, expected, each in zip(self.names, self._program.inputs, inputs, strict=True)
            if (problem := _mismatch(name, expected, each)) is not None
        ]
        if problems:
            return problems
        dims = [tuple(each.shape) if isinstance(each, torch.Tensor) else None for each in inputs]
        shown = ", ".join(
            f"{name} has the shape {list(shape)}"
            for name, shape in zip(self.names, dims, strict=True)
            if shape is not None
        )
        return [
            f"{words(condition, self.names)} does not hold: {shown}"
            for condition in self._program.conditions
            if not holds(condition, dims, inputs)
        ]

    def _named(self) -> list[str]:
        names = [""] * len(self._program.inputs)

        def name(node: Any, said: str) -> None:
            ((kind, content),) = node.items()
            if kind == "leaf":
                names[content] = said
            elif kind == "dict":
                for key, item in content:
                    name(item, f"{said}[{key!r}]")
            else:
                for place, item in enumerate(content):
                    name(item, f"{said}[{place}]")

        for said, node in [*self._args, *self._kwargs.items()]:
            name(node, str(said))
        return names


def _mismatch(name: str, expected: Input, found: Any) -> str | None:
    if expected.kind == "tensor":
        fits = isinstance(found, torch.Tensor) and _has_shape(expected, found)
    elif expected.kind == "number":
        fits = type(found) in (int, float)
    else:
        fits = type(found) is type(expected.value) and repr(found) == repr(expected.value)
    if fits:
        return None
    if isinstance(found, torch.Tensor):
        shown = f"{dtype_name(found.dtype)}{list(found.shape)}"
    else:
        shown = f"{found!r:.60}"
    return f"{name} should be {_described(expected)}, and is {shown}"


def _has_shape(expected: Input, found: torch.Tensor) -> bool:
    return (
        dtype_name(found.dtype) == expected.dtype
        and found.dim() == len(expected.shape)
        and all(
            size is None or size == own
            for size, own in zip(expected.shape, found.shape, strict=True)
        )
    )


def _described(each: Input) -> str:
    if each.kind == "tensor":
        sizes = ", ".join("any" if size is None else str(size) for size in each.shape)
        return f"{each.dtype}[{sizes}]"
    return "a number" if each.kind == "number" else f"{each.value!r:.60}"
