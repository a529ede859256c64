"""A metric keeps what it accumulated, whatever its state dict has of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torchmetrics import CatMetric, MeanMetric, Metric, MetricCollection, MetricTracker, SumMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassRecall

from ckptstore import Store
from ckptstore.errors import MismatchError, StateWarning
from ckptstore.state.metrics import (
    forgotten_metrics,
    has_weights,
    is_metric,
    metric_problems,
    metric_state,
    put_metric_state,
)
from tests.loading.trainings import frozen


class Weighted(Metric):
    """Has a module inside, a state without a reduction, and a mean that depends on the count."""

    def __init__(self, width=2):
        super().__init__()
        self.scale = nn.Linear(width, 1, bias=False)
        self.add_state("mean", torch.zeros(()), dist_reduce_fx="mean")
        self.add_state("seen", [])
        self.add_state("kept", torch.zeros(width), persistent=True)

    def update(self, x):
        self.mean += self.scale(x).mean()
        self.seen.append(x)
        self.kept += x.sum(0)

    def compute(self):
        return self.mean + torch.cat(self.seen).sum() + self.kept.sum()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_metrics_are_told_from_modules():
    assert is_metric(MeanMetric())
    assert is_metric(MetricCollection([MeanMetric()]))
    assert not is_metric(nn.Linear(1, 1))
    assert has_weights(nn.Linear(1, 1))
    assert not has_weights(MeanMetric())
    assert not has_weights(3)


def test_what_was_accumulated_comes_back_with_its_count(store):
    metric = Weighted()
    for _ in range(3):
        metric(torch.rand(4, 2))
    checkpoint = store.save(scores=metric)  # a warning that it has no state fails the test
    other = Weighted()
    other.update(torch.rand(4, 2))
    other.compute()
    audit = checkpoint.restore(scores=other)
    x = torch.rand(4, 2)

    assert audit.restored == ("scores",)
    assert other.update_count == 3
    assert frozen(other.metric_state) == frozen(metric.metric_state)
    assert frozen(other.compute()) == frozen(metric.compute())
    assert frozen([other(x), other.compute()]) == frozen([metric(x), metric.compute()])


def test_saving_leaves_a_metric_as_it_was(store):
    metric = MeanMetric()
    metric.update(2.0)
    flags = dict(metric._persistent)
    store.save(scores=metric)

    assert dict(metric._persistent) == flags
    assert not metric.state_dict()


def test_no_state_is_kept_twice():
    metric = Weighted()

    assert list(metric_state(metric)["modules"]) == ["scale.weight"]
    assert list(metric_state(metric)["metrics"][""]["state"]) == ["mean", "seen", "kept"]


def test_a_collection_keeps_what_its_groups_share(store):
    def build():
        return MetricCollection([MulticlassAccuracy(3), MulticlassRecall(3), CatMetric()])

    def update(metrics):
        torch.manual_seed(1)
        for name, metric in metrics.items(copy_state=False):
            if name == "CatMetric":
                metric.update(torch.rand(2))
        groups = MetricCollection({k: v for k, v in metrics.items() if k != "CatMetric"})
        groups.update(torch.rand(5, 3), torch.randint(3, (5,)))

    metrics = build()
    update(metrics)
    other = build()
    store.save(scores=metrics).restore(scores=other)

    assert frozen(other.compute()) == frozen(metrics.compute())
    assert not torch.equal(other["CatMetric"].compute(), torch.zeros(2))


def test_a_metric_inside_a_model_is_as_the_models_state_dict_has_it(store):
    model = nn.ModuleDict({"fc": nn.Linear(2, 2), "mean": MeanMetric(), "sum": SumMetric()})
    with pytest.warns(StateWarning, match=r"part 'model' has metrics inside, .*: sum\. To go on"):
        saved = store.save(model, scores=model["mean"])
    store.save(model)  # once: another warning fails the test

    assert list(saved.state("model")) == ["fc.weight", "fc.bias"]
    assert forgotten_metrics({"model": model, "a": model["mean"], "b": model["sum"]}) == []


def trackers(steps=0):
    """Return a tracker in a dict, with other metrics beside it, all of them updated."""
    made = nn.ModuleDict(
        {"tracked": MetricTracker(Weighted(), maximize=False), "list": nn.ModuleList([SumMetric()])}
    )
    for step in range(steps):
        made["tracked"].increment()
        made["list"][0].update(step + 1.0)
        made["tracked"].update(torch.full((3, 2), step + 2.0))
    return made


@pytest.mark.parametrize("before", [0, 1, 2, 3])
@pytest.mark.parametrize("steps", [0, 2])
def test_metrics_in_containers_and_trackers_come_back_with_their_increments(store, steps, before):
    saved, other = trackers(steps), trackers(before)
    store.save(scores=saved).restore(scores=other)

    assert not has_weights(saved)
    assert frozen(metric_state(other)) == frozen(metric_state(saved))
    for each in (saved, other):
        torch.manual_seed(3)
        each["list"][0].update(1.0)
        each["tracked"].increment()
        each["tracked"].update(torch.rand(3, 2))
    assert other["tracked"].n_steps == steps + 1
    assert frozen(other["list"][0].compute()) == frozen(saved["list"][0].compute())
    assert frozen(other["tracked"].compute_all()) == frozen(saved["tracked"].compute_all())


def test_a_tracker_of_its_own_comes_back_and_was_not_incremented_before_it_was(store):
    saved, other = trackers()["tracked"], trackers(2)["tracked"]
    store.save(scores=saved).restore(scores=other)

    assert other.n_steps == 0
    with pytest.raises(ValueError, match="increment"):
        other.compute()


def test_a_container_with_weights_is_a_model():
    assert not is_metric(nn.ModuleDict({"a": MeanMetric(), "b": nn.Linear(1, 1)}))
    assert not is_metric(nn.ModuleDict({"a": MeanMetric(), "b": nn.BatchNorm1d(1, affine=False)}))
    assert not is_metric(nn.ModuleDict())


@pytest.mark.parametrize("steps", [-1, True, "2", 2**60, None])
def test_a_tracker_is_not_incremented_as_often_as_anybody_says(steps):
    state = metric_state(trackers(2))
    state["increments"]["tracked"] = steps

    assert metric_problems(trackers(), state) == [
        "its state is not what a metric of torchmetrics was saved as"
    ]


def test_other_trackers_are_a_mismatch():
    state = metric_state(trackers(2))
    fewer = state | {"increments": {"tracked": 1}}

    assert metric_problems(trackers()["tracked"], state) == [
        "saved by something with other trackers of metrics"
    ]
    assert metric_problems(trackers(), fewer) == [
        "metric 'tracked.2' was saved, and is not here",
        "'tracked.2.scale.weight' of a module inside was saved, and is not here",
    ]


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (MulticlassAccuracy(4), r"'tp' of the metric has shape \[4\], and was saved as \[3\]"),
        (
            MulticlassAccuracy(3, average="micro"),
            r"'tp' of the metric has shape \[1\], and was saved as \[3\]|has shape \[\]",
        ),
    ],
)
def test_a_metric_of_another_shape_is_a_mismatch(store, other, problem):
    metric = MulticlassAccuracy(3)
    metric.update(torch.rand(5, 3), torch.randint(3, (5,)))
    checkpoint = store.save(scores=metric)
    before = frozen(other.metric_state)
    with pytest.raises(MismatchError, match=problem):
        checkpoint.restore(scores=other)

    assert frozen(other.metric_state) == before


def test_another_kind_of_metric_is_a_mismatch(store):
    checkpoint = store.save(scores=MeanMetric(), model=nn.Linear(1, 1), model_config={})

    with pytest.raises(MismatchError, match=r"saved by torchmetrics.*MeanMetric, and this is"):
        checkpoint.restore(scores=CatMetric())
    with pytest.raises(MismatchError, match=r"MeanMetric, and this is torch.nn"):
        store.save(scores=MeanMetric()).restore(scores=nn.Linear(1, 1))
    with pytest.raises(MismatchError, match=r"Linear, and this is torchmetrics"):
        checkpoint.restore(MeanMetric())


def test_every_difference_is_listed():
    saved = metric_state(MetricCollection({"a": Weighted(), "b": MeanMetric()}))
    problems = metric_problems(MetricCollection({"a": Weighted(3), "c": MeanMetric()}), saved)

    assert problems == [
        "metric 'c' is here, and was not saved",
        "metric 'b' was saved, and is not here",
        "'kept' of metric 'a' has shape [3], and was saved as [2]",
        "'a.scale.weight' of a module inside has shape [1, 3], and was saved as [1, 2]",
    ]
    assert metric_problems(MeanMetric(), metric_state(CatMetric())) == [
        "'mean_value' of the metric is here, and was not saved",
        "'weight' of the metric is here, and was not saved",
        "'value' of the metric was saved, and is not here",
    ]


SAVED = {"updates": 1, "state": {}, "more": {}}


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"metrics": {}},
        [1],
        {"metrics": [], "modules": {}},
        {"metrics": {}, "modules": 3},
        {"metrics": {"": 3}, "modules": {}},
        {"metrics": {"": {"updates": 1}}, "modules": {}},
        {"metrics": {"": SAVED | {"updates": True}}, "modules": {}},
        {"metrics": {"": SAVED | {"state": []}}, "modules": {}},
        {"metrics": {"": SAVED | {"more": 3}}, "modules": {}},
        {"metrics": {"": SAVED | {"more": {"compute": 3}}}, "modules": {}},
    ],
)
def test_what_is_no_metrics_state_is_a_mismatch(state):
    assert metric_problems(MeanMetric(), state) == [
        "its state is not what a metric of torchmetrics was saved as"
    ]


def test_a_value_of_another_type_is_a_mismatch():
    saved = metric_state(CatMetric())
    saved["metrics"][""]["state"]["value"] = 3

    assert metric_problems(CatMetric(), saved) == [
        "'value' of the metric has shape list, and was saved as int"
    ]


def test_restoring_forgets_what_was_computed():
    metric, other = MeanMetric(), MeanMetric()
    metric.update(1.0)
    other.update(5.0)
    assert other.compute() == 5
    put_metric_state(other, metric_state(metric))

    assert other.compute() == 1


def test_torchmetrics_is_not_imported_for_those_who_do_not_use_it(tmp_path):
    source = f"""
import sys, torch
from ckptstore import Store
store, net = Store({str(tmp_path)!r}), torch.nn.Linear(1, 1)
store.save(net)
store.resume(net)
assert "torchmetrics" not in sys.modules and "torchdata" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", source], check=True)
