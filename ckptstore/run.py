"""A run of a store: the same verbs, bound to its name and settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Unpack

from ckptstore.catalog.later import TagMove
from ckptstore.entry import Checkpoint, Package
from ckptstore.format.layout import Ref, parse_ref
from ckptstore.guard import DEADLINE, EXIT_CODE, Guard
from ckptstore.history import History
from ckptstore.importing.options import ImportOptions
from ckptstore.pending import PendingSave
from ckptstore.reading import KeyPatterns, LoadOptions, Model
from ckptstore.workers import SIGNALS

if TYPE_CHECKING:
    import torch

    from ckptstore.importing.imported import Imported
    from ckptstore.loading.resume import Resumed
    from ckptstore.saving.settings import GivenSettings
    from ckptstore.store import Store
    from ckptstore.upkeep.keep import Keep
    from ckptstore.upkeep.progress import Progress
    from ckptstore.upkeep.pruned import Pruned


class Run:
    """A named line of versions, as :meth:`ckptstore.Store.run` returns it.

    Every verb is the store's verb of the same name with ``run=`` filled in; refs may leave the run
    out (``run.get("@best")``, ``run.get(7)``).
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        model_config: Mapping[str, Any] | None,
        given: GivenSettings,
        left_out: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._store = store
        self._model_config = model_config
        self._given = given
        self._monitor = (given.monitor, given.mode)
        self._left_out = tuple(left_out)

    def __repr__(self) -> str:
        return f"{self._store!r}.run({self.name!r})"

    def save(
        self,
        model: Any = None,
        optimizer: Any = None,
        *,
        epoch: int | None = None,
        step: int | None = None,
        model_config: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        extra: Any = None,
        parent: Checkpoint | Package | str | None = None,
        tags: Sequence[str] = (),
        rng: bool = True,
        program: Any = None,
        only: KeyPatterns = None,
        dtype: Mapping[str, torch.dtype] | None = None,
        **parts_and_metrics: Any,
    ) -> Checkpoint:
        """Save a checkpoint into this run. See :meth:`ckptstore.Store.save`."""
        return self._store._save(  # noqa: SLF001 - a run is part of its store
            self.name,
            self._given,
            parts_and_metrics,
            model=model,
            optimizer=optimizer,
            epoch=epoch,
            step=step,
            model_config=model_config if model_config is not None else self._model_config,
            config=config,
            metrics=metrics,
            extra=extra,
            parent=parent,
            tags=tags,
            rng=rng,
            program=program,
            only=only,
            dtype=dtype,
            left_out=self._left_out,
        )

    def save_async(
        self,
        model: Any = None,
        optimizer: Any = None,
        *,
        epoch: int | None = None,
        step: int | None = None,
        model_config: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        extra: Any = None,
        parent: Checkpoint | Package | str | None = None,
        tags: Sequence[str] = (),
        rng: bool = True,
        program: Any = None,
        only: KeyPatterns = None,
        dtype: Mapping[str, torch.dtype] | None = None,
        overlap: bool = False,
        **parts_and_metrics: Any,
    ) -> PendingSave:
        """Save while the training goes on. See :meth:`ckptstore.Store.save_async`."""
        return self._store._save_async(  # noqa: SLF001 - a run is part of its store
            self.name,
            self._given,
            parts_and_metrics,
            model=model,
            optimizer=optimizer,
            epoch=epoch,
            step=step,
            model_config=model_config if model_config is not None else self._model_config,
            config=config,
            metrics=metrics,
            extra=extra,
            parent=parent,
            tags=tags,
            rng=rng,
            program=program,
            only=only,
            dtype=dtype,
            overlap=overlap,
            left_out=self._left_out,
        )

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for saves in the background, of all runs. See :meth:`ckptstore.Store.wait`."""
        return self._store.wait(timeout_s)

    def guard(
        self,
        *,
        deadline: timedelta | None = DEADLINE,
        exit_code: int = EXIT_CODE,
        signals: Iterable[int] = SIGNALS,
    ) -> Guard:
        """Return a guard, which saves and exits when the training is told to stop.

        ::

            with run.guard() as guard:
                for step, batch in enumerate(batches, start=first):
                    ...
                    guard.step(model, optimizer, step=step)

        ``step`` does nothing until a signal came. Then it saves what it was given, as ``save``
        does, and raises SystemExit. If little time is left it saves what there is time for, at the
        least all but the optimizer, and warns. Saves in the background are waited for first.

        Args:
            deadline: How long the process may still run after a signal; what sends it decides that.
                None: as long as it likes.
            exit_code: What the process ends with then: 143, as if SIGTERM had ended it, or another
                number from 0 to 255.
            signals: Which; SIGTERM and SIGUSR1, where there is one.

        Raises:
            ArgumentError: An argument is not usable. Entering the guard raises it, too, in a thread
                that is not the main one, while another guard is in place, and where a signal has
                a handler that Python could not put back.
        """
        return Guard(self, deadline=deadline, exit_code=exit_code, signals=signals)

    def resume(
        self,
        model: Any = None,
        optimizer: Any = None,
        *,
        rng: bool = True,
        strict: bool = True,
        only: KeyPatterns = None,
        skip: KeyPatterns = None,
        rename: Mapping[str, Any] | None = None,
        dtype: Literal["own"] | None = None,
        **parts: Any,
    ) -> Resumed:
        """Restore the newest intact checkpoint. See :meth:`ckptstore.Store.resume`."""
        return self._store.resume(
            model,
            optimizer,
            run=self.name,
            rng=rng,
            strict=strict,
            only=only,
            skip=skip,
            rename=rename,
            dtype=dtype,
            **parts,
        )

    def best(
        self, *, metric: str | None = None, mode: Literal["min", "max"] | None = None
    ) -> Checkpoint:
        """Return the best checkpoint. See :meth:`ckptstore.Store.best`."""
        return self._store._best(self.name, metric, mode, self._monitor)  # noqa: SLF001 - a run is part of its store

    def latest(self) -> Checkpoint:
        """Return the newest checkpoint. See :meth:`ckptstore.Store.latest`."""
        return self._store.latest(run=self.name)

    def get(self, ref: str | int) -> Checkpoint | Package:
        """Return a version: a number, a tag, ``@best``, … See :meth:`ckptstore.Store.get`."""
        return self._store._get(self._ref(ref), self._monitor)  # noqa: SLF001 - a run is part of its store

    def history(self, *, limit: int | None = None) -> History:
        """Return this run's versions. See :meth:`ckptstore.Store.history`."""
        return self._store.history(run=self.name, limit=limit)

    def load_best(
        self,
        ModelClass: Callable[..., Model],  # noqa: N803 - the design's word
        *,
        metric: str | None = None,
        mode: Literal["min", "max"] | None = None,
        fallback: bool = False,
        **options: Unpack[LoadOptions],
    ) -> Model:
        """Build the best checkpoint's module. See :meth:`ckptstore.Store.load_best`."""
        return self._store._load_best(  # noqa: SLF001 - a run is part of its store
            ModelClass, self.name, metric, mode, self._monitor, fallback=fallback, options=options
        )

    def load_latest(
        self,
        ModelClass: Callable[..., Model],  # noqa: N803 - the design's word
        **options: Unpack[LoadOptions],
    ) -> Model:
        """Build the newest checkpoint's module. See :meth:`ckptstore.Store.load_latest`."""
        return self.latest().load(ModelClass, **options)

    def load(
        self,
        ModelClass: Callable[..., Model],  # noqa: N803 - the design's word
        ref: str | int,
        **options: Unpack[LoadOptions],
    ) -> Model:
        """Build the module of a version. See :meth:`ckptstore.Store.load`."""
        return self.get(ref).load(ModelClass, **options)

    def save_package(
        self,
        source: Any,
        *,
        preprocessing: Mapping[str, Any] | None = None,
        class_names: Sequence[str | int] | None = None,
        sample: Any = None,
        part: str = "model",
        model_config: Mapping[str, Any] | None = None,
        parent: Checkpoint | Package | str | None = None,
        tags: Sequence[str] = (),
        program: Any = None,
    ) -> Package:
        """Save a package into this run. See :meth:`ckptstore.Store.save_package`."""
        return self._store._save_package(  # noqa: SLF001 - a run is part of its store
            self.name,
            self._given,
            self.get(source) if isinstance(source, (str, int)) else source,
            (preprocessing, class_names, sample),
            parent,
            part=part,
            model_config=model_config if model_config is not None else self._model_config,
            tags=tags,
            program=program,
        )

    def load_package(
        self,
        ModelClass: Callable[..., torch.nn.Module],  # noqa: N803 - the design's word
        ref: str | int | None = None,
        *,
        device: str | int | torch.device | None = None,
        model_config: Mapping[str, Any] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Package:
        """Load a package of this run. See :meth:`ckptstore.Store.load_package`."""
        wanted = Ref(self.name, "latest") if ref is None else self._ref(ref)
        how = {"device": device, "model_config": model_config, "dtype": dtype}
        return self._store._load_package(ModelClass, wanted, self._monitor, how)  # noqa: SLF001 - a run is part of its store

    def import_file(
        self,
        path: str | os.PathLike[str],
        *,
        epoch: int | None = None,
        step: int | None = None,
        metrics: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        storage_options: Mapping[str, Any] | None = None,
        **options: Unpack[ImportOptions],
    ) -> Checkpoint:
        """Import a file of another tool into this run. See :meth:`ckptstore.Store.import_file`."""
        facts = {"epoch": epoch, "step": step, "metrics": metrics}
        return self._store._import_file(  # noqa: SLF001 - a run is part of its store
            path,
            self.name,
            self._given,
            facts=facts,
            options=self._imports(options),
            tags=tags,
            storage_options=storage_options,
        )

    def import_folder(
        self,
        path: str | os.PathLike[str],
        *,
        pattern: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        **options: Unpack[ImportOptions],
    ) -> Imported:
        """Import a folder into this run. See :meth:`ckptstore.Store.import_folder`."""
        return self._store._import_folder(  # noqa: SLF001 - a run is part of its store
            path,
            self.name,
            self._given,
            options=self._imports(options),
            pattern=pattern,
            storage_options=storage_options,
            progress=progress,
        )

    def tag(self, ref: str | int | Checkpoint | Package, name: str) -> None:
        """Point a tag at a version. See :meth:`ckptstore.Store.tag`."""
        self._store.tag(ref if isinstance(ref, (Checkpoint, Package)) else self.get(ref), name)

    def untag(self, name: str) -> None:
        """Take a tag away. See :meth:`ckptstore.Store.untag`."""
        self._store.untag(name, run=self.name)

    def prune(self, keep: Keep | None = None, *, dry_run: bool = False) -> Pruned:
        """Retire what is not kept. See :meth:`ckptstore.Store.prune`.

        None means what this run was opened with (``store.run(name, keep=…)``), and if that is
        nothing what is recorded with it.
        """
        store = self._store
        if keep is None and self._given.keep is not None:
            from ckptstore.upkeep.keep import Keep

            keep = Keep.from_json(self._given.keep, f"run {self.name!r}: keep=")
        return store._prune(store._writer(self.name), keep, self._monitor, dry_run)  # noqa: SLF001 - a run is part of its store

    def undelete(self, ref: str | int | Checkpoint | Package) -> Checkpoint | Package:
        """Make a retired version live again. See :meth:`ckptstore.Store.undelete`."""
        entry = ref if isinstance(ref, (Checkpoint, Package)) else self.get(ref)
        return self._store.undelete(entry)

    def tags(self) -> dict[str, str]:
        """Return this run's tags. See :meth:`ckptstore.Store.tags`."""
        return self._store.tags(self.name)

    def tag_history(self, name: str | None = None) -> list[TagMove]:
        """Return how a tag moved. See :meth:`ckptstore.Store.tag_history`."""
        return self._store.tag_history(name, run=self.name)

    def note(self, ref: str | int | Checkpoint | Package, text: str | None) -> Checkpoint | Package:
        """Note something about a version. See :meth:`ckptstore.Store.note`."""
        return self._store.note(
            ref if isinstance(ref, (Checkpoint, Package)) else self.get(ref), text
        )

    def log(
        self,
        metrics: Mapping[str, Any] | None = None,
        *,
        epoch: int | None = None,
        step: int | None = None,
        **values: Any,
    ) -> None:
        """Record metrics of an epoch or step of which no weights are kept.

        ::

            run.log(epoch=epoch, train_loss=loss)

        They stand in the run's journal and in its history's ``logged``; ``best`` looks at versions
        alone. To record metrics of a version, call its own ``log``.

        Args:
            metrics: Metrics by any name.
            epoch: A whole number.
            step: A whole number.
            **values: Metrics by name: real numbers, as for ``save``. None is absent.

        Raises:
            ArgumentError: Something is no metric, or neither *epoch* nor *step* was given.
            IntegrityError: The run's journal or ``ckptstore.json`` is damaged.
            NewerFormatError: A newer ckptstore made the store or the journal.
            StorageError: The storage failed.
        """
        self._store._log_epoch(self.name, epoch, step, metrics, values)  # noqa: SLF001 - a run is part of its store

    def _without(self, left_out: Sequence[str]) -> Run:
        """Return this run for saves that leave parts out."""
        return Run(
            self._store,
            self.name,
            model_config=self._model_config,
            given=self._given,
            left_out=left_out,
        )

    def _imports(self, options: ImportOptions) -> ImportOptions:
        if options.get("model_config") is None and self._model_config is not None:
            return {**options, "model_config": self._model_config}
        return options

    def _ref(self, ref: str | int) -> Ref:
        if isinstance(ref, str) and ref and "@" not in ref:
            ref = f"@{ref}"
        run, selector = parse_ref(ref)
        return Ref(run or self.name, selector)
