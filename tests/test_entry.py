"""What a version knows of itself, without a weight being read."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
import torch

import ckptstore
from ckptstore import Store
from ckptstore.errors import StorageError, VersionNotFoundError
from ckptstore.storage.local import LocalStorage
from tests.loading.storages import Watched, store_on
from tests.loading.trainings import Net, Training, frozen


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def checkpoint(store):
    training = Training()
    training.epoch()
    return training.save(
        store,
        epoch=3,
        step=300,
        val_loss=0.25,
        acc=math.nan,
        config={"lr": 0.1, "betas": (0.9, 0.99), "inf": math.inf},
        extra={"note": "é"},
        tags=["prod"],
    )


def test_it_knows_its_facts(checkpoint):
    assert repr(checkpoint).startswith("<Checkpoint default@1 epoch=3 step=300 val_loss=0.25")
    assert (checkpoint.ref, checkpoint.run, checkpoint.version) == ("default@1", "default", 1)
    assert (checkpoint.epoch, checkpoint.step) == (3, 300)
    assert checkpoint.metrics["val_loss"] == 0.25
    assert math.isnan(checkpoint.metrics["acc"])
    assert checkpoint.config == {"lr": 0.1, "betas": (0.9, 0.99), "inf": math.inf}
    assert checkpoint.model_config == {"width": 8, "classes": 3}
    assert checkpoint.parts == ("model", "optimizer", "scheduler", "extra", "rng")
    assert checkpoint.tags == ("prod",)
    assert checkpoint.parent is None
    assert checkpoint.torch_version == torch.__version__
    assert checkpoint.environment["ckptstore"] == ckptstore.__version__
    assert timedelta() <= datetime.now(UTC) - checkpoint.created_at < timedelta(minutes=5)
    assert checkpoint.extra == {"note": "é"}


def test_looked_up_it_is_the_same(store, checkpoint):
    found = store.get("@prod")

    assert found == checkpoint
    assert hash(found) == hash(checkpoint)
    assert found.metadata == checkpoint.metadata
    assert found.tags == ("prod",)
    assert found != store.save(Net())
    assert found != "default@1"


def test_another_store_has_other_versions(checkpoint, tmp_path):
    other = Store(tmp_path / "other").save(Net())

    assert other.ref == checkpoint.ref
    assert other != checkpoint


def test_sizes_are_of_tensors_and_of_what_was_written(store, checkpoint):
    model = sum(t.nbytes for t in checkpoint.state("model").values())
    packs = sum(path.stat().st_size for path in (store._storage._root / "packs").rglob("*-*"))

    assert checkpoint.metadata["parts"]["model"]["size_bytes"] == model
    assert checkpoint.size_bytes >= model
    assert checkpoint.new_bytes == packs


def test_a_parent_is_named(store, checkpoint):
    assert store.save(Net()).parent == "default@1"
    assert store.save(Net(), run="other", parent=checkpoint).parent == "default@1"
    assert store.save(Net(), run="third", parent="other@1").parent == "other@1"


def test_metadata_is_plain_json_and_reads_no_weight(checkpoint, tmp_path):
    storage = Watched(LocalStorage(tmp_path / "store"))
    found = store_on(storage).get(checkpoint.ref)
    text = json.dumps(found.metadata, allow_nan=False)

    assert json.loads(text) == found.metadata
    assert found.metadata["config"]["betas"] == {"$tuple": [0.9, 0.99]}
    assert found.metadata["parts"]["optimizer"]["class"] == "torch.optim.adamw.AdamW"
    assert not [key for key in storage.bytes_read if key.startswith("packs/")]


def test_metadata_can_be_written_to_a_file(checkpoint, tmp_path):
    path = tmp_path / "deep" / "metadata.json"
    checkpoint.write_metadata(str(path))
    checkpoint.write_metadata(str(path))

    assert json.loads(path.read_text()) == checkpoint.metadata
    assert [each.name for each in path.parent.iterdir()] == ["metadata.json"]


def test_metadata_that_cannot_be_written_says_where(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        checkpoint.write_metadata(str(tmp_path / "file" / "metadata.json"))


def test_changing_what_it_gave_changes_nothing(checkpoint):
    checkpoint.metrics["val_loss"] = 7
    checkpoint.config["lr"] = 7
    checkpoint.model_config["width"] = 7
    checkpoint.environment["torch"] = "7"

    assert checkpoint.metrics["val_loss"] == 0.25
    assert checkpoint.config["lr"] == 0.1
    assert checkpoint.model_config["width"] == 8
    assert checkpoint.torch_version == torch.__version__


def test_state_is_what_state_dict_gave(store):
    training = Training()
    training.epoch()
    checkpoint = training.save(store)

    for name, part in training.parts().items():
        assert frozen(dict(checkpoint.state(name))) == frozen(dict(part.state_dict()))
    with pytest.raises(VersionNotFoundError, match="no part 'ema'"):
        checkpoint.state("ema")


def test_what_was_not_given_is_none(store):
    checkpoint = store.save({"w": torch.ones(1)}, rng=False)

    for name in ("epoch", "step", "config", "model_config", "parent", "extra"):
        assert getattr(checkpoint, name) is None, name
    assert checkpoint.metrics == {}
    assert checkpoint.tags == ()
