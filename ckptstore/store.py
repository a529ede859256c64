"""The store: the facade over everything else. It delegates and decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

from ckptstore.bringing_in import BringingIn
from ckptstore.catalog.lookup import check_limit, check_monitor
from ckptstore.entry import Checkpoint, Entry, Package
from ckptstore.format.facts import Mode, VersionFacts
from ckptstore.format.layout import Ref, check_run, parse_ref, run_path
from ckptstore.history import History
from ckptstore.in_background import InBackground
from ckptstore.later_facts import LaterFacts
from ckptstore.reading import KeyPatterns, LoadOptions, Model
from ckptstore.run import Run
from ckptstore.saving.on_full import OnFull, check_on_full
from ckptstore.saving.pending import wait_for
from ckptstore.upkeep.keep import keep_json

if TYPE_CHECKING:
    import torch

    from ckptstore.loading.resume import Resumed
    from ckptstore.saving.settings import GivenSettings
    from ckptstore.upkeep.keep import Keep


class Store(InBackground, LaterFacts, BringingIn):
    """A root folder or prefix with all its runs, versions and their catalog.

    Opening creates nothing: the first save does. A store can be used from several threads, after a
    fork and in worker processes.

    Args:
        url: A folder (``"checkpoints"``) or any fsspec URL (``"s3://bucket/prefix"``).
        catalog: The SQL catalog's SQLAlchemy URL. None means SQLite: beside a local store, in the
            user's data folder for a remote one.
        storage_options: Arguments of the fsspec filesystem: credentials, endpoint. They never
            appear in an error, a manifest or the catalog.
        run: The run that ``save`` and ``resume`` mean when they name none.
        monitor: The metric by which checkpoints are compared, recorded with each run that this
            store saves into; ``val_loss`` if none was ever given.
        mode: ``"min"`` or ``"max"``; needed with a monitor.
        single_writer: Allow writing to storage that cannot keep two writers apart. The caller
            promises that no other process writes; each save looks for signs of one.
        on_full: What ``save``, ``save_package``, ``log``, ``note`` and ``tag`` do on a full disk or
            when a quota is used up. ``"wait"``: warn once a minute and go on when there is room.
            ``"retire"``: apply first what the run keeps and collect what is collectible, then
            wait. ``"raise"``: a StorageError. All other verbs raise.
        cache: A folder on a disk of this machine, or a :class:`ckptstore.Cache` with a limit of its
            own, that keeps what is loaded from this store, for other processes and the next start:
            then loading asks the store for journals and manifests alone. For stores elsewhere; one
            on a disk of this machine takes none. A cache that can't be used is a warning.
        max_pending: How many saves of ``save_async`` may be under way.
        when_busy: What ``save_async`` does with one too many. ``"wait"``: it waits until an earlier
            one is saved. ``"skip"``: it saves nothing, and the answer's ``skipped`` says so.
        staging_bytes: How much memory the copies of those saves may take together; None sets no
            limit. A save waits, or is skipped, until there is so much; a state that is larger
            than all of it is saved before ``save_async`` returns.

    Raises:
        InvalidNameError: *run* is no name.
        ArgumentError: *monitor*, *mode* or another argument is not usable, or the URL is none.
        MissingPackageError: The filesystem's package or the database's driver is not installed.
    """

    def run(
        self,
        name: str,
        *,
        model_config: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        monitor: str | None = None,
        mode: Mode | None = None,
        keep: Keep | None = None,
        on_full: OnFull | None = None,
    ) -> Run:
        """Return a run: the same verbs, bound to its name and settings. Creates nothing.

        Args:
            name: ``/``-separated segments of letters, digits and ``. _ = + , -``.
            model_config: Constructor arguments to record with every checkpoint.
            config: Hyperparameters to record with every checkpoint, with packages of live modules
                and in the run's settings.
            monitor: As for the store; recorded in the run's settings at the first save.
            mode: ``"min"`` or ``"max"``; needed with a monitor.
            keep: What to keep of the run: recorded in its settings at the first save, and applied
                after each save, whichever process makes it.
            on_full: As for the store, for this run as this store writes it; None: as the store.

        Raises:
            InvalidNameError: *name* is outside the grammar.
            ArgumentError: Another argument is not usable.
        """
        check_monitor(monitor, mode)
        if on_full is not None:
            self._on_full_of[run_path(check_run(name))] = check_on_full(on_full)
        return Run(
            self,
            check_run(name),
            model_config=model_config,
            given=self._given(config, monitor, mode, keep_json(keep)),
        )

    # ------------------------------------------------------------ saving

    def save(
        self,
        model: Any = None,
        optimizer: Any = None,
        *,
        run: str | None = None,
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
        """Save a checkpoint. When this returns it is durable, whole and verifiable.

        Args:
            model: The module, or a state dict. Wrappers (DDP, ``torch.compile``) are taken off.
            optimizer: The optimizer; its parameters are recorded by name.
            run: The run; the store's default run if None.
            epoch: A whole number.
            step: A whole number.
            model_config: Constructor arguments of the module's class, so that ``load_best`` can
                build it. Any values a tree may hold, tensors excepted.
            config: The training's hyperparameters, to be read back later.
            metrics: Metrics by any name.
            extra: Any further state: nested dicts, lists, tensors, arrays.
            parent: The version this one came from; by default what this process resumed or last
                saved.
            tags: Tags to set on the new version.
            rng: Record the random generators (Python, NumPy, torch, CUDA).
            program: Sample inputs of the model: a tensor, a tuple of arguments, or ``dict(args=…,
                kwargs=…, dynamic_shapes=…)``. What the model computes from them in eval mode is
                stored beside its weights, and :meth:`ckptstore.Checkpoint.load_program` runs it
                where the class can't be imported.
            only: Of modules, save these keys alone: ``"trainable"``, all but the parameters that
                require no gradient, or patterns such as ``"adapter.*"``; a dict says it for single
                parts. What is left out is recorded: it comes from the class when the module is
                loaded, and from the script when training is resumed. But what this run's previous
                version or the parent has, bit for bit, is named at no cost and part of the version.
            dtype: Store floating tensors of parts in another dtype, ``{"optimizer":
                torch.bfloat16}``; tensors of one number, such as counts of steps, stay exact. What
                would become 0 or infinite is refused, so float16 suits few optimizers.
                Loading, restoring and resuming convert back, ``state`` gives what is stored.
            **parts_and_metrics: Anything with ``state_dict()`` or a generator is a part
                (``scheduler=``, ``ema=``), a real number is a metric (``val_loss=``), None is
                absent.

        Returns:
            The new version.

        Raises:
            ArgumentError: A keyword is no part, metric or option.
            InvalidNameError: *run* or one of *tags* is no name, or the run is spelled otherwise.
            UnsupportedValueError: Some state can't be kept; nothing was written.
            ProgramError: The model can't be stored as a program, or its program computes something
                else than it does; nothing was written.
            NotRankZeroError: Called off rank 0 of a process group.
            NotFoundError: *parent* names a version that is not there.
            IntegrityError: What the save has to build upon is damaged: the run's manifests have a
                hole, its journal or ``ckptstore.json`` is not what was written.
            NewerFormatError: A newer ckptstore made the store, its journal or *parent*.
            StorageError: The storage failed; no version was committed, unless a note of the error
                says that it was.
            OutcomeUnknownError: It can't be told whether the version was committed.
        """
        return self._save(
            self._default_run if run is None else run,
            self._given(),
            parts_and_metrics,
            model=model,
            optimizer=optimizer,
            epoch=epoch,
            step=step,
            model_config=model_config,
            config=config,
            metrics=metrics,
            extra=extra,
            parent=parent,
            tags=tags,
            rng=rng,
            program=program,
            only=only,
            dtype=dtype,
        )

    def save_package(
        self,
        source: Any,
        *,
        run: str | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        class_names: Sequence[str | int] | None = None,
        sample: Any = None,
        part: str = "model",
        model_config: Mapping[str, Any] | None = None,
        parent: Checkpoint | Package | str | None = None,
        tags: Sequence[str] = (),
        program: Any = None,
    ) -> Package:
        """Save a package: a lean version for inference, without any optimizer.

        Args:
            source: A checkpoint, its ref, or a live module (its mode is left as it is).
            run: The run; by default the checkpoint's, or the store's default run.
            preprocessing: ``{"mean": …, "std": …}``, applied in float64 before the model.
            class_names: One name a class, in the order of the model's outputs.
            sample: One sample, as ``predict`` will get it, which fixes its shape and whether the
                model takes integers; without it the shape of the mean does.
            part: Which part of the checkpoint is the model, e.g. ``ema``.
            model_config: Constructor arguments instead of the recorded ones.
            parent: The version it came from; by default the checkpoint.
            tags: Tags to set on the new version.
            program: Sample inputs of a live module, as for :meth:`save`. A checkpoint's own program
                comes along.

        Raises:
            ArgumentError: Statistics, names or sample are not usable, or *source* is nothing that
                a package can be made of.
            InvalidNameError: *run*, *source* or one of *tags* is no name.
            NotFoundError: *source* or *parent* names a version that is not there, or the checkpoint
                has no such part.
            CkptStoreError: As :meth:`save`.
        """
        told, given = (preprocessing, class_names, sample), self._given()
        how = {"part": part, "model_config": model_config, "tags": tags, "program": program}
        return self._save_package(run, given, source, told, parent, **how)

    # ------------------------------------------------------------ looking up

    def best(
        self, *, run: str | None = None, metric: str | None = None, mode: Mode | None = None
    ) -> Checkpoint:
        """Return the checkpoint with the best metric.

        NaN is passed over; of equal ones the earliest is the best.

        Args:
            run: A run, a glob over runs (``sweep/*``), or None: the only run there is.
            metric: None means the run's monitor.
            mode: ``"min"`` or ``"max"``; needed for a metric other than the monitor.

        Raises:
            ArgumentError: *mode* is missing, or is neither ``"min"`` nor ``"max"``.
            MetricNotFoundError: No checkpoint has a usable value; it lists the metrics there are.
            VersionNotFoundError: There is no checkpoint.
            RunNotFoundError: No such run, or several and none was named.
            NotAStoreError: There is no store.
            IntegrityError: The run's journal or ``ckptstore.json`` is damaged. Damaged versions are
                passed over, with a warning.
            NewerFormatError: A newer ckptstore made what might be the best.
            StorageError: The storage failed.
        """
        return self._best(run, metric, mode, self._monitor)

    def latest(self, *, run: str | None = None) -> Checkpoint:
        """Return the newest checkpoint.

        Args:
            run: A run, or a pattern that one run alone matches; the only run there is if None.

        Raises:
            VersionNotFoundError: There is none.
            RunNotFoundError: No such run, or several and none was named.
            NotAStoreError: There is no store.
            IntegrityError: The newest version is damaged; nothing older is put in its place.
            NewerFormatError: A newer ckptstore made the newest version.
            StorageError: The storage failed.
        """
        return self._checkpoint(self._lookup.latest(self._lookup.one_path(run), "checkpoint"))

    def runs(self) -> list[str]:
        """Return the names of all runs, sorted.

        Raises:
            NotAStoreError: There is no store.
        """
        wait_for(self.url)
        return self._catalog.run_names(self._catalog.discover())

    def history(self, run: str | None = None, *, limit: int | None = None) -> History:
        """Return versions by run and number, retired ones too; damaged ones are apart.

        Args:
            run: A run, a glob, or None: all runs.
            limit: At most so many versions and as many epochs that were logged without weights,
                the newest: by number in one run, by time in several. So a look at a long run costs
                the same however long it is.

        Returns:
            Versions of both kinds as a sequence. Those whose manifests can't be read are in
            ``.damaged``, and epochs that were logged without weights in ``.logged``.

        Raises:
            ArgumentError: *limit* is no whole number above 0.
            RunNotFoundError: No such run, or none that the glob matches.
            NotAStoreError: There is no store.
            IntegrityError: ``ckptstore.json`` is damaged, or the journal of a run that *run* means;
                among all runs that is warned of.
            NewerFormatError: A newer ckptstore made one of the versions.
            StorageError: The storage failed.
        """
        check_limit(limit)
        paths = self._lookup.every_path(run)
        records = self._catalog.history(paths, limit=limit)
        damaged = [
            (f"{record.path}@{record.version}", record.damage)
            for record in records
            if record.damage
        ]
        entries = [self._entry(record) for record in records if record.head is not None]
        return History(entries, damaged, self._logged(paths, limit))

    # ------------------------------------------------------------ loading

    def load_best(
        self,
        ModelClass: Callable[..., Model],  # noqa: N803 - the design's word
        *,
        run: str | None = None,
        metric: str | None = None,
        mode: Mode | None = None,
        fallback: bool = False,
        **options: Unpack[LoadOptions],
    ) -> Model:
        """Build the best checkpoint's module: :meth:`best`, then :meth:`load`.

        Nothing is put in the place of a best version that is damaged, unless *fallback* says so.

        Args:
            ModelClass: The module's class, or any callable that builds it.
            run: A run, a glob over runs (``sweep/*``), or None: the only run there is.
            metric: None means the run's monitor.
            mode: ``"min"`` or ``"max"``; needed for a metric other than the monitor.
            fallback: Take the best version that is intact, with a warning that names those passed
                over; only damage is passed over, no other failure.
            **options: ``device``, ``part``, ``model_config``, ``mmap``, ``build``, ``only``,
                ``skip``, ``rename``, ``strict`` and ``dtype``: see
                :class:`ckptstore.reading.LoadOptions`.

        Returns:
            The module, in eval mode on its device.

        Raises:
            CkptStoreError: As :meth:`best` and :meth:`load`.
        """
        return self._load_best(
            ModelClass, run, metric, mode, self._monitor, fallback=fallback, options=options
        )

    def load_latest(
        self,
        ModelClass: Callable[..., Model],  # noqa: N803 - the design's word
        *,
        run: str | None = None,
        **options: Unpack[LoadOptions],
    ) -> Model:
        """Build the newest checkpoint's module: :meth:`latest`, then :meth:`load`.

        Args:
            ModelClass: The module's class, or any callable that builds it.
            run: A run, or a pattern that one run alone matches; the only run there is if None.
            **options: ``device``, ``part``, ``model_config``, ``mmap``, ``build``, ``only``,
                ``skip``, ``rename``, ``strict`` and ``dtype``: see
                :class:`ckptstore.reading.LoadOptions`.

        Returns:
            The module, in eval mode on its device.

        Raises:
            CkptStoreError: As :meth:`latest` and :meth:`load`.
        """
        return self.latest(run=run).load(ModelClass, **options)

    def load(
        self,
        ModelClass: Callable[..., Model],  # noqa: N803 - the design's word
        ref: str | int,
        **options: Unpack[LoadOptions],
    ) -> Model:
        """Build a version's module, in eval mode, its weights as saved, every byte checked.

        No random generator is moved. Only the bytes of the part asked for are read.

        Args:
            ModelClass: The module's class, or any callable that builds it.
            ref: The version, e.g. ``digits@7``.
            **options: ``device``, ``part``, ``model_config``, ``mmap``, ``build``, ``only``,
                ``skip``, ``rename``, ``strict`` and ``dtype``: see
                :class:`ckptstore.reading.LoadOptions`.

        Returns:
            The module, in eval mode on its device.

        Raises:
            ArgumentError: An option is none, or constructor arguments are needed and not on record.
            MismatchError: The module does not fit the weights; it lists every mismatch.
            UsageError: The class raised while it was built; its own error is the cause.
            DeviceError: The device is not there.
            VersionNotFoundError: There is no such version or part.
            RunNotFoundError: No such run, or several and none was named.
            NotAStoreError: There is no store.
            IntegrityError: Some bytes are not what was saved; the error names the tensor.
            NewerFormatError: A newer ckptstore made the version.
            StorageError: The storage failed.
        """
        return self.get(ref).load(ModelClass, **options)

    def load_package(
        self,
        ModelClass: Callable[..., torch.nn.Module],  # noqa: N803 - the design's word
        ref: str | int | None = None,
        *,
        device: str | int | torch.device | None = None,
        model_config: Mapping[str, Any] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Package:
        """Load a package: its module, preprocessing and class names, ready to predict.

        Args:
            ModelClass: The module's class, or any callable that builds it.
            ref: None means the newest package of the only run there is; a run means its newest.
            device: None means CUDA if there is one, else the CPU.
            model_config: Constructor arguments instead of the recorded ones.
            dtype: What the model's floating tensors are converted to, such as ``torch.bfloat16``.

        Raises:
            VersionNotFoundError: There is no such package.
            CkptStoreError: As :meth:`load`.
        """
        wanted = Ref(None, "latest") if ref is None else parse_ref(ref)
        how = {"device": device, "model_config": model_config, "dtype": dtype}
        return self._load_package(ModelClass, wanted, self._monitor, how)

    def resume(
        self,
        model: Any = None,
        optimizer: Any = None,
        *,
        run: str | None = None,
        rng: bool = True,
        strict: bool = True,
        only: KeyPatterns = None,
        skip: KeyPatterns = None,
        rename: Mapping[str, Any] | None = None,
        dtype: Literal["own"] | None = None,
        **parts: Any,
    ) -> Resumed:
        """Restore the newest intact checkpoint into live objects; do nothing if there is none.

        ::

            for epoch in range(store.resume(model, optimizer).next_epoch, 10): ...

        Damaged versions are passed over with a warning; with *strict*, so are those from which a
        guard left out a part that is asked for. Any other failure raises and leaves the objects
        untouched. In a process group every rank must call this.

        Args:
            model: The module.
            optimizer: The optimizer; matched by its parameters' names.
            run: The run; the store's default run if None.
            rng: Put the random generators back too, last.
            strict: False leaves what does not fit as it is, with a warning, instead of raising: a
                part that was not saved; keys of a module that were not saved, that it lacks, or
                that have another shape. The audit lists them.
            only: Put back these keys of modules alone, e.g. ``"encoder.*"``, or several patterns;
                of the others nothing is read, and they stay as they are. Patterns are those of
                :class:`~ckptstore.reading.LoadOptions`. A dict says it for single parts:
                ``{"model": "encoder.*"}``.
            skip: Patterns of keys of modules to leave as they are; likewise.
            rename: What prefixes of saved keys are in the modules, ``{"backbone.": "encoder."}``;
                the optimizer's parameters are known by their new names too. A dict of such dicts
                says it for single parts.
            dtype: ``"own"`` converts floating tensors to the dtypes that the modules have; None
                takes only the dtypes that were saved.
            **parts: Further objects by the names they were saved under.

        Returns:
            What was restored; falsy if there was nothing.

        Raises:
            IntegrityError: There are checkpoints, and none is intact.
            MismatchError: The objects don't fit; it lists every mismatch.
            VersionNotFoundError: A part was not saved, and *strict* is true.
            StorageError: The storage failed.
        """
        from ckptstore.format.manifest import parent_of
        from ckptstore.loading.choice import KeyOptions
        from ckptstore.loading.resume import Resumed, resume
        from ckptstore.state.ranks import on_all_ranks

        name = self._default_run if run is None else run
        writer = on_all_ranks(f"resume of run {name!r:.80}", lambda: self._writer(name))
        done = resume(
            self._read_through,
            lambda: self._lookup.checkpoints(writer.path),
            writer.run,
            {"model": model, "optimizer": optimizer, **parts},
            with_rng=rng,
            strict=strict,
            keys=KeyOptions(only, skip, rename, dtype),
            on_damage=self._catalog.pass_over,
            retired=lambda: self._lookup.retired_checkpoints(writer.path),
        )
        if done is None:
            return Resumed(None, None)
        head = done.opened.head
        writer.resumed(parent_of(head))
        return Resumed(Checkpoint(head, self._source, done.facts), done.audit, done.extra)

    # ------------------------------------------------------------ how

    def _save_package(
        self, run: str | None, given: GivenSettings, source: Any, told: Any, parent: Any, **how: Any
    ) -> Package:
        from ckptstore.inference.package import contents
        from ckptstore.saving.package import save_package

        self._pending.settle()
        held = contents(*told)
        entry = self.get(source) if isinstance(source, (str, int)) else source
        own = entry.run if isinstance(entry, Entry) else self._default_run
        writer = self._writer(own if run is None else run)
        how |= {"held": held.head(), "preprocessing": held.state(), "parent": self._parent(parent)}
        head, names = save_package(self._storage, writer, given, entry, **how)
        self._apply_keep(writer, head.ref)
        return Package(head, self._source, VersionFacts(names))

    def _load_package(
        self,
        factory: Callable[..., torch.nn.Module],
        ref: Ref,
        monitor: tuple[str | None, Mode | None],
        how: Mapping[str, Any],
    ) -> Package:
        from ckptstore.inference.package import load_package

        package = self._entry(self._lookup.by_ref(ref, "package", monitor))
        loaded = load_package(package, factory, **how)
        return Package(package.head, self._source, package.facts, loaded=loaded)
