"""The works themselves: each takes the folder and the rank, and answers with what happened."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import torch

from ckptstore import Store
from tests.loading.forging import packs_of
from tests.loading.trainings import Net, Training, everything, frozen


def _digest(training: Training) -> str:
    return hashlib.sha256(repr(everything(training)).encode()).hexdigest()


def _model(training: Training) -> str:
    state = {name: part.state_dict() for name, part in training.parts().items()}
    return hashlib.sha256(repr(frozen(state)).encode()).hexdigest()


def _saved(folder: Path, rank: int, versions: int = 2) -> Store:
    """Have rank 0 save some versions, and all wait for them."""
    store = Store(folder / "store")
    if rank == 0:
        training = Training()
        for epoch in range(versions):
            training.epoch()
            training.save(store, epoch=epoch, extra={"epoch": epoch})
    torch.distributed.barrier()
    return store


def all_restore(folder: Path, rank: int) -> str:
    store = _saved(folder, rank)
    training = Training(seed=rank + 5)
    resumed = training.resume(store)
    return f"{resumed.checkpoint.ref} {resumed.next_epoch} {resumed.extra} {_digest(training)}"


def none_there(folder: Path, rank: int) -> str:
    training = Training(seed=rank)
    before = _digest(training)
    resumed = training.resume(Store(folder / "store"))
    return f"{bool(resumed)} {_digest(training) == before}"


def newest_is_damaged(folder: Path, rank: int) -> str:
    store = _saved(folder, rank)
    if rank == 0:
        path = packs_of(folder / "store", "default", 2)[0]
        path.write_bytes(path.read_bytes()[:-1])
    torch.distributed.barrier()
    training = Training(seed=rank + 5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resumed = training.resume(store)
    said = sum("damaged and were passed over" in str(warning.message) for warning in caught)
    return f"{resumed.checkpoint.ref} {said} {_model(training)}"


def one_does_not_fit(folder: Path, rank: int) -> str:
    store = _saved(folder, rank)
    training = Training(seed=rank + 5)
    if rank == 1:
        training.model.first = torch.nn.Linear(4, 9)
    before = _digest(training)
    try:
        training.resume(store)
    except Exception as error:  # noqa: BLE001 - compared by its name
        return f"{type(error).__name__} {_digest(training) == before} {error}"
    return "restored"


class Plain(torch.nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 2)


class Picky(Plain):
    """Loads, and then refuses on rank 1."""

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        if torch.distributed.get_rank() == 1:
            args[4].append("the key")


def loading_code_of_one_refuses(folder: Path, rank: int) -> str:
    store = Store(folder / "store")
    if rank == 0:
        store.save(Training().model, other=Plain())
    torch.distributed.barrier()
    model, other = Training(seed=rank + 5).model, Picky()
    before = frozen([model.state_dict(), other.state_dict()])
    try:
        store.resume(model, other=other)
    except Exception as error:  # noqa: BLE001 - compared by its name
        after = frozen([model.state_dict(), other.state_dict()])
        return f"{type(error).__name__} {after == before} {error}"
    return "restored"


def rank_zero_fails(folder: Path, rank: int) -> str:
    store = _saved(folder, rank)
    if rank == 0:
        for version in (1, 2):
            packs_of(folder / "store", "default", version)[0].unlink()
    training = Training(seed=rank + 5)
    before = _digest(training)
    try:
        training.resume(store)
    except Exception as error:  # noqa: BLE001 - compared by its name
        return f"{type(error).__name__} {_digest(training) == before} {error}"
    return "restored"


def a_warning_is_an_error(folder: Path, rank: int) -> str:
    store = _saved(folder, rank)
    if rank == 0:
        packs_of(folder / "store", "default", 2)[0].unlink()
    training = Training(seed=rank + 5)
    before = _digest(training)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            training.resume(store)
        except Exception as error:  # noqa: BLE001 - compared by its name
            return f"{type(error).__name__} {_digest(training) == before}"
    return "restored"


def one_gives_a_wrong_option(folder: Path, rank: int) -> str:
    store = _saved(folder, rank)
    wrong: list[dict[str, Any]] = [
        {"dtype": "bf"},
        {"only": []},
        {"strict": 0},
        {"run": "a//b"},
        {"olny": "x"},
    ]
    said = []
    for raising in (0, 1):
        for options in wrong:
            training = Training(seed=rank + 5)
            before = _digest(training)
            try:
                training.resume(store, **(options if rank == raising else {}))
            except Exception as error:  # noqa: BLE001 - compared by its name
                said.append(f"{type(error).__name__} {_digest(training) == before}")
            else:
                said.append("restored")
    return "\n".join(said)


def one_asks_for_what_was_not_saved(folder: Path, rank: int) -> str:
    store = _saved(folder, rank)
    training = Training(seed=rank + 5)
    more = {"ema": Plain()} if rank == 1 else {}
    before = _digest(training)
    try:
        training.resume(store, **more)
    except Exception as error:  # noqa: BLE001 - compared by its name
        raised = f"{type(error).__name__} {_digest(training) == before}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resumed = training.resume(store, strict=False, **more)
    said = sum("without 'ema'" in str(warning.message) for warning in caught)
    return f"{raised} {resumed.checkpoint.ref} {said} {resumed.audit.not_saved} {_digest(training)}"


def _wrapped(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = torch.nn.parallel.DistributedDataParallel(Net())
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def _steps(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, rank: int, steps: range
) -> list[float]:
    """Train on data that every rank has of its own."""
    losses = []
    for step in steps:
        data = torch.Generator().manual_seed(10 * step + rank)
        optimizer.zero_grad()
        loss = model(torch.randn(8, 4, generator=data)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def wrapped_goes_on(folder: Path, rank: int) -> str:
    model, optimizer = _wrapped(0)
    losses = _steps(model, optimizer, rank, range(5))

    store = Store(folder / "store")
    first = _wrapped(0)
    _steps(*first, rank, range(2))
    if rank == 0:
        store.save(*first, step=2)
    torch.distributed.barrier()

    second = _wrapped(7 + rank)
    resumed = store.resume(*second)
    again = _steps(*second, rank, range(resumed.step, 5))
    as_it_was = frozen(
        [second[0].state_dict(), second[1].state_dict(), torch.get_rng_state()]
    ) == frozen([model.state_dict(), optimizer.state_dict(), torch.get_rng_state()])
    plain = store.load_latest(Net, device="cpu")
    return (
        f"{again == losses[2:]} {as_it_was} {list(plain.state_dict()) == list(Net().state_dict())}"
    )


def save_everywhere(folder: Path, _rank: int) -> str:
    return Store(folder / "store").save(Training().model).ref


WORKS = [
    all_restore,
    none_there,
    newest_is_damaged,
    one_does_not_fit,
    loading_code_of_one_refuses,
    rank_zero_fails,
    a_warning_is_an_error,
    one_gives_a_wrong_option,
    one_asks_for_what_was_not_saved,
    wrapped_goes_on,
    save_everywhere,
]
