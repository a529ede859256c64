"""A part's state as it was chosen: the keys, what of a module may stay, what was converted."""

from __future__ import annotations

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import ArgumentError, IntegrityError
from ckptstore.loading.choice import choice_of
from ckptstore.loading.chosen import begin_state, chosen_state
from ckptstore.manifest import open_manifest
from ckptstore.storage.opening import open_storage
from tests.loading.forging import forge, packs_of
from tests.loading.trainings import Net, frozen


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "store")


def opened(url):
    return open_manifest(open_storage(url), "default", 1)


def test_all_of_a_part_leaves_nothing_to_be_left(url):
    model = Net()
    Store(url).save(model)
    chosen = chosen_state(opened(url), "model")

    assert frozen(dict(chosen.state)) == frozen(dict(model.state_dict()))
    assert chosen.leave is None
    assert not chosen.is_partial
    assert chosen.stored == ()


def test_some_of_it_says_what_may_stay(url):
    Store(url).save(Net())
    chosen = chosen_state(opened(url), "model", choice_of(only="first", rename={"first": "one"}))

    assert list(chosen.state) == ["one.weight", "one.bias"]
    assert chosen.is_partial
    assert chosen.leave.wants("one.new")
    assert not chosen.leave.wants("last.weight")
    assert "one" in chosen.state._metadata


def test_what_was_left_out_has_its_name_in_the_module(url):
    Store(url).save(Net(), only="last")
    chosen = chosen_state(opened(url), "model", choice_of(rename={"first.": "one."}))

    assert {"one.weight", "one.bias"} <= chosen.leave.left_out.keys()
    assert chosen.leave.strict


def test_what_was_converted_is_said(url):
    Store(url).save(Net(), dtype={"model": torch.float16})
    chosen = chosen_state(opened(url), "model")

    assert chosen.stored == ("float16",)
    assert chosen.state["first.weight"].dtype == torch.float32


def test_a_part_that_is_no_dict_has_no_keys(url):
    Store(url).save(Net(), extra=[1, 2])
    with pytest.raises(ArgumentError, match="is no state dict"):
        chosen_state(opened(url), "extra", choice_of(only="a"))


def test_an_entry_that_is_none_is_still_refused(url):
    Store(url).save(Net())

    def spoil(_head, parts):
        parts["model"]["tree"]["$OrderedDict"].append(["alone"])

    forge(url, "default", spoil)
    with pytest.raises(IntegrityError, match="its tree is not what ckptstore writes"):
        chosen_state(opened(url), "model", choice_of(only="first"))


@pytest.mark.parametrize("kind", ["composite", "stored in another dtype"])
def test_values_are_made_of_checked_tensors(url, kind):
    """Indices that were damaged could crash torch before anybody compared them."""
    composite = kind == "composite"
    state = {"w": torch.eye(64).to_sparse() if composite else torch.eye(64)}
    Store(url).save(state, rng=False, dtype=None if composite else {"model": torch.float16})
    (path,) = packs_of(url, "default")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(IntegrityError, match="is damaged"):
        begin_state(opened(url), "model", map_files=True)
