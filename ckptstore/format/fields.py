"""Reading checked fields out of parsed JSON: a wrong type is an integrity error that says where."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ckptstore.errors import IntegrityError, NewerFormatError

FORMAT = 1
# Features a reader must know to understand an object; format 1 begins with none.
KNOWN_FEATURES: frozenset[str] = frozenset()
MAX_SHOWN = 60
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")


class Fields:
    """A JSON object whose fields are read one at a time, each checked as it is read."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise IntegrityError(f"{where} should be a JSON object, and is {_kind(value)}")
        self._value: dict[str, Any] = value
        self.where = where

    def bad(self, name: str, expected: str) -> IntegrityError:
        """Return the error that says *name* should be *expected* and what it is."""
        found = _kind(self._value[name]) if name in self._value else "missing"
        return IntegrityError(f"{self.where}: {name!r} should be {expected}, and is {found}")

    def get(self, name: str) -> Any:
        """Return a field unchecked, None if it is missing."""
        return self._value.get(name)

    def text(self, name: str) -> str:
        """Return a string."""
        value = self._value.get(name)
        if not isinstance(value, str):
            raise self.bad(name, "a string")
        return value

    def text_or_none(self, name: str) -> str | None:
        """Return a string, or None where the field is null or missing."""
        return None if self._value.get(name) is None else self.text(name)

    def number(self, name: str, *, least: int = 0) -> int:
        """Return an integer of at least *least*."""
        value = self._value.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
            raise self.bad(name, f"an integer from {least}")
        return value

    def number_or_none(self, name: str, *, least: int = 0) -> int | None:
        """Return an integer, or None where the field is null or missing."""
        return None if self._value.get(name) is None else self.number(name, least=least)

    def numbers(self, name: str) -> tuple[int, ...]:
        """Return a list of integers from 0 up to 2**62."""
        value = self.items(name)
        for number in value:
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**62:
                raise self.bad(name, "a list of integers from 0")
        return tuple(value)

    def flag(self, name: str) -> bool:
        """Return a boolean, False where the field is missing."""
        value = self._value.get(name, False)
        if not isinstance(value, bool):
            raise self.bad(name, "true or false")
        return value

    def items(self, name: str) -> Sequence[Any]:
        """Return a list."""
        value = self._value.get(name)
        if not isinstance(value, list):
            raise self.bad(name, "a list")
        return value

    def mapping(self, name: str) -> Mapping[str, Any]:
        """Return an object."""
        value = self._value.get(name)
        if not isinstance(value, dict):
            raise self.bad(name, "an object")
        return value

    def fields(self, name: str) -> Fields:
        """Return an object as fields of their own."""
        return Fields(self.mapping(name), f"{self.where}, {name!r}")

    def digest(self, name: str) -> str:
        """Return a BLAKE3 digest."""
        value = self._value.get(name)
        if not isinstance(value, str) or re.fullmatch(r"[0-9a-f]{64}", value) is None:
            raise self.bad(name, "64 hexadecimal digits")
        return value

    def uuid(self, name: str) -> UUID:
        """Return a UUID in its canonical spelling."""
        value = self.text(name)
        try:
            parsed = UUID(value)
        except ValueError as error:
            raise self.bad(name, "a UUID") from error
        if str(parsed) != value:
            raise self.bad(name, "a UUID in lower case with hyphens")
        return parsed

    def time(self, name: str) -> datetime:
        """Return a time in UTC."""
        value = self.text(name)
        if TIME.fullmatch(value) is None:
            raise self.bad(name, "a time such as 2026-01-31T12:00:00.000000Z")
        try:
            return datetime.fromisoformat(value[:-1]).replace(tzinfo=UTC)
        except ValueError as error:
            raise self.bad(name, "a time such as 2026-01-31T12:00:00.000000Z") from error

    def check_format(self) -> None:
        """Refuse what a newer ckptstore made.

        Raises:
            NewerFormatError: The format is not 1, or it needs a feature unknown here.
            IntegrityError: ``format`` or ``requires`` are no such fields.
        """
        found = self.number("format", least=1)
        if found != FORMAT:
            raise NewerFormatError(self.where, f"format {found}")
        for feature in self.items("requires"):
            if not isinstance(feature, str) or feature not in KNOWN_FEATURES:
                raise NewerFormatError(self.where, f"it requires {feature!r}")


def format_time(time: datetime) -> str:
    """Return *time* as the format writes it: UTC with microseconds and ``Z``."""
    # Not strftime, which writes the year 1 without its zeros.
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _kind(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
