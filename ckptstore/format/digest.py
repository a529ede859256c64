"""BLAKE3 digests, and strict JSON that was digested before it is parsed.

Digests are 64 hexadecimal digits of BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs) and cover
bytes as they were read: nothing is serialised again in order to be checked.
"""

from __future__ import annotations

import json
import re
from typing import Any

from blake3 import blake3

from ckptstore.errors import IntegrityError

MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 200
# A string or a bracket. A string without an end is one token too, and nothing is tried twice, or a
# line of escaped quotes would take time by its length squared.
TOKEN = re.compile(rb'"(?:[^"\\]++|\\(?:.|\Z))*+(?:"|\Z)|[\[{]|[\]}]', re.DOTALL)


def digest(data: bytes | bytearray | memoryview) -> str:
    """Return the BLAKE3 of *data* as 64 hexadecimal digits."""
    return blake3(data).hexdigest()


def dump_line(value: object) -> bytes:
    """Return *value* as one line of JSON in UTF-8, without the line feed.

    Raises:
        ValueError: It holds NaN, an infinity or a lone surrogate.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8")


def parse_line(line: bytes, where: str) -> Any:
    """Parse one line of JSON, refusing what a careless or hostile writer could put there.

    Args:
        line: The line, at most 64 MiB.
        where: Names it in errors.

    Raises:
        IntegrityError: It is longer than 64 MiB, no UTF-8, no JSON, nested deeper than 200, has
            a key twice, or holds NaN, an infinity, a lone surrogate or a number that overflows.
    """
    if len(line) > MAX_LINE_BYTES:
        raise IntegrityError(
            f"{where} has a line of {len(line)} bytes; at most {MAX_LINE_BYTES} are read"
        )
    _check_depth(line, where)
    try:
        value = json.loads(
            line.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded_int,
        )
        if b"\\u" in line:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{where} is not what ckptstore writes: {error}") from error
    return value


def _check_depth(line: bytes, where: str) -> None:
    """Refuse deep nesting before the parser allocates anything for it."""
    if line.count(b"[") + line.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for token in TOKEN.finditer(line):
        first = line[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise IntegrityError(f"{where} is nested deeper than {MAX_DEPTH} levels")
        elif first in b"]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0.0:
        raise ValueError(f"{text} does not fit a double")
    return value


def _bounded_int(text: str) -> int:
    if len(text) > 20:  # noqa: PLR2004 - 2**64 has 20 digits; larger ints are typed nodes
        raise ValueError("an integer has more than 20 digits")
    return int(text)
