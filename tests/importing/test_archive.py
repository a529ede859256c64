from __future__ import annotations

import io
import struct
import zipfile

import pytest

from ckptstore.errors import ImportRefusedError
from ckptstore.importing.archive import MAX_PICKLE_BYTES, open_archive, pickle_of


def made(*entries, how=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file


def twice():
    """Two entries of one name, which zipfile writes under protest alone."""
    data = made(("x/data.pkl", b"N."), ("x/data.pkx", b"N.")).getvalue()
    return io.BytesIO(data.replace(b"data.pkx", b"data.pkl"))


def test_an_archive_of_torch_is_opened():
    with open_archive(made(("x/data.pkl", b"N."), ("x/data/0", b"\0" * 9)), "it") as archive:
        assert pickle_of(archive, "it").read() == b"N."


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (made(("x/data.pkl", b"0" * 10**6), how=zipfile.ZIP_DEFLATED), "compressed"),
        (twice(), "one name"),
        (made(("../data.pkl", b"N.")), "leads out"),
        (made(("/data.pkl", b"N.")), "leads out"),
        (made(("x\\..\\data.pkl", b"N.")), "leads out"),
        (made(("c:/data.pkl", b"N.")), "leads out"),
        (io.BytesIO(made(("x/data.pkl", b"N.")).getvalue()[:-30]), "cut short"),
        (io.BytesIO(b"PK\x03\x04" + b"\0" * 100), "cut short"),
    ],
)
def test_an_archive_that_torch_never_writes_is_refused(file, why):
    with pytest.raises(ImportRefusedError, match=why):
        open_archive(file, "it")


@pytest.mark.parametrize("size", [2**31, 10**9])
def test_an_archive_that_claims_more_than_its_file_is_refused(size):
    data = bytearray(made(("x/data.pkl", b"N."), ("x/data/0", b"12345678")).getvalue())
    last = data.rindex(b"PK\x01\x02")
    data[last + 20 : last + 28] = struct.pack("<II", size, size)
    with pytest.raises(ImportRefusedError, match=f"claim {size + 2} bytes"):
        open_archive(io.BytesIO(data), "it")


def test_an_encrypted_entry_is_refused():
    data = bytearray(made(("x/data.pkl", b"N.")).getvalue())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ImportRefusedError, match="encrypted"):
        open_archive(io.BytesIO(data), "it")


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["x/data.pkl", "x/constants.pkl", "x/code/a.py"], "TorchScript"),
        (["a.npy", "b.npy"], "NumPy"),
        (["x.txt"], "no data.pkl"),
    ],
)
def test_other_archives_are_called_what_they_are(names, why):
    with (
        open_archive(made(*((name, b"") for name in names)), "it") as archive,
        pytest.raises(ImportRefusedError, match=why),
    ):
        pickle_of(archive, "it")


def test_a_pickle_that_is_far_too_long_is_not_read(monkeypatch):
    monkeypatch.setattr("ckptstore.importing.archive.MAX_PICKLE_BYTES", 10)
    assert MAX_PICKLE_BYTES > 10**8
    with (
        open_archive(made(("x/data.pkl", b"0" * 11)), "it") as archive,
        pytest.raises(ImportRefusedError, match="at most 10"),
    ):
        pickle_of(archive, "it")


def test_a_pickle_whose_checksum_is_wrong_is_refused():
    data = bytearray(made(("x/data.pkl", b"NNNNN.")).getvalue())
    data[data.index(b"NNNNN")] ^= 1
    with (
        open_archive(io.BytesIO(data), "it") as archive,
        pytest.raises(ImportRefusedError, match="damaged"),
    ):
        pickle_of(archive, "it")
