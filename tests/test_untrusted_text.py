"""What others recorded is shown as text, wherever it is shown: a name moves no cursor."""

from __future__ import annotations

import traceback
import warnings

import pytest
import torch

from ckptstore import CkptStoreError, Store
from ckptstore.cli import app
from ckptstore.errors import FallbackWarning, IntegrityError, StorageError, warn
from tests.loading.forging import forge, forge_line

EVIL = "<script>\x1b[2J\u202e\x9b31m\nerror: all is well"
PLAIN = r"<script>\x1b[2J\u202e\x9b31m\nerror: all is well"


@pytest.fixture
def folder(tmp_path):
    """A store whose every free text was written by somebody evil."""
    with Store(tmp_path) as store:
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters())
        store.save(
            model,
            optimizer,
            extra={EVIL: torch.ones(3)},
            config={EVIL: EVIL},
            model_config={"in_features": 2, "out_features": 1},
        )

    def spoil(head, parts):
        head["metrics"] = {EVIL: 1.0}
        head["environment"] = {"host": EVIL, "argv": [EVIL]}
        for part in head["parts"]:
            part["class"] = f"evil.{EVIL}"
        head["parts"][-1]["name"] = EVIL
        parts[EVIL] = parts.pop("rng")

    forge(tmp_path, "default", spoil)
    (tmp_path / "catalog.sqlite3").unlink()
    return tmp_path


def harmless(text: str, lines: int = 1) -> None:
    assert len(text.split("\n")) <= lines
    assert text.replace("\n", "").isprintable()


def test_a_version_and_its_history_are_shown_as_text(folder):
    store = Store(folder)

    harmless(repr(store.get("@1")))
    assert PLAIN in repr(store.get("@1"))
    harmless(repr(store.history()), lines=2)
    shown = store.history()._repr_html_()
    harmless(shown)
    assert "<script" not in shown


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda store: store.best(metric="loss", mode="min"), id="metrics listed"),
        pytest.param(lambda store: store.best(metric=EVIL), id="a metric without a mode"),
        pytest.param(lambda store: store.get("@1").state("none"), id="parts listed"),
        pytest.param(
            lambda store: store.get("@1").restore(optimizer=torch.optim.Adam([torch.ones(1)])),
            id="a class that differs",
        ),
        pytest.param(lambda store: store.get(f"default@{EVIL}"), id="a ref"),
        pytest.param(lambda store: store.get(EVIL), id="a run"),
        pytest.param(lambda store: store.history(f"*{EVIL}"), id="a pattern"),
    ],
)
def test_errors_show_names_as_text(folder, wrong):
    with pytest.raises(CkptStoreError) as caught:
        wrong(Store(folder))

    harmless(str(caught.value), lines=4)
    assert "\nerror:" not in str(caught.value)
    harmless("".join(traceback.format_exception_only(caught.value)), lines=5)


def test_damage_shows_names_as_text(folder):
    tree = b'{"tree":{"$torch.device":"\\u001b[2J"},"tensors":[]}'
    forge_line(folder, "default", "extra", tree)
    (checkpoint,) = Store(folder).history()

    with pytest.raises(IntegrityError) as caught:
        checkpoint.state("extra")

    for error in (caught.value, caught.value.__cause__):
        assert "\x1b" not in str(error)


def test_a_damaged_tensor_is_named_as_text(folder):
    for pack in (folder / "packs").rglob("*.safetensors"):
        data = bytearray(pack.read_bytes())
        data[-1] ^= 1
        pack.write_bytes(data)

    with pytest.raises(IntegrityError, match="extra/<script>") as caught:
        Store(folder).get("@1").state("extra")
    harmless(str(caught.value))


def test_damage_in_a_manifest_is_told_as_text(folder):
    forge(folder, "default", lambda head, _: head.update(kind=EVIL))
    history = Store(folder).history()

    assert history.damaged
    for _, damage in history.damaged:
        harmless(damage)
    harmless(repr(history), lines=2)


def test_an_error_of_a_storage_shows_its_message_as_text():
    error = StorageError("s3://x/ckptstore.json: \x1b[2J")
    assert str(error) == r"s3://x/ckptstore.json: \x1b[2J"
    assert str(IntegrityError("one\ntwo")) == "one\ntwo"


def test_warnings_show_names_as_text():
    with pytest.warns(FallbackWarning) as caught:
        warn(f"passed over {EVIL!s}", FallbackWarning)
    assert "\x1b" not in str(caught[0].message)


@pytest.mark.parametrize(
    "command",
    [["history"], ["show", "@1"], ["best", "--metric", EVIL], ["best", "--metric", "loss"]],
    ids=lambda command: " ".join(command)[:12],
)
def test_commands_show_names_as_text(folder, command, capsys):
    name, *rest = command
    run([name, str(folder), *rest])
    shown = capsys.readouterr()
    assert shown.out or shown.err
    for line in (shown.out + shown.err).split("\n"):
        assert line.isprintable()
        assert not line.startswith("error:")


def run(arguments: list[str]) -> None:
    with pytest.raises(SystemExit), warnings.catch_warnings():
        app(arguments)
