"""A package: what inference needs and nothing else, from a checkpoint, a ref or a live module."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from ckptstore import Checkpoint, Package, Store
from ckptstore.errors import (
    ArgumentError,
    IntegrityError,
    MismatchError,
    StateWarning,
    VersionNotFoundError,
)
from ckptstore.storage.local import LocalStorage
from tests.loading.forging import head_of, packs_of
from tests.loading.storages import Watched, store_on
from tests.loading.trainings import Needy, Net, Training, frozen, generators, same

NAMES = ["ant", "bee", "cat"]
STATISTICS = {"mean": [0.1, 0.2, 0.3, 0.4], "std": [1.0, 2.0, 3.0, 4.0]}
BATCH = np.random.default_rng(3).normal(size=(20, 4))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def checkpoint(store):
    training = Training()
    loss = training.epoch()
    return training.save(store, epoch=3, step=30, val_loss=loss, config={"lr": 0.1}, ema=Net(6))


def test_predictions_equal_the_recipe_by_hand(store, checkpoint):
    store.save_package(checkpoint, preprocessing=STATISTICS, class_names=NAMES)
    package = store.load_package(Net, device="cpu")

    model = checkpoint.load(Net, device="cpu")
    ready = (BATCH - np.array(STATISTICS["mean"])) / np.array(STATISTICS["std"])
    with torch.no_grad():
        scores = model(torch.from_numpy(ready).float())
    assert package.predict(BATCH) == [NAMES[index] for index in scores.argmax(1).tolist()]
    assert (package.predict_proba(BATCH) == torch.softmax(scores, 1).numpy()).all()
    assert package.predict(BATCH[0]) == package.predict(BATCH)[0]


def test_a_package_knows_what_it_holds(store, checkpoint):
    saved = store.save_package(
        checkpoint, preprocessing=STATISTICS, class_names=NAMES, tags=["prod"]
    )
    package = store.load_package(Net, "@prod", device="cpu")

    assert isinstance(package, Package)
    assert package == saved
    assert package.class_names == NAMES
    assert frozen(package.preprocessing) == frozen(
        {name: np.array(value) for name, value in STATISTICS.items()}
    )
    assert same(package.model, checkpoint.load(Net, device="cpu"))
    assert not package.model.training
    assert package.tags == ("prod",)
    assert (package.epoch, package.step, package.config) == (3, 30, {"lr": 0.1})
    assert package.metrics == checkpoint.metrics
    assert package.parent == checkpoint.ref


def test_it_holds_the_model_and_no_optimizer(store, checkpoint):
    package = store.save_package(checkpoint, preprocessing=STATISTICS)

    assert package.parts == ("model", "preprocessing")
    assert store.save_package(checkpoint).parts == ("model",)
    assert package.size_bytes < checkpoint.size_bytes


@pytest.mark.parametrize("source", ["default@1", "@1", 1, "default@latest"])
def test_a_ref_will_do(store, checkpoint, source):
    package = store.save_package(source)

    assert package.parent == checkpoint.ref
    assert package.ref == "default@2"


def test_a_live_module_will_do_and_is_left_as_it_is(store):
    model = Net(5).train()
    state, before = frozen(model.state_dict()), generators()
    store.save_package(model, preprocessing=STATISTICS, class_names=NAMES)

    assert model.training
    assert frozen(model.state_dict()) == state
    assert generators() == before
    assert same(store.load_package(Net, device="cpu").model, model)


def test_a_live_module_without_known_arguments_is_warned_of(store):
    with pytest.warns(StateWarning, match="Needy needs width"):
        store.save_package(Needy(3))
    with pytest.raises(ArgumentError, match="model_config="):
        store.load_package(Needy)
    assert store.load_package(Needy, model_config={"width": 3}).model.fc.out_features == 3


def test_given_arguments_are_recorded(store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.save_package(Needy(3), model_config={"width": 3})

    assert store.load_package(Needy, device="cpu").model.fc.out_features == 3


def test_another_part_can_be_the_model(store, checkpoint):
    store.save_package(checkpoint, part="ema")

    assert store.load_package(Net, device="cpu").model.first.out_features == 6


def test_a_part_that_is_no_module_is_refused(store, checkpoint):
    with pytest.raises(
        VersionNotFoundError, match=r"no module named 'optimizer'; it has 'model', "
    ):
        store.save_package(checkpoint, part="optimizer")
    with pytest.raises(VersionNotFoundError, match="no module named 'teacher'"):
        store.save_package(checkpoint, part="teacher")
    with pytest.raises(ArgumentError, match="a live module is the model itself"):
        store.save_package(Net(), part="ema")
    assert len(store.history()) == 1


@pytest.mark.parametrize("source", [{"w": 1}, Net, 3.5, None])
def test_what_is_neither_a_version_nor_a_module_is_refused(store, source):
    with pytest.raises(ArgumentError, match="takes a checkpoint, its ref or a module"):
        store.save_package(source)


def test_a_package_of_a_package_keeps_its_line(store, checkpoint):
    first = store.save_package(checkpoint, preprocessing=STATISTICS)
    second = store.save_package(first)

    assert second.parent == first.ref
    assert same(
        store.load_package(Net, second.ref, device="cpu").model,
        checkpoint.load(Net, device="cpu"),
    )


def test_it_goes_into_another_run_when_asked(store, checkpoint):
    package = store.save_package(checkpoint, run="production")

    assert package.ref == "production@1"
    assert package.parent == "default@1"
    assert store.load_package(Net, "production", device="cpu").ref == "production@1"


def test_a_package_made_in_another_process_warns_of_nothing(store, checkpoint):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Store(store.url).save_package(checkpoint.ref)


# ------------------------------------------------------------ loading


def test_packages_and_checkpoints_are_told_apart(store, checkpoint):
    with pytest.raises(VersionNotFoundError, match="has no package"):
        store.load_package(Net)
    store.save_package(checkpoint)
    with pytest.raises(VersionNotFoundError, match=r"default@1 is a checkpoint, not a package"):
        store.load_package(Net, "default@1")

    assert store.latest() == checkpoint
    assert store.best() == checkpoint
    assert store.load_package(Net, device="cpu").ref == "default@2"
    assert isinstance(store.get("default@1"), Checkpoint)
    assert isinstance(store.get("default@2"), Package)


def test_a_package_that_was_only_looked_up_says_how_to_load_it(store, checkpoint):
    store.save_package(checkpoint, class_names=NAMES)
    found = store.get("default@2")

    assert found.class_names == NAMES
    for verb in (
        lambda: found.model,
        lambda: found.preprocessing,
        lambda: found.predict([1, 2, 3, 4]),
    ):
        with pytest.raises(AttributeError, match=r"store.load_package\(ModelClass, 'default@2'\)"):
            verb()


def test_metadata_needs_no_weights(store, checkpoint, tmp_path):
    store.save_package(checkpoint, preprocessing=STATISTICS, class_names=NAMES)
    storage = Watched(LocalStorage(tmp_path / "store"))
    package = store_on(storage).get("default@2")
    metadata = package.metadata
    package.write_metadata(str(tmp_path / "metadata.json"))

    assert json.loads((tmp_path / "metadata.json").read_text()) == metadata
    assert metadata["package"]["class_names"] == NAMES
    assert metadata["package"]["sample_shape"] == [4]
    assert metadata["kind"] == "package"
    assert not [key for key in storage.bytes_read if key.startswith("packs/")]


def test_damage_in_a_package_is_found(store, checkpoint):
    store.save_package(checkpoint, preprocessing=STATISTICS)
    model, statistics = packs_of(store.url, "default", 2)
    for path, name in ((model, "model/"), (statistics, "preprocessing/")):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        # Another process each time: one that found it damaged passes the package over.
        with pytest.raises(IntegrityError, match=f"tensor '{name}"), Store(store.url) as other:
            other.load_package(Net, device="cpu")
        path.write_bytes(whole)


def test_a_package_of_a_wrong_class_lists_what_differs(store, checkpoint):
    store.save_package(checkpoint)
    with pytest.raises(MismatchError, match=r"'first.weight' .*was saved, and is not in"):
        store.load_package(lambda: nn.Linear(4, 3), device="cpu")


# ------------------------------------------------------------ what predict gets


def test_a_sample_fixes_the_shape_of_one(store):
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 6 * 6, 3))
    statistics = {"mean": np.full((3, 1, 1), 0.5), "std": np.full((3, 1, 1), 0.25)}
    store.save_package(
        model, preprocessing=statistics, class_names=NAMES, sample=np.zeros((3, 8, 8))
    )
    package = store.load_package(
        lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 3)), device="cpu"
    )
    image = np.random.default_rng(0).random((3, 8, 8))
    with torch.no_grad():
        scores = model.eval()(torch.from_numpy((image[None] - 0.5) / 0.25).float())

    assert package.predict(image) == NAMES[int(scores.argmax())]
    assert (package.predict_proba(image) == torch.softmax(scores, 1)[0].numpy()).all()
    with pytest.raises(ArgumentError, match=r"\(3, 8, 8\)"):
        package.predict(image[:, :4])


def test_a_model_of_tokens_is_known_by_its_sample(store):
    def build():
        return nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 3))

    model = build()
    store.save_package(model, class_names=NAMES, sample=[1, 2, 3])
    package = store.load_package(build, device="cpu")

    assert package.metadata["package"]["integers"] is True
    with torch.no_grad():
        index = int(model(torch.tensor([[4, 5, 6]])).argmax())
    assert package.predict([4, 5, 6]) == NAMES[index]


def test_integers_and_statistics_make_floats(store):
    store.save_package(
        Net(), preprocessing=STATISTICS, class_names=NAMES, sample=np.zeros(4, dtype=np.uint8)
    )
    package = store.load_package(Net, device="cpu")

    assert package.metadata["package"]["integers"] is False
    assert package.predict([1, 2, 3, 4]) in NAMES


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c", "d"]])
def test_another_number_of_names_is_noticed_at_the_first_prediction(store, names):
    store.save_package(Net(), preprocessing=STATISTICS, class_names=names)
    with pytest.raises(MismatchError, match=rf"\(1, {len(names)}\).* \(1, 3\)"):
        store.load_package(Net, device="cpu").predict([1, 2, 3, 4])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("abc", "takes a list with one name a class"),
        ({"a": 1}, "takes a list with one name a class"),
        (3, "takes a list with one name a class"),
        (["a", "a", "b"], "two classes have one name"),
        (["a", None], "named by a string or an int, not None"),
        (["a", 1.5], "named by a string or an int, not 1.5"),
        ([True, False], "named by a string or an int, not True"),
    ],
)
def test_names_that_name_nothing_are_refused(store, names, said):
    with pytest.raises(ArgumentError, match=said):
        store.save_package(Net(), class_names=names)
    assert not (store._storage.list_folder("packs").folders)


@pytest.mark.parametrize("names", [[3, 1, 2], np.array([3, 1, 2]), np.array(["x", "y", "z"]),
                                   ("x", "y", "z"), ["<b>", "é", "\u202e"]])  # fmt: skip
def test_names_are_kept_as_they_are(store, names):
    store.save_package(Net(), preprocessing=STATISTICS, class_names=names)
    package = store.load_package(Net, device="cpu")

    assert package.class_names == list(names)
    assert package.predict([1, 2, 3, 4]) in package.class_names


@pytest.mark.parametrize("std", [0.0, np.nan, np.inf, -1.0])
def test_unusable_statistics_are_refused_before_anything_is_written(store, checkpoint, std):
    statistics = {"mean": [0.0] * 4, "std": [1.0, std, 1.0, 1.0]}
    with pytest.raises(ArgumentError, match=r"column\(s\) 1"):
        store.save_package(checkpoint, preprocessing=statistics)
    assert len(store.history()) == 1


def test_the_head_says_what_the_package_holds(store, checkpoint):
    store.save_package(checkpoint, preprocessing=STATISTICS, class_names=NAMES)

    assert head_of(store.url, "default", 2).package == {
        "class_names": NAMES,
        "sample_shape": [4],
        "integers": False,
        "preprocessing": "statistics",
    }
