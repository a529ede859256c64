"""What may be copied while training goes on, and what every step waits for."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn

from ckptstore.saving.capture import capture
from ckptstore.saving.overlap import HOOKS, Overlap, has_hooks
from ckptstore.saving.staging import Staging
from tests.loading.trainings import Net
from tests.saving.snapshots import each_step_is_kept, overlapped, written


def trained(make=torch.optim.AdamW, **options):
    torch.manual_seed(0)
    net = Net()
    optimizer = make(net.parameters(), lr=0.01, **options)
    train(net, optimizer)
    return net, optimizer


def train(net, optimizer):
    loss = net(torch.randn(8, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def late_names(parts):
    """Return the names of tensors that may be copied later."""
    overlap = Overlap(parts)
    return {
        f"{part.name}/{name}"
        for part in capture(parts)
        for name, tensor in zip(part.tensor_names, part.tensors, strict=True)
        if overlap.find(tensor) is not None
    }


def hooks(optimizer):
    return list(getattr(optimizer, HOOKS).values())


def test_parameters_and_moments_may_wait_and_nothing_else():
    net, optimizer = trained()
    found = late_names({"model": net, "optimizer": optimizer})
    assert {name for name in found if name.startswith("model/")} == {
        f"model/{name}" for name, _ in net.named_parameters()
    }
    tensors = capture({"optimizer": optimizer})[0].tensors
    assert {name for name in found if name.startswith("optimizer/")} == {
        f"optimizer/{place}" for place, tensor in enumerate(tensors) if tensor.dim()
    }


def test_parameters_of_an_optimizer_that_is_not_handed_over_do_not_wait():
    net, _ = trained()
    assert not late_names({"model": net})


def test_parameters_of_the_other_optimizer_alone_may_wait():
    net, _ = trained()
    first = torch.optim.SGD(net.first.parameters(), lr=0.1)
    torch.optim.SGD(net.last.parameters(), lr=0.1)
    assert late_names({"model": net, "optimizer": first}) == {
        "model/first.weight",
        "model/first.bias",
    }


def test_a_state_dict_of_live_parameters_waits_too():
    net, optimizer = trained()
    found = late_names({"model": net.state_dict(), "optimizer": optimizer})
    assert "model/first.weight" in found
    assert "model/norm.running_mean" not in found


def test_what_forward_writes_to_does_not_wait():
    class Renorming(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(5, 3, max_norm=1.0)
            self.bags = nn.EmbeddingBag(5, 3, max_norm=1.0)
            self.plain = nn.Embedding(5, 3)
            self.flat = nn.Parameter(torch.zeros(6))
            self.register_buffer("view", self.flat.detach()[:3], persistent=False)

    net = Renorming()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    assert late_names({"model": net, "optimizer": optimizer}) == {"model/plain.weight"}


def test_tensors_made_in_inference_mode_count_no_writes_and_do_not_wait():
    with torch.inference_mode():
        tensor = torch.ones(3)
    optimizer = torch.optim.SGD([tensor], lr=0.1)
    assert late_names({"optimizer": optimizer, "model": {"w": tensor}}) == set()


class Skipping(torch.optim.SGD):
    """Skips torch's ``__init__``, so that its step has no hooks."""

    def __init__(self, params):
        self.defaults, self.state = {}, {}
        self.param_groups = [{"params": list(params), "lr": 0.1}]

    def step(self):
        pass


class Own:
    """Looks like an optimizer, and is none of torch's."""

    def __init__(self, params):
        self.param_groups = [{"params": list(params)}]
        self.state = {}

    def state_dict(self):
        return {"lr": 0.1}

    def step(self):
        pass


def test_an_optimizer_whose_step_is_not_hooked_has_nothing_that_waits():
    net = Net()
    assert has_hooks(torch.optim.SGD(net.parameters(), lr=0.1))
    assert not has_hooks(Skipping(net.parameters()))
    assert not has_hooks(Own(net.parameters()))
    assert not has_hooks(net)
    replaced = torch.optim.SGD(net.parameters(), lr=0.1)
    replaced.step = lambda: None
    assert not has_hooks(replaced)
    wrapped = torch.optim.SGD(net.parameters(), lr=0.1)
    wrapped.step = functools.wraps(wrapped.step)(lambda: None)  # who knows what it does first
    assert not has_hooks(wrapped)
    compiled = torch.optim.SGD(net.parameters(), lr=0.1)
    compiled.step = torch.compile(compiled.step, backend="eager")
    assert not has_hooks(compiled)
    assert not late_names({"model": net, "other": Own(net.parameters())})


def test_a_step_put_onto_the_class_later_is_not_hooked():
    class Patched(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    optimizer = Patched(Net().parameters(), lr=0.1)
    assert has_hooks(optimizer)
    Patched.step = lambda _: None
    assert not has_hooks(optimizer)


def test_a_step_that_counts_for_a_scheduler_is_hooked_still():
    optimizer = torch.optim.SGD(Net().parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert "step" in vars(optimizer)
    assert has_hooks(optimizer)
    optimizer.step = torch.compile(optimizer.step, backend="eager")
    assert not has_hooks(optimizer)


OPTIMIZERS = [
    (torch.optim.AdamW, {}),
    (torch.optim.AdamW, {"foreach": False}),
    (torch.optim.AdamW, {"fused": True}),
    (torch.optim.AdamW, {"amsgrad": True}),
    (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.RMSprop, {"centered": True}),
    (torch.optim.Adagrad, {}),
    (torch.optim.NAdam, {}),
]


@pytest.mark.parametrize(("make", "options"), OPTIMIZERS)
def test_each_step_is_kept_as_it_was_at_the_call(make, options):
    net, optimizer = trained(make, **options)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def step():
        train(net, optimizer)
        scheduler.step()

    each_step_is_kept({"model": net, "optimizer": optimizer, "scheduler": scheduler}, step)


def test_state_that_the_first_step_makes_is_kept_from_then_on():
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters())
    each_step_is_kept({"model": net, "optimizer": optimizer}, lambda: train(net, optimizer))


def test_gradients_may_be_gathered_over_several_backwards():
    net, optimizer = trained()

    def step():
        optimizer.zero_grad()
        for _ in range(3):
            net(torch.randn(8, 4)).square().mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()

    each_step_is_kept({"model": net, "optimizer": optimizer}, step)


def test_a_scaler_of_gradients_steps_as_ever():
    net, optimizer = trained(torch.optim.SGD)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def step():
        optimizer.zero_grad()
        scaler.scale(net(torch.randn(8, 4)).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()

    each_step_is_kept({"model": net, "optimizer": optimizer, "scaler": scaler}, step)


def test_an_optimizer_that_calls_a_closure_waits_before_it():
    net = nn.Linear(4, 1)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=3, history_size=3)
    x, y = torch.randn(32, 4), torch.randn(32, 1)

    def closure():
        optimizer.zero_grad()
        loss = (net(x) - y).square().mean()
        loss.backward()
        return loss

    each_step_is_kept({"model": net, "optimizer": optimizer}, lambda: optimizer.step(closure))


def test_steps_within_backward_wait_too():
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
    optimizers = {
        f"optimizer_{number}": torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
        for number, parameter in enumerate(net.parameters())
    }
    for parameter, optimizer in zip(net.parameters(), optimizers.values(), strict=True):

        def step_now(_, optimizer=optimizer):
            optimizer.step()
            optimizer.zero_grad()

        parameter.register_post_accumulate_grad_hook(step_now)
    each_step_is_kept(
        {"model": net, **optimizers}, lambda: net(torch.randn(8, 4)).square().mean().backward()
    )


def test_several_optimizers_each_wait():
    net, _ = trained()
    one = torch.optim.AdamW([*net.first.parameters(), *net.norm.parameters()])
    other = torch.optim.SGD(net.last.parameters(), lr=0.1, momentum=0.9)

    def step():
        loss = net(torch.randn(8, 4)).square().mean()
        one.zero_grad()
        other.zero_grad()
        loss.backward()
        other.step()
        one.step()

    each_step_is_kept({"model": net, "optimizer": one, "second": other}, step)


def test_a_parameter_that_an_average_shares_is_kept_in_both():
    net, optimizer = trained()
    average = torch.optim.swa_utils.AveragedModel(net)
    average.module.first.weight = net.first.weight

    def step():
        train(net, optimizer)
        average.update_parameters(net)

    each_step_is_kept({"model": net, "optimizer": optimizer, "ema": average}, step)


def test_a_compiled_function_that_steps_waits_too():
    net, optimizer = trained()

    @torch.compile(backend="eager")
    def step():
        optimizer.step()

    def training_step():
        optimizer.zero_grad()
        net(torch.randn(8, 4)).square().mean().backward()
        step()

    training_step()
    each_step_is_kept({"model": net, "optimizer": optimizer}, training_step)


def test_an_optimizer_without_hooks_is_copied_at_once():
    net = Net()

    class Plain(Own):
        def step(self):
            with torch.no_grad():
                for parameter in self.param_groups[0]["params"]:
                    parameter.sub_(parameter.grad)

        def zero_grad(self):
            net.zero_grad()

    optimizer = Plain(net.parameters())
    each_step_is_kept({"model": net, "other": optimizer}, lambda: train(net, optimizer), late=False)


def test_the_hook_goes_with_the_first_step_after_the_copy():
    net, optimizer = trained()
    parts = {"model": net, "optimizer": optimizer}
    taken = overlapped(Staging(), parts)
    assert len(hooks(optimizer)) == 1
    train(net, optimizer)
    assert hooks(optimizer) == []
    taken = overlapped(Staging(), parts)
    taken.copy_rest()
    train(net, optimizer)
    assert hooks(optimizer) == []
    del taken


def test_two_snapshots_share_one_hook():
    net, optimizer = trained()
    parts = {"model": net, "optimizer": optimizer}
    staging = Staging()
    before = written(capture(parts))
    several = [overlapped(staging, parts) for _ in range(2)]
    assert len(hooks(optimizer)) == 1
    train(net, optimizer)
    assert hooks(optimizer) == []
    assert all(written(taken.parts) == before for taken in several)


def test_hooks_of_the_training_come_after_and_stay():
    net, optimizer = trained()
    seen = []

    def own(*_):
        seen.append(taken.is_copied)
        with torch.no_grad():
            net.first.weight.zero_()

    handle = optimizer.register_step_pre_hook(own)
    parts = {"model": net, "optimizer": optimizer}
    before = written(capture(parts))
    taken = overlapped(Staging(), parts)
    train(net, optimizer)
    assert seen == [True]
    taken.copy_rest()
    assert written(taken.parts) == before
    train(net, optimizer)  # nothing goes away from under torch, which is going through them
    handle.remove()
    train(net, optimizer)
    assert hooks(optimizer) == []


def test_a_copy_of_the_optimizer_has_no_hook():
    net, optimizer = trained()
    taken = overlapped(Staging(), {"model": net, "optimizer": optimizer})
    assert hooks(copy.deepcopy(optimizer)) == []
    assert HOOKS not in optimizer.__getstate__()
    taken.release()
