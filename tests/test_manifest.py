"""A manifest is checked again at every load, and what it claims before anything is allocated."""

from __future__ import annotations

import json
import tracemalloc

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import IntegrityError, NewerFormatError, StorageError, VersionNotFoundError
from ckptstore.format.digest import digest, dump_line
from ckptstore.format.part import Part
from ckptstore.loading.load import load_module, load_state
from ckptstore.manifest import FIRST_READ_BYTES, open_manifest, path_of
from ckptstore.storage.local import LocalStorage
from tests.loading.forging import forge, forge_line, head_of, manifest_of, packs_of
from tests.loading.storages import Watched, failing

STATE = {"w": torch.arange(12, dtype=torch.float32).reshape(3, 4), "n": torch.tensor([1, 2])}
MOST_BYTES = 8 * 1024 * 1024


@pytest.fixture
def folder(tmp_path):
    Store(tmp_path / "store").save(STATE, run="digits", extra={"a": [1, 2]}, rng=False)
    return tmp_path / "store"


@pytest.fixture
def storage(folder):
    return LocalStorage(folder)


def test_small_manifests_are_read_with_one_request(folder):
    storage = Watched(LocalStorage(folder))
    opened = open_manifest(storage, "digits", 1)
    opened.part("model")
    opened.part("extra")

    size = manifest_of(folder, "digits").stat().st_size
    assert size < FIRST_READ_BYTES
    assert storage.bytes_read == {"runs/digits/_versions/00000001.jsonl": size}


def test_a_long_head_and_long_parts_are_read(tmp_path):
    config = {str(i): "x" * 1000 for i in range(200)}
    extra = {str(i): "y" * 1000 for i in range(200)}
    checkpoint = Store(tmp_path / "s").save(STATE, run="digits", config=config, extra=extra)

    assert checkpoint.config == config
    assert checkpoint.extra == extra


def test_a_part_that_is_not_there_lists_those_that_are(storage):
    with pytest.raises(VersionNotFoundError, match=r"no part 'ema'; it has 'model', 'extra'"):
        open_manifest(storage, "digits", 1).part("ema")


def test_a_manifest_that_is_gone_is_damage(folder, storage):
    manifest_of(folder, "digits").unlink()

    with pytest.raises(IntegrityError, match=r"digits@1: its manifest .*00000001.jsonl is gone"):
        open_manifest(storage, "digits", 1)


def test_a_manifest_that_goes_between_two_reads_is_damage(tmp_path):
    extra = {str(i): "y" * 1000 for i in range(200)}
    Store(tmp_path / "s").save(STATE, run="digits", extra=extra)
    opened = open_manifest(LocalStorage(tmp_path / "s"), "digits", 1)
    manifest_of(tmp_path / "s", "digits").unlink()

    with pytest.raises(IntegrityError, match="gone or cut short in part 'extra'"):
        opened.part("extra")


def test_a_failing_storage_is_no_damage(folder):
    storage = Watched(LocalStorage(folder), failing("read_start", "_versions"))

    with pytest.raises(StorageError, match="no connection"):
        open_manifest(storage, "digits", 1)


def test_another_versions_manifest_is_refused(tmp_path):
    store = Store(tmp_path / "s")
    for _ in range(2):
        store.save(STATE, run="digits")
    one, two = (manifest_of(tmp_path / "s", "digits", n) for n in (1, 2))
    one.write_bytes(two.read_bytes())

    with pytest.raises(IntegrityError, match=r"should be digits@1, and is .* digits@2"):
        store.get("digits@1").state("model")


def test_another_save_under_the_same_number_is_refused(tmp_path):
    old = Store(tmp_path / "a").save(STATE, run="digits")
    new = Store(tmp_path / "b").save(STATE, run="digits")
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")

    with pytest.raises(IntegrityError, match=f"of save {new.head.save_id}: the store was replaced"):
        old.state("model")


def test_a_newer_manifest_is_refused_and_left(folder):
    forge(folder, "digits", lambda head, _: head.update(format=2))
    before = manifest_of(folder, "digits").read_bytes()

    with pytest.raises(NewerFormatError, match="made by a newer ckptstore"):
        open_manifest(LocalStorage(folder), "digits", 1)
    assert manifest_of(folder, "digits").read_bytes() == before


def test_an_unknown_requirement_is_refused_and_an_unknown_field_is_not(folder, storage):
    forge(folder, "digits", lambda head, parts: (head.update(later=1), parts["model"].update(x=2)))
    assert torch.equal(load_state(open_manifest(storage, "digits", 1), "model")["w"], STATE["w"])

    forge(folder, "digits", lambda head, _: head.update(requires=["sparse"]))
    with pytest.raises(NewerFormatError, match="'sparse'"):
        open_manifest(storage, "digits", 1)


# ------------------------------------------------------------ forged, with valid digests


def tensor(parts, **changes):
    parts["model"]["tensors"][0].update(changes)


def chunk(parts, **changes):
    parts["model"]["tensors"][0]["chunks"][0].update(changes)


def two_chunks(parts, first, second):
    """Cut the (3, 4) tensor into two boxes, (offsets, shape) each, both at one place."""
    one = parts["model"]["tensors"][0]["chunks"][0]
    parts["model"]["tensors"][0]["chunks"] = [
        one | {"offsets": offsets, "shape": shape, "length": 4 * shape[0] * shape[1]}
        for offsets, shape in (first, second)
    ]


FORGED = {
    "a shape that overflows": lambda _, p: tensor(p, shape=[2**32, 2**32]),
    "a shape that overflows beside a zero": lambda _, p: (
        tensor(p, shape=[2**61, 2**61, 0]),
        chunk(p, length=0, blake3=digest(b"")),
    ),
    "a negative size": lambda _, p: tensor(p, shape=[-3, -4]),
    "a huge tensor": lambda _, p: tensor(p, shape=[2**50]),
    "a shape of many dimensions": lambda _, p: tensor(p, shape=[1] * 65 + [12]),
    "an item size that lies": lambda _, p: (tensor(p, itemsize=8), chunk(p, length=96)),
    "a half item size": lambda _, p: (tensor(p, itemsize=2), chunk(p, length=24)),
    "an item size of nothing": lambda _, p: tensor(p, itemsize=0),
    "a dtype nobody has": lambda _, p: tensor(p, dtype="float31"),
    "a dtype that is a function": lambda _, p: tensor(p, dtype="load"),
    "gradients of integers": lambda _, p: p["model"]["tensors"][1].update(requires_grad=True),
    "an order that is none": lambda _, p: tensor(p, order=[0, 0]),
    "no chunk": lambda _, p: tensor(p, chunks=[]),
    "a chunk outside its pack": lambda _, p: chunk(p, start=10**9),
    "a chunk in the header": lambda _, p: chunk(p, start=0),
    "a chunk before the file": lambda _, p: chunk(p, start=-1),
    "a chunk of another length": lambda _, p: chunk(p, length=44),
    "a chunk of an unknown pack": lambda _, p: chunk(p, pack=7),
    "a chunk of a negative pack": lambda _, p: chunk(p, pack=-1),
    "a chunk that leaves its tensor": lambda _, p: chunk(p, shape=[3, 4], offsets=[1, 0]),
    "chunks that overlap": lambda _, p: two_chunks(p, ([0, 0], [2, 4]), ([1, 0], [1, 4])),
    "chunks that overlap in columns": lambda _, p: two_chunks(
        p, ([0, 0], [3, 3]), ([0, 2], [3, 1])
    ),
    "chunks with a hole": lambda _, p: two_chunks(p, ([0, 0], [1, 4]), ([2, 0], [1, 4])),
    "a digest that is none": lambda _, p: chunk(p, blake3="xyz"),
    "a wrong digest": lambda _, p: chunk(p, blake3="0" * 64),
    "a tensor that is a string": lambda _, p: p["model"].update(tensors=["w"]),
    "tensors that are none": lambda _, p: p["model"].update(tensors=None),
    "a place beyond the tensors": lambda _, p: p["model"]["tree"].update(w={"$tensor": 9}),
    "a negative place": lambda _, p: p["model"]["tree"].update(w={"$tensor": -1}),
    "a place that is true": lambda _, p: p["model"]["tree"].update(w={"$tensor": True}),
    "an unknown node": lambda _, p: p["model"]["tree"].update(w={"$object": "os.system"}),
    "a torch value that is a function": lambda _, p: p["model"]["tree"].update(
        w={"$torch.dtype": "load"}
    ),
    "a device nobody has": lambda _, p: p["model"]["tree"].update(w={"$torch.device": "abc"}),
    "a float that is none": lambda _, p: p["model"]["tree"].update(w={"$float": "00"}),
    "an array of objects": lambda _, p: p["model"]["tree"].update(
        w={"$array": 0, "dtype": "|O", "shape": [6], "fortran": False}
    ),
    "an array larger than its bytes": lambda _, p: p["model"]["tree"].update(
        w={"$array": 0, "dtype": "<f8", "shape": [2**40], "fortran": False}
    ),
    "a pack larger than its file": lambda h, _: h["packs"][0].update(size_bytes=2**50),
    "a header as large as safetensors reads": lambda h, _: h["packs"][0].update(
        size_bytes=2**50, header_bytes=100_000_000
    ),
    "a header larger than that": lambda h, _: h["packs"][0].update(
        size_bytes=2**50, header_bytes=2**40
    ),
    "a shorter header": lambda h, _: h["packs"][0].update(header_bytes=4000),
    "another header": lambda h, _: h["packs"][0].update(header_blake3="1" * 64),
    "a pack of another save": lambda h, _: h["packs"][0].update(
        save="01890000-0000-7000-8000-000000000000"
    ),
    "a save id that is a path": lambda h, _: h["packs"][0].update(save="../../etc/passwd"),
    "a run that is a path": lambda h, _: h.update(run="../digits"),
    "another run": lambda h, _: h.update(run="other"),
    "another number": lambda h, _: h.update(version=2),
    "version 0": lambda h, _: h.update(version=0),
    "a kind nobody has": lambda h, _: h.update(kind="snapshot"),
    "a part of a kind nobody has": lambda h, _: h["parts"][0].update(kind="code"),
}  # fmt: skip


@pytest.mark.parametrize("change", FORGED.values(), ids=list(FORGED))
def test_a_forged_manifest_is_refused_before_anything_is_allocated(folder, storage, change):
    forge(folder, "digits", change)
    tracemalloc.start()
    before = torch.empty(0).untyped_storage().nbytes()
    try:
        with pytest.raises(IntegrityError):
            load_state(open_manifest(storage, "digits", 1), "model", map_files=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert before == 0
    assert peak < MOST_BYTES


def long_list(depth):
    return b"[" * depth + b"]" * depth


HOSTILE = {
    "10,000 nested lists": b'{"tree":' + long_list(10_000) + b',"tensors":[]}',
    "10,000 nested objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "a key twice": b'{"tree":{"a":1,"a":2},"tensors":[]}',
    "NaN": b'{"tree":NaN,"tensors":[]}',
    "an infinity": b'{"tree":-Infinity,"tensors":[]}',
    "a number that overflows": b'{"tree":1e999,"tensors":[]}',
    "an endless number": b'{"tree":' + b"9" * 10_000 + b',"tensors":[]}',
    "a lone surrogate": b'{"tree":"\\ud800","tensors":[]}',
    "no UTF-8": b'{"tree":"\xff","tensors":[]}',
    "no JSON": b"{",
    "a list": b"[]",
    "nothing": b" ",
    "trees of containers that end": b'{"tree":' + b'{"$tuple":[' * 90 + b"]}" * 90
    + b',"tensors":[],"x":' + long_list(150) + b"}",
}  # fmt: skip


@pytest.mark.parametrize(("name", "line"), HOSTILE.items(), ids=list(HOSTILE))
def test_a_hostile_line_is_refused(folder, storage, name, line):
    forge_line(folder, "digits", "model", line)
    opened = open_manifest(storage, "digits", 1)

    if name.startswith("trees"):  # deep, and within the format
        assert load_state(opened, "model") is not None
        return
    with pytest.raises(IntegrityError, match=r"00000001.jsonl"):
        load_state(opened, "model")


def test_a_hostile_head_is_refused(folder, storage):
    path = manifest_of(folder, "digits")
    first, _, rest = path.read_bytes().partition(b"\n")
    for broken in (
        first.replace(b'"epoch":null', b'"epoch":NaN'),
        first.replace(b'"epoch":null', b'"epoch":1,"epoch":2'),
        first.replace(b'"config":null', b'"config":' + long_list(10_000)),
        first[:-1] + b',"x":"' + b"y" * (64 * 1024 * 1024) + b'"}',
    ):
        path.write_bytes(broken + b'\n"' + digest(broken).encode() + b'"\n' + rest[68:])
        with pytest.raises(IntegrityError, match=r"00000001.jsonl"):
            open_manifest(storage, "digits", 1)


def test_a_line_longer_than_64_mib_is_refused_before_it_is_read(folder, storage):
    path = manifest_of(folder, "digits")
    first, _, *rest = path.read_bytes().split(b"\n")
    head = json.loads(first)
    head["parts"][0]["length"] = 64 * 1024 * 1024 + 1

    line = dump_line(head)
    path.write_bytes(b"\n".join([line, dump_line(digest(line)), *rest]))
    tracemalloc.start()
    with pytest.raises(IntegrityError, match="at most 67108864"):
        open_manifest(storage, "digits", 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < MOST_BYTES


@pytest.mark.parametrize("kind", ["module", "state_dict"])
@pytest.mark.parametrize("tree", [[], 7, None, "text", {"$tuple": []}])
def test_a_module_whose_state_is_no_dict_is_refused(folder, storage, kind, tree):
    def change(head, parts):
        head["parts"][0]["kind"] = kind
        parts["model"] = {"tree": tree, "tensors": []}

    forge(folder, "digits", change)
    with pytest.raises(IntegrityError, match="should be a dict"):
        load_module(open_manifest(storage, "digits", 1), torch.nn.Identity)


@pytest.mark.parametrize("config", [[1], "x", {"$tuple": [1]}, {"$nothing": 1}])
def test_constructor_arguments_that_are_none_are_refused(folder, storage, config):
    forge(folder, "digits", lambda head, _: head["parts"][0].update(model_config=config))
    with pytest.raises(IntegrityError, match="model_config"):
        load_module(open_manifest(storage, "digits", 1), torch.nn.Identity)


def test_a_shorter_pack_claim_cannot_hide_bytes(folder, storage):
    size = packs_of(folder, "digits")[0].stat().st_size
    forge(folder, "digits", lambda head, _: head["packs"][0].update(size_bytes=size - 1))
    with pytest.raises(IntegrityError, match="inside the data of a pack"):
        load_state(open_manifest(storage, "digits", 1), "model")


# ------------------------------------------------------------ names in messages


def test_paths_name_what_people_know():
    tree = {
        "state": {"$dict": [[0, {"exp_avg": {"$tensor": 0}, "l": [{"$array": 1}]}]]},
        "o": {"$OrderedDict": [["a.b", {"$tensor": 2}]]},
        "t": {"$tuple": [1, {"$tensor": 3}]},
        "two": {"$tuple": [{"$tensor": 4}, {"$tensor": 5}]},
    }

    assert [path_of(tree, place, "optimizer") for place in range(7)] == [
        "optimizer/state/0/exp_avg",
        "optimizer/state/0/l/0",
        "optimizer/o/a.b",
        "optimizer/t/1",
        "optimizer/two/0",
        "optimizer/two/1",
        "optimizer, tensor 6",
    ]


def test_the_head_and_parts_agree_with_what_was_written(folder, storage):
    opened = open_manifest(storage, "digits", 1)

    assert opened.head == head_of(folder, "digits")
    assert isinstance(opened.part("model"), Part)
