from __future__ import annotations

import pytest
import torch
from blake3 import blake3

from ckptstore import Store
from ckptstore.errors import ImportRefusedError
from ckptstore.importing import bring
from ckptstore.importing.comparing import digests_of
from ckptstore.saving.capture import capture_tree
from tests.importing.files import full


def test_the_digest_is_that_of_the_bytes_row_major():
    tensor = torch.arange(6, dtype=torch.uint8).view(2, 3)
    part = capture_tree("x", [tensor, tensor.t(), torch.zeros(2**20), torch.empty(0)])
    found = [blake3(bytes(each)).hexdigest() for each in ([0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5])]
    empty = blake3(b"").hexdigest()
    assert digests_of([part]) == [[*found, blake3(bytes(2**22)).hexdigest(), empty]]


def test_what_was_imported_says_how_many_tensors_are_equal(tmp_path):
    torch.save(full(), tmp_path / "x.pt")
    with Store(tmp_path / "store", run="r") as store:
        found = store.import_folder(tmp_path / "x.pt")
        assert "tensors, digests equal" in found.summary()
        again = store.import_folder(tmp_path / "x.pt", again=True)
    saved = [full()[key] for key in ("model_state_dict", "optimizer_state_dict")]
    count = len(saved[0]) + sum(len(each) for each in saved[1]["state"].values())
    assert found.tensors == again.tensors == count


def test_a_tensor_that_was_altered_in_between_is_found(tmp_path, monkeypatch):
    torch.save({"model": {"a": torch.ones(2), "b": torch.ones(3)}}, tmp_path / "x.pt")
    real = bring.save

    def save(storage, writer, parts, facts):
        parts[0].tensors[1][2] = 7
        return real(storage, writer, parts, facts)

    monkeypatch.setattr(bring, "save", save)
    with (
        Store(tmp_path / "store", run="r") as store,
        pytest.raises(ImportRefusedError, match=r"1 tensors of 'model' .* 'b': don't use r@1"),
    ):
        store.import_file(tmp_path / "x.pt")
