"""load_program: a program runs where its class is not, on the weights of its version."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import (
    ArgumentError,
    DeviceError,
    IntegrityError,
    MismatchError,
    RetiredError,
    VersionNotFoundError,
)
from ckptstore.format.layout import file_key
from tests.loading import forging
from tests.programs import nets
from tests.programs.test_module import Twice

IMAGES = torch.randn(4, 1, 8, 8)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", run="digits")


@pytest.fixture
def model():
    return nets.Net()


def outputs(module, inputs):
    with torch.no_grad():
        return module(inputs)


def test_the_program_of_a_version_computes_with_its_weights(store, model):
    saved = []
    for _ in range(2):
        with torch.no_grad():
            model.fc.weight.add_(0.1)
            model.norm.running_mean.add_(0.1)
        store.save(model, program=IMAGES)
        model.eval()
        saved.append([outputs(model, batch) for batch in (IMAGES, IMAGES[:1])])
        model.train()
    for number, (four, one) in enumerate(saved, start=1):
        program = store.get(f"digits@{number}").load_program(device="cpu")
        assert not program.training
        assert torch.equal(outputs(program, IMAGES), four)
        assert torch.equal(outputs(program, IMAGES[:1]), one)


CLASS = """
    import torch


    class Secret(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(3, 2)

        def forward(self, x):
            return torch.relu(self.fc(x)) * 3
"""
SCRIPT = """
    import sys
    import torch
    from ckptstore import Store

    try:
        import secret_net
    except ImportError:
        pass
    else:
        raise SystemExit("the class can be imported after all")
    store = Store(sys.argv[1])
    program = store.get(sys.argv[2]).load_program(device="cpu")
    inputs, expected = store.get("inputs@1").state("extra")
    for each, wanted in zip(inputs, expected, strict=True):
        with torch.no_grad():
            assert torch.equal(program(each), wanted)
    assert not any(name.startswith(("torch._dynamo", "sympy")) for name in sys.modules)
    print("the same bits", len(inputs))
"""


@pytest.mark.parametrize("ref", ["digits@1", "digits@2"])
def test_it_runs_in_a_process_that_can_not_import_the_class(tmp_path, monkeypatch, store, ref):
    code = tmp_path / "code" / "secret_net.py"
    code.parent.mkdir()
    code.write_text(textwrap.dedent(CLASS))
    with monkeypatch.context() as only_here:
        only_here.syspath_prepend(code.parent)
        model = importlib.import_module("secret_net").Secret()
        only_here.delitem(sys.modules, "secret_net")
    sample = torch.randn(4, 3)
    checkpoint = store.save(model, program=sample)
    store.save_package(checkpoint)
    model.eval()
    inputs = [sample, sample[:1], torch.randn(9, 3)]
    store.save(run="inputs", extra=[inputs, [outputs(model, each) for each in inputs]], rng=False)

    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(SCRIPT), store.url, ref],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("the same bits 3\n", 0), done.stderr


def test_only_a_part_with_a_program_has_one(store, model):
    saved = store.save(model, program=IMAGES, ema=nets.Net())
    with pytest.raises(VersionNotFoundError, match=r"no program of part 'ema'; part 'model' has"):
        saved.load_program(part="ema")
    bare = store.save(model)
    with pytest.raises(VersionNotFoundError, match=r"save\(model, program=sample\) stores one"):
        bare.load_program()


def test_a_device_that_is_not_there_is_named(store, model):
    saved = store.save(model, program=IMAGES)
    with pytest.raises(DeviceError, match="nowhere"):
        saved.load_program(device="nowhere")


def test_operators_of_other_packages_have_to_be_named(store):
    model = nn.Sequential(nets.Line(3), Twice())
    saved = store.save(model, program=torch.ones(2, 3))
    with pytest.raises(MismatchError, match=r"pass operators=\['ckptstore_tests'\]"):
        saved.load_program(device="cpu")
    program = saved.load_program(device="cpu", operators=["ckptstore_tests"])
    assert torch.equal(program(torch.ones(1, 3)), model(torch.ones(1, 3)))
    with pytest.raises(ArgumentError, match="operators= takes a list"):
        saved.load_program(operators="ckptstore_tests")


def test_a_retired_version_has_no_program_to_load(store, model):
    saved = store.save(model, program=IMAGES)
    store.save(model, parent=saved, val_loss=1.0)
    from ckptstore import Keep

    store.prune(Keep(last=1), run="digits")
    with pytest.raises(RetiredError):
        store.get("digits@1").load_program()


@pytest.mark.parametrize("how", ["gone", "flipped", "cut"])
def test_a_damaged_program_is_refused_and_the_version_passed_over(store, model, how):
    saved = store.save(model, program=IMAGES)
    (file,) = saved.files
    path = Path(store.url.removeprefix("file://")) / file_key(file.save_id, file.number)
    data = path.read_bytes()
    path.unlink()
    if how != "gone":
        path.write_bytes(data[:-1] + (b"" if how == "cut" else bytes([data[-1] ^ 1])))
    with pytest.raises(IntegrityError, match=r"digits@1: its program .*/files/") as caught:
        Store(store.url).get("digits@1").load_program(device="cpu")
    assert caught.value.ref == "digits@1"
    report = Store(store.url).verify(repair=True)
    assert [finding.kind for finding in report.findings] == ["file"]
    again = store.save(model, program=IMAGES, parent=None)
    assert again.files[0].save_id == again.head.save_id
    assert torch.equal(again.load_program(device="cpu")(IMAGES), model.eval()(IMAGES))


def test_a_size_that_a_head_makes_up_is_no_reason_to_take_memory(store, model):
    store.save(model, program=IMAGES)

    def lie(head, _):
        head["files"][0]["size_bytes"] = 2**50

    forging.forge(store.url, "digits", lie)
    fresh = Store(store.url, catalog="sqlite://")
    with pytest.raises(IntegrityError, match=f"should have {2**50} bytes, and has"):
        fresh.get("digits@1").load_program(device="cpu")


def test_a_program_on_a_state_that_is_none_is_refused(store, model):
    def lie(head, _):
        head["files"][0]["part"] = "extra"

    store.save(model, program=IMAGES, extra=[1], rng=False)
    forging.forge(store.url, "digits", lie)
    fresh = Store(store.url, catalog="sqlite://")
    with pytest.raises(IntegrityError, match="should be a dict, and is a list"):
        fresh.get("digits@1").load_program(device="cpu", part="extra")


def test_quantised_weights_have_a_program(store):
    from torchao import quantization

    model = nn.Sequential(nn.Linear(32, 32)).eval()
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    x = torch.randn(4, 32)
    program = store.save(model, program=x).load_program(device="cpu")
    assert torch.equal(outputs(program, x), outputs(model, x))
