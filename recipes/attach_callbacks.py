"""Attach the callbacks to a LightningModule of your own: nothing of it has to change.

    python recipes/attach_callbacks.py

`MyProject` stands for a module that exists: it holds a causal language model with an ordinary
embedding that somebody has already resized, and knows nothing of this package. The backbone stays
frozen, the old rows stay bit-equal, and the spectrum of the new rows is watched.
"""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_vocab.callbacks import EmbeddingSpectrumMonitor, FreezeBackbone, GradMaskNewRows

BASE_ROWS, NUM_NEW, LENGTH = 256, 32, 16


class MyProject(LightningModule):
    """Somebody's own module around a model whose embedding has been resized."""

    def __init__(self) -> None:
        super().__init__()
        config = LlamaConfig(
            vocab_size=BASE_ROWS,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
        self.lm = LlamaForCausalLM(config)
        self.lm.resize_token_embeddings(BASE_ROWS + NUM_NEW, mean_resizing=False)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.lm(input_ids=batch, labels=batch).loss
        self.log("train/loss_nats", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.1)


def main(max_steps: int = 20, root: str = "runs/attach_callbacks") -> float:
    """Train, and return the largest change of an old row, which is 0.0."""
    seed_everything(7)
    module = MyProject()
    before = module.lm.get_input_embeddings().weight.detach().clone()
    new_ids = list(range(BASE_ROWS, BASE_ROWS + NUM_NEW))
    tokens = torch.randint(0, BASE_ROWS + NUM_NEW, (64, LENGTH))
    trainer = Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        logger=CSVLogger(root),
        default_root_dir=root,
        log_every_n_steps=5,
        callbacks=[
            FreezeBackbone(),
            GradMaskNewRows(new_ids=new_ids),
            EmbeddingSpectrumMonitor(every_n_steps=10, new_ids=new_ids),
        ],
    )
    trainer.fit(module, DataLoader(tokens, batch_size=8))  # type: ignore[arg-type]  # a Tensor is a map-style dataset
    after = module.lm.get_input_embeddings().weight.detach()
    moved = (after - before).abs().amax(dim=1)
    print(f"largest change of an old row: {moved[:BASE_ROWS].max().item()}")
    print(f"smallest change of a new row: {moved[BASE_ROWS:].min().item():.2e}")
    return moved[:BASE_ROWS].max().item()


if __name__ == "__main__":
    main()
