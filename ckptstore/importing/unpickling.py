"""The one file that unpickles: what torch.save wrote, as data or, if it is trusted, as it says.

``load_restricted`` runs nothing that the file names. The archive must be one that torch.save can
have written; its pickle is read as data, and may name nothing that isn't on our own list
(:mod:`ckptstore.importing.allowed`); and what it says is made here, each thing checked
(:mod:`ckptstore.importing.building`). torch's own restricted reader is not used.

``load_trusted`` runs whatever the file says. It is called in a process of its own alone
(:mod:`ckptstore.importing.child`), and only for whoever passed ``trust_pickle=True``.
"""

from __future__ import annotations

import pickle
import sys
import types
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, Self

import torch

from ckptstore.errors import CkptStoreError, ImportRefusedError, UntrustedPickleError
from ckptstore.importing.allowed import unknown
from ckptstore.importing.archive import (
    ORDER,
    PICKLE,
    STORAGES,
    content_of,
    folder_of,
    open_archive,
    spans_of,
)
from ckptstore.importing.arrays import UnusualError
from ckptstore.importing.building import Building
from ckptstore.importing.inert import Name, Within, read_asking, read_pickle
from ckptstore.importing.storages import LegacyStorages, ZipStorages, asked_for

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f920 6aa850192e")
"""How a file of torch.save before 1.6 begins, behind the two bytes of the pickle's protocol: the
number 0x1950a86a20f9469cfc6c (torch/serialization.py, MAGIC_NUMBER) and a STOP."""
LEGACY_PICKLES = 5
"""Magic number, protocol, system, the object, keys of its storages; then the storages' bytes."""
LITTLE = b"little"
TAR_MAGIC = (257, b"ustar")
HEAD_BYTES = 512


def is_torchs(head: bytes) -> bool:
    """Say whether a file that begins with *head* (512 bytes) may have been written by torch.save.

    A pickle of any other origin counts too: it is refused with better words than "unknown".
    """
    return head.startswith((ZIP_MAGIC, b"\x80")) or is_tar(head)


def is_tar(head: bytes) -> bool:
    """Say whether a file is a tar archive, as torch.save wrote before 0.1.10."""
    start, magic = TAR_MAGIC
    return head[start : start + len(magic)] == magic


def load_restricted(file: Path | IO[bytes], where: str) -> Any:
    """Return what torch.save wrote, tensors on the CPU; nothing that it names is run.

    Tensors of a file in the present (zip) format are mapped, privately, and not read.

    Args:
        file: Its path, or the open file.
        where: Names it in errors.

    Raises:
        UntrustedPickleError: It needs more than tensors and plain values; the error has all names.
        ImportRefusedError: It is damaged, nothing torch.save wrote, or made to harm.
    """
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return _load(opened, file if _is_mappable(file) else None, where)
    return _load(file, None, where)


def load_trusted(path: Path) -> Any:
    """Return what a file holds, running whatever it says. Call it in a process of its own.

    Classes that can't be imported are stood in for, so that their weights can be had all the same.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    is_plain = head.startswith(b"\x80") and not head[2:].startswith(LEGACY_MAGIC)
    with path.open("rb") as file:
        if is_plain:  # nothing of torch.save's: a pickle of somebody else's
            return _Unpickler(file).load()
        mapped = head.startswith(ZIP_MAGIC) and _is_mappable(path)
        return _load_all(str(path) if mapped else file, mapped=mapped)


def load_trusted_piece(file: IO[bytes], where: str) -> Any:  # noqa: ARG001 - as load_restricted is called
    """Return what an open file holds, as :func:`load_trusted` does."""
    return _load_all(file, mapped=False)


def _load_all(file: str | IO[bytes], *, mapped: bool) -> Any:
    module = types.SimpleNamespace(
        Unpickler=_Unpickler, load=_load_one, UnpicklingError=pickle.UnpicklingError,
        __name__="pickle",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about what a file of others was made with
        return torch.load(
            file, map_location="cpu", weights_only=False, pickle_module=module, mmap=mapped
        )


def _load(file: IO[bytes], path: Path | None, where: str) -> Any:
    try:
        file.seek(0)
        head = file.read(HEAD_BYTES)
        if head.startswith(ZIP_MAGIC):
            return _load_zip(file, path, where)
        return _load_legacy(file, where, is_torchs=head[2:].startswith(LEGACY_MAGIC))
    except UnusualError as error:
        raise UntrustedPickleError(where, [], f"it holds {error}") from error
    except CkptStoreError:
        raise
    except Exception as error:
        # Whatever a damaged file is, it is that file that can't be read, and no bug of the
        # caller's: all that follows from its bytes is told as one kind of error.
        said = f"{type(error).__name__}: {str(error)[:300]}"
        raise ImportRefusedError(f"{where} is damaged, or made to harm: {said}") from error


def _load_zip(file: IO[bytes], path: Path | None, where: str) -> Any:
    with open_archive(file, where) as archive:
        root = folder_of(archive, where)
        spans = spans_of(archive, file, root, where)
    read = read_pickle(_as_binary(content_of(file, spans[PICKLE])), where)
    _refuse_unknown(read.names, where)
    order = content_of(file, spans[ORDER]).read() if ORDER in spans else LITTLE
    if order not in (LITTLE, b"big"):
        raise ImportRefusedError(f"{where} says no byte order: {order[:20]!r}")
    stored = {
        name.removeprefix(STORAGES): span
        for name, span in spans.items()
        if name.startswith(STORAGES)
    }
    swapped = order.decode() != sys.byteorder
    return Building(ZipStorages(file, path, stored, swapped=swapped)).build(read.value)


def _load_legacy(file: IO[bytes], where: str, *, is_torchs: bool) -> Any:
    size = file.seek(0, 2)
    file.seek(0)
    if is_tar(file.read(HEAD_BYTES)):
        raise UntrustedPickleError(
            where, [], "it is a tar archive, as torch.save wrote before 0.1.10, and those are read "
            "in no restricted way"
        )  # fmt: skip
    file.seek(0)
    within = _as_binary(Within(file, size))
    found = [read_asking(within, where) for _ in range(LEGACY_PICKLES if is_torchs else 1)]
    _refuse_unknown([name for read, _ in found for name in read.names], where)
    if not is_torchs:
        raise UntrustedPickleError(where, [], "it is a pickle that torch.save did not write")
    _, _, _, (read, asked), (keys, _) = found
    if not isinstance(keys.value, list):
        raise ImportRefusedError(f"{where} is damaged: it doesn't say which storages it has")
    stored = LegacyStorages(file, keys.value, [asked_for(each) for each in asked])
    return Building(stored).build(read.value)


def _refuse_unknown(names: Iterable[Name], where: str) -> None:
    wanted = unknown(names)
    if wanted:
        raise UntrustedPickleError(where, wanted)


def _is_mappable(path: Path) -> bool:
    """Say whether torch maps a file of that name; whatever its name, it can read it open."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return path.suffix != ".safetensors"  # by that suffix torch takes any file for one


def _as_binary(stream: IO[bytes] | Within) -> BinaryIO:
    return stream  # type: ignore[return-value] # typeshed's two words for one thing


# ---------------------------------------------------------------- in a process of its own


class StandIn:
    """An object whose class can't be imported; a module's weights are in it all the same."""

    def __new__(cls, *args: object, **_: object) -> Self:
        """Take whatever its class was called with."""
        made = super().__new__(cls)
        made.__dict__["arguments"] = args
        return made

    def __init__(self, *_: object, **__: object) -> None:
        """Do nothing: what its class would have done nobody knows."""

    def __setstate__(self, state: object) -> None:
        """Become a module if that is what was saved."""
        if isinstance(state, Mapping) and {"_parameters", "_modules"} <= state.keys():
            kind = type(self)
            self.__dict__.clear()
            facts = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
            self.__class__ = type(kind.__name__, (torch.nn.Module,), facts)
            vars(self).update(state)
            torch.nn.Module.__setstate__(self, {})  # type: ignore[arg-type,no-untyped-call] # it is one now
        elif isinstance(state, Mapping):
            self.__dict__.update(state)
        else:
            self.__dict__["state"] = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for, or a stand-in where it can't be imported."""
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return _stand_in(module, name)


def _stand_in(module: str, name: str) -> Any:
    facts = {"__module__": module, "__qualname__": name}
    return type(name.rpartition(".")[2], (StandIn,), facts)


def _load_one(file: Any, **how: Any) -> Any:
    return _Unpickler(file, **how).load()
