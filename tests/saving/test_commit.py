"""The commit: whatever fails in the middle of it, the outcome is found out and never guessed."""

from __future__ import annotations

import threading

import pytest

from ckptstore.errors import (
    DurabilityError,
    OutcomeUnknownError,
    SecondWriterError,
    StorageError,
)
from ckptstore.saving import commit
from ckptstore.saving.commit import create_next, create_once
from ckptstore.storage.local import LocalStorage
from tests.faults import Failing, lost

KEY = "runs/a/_versions/00000001.jsonl"


def key(number):
    return f"runs/a/_versions/{number:08d}.jsonl"


def data(number):
    return b"mine %d" % number


@pytest.fixture
def local(tmp_path):
    return LocalStorage(tmp_path)


def test_what_was_created_is_ours(local):
    assert create_once(local, KEY, b"mine", "id")
    assert local.read(KEY) == b"mine"


def test_what_another_created_is_not(local):
    local.create(KEY, b"theirs")
    assert not create_once(local, KEY, b"mine", "id")
    assert local.read(KEY) == b"theirs"


def test_a_lost_reply_is_success_once_it_was_read_back(local):
    storage = Failing(local, at=1, after=True, only={"create"})
    assert create_once(storage, KEY, b"mine", "id")


@pytest.mark.parametrize("fault", [lost, lambda: FileExistsError(KEY)])
def test_a_reply_that_came_of_sending_it_twice_is_success(local, fault):
    storage = Failing(local, at=1, after=True, only={"create"}, fault=fault)
    assert create_once(storage, KEY, b"mine", "id")


def test_a_failure_with_another_writers_object_is_a_lost_race(local):
    local.create(KEY, b"theirs")
    storage = Failing(local, at=1, only={"create"})
    assert not create_once(storage, KEY, b"mine", "id")


def test_a_failure_with_nothing_there_is_a_failure(local):
    storage = Failing(local, at=1, only={"create"})
    with pytest.raises(StorageError, match="connection broke") as raised:
        create_once(storage, KEY, b"mine", "id")
    assert not isinstance(raised.value, OutcomeUnknownError)


@pytest.mark.parametrize("after", [True, False])
def test_what_cannot_be_read_back_is_unknown_and_names_what_to_look_for(local, after):
    storage = Failing(local, at=1, after=after, always=True, only={"create", "read"})
    with pytest.raises(OutcomeUnknownError, match=r"outcome unknown.*the id abc") as raised:
        create_once(storage, KEY, b"mine", "abc")
    assert raised.value.save_id == "abc"
    assert KEY in str(raised.value)
    assert "version" not in str(raised.value).replace(KEY, "")  # it may be a journal entry
    assert isinstance(raised.value.__cause__, StorageError)


def test_a_name_said_to_exist_that_does_not_is_unknown(local):
    storage = Failing(local, at=1, only={"create"}, fault=lambda: FileExistsError(KEY))
    with pytest.raises(OutcomeUnknownError):
        create_once(storage, KEY, b"mine", "abc")


def test_a_failed_fsync_is_failure_even_where_it_can_be_read(local):
    storage = Failing(
        local, at=1, after=True, only={"create"}, fault=lambda: DurabilityError("fsync failed")
    )
    with pytest.raises(DurabilityError):
        create_once(storage, KEY, b"mine", "id")
    assert local.read(KEY) == b"mine"
    assert [name for name, _ in storage.done] == ["create"]  # never tried again


def test_a_file_torn_by_us_spends_its_number_and_is_failure(local):
    class Torn(LocalStorage):
        def create(self, key, data):
            super().create(key, data[:2])
            raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="full"):
        create_once(Torn(local.url), KEY, b"mine", "id")
    assert not create_once(local, KEY, b"mine", "id")


@pytest.mark.parametrize(("after", "said"), [(True, "was committed"), (False, "was not committed")])
@pytest.mark.parametrize("fault", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interrupt_says_what_became_of_it(local, after, said, fault):
    storage = Failing(local, at=1, after=after, only={"create"}, fault=fault)
    with pytest.raises(fault) as raised:
        create_once(storage, KEY, b"mine", "id")
    assert said in raised.value.__notes__[0]


def test_an_interrupt_whose_outcome_cannot_be_read_says_that(local):
    faults = iter([KeyboardInterrupt(), lost()])
    storage = Failing(local, at=1, always=True, only={"create", "read"}, fault=lambda: next(faults))
    with pytest.raises(KeyboardInterrupt) as raised:
        create_once(storage, KEY, b"mine", "abc")
    assert "outcome unknown" in raised.value.__notes__[0]
    assert "abc" in raised.value.__notes__[0]


def test_an_interrupt_while_reading_back_says_that_too(local):
    faults = iter([lost(), KeyboardInterrupt()])
    storage = Failing(local, at=1, always=True, only={"create", "read"}, fault=lambda: next(faults))
    with pytest.raises(KeyboardInterrupt) as raised:
        create_once(storage, KEY, b"mine", "abc")
    assert "outcome unknown" in raised.value.__notes__[0]


def test_numbers_others_took_are_passed_by_one_at_a_time(local):
    for number in (1, 2, 3):
        local.create(key(number), b"theirs")
    storage = Failing(local)

    assert create_next(storage, key, 2, data, "id") == 4

    assert local.read(key(4)) == b"mine 4"
    created = [each for name, each in storage.done if name == "create"]
    assert created == [key(2), key(3), key(4)]


def test_a_lost_reply_takes_no_second_number(local):
    storage = Failing(local, at=2, after=True, only={"create"})
    local.create(key(1), b"theirs")
    assert create_next(storage, key, 1, data, "id") == 2
    assert local.list_folder("runs/a/_versions").files == ("00000001.jsonl", "00000002.jsonl")


def test_eight_threads_get_eight_numbers(local):
    numbers = []
    start = threading.Barrier(8)

    def write(thread):
        start.wait()
        for n in range(5):
            text = f"{thread}.{n}"
            numbers.append(create_next(local, key, 1, lambda _, text=text: text.encode(), text))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 41))


def test_it_gives_up_after_very_many_lost_races(local, monkeypatch):
    monkeypatch.setattr(commit, "MAX_LOST_RACES", 3)
    for number in (1, 2, 3):
        local.create(key(number), b"theirs")
    with pytest.raises(StorageError, match="3 races"):
        create_next(local, key, 1, data, "id")


def test_a_taken_number_is_a_second_writer_where_there_must_be_one(local):
    local.exclusive = False
    local.create(key(1), b"theirs")
    with pytest.raises(SecondWriterError, match="another process"):
        create_next(local, key, 1, data, "id")
    assert local.read(key(1)) == b"theirs"
