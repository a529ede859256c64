"""One file into a run: what is recorded of it, bit for bit, and when it is not."""

from __future__ import annotations

import pytest
import torch
from blake3 import blake3
from safetensors import safe_open

from ckptstore import Keep, Store
from ckptstore.errors import ArgumentError, ImportingWarning, ImportRefusedError
from ckptstore.importing import bring
from tests import independent_reader
from tests.importing.files import Net, full, same, trained


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store", run="r") as opened:
        yield opened


def saved(folder, value, name="x.pth", **how):
    torch.save(value, folder / name, **how)
    return folder / name


def the_bytes_of(tensor):
    return bytes(tensor.detach().contiguous().view(-1).view(torch.uint8).tolist())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_bytes_and_forms_are_those_of_the_file(tmp_path, store, zipped):
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    # torch itself reads no float8 of the legacy format.
    half = torch.randn(5).to(torch.float8_e5m2 if zipped else torch.bfloat16)
    tensors = {"w": weight, "t": torch.randn(3, 2).t(), "h": half, "b": torch.tensor([True])}
    tensors["tied"] = tensors["w"]
    tensors["grad"] = torch.nn.Parameter(torch.ones(2))
    path = saved(tmp_path, tensors, _use_new_zipfile_serialization=zipped)
    state = store.import_file(path).state("model")
    assert list(state) == list(tensors)
    assert all(same(state[key], value) for key, value in tensors.items())
    assert state["tied"].data_ptr() == state["w"].data_ptr()
    assert state["grad"].requires_grad

    _, parts = independent_reader.version(tmp_path / "store", "r", 1)
    for key, value in tensors.items():
        found, data = parts["model"][key]["$tensor"], the_bytes_of(value)
        assert found["data"] == data
        assert [chunk["blake3"] for chunk in found["chunks"]] == [blake3(data).hexdigest()]


def test_keys_of_the_state_dict_are_names_in_the_pack(tmp_path, store):
    store.import_file(saved(tmp_path, trained()[0].state_dict()))
    (pack,) = (tmp_path / "store" / "packs").rglob("*.safetensors")
    with safe_open(pack, "pt") as opened:
        assert set(opened.keys()) == set(Net().state_dict())


def test_where_it_came_from_is_recorded_without_the_folder(tmp_path, store):
    path = saved(tmp_path, full())
    checkpoint = store.import_file(path)
    found = checkpoint.imported_from
    assert (found.name, found.format, found.size_bytes) == ("x.pth", "torch", path.stat().st_size)
    assert checkpoint.metadata["imported_from"]["blake3"] == found.blake3
    manifest = (tmp_path / "store/runs/r/_versions/00000001.jsonl").read_text()
    assert str(path) not in manifest
    assert store.get("r@1").imported_from == found


def test_a_name_that_is_no_text_is_spelled_out(tmp_path, store):
    name = b"x\xff\n.pth".decode("utf-8", "surrogateescape")
    checkpoint = store.import_file(saved(tmp_path, full(), name))
    assert checkpoint.imported_from.name == "x\\udcff\\n.pth"


def test_training_goes_on_from_it(tmp_path, store):
    model, optimizer, scheduler = trained()
    store.import_file(saved(tmp_path, full()))
    mine = Net()
    again = torch.optim.Adam(mine.parameters(), lr=5.0)
    steps = torch.optim.lr_scheduler.StepLR(again, step_size=9)
    resumed = store.resume(mine, again, scheduler=steps, rng=False)
    assert resumed.next_epoch == 4
    assert same(dict(mine.state_dict()), dict(model.state_dict()))
    assert same(again.state_dict()["state"], optimizer.state_dict()["state"])
    assert again.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    assert steps.state_dict()["last_epoch"] == scheduler.state_dict()["last_epoch"]


def test_it_is_built_and_compared_as_any_other(tmp_path, store):
    store.import_file(saved(tmp_path, full(4), "a.pth"))
    store.import_file(saved(tmp_path, full(5, val_loss=0.1), "b.pth"))
    model = store.load_best(Net, device="cpu")
    assert model.first.out_features == 5
    assert same(dict(model.state_dict()), dict(trained(5)[0].state_dict()))


def test_what_the_caller_says_counts_first_then_the_content_then_the_name(tmp_path, store):
    state = {"model": {"w": torch.ones(1)}, "val_loss": 0.5, "config": {"a": 1}}
    path = saved(tmp_path, state, "model_epoch7_step30_valloss0.4_acc0.9.pth")
    one = store.import_file(path)
    assert (one.epoch, one.step, one.config) == (7, 30, {"a": 1})
    assert one.metrics == {"val_loss": 0.5, "acc": 0.9}
    told = {"epoch": 1, "step": 2, "metrics": {"acc": 0.1}, "config": {"b": 2}}
    two = store.import_file(path, again=True, model_config={"c": 3}, tags=["old"], **told)
    assert (two.epoch, two.step, two.config, two.model_config) == (1, 2, {"b": 2}, {"c": 3})
    assert two.metrics == {"val_loss": 0.5, "acc": 0.1}
    assert store.get("r@old") == two


def test_a_name_that_says_otherwise_is_told_of(tmp_path, store):
    path = saved(tmp_path, full(), "epoch=9.ckpt")
    with pytest.warns(ImportingWarning, match="its name says epoch 9, and its content 3"):
        assert store.import_file(path).epoch == 3


def test_prefixes_of_wrappers_are_taken_off_and_that_is_said(tmp_path, store):
    path = saved(tmp_path, torch.nn.DataParallel(Net()).state_dict())
    with pytest.warns(ImportingWarning, match=r"'module\.'"):
        checkpoint = store.import_file(path)
    assert list(checkpoint.state("model")) == list(Net().state_dict())
    kept = store.import_file(path, unwrap=False, again=True)
    assert next(iter(kept.state("model"))) == "module.first.weight"


def test_keys_are_renamed_and_tied(tmp_path, store):
    path = saved(tmp_path, {"state_dict": {"net.a": torch.ones(2)}, "hparams": {"x": 1}})
    checkpoint = store.import_file(path, rename={"net.": ""}, ties={"b": "a"})
    state = checkpoint.state("model")
    assert list(state) == ["a", "b"]
    assert state["a"].data_ptr() == state["b"].data_ptr()
    with pytest.raises(ArgumentError, match="for the part 'model'"):
        store.import_file(
            saved(tmp_path, {"o": trained()[1].state_dict()}, "y"), rename={"net.": ""}
        )


def test_a_file_is_imported_once(tmp_path, store):
    path = saved(tmp_path, full())
    one = store.import_file(path)
    (tmp_path / "again.pth").write_bytes(path.read_bytes())
    with pytest.warns(ImportingWarning, match="was imported before, as r@1"):
        assert store.import_file(tmp_path / "again.pth") == one
    assert store.import_file(path, again=True).version == 2
    assert store.import_file(path, run="other").ref == "other@1"


def test_one_that_was_retired_is_not_imported_again_and_one_that_is_damaged_is(tmp_path, store):
    run = store.run("kept", keep=Keep(last=1))
    run.import_file(saved(tmp_path, full(), "a"))
    run.import_file(saved(tmp_path, full(5, val_loss=0.1), "b"))
    assert run.get(1).retired
    with pytest.warns(ImportingWarning, match="as kept@1"):
        assert run.import_file(tmp_path / "a").retired
    for pack in (tmp_path / "store" / "packs").rglob("*.safetensors"):
        pack.write_bytes(b"")
    store.verify("kept", repair=True)
    assert run.import_file(tmp_path / "b").version == 3


def test_copies_keep_where_it_came_from(tmp_path, store):
    path = saved(tmp_path, full())
    store.import_file(path)
    store.copy_to(tmp_path / "other")
    with Store(tmp_path / "other", run="r") as other:
        assert other.get("r@1").imported_from == store.get("r@1").imported_from
        with pytest.warns(ImportingWarning, match="as r@1"):
            other.import_file(path)


def test_a_dict_without_weights_is_refused_unless_it_is_meant(tmp_path, store):
    path = saved(tmp_path, {"blob": [1, 2], "epoch": 3})
    with pytest.raises(ImportRefusedError, match="'blob': say what is what"):
        store.import_file(path)
    assert store.import_file(path, keys={"blob": "extra"}).extra == {"blob": [1, 2]}


def test_a_tensor_that_shows_one_byte_for_ever_is_refused(tmp_path, store):
    path = saved(tmp_path, {"w": torch.zeros(1).expand(30_000_000)})
    with pytest.raises(ImportRefusedError, match="again and again"):
        store.import_file(path)
    with pytest.raises(LookupError):
        store.history("r")


def test_a_file_that_is_written_to_meanwhile_is_said_to_be_no_good(tmp_path, store, monkeypatch):
    path = saved(tmp_path, full())
    real = bring.save

    def save(*args):
        head = real(*args)
        path.write_bytes(path.read_bytes() + b"\0")
        return head

    monkeypatch.setattr(bring, "save", save)
    with pytest.raises(ImportRefusedError, match="don't use r@1"):
        store.import_file(path)


def test_nothing_is_left_behind(tmp_path, store, monkeypatch):
    rooms = tmp_path / "rooms"
    rooms.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(rooms))
    torch.save(Net(), tmp_path / "whole.pt")
    store.import_file(tmp_path / "whole.pt", trust_pickle=True)
    assert list(rooms.iterdir()) == []
