# ruff: noqa: NPY002, S311 - the global generators are what must not move
from __future__ import annotations

import copy
import gc
import mmap
import random
import re
import sys
import warnings
import weakref
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from ckptstore.errors import IntegrityError, MismatchError, UsageError
from ckptstore.loading.build import build
from tests.loading import architectures as arch

CPU = torch.device("cpu")
WHAT = "part 'model' of digits@7"
EVERY = pytest.mark.parametrize("make", arch.SKIPPED + arch.PLAIN, ids=lambda make: make.__name__)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True"),
]


def saved(module: nn.Module) -> tuple[OrderedDict, dict]:
    """Return state as a version holds it (tied tensors once, each its own memory) and metadata."""
    raw = module.state_dict(keep_vars=True)
    once = {}
    state = OrderedDict()
    for name, value in raw.items():
        if isinstance(value, torch.Tensor):
            key = (value.data_ptr() or id(value), value.shape)
            state[name] = once.setdefault(key, value.detach().clone())
        else:
            state[name] = copy.deepcopy(value)
    return state, copy.deepcopy(dict(raw._metadata))


def other_weights(make) -> tuple[OrderedDict, dict]:
    """Return the state of such a module, with values no initialisation gives."""
    module = make()
    with torch.no_grad():
        for value in module.state_dict().values():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                value.normal_(3, 0.1)
    return saved(module)


def load(make, state, metadata=None, mode="auto", device=CPU):
    return build(make, state, device=device, metadata=metadata, what=WHAT, mode=mode)


def bits(tensor: torch.Tensor):
    tensor = tensor.detach().contiguous()
    return str(tensor.dtype), tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).tolist()


def content(value):
    """Return all that an attribute holds, in comparable form."""
    if isinstance(value, torch.Tensor):
        return bits(value), tuple(value.stride()), value.requires_grad
    if isinstance(value, nn.Module):
        return contents(value)
    if isinstance(value, dict):  # hooks are numbered through the whole process
        keys = [index if isinstance(key, int) else key for index, key in enumerate(value)]
        return dict(zip(keys, map(content, value.values()), strict=True))
    if isinstance(value, (list, tuple)):
        return [content(item) for item in value]
    if isinstance(value, (int, float, str, type(None))):
        return value
    cells = getattr(value, "__closure__", None) or ()
    return [content(c.cell_contents) for c in cells if isinstance(c.cell_contents, torch.Tensor)]


def contents(module: nn.Module):
    return [
        (name, {key: content(item) for key, item in vars(child).items() if key != "_modules"})
        for name, child in module.named_modules()
    ]


def assert_holds(module, state):
    found = module.state_dict()
    assert list(found) == list(state)
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            assert bits(found[name]) == bits(value), name


class Net(nn.Module):
    def __init__(self, width=4, classes=3):
        super().__init__()
        self.fc = nn.Linear(5, width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, classes)


# ------------------------------------------------------------------ both ways, the same


@EVERY
def test_both_ways_of_building_end_with_the_same_bits(make):
    state, metadata = other_weights(make)
    torch.manual_seed(11)
    quick = load(make, copy.deepcopy(state), metadata)
    plain = load(make, copy.deepcopy(state), metadata, mode="plain")
    assert contents(quick.module) == contents(plain.module)
    assert_holds(quick.module, state)


@EVERY
def test_what_is_not_saved_is_as_the_class_makes_it(make):
    state, metadata = other_weights(make)
    torch.manual_seed(11)
    usual = make()
    given = OrderedDict(copy.deepcopy(state))
    given._metadata = copy.deepcopy(metadata)
    usual.load_state_dict(given)
    usual.eval()
    torch.manual_seed(11)
    built = load(make, copy.deepcopy(state), metadata).module
    if make is not arch.ExtraState:
        assert contents(built) == contents(usual)


def test_only_classes_whose_unsaved_values_depend_on_random_ones_are_built_plainly():
    reasons = {}
    for make in arch.SKIPPED + arch.PLAIN:
        state, metadata = saved(make())
        reasons[make.__name__] = load(make, state, metadata).plainly
    plainly = {name for name, reason in reasons.items() if reason is not None}
    assert plainly == {make.__name__ for make in arch.PLAIN}


def test_plain_mode_skips_nothing_and_says_so():
    state, _ = saved(Net())
    assert load(Net, state, mode="plain").plainly == "asked for"
    assert load(Net, state).plainly is None


@EVERY
def test_generators_stay_where_they_were(make):
    state, metadata = saved(make())
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    load(make, state, metadata)
    load(make, state, metadata, mode="plain")
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == before


def test_draws_of_loading_code_are_undone_too():
    class Draws(Net):
        def set_extra_state(self, state):
            self.drawn = (state, torch.rand(()).item())

        def get_extra_state(self):
            return 1

    state, _ = saved(Draws())
    before = torch.get_rng_state()
    load(Draws, state)
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_from_python_and_numpy_are_undone_too():
    class Draws(Net):
        def __init__(self):
            super().__init__()
            self.drawn = (random.random(), np.random.rand(), torch.rand(()).item())

    state, _ = saved(Draws())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    quick = load(Draws, state).module.drawn
    plain = load(Draws, state, mode="plain").module.drawn
    assert quick == plain == (random.random(), np.random.rand(), plain[2])


# ------------------------------------------------------------------ memory


def test_adopted_memory_is_neither_copied_nor_written(tmp_path):
    reference = nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.LSTM(512, 64))
    state, metadata = other_weights(lambda: reference)
    blob, offsets = bytearray(), {}
    for name, value in state.items():
        offsets[name] = len(blob)
        blob += value.numpy().tobytes()
        blob += bytes(-len(blob) % 64)
    path = tmp_path / "weights"
    path.write_bytes(blob)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    tensors = OrderedDict(
        (
            name,
            torch.frombuffer(
                mapped, dtype=value.dtype, count=value.numel(), offset=offsets[name]
            ).view(value.shape),
        )
        for name, value in state.items()
    )
    versions = {name: value._version for name, value in tensors.items()}

    built = load(
        lambda: nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.LSTM(512, 64)),
        tensors,
        metadata,
    )

    assert built.plainly is None
    for name, value in built.module.state_dict().items():
        assert value.data_ptr() == tensors[name].data_ptr(), name
    assert {name: value._version for name, value in tensors.items()} == versions
    if sys.platform == "linux":
        assert private_dirty_kb(next(iter(tensors.values())).data_ptr()) == 0
    assert_holds(built.module, state)


def private_dirty_kb(address: int) -> int:
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        span = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if span:
            inside = int(span[1], 16) <= address < int(span[2], 16)
        elif inside and line.startswith("Private_Dirty:"):
            return int(line.split()[1])
    raise AssertionError("no mapping at that address")


def test_names_that_are_not_tied_never_share_memory():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    one = torch.ones(3, 3)
    state = {"a.weight": one, "a.bias": torch.zeros(3), "b.weight": one, "b.bias": torch.zeros(3)}
    module = load(Two, state).module
    with torch.no_grad():
        module.a.weight.add_(1)
    assert torch.equal(module.b.weight, torch.ones(3, 3))


def test_untied_copies_share_no_memory_through_custom_loading_either():
    norm = nn.ModuleList([nn.BatchNorm1d(3), nn.BatchNorm1d(3)])
    state, metadata = saved(norm)
    state["1.running_mean"] = state["0.running_mean"]
    module = load(lambda: nn.ModuleList([nn.BatchNorm1d(3), nn.BatchNorm1d(3)]), state, metadata)
    pointers = [child.running_mean.data_ptr() for child in module.module]
    assert pointers[0] != pointers[1]


@pytest.mark.parametrize("make", [arch.Gpt, arch.RandomTable], ids=["skipped", "plain"])
def test_nothing_keeps_a_module_or_its_weights_alive(make):
    state, metadata = saved(make())
    gc.collect()
    gc.disable()
    try:
        built = load(make, state, metadata)
        alive = [weakref.ref(parameter) for parameter in built.module.parameters()]
        alive += [weakref.ref(built.module), *(weakref.ref(value) for value in state.values())]
        del built, state
        assert [ref() for ref in alive if ref() is not None] == []
    finally:
        gc.enable()


def test_a_half_built_module_is_gone_before_the_plain_build_begins():
    alive, seen = [], []

    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            seen.append([ref() is not None for ref in alive])
            before = torch.get_rng_state()
            self.fc = nn.Linear(3, 3)
            alive.append(weakref.ref(self.fc.weight))
            if torch.equal(before, torch.get_rng_state()):
                raise RuntimeError("nothing was drawn")

    state, _ = saved(Fragile())
    alive.clear(), seen.clear()
    built = load(Fragile, state)
    assert (
        built.plainly
        == "without its random initialisation it raised RuntimeError: nothing was drawn"
    )
    assert seen == [[], [False]]
    assert_holds(built.module, state)


def test_a_second_build_is_as_quick_as_the_first_though_the_first_is_still_held():
    state, metadata = saved(arch.VisionTransformer())
    held = [load(arch.VisionTransformer, copy.deepcopy(state), metadata) for _ in range(3)]
    assert [built.plainly for built in held] == [None, None, None]


# ------------------------------------------------------------------ ties and what hangs on objects


@pytest.mark.parametrize("mode", ["auto", "plain"])
def test_ties_hold_and_share_the_saved_memory(mode):
    state, metadata = other_weights(arch.Tied)
    module = load(arch.Tied, state, metadata, mode).module
    assert module.head.weight is module.emb.weight is module.also.weight
    assert module.several[0] is module.several[2]
    assert module.by_name["a"] is module.several[1]
    assert len(list(module.parameters())) == 3
    assert_holds(module, state)


@pytest.mark.parametrize("mode", ["auto", "plain"])
def test_parameters_made_from_one_another_still_share_memory(mode):
    state, metadata = other_weights(arch.TiedByMemory)
    state["head.weight"] = state["emb.weight"].clone()
    for dtype in (torch.float32, torch.bfloat16):
        given = {name: value.to(dtype) for name, value in state.items()}
        module = load(arch.TiedByMemory, given, metadata, mode).module
        assert module.head.weight.data_ptr() == module.emb.weight.data_ptr()
        assert_holds(module, given)


def test_ties_saved_as_equal_copies_are_accepted():
    state, metadata = other_weights(arch.Gpt)
    state["head.weight"] = state["wte.weight"].clone()
    module = load(arch.Gpt, state, metadata).module
    assert module.head.weight is module.wte.weight


def test_hooks_flags_attributes_and_other_references_survive():
    state, metadata = other_weights(arch.Hooked)
    module = load(arch.Hooked, state, metadata).module
    assert module.by_hand[0] is module.fc.weight
    assert module.by_hand[1]["bias"] is module.fc.bias
    assert module.fc.weight.no_decay
    assert not module.fc.bias.requires_grad
    module.fc(torch.ones(1, 4)).sum().backward()
    assert module.calls == 1
    assert torch.equal(module.fc.weight.grad, torch.full((4, 4), 2.0))


@pytest.mark.parametrize("make", [arch.ViewOfParameter, arch.ViewOfConstant])
@pytest.mark.parametrize("mode", ["auto", "plain"])
def test_a_view_beside_the_state_shows_the_saved_values(make, mode):
    state, metadata = other_weights(make)
    module = load(make, state, metadata, mode).module
    source = module.fc.weight if make is arch.ViewOfParameter else module.scale
    assert module.view.data_ptr() == source.data_ptr()
    assert torch.equal(module.view, source[:2])


def test_parts_of_a_flat_parameter_stay_parts_of_it():
    state, metadata = saved(arch.Flat())
    state["flat"] = torch.arange(12.0)
    state["part"] = torch.arange(4.0).view(2, 2)
    module = load(arch.Flat, state, metadata).module
    assert module.part.data_ptr() == module.flat.data_ptr()
    assert_holds(module, state)


@pytest.mark.parametrize("mode", ["auto", "plain"])
def test_an_expanded_view_gets_memory_of_its_own(mode):
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(1))
            self.register_buffer("wide", self.scale.detach().expand(4))

    state = {"scale": torch.ones(1), "wide": torch.arange(4.0)}
    assert_holds(load(Wide, state, mode=mode).module, state)


def test_recurrent_weights_are_the_ones_the_kernel_uses():
    state, metadata = other_weights(lambda: nn.LSTM(3, 2))
    usual = nn.LSTM(3, 2)
    usual.load_state_dict(state)
    module = load(lambda: nn.LSTM(3, 2), state, metadata).module
    assert [id(w) for w in module._flat_weights] == [id(p) for p in module.parameters()]
    x = torch.ones(4, 1, 3)
    assert torch.equal(module(x)[0], usual(x)[0])


def test_frozen_tables_in_a_cache_stay_usable():
    arch.sinusoids.cache_clear()
    state, metadata = saved(arch.CachedTable())
    arch.sinusoids.cache_clear()
    load(arch.CachedTable, state, metadata)
    table = arch.sinusoids(6, 8)
    assert arch.sinusoids.cache_info().hits == 1
    assert (table.device, table.is_meta) == (CPU, False)
    assert torch.equal(arch.CachedTable().positions, table)


# ------------------------------------------------------------------ dtypes, layouts, lazy modules


def test_saved_dtypes_win_over_those_of_the_class():
    state, _ = saved(Net().to(torch.bfloat16))
    for mode in ("auto", "plain"):
        module = load(Net, state, mode=mode).module
        assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
        assert all(p.requires_grad for p in module.parameters())
        assert_holds(module, state)


def test_integer_weights_are_taken_without_a_gradient():
    state = {"weight": torch.ones(2, 2, dtype=torch.int8), "bias": torch.zeros(2)}
    module = load(lambda: nn.Linear(2, 2), state).module
    assert (module.weight.dtype, module.weight.requires_grad) == (torch.int8, False)
    assert module.bias.requires_grad


def test_memory_format_is_kept():
    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    state, _ = saved(conv)
    module = load(lambda: nn.Conv2d(3, 4, 3), state).module
    assert module.weight.stride() == conv.weight.stride()
    assert module.weight.is_contiguous(memory_format=torch.channels_last)


def test_nan_and_negative_zero_are_equal_to_themselves():
    state, _ = saved(Net())
    state["out.bias"] = torch.tensor([float("nan"), -0.0, float("-inf")])
    assert_holds(load(Net, state).module, state)


def test_empty_and_scalar_tensors_load():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature = nn.Parameter(torch.rand(()))
            self.none = nn.Parameter(torch.empty(0, 3))
            self.also_none = nn.Parameter(torch.empty(0, 3))

    state, _ = saved(Odd())
    assert_holds(load(Odd, state).module, state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lazy_modules_take_shapes_and_dtypes_from_what_was_saved(dtype):
    def make():
        return nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.Linear(4, 2))

    trained = make()
    trained(torch.ones(2, 5))
    state, metadata = saved(trained.to(dtype))
    built = load(make, state, metadata)
    assert built.plainly == "'0.weight' is lazy"
    assert_holds(built.module, state)
    x = torch.ones(2, 5, dtype=dtype)
    assert torch.equal(built.module(x), trained.eval()(x))
    assert type(built.module[0]) is nn.Linear


def scripted():
    return torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)))


def traced():
    return torch.jit.trace(nn.Sequential(nn.Linear(6, 6), nn.ReLU()), torch.zeros(1, 6))


@pytest.mark.parametrize("make", [scripted, traced], ids=lambda make: make.__name__)
@pytest.mark.parametrize("mode", ["auto", "plain"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
def test_scripted_and_traced_modules_are_built_too(make, mode):
    state, metadata = other_weights(make)
    module = load(make, state, metadata, mode).module
    assert isinstance(module, torch.jit.ScriptModule)
    assert_holds(module, state)
    plain = make().eval()
    plain.load_state_dict(state)
    x = torch.ones(2, 6)
    assert torch.equal(module(x), plain(x))


# ------------------------------------------------------------------ loading code of the class


@pytest.mark.parametrize("mode", ["auto", "plain"])
def test_an_older_version_is_upgraded_by_the_class(mode):
    old = {
        "fc.weight": torch.ones(2, 2, dtype=torch.bfloat16),
        "fc.bias": torch.ones(2),
        "weight": torch.arange(6.0, dtype=torch.float64).view(2, 3),
    }
    module = load(arch.CustomLoading, old, {"": {"version": 1}}, mode).module
    assert module.tied is module.weight
    assert torch.equal(module.weight, torch.arange(6.0).view(2, 3).t().double() * 2)
    assert module.weight.dtype == torch.float64
    assert torch.equal(module.bias, torch.ones(3))
    assert module.fc.weight.dtype == torch.bfloat16


def test_an_older_version_is_upgraded_inside_an_ordinary_module():
    state, metadata = other_weights(arch.Around)
    metadata["custom"]["version"] = 1
    del state["custom.bias"], state["custom.tied"]
    state["custom.weight"] = state["custom.weight"].t().contiguous()
    built = load(arch.Around, state, metadata)
    assert "loading code" in built.plainly
    assert torch.equal(built.module.custom.weight, state["custom.weight"].t() * 2)


def test_the_saved_version_is_not_upgraded_again():
    state, metadata = other_weights(arch.CustomLoading)
    assert metadata[""]["version"] == 2
    assert_holds(load(arch.CustomLoading, state, metadata).module, state)


def test_loading_code_that_ignores_a_tensor_keeps_what_the_class_made():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def _load_from_state_dict(self, state_dict, prefix, *args):
            state_dict[prefix + "fc.weight"] = self.fc.weight
            super()._load_from_state_dict(state_dict, prefix, *args)

    state, metadata = other_weights(Stubborn)
    torch.manual_seed(2)
    expected = nn.Linear(3, 3).weight
    torch.manual_seed(2)
    built = load(Stubborn, state, metadata)
    assert built.plainly == "'fc.weight' keeps what the class made it"
    assert torch.equal(built.module.fc.weight, expected)
    assert torch.equal(built.module.fc.bias, state["fc.bias"])


def test_state_of_the_old_weight_norm_loads_into_the_new():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state, metadata = other_weights(arch.old_weight_norm)
    module = load(arch.new_weight_norm, state, metadata).module
    assert torch.equal(module.parametrizations.weight.original0, state["weight_g"])
    assert torch.equal(module.parametrizations.weight.original1, state["weight_v"])


def test_a_batch_norm_from_before_it_counted_loads():
    state, metadata = other_weights(lambda: nn.BatchNorm1d(3))
    del state["num_batches_tracked"]
    module = load(lambda: nn.BatchNorm1d(3), state, {"": {"version": 1}}).module
    assert module.num_batches_tracked.item() == 0
    assert torch.equal(module.weight, state["weight"])
    assert metadata[""]["version"] == 2


def test_load_hooks_run_and_see_plain_tensors():
    seen = []

    class Hooks(Net):
        def __init__(self):
            super().__init__()
            self.register_load_state_dict_pre_hook(self.before)
            self.register_load_state_dict_post_hook(self.after)

        def before(self, _module, state_dict, *_):
            seen.append(type(state_dict["fc.weight"]))
            state_dict["fc.bias"] = state_dict["fc.bias"] * 2

        def after(self, _module, _keys):
            self.total = float(self.fc.bias.detach().sum())

    state, metadata = other_weights(Hooks)
    module = load(Hooks, state, metadata).module
    assert seen == [torch.Tensor]
    assert torch.equal(module.fc.bias, state["fc.bias"] * 2)
    assert module.total == float((state["fc.bias"] * 2).sum())


def test_a_load_hook_may_tie():
    class TiesLate(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.register_load_state_dict_post_hook(self.tie)

        def tie(self, *_):
            self.b.weight = self.a.weight

    state, metadata = saved(TiesLate())
    module = load(TiesLate, state, metadata).module
    assert module.b.weight is module.a.weight
    assert torch.equal(module.a.weight, state["a.weight"])


def test_extra_state_may_tie_too():
    class TiesByState(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))

        def get_extra_state(self):
            return self.a is self.b

        def set_extra_state(self, state):
            if state:
                self.b = self.a

    tied = TiesByState()
    tied.set_extra_state(state=True)
    state, metadata = saved(tied)
    module = load(TiesByState, state, metadata).module
    assert module.b is module.a
    assert_holds(module, state)


def test_a_class_with_its_own_load_state_dict_is_asked_to_load():
    class Own(Net):
        def load_state_dict(self, state_dict):
            self.loaded = True
            return super().load_state_dict(
                {k.removeprefix("net."): v for k, v in state_dict.items()}
            )

    state, _ = saved(Net())
    module = load(Own, {f"net.{name}": value for name, value in state.items()}).module
    assert module.loaded
    assert_holds(module, state)


class Adapted(nn.Module):
    """Saves a head and not the backbone, which is what the class makes it."""

    def __init__(self, width=3):
        super().__init__()
        self.backbone = nn.Linear(3, 3)
        self.head = nn.Linear(3, width)


class AdaptedByClass(Adapted):
    def state_dict(self, *args, **kwargs):
        found = super().state_dict(*args, **kwargs)
        for name in [name for name in found if "backbone." in name]:
            del found[name]  # in place: what a submodule returns is not looked at
        return found


class AdaptedByHook(Adapted):
    def __init__(self, width=3):
        super().__init__(width)
        self._register_state_dict_hook(self.without_backbone)

    def without_backbone(self, _, state, prefix, *__):
        for name in [name for name in state if name.startswith(f"{prefix}backbone.")]:
            del state[name]


class AdaptedAndLenient(AdaptedByClass):
    def load_state_dict(self, state_dict, strict=False, assign=False):  # noqa: FBT002 - torch's
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = AdaptedByClass()


@pytest.mark.parametrize("make", [AdaptedByClass, AdaptedByHook, AdaptedAndLenient, Outer])
@pytest.mark.parametrize("mode", ["auto", "plain"])
def test_what_a_class_does_not_save_is_as_the_class_makes_it(make, mode):
    state, metadata = other_weights(make)
    torch.manual_seed(3)
    made = dict(make().named_parameters())
    torch.manual_seed(3)
    module = load(make, state, metadata, mode).module
    assert len(state) == 2
    assert_holds(module, state)
    for name, parameter in module.named_parameters():
        if "backbone" in name:
            assert torch.equal(parameter, made[name])


def test_what_a_class_saves_and_does_not_find_is_a_mismatch_all_the_same():
    state, metadata = saved(AdaptedByClass())
    del state["head.bias"]
    with pytest.raises(MismatchError) as caught:
        load(AdaptedByClass, state, metadata)
    assert caught.value.problems == ("'head.bias' (shape [3]) is in the module, and was not saved",)


def test_a_class_whose_loading_passes_over_keys_is_taken_at_its_word():
    state, metadata = saved(AdaptedAndLenient())
    del state["head.bias"]
    state["other"] = torch.ones(1)
    module = load(AdaptedAndLenient, state, metadata).module
    assert torch.equal(module.head.weight, state["head.weight"])


@pytest.mark.parametrize("same", [True, False], ids=["one object", "one memory"])
@pytest.mark.parametrize("mode", ["auto", "plain"])
def test_a_tie_of_which_one_name_is_saved_holds(same, mode):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.last = nn.Linear(3, 3, bias=False)
            self.last.weight = self.first.weight if same else nn.Parameter(self.first.weight)

        def state_dict(self, *args, **kwargs):
            found = super().state_dict(*args, **kwargs)
            del found["last.weight"]
            return found

    state, metadata = other_weights(Tied)
    built = load(Tied, state, metadata, mode)
    assert torch.equal(built.module.last.weight, state["first.weight"])
    assert built.module.last.weight.data_ptr() == built.module.first.weight.data_ptr()
    assert built.plainly == (None if mode == "auto" else "asked for")


def test_extra_state_of_another_form_is_the_classs_own_business():
    class Grows(nn.Linear):
        def __init__(self, size):
            super().__init__(2, 2)
            self.seen = torch.zeros(size)

        def get_extra_state(self):
            return self.seen

        def set_extra_state(self, state):
            self.seen = state

    original = Grows(5)
    state, metadata = saved(original)
    module = load(lambda: Grows(0), state, metadata).module
    assert torch.equal(module.seen, torch.zeros(5))
    assert_holds(module, state)


def test_extra_state_is_set_from_a_copy():
    original = arch.ExtraState()
    original.vocabulary = {"a": [1, 2]}
    state, metadata = saved(original)
    module = load(arch.ExtraState, state, metadata).module
    assert module.vocabulary == {"a": [1, 2], "loaded": True}
    assert state["_extra_state"] == {"vocabulary": {"a": [1, 2]}}


def test_metadata_handed_over_and_the_modules_own_stay_clean():
    state, metadata = saved(Net())
    before = copy.deepcopy(metadata)
    module = load(Net, state, metadata).module
    assert metadata == before
    assert module.state_dict()._metadata == nn.Module.state_dict(Net())._metadata


def test_a_later_plain_load_into_the_module_copies():
    state, metadata = saved(Net())
    module = load(Net, state, metadata).module
    weight, pointer = module.fc.weight, module.fc.weight.data_ptr()
    other = Net().state_dict()
    module.load_state_dict(other)
    assert module.fc.weight is weight
    assert module.fc.weight.data_ptr() == pointer
    assert torch.equal(weight, other["fc.weight"])


def test_it_works_where_torch_swaps_tensors_on_conversion():
    state, metadata = other_weights(arch.Tied)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        module = load(arch.Tied, state, metadata).module
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert module.head.weight is module.emb.weight
    assert_holds(module, state)


def test_weights_merged_on_eval_are_the_classes_own_doing():
    class Lora(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))
            self.merged = False

        def train(self, mode=True):  # noqa: FBT002 - torch's signature
            if not mode and not self.merged:
                self.merged = True
                with torch.no_grad():
                    self.weight.add_(1)
            return super().train(mode)

    module = load(Lora, {"weight": torch.ones(3)}).module
    assert torch.equal(module.weight, torch.full((3,), 2.0))


def test_weights_changed_behind_the_loaders_back_are_an_integrity_error():
    class Meddles(Net):
        def _apply(self, fn, recurse=True):  # noqa: FBT002 - torch's signature
            with torch.no_grad():
                self.out.weight.add_(1)
            return super()._apply(fn, recurse)

    state, _ = saved(Net())
    with pytest.raises(IntegrityError, match=r"digits@7: 'out.weight' is not what was saved"):
        load(Meddles, state)


# ------------------------------------------------------------------ mismatches and errors


def test_mismatches_in_the_reach_of_loading_code_are_listed_too():
    class OwnNorm(nn.BatchNorm1d):
        def _load_from_state_dict(self, *args, **kwargs):
            super()._load_from_state_dict(*args, **kwargs)

    state, metadata = saved(OwnNorm(3))
    del state["running_mean"]
    state["other"] = torch.ones(1)
    with pytest.raises(MismatchError) as caught:
        load(lambda: OwnNorm(3), state, metadata)
    assert caught.value.problems == (
        "'running_mean' is in the module, and loading did not find it",
        "'other' was saved, and loading did not use it",
    )
    state, metadata = saved(OwnNorm(3))
    with pytest.raises(MismatchError, match="size mismatch for weight") as caught:
        load(lambda: OwnNorm(4), state, metadata)
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("mode", ["auto", "plain"])
def test_the_classes_own_error_is_shown_with_advice(mode):
    def make():
        return Net(wdth=4)

    with pytest.raises(UsageError, match=r"unexpected keyword argument 'wdth'.*model_config=") as e:
        load(make, {}, mode=mode)
    assert isinstance(e.value.__cause__, TypeError)
    assert "digits@7" in str(e.value)


# ------------------------------------------------------------------ the caller's surroundings


def test_the_callers_default_device_is_not_in_force():
    state, metadata = saved(arch.ConstantTables())
    for mode in ("auto", "plain"):
        with torch.device("meta"):
            inside = load(arch.ConstantTables, state, metadata, mode).module
            assert torch.empty(1).is_meta
        torch.set_default_device("meta")
        try:
            default = load(arch.ConstantTables, state, metadata, mode).module
        finally:
            torch.set_default_device(None)
        for module in (inside, default):
            assert module.angles.device == module.mask.device == module.fc.weight.device == CPU
            assert torch.equal(module.mask, torch.tril(torch.ones(5, 5)))


def test_the_callers_default_dtype_counts_only_for_what_was_not_saved():
    state, metadata = saved(arch.ConstantTables())
    torch.set_default_dtype(torch.float64)
    try:
        module = load(arch.ConstantTables, state, metadata).module
    finally:
        torch.set_default_dtype(torch.float32)
    assert module.fc.weight.dtype == module.kept.dtype == torch.float32
    assert module.mask.dtype == torch.float64


def test_a_module_loaded_in_inference_mode_can_be_trained():
    with torch.inference_mode():
        state, _ = saved(Net())
        state = OrderedDict((name, value.clone()) for name, value in state.items())
        module = load(Net, state).module
        assert torch.is_inference_mode_enabled()
    module.out(module.norm(module.fc(torch.ones(1, 5)))).sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()


def test_only_the_built_module_goes_to_eval_mode():
    other = Net()
    state, _ = saved(other)
    module = load(Net, state).module
    assert not any(child.training for child in module.modules())
    assert all(child.training for child in other.modules())


def test_new_parametrizations_compute_from_the_saved_values():
    state, metadata = other_weights(arch.new_weight_norm)
    built = load(arch.new_weight_norm, state, metadata)
    usual = parametrizations.weight_norm(nn.Linear(4, 3))
    usual.load_state_dict(state)
    assert built.plainly is None
    assert torch.equal(built.module.weight, usual.weight)
