"""What did not change costs nothing: frozen layers, packages, forks, whoever saves them."""

from __future__ import annotations

import warnings
from uuid import uuid4

import pytest
import torch
from torch import nn

from ckptstore import Keep, Store, keeping
from ckptstore.errors import LateCommitError, RetiredError, RunWarning, StorageError
from ckptstore.format.journal import RetireEntry
from ckptstore.format.layout import pack_key
from ckptstore.format.store_facts import DEFAULT_GRACE_S, StoreFacts, encode_store
from ckptstore.saving import moment, run_writer
from ckptstore.saving.bases import LOOK_S
from tests.faults import Failing, store_on

WIDTH = 120


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x):
        return self.head(self.backbone(x).relu())


@pytest.fixture
def net():
    net = Net()
    net.backbone.requires_grad_(requires_grad=False)
    return net


@pytest.fixture
def optimizer(net):
    return torch.optim.Adam(net.head.parameters())


@pytest.fixture
def store(store_url):
    with Store(store_url, run="digits") as opened:
        yield opened


def step(net, optimizer):
    optimizer.zero_grad()
    net(torch.randn(4, WIDTH)).sum().backward()
    optimizer.step()


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_whose_backbone_is_frozen_writes_its_head_and_optimizer_only(store, net, optimizer):
    step(net, optimizer)
    first = store.save(net, optimizer, epoch=0)
    backbone = sum(each.nbytes for each in net.backbone.parameters())
    state_bytes = 3 * sum(each.nbytes for each in net.head.parameters())

    step(net, optimizer)
    second = store.save(net, optimizer, epoch=1)

    assert second.size_bytes == first.size_bytes
    assert first.new_bytes >= backbone + state_bytes
    assert second.new_bytes < state_bytes + 4 * 4096  # the packs' headers
    same(store.latest().state("model"), net.state_dict())


def test_a_package_made_from_a_checkpoint_writes_nothing_but_its_manifest(store, net, optimizer):
    step(net, optimizer)
    checkpoint = store.save(net, optimizer, epoch=0)

    package = store.save_package(checkpoint)

    assert package.new_bytes == 0
    assert package.size_bytes == sum(each.nbytes for each in net.state_dict().values())
    same(store.load_package(Net, device="cpu").model.state_dict(), net.state_dict())


def test_a_package_in_another_run_shares_its_checkpoints_bytes_too(store, net):
    store.save(net, epoch=0)

    assert store.save_package("digits@1", run="released").new_bytes == 0


def test_a_fork_starts_from_its_weights_for_free(store, net):
    store.save(net, epoch=0, val_loss=0.5)
    loaded = Net()
    store.best(run="digits").restore(loaded)

    forked = store.save(loaded, run="fork", parent="digits@best", epoch=0)

    assert (forked.new_bytes, forked.parent) == (0, "digits@1")


def test_another_process_builds_upon_what_is_there(store, store_url, net, optimizer):
    step(net, optimizer)
    store.save(net, optimizer, epoch=0)

    with Store(store_url, run="digits") as other:
        fresh = Net()
        theirs = torch.optim.Adam(fresh.head.parameters())
        other.resume(fresh, theirs)
        again = other.save(fresh, theirs, epoch=1)

    assert again.new_bytes == 0


def test_a_package_between_two_checkpoints_costs_the_second_nothing(store, net, optimizer):
    step(net, optimizer)
    store.save_package(store.save(net, optimizer, epoch=0))

    assert store.save(net, optimizer, epoch=1).new_bytes == 0


def test_the_same_save_twice_is_two_versions(store, net):
    first, second = store.save(net, epoch=0), store.save(net, epoch=1)

    assert (first.version, second.version) == (1, 2)
    assert second.new_bytes == 0


def test_what_is_shared_is_checked_when_it_is_loaded(tmp_path, net):
    store = Store(tmp_path / "store", run="digits")
    store.save(net, epoch=0)
    head = store.save(net, epoch=1).head
    (pack,) = {each.number: each for each in head.packs if each.save_id != head.save_id}.values()
    path = store._storage._path(pack_key(pack.save_id, pack.number))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(Exception, match=r"digits@2: tensor .* is damaged"):
        store.load(Net, "digits@2", device="cpu")


def test_nothing_is_built_upon_a_retired_version(store, net):
    store.save(net, epoch=0)
    store.save(net, epoch=1, tags=["live"])
    with Store(store.url, run="digits") as other:
        writer = other._writer("digits")
        writer.append(lambda _, time, writer: RetireEntry({1: "pruned", 2: "pruned"}, time, writer))

        with pytest.warns(RunWarning, match="neither resumed nor created"):
            assert other.save(net, epoch=2).new_bytes > 0


# ------------------------------------------------------------------------------ half the grace


@pytest.fixture
def sleep(monkeypatch):
    """Let time pass between a save's steps while the machine sleeps: one clock stands still."""
    slept = [0.0]
    real = moment.time.time
    monkeypatch.setattr(moment.time, "time", lambda: real() + slept[0])
    return lambda seconds: slept.__setitem__(0, slept[0] + seconds)


class Sleepy(Failing):
    """A storage on which time passes when an operation named *at* is made."""

    def __init__(self, storage, operation, work, *, after=False):
        super().__init__(storage)
        self.slow, self.work, self.late = operation, work, after

    def do(self, operation, key, work):
        hit = (operation == self.slow and "_versions" in key) or operation == self.slow == "finish"
        if hit and not self.late:
            self.work()
        result = super().do(operation, key, work)
        if hit and self.late:
            self.work()
        return result


def sleepy(folder, operation, work, *, after=False):
    inner = Store(folder, catalog="sqlite://")._storage
    return store_on(Sleepy(inner, operation, work, after=after), run="digits")


HALF = DEFAULT_GRACE_S / 2


def test_a_save_that_took_longer_than_half_the_grace_period_commits_nothing(tmp_path, sleep, net):
    store = sleepy(tmp_path / "store", "finish", lambda: sleep(HALF + 1))

    with pytest.raises(LateCommitError, match="no version of run 'digits' was committed"):
        store.save(net, epoch=0)

    assert len(Store(tmp_path / "store", catalog="sqlite://").runs()) == 0


def test_a_save_that_became_late_in_its_very_commit_takes_itself_back(tmp_path, sleep, net):
    store = sleepy(tmp_path / "store", "create", lambda: sleep(HALF + 1))

    with pytest.raises(LateCommitError, match="digits@1 was retired again"):
        store.save(net, epoch=0)

    with Store(tmp_path / "store", catalog="sqlite://") as other:
        (entry,) = other.history("digits")
        assert entry.retired.reason.startswith("late: ")
        with pytest.raises(RetiredError):
            other.load(Net, "digits@1", device="cpu")


def test_what_was_taken_back_is_nobodys_parent(tmp_path, sleep, net):
    nap = [HALF + 1]
    store = sleepy(tmp_path / "store", "create", lambda: sleep(nap.pop() if nap else 0))
    with pytest.raises(LateCommitError):
        store.save(net, epoch=0)

    assert store.save(net, epoch=0).parent is None


def test_a_save_within_half_the_grace_period_is_in_time(tmp_path, sleep, net):
    store = sleepy(tmp_path / "store", "create", lambda: sleep(HALF - 60))

    assert store.save(net, epoch=0).ref == "digits@1"


def test_a_look_long_ago_makes_a_save_late_that_was_quick_itself(tmp_path, sleep, net, monkeypatch):
    store = sleepy(tmp_path / "store", "create", lambda: sleep(HALF - 30))
    monkeypatch.setattr(run_writer, "LOOK_S", 10 * HALF)
    monkeypatch.setattr(run_writer, "LOOK_SHARE", 10)
    store.save(net, epoch=0)

    with pytest.raises(LateCommitError):
        store.save(net, epoch=1)


def test_a_late_save_that_cannot_be_taken_back_says_so(tmp_path, sleep, net, monkeypatch):
    store = sleepy(tmp_path / "store", "create", lambda: sleep(HALF + 1))

    def broken(*_):
        raise StorageError("the network is down")

    monkeypatch.setattr(run_writer, "append", broken)

    with pytest.raises(LateCommitError, match="digits@1 could not be retired") as caught:
        store.save(net, epoch=0)

    assert isinstance(caught.value.__cause__, StorageError)


# ------------------------------------------------------------------------------ children elsewhere


def test_a_fork_is_known_to_its_parents_run_before_it_is_there(store, net):
    store.save(net, epoch=0, val_loss=1.0)
    forked = store.save(net, run="fork", parent="digits@1", epoch=0)

    store._catalog.sync("digits")
    ((version, (child,)),) = store._catalog.children("digits").items()

    assert (version, child.run, str(child.save_id)) == (1, "fork", forked.save_id)


def test_a_run_that_goes_on_announces_nothing(store, net):
    for epoch in range(3):
        store.save(net, epoch=epoch)

    assert store._catalog.next_numbers("digits")[1] == 1


def test_a_parent_from_another_store_is_announced_to_nobody(store, tmp_path, net):
    elsewhere = Store(tmp_path / "elsewhere").save(net, run="base", epoch=0)

    store.save(net, parent=elsewhere, epoch=0)

    assert store.runs() == ["digits"]


# ------------------------------------------------------------------------------ what others do


def flip(store, pack):
    path = store._storage._path(pack_key(pack.save_id, pack.number))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("elsewhere", [True, False], ids=["another store", "the trainer's own"])
def test_damage_that_was_found_is_not_handed_on(tmp_path, net, optimizer, sleep, elsewhere):
    store = Store(tmp_path / "store", run="digits")
    step(net, optimizer)
    first = store.save(net, optimizer, epoch=0)
    flip(store, first.head.packs[0])
    (Store(store.url) if elsewhere else store).verify(repair=True)

    for epoch in range(1, 4):
        step(net, optimizer)
        store.save(net, optimizer, epoch=epoch)
    sleep(LOOK_S + 1)
    last = store.save(net, optimizer, epoch=4)

    with Store(store.url, catalog="sqlite://") as fresh:
        same(fresh.get(last.ref).state("model"), net.state_dict())


def test_a_package_shares_its_source_whatever_its_parent(store, net):
    store.save(net, epoch=0)
    with torch.no_grad():
        net.backbone.weight += 1
    second = store.save(net, epoch=1)

    assert store.save_package(second, parent="digits@1").new_bytes == 0


def test_of_several_places_the_one_that_may_be_shared_is_taken(store, net):
    store.save(net, epoch=0)
    with torch.no_grad():
        net.backbone.weight += 1  # the head is the same, and its pack is mostly backbone
    store.save_package(store.save(net, epoch=1))

    assert store.save_package("digits@1").new_bytes == 0


def test_in_a_short_grace_period_a_look_is_short_too(tmp_path, net, sleep):
    place = tmp_path / "store"
    place.mkdir()
    (place / "ckptstore.json").write_bytes(encode_store(StoreFacts(uuid4(), 40, in_place=False)))
    store = Store(place, run="digits")
    store.save(net, epoch=0)

    sleep(30)  # less than a look holds good in an ordinary store, more than half of this one's

    assert store.save(net, epoch=1).new_bytes == 0


def pruning(place, keep, work=repr):
    """Return what another process does: prune the run as it is at that moment."""
    done = []

    def prune():
        if not done:
            done.append(True)
            with Store(place, catalog="sqlite://") as other:
                work(other)
                other.prune(keep, run="digits")

    return prune


def test_a_version_pruned_before_its_tags_are_set_is_live_and_tagged(tmp_path, net):
    place = tmp_path / "store"
    Store(place, run="digits").save(net, epoch=0, val_loss=0.1)

    def newer(other):
        with pytest.warns(RunWarning):
            other.save(net, run="digits", epoch=2, val_loss=1.0)

    store = sleepy(place, "create", pruning(place, Keep(last=1), newer), after=True)
    store.resume(net)
    saved = store.save(net, epoch=1, val_loss=1.0, tags=["milestone"])

    with Store(place) as other:
        assert other.get("digits@milestone").retired is None
        assert other.get("digits@milestone").version == saved.version


@pytest.mark.parametrize("run", ["digits", "fork"])
def test_a_parent_pruned_before_its_child_is_there_is_live(tmp_path, net, run):
    place = tmp_path / "store"
    with Store(place, run="digits") as first:
        for epoch in range(4):
            first.save(net, epoch=epoch, val_loss=epoch)

    store = sleepy(place, "finish", pruning(place, Keep(last=1)))
    with torch.no_grad():
        net.backbone.weight += 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        child = store.save(net, run=run, parent="digits@2", epoch=9, val_loss=9.0)

    assert child.parent == "digits@2"
    with Store(place) as other:
        assert other.get("digits@2").retired is None
        assert other.get("digits@3").retired is not None


def test_a_run_that_keeps_very_many_is_not_looked_at_after_each_save(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "PRUNED_AT_ONCE", 4)
    store = Store(tmp_path / "store")
    run = store.run("digits", keep=Keep(last=8))
    looks = []
    real = store._prune
    monkeypatch.setattr(store, "_prune", lambda *a, **k: looks.append(1) or real(*a, **k))

    for epoch in range(30):
        run.save({"w": torch.ones(1)}, epoch=epoch, val_loss=0.0)

    assert len(looks) < 18
    assert 8 <= sum(entry.retired is None for entry in store.history()) <= 8 + 1 + 8 // 4
