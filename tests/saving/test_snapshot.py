"""Snapshots: the bytes that saving at the call would have written, whatever is written since."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from ckptstore.errors import StorageError, TornSnapshotError
from ckptstore.saving import rest as rest_module
from ckptstore.saving import snapshot as module
from ckptstore.saving.capture import capture, capture_tree
from ckptstore.saving.narrowing import narrow
from ckptstore.saving.overlap import Overlap
from ckptstore.saving.snapshot import snapshot
from ckptstore.saving.staging import SPARE_BYTES, Staging
from ckptstore.state import rng
from tests.format.tensors import quietly, tensors
from tests.loading.trainings import Training
from tests.saving.children import in_a_child
from tests.saving.snapshots import data, overlapped, written


def taken_of(state, staging=None):
    return snapshot(capture({"model": state}), staging or Staging())


def test_a_training_goes_on_and_what_was_is_kept():
    training = Training()
    training.epoch()
    staging = Staging()
    extra = {"seen": np.arange(5), "nested": [torch.arange(3)]}
    for _ in range(3):
        captured = [
            *capture(training.parts()),
            capture_tree("extra", extra),
            capture_tree("rng", rng.capture(), kind="rng"),
        ]
        before = written(captured)
        taken = snapshot(captured, staging)
        assert taken.is_copied
        training.epoch()
        extra["seen"] += 1
        extra["nested"][0].zero_()
        taken.copy_rest()
        assert written(taken.parts) == before
        assert written(captured) != before
        taken.release()


@given(tensors())
@settings(max_examples=200, deadline=None)
def test_every_kind_of_tensor_is_kept(tensor):
    captured = quietly(capture, {"model": {"w": tensor, "again": tensor}})
    taken = quietly(snapshot, captured, Staging())
    assert quietly(written, taken.parts) == quietly(written, captured)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, dtype=torch.complex64).conj(),
        torch.randn(3, dtype=torch.complex64).conj().imag,
        torch.randn(4, 4, dtype=torch.complex64).mT.conj(),
        quietly(torch.randn(3, dtype=torch.complex64).to, torch.complex32).conj(),
        torch.ones(3).expand(4, 3),
        torch.arange(24.0).view(2, 3, 4)[:, ::2].permute(2, 0, 1),
        torch.tensor([float("nan"), -0.0, 1e-45]),
        torch.empty(0, 2),
    ],
)
def test_what_is_not_plain_is_kept(tensor):
    captured = capture({"model": {"w": tensor}})
    taken = snapshot(captured, Staging())
    assert written(taken.parts) == written(captured)
    copy = taken.parts[0].tensors[0]
    assert not copy.is_conj()
    assert not copy.is_neg()


def test_bits_of_numbers_that_are_none_are_kept():
    bits = torch.tensor([0x7FA00001, 0x7F800001, -0x400001], dtype=torch.int32)  # NaNs that signal
    state = {"w": bits.view(torch.float32)}
    assert data(taken_of(state).parts[0].tensors[0]) == data(bits)


def test_the_same_memory_is_used_again_and_no_more():
    staging = Staging()
    held = set()
    for _ in range(1000):
        taken = taken_of({"w": torch.ones(1000), "v": torch.ones(3)}, staging)
        assert taken.size_bytes == 4000 + 32 + 64
        held.add((staging.held_bytes, taken.parts[0].tensors[0].data_ptr()))
        taken.release()
    assert len(held) == 1
    assert staging.held_bytes <= 4096 + SPARE_BYTES


def test_states_that_grow_and_shrink_are_kept():
    staging = Staging()
    for length in (10, 100_000, 3, 50_000):
        state = {"w": torch.arange(float(length))}
        taken = taken_of(state, staging)
        assert torch.equal(taken.parts[0].tensors[0], state["w"])
        taken.release()


def test_releasing_gives_the_memory_back_once():
    staging = Staging()
    taken = taken_of({"w": torch.ones(100)}, staging)
    taken.release()
    other = taken_of({"w": torch.zeros(100)}, staging)
    taken.release()
    third = taken_of({"w": torch.ones(100)}, staging)
    assert not other.parts[0].tensors[0].any()
    assert third.parts[0].tensors[0].all()


def test_memory_is_given_back_when_copying_fails(monkeypatch):
    staging = Staging()

    def failing(*_):
        raise RuntimeError("no copy")

    monkeypatch.setattr(module, "_copy", failing)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="no copy"):
            taken_of({"w": torch.ones(100)}, staging)
    assert staging.held_bytes == 4096


def test_no_memory_leaves_everything_as_it_was(monkeypatch):
    def none(*_, **__):
        raise StorageError("no memory")

    staging = Staging()
    monkeypatch.setattr(staging, "take", none)
    training = Training()
    with pytest.raises(StorageError):
        overlapped(staging, training.parts())
    training.epoch()


def test_what_was_captured_is_left_as_it_is():
    net = nn.Linear(2, 2)
    captured = capture({"model": net})
    own = list(captured[0].tensors)
    snapshot(captured, Staging())
    assert all(one is other for one, other in zip(captured[0].tensors, own, strict=True))
    assert net.weight.requires_grad
    assert net.weight.grad is None


def test_converted_numbers_are_passed_on():
    captured = capture({"model": {"w": torch.ones(1000), "b": torch.ones(1)}})
    narrow(captured, {"model": torch.bfloat16})
    taken = snapshot(captured, Staging())
    assert taken.parts[0].tensors[0] is captured[0].tensors[0]
    assert taken.size_bytes == 2000 + 64
    assert written(taken.parts) == written(captured)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_a_save_in_any_mode_can_be_followed_by_one_in_another(mode):
    net, staging = nn.Linear(2, 2), Staging()
    for context in (mode, torch.enable_grad, mode):
        with context():
            captured = capture({"model": net.state_dict()})
            taken = snapshot(captured, staging)
        assert written(taken.parts) == written(captured)
        taken.release()


def test_a_default_device_changes_nothing():
    captured = capture({"model": {"w": torch.arange(8.0)[::2]}})
    with torch.device("meta"):
        taken = snapshot(captured, Staging())
    assert written(taken.parts) == written(captured)


def test_a_worker_and_a_training_that_run_at_once_agree(monkeypatch):
    monkeypatch.setattr(rest_module, "PIECE_BYTES", 4096)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 512), nn.BatchNorm1d(512), nn.Linear(512, 256))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    parts = {"model": net, "optimizer": optimizer}
    staging = Staging()

    def step():
        optimizer.zero_grad()
        net(torch.randn(4, 16)).square().mean().backward()
        optimizer.step()

    def keep(taken, before):
        taken.copy_rest()
        same = written(taken.parts) == before
        taken.release()
        return same

    with ThreadPoolExecutor(1) as worker:
        kept = []
        for _ in range(30):
            before = written(capture(parts))
            kept.append(worker.submit(keep, overlapped(staging, parts), before))
            step()
        assert all(each.result() for each in kept)


class Moved:
    """A training of which an overlapped snapshot was taken that nobody has copied yet."""

    def __init__(self):
        self.training = Training()
        self.training.epoch()
        self.staging = Staging()
        self.before = written(capture(self.training.parts()))
        self.taken = overlapped(self.staging, self.training.parts())


def test_the_worker_copies_what_is_left_while_forward_and_backward_run():
    moved = Moved()
    net = moved.training.model
    net(torch.randn(8, 4)).sum().backward()
    assert not moved.taken.is_copied
    moved.taken.copy_rest()
    assert written(moved.taken.parts) == moved.before
    moved.training.epoch()
    assert written(moved.taken.parts) == moved.before


def test_waiting_makes_room_for_any_write():
    moved = Moved()
    moved.taken.wait_copied()
    with torch.no_grad():
        moved.training.model.first.weight.zero_()
    moved.training.model.last.weight.data = torch.zeros_like(moved.training.model.last.weight)
    moved.taken.copy_rest()
    assert written(moved.taken.parts) == moved.before


def test_what_a_step_or_a_caller_waits_for_is_counted():
    stepped, waited, neither = Moved(), Moved(), Moved()
    stepped.training.epoch()
    waited.taken.wait_copied()
    neither.taken.copy_rest()
    neither.training.epoch()

    assert stepped.taken.waited_s > 0
    assert waited.taken.waited_s > 0
    assert neither.taken.waited_s == 0


def test_a_step_in_a_forked_child_copies_nothing_and_waits_for_nobody():
    moved = Moved()

    def step() -> None:
        moved.training.epoch()
        assert moved.taken.waited_s == 0

    with moved.taken._rest._turn:  # as the parent's worker may have it just then
        ended = in_a_child(step)

    assert ended == 0
    moved.taken.copy_rest()
    assert written(moved.taken.parts) == moved.before


def test_memory_that_a_parameter_gets_anew_does_not_touch_the_copy():
    moved = Moved()
    for parameter in moved.training.model.parameters():
        parameter.data = torch.zeros_like(parameter)
    gc.collect()
    moved.taken.copy_rest()
    assert written(moved.taken.parts) == moved.before


def test_a_write_too_early_is_told_by_name_and_ends_the_save():
    moved = Moved()
    with torch.no_grad():
        moved.training.model.first.weight.mul_(2)
    with pytest.raises(TornSnapshotError, match=r"'model/first.weight' changed.*wait_copied\(\)"):
        moved.taken.copy_rest()
    with pytest.raises(TornSnapshotError):
        moved.taken.wait_copied()
    moved.taken.release()


def test_a_write_to_a_moment_too_early_is_told_too():
    moved = Moved()
    state = moved.training.optimizer.state[moved.training.model.first.bias]
    state["exp_avg"].zero_()
    state["exp_avg_sq"].zero_()
    with pytest.raises(TornSnapshotError, match=r"'optimizer/state/1/exp_avg' and 1 more"):
        moved.taken.wait_copied()


def test_tensors_that_are_swapped_are_kept_as_they_were():
    moved = Moved()
    first = moved.training.model.first
    torch.utils.swap_tensors(first.weight, nn.Parameter(torch.zeros_like(first.weight)))
    with torch.no_grad():
        first.weight.add_(1)
    moved.taken.copy_rest()
    assert written(moved.taken.parts) == moved.before


def test_a_write_after_tensors_were_swapped_is_told_as_well():
    moved = Moved()
    first = moved.training.model.first
    other = nn.Parameter(torch.zeros_like(first.weight))
    torch.utils.swap_tensors(first.weight, other)
    with torch.no_grad():
        other.add_(1)  # whose memory is what was the weight's
    with pytest.raises(TornSnapshotError, match="'model/first"):
        moved.taken.copy_rest()


def test_each_optimizer_is_held_back_also_once_all_is_copied(monkeypatch):
    held_back = []
    monkeypatch.setattr(module.DeviceCopies, "hold_back", lambda _: held_back.append(1))
    net = nn.Linear(3, 3)
    first = torch.optim.SGD([net.weight], lr=0.1)
    second = torch.optim.SGD([net.bias], lr=0.1)
    overlapped(Staging(), {"model": net, "first": first, "second": second})
    held_back.clear()

    first.step()
    second.step()
    assert len(held_back) == 2
    second.step()
    assert len(held_back) == 2


def test_memory_that_a_gpu_may_still_write_to_is_given_to_nobody(monkeypatch):
    def wait(_: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    moved = Moved()
    with monkeypatch.context() as patched:
        patched.setattr(module.DeviceCopies, "wait", wait)
        with pytest.raises(RuntimeError, match="device-side"):
            moved.taken.release()
    assert moved.taken.parts == []
    lent_bytes = moved.staging.held_bytes
    moved.staging.take(1)
    assert moved.staging.held_bytes > lent_bytes


def test_a_write_too_early_is_known_when_the_step_comes_and_does_not_stop_it():
    moved = Moved()
    with torch.no_grad():
        moved.training.model.first.weight.mul_(2)
    moved.training.epoch()
    with pytest.raises(TornSnapshotError):
        moved.taken.copy_rest()


def test_a_step_is_no_write_too_early():
    moved = Moved()
    moved.training.epoch()
    moved.taken.copy_rest()


def test_what_copying_raises_is_raised_to_who_asks_and_not_in_the_step(monkeypatch):
    def failing(_):
        raise RuntimeError("no copy")

    moved = Moved()
    monkeypatch.setattr(rest_module, "_copy_with_all_cores", failing)
    moved.training.epoch()
    for wait in (moved.taken.copy_rest, moved.taken.wait_copied):
        with pytest.raises(RuntimeError, match="no copy"):
            wait()
    moved.taken.release()


def test_a_snapshot_that_is_given_up_copies_nothing_and_holds_nobody():
    moved = Moved()
    size_bytes = moved.staging.held_bytes
    moved.taken.release()
    assert moved.taken.parts == []
    moved.training.epoch()
    assert moved.staging.held_bytes == size_bytes


def test_a_step_copies_nothing_into_memory_that_was_given_back():
    moved = Moved()
    moved.taken.release()
    other = moved.staging.take(1)
    other.memory.fill_(7)
    moved.training.epoch()
    assert other.memory.eq(7).all()


@pytest.mark.parametrize("end", ["copy_rest", "wait_copied", "release"])
def test_live_tensors_are_let_go_when_they_are_copied(end):
    net = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    taken = overlapped(Staging(), {"model": net, "optimizer": optimizer})
    gone = weakref.ref(net.weight)
    getattr(taken, end)()
    del net, optimizer
    gc.collect()
    assert gone() is None
    taken.release()


def test_a_tensor_that_shares_memory_with_one_that_is_copied_at_once_is_copied_at_once_too():
    weight = nn.Parameter(torch.arange(6.0))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    parts = {"model": {"w": weight, "half": weight.detach()[:3]}, "optimizer": optimizer}
    assert overlapped(Staging(), parts).is_copied


def test_a_parameter_with_gaps_is_copied_at_once():
    weight = nn.Parameter(torch.arange(60.0)[::2])
    optimizer = torch.optim.SGD([weight], lr=0.1)
    taken = overlapped(Staging(), {"model": {"w": weight}, "optimizer": optimizer})
    assert taken.is_copied
    assert torch.equal(taken.parts[0].tensors[0], weight)


def test_nothing_waits_without_overlap():
    training = Training()
    training.epoch()
    captured = capture(training.parts())
    assert snapshot(captured, Staging(), overlap=Overlap()).is_copied
    assert snapshot(captured, Staging()).is_copied


def test_the_time_of_copying_counts_all_threads():
    moved = Moved()
    at_once = moved.taken.copied_s
    moved.taken.copy_rest()
    assert moved.taken.copied_s > at_once > 0
