"""What one process last restored from a store: where a run that begins now comes from."""

from __future__ import annotations

from uuid import UUID

from ckptstore.format.manifest import Parent

Resumed = dict[tuple[str, str], set[UUID]]
"""Save ids of what was restored, by the storage's URL and the run's path."""

_BY_THIS_PROCESS: Resumed = {}
"""However many stores it opened, it is one process, and what it resumed from is in use. A process
that is forked off takes this with it, as it goes on from the same weights."""


class Lineage:
    """What was last restored, whatever run it was of; shared by all runs of one opened store.

    Args:
        resumed: All that was ever restored. By default that of the whole process, so that a second
            store, opened on the same place, knows it too.
    """

    def __init__(self, resumed: Resumed | None = None) -> None:
        self.restored: Parent | None = None
        self.resumed = _BY_THIS_PROCESS if resumed is None else resumed
