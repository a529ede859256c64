"""How a finished file gets its name, found by trying."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptstore.storage import durable
from ckptstore.storage.publishing import Publishing, TemporaryFile, create_in_place


@pytest.mark.parametrize(
    ("links", "renames", "expected"),
    [
        (True, True, Publishing.LINK),
        (False, True, Publishing.RENAME),
        (False, False, Publishing.IN_PLACE),
    ],
)
def test_the_best_way_a_filesystem_has_is_found_and_leaves_nothing(
    tmp_path, monkeypatch, links, renames, expected
):
    if not links:
        monkeypatch.setattr(durable, "link", lambda *_: False)
    if not renames:
        monkeypatch.setattr(durable, "rename_without_replacing", lambda *_: False)

    with TemporaryFile(tmp_path) as file:
        file.write(b"x")
        assert file.probe() is expected
        assert len(list(tmp_path.iterdir())) == 1
        assert file.publish(tmp_path / "final", expected) is (expected is not Publishing.IN_PLACE)

    left = [each.name for each in tmp_path.iterdir()]
    assert left == ([] if expected is Publishing.IN_PLACE else ["final"])


def test_a_link_that_fails_here_and_worked_elsewhere_becomes_a_rename(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "link", lambda *_: False)

    with TemporaryFile(tmp_path) as file:
        file.write(b"x")
        assert file.publish(tmp_path / "final", Publishing.LINK)

    assert (tmp_path / "final").read_bytes() == b"x"


def test_a_temporary_file_is_gone_however_the_block_is_left(tmp_path):
    def stop() -> None:
        with TemporaryFile(tmp_path):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_file_someone_removed_hides_no_result(tmp_path):
    with TemporaryFile(tmp_path) as file:
        for each in Path(tmp_path).iterdir():
            each.unlink()
        file.write(b"x")


def test_in_place_nothing_is_overwritten(tmp_path):
    create_in_place(tmp_path / "x", b"first")

    with pytest.raises(FileExistsError):
        create_in_place(tmp_path / "x", b"second")
    assert (tmp_path / "x").read_bytes() == b"first"
