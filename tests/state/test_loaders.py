"""torchdata's loaders go on as if their iterator had been there all along."""

from __future__ import annotations

import random

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import RandomSampler as StatefulRandomSampler

from ckptstore import Store
from ckptstore.errors import MismatchError, StateWarning
from ckptstore.state.loaders import (
    MADE_WITH,
    is_loader,
    load,
    loader_problems,
    loader_state,
    lost_orders,
    made_with,
)
from tests.loading.trainings import frozen, generators

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
ROWS = torch.arange(12.0)


def loader(**options):
    return StatefulDataLoader(ROWS, batch_size=2, **options)


def cut(seed=0, batches=2, **options):
    """Return a loader that was iterated for some batches, and its iterator."""
    torch.manual_seed(seed)
    made = loader(**options)
    batches_of = iter(made)
    for _ in range(batches):
        next(batches_of)
    return made, batches_of


def test_only_torchdatas_loaders_are_loaders():
    assert is_loader(loader())
    assert not is_loader(DataLoader(ROWS))
    assert not is_loader(None)


@pytest.mark.parametrize("batches", [0, 2, 6])
@pytest.mark.parametrize("seeded", [True, False], ids=["own generator", "the process's"])
def test_going_on_draws_nothing(batches, seeded):
    options = {"generator": torch.Generator().manual_seed(3)} if seeded else {}
    first, rest = cut(batches=batches, shuffle=True, **options)
    state = first.state_dict()
    expected = [*rest, *first]
    options = {"generator": torch.Generator().manual_seed(8)} if seeded else {}
    second = loader(shuffle=True, **options)
    random.seed(4)
    torch.manual_seed(4)
    before = generators()
    load(second, state)
    found = list(second)

    assert generators() == before
    assert frozen([*found, *second]) == frozen(expected)


class Drawing(IterableDataset):
    """Draws from the process's generators when an iterator of it is made."""

    def __iter__(self):
        return iter(torch.randperm(6) + random.random())  # noqa: S311 - no secret

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_what_a_dataset_draws_for_its_iterator_is_taken_back():
    first, second = (StatefulDataLoader(Drawing(), batch_size=2) for _ in range(2))
    next(iter(first))
    before = generators()
    load(second, first.state_dict())
    iter(second)

    assert generators() == before


def test_the_generator_is_the_loaders_own_again():
    own = torch.Generator().manual_seed(3)
    first, _ = cut()
    second = loader(generator=own)
    before = own.get_state()
    load(second, first.state_dict())
    iter(second)

    assert second.generator is own
    assert torch.equal(own.get_state(), before)  # nobody shares it


def test_only_the_first_iterator_is_made_without_drawing():
    first, _ = cut()
    second = loader()
    load(second, first.state_dict())
    load(second, first.state_dict())
    list(second)
    before = generators()
    list(second)

    assert generators() != before
    assert "_get_iterator" not in vars(second)


def test_an_iterator_that_cannot_be_made_leaves_the_loader_as_it_was():
    own = torch.Generator()
    second = loader(generator=own)
    load(second, {"no": "state"})
    with pytest.raises(AssertionError, match="State doesn't contain key"):
        iter(second)

    assert second.generator is own


def test_another_number_of_workers_is_a_mismatch_before_anything_is_touched(tmp_path):
    made, _ = cut(num_workers=0)
    with_workers = loader(num_workers=2)
    state = {"_snapshot": {"_main_snapshot": {"_num_workers": 2}}}

    assert loader_problems(loader(), state) == [
        "saved by a loader with num_workers=2, and this has 0: its state is that of its workers"
    ]
    assert loader_problems(with_workers, state) == []
    with pytest.raises(MismatchError, match="num_workers=0, and this has 2"):
        Store(tmp_path).save(data=made).restore(data=with_workers)
    assert with_workers.next_iter_state is None


LONGER, SHORTER = (torch.arange(length) for length in (18.0, 9.0))
BATCHED = BatchSampler(SequentialSampler(ROWS), 2, drop_last=False)
MADE = [
    # saved with, gone on with, told in the middle of an epoch, told between epochs
    ({"shuffle": True}, {"shuffle": True}, [], []),
    ({"shuffle": True}, {}, ["sampler torchdata's RandomSampler, and this has torch's Seq"], True),
    ({}, {"shuffle": True}, ["sampler torch's SequentialSampler, and this has torchdata"], True),
    ({}, {"dataset": LONGER}, ["a dataset of length 12, and this has 18"], []),
    ({}, {"dataset": SHORTER}, ["a dataset of length 12, and this has 9"], True),
    ({}, {"batch_size": 3, "drop_last": True}, [], []),
    (
        {"batch_sampler": BATCHED, "batch_size": 1},
        {},
        ["sampler torch's BatchSampler of", "batch_size None, and this has 2"],
        ["sampler torch's BatchSampler of"],
    ),
    (
        {"num_workers": 1},
        {"num_workers": 1, "batch_size": 3, "drop_last": True},
        ["batch_size 2, and this has 3", "drop_last False, and this has True"],
        [],
    ),
]


@pytest.mark.parametrize("batches", [3, 6])
@pytest.mark.parametrize(("first", "second", "within", "between"), MADE)
def test_a_loader_that_is_made_otherwise_is_a_mismatch(first, second, within, between, batches):
    def made(dataset=ROWS, batch_size=2, **options):
        return StatefulDataLoader(dataset, batch_size=batch_size, **options)

    saved, other = made(**first), made(**second)
    kept = iter(saved)
    for _ in range(batches):
        next(kept)
    assert batches < 6 or next(kept, None) is None
    problems = loader_problems(other, loader_state(saved))

    expected = within if batches < 6 or between is True else between
    assert [told in problem for told, problem in zip(expected, problems, strict=True)] == [
        True
    ] * len(expected)
    if batches == 6 and between == []:
        load(other, loader_state(saved))
        assert len(list(other)) == len(other)


def test_not_strictly_a_loader_that_is_made_otherwise_stays_as_it_is_and_is_told(tmp_path):
    store, (saved, _), other = Store(tmp_path), cut(shuffle=True), loader()
    store.save(data=saved)
    with pytest.raises(MismatchError, match="data: saved in the middle of an epoch with sampler"):
        store.resume(data=other)
    with pytest.warns(StateWarning, match="without 'data', which is as it was"):
        audit = store.resume(data=other, strict=False).audit

    assert audit.restored == ("rng",)
    assert audit.not_asked_for == ()
    assert "data, left as it is: saved in the middle of an epoch with sampler" in str(audit)
    assert frozen(list(other)) == frozen(list(loader()))


def test_that_workers_draw_anew_in_the_middle_of_an_epoch_is_told(tmp_path):
    store = Store(tmp_path)
    within, without = (
        store.save(data=cut(num_workers=workers)[0]).restore(data=loader(num_workers=workers))
        for workers in (1, 0)
    )

    assert within.redrawn == ("data",)
    assert "data: random numbers drawn in workers begin anew" in str(within)
    assert without.redrawn == ()


def test_a_loader_saved_without_what_it_was_made_with_goes_on():
    first, rest = cut()
    state, other = loader_state(first), loader()
    del state[MADE_WITH]

    assert loader_problems(other, state) == []
    load(other, state)
    assert frozen(list(other)) == frozen(list(rest))


def test_a_saved_loader_can_be_loaded_without_ckptstore(tmp_path):
    first, rest = cut()
    state, other = Store(tmp_path).save(data=first).state("data"), loader()
    assert state[MADE_WITH]["samples"] == 12
    other.load_state_dict(state)

    assert frozen(list(other)) == frozen(list(rest))


def test_a_dataset_without_a_length_or_one_that_is_iterated_has_none():
    class Endless(torch.utils.data.Dataset):
        def __getitem__(self, index):
            return index

    endless = StatefulDataLoader(Endless(), sampler=SequentialSampler(ROWS))
    assert made_with(endless)["samples"] is None
    assert made_with(StatefulDataLoader(Drawing()))["samples"] is None


@pytest.mark.parametrize(
    "state", [None, 3, {"_snapshot": 3}, {"_snapshot": {}}, {MADE_WITH: 3}, {"_num_yielded": "x"}]
)
def test_what_is_no_loaders_state_is_a_mismatch(state):
    assert loader_problems(loader(), state) == [
        "its state is not what a StatefulDataLoader was saved as"
    ]


@pytest.mark.parametrize(
    ("sampler", "told"),
    [
        (RandomSampler(ROWS), "RandomSampler"),
        (SubsetRandomSampler([3, 1]), "SubsetRandomSampler"),
        (WeightedRandomSampler([1.0, 2.0], 2), "WeightedRandomSampler"),
        (SequentialSampler(ROWS), None),
        (DistributedSampler(ROWS, num_replicas=2, rank=0), None),
        (StatefulRandomSampler(ROWS), None),
    ],
)
def test_an_order_that_cannot_be_kept_in_mid_epoch_is_told(sampler, told):
    found = lost_orders({"model": torch.nn.Linear(1, 1), "data": loader(sampler=sampler)})
    batched = StatefulDataLoader(ROWS, batch_sampler=BatchSampler(sampler, 2, drop_last=False))

    assert [f"torch's {told} keeps nothing" in message for message in found] == [True] * bool(told)
    assert len(lost_orders({"data": batched})) == len(found)


def test_it_is_told_once_a_run(tmp_path):
    store, data = Store(tmp_path), loader(sampler=RandomSampler(ROWS))
    with pytest.warns(
        StateWarning, match="part 'data' can go on between epochs, not in the middle"
    ):
        store.save(data=data)
    store.save(data=data)  # a warning fails the test
