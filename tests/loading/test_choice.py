"""Part of a module's keys, under other names, in another dtype: what was asked for and no more."""

from __future__ import annotations

import warnings
from collections import OrderedDict

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import ArgumentError, KeysWarning, MismatchError
from ckptstore.loading.choice import Choice, choice_of
from tests.format.tensors import quietly
from tests.loading.counting import count_reads
from tests.loading.trainings import Net, frozen, generators, same

HEAD = 1000  # classes: so much that nothing reads on across the head


class Backbone(nn.Module):
    """A model as a colleague trained it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64))
        self.head = nn.Linear(64, HEAD)


class Encoder(nn.Module):
    """The same layers under other names, and another head."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64))
        self.head = nn.Linear(64, classes)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def trained():
    torch.manual_seed(3)
    return Backbone()


@pytest.fixture
def saved(store, trained):
    return store.save(trained, rng=False)


def load(saved, factory, **options):
    return saved.load(factory, device="cpu", **options)


# ------------------------------------------------------------ patterns


def test_the_longest_prefix_counts_and_prefixes_end_where_names_do():
    choice = choice_of(rename={"a.": "x.", "a.b.": "y.", "c": "z", "d.weight": "w", "": "rest."})

    renamed = [choice.renamed(key) for key in ("a.q", "a.b.q", "c.q", "cc.q", "d.weight", "d.bias")]
    assert renamed == ["x.q", "y.q", "z.q", "rest.cc.q", "w", "rest.d.bias"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"only": []}, "would load nothing"),
        ({"only": 7}, "takes a pattern"),
        ({"skip": ["a", 7]}, "takes a pattern"),
        ({"rename": {"a.": 7}}, "takes a dict"),
        ({"rename": ["a."]}, "takes a dict"),
        ({"rename": {"a.": "b"}}, "run together"),
        ({"rename": {"a": "b."}}, "run together"),
        ({"strict": 1}, "True or False"),
    ],
)
def test_what_makes_no_sense_is_refused(options, words):
    with pytest.raises(ArgumentError, match=words):
        choice_of(**options)


def test_a_module_wants_what_chosen_keys_become():
    rename = {"backbone.": "encoder."}
    wants = choice_of(only="backbone.*", rename=rename).wanting(["backbone.weight"])

    assert wants("encoder.weight")
    assert wants("encoder.new")
    assert not wants("head.weight")
    assert not wants("backbone.weight")  # nothing that is saved gets that name
    assert not choice_of(skip="backbone", rename=rename).wanting(["backbone.weight"])(
        "encoder.weight"
    )
    assert Choice().wanting([])("anything")


# ------------------------------------------------------------ load


def test_only_the_chosen_bytes_are_read_and_the_rest_is_as_the_class_makes_it(
    store, saved, trained, monkeypatch
):
    reads = count_reads(monkeypatch, store)
    model = load(saved, Backbone, only="backbone.0.*", mmap=False)
    expected = Backbone()  # drawn where the load began

    chosen = [*trained.backbone[0].parameters()]
    assert reads.data(saved) == sum(tensor.nbytes for tensor in chosen)
    assert same(model.backbone[0], trained.backbone[0])
    assert same(model.head, expected.head)
    assert not model.training


def test_nothing_else_is_read_on_any_storage(store_url, trained, monkeypatch):
    store = Store(store_url)
    saved = store.save(trained, rng=False)
    reads = count_reads(monkeypatch, store)
    model = load(saved, lambda: Encoder(HEAD), only="head", mmap=False)

    assert same(model.head, trained.head)
    wanted = sum(tensor.nbytes for tensor in trained.head.state_dict().values())
    # A count lies between weight and bias: so small a gap is read with them.
    assert reads.data(saved) == wanted + trained.backbone[1].num_batches_tracked.nbytes


def test_loading_part_of_it_moves_no_generator(saved):
    before = generators()
    load(saved, Backbone, only="backbone.*")

    assert generators() == before


def test_skip_leaves_what_it_names(store, saved, trained, monkeypatch):
    reads = count_reads(monkeypatch, store)
    model = load(
        saved, lambda: Encoder(HEAD), skip="head", rename={"backbone": "encoder"}, mmap=False
    )

    assert same(model.encoder, trained.backbone)
    assert not torch.equal(model.head.weight, trained.head.weight)
    wanted = sum(tensor.nbytes for tensor in trained.backbone.state_dict().values())
    assert reads.data(saved) == wanted


def test_another_head_takes_what_a_colleague_trained(saved, trained):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load(saved, Encoder, only="backbone.*", rename={"backbone.": "encoder."})

    assert same(model.encoder, trained.backbone)
    assert model.head.weight.shape == (3, 64)


@pytest.mark.parametrize("kind", [OrderedDict, dict])
def test_a_prefix_can_be_put_on_and_taken_off(store, trained, kind):
    plain = kind(trained.head.state_dict())
    prefixed = kind((f"module.{key}", value) for key, value in plain.items())
    one = load(store.save(prefixed), lambda: nn.Linear(64, HEAD), rename={"module.": ""})
    other = load(
        store.save(plain),
        lambda: nn.Sequential(OrderedDict(module=nn.Linear(64, HEAD))),
        rename={"": "module."},
    )

    assert same(one, trained.head)
    assert same(other.module, trained.head)


def test_metadata_go_by_the_new_names_so_versions_are_known(store):
    # Without its version a batch norm's own loading code would make up a count.
    norm = nn.Sequential(OrderedDict(a=nn.BatchNorm1d(3)))
    saved = store.save(norm)
    model = load(
        saved,
        lambda: nn.Sequential(OrderedDict(b=nn.BatchNorm1d(3))),
        rename={"a.": "b."},
        skip="a.num_batches_tracked",
    )

    assert int(model.b.num_batches_tracked) == 0


def test_names_that_would_meet_are_refused_by_name(saved):
    with pytest.raises(ArgumentError, match=r"'backbone.0.weight' and 'head.weight' .* 'x.weight'"):
        load(saved, Backbone, rename={"backbone.0.": "x.", "head.": "x."})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"only": "bakbone.*"}, r"only='bakbone.\*' fits no key .*did you mean 'backbone'"),
        ({"skip": "haed"}, "skip='haed' fits no key .*did you mean 'head'"),
        ({"rename": {"encoder.": "x."}}, "no key of .* begins with 'encoder.'"),
        ({"only": "head", "skip": "head.*"}, "leave nothing to load"),
    ],
)
def test_a_slip_is_named_with_what_there_is(saved, options, words):
    with pytest.raises(ArgumentError, match=words):
        load(saved, Backbone, **options)


def test_what_was_asked_for_must_fit(saved):
    with pytest.raises(MismatchError) as caught:
        load(saved, Encoder, only=["backbone.*", "head.weight"], rename={"backbone.": "encoder."})
    assert len(caught.value.problems) == 1
    assert "shape [3, 64] in the module, and was saved as shape [1000, 64]" in str(caught.value)

    class Longer(Encoder):
        def __init__(self):
            super().__init__()
            self.encoder.append(nn.Linear(2, 2))

    with pytest.raises(MismatchError, match=r"'encoder.2.weight' .* was not saved"):
        load(saved, Longer, only="backbone.*", rename={"backbone.": "encoder."})


def test_a_part_that_is_no_state_dict_has_no_keys_to_choose(store):
    saved = store.save({"a": {"b": torch.ones(2)}}, rng=False)

    with pytest.raises(ArgumentError, match=r"only=.*fits no key"):
        load(saved, Net, only="b")


# ------------------------------------------------------------ strict=False


def test_what_does_not_fit_is_left_and_reported(saved, trained):
    class Other(Encoder):
        def __init__(self):
            super().__init__()
            self.extra = nn.Linear(2, 2)

    with pytest.warns(KeysWarning, match="as the class made it") as caught:
        model = load(saved, Other, strict=False, rename={"backbone.": "encoder."}, only=None)
    report = caught[0].message.report

    assert report.missing == ("extra.weight", "extra.bias")
    assert report.unexpected == ()
    assert report.mismatched == ("head.weight", "head.bias")
    assert same(model.encoder, trained.backbone)
    with pytest.warns(KeysWarning) as caught:
        load(saved, lambda: nn.Sequential(OrderedDict(head=nn.Linear(64, HEAD))), strict=False)
    assert set(caught[0].message.report.unexpected) == {
        f"backbone.{key}" for key in trained.backbone.state_dict()
    }
    assert caught[0].message.report.missing == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"only": "bakbone.*"}, "only='bakbone.*did you mean 'backbone'"),
        ({"skip": "haed"}, "skip='haed' fits no key"),
        ({"rename": {"bakbone.": "encoder."}}, "no key of part 'model'.* begins with 'bakbone.'"),
    ],
)
def test_a_wrong_name_is_an_error_whatever_strict_says(saved, options, words):
    with pytest.raises(ArgumentError, match=words):
        load(saved, Backbone, strict=False, **options)


def test_what_fits_is_not_warned_of(saved, trained):
    assert same(load(saved, Backbone, strict=False), trained)


def test_left_keys_are_drawn_as_the_class_draws_them(saved):
    torch.manual_seed(7)
    expected = Encoder()
    torch.manual_seed(7)
    with pytest.warns(KeysWarning):
        model = load(saved, Encoder, strict=False, rename={"backbone.": "encoder."})

    assert torch.equal(model.head.weight, expected.head.weight)


def test_a_tie_gives_a_missing_name_its_value(store):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 4)
            self.two = nn.Linear(4, 4)
            self.two.weight = self.one.weight

    tied = Tied()
    state = {key: value for key, value in tied.state_dict().items() if key != "two.weight"}
    model = load(store.save(state), Tied, strict=False)

    assert model.two.weight is model.one.weight
    assert torch.equal(model.two.weight, tied.two.weight)


def test_loading_code_of_its_own_decides_about_its_names(store):
    class Renaming(nn.Module):
        def __init__(self):
            super().__init__()
            self.new = nn.Linear(2, 2)
            self.more = nn.Linear(2, 2)
            self.register_load_state_dict_pre_hook(self.rename)

        @staticmethod
        def rename(_module, state, prefix, *_):
            for key in ("weight", "bias"):
                if f"{prefix}old.{key}" in state:
                    state[f"{prefix}new.{key}"] = state.pop(f"{prefix}old.{key}")

    old = nn.Linear(2, 2)
    saved = store.save({f"old.{key}": value for key, value in old.state_dict().items()})
    with pytest.warns(KeysWarning) as caught:
        model = load(saved, Renaming, strict=False)

    assert same(model.new, old)
    assert set(caught[0].message.report.missing) == {"more.weight", "more.bias"}
    assert caught[0].message.report.unexpected == ()


def test_an_overridden_load_state_dict_is_asked_to_be_lax(store, trained):
    class Own(Backbone):
        def load_state_dict(self, state_dict, *, strict=True):
            return super().load_state_dict(state_dict, strict)

    model = load(store.save(trained), Own, only="head")

    assert same(model.head, trained.head)


# ------------------------------------------------------------ dtype


def test_floating_tensors_come_in_the_dtype_asked_for(saved, trained):
    model = load(saved, Backbone, dtype=torch.bfloat16)
    expected = Backbone()
    expected.load_state_dict(trained.state_dict())

    assert same(model, expected.to(torch.bfloat16).eval())
    assert model.backbone[1].num_batches_tracked.dtype == torch.int64


def test_what_the_class_makes_is_in_that_dtype_too(saved):
    class Odd(Backbone):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.ones(3), persistent=False)
            self.register_buffer("phases", torch.ones(3, dtype=torch.complex64), persistent=False)

    model = load(saved, Odd, only="backbone.*", dtype=torch.float16)

    assert {tensor.dtype for tensor in model.parameters()} == {torch.float16}
    assert model.table.dtype == torch.float16
    assert model.phases.dtype == torch.complex64


@pytest.mark.parametrize("dtype", [torch.int64, "bfloat16", torch.complex64, 7])
def test_a_dtype_of_no_floating_numbers_is_refused(saved, dtype):
    with pytest.raises(ArgumentError, match="dtype= takes a dtype of floating numbers"):
        load(saved, Backbone, dtype=dtype)


def test_a_dtype_keeps_ties(store):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 4)
            self.two = nn.Linear(4, 4)
            self.two.weight = self.one.weight

    model = load(store.save(Tied()), Tied, dtype=torch.float16)

    assert model.two.weight is model.one.weight


# ------------------------------------------------------------ restore and resume


@pytest.fixture(params=["restore", "resume"])
def put_back(request, store):
    def go(saved, *parts, **options):
        if request.param == "restore":
            return saved.restore(*parts, **options)
        return store.resume(*parts, **{"rng": False, **options}).audit

    return go


def test_part_of_a_module_is_put_back_and_the_rest_untouched(put_back, store, trained, monkeypatch):
    saved = store.save(trained, rng=False)
    model = Backbone()
    monkeypatch.setattr(store._storage, "map", lambda _: None)  # what is mapped is not counted
    head, reads = frozen(model.head.state_dict()), count_reads(monkeypatch, store)
    audit = put_back(saved, model, only="backbone.*")

    assert same(model.backbone, trained.backbone)
    assert frozen(model.head.state_dict()) == head
    assert audit.keys == {}
    wanted = sum(tensor.nbytes for tensor in trained.backbone.state_dict().values())
    assert reads.data(saved) == wanted


def test_an_optimizer_follows_its_renamed_module(put_back, store, trained):
    optimizer = torch.optim.Adam(trained.backbone.parameters(), lr=0.1)
    trained.backbone(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    saved = store.save(trained, optimizer, rng=False)
    model = Encoder()
    other = torch.optim.Adam(model.encoder.parameters())
    put_back(saved, model, other, only="backbone", rename={"backbone.": "encoder."})

    assert same(model.encoder, trained.backbone)
    assert frozen(other.state_dict()["state"]) == frozen(optimizer.state_dict()["state"])


def test_left_keys_are_in_the_audit_and_warned_of(put_back, saved, trained):
    model = Encoder()
    before = frozen(model.head.state_dict())
    with pytest.warns(KeysWarning, match="of another shape: head.weight, head.bias"):
        audit = put_back(saved, model, strict=False, rename={"backbone.": "encoder."})

    assert audit.keys["model"].mismatched == ("head.weight", "head.bias")
    assert "model, left as it is: of another shape: head.weight, head.bias" in str(audit)
    assert same(model.encoder, trained.backbone)
    assert frozen(model.head.state_dict()) == before


def test_a_mismatch_of_what_was_asked_for_touches_nothing(put_back, saved):
    model = Encoder()
    before = frozen(model.state_dict())
    with pytest.raises(MismatchError, match=r"head\.weight"):
        put_back(saved, model, rename={"backbone.": "encoder."})

    assert frozen(model.state_dict()) == before


def test_a_module_keeps_its_dtype_and_converts_only_when_asked(put_back, saved, trained):
    model = Backbone().to(torch.bfloat16)
    with pytest.raises(MismatchError, match="convert the module first, or say dtype='own'"):
        put_back(saved, model)
    audit = put_back(saved, model, dtype="own")

    assert audit.converted == {"model": ("float32",)}
    assert "model: stored in float32, and converted" in str(audit)
    assert put_back(saved, Backbone(), dtype="own").converted == {}
    assert same(model, trained.to(torch.bfloat16))
    with pytest.raises(ArgumentError, match="a module that is there keeps its dtypes"):
        put_back(saved, model, dtype=torch.float32)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_so_does_a_sparse_one(put_back, store, layout):
    def sparse(diagonal, dtype):
        module = nn.Module()
        values = torch.diag(torch.tensor(diagonal))
        module.t = nn.Parameter(quietly(values.to_sparse, layout=layout).to(dtype))
        return module

    saved = store.save(sparse([0.3, 0.0, 2.0], torch.float32), rng=False)
    module = sparse([1.0, 1.0, 1.0], torch.bfloat16)
    parameter = module.t
    audit = put_back(saved, module, dtype="own")

    assert module.t is parameter
    assert (module.t.dtype, module.t.layout) == (torch.bfloat16, layout)
    expected = torch.diag(torch.tensor([0.3, 0.0, 2.0])).bfloat16()
    assert torch.equal(module.t.detach().to_dense(), expected)
    assert audit.converted == {"model": ("float32",)}


def test_no_conversion_is_advised_where_there_is_none(put_back, store):
    saved = store.save({"n": torch.arange(3)}, rng=False)
    module = nn.Module()
    module.register_buffer("n", torch.ones(3))
    for options in ({}, {"dtype": "own"}):
        with pytest.raises(MismatchError, match=r"torch.int64; convert the module first\n"):
            put_back(saved, module, **options)


def test_single_parts_are_named_by_a_dict(put_back, store, trained):
    saved = store.save(trained, ema=trained, rng=False)
    model, ema = Backbone(), Encoder(HEAD)
    put_back(
        saved,
        model,
        ema=ema,
        only={"model": "head"},
        rename={"ema": {"backbone.": "encoder."}},
    )

    assert same(model.head, trained.head)
    assert not same(model.backbone, trained.backbone)
    assert same(ema.encoder, trained.backbone)
    with pytest.raises(ArgumentError, match="only= names 'emma', and the module parts are"):
        put_back(saved, model, only={"emma": "head"})


def test_keys_are_of_modules(put_back, store):
    saved = store.save({"a": torch.ones(2)}, generator=torch.Generator(), rng=False)
    with pytest.raises(ArgumentError, match="only= is about the keys of modules"):
        put_back(saved, generator=torch.Generator(), only="a")
