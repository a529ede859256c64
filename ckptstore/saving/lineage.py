"""What one process last restored from a store: where a run that begins now comes from."""

from __future__ import annotations

from ckptstore.format.manifest import Parent


class Lineage:
    """What was last restored, whatever run it was of; shared by all runs of one opened store."""

    def __init__(self) -> None:
        self.restored: Parent | None = None
