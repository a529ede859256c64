from __future__ import annotations

import io
import pickle
from collections import OrderedDict

import pytest

from ckptstore.errors import ImportRefusedError
from ckptstore.importing.inert import Made, Name, read_pickle

PLAIN = {
    "numbers": [0, 255, 70000, -1, 2**80, 1.5, True, False, None],
    "text": ["", "ä", "x" * 300, b"", b"\0" * 300],
    "nested": {"a": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)), 5: {"b": []}},
}


def read(data):
    return read_pickle(io.BytesIO(data), "it")


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_read_as_pickle_reads_them(protocol):
    value = PLAIN if protocol > 2 else {**PLAIN, "text": ["", "ä", "x" * 300]}
    assert read(pickle.dumps(value, protocol)) == (value, ())


@pytest.mark.parametrize("protocol", [4, 5])
def test_sets_too(protocol):
    value = [{1, 2}, frozenset({3})]
    assert read(pickle.dumps(value, protocol)) == (value, ())


def test_what_stands_twice_is_one():
    shared = [1]
    found = read(pickle.dumps([shared, shared])).value
    assert found[0] is found[1]


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_is_written_down(protocol):
    value, names = read(pickle.dumps(OrderedDict(a=1), protocol))
    assert isinstance(value, Made)
    assert names[-1] == Name("collections", "OrderedDict") or names[0] == names[-1]


def test_objects_keep_what_they_would_be_filled_with():
    error = ValueError("x")
    error.where = 5
    value, names = read(pickle.dumps(error))
    assert names == (Name("builtins", "ValueError"),)
    assert (value.args, value.state) == (("x",), {"where": 5})


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"cos\nsystem\n(S'x'\ntR.", ["os.system"]),
        (b"(S'x'\nios\nsystem\n.", ["os.system"]),
        (b"(cos\nsystem\nS'x'\no.", ["os.system"]),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.", ["os.system"]),
        (b"\x80\x04cbuiltins\nlist\n)R\x8c\x06system\x93.", ["builtins.list", "<computed>.system"]),
        # Names put together out of the memo.
        (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x9400h\x00h\x01\x93.", ["os.system"]),
    ],
)
def test_no_way_to_name_something_goes_unseen(data, names):
    assert [str(name) for name in read(data).names] == names


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"abc",
        b"N",
        b"0.",
        b"]NNs.",
        b"(.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"X\xff\xff\xff\xffx.",
        b"h\x05.",
        b"\x82\x01.",
        b"}(]N" + b"u.",
        b"I9" + b"9" * 10000 + b"\n.",
    ],
)
def test_what_is_no_pickle_is_refused(data):
    with pytest.raises(ImportRefusedError, match="it is no pickle"):
        read(data)


def test_random_bytes_never_do_worse_than_be_refused():
    import random

    draws = random.Random(7)  # noqa: S311 - nothing secret
    whole = pickle.dumps(PLAIN, 4)
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(draws.randrange(1, 4)):
            data[draws.randrange(len(data))] = draws.randrange(256)
        try:
            read(bytes(data))
        except ImportRefusedError:
            continue


@pytest.mark.parametrize("levels", [9, 2_000])
@pytest.mark.parametrize("way", [b"}%sNs.", b"}(%sNu.", b"(%sNd.", b"\x8f(%s\x90.", b"(%s\x91."])
def test_keys_that_are_nested_too_deeply_are_never_hashed(way, levels):
    assert read(way.replace(b"%s", b"N\x85\x85")).value
    with pytest.raises(ImportRefusedError, match="levels than a key has"):
        read(way.replace(b"%s", b")" + b"2\x86" * levels))


def test_text_of_python_2_is_text_where_it_is_any():
    assert read(b"(U\x02\xc3\xa4U\x01\xffU\x01al.").value == ["ä", b"\xff", "a"]
