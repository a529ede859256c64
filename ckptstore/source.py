"""What entries reach their bytes through: a store's storage and this process's runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Unpack, cast

from ckptstore.entry import Audit, Entry, LoadOptions, Model
from ckptstore.errors import ArgumentError
from ckptstore.storage.base import Storage
from ckptstore.storage.opening import parse
from ckptstore.storage.redaction import Options
from ckptstore.storage.writing import write_file

if TYPE_CHECKING:
    import torch

    from ckptstore.loading.manifest import OpenManifest
    from ckptstore.saving.run_writer import RunWriter


class Source:
    """Loads, restores and writes on behalf of a store's entries.

    Args:
        storage: Where the store is.
        writer: Gives a run as this process writes it, so that what is restored becomes the parent
            of what is saved next.
        storage_options: What the storage was opened with, for other files on the same service.
    """

    def __init__(
        self,
        storage: Storage,
        writer: Callable[[str], RunWriter],
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._storage = storage
        self._writer = writer
        self._storage_options = Options(storage_options or {})

    def load(
        self, entry: Entry, factory: Callable[..., Model], **options: Unpack[LoadOptions]
    ) -> Model:
        """Build the module of one of an entry's parts; :meth:`Entry.load` calls this."""
        from ckptstore.loading.load import load_module

        check_options(options)
        # It is the very object that *factory* returned.
        return cast("Model", load_module(self._open(entry), factory, **options).module)

    def state(self, entry: Entry, part: str, device: str | int | torch.device) -> Any:
        """Return the state of one of an entry's parts; :meth:`Entry.state` calls this."""
        from ckptstore.loading.load import load_state

        return load_state(self._open(entry), part, device=device)

    def restore(self, entry: Entry, parts: Mapping[str, Any], *, rng: bool) -> Audit:
        """Put an entry's state into live objects; :meth:`Checkpoint.restore` calls this."""
        from ckptstore.format.manifest import parent_of
        from ckptstore.loading.resume import restore

        opened = self._open(entry)
        audit = restore(opened, parts, with_rng=rng)
        self._writer(entry.run).resumed(parent_of(opened.head))
        return audit

    def write_json(
        self, path: str, value: object, storage_options: Mapping[str, Any] | None
    ) -> None:
        """Write a JSON file; :meth:`Entry.write_metadata` calls this."""
        if storage_options is None and parse(path).protocol == parse(self._storage.url).protocol:
            storage_options = self._storage_options
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_file(path, text.encode(), storage_options=storage_options)

    def _open(self, entry: Entry) -> OpenManifest:
        from ckptstore.loading.manifest import open_manifest

        return open_manifest(self._storage, entry.run, entry.version, save_id=entry.head.save_id)


def check_options(options: Mapping[str, object]) -> None:
    """Refuse what is no option of ``load``.

    Raises:
        ArgumentError: It names the option, and those there are.
    """
    known = LoadOptions.__annotations__
    for name in options:
        if name not in known:
            advice = "write device=" if name == "map_location" else f"it has {', '.join(known)}"
            raise ArgumentError(f"load has no option {name!r}; {advice}")
