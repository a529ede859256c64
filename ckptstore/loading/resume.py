"""The newest intact version back into a training: one choice for all ranks, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import torch

from ckptstore.audit import Audit
from ckptstore.entry import Checkpoint, Record
from ckptstore.errors import (
    ArgumentError,
    CkptStoreError,
    FallbackWarning,
    IntegrityError,
    KeysWarning,
    StateWarning,
    StorageError,
    VersionNotFoundError,
    warn,
)
from ckptstore.format.facts import VersionFacts
from ckptstore.loading.choice import NO_OPTIONS, Choice, KeyOptions
from ckptstore.loading.loaded import READ, Loaded, Ways, fetch_states, ways_in
from ckptstore.loading.restore import (
    EXTRA_PART,
    RNG_PART,
    Plan,
    apply,
    make_plan,
)
from ckptstore.manifest import OpenManifest, open_manifest
from ckptstore.state.environment import device_types, differences
from ckptstore.state.keywords import only_parts
from ckptstore.state.metrics import has_weights
from ckptstore.state.ranks import all_ranks, are_several, from_rank_zero, on_all_ranks
from ckptstore.storage.base import Storage
from ckptstore.text import plain

# What rank 0 sends instead of a version's number.
NOTHING = 0
FAILED = -1
OnDamage = Callable[[UUID], object]
"""Is told the save id of a version that turned out to be damaged."""
NOBODY: OnDamage = bool


class Resumed:
    """What ``resume`` did. Falsy if there was nothing to resume from.

    Attributes:
        checkpoint: The version that was restored, or None.
        audit: What was restored and what was not, or None.
        extra: What was saved as ``extra=``, None if nothing was or there was nothing.
    """

    def __init__(
        self, checkpoint: Checkpoint | None, audit: Audit | None, extra: Any = None
    ) -> None:
        self.checkpoint = checkpoint
        self.audit = audit
        self.extra = extra

    def __bool__(self) -> bool:
        return self.checkpoint is not None

    def __repr__(self) -> str:
        return f"<Resumed {self.checkpoint.ref}>" if self.checkpoint else "<Resumed nothing>"

    @property
    def next_epoch(self) -> int:
        """The epoch to go on with: one after the saved one, 0 if there was nothing.

        Raises:
            ArgumentError: The checkpoint was saved without ``epoch=``.
        """
        if self.checkpoint is None:
            return 0
        if self.checkpoint.epoch is None:
            raise ArgumentError(
                f"{self.checkpoint.ref} was saved without epoch=, so the next one is unknown; "
                "use .step or .extra"
            )
        return self.checkpoint.epoch + 1

    @property
    def step(self) -> int | None:
        """The saved step, None if none was saved or there was nothing."""
        return None if self.checkpoint is None else self.checkpoint.step


@dataclass(frozen=True)
class Done:
    """What was restored from."""

    opened: OpenManifest
    audit: Audit
    extra: Any
    """What was saved as ``extra=``, None if nothing was."""
    facts: VersionFacts
    """What was recorded about it later, as of when it was looked up."""


def resume(
    storage: Storage,
    newest_first: Callable[[], Iterable[Record]],
    run: str,
    parts: Mapping[str, Any],
    *,
    with_rng: bool,
    strict: bool = True,
    keys: KeyOptions = NO_OPTIONS,
    on_damage: OnDamage = NOBODY,
    retired: Callable[[], Iterable[Record]] = list,
) -> Done | None:
    """Restore the newest intact checkpoint.

    In a process group rank 0 picks the version and every rank restores that one; if one of them
    can't, none changes anything and all raise.

    Args:
        storage: Where the versions are.
        newest_first: Gives the run's checkpoints, newest first, damaged ones included.
        run: The run's name.
        parts: The objects to restore into, by part.
        with_rng: Whether to put the process's random generators back, last.
        strict: Whether a part that was not saved is an error, and a key that does not fit; else
            they stay as they are.
        keys: What is to be put back of modules.
        on_damage: Is told each version that turned out to be damaged.
        retired: Gives the run's retired checkpoints, newest first, for the message if none is left
            to go on from.

    Returns:
        The version and what was done, or None if the run has no checkpoint.

    Raises:
        IntegrityError: There are checkpoints, and none is intact.
        MismatchError: The objects don't fit the newest intact one.
        StorageError: The storage failed, or another rank could not restore.
    """

    def checked() -> tuple[dict[str, Any], Wanted]:
        asked = only_parts(parts, "resume")
        choices = keys.by_part(_modules(asked), strict=strict)
        return asked, Wanted(list(asked), with_rng, strict, choices, retired, ways_in(asked))

    parts, wanted = on_all_ranks(f"resume of run {run!r}", checked)
    if are_several():
        done = _resume_together(
            storage, newest_first, run, parts, wanted=wanted, on_damage=on_damage
        )
    else:
        loaded = _newest_intact(storage, newest_first(), wanted, on_damage)
        done = None if loaded is None else _finish(make_plan(loaded, parts))
    if done is not None:
        # Generators that nobody recorded were left out on purpose; the audit has them.
        _tell_not_saved("resumed", done, parts)
        _tell_keys("resumed", done)
    if done is not None and _is_training(parts) and done.audit.not_asked_for:
        left = ", ".join(repr(plain(name)) for name in done.audit.not_asked_for)
        warn(
            f"resumed {done.opened.head.ref} without {left}, saved with it: hand them to resume() "
            "too, or they begin anew while the rest goes on",
            StateWarning,
        )
    return done


def _is_training(parts: Mapping[str, Any]) -> bool:
    """Say whether a training goes on: a model alone may well be all that somebody wants."""
    return any(isinstance(part, torch.optim.Optimizer) for part in parts.values())


def restore(
    opened: OpenManifest,
    parts: Mapping[str, Any],
    *,
    with_rng: bool,
    strict: bool = True,
    keys: KeyOptions = NO_OPTIONS,
) -> Audit:
    """Put one version's state into live objects; nothing is touched unless all of it fits."""
    parts = only_parts(parts, "restore")
    names = [*parts, *([RNG_PART] if with_rng else [])]
    choices = keys.by_part(_modules(parts), strict=strict)
    loaded = fetch_states(opened, names, strict=strict, choices=choices, ways=ways_in(parts))
    done = _finish(make_plan(loaded, parts))
    _tell_not_saved("restored", done, names)
    _tell_keys("restored", done)
    return done.audit


def _modules(parts: Mapping[str, Any]) -> list[str]:
    return [name for name, part in parts.items() if has_weights(part)]


def _tell_keys(verb: str, done: Done) -> None:
    """Warn of keys that don't fit; what a save left out on purpose stands in the audit alone."""
    for name, report in done.audit.keys.items():
        found = replace(report, left_out=())
        if found:
            said = f"{verb} {done.opened.head.ref} without all of part {plain(name)!r}:\n{found}"
            warn(KeysWarning(said, report))
    for name, left in done.audit.state_left.items():
        unasked = replace(left, not_chosen=())
        if unasked:
            warn(
                f"{verb} {done.opened.head.ref} without all the state of {plain(name)!r}:\n"
                f"{unasked}",
                StateWarning,
            )


def _tell_not_saved(verb: str, done: Done, asked: Iterable[str]) -> None:
    for name, reasons in done.audit.parts_left.items():
        warn(
            f"{verb} {done.opened.head.ref} without {plain(name)!r}, which is as it was "
            f"(strict=False):{_listed(reasons)}",
            StateWarning,
        )
    left = [repr(plain(name)) for name in asked if name in done.audit.not_saved]
    if left:
        warn(
            f"{verb} {done.opened.head.ref} without {', '.join(left)}, which it does not have: "
            "they are as they were (strict=False)",
            StateWarning,
        )


def _environment(plan: Plan) -> dict[str, tuple[Any, Any]]:
    """Return what differs between where the state was saved and where it went."""
    devices = {
        name: device_types(own for own in found.own.values() if isinstance(own, torch.Tensor))
        for name, found in plan.fits.items()
    }
    return differences(plan.loaded.opened.head.environment, devices)


def _finish(plan: Plan, agree: Callable[[bool], object] = bool) -> Done:
    opened = plan.loaded.opened
    audit = replace(apply(plan, agree), environment=_environment(plan))
    return Done(opened, audit, plan.loaded.states.get(EXTRA_PART), plan.loaded.facts)


@dataclass(frozen=True)
class Wanted:
    """What of a version is to be read."""

    names: list[str]
    """The parts asked for."""
    with_rng: bool
    strict: bool
    choices: Mapping[str, Choice]
    """What of each module part."""
    retired: Callable[[], Iterable[Record]] = list
    """Versions that could be brought back, newest first."""
    ways: Ways = READ
    """How they come into the objects that are there."""

    def lacking(self, record: Record) -> list[str]:
        """Return the parts that were left out of a version, as they are named in messages."""
        left_out = record.head.left_out if record.head else ()
        return [repr(plain(name)) for name in self.names if name in left_out]

    def undeletable(self) -> str:
        """Return what to say of a complete version that was retired, nothing if there is none."""
        for record in self.retired():
            if record.head is not None and not self.lacking(record):
                ref = record.head.ref
                return f"\n{ref} was complete and was retired: undelete({ref!r}) may bring it back"
        return ""

    def of(self, opened: OpenManifest) -> Loaded:
        """Read it."""
        # What was saved as extra= is checked with the rest: a training that goes on asks for it.
        also = [EXTRA_PART, *([RNG_PART] if self.with_rng else [])]
        return fetch_states(
            opened,
            self.names,
            if_saved=also,
            strict=self.strict,
            choices=self.choices,
            ways=self.ways,
        )


def _newest_intact(
    storage: Storage,
    records: Iterable[Record],
    wanted: Wanted,
    on_damage: OnDamage,
) -> Loaded | None:
    """Return the newest version whose parts all hold, with a warning for each one passed over."""
    damaged: list[str] = []
    lean: list[str] = []
    for record in records:
        ref = record.head.ref if record.head else f"{record.path}@{record.version}"
        if record.head is None:
            damaged.append(f"{ref}: {record.damage}")
            continue
        lacking = wanted.lacking(record)
        if lacking and wanted.strict:
            lean.append(f"{ref}: without {', '.join(lacking)}")
            continue
        try:
            opened = open_manifest(
                storage, record.head.run, record.version, save_id=record.head.save_id
            )
            loaded = wanted.of(opened)
        except IntegrityError as error:
            damaged.append(f"{ref}: {error}")
            on_damage(record.head.save_id)
            continue
        _tell_passed_over(ref, damaged, lean)
        return replace(loaded, facts=record.facts)
    if damaged:
        raise IntegrityError(f"no checkpoint to resume from is intact:{_listed(damaged + lean)}")
    if lean:
        raise VersionNotFoundError(
            f"no checkpoint has all parts; these were left out when a signal came:{_listed(lean)}\n"
            "strict=False takes the newest, and leaves the missing parts as they are"
            f"{wanted.undeletable()}"
        )
    return None


def _tell_passed_over(ref: str, damaged: Sequence[str], lean: Sequence[str]) -> None:
    if damaged:
        warn(
            f"resuming from {ref}; newer versions are damaged and were passed over:"
            f"{_listed(damaged)}",
            FallbackWarning,
        )
    if lean:
        warn(
            f"resuming from {ref}; newer versions were saved on a signal, without all parts, and "
            f"were passed over:{_listed(lean)}\nstrict=False takes the newest of all, and leaves "
            "the missing parts as they are",
            FallbackWarning,
        )


def _listed(lines: Iterable[str]) -> str:
    return "".join(f"\n  - {line}" for line in lines)


def _resume_together(
    storage: Storage,
    newest_first: Callable[[], Iterable[Record]],
    run: str,
    parts: Mapping[str, Any],
    *,
    wanted: Wanted,
    on_damage: OnDamage,
) -> Done | None:
    error: CkptStoreError | None = None
    loaded: Loaded | None = None
    plan: Plan | None = None
    choice = FAILED
    # Whatever is raised here, a warning turned into an error included, the others must hear of it:
    # they wait for this rank.
    try:
        if torch.distributed.get_rank() == 0:
            loaded = _newest_intact(storage, newest_first(), wanted, on_damage)
            choice = loaded.opened.head.version if loaded else NOTHING
    except CkptStoreError as caught:
        error = caught
    finally:
        choice = from_rank_zero(choice)
    if choice == NOTHING:
        return None
    if choice == FAILED:
        raise error or StorageError(
            f"resume of run {run!r}: rank 0 could not read a version, so no rank restored any; "
            "see its error"
        )
    all_fit = False
    try:
        if loaded is None:
            opened = open_manifest(storage, run, choice)
            loaded = wanted.of(opened)
        plan = make_plan(loaded, parts)
    except CkptStoreError as caught:
        error = caught
    finally:
        all_fit = all_ranks(plan is not None)
    elsewhere = StorageError(
        f"resume of run {run!r}: another rank could not restore version {choice}, so none did; "
        "see its error"
    )
    if plan is None or not all_fit:
        raise error or elsewhere

    def agree(fine: bool) -> None:  # noqa: FBT001 - a fact, not an option
        if not all_ranks(fine) and fine:
            raise elsewhere

    return _finish(plan, agree)
