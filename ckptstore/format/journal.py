"""The journal: a run's numbered, immutable later facts, and what they add up to.

An entry is one JSON object in a file of its own. Its last member, ``blake3``, is the digest of all
the file's bytes before the ``,"blake3"`` that introduces it, so that the file is plain JSON and
nothing is serialised again to check it. ``ckptstore.json`` is written the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from ckptstore.errors import IntegrityError, InvalidNameError
from ckptstore.format.digest import digest, dump_line, parse_line
from ckptstore.format.fields import FORMAT, Fields, format_time
from ckptstore.format.layout import check_tag

Mode = Literal["min", "max"]
SEAL = b',"blake3":"'
DEFAULT_MONITOR = "val_loss"
DEFAULT_MODE: Mode = "min"
# A week: longer than any save, load or paused laptop should take.
DEFAULT_GRACE_S = 604_800


@dataclass(frozen=True)
class Settings:
    """What a run means by "best", and its hyperparameters."""

    monitor: str = DEFAULT_MONITOR
    mode: Mode = DEFAULT_MODE
    config: Any = None
    """An encoded tree, or None."""


@dataclass(frozen=True)
class SettingsEntry:
    """The run's settings from here on."""

    settings: Settings
    time: datetime
    writer: UUID
    """A UUID of the entry's own, by which a writer knows its entry when it reads it back."""


@dataclass(frozen=True)
class TagEntry:
    """A tag set on a version, or taken away where the version is None."""

    tag: str
    version: int | None
    time: datetime
    writer: UUID


Entry = SettingsEntry | TagEntry


@dataclass(frozen=True)
class Facts:
    """What a journal adds up to."""

    settings: Settings | None = None
    """None until they were recorded: then the defaults hold."""
    tags: Mapping[str, int] = field(default_factory=dict)
    """The version each tag points at."""


def fold(facts: Facts, entries: Iterable[Entry]) -> Facts:
    """Add later entries, in order, to what the earlier ones added up to."""
    settings, tags = facts.settings, dict(facts.tags)
    for entry in entries:
        if isinstance(entry, SettingsEntry):
            settings = entry.settings
        elif entry.version is None:
            tags.pop(entry.tag, None)
        else:
            tags[entry.tag] = entry.version
    return Facts(settings, tags)


def encode_entry(entry: Entry) -> bytes:
    """Return a journal entry's file."""
    value: dict[str, Any] = {
        "format": FORMAT,
        "requires": [],
        "writer": str(entry.writer),
        "time": format_time(entry.time),
    }
    if isinstance(entry, SettingsEntry):
        value |= {
            "kind": "settings",
            "monitor": entry.settings.monitor,
            "mode": entry.settings.mode,
            "config": entry.settings.config,
        }
    else:
        value |= {"kind": "tag", "tag": entry.tag, "version": entry.version}
    return seal(value)


def decode_entry(data: bytes, where: str) -> Entry:
    """Read a journal entry's file.

    Raises:
        IntegrityError: It is not what was written, or not what format 1 says.
        NewerFormatError: A newer ckptstore made it.
    """
    fields = unseal(data, where)
    time, writer, kind = fields.time("time"), fields.uuid("writer"), fields.text("kind")
    if kind == "settings":
        settings = Settings(fields.text("monitor"), decode_mode(fields), fields.get("config"))
        return SettingsEntry(settings, time, writer)
    if kind == "tag":
        try:
            tag = check_tag(fields.text("tag"))
        except InvalidNameError as error:
            raise IntegrityError(f"{where}: {error}") from error
        return TagEntry(tag, fields.number_or_none("version", least=1), time, writer)
    raise fields.bad("kind", "'settings' or 'tag'")


def decode_mode(fields: Fields) -> Mode:
    """Return the ``mode`` field."""
    mode = fields.text("mode")
    if mode == "min":
        return "min"
    if mode == "max":
        return "max"
    raise fields.bad("mode", "'min' or 'max'")


@dataclass(frozen=True)
class StoreFacts:
    """``ckptstore.json``: what never changes about a store."""

    store_id: UUID
    grace_s: int
    """Seconds that nothing is deleted for once no live version names it."""
    in_place: bool
    """Whether the storage it was made on creates manifests in place, so that a torn one is none."""


def encode_store(facts: StoreFacts) -> bytes:
    """Return the bytes of ``ckptstore.json``."""
    return seal(
        {
            "format": FORMAT,
            "store": str(facts.store_id),
            "grace_s": facts.grace_s,
            "in_place": facts.in_place,
            "requires": [],
        }
    )


def decode_store(data: bytes, where: str) -> StoreFacts:
    """Read ``ckptstore.json``.

    Raises:
        IntegrityError: It is not what was written.
        NewerFormatError: A newer ckptstore made the store.
    """
    fields = unseal(data, where)
    return StoreFacts(fields.uuid("store"), fields.number("grace_s"), fields.flag("in_place"))


def seal(value: Mapping[str, Any]) -> bytes:
    """Return a JSON object with its digest as its last member, and a line feed."""
    body = dump_line(value)[:-1]
    return body + SEAL + digest(body).encode() + b'"}\n'


def unseal(data: bytes, where: str) -> Fields:
    """Read a sealed object, digest and format first.

    Raises:
        IntegrityError: The digest is missing or wrong.
        NewerFormatError: A newer ckptstore made it.
    """
    body, found, tail = data.rpartition(SEAL)
    if not found or tail != digest(body).encode() + b'"}\n':
        raise IntegrityError(f"{where}: its digest does not match; it was damaged or cut short")
    fields = Fields(parse_line(data[:-1], where), where)
    fields.check_format()
    return fields
