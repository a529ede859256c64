"""A training that was cut off goes on as if nothing had happened."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import (
    ArgumentError,
    CatalogWarning,
    FallbackWarning,
    IntegrityError,
    MismatchError,
    NewerFormatError,
    StateWarning,
    StorageError,
    VersionNotFoundError,
)
from ckptstore.storage.local import LocalStorage
from tests.loading.forging import forge, manifest_of, packs_of
from tests.loading.storages import Watched, failing, store_on
from tests.loading.trainings import Net, Training, everything, frozen, generators


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


def trained(folder, epochs=3, **facts):
    """Save a version an epoch. Return what everything was at the end of each."""
    store, training, states = Store(folder), Training(), []
    for epoch in range(epochs):
        training.epoch()
        training.save(store, epoch=epoch, step=10 * epoch, **facts)
        states.append(everything(training))
    return states


def tensors_of(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in tensors_of(item)]
    return [tensor for item in value for tensor in tensors_of(item)] if type(value) is list else []


def damage(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# ------------------------------------------------------------ going on


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("cut_after", [1, 2, 3])
def test_a_resumed_training_ends_with_the_same_bits(folder, kind, cut_after):
    whole = Training(kind)
    losses = [whole.epoch() for _ in range(4)]

    first = Training(kind)
    with Store(folder) as store:
        for epoch in range(cut_after):
            first.epoch()
            first.save(store, epoch=epoch)
    torch.rand(100)  # whatever came between

    second = Training(kind, seed=9)
    resumed = second.resume(Store(folder))
    again = [second.epoch() for _ in range(resumed.next_epoch, 4)]

    assert resumed.next_epoch == cut_after
    assert again == losses[cut_after:]
    assert everything(second) == everything(whole)


def test_the_loop_reads_well(folder):
    done = []
    for _ in range(2):
        training, store = Training(), Store(folder)
        for epoch in range(training.resume(store).next_epoch, 3):
            done.append(epoch)
            training.save(store, epoch=epoch)
            if len(done) == 2:
                break

    assert done == [0, 1, 2]


def test_what_was_resumed_is_told(folder):
    trained(folder, extra={"order": [2, 1], "t": torch.ones(2)})
    store = Store(folder)
    store.tag("default@3", "prod")
    resumed = Training(seed=1).resume(store)

    assert resumed
    assert repr(resumed) == "<Resumed default@3>"
    assert resumed.checkpoint == store.latest()
    assert resumed.checkpoint.tags == ("prod",)
    assert (resumed.next_epoch, resumed.step) == (3, 20)
    assert resumed.extra["order"] == [2, 1]
    assert resumed.extra is resumed.extra
    assert resumed.audit.restored == ("model", "optimizer", "scheduler", "rng")
    assert resumed.audit.environment == {}


def test_where_there_is_nothing_the_answer_is_falsy_and_nothing_is_made(folder):
    training = Training()
    before = everything(training)
    resumed = training.resume(Store(folder))

    assert not resumed
    assert repr(resumed) == "<Resumed nothing>"
    assert (resumed.next_epoch, resumed.step, resumed.extra, resumed.audit) == (0, None, None, None)
    assert everything(training) == before
    assert not folder.exists()


def test_a_run_without_versions_beside_others_is_falsy(folder):
    trained(folder, 1)

    assert not Training().resume(Store(folder), run="other")


def test_a_version_without_an_epoch_says_so(folder):
    training, store = Training(), Store(folder)
    training.save(store, step=7)
    resumed = training.resume(store)

    assert resumed.step == 7
    with pytest.raises(ArgumentError, match=r"saved without epoch=.*use .step or .extra"):
        _ = resumed.next_epoch


def test_what_is_saved_next_is_a_child_of_what_was_resumed(folder):
    trained(folder, 2)
    store, training = Store(folder), Training()
    training.resume(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the run is this process's own now
        checkpoint = training.save(store)

    assert checkpoint.parent == "default@2"


def test_packages_are_no_checkpoints_to_resume(folder):
    trained(folder, 1)
    store = Store(folder)
    store.save_package("default@1")

    assert Training().resume(store).checkpoint.ref == "default@1"


def test_generators_are_left_when_asked(folder):
    trained(folder, 1)
    training = Training(seed=3)
    before = generators()
    resumed = training.resume(Store(folder), rng=False)

    assert generators() == before
    assert "rng" not in resumed.audit.restored


def test_generators_are_restored_last(folder):
    def draws(*_):
        torch.rand(5)

    store, model = Store(folder), Net()
    store.save(model)
    saved = torch.get_rng_state()
    model.register_load_state_dict_post_hook(draws)
    torch.rand(3)
    store.resume(model)

    assert torch.equal(torch.get_rng_state(), saved)


def test_state_that_is_there_and_was_not_asked_for_is_told(folder):
    trained(folder, 1)
    resumed = Store(folder).resume(Net())

    assert resumed.audit.not_asked_for == ("optimizer", "scheduler")


def test_a_machine_that_differs_is_told(folder, monkeypatch):
    trained(folder, 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    resumed = Training().resume(Store(folder))

    assert resumed.audit.environment["threads"][1] == 77


@pytest.mark.parametrize("epochs", [0, 1])
def test_training_memory_is_never_mapped(folder, epochs):
    """Whether the optimizer has state of its own already, or takes what is read."""
    trained(folder, 1)
    training, storage = Training(), Watched(LocalStorage(folder))
    for _ in range(epochs):
        training.epoch()
    training.resume(store_on(storage))

    held = [*training.model.state_dict().values(), *tensors_of(training.optimizer.state_dict())]
    assert storage.mapped != []
    assert not any(map(storage.lies_in_a_map, held))


# ------------------------------------------------------------ damage


def fell_back(folder, states, *refs):
    training = Training(seed=5)
    with pytest.warns(FallbackWarning) as caught:
        resumed = training.resume(Store(folder))
    (message,) = [
        str(warning.message) for warning in caught if warning.category is not CatalogWarning
    ]

    assert everything(training) == states[resumed.checkpoint.version - 1]
    for ref in refs:
        assert f"- {ref}: " in message
    assert f"resuming from {resumed.checkpoint.ref}" in message
    return resumed


@pytest.mark.parametrize("part", [0, 1], ids=["model", "optimizer"])
def test_a_damaged_version_is_passed_over_and_named(folder, part):
    states = trained(folder)
    damage(packs_of(folder, "default", 3)[part])

    assert fell_back(folder, states, "default@3").checkpoint.ref == "default@2"


def test_damage_of_what_was_saved_as_extra_is_passed_over_too(folder):
    store, training = Store(folder), Training()
    for epoch in range(3):
        training.epoch()
        extra = {"buffer": torch.full((9,), float(epoch))}
        training.save(store, epoch=epoch, step=10 * epoch, extra=extra)
    damage(packs_of(folder, "default", 3)[2])

    with pytest.warns(FallbackWarning, match="default@3"):
        resumed = Training().resume(Store(folder))

    assert torch.equal(resumed.extra["buffer"], torch.ones(9))


def test_damage_of_what_all_versions_share_leaves_nothing_to_resume_from(folder):
    trained(folder, extra={"buffer": torch.ones(9)})
    damage(packs_of(folder, "default", 3)[2])

    with pytest.raises(IntegrityError, match=r"default@3[\s\S]*default@1"):
        Training().resume(Store(folder))


@pytest.mark.filterwarnings("ignore:.*indexed anew:ckptstore.errors.CatalogWarning")
@pytest.mark.parametrize("cut", [0, 10, 500, -100, -3000])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_damaged_manifest_is_passed_over(folder, cut, indexed):
    states = trained(folder)
    if not indexed:
        (folder / "catalog.sqlite3").unlink()
    path = manifest_of(folder, "default", 3)
    path.write_bytes(path.read_bytes()[:cut])

    assert fell_back(folder, states, "default@3").checkpoint.ref == "default@2"


def test_a_manifest_that_is_gone_is_passed_over(folder):
    trained(folder)
    manifest_of(folder, "default", 3).unlink()
    training = Training()

    with pytest.warns(CatalogWarning, match=r"00000003\.jsonl, the last version indexed, is gone"):
        resumed = training.resume(Store(folder))

    assert resumed.checkpoint.ref == "default@2"


def test_several_damaged_versions_are_all_named(folder):
    states = trained(folder)
    damage(packs_of(folder, "default", 3)[0])
    packs_of(folder, "default", 2)[1].unlink()

    fell_back(folder, states, "default@3", "default@2")


def test_damage_of_what_is_not_asked_for_does_not_matter(folder):
    trained(folder)
    damage(packs_of(folder, "default", 3)[1])
    model = Net()
    resumed = Store(folder).resume(model)

    assert resumed.checkpoint.ref == "default@3"


def test_if_all_are_damaged_it_raises_and_touches_nothing(folder):
    trained(folder)
    for version in (1, 2, 3):
        damage(packs_of(folder, "default", version)[0])
    training = Training(seed=5)
    before = everything(training)

    with pytest.raises(IntegrityError, match="no checkpoint to resume from is intact") as caught:
        training.resume(Store(folder))
    assert everything(training) == before
    for version in (1, 2, 3):
        assert f"default@{version}: " in str(caught.value)


# ------------------------------------------------------------ what is no damage


def raises_and_touches_nothing(store, error, match, **options):
    training = Training(seed=5)
    training.epoch()
    before = everything(training)
    with pytest.raises(error, match=match):
        training.resume(store, **options)
    assert everything(training) == before


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("read_into", "packs/"),
        ("size_bytes", "packs/"),
        ("read_start", "_versions/00000003"),
        ("read_many", "_versions/"),
        ("read", "ckptstore.json"),
    ],
)
def test_a_storage_that_fails_is_not_passed_over(folder, method, key):
    trained(folder)
    storage = Watched(LocalStorage(folder), failing(method, key))

    raises_and_touches_nothing(store_on(storage), StorageError, "no connection")


def test_a_permission_that_lacks_is_not_passed_over(folder, monkeypatch):
    trained(folder)

    def denied(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    store = Store(folder)
    store.latest()
    monkeypatch.setattr("ckptstore.storage.local.os.open", denied)
    raises_and_touches_nothing(store, StorageError, "permission denied")


def test_a_newer_version_is_not_passed_over(folder):
    trained(folder)
    forge(folder, "default", lambda head, _: head.update(format=2), version=3)
    (folder / "catalog.sqlite3").unlink()

    raises_and_touches_nothing(Store(folder), NewerFormatError, "upgrade")


def test_a_mismatch_is_not_passed_over(folder):
    trained(folder)
    training = Training(seed=5)
    training.model.last = nn.Linear(8, 4)
    before = frozen(training.model.state_dict())

    with pytest.raises(MismatchError, match=r"'last.weight' is shape \[4, 8\]"):
        training.resume(Store(folder))
    assert frozen(training.model.state_dict()) == before


def test_a_part_that_was_not_saved_is_not_passed_over(folder):
    trained(folder)
    training, ema = Training(seed=5), Net()
    before = everything(training)

    with pytest.raises(VersionNotFoundError, match="default@3 has no part 'ema'; it has 'model'"):
        training.resume(Store(folder), ema=ema)
    assert everything(training) == before


@pytest.mark.parametrize("wrong", [Net, {"w": 1}, 3, "model"])
def test_what_is_no_part_is_refused(folder, wrong):
    trained(folder, 1)

    with pytest.raises(ArgumentError, match=r"resume\(model=…\)"):
        Store(folder).resume(wrong)


def test_a_scheduler_left_out_of_a_training_is_warned_of(folder):
    trained(folder)
    training = Training()

    with pytest.warns(StateWarning, match=r"default@3 without 'scheduler', saved with it"):
        Store(folder).resume(training.model, training.optimizer)


# ------------------------------------------------------------ parts that were not saved


def test_a_part_that_was_not_saved_is_left_as_it_is_where_one_is_not_strict(folder):
    trained(folder)
    training = Training(seed=1)
    ema = Net()
    before = frozen(ema.state_dict())
    told = r"^resumed default@3 without 'ema', which it does not have: they are as they were"
    with pytest.warns(StateWarning, match=told) as caught:
        resumed = training.resume(Store(folder), ema=ema, strict=False)

    assert len(caught) == 1
    assert resumed.audit.not_saved == ("ema",)
    assert resumed.audit.restored == ("model", "optimizer", "scheduler", "rng")
    assert frozen(ema.state_dict()) == before
    assert "not saved, left as they are: ema" in str(resumed.audit)


def test_where_one_is_strict_the_error_says_how_not_to_be(folder):
    trained(folder, 1)
    training, ema = Training(seed=1), Net()
    before = everything(training)
    with pytest.raises(VersionNotFoundError) as caught:
        training.resume(Store(folder), ema=ema, other=ema)

    assert str(caught.value) == (
        "default@1 has no part 'ema', 'other'; it has 'model', 'optimizer', 'scheduler', 'rng'. "
        "strict=False goes on without, and leaves the objects of parts it lacks as they are"
    )
    assert everything(training) == before


def test_generators_that_were_not_saved_are_in_the_audit_without_a_warning(folder):
    trained(folder, 1, rng=False)
    training = Training(seed=1)
    before = generators()
    resumed = training.resume(Store(folder))

    assert resumed.audit.not_saved == ("rng",)
    assert "rng" not in resumed.audit.restored
    assert generators() == before
    assert training.resume(Store(folder), rng=False).audit.not_saved == ()


class Elsewhere(nn.Module):
    """Has a buffer that is on another device than the rest, and is not saved."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_buffer("table", torch.ones(2, device="meta"), persistent=False)


def test_devices_are_compared_of_what_is_saved(folder):
    store = Store(folder)
    store.save(Elsewhere())

    assert store.resume(Elsewhere()).audit.environment == {}


def test_a_module_that_was_on_another_device_is_told(folder, monkeypatch):
    store = Store(folder)
    with monkeypatch.context() as patch:
        patch.setattr("ckptstore.saving.save.device_types", lambda _tensors: ["cuda"])
        store.save(Net(), ema=Net())

    assert store.resume(Net()).audit.environment == {
        "devices": ({"model": ["cuda"]}, {"model": ["cpu"]})
    }
