"""What ``keys=`` may call the keys of a foreign checkpoint: one key each, and no slips. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ckptstore.errors import ArgumentError
from ckptstore.state.slips import PART_OPTIONS, close_to

SEVERAL = frozenset({"extra", "metrics"})
"""What takes any number of keys: each goes there by its own name."""
FACTS = frozenset({"epoch", "step", "config", "model_config", "metrics", "extra"})
PARTS = PART_OPTIONS | {"scheduler", "scaler"}
"""What parts are usually called; a second one is called after them: ``optimizer_2``."""
BESIDE = re.compile(rf"(.+_)?({'|'.join(sorted(PARTS))})(_.+|[0-9]+)?")


def check_key_names(keys: Mapping[str, str | None]) -> None:
    """Refuse names that can't be meant.

    Args:
        keys: As handed to ``import_file``: names, or None, by the key of the file.

    Raises:
        ArgumentError: Two keys have one name, so that one of them would be lost; or a name is all
            but that of a fact or of a usual part. One that is the key's own is none.
    """
    named: dict[str, str] = {}
    for key, name in keys.items():
        if name is None or name in SEVERAL:
            continue
        if name in named:
            raise ArgumentError(
                f"keys= calls both {named[name]!r} and {key!r} {name!r}: give each a name of its "
                "own, or None to one that is to be left out"
            )
        named[name] = key
        _check_slip(key, name)


def _check_slip(key: str, name: str) -> None:
    known = FACTS | PARTS
    if name in known or name == key.rpartition("/")[2]:
        return
    close = close_to(name, FACTS if BESIDE.fullmatch(name) else known)
    if close is not None:
        raise ArgumentError(
            f"keys={{{key!r}: {name!r}}}: did you mean {close!r}? If not, choose a name that is "
            "less like it"
        )
