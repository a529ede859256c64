from __future__ import annotations

import pytest
import torch

from ckptstore.importing.tensors import quantized, sparse, strided

ROOM = torch.arange(6.0)


@pytest.mark.parametrize(
    "geometry",
    [(0, (7,), (1,)), (3, (4,), (1,)), (0, (2,), (6,)), (-1, (1,), (1,)), (0, (4,), (-1,)),
     (0, (2**62, 4), (0, 0)), (0, (1, 1), (1,)), (0, (True,), (1,)), (0, ("1",), (1,))],
)  # fmt: skip
def test_a_tensor_beyond_its_storage_is_refused(geometry):
    storage = ROOM.untyped_storage()
    with pytest.raises(ValueError, match="tensor"):
        strided(storage, torch.float32, geometry)
    with pytest.raises(ValueError, match="tensor"):
        quantized(storage, torch.qint32, geometry, "per_tensor_affine", [1.0, 0])


def test_a_tensor_shows_its_storage():
    found = strided(ROOM.untyped_storage(), torch.float32, (1, (2, 2), (2, 1)), grad=True)
    assert (found.tolist(), found.requires_grad) == ([[1, 2], [3, 4]], True)
    assert strided(ROOM.untyped_storage(), torch.float32, (9, (0,), (1,))).numel() == 0


def test_quantized_tensors_are_none_larger_than_their_bytes():
    storage = ROOM.untyped_storage()
    with pytest.raises(ValueError, match="more values"):
        quantized(storage, torch.qint8, (0, (10**9,), (0,)), "per_tensor_affine", [1.0, 0])


def test_a_sparse_tensor_with_an_index_outside_is_refused():
    values = torch.ones(1)
    assert sparse(torch.sparse_coo, (torch.tensor([[3]]), values, (4,))).to_dense().sum() == 1
    for place in (4, -1):
        with pytest.raises(RuntimeError, match="ind"):
            sparse(torch.sparse_coo, (torch.tensor([[place]]), values, (4,)))
