"""Schedulers' states: functions left to the script, and what does not fit told beforehand."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache, partial, wraps

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as of

from ckptstore import Store
from ckptstore.errors import MismatchError, UnsupportedValueError
from ckptstore.state.schedulers import argument_keys, scheduler_problems, scheduler_state
from tests.loading.trainings import frozen


def optimizer_of(groups=1):
    return torch.optim.SGD(
        [{"params": [nn.Parameter(torch.ones(2))]} for _ in range(groups)], lr=0.1, momentum=0.9
    )


class Decay:
    def __init__(self, rate=0.9):
        self.rate = rate

    def __call__(self, epoch):
        return self.rate**epoch

    def method(self, epoch):
        return self.rate**epoch


class Stateless:
    @wraps(math.exp)
    def rate(self, epoch):
        return 0.9**epoch


class Slotted:
    __slots__ = ("rate",)

    def __init__(self):
        self.rate = 0.9

    def __call__(self, epoch):
        return self.rate**epoch


@lru_cache
def cached(epoch):
    return 0.9**epoch


@pytest.mark.parametrize(
    "function",
    [lambda _: 1.0, math.exp2, cached, partial(pow, 0.9), Stateless().rate, (0.9).__rpow__, float],
    ids=["lambda", "builtin", "cached", "partial", "method", "method wrapper", "class"],
)
def test_functions_of_every_kind_stay_the_scripts(tmp_path, function):
    optimizer = optimizer_of()
    scheduler = of.LambdaLR(optimizer, function)
    optimizer.step()
    scheduler.step()
    store = Store(tmp_path)
    checkpoint = store.save(None, optimizer, scheduler=scheduler)
    assert checkpoint.state("scheduler")["lr_lambdas"] == [None]

    other = optimizer_of()
    again = of.LambdaLR(other, function)
    store.resume(None, other, scheduler=again)
    assert again.lr_lambdas == [function]
    assert again.last_epoch == 1
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize(
    "make",
    [
        lambda o: of.LambdaLR(o, Decay()),
        lambda o: of.CyclicLR(o, 0.1, 0.2, scale_fn=Decay()),
        lambda o: of.ChainedScheduler([of.LambdaLR(o, Decay()), of.StepLR(o, 1)]),
        lambda o: of.SequentialLR(o, [of.LambdaLR(o, Decay()), of.StepLR(o, 1)], [2]),
    ],
)
def test_what_torch_keeps_is_kept_and_the_scheduler_is_as_it_was(make):
    scheduler = make(optimizer_of())
    before = dict(vars(scheduler))
    state = scheduler_state(scheduler)
    assert frozen(state) == frozen(scheduler.state_dict())
    assert all(vars(scheduler)[name] is value for name, value in before.items())


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda o: of.LambdaLR(o, Slotted()), "scheduler/lr_lambdas/0"),
        (lambda o: of.CyclicLR(o, 0.1, 0.2, scale_fn=Slotted()), "scheduler/_scale_fn_custom"),
        (
            lambda o: of.ChainedScheduler([of.StepLR(o, 1), of.MultiplicativeLR(o, Slotted())]),
            "scheduler/_schedulers/1/lr_lambdas/0",
        ),
    ],
)
def test_state_where_torch_does_not_look_is_refused_by_name(tmp_path, make, path):
    optimizer = optimizer_of()
    store = Store(tmp_path / "store")
    with pytest.raises(UnsupportedValueError, match="__slots__") as caught:
        store.save(None, optimizer, scheduler=make(optimizer))
    assert caught.value.path == path
    assert not (tmp_path / "store").exists()


class Kept(Decay):
    """An object whose state is a part of its own."""

    def state_dict(self):
        return {"rate": self.rate}

    def load_state_dict(self, state):
        self.rate = state["rate"]


class Frozen(nn.Module):
    def rate(self, epoch):
        return 0.9**epoch


@pytest.mark.parametrize(
    ("make", "path", "held"),
    [
        (
            lambda o: of.LambdaLR(o, Decay().method),
            "scheduler/lr_lambdas/0",
            "behind the bound method method()",
        ),
        (
            lambda o: of.LambdaLR(o, partial(Decay())),
            "scheduler/lr_lambdas/0",
            "in a functools.partial",
        ),
        (
            lambda o: of.CyclicLR(o, 0.1, 0.2, scale_fn=partial(lambda _, x: x, Decay())),
            "scheduler/_scale_fn_custom",
            "in a functools.partial",
        ),
        (
            lambda o: of.ChainedScheduler([of.StepLR(o, 1), of.LambdaLR(o, Decay().method)]),
            "scheduler/_schedulers/1/lr_lambdas/0",
            "behind the bound method method()",
        ),
    ],
)
def test_state_behind_a_function_is_refused_by_name(tmp_path, make, path, held):
    optimizer = optimizer_of()
    store = Store(tmp_path / "store")
    with pytest.raises(UnsupportedValueError) as caught:
        store.save(None, optimizer, scheduler=make(optimizer))
    assert caught.value.path == path
    assert f"Decay {held}, whose attributes are in no scheduler's state" in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_state_behind_a_function_may_be_a_part_of_its_own(tmp_path):
    optimizer, kept = optimizer_of(), Kept()
    scheduler = of.LambdaLR(optimizer, kept.method)
    kept.rate = 0.5
    store = Store(tmp_path)
    store.save(None, optimizer, scheduler=scheduler, decay=kept)
    other, again = optimizer_of(), Kept()
    resumed = of.LambdaLR(other, again.method)
    store.resume(None, other, scheduler=resumed, decay=again)
    assert again.rate == 0.5


def test_a_modules_method_is_a_function_like_any_other(tmp_path):
    optimizer = optimizer_of()
    scheduler = of.LambdaLR(optimizer, Frozen().rate)
    assert Store(tmp_path).save(None, optimizer, scheduler=scheduler)


class Warmup(of.LRScheduler):
    def __init__(self, optimizer, *after):
        self.after = list(after)
        super().__init__(optimizer)

    def get_lr(self):
        return self.base_lrs


def test_a_scheduler_in_one_of_ones_own_needs_a_state_dict_there(tmp_path):
    optimizer = optimizer_of()
    scheduler = Warmup(optimizer, steps(optimizer))
    with pytest.raises(UnsupportedValueError, match=r"give Warmup one of its own, with after\.st"):
        Store(tmp_path).save(None, optimizer, scheduler=scheduler)


def test_what_is_hidden_keeps_nothing_from_being_restored(tmp_path):
    optimizer, other = optimizer_of(), optimizer_of()
    store = Store(tmp_path)
    store.save(None, optimizer, scheduler=of.LambdaLR(optimizer, abs))
    assert store.resume(None, other, scheduler=of.LambdaLR(other, Decay().method))


def test_a_callable_objects_state_that_cannot_be_kept_is_refused_by_name(tmp_path):
    optimizer = optimizer_of()
    with pytest.raises(UnsupportedValueError) as caught:
        Store(tmp_path).save(
            None, optimizer, scheduler=of.LambdaLR(optimizer, Decay(Fraction(9, 10)))
        )
    assert caught.value.path == "scheduler/lr_lambdas/0/rate"


def test_a_class_of_ones_own_says_for_itself_what_its_state_is():
    class Own(of.LambdaLR):
        def state_dict(self):
            return {"own": 1}

    scheduler = Own(optimizer_of(), math.exp2)
    assert scheduler_state(scheduler) == {"own": 1}
    assert scheduler_problems(scheduler, {"whatever": 2}) == []


SAVED = (
    "its state has _get_lr_called_within_step, _is_initial, _last_lr, _step_count, base_lrs, "
    "gamma, last_epoch"
)


def chain(*makes):
    return lambda o: of.ChainedScheduler([make(o) for make in makes])


def steps(o):
    return of.StepLR(o, 1)


def rates(o):
    return of.ExponentialLR(o, 0.9)


@pytest.mark.parametrize(
    ("saved", "present", "problem"),
    [
        (chain(steps, rates), chain(steps), "_schedulers had 2 entries, and has 1 here"),
        (chain(steps), chain(steps, rates), "_schedulers had 1 entries, and has 2 here"),
        (
            chain(steps, steps),
            chain(steps, rates),
            "_schedulers/1: another kind of scheduler than ExponentialLR was saved: "
            + SAVED
            + ", step_size",
        ),
        (
            chain(rates),
            chain(steps),
            f"_schedulers/0: another kind of scheduler than StepLR was saved: {SAVED}",
        ),
        (
            lambda o: of.LambdaLR(o, Decay()),
            lambda o: of.LambdaLR(o, abs),
            "lr_lambdas/0 was an object with rate, and is a function here",
        ),
        (
            lambda o: of.CyclicLR(o, 0.1, 0.2, scale_fn=Decay()),
            lambda o: of.CyclicLR(o, 0.1, 0.2),
            "_scale_fn_custom was an object with rate, and is a function here",
        ),
    ],
)
def test_a_scheduler_that_would_take_what_does_not_fit_is_told(tmp_path, saved, present, problem):
    optimizer = optimizer_of()
    store = Store(tmp_path)
    store.save(None, optimizer, scheduler=saved(optimizer))
    other = optimizer_of()
    scheduler = present(other)
    before = frozen(scheduler_state(scheduler))
    with pytest.raises(MismatchError) as caught:
        store.resume(None, other, scheduler=scheduler)
    assert caught.value.problems == (f"scheduler: {problem}",)
    assert frozen(scheduler_state(scheduler)) == before


def test_a_scheduler_for_another_number_of_groups_is_told():
    state = of.StepLR(optimizer_of(2), 1).state_dict()
    assert scheduler_problems(of.StepLR(optimizer_of(1), 1), state) == [
        "base_lrs had 2 entries, and has 1 here"
    ]


@pytest.mark.parametrize("state", [[], {"_schedulers": [1]}])
def test_a_state_of_another_form_is_told(state):
    (problem,) = scheduler_problems(chain(steps)(optimizer_of()), state)
    assert problem.endswith(", and should be a dict")


def test_attributes_of_another_form_are_told():
    scheduler = of.LambdaLR(optimizer_of(), Decay())
    state = {**scheduler.state_dict(), "lr_lambdas": ["text"]}
    assert scheduler_problems(scheduler, state) == ["lr_lambdas/0 is a str, and should be a dict"]


def test_what_an_older_torch_kept_and_a_newer_one_does_not_is_no_mismatch():
    scheduler = steps(optimizer_of())
    state = scheduler.state_dict()
    state["verbose"] = False
    del state["_is_initial"]
    assert scheduler_problems(scheduler, state) == []


def test_arguments_are_told_from_what_a_training_changes():
    scheduler = of.CosineAnnealingWarmRestarts(optimizer_of(), 2)
    assert argument_keys(type(scheduler), scheduler.state_dict()) == {"T_0", "T_mult", "eta_min"}
    scheduler = of.CyclicLR(optimizer_of(), 0.1, 0.2)
    assert argument_keys(type(scheduler), scheduler.state_dict()) == {
        *("max_lrs", "base_lrs", "base_momentums", "max_momentums", "total_size", "step_ratio"),
        *("mode", "gamma", "scale_mode", "cycle_momentum"),
    }
