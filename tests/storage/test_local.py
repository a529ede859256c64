"""A folder under fault: full disks, failing fsyncs, odd roots, filesystems without links."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ckptstore.errors import DurabilityError, StorageError
from ckptstore.storage import durable
from ckptstore.storage.base import Listing
from ckptstore.storage.local import LocalStorage

KEY = "runs/digits/_versions/00000001.jsonl"
FOLDER = "runs/digits/_versions"


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "store")


def files_below(folder: str | Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def fails(monkeypatch, name: str, code: int, *, at: int = 1) -> list[object]:
    """Let call number *at* of ``os.name``, and all after it, fail with *code*."""
    real = getattr(os, name)
    calls: list[object] = []

    def call(*args, **kwargs):
        calls.append(args)
        if len(calls) >= at:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, call)
    return calls


def traced(monkeypatch) -> list[tuple[str, str]]:
    """Record the order of what makes a file durable and visible."""
    steps: list[tuple[str, str]] = []
    fsync, link = os.fsync, os.link

    def traced_fsync(fd):
        path = Path(f"/proc/self/fd/{fd}").readlink()
        steps.append(("fsync", "temporary" if durable.is_temporary(path.name) else path.name))
        fsync(fd)

    def traced_link(source, target):
        if not durable.is_temporary(Path(target).name):
            steps.append(("link", Path(target).name))
        link(source, target)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "link", traced_link)
    return steps


def test_a_file_is_durable_before_its_name_and_the_name_before_success(storage, monkeypatch):
    storage.create("a/0", b"")
    steps = traced(monkeypatch)

    storage.create("a/1", b"x")

    assert steps == [("fsync", "temporary"), ("link", "1"), ("fsync", "a")]


def test_new_folders_are_made_durable_once(storage, tmp_path, monkeypatch):
    steps = traced(monkeypatch)

    storage.create("a/b/1", b"x")
    storage.create("a/b/2", b"x")

    folders = [name for what, name in steps if what == "fsync" and name != "temporary"]
    assert folders == [tmp_path.name, "store", "a", "b", "b"]


def test_folders_that_another_process_made_are_made_durable_too(storage, tmp_path, monkeypatch):
    Path(storage.url, "a").mkdir(parents=True)
    steps = traced(monkeypatch)

    storage.create("a/1", b"x")

    folders = [name for what, name in steps if what == "fsync" and name != "temporary"]
    assert folders == [tmp_path.name, "store", "a"]


def test_a_folder_someone_removed_is_made_again(storage):
    storage.create("a/1", b"x")
    Path(storage.url, "a", "1").unlink()
    Path(storage.url, "a").rmdir()

    storage.create("a/1", b"y")

    assert storage.read("a/1") == b"y"


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        ("write", errno.ENOSPC, "disk is full.*free some room"),
        ("write", errno.EDQUOT, "quota"),
        ("write", errno.EIO, "device failed"),
        ("link", errno.ENOSPC, "disk is full"),
        ("link", errno.EACCES, "permission denied"),
    ],
)
def test_a_failed_creation_says_why_and_leaves_nothing(storage, monkeypatch, call, code, says):
    storage.create("runs/digits/_versions/00000000.jsonl", b"before")
    with monkeypatch.context() as fault:
        fails(fault, call, code)
        with pytest.raises(StorageError, match=says) as caught:
            storage.create(KEY, b"manifest")

    assert caught.value.errno == code
    assert storage.url in str(caught.value)
    assert files_below(storage.url) == ["runs/digits/_versions/00000000.jsonl"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_made_says_why(storage, monkeypatch, code):
    fails(monkeypatch, "mkdir", code)

    with pytest.raises(StorageError, match="make folder") as caught:
        storage.create(KEY, b"manifest")
    assert caught.value.errno == code


def test_a_failed_fsync_before_the_link_leaves_no_version(storage, monkeypatch):
    storage.create(f"{FOLDER}/0", b"")
    with monkeypatch.context() as fault:
        calls = fails(fault, "fsync", errno.EIO)
        with pytest.raises(DurabilityError) as caught:
            storage.create(KEY, b"manifest")

    assert caught.value.errno == errno.EIO
    assert len(calls) == 1  # never tried again
    assert files_below(storage.url) == [f"{FOLDER}/0"]


def test_a_failed_fsync_of_the_folder_after_the_link_fails_though_it_can_be_read(
    storage, monkeypatch
):
    storage.create(f"{FOLDER}/0", b"")
    with monkeypatch.context() as fault:
        calls = fails(fault, "fsync", errno.EIO, at=2)
        with pytest.raises(DurabilityError):
            storage.create(KEY, b"manifest")

    assert len(calls) == 2
    assert storage.read(KEY) == b"manifest"
    assert files_below(storage.url) == [f"{FOLDER}/0", KEY]


def test_a_failed_fsync_of_a_new_folder_fails_the_creation(storage, monkeypatch):
    fails(monkeypatch, "fsync", errno.EIO)

    with pytest.raises(DurabilityError):
        storage.create(KEY, b"manifest")


def without_links(monkeypatch):
    def link(_source, _target):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)


def test_without_links_a_file_is_renamed_and_never_replaces(storage, monkeypatch):
    without_links(monkeypatch)

    storage.create(KEY, b"first")
    with pytest.raises(FileExistsError):
        storage.create(KEY, b"second")

    assert storage.read(KEY) == b"first"
    assert not storage.in_place
    assert files_below(storage.url) == [KEY]


def in_place_only(monkeypatch):
    without_links(monkeypatch)
    monkeypatch.setattr(durable, "rename_without_replacing", lambda _source, _target: False)


def test_without_links_and_renames_a_file_is_written_in_place(storage, monkeypatch):
    in_place_only(monkeypatch)
    assert not storage.in_place

    storage.create(KEY, b"first")

    assert storage.in_place
    with pytest.raises(FileExistsError):
        storage.create(KEY, b"second")
    assert storage.read(KEY) == b"first"
    assert files_below(storage.url) == [KEY]


def test_that_a_store_is_written_in_place_is_known_from_the_first_attempt(storage, monkeypatch):
    storage.create("ckptstore.json", b"{}")
    in_place_only(monkeypatch)
    again = LocalStorage(storage.url)

    with pytest.raises(FileExistsError):
        again.create("ckptstore.json", b"{}")

    assert again.in_place


def test_a_file_torn_in_place_spends_its_number(storage, monkeypatch):
    in_place_only(monkeypatch)
    storage.create(f"{FOLDER}/0", b"")
    with monkeypatch.context() as fault:
        fails(fault, "write", errno.ENOSPC, at=2)  # the first is that of the temporary file
        with pytest.raises(StorageError, match="disk is full"):
            storage.create(KEY, b"manifest")

    assert files_below(storage.url) == [f"{FOLDER}/0", KEY]
    with pytest.raises(FileExistsError):
        storage.create(KEY, b"another")


def test_unfinished_files_are_not_listed(storage):
    storage.create(KEY, b"x")
    Path(storage.url, FOLDER, durable.temporary_name()).write_bytes(b"killed while writing this")

    assert storage.list_folder(FOLDER) == Listing((), ("00000001.jsonl",))


def test_a_root_that_is_a_file_is_refused_by_reading_and_writing(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        storage = LocalStorage(root)
        for call in (
            lambda storage=storage: storage.read("ckptstore.json"),
            lambda storage=storage: storage.list_folder(""),
            lambda storage=storage: storage.create("ckptstore.json", b""),
            lambda storage=storage: storage.open_writer("packs/ab/1"),
        ):
            with pytest.raises(StorageError, match=r"is a file|is no folder") as caught:
                call()
            assert caught.value.errno == errno.ENOTDIR

    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_root_that_is_a_link_is_followed_and_a_broken_one_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    storage = LocalStorage(tmp_path / "link")

    storage.create(KEY, b"x")

    assert (tmp_path / "real" / KEY).read_bytes() == b"x"
    assert storage.url == str(tmp_path / "link")
    (tmp_path / "broken").symlink_to("nowhere")
    with pytest.raises(StorageError, match="link to nothing"):
        LocalStorage(tmp_path / "broken").list_folder("")


def test_a_listing_that_fails_raises(storage, monkeypatch):
    storage.create(KEY, b"x")
    fails(monkeypatch, "scandir", errno.EIO)

    with pytest.raises(StorageError, match="cannot list"):
        storage.list_folder(FOLDER)


def test_a_read_that_fails_raises(storage, monkeypatch):
    storage.create(KEY, b"x")
    with monkeypatch.context() as fault:
        fails(fault, "preadv", errno.EIO)
        with pytest.raises(StorageError, match="cannot read"):
            storage.read(KEY)

    fails(monkeypatch, "open", errno.EACCES)
    with pytest.raises(StorageError, match="permission denied"):
        storage.read(KEY)


def test_reading_goes_on_where_one_call_stops(storage, monkeypatch):
    storage.create(KEY, b"0123456789")
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, out, at: preadv(fd, [out[0][:3]], at))

    assert storage.read(KEY) == b"0123456789"


def test_reading_works_without_preadv(storage, monkeypatch):
    storage.create(KEY, b"0123456789")
    monkeypatch.delattr(os, "preadv")
    out = bytearray(4)

    storage.read_into(KEY, 3, memoryview(out))

    assert out == b"3456"
    with pytest.raises(EOFError):
        storage.read_into(KEY, 8, memoryview(bytearray(4)))


def test_nothing_is_mapped_where_the_filesystem_is_not_local(storage, monkeypatch):
    storage.create(KEY, b"x")
    monkeypatch.setattr("ckptstore.storage.local_file.is_on_local_disk", lambda _fd, _path: False)

    assert storage.map(KEY) is None


def test_an_empty_file_is_not_mapped(storage):
    storage.create(KEY, b"")

    assert storage.map(KEY) is None


def test_a_mapping_outlives_the_file(storage):
    storage.create(KEY, b"0123456789")
    mapped = storage.map(KEY)
    Path(storage.url, KEY).unlink()

    assert mapped is not None
    assert bytes(mapped) == b"0123456789"


def test_replacing_is_whole_or_nothing(storage, monkeypatch):
    storage.replace("out.json", b"old")
    with monkeypatch.context() as fault:
        fails(fault, "write", errno.ENOSPC)
        with pytest.raises(StorageError):
            storage.replace("out.json", b"new")
    assert storage.read("out.json") == b"old"

    storage.replace("out.json", b"new")

    assert storage.read("out.json") == b"new"
    assert files_below(storage.url) == ["out.json"]


def test_no_descriptor_stays_open(storage, monkeypatch):
    descriptors = Path("/proc/self/fd")
    storage.create(KEY, b"x")
    before = len(list(descriptors.iterdir()))

    for number in range(5):
        storage.read(KEY)
        storage.map(KEY)
        with pytest.raises(FileExistsError):
            storage.create(KEY, b"x")
        with storage.open_writer(f"packs/{number}") as writer:
            writer.write(memoryview(b"x"))
        with monkeypatch.context() as fault:
            fails(fault, "fsync", errno.EIO)
            with pytest.raises(DurabilityError):
                storage.create("a", b"x")

    assert len(list(descriptors.iterdir())) == before


KILLED = """
import os, sys
from ckptstore.storage.local import LocalStorage
storage = LocalStorage(sys.argv[1])
storage.create("runs/a/0", b"before")
count = 0
def wrap(name):
    real = getattr(os, name)
    def call(*args, **kwargs):
        global count
        count += 1
        if count == int(sys.argv[2]):
            os._exit(9)
        return real(*args, **kwargs)
    setattr(os, name, call)
for name in ("open", "write", "fsync", "link", "unlink", "close"):
    wrap(name)
storage.create("runs/a/1", b"whole")
os._exit(0)
"""


def test_killed_at_any_call_an_object_is_whole_or_absent(tmp_path):
    at, code = 0, 9
    outcomes = set()
    while code == 9:
        at += 1
        root = tmp_path / str(at)
        code = subprocess.run(
            [sys.executable, "-c", KILLED, str(root), str(at)], check=False
        ).returncode
        storage = LocalStorage(root)
        assert storage.read("runs/a/0") == b"before"
        there = storage.read_many(["runs/a/1"], 100)[0]
        assert there in {None, b"whole"}
        outcomes.add(there)
        if there is None:
            storage.create("runs/a/1", b"whole")  # doing it again works
        assert storage.list_folder("runs/a").files == ("0", "1")

    assert code == 0
    assert outcomes == {None, b"whole"}
    assert at > 6


def test_whether_a_store_is_written_in_place_is_known_before_it_is_made(storage, monkeypatch):
    in_place_only(monkeypatch)
    storage.prepare()
    assert storage.in_place
    assert [*Path(storage.local_folder).iterdir()] == []
