"""How files of other tools are imported: the options that all verbs for it share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

from ckptstore.errors import ArgumentError
from ckptstore.importing.key_names import check_key_names


class ImportOptions(TypedDict, total=False):
    """How a file of another tool is imported."""

    model_config: Mapping[str, Any] | None
    """Constructor arguments of the module's class, instead of those in the file."""
    config: Mapping[str, Any] | None
    """Hyperparameters, instead of those in the file."""
    keys: Mapping[str, str | None] | None
    """What keys of its dict are, where they are unusual: ``{"my_net": "model", "best": "val_acc",
    "blob": "extra", "cache": None}`` names parts, metrics, ``epoch``, ``step``, ``config``,
    ``model_config``, ``metrics`` and ``extra``, and with None what is to be left out. Keys of
    nested dicts are joined by ``/``. Two keys have no name in common but ``extra`` and
    ``metrics``."""
    rename: Mapping[str, str] | None
    """Other beginnings of the model's keys, e.g. ``{"model.": ""}``."""
    ties: Mapping[str, str] | None
    """Keys that the file lacks because they are other names of tensors of the model:
    ``{"lm_head.weight": "embed.weight"}``."""
    unwrap: bool
    """Take off what DDP and ``torch.compile`` put before keys, if all have it. True by default."""
    trust_pickle: bool
    """Read what can't be read otherwise by running what it says, in a process of its own without
    the environment's credentials, which is no sandbox. Only for files whose maker you trust. False
    by default."""
    timeout: timedelta | None
    """How long that process may take for a file; an hour by default."""
    again: bool
    """Import it even if the run has it already. False by default."""


@dataclass(frozen=True)
class Told:
    """What whoever imports says of a file; the rest is what it says itself."""

    epoch: int | None = None
    step: int | None = None
    metrics: Mapping[str, Any] | None = None
    model_config: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    keys: Mapping[str, str | None] | None = None
    rename: Mapping[str, str] | None = None
    ties: Mapping[str, str] | None = None
    unwrap: bool = True
    trust_pickle: bool = False
    again: bool = False
    timeout: timedelta | None = None


def told_of(options: Mapping[str, Any], **facts: Any) -> Told:
    """Return what the caller said, checked.

    Args:
        options: :class:`ImportOptions`.
        **facts: ``epoch``, ``step`` and ``metrics``.

    Raises:
        ArgumentError: There is no such option, or it takes something else.
    """
    known = ImportOptions.__annotations__
    for name, value in options.items():
        if name not in known:
            raise ArgumentError(f"importing has no option {name!r}; it has {', '.join(known)}")
        _check(name, value)
    for name in ("rename", "ties"):
        for value in (options.get(name) or {}).values():
            if not isinstance(value, str):
                raise ArgumentError(f"{name}= maps names to names, not to {value!r:.80}")
    for value in (options.get("keys") or {}).values():
        if value is not None and not isinstance(value, str):
            raise ArgumentError(f"keys= maps keys to names or None, not to {value!r:.80}")
    check_key_names(options.get("keys") or {})
    return Told(**facts, **options)


def _check(name: str, value: object) -> None:
    if name in {"unwrap", "trust_pickle", "again"}:
        fits, what = isinstance(value, bool), "True or False"
    elif name == "timeout":
        fits = value is None or (isinstance(value, timedelta) and value > timedelta(0))
        what = "a timedelta above 0"
    else:
        fits, what = value is None or _is_named(value), "a dict of names"
    if not fits:
        raise ArgumentError(f"{name}= takes {what}, not {value!r:.80}")


def _is_named(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
