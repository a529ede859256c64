"""What is wrapped around modules: in any combination, under the names of what is inside."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ckptstore import Store
from tests.fidelity import modules
from tests.fidelity.cases import Case
from tests.fidelity.training import goes_on
from tests.loading.trainings import frozen

Wrap = Callable[[nn.Module], nn.Module]


def net() -> nn.Sequential:
    """Return a net of four to four with a block inside."""
    return nn.Sequential(
        nn.Linear(4, 6),
        nn.BatchNorm1d(6),
        nn.Sequential(nn.Linear(6, 6), nn.Tanh()),
        nn.Linear(6, 4),
    )


def compiled(module: nn.Module) -> nn.Module:
    wrapped: nn.Module = torch.compile(module, backend="eager")
    return wrapped


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile(backend="eager")
    return module


def as_it_is(module: nn.Module) -> nn.Module:
    return module


def inside(wrap: Wrap) -> Wrap:
    """Return what wraps the block inside a net, instead of the net."""

    def wrap_inside(module: nn.Module) -> nn.Module:
        assert isinstance(module, nn.Sequential)
        module[2] = wrap(module[2])
        return module

    return wrap_inside


def both(outer: Wrap, inner: Wrap) -> Wrap:
    return lambda module: outer(inner(module))


WRAPS: dict[str, Wrap] = {
    "nothing": as_it_is,
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": DistributedDataParallel,
    "torch.compile": compiled,
    "module.compile()": compiled_in_place,
    "DistributedDataParallel, torch.compile inside": both(DistributedDataParallel, compiled),
    "torch.compile, DistributedDataParallel inside": both(compiled, DistributedDataParallel),
    "torch.compile of a block": inside(compiled),
    "module.compile() of a block": inside(compiled_in_place),
    "DataParallel of a block": inside(nn.DataParallel),
    "checkpoint_wrapper of a block": inside(checkpoint_wrapper),
    "checkpoint_wrapper, torch.compile inside, of a block": inside(
        both(checkpoint_wrapper, compiled)
    ),
    "torch.compile, checkpoint_wrapper inside, of a block": inside(
        both(compiled, checkpoint_wrapper)
    ),
    "DistributedDataParallel, torch.compile of a block": both(
        DistributedDataParallel, inside(compiled)
    ),
}


@contextmanager
def group_of_one(folder: Path) -> Iterator[None]:
    """Be a process group alone."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


def in_one_process(run: Callable[[Path], list[str]]) -> Callable[[Path], list[str]]:
    """Return a check that is run in a process group, with the compiler as new."""

    def run_so(folder: Path) -> list[str]:
        with group_of_one(folder), warnings.catch_warnings():
            # The compiler looks at .grad of what is no leaf, and recording is not its business.
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
            warnings.filterwarnings("ignore", ".*record_function")
            torch.compiler.reset()
            return run(folder)

    return run_so


def trained(wrap: Wrap) -> Case:
    """Return the case of a training of a wrapped module that is cut and goes on."""

    def run(folder: Path) -> list[str]:
        return goes_on(folder, lambda _done: modules.training(wrap(net())))

    name = next(name for name, each in WRAPS.items() if each is wrap)
    return Case("wrapper", name, "trained on", in_one_process(run))


def crossed(saved_as: str) -> Case:
    """Return the case of a module that is saved so, and resumed and loaded as any other."""

    def run(folder: Path) -> list[str]:
        store = Store(folder / "store")
        model = WRAPS[saved_as](net())
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        for _ in range(2):
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
            ema.update_parameters(model)
        saved = store.save(model, optimizer, ema=ema)
        assert list(saved.state("model")) == list(net().state_dict())
        assert list(saved.state("ema")) == list(AveragedModel(net()).state_dict())
        for wrap in WRAPS.values():
            _resumes(store, wrap, model, optimizer, ema)
            _loads(store, wrap, model, ema)
        return ["plain names", "resume and load as any other", "moments by name", "its average"]

    return Case("wrapper", saved_as, "saved so", in_one_process(run))


def _resumes(
    store: Store,
    wrap: Wrap,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: AveragedModel,
) -> None:
    live = wrap(net())
    average = AveragedModel(live, use_buffers=True)
    backwards = torch.optim.AdamW([*live.parameters()][::-1])
    store.resume(live, backwards, ema=average)
    assert _values(live) == _values(model)
    assert _values(average) == _values(ema)
    moments = [backwards.state[parameter] for parameter in live.parameters()]
    assert frozen(moments) == frozen([optimizer.state[p] for p in model.parameters()])


def _loads(store: Store, wrap: Wrap, model: nn.Module, ema: AveragedModel) -> None:
    assert _values(store.load_latest(lambda: wrap(net()), device="cpu")) == _values(model)
    average = store.load_latest(
        lambda: AveragedModel(wrap(net()), use_buffers=True), part="ema", device="cpu"
    )
    assert _values(average) == _values(ema)


def _values(module: nn.Module) -> object:
    """Return the tensors of a module in its order, whatever they are called."""
    return frozen([*module.parameters(), *module.buffers()])


CASES: list[Case] = [
    *modules.CASES,
    *(trained(wrap) for wrap in WRAPS.values() if wrap is not as_it_is),
    *map(crossed, WRAPS),
]
