"""Names and paths: what a run, a tag and a ref may be called, and where each object lies.

Paths are derived from checked names and save ids, never read from a file, so nothing that a user or
a manifest says can point outside the store.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from uuid import UUID

from ckptstore.errors import InvalidNameError

STORE_KEY = "ckptstore.json"
# What a later format, if ever there is one, creates instead: see "Evolution" in docs/format.md.
STORE_KEY_NEWER = "ckptstore-2.json"
RUNS_FOLDER = "runs"
VERSIONS_FOLDER = "_versions"
JOURNAL_FOLDER = "_journal"
PACKS_FOLDER = "packs"
FILES_FOLDER = "files"
CLOCK_FOLDER = "clock"
"""Objects that are written to read the storage's clock off them, and removed at once."""

MAX_NAME_LENGTH = 120
SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+,-]*")
# Names Windows gives to devices in every folder, with any extension:
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
RESERVED_TAGS = frozenset({"best", "latest"})

SEGMENT_RULE = (
    "letters, digits and '. _ = + , -', starting with a letter or digit, not ending in '.', "
    "and no Windows device name such as 'nul'"
)
MAX_SHOWN = 80
# A number in its one spelling: a stray "000000007.jsonl" is no version 7.
VERSION_FILE = re.compile(r"([0-9]{8}|[1-9][0-9]{8,17})\.jsonl")
JOURNAL_FILE = re.compile(r"([0-9]{8}|[1-9][0-9]{8,17})\.json")
UUID_TEXT = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
PACK_KEY = re.compile(rf"packs/([0-9a-f]{{2}})/({UUID_TEXT})-(0|[1-9][0-9]{{0,8}})\.safetensors")
FILE_KEY = re.compile(rf"files/([0-9a-f]{{2}})/({UUID_TEXT})-(0|[1-9][0-9]{{0,8}})")
CLOCK_KEY = re.compile(rf"{CLOCK_FOLDER}/{UUID_TEXT}")
TEMPORARY_NAME = re.compile(r"\.tmp-[0-9a-f]{16}")
DATA_FOLDER = re.compile(rf"({PACKS_FOLDER}|{FILES_FOLDER})/[0-9a-f]{{2}}")
RECORDS_FOLDER = re.compile(rf"{RUNS_FOLDER}/(.+)/({VERSIONS_FOLDER}|{JOURNAL_FOLDER})")


def check_run(name: object) -> str:
    """Return *name* if a run may be called that.

    Raises:
        InvalidNameError: It is not a string or breaks the grammar; the message has the rule.
    """
    if not isinstance(name, str):
        raise InvalidNameError(f"a run is named by a string, not by {name!r}")
    if len(name) > MAX_NAME_LENGTH or not all(_is_segment(part) for part in name.split("/")):
        raise InvalidNameError(
            f"{_short(name)} is no name for a run: a run is '/'-separated segments of "
            f"{SEGMENT_RULE}; "
            f"at most {MAX_NAME_LENGTH} characters in all"
        )
    return name


def check_tag(name: object) -> str:
    """Return *name* if a tag may be called that.

    Raises:
        InvalidNameError: It breaks the grammar, is a number, or is ``best`` or ``latest``.
    """
    if (
        not isinstance(name, str)
        or len(name) > MAX_NAME_LENGTH
        or not _is_segment(name)
        or name.isdigit()
        or name.lower() in RESERVED_TAGS
    ):
        raise InvalidNameError(
            f"{_short(name)} is no name for a tag: a tag is {SEGMENT_RULE}; no number, "
            f"'best' or 'latest'; at most {MAX_NAME_LENGTH} characters"
        )
    return name


class Ref(NamedTuple):
    """A version's name taken apart: ``digits@best`` is ``Ref("digits", "best")``."""

    run: str | None
    """The run, or None where the ref leaves it out (``@best``)."""
    selector: int | str
    """A version's number, ``best``, ``latest`` or a tag."""


def parse_ref(ref: object) -> Ref:
    """Take a ref apart: ``digits``, ``digits@7``, ``digits@best``, ``digits@prod``, ``@7``, ``7``.

    Raises:
        InvalidNameError: It is none of these.
    """
    if isinstance(ref, int) and not isinstance(ref, bool):
        if not 0 < ref < 10**18:
            raise InvalidNameError(f"{_short(ref)} is no version's number: they count from 1")
        return Ref(None, ref)
    if not isinstance(ref, str):
        raise InvalidNameError(f"a ref is a string such as 'digits@7', not {ref!r}")
    run, at, selector = ref.partition("@")
    name = check_run(run) if run else None
    if not at:
        if name is None:
            raise InvalidNameError(
                "a ref can't be empty: write 'digits', 'digits@7' or 'digits@best'"
            )
        return Ref(name, "latest")
    if re.fullmatch(r"[0-9]{1,18}", selector) and int(selector) > 0:
        return Ref(name, int(selector))
    if selector in RESERVED_TAGS:
        return Ref(name, selector)
    try:
        return Ref(name, check_tag(selector))
    except InvalidNameError as error:
        raise InvalidNameError(
            f"{_short(ref)} is no ref: after '@' comes a version's number (1, 2, …), 'best', "
            "'latest' or a tag"
        ) from error


def is_glob(name: object) -> bool:
    """Say whether *name* is a pattern over runs rather than a run, or what is no name at all."""
    return isinstance(name, str) and any(character in name for character in "*?[")


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a glob over run paths; ``*`` and ``?`` don't cross ``/``."""
    pieces = []
    for piece in re.findall(r"\*\*|\*|\?|\[[^\]/]+\]|.", pattern.lower(), re.DOTALL):
        if piece in ("*", "**"):
            pieces.append("[^/]*")
        elif piece == "?":
            pieces.append("[^/]")
        elif piece.startswith("[") and piece.endswith("]"):
            inside = re.sub(r"[\\\[&|~]", r"\\\g<0>", piece[1:-1])
            pieces.append("[" + ("^" + inside[1:] if inside.startswith("!") else inside) + "]")
        else:
            pieces.append(re.escape(piece))
    try:
        return re.compile("".join(pieces))
    except re.error as error:
        raise InvalidNameError(f"{_short(pattern)} is no pattern over runs: {error}") from error


def run_path(name: str) -> str:
    """Return a run's path: its name in lower case, so that no filesystem confuses two runs."""
    return check_run(name).lower()


def is_run_path(path: str) -> bool:
    """Say whether a run may lie at *path*: another folder there is not ours."""
    try:
        return run_path(path) == path
    except InvalidNameError:
        return False


def run_folder(path: str) -> str:
    """Return the folder of the run at *path*."""
    return f"{RUNS_FOLDER}/{path}"


def versions_folder(path: str) -> str:
    """Return the folder that holds a run's manifests."""
    return f"{run_folder(path)}/{VERSIONS_FOLDER}"


def version_key(path: str, number: int) -> str:
    """Return the key of version *number*'s manifest."""
    return f"{versions_folder(path)}/{number:08d}.jsonl"


def journal_folder(path: str) -> str:
    """Return the folder that holds a run's journal."""
    return f"{run_folder(path)}/{JOURNAL_FOLDER}"


def journal_key(path: str, number: int) -> str:
    """Return the key of journal entry *number*."""
    return f"{journal_folder(path)}/{number:08d}.json"


def numbered(files: tuple[str, ...], kind: re.Pattern[str]) -> list[int]:
    """Return the numbers of the files that are of that *kind*, ascending; others don't count."""
    # All in one go, line by line, takes half as long: a run may have a hundred thousand versions.
    lines = "\n".join(name for name in files if "\n" not in name)
    found = re.findall(rf"^{kind.pattern}$", lines, re.MULTILINE)
    return sorted(number for number in map(int, found) if number > 0)


def pack_key(save_id: UUID, number: int) -> str:
    """Return the key of a save's pack *number*."""
    return f"packs/{save_id.hex[-2:]}/{save_id}-{number}.safetensors"


def file_key(save_id: UUID, number: int) -> str:
    """Return the key of a save's opaque file *number*."""
    return f"files/{save_id.hex[-2:]}/{save_id}-{number}"


def clock_key(writer: UUID) -> str:
    """Return the key of an object that somebody writes to read the storage's clock."""
    return f"{CLOCK_FOLDER}/{writer}"


def is_clock_key(key: str) -> bool:
    """Say whether *key* is such an object."""
    return CLOCK_KEY.fullmatch(key) is not None


def is_data_key(key: str) -> bool:
    """Say whether *key* is a pack or a file of some save; whatever else lies there is not ours."""
    match = PACK_KEY.fullmatch(key) or FILE_KEY.fullmatch(key)
    return match is not None and match[2][-2:] == match[1]


def is_leftover_upload(key: str) -> bool:
    """Say whether an unfinished upload of *key* may be a save's.

    Packs and files alone are uploaded in parts.
    """
    return is_data_key(key)


def is_leftover_file(key: str) -> bool:
    """Say whether *key* is a temporary file where ckptstore makes them, by its whole name."""
    folder, _, name = key.rpartition("/")
    if not TEMPORARY_NAME.fullmatch(name):
        return False
    if folder in ("", CLOCK_FOLDER) or DATA_FOLDER.fullmatch(folder):
        return True
    records = RECORDS_FOLDER.fullmatch(folder)
    return records is not None and is_run_path(records[1])


def _is_segment(part: str) -> bool:
    return bool(SEGMENT.fullmatch(part)) and not part.endswith(".") and not DEVICE.fullmatch(part)


def _short(name: object) -> str:
    text = ascii(name)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
