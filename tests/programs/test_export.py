"""A program computes what its module computes in eval mode, and making it leaves no trace."""

from __future__ import annotations

import copy
import functools
import random
import types

import numpy as np
import pytest
import torch
from torch import nn

from ckptstore.errors import ArgumentError, MismatchError, ProgramError, StateWarning
from ckptstore.programs.export import export_program
from ckptstore.programs.structure import flatten
from tests.programs import nets
from tests.programs.nets import export, loaded, program_of


def images(count):
    return torch.randn(count, 1, 8, 8)


def tokens(count):
    return torch.randint(0, 50, (count, 6))


def rows(count):
    return torch.randn(count, 5, 4)


def points(count):
    return torch.randn(count, 3)


MODULES = [
    (nets.Net, images),
    (nets.Attention, tokens),
    (nets.Recurrent, rows),
    (nets.Vectorised, points),
    (nets.Drawing, points),
    (nets.Mixed, lambda count: torch.randn(count, 4)),
    (lambda: nn.Conv2d(1, 2, 3).to(memory_format=torch.channels_last), images),
    (lambda: nn.Linear(3, 2).to(torch.bfloat16), lambda count: points(count).bfloat16()),
]


def same(first, second):
    """Say whether two outputs are equal, bit for bit."""
    node, leaves, _ = flatten(first)
    other, others, _ = flatten(second)
    return node == other and all(
        torch.equal(one, two) and one.dtype == two.dtype
        if isinstance(one, torch.Tensor)
        else (type(one), one) == (type(two), two)
        for one, two in zip(leaves, others, strict=True)
    )


def outputs(module, *args, **kwargs):
    with torch.no_grad(), torch.random.fork_rng([]):
        torch.manual_seed(7)
        return module(*args, **kwargs)


@pytest.mark.parametrize(("make", "batch"), MODULES)
@pytest.mark.parametrize("sampled", [1, 4])
def test_a_program_computes_the_same_bits_for_batches_of_any_size(make, batch, sampled):
    module = make()
    program = loaded(module, batch(sampled))

    module.eval()
    for count in (1, 2, 4, 7):
        inputs = batch(count)
        assert same(outputs(program, inputs), outputs(module, inputs))
    assert program.program.is_exact


def test_weights_are_not_in_the_file():
    file = export(nn.Linear(1000, 100), torch.randn(2, 1000))
    assert len(file) < 2000


def test_what_is_not_in_the_state_is_in_the_file():
    module = nets.Net()
    held = program_of(module, images(2)).held
    assert sorted(each.shape for each in held if each.key is None) == [(), (10,)]
    assert {each.key for each in held} - {None} <= set(module.state_dict())


def test_tied_weights_are_one():
    module = nets.Attention()
    program = loaded(module, tokens(2))
    kept = [each.key for each in program.program.held].count("embed.weight")
    assert kept == 2
    assert len({each.data_ptr() for each in program.buffers()}) == len(list(program.buffers()))


def test_nested_inputs_and_outputs_keep_their_structure():
    x, more, mask = points(4), points(4), torch.ones(4, 1)
    given = {"args": ({"x": x, "more": [more]},), "kwargs": {"mask": mask}}
    program = loaded(nets.Structured(), given)
    batch = {"x": points(5), "more": [points(5)]}
    found = outputs(program, batch, mask=mask.new_ones(5, 1))
    wanted = outputs(nets.Structured(), batch, mask=mask.new_ones(5, 1))
    assert same(found, wanted)
    assert found["rows"] == 5
    assert type(found["pair"]) is tuple


def test_a_program_is_for_the_sizes_that_torch_traced_it_for():
    with pytest.warns(
        StateWarning, match=r"some sizes only: those with .*\(x.shape\[0\] % 2\) == 0"
    ):
        program = loaded(nets.Branching(), torch.ones(4, 3))
    for x in (torch.ones(6, 3), -torch.ones(2, 3)):
        assert same(outputs(program, x), outputs(nets.Branching(), x))
    with pytest.raises(ValueError, match=r"\(x.shape\[0\] % 2\) == 0 does not hold"):
        program(torch.ones(5, 3))


def test_one_row_is_refused_where_the_module_does_something_else_with_one():
    class Special(nn.Module):
        def forward(self, x):
            return x * 100 if x.shape[0] == 1 else x

    with pytest.warns(StateWarning, match=r"some sizes only: those with x.shape\[0\] >= 2"):
        program = loaded(Special(), points(3))
    with pytest.raises(ValueError, match=r"x.shape\[0\] >= 2 does not hold"):
        program(points(1))
    with pytest.warns(StateWarning, match=r"first dimension of this size only: x \(1\)"):
        only_one = loaded(Special(), points(1))
    assert torch.equal(only_one(torch.ones(1, 3)), torch.full((1, 3), 100.0))


def test_buffers_that_forward_writes_to_go_on_in_the_program():
    module = nets.Counting()
    program = loaded(module, points(4))
    for _ in range(2):
        assert same(outputs(program, torch.ones(4, 3)), outputs(module, torch.ones(4, 3)))


def test_the_module_is_left_as_it_was_found():
    net, counting = nets.Net(), nets.Counting()
    net.norm.eval()
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    both = nn.ModuleList([net, counting])
    before = copy.deepcopy(both.state_dict())
    modes = [each.training for each in both.modules()]
    sample, others = images(2), points(2)
    kept, rng = sample.clone(), torch.get_rng_state()
    export(net, sample)
    export(counting, others)

    assert [each.training for each in both.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in both.state_dict().items())
    assert (counting.seen, counting.last, int(counting.calls)) == ([0], None, 0)
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(sample, kept)
    assert torch.equal(net.fc.weight.grad, torch.ones_like(net.fc.weight))


def test_modes_of_single_modules_are_put_back():
    module = nets.Net()
    module.norm.eval()
    export(module, images(2))
    assert (module.training, module.norm.training, module.drop.training) == (True, False, True)


def test_what_code_caches_is_no_stand_in_of_the_tracer():
    @functools.lru_cache
    def table(count):
        return torch.arange(count).float()

    class Cached(nn.Module):
        def forward(self, x):
            return x + table(3)

    export(Cached(), points(2))
    assert type(table(3)) is torch.Tensor
    assert torch.equal(Cached()(torch.zeros(1, 3)), torch.tensor([[0.0, 1.0, 2.0]]))


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        lambda module: nn.Sequential(nn.DataParallel(module)),
        lambda module: nn.Sequential(torch.compile(module, backend="eager")),
    ],
)
def test_wrappers_are_no_part_of_a_program(wrap):
    module = nn.Linear(3, 2)
    program = loaded(wrap(module), points(2))
    x = points(5)
    assert torch.equal(outputs(program, x), outputs(module, x))
    assert None not in {each.key for each in program.program.held}


def test_what_surrounds_a_save_is_no_part_of_a_program():
    module = nn.Linear(3, 2)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        inside = bytes(export(module, points(2)))
    with torch.no_grad():
        assert bytes(export(module, points(2))) == inside
    assert bytes(export(module, points(4))) == inside


def test_sizes_that_vary_can_be_named():
    dim = torch.export.Dim.DYNAMIC
    given = {"args": (tokens(2),), "dynamic_shapes": ({0: dim, 1: dim},)}
    module = nets.Attention()
    program = loaded(module, given)
    for shape in ((1, 4), (3, 9)):
        ids = torch.randint(0, 50, shape)
        assert same(outputs(program, ids), outputs(module, ids))


def test_a_batch_that_can_be_of_one_size_only_is_warned_of():
    class Fixed(nn.Module):
        def forward(self, x):
            return x + torch.arange(int(x.shape[0]))[:, None] + len(list(x.unbind(0)))

    with pytest.warns(StateWarning, match=r"part 'model' takes a first dimension .*: x \(4\)"):
        program = loaded(Fixed(), points(4))
    x = points(4)
    assert torch.equal(program(x), Fixed()(x))
    with pytest.raises(ValueError, match=r"x should be float32\[4, 3\], and is float32\[5, 3\]"):
        program(points(5))


def test_a_fast_path_of_eval_mode_is_within_tolerance():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    with pytest.warns(StateWarning, match=r"very bits.*differ by \d.*e-\d+ at most"):
        program = loaded(layer, torch.randn(3, 5, 16))
    assert not program.program.is_exact
    x = torch.randn(4, 5, 16)
    layer.eval()
    torch.testing.assert_close(outputs(program, x), outputs(layer, x))


class Deciding(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Writing(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))

    def forward(self, x):
        with torch.no_grad():
            self.w.mul_(0.5)
        return x * self.w


class WritingUnseen(Writing):
    def forward(self, x):
        self.w.data.mul_(0.5)
        return x * self.w


class Lying(nn.Module):
    """What it computes depends on whether it is traced."""

    def forward(self, x):
        return x * 2 if torch.compiler.is_exporting() else x


@pytest.mark.parametrize(
    ("module", "sample", "reason"),
    [
        (Deciding(), points(2), r"torch.export failed: .*data-dependent"),
        (Writing(), points(2), r"its forward writes to its own parameters \(w\); they were put"),
        (WritingUnseen(), points(2), r"its forward writes to its own parameters \(w\)"),
        (Lying(), points(2), "computes something else than the module does: output 0"),
        (nn.Linear(3, 2), points(2)[:, :2], "the module itself fails: RuntimeError: mat1"),
        (nn.ModuleList([nn.Linear(3, 2)]), points(2), "the module itself fails"),
        (nets.Structured(), ({"x": points(2), "more": [object()]},), "the module itself fails"),
    ],
)
def test_what_can_not_be_a_program_is_refused_by_name(module, sample, reason):
    with pytest.raises(
        ProgramError, match=rf"(?s)program of part 'model' \(.*\): .*{reason}.*without"
    ):
        export(module, sample)


@pytest.mark.parametrize("kind", [Writing, WritingUnseen])
def test_weights_that_forward_wrote_to_are_put_back(kind):
    module = kind()
    with pytest.raises(ProgramError):
        export(module, points(2))
    assert torch.equal(module.w, torch.ones(3))


class Remembering(nn.Module):
    """Has state that is no buffer, of every sort; each way of calling it changes one of them."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.n = 0
        self.cache = []
        self.h = torch.zeros(3)
        self.inside = {"deep": [torch.zeros(3)]}
        self.object = types.SimpleNamespace(n=0)
        self.register_buffer("total", torch.zeros(3))

    def forward(self, x):
        return x + self.way(self, x)


def count(module, _):
    module.n += 1
    return module.n


def grow(module, x):
    module.cache.append(x)
    return len(module.cache)


def replace(module, x):
    module.h = module.h + x.sum(0)
    return module.h


def deepen(module, x):
    module.inside["deep"][0] = module.inside["deep"][0] + x.sum(0)
    return module.inside["deep"][0]


def count_elsewhere(module, _):
    module.object.n += 1
    return module.object.n


def draw(_, __):
    return random.random()  # noqa: S311 - no secret is drawn


def draw_numpy(_, __):
    return float(np.random.rand())  # noqa: NPY002 - the generator that models draw from


@pytest.mark.parametrize(
    ("way", "named"),
    [
        (count, r"changes n,"),
        (grow, r"changes cache,"),
        (replace, r"changes h,"),
        (deepen, r"changes inside\['deep'\]\[0\],"),
        (count_elsewhere, r"changes object.n,"),
        (draw, "changes Python's random generator,"),
        (draw_numpy, "changes NumPy's random generator,"),
    ],
)
def test_what_changes_from_call_to_call_is_refused_by_name(way, named):
    module = Remembering(way)
    with pytest.raises(ProgramError, match=named):
        export(module, points(2))
    assert (module.n, module.cache, module.object.n) == (0, [], 0)
    assert not module.h.any()
    assert not module.inside["deep"][0].any()


def test_what_is_written_in_place_is_put_back_after_a_save_too():
    def add(module, x):
        module.h += x.sum(0)
        module.inside["deep"][0].add_(1)
        return 0

    module = Remembering(add)
    with pytest.warns(StateWarning, match=r"may not change h, inside\['deep'\]\[0\] as forward"):
        export(module, points(2))
    assert not module.h.any()
    assert not module.inside["deep"][0].any()


def test_what_settles_after_the_first_call_is_nothing_to_warn_of():
    def look_up(module, _):
        if "table" not in module.inside:
            module.inside["table"] = torch.arange(3.0)
        return module.inside["table"]

    module = Remembering(look_up)
    program = loaded(module, points(2))
    assert "table" not in module.inside
    x = points(2)
    assert torch.equal(program(x), module(x))


def test_a_buffer_that_an_inner_module_replaces_is_not_followed_and_refused():
    module = nn.Sequential(nets.Counting())
    with pytest.raises(ProgramError, match=r"changes 0.calls, 0.total, so a second call"):
        export(module, points(2))


def test_an_argument_is_what_the_module_takes_for_itself_or_has_to_be_given():
    x = points(2)
    same = loaded(nets.Scaled(), (x, 1.0))
    assert torch.equal(same(x), nets.Scaled()(x))
    other = loaded(nets.Scaled(), (x, 2.0))
    assert torch.equal(other(x, 2.0), x * 2)
    with pytest.raises(MismatchError, match=r"scale has to be given, as 2.0"):
        other(x)


def test_sizes_of_keyword_arguments_without_names_are_told_to_be_fixed():
    class Open(nn.Module):
        def forward(self, **others):
            return others["x"] * 2

    with pytest.warns(StateWarning, match=r"this size only: x \(2\); .*give its arguments names"):
        export(Open(), {"kwargs": {"x": points(2)}})


@pytest.mark.parametrize("given", ["x", 3, [], {"x": 1}, {"args": ()}, {"args": "x"}, None])
def test_samples_that_are_none_are_refused(given):
    with pytest.raises(ArgumentError, match="program= takes a sample tensor, a tuple"):
        export_program(nn.Linear(3, 2), {}, given, "model")
