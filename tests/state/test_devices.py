"""Devices: the one asked for, or a clear word that it is not there."""

from __future__ import annotations

import pytest
import torch

from ckptstore.errors import DeviceError
from ckptstore.state import devices
from ckptstore.state.devices import present, resolve


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "cpu:0"])
def test_the_cpu_is_always_there(device):
    assert resolve(device).type == "cpu"
    assert "cpu" in present()


@pytest.mark.parametrize("count", [0, 2])
def test_none_means_cuda_if_there_is_one(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert resolve(None).type == ("cuda" if count else "cpu")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", 0, torch.device("cuda", 3)])
def test_cuda_that_is_not_there_names_what_is(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="not there; this machine has cpu"):
        resolve(device)


def test_a_cuda_device_too_many_names_what_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve(1) == torch.device("cuda", 1)
    assert resolve("cuda") == torch.device("cuda")
    with pytest.raises(
        DeviceError, match=r"'cuda:2' is not there; this machine has cpu, cuda:0, cuda:1"
    ):
        resolve(2)


def test_mps_is_named_where_it_is(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="'mps' is not there"):
        resolve("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve("mps").type == "mps"
    assert present()[-1] == "mps"


@pytest.mark.parametrize("device", ["xpu", "xpu:1", "hpu", "xla", "mtia", "privateuseone"])
def test_another_accelerator_that_is_not_there_names_what_is(device):
    with pytest.raises(DeviceError, match=rf"'{device}' is not there; this machine has cpu"):
        resolve(device)


def test_another_accelerator_is_named_where_it_is(monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda size, **_: empty(size))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)

    assert resolve("xpu:1") == torch.device("xpu", 1)
    assert present()[-2:] == ["xpu:0", "xpu:1"]


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "cuda:-1", -1, 1.5, [], object(), True])
def test_what_is_no_device_is_said(device):
    with pytest.raises(DeviceError, match="device="):
        resolve(device)


def test_nothing_is_loaded_onto_meta():
    with pytest.raises(DeviceError, match="device='cpu'"):
        resolve("meta")
    assert devices.present()


def test_the_cpu_is_where_tensors_are_made_whatever_the_default():
    with torch.device("meta"), devices.on_cpu():
        assert torch.empty(1).device.type == "cpu"
    with devices.on_cpu():
        assert torch.empty(1).device.type == "cpu"


def test_no_mode_is_entered_where_the_cpu_is_the_default():
    """torch would ask it about every look at a tensor."""
    before = torch._C._len_torch_function_stack()
    with devices.on_cpu():
        assert torch._C._len_torch_function_stack() == before
