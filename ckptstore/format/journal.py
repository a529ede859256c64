"""The journal: a run's numbered, immutable later facts. One sealed JSON object a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from ckptstore.errors import IntegrityError, InvalidNameError
from ckptstore.format.facts import Facts, Mode, Retired, Settings, VersionFacts
from ckptstore.format.fields import FORMAT, Fields, format_time
from ckptstore.format.layout import check_run, check_tag
from ckptstore.format.sealed import seal, unseal


@dataclass(frozen=True)
class SettingsEntry:
    """The run's settings from here on."""

    settings: Settings
    time: datetime
    writer: UUID
    """A UUID of the entry's own, by which a writer knows its entry when it reads it back."""
    by: str | None = None
    """Who wrote it, as ``user@host``, for people."""


@dataclass(frozen=True)
class TagEntry:
    """A tag set on a version, or taken away where the version is None."""

    tag: str
    version: int | None
    time: datetime
    writer: UUID
    by: str | None = None


@dataclass(frozen=True)
class LogEntry:
    """Metrics that came later: of a version, or of an epoch that has none."""

    version: int | None
    """None: the epoch or step below, of which no weights were kept."""
    epoch: int | None
    step: int | None
    metrics: Mapping[str, Any]
    """Encoded, by name."""
    time: datetime
    writer: UUID
    by: str | None = None


@dataclass(frozen=True)
class NoteEntry:
    """What somebody noted about a version; None takes the note away."""

    version: int
    text: str | None
    time: datetime
    writer: UUID
    by: str | None = None


@dataclass(frozen=True)
class RetireEntry:
    """Versions retired, each with the reason."""

    reasons: Mapping[int, str]
    time: datetime
    writer: UUID
    by: str | None = None


@dataclass(frozen=True)
class UndeleteEntry:
    """Versions that are retired no more."""

    versions: tuple[int, ...]
    time: datetime
    writer: UUID
    by: str | None = None


@dataclass(frozen=True)
class DamageEntry:
    """That a version's data were found damaged; None says that they were mended."""

    version: int
    damage: str | None
    time: datetime
    writer: UUID
    by: str | None = None


@dataclass(frozen=True)
class ChildEntry:
    """That a version of another run comes from this run's version.

    Written before that one is committed, so that its parent is known by the time it is there.
    """

    version: int
    run: str
    """The other run."""
    save_id: UUID
    time: datetime
    writer: UUID
    by: str | None = None


Entry = (
    SettingsEntry
    | TagEntry
    | LogEntry
    | NoteEntry
    | RetireEntry
    | UndeleteEntry
    | DamageEntry
    | ChildEntry
)
Change = Callable[[VersionFacts], VersionFacts]
"""What an entry makes of what was known of a version before it."""


def fold(facts: Facts, entries: Iterable[tuple[int, Entry]]) -> Facts:
    """Add later entries, in order and with their numbers, to what the earlier ones added up to."""
    settings, tags, versions = facts.settings, dict(facts.tags), dict(facts.versions)
    for number, entry in entries:
        if isinstance(entry, SettingsEntry):
            settings = entry.settings
        elif isinstance(entry, TagEntry):
            if entry.version is None:
                tags.pop(entry.tag, None)
            else:
                tags[entry.tag] = entry.version
        else:
            for version, change in changes_of(number, entry).items():
                versions[version] = change(versions.get(version, VersionFacts()))
    return Facts(settings, tags, versions)


def changes_of(number: int, entry: Entry) -> dict[int, Change]:
    """Return what an entry changes about each version it is about; tags apart."""
    changes: dict[int, Change] = {}
    match entry:
        case LogEntry(version=int(version), metrics=metrics):
            changes[version] = lambda known: replace(known, metrics={**known.metrics, **metrics})
        case NoteEntry(version, text):
            changes[version] = lambda known: replace(known, note=text)
        case RetireEntry(reasons, time):
            for version, reason in reasons.items():
                changes[version] = _retire(Retired(time, reason, number))
        case UndeleteEntry(versions):
            changes |= dict.fromkeys(versions, lambda known: replace(known, retired=None))
        case DamageEntry(version, damage):
            changes[version] = lambda known: replace(known, damage=damage)
        case ChildEntry(version):
            changes[version] = lambda known: known  # who comes from it is no fact about itself
    return changes


def _retire(retired: Retired) -> Change:
    # Retired twice, the first counts: what was deletable since then stays deletable.
    return lambda known: known if known.retired else replace(known, retired=retired)


class Place(NamedTuple):
    """Where a journal entry belongs, so that none is taken for another."""

    path: str
    """Its run's path."""
    number: int


def encode_entry(entry: Entry, place: Place | None = None) -> bytes:
    """Return a journal entry's file; without its place nobody can tell if it is moved."""
    value: dict[str, Any] = {
        "format": FORMAT,
        "requires": [],
        **({} if place is None else {"journal": place.path, "number": place.number}),
        "writer": str(entry.writer),
        "time": format_time(entry.time),
    }
    if entry.by is not None:
        value["by"] = entry.by
    return seal(value | _fields_of(entry))


def _fields_of(entry: Entry) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": KINDS[type(entry)]}
    match entry:
        case SettingsEntry(settings):
            fields |= {"monitor": settings.monitor, "mode": settings.mode}
            fields["config"] = settings.config
            if settings.keep is not None:
                fields["keep"] = dict(settings.keep)
        case TagEntry(tag, version):
            fields |= {"tag": tag, "version": version}
        case LogEntry(version, epoch, step, metrics):
            fields |= {"version": version, "epoch": epoch, "step": step, "metrics": dict(metrics)}
        case NoteEntry(version, text):
            fields |= {"version": version, "text": text}
        case RetireEntry(reasons):
            fields["versions"] = [[version, reason] for version, reason in reasons.items()]
        case UndeleteEntry(versions):
            fields["versions"] = list(versions)
        case DamageEntry(version, damage):
            fields |= {"version": version, "damage": damage}
        case ChildEntry(version, run, save_id):
            fields |= {"version": version, "run": run, "save": str(save_id)}
    return fields


def decode_entry(data: bytes, where: str, place: Place | None = None) -> Entry:
    """Read a journal entry's file.

    Args:
        data: The file.
        where: Its address, for messages.
        place: Where it was found, which must be where it belongs, as far as it says so.

    Raises:
        IntegrityError: It is not what was written, or not what format 1 says, or another's.
        NewerFormatError: A newer ckptstore made it.
    """
    fields = unseal(data, where)
    if place is not None and fields.get("journal") is not None:
        own = Place(fields.text("journal"), fields.number("number", least=1))
        if own != place:
            raise IntegrityError(
                f"{where}: it is entry {own.number} of the journal of run {own.path!r}, put in "
                "another's place"
            )
    signature = (fields.time("time"), fields.uuid("writer"), fields.text_or_none("by"))
    decode = DECODERS.get(fields.text("kind"))
    if decode is None:
        raise fields.bad("kind", f"one of {', '.join(DECODERS)}")
    try:
        return decode(fields, signature)
    except InvalidNameError as error:
        raise IntegrityError(f"{where}: {error}") from error


def decode_mode(fields: Fields) -> Mode:
    """Return the ``mode`` field."""
    mode = fields.text("mode")
    if mode == "min":
        return "min"
    if mode == "max":
        return "max"
    raise fields.bad("mode", "'min' or 'max'")


Signature = tuple[datetime, UUID, str | None]


def _settings(fields: Fields, signature: Signature) -> Entry:
    keep = fields.mapping("keep") if fields.get("keep") is not None else None
    settings = Settings(fields.text("monitor"), decode_mode(fields), fields.get("config"), keep)
    return SettingsEntry(settings, *signature)


def _tag(fields: Fields, signature: Signature) -> Entry:
    version = fields.number_or_none("version", least=1)
    return TagEntry(check_tag(fields.text("tag")), version, *signature)


def _log(fields: Fields, signature: Signature) -> Entry:
    return LogEntry(
        fields.number_or_none("version", least=1),
        fields.number_or_none("epoch", least=-(2**62)),
        fields.number_or_none("step", least=-(2**62)),
        fields.mapping("metrics"),
        *signature,
    )


def _note(fields: Fields, signature: Signature) -> Entry:
    return NoteEntry(fields.number("version", least=1), fields.text_or_none("text"), *signature)


def _retirement(fields: Fields, signature: Signature) -> Entry:
    reasons: dict[int, str] = {}
    for item in fields.items("versions"):
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[1], str):  # noqa: PLR2004 - a number and a reason
            raise fields.bad("versions", "pairs of a version's number and a reason")
        (version,) = _numbers(fields, item[:1])
        reasons[version] = item[1]
    return RetireEntry(reasons, *signature)


def _undelete(fields: Fields, signature: Signature) -> Entry:
    return UndeleteEntry(_numbers(fields, fields.items("versions")), *signature)


def _damage(fields: Fields, signature: Signature) -> Entry:
    return DamageEntry(fields.number("version", least=1), fields.text_or_none("damage"), *signature)


def _child(fields: Fields, signature: Signature) -> Entry:
    run, save_id = check_run(fields.text("run")), fields.uuid("save")
    return ChildEntry(fields.number("version", least=1), run, save_id, *signature)


def _numbers(fields: Fields, items: Iterable[Any]) -> tuple[int, ...]:
    numbers = tuple(items)
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**63:
            raise fields.bad("versions", "numbers of versions, from 1")
    return numbers


DECODERS: Mapping[str, Callable[[Fields, Signature], Entry]] = {
    "settings": _settings,
    "tag": _tag,
    "log": _log,
    "note": _note,
    "retire": _retirement,
    "undelete": _undelete,
    "damage": _damage,
    "child": _child,
}
KINDS: Mapping[type[Entry], str] = {
    SettingsEntry: "settings",
    TagEntry: "tag",
    LogEntry: "log",
    NoteEntry: "note",
    RetireEntry: "retire",
    UndeleteEntry: "undelete",
    DamageEntry: "damage",
    ChildEntry: "child",
}
