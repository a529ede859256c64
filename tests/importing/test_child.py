from __future__ import annotations

import json

import torch

from ckptstore import remember_init
from ckptstore.importing import child
from ckptstore.loading.load import load_state
from ckptstore.manifest import open_manifest
from ckptstore.storage.opening import open_storage
from tests.importing.files import Net, same


@remember_init
class Small(torch.nn.Linear):
    def __init__(self, width=3):
        super().__init__(width, 2)


def converted(folder, **change):
    request = {
        "path": str(folder / "x"),
        "kind": "file",
        "where": "x",
        "store": str(folder / "store"),
        "outcome": str(folder / "outcome.json"),
    }
    return child.main(request | change)


def test_a_whole_model_becomes_a_store(tmp_path):
    model = torch.nn.DataParallel(Small(5))
    torch.save(model, tmp_path / "x")
    assert converted(tmp_path) == 0
    opened = open_manifest(open_storage(tmp_path / "store"), child.RUN, 1)
    about = load_state(opened, child.ABOUT)
    assert about["held"][""]["class"].endswith("Small")
    assert about["held"][""]["model_config"] == {"width": 5}
    value = load_state(opened, child.VALUE)
    assert same(dict(value), dict(model.module.state_dict()))


def test_attributes_that_no_state_has_are_named(tmp_path):
    model = Small(5)
    model.scale = 7
    torch.save(model, tmp_path / "x")
    assert converted(tmp_path) == 0
    opened = open_manifest(open_storage(tmp_path / "store"), child.RUN, 1)
    (note,) = load_state(opened, child.ABOUT)["notes"]
    assert "were not kept: " in note
    assert "scale" in note


def test_what_is_wrong_is_written_down(tmp_path):
    value = [Net]
    value.append(value)
    torch.save(value, tmp_path / "x")
    assert converted(tmp_path) == child.REFUSED
    assert "60 levels" in json.loads((tmp_path / "outcome.json").read_text())["error"]
