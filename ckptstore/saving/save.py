"""A blocking save, top to bottom: parts -> packs -> manifest -> catalog."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from ckptstore.errors import NotRankZeroError, UnsupportedValueError
from ckptstore.format.digest import MAX_LINE_BYTES
from ckptstore.format.imported import ImportedFrom
from ckptstore.format.layout import run_path
from ckptstore.format.manifest import Head, Parent, encode_head, parent_of
from ckptstore.format.tree import encode
from ckptstore.saving.basis import basis_of
from ckptstore.saving.capture import CapturedPart
from ckptstore.saving.effort import Effort
from ckptstore.saving.files import NewFile, write_files
from ckptstore.saving.journaling import noting
from ckptstore.saving.moment import Moment, earliest
from ckptstore.saving.packing import pack_parts
from ckptstore.saving.run_writer import RunWriter
from ckptstore.state.environment import describe, device_types, rank, world_size
from ckptstore.storage.base import Storage


@dataclass(frozen=True)
class Facts:
    """What is recorded with a version beside its parts."""

    kind: str
    epoch: int | None = None
    step: int | None = None
    metrics: Mapping[str, float | int] = field(default_factory=dict)
    config: Any = None
    """An encoded tree."""
    parent: Parent | None = None
    package: Mapping[str, Any] | None = None
    sources: tuple[Parent, ...] = ()
    """Further versions whose bytes it may have, beside its parent."""
    imported_from: ImportedFrom | None = None
    """The file of another tool that it is brought in from."""
    left_out: tuple[str, ...] = ()
    """Parts that a save on a signal left out, as time was short."""
    devices: Mapping[str, Any] | None = None
    """Where each module's tensors were, where those that are written are copies."""


def save(
    storage: Storage,
    writer: RunWriter,
    parts: Sequence[CapturedPart],
    facts: Facts,
    files: Sequence[NewFile] = (),
    *,
    save_id: UUID | None = None,
    committed: Callable[[Head], object] = bool,
    effort: Effort | None = None,
) -> Head:
    """Write a version and commit it.

    When this returns the version is durable, whole and indexed; if it raises, no reader sees any of
    it, unless the error is :class:`~ckptstore.errors.OutcomeUnknownError`.

    Args:
        storage: Where to.
        writer: The run as this process writes it.
        parts: As captured; their tensors are read while they are written, so nothing may change
            them.
        facts: What to record beside them.
        files: Opaque files to store with them.
        save_id: One that names nothing yet; by default a new one.
        committed: Is told the version as soon as it is there: whatever is raised after that, it is
            saved.
        effort: What the call costs of which this is an attempt; by default it begins here.

    Raises:
        StorageError: The storage failed.
        LateCommitError: It took longer than half the store's grace period.
        UnsupportedValueError: A part, or what is recorded beside them, has too many plain values.
    """
    started, since = datetime.now(UTC), Moment.now()
    effort = effort or Effort()
    effort.begin()
    environment = describe()
    if facts.imported_from is None:
        environment["devices"] = devices_of(parts) if facts.devices is None else facts.devices
    # What is brought in goes on with nothing, so nobody has to be warned.
    writer.prepare(goes_on=facts.kind == "checkpoint" and facts.imported_from is None)
    save_id = save_id or uuid7()
    parent = facts.parent or writer.parent
    sources = [each for each in (*facts.sources, parent) if each is not None]
    bases = writer.bases(facts.kind, sources)
    packed = pack_parts(storage, save_id, parts, [basis for basis, _ in bases], effort=effort)
    stored = write_files(storage, save_id, files, [basis for basis, _ in bases], effort=effort)
    seen_live = {basis.version: looked for basis, looked in bases}
    if parent is not None:
        writer.announce(parent, save_id, seen_live.get(parent))

    def head(version: int) -> Head:
        return Head(
            save_id=save_id,
            run=writer.run,
            version=version,
            kind=facts.kind,
            started_at=started,
            created_at=created,
            parent=parent,
            epoch=facts.epoch,
            step=facts.step,
            metrics={
                name: encode(value, f"metrics/{name}") for name, value in facts.metrics.items()
            },
            config=facts.config,
            package=facts.package,
            environment=environment,
            packs=packed.packs,
            files=stored,
            parts=packed.infos,
            imported_from=facts.imported_from,
            left_out=facts.left_out,
            timings=timings,
        )

    created, timings = datetime.now(UTC), effort.timings()
    length = len(encode_head(head(1)))
    if length > MAX_LINE_BYTES - 100:  # a version's number may take some digits
        raise UnsupportedValueError(
            "config",
            f"{length} bytes of config, model_config and metrics",
            f"a manifest's first line may take {MAX_LINE_BYTES} bytes: keep large data in extra=",
        )
    since = earliest([since, *(looked for _, looked in bases)])
    begun = Moment.now()
    done, _ = writer.commit(head, packed.lines, since=since)
    committed(done)
    basis = basis_of(
        parent_of(done),
        packed.packs,
        packed.parts,
        packed.samples,
        files=stored,
        left_out=packed.left_out,
    )
    writer.remember(facts.kind, basis, begun)
    if facts.parent in seen_live and run_path(facts.parent.run) == writer.path:
        # Somebody may have pruned it before there was a child to know of.
        parent_path, looked = writer.path, seen_live[facts.parent]
        with noting(f"{done.ref} is saved; only its parent may be retired"):
            writer.when_full.write(
                f"a record that {facts.parent.run}@{facts.parent.version} stays",
                functools.partial(writer.make_live, parent_path, facts.parent.version, looked),
            )
    return done


def devices_of(parts: Sequence[CapturedPart]) -> dict[str, Any]:
    """Return where the tensors of each module are, by the part's name."""
    return {
        part.name: device_types(part.tensors)
        for part in parts
        if part.kind in ("module", "state_dict")
    }


def check_rank() -> None:
    """Refuse to save off rank 0 of a process group.

    Raises:
        NotRankZeroError: It shows the guard to write.
    """
    if rank() != 0:
        raise NotRankZeroError(
            f"save() was called on rank {rank()} of {world_size()}, and every rank would write "
            "the same version: "
            "write\n\n    if torch.distributed.get_rank() == 0:\n        store.save(…)\n"
        )
