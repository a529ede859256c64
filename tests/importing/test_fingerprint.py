from __future__ import annotations

import pytest
from blake3 import blake3

from ckptstore.errors import ImportRefusedError
from ckptstore.importing import fingerprint as module
from ckptstore.importing.fingerprint import fingerprint, look


def test_a_file_is_known_by_its_bytes_alone(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"abc")
    one, other = fingerprint(tmp_path / "a", "a"), fingerprint(tmp_path / "b", "b")
    assert one[:2] == other[:2] == (3, blake3(b"abc").hexdigest())


def test_a_folder_is_known_by_the_names_and_bytes_of_its_files(tmp_path):
    for name, data in (("b", b"22"), ("a", b"1")):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder").mkdir()
    lines = f"{blake3(b'1').hexdigest()} 1 a\n{blake3(b'22').hexdigest()} 2 b\n"
    assert fingerprint(tmp_path, "it")[:2] == (3, blake3(lines.encode()).hexdigest())


def test_a_file_that_is_being_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"abc")

    def digest(path):
        path.write_bytes(b"abcdef")
        return "0" * 64

    monkeypatch.setattr(module, "_digest", digest)
    with pytest.raises(ImportRefusedError, match="being written to"):
        fingerprint(tmp_path / "a", "a")


def test_a_change_is_seen(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    before = look(tmp_path)
    (tmp_path / "a").write_bytes(b"abcd")
    assert look(tmp_path) != before
