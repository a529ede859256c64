"""What a file or folder of another tool holds, whatever kind it is: its content says that."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from ckptstore.errors import ArgumentError, CkptStoreError, ImportRefusedError, UntrustedPickleError
from ckptstore.importing import dcp, huggingface
from ckptstore.importing.contents import Contents, ForeignPart, recognise
from ckptstore.importing.file_names import Named
from ckptstore.importing.lightning import is_lightnings, recognise_lightning
from ckptstore.importing.plain import Plain, to_plain
from ckptstore.importing.safetensors_file import is_safetensors, read_safetensors
from ckptstore.importing.separate import read_trusted
from ckptstore.importing.unpickling import HEAD_BYTES, is_torchs, load_restricted

OTHERS = {
    b"\x89HDF\r\n\x1a\n": "HDF5, as Keras writes it",
    b"GGUF": "GGUF, as llama.cpp reads it",
    b"\x93NUMPY": "an array of NumPy",
    b"PAR1": "Parquet",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it first",
}
"""Beginnings of files that people may take for checkpoints of PyTorch."""


def kind_of(path: Path) -> str | None:
    """Say what a file or folder is by its first bytes or what lies in it.

    Returns:
        ``torch``, ``safetensors``, ``huggingface`` or ``dcp``; None for anything else.
    """
    if path.is_dir():
        if dcp.is_dcps(path):
            return "dcp"
        return "huggingface" if huggingface.is_huggingfaces(path) else None
    return kind_of_file(_head(path))


def kind_of_file(head: bytes) -> str | None:
    """Say what a file is that begins with *head*, its first 512 bytes; None if that is unknown."""
    # In this order: a length may begin with the byte that every pickle begins with.
    if is_safetensors(head):
        return "safetensors"
    return "torch" if is_torchs(head) else None


def read_foreign(
    path: Path,
    where: str,
    *,
    named: Named,
    trust_pickle: bool,
    keys: Mapping[str, str | None] | None = None,
    timeout: timedelta | None = None,
) -> Contents:
    """Read a checkpoint of another tool. Tensors are mapped where that is possible.

    Args:
        path: The file or folder, on this machine.
        where: Names it in errors.
        named: What its name says.
        trust_pickle: Whether it may run what it says, in a process of its own, if it can't be read
            otherwise.
        keys: What some keys of its dict are.
        timeout: How long that process may take; an hour if None.

    Raises:
        UntrustedPickleError: It can't be read without running what it says.
        ImportRefusedError: It is damaged, made to harm, or of no kind that is known.
        ArgumentError: *keys* names what is not there.
    """
    try:
        return _read(path, where, named, trust_pickle=trust_pickle, keys=keys, timeout=timeout)
    except CkptStoreError:
        raise
    except Exception as error:
        # The one boundary: whatever a file of others makes go wrong, it is that file that is
        # refused, by its name, and the others of its folder are still read.
        said = f"{type(error).__name__}: {str(error)[:300]}"
        raise ImportRefusedError(f"{where} can't be read as a checkpoint: {said}") from error


def _read(
    path: Path,
    where: str,
    named: Named,
    *,
    trust_pickle: bool,
    keys: Mapping[str, str | None] | None,
    timeout: timedelta | None,
) -> Contents:
    kind = kind_of(path)
    if kind is None:
        raise ImportRefusedError(f"{where} is no checkpoint that is known: {_guess(path)}")

    def load(file: Path, named_as: str) -> Plain:
        return _load(file, named_as, trust_pickle=trust_pickle, timeout=timeout)

    if keys and kind in {"safetensors", "huggingface"}:
        raise ArgumentError(f"keys= is for dicts of several things, and {where} is {kind}")
    if kind == "safetensors":
        state, metadata = read_safetensors(path, where)
        found = Contents(kind, {"model": ForeignPart("state_dict", state)})
        if metadata:
            found.extra["metadata"] = metadata
        return found
    if kind == "huggingface":
        return huggingface.read_huggingface(path, where, load)
    if kind == "dcp":
        read = _load_dcp(path, where, trust_pickle=trust_pickle, timeout=timeout)
    else:
        read = load(path, where)
    if is_lightnings(read.value) and not keys:
        found = recognise_lightning(read.value, named)
    else:
        found = recognise(read.value, kind, where, read.held, keys)
    found.notes = [*read.notes, *found.notes]
    return found


def _load(path: Path, where: str, *, trust_pickle: bool, timeout: timedelta | None) -> Plain:
    try:
        return to_plain(load_restricted(path, where), where)
    except UntrustedPickleError:
        if not trust_pickle:
            raise
    return read_trusted(path, where, timeout=timeout)


def _load_dcp(path: Path, where: str, *, trust_pickle: bool, timeout: timedelta | None) -> Plain:
    try:
        return to_plain(dcp.read_dcp(path, where, load_restricted), where)
    except UntrustedPickleError:
        if not trust_pickle:
            raise
    return read_trusted(path, where, kind="dcp", timeout=timeout)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _guess(path: Path) -> str:
    if path.is_dir():
        return (
            "a folder without weights of Hugging Face or an index of torch.distributed.checkpoint"
        )
    head = _head(path)
    for start, name in OTHERS.items():
        if head.startswith(start):
            return f"it is {name}"
    return "it is empty" if not head else f"it begins with {head[:8]!r}"
