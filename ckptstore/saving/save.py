"""A blocking save, top to bottom: parts -> packs -> manifest -> catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from uuid_utils.compat import uuid7

from ckptstore.errors import NotRankZeroError, UnsupportedValueError
from ckptstore.format.digest import MAX_LINE_BYTES
from ckptstore.format.manifest import Head, Parent, encode_head
from ckptstore.format.tree import encode
from ckptstore.saving.capture import CapturedPart
from ckptstore.saving.packing import pack_parts
from ckptstore.saving.run_writer import RunWriter
from ckptstore.state.environment import describe, rank, world_size
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


def save(storage: Storage, writer: RunWriter, parts: Sequence[CapturedPart], facts: Facts) -> Head:
    """Write a version and commit it.

    When this returns the version is durable, whole and indexed; if it raises, no reader sees any of
    it, unless the error is :class:`~ckptstore.errors.OutcomeUnknownError`.

    Args:
        storage: Where to.
        writer: The run as this process writes it.
        parts: As captured; their tensors are read while they are written, so nothing may change
            them.
        facts: What to record beside them.

    Raises:
        StorageError: The storage failed.
        UnsupportedValueError: A part, or what is recorded beside them, has too many plain values.
    """
    started = datetime.now(UTC)
    environment = describe()
    writer.prepare(goes_on=facts.kind == "checkpoint")
    save_id = uuid7()
    packed = pack_parts(storage, save_id, parts)
    parent = facts.parent or writer.parent

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
            parts=packed.infos,
        )

    created = datetime.now(UTC)
    length = len(encode_head(head(1)))
    if length > MAX_LINE_BYTES - 100:  # a version's number may take some digits
        raise UnsupportedValueError(
            "config",
            f"{length} bytes of config, model_config and metrics",
            f"a manifest's first line may take {MAX_LINE_BYTES} bytes: keep large data in extra=",
        )
    committed, _ = writer.commit(head, packed.lines)
    return committed


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
