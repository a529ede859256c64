"""The verbs that record what became known of a version after it was saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ckptstore.catalog.later import TagMove
from ckptstore.entry import Checkpoint, Entry, Package
from ckptstore.errors import ArgumentError
from ckptstore.format.layout import check_tag
from ckptstore.format.untree import decode
from ckptstore.history import Logged
from ckptstore.opened import Opened


class LaterFacts(Opened):
    """Tags, later metrics and notes: what is written into a run's journal."""

    def tag(self, ref: str | int | Checkpoint | Package, name: str) -> None:
        """Point a tag at a version, from wherever it pointed before.

        Args:
            ref: The version, or its ref.
            name: The tag: letters, digits and ``. _ = + , -``; no number, ``best`` or ``latest``.

        Raises:
            InvalidNameError: *name* is no name for a tag, or *ref* is none.
            NotFoundError: There is no such version.
            RetiredError: It is retired: a tag keeps what it points at, and that may be gone.
            IntegrityError: The version's manifest or the run's journal is damaged.
            NewerFormatError: A newer ckptstore made the store, the version or the journal.
            StorageError: The storage failed.
        """
        entry = self._named(ref)
        self._writer(entry.run).tag(name, entry.version)

    def untag(self, name: str, *, run: str | None = None) -> None:
        """Take a tag away; nothing happens if there is none of that name.

        Args:
            name: The tag.
            run: The run it belongs to; the only run there is if None.

        Raises:
            InvalidNameError: *name* is no name for a tag.
            NotFoundError: No such run, or several and none was named.
            IntegrityError: The run's journal is damaged.
            NewerFormatError: A newer ckptstore made the store or the journal.
            StorageError: The storage failed.
        """
        path = self._lookup.one_path(run)
        self._writer(self._catalog.run_name(path) or path).tag(name, None)

    def tags(self, run: str | None = None) -> dict[str, str]:
        """Return a run's tags: the ref of the version that each points at, by name.

        Args:
            run: The run; the only run there is if None.

        Raises:
            NotFoundError: No such run, or several and none was named.
            IntegrityError: The run's journal is damaged.
            NewerFormatError: A newer ckptstore made the store or the journal.
            StorageError: The storage failed.
        """
        path = self._lookup.one_path(run)
        name = self._catalog.run_name(path) or path
        tags = self._catalog.facts(path).tags
        return {tag: f"{name}@{tags[tag]}" for tag in sorted(tags)}

    def tag_history(self, name: str | None = None, *, run: str | None = None) -> list[TagMove]:
        """Return how a tag was set, moved and taken away: when, from which version, and by whom.

        Args:
            name: The tag; None for all tags of the run.
            run: The run; the only run there is if None.

        Returns:
            Every move, in the one order that the journal gives them.

        Raises:
            CkptStoreError: As :meth:`tags`; InvalidNameError if *name* is no name for a tag.
        """
        if name is not None:
            check_tag(name)
        return self._catalog.tag_history(self._lookup.one_path(run), name)

    def log(
        self,
        ref: str | int | Checkpoint | Package,
        metrics: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> Checkpoint | Package:
        """Record metrics of a version that came later, as an evaluator's do.

        ::

            store.log("digits@7", test_acc=0.98)

        For epochs that have no version there is :meth:`ckptstore.run.Run.log`.

        Args:
            ref: The version, or its ref.
            metrics: Metrics by any name.
            **values: Metrics by name: real numbers, as for ``save``. None is absent.

        Returns:
            The version as it is known now.

        Raises:
            ArgumentError: Something is no metric, or nothing was given.
            NotFoundError: There is no such version.
            CkptStoreError: As :meth:`tag`.
        """
        return self._named(ref).log(metrics, **values)

    def note(self, ref: str | int | Checkpoint | Package, text: str | None) -> Checkpoint | Package:
        """Note something about a version, in the place of what was noted before.

        Args:
            ref: The version, or its ref.
            text: The note; None takes it away.

        Returns:
            The version as it is known now.

        Raises:
            ArgumentError: *text* is no text that can be stored.
            NotFoundError: There is no such version.
            CkptStoreError: As :meth:`tag`.
        """
        entry = self._named(ref)
        facts = self._source.note(entry, _checked_note(text))
        return entry._known_as(facts)  # noqa: SLF001 - a version is part of its store

    def _named(self, ref: str | int | Checkpoint | Package) -> Checkpoint | Package:
        return ref if isinstance(ref, Entry) else self.get(ref)

    def _logged(self, paths: Sequence[str], limit: int | None = None) -> list[Logged]:
        """Return what was logged in runs of epochs without weights."""
        names = dict(zip(paths, self._catalog.run_names(paths), strict=True))
        return [
            Logged(
                names[path],
                entry.epoch,
                entry.step,
                {name: decode(value, f"{path}, metrics") for name, value in entry.metrics.items()},
                entry.time,
                entry.by,
            )
            for path, entry in self._catalog.logged(paths, limit=limit)
        ]

    def _log_epoch(
        self,
        run: str,
        epoch: int | None,
        step: int | None,
        metrics: Mapping[str, Any] | None,
        values: Mapping[str, Any],
    ) -> None:
        from ckptstore.saving.journaling import log_epoch
        from ckptstore.saving.late_metrics import late_metrics
        from ckptstore.state.keywords import whole

        encoded = late_metrics(metrics, values)
        epoch, step = whole("epoch", epoch), whole("step", step)
        if epoch is None and step is None:
            raise ArgumentError(
                "run.log() takes epoch= or step=, of which no weights are kept; for a version "
                "write checkpoint.log(…) or store.log(ref, …)"
            )
        self._writer(run).append_with_room("metrics", log_epoch(epoch, step, encoded))


def _checked_note(text: object) -> str | None:
    """Return a note, or None.

    Raises:
        ArgumentError: It is no text, or some of it no storage or database can keep.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise ArgumentError(f"a note is text or None, not {text!r:.80}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(f"a note can't hold a lone surrogate: {text!a:.80}") from error
    if "\0" in text:
        raise ArgumentError("a note can't hold the character NUL: databases refuse it")
    return text
