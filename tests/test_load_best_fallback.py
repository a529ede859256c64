"""A damaged best version is never swapped silently, and only where that was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import FallbackWarning, IntegrityError
from tests.loading.forging import packs_of

SIZES = {"in_features": 2, "out_features": 3}


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.fixture
def folder(tmp_path) -> Path:
    place = tmp_path / "store"
    with Store(place) as store:
        for epoch in range(3):
            model = nn.Linear(2, 3)
            nn.init.constant_(model.weight, epoch)
            store.save(model, epoch=epoch, val_loss=3 - epoch, model_config=SIZES)
    damage(packs_of(place, "default", 3)[0])
    return place


def test_without_fallback_the_damage_is_raised(folder):
    with pytest.raises(IntegrityError, match="default@3"):
        Store(folder).load_best(nn.Linear, device="cpu")


@pytest.mark.parametrize("whose", [lambda store: store, lambda store: store.run("default")])
def test_with_fallback_the_best_intact_one_is_loaded_with_a_warning(folder, whose):
    with pytest.warns(FallbackWarning, match=r"loaded default@2; .*\n  - default@3"):
        model = whose(Store(folder)).load_best(nn.Linear, device="cpu", fallback=True)

    assert torch.equal(model.weight, torch.ones(3, 2))


def test_what_was_found_damaged_is_left_out_from_then_on(folder):
    store = Store(folder)
    with pytest.raises(IntegrityError):
        store.load_latest(nn.Linear, device="cpu")

    with pytest.warns(FallbackWarning, match="without default@3"):
        assert store.best().version == 2
    with pytest.warns(FallbackWarning, match="without default@3"):
        assert store.latest().version == 2


def test_where_none_is_intact_every_one_is_named(folder):
    for version in (1, 2):
        damage(packs_of(folder, "default", version)[0])

    with pytest.raises(IntegrityError, match=r"(?s)default@3.*default@2.*default@1"):
        Store(folder).load_best(nn.Linear, device="cpu", fallback=True)
