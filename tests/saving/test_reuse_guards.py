"""The bounds of sharing, as the pages state them: by numbers, and not by the names of numbers."""

from __future__ import annotations

from uuid import UUID

import pytest
import torch

from ckptstore import Store
from ckptstore.format.journal import RetireEntry
from ckptstore.format.manifest import Pack, parent_of
from ckptstore.saving import moment
from ckptstore.saving.bases import Bases
from ckptstore.saving.basis import Place
from ckptstore.saving.journaling import append
from ckptstore.saving.reuse import choose

HEADER, DATA = 4096, 80_000


def pack(number):
    return Pack(UUID(int=number), 0, HEADER + DATA, HEADER, "0" * 64)


@pytest.mark.parametrize(("wanted", "shared"), [(16, 16), (17, 8), (100, 8)])
def test_a_version_names_at_most_sixteen_packs_of_others(wanted, shared):
    places = [Place(pack(number), HEADER, DATA) for number in range(1, wanted + 1)]
    assert len(choose(places)) == shared


@pytest.mark.parametrize(("length", "shared"), [(DATA // 8, 1), (DATA // 8 - 1, 0)])
def test_a_pack_is_shared_from_an_eighth_of_its_data_on(length, shared):
    assert len(choose([Place(pack(1), HEADER, length)])) == shared


def test_after_a_minute_what_is_built_upon_is_looked_at_again(tmp_path, monkeypatch):
    store = Store(tmp_path / "store", catalog="sqlite://")
    saved = parent_of(store.save({"w": torch.arange(9.0)}, run="digits", rng=False).head)
    bases = Bases(store._storage, store._catalog)
    assert bases.live([saved])
    append(
        store._storage,
        store._catalog,
        "digits",
        lambda _, time, writer: RetireEntry({1: "pruned"}, time, writer),
    )
    real = moment.time.monotonic
    monkeypatch.setattr(moment.time, "monotonic", lambda: real() + 61)
    assert bases.live([saved]) == []
