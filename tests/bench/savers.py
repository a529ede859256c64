"""Background savers, ckptstore's and the peers', behind one face: save, wait, finish."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import (
    AsyncCheckpointerType,
    AsyncSaveResponse,
    async_save,
)

from ckptstore import PendingSave, Store

from . import state


class Saver(ABC):
    """Saves one model and its optimizer, again and again, below a folder.

    Attributes:
        note: Its settings, for the page.
        overlaps: Whether the state is copied while training goes on.
        keeps: Whether it keeps a copy of the state between saves.
    """

    note: ClassVar[str] = ""
    overlaps: ClassVar[bool] = False
    keeps: ClassVar[bool] = False

    def __init__(self, folder: Path, model: torch.nn.Module, optimizer: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.model, self.optimizer = folder, model, optimizer
        self.saves = 0

    def place(self) -> Path:
        """Return where the next save goes."""
        self.saves += 1
        return self.folder / str(self.saves)

    def prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Do what comes before a save and isn't counted."""

    @abstractmethod
    def save(self) -> None:
        """Return when training may go on with its next forward."""

    def wait_copied(self) -> None:  # noqa: B027 - most have copied when they return
        """Return when the weights may be written to."""

    def finish(self) -> None:  # noqa: B027 - a blocking save has finished
        """Return when the save would survive a power loss."""

    def clear(self) -> None:
        """Delete what was saved."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def close(self) -> None:
        """Let go of memory, threads and files."""
        self.clear()


class Ours(Saver):
    """`save_async`, eager."""

    overlap: ClassVar[bool] = False

    def __init__(
        self,
        folder: Path,
        model: torch.nn.Module,
        optimizer: Any,
        store: Store | None = None,  # another saver's, to share what it keeps
    ) -> None:
        super().__init__(folder, model, optimizer)
        self.store = store or Store(folder)
        self.pending: PendingSave | None = None

    def save(self) -> None:
        self.pending = self.store.save_async(
            self.model,
            self.optimizer,
            epoch=self.saves,
            val_loss=0.5,
            model_config={},
            overlap=self.overlap,
        )

    def wait_copied(self) -> None:
        if self.pending is not None:
            self.pending.wait_copied()

    def finish(self) -> None:
        if self.pending is not None:
            self.pending.result()

    def clear(self) -> None:
        # A full step changes all: so nothing of an earlier version is needed by a later save.
        shutil.rmtree(self.folder / "packs", ignore_errors=True)

    def close(self) -> None:
        self.store.close()
        super().close()


class OursOverlapped(Ours):
    """`save_async`, copied while training goes on."""

    overlap = True
    overlaps = True


class Copy(Saver):
    """The limit: torch's own copy of every tensor into memory that was touched before."""

    note = "every tensor's `copy_` into memory that is kept and touched; nothing is written"
    keeps = True

    def __init__(self, folder: Path, model: torch.nn.Module, optimizer: Any) -> None:
        super().__init__(folder, model, optimizer)
        self.sources = list(state.flat(model, optimizer).values())
        self.copies = [tensor.clone() for tensor in self.sources]

    def save(self) -> None:
        for copy, source in zip(self.copies, self.sources, strict=True):
            copy.copy_(source)

    def close(self) -> None:
        self.copies.clear()
        super().close()


class Dcp(Saver):
    """dcp.async_save as its documentation shows it."""

    note = "as documented: a new staging copy each time, one writing thread, which fsyncs"

    def __init__(self, folder: Path, model: torch.nn.Module, optimizer: Any) -> None:
        super().__init__(folder, model, optimizer)
        self.written: Future[Any] | None = None

    def save(self) -> None:
        written = async_save(
            state.everything(self.model, self.optimizer),
            checkpoint_id=self.place(),
            no_dist=True,
        )
        assert isinstance(written, Future)
        self.written = written

    def finish(self) -> None:
        if self.written is not None:
            self.written.result()


class DcpKept(Dcp):
    """dcp.async_save with a stager whose memory is kept."""

    note = "a kept `DefaultStager`, so that it copies into touched memory; two writing threads"
    keeps = True
    options: ClassVar[StagingOptions] = StagingOptions(
        use_pinned_memory=False,
        use_shared_memory=False,
        use_async_staging=False,
        use_non_blocking_copy=False,
    )
    kind: ClassVar[AsyncCheckpointerType] = AsyncCheckpointerType.THREAD

    def __init__(self, folder: Path, model: torch.nn.Module, optimizer: Any) -> None:
        super().__init__(folder, model, optimizer)
        self.stager = DefaultStager(self.options)
        self.staged: Future[None] | None = None

    def save(self) -> None:
        found = async_save(
            state.everything(self.model, self.optimizer),
            storage_writer=FileSystemWriter(self.place(), thread_count=2),
            async_stager=self.stager,
            async_checkpointer_type=self.kind,
            no_dist=self.kind is AsyncCheckpointerType.THREAD,
        )
        if isinstance(found, AsyncSaveResponse):
            self.staged, self.written = found.staging_completion, found.upload_completion
        else:
            self.written = found

    def wait_copied(self) -> None:
        if self.staged is not None:
            self.staged.result()

    def close(self) -> None:
        self.stager.close()
        super().close()


class DcpOverlapped(DcpKept):
    """dcp.async_save that stages in a thread."""

    note = "a kept `DefaultStager` that copies in a thread, waited for before the step"
    overlaps = True
    options = StagingOptions(
        use_pinned_memory=False,
        use_shared_memory=False,
        use_async_staging=True,
        use_non_blocking_copy=False,
    )


class DcpProcess(DcpKept):
    """dcp.async_save that writes in a process."""

    note = "a kept `DefaultStager` on shared memory; written by a process with two threads"
    options = StagingOptions(
        use_pinned_memory=False,
        use_shared_memory=True,
        use_async_staging=False,
        use_non_blocking_copy=False,
    )
    kind = AsyncCheckpointerType.PROCESS

    def prepare(self) -> None:
        # It insists on a process group; the others are measured without one, as it is with one.
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{self.folder}-{self.saves}", rank=0, world_size=1
            )

    def clear(self) -> None:
        super().clear()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


class Lightning(Saver):
    """Lightning's AsyncCheckpointIO."""

    note = "clones, then `torch.save` in a thread, to which we add an fsync"

    def __init__(self, folder: Path, model: torch.nn.Module, optimizer: Any) -> None:
        from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

        super().__init__(folder, model, optimizer)

        class Durable(TorchCheckpointIO):
            def save_checkpoint(
                self, checkpoint: Any, path: Any, storage_options: Any = None
            ) -> None:
                super().save_checkpoint(checkpoint, path, storage_options)
                state.fsync(Path(path))

        self.io = AsyncCheckpointIO(Durable())

    def save(self) -> None:
        self.io.save_checkpoint(state.everything(self.model, self.optimizer), str(self.place()))

    def finish(self) -> None:
        self.io.teardown()


class TorchCheckpointing(Saver):
    """torch_checkpointing, staging in a thread and writing in a process."""

    note = (
        "stages to shared memory in a thread, waited for by its `lock()` before the step; a "
        "process writes, without O_DIRECT, which fails on ext4; we add an fsync"
    )
    overlaps = True
    keeps = True
    pinned: ClassVar[bool] = False

    def __init__(self, folder: Path, model: torch.nn.Module, optimizer: Any) -> None:
        from torch_checkpointing import CheckpointManager
        from torch_checkpointing.config import AsyncCheckpointSaverConfig
        from torch_checkpointing.staging import CheckpointStagerConfig
        from torch_checkpointing.storage.filesystem import LocalFileSystemStorageConfig

        super().__init__(folder, model, optimizer)
        self.manager = CheckpointManager.Config(
            save=AsyncCheckpointSaverConfig(
                staging_config=CheckpointStagerConfig(
                    use_pinned_memory=self.pinned,
                    use_shared_memory=True,
                    use_async_staging=True,
                    use_non_blocking_copy=self.pinned,
                )
            ),
            storage_config=LocalFileSystemStorageConfig(use_direct_io=False),
        ).build()
        self.written: Any = None

    def save(self) -> None:
        self.written = self.manager.save(
            str(self.place()), state.everything(self.model, self.optimizer)
        )

    def wait_copied(self) -> None:
        with self.manager.lock():
            pass

    def finish(self) -> None:
        if self.written is not None:
            self.written.result()
            state.fsync(self.folder / str(self.saves))

    def close(self) -> None:
        self.manager.close()
        super().close()


OURS: dict[str, type[Saver]] = {
    "ckptstore, eager": Ours,
    "ckptstore, overlapped": OursOverlapped,
}
PEERS: dict[str, type[Saver]] = {
    "dcp.async_save": Dcp,
    "dcp.async_save, memory kept": DcpKept,
    "dcp.async_save, staged in a thread": DcpOverlapped,
    "dcp.async_save, a process": DcpProcess,
    "Lightning AsyncCheckpointIO": Lightning,
    "torch_checkpointing": TorchCheckpointing,
}


def opened(
    kinds: Mapping[str, type[Saver]], folder: Path, model: torch.nn.Module, optimizer: Any
) -> tuple[dict[str, Saver], dict[str, str]]:
    """Make savers, and save once with each: one that doesn't run here is named with its reason.

    So what is made at the first save, memory and processes, isn't timed either.

    Args:
        kinds: By the name that the page has.
        folder: Where each gets a folder.
        model: What is saved.
        optimizer: Its optimizer.

    Returns:
        Those that run, and why the others don't.

    Raises:
        Exception: Ours failed.
    """
    found: dict[str, Saver] = {}
    held = state.size_bytes(state.flat(model, optimizer).values())
    kept = [name for name, kind in kinds.items() if kind.keeps]
    absent = dict.fromkeys(
        kept[copies_that_fit(held) - 1 :],  # ours keep one
        "its kept copy of the state does not fit into this machine's memory beside the others'",
    )
    shared: Ours | None = None
    for number, (name, kind) in enumerate(kinds.items()):
        if name in absent:
            continue
        try:
            if issubclass(kind, Ours) and shared is not None:
                saver: Saver = kind(shared.folder, model, optimizer, shared.store)
            else:
                saver = kind(folder / f"saver-{number}", model, optimizer)
            if isinstance(saver, Ours):
                shared = shared or saver
            once(saver)
        except Exception as error:
            if issubclass(kind, Ours):
                raise
            absent[name] = reason(error)
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
        else:
            found[name] = saver
    return found, absent


def copies_that_fit(held_bytes: int) -> int:
    """Return how many copies of the state savers may keep here, at least one.

    Beside them there are the state, its gradients, one copy that is made and let go, and a
    gigabyte for everything else.
    """
    memory = os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, int((memory - 2.4 * held_bytes - 1e9) // held_bytes))


def once(saver: Saver) -> None:
    """Save, wait and clean up."""
    saver.prepare()
    saver.save()
    saver.wait_copied()
    saver.finish()
    saver.clear()


def close(found: Mapping[str, Saver]) -> None:
    """Close all of them."""
    for saver in found.values():
        saver.close()


def notes(found: Mapping[str, Saver]) -> dict[str, str]:
    """Return the settings of those that have any to tell."""
    return {name: saver.note for name, saver in found.items() if saver.note}


def reason(error: Exception) -> str:
    """Return what an error says, in one line that ends without a stop."""
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(said or ['nothing'])[-1][:160]}".rstrip(".")
