"""The facade: each verb finds the version that is meant and hands back what was saved."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import (
    ArgumentError,
    FallbackWarning,
    IntegrityError,
    InvalidNameError,
    MismatchError,
    RunNotFoundError,
    VersionNotFoundError,
)
from tests.loading.forging import packs_of
from tests.loading.trainings import Net, Training, same

WIDTHS = {1: 4, 2: 5, 3: 6}
LOSSES = {1: 0.5, 2: 0.1, 3: 0.3}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", run="digits")


@pytest.fixture
def filled(store):
    """Three versions of different widths; the second is the best, the first is tagged."""
    for version, width in WIDTHS.items():
        store.save(Net(width), epoch=version, val_loss=LOSSES[version])
    store.tag("digits@1", "prod")
    return store


def width(module):
    return module.first.out_features


REFS = {
    "digits": 3,
    "digits@1": 1,
    "digits@2": 2,
    "digits@best": 2,
    "digits@latest": 3,
    "digits@prod": 1,
    "@2": 2,
    "@best": 2,
    "@latest": 3,
    "@prod": 1,
    2: 2,
}


@pytest.mark.parametrize(("ref", "version"), REFS.items())
def test_load_takes_every_kind_of_ref(filled, ref, version):
    assert width(filled.load(Net, ref, device="cpu")) == WIDTHS[version]
    assert filled.get(ref).version == version


def test_best_and_latest_are_what_they_say(filled):
    assert width(filled.load_best(Net, device="cpu")) == 5
    assert width(filled.load_latest(Net, device="cpu")) == 6
    assert filled.best().version == 2
    assert filled.best(mode="max").version == 1
    assert filled.best(metric="val_loss").version == 2
    assert width(filled.load_best(Net, mode="max", device="cpu")) == 4
    assert filled.latest().version == 3


def test_a_fresh_process_finds_the_same(filled):
    again = Store(filled.url)

    assert again.best() == filled.best()
    assert again.get("@prod") == filled.get("digits@prod")
    assert width(again.load_best(Net, device="cpu")) == 5
    assert list(again.history()) == list(filled.history())


@pytest.mark.parametrize("verb", ["load_best", "load_latest"])
def test_options_reach_the_loading(store, verb):
    model, ema = Net(4), Net(7)
    store.save(model, ema=ema, val_loss=1.0)
    load = getattr(store, verb)

    assert same(load(Net, part="ema", device="cpu", mmap=False), ema)
    assert same(load(Net, model_config={"width": 4}, build="plain", device="cpu"), model)
    with pytest.raises(MismatchError):
        load(Net, model_config={"width": 9}, device="cpu")
    with pytest.raises(TypeError):
        load(Net, mapp=False)


def test_a_glob_finds_the_best_of_a_sweep(store):
    for run, loss in {"sweep/a": 0.3, "sweep/b": 0.1, "other": 0.0}.items():
        store.save(Net(4), run=run, val_loss=loss)

    assert store.best(run="sweep/*").ref == "sweep/b@1"
    assert store.load_best(Net, run="sweep/*", device="cpu") is not None
    with pytest.raises(RunNotFoundError, match=r"'sweep/\*' matches several runs"):
        store.latest(run="sweep/*")


def test_reading_without_a_run_means_the_only_one(store):
    store.save(Net(4), run="other", val_loss=1.0)
    assert store.latest().ref == "other@1"
    assert store.get("@latest").ref == "other@1"
    store.save(Net(4), run="third", val_loss=1.0)

    for ask in (store.latest, store.best, lambda: store.get("@latest"), lambda: store.get(1)):
        with pytest.raises(RunNotFoundError, match=r"several runs: .* 'other', 'third'"):
            ask()
    assert not store.resume(Net(4))  # which means the store's own run


def test_best_never_swaps_for_another_silently(filled):
    pack = packs_of(filled.url, "digits", 2)[0]
    pack.write_bytes(pack.read_bytes()[:-1])

    with pytest.raises(IntegrityError, match="digits@2"):
        filled.load_best(Net, device="cpu")
    assert width(filled.load_latest(Net, device="cpu")) == 6


def test_a_manifest_that_cannot_be_read_is_never_swapped_silently(filled, tmp_path):
    (tmp_path / "store" / "runs/digits/_versions/00000003.jsonl").write_bytes(b"torn")
    (tmp_path / "store" / "catalog.sqlite3").unlink()
    store = Store(filled.url)

    with pytest.raises(IntegrityError, match="digits@3 is damaged"):
        store.load_latest(Net, device="cpu")
    with pytest.warns(FallbackWarning, match="looked for without digits@3"):
        assert width(store.load_best(Net, device="cpu")) == 5


def test_the_stores_monitor_is_meant_and_recorded(tmp_path):
    store = Store(tmp_path / "store", monitor="acc", mode="max")
    for acc in (0.1, 0.9, 0.5):
        store.save(Net(4), acc=acc, val_loss=acc)

    assert store.best().version == 2
    assert Store(store.url).best().version == 2
    assert Store(store.url, monitor="val_loss", mode="min").best().version == 1
    assert Store(store.url, monitor="val_loss", mode="min").get("@best").version == 1


# ------------------------------------------------------------ tags


def test_tags_move_and_go(filled):
    assert filled.get("@prod").version == 1
    filled.tag("digits@best", "prod")
    assert filled.get("@prod").version == 2
    filled.tag(filled.latest(), "prod")
    assert filled.get("@prod").version == 3
    assert filled.get("@prod").tags == ("prod",)
    filled.untag("prod", run="digits")
    filled.untag("prod")

    with pytest.raises(VersionNotFoundError, match="no tag 'prod'; its tags: none"):
        filled.get("@prod")


@pytest.mark.parametrize("tag", ["best", "latest", "7", "a/b", "", "a b", "x@y", None, 7])
def test_names_that_no_tag_may_have_are_refused(filled, tag):
    with pytest.raises(InvalidNameError):
        filled.tag("digits@1", tag)
    with pytest.raises(InvalidNameError):
        filled.save(Net(4), tags=[tag])
    assert len(filled.history()) == 3


def test_a_tag_on_nothing_is_refused(filled):
    with pytest.raises(VersionNotFoundError, match="no version 9; the newest is 3"):
        filled.tag("digits@9", "prod")


@pytest.mark.parametrize("ref", ["", "a@", "a@@b", "..@1", "digits@0", "digits@-1", None, 0, True])
def test_what_is_no_ref_is_refused(filled, ref):
    with pytest.raises(InvalidNameError):
        filled.get(ref)


# ------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"monitor": "acc"}, "needs mode="),
        ({"mode": "most"}, "say 'min'"),
        ({"run": "a b"}, "no name for a run"),
    ],
)
def test_unusable_settings_are_refused_at_once(tmp_path, options, said):
    with pytest.raises((ArgumentError, InvalidNameError), match=said):
        Store(tmp_path / "store", **options)
    assert list(tmp_path.iterdir()) == []


def test_it_says_where_it_is(store, tmp_path):
    assert store.url == str(tmp_path / "store")
    assert repr(store) == f"Store({str(tmp_path / 'store')!r})"


def test_with_lets_go_and_it_can_be_used_again(store):
    with store as same_store:
        same_store.save(Net(4), val_loss=1.0)

    assert store.best().version == 1
    store.close()
    store.close()
    assert store.save(Net(4)).version == 2


def test_none_is_absent_everywhere(store):
    checkpoint = store.save(Net(4), None, scheduler=None, val_loss=None, epoch=None, extra=None)

    assert checkpoint.parts == ("model", "rng")
    assert checkpoint.metrics == {}
    assert store.resume(Net(4), None, scheduler=None)


def test_two_models_and_two_optimizers_come_back(store):
    generator, critic = nn.Linear(3, 2), nn.Linear(2, 1)
    g_opt, c_opt = torch.optim.Adam(generator.parameters()), torch.optim.Adam(critic.parameters())
    parts = {"generator": generator, "critic": critic, "g_optimizer": g_opt, "c_optimizer": c_opt}
    for module in (generator, critic):
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
    g_opt.step()
    c_opt.step()
    with pytest.warns(UserWarning, match="Linear needs"):
        store.save(**parts, val_loss=1.0)
    others = {"generator": nn.Linear(3, 2), "critic": nn.Linear(2, 1)}
    others["g_optimizer"] = torch.optim.Adam(others["generator"].parameters())
    others["c_optimizer"] = torch.optim.Adam(others["critic"].parameters())
    store.resume(**others)

    assert same(others["generator"], generator)
    assert same(others["critic"], critic)
    loaded = store.load_best(lambda: nn.Linear(2, 1), part="critic", device="cpu")
    assert same(loaded, critic)


def test_a_training_can_be_forked_from_a_version_of_another_run(store):
    training = Training()
    training.epoch()
    training.save(store, run="first")
    training.save(store, run="second", parent="first@1")

    assert store.get("second@1").parent == "first@1"
