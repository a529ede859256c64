"""The verbs that save, at once or while the training goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ckptstore.entry import Checkpoint, Package
from ckptstore.errors import ArgumentError, StateWarning, warn
from ckptstore.format.facts import VersionFacts
from ckptstore.guard import let_save
from ckptstore.keeping import Keeping
from ckptstore.pending import PendingSave
from ckptstore.reading import KeyPatterns
from ckptstore.saving.effort import Effort
from ckptstore.saving.job import Job
from ckptstore.text import size

if TYPE_CHECKING:
    import torch

    from ckptstore.saving.checkpoint import Captured
    from ckptstore.saving.run_writer import RunWriter
    from ckptstore.saving.settings import GivenSettings


class InBackground(Keeping):
    """Saving, at once or while the training goes on."""

    def save_async(
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
        overlap: bool = False,
        **parts_and_metrics: Any,
    ) -> PendingSave:
        """Save a checkpoint while the training goes on: it is held up for a copy of the state.

        What is saved is the state at this call, whatever is done to it afterwards. All that
        ``save`` checks is checked here; what is found later is raised by
        :meth:`~ckptstore.PendingSave.result`, else by the store's next save, else where the store
        is closed. A process ends once all is saved.

        Args:
            model: As for :meth:`save`, as is all that isn't named here.
            optimizer: As for :meth:`save`.
            run: As for :meth:`save`.
            epoch: As for :meth:`save`.
            step: As for :meth:`save`.
            model_config: As for :meth:`save`.
            config: As for :meth:`save`.
            metrics: As for :meth:`save`.
            extra: As for :meth:`save`.
            parent: As for :meth:`save`; a ref is looked up once earlier saves are done.
            tags: As for :meth:`save`.
            rng: As for :meth:`save`.
            program: As for :meth:`save`; it is traced before this returns.
            only: As for :meth:`save`.
            dtype: As for :meth:`save`.
            overlap: Copy what an optimizer handed to this save updates, parameters and state, while
                the next forward and backward run; its ``step`` waits for what is left. Before
                anything else writes to the weights (an average swapped in, ``.data``, clipping of
                weights, the replay of a CUDA graph) call
                :meth:`~ckptstore.PendingSave.wait_copied`. A tensor that was written to all the
                same fails the save where torch counts such writes: an alarm, not a guarantee.
            **parts_and_metrics: As for :meth:`save`.

        Returns:
            The save on its way.

        Raises:
            NotRankZeroError: Called off rank 0 of a process group.
            StorageError: There is no memory for the copy.
            CkptStoreError: As :meth:`save` says of what it is given; or an earlier save of this
                store failed, and nobody was told.
        """
        return self._save_async(
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
            overlap=overlap,
        )

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the saves in the background that are under way now.

        Args:
            timeout_s: How many seconds; None means as long as it takes.

        Returns:
            Whether all of them are over.

        Raises:
            CkptStoreError: One failed, and nobody was told.
        """
        is_over = self._pending.wait(timeout_s)
        self._pending.raise_failures()
        return is_over

    # ------------------------------------------------------------ how

    def _save(
        self,
        run: str,
        given: GivenSettings,
        keywords: Mapping[str, Any],
        **options: Any,
    ) -> Checkpoint:
        writer = self._writer(run)

        def save() -> Checkpoint:
            effort = Effort()
            self._pending.settle()
            captured = self._captured(writer, given, keywords, **options)
            return self._write(writer, given, captured, effort)

        return let_save(writer, save, _handed_over(options, keywords))

    def _save_async(
        self,
        run: str,
        given: GivenSettings,
        keywords: Mapping[str, Any],
        *,
        overlap: bool,
        **options: Any,
    ) -> PendingSave:
        if not isinstance(overlap, bool):
            raise ArgumentError(f"overlap={overlap!r:.80}: takes True or False")
        writer = self._writer(run)

        def begin() -> PendingSave:
            effort = Effort()
            self._pending.raise_failure()
            if not self._pending.enter():
                # What is wrong with a call is raised by the call. Only what takes its time is left
                # out: to look a parent up would wait for the very saves that are under way.
                without = {"parent": None, "program": None}
                self._captured(writer, given, keywords, **{**options, **without})
                return PendingSave(self._pending, None)
            try:
                captured = self._captured(writer, given, keywords, **options)
            except BaseException:
                self._pending.leave()
                raise
            return self._hand_over(writer, given, captured, effort, overlap=overlap)

        return let_save(writer, begin, _handed_over(options, keywords))

    def _hand_over(
        self,
        writer: RunWriter,
        given: GivenSettings,
        captured: Captured,
        effort: Effort,
        *,
        overlap: bool,
    ) -> PendingSave:
        """Copy what was captured, and have the copy saved. A place was taken for it."""
        from ckptstore.saving.laying_out import Layout
        from ckptstore.saving.overlap import Overlap
        from ckptstore.saving.snapshot import snapshot

        what = f"the save of run {writer.run!r}{_where(captured)}"
        budget = self._pending.staging_bytes
        needed = 0 if budget is None else Layout(captured.parts).total_bytes
        if budget is not None and needed > budget:
            self._pending.leave()
            if not self._told_of_budget:
                self._told_of_budget = True
                warn(
                    f"{what} has {size(needed)}, more than staging_bytes= lets copies take: the "
                    "training waits until it is saved, as in save(). Raise staging_bytes=, or save "
                    "less",
                    StateWarning,
                )
            self._pending.settle()
            saved = self._write(writer, given, captured, effort)
            return PendingSave(self._pending, Job.done(what, saved))
        held = 0
        try:
            if not self._pending.reserve(needed):
                self._pending.leave()
                return PendingSave(self._pending, None)
            held = needed
            late = Overlap(captured.objects) if overlap else None
            copy = snapshot(captured.parts, self._staging(), overlap=late)
        except BaseException:
            self._pending.leave(held)
            raise
        kept = replace(captured, parts=(), objects={})

        def work() -> Checkpoint:
            copy.copy_rest()
            effort.copied_bytes, effort.copied_s = copy.size_bytes, copy.copied_s
            return self._write(writer, given, replace(kept, parts=copy.parts), effort)

        job = Job(what, work, copy.release, held)
        effort.waited_s = lambda: copy.waited_s
        effort.let_go()
        self._pending.put(job)
        return PendingSave(self._pending, job, copy)

    def _captured(
        self,
        writer: RunWriter,
        given: GivenSettings,
        keywords: Mapping[str, Any],
        *,
        parent: Any,
        rng: bool,
        **options: Any,
    ) -> Captured:
        from ckptstore.saving.checkpoint import capture_checkpoint

        return capture_checkpoint(
            writer,
            given,
            keywords=keywords,
            parent=self._parent(parent),
            with_rng=rng,
            **options,
        )

    def _write(
        self, writer: RunWriter, given: GivenSettings, captured: Captured, effort: Effort
    ) -> Checkpoint:
        from ckptstore.saving.checkpoint import write_checkpoint

        head, tags = write_checkpoint(self._storage, writer, given, captured, effort)
        self._apply_keep(writer, head.ref)
        return Checkpoint(head, self._source, VersionFacts(tags))


def _handed_over(options: Mapping[str, Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``save`` was called with, by keyword."""
    what = {**options, **keywords}
    what.pop("left_out", None)
    return what


def _where(captured: Captured) -> str:
    facts = captured.facts
    places = [("epoch", facts.epoch), ("step", facts.step)]
    return "".join(f", {name} {number}" for name, number in places if number is not None)
