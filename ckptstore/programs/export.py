"""A live module as a program: traced by torch.export, compared with the module, then kept.

torch's own file of an exported program holds pickles and all weights, and is read by evaluating
text that it brings along (docs/decisions/0019-programs.md). So only what torch.export documents is
taken: the graph, its signature, and the tensors.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ckptstore.errors import ProgramError, StateWarning, UnsupportedValueError, warn
from ckptstore.programs.binding import Binding
from ckptstore.programs.comparing import TWICE, compare_calls, computed, furthest
from ckptstore.programs.conditions import UnknownConditionError, words
from ckptstore.programs.document import Held, Program, decode_program, encode_program
from ckptstore.programs.graph import calls
from ckptstore.programs.module import ProgramModule
from ckptstore.programs.operators import namespace
from ckptstore.programs.samples import Sample, copied, first_rows, grown, on, sample_of
from ckptstore.programs.structure import Path, flatten
from ckptstore.programs.tracing import Traced, guard_paths, guards_of, traced
from ckptstore.programs.undisturbed import Kept
from ckptstore.programs.weights import tensors_of
from ckptstore.state.modules import class_name, unwrap
from ckptstore.state.rng import forked
from ckptstore.state.tensors import check, dtype_name, pieces

MOST_SHOWN = 600
WITHOUT = "save without program= to store the weights alone"
NAMED = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def export_program(
    module: torch.nn.Module, state: Mapping[str, torch.Tensor], given: object, part: str
) -> list[bytes]:
    """Return a module as a program's file, in pieces.

    The module is traced and run in eval mode, without its wrappers, and left as it was found.

    Args:
        module: The module.
        state: The tensors of its state as they are stored, by key. Those are not in the file.
        given: What ``program=`` was given.
        part: The part's name, for messages.

    Raises:
        ArgumentError: *given* is no sample.
        ProgramError: The module can't be exported, calls what a program has no word for, or
            computes something else than the program does.
    """
    sample = sample_of(given)
    inner = unwrap(module)
    with torch.inference_mode(mode=False), torch.enable_grad():
        kept = Kept(inner)
        try:
            device = _device(inner)
            with torch.autocast(device.type, enabled=False):
                exporter = _Exporter(inner, state, on(sample, device), kept)
                found, reason = exporter.export()
        except ProgramError as error:
            raise ProgramError(
                f"cannot store a program of part {part!r} ({class_name(inner)}): {error}; {WITHOUT}"
            ) from error
        finally:
            kept.put_weights_back()
    for message in _warnings(found, exporter.unsettled, reason, given=sample):
        warn(f"the program of part {part!r} {message}", StateWarning)
    return encode_program(found.program, found.constants)


def _warnings(
    found: _Made, unsettled: Sequence[str], reason: ProgramError | None, *, given: Sample
) -> Iterator[str]:
    """Yield what whoever calls a program should know of it."""
    program = found.program
    names = Binding(program, "the program").names
    fixed = [
        f"{name} ({each.shape[0]})"
        for name, each in zip(names, program.inputs, strict=True)
        if each.kind == "tensor" and each.shape and each.shape[0] is not None
    ]
    if fixed and given.dynamic_shapes is None:
        why = f"; {reason}" if reason is not None else ""
        yield f"takes a first dimension of this size only: {', '.join(fixed)}{why}"
    narrowed = [
        words(each, names)
        for each in program.conditions
        if given.dynamic_shapes is None and _narrows(each, found.batches)
    ]
    if narrowed:
        yield f"takes some sizes only: those with {' and '.join(narrowed)}"
    if unsettled:
        yield (
            f"may not change {', '.join(unsettled)} as forward does at each call: two calls in a "
            "row gave what the module gives, and later ones may not"
        )
    if not program.is_exact:
        yield (
            "does not give the module's very bits, but what torch.testing.assert_close takes for "
            f"equal: they differ by {found.worst:.2g} at most for the samples (attention has a "
            "fast path in eval mode that can't be traced)"
        )


def _narrows(condition: Any, batches: Sequence[Any]) -> bool:
    """Say whether a condition keeps a batch from being of any number of rows from 1."""
    if condition[0] == ">=" and condition[1] in batches:
        return bool(condition[2] != 1)
    is_equal_sizes = condition[0] == "==" and all(
        each[0] == "dim" for each in condition[1:] if isinstance(each, list)
    )
    return not is_equal_sizes


def _device(module: torch.nn.Module) -> torch.device:
    found = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    if len(found) > 1:
        raise ProgramError(
            f"its weights are on several devices ({', '.join(sorted(map(str, found)))}), and a "
            "program computes on one"
        )
    return found.pop() if found else torch.device("cpu")


class _Made:
    """A program that was made of a module, and the bytes of its constants."""

    def __init__(
        self, program: Program, constants: Mapping[int, bytes], batches: list[Any]
    ) -> None:
        self.program = program
        self.constants = constants
        self.batches = batches
        """The sizes that are nothing but first dimensions: conditions."""
        self.worst = 0.0
        """By how much an output of it differed from the module's, at most."""


class _Exporter:
    """Exports one module, which is in eval mode already."""

    def __init__(
        self,
        module: torch.nn.Module,
        state: Mapping[str, torch.Tensor],
        sample: Sample,
        kept: Kept,
    ) -> None:
        self._module = module
        self._kept = kept
        self._state = state
        self._sample = sample
        self._device = _device(module)
        self._signature = inspect.signature(module.forward)
        # The first of several tied names is the one that is stored for sure.
        self._keys = {_place(tensor): key for key, tensor in reversed(list(state.items()))}
        self.unsettled: list[str] = []
        """What forward changes at each call beside parameters and buffers."""

    def export(self) -> tuple[_Made, ProgramError | None]:
        """Return the program, and why sizes can't vary where that was tried in vain."""
        reason: ProgramError | None = None
        if self._sample.dynamic_shapes is not None:
            return self._attempt(self._sample, self._sample.dynamic_shapes), None
        for sample in self._samples():
            try:
                return self._attempt(sample, self._first_sizes(sample)), reason
            except ProgramError as error:
                reason = reason or error
        return self._attempt(self._sample, None), reason

    def _samples(self) -> Iterator[Sample]:
        """Yield the samples to try with sizes that vary."""
        firsts = [
            leaf.shape[0]
            for leaf in self._sample.leaves()
            if isinstance(leaf, torch.Tensor) and leaf.dim()
        ]
        if 1 in firsts:
            yield grown(self._sample)
        if any(size > 1 for size in firsts):
            yield self._sample

    def _first_sizes(self, sample: Sample) -> Any:
        """Return as torch.export has it that the first size of every tensor may vary."""

        def spec(leaf: Any) -> Any:
            may_vary = isinstance(leaf, torch.Tensor) and leaf.dim() and leaf.shape[0] > 1
            return {0: torch.export.Dim.AUTO} if may_vary else None

        shapes = sample.map(spec)
        return dict(self._signature.bind(*shapes.args, **shapes.kwargs).arguments)

    def _attempt(self, sample: Sample, shapes: Any) -> _Made:
        """Export with these arguments, and compare; the samples given must fit the program."""
        made = self._made(sample, shapes)
        made.program = self._compared(made, sample)
        self._allow_one_row(made, sample)
        if sample is not self._sample:
            made.program = self._compared(made, self._sample)
        return made

    def _made(self, sample: Sample, shapes: Any) -> _Made:
        node, leaves, paths = flatten((sample.args, dict(sample.kwargs)))
        # Before it is traced: what its code caches is then a real tensor, and no stand-in of
        # torch.export's that would come back at the next training step.
        try:
            ran = computed(self._module, sample, self._kept)
        except Exception as error:  # the module's own code may raise anything
            raise ProgramError(f"the module itself fails: {_shown(error)}") from error
        output, outputs = ran.node, ran.outputs[0]
        written = self._kept.put_weights_back()
        if written:
            raise ProgramError(
                f"its forward writes to its own parameters ({', '.join(written)}); they were put "
                "back"
            )
        exported = self._exported(sample, shapes)
        try:
            found = self._traced(exported, leaves, guard_paths(self._signature, paths))
        except UnknownConditionError as error:
            raise ProgramError(
                f"a condition on the sizes of its inputs is too involved: {error}"
            ) from error
        if len(outputs) != len(found.graph.outputs):
            raise ProgramError(
                f"torch.export sees {len(found.graph.outputs)} outputs where there are "
                f"{len(outputs)}: return tensors, and plain lists, tuples and dicts of them"
            )
        held, constants = self._held(found.tensors)
        names = [name for name, p in self._signature.parameters.items() if p.kind in POSITIONAL]
        args, kwargs = node["tuple"]
        program = Program(
            torch_version=str(torch.__version__),
            device=self._device,
            is_exact=True,
            held=tuple(held),
            inputs=tuple(found.inputs),
            args=args,
            kwargs=kwargs,
            names=tuple(names),
            conditions=tuple(found.conditions),
            graph=found.graph,
            output=output,
            optional=tuple(_optional(self._signature, sample, names)),
        )
        return _Made(program, constants, found.batches)

    @staticmethod
    def _traced(
        exported: torch.export.ExportedProgram, leaves: list[Any], paths: Mapping[Path, int]
    ) -> Traced:
        """Return an exported program as a graph, of smaller operators if it has to be.

        What torch makes of ``vmap`` and of tensor subclasses has words in the smaller ones alone.
        """
        guards = guards_of(exported)
        try:
            return traced(exported, leaves, paths, guards)
        except ProgramError as error:
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own, about torch's own code
                return traced(exported.run_decompositions({}), leaves, paths, guards)
            # Whatever went wrong then, what came first says more.
            raise error from None

    def _exported(self, sample: Sample, shapes: Any) -> torch.export.ExportedProgram:
        given = copied(sample)
        try:
            with warnings.catch_warnings(), forked(), self._kept.as_in_inference():
                # It warns of tensors that are attributes: they are put back.
                warnings.filterwarnings("ignore", "The tensor attribute", UserWarning)
                return torch.export.export(
                    self._module, given.args, dict(given.kwargs), dynamic_shapes=shapes
                )
        except Exception as error:  # tracing raises whatever torch and the module's own code do
            if isinstance(error, AssertionError) and "tree_name" in str(error):
                raise ProgramError(
                    "torch.export can't let sizes vary of what forward takes as **kwargs: give "
                    "its arguments names"
                ) from error
            raise ProgramError(f"torch.export failed: {_shown(error)}") from error

    def _held(self, tensors: list[torch.Tensor]) -> tuple[list[Held], dict[int, bytes]]:
        """Return what a program says of its tensors, and the bytes of those that are no state."""
        held: list[Held] = []
        constants: dict[int, bytes] = {}
        for place, tensor in enumerate(tensors):
            key = self._keys.get(_place(tensor)) if tensor.numel() else None
            if key is None:
                try:
                    check(tensor, "one of its tensors")
                except UnsupportedValueError as error:
                    raise ProgramError(str(error)) from error
                constants[place] = b"".join(pieces(tensor))
            name, size = dtype_name(tensor.dtype), tensor.dtype.itemsize
            held.append(Held(name, size, tuple(tensor.shape), key))
        return held, constants

    def _compared(self, made: _Made, sample: Sample) -> Program:
        """Return the program once it computed what the module does, saying whether exactly so."""
        what = "the program"
        data = memoryview(b"".join(encode_program(made.program, made.constants)))
        program = decode_program(data, what)
        tensors = tensors_of(program, data, self._state, device=self._device, where=what)
        allowed = {found for call in calls(program.graph) if (found := namespace(call))}
        module = ProgramModule(program, tensors, device=self._device, what=what, operators=allowed)
        expected = computed(self._module, sample, self._kept, times=TWICE)
        try:
            got = computed(module, sample, self._kept, times=TWICE)
        except Exception as error:  # whatever an operator raises, the program is of no use then
            raise ProgramError(f"the program fails: {_shown(error)}") from error
        is_exact = compare_calls(expected, got)
        made.worst = max(made.worst, furthest(expected, got))
        self.unsettled = expected.unsettled
        return replace(made.program, is_exact=made.program.is_exact and is_exact)

    def _allow_one_row(self, made: _Made, sample: Sample) -> None:
        """Let a batch be of one, if the program computes what the module does there too.

        torch.export takes for granted that a size that varies is never 1.
        """
        limits = [[">=", size, 2] for size in made.batches]
        if not limits or any(limit not in made.program.conditions for limit in limits):
            return
        cut = {size[1] for size in made.batches}
        cut |= {  # those that have the same size as one of them
            place
            for each in made.program.conditions
            if each[0] == "==" and each[2] in made.batches and each[1][2:] == [0]
            for place in [each[1][1]]
        }
        which = [place in cut for place in range(len(made.program.inputs))]
        rest = tuple(each for each in made.program.conditions if each not in limits)
        least = tuple([">=", size, 1] for size in made.batches)
        with_one = _Made(
            replace(made.program, conditions=(*least, *rest)), made.constants, made.batches
        )
        try:
            made.program = self._compared(with_one, first_rows(sample, which))
            made.worst = max(made.worst, with_one.worst)
        except Exception:  # noqa: BLE001 - whatever the module says of one row: two are the least then
            return


def _optional(signature: inspect.Signature, sample: Sample, names: Sequence[str]) -> Iterator[str]:
    """Yield the arguments for which the sample has what forward takes if they are left out."""
    for name, value in (*zip(names, sample.args, strict=False), *sample.kwargs.items()):
        known = signature.parameters.get(name)
        if known is None or known.kind not in NAMED or known.default is known.empty:
            continue
        node, leaves, _ = flatten(value)
        default, others, _ = flatten(known.default)
        if (
            node == default
            and not any(isinstance(leaf, torch.Tensor) for leaf in leaves)
            and list(map(type, leaves)) == list(map(type, others))
            and list(map(repr, leaves)) == list(map(repr, others))
        ):
            yield name


def _shown(error: Exception) -> str:
    text = str(error).strip()
    text = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
    return f"{type(error).__name__}: {text}"


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    """Return where a tensor lies: what is the same for it and a detached one of the same memory."""
    return (
        tensor.device,
        tensor.data_ptr(),
        tensor.dtype,
        tuple(tensor.shape),
        tensor.stride(),
        tensor.is_conj(),
        tensor.is_neg(),
    )
