"""A small training with Lightning."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its dependencies
    import lightning
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint


class Lit(lightning.LightningModule):
    def __init__(self, width=4, lr=0.01):  # noqa: ARG002 - save_hyperparameters() finds it
        super().__init__()
        self.save_hyperparameters()
        self.model = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.Linear(width, 1))

    def training_step(self, batch, _):
        return self.model(batch[0]).square().mean()

    def validation_step(self, batch, _):
        self.log("val_loss", self.model(batch[0]).square().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def fitted(folder: Path) -> Path:
    """Train three epochs; return the folder of checkpoints."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(3)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(16, 3)), 4)
    saving = ModelCheckpoint(
        folder / "saved", "{epoch}-{step}-{val_loss:.2f}", "val_loss", save_top_k=-1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about workers, and what there is no logger for
        trainer = lightning.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[saving, EarlyStopping("val_loss")],
        )
        trainer.fit(Lit(width=5, lr=0.1), data, data)
    return folder / "saved"
