"""A whole store read without ckptstore: what is there, whether it is whole, what nobody names."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.independent_reader import checked, sealed, version

MANIFEST = re.compile(r"runs/(.+)/_versions/(\d{8})\.jsonl")
ENTRY = re.compile(r"runs/(.+)/_journal/(\d{8})\.json")
PACK = re.compile(r"packs/([0-9a-f]{2})/([0-9a-f-]{36})-(\d+)\.safetensors")
FILE = re.compile(r"files/([0-9a-f]{2})/([0-9a-f-]{36})-(\d+)")
CATALOG = re.compile(r"catalog\.sqlite3(-journal)?")


class TornError(AssertionError):
    """Something visible is not whole."""


@dataclass
class Found:
    """What a store's files say."""

    heads: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    """Of every version, by run and number."""
    states: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    """Of every version whose data are there."""
    journals: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def tag(self, run: str, tag: str) -> int | None:
        """Where a tag points."""
        points = [each["version"] for each in self._entries(run, "tag") if each["tag"] == tag]
        return points[-1] if points else None

    def metric(self, run: str, number: int, name: str) -> Any:
        """A version's metric, the later facts counted in."""
        metrics = dict(self.heads[run, number]["metrics"])
        for each in self._entries(run, "log"):
            if each["version"] == number:
                metrics |= each["metrics"]
        return metrics.get(name)

    def is_retired(self, run: str, number: int) -> bool:
        """Whether a version's data may go."""
        retired = False
        for each in self.journals.get(run, []):
            if each["kind"] == "retire" and number in dict(each["versions"]):
                retired = True
            if each["kind"] == "undelete" and number in each["versions"]:
                retired = False
        return retired

    def _entries(self, run: str, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.journals.get(run, []) if each["kind"] == kind]


def keys(folder: Path) -> list[str]:
    """Every file below *folder*, as keys."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def read_store(folder: Path, *, collected: bool = False) -> Found:
    """Read all there is.

    Args:
        folder: The store.
        collected: Whether the data of retired versions may be gone.

    Raises:
        TornError: Something is not whole: a manifest, a journal entry, a pack that a version names;
            or a number is missing.
    """
    found, there = Found(), keys(folder)
    for key in there:
        if match := ENTRY.fullmatch(key):
            found.journals.setdefault(match[1], []).append(_whole(key, sealed, folder / key))
    for key in there:
        if match := MANIFEST.fullmatch(key):
            run, number = match[1], int(match[2])
            if collected and found.is_retired(run, number):
                found.heads[run, number] = _whole(key, _head, folder / key)
                continue
            head, states = _whole(key, version, folder, run, number)
            found.heads[run, number], found.states[run, number] = head, states
    if found.heads or found.journals:
        _whole("ckptstore.json", sealed, folder / "ckptstore.json")
    for kind in (MANIFEST, ENTRY):
        _check_numbers(list(filter(None, map(kind.fullmatch, there))))
    return found


def _check_numbers(names: list[re.Match[str]]) -> None:
    for run in {name[1] for name in names}:
        numbers = sorted(int(name[2]) for name in names if name[1] == run)
        if numbers != list(range(1, len(numbers) + 1)):
            raise TornError(f"run {run} has holes: {numbers}")


def orphans(folder: Path, found: Found) -> list[str]:
    """Everything that no live version names and that is no manifest, journal entry or catalog."""
    named = {
        (pack["save"], pack["number"])
        for (run, number), head in found.heads.items()
        if not found.is_retired(run, number)
        for pack in head["packs"]
    }
    files = {
        (file["save"], file["number"])
        for (run, number), head in found.heads.items()
        if not found.is_retired(run, number)
        for file in head.get("files", [])
    }
    lost = []
    for key in keys(folder):
        if any(kind.fullmatch(key) for kind in (MANIFEST, ENTRY, CATALOG)):
            continue
        pack, file = PACK.fullmatch(key), FILE.fullmatch(key)
        if key == "ckptstore.json" or (pack and (pack[2], int(pack[3])) in named):
            continue
        if file and (file[2], int(file[3])) in files:
            continue
        if _is_second_name(folder / key):
            continue
        lost.append(key)
    return lost


def _is_second_name(path: Path) -> bool:
    """Say whether a temporary file is another file too: it takes no room, and stays."""
    return path.name.startswith(".tmp-") and any(
        other.samefile(path)
        for other in path.parent.iterdir()
        if not other.name.startswith(".tmp-")
    )


def _whole(key: str, read: Any, *args: Any) -> Any:
    try:
        return read(*args)
    except Exception as error:
        raise TornError(f"{key}: {type(error).__name__}: {error}") from error


def _head(manifest: Path) -> Any:
    line, digest = manifest.read_bytes().split(b"\n")[:2]
    return json.loads(checked(line, json.loads(digest)))
