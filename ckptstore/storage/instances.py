"""Filesystem objects of fsspec, one in each process that needs one."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Mapping
from typing import Any

import fsspec

from ckptstore.errors import ArgumentError
from ckptstore.storage.redaction import Options

HERE = "storage_options"


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
        """Return this process's filesystem.

        Raises:
            ArgumentError: Its class takes no option of a name that was given.
        """
        process = os.getpid()
        if process not in self._made:
            # A parent's is kept and not replaced: finalising it here would wait for a loop whose
            # thread the fork did not copy. Of two threads that come here at once, one wins.
            try:
                made = fsspec.filesystem(self._protocol, **self._options)
            except TypeError as error:
                raise self.explain(error) from None
            return self._made.setdefault(process, made)
        return self._made[process]

    def explain(self, error: TypeError) -> TypeError:
        """Return what a filesystem's class raised, in our words if it is about an option's name."""
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        place = None if found is None else _place(found[1], self._options)
        if found is None or place is None:
            return error
        kind = fsspec.get_filesystem_class(self._protocol)
        known = inspect.signature(kind.__init__).parameters if place == HERE else ()
        close = difflib.get_close_matches(found[1], known, n=1)
        return ArgumentError(
            f"{place}: {self._protocol}:// takes no option {found[1]!r}"
            + (f"; did you mean {close[0]!r}?" if close else ", so leave it out or mend its name")
        )

    def drop(self) -> None:
        """Let go of this process's filesystem and its connections."""
        self._made.pop(os.getpid(), None)


def _place(name: str, options: Mapping[str, Any], where: str = HERE) -> str | None:
    """Return where among the options one of that name is, None if it is nowhere."""
    if name in options:
        return where
    for outer, inner in options.items():
        if isinstance(inner, Mapping):
            found = _place(name, inner, f"{where}[{outer!r}]")
            if found is not None:
                return found
    return None
