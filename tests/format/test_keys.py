"""Keys of state dicts in trees."""

from __future__ import annotations

from ckptstore.format.keys import keys_of, narrowed


def test_a_tree_that_is_no_state_dict_has_no_keys():
    assert keys_of([1]) is None
    assert keys_of({"$tuple": []}) is None
    assert keys_of({"$dict": [["a", 1], [7, 2], "b"]}) == ["a"]
    assert narrowed({"$dict": [["a", 1], [7, 2], "b", ["c", 3]]}, ["c"]) == {
        "$dict": [[7, 2], "b", ["c", 3]]
    }


def test_a_plain_object_is_a_state_dict_too():
    assert keys_of({"a": 1, "b": 2}) == ["a", "b"]
    assert narrowed({"a": 1, "b": 2}, ["b"]) == {"b": 2}
    assert keys_of({}) == []


def test_metadata_stay_whole():
    tree = {"$OrderedDict": [["a", 1], ["b", 2]], "_metadata": {"": {}}}

    assert narrowed(tree, ["a"]) == {"$OrderedDict": [["a", 1]], "_metadata": {"": {}}}
