"""save(program=…): the model's program is stored beside its weights, or nothing is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import ArgumentError, ProgramError, StorageError
from ckptstore.programs import export
from ckptstore.saving.capture import capture
from ckptstore.saving.program import stored
from tests.faults import Failing, store_on
from tests.programs import nets

SAMPLE = torch.randn(4, 3)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", run="digits")


class Deciding(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def keys(store):
    return [
        each.key for folder in ("packs", "files", "runs") for each in store._storage.walk(folder)
    ]


def test_the_program_is_a_file_of_the_version(store):
    model = nets.Line(200)
    saved = store.save(model, program=SAMPLE)
    plain = store.save(nets.Line(200), parent=saved)
    (file,) = saved.files
    assert (file.role, file.part) == ("program", "model")
    assert file.size_bytes < 1000
    assert saved.size_bytes == plain.size_bytes + file.size_bytes
    assert saved.new_bytes == plain.new_bytes + file.size_bytes
    assert plain.files == ()


def test_a_version_without_change_of_the_graph_shares_the_file(store):
    model = nets.Line()
    first = store.save(model, program=SAMPLE)
    with torch.no_grad():
        model.weight.add_(1)
    second = store.save(model, program=torch.randn(9, 3))
    elsewhere = Store(store.url, run="digits")
    elsewhere.resume(model)
    again = elsewhere.save(model, program=SAMPLE)
    assert first.files == second.files == again.files
    assert len(list(store._storage.walk("files"))) == 1


def test_another_graph_is_another_file(store):
    first = store.save(nets.Line(), program=SAMPLE)
    second = store.save(nn.Sequential(nets.Line(), nn.ReLU()), program=SAMPLE)
    assert first.files != second.files
    assert second.files[0].save_id == second.head.save_id


def test_nothing_is_written_where_the_model_is_no_program(store):
    with pytest.raises(
        ProgramError, match=r"cannot store a program of part 'model' \(.*Sequential\)"
    ):
        store.save(nn.Sequential(nets.Line(), Deciding()), program=SAMPLE)
    assert keys(store) == []


def test_a_program_that_computes_something_else_is_not_stored(store, monkeypatch):
    def with_other_weights(program, data, state, **where):
        return real(program, data, {key: value + 1 for key, value in state.items()}, **where)

    real = export.tensors_of
    monkeypatch.setattr(export, "tensors_of", with_other_weights)
    with pytest.raises(ProgramError, match="computes something else than the module does"):
        store.save(nets.Line(), program=SAMPLE)
    assert keys(store) == []


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"w": torch.ones(3)}, "the model is a dict: pass the module itself"),
        (None, "program= traces the part 'model', and there is no such part"),
    ],
)
def test_what_is_no_module_has_no_program(store, model, problem):
    with pytest.raises(ArgumentError, match=problem):
        store.save(model, ema=nets.Line(), program=SAMPLE)
    assert keys(store) == []


def test_training_goes_on_as_if_no_program_had_been_stored(store):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    other = copy.deepcopy(model)
    losses = []
    for each, options in ((model, {"program": SAMPLE}), (other, {})):
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
        run = []
        for epoch in range(3):
            loss = each(torch.randn(8, 3)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            store.save(each, optimizer, epoch=epoch, run=f"run{len(losses)}", **options)
            optimizer.step()
            run.append(loss.item())
        losses.append(run)
    assert losses[0] == losses[1]
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


def test_a_package_of_a_live_module_has_its_program(store):
    package = store.save_package(nets.Line(), program=SAMPLE, class_names=["a", "b"])
    assert [(file.role, file.part) for file in package.files] == [("program", "model")]


def test_a_package_takes_its_checkpoints_program_along(store):
    model = nets.Line()
    checkpoint = store.save(model, program=SAMPLE)
    package = store.save_package(checkpoint)
    again = store.save_package("digits@latest")
    assert checkpoint.files == package.files == again.files
    assert package.new_bytes == 0
    assert torch.equal(package.load_program(device="cpu")(SAMPLE), model(SAMPLE))


def test_a_package_of_weights_alone_can_not_be_given_a_program(store):
    checkpoint = store.save(nets.Line())
    with pytest.raises(ArgumentError, match="has its weights alone: pass the module, or save the"):
        store.save_package(checkpoint, program=SAMPLE)


def test_runs_take_programs_too(store):
    run = store.run("digits")
    assert run.save(nets.Line(), program=SAMPLE).files
    assert run.save_package(nets.Line(), program=SAMPLE).files


@pytest.mark.parametrize("at", range(1, 11))
def test_a_version_is_whole_or_absent_wherever_writing_its_program_fails(store, at):
    model = nets.Line()
    store.save(model)
    failing = Failing(store._storage, at, only={"open_writer", "write", "finish", "create"})
    other, done = store_on(failing, run="digits"), True
    other.resume(model)
    try:
        other.save(model, program=SAMPLE, rng=False)
    except StorageError:
        done = False
    fresh = Store(store.url)
    assert len(fresh.history()) == 1 + done
    assert fresh.verify().ok
    if done:
        assert torch.equal(fresh.latest().load_program(device="cpu")(SAMPLE), model(SAMPLE))


def test_only_tensors_that_are_stored_as_they_are_count_as_stored():
    (part,) = capture({"model": nets.Line()})
    assert set(stored(part)) == {"weight", "bias"}
    (other,) = capture({"model": {"w": torch.ones(2)}})
    assert stored(other) == {}
