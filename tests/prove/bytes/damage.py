"""A small store with one byte changed, or one file cut short: found, or harmless."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptstore.errors import (
    CkptStoreError,
    IntegrityError,
    NewerFormatError,
    NotFoundError,
    StorageError,
)
from ckptstore.format.digest import digest
from ckptstore.format.journal import decode_entry
from ckptstore.format.manifest import decode_head, head_line
from ckptstore.format.part import decode_part
from ckptstore.format.store_facts import decode_store
from tests.loading.trainings import frozen
from tests.prove.states import RUN, opened, quietly, save, unsynced

TYPED = (IntegrityError, NewerFormatError, NotFoundError, StorageError)
"""What a damaged byte may raise: that there is damage, something newer, or nothing by that name."""
EVERY_BIT = tuple(1 << bit for bit in range(8))
PATTERNS = (0x01, 0x80, 0xFF)
"""What a byte is changed by (exclusive or)."""


@dataclass
class Figures:
    """How cases ended."""

    found: int = 0
    harmless: int = 0
    harmless_at: set[tuple[str, int]] = field(default_factory=set)

    @property
    def cases(self) -> int:
        """How many there were."""
        return self.found + self.harmless


def make(folder: Path) -> None:
    """Save two versions, a tag, a note of a metric and the run's settings."""
    with quietly(), unsynced(), opened(folder, monitor="val_loss", mode="min") as store:
        save(store, 1)
        save(store, 2, tags=["keep"])


def files_of(folder: Path) -> list[Path]:
    """Return every file of a store; the index is in memory."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flips(data: bytes, patterns: Sequence[int], every: int = 1, first: int = 0) -> Iterator[bytes]:
    """Yield *data* with one byte changed, each place and pattern in turn."""
    for place in range(first, len(data), every):
        for pattern in patterns:
            changed = bytearray(data)
            changed[place] ^= pattern
            yield bytes(changed)


def cuts(data: bytes, every: int = 1) -> Iterator[bytes]:
    """Yield *data* cut short at each length."""
    for length in range(0, len(data), every):
        yield data[:length]


# ------------------------------------------------------------ by the store's own verbs


def everything(folder: Path) -> dict[str, Any]:
    """Ask a store all there is to ask, as a new process: what it says, or the error by its class.

    Raises:
        AssertionError: An error is none of :data:`TYPED`, or doesn't name what is damaged.
    """
    answers: dict[str, Any] = {}
    with quietly(), unsynced(), opened(folder) as store:

        def ask(what: str, question: Any) -> None:
            try:
                answers[what] = question()
            except CkptStoreError as error:
                answers[what] = error

        ask("history", lambda: _history(store))
        ask("tag", lambda: store.get(f"{RUN}@keep").version)
        for version in (1, 2):
            ask(f"version {version}", lambda version=version: _version(store, version))
        ask("best", lambda: store.best(run=RUN).version)
        ask("resume", lambda: _resumed(store))
    for what, answer in answers.items():
        if isinstance(answer, CkptStoreError):
            assert isinstance(answer, TYPED), f"{what} raised {answer!r}"
            named = (str(folder), f"{RUN}@", f"'{RUN}'")
            assert any(name in str(answer) for name in named), f"{what} names nothing: {answer}"
    return answers


def judge(folder: Path, path: Path, changed: bytes, whole: dict[str, Any]) -> bool:
    """Put *changed* in a file's place and ask everything.

    Args:
        folder: The store's.
        path: The file; it is put back.
        changed: Its bytes for now.
        whole: What :func:`everything` says of the store undamaged.

    Returns:
        Whether the damage was found; else all answers were the same.

    Raises:
        AssertionError: An answer is neither an error, nor the right one, nor one that tells of the
            damage.
    """
    data = path.read_bytes()
    path.write_bytes(changed)
    try:
        answers = everything(folder)
    finally:
        path.write_bytes(data)
    damaged = False
    for what, answer in answers.items():
        if isinstance(answer, CkptStoreError):
            damaged = True
        elif answer != whole[what]:
            told = what in {"history", "best", "resume"} and _tells(what, answer, whole[what])
            assert told, f"{what} says {answer}, and said {whole[what]} of the undamaged store"
            damaged = True
    return damaged


def _tells(what: str, answer: Any, whole: Any) -> bool:
    """Say whether another answer is one that steps over what is damaged, and nothing else."""
    if what == "history":
        rows, damaged = answer
        return bool(damaged) and set(rows) < set(whole[0])
    version = answer if what == "best" else answer[0]
    return version == 1  # the other one, whole: its own answer is compared above


def _history(store: Any) -> Any:
    found = store.history(RUN)
    rows = [(each.version, each.epoch, str(each.metrics), each.tags) for each in found]
    return rows, [ref for ref, _ in found.damaged]


def _version(store: Any, version: int) -> Any:
    entry = store.get(f"{RUN}@{version}")
    parts = {name: frozen(_plain(entry.state(name))) for name in ("model",)}
    return entry.epoch, str(entry.metrics), str(entry.config), parts


def _plain(state: Any) -> Any:
    return dict(state) if isinstance(state, dict) else state


def _resumed(store: Any) -> Any:
    resumed = store.resume(run=RUN, rng=False)
    return (resumed.checkpoint.version, resumed.checkpoint.epoch) if resumed else (0, None)


# ------------------------------------------------------------ by the format's functions alone


def reads(folder: Path, path: Path) -> Any:
    """Return a function of a file's bytes that reads them as the store does, without a store.

    It returns what they say, comparable, and raises what the format's readers raise.
    """
    name = str(path.relative_to(folder))
    if name == "ckptstore.json":
        return lambda data: decode_store(data, name)
    if path.suffix == ".json":
        return lambda data: decode_entry(data, name)
    if path.suffix == ".jsonl":
        return lambda data: read_manifest(data, name)
    manifests = [each.read_bytes() for each in folder.glob("runs/*/_versions/*.jsonl")]
    heads = [read_manifest(data, name) for data in manifests]
    return lambda data: read_pack(data, name, heads)


def read_manifest(data: bytes, where: str) -> Any:
    """Read a whole manifest: the head, then each part's line by its place and digest."""
    line = head_line(data, where)
    if line is None:
        raise IntegrityError(f"{where} is cut short")
    head, start, parts = decode_head(line, where), len(line) + 1 + 67, []
    for info in head.parts:
        parts.append(decode_part(data[start : start + info.length], head, info, where))
        start += info.length + 1
    return head, parts


def read_pack(data: bytes, where: str, heads: Sequence[Any]) -> Any:
    """Check what a load checks of a pack: its size, its header and each chunk that is named."""
    known = 0
    for head, parts in heads:
        for place, pack in enumerate(head.packs):
            if f"{pack.save_id}-{pack.number}." not in where:
                continue
            known += 1
            header = digest(data[: pack.header_bytes])
            if len(data) != pack.size_bytes or header != pack.header_digest:
                raise IntegrityError(f"{where} does not begin, or end, as it was saved")
            for chunk in (c for part in parts for t in part.tensors for c in t.chunks):
                stretch = data[chunk.start : chunk.start + chunk.length]
                if chunk.pack == place and digest(stretch) != chunk.digest:
                    raise IntegrityError(f"{where} does not hold the bytes that were saved")
    assert known, f"no version names {where}"
    return known


def decode_each(reader: Any, data: bytes, changed: Iterator[bytes], figures: Figures) -> None:
    """Read every changed file: an integrity error, or what the file said before.

    Raises:
        AssertionError: It says something else, and nothing noticed.
    """
    whole = reader(data)
    for each in changed:
        try:
            said = reader(each)
        except (IntegrityError, NewerFormatError):
            figures.found += 1
        else:
            assert said == whole, "it says something else, and nothing noticed"
            figures.harmless += 1
