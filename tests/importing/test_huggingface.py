from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from ckptstore.errors import ImportRefusedError
from ckptstore.importing.huggingface import is_huggingfaces, read_huggingface
from ckptstore.importing.plain import to_plain
from ckptstore.importing.unpickling import load_restricted
from tests.importing.files import Runs, same, trained

CONFIG = {"model_type": "gpt2", "n_layer": 2, "tie_word_embeddings": True}


def load(path, where):
    return to_plain(load_restricted(path, where), where)


def read(folder):
    assert is_huggingfaces(folder)
    return read_huggingface(folder, "it", load)


def write_json(path, value):
    path.write_text(json.dumps(value))


def sharded(folder, save, suffix):
    """Weights in two files with an index."""
    state = trained()[0].state_dict()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = list(state)
    files = {name: f"{stem}-0000{1 + (i > 5)}-of-00002.{suffix}" for i, name in enumerate(names)}
    for file in set(files.values()):
        save({name: state[name] for name in names if files[name] == file}, folder / file)
    index = folder / f"{stem}.{suffix}.index.json"
    write_json(index, {"metadata": {}, "weight_map": files})
    return state, index, files


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("model.safetensors", save_file),
        ("pytorch_model.bin", torch.save),
        ("adapter_model.safetensors", save_file),
    ],
)
def test_weights_of_one_file_and_the_config(tmp_path, name, save):
    state = trained()[0].state_dict()
    save(dict(state), tmp_path / name)
    write_json(tmp_path / "config.json", CONFIG)
    found = read(tmp_path)
    assert same({key: found.parts["model"].state[key] for key in state}, dict(state))
    assert found.config == CONFIG
    assert found.notes == []


@pytest.mark.parametrize(("suffix", "save"), [("safetensors", save_file), ("bin", torch.save)])
def test_weights_of_several_files(tmp_path, suffix, save):
    state, _, _ = sharded(tmp_path, save, suffix)
    found = read(tmp_path).parts["model"].state
    assert same({key: found[key] for key in state}, dict(state))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda files: files | {"last.bias": "../secret.safetensors"}, "no file there"),
        (lambda files: files | {"last.bias": "/etc/passwd"}, "no file there"),
        (lambda files: files | {"last.bias": "gone.safetensors"}, "no file there"),
        (lambda files: files | {"more": files["last.bias"]}, "in no file"),
        (lambda files: {k: f for k, f in files.items() if k != "last.bias"}, "not in the index"),
        (lambda files: files | {"last.bias": 5}, "no 'weight_map'"),
        (lambda _: [], "no 'weight_map'"),
    ],
)
def test_an_index_that_is_wrong_is_refused(tmp_path, change, why):
    (tmp_path / "x").mkdir()
    save_file({"w": torch.ones(1)}, tmp_path / "secret.safetensors")
    _, index, files = sharded(tmp_path / "x", save_file, "safetensors")
    write_json(index, {"weight_map": change(files)})
    with pytest.raises(ImportRefusedError, match=why):
        read(tmp_path / "x")


def test_what_a_trainer_saves_beside_the_weights(tmp_path):
    model, optimizer, scheduler = trained()
    save_file(dict(model.state_dict()), tmp_path / "model.safetensors", metadata={"format": "pt"})
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    torch.save(scheduler.state_dict(), tmp_path / "scheduler.pt")
    log = [{"loss": 2.0, "step": 10}, {"eval_loss": 1.5, "epoch": 1.0}, {"loss": 1.0}]
    trainer = {"epoch": 2.0, "global_step": 500, "log_history": log, "best": float("nan")}
    write_json(tmp_path / "trainer_state.json", trainer)
    torch.save(Runs(print, "x"), tmp_path / "training_args.bin")
    (tmp_path / "README.md").write_text("hello")
    found = read(tmp_path)
    assert {name: part.kind for name, part in found.parts.items()} == {
        "model": "state_dict",
        "optimizer": "optimizer",
        "scheduler": "object",
    }
    assert (found.epoch, found.step) == (2, 500)
    assert found.metrics == {"train_loss": 1.0, "eval_loss": 1.5}
    assert found.extra["trainer_state"]["global_step"] == 500
    assert found.extra["metadata"] == {"format": "pt"}
    assert found.notes == [
        "training_args.bin was left out: to read it is to run what it says (builtins.print)",
        "beside the weights these were left out: README.md",
    ]


@pytest.mark.parametrize("text", ["{", "[" * 100_000, ""])
def test_json_that_is_none_is_refused(tmp_path, text):
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ImportRefusedError, match=r"config\.json is no JSON"):
        read(tmp_path)


def test_json_that_no_tree_holds_is_refused(tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"a": "\\ud800"}')
    with pytest.raises(ImportRefusedError, match="lone surrogate"):
        read(tmp_path)


def test_other_folders_are_none(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert not is_huggingfaces(tmp_path)
