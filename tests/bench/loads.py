"""Loads of the model out of a full checkpoint, and first loads of a process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from blake3 import blake3
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from ckptstore import Store

from . import savers, state, timing
from .questions import Question, Target, best

Load = Callable[[Path, state.Size], nn.Module]

OURS = "ckptstore"
UNVERIFIED = "ckptstore, verify=False"
RECIPE = "build + torch.load of all + load_state_dict"
CHECKED = "build + safetensors + BLAKE3 of the same bytes"
CHECKED_BEST = "meta model + safetensors + BLAKE3 on all cores + assign=True"


def prepare(folder: Path, size: state.Size) -> None:
    """Write the state as each contender reads it."""
    folder.mkdir()
    model, optimizer = state.make(size)
    torch.save(state.everything(model, optimizer), folder / "all.pt")
    save_file(state.flat(model, optimizer), folder / "all.safetensors")
    with Store(folder / "store") as store:
        store.save(model, optimizer, epoch=1, val_loss=0.5, model_config={})
    dcp_save(
        state.everything(model, optimizer),
        storage_writer=FileSystemWriter(folder / "dcp", thread_count=2),
        no_dist=True,
    )


def ours(folder: Path, size: state.Size, *, verify: bool = True) -> nn.Module:
    """Load the best version's model, by default every byte of it checked."""
    with Store(folder / "store") as store:
        return store.load_best(size.model, device="cpu", verify=verify)


def unverified(folder: Path, size: state.Size) -> nn.Module:
    """Load the best version's model and trust the disk."""
    return ours(folder, size, verify=False)


def recipe(folder: Path, size: state.Size, *, mmap: bool = False) -> nn.Module:
    """Build the model, load everything that was saved, hand the model its part."""
    model = size.model()
    found = torch.load(folder / "all.pt", weights_only=True, mmap=mmap)
    model.load_state_dict(found["model"])
    return model.eval()


def mapped(folder: Path, size: state.Size) -> nn.Module:
    """Do the same with ``mmap=True``."""
    return recipe(folder, size, mmap=True)


def assigned(folder: Path, size: state.Size) -> nn.Module:
    """Build the model on no device and give it the mapped tensors: nothing is read yet."""
    model = size.model("meta")
    found = torch.load(folder / "all.pt", weights_only=True, mmap=True)
    model.load_state_dict(found["model"], assign=True)
    model.head.weight = model.embedding.weight
    return model.eval()


def safetensors(folder: Path, size: state.Size, *, checked: bool = False) -> nn.Module:
    """Build the model and fill it from one file of everything."""
    model = size.model()
    with safe_open(folder / "all.safetensors", "pt") as file:
        names = [name for name in file.keys() if name.startswith("model.")]  # noqa: SIM118 - a safetensors file is no dict
        found = {name.removeprefix("model."): file.get_tensor(name) for name in names}
    if checked:
        for tensor in found.values():
            digest(tensor, blake3.AUTO)
    model.load_state_dict(found | {"head.weight": found["embedding.weight"]})
    return model.eval()


def safetensors_checked(folder: Path, size: state.Size) -> nn.Module:
    """Do the same, and make every tensor's digest, on all cores."""
    return safetensors(folder, size, checked=True)


def safetensors_best(folder: Path, size: state.Size) -> nn.Module:
    """Build on no device, digest on all cores, the largest first, and give the model the tensors.

    Each is hashed by one thread, but for the largest, which all of them hash: so no core waits.
    """
    model = size.model("meta")
    with safe_open(folder / "all.safetensors", "pt") as file:
        names = [name for name in file.keys() if name.startswith("model.")]  # noqa: SIM118 - a safetensors file is no dict
        found = {name.removeprefix("model."): file.get_tensor(name) for name in names}
    largest, *others = sorted(found.values(), key=lambda tensor: -tensor.numel())
    digest(largest, blake3.AUTO)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(digest, others))
    model.load_state_dict(found | {"head.weight": found["embedding.weight"]}, assign=True)
    model.head.weight = model.embedding.weight
    return model.eval()


def digest(tensor: torch.Tensor, threads: int = 1) -> bytes:
    """Return a tensor's BLAKE3 digest."""
    data = tensor.view(-1).view(torch.uint8).numpy().data
    return blake3(data, max_threads=threads).digest()


def dcp(folder: Path, size: state.Size) -> nn.Module:
    """Build the model and let DCP read into it."""
    model = size.model()
    wanted = {"model": model.state_dict()}
    dcp_load(wanted, storage_reader=FileSystemReader(folder / "dcp"), no_dist=True)
    model.load_state_dict(wanted["model"])
    return model.eval()


def tensorizer(folder: Path, size: state.Size) -> nn.Module:
    """Build the model without its weights and let tensorizer fill it."""
    from tensorizer import TensorDeserializer, TensorSerializer
    from tensorizer.utils import no_init_or_tensor

    if not (folder / "model.tensors").exists():  # at its first load, which isn't timed
        serializer = TensorSerializer(str(folder / "model.tensors"))
        serializer.write_module(state.make(size)[0])
        serializer.close()
    with no_init_or_tensor():
        model = size.model()
    with TensorDeserializer(str(folder / "model.tensors"), device="cpu") as file:
        file.load_into_module(model)
    return model.eval()


LOADS: dict[str, Load] = {
    OURS: ours,
    UNVERIFIED: unverified,
    RECIPE: recipe,
    "the same with mmap=True": mapped,
    "torch.load(mmap=True), meta model, assign=True": assigned,
    "build + safetensors + load_state_dict": safetensors,
    CHECKED: safetensors_checked,
    CHECKED_BEST: safetensors_best,
    "build + DCP load": dcp,
    "tensorizer": tensorizer,
}
NOTES = {
    RECIPE: "`weights_only=True`; it reads the moments too",
    "torch.load(mmap=True), meta model, assign=True": (
        "maps the file and reads nothing: the first forward does. Ties are made by hand"
    ),
    CHECKED: "the digests on all cores, one tensor after the other",
    CHECKED_BEST: "the largest first, on all cores; then the others, a thread each. Ties by hand",
    "build + DCP load": "`FileSystemReader`; into the parameters",
    "tensorizer": "of a file of the model alone, built without its weights; hashes not checked",
}


def warm(folder: Path, size: state.Size, rounds: int, touched_bytes: int) -> Question:
    """Time loads in a process that has loaded before; *folder* is prepared."""
    kept = dict(LOADS)
    absent = {}
    for name, load in LOADS.items():
        try:
            load(folder, size)
        except Exception as error:
            if name.startswith("ckptstore"):
                raise
            absent[name] = savers.reason(error)
            del kept[name]
    measured = timing.interleave(
        {name: timing.whole(partial(load, folder, size)) for name, load in kept.items()},
        rounds,
        touched_bytes=touched_bytes,
    )
    return Question(
        key=f"load-{size.slug}",
        title=f"Load of the model out of a checkpoint of {size.name}",
        asks=(
            "Until the model is ready in eval mode. ckptstore has checked every byte of it, but "
            "for `verify=False`; of the others those with BLAKE3 alone, and the target is of the "
            "better. Files are in the page cache."
        ),
        measured=measured,
        ours=(OURS, UNVERIFIED),
        targets=(
            Target(OURS, 0.12, of=RECIPE),
            Target(UNVERIFIED, 0.05, of=RECIPE),
            Target(OURS, 1.2, of=best(measured, {CHECKED, CHECKED_BEST} & set(measured))),
        ),
        notes={name: note for name, note in NOTES.items() if name in measured},
        absent=absent,
    )


def fresh(folder: Path, size: state.Size, rounds: int) -> Question:
    """Time the first load of a new process, its imports of torch and of us left out."""
    names = (OURS, UNVERIFIED, RECIPE, CHECKED, CHECKED_BEST)
    measured: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            done = subprocess.run(
                [sys.executable, "-m", "tests.bench.loads", name, size.name, str(folder)],
                capture_output=True,
                text=True,
                check=True,
            )
            measured[name].append(float(json.loads(done.stdout)))
    return Question(
        key=f"first-load-{size.slug}",
        title=f"First load of a process, out of {size.name}",
        asks="The same in a process that has imported torch and ckptstore, and has loaded nothing.",
        measured=measured,
        ours=(OURS, UNVERIFIED),
        targets=(Target(OURS, 0.2, of=RECIPE),),
    )


def main() -> None:
    """Time one first load and print its seconds."""
    name, size, folder = sys.argv[1], state.SIZES[sys.argv[2]], Path(sys.argv[3])
    start = time.perf_counter()
    LOADS[name](folder, size)
    print(json.dumps(time.perf_counter() - start))


def remove(folder: Path) -> None:
    """Delete what :func:`prepare` wrote."""
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
