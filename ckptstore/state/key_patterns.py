"""Patterns of state-dict keys, as users write them: ``encoder.*``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ckptstore.errors import ArgumentError

# How many names an error lists.
SHOWN = 5


def matches(pattern: str, key: str) -> bool:
    """Say whether a pattern fits a key, or a module that the key lies below.

    ``*`` stands for any characters, dots too; ``?`` for one; ``[ab]`` for one of those.
    """
    end = len(key)
    while end > 0:
        if fnmatchcase(key[:end], pattern):
            return True
        end = key.rfind(".", 0, end)
    return False


def patterns_of(option: str, given: object) -> tuple[str, ...]:
    """Return one pattern or several as a tuple.

    Raises:
        ArgumentError: They are no texts.
    """
    if isinstance(given, str):
        return (given,)
    listed = None if isinstance(given, Mapping) or not isinstance(given, Iterable) else tuple(given)
    if listed is None or not all(isinstance(pattern, str) for pattern in listed):
        raise ArgumentError(
            f"{option}= takes a pattern of keys such as 'encoder.*', or a list of them, not "
            f"{given!r:.80}"
        )
    return listed


def per_part(option: str, value: Any, parts: Iterable[str]) -> Callable[[str], Any]:
    """Return what an option says of each module part: of all alike, or by a dict of parts.

    Args:
        option: Its name, for errors.
        value: As given: a dict has values of some parts.
        parts: The module parts there are.

    Raises:
        ArgumentError: A dict names something that is no module part.
    """
    if not isinstance(value, Mapping):
        return lambda _: value
    given, known = dict(value), list(parts)
    for name in given:
        if name not in known:
            raise ArgumentError(
                f"{option}= names {name!r}, and the module parts are "
                f"{', '.join(map(repr, known)) or 'none'}"
            )
    return given.get


def meant(pattern: str, keys: Sequence[str]) -> str:
    """Return a question about the key or module that a pattern looks like, if any."""
    modules = {key[:end] for key in keys for end in _ends(key)}
    close = difflib.get_close_matches(pattern.rstrip(".*"), sorted(modules), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _ends(key: str) -> list[int]:
    return [place for place, letter in enumerate(key) if letter == "."] + [len(key)]


def listed(keys: Sequence[str]) -> str:
    """Return some keys for a message."""
    shown = ", ".join(map(repr, keys[:SHOWN]))
    return f"{shown} and {len(keys) - SHOWN} more" if len(keys) > SHOWN else shown or "none"
