"""What is read of a store's packs, counted where the storage is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Reads:
    """Every stretch that was read out of a pack, as (key, start, length)."""

    stretches: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """How many bytes that were in all."""
        return sum(length for _, _, length in self.stretches)

    def data(self, checkpoint: Any) -> int:
        """How many of them were not a pack's header."""
        headers = {pack.header_bytes for pack in checkpoint.head.packs}
        return sum(
            length for _, start, length in self.stretches if not (start == 0 and length in headers)
        )

    def clear(self) -> None:
        """Begin to count anew."""
        self.stretches.clear()


def count_reads(monkeypatch: Any, store: Any) -> Reads:
    """Count what a store reads of packs from now on."""
    storage, reads = store._storage, Reads()
    read_into = storage.read_into

    def counted(key: str, start: int, out: memoryview) -> None:
        if key.startswith("packs/"):
            reads.stretches.append((key, start, out.nbytes))
        read_into(key, start, out)

    monkeypatch.setattr(storage, "read_into", counted)
    return reads
