"""Makes runs of very many versions fast: real manifests and journals, all of one save's packs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import uuid_utils.compat as uuid

from ckptstore import Store
from ckptstore.format.journal import RetireEntry, encode_entry
from ckptstore.format.layout import journal_key, version_key
from ckptstore.format.manifest import Head, decode_head, encode_manifest

EPOCH = timedelta(seconds=10)


@dataclass(frozen=True)
class Pattern:
    """A version that was saved, as others are made from it: they share its packs."""

    folder: Path
    head: Head
    part_lines: Sequence[bytes]

    def write(self, run: str, count: int, *, live: int | None = None) -> None:
        """Make a run of that many versions, as if each epoch had been saved. Nothing is fsynced.

        Args:
            run: Its name; it may be the one that the pattern is the first version of.
            count: How many versions.
            live: How many of them are not retired, the last ones; None for all.
        """
        first = self.head
        self._folder(version_key(run, 1))
        for number in range(1, count + 1):
            if run == first.run and number == 1:
                continue
            late = number * EPOCH
            head = replace(
                first,
                run=run,
                version=number,
                save_id=uuid.uuid7(),
                epoch=number,
                started_at=first.started_at + late,
                created_at=first.created_at + late,
                # It falls, with noise: so the best is near the end, and most are nearly as good.
                metrics={"val_loss": 1 / number + (number * 31 % 97) / 1e4, "train_loss": 0.5},
            )
            self._write(version_key(run, number), encode_manifest(head, self.part_lines))
        if live is not None:
            self._retire(run, count - live)

    def _retire(self, run: str, count: int) -> None:
        self._folder(journal_key(run, 1))
        for number in range(1, count + 1):
            at = self.head.created_at + (number + 1) * EPOCH
            entry = RetireEntry({number: "Keep(last=3, best=2)"}, at, self.head.save_id, "bench")
            self._write(journal_key(run, number), encode_entry(entry))

    def _folder(self, key: str) -> None:
        (self.folder / key).parent.mkdir(parents=True, exist_ok=True)

    def _write(self, key: str, data: bytes) -> None:
        with (self.folder / key).open("wb", buffering=0) as file:
            file.write(data)


def pattern(folder: Path, run: str, **state: Any) -> Pattern:
    """Save a version into a new store and return it as a pattern."""
    with Store(folder, catalog="sqlite://") as store:
        store.save(run=run, epoch=1, val_loss=2.0, train_loss=0.5, model_config={}, **state)
    line, _, *part_lines = (folder / version_key(run, 1)).read_bytes().splitlines()
    return Pattern(folder, decode_head(line, str(folder)), part_lines)
