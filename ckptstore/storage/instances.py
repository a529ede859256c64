"""Filesystem objects of fsspec, one in each process that needs one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import fsspec

from ckptstore.storage.redaction import Options


class Instances:
    """Makes a filesystem in each process, so that a storage works after a fork and in a worker.

    fsspec's caches are off. A cached instance would be another store's too, with connections that a
    fork breaks, and s3fs remembers listings forever.

    Args:
        protocol: fsspec's name of the filesystem.
        options: Arguments of its class; they win over what is said above.
    """

    def __init__(self, protocol: str, options: Mapping[str, Any]) -> None:
        self._protocol = protocol
        self._options = Options(
            {"skip_instance_cache": True, "use_listings_cache": False, **options}
        )
        self._made: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the filesystems here: connections do not travel to another process."""
        return {**self.__dict__, "_made": {}}

    def get(self) -> Any:
        """Return this process's filesystem."""
        process = os.getpid()
        if process not in self._made:
            # A parent's is kept and not replaced: finalising it here would wait for a loop whose
            # thread the fork did not copy. Of two threads that come here at once, one wins.
            return self._made.setdefault(
                process, fsspec.filesystem(self._protocol, **self._options)
            )
        return self._made[process]

    def drop(self) -> None:
        """Let go of this process's filesystem and its connections."""
        self._made.pop(os.getpid(), None)
