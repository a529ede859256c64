from __future__ import annotations

import pytest

from ckptstore.importing.file_names import Named, is_measure, read_name


@pytest.mark.parametrize(
    ("name", "epoch", "step", "metrics"),
    [
        ("model_epoch12_valloss0.31.pth", 12, None, {"val_loss": 0.31}),
        ("epoch=3-step=1200-val_loss=0.12.ckpt", 3, 1200, {"val_loss": 0.12}),
        ("epoch=3-step=1200-v1.ckpt", 3, 1200, {}),
        ("checkpoint-500", None, 500, {}),
        ("checkpoint_12.pt", 12, None, {}),
        ("ckpt_0007.pt", 7, None, {}),
        ("model12.pt", 12, None, {}),
        ("0007.pt", 7, None, {}),
        ("weights.05.pth.tar", 5, None, {}),
        ("resnet50.pth", None, None, {}),
        ("resnet50_best.pth", None, None, {}),
        ("resnet50_epoch3_acc1_75.2.pth.tar", 3, None, {"acc1": 75.2}),
        ("ep10_val_acc=0.9.pt", 10, None, {"val_acc": 0.9}),
        ("step=5_acc=1.pt", None, 5, {"acc": 1.0}),
        ("checkpoint-20000", None, 20000, {}),
        ("loss=-0.5_epoch=2.pt", 2, None, {"loss": -0.5}),
        ("ep_7_test-accuracy_0.99.pth", 7, None, {"test_accuracy": 0.99}),
        ("iter_20000.pth", None, 20000, {}),
        ("net_loss1e-05.pt", None, None, {"loss": 1e-05}),
        ("best-f1=0.8-trainloss=1.5.pt", None, None, {"f1": 0.8, "train_loss": 1.5}),
        ("last.ckpt", None, None, {}),
        ("epoch99999999999999999999.pt", None, None, {}),
        ("", None, None, {}),
    ],
)
def test_a_name_says_what_it_says(name, epoch, step, metrics):
    found = read_name(name)
    assert (found.epoch, found.step, found.metrics) == (epoch, step, metrics)


@pytest.mark.parametrize(
    "name",
    [
        "e5-large.safetensors", "e2e_model.pth", "checkpoint_20240501.pt", "model_2024.pth",
        "map3d.pth", "model_precision16.ckpt", "error404.pt", "checkpoint-20240501", "top5.pth",
        "model_top5.pth", "resnet50.pth", "model_batch32.pt", "acc_95.pt", "llama-7b-it-4bit.pt",
        "epochs100.pt", "iter_40k.pth", "ckpt_20000.pt", "model_lr1e-3.pt", "model_512x512.pt",
        "20240501_123000.pt", "step2vec.pt", "epoch3d.pt", "model_v2.pth", "best_model_3x.pt",
    ],
)  # fmt: skip
def test_a_name_says_no_more_than_that(name):
    assert read_name(name) == Named()


def test_digits_behind_the_point_are_counted():
    assert read_name("epoch=3-val_loss=0.120.ckpt").digits == {"val_loss": 3}
    assert read_name("nothing.pt") == Named()


@pytest.mark.parametrize("name", ["val_loss", "valloss", "best_acc1", "loss", "eval/accuracy"])
def test_metrics_are_known_by_name(name):
    assert is_measure(name)


@pytest.mark.parametrize("name", ["lr", "lossy", "epoch", "accumulate", ""])
def test_what_is_no_metric(name):
    assert not is_measure(name)
