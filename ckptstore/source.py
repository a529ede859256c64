"""What entries reach their bytes through: a store's storage and this process's runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Unpack, cast

from ckptstore.audit import Audit
from ckptstore.catalog.index import Catalog
from ckptstore.entry import Entry, check_live
from ckptstore.errors import ArgumentError, CkptStoreError, IntegrityError
from ckptstore.format.facts import VersionFacts
from ckptstore.format.layout import run_path
from ckptstore.reading import LazyTensor, LoadOptions, Model
from ckptstore.saving.pending import wait_for
from ckptstore.storage.base import Storage
from ckptstore.storage.opening import parse
from ckptstore.storage.redaction import Options
from ckptstore.storage.writing import write_file

if TYPE_CHECKING:
    import torch

    from ckptstore.format.manifest import File
    from ckptstore.format.part import Form
    from ckptstore.manifest import OpenManifest
    from ckptstore.saving.run_writer import RunWriter


class Source:
    """Loads, restores and writes on behalf of a store's entries.

    Args:
        storage: Where the store is.
        catalog: Knows what was recorded about an entry since it was looked up.
        writer: Gives a run as this process writes it, so that what is restored becomes the parent
            of what is saved next.
        storage_options: What the storage was opened with, for other files on the same service.
    """

    def __init__(
        self,
        storage: Storage,
        catalog: Catalog,
        writer: Callable[[str], RunWriter],
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._storage = storage
        self._catalog = catalog
        self._writer = writer
        self._storage_options = Options(storage_options or {})

    def load(
        self, entry: Entry, factory: Callable[..., Model], **options: Unpack[LoadOptions]
    ) -> Model:
        """Build the module of one of an entry's parts; :meth:`Entry.load` calls this."""
        from ckptstore.loading.load import load_module

        check_options(options)
        with self._opened(entry) as opened:
            # It is the very object that *factory* returned.
            return cast("Model", load_module(opened, factory, **options).module)

    def load_program(
        self,
        entry: Entry,
        device: str | int | torch.device | None,
        part: str,
        operators: Collection[str],
    ) -> torch.nn.Module:
        """Return the program of one of an entry's parts; :meth:`Entry.load_program` calls this."""
        from ckptstore.loading.program import load_program

        with self._opened(entry) as opened:
            return load_program(opened, device=device, part=part, operators=operators)

    def read_file(self, entry: Entry, file: File) -> memoryview:
        """Return one of an entry's files; :meth:`Entry.read_file` calls this."""
        from ckptstore.loading.files import read_file

        with self._opened(entry) as opened:
            return read_file(opened, file)

    def state(self, entry: Entry, part: str, device: str | int | torch.device) -> Any:
        """Return the state of one of an entry's parts; :meth:`Entry.state` calls this."""
        from ckptstore.loading.load import load_state

        with self._opened(entry) as opened:
            return load_state(opened, part, device=device)

    def left_out(self, entry: Entry, part: str) -> Mapping[str, Form | None]:
        """Return the keys of a part that nobody saved, and what they were."""
        with self._opened(entry) as opened:
            return opened.part(part).left_out

    def tensors(self, entry: Entry, part: str, *, verify: bool) -> Mapping[str, LazyTensor]:
        """Return the tensors of one of an entry's parts; :meth:`Entry.tensors` calls this."""
        from ckptstore.loading.lazy import Tensors

        with self._opened(entry) as opened:
            return Tensors(opened, part, lambda: self._explaining(entry), verify=verify)

    def restore(self, entry: Entry, parts: Mapping[str, Any], **how: Any) -> Audit:
        """Put an entry's state into live objects; :meth:`Checkpoint.restore` calls this."""
        from ckptstore.format.manifest import parent_of
        from ckptstore.loading.choice import KeyOptions
        from ckptstore.loading.resume import restore

        wait_for(self._storage.url)  # else what they save would be taken for what came from this
        with self._opened(entry) as opened:
            keys = KeyOptions(**how["keys"])
            audit = restore(opened, parts, with_rng=how["rng"], strict=how["strict"], keys=keys)
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

    def log(
        self, entry: Entry, metrics: Mapping[str, Any] | None, values: Mapping[str, Any]
    ) -> VersionFacts:
        """Record later metrics of an entry; :meth:`Entry.log` calls this."""
        from ckptstore.saving.journaling import log_metrics
        from ckptstore.saving.late_metrics import late_metrics

        encoded = late_metrics(metrics, values)
        self._known(entry)
        decide = log_metrics(entry.version, encoded)
        self._writer(entry.run).append_with_room("metrics", decide)
        return self._known(entry)

    def note(self, entry: Entry, text: str | None) -> VersionFacts:
        """Record a note about an entry, or take it away."""
        from ckptstore.saving.journaling import set_note

        self._known(entry)
        self._writer(entry.run).append_with_room("a note", set_note(entry.version, text))
        return self._known(entry)

    @contextmanager
    def _opened(self, entry: Entry) -> Iterator[OpenManifest]:
        """Open an entry's manifest to read what it names.

        Raises:
            RetiredError: It is retired, and was not undeleted since it was looked up.
        """
        from ckptstore.manifest import open_manifest

        if entry.retired is not None:
            check_live(entry.ref, self._known(entry))
        with self._explaining(entry):
            yield open_manifest(self._storage, entry.run, entry.version, save_id=entry.head.save_id)

    @contextmanager
    def _explaining(self, entry: Entry) -> Iterator[None]:
        """Say of what turns out to be missing or damaged why that is, or remember that it is.

        Raises:
            RetiredError: The version was retired meanwhile.
        """
        try:
            yield
        except IntegrityError as error:
            self._explain(entry, error)
            raise

    def _explain(self, entry: Entry, error: IntegrityError) -> None:
        """See whether what is missing was retired meanwhile; else remember that it is damaged.

        Raises:
            RetiredError: It was.
        """
        try:
            known = self._known(entry)
        except CkptStoreError:
            return  # the store itself is gone, say: the first error is the better one
        check_live(entry.ref, known)
        if error.ref is not None:
            self._catalog.pass_over(entry.head.save_id)

    def _known(self, entry: Entry) -> VersionFacts:
        """Return what is known of an entry now.

        Raises:
            IntegrityError: It is gone, or another one has its place.
        """
        path = run_path(entry.run)
        self._catalog.sync(path)
        record = self._catalog.version(path, entry.version)
        if record is None or record.head is None or record.head.save_id != entry.head.save_id:
            raise IntegrityError(
                f"{self._storage.url}: {entry.ref} is gone, or is not the save {entry.save_id} any "
                "more; look it up again",
                ref=entry.ref,
            )
        return record.facts


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
