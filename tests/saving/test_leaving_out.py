"""What nobody chose: named where it lies, whatever that costs in packs; else left out, and said."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
import torch
from blake3 import blake3

from ckptstore.format.manifest import Parent
from ckptstore.format.part import Form
from ckptstore.format.untree import decode
from ckptstore.saving.basis import basis_of
from ckptstore.saving.capture import capture
from ckptstore.saving.effort import Effort
from ckptstore.saving.leaving_out import settle, unsaved_bytes
from ckptstore.saving.packing import pack_parts
from ckptstore.saving.reuse import KEPT_FOREIGN_PACKS
from ckptstore.storage.opening import open_storage

VERSION = Parent("base", 1, UUID(int=1))
LAYERS = 20
BASE = {f"base.{number}": torch.full((300,), float(number)) for number in range(LAYERS)}
STATE = {**BASE, "head": torch.ones(300)}


@pytest.fixture
def storage(tmp_path):
    storage = open_storage(str(tmp_path / "store"))
    storage.prepare()
    return storage


def captured(state, *unchosen):
    (part,) = capture({"model": state})
    return replace(part, unchosen=unchosen)


def saved(storage, state, **how):
    packed = pack_parts(storage, UUID(int=7), [captured(state)], **how)
    return basis_of(VERSION, packed.packs, packed.parts)


def test_a_part_of_which_all_is_chosen_stays_what_it_is(storage):
    part = captured(STATE)

    assert settle(storage, part, []) == (part, {})
    assert unsaved_bytes(part) == 0


def test_what_nobody_has_is_left_out_with_its_place(storage):
    part = captured(STATE, "base.0", "base.19")
    settled, known = settle(storage, part, [])

    assert known == {}
    assert settled.left_out == {
        key: Form("float32", (300,), blake3(STATE[key].numpy().tobytes()).hexdigest())
        for key in ("base.0", "base.19")
    }
    assert settled.tensor_names == [key for key in STATE if key not in ("base.0", "base.19")]
    assert unsaved_bytes(part) == 2 * 300 * 4
    state = decode(settled.tree, "a test", settled.tensors.__getitem__)
    assert list(state) == settled.tensor_names
    assert all(state[key] is not None and torch.equal(state[key], STATE[key]) for key in state)
    assert len(part.tensors) == LAYERS + 1  # what was captured is not changed


def test_arrays_and_nested_values_keep_their_tensors(storage):
    state = {
        "gone": torch.zeros(3),
        "nested": {"array": np.arange(3), "more": [torch.ones(2)]},
        "last": torch.ones(1),
    }
    settled, _ = settle(storage, captured(state, "gone"), [])
    bytes_of = [tensor.detach() for tensor in settled.tensors]
    kept = decode(settled.tree, "a test", bytes_of.__getitem__)

    assert kept["nested"]["array"].tolist() == [0, 1, 2]
    assert torch.equal(kept["nested"]["more"][0], torch.ones(2))
    assert torch.equal(kept["last"], torch.ones(1))


def test_what_costs_nothing_is_kept(storage):
    state = {"number": 7, "empty": torch.ones(0), "gone": torch.ones(1), "kept": torch.ones(2)}
    settled, _ = settle(storage, captured(state, "number", "empty", "gone"), [])

    assert list(settled.left_out) == ["gone"]


def test_what_was_left_out_before_stays_left_out(storage):
    part = replace(captured(STATE, "head"), left_out={"adapter": None})

    assert [*settle(storage, part, [])[0].left_out] == ["adapter", "head"]


def test_what_is_named_is_named_out_of_any_number_of_packs(storage):
    basis = saved(storage, STATE, max_pack_bytes=1300)  # one layer a pack
    part = captured({**STATE, "head": torch.full((300,), -1.0)}, *BASE)
    less = pack_parts(storage, UUID(int=8), [part], [basis])
    all_of_it = pack_parts(storage, UUID(int=9), [replace(part, unchosen=())], [basis])

    def foreign(packed):
        return {pack.number for pack in packed.packs if pack.save_id == UUID(int=7)}

    assert less.parts[0].left_out == {}
    assert len(foreign(less)) == LAYERS
    assert len(foreign(all_of_it)) == KEPT_FOREIGN_PACKS
    written = [pack for pack in less.packs if pack.save_id == UUID(int=8)]
    assert sum(pack.size_bytes - pack.header_bytes for pack in written) == 300 * 4


def test_little_is_named_out_of_a_large_pack(storage):
    basis = saved(storage, {**STATE, "large": torch.arange(100_000.0)})
    part = captured({"base.1": BASE["base.1"], "head": torch.full((300,), -1.0)}, "base.1")
    packed = pack_parts(storage, UUID(int=8), [part], [basis])

    assert packed.parts[0].left_out == {}
    assert UUID(int=7) in {pack.save_id for pack in packed.packs}


def test_what_is_left_out_again_is_hashed_once_as_long_as_it_looks_the_same(storage):
    state = {"frozen": torch.arange(5000.0), "head": torch.ones(3)}
    packed = pack_parts(storage, UUID(int=7), [captured(state, "frozen")])
    assert len(packed.left_out) == 1
    basis = basis_of(VERSION, packed.packs, packed.parts, packed.samples, left_out=packed.left_out)
    first = packed.parts[0].left_out["frozen"]

    effort = Effort()
    again, _ = settle(storage, captured(state, "frozen"), [basis], effort)
    assert again.left_out["frozen"] == first
    assert effort.hashed.size_bytes == 0

    changed = {**state, "frozen": torch.arange(5000.0) + 1}
    other, _ = settle(storage, captured(changed, "frozen"), [basis], effort)
    assert (
        other.left_out["frozen"].digest == blake3(changed["frozen"].numpy().tobytes()).hexdigest()
    )
    assert effort.hashed.size_bytes == 20_000


def test_of_another_dtype_than_it_had_nobody_knows_the_digest(storage):
    part = captured({"frozen": torch.arange(5000.0), "head": torch.ones(3)}, "frozen")
    part.was[0] = "float64"
    settled, _ = settle(storage, part, [])
    assert settled.left_out["frozen"] == Form("float64", (5000,))
