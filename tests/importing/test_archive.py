from __future__ import annotations

import io
import struct
import zipfile

import pytest

from ckptstore.errors import ImportRefusedError
from ckptstore.importing.archive import MAX_PICKLE_BYTES, folder_of, open_archive, spans_of


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
        assert folder_of(archive, "it") == "x"


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (made(("x/data.pkl", b"0" * 10**6), how=zipfile.ZIP_DEFLATED), "compressed"),
        (twice(), "one name"),
        (io.BytesIO(b"PK" + made(("x/data.pkl", b"N.")).getvalue()), "before its first"),
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
        folder_of(archive, "it")


def test_a_pickle_that_is_far_too_long_is_not_read(monkeypatch):
    monkeypatch.setattr("ckptstore.importing.archive.MAX_PICKLE_BYTES", 10)
    assert MAX_PICKLE_BYTES > 10**8
    with (
        open_archive(made(("x/data.pkl", b"0" * 11)), "it") as archive,
        pytest.raises(ImportRefusedError, match="at most 10"),
    ):
        folder_of(archive, "it")


def checked(file):
    with open_archive(file, "it") as archive:
        return spans_of(archive, file, folder_of(archive, "it"), "it")


@pytest.mark.parametrize("part", [b"NNNNN", b"45678"], ids=["the pickle", "a storage"])
def test_an_entry_whose_checksum_is_wrong_is_refused(part):
    data = bytearray(made(("x/data.pkl", b"NNNNN."), ("x/data/0", b"12345678")).getvalue())
    assert checked(io.BytesIO(data)).keys() == {"data.pkl", "data/0"}
    data[data.index(part)] ^= 1
    with pytest.raises(ImportRefusedError, match="checksum"):
        checked(io.BytesIO(data))


def test_checksums_that_torch_was_told_not_to_count_are_not_compared(tmp_path):
    import torch

    counts = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        torch.save({"w": torch.ones(9)}, tmp_path / "x")
    finally:
        torch.serialization.set_crc32_options(counts)
    with (tmp_path / "x").open("rb") as file:
        assert "data/0" in checked(file)


@pytest.mark.parametrize(
    "names",
    [
        ["x/data.pkl", "x/y/data.pkl"],
        ["x/data.pkl", "y/data/0"],
        ["x/y/data.pkl"],
        ["data.pkl"],
    ],
)
def test_an_archive_of_two_minds_is_refused(names):
    with pytest.raises(ImportRefusedError, match="one folder"):
        checked(made(*((name, b"N.") for name in names)))


@pytest.mark.parametrize("change", [(b"x/data.pkl", b"x/data.pkk"), (b"PK\x03\x04", b"PK\x03\x05")])
def test_an_entry_that_is_not_where_the_archive_says_is_refused(change):
    data = made(("x/data.pkl", b"N.")).getvalue().replace(*change, 1)
    with pytest.raises(ImportRefusedError, match="not where"):
        checked(io.BytesIO(data))
