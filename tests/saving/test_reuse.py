"""What a save need not write, and what it writes all the same."""

from __future__ import annotations

from uuid import UUID

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptstore.errors import StorageError
from ckptstore.format.layout import pack_key
from ckptstore.format.manifest import Pack, Parent
from ckptstore.format.pack import DATA_ALIGNMENT
from ckptstore.saving import reuse
from ckptstore.saving.basis import Place, basis_of
from ckptstore.saving.capture import capture
from ckptstore.saving.packing import OWN_PACK_BYTES, pack_parts
from ckptstore.saving.reuse import (
    KEPT_FOREIGN_PACKS,
    LEAST_SHARE,
    MAX_FOREIGN_PACKS,
    choose,
    look_up,
)
from ckptstore.storage.local import LocalStorage
from tests.faults import Failing, lost

LARGE = 50_000  # elements: 200 kB, more than any sample


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path / "store")


def write(storage, number, state, bases=()):
    """Write a version's packs; return them and the version as a basis for the next."""
    save_id = UUID(int=number)
    packed = pack_parts(storage, save_id, capture({"model": state}), bases)
    version = Parent("digits", number, save_id)
    return packed, basis_of(version, packed.packs, packed.parts, packed.samples)


def new_bytes(packed, number):
    mine = [pack for pack in packed.packs if pack.save_id == UUID(int=number)]
    return sum(pack.size_bytes - pack.header_bytes for pack in mine)


def numbered(count, seed=0):
    return {f"w{n}": torch.full((LARGE,), float(n + seed)) for n in range(count)}


def pack(number, size=1000, header=DATA_ALIGNMENT):
    return Pack(UUID(int=number), 0, header + size, header, "0" * 64)


# ------------------------------------------------------------------------------ what is the same


def test_what_did_not_change_is_not_written_again(storage):
    state = numbered(4)
    _, basis = write(storage, 1, state)
    state["w3"] = state["w3"] + 1

    packed, _ = write(storage, 2, state, [basis])

    assert new_bytes(packed, 2) == 4 * LARGE
    assert {each.save_id.int for each in packed.packs} == {1, 2}


def test_nothing_is_written_where_nothing_changed(storage):
    state = numbered(2) | {"empty": torch.empty(0), "one": torch.tensor(7)}
    _, basis = write(storage, 1, state)

    packed, _ = write(storage, 2, state, [basis])

    assert [each.save_id.int for each in packed.packs] == [1]


def test_a_part_of_empty_tensors_alone_still_has_a_pack(storage):
    _, basis = write(storage, 1, {"empty": torch.empty(0)})

    packed, _ = write(storage, 2, {"empty": torch.empty(0)}, [basis])

    assert [each.save_id.int for each in packed.packs] == [2]


def test_the_same_bytes_under_another_name_are_shared(storage):
    _, basis = write(storage, 1, {"encoder.weight": torch.arange(float(LARGE))})

    packed, _ = write(storage, 2, {"backbone": torch.arange(float(LARGE))}, [basis])

    assert new_bytes(packed, 2) == 0


@pytest.mark.parametrize("change", [0, LARGE // 2 + 7, LARGE - 1])
def test_a_single_changed_element_is_written_wherever_it_is(storage, change):
    state = {"w": torch.zeros(LARGE), "still": torch.ones(LARGE)}
    _, basis = write(storage, 1, state)
    state["w"][change] = 1

    packed, _ = write(storage, 2, state, [basis])

    assert new_bytes(packed, 2) == 4 * LARGE


@pytest.mark.parametrize(
    "turn",
    [
        lambda x: x.reshape(100, 20, 5, 5).to(memory_format=torch.channels_last),
        lambda x: x.reshape(500, 100).t(),
        lambda x: torch.cat([x, x])[::2],
        lambda x: torch.complex(x, x).conj(),
        lambda x: x[:1].expand(LARGE),
    ],
    ids=["channels last", "transposed", "every second", "conjugated", "expanded"],
)
def test_tensors_that_are_not_row_major_are_shared_too(storage, turn):
    tensor = turn(torch.arange(float(LARGE)))
    _, basis = write(storage, 1, {"w": tensor})

    packed, _ = write(storage, 2, {"w": tensor}, [basis])

    assert new_bytes(packed, 2) == 0


def test_what_a_step_changed_is_hashed_while_it_is_written(storage, monkeypatch):
    state = numbered(3)
    _, basis = write(storage, 1, state)
    hashed = []
    monkeypatch.setattr(reuse, "tensor_digest", hashed.append)
    changed = {name: tensor + 1000 for name, tensor in state.items()}

    look_up(capture({"model": changed})[0], [basis])

    assert not hashed


def test_a_version_read_from_the_storage_has_no_samples_so_all_is_hashed(storage):
    state = numbered(2)
    packed, _ = write(storage, 1, state)
    basis = basis_of(Parent("digits", 1, UUID(int=1)), packed.packs, packed.parts)

    packed, _ = write(storage, 2, state, [basis])

    assert new_bytes(packed, 2) == 0


# ------------------------------------------------------------------------------ what may be shared


def test_a_pack_that_is_gone_or_cut_short_is_not_named(storage):
    state = numbered(2)
    _, basis = write(storage, 1, state)
    path = storage._path(pack_key(UUID(int=1), 0))

    path.write_bytes(path.read_bytes()[:-1])
    cut, _ = write(storage, 2, state, [basis])
    path.unlink()
    gone, _ = write(storage, 3, state, [basis])

    assert new_bytes(cut, 2) == new_bytes(gone, 3) == 8 * LARGE


def test_a_storage_that_fails_is_not_taken_for_a_pack_that_is_gone(storage):
    state = numbered(1)
    _, basis = write(storage, 1, state)

    with pytest.raises(StorageError):
        write(Failing(storage, 1, fault=lost, only={"size_bytes"}), 2, state, [basis])


def test_little_is_not_shared_out_of_a_large_pack():
    large, small = pack(1, size=8000), pack(2, size=8000)

    chosen = choose([Place(large, 5000, 999), Place(small, 5000, 1000)])

    assert chosen == [small]
    assert LEAST_SHARE == 1 / 8


def test_a_stretch_named_twice_counts_once():
    assert choose([Place(pack(1, size=8000), 5000, 600)] * 2) == []


def test_no_version_is_spread_over_more_packs_than_the_rule_says():
    places = [Place(pack(n, size=n), DATA_ALIGNMENT, n) for n in range(1, MAX_FOREIGN_PACKS + 2)]

    assert len(choose(places[:MAX_FOREIGN_PACKS])) == MAX_FOREIGN_PACKS
    chosen = choose(places)
    assert len(chosen) == KEPT_FOREIGN_PACKS
    assert {each.save_id.int for each in chosen} == {
        each.pack.save_id.int for each in places[-KEPT_FOREIGN_PACKS:]
    }


def test_however_a_run_thaws_its_packs_stay_few(storage):
    state, bases = numbered(40), []
    for number in range(1, 40):
        state[f"w{number}"] = state[f"w{number}"] + 1000
        packed, basis = write(storage, number, state, bases)
        bases = [basis]
        foreign = [each for each in packed.packs if each.save_id.int != number]
        assert len(foreign) <= MAX_FOREIGN_PACKS
    assert number == 39


def test_what_cannot_be_shared_where_it_lies_moves_to_a_pack_of_its_own(storage):
    frozen = {"frozen": torch.ones(OWN_PACK_BYTES // 4)}
    training = torch.zeros(OWN_PACK_BYTES * 4)
    _, basis = write(storage, 1, frozen | {"w": training})

    second, basis = write(storage, 2, frozen | {"w": training + 1}, [basis])
    third, _ = write(storage, 3, frozen | {"w": training + 2}, [basis])

    assert [each.save_id.int for each in second.packs] == [2, 2]
    assert new_bytes(third, 3) == training.nbytes
    assert len(third.packs) == 2


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 20), st.integers(1, 5000)), max_size=60)
)
def test_the_rule_holds_whatever_is_shared(found):
    sizes = {number: 10_000 for number, _, _ in found}
    places = [
        Place(pack(number, sizes[number]), DATA_ALIGNMENT + 5000 * at, length)
        for number, at, length in found
    ]

    chosen = choose(places)

    assert len(chosen) <= MAX_FOREIGN_PACKS
    for each in chosen:
        used = {
            (place.start, place.length) for place in places if place.pack.save_id == each.save_id
        }
        assert sum(length for _, length in used) >= LEAST_SHARE * 10_000
