"""What the audit says of hyperparameters: those of the script, not what a schedule made of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as of

from ckptstore import Store
from ckptstore.loading.overridden import of_object, of_optimizer


class Run:
    """An optimizer with a scheduler, some steps on."""

    def __init__(self, make=None, steps=3, kind=torch.optim.SGD, **options):
        self.optimizer = kind([nn.Parameter(torch.ones(2))], **{"lr": 0.1, **options})
        self.scheduler = make and make(self.optimizer)
        for _ in range(steps):
            self.optimizer.step()
            if isinstance(self.scheduler, of.ReduceLROnPlateau):
                self.scheduler.step(1.0)
            elif self.scheduler:
                self.scheduler.step()


def said(folder, saved, present, *, optimizer=True, scheduler=True):
    """What is overridden when *present* takes the state of *saved*."""
    checkpoint = Store(folder).save(None, saved.optimizer, scheduler=saved.scheduler)
    audit = checkpoint.restore(
        None,
        present.optimizer if optimizer else None,
        scheduler=present.scheduler if scheduler else None,
    )
    return {
        one.name.replace("param_groups/", ""): (one.script, one.checkpoint)
        for one in audit.overridden
    }


def decay(optimizer):
    return of.ExponentialLR(optimizer, 0.5)


def test_a_rate_that_a_schedule_moved_is_nothing_of_the_scripts(tmp_path):
    assert said(tmp_path, Run(decay), Run(decay, steps=0)) == {}


def test_another_rate_to_start_from_is_told_once(tmp_path):
    assert said(tmp_path, Run(decay), Run(decay, steps=0, lr=0.2)) == {
        "optimizer/0/initial_lr": (0.2, 0.1)
    }


def test_without_the_optimizer_it_is_told_of_the_scheduler(tmp_path):
    found = said(tmp_path, Run(decay), Run(decay, steps=0, lr=0.2), optimizer=False)
    assert found == {"scheduler/base_lrs": ([0.2], [0.1])}


def test_without_the_scheduler_the_rate_itself_is_told(tmp_path):
    found = said(tmp_path, Run(decay), Run(decay, steps=0), scheduler=False)
    assert found == {"optimizer/0/lr": (0.1, 0.1 * 0.5**3)}


def test_without_any_scheduler_the_rate_itself_is_told(tmp_path):
    assert said(tmp_path, Run(), Run(lr=0.2)) == {"optimizer/0/lr": (0.2, 0.1)}


def test_a_scheduler_of_another_optimizer_explains_nothing(tmp_path):
    saved, present = Run(decay), Run(decay, steps=0)
    present.scheduler = decay(Run(steps=0).optimizer)
    assert said(tmp_path, saved, present) == {"optimizer/0/lr": (0.1, 0.1 * 0.5**3)}


def plateau(optimizer, **options):
    return of.ReduceLROnPlateau(optimizer, **{"factor": 0.3, "patience": 0, **options})


def test_a_rate_that_plateaus_lowered_is_nothing_of_the_scripts(tmp_path):
    saved = Run(plateau, steps=4)
    assert saved.optimizer.param_groups[0]["lr"] < 0.01
    assert said(tmp_path, saved, Run(plateau, steps=0)) == {}


def test_a_rate_that_plateaus_lowered_to_the_least_is_nothing_of_the_scripts(tmp_path):
    def least(optimizer):
        return plateau(optimizer, min_lr=0.02)

    saved = Run(least, steps=4)
    assert saved.optimizer.param_groups[0]["lr"] == 0.02
    assert said(tmp_path, saved, Run(least, steps=0)) == {}


@pytest.mark.parametrize("rate", [0.2, 0.001])
def test_a_rate_that_no_plateau_leads_to_is_told(tmp_path, rate):
    saved = Run(plateau, steps=4)
    lowered = saved.optimizer.param_groups[0]["lr"]
    found = said(tmp_path, saved, Run(plateau, steps=0, lr=rate))
    assert found == {"optimizer/0/lr": (rate, lowered)}


def test_a_rate_below_the_least_a_plateau_leads_to_is_told(tmp_path):
    def least(optimizer):
        return plateau(optimizer, min_lr=0.05)

    saved = Run(lambda optimizer: plateau(optimizer, min_lr=0.001), steps=9)
    assert said(tmp_path, saved, Run(least, steps=0)) == {
        "optimizer/0/lr": (0.1, 0.001),
        "scheduler/min_lrs": ([0.05], [0.001]),
    }


def one_cycle(optimizer):
    return of.OneCycleLR(optimizer, 0.2, total_steps=9)


def test_momentum_that_is_cycled_is_nothing_of_the_scripts(tmp_path):
    saved, present = Run(one_cycle, momentum=0.5), Run(one_cycle, steps=0, momentum=0.6)
    assert said(tmp_path, saved, present) == {}


def test_of_betas_the_one_that_is_cycled_is_nothing_of_the_scripts(tmp_path):
    saved = Run(one_cycle, kind=torch.optim.Adam, betas=(0.5, 0.7))
    present = Run(one_cycle, steps=0, kind=torch.optim.Adam, betas=(0.6, 0.7))
    assert said(tmp_path / "one", saved, present) == {}
    present = Run(one_cycle, steps=0, kind=torch.optim.Adam, betas=(0.6, 0.8))
    assert list(said(tmp_path / "other", saved, present)) == ["optimizer/0/betas"]


def test_phases_are_told_only_if_the_steps_are_the_same(tmp_path):
    def slower(optimizer):
        return of.OneCycleLR(optimizer, 0.2, total_steps=9, pct_start=0.5)

    def longer(optimizer):
        return of.OneCycleLR(optimizer, 0.2, total_steps=8, pct_start=0.5)

    found = said(tmp_path / "one", Run(one_cycle), Run(slower, steps=0))
    assert list(found) == ["scheduler/_schedule_phases"]
    found = said(tmp_path / "other", Run(one_cycle), Run(longer, steps=0))
    assert found == {"scheduler/total_steps": (8, 9)}


def test_rates_of_groups_that_came_later_are_nothing_of_the_scripts(tmp_path):
    saved = Run(plateau)
    saved.scheduler.min_lrs = [0, 0]
    assert said(tmp_path / "one", saved, Run(plateau, steps=0)) == {}
    saved.scheduler.min_lrs = [0.01, 0]
    found = said(tmp_path / "other", saved, Run(plateau, steps=0))
    assert found == {"scheduler/min_lrs": ([0], [0.01, 0])}


def test_no_number_is_the_same_as_no_number(tmp_path):
    def until(limit):
        return lambda optimizer: of.CosineAnnealingLR(optimizer, 5, limit)

    assert said(tmp_path / "one", Run(until(math.nan)), Run(until(math.nan), steps=0)) == {}
    found = said(tmp_path / "other", Run(until(math.nan)), Run(until(0.5), steps=0))
    assert list(found) == ["scheduler/eta_min"]


def test_a_gradient_scalers_hyperparameters_are_told_and_its_scale_is_not(tmp_path):
    saved = torch.amp.GradScaler("cpu", init_scale=4.0, growth_factor=3.0)
    present = torch.amp.GradScaler("cpu", init_scale=8.0, backoff_factor=0.25)
    checkpoint = Store(tmp_path).save(None, scaler=saved)
    audit = checkpoint.restore(None, scaler=present)
    assert [(one.name, one.script, one.checkpoint) for one in audit.overridden] == [
        ("scaler/growth_factor", 2.0, 3.0),
        ("scaler/backoff_factor", 0.25, 0.5),
    ]


class Own(of.LRScheduler):
    """Keeps what it likes."""

    def __init__(self, optimizer, *, warmup=2):
        self.warmup = warmup
        super().__init__(optimizer)

    def get_lr(self):
        return self.base_lrs

    def state_dict(self):
        return [self.warmup]

    def load_state_dict(self, state):
        (self.warmup,) = state


def test_of_a_state_that_is_no_dict_nothing_is_told(tmp_path):
    present = Run(lambda optimizer: Own(optimizer, warmup=3), steps=0)
    assert said(tmp_path, Run(Own), present) == {}
    assert present.scheduler.warmup == 2


def test_what_the_script_had_is_kept_when_its_tensor_is_written_to(tmp_path):
    saved = Run(kind=torch.optim.Adam, betas=(torch.tensor(0.5), torch.tensor(0.5)))
    present = Run(kind=torch.optim.Adam, betas=(torch.tensor(0.25), torch.tensor(0.5)))
    script, checkpoint = said(tmp_path, saved, present)["optimizer/0/betas"]
    assert ([each.item() for each in script], checkpoint[0].item()) == ([0.25, 0.5], 0.5)


@pytest.mark.parametrize("rate", ["text", [0.1], None])
def test_a_rate_of_another_form_is_told_as_it_is(rate):
    present = Run(plateau, steps=0)
    (group,) = present.optimizer.state_dict()["param_groups"]
    state = {"param_groups": [{**group, "lr": rate}]}
    found = of_optimizer("o", present.optimizer, state, {"s": present.scheduler})
    assert [(one.name, one.checkpoint) for one in found] == [("o/param_groups/0/lr", rate)]


def test_betas_of_another_form_are_told_as_they_are():
    present = Run(one_cycle, steps=0, kind=torch.optim.Adam)
    (group,) = present.optimizer.state_dict()["param_groups"]
    state = {"param_groups": [{**group, "betas": 0.5}]}
    found = of_optimizer("o", present.optimizer, state, {"s": present.scheduler})
    assert [one.name for one in found] == ["o/param_groups/0/betas"]


def test_of_a_scalers_state_of_another_form_nothing_is_told():
    assert list(of_object("s", torch.amp.GradScaler("cpu"), [1], {})) == []
