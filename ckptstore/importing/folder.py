"""All checkpoints of a folder, in the order of their epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from ckptstore.errors import CkptStoreError, ImportRefusedError, UntrustedPickleError, UsageError
from ckptstore.format.manifest import Head
from ckptstore.importing import dcp, huggingface
from ckptstore.importing.bring import Read, Target, bring, keep, opened, saying_what
from ckptstore.importing.contents import Contents
from ckptstore.importing.file_names import Named, read_name
from ckptstore.importing.fingerprint import Fingerprint, fingerprint
from ckptstore.importing.imported import Done, ImportedFile
from ckptstore.importing.options import Told
from ckptstore.importing.places import Place
from ckptstore.importing.reading import kind_of_file, read_foreign

Tell = Callable[[int, int | None, str], object]
"""As :data:`ckptstore.upkeep.progress.Progress`."""
MAX_SHOWN = 5


class Found(NamedTuple):
    """Something in a folder that may be a checkpoint."""

    name: str
    order: tuple[float, float, str]
    """Its epoch and step, as far as they are known, then its name."""
    read: Read | None = None
    """What it holds, where that was found by running it."""


def bring_folder(
    target: Target,
    place: Place,
    told: Told,
    *,
    pattern: str | None = None,
    progress: Tell | None = None,
) -> Done:
    """Import every checkpoint that lies right in a folder, files and folders alike.

    Args:
        target: The run.
        place: The folder; or a file or folder that is itself a checkpoint.
        told: What the caller says of all of them.
        pattern: A glob that names must match.
        progress: Told of how many are done, of how many in all, and the name of the next.

    Raises:
        ImportRefusedError: Some could not be imported; it names them, and all others were. Or there
            was none.
        CkptStoreError: As :meth:`ckptstore.Store.import_folder` says.
    """
    if not place.is_folder() or _is_checkpoint(frozenset(place.names().files)):
        return Done(place.where, (bring(target, place, None, told),))
    target.there("")  # a store that can't be read is not the files' fault
    found, left = _candidates(target, place, told, pattern)
    files: list[ImportedFile] = []
    lines: list[str] = []
    refused = 0
    while found:
        each, done = found.pop(0), len(lines)
        if progress is not None:
            progress(done, done + 1 + len(found), each.name)
        try:
            files.append(_bring_one(target, place, each, told))
        except _RefusedError as refusal:
            refused += 1
            lines.append(f"{each.name}: {refusal.error}")
        else:
            lines.append("; ".join([f"{each.name}: {files[-1].head.ref}", *files[-1].notes]))
    if progress is not None:
        progress(len(lines), len(lines), "")
    if refused:
        listed = "".join(f"\n  {line}" for line in lines)
        raise ImportRefusedError(
            f"{refused} of {len(lines)} could not be imported, the others were:{listed}"
        )
    if not files:
        matching = "" if pattern is None else f" whose name matches {pattern!r}"
        below = _said_of_below(left, place)
        raise ImportRefusedError(f"{place.where} holds no checkpoint{matching}{below}")
    return Done(place.where, tuple(files), tuple(left))


class _RefusedError(Exception):
    """A file could not be imported, and the folder's others can."""

    def __init__(self, error: CkptStoreError) -> None:
        super().__init__(str(error))
        self.error = error


def _bring_one(target: Target, place: Place, each: Found, told: Told) -> ImportedFile:
    """Import one; what its own store raises, and not its file, is raised as it is.

    Raises:
        _RefusedError: The file can't be imported.
        CkptStoreError: The version could not be written.
    """
    with ExitStack() as stack:
        try:
            ready = stack.enter_context(opened(target, place, each.name, told, each.read))
        except CkptStoreError as error:
            raise _RefusedError(error) from error
        if isinstance(ready, ImportedFile):
            return ready
        try:
            return keep(target, ready, told)
        except (ImportRefusedError, UsageError) as error:
            raise _RefusedError(error) from error


def _candidates(
    target: Target, place: Place, told: Told, pattern: str | None
) -> tuple[list[Found], list[str]]:
    """Return what may be checkpoints, in order, and the names of what is none."""
    listing = place.names()
    found, left = [], []
    for name in (*listing.folders, *listing.files):
        if pattern is not None and not fnmatchcase(name, pattern):
            continue
        try:
            if name in listing.folders:
                is_checkpoint = _is_checkpoint(frozenset(place.names(name).files))
            else:
                is_checkpoint = kind_of_file(place.start(name)) is not None
        except (CkptStoreError, OSError):
            is_checkpoint = True  # it is said when it is its turn
        if is_checkpoint:
            found.append(_found(target, place, name, told))
        else:
            left.append(f"{name}/" if name in listing.folders else name)
    return sorted(found, key=lambda each: each.order), left


def _said_of_below(left: Sequence[str], place: Place) -> str:
    below = [name for name in left if name.endswith("/")]
    if not below:
        return ""
    return (
        f"; folders in it are not entered ({', '.join(below[:MAX_SHOWN])}): import each by itself, "
        f"e.g. {place.where}/{below[0]}"
    )


def _is_checkpoint(names: frozenset[str]) -> bool:
    return dcp.INDEX in names or not names.isdisjoint(huggingface.MARKS)


def _found(target: Target, place: Place, name: str, told: Told) -> Found:
    """Return a checkpoint and its place in the order; only if its name doesn't say is it read.

    What the run has already is not read, and what has to be run to be read is run once.
    """
    named = read_name(name)
    facts: Named | Contents | Head = named
    read = None
    if named.epoch is None and named.step is None:
        # What can't be read is last, and said when it is its turn.
        where = f"{place.where}/{name}"
        with suppress(CkptStoreError), place.here(name) as path, saying_what(where):
            seen = fingerprint(path, where)
            known = None if told.again else target.there(seen.blake3)
            facts, read = (known, None) if known else _look(path, where, seen, told)
    epoch, step = (math.inf if each is None else each for each in (facts.epoch, facts.step))
    return Found(name, (epoch, step, name), read)


def _look(path: Path, where: str, seen: Fingerprint, told: Told) -> tuple[Contents, Read | None]:
    """Read a checkpoint; what was read is kept if the file was run for it."""
    named = read_name(path.name)
    try:
        return read_foreign(path, where, named=named, trust_pickle=False, keys=told.keys), None
    except UntrustedPickleError:
        if not told.trust_pickle:
            raise
    found = read_foreign(
        path, where, named=named, trust_pickle=True, keys=told.keys, timeout=told.timeout
    )
    return found, Read(seen, found)
