"""What ``save_async`` returns: a save that goes on while the training does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, cast

from ckptstore.entry import Checkpoint
from ckptstore.errors import SaveSkippedError, TornSnapshotError, UsageError
from ckptstore.saving.job import Job
from ckptstore.saving.pending import Queue

if TYPE_CHECKING:
    from ckptstore.saving.snapshot import Snapshot


class PendingSave:
    """A save that was asked for: under way, done, failed or skipped.

    ::

        pending = run.save_async(model, optimizer, epoch=epoch)
        ...
        checkpoint = pending.result()

    Nobody has to ask for its result. A failure that nobody asked for is raised by the next save of
    the store, by ``store.wait()``, or where the store is closed.
    """

    def __init__(self, queue: Queue, job: Job | None, copy: Snapshot | None = None) -> None:
        self._queue = queue
        self._job = job
        self._copy = copy

    def __repr__(self) -> str:
        job = self._job
        if job is None:
            return "<PendingSave: skipped>"
        is_over = "done" if job.error is None else "failed"
        return f"<PendingSave: {job.what}, {is_over if job.is_done else 'under way'}>"

    def __reduce__(self) -> NoReturn:
        what = "a save that was skipped" if self._job is None else self._job.what
        raise UsageError(
            f"{what} can't be copied or pickled, as it belongs to this process: hand over the ref "
            "of its result(), or the Checkpoint itself"
        )

    @property
    def skipped(self) -> bool:
        """Whether nothing is saved, as too many saves were under way (``when_busy="skip"``)."""
        return self._job is None

    def done(self) -> bool:
        """Say whether it is over: saved, failed or skipped."""
        return self._job is None or self._job.is_done

    def result(self, timeout_s: float | None = None) -> Checkpoint:
        """Wait until it is saved, and return the new version.

        Args:
            timeout_s: How many seconds to wait; None means as long as it takes. The save goes on
                whatever ends the waiting, Ctrl-C too.

        Raises:
            SaveSkippedError: It was skipped.
            StillPendingError: It isn't done yet.
            TornSnapshotError: Something wrote to the weights before they were copied; see
                :meth:`wait_copied`.
            UsageError: This process was forked since, and the save is its parent's.
            CkptStoreError: As :meth:`ckptstore.Store.save` says of what is found while it writes.
        """
        if self._job is None:
            raise SaveSkippedError(
                f"{self._queue.url}: nothing was saved, as earlier saves were still under way: "
                "save less often, raise max_pending= or staging_bytes=, or say when_busy='wait'"
            )
        return cast("Checkpoint", self._queue.result(self._job, timeout_s))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is over, and say whether it is. A failure is not raised here.

        Args:
            timeout_s: As for :meth:`result`.
        """
        if self._job is None or self._job.is_elsewhere:
            return True
        return self._queue.wait_for(self._job, timeout_s)

    def wait_copied(self) -> None:
        """Wait until all is copied, so that anything may be written to.

        Call it after ``save_async(overlap=True)`` and before anything but an optimizer's step
        writes to the weights. Copies what is left with all cores. Returns at once without
        ``overlap=True``, or if nothing is left.

        Raises:
            TornSnapshotError: Something wrote to the weights before they were copied.
        """
        if self._copy is None or self._job is None or self._job.is_elsewhere:
            return
        try:
            self._copy.wait_copied()
        except TornSnapshotError as error:
            self._queue.was_told(self._job, error)
            raise
