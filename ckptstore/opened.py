"""A store that is open: its storage, its catalog, and this process's hold on its runs."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ckptstore.catalog.index import Catalog
from ckptstore.catalog.lookup import Lookup, check_monitor, intact_head
from ckptstore.entry import Checkpoint, Entry, Package, Record
from ckptstore.errors import FallbackWarning, IntegrityError, warn
from ckptstore.format.facts import Mode
from ckptstore.format.layout import Ref, check_run, parse_ref, run_path
from ckptstore.reading import LoadOptions, Model
from ckptstore.saving.lineage import Lineage
from ckptstore.saving.on_full import OnFull, Retire, check_on_full
from ckptstore.saving.pending import Queue, WhenBusy, wait_for
from ckptstore.source import Source
from ckptstore.storage.cache import Cache
from ckptstore.storage.cached import cached
from ckptstore.storage.opening import open_storage

if TYPE_CHECKING:
    from ckptstore.saving.run_writer import RunWriter
    from ckptstore.saving.settings import GivenSettings
    from ckptstore.saving.staging import Staging

Monitor = tuple[str | None, Mode | None]


class Opened:
    """What all verbs of a store work with; :class:`ckptstore.Store` describes its arguments."""

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        catalog: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        run: str = "default",
        monitor: str | None = None,
        mode: Mode | None = None,
        single_writer: bool = False,
        on_full: OnFull = "wait",
        cache: Cache | str | os.PathLike[str] | None = None,
        max_pending: int = 1,
        when_busy: WhenBusy = "wait",
        staging_bytes: int | None = None,
    ) -> None:
        self._default_run = check_run(run)
        check_monitor(monitor, mode)
        self._monitor: Monitor = (monitor, mode)
        self._single_writer = single_writer
        self._on_full = check_on_full(on_full)
        self._on_full_of: dict[str, OnFull] = {}
        """The policies of runs that have their own, by path."""
        self._storage = open_storage(url, storage_options)
        self._catalog = Catalog(catalog, self._storage)
        self._index = Lookup(self._catalog, self._storage.url)
        in_flight: dict[str, Any] = {"max_pending": max_pending, "when_busy": when_busy}
        in_flight["staging_bytes"] = staging_bytes
        self._pending = Queue(self._storage.url, **in_flight)
        self._copies: Staging | None = None
        self._told_of_budget = False
        self._writers: dict[str, RunWriter] = {}
        self._lineage = Lineage()
        self._read_through = cached(self._storage, cache, storage_options)
        """What loads read; all else needs what is there now, and asks the storage itself."""
        self._source = Source(self._read_through, self._catalog, self._writer, storage_options)
        self._options: dict[str, Any] = {"catalog": catalog, "storage_options": storage_options}
        self._options |= {"run": run, "monitor": monitor, "mode": mode}
        self._options |= {"single_writer": single_writer, "on_full": on_full, "cache": cache}
        self._options |= in_flight

    @property
    def url(self) -> str:
        """Where the store is, without credentials."""
        return self._storage.url

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process, as workers of a DataLoader need: it opens the store anew."""
        return functools.partial(type(self), self.url, **self._options), ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            # What the block raised is what went wrong first; nothing may take its place.
            is_over = self._pending.wait_beside(error)
            for job in self._pending.take_failures():
                error.add_note(f"{job.told()}: {job.error}")
            if not is_over:
                return  # the saves go on, and need what closing lets go of
        self.close()

    def close(self) -> None:
        """Wait for saves in the background, then let go of connections and of memory for copies.

        The store can be used again afterwards.

        Raises:
            CkptStoreError: One of those saves failed, and nobody was told.
        """
        self._pending.wait()
        if self._copies is not None:
            self._copies.close()
        self._catalog.close()
        self._storage.close()
        self._pending.raise_failures()

    def get(self, ref: str | int) -> Checkpoint | Package:
        """Return a version by its ref: ``digits@7``, ``digits@best``, ``digits@prod``, ``@latest``.

        Raises:
            InvalidNameError: It is no ref.
            VersionNotFoundError: There is no such version.
            RunNotFoundError: No such run, or several and none was named.
            NotAStoreError: There is no store.
            IntegrityError: Its manifest is damaged.
            NewerFormatError: A newer ckptstore made it.
            StorageError: The storage failed.
        """
        return self._get(parse_ref(ref), self._monitor)

    # ------------------------------------------------------------ how

    @property
    def _lookup(self) -> Lookup:
        """What finds versions, once the saves that are under way are made and can be found."""
        wait_for(self._storage.url)
        return self._index

    def _staging(self) -> Staging:
        if self._copies is None:
            from ckptstore.saving.staging import Staging

            self._copies = Staging()
        return self._copies

    def _best(
        self, run: str | None, metric: str | None, mode: Mode | None, monitor: Monitor
    ) -> Checkpoint:
        return self._checkpoint(self._lookup.best(run, metric=metric, mode=mode, given=monitor))

    def _load_best(
        self,
        factory: Callable[..., Model],
        run: str | None,
        metric: str | None,
        mode: Mode | None,
        monitor: Monitor,
        *,
        fallback: bool,
        options: LoadOptions,
    ) -> Model:
        """Build the best checkpoint's module, or with *fallback* that of the best intact one."""
        damaged: list[str] = []
        for record in self._lookup.best_first(run, metric=metric, mode=mode, given=monitor):
            checkpoint = self._checkpoint(record)
            try:
                model = checkpoint.load(factory, **options)
            except IntegrityError as error:
                if not fallback or error.ref is None:
                    raise
                damaged.append(f"\n  - {error}")
                continue
            if damaged:
                warn(
                    f"loaded {checkpoint.ref}; better versions are damaged and were passed over:"
                    f"{''.join(damaged)}",
                    FallbackWarning,
                )
            return model
        raise IntegrityError(f"no checkpoint that could be the best is intact:{''.join(damaged)}")

    def _get(self, ref: Ref, monitor: Monitor) -> Checkpoint | Package:
        return self._entry(self._lookup.by_ref(ref, given=monitor))

    def _writer(self, run: str) -> RunWriter:
        from ckptstore.saving.run_writer import RunWriter

        made = RunWriter(
            self._storage, self._catalog, run, self._lineage, single_writer=self._single_writer
        )
        writer = self._writers.setdefault(run_path(run), made)
        if writer is made:
            made.when_full.retire = self._retirer(made)
        writer.when_full.on_full = self._on_full_of.get(writer.path, self._on_full)
        writer.spell(run)
        return writer

    def _retirer(self, writer: RunWriter) -> Retire | None:  # noqa: ARG002 - see Keeping's
        """Return how room is made for a run; a store without upkeep makes none."""
        return None

    def _given(
        self,
        config: Mapping[str, Any] | None = None,
        monitor: str | None = None,
        mode: Mode | None = None,
        keep: Mapping[str, Any] | None = None,
    ) -> GivenSettings:
        from ckptstore.saving.settings import given_settings

        monitor, mode = monitor or self._monitor[0], mode or self._monitor[1]
        return given_settings(config, monitor, mode, keep)

    def _parent(self, parent: Checkpoint | Package | str | None) -> Any:
        from ckptstore.format.manifest import parent_of

        if parent is None:
            return None
        entry = parent if isinstance(parent, Entry) else self.get(parent)
        return parent_of(entry.head)

    def _checkpoint(self, record: Record) -> Checkpoint:
        return Checkpoint(intact_head(record), self._source, record.facts)

    def _entry(self, record: Record) -> Checkpoint | Package:
        head = intact_head(record)
        kind = Checkpoint if head.kind == "checkpoint" else Package
        return kind(head, self._source, record.facts)
