from __future__ import annotations

import copy
import functools
import threading
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional, init
from torch.utils._python_dispatch import TorchDispatchMode

from ckptstore.loading.construct import construct_skipping
from ckptstore.loading.skipping import Skipping
from tests.loading import architectures as arch


@pytest.fixture(autouse=True)
def seeded():
    """Draw the same numbers in every test, and leave the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def mode():
    return Skipping()


def empty(*shape):
    """Return a parameter whose values are NaN where nothing was filled in."""
    return nn.Parameter(torch.full(shape or (6, 4), float("nan")))


def is_unfilled(tensor):
    return bool(tensor.isnan().all())


def moved(draw) -> bool:
    """Say whether torch's generator is at another place after *draw*."""
    before = torch.get_rng_state()
    draw()
    return not torch.equal(before, torch.get_rng_state())


RANDOM = {
    "uniform_": init.uniform_,
    "normal_": functools.partial(init.normal_, std=0.5),
    "trunc_normal_": functools.partial(init.trunc_normal_, std=1.0, a=-0.5, b=0.5),
    "xavier_uniform_": init.xavier_uniform_,
    "xavier_normal_": init.xavier_normal_,
    "kaiming_uniform_": functools.partial(init.kaiming_uniform_, a=5**0.5),
    "kaiming_normal_": functools.partial(init.kaiming_normal_, mode="fan_out"),
    "orthogonal_": functools.partial(init.orthogonal_, gain=2),
    "sparse_": functools.partial(init.sparse_, sparsity=0.25),
}
EVERY = pytest.mark.parametrize("initialise", RANDOM.values(), ids=RANDOM)


# ------------------------------------------------------------ what is skipped


@EVERY
@pytest.mark.parametrize("target", ["parameter", "data"])
def test_random_initialisation_of_a_parameter_is_skipped(mode, initialise, target):
    weight = empty()

    with mode:
        given = weight if target == "parameter" else weight.data
        draws = moved(lambda: initialise(given))

    assert is_unfilled(weight)
    assert not draws
    assert mode.skipped
    assert mode.escaped is None


@EVERY
def test_a_skipped_initialisation_returns_its_tensor(mode, initialise):
    weight = empty()

    with mode:
        assert initialise(weight) is weight


@EVERY
def test_a_tensor_that_is_no_parameter_is_initialised(mode, initialise):
    tensor, expected = empty().data, empty().data
    torch.manual_seed(3)
    initialise(expected)
    torch.manual_seed(3)

    with mode:
        initialise(tensor)

    assert torch.equal(tensor, expected)
    assert not mode.skipped


@EVERY
def test_a_draw_from_an_explicit_generator_is_not_skipped(mode, initialise):
    if initialise is RANDOM["sparse_"]:
        initialise = functools.partial(init.sparse_, sparsity=0.25)
    weight, generator = empty(), torch.Generator().manual_seed(1)

    with mode:
        initialise(weight, generator=generator)

    assert not is_unfilled(weight)
    assert not torch.equal(generator.get_state(), torch.Generator().manual_seed(1).get_state())
    assert not mode.skipped


@pytest.mark.parametrize(
    "draw",
    [
        lambda weight: weight.data.normal_(),
        lambda weight: weight.data.uniform_(),
        lambda weight: torch.nn.init.zeros_(weight).data.normal_(),
        lambda weight: weight.data.copy_(torch.randn(6, 4)),
        lambda weight: init.normal_(weight.detach()),
    ],
)
def test_draws_of_the_classes_own_code_are_not_skipped(mode, draw):
    weight = empty()

    with mode:
        assert moved(lambda: draw(weight))

    assert not weight.isnan().any()
    assert not mode.skipped


@pytest.mark.parametrize("name", ["zeros_", "ones_", "eye_"])
def test_constants_are_not_skipped(mode, name):
    weight = empty()

    with mode:
        getattr(init, name)(weight)

    assert not weight.isnan().any()
    assert not mode.skipped


def test_parameters_without_memory_are_left_to_torch(mode):
    with mode:
        init.normal_(nn.Parameter(torch.empty(3, device="meta")))
        nn.LazyLinear(3)

    assert not mode.skipped


def test_outside_of_it_everything_is_as_ever(mode):
    with mode:
        pass
    weight = empty()

    init.normal_(weight)

    assert not is_unfilled(weight)
    assert not mode.skipped


def test_initialisation_inside_a_device_context_of_the_class_is_skipped_too():
    class Contextual(nn.Module):
        def __init__(self):
            super().__init__()
            with torch.device("cpu"):
                self.conv = nn.Conv1d(2, 2, 3)
                nn.init.xavier_normal_(self.conv.weight)
                nn.init.trunc_normal_(self.conv.weight)
            self.mask = torch.ones(2)
            states.append(torch.get_rng_state())

    states = []
    before = torch.get_rng_state()

    assert construct_skipping(Contextual)[1] is None
    assert torch.equal(states[0], before)


def test_other_threads_initialise_as_ever():
    stds = []

    class Threaded(nn.Linear):
        def __init__(self):
            super().__init__(3, 3)
            thread = threading.Thread(
                target=lambda: stds.append(float(nn.Linear(64, 64).weight.detach().std()))
            )
            thread.start()
            thread.join()

    construct_skipping(Threaded)

    assert len(stds) == 1
    assert 0.05 < stds[0] < 0.1


def test_nothing_random_is_drawn_for_what_is_overwritten():
    states = []

    class Watched(arch.EveryInit):
        def __init__(self):
            torch.manual_seed(0)
            super().__init__()
            states.append(torch.get_rng_state())

    construct_skipping(Watched)
    torch.manual_seed(0)
    nn.init.trunc_normal_(torch.empty(5, 3))  # EveryInit.before: no parameter yet

    assert torch.equal(states[0], torch.get_rng_state())
    Watched()
    assert not torch.equal(states[0], states[1])


# ------------------------------------------------------------ memory


def test_copies_of_what_was_skipped_copy_nothing():
    copies = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            copies.append(func is torch.ops.aten.clone.default)
            return func(*args, **(kwargs or {}))

    class Copies(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(3, 3)
            with Recorder():
                self.two = copy.deepcopy(self.one)

    Copies()
    assert copies.count(True) == 2
    copies.clear()

    assert construct_skipping(Copies)[1] is None
    assert copies
    assert True not in copies


def test_what_the_class_throws_away_is_not_kept_while_building():
    gone = []

    class Wasteful(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 4)
            before = weakref.ref(self.fc.weight)
            self.fc = nn.Linear(5, 4)
            gone.append(before() is None)

    assert construct_skipping(Wasteful)[1] is None
    assert gone == [True]


# ------------------------------------------------------------ what depends on it


@pytest.fixture
def skipped(mode):
    """A parameter whose initialisation was skipped, with finite values in it."""
    weight = nn.Parameter(torch.ones(4, 4))
    with mode:
        init.normal_(weight)
    return weight


DERIVED = {
    "itself": lambda w: w,
    "data": lambda w: w.data,
    "view": lambda w: w.data[:2],
    "another view": lambda w: w.detach().t(),
    "sum": lambda w: w.detach().sum(),
    "product with a constant": lambda w: torch.eye(4) @ w.detach(),
    "copy": lambda w: w.detach().clone(),
    "deep copy": copy.deepcopy,
    "one of several": lambda w: torch.split(w.detach(), 2)[1],
    "written to": lambda w: torch.zeros(4, 4).copy_(w.detach()),
    "written to by index": lambda w: _set(torch.zeros(2, 4, 4), w.detach()),
    "written to as out": lambda w: torch.add(w.detach(), 1, out=torch.zeros(4, 4)),
    "at two removes": lambda w: (w.detach() + 1).abs().sum() * torch.ones(3),
    "function": lambda w: functional.relu(w.detach()),
    "parameter from it": nn.Parameter,
    "in place of many": lambda w: _add_each([torch.zeros(4, 4)], w.detach()),
}


def _set(tensor, value):
    tensor[1] = value
    return tensor


def _add_each(tensors, value):
    torch._foreach_add_(tensors, [value])
    return tensors[0]


@pytest.mark.parametrize("derive", DERIVED.values(), ids=DERIVED)
def test_what_comes_of_it_depends_on_it(mode, skipped, derive):
    with mode:
        derived = derive(skipped)

    assert mode.depends(derived)
    assert mode.escaped is None


INDEPENDENT = {
    "constant": lambda _w: torch.ones(4, 4) * 2,
    "of its shape": lambda w: torch.full(tuple(w.shape), 2.0),
    "of its size": lambda w: torch.zeros(w.size(0), w.numel()),
    "of its length": lambda w: torch.arange(len(w)),
    "of its dtype": lambda w: torch.zeros(3, dtype=w.dtype, device=w.device),
    "another parameter": lambda _w: empty(),
}


@pytest.mark.parametrize("make", INDEPENDENT.values(), ids=INDEPENDENT)
def test_what_only_has_its_form_does_not(mode, skipped, make):
    with mode:
        made = make(skipped)

    assert not mode.depends(made)
    assert mode.escaped is None


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda w: w.detach().sum().item(), "item"),
        (lambda w: float(w.detach().sum()), "__float__"),
        (lambda w: int(w.detach().sum()), "__int__"),
        (lambda w: bool(w.detach().sum() > 0), "__bool__"),
        (lambda w: w.detach().tolist(), "tolist"),
        (lambda w: w.detach().numpy(), "numpy"),
        (lambda w: torch.equal(w, torch.ones(4, 4)), "equal"),
        (lambda w: torch.allclose(w, torch.ones(4, 4)), "allclose"),
        (lambda w: str(w.detach()), None),
    ],
)
def test_values_that_reach_python_escape_and_the_function_is_named(mode, skipped, read, name):
    with mode:
        read(skipped)

    assert mode.escaped is not None
    assert name in (None, mode.escaped)


@pytest.mark.parametrize(
    "ask",
    [
        lambda w: (w.shape, w.dtype, w.device, w.requires_grad, w.is_leaf, w.grad),
        lambda w: (w.size(), w.dim(), w.numel(), len(w), w.stride(), w.is_contiguous()),
        lambda w: (w.is_floating_point(), torch.is_tensor(w), hash(w), w.data_ptr()),
        lambda w: w.register_hook(lambda grad: grad),
        lambda w: isinstance(w, nn.Parameter),
    ],
)
def test_asking_for_its_form_lets_nothing_escape(mode, skipped, ask):
    with mode:
        ask(skipped)

    assert mode.escaped is None


def test_values_of_constants_do_not_escape(mode, skipped):
    with mode:
        rates = [rate.item() for rate in torch.linspace(0, 1, 3)]

    assert rates == [0, 0.5, 1]
    assert mode.escaped is None
    assert mode.depends(skipped)


# ------------------------------------------------------------ draws after it


def test_what_is_drawn_after_something_was_skipped_is_another_number(mode):
    with mode:
        before = torch.randn(3)
        assert not mode.generators_moved()
        init.normal_(empty())
        assert not mode.generators_moved()
        after = torch.randn(3)

    assert mode.generators_moved()
    assert not mode.depends(before)
    assert mode.depends(after)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(3),
        lambda: torch.randperm(8),
        lambda: torch.zeros(3).uniform_(),
        lambda: torch.bernoulli(torch.full((3,), 0.5)),
        lambda: torch.multinomial(torch.ones(5), 2),
        lambda: functional.dropout(torch.ones(64)),
        lambda: functional.gumbel_softmax(torch.zeros(8)),
        lambda: init.normal_(torch.zeros(3)),
        lambda: torch.distributions.Normal(0.0, 1.0).sample((3,)),
    ],
)
def test_every_way_to_draw_is_noticed(mode, skipped, draw):  # noqa: ARG001 - the fixture skips
    with mode:
        drawn = draw()

    assert mode.depends(drawn)
    assert mode.generators_moved()


def test_a_draw_from_a_generator_of_ones_own_is_the_same_number(mode, skipped):  # noqa: ARG001 - the fixture skips
    with mode:
        drawn = torch.randn(3, generator=torch.Generator().manual_seed(1))

    assert not mode.depends(drawn)
    assert not mode.generators_moved()


def test_a_draw_that_left_no_trace_is_noticed_by_what_was_drawn(mode, skipped):  # noqa: ARG001 - the fixture skips
    with mode, torch.random.fork_rng(devices=[]):
        drawn = torch.randn(3)

    assert not mode.generators_moved()
    assert mode.depends(drawn)


def test_a_draw_that_nobody_saw_is_noticed_by_the_generator(mode, skipped):  # noqa: ARG001 - the fixture skips
    with mode:
        thread = threading.Thread(target=lambda: torch.randn(3))
        thread.start()
        thread.join()

    assert mode.generators_moved()


def test_nothing_moved_where_nothing_was_skipped(mode):
    with mode:
        drawn = torch.randn(3)

    assert not mode.skipped
    assert not mode.generators_moved()
    assert not mode.depends(drawn)


# ------------------------------------------------------------ filling what others keep


@EVERY
@pytest.mark.parametrize("target", ["parameter", "data"])
def test_what_others_keep_gets_the_values_it_would_have_had(mode, initialise, target):
    weight, expected = empty(), empty()
    torch.manual_seed(3)
    initialise(expected)
    with mode:
        initialise(weight if target == "parameter" else weight.data)
    torch.manual_seed(3)

    mode.fill_others(())

    assert torch.equal(weight, expected)
    assert weight.requires_grad


def test_what_is_overwritten_anyway_is_not_filled(mode):
    mine, others = empty(), empty()
    with mode:
        init.normal_(mine)
        init.normal_(others)

    mode.fill_others({id(mine)})

    assert is_unfilled(mine)
    assert not others.isnan().any()


def test_what_is_gone_is_not_filled(mode):
    with mode:
        init.normal_(empty())

    assert not moved(lambda: mode.fill_others(()))


def test_a_parameter_initialised_twice_ends_with_the_second(mode):
    weight = empty()
    with mode:
        init.normal_(weight)
        init.uniform_(weight, 7, 8)

    mode.fill_others(())

    assert bool(((weight >= 7) & (weight <= 8)).all())


def test_a_deprecated_name_is_skipped_too(mode):
    weight = empty()
    with mode, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        init.xavier_uniform(weight)

    assert is_unfilled(weight)
