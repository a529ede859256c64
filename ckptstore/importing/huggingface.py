"""Hugging Face folders: weights in one file or several with an index, and what lies beside them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ckptstore.errors import ImportRefusedError, UntrustedPickleError
from ckptstore.importing.as_numbers import real, whole
from ckptstore.importing.contents import Contents, ForeignPart, is_config
from ckptstore.importing.plain import Plain, to_plain
from ckptstore.importing.safetensors_file import read_safetensors
from ckptstore.importing.state_dicts import is_module_state, is_optimizer_state

STEMS = ("model", "pytorch_model", "diffusion_pytorch_model", "adapter_model")
SUFFIXES = (".safetensors", ".bin")
INDEX = ".index.json"
WEIGHTS = tuple(f"{stem}{suffix}" for suffix in SUFFIXES for stem in STEMS)
MARKS = frozenset({*WEIGHTS, *(f"{name}{INDEX}" for name in WEIGHTS)})
"""One of these is in every such folder."""
CONFIGS = ("config.json", "adapter_config.json")
TRAINER_STATE = "trainer_state.json"
STATES = {"optimizer.pt": "optimizer", "scheduler.pt": "scheduler", "scaler.pt": "scaler"}
PICKLED = ("training_args.bin", "rng_state.pth")
MAX_JSON_BYTES = 64 * 1024 * 1024

Load = Callable[[Path, str], Plain]
"""Reads what torch.save wrote, given its path and its name in errors."""


def is_huggingfaces(folder: Path) -> bool:
    """Say whether a folder holds weights as Hugging Face's libraries save them."""
    return any((folder / name).is_file() for name in MARKS)


def read_huggingface(folder: Path, where: str, load: Load) -> Contents:
    """Say what a Hugging Face folder holds.

    The weights are the part ``model``, ``config.json`` is the config, a Trainer's optimizer,
    scheduler and state are taken if they are there. What is in no file, such as the second name of
    tied weights, is not made up.

    Args:
        folder: The folder.
        where: Names it in errors.
        load: Reads pickles.

    Raises:
        ImportRefusedError: A file is missing, damaged, or names one outside the folder.
    """
    found = Contents("huggingface")
    state, metadata, used = _weights(folder, where, load, found)
    found.parts["model"] = ForeignPart("state_dict", state)
    if metadata:
        found.extra["metadata"] = metadata
    used |= _configs(folder, where, found) | _states(folder, where, load, found)
    left = sorted({item.name for item in folder.iterdir()} - used)
    if left:
        found.notes.append(f"beside the weights these were left out: {', '.join(left)}")
    return found


def _configs(folder: Path, where: str, found: Contents) -> set[str]:
    """Take what JSON files say; return their names."""
    used = {name for name in (*CONFIGS, TRAINER_STATE) if (folder / name).is_file()}
    for name in CONFIGS:
        if name in used:
            config = read_json(folder / name, where)
            if found.config is None and is_config(config):
                found.config = config
            else:
                found.extra[name] = config
    if TRAINER_STATE in used:
        _trainer_state(read_json(folder / TRAINER_STATE, where), found)
    return used


def _states(folder: Path, where: str, load: Load, found: Contents) -> set[str]:
    """Take what a Trainer pickled beside the weights; return the files' names."""
    used = {name for name in (*STATES, *PICKLED) if (folder / name).is_file()}
    for name, part in STATES.items():
        if name in used:
            read = _read(folder / name, f"{where}/{name}", load, found)
            kind = "optimizer" if is_optimizer_state(read.value) else "object"
            found.parts[part] = ForeignPart(kind, read.value)
    for name in PICKLED:
        if name in used:
            try:
                found.extra[name] = _read(folder / name, f"{where}/{name}", load, found).value
            except UntrustedPickleError as error:
                listed = f" ({', '.join(error.names)})" if error.names else ""
                found.notes.append(
                    f"{name} was left out: to read it is to run what it says{listed}"
                )
    return used


def read_json(path: Path, where: str) -> Any:
    """Read a JSON file of others: NaN is taken, as Python's own library writes it.

    Raises:
        ImportRefusedError: It is too long, too deep, or no JSON.
    """
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise ImportRefusedError(f"{where}/{path.name} has {size} bytes, for a JSON file too many")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ImportRefusedError(f"{where}/{path.name} is no JSON: {error}") from error
    return to_plain(value, f"{where}/{path.name}").value


def _weights(
    folder: Path, where: str, load: Load, found: Contents
) -> tuple[Mapping[str, Any], dict[str, str], set[str]]:
    """Return the weights, the metadata of their files, and the names of the files."""
    for name in WEIGHTS:
        if (folder / f"{name}{INDEX}").is_file():
            return _shards(folder, f"{name}{INDEX}", where, load, found)
        if (folder / name).is_file():
            state, metadata = _one(folder / name, f"{where}/{name}", load, found)
            return state, metadata, {name}
    raise ImportRefusedError(f"{where} holds none of {', '.join(WEIGHTS)}")


def _shards(
    folder: Path, name: str, where: str, load: Load, found: Contents
) -> tuple[Mapping[str, Any], dict[str, str], set[str]]:
    index = read_json(folder / name, where)
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ImportRefusedError(f"{where}/{name} has no 'weight_map' of names and files")
    state: OrderedDict[str, Any] = OrderedDict()
    metadata: dict[str, str] = {}
    for file in dict.fromkeys(files.values()):
        if Path(file).name != file or not (folder / file).is_file():
            raise ImportRefusedError(f"{where}/{name} names {file!r:.80}, which is no file there")
        part, more = _one(folder / file, f"{where}/{file}", load, found)
        twice = state.keys() & part.keys()
        if twice:
            raise ImportRefusedError(f"{where}: {min(twice)!r:.80} is in two files")
        state.update(part)
        metadata |= more
    missing, unlisted = files.keys() - state.keys(), state.keys() - files.keys()
    if missing or unlisted:
        some = min(missing or unlisted)
        raise ImportRefusedError(
            f"{where}/{name} and its files don't agree: {some!r:.80} is "
            f"{'in no file' if missing else 'not in the index'}"
        )
    return state, metadata, {name, *files.values()}


def _one(
    path: Path, where: str, load: Load, found: Contents
) -> tuple[Mapping[str, Any], dict[str, str]]:
    if path.suffix == ".safetensors":
        return read_safetensors(path, where)
    read = _read(path, where, load, found)
    if not is_module_state(read.value):
        raise ImportRefusedError(f"{where} holds no state dict")
    return read.value, {}


def _read(path: Path, where: str, load: Load, found: Contents) -> Plain:
    read = load(path, where)
    found.notes += [f"{path.name}: {note}" for note in read.notes]
    return read


def _trainer_state(state: Any, found: Contents) -> None:
    """Take the step, the epoch and the last metrics; all of it stays in ``extra`` too."""
    found.extra["trainer_state"] = state
    if not isinstance(state, Mapping):
        return
    found.step, found.epoch = whole(state.get("global_step")), whole(state.get("epoch"))
    log = state.get("log_history")
    for entry in log if isinstance(log, list) else ():
        if not isinstance(entry, Mapping):
            continue
        for name, value in entry.items():
            number = real(value)
            if number is not None and (name == "loss" or name.startswith("eval_")):
                found.metrics["train_loss" if name == "loss" else name] = number
