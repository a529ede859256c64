"""One checkpoint of another tool into a run: read, captured, saved as any other version is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ckptstore.catalog.index import Catalog
from ckptstore.errors import (
    ArgumentError,
    CkptStoreError,
    ImportRefusedError,
    JournalDamagedError,
    NotAStoreError,
    StorageError,
)
from ckptstore.format.imported import MAX_NAME, ImportedFrom
from ckptstore.format.layout import run_path
from ckptstore.format.manifest import Head
from ckptstore.importing.comparing import compare, digests_of
from ckptstore.importing.contents import Contents, ForeignPart
from ckptstore.importing.file_names import Named, read_name
from ckptstore.importing.fingerprint import Fingerprint, fingerprint, look
from ckptstore.importing.imported import ImportedFile
from ckptstore.importing.nesting import states_in
from ckptstore.importing.optimizer_states import numbered
from ckptstore.importing.options import Told
from ckptstore.importing.places import Place
from ckptstore.importing.reading import read_foreign
from ckptstore.importing.state_dicts import renamed, tied, without_wrappers
from ckptstore.saving.capture import CapturedPart, capture_tree, encode_config
from ckptstore.saving.run_writer import RunWriter
from ckptstore.saving.save import Facts, save
from ckptstore.saving.settings import GivenSettings
from ckptstore.state.keywords import metric_dict, whole
from ckptstore.storage.base import Storage
from ckptstore.text import plain

MOST_TIMES = 8
"""How many times a file's size its tensors may take. Views of one memory are written one by one,
and a harmful file has many of them, or one that repeats a byte for ever."""
SMALL_BYTES = 64 * 1024 * 1024
STATE_DICTS = ("module", "state_dict")


@dataclass
class Target:
    """The run that is imported into."""

    storage: Storage
    catalog: Catalog
    writer: RunWriter
    given: GivenSettings
    after: Callable[[Head], object]
    """Called with each version that was saved: retention."""
    _there: dict[str, Head] | None = field(default=None, init=False)

    def there(self, digest: str) -> Head | None:
        """Return the version that was imported from a file with that digest, None if none was.

        One that is retired counts; one that is recorded as damaged does not.
        """
        if self._there is None:
            path = run_path(self.writer.run)
            records = []
            with suppress(NotAStoreError):
                with suppress(JournalDamagedError):  # the save warns of it
                    self.catalog.sync(path)
                records = self.catalog.history([path])
            self._there = {
                record.head.imported_from.blake3: record.head
                for record in reversed(records)
                if record.head is not None
                and record.head.imported_from is not None
                and record.facts.damage is None
            }
        return self._there.get(digest)

    def add(self, digest: str, head: Head) -> None:
        """Remember a version that was imported."""
        if self._there is not None:
            self._there[digest] = head


@dataclass(frozen=True)
class Read:
    """What was read of a file before it is its turn: running it twice would be once too often."""

    seen: Fingerprint
    found: Contents


@dataclass(frozen=True)
class Ready:
    """A file that was read and is yet to be saved."""

    path: Path
    where: str
    seen: Fingerprint
    named: Named
    found: Contents
    captured: list[CapturedPart]
    digests: list[list[str]]
    """The digest of each part's tensors, as they were read."""


def bring(
    target: Target, place: Place, inside: str | None, told: Told, *, tags: tuple[str, ...] = ()
) -> ImportedFile:
    """Import a file or folder, unless the run has it already.

    Args:
        target: The run.
        place: Where it is, or the folder that it is in.
        inside: Its name in the folder.
        told: What the caller says of it.
        tags: Tags to set on it.

    Raises:
        CkptStoreError: As :meth:`ckptstore.Store.import_file` says.
    """
    with opened(target, place, inside, told) as ready:
        return ready if isinstance(ready, ImportedFile) else keep(target, ready, told, tags=tags)


@contextmanager
def opened(
    target: Target, place: Place, inside: str | None, told: Told, before: Read | None = None
) -> Iterator[Ready | ImportedFile]:
    """Read a file and prepare all of it to be saved; nothing is written.

    Args:
        target: The run.
        place: Where it is, or the folder that it is in.
        inside: Its name in the folder.
        told: What the caller says of it.
        before: What was read of it already.

    Yields:
        What is to be saved, while it can be read; or the version that it is already.

    Raises:
        CkptStoreError: It can't be read, or not be imported as the caller says.
    """
    where = place.where if inside is None else f"{place.where}/{inside}"
    with place.here(inside) as path:
        with saying_what(where):
            seen = fingerprint(path, where)
            known = None if told.again else target.there(seen.blake3)
            found: Ready | ImportedFile = (
                _ready(path, where, seen, told, before)
                if known is None
                else ImportedFile(path.name, known, is_new=False)
            )
        yield found


def keep(target: Target, ready: Ready, told: Told, *, tags: tuple[str, ...] = ()) -> ImportedFile:
    """Save what was read, and see that the version has the very bytes.

    Raises:
        ImportRefusedError: The file was written to meanwhile, or what is recorded is not what was
            read.
        CkptStoreError: As :meth:`ckptstore.Store.save`.
    """
    path, where, seen, found = ready.path, ready.where, ready.seen, ready.found
    facts = Facts(
        "checkpoint",
        found.epoch,
        found.step,
        found.metrics,
        target.given.config if found.config is None else encode_config(found.config, "config"),
        imported_from=ImportedFrom(
            plain(path.name)[:MAX_NAME], found.format, seen.size_bytes, seen.blake3
        ),
    )
    head = save(target.storage, target.writer, ready.captured, facts)
    if look(path) != seen.seen:
        raise ImportRefusedError(
            f"{where} was written to while it was imported: don't use {head.ref}; import it "
            "again, with again=True, when it is whole"
        )
    count = compare(target.storage, head, ready.captured, ready.digests, where)
    target.writer.record(target.given)
    target.writer.set_tags(tags, head)
    target.add(seen.blake3, head)
    target.after(head)
    return ImportedFile(
        path.name,
        head,
        is_new=True,
        notes=tuple(found.notes),
        tensors=count,
        by_name=_by_name(ready.named, found, told),
    )


@contextmanager
def saying_what(where: str) -> Iterator[None]:
    """Turn what the system says of a file of others into an error that names it.

    Raises:
        StorageError: The file can't be read.
    """
    try:
        yield
    except CkptStoreError:
        raise
    except OSError as error:
        raise StorageError(f"{where} can't be read: {error.strerror or error}") from error


def _ready(path: Path, where: str, seen: Fingerprint, told: Told, before: Read | None) -> Ready:
    named = read_name(path.name)
    if before is None:
        found = read_foreign(
            path,
            where,
            named=named,
            trust_pickle=told.trust_pickle,
            keys=told.keys,
            timeout=told.timeout,
        )
    elif before.seen.blake3 == seen.blake3:
        found = before.found
    else:
        raise ImportRefusedError(f"{where} is being written to: import it when it is whole")
    found = _as_told(found, told, named)
    captured = _captured(found, told, where)
    _check_size(captured, seen, where)
    return Ready(path, where, seen, named, found, captured, digests_of(captured))


def _by_name(named: Named, found: Contents, told: Told) -> tuple[str, ...]:
    """Return the facts of a version that its file's name alone says, as text."""
    facts = [
        f"{fact} {getattr(named, fact)}"
        for fact in ("epoch", "step")
        if getattr(named, fact) is not None
        and getattr(named, fact) == getattr(found, fact)
        and fact not in found.inside
        and getattr(told, fact) is None
    ]
    given = told.metrics or {}
    facts += [
        f"{name} {value:g}"
        for name, value in named.metrics.items()
        if name not in found.inside and name not in given
    ]
    return tuple(facts)


def _as_told(found: Contents, told: Told, named: Named) -> Contents:
    """Let what the caller says count first, then the content, then the name."""
    for fact in ("epoch", "step"):
        inside, by_name = getattr(found, fact), getattr(named, fact)
        if None not in (inside, by_name) and inside != by_name and getattr(told, fact) is None:
            found.notes.append(
                f"its name says {fact} {by_name}, and its content {inside}, which was recorded"
            )
    epoch, step = whole("epoch", told.epoch), whole("step", told.step)
    metrics = {**named.metrics, **found.metrics}
    if told.metrics is not None:
        metrics |= metric_dict(told.metrics)
    return replace(
        found,
        inside=frozenset(found.metrics)
        | {fact for fact in ("epoch", "step") if getattr(found, fact) is not None},
        epoch=next((each for each in (epoch, found.epoch, named.epoch) if each is not None), None),
        step=next((each for each in (step, found.step, named.step) if each is not None), None),
        metrics=metrics,
        config=found.config if told.config is None else told.config,
        # With other keys it is another class's, so its arguments are not those on record.
        model_config=None if told.rename else found.model_config,
    )


def _captured(found: Contents, told: Told, where: str) -> list[CapturedPart]:
    """Return the parts as they are to be written.

    Raises:
        ImportRefusedError: There is no state.
        ArgumentError: Something is to be done with a model that isn't there.
    """
    if not found.parts and told.keys is None:
        listed = ", ".join(map(repr, found.extra))
        path = next(iter(states_in(found.extra)), "my_weights")
        raise ImportRefusedError(
            f"{where} holds no state dict by a name or of a form that is known, but "
            f"{listed or 'nothing':.300}: say what is what, e.g. keys={{{path!r}: 'model'}}"
        )
    if "model" not in found.parts and (told.rename or told.ties):
        raise ArgumentError(f"rename= and ties= are for the part 'model', and {where} has none")
    parts = {name: _in_order(name, part, told, found.notes) for name, part in found.parts.items()}
    model = parts.get("model")
    keys = model.state.keys() if model is not None and isinstance(model.state, Mapping) else ()
    config = found.model_config if told.model_config is None else told.model_config
    captured = []
    for name, part in parts.items():
        state, groups = part.state, None
        if part.kind == "optimizer" and isinstance(state, Mapping):
            state, groups = numbered(state, keys)
        taken = capture_tree(name, state, kind=part.kind)
        taken.class_name, taken.parameters = part.class_name, groups
        if part.kind in STATE_DICTS:
            arguments = config if name == "model" and config is not None else part.model_config
            taken.model_config = encode_config(arguments, f"{name}'s constructor arguments")
        captured.append(taken)
    if found.extra:
        captured.append(capture_tree("extra", found.extra))
    return captured


def _in_order(name: str, part: ForeignPart, told: Told, notes: list[str]) -> ForeignPart:
    """Return a part with the keys that its state dict is to have."""
    if part.kind not in STATE_DICTS or not isinstance(part.state, Mapping):
        return part
    state = part.state
    if told.unwrap:
        state, taken = without_wrappers(state)
        if taken:
            notes.append(
                f"every key of {name} began with {taken!r}, as wrappers put it before them: it was "
                "taken off (unwrap=False keeps it)"
            )
    if name == "model" and told.rename:
        return replace(part, state=_tied(renamed(state, told.rename), told), model_config=None)
    return replace(part, state=_tied(state, told) if name == "model" else state)


def _tied(state: Mapping[str, Any], told: Told) -> Mapping[str, Any]:
    return tied(state, told.ties) if told.ties else state


def _check_size(captured: list[CapturedPart], seen: Fingerprint, where: str) -> None:
    """Refuse tensors that take far more than the file.

    Raises:
        ImportRefusedError: They do.
    """
    total = sum(
        tensor.numel() * tensor.dtype.itemsize for part in captured for tensor in part.tensors
    )
    if total > MOST_TIMES * seen.size_bytes + SMALL_BYTES:
        raise ImportRefusedError(
            f"{where} has {seen.size_bytes} bytes, and its tensors would take {total}: they show "
            "the same memory again and again; save clones of them, or it was made to harm"
        )
