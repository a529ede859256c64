from __future__ import annotations

import fsspec
import pytest

from ckptstore.errors import ArgumentError, NotFoundError, StorageError
from ckptstore.importing.places import find_place


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    """A folder with a file, and one with another."""
    if request.param == "local":
        (tmp_path / "here" / "sub").mkdir(parents=True)
        url = str(tmp_path / "here")
    else:
        url = f"memory://places-{tmp_path.name}/here"
    for name, data in (("a.pt", b"abc"), ("sub/b.pt", b"de")):
        with fsspec.open(f"{url}/{name}", "wb") as file:
            file.write(data)
    yield url
    if request.param == "memory":
        fsspec.filesystem("memory").rm(f"/places-{tmp_path.name}", recursive=True)


def test_a_folder_is_listed_and_its_files_are_read(place):
    found = find_place(place)
    assert (found.name, found.is_folder()) == ("here", True)
    assert found.names() == (("sub",), ("a.pt",))
    assert found.names("sub").files == ("b.pt",)
    assert found.start("a.pt") == b"abc"
    with found.here("a.pt") as path:
        assert (path.name, path.read_bytes()) == ("a.pt", b"abc")
    with found.here("sub") as path:
        assert (path / "b.pt").read_bytes() == b"de"
    found.close()


def test_what_was_fetched_is_removed(place):
    with find_place(f"{place}/a.pt").here() as path:
        assert path.read_bytes() == b"abc"
    assert path.exists() == (not place.startswith("memory"))


def test_a_file_is_none(place):
    assert not find_place(f"{place}/a.pt").is_folder()


def test_what_is_not_there_is_said(place):
    with pytest.raises(NotFoundError, match="is not there"):
        find_place(f"{place}/gone.pt").is_folder()


def test_what_can_not_be_read_is_said(tmp_path):
    with pytest.raises(StorageError, match="can't be read"):
        find_place(tmp_path).start("gone")
    with pytest.raises(StorageError, match="can't be read"):
        find_place(tmp_path).names("gone")


@pytest.mark.parametrize("url", ["memory://", "s3://bucket", ""])
def test_what_names_nothing_is_refused(url):
    with pytest.raises(ArgumentError):
        find_place(url)


def test_a_file_of_this_machine_takes_no_options(tmp_path):
    with pytest.raises(ArgumentError, match="storage_options"):
        find_place(tmp_path, {"key": "secret"})
