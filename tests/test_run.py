"""A run has the store's verbs with its own name and settings filled in."""

from __future__ import annotations

import warnings

import pytest
from torch import nn

from ckptstore import Store
from ckptstore.errors import (
    ArgumentError,
    InvalidNameError,
    RunNotFoundError,
    SettingsWarning,
    VersionNotFoundError,
)
from tests.loading.trainings import Needy, Net, Training, same


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def run(store):
    return store.run("sweep/a", monitor="acc", mode="max")


def test_making_one_creates_nothing(store, run, tmp_path):
    assert repr(run) == f"Store({store.url!r}).run('sweep/a')"
    assert run.name == "sweep/a"
    assert list(tmp_path.iterdir()) == []


def test_every_verb_is_about_this_run(store, run):
    store.save(Net(), run="other", acc=9.0)
    models = [Net(), Net(5), Net(6)]
    for model, acc in zip(models, [0.1, 0.9, 0.5], strict=True):
        run.save(model, acc=acc)
    run.tag(1, "first")

    assert [each.ref for each in run.history()] == ["sweep/a@1", "sweep/a@2", "sweep/a@3"]
    assert run.best().version == 2
    assert run.latest().version == 3
    assert same(run.load_best(Net, device="cpu"), models[1])
    assert same(run.load_latest(Net, device="cpu"), models[2])
    assert same(run.load(Net, "@first", device="cpu"), models[0])
    run.untag("first")
    with pytest.raises(VersionNotFoundError, match="its tags: none"):
        run.get("@first")


@pytest.mark.parametrize(
    ("ref", "version"),
    [(1, 1), ("1", 1), ("@1", 1), ("best", 2), ("@best", 2), ("latest", 3), ("prod", 1),
     ("@prod", 1), ("sweep/a@2", 2), ("sweep/a@best", 2)],
)  # fmt: skip
def test_refs_may_leave_the_run_out(run, ref, version):
    for acc in (0.1, 0.9, 0.5):
        run.save(Net(), acc=acc)
    run.tag(1, "prod")

    assert run.get(ref).version == version


def test_its_tags_are_its_own(store, run):
    run.save(Net())
    store.save(Net(), run="other")
    run.tag("latest", "prod")

    assert store.get("sweep/a@prod").version == 1
    with pytest.raises(VersionNotFoundError, match="run 'other' has no tag 'prod'"):
        store.get("other@prod")


def test_settings_are_recorded_and_shared(store, run):
    for acc in (0.1, 0.9, 0.5):
        run.save(Net(), acc=acc, val_loss=acc)

    assert Store(store.url).best().version == 2
    assert Store(store.url).run("sweep/a").best().version == 2
    assert Store(store.url).load_best(Net, device="cpu") is not None


def test_other_settings_are_recorded_again_with_a_warning(store, run):
    run.save(Net(), acc=0.1, val_loss=1.0)
    again = store.run("sweep/a", monitor="val_loss", mode="min")
    with pytest.warns(SettingsWarning, match=r"were monitor='acc', mode='max' and are now"):
        again.save(Net(), acc=0.2, val_loss=2.0)

    assert Store(store.url).best().version == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.save(Net(), acc=0.2, val_loss=2.0)


def test_constructor_arguments_of_a_run_go_with_every_version(store):
    run = store.run("digits", model_config={"width": 3}, config={"lr": 0.1})
    checkpoint = run.save(Needy(3))

    assert checkpoint.model_config == {"width": 3}
    assert checkpoint.config == {"lr": 0.1}
    assert run.save(Needy(4), model_config={"width": 4}).model_config == {"width": 4}
    assert run.load(Needy, 1, device="cpu").fc.out_features == 3


def test_a_loop_over_a_run_reads_well(run):
    done = []
    for _ in range(2):
        training = Training()
        for epoch in range(run.resume(**training.parts()).next_epoch, 3):
            done.append(epoch)
            run.save(**training.parts(), epoch=epoch)
            if len(done) == 2:
                break

    assert done == [0, 1, 2]


@pytest.mark.parametrize("name", ["..", "a//b", "", "a b", "a@1", "nul", "x" * 121, "*", None, 3])
def test_names_outside_the_grammar_are_refused(store, name):
    with pytest.raises(InvalidNameError):
        store.run(name)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"monitor": "acc"}, "needs mode='min'"),
        ({"monitor": "acc", "mode": "up"}, "mode='up': say 'min'"),
        ({"monitor": 3, "mode": "min"}, "takes the name of a metric"),
        ({"monitor": "", "mode": "min"}, "takes the name of a metric"),
        ({"config": [1]}, "config takes a dict"),
    ],
)
def test_unusable_settings_are_refused(store, options, said):
    with pytest.raises(ArgumentError, match=said):
        store.run("digits", **options)


def test_a_run_that_is_not_there_says_so(store, run):
    store.save(Net(), run="other")

    for ask in (run.best, run.latest, run.history, lambda: run.get(1)):
        with pytest.raises(RunNotFoundError, match="no run 'sweep/a'; runs: 'other'"):
            ask()


def test_a_package_of_a_live_module_has_the_runs_config(store):
    run = store.run("digits", config={"lr": 0.1}, monitor="acc", mode="max")
    package = run.save_package(Needy(3), model_config={"width": 3})
    assert package.config == {"lr": 0.1}

    run.save(Needy(3), model_config={"width": 3}, config={"lr": 0.2}, acc=1.0)
    assert run.save_package("@best").config == {"lr": 0.2}


def test_its_packages_are_its_own(store, run):
    config = {"in_features": 4, "out_features": 3}
    store.save(nn.Linear(4, 3), epoch=0, model_config=config)
    run.save(nn.Linear(4, 3), epoch=0, acc=0.5, model_config=config)

    package = run.save_package("@best", class_names=["a", "b", "c"], sample=[0.0] * 4)

    assert (package.run, package.parent) == (run.name, f"{run.name}@1")
    assert run.load_package(nn.Linear) == run.load_package(nn.Linear, 2) == package
