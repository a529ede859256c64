"""The reading of packs: which bytes, how often, in what pieces, and who is blamed."""

from __future__ import annotations

import tracemalloc
from uuid import UUID

import pytest
from blake3 import blake3

from ckptstore.errors import StorageError
from ckptstore.format.digest import digest
from ckptstore.format.layout import file_key, pack_key, version_key
from ckptstore.format.manifest import File, Pack, PartInfo, decode_head, encode_manifest, head_line
from ckptstore.format.part import Chunk, Part, Tensor, encode_part
from ckptstore.manifest import OpenManifest
from ckptstore.storage.local import LocalStorage
from ckptstore.upkeep.contents import PIECE_BYTES, Contents
from ckptstore.upkeep.survey import Surveyed
from tests.catalog.places import make_head
from tests.faults import Failing

HEADER = b"h" * 64
MIB = 2**20


def tensor(data: bytes, *stretches: tuple[int, int], start: int = len(HEADER)) -> Tensor:
    """A tensor of bytes that lies in the pack in these stretches, offsets from the data's start."""
    size = sum(length for _, length in stretches)
    chunks, done = [], 0
    for offset, length in stretches:
        piece = data[offset : offset + length]
        shape = (length,)
        chunks.append(Chunk((done,), shape, 0, start + offset, length, digest(piece)))
        done += length
    return Tensor("uint8", 1, (size,), None, requires_grad=False, chunks=tuple(chunks))


class Place:
    """A storage with one pack, and versions of the test's own making that name it."""

    def __init__(self, folder, data: bytes) -> None:
        self.storage = LocalStorage(folder)
        self.data = data
        self.pack = Pack(UUID(int=7), 0, len(HEADER) + len(data), len(HEADER), digest(HEADER))
        self.path = folder / pack_key(self.pack.save_id, 0)
        self.path.parent.mkdir(parents=True)
        self.path.write_bytes(HEADER + data)
        self.manifests: list[tuple[Surveyed, OpenManifest]] = []

    def version(self, *tensors: Tensor, tree: object = None, files: tuple[File, ...] = ()) -> None:
        """Commit a version with one part of these tensors."""
        number = len(self.manifests) + 1
        named = {f"t{place}": {"$tensor": place} for place in range(len(tensors))}
        line = encode_part(Part(named if tree is None else tree, tensors))
        info = PartInfo("model", "state_dict", 1, len(line), digest(line))
        changes = {"packs": (self.pack,), "files": files, "parts": (info,)}
        manifest = encode_manifest(make_head("digits", number, **changes), [line])
        key = version_key("digits", number)
        self.storage.create(key, manifest)
        first = head_line(manifest, "a test")
        head = decode_head(first, "a test")
        opened = OpenManifest(self.storage, key, head, len(first), manifest)
        surveyed = Surveyed(head.ref, "digits", number, head.save_id, head.packs, head.files)
        self.manifests.append((surveyed, opened))

    def check(self, storage=None, *, deep=True, progress=None) -> Contents:
        contents = Contents(storage or self.storage, None, deep=deep, progress=progress)
        contents.check([surveyed for surveyed, _ in self.manifests], iter(self.manifests))
        return contents

    def messages(self, **options) -> dict[int, list[str]]:
        found = self.check(**options).damages.found
        return {number: [each.message for each in all_] for (_, number), all_ in found.items()}


DATA = bytes(range(256)) * 40


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path, DATA)


def test_stretches_of_every_kind_are_whole(place):
    whole = tensor(DATA, (0, len(DATA)))
    cut = tensor(DATA, (5, 100), (4000, 1), (105, 50))
    overlapping = [tensor(DATA, (at, 300)) for at in range(0, 1000, 70)]
    empty = [tensor(DATA, (0, 0)), tensor(DATA, (len(DATA), 0))]
    place.version(whole, cut, *overlapping, *empty)

    contents = place.check()

    assert contents.damages.found == {}
    assert contents.counts.packs == 1
    assert contents.counts.bytes_read == len(HEADER) + len(DATA)


@pytest.mark.parametrize("at", [0, 1, 99, 100, 101, 5000, len(DATA) - 1])
def test_whoever_uses_a_damaged_byte_is_blamed_and_nobody_else(place, at):
    spans = [(0, 100), (100, 1), (50, 5000), (5000, len(DATA) - 5000), (101, 1)]
    place.version(*(tensor(DATA, span) for span in spans))
    for span in spans:
        place.version(tensor(DATA, span))
    data = bytearray(place.path.read_bytes())
    data[len(HEADER) + at] ^= 1
    place.path.write_bytes(data)

    messages = place.messages()

    guilty = [n for n, (start, length) in enumerate(spans) if start <= at < start + length]
    assert set(messages) == {1, *(n + 2 for n in guilty)}
    named = [f"bytes {len(HEADER) + spans[n][0]} to {len(HEADER) + sum(spans[n])}" for n in guilty]
    (message,) = messages[1]
    assert any(each in message for each in named)
    assert message.endswith(f"{len(guilty) - 1} more of it there") == (len(guilty) > 1)


def test_the_tensor_is_named_by_its_place_in_the_state(place):
    place.version(
        tensor(DATA, (0, 10)),
        tensor(DATA, (10, 10)),
        tree={"layers": [{"$tensor": 0}, {"bias": {"$tensor": 1}}]},
    )
    data = bytearray(place.path.read_bytes())
    data[len(HEADER) + 12] ^= 1
    place.path.write_bytes(data)

    assert "tensor 'model/layers/1/bias' is damaged" in place.messages()[1][0]


def test_a_pack_that_many_name_is_read_once(place):
    for offset in range(0, 9000, 1000):
        place.version(tensor(DATA, (offset, 1000)), tensor(DATA, (0, 10)))
    counted = Failing(place.storage)

    contents = place.check(counted)

    assert contents.counts.bytes_read == len(HEADER) + 9000
    assert [operation for operation, _ in counted.done].count("read_into") == 2
    assert contents.counts.packs == 1


def test_what_nobody_names_is_not_read(tmp_path):
    data = bytes(3 * PIECE_BYTES)
    place = Place(tmp_path, data)
    place.version(tensor(data, (0, 10)), tensor(data, (2 * PIECE_BYTES + 5, 20)))

    assert place.check().counts.bytes_read == len(HEADER) + 30


def test_a_large_pack_takes_no_more_memory_than_a_few_pieces(tmp_path):
    data = bytes(64 * MIB + 123)
    place = Place(tmp_path, data)
    place.version(tensor(data, (0, len(data))), tensor(data, (77, 20 * MIB)))
    place.check(deep=False)  # imports torch
    tracemalloc.start()
    try:
        contents = place.check()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert contents.damages.found == {}
    assert contents.counts.bytes_read == len(HEADER) + len(data)
    assert peak < 12 * MIB


def test_progress_ends_where_it_said_it_would(place):
    place.version(tensor(DATA, (0, len(DATA))))
    told = []

    place.check(progress=lambda *facts: told.append(facts))

    assert told[-1] == (len(HEADER) + len(DATA), len(HEADER) + len(DATA), told[-1][2])


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"a": {"$tensor": 1}}, "tree is not what ckptstore writes"),
        ({"a": {"$unknown": 1}}, "unknown node"),
        ({"a": {"$array": 0, "dtype": "<f4", "shape": [3], "fortran": False}}, "an array of dtype"),
    ],
)
def test_a_tree_that_can_not_be_decoded_is_damage_of_the_manifest(place, tree, said):
    place.version(tensor(DATA, (0, 10)), tree=tree)

    (message,) = place.messages(deep=False)[1]

    assert said in message


def test_arrays_are_decoded_without_their_bytes(place):
    node = {"$array": 0, "dtype": "<f4", "shape": [2, 5], "fortran": True}
    place.version(tensor(DATA, (0, 40)), tree={"a": node})
    place.path.unlink()

    assert place.messages(deep=False)[1] == [f"pack {pack_key(UUID(int=7), 0)} is gone"]


NODE = {
    "$sparse": "coo",
    "shape": [9],
    "coalesced": True,
    "tensors": {"indices": {"$tensor": 0}, "values": {"$tensor": 1}},
}


def test_tensors_made_of_others_are_checked_without_their_bytes(place):
    place.version(tensor(DATA, (0, 10)), tensor(DATA, (10, 30)), tree={"a": NODE})
    assert place.messages(deep=False) == {}


def test_tensors_made_of_what_they_can_not_be_are_damage_of_the_manifest(place):
    place.version(tensor(DATA, (0, 10)), tree={"a": NODE | {"$sparse": "csr"}})
    assert "tree is not what ckptstore writes" in place.messages(deep=False)[1][0]


def test_a_dtype_that_torch_has_not_is_damage(place):
    one = tensor(DATA, (0, 10))
    named = ("float3", one.itemsize, one.shape, one.order, one.requires_grad, one.chunks)
    place.version(Tensor(*named))

    assert "has no dtype 'float3'" in place.messages()[1][0]


def test_files_are_checked_whole(place):
    file = File(UUID(int=8), 2, 5, digest(b"model"))
    path = place.path.parents[2] / file_key(file.save_id, 2)
    path.parent.mkdir(parents=True)
    place.version(tensor(DATA, (0, 10)), files=(file,))

    assert "is gone" in place.messages()[1][0]
    path.write_bytes(b"mode")
    assert "should have 5 bytes, and has 4" in place.messages()[1][0]
    path.write_bytes(b"Model")
    assert "does not hold the bytes that were saved" in place.messages()[1][0]
    assert place.messages(deep=False) == {}
    path.write_bytes(b"model")
    assert place.messages() == {}
    assert place.check().counts.packs == 2


class Sector(Failing):
    """A storage that can't read some of a file."""

    def __init__(self, storage, bad, errno=5):
        super().__init__(storage)
        self.bad, self.errno = bad, errno

    def read_into(self, key, start, out):
        if start <= self.bad < start + out.nbytes:
            error = StorageError("the device failed")
            error.errno = self.errno
            raise error
        super().read_into(key, start, out)


def test_what_lies_behind_a_bad_sector_is_checked_still(tmp_path):
    data = bytes(3 * PIECE_BYTES)
    place = Place(tmp_path, data)
    place.version(tensor(data, (0, 10)))
    place.version(tensor(data, (2 * PIECE_BYTES, 10)))
    broken = bytearray(HEADER + data)
    broken[len(HEADER) + 2 * PIECE_BYTES] ^= 1
    place.path.write_bytes(broken)

    messages = place.messages(storage=Sector(place.storage, len(HEADER) + 3))

    assert "can't be read: the device failed" in messages[1][0]
    assert "does not hold the bytes that were saved" in messages[2][0]


@pytest.mark.parametrize("bad", [3, len(HEADER) + 3])
def test_no_connection_is_no_damage(place, bad):
    place.version(tensor(DATA, (0, 10)))

    with pytest.raises(StorageError):
        place.check(Sector(place.storage, bad, errno=110))
    assert "can't be read" in place.messages(storage=Sector(place.storage, bad))[1][0]


def test_a_pack_cut_short_while_it_is_read_is_damage(place):
    place.version(tensor(DATA, (0, len(DATA))))

    class Shrinking(Failing):
        def size_bytes(self, key):
            size = super().size_bytes(key)
            place.path.write_bytes(place.path.read_bytes()[:100])
            return size

    assert "is cut short" in place.messages(storage=Shrinking(place.storage))[1][0]


def test_versions_that_disagree_about_a_pack_are_both_heard(place):
    place.version(tensor(DATA, (0, 10)))
    place.pack = Pack(UUID(int=7), 0, place.pack.size_bytes, len(HEADER), blake3(b"x").hexdigest())
    place.version(tensor(DATA, (0, 10)))

    assert place.messages().keys() == {2}
