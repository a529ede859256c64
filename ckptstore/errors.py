"""Every exception and warning ckptstore raises, grouped by what a handler would do.

::

    CkptStoreError
    ├── UsageError                 the call is wrong: mend the call
    │   ├── ArgumentError          a keyword or value that is not taken (TypeError)
    │   ├── InvalidNameError       a run, tag or ref outside the grammar (ValueError)
    │   ├── UnsupportedValueError  a value with no encoding that runs no code (TypeError)
    │   ├── MismatchError          the module or optimizer does not fit what was saved (ValueError)
    │   ├── ProgramError           a module can't be stored as a program (RuntimeError)
    │   ├── DeviceError            the device asked for is not there (RuntimeError)
    │   ├── NotRankZeroError       ``save`` off rank 0 of a process group (RuntimeError)
    │   ├── TornSnapshotError      weights changed before they were copied (RuntimeError)
    │   └── MissingPackageError    an optional package is not installed (ImportError)
    ├── ImportRefusedError         a file is no checkpoint that can be brought in (ValueError)
    │   └── UntrustedPickleError   to read it is to run what it says: trust it, or let it be
    ├── NotFoundError              nothing there by that name: name another (LookupError)
    │   ├── NotAStoreError         the place holds no store
    │   ├── RunNotFoundError       no such run, or several and none was named
    │   ├── VersionNotFoundError   no such version, tag or part
    │   │   └── RetiredError       the version was retired: undelete it or take another
    │   ├── TensorNotFoundError    a part has no tensor of that name (KeyError)
    │   └── MetricNotFoundError    no version has a usable value of that metric
    ├── IntegrityError             bytes are not what was saved: load another version
    │   └── JournalDamagedError    a run's later facts are unknown from some entry on: repair it
    ├── NewerFormatError           made by a newer ckptstore: upgrade
    ├── StorageError               the storage failed: mend it, then try again (OSError)
    │   ├── DurabilityError        an fsync failed: what was written may not survive
    │   ├── NoAnswerError          a request got no answer, and may have its effect later
    │   ├── OutcomeUnknownError    a version or a journal entry may or may not be there
    │   ├── LateCommitError        a save or an undelete took too long and was taken back
    │   ├── NotExclusiveError      the storage cannot keep two writers apart
    │   └── SecondWriterError      another process wrote to a single-writer store
    ├── SaveSkippedError           a save was left out, as earlier ones were still under way
    ├── StillPendingError          a save isn't done yet, and goes on (TimeoutError)
    ├── CollectionRefusedError     nothing more is deleted, as it can't be told what is needed
    └── CatalogError               the SQL index failed; the stored versions are untouched

    CkptStoreWarning (UserWarning)
    ├── CacheWarning               a cache could not be used, and loading goes on without
    ├── CatalogWarning             the index is behind; it catches up at the next sync
    ├── CopyWarning                the other store's own tag, note or settings were left there
    ├── FallbackWarning            a damaged or incomplete version was passed over
    ├── ImportingWarning           an import changed something on its way, or left it out
    ├── GuardWarning               a save on a signal left something out, as time was short
    ├── RetentionWarning           a run could not be pruned after a save
    ├── RoomWarning                the disk is full, or will be before long
    ├── RunWarning                 a save went into a run this process did not start
    ├── SettingsWarning            a run's recorded settings were changed
    └── StateWarning               what was handed over cannot be restored as one might expect
        └── KeysWarning            part of a module stayed as its class made it; it has a report
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from ckptstore.call_sites import asked_for_at, outside
from ckptstore.key_report import KeyReport
from ckptstore.text import plain_lines


class CkptStoreError(Exception):
    """Anything ckptstore raises on purpose."""

    def __str__(self) -> str:
        """Show names that others recorded as text: they reach terminals and logs."""
        return plain_lines(super().__str__())

    def __reduce__(self) -> tuple[object, ...]:
        """Travel to another process whatever ``__init__`` takes, as worker pools need."""
        state = (
            {**self.__dict__, "errno": self.errno} if isinstance(self, OSError) else self.__dict__
        )
        return _again, (type(self), self.args, state)


def _again(
    kind: type[CkptStoreError], args: tuple[object, ...], state: dict[str, object]
) -> CkptStoreError:
    error = kind.__new__(kind, *args)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class UsageError(CkptStoreError):
    """The call is wrong; the message says how to mend it."""


class ArgumentError(UsageError, TypeError):
    """A keyword or value that is not taken."""


class InvalidNameError(UsageError, ValueError):
    """A run, tag or ref that is outside the grammar."""


class UnsupportedValueError(UsageError, TypeError):
    """A value in the state has no encoding that runs no code when read.

    Attributes:
        path: Where the value sits, e.g. ``optimizer/state/0/hook``.
    """

    def __init__(self, path: str, what: str, advice: str | None = None) -> None:
        super().__init__(
            f"cannot save {what} at {path!r}: "
            + (
                advice
                or "turn it into a tensor, array, number, string, bytes, bool, None, "
                "list, tuple, set or dict, or leave it out"
            )
        )
        self.path = path


class MismatchError(UsageError, ValueError):
    """The object handed over does not fit what was saved; nothing was changed.

    Attributes:
        problems: Every mismatch, one sentence each.
    """

    def __init__(self, what: str, problems: Sequence[str], advice: str = "") -> None:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"{what}:{listed}" + (f"\n{advice}" if advice else ""))
        self.problems = tuple(problems)


class ProgramError(UsageError, RuntimeError):
    """A module can't be stored as a program; the message names what stands in the way."""


class TornSnapshotError(UsageError, RuntimeError):
    """Tensors were written to before an overlapped save had copied them; it saved nothing."""


class DeviceError(UsageError, RuntimeError):
    """The device asked for is not there."""


class NotRankZeroError(UsageError, RuntimeError):
    """``save`` was called off rank 0 of a process group."""


class MissingPackageError(UsageError, ImportError):
    """An optional package is not installed; the message has the install command."""


class ImportRefusedError(CkptStoreError, ValueError):
    """A file is no checkpoint that can be brought in: unknown, damaged, or made to harm."""


class UntrustedPickleError(ImportRefusedError):
    """A pickle can't be read without running what it says.

    Attributes:
        names: Everything that it would import beside tensors and plain values, e.g.
            ``mymodels.Net``; empty where *reason* says it all.
    """

    def __init__(self, where: str, names: Sequence[str], reason: str | None = None) -> None:
        why = reason or f"it needs {', '.join(names)}"
        super().__init__(
            f"{where} can't be read without running what it says: {why}. If you trust whoever made "
            "it, pass trust_pickle=True, which reads it in a process of its own"
        )
        self.names = tuple(names)


class NotFoundError(CkptStoreError, LookupError):
    """Nothing is there by that name."""


class NotAStoreError(NotFoundError):
    """The place holds no store."""


class RunNotFoundError(NotFoundError):
    """There is no such run, or there are several and none was named."""


class VersionNotFoundError(NotFoundError):
    """There is no such version, tag or part."""


class RetiredError(VersionNotFoundError):
    """The version was retired; its data are deleted some time after, its row in the history stays.

    Attributes:
        ref: The version, e.g. ``digits@7``.
    """

    def __init__(self, ref: str, when: str, reason: str, advice: str) -> None:
        super().__init__(f"{ref} was retired on {when}: {reason}; {advice}")
        self.ref = ref


class TensorNotFoundError(NotFoundError, KeyError):
    """A part has no tensor of that name."""

    def __str__(self) -> str:
        """Show the message as it is; KeyError would show it quoted."""
        return plain_lines(str(self.args[0]))


class MetricNotFoundError(NotFoundError):
    """No version has a usable value of that metric."""


class IntegrityError(CkptStoreError):
    """Bytes in the storage are not the bytes that were saved.

    Attributes:
        ref: The version whose bytes they are, where it is known, e.g. ``digits@7``.
    """

    def __init__(self, message: str, *, ref: str | None = None) -> None:
        super().__init__(message)
        self.ref = ref


class JournalDamagedError(IntegrityError):
    """A journal entry is missing or damaged, so what was recorded from there on is unknown.

    The run's versions are not touched by that: saving, resuming and loading a version by its number
    go on, with a warning.
    """


class NewerFormatError(CkptStoreError):
    """The object was made by a newer ckptstore."""

    def __init__(self, where: str, found: str) -> None:
        super().__init__(
            f"{where} was made by a newer ckptstore ({found}): upgrade with "
            "'pip install --upgrade ckptstore'; nothing was changed"
        )


class StorageError(CkptStoreError, OSError):
    """The storage failed.

    ``errno`` is that of the underlying error where there was one.

    Attributes:
        needed_bytes: Where a save found no room: how many bytes it had to write. Then nothing of it
            is left, and it may be made again.
    """

    needed_bytes: int | None = None


class DurabilityError(StorageError):
    """An fsync failed: what was written may not survive a power loss."""


class NoAnswerError(StorageError):
    """A request got no answer, however often it was made: it may have its effect all the same."""


class OutcomeUnknownError(StorageError):
    """A version, or an entry of a run's journal, may or may not have been created.

    Attributes:
        save_id: What to look for in the file once the storage answers again: the version's save id,
            or the id of whoever wrote the entry.
    """

    def __init__(
        self,
        where: str,
        save_id: str,
        error: BaseException,
        found: str = "it could not be read back",
    ) -> None:
        super().__init__(
            f"outcome unknown: creating {where} failed ({error}) and {found}; the file would hold "
            f"the id {save_id}. Once the storage answers, see whether it is there before you do "
            "the same again"
        )
        self.save_id = save_id


class LateCommitError(StorageError):
    """A save or an undelete ended after half the grace period, and was taken back.

    What it built upon may be gone by then.
    """


class NotExclusiveError(StorageError):
    """The storage cannot keep two writers apart."""


class SecondWriterError(StorageError):
    """Another process wrote to a store opened with ``single_writer=True``."""


class SaveSkippedError(CkptStoreError):
    """``save_async`` saved nothing, as so many earlier saves were under way as may be."""


class StillPendingError(CkptStoreError, TimeoutError):
    """A save in the background isn't done yet. It goes on: ask again."""


class CollectionRefusedError(CkptStoreError):
    """Nothing is deleted, because it can't be told what is still needed; the message says why.

    It also says what was deleted before, by a collection that took so long that it looked again.
    """


class CatalogError(CkptStoreError):
    """The SQL index failed; the stored versions are untouched."""


class CkptStoreWarning(UserWarning):
    """Anything ckptstore warns about."""


class CacheWarning(CkptStoreWarning):
    """A cache could not be used; what is loaded is read from the store itself."""


class CatalogWarning(CkptStoreWarning):
    """The index is behind; it catches up at the next sync."""


class CopyWarning(CkptStoreWarning):
    """A copy left a tag, a note or settings as the other store has them."""


class FallbackWarning(CkptStoreWarning):
    """A damaged version was passed over, or one that lacks a part."""


class GuardWarning(CkptStoreWarning):
    """A save on a signal left something out, or was left out, as time was short."""


class ImportingWarning(CkptStoreWarning):
    """An import changed something on its way, left something out, or found it there already."""


class RetentionWarning(CkptStoreWarning):
    """A run could not be pruned after a save; the version is saved, and the next save tries."""


class RoomWarning(CkptStoreWarning):
    """The disk is full and a save waits for room, or it will be full before long."""


class RunWarning(CkptStoreWarning):
    """A save went into a run that this process neither created nor resumed."""


class SettingsWarning(CkptStoreWarning):
    """A run's recorded settings were changed."""


class StateWarning(CkptStoreWarning):
    """What was handed over cannot be restored as one might expect."""


class KeysWarning(StateWarning):
    """Part of a module stayed as its class made it.

    Attributes:
        report: Which keys, and why.
    """

    def __init__(self, message: str, report: KeyReport) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[object, ...]:
        """Travel to another process with its report."""
        return type(self), (self.args[0], self.report)


def warn(message: str | CkptStoreWarning, category: type[CkptStoreWarning] | None = None) -> None:
    """Warn at the line of the user's code that called ckptstore, from however deep.

    Args:
        message: What to say, or a warning that says it.
        category: What kind of warning it is; that of *message* if it is one.
    """
    told = plain_lines(message) if isinstance(message, str) else message
    site = asked_for_at()
    if site is None:
        level, _ = outside()
        warnings.warn(told, category, stacklevel=level)
        return
    where: Any = warnings.warn_explicit  # its types know no warning that brings its own category
    where(
        told,
        category or type(message),
        site.filename,
        site.line,
        module=site.names.get("__name__"),
        registry=site.names.setdefault("__warningregistry__", {}),
    )
