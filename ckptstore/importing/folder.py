"""All checkpoints of a folder, in the order of their epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import NamedTuple

from ckptstore.errors import CkptStoreError, ImportRefusedError, UsageError
from ckptstore.importing import dcp, huggingface
from ckptstore.importing.bring import Target, bring
from ckptstore.importing.contents import Contents
from ckptstore.importing.file_names import Named, read_name
from ckptstore.importing.imported import Done, ImportedFile
from ckptstore.importing.options import Told
from ckptstore.importing.places import Place
from ckptstore.importing.reading import kind_of_file, read_foreign

Tell = Callable[[int, int | None, str], object]
"""As :data:`ckptstore.upkeep.progress.Progress`."""


class Found(NamedTuple):
    """Something in a folder that may be a checkpoint."""

    name: str
    order: tuple[float, float, str]
    """Its epoch and step, as far as they are known, then its name."""


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
    found, left = _candidates(place, told, pattern)
    files: list[ImportedFile] = []
    refused: list[CkptStoreError] = []
    for count, each in enumerate(found):
        if progress is not None:
            progress(count, len(found), each.name)
        try:
            files.append(bring(target, place, each.name, told))
        except (ImportRefusedError, UsageError) as error:
            refused.append(error)
    if progress is not None:
        progress(len(found), len(found), "")
    if refused:
        listed = "".join(f"\n  - {error}" for error in refused)
        refs = ", ".join(each.head.ref for each in files)
        others = f"\nThe others are there: {refs}" if files else ""
        raise ImportRefusedError(f"{len(refused)} could not be imported:{listed}{others}")
    if not files:
        matching = "" if pattern is None else f" whose name matches {pattern!r}"
        raise ImportRefusedError(f"{place.where} holds no checkpoint{matching}")
    return Done(place.where, tuple(files), tuple(left))


def _candidates(place: Place, told: Told, pattern: str | None) -> tuple[list[Found], list[str]]:
    """Return what may be checkpoints, in order, and the names of what is none."""
    listing = place.names()
    found, left = [], []
    for name in (*listing.folders, *listing.files):
        if pattern is not None and not fnmatchcase(name, pattern):
            continue
        if name in listing.folders:
            is_checkpoint = _is_checkpoint(frozenset(place.names(name).files))
        else:
            is_checkpoint = kind_of_file(place.start(name)) is not None
        if is_checkpoint:
            found.append(Found(name, _order(place, name, told)))
        else:
            left.append(name)
    return sorted(found, key=lambda each: each.order), left


def _is_checkpoint(names: frozenset[str]) -> bool:
    return dcp.INDEX in names or not names.isdisjoint(huggingface.MARKS)


def _order(place: Place, name: str, told: Told) -> tuple[float, float, str]:
    """Return a checkpoint's place in the order; only where the name doesn't say is it read."""
    facts: Named | Contents = read_name(name)
    if facts.epoch is None and facts.step is None:
        # What can't be read is last, and said when it is its turn.
        with suppress(CkptStoreError), place.here(name) as path:
            facts = read_foreign(
                path,
                f"{place.where}/{name}",
                named=Named(),
                trust_pickle=told.trust_pickle,
                keys=told.keys,
            )
    epoch, step = (math.inf if each is None else each for each in (facts.epoch, facts.step))
    return epoch, step, name
