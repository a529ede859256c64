"""The public API as users write it, for mypy --strict to follow. It runs, too: test_typed_use.py.

An annotation here is a claim about what a call gives back: mypy fails where it is wrong, also where
it is wider than the truth.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, assert_type

import torch
from safetensors.torch import save_file
from torch import nn

import ckptstore
from ckptstore import (
    Cache,
    Checkpoint,
    CkptStoreError,
    Guard,
    History,
    Keep,
    Package,
    PendingSave,
    Resumed,
    Run,
    Store,
    errors,
    leave_to_guard,
)
from ckptstore.entry import Entry
from ckptstore.format.imported import ImportedFrom
from ckptstore.format.timings import Timings
from ckptstore.importing.imported import Imported
from ckptstore.key_report import KeyReport
from ckptstore.reading import LazyTensor


@ckptstore.remember_init
class Net(nn.Module):
    """A small classifier.

    Args:
        width: The size of its hidden layer.
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Return one logit a class.

        Args:
            samples: float32 of shape (N, 4).

        Returns:
            float32 of shape (N, 3).
        """
        logits: torch.Tensor = self.layers(samples)
        return logits


def smaller_net() -> Net:
    """A callable that builds the module serves as its class."""
    return Net(width=4)


def train(folder: Path) -> None:
    """Save from a training loop and resume it."""
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1)
    with Store(folder) as store:
        resumed = store.resume(model, optimizer, scheduler=scheduler)
        assert_type(resumed, Resumed)
        assert not resumed
        for epoch in range(resumed.next_epoch, 2):
            saved = store.save(
                model,
                optimizer,
                epoch=epoch,
                step=epoch * 100,
                scheduler=scheduler,
                val_loss=1 / (epoch + 1),
                accuracy=torch.tensor(0.5),
                metrics={"top-5": 0.9},
                config={"lr": 0.1, "layers": [8]},
                model_config={"width": 8},
                extra={"seen": torch.ones(3), "shape": (1, 2)},
                tags=["newest"],
                rng=True,
            )
            assert_type(saved, Checkpoint)
            store.save(None, val_loss=None, extra={}, run="notes", parent=saved)

        again = store.resume(
            model, optimizer, scheduler=scheduler, run="default", rng=False, strict=True
        )
        checkpoint: Checkpoint | None = again.checkpoint
        assert checkpoint == store.latest(run="default")
        step: int | None = again.step
        assert step == 100
        assert again.next_epoch == 2
        assert again.extra["shape"] == (1, 2)
        assert again.audit is not None
        restored: tuple[str, ...] = again.audit.restored
        assert "optimizer" in restored


def train_a_sweep(folder: Path) -> None:
    """Save into several runs and compare them."""
    store = Store(
        str(folder),
        catalog=f"sqlite:///{folder}/mine.sqlite3",
        storage_options=None,
        run="baseline",
        monitor="val_loss",
        mode="min",
        single_writer=False,
    )
    for width in (4, 8):
        run = store.run(
            f"sweep/width={width}",
            model_config={"width": width},
            config={"width": width},
            monitor="accuracy",
            mode="max",
        )
        assert_type(run, Run)
        name: str = run.name
        assert name == f"sweep/width={width}"
        model = Net(width)
        assert_type(run.save(model, epoch=0, accuracy=width / 10), Checkpoint)
        assert_type(run.resume(model), Resumed)
        assert_type(run.best(), Checkpoint)
        assert_type(run.latest(), Checkpoint)
        assert_type(run.get("@best"), Checkpoint | Package)
        assert_type(run.get(1), Checkpoint | Package)
        assert_type(run.history(limit=3), History)
        package = run.save_package("@best", class_names=["a", "b", "c"], sample=[0.0] * 4)
        assert_type(package, Package)
        assert_type(run.load_package(Net), Package)
        assert_type(run.load_best(Net, metric="accuracy", mode="max", device="cpu"), Net)
        assert_type(run.load_latest(Net, device="cpu", mmap=False), Net)
        assert_type(run.load(Net, 1, device=torch.device("cpu")), Net)
        run.tag(1, "first")
        run.untag("first")
    best = store.best(run="sweep/*", metric="accuracy", mode="max")
    assert best.run == "sweep/width=8"
    assert_type(store.runs(), list[str])
    assert_type(store.url, str)
    store.close()


def look_up(store: Store) -> None:
    """Read what is known of versions, without their weights."""
    assert_type(store.best(run="default"), Checkpoint)
    assert_type(store.latest(run="default"), Checkpoint)
    entry = store.get("default@1")
    assert_type(entry, Checkpoint | Package)
    if isinstance(entry, Checkpoint):
        assert_type(entry, Checkpoint)

    history = store.history("default", limit=100)
    assert_type(history, History)
    assert_type(history[0], Entry)
    assert_type(history[-2:], History)
    as_sequence: Sequence[Entry] = history
    assert [one.epoch for one in as_sequence] == [0, 1]
    assert_type(history.damaged, tuple[tuple[str, str], ...])
    assert_type(history.table(), tuple[list[str], list[list[str]]])
    assert len(history.to_pandas()) == 2

    assert_type(entry.ref, str)
    assert_type(entry.run, str)
    assert_type(entry.version, int)
    assert_type(entry.save_id, str)
    assert_type(entry.epoch, int | None)
    assert_type(entry.step, int | None)
    assert_type(entry.metrics, dict[str, float | int])
    assert_type(entry.config, dict[str, Any] | None)
    assert_type(entry.model_config, dict[str, Any] | None)
    assert_type(entry.parts, tuple[str, ...])
    assert_type(entry.environment, dict[str, Any])
    assert_type(entry.torch_version, str | None)
    assert_type(entry.created_at, datetime)
    assert_type(entry.tags, tuple[str, ...])
    assert_type(entry.parent, str | None)
    assert_type(entry.size_bytes, int)
    assert_type(entry.new_bytes, int)
    assert_type(entry.metadata, dict[str, Any])
    for file in entry.files:
        role: str | None = file.role
        assert_type(file.part, str | None)
        assert len(entry.read_file(file)) == file.size_bytes, role

    try:
        store.get("nobody@1")
    except errors.RunNotFoundError as error:
        lookup_error: LookupError = error
        ours: CkptStoreError = error
        assert str(lookup_error) == str(ours)


def load(store: Store, folder: Path) -> None:
    """Build modules, restore into live ones, read single parts."""
    net = store.load_best(Net, run="default", device="cpu", build="plain")
    assert_type(net, Net)
    assert net.width == 8
    assert_type(store.load_latest(Net, run="default", part="model", device="cpu"), Net)
    assert_type(store.load(Net, "default@1", model_config={"width": 8}, device="cpu"), Net)
    small = store.load(smaller_net, "sweep/width=4@1", model_config={}, device="cpu")
    assert_type(small, Net)

    checkpoint = store.best(run="default")
    assert_type(checkpoint.load(Net, device="cpu"), Net)
    audit = checkpoint.restore(net, torch.optim.SGD(net.parameters(), lr=0.1), rng=False)
    restored: tuple[str, ...] = audit.restored
    assert restored == ("model", "optimizer")
    not_saved: tuple[str, ...] = audit.not_saved
    assert not not_saved
    assert checkpoint.extra["shape"] == (1, 2)
    assert "state" in checkpoint.state("optimizer", device="cpu")
    checkpoint.write_metadata(str(folder / "metadata.json"))


def serve(store: Store) -> None:
    """Package a version and predict with it."""
    store.tag("default@1", "prod")
    store.untag("prod", run="default")
    package = store.save_package(
        store.best(run="default"),
        run="serving",
        preprocessing={"mean": [0.0] * 4, "std": [1.0] * 4},
        class_names=["cat", "dog", "owl"],
        sample=[0.0] * 4,
        part="model",
        tags=["prod"],
    )
    assert_type(package, Package)
    loaded = store.load_package(Net, "serving@prod", device="cpu")
    assert_type(loaded, Package)
    assert_type(loaded.model, nn.Module)
    assert_type(loaded.class_names, list[Any] | None)
    assert_type(loaded.preprocessing, dict[str, Any] | None)
    name: str = loaded.predict([0.0, 0.0, 0.0, 0.0])
    assert name in {"cat", "dog", "owl"}
    assert loaded.predict_proba([[0.0, 0.0, 0.0, 0.0]]).shape == (1, 3)


def record_later(store: Store) -> None:
    """Record what became known after a version was saved."""
    checkpoint = store.latest(run="default")
    later = checkpoint.log(test_accuracy=0.75)
    assert_type(later, Checkpoint)
    assert later.metrics["test_accuracy"] == 0.75
    store.log("default@1", test_accuracy=0.5)
    store.note("default@1", "a first try")
    entry = store.get("default@1")
    assert_type(entry.note, str | None)
    assert_type(entry.damage, str | None)
    assert entry.retired is None
    run = store.run("default")
    run.log(epoch=2, train_loss=0.25)
    run.note(1, None)
    run.tag(1, "prod")
    moves = run.tag_history("prod")
    assert [(move.version, move.previous) for move in moves][-1][0] == 1
    assert len(store.tag_history("prod", run="default")) == len(moves)
    assert_type(store.tags(run="default"), dict[str, str])
    assert_type(run.tags(), dict[str, str])
    history = run.history()
    assert history.logged[0].metrics == {"train_loss": 0.25}
    assert_type(history.notes(), list[str])
    assert_type(store.best(run="default", metric="test_accuracy", mode="max"), Checkpoint)
    assert_type(store.load_best(Net, run="default", fallback=True, device="cpu"), Net)
    assert_type(store.load_best(Net, run="default", verify=False, device="cpu"), Net)


def keep_in_order(store: Store, folder: Path) -> None:
    """Retire, undelete, collect, check and copy."""
    hour = timedelta(hours=1)
    keep = Keep(last=2, best=1, best_by={"accuracy": "max"}, every_epochs=5, within=hour)
    run = store.run("default", keep=keep)
    pruned = run.prune(keep, dry_run=True)
    retired: list[int] = pruned.retired
    assert retired == []
    assert [each.run for each in store.prune(keep, run="sweep/*")] == [
        "sweep/width=4",
        "sweep/width=8",
    ]
    assert_type(run.undelete(1), Checkpoint | Package)
    assert_type(store.undelete("default@1"), Checkpoint | Package)
    collected = store.collect(dry_run=True)
    assert_type(collected.deleted_bytes, int)
    report = store.verify("default", deep=True, repair=False)
    assert_type(report.ok, bool)
    assert report.ok
    assert_type(store.reindex(), list[str])
    copied = store.copy_to(folder / "copy", run="default")
    assert copied.to_json()


def be_interrupted(folder: Path) -> None:
    """Train under a guard, in a store that raises where there is no room."""
    store = Store(folder, on_full="raise")
    run = store.run("guarded", on_full="retire", keep=Keep(last=1))
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with run.guard(deadline=timedelta(minutes=2), exit_code=75, signals=[signal.SIGTERM]) as guard:
        assert_type(guard, Guard)
        for step in range(2):
            guard.step(model, optimizer, step=step, val_loss=0.5)
        assert_type(guard.stopping, bool)
        assert guard.run_name == "guarded"
    leave_to_guard  # noqa: B018 - it is for a loader's workers, and would block this one's signals
    whole: tuple[str, ...] = run.save(model, optimizer).parts_left_out
    assert whole == ()
    needed: int | None = errors.StorageError("full").needed_bytes
    assert needed is None


def choose(folder: Path) -> None:
    """Load and save part of a model, under other names and in other dtypes."""
    store = Store(folder / "chosen")
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    saved = store.save(model, optimizer, dtype={"optimizer": torch.bfloat16}, val_loss=0.1)
    rename = {"layers.": "layers."}
    assert_type(
        saved.load(Net, device="cpu", only="layers.0", dtype=torch.float16, rename=rename), Net
    )
    assert_type(store.load_best(Net, skip=["layers.2.*"], strict=False, device="cpu"), Net)
    audit = saved.restore(
        model, optimizer, only={"model": ["layers.*"]}, rename=rename, strict=False, dtype="own"
    )
    converted: Mapping[str, tuple[str, ...]] = audit.converted
    assert converted == {"optimizer": ("bfloat16",)}
    report: KeyReport | None = audit.keys.get("model")
    assert report is None
    assert_type(store.resume(model, optimizer, only="layers", skip=None), Resumed)

    tensors = saved.tensors("model", verify=False)
    assert_type(tensors, Mapping[str, LazyTensor])
    weight = tensors["layers.0.weight"]
    assert_type(weight.shape, torch.Size)
    assert_type(weight.dtype, torch.dtype)
    assert_type(weight.was, torch.dtype | None)
    assert_type(weight.read(), torch.Tensor)
    assert_type(weight[:2], torch.Tensor)
    model.layers[0].requires_grad_(requires_grad=False)
    run = store.run("less")
    less = run.save(model, only="trainable", dtype={"model": torch.bfloat16})
    assert_type(less.left_out(), tuple[str, ...])
    assert_type(run.resume(model, strict=False, only="layers.2.*", dtype="own"), Resumed)
    assert_type(errors.KeysWarning("some keys", KeyReport()).report, KeyReport)


def load_without_the_class(folder: Path) -> None:
    """Store programs and run them."""
    store, samples = Store(folder / "programs"), torch.ones(2, 4)
    given: dict[str, Any] = {"args": (samples,), "kwargs": {}, "dynamic_shapes": None}
    checkpoint = store.save(Net(), program=samples)
    package = store.save_package(checkpoint)
    for entry in (
        checkpoint,
        package,
        store.save_package(Net(), program=(samples,)),
        store.run("other").save(Net(), program=given),
        store.run("other").save_package(Net(), program=given),
    ):
        program = entry.load_program(device="cpu", part="model", operators=["torchvision"])
        assert_type(program, nn.Module)
        assert program(torch.ones(5, 4)).shape == (5, 3)
    assert issubclass(errors.ProgramError, RuntimeError)


def bring_in(folder: Path) -> None:
    """Import what another tool wrote."""
    old = folder / "old"
    old.mkdir()
    model = Net()
    save_file(model.state_dict(), old / "model_epoch3_valloss0.5.safetensors")
    store = Store(folder / "imported")
    checkpoint = store.import_file(
        old / "model_epoch3_valloss0.5.safetensors",
        run="one",
        epoch=3,
        step=None,
        metrics={"accuracy": 0.5},
        tags=["old"],
        storage_options=None,
        model_config={"width": 8},
        config={"lr": 0.1},
        keys=None,
        rename={"layers.": "layers."},
        ties={},
        unwrap=True,
        trust_pickle=False,
        again=False,
    )
    assert_type(checkpoint, Checkpoint)
    assert_type(checkpoint.load(Net, device="cpu"), Net)
    imported_from: ImportedFrom | None = checkpoint.imported_from
    assert imported_from is not None
    assert imported_from.format == "safetensors"
    imported = store.import_folder(old, pattern="*.safetensors", run="all", progress=None)
    assert_type(imported, Imported)
    assert_type(imported.new, tuple[str, ...])
    assert imported.summary().startswith(f"{old}: 1 imported, 0 there already, ")
    assert (imported.tensors > 0, imported.left) == (True, ())
    assert len(imported.to_json()["versions"]) == 1
    run = store.run("three", model_config={"width": 8})
    assert_type(run.import_folder(old, unwrap=False), Imported)
    assert_type(run.import_file(str(next(old.iterdir())), again=True), Checkpoint)
    refused = errors.UntrustedPickleError("x.pth", ["os.system"])
    assert_type(refused.names, tuple[str, ...])
    assert isinstance(refused, errors.ImportRefusedError)


def save_in_the_background(folder: Path) -> None:
    """Save while the training goes on."""
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Store(
        folder / "background", max_pending=2, when_busy="skip", staging_bytes=2**30
    ) as store:
        pending = store.save_async(model, optimizer, epoch=0, val_loss=0.5, run="r", tags=["t"])
        assert_type(pending, PendingSave)
        is_skipped: bool = pending.skipped
        assert not is_skipped
        assert_type(pending.wait(), bool)
        assert_type(pending.result(timeout_s=60.0), Checkpoint)
        assert_type(pending.done(), bool)
        run = store.run("r", model_config={"width": 8})
        late = run.save_async(model, optimizer, epoch=1, overlap=True)
        late.wait_copied()
        is_over: bool = store.wait(60.0) and run.wait()
        assert is_over
        timings: Timings | None = late.result().timings
        assert timings is not None
        assert_type(timings.blocked_s, float)
        assert_type(timings.written_bytes, int)
    assert issubclass(errors.StillPendingError, TimeoutError)
    assert issubclass(errors.SaveSkippedError, errors.CkptStoreError)


def load_through_a_cache(folder: Path) -> None:
    """Keep what is loaded from elsewhere on a disk of this machine."""
    cache = Cache(folder / "cache", max_bytes=10**9)
    assert_type(cache.max_bytes, int)
    url = f"memory://typed-use-{folder.name}"
    with Store(url, catalog="sqlite://", cache=cache) as store:
        store.save(Net(), val_loss=0.5)
        assert_type(store.load_best(Net, device="cpu"), Net)
    Store(url, cache=str(folder / "cache")).close()
    (found,) = cache.stores()
    assert_type(found.size_bytes, int)
    assert_type(found.used_at, datetime)
    cleared: int = cache.clear()
    assert cleared == found.size_bytes
    assert issubclass(errors.CacheWarning, errors.CkptStoreWarning)


def use(folder: Path) -> None:
    """Do all of it in *folder*."""
    train(folder)
    train_a_sweep(folder)
    store = Store(folder)
    look_up(store)
    load(store, folder)
    serve(store)
    record_later(store)
    keep_in_order(store, folder)
    load_without_the_class(folder)
    bring_in(folder)
    choose(folder)
    be_interrupted(folder)
    save_in_the_background(folder)
    load_through_a_cache(folder)
    version: str = ckptstore.__version__
    assert version
