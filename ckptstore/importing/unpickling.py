"""The one file that unpickles: what torch.save wrote, with torch's restricted reader.

``load_restricted`` runs nothing that the file names. Three gates stand one behind the other: the
archive must be one that torch.save can have written, its pickle may name nothing that isn't on our
own list (:mod:`ckptstore.importing.allowed`), and torch reads it with ``weights_only=True``.

``load_trusted`` runs whatever the file says. It is called in a process of its own alone
(:mod:`ckptstore.importing.child`), and only for whoever passed ``trust_pickle=True``.
"""

from __future__ import annotations

import pickle
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, Self

import torch

from ckptstore.errors import ImportRefusedError, UntrustedPickleError
from ckptstore.importing.allowed import added, unknown
from ckptstore.importing.archive import open_archive, pickle_of
from ckptstore.importing.inert import Name, read_pickle

SAFE_TORCH = (2, 10)
"""The first torch whose restricted reader has no known hole: CVE-2025-32434 was mended in 2.6,
CVE-2026-24747 in 2.10."""
ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f920 6aa850192e")
"""How a file of torch.save before 1.6 begins, behind the two bytes of the pickle's protocol: the
number 0x1950a86a20f9469cfc6c (torch/serialization.py, MAGIC_NUMBER) and a STOP."""
LEGACY_PICKLES = 5
"""Magic number, protocol, system, the object, keys of its storages; then the storages' bytes."""
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
            mapped = _check(opened, where) and _is_mappable(file)
            return _load(str(file) if mapped else _rewound(opened), where, mapped=mapped)
    _check(file, where)
    return _load(_rewound(file), where, mapped=False)


def names_of(file: IO[bytes], where: str) -> list[Name]:
    """Return every name that a file of torch.save would import.

    Raises:
        ImportRefusedError: It is damaged, or nothing that torch.save wrote.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if head.startswith(ZIP_MAGIC):
        with open_archive(file, where) as archive, pickle_of(archive, where) as stream:
            return list(read_pickle(_as_binary(stream), where).names)
    names: dict[Name, None] = {}
    is_legacy = head[2:].startswith(LEGACY_MAGIC)
    for _ in range(LEGACY_PICKLES if is_legacy else 1):
        names |= dict.fromkeys(read_pickle(_as_binary(file), where).names)
    return list(names)


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


def _check(file: IO[bytes], where: str) -> bool:
    """Refuse what must not be unpickled; say whether the file is in the zip format.

    Raises:
        UntrustedPickleError: It needs more than is on the lists.
        ImportRefusedError: It is damaged or made to harm.
    """
    head = file.read(HEAD_BYTES)
    if is_tar(head):
        raise UntrustedPickleError(
            where, [], "it is a tar archive, as torch.save wrote before 0.1.10, and torch can read "
            "those in no restricted way"
        )  # fmt: skip
    wanted = unknown(names_of(file, where))
    if wanted:
        raise UntrustedPickleError(where, wanted)
    if not head.startswith(ZIP_MAGIC) and not head[2:].startswith(LEGACY_MAGIC):
        raise UntrustedPickleError(where, [], "it is a pickle that torch.save did not write")
    found = _torch_version()
    if found < SAFE_TORCH:
        raise UntrustedPickleError(
            where,
            [],
            f"torch {torch.__version__} has known holes in its restricted reader (CVE-2025-32434, "
            f"CVE-2026-24747): upgrade to {'.'.join(map(str, SAFE_TORCH))} or later",
        )
    return head.startswith(ZIP_MAGIC)


def _load(file: str | IO[bytes], where: str, *, mapped: bool) -> Any:
    with warnings.catch_warnings(), torch.serialization.safe_globals(_safe()):
        warnings.simplefilter("ignore")  # of torch, about what a file of others was made with
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            # The first sentences are torch's advice to turn the restriction off.
            reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
            raise UntrustedPickleError(
                where, [], f"torch's restricted reader says: {reason}"
            ) from error
        except (
            RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError,
            AssertionError, MemoryError, OverflowError, RecursionError, OSError, UnicodeError,
        ) as error:  # fmt: skip
            # Whatever a damaged file makes of torch's reader.
            raise ImportRefusedError(
                f"{where} is damaged, torch can't read it: {error!r:.300}"
            ) from error


def _is_mappable(path: Path) -> bool:
    """Say whether torch maps a file of that name; whatever its name, it can read it open."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return path.suffix != ".safetensors"  # by that suffix torch takes any file for one


def _safe() -> list[Any]:
    return list(added())


def _rewound(file: IO[bytes]) -> IO[bytes]:
    file.seek(0)
    return file


def _as_binary(stream: IO[bytes]) -> BinaryIO:
    return stream  # type: ignore[return-value] # typeshed's two words for one thing


def _torch_version() -> tuple[int, int]:
    major, minor = str(torch.__version__).split(".")[:2]
    return int(major), int(minor)


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
