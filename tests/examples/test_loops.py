"""The other examples, each run as its page says and looked at afterwards."""

from __future__ import annotations

import re

import torch
from torch.multiprocessing.spawn import start_processes

from ckptstore import Store
from examples import ddp, digits, finetune, gan, notebook, sweep
from examples.digits import SimpleNN


def digests(printed):
    return re.findall(r"^digest.* (\w{64})$", printed, re.MULTILINE)


def test_a_gan_that_was_interrupted_has_the_same_generator(tmp_path, capsys):
    gan.main(tmp_path / "straight", epochs=2)
    gan.main(tmp_path / "interrupted", epochs=1)
    gan.main(tmp_path / "interrupted", epochs=2)

    straight, halfway, resumed = digests(capsys.readouterr().out)
    assert straight == resumed != halfway


def test_a_gan_is_saved_whole_and_both_models_come_back(tmp_path):
    gan.main(tmp_path, epochs=1)
    store = Store(tmp_path)

    assert set(store.latest().parts) >= {
        "generator",
        "discriminator",
        "g_optimizer",
        "d_optimizer",
    }
    for name, kind in (("generator", gan.Generator), ("discriminator", gan.Discriminator)):
        saved = store.latest().state(name)
        loaded = store.load_latest(kind, part=name, device="cpu").state_dict()
        assert saved.keys() == loaded.keys()
        assert all(torch.equal(saved[key], loaded[key]) for key in saved)


def test_the_best_of_a_sweep_is_the_best_of_all_its_runs(tmp_path, capsys):
    sweep.main(tmp_path, epochs=2, rates=(1e-4, 1e-2))

    history = Store(tmp_path).history("sweep/*")
    best = min(history, key=lambda entry: entry.metrics["val_loss"])
    assert {entry.run for entry in history} == {"sweep/lr=0.0001", "sweep/lr=0.01"}
    assert Store(tmp_path).best(run="sweep/*") == best
    assert f"<Checkpoint {best.ref} " in capsys.readouterr().out


def test_a_fine_tuned_head_sits_on_the_backbone_it_came_from(tmp_path):
    finetune.main(tmp_path, epochs=1)
    finetune.main(tmp_path, epochs=2)  # goes on, with an optimizer of the head alone
    store = Store(tmp_path)

    assert [entry.parent for entry in store.history("fine")] == ["base@1", "fine@1"]
    base, fine = (store.load(SimpleNN, ref, device="cpu") for ref in ("base@1", "fine@2"))
    assert digits.digest(base.backbone) == digits.digest(fine.backbone)
    assert digits.digest(base.head) != digits.digest(fine.head)


def test_two_ranks_go_on_together_and_end_with_the_same_bits(
    processes, tmp_path, monkeypatch, capfd
):
    def start(train, args, nprocs):
        start_processes(train, args, nprocs, start_method=processes.get_start_method())

    monkeypatch.setattr(ddp, "spawn", start)  # what spawn() does, without its imports
    ddp.main(str(tmp_path), epochs=1)
    capfd.readouterr()
    ddp.main(str(tmp_path), epochs=2)

    one, other = digests(capfd.readouterr().out)
    saved = Store(tmp_path).load_latest(SimpleNN, device="cpu")
    assert one == other == digits.digest(saved)
    assert [entry.epoch for entry in Store(tmp_path).history()] == [0, 1]


def test_a_notebook_run_again_does_nothing_twice(tmp_path, capsys):
    notebook.main(tmp_path)

    printed = capsys.readouterr().out
    assert re.findall(r"^trained (\d)", printed, re.MULTILINE) == ["2", "2", "0"]
    assert [entry.epoch for entry in Store(tmp_path).history()] == [0, 1, 2, 3]
    assert "<table>" in printed
