"""A program out of a version, its weights out of the part that it belongs to."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from ckptstore.errors import ArgumentError, IntegrityError, VersionNotFoundError
from ckptstore.format.manifest import Head
from ckptstore.loading.files import file_of, read_file
from ckptstore.loading.load import load_state
from ckptstore.loading.pinned import CPU, takes
from ckptstore.manifest import OpenManifest
from ckptstore.programs.document import ROLE, decode_program
from ckptstore.programs.module import ProgramModule
from ckptstore.programs.weights import tensors_of
from ckptstore.state.devices import resolve


def load_program(
    opened: OpenManifest,
    *,
    device: str | int | torch.device | None = None,
    part: str = "model",
    operators: Collection[str] = (),
) -> ProgramModule:
    """Return a part's program as a module in eval mode on its device.

    Args:
        opened: The version.
        device: Where it computes; None means CUDA if there is one, else the CPU.
        part: The part's name.
        operators: Namespaces of operators beside torch's own that it may call.

    Raises:
        ArgumentError: *operators* is no list of names.
        VersionNotFoundError: The part has no program.
        MismatchError: The program calls operators that were not allowed, or that are not there.
        DeviceError: The device is not there.
        IntegrityError: Some bytes are not what was saved, or the file is no program.
        StorageError: The storage failed.
    """
    if isinstance(operators, str) or not all(isinstance(name, str) for name in operators):
        raise ArgumentError(
            f"operators= takes a list of packages' names, as in operators=['torchvision'], not "
            f"{operators!r:.80}"
        )
    target = resolve(device)
    head = opened.head
    file = file_of(head, ROLE, part)
    if file is None:
        raise VersionNotFoundError(_without(head, part))
    what = f"the program of part {part!r} of {head.ref}"
    data = read_file(opened, file)
    program = decode_program(data, what)
    # Anything but a GPU gets what is read on the CPU, one tensor at a time.
    device = target if takes(target) else CPU
    state = load_state(opened, part, device=device, map_files=target.type == "cpu")
    if not isinstance(state, Mapping):
        raise IntegrityError(
            f"{opened.where}, part {part!r}: a module's state should be a dict, and is a "
            f"{type(state).__qualname__}",
            ref=head.ref,
        )
    tensors = tensors_of(program, data, state, device=target, where=what)
    return ProgramModule(program, tensors, device=target, what=what, operators=operators)


def _without(head: Head, part: str) -> str:
    parts = [repr(file.part) for file in head.files if file.role == ROLE]
    has = f"; part {', '.join(parts)} has one" if parts else ""
    return (
        f"{head.ref} has no program of part {part!r}{has}: save(model, program=sample) stores one "
        "with a version; with the class at hand, load(ModelClass) needs none"
    )
