"""Constructor arguments: recorded by name, as they were when the instance was built."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from torch import nn

from ckptstore import Store, remember_init
from ckptstore.state.init_args import accepted, remembered, required_parameters, unrecorded


def recorded(init, *args, **kwargs):
    cls = remember_init(type("Net", (nn.Module,), {"__init__": init}))
    return remembered(cls(*args, **kwargs))


def test_arguments_are_recorded_by_name_defaults_included():
    def init(self, width, depth=2, *, bias=True):
        nn.Module.__init__(self)
        del width, depth, bias

    assert recorded(init, 3) == {"width": 3, "depth": 2, "bias": True}
    assert recorded(init, width=3, bias=False, depth=1) == {"width": 3, "depth": 1, "bias": False}


def test_further_keywords_are_named_too():
    def init(self, width, *args, **options):
        nn.Module.__init__(self)
        del width, args, options

    assert recorded(init, 3, act="relu") == {"width": 3, "act": "relu"}
    assert recorded(init, 3, 4) is None


def test_what_cannot_be_passed_by_name_is_not_recorded():
    def init(self, width, /):
        nn.Module.__init__(self)
        del width

    cls = remember_init(type("Net", (nn.Module,), {"__init__": init}))
    assert remembered(cls(3)) is None
    assert "width" in unrecorded(cls(3))


class Layers(nn.Module):
    def __init__(self, widths=(1,), act=nn.ReLU(), norm=None):  # noqa: B008 - users write this
        super().__init__()
        self.widths = widths
        if isinstance(widths, list):
            widths.append(9)
        self.rest = (act, norm)


remember_init(Layers)


def test_changing_an_argument_later_changes_nothing():
    widths = [1, 2]
    net = Layers(widths)
    widths.append(3)
    assert remembered(net)["widths"] == [1, 2]


def test_a_default_that_cannot_be_kept_is_left_to_the_constructor():
    assert remembered(Layers([1])) == {"widths": [1], "norm": None}
    assert unrecorded(Layers([1])) is None


@pytest.mark.parametrize("value", [nn.Linear(1, 1), torch.ones(1), lambda: 0, nn.ReLU])
def test_an_argument_that_cannot_be_kept_is_named(value):
    net = Layers(norm=value)
    assert remembered(net) is None
    assert "'norm'" in unrecorded(net)


def test_an_argument_is_not_copied_before_it_is_known_to_be_small():
    class Heavy(nn.Module):
        def __deepcopy__(self, memo):
            pytest.fail("copied")

    Layers(norm=Heavy())


def test_a_subclass_records_for_itself_alone():
    class Bare(Layers):
        def __init__(self, extra):
            super().__init__([extra])

    @remember_init
    class Decorated(Layers):
        def __init__(self, extra):
            super().__init__([extra])

    assert remembered(Bare(3)) is None
    assert remembered(Decorated(3)) == {"extra": 3}
    assert remembered(Layers([3])) == {"widths": [3], "norm": None}


def test_the_constructors_own_error_is_raised():
    with pytest.raises(TypeError, match="unexpected keyword"):
        Layers(depth=3)


def test_the_class_looks_as_before():
    assert Layers.__name__ == "Layers"
    assert list(inspect.signature(Layers).parameters) == ["widths", "act", "norm"]


def test_state_dicts_and_copies_are_as_before():
    net = Layers([1])
    assert net.state_dict() == {}
    assert remembered(copy.deepcopy(net)) == remembered(net)


def test_what_was_never_decorated_has_nothing():
    assert remembered(nn.Linear(1, 1)) is None
    assert unrecorded(nn.Linear(1, 1)) is None
    assert remembered({}) is None


def test_parameters_without_defaults_are_required():
    assert required_parameters(nn.Linear) == ["in_features", "out_features"]
    assert required_parameters(Layers) == []
    assert required_parameters(lambda a, *b, c, d=1, **e: (a, b, c, d, e)) == ["a", "c"]
    assert required_parameters(int) in ([], ["x"])


def test_only_arguments_that_are_taken_are_passed():
    assert accepted(lambda a, *, b=1: (a, b), {"a": 1, "b": 2, "c": 3}) == {"a": 1, "b": 2}
    assert accepted(lambda **kwargs: kwargs, {"a": 1}) == {"a": 1}


@remember_init
class Net(nn.Module):
    def __init__(self, width, dtype=torch.float32):
        super().__init__()
        self.layer = nn.Linear(1, width, dtype=dtype)


def test_a_model_is_built_again_from_what_was_remembered(tmp_path):
    store = Store(tmp_path)
    store.save(Net(5, dtype=torch.bfloat16), val_loss=1.0)
    loaded = store.load_best(Net, device="cpu")
    assert loaded.layer.out_features == 5
    assert loaded.layer.weight.dtype == torch.bfloat16
    assert store.latest().model_config == {"width": 5, "dtype": torch.bfloat16}
