"""A program as a module: its weights, and its operators called one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from typing import Any, Self

import torch

from ckptstore.errors import UsageError
from ckptstore.programs.binding import Binding
from ckptstore.programs.document import Program
from ckptstore.programs.graph import Runner, calls, on_device
from ckptstore.programs.operators import resolve
from ckptstore.programs.structure import rebuild


class ProgramModule(torch.nn.Module):
    """Computes what a module computed in eval mode, without its class.

    Args:
        program: The program.
        tensors: Those that it holds, in its order, on *device*.
        device: Where it computes.
        what: Names it in errors, e.g. ``the program of part 'model' of digits@7``.
        operators: Namespaces of operators beside torch's own that it may call.

    Raises:
        IntegrityError: It calls what is no operator.
        MismatchError: It calls operators that were not allowed, or that are not there.
    """

    def __init__(
        self,
        program: Program,
        tensors: Sequence[torch.Tensor],
        *,
        device: torch.device,
        what: str,
        operators: Collection[str] = (),
    ) -> None:
        super().__init__()
        for place, tensor in enumerate(tensors):
            self.register_buffer(f"tensor_{place}", tensor)
        self.program = program
        self._what = what
        self._device = device
        graph = on_device(program.graph, program.device, device)
        found = {name: resolve(name, operators, what) for name in sorted(calls(graph))}
        self._runner = Runner(graph, found)
        self._binding = Binding(program, what)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the module returned, in plain tuples, lists and dicts.

        Raises:
            MismatchError: The inputs are not what the program was made for.
        """
        inputs = self._binding(args, kwargs)
        held = [getattr(self, f"tensor_{place}") for place in range(len(self.program.held))]
        return rebuild(self.program.output, self._runner(*held, *inputs))

    def extra_repr(self) -> str:
        """Return what the module's repr says of it."""
        return f"{self._what}, on {self._device}; it takes {self._binding.describe()}"

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:  # noqa: ARG002, FBT001, FBT002 - as torch declares it
        """Refuse to be moved: a program names devices and dtypes in its operators too."""
        raise UsageError(
            f"{self._what} can't be moved or converted: load it again with load_program(device=…)"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a program with tensors of its own."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        vars(made).update(copy.deepcopy(vars(self), memo))
        return made

    def __reduce_ex__(self, protocol: object) -> Any:
        """Refuse to be pickled: what a program is stands in its version."""
        raise UsageError(
            f"{self._what} can't be pickled: call load_program() again, in that process"
        )
