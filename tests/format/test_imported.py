from __future__ import annotations

import pytest

from ckptstore.errors import IntegrityError
from ckptstore.format.fields import Fields
from ckptstore.format.imported import ImportedFrom, decode_imported, imported_json

FOUND = ImportedFrom("model.pth", "torch", 12, "0" * 64)


def test_what_is_written_is_what_is_read():
    assert decode_imported(Fields(imported_json(FOUND), "here")) == FOUND


def test_most_versions_say_nothing():
    assert imported_json(None) == {}
    assert decode_imported(Fields({}, "here")) is None


@pytest.mark.parametrize(
    "bad",
    [
        {"name": ""},
        {"name": "a/b"},
        {"name": "x" * 256},
        {"name": 1},
        {"format": None},
        {"size_bytes": -1},
        {"blake3": "0"},
    ],
)
def test_what_format_1_does_not_say_is_refused(bad):
    value = {"imported_from": imported_json(FOUND)["imported_from"] | bad}
    with pytest.raises(IntegrityError):
        decode_imported(Fields(value, "here"))
