"""Every byte of a small store is changed, every file cut at every length: found, or harmless."""

from __future__ import annotations

import pytest

from ckptstore.format import sealed
from ckptstore.format.digest import digest
from tests.prove.bytes.damage import (
    PATTERNS,
    Figures,
    cuts,
    decode_each,
    everything,
    files_of,
    flips,
    judge,
    make,
    reads,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes") / "store"
    make(folder)
    return folder


def test_every_byte_of_every_file_counts(folder):
    figures = Figures()
    for path in files_of(folder):
        data = path.read_bytes()
        decode_each(reads(folder, path), data, flips(data, PATTERNS), figures)

    assert figures.found > 30_000
    # The line feeds behind a manifest's parts' lines say nothing.
    assert figures.harmless == len(PATTERNS) * 2


def test_every_length_of_every_file_but_the_whole_is_too_short(folder):
    figures = Figures()
    for path in files_of(folder):
        data = path.read_bytes()
        decode_each(reads(folder, path), data, cuts(data), figures)

    assert figures.found > 10_000
    assert figures.harmless == 2, "only a manifest's last line feed may be missing"


@pytest.mark.parametrize("kind", ["ckptstore.json", ".json", ".jsonl", ".safetensors"])
def test_a_store_says_what_is_damaged_or_answers_as_before(folder, kind):
    whole = everything(folder)
    assert not [each for each in whole.values() if isinstance(each, Exception)]
    of_kind = [path for path in files_of(folder) if path.name.endswith(kind)]
    step = max(1, sum(path.stat().st_size for path in of_kind) // 12)
    found = 0
    for path in of_kind:
        data = path.read_bytes()
        for changed in (*flips(data, [0x01], every=step, first=step // 3), *cuts(data, every=step)):
            found += judge(folder, path, changed, whole)

    assert found > 10


def test_a_file_that_is_gone_is_missed(folder):
    whole = everything(folder)
    for path in files_of(folder):
        data = path.read_bytes()
        path.unlink()
        try:
            # Nobody can tell that the last journal entry was there: see docs/format.md.
            answers = everything(folder)
        finally:
            path.write_bytes(data)
        assert answers != whole, f"{path.name} is gone, and all answers are as before"


# ------------------------------------------------------------ the proof itself


def test_the_proof_notices_another_meaning(folder):
    path = folder / "ckptstore.json"
    data = path.read_bytes()
    other = data.replace(b"604800", b"604801")
    body = other.rpartition(sealed.SEAL)[0]
    resealed = body + sealed.SEAL + digest(body).encode() + b'"}\n'

    with pytest.raises(AssertionError, match="something else"):
        decode_each(reads(folder, path), data, iter([resealed]), Figures())
