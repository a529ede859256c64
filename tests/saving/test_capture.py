"""Parts as trees and tensors: names, ties, what is refused, and the state left as it was found."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import swa_utils

from ckptstore import Store, remember_init
from ckptstore.errors import ArgumentError, StateWarning, UnsupportedValueError
from ckptstore.saving.capture import capture, capture_tree, encode_config, unknown_arguments
from tests.format.tensors import quietly, tensors
from tests.format.trees import bits, containers, leaves


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a = nn.Linear(2, width)
        self.b = nn.BatchNorm1d(width)


def one(part, name="model", **options):
    (captured,) = capture({name: part}, **options)
    return captured


def test_a_modules_tensors_are_named_by_their_keys_and_nothing_is_copied():
    net = Net(3)
    part = one(net)
    assert part.kind == "module"
    assert part.class_name.endswith(".Net")
    assert part.tensor_names == list(net.state_dict())
    for tensor, own in zip(part.tensors, net.state_dict().values(), strict=True):
        assert tensor.data_ptr() == own.data_ptr()
    assert part.tree["_metadata"]["$OrderedDict"][0][0] == ""


def test_tied_tensors_are_one():
    net = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    net["b"].weight = net["a"].weight
    part = one(net)
    assert part.tensor_names == ["a.weight", "a.bias", "b.bias"]
    places = {key: node["$tensor"] for key, node in part.tree["$OrderedDict"]}
    assert places["a.weight"] == places["b.weight"]


def test_views_that_differ_are_several():
    base = torch.arange(6.0)
    state = {
        "base": base,
        "half": base[:3],
        "turned": base.view(2, 3).t(),
        "bits": base.view(torch.int32),
        "same": base[:],
        "empty": base[:0],
        "none": base[3:3],
    }
    part = one(state)
    assert part.tensor_names == ["base", "half", "turned", "bits", "empty", "none"]


def test_tensors_elsewhere_are_named_by_numbers():
    net = Net(3)
    optimizer = torch.optim.Adam(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    model, part = capture({"model": net, "optimizer": optimizer})
    assert part.kind == "optimizer"
    assert part.tensor_names == [str(n) for n in range(len(part.tensors))]
    assert part.parameters == (
        ("model/a.weight", "model/a.bias", "model/b.weight", "model/b.bias"),
    )
    assert model.parameters is None


WEIRD = [
    "", ".", "..", "/", "../../etc/passwd", "a/b", "\0", "a\0b", "~", "C:\\x", "a::b", "$tensor",
    "$dict", "é", "e\N{COMBINING ACUTE ACCENT}", "\N{FULLWIDTH LATIN SMALL LETTER A}", "a" * 5000,
    "nul", "NUL", "W", "w", "\n", '"', "\\", "<script>alert(1)</script>", "\U0001f600",
    "_metadata", "__proto__", "0", "1",
]  # fmt: skip


def test_names_of_tensors_are_opaque_and_never_a_path(tmp_path):
    state = {name: torch.full((2,), float(n)) for n, name in enumerate(WEIRD)}
    store = Store(tmp_path / "store", catalog="sqlite://")
    saved = store.save(state, rng=False)
    back = saved.state("model")
    assert list(back) == WEIRD
    assert all(torch.equal(back[name], state[name]) for name in WEIRD)
    paths = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
    assert len([path for path in paths if path.endswith(".safetensors")]) == 1
    assert not [
        path for path in paths if "etc" in path or "script" in path or "nul" in path.lower()
    ]


def test_names_that_fall_together_are_told_apart():
    state = {
        "a/b": torch.zeros(1),
        "a": {"b": torch.ones(1), "b/3": torch.ones(2)},
        "a/b/1": torch.zeros(3),
        1: torch.ones(4),
        "1": torch.ones(5),
    }
    names = one(state).tensor_names
    assert len(set(names)) == len(names) == 6


def test_safetensors_own_name_is_refused():
    with pytest.raises(UnsupportedValueError, match="rename it"):
        one({"__metadata__": torch.ones(1)})


def test_a_part_that_is_no_module_may_hold_that_name():
    assert capture_tree("extra", {"__metadata__": torch.ones(1)}).tensor_names == ["0"]


def two_tensors():
    from torch.testing._internal.two_tensor import TwoTensor

    return TwoTensor(torch.ones(2), torch.ones(2))


@pytest.mark.parametrize(
    ("make", "what", "advice"),
    [
        (lambda: torch.ones(2, device="meta"), "meta device", "materialise"),
        (lambda: torch.eye(2).to_mkldnn(), "layout torch._mkldnn", "to_dense"),
        (
            lambda: torch.empty(2, 2, layout=torch.sparse_coo, device="meta"),
            "meta device",
            "materialise",
        ),
        (
            lambda: quietly(
                torch.quantize_per_channel,
                torch.ones(4, 4),
                torch.ones(4),
                torch.zeros(4),
                0,
                torch.quint4x2,
            ),
            "quantised tensor of dtype torch.quint4x2",
            "dequantize",
        ),
        (two_tensors, "TwoTensor", "plain tensor"),
        (lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "nested", "unbind"),
        (
            lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged),
            "NestedTensor|nested|jagged",
            "unbind|plain tensor|to_dense",
        ),
        (lambda: nn.LazyLinear(2).weight, "lazy parameter", "forward pass"),
        (
            lambda: torch.ones(2).as_subclass(type("Odd", (torch.Tensor,), {})),
            "Odd",
            "plain tensor",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_tensor_that_cannot_be_kept_is_named_with_what_to_do(make, what, advice):
    with pytest.raises(UnsupportedValueError, match=what) as raised:
        capture({"ema": {"layer": [make()]}})
    assert raised.value.path == "ema/layer/0"
    assert any(word in str(raised.value) for word in advice.split("|"))


def test_a_sparse_tensor_that_would_not_be_read_is_not_written():
    outside = torch.sparse_coo_tensor(
        torch.tensor([[5]]), torch.ones(1), (2,), check_invariants=False
    )
    with pytest.raises(
        UnsupportedValueError, match=r"size is inconsistent.*found index 5"
    ) as raised:
        capture({"ema": {"layer": [outside]}})
    assert raised.value.path == "ema/layer/0"


@pytest.mark.parametrize("thing", [lambda: 0, open, object()])
def test_an_object_in_the_state_is_named_by_its_path(thing):
    class Loader:
        def state_dict(self):
            return {"position": 3, "hooks": [1, {"f": thing}]}

    with pytest.raises(UnsupportedValueError) as raised:
        capture({"loader": Loader()})
    assert raised.value.path == "loader/hooks/1/f"


@pytest.mark.parametrize("dtype", ["O", "f8,i4"])
def test_an_array_that_cannot_be_kept_is_named_by_its_path(dtype):
    with pytest.raises(UnsupportedValueError, match="a NumPy value of dtype") as raised:
        capture_tree("extra", {"v": [np.zeros(1, dtype)]})
    assert raised.value.path == "extra/v/0"


def test_extra_state_of_a_module_is_kept():
    class Extra(nn.Module):
        def get_extra_state(self):
            return {"seen": 7, "table": torch.ones(2)}

        def set_extra_state(self, state):
            self.state = state

    part = one(nn.Sequential(Extra()))
    assert part.tensor_names == ["0._extra_state/table"]


def test_a_part_without_state_warns():
    for part in (nn.ReLU(), {}, nn.Sequential()):
        with pytest.warns(StateWarning, match="part 'model' has no state"):
            one(part)
    one({"a": 0})
    one({"a": torch.empty(0)})


def test_generators_are_parts():
    torch_part = one(torch.Generator().manual_seed(3), "sampler")
    numpy_part = one(np.random.Generator(np.random.MT19937(3)), "augment")
    assert torch_part.kind == numpy_part.kind == "generator"
    assert torch_part.tensors == []
    assert len(numpy_part.tensors) == 1


class Schedule:
    def __init__(self):
        self.asked = 0

    def state_dict(self):
        self.asked += 1
        return {"step": self.asked}


def test_anything_with_a_state_dict_is_asked_once():
    schedule = Schedule()
    part = one(schedule, "scheduler")
    assert part.kind == "object"
    assert part.tree == {"step": 1}
    assert part.class_name.endswith(".Schedule")


@remember_init
class Known(nn.Module):
    def __init__(self, width, act="relu", layer=None):
        super().__init__()
        self.a = nn.Linear(1, width)
        self.rest = (act, layer)


def test_constructor_arguments_are_given_or_remembered():
    assert one(Net(3), model_config={"width": 3}).model_config == {"width": 3}
    assert one(Net(3)).model_config is None
    assert one(Known(3)).model_config == {"width": 3, "act": "relu", "layer": None}
    assert one(Known(3), model_config={"width": 4}).model_config == {"width": 4}
    assert one(nn.DataParallel(Known(5))).model_config["width"] == 5
    captured = capture({"model": Net(1), "critic": Known(2)}, {"width": 1})
    assert [part.model_config["width"] for part in captured] == [1, 2]


@pytest.mark.parametrize("config", [7, "a", [1], {1: 2}, {("a",): 1}])
def test_a_config_is_a_dict_with_names(config):
    with pytest.raises(ArgumentError, match="keys are strings"):
        encode_config(config, "model_config")


def test_a_config_holds_what_a_tree_does_but_tensors():
    assert encode_config({"dtype": torch.bfloat16}, "c") == {"dtype": {"$torch.dtype": "bfloat16"}}
    with pytest.raises(UnsupportedValueError, match="model_config/hook"):
        encode_config({"hook": print}, "model_config")
    assert encode_config(None, "c") is None


def warnings_of(**parts):
    return unknown_arguments(parts, capture(parts))


def test_a_module_that_could_not_be_built_again_is_said():
    (message,) = warnings_of(model=Net(3))
    assert "Net needs width" in message
    assert "model_config={…}" in message
    (message,) = warnings_of(critic=nn.DataParallel(Net(3)))
    assert "@ckptstore.remember_init" in message
    assert "critic" in message


def test_what_can_be_built_is_not():
    class Plain(nn.Module):
        def __init__(self, width=3, *args, **kwargs):
            super().__init__()
            self.w = nn.Parameter(torch.ones(width))
            self.rest = (args, kwargs)

    assert warnings_of(model=Plain(), critic=Known(2), ema={"w": torch.ones(1)}) == []


def test_an_argument_that_cannot_be_recorded_is_said_and_the_save_goes_on():
    (message,) = warnings_of(model=Known(3, layer=nn.ReLU()))
    assert "layer" in message
    assert "ReLU" in message
    assert "model_config=" in message


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        leaves
        | tensors()
        | st.sampled_from(
            [
                np.arange(6).reshape(2, 3),
                np.asfortranarray(np.arange(6.0).reshape(2, 3)),
                np.array("2026-01-31", "M8[ns]"),
                np.array([["é", ""]]),
                np.empty((0, 2), "f4"),
            ]
        ),
        containers,
        max_leaves=10,
    )
)
def test_every_extra_comes_back_with_its_types_and_bits(tmp_path_factory, extra):
    if extra is None:
        return
    store = shared(tmp_path_factory)
    back = store.save(extra=extra, rng=False).extra
    assert bits(back) == bits(extra)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from("abcd"), tensors(), min_size=1))
def test_every_tensor_comes_back_with_its_kind_and_bits(tmp_path_factory, state):
    back = shared(tmp_path_factory).save(state, rng=False).state("model")
    assert bits(back) == bits(state)


STORES = {}


def shared(tmp_path_factory):
    if "store" not in STORES:
        STORES["store"] = Store(tmp_path_factory.mktemp("extra") / "store", catalog="sqlite://")
    return STORES["store"]


def test_a_save_leaves_everything_as_it_was(tmp_path):
    net = Net(3)
    net.a.eval()
    optimizer = torch.optim.AdamW(net.parameters())
    net.b(net.a(torch.ones(4, 2))).sum().backward()
    optimizer.step()
    net.a.weight.requires_grad = False
    before = snapshot(net, optimizer)
    store = Store(tmp_path, catalog="sqlite://")
    for _ in range(2):
        store.save(
            net,
            optimizer,
            model_config={"width": 3},
            extra={"x": torch.ones(2).t()},
            loss=torch.tensor(1.0),
        )
    assert snapshot(net, optimizer) == before


class Mean:
    """What an average calls, with a count of its own."""

    def __init__(self):
        self.count = 1

    def __call__(self, averaged, current, _):
        return averaged + (current - averaged) / self.count

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


@pytest.mark.parametrize("function", ["avg_fn", "multi_avg_fn"])
def test_what_an_average_calls_is_not_in_its_state_and_told(function):
    mean = Mean()
    average = swa_utils.AveragedModel(Net(1), **{function: mean})
    with pytest.warns(StateWarning, match=rf"averages with a .*Mean \({function}=\)"):
        capture({"ema": average})
    capture({"ema": average, "mean": mean})
    capture({"ema": swa_utils.AveragedModel(Net(1), avg_fn=swa_utils.get_ema_avg_fn())})


def snapshot(net, optimizer):
    tensors = [*net.state_dict(keep_vars=True).values()]
    tensors += [t for state in optimizer.state.values() for t in state.values()]
    return (
        [(id(t), t._version, t.data_ptr(), t.requires_grad, t.tolist()) for t in tensors],
        [(id(p.grad), None if p.grad is None else p.grad._version) for p in net.parameters()],
        [module.training for module in net.modules()],
        random.getstate(),
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002 - it must not move
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
    )
