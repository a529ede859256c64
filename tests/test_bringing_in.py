"""The verbs that import, as users call them: old checkpoints in, trainings on."""

from __future__ import annotations

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import (
    ArgumentError,
    ImportRefusedError,
    InvalidNameError,
    NotFoundError,
    NotRankZeroError,
    UntrustedPickleError,
)
from tests.importing.files import Net, evil, full, same, trained
from tests.importing.lit import Lit, fitted


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as opened:
        yield opened


def test_a_run_fills_in_its_name_its_settings_and_its_arguments(tmp_path, store):
    torch.save({"model": Net(6).state_dict()}, tmp_path / "epoch1_acc0.5.pt")
    run = store.run("old", model_config={"width": 6}, config={"lr": 1}, monitor="acc", mode="max")
    checkpoint = run.import_file(tmp_path / "epoch1_acc0.5.pt", tags=["first"])
    assert (checkpoint.ref, checkpoint.config) == ("old@1", {"lr": 1})
    assert run.load_best(Net, device="cpu").first.out_features == 6
    assert run.tags() == {"first": "old@1"}
    torch.save({"model": Net(7).state_dict()}, tmp_path / "epoch2_acc0.4.pt")
    found = run.import_folder(tmp_path, pattern="*2*", model_config={"width": 7})
    assert [each.model_config for each in found] == [{"width": 7}]


def test_lightnings_files_are_imported_and_trained_on(tmp_path, store):
    folder = fitted(tmp_path / "lit")
    found = store.import_folder(folder, run="lit")
    assert [(each.epoch, each.step) for each in found] == [(0, 4), (1, 8), (2, 12)]
    assert found[0].imported_from.format == "lightning"
    module = store.load_best(Lit, run="lit", device="cpu")
    assert module.hparams.width == 5
    saved = torch.load(folder / found[-1].imported_from.name, weights_only=True)
    assert same(dict(found[-1].state("model")), dict(saved["state_dict"]))
    optimizer = torch.optim.AdamW(module.parameters())
    steps = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert store.resume(module, optimizer, scheduler=steps, run="lit").next_epoch == 3
    assert steps.state_dict() == saved["lr_schedulers"][0]
    assert same(optimizer.state_dict()["state"], saved["optimizer_states"][0]["state"])
    inner = store.import_file(
        folder / found[-1].imported_from.name, run="inner", rename={"model.": ""}
    )
    assert list(inner.state("model")) == list(module.model.state_dict())
    assert inner.model_config is None


def test_a_whole_pickled_model_is_imported_by_whoever_trusts_it(tmp_path, store):
    model = trained()[0]
    torch.save(model, tmp_path / "whole.pt")
    with pytest.raises(UntrustedPickleError) as caught:
        store.import_file(tmp_path / "whole.pt", run="w")
    assert "tests.importing.files.Net" in caught.value.names
    checkpoint = store.import_file(tmp_path / "whole.pt", run="w", trust_pickle=True)
    assert checkpoint.metadata["parts"]["model"]["class"] == "tests.importing.files.Net"
    assert same(dict(checkpoint.load(Net, device="cpu").state_dict()), dict(model.state_dict()))


@pytest.mark.parametrize("name", ["os.system", "nested"])
def test_what_would_do_harm_is_refused_and_nothing_is_written(tmp_path, store, name):
    canary = tmp_path / "canary"
    torch.save(evil(canary)[name], tmp_path / "x.pth")
    with pytest.raises(UntrustedPickleError):
        store.import_file(tmp_path / "x.pth")
    assert not canary.exists()
    assert not (tmp_path / "store").exists()


def test_a_refused_call_touches_nothing(tmp_path, store):
    torch.save(full(), tmp_path / "x.pth")
    with pytest.raises(NotFoundError):
        store.import_file(tmp_path / "gone.pth")
    with pytest.raises(NotFoundError):
        store.import_folder(tmp_path / "gone")
    with pytest.raises(InvalidNameError):
        store.import_file(tmp_path / "x.pth", run="a//b")
    with pytest.raises(InvalidNameError):
        store.import_file(tmp_path / "x.pth", tags=["best"])
    with pytest.raises(ArgumentError, match="no option 'map_location'"):
        store.import_file(tmp_path / "x.pth", map_location="cpu")
    with pytest.raises(ArgumentError):
        store.import_file(tmp_path / "x.pth", epoch="three")
    with pytest.raises(ImportRefusedError):
        store.import_file(tmp_path)
    assert not (tmp_path / "store").exists()


def test_rank_0_alone_imports(tmp_path, store, monkeypatch):
    torch.save(full(), tmp_path / "x.pth")
    monkeypatch.setattr("ckptstore.saving.save.rank", lambda: 1)
    with pytest.raises(NotRankZeroError):
        store.import_file(tmp_path / "x.pth")


def test_nothing_of_this_process_is_recorded_as_the_trainings(tmp_path, store):
    torch.save(full(), tmp_path / "x.pth")
    before = torch.get_rng_state()
    checkpoint = store.import_file(tmp_path / "x.pth")
    assert "rng" not in checkpoint.parts
    assert torch.equal(torch.get_rng_state(), before)


def test_from_a_bucket_into_a_folder(s3_url, s3_client, storage_options, tmp_path, store):
    torch.save(full(), tmp_path / "x.pth")
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    s3_client.upload_file(str(tmp_path / "x.pth"), bucket, f"{prefix}/x.pth")
    checkpoint = store.import_file(f"{s3_url}/x.pth", storage_options=storage_options)
    assert same(dict(checkpoint.state("model")), dict(full()["model_state_dict"]))
    assert store.import_folder(s3_url, run="all", storage_options=storage_options).new == ("all@1",)
