"""The part of a module that is about `ModelParallelStrategy`."""

from __future__ import annotations

from typing import Any, ClassVar

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from transformers import PreTrainedModel
from typing_extensions import override

from lightning_vocab.distributed.checkpoint_folders import guard_checkpoints
from lightning_vocab.distributed.clipping import clip_by_global_norm
from lightning_vocab.distributed.shard_model import shard_model
from lightning_vocab.distributed.strategies import refuse_untested_strategy


class ShardableModule(LightningModule):
    """Divides its model among the ranks under `ModelParallelStrategy`, and under no other strategy.

    A checkpoint folder written by any number of processes loads on any other number of them.
    """

    is_shardable: ClassVar[bool] = True
    """Whether the class was tested with its parameters divided."""

    @property
    def is_sharded(self) -> bool:
        """Whether the parameters are divided among ranks."""
        return self.device_mesh is not None

    def agreed(self, decision: bool) -> bool:
        """Whether all ranks say yes; a rank that shares no parameters decides for itself."""
        if not self.is_sharded:
            return decision
        return bool(self.trainer.strategy.reduce_boolean_decision(decision))

    def shard(self, model: PreTrainedModel) -> None:
        """Divide a model over the strategy's mesh; nothing happens where there is none."""
        if self.device_mesh is not None:
            shard_model(model, self.device_mesh)

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that this module cannot go on from.

        Args:
            checkpoint: All of the checkpoint, or all but its tensors.
        """

    @override
    def setup(self, stage: str) -> None:
        """Refuse a strategy under which this module was not tested, before anything is loaded."""
        trainer, strategy = self.trainer, self.trainer.strategy
        refuse_untested_strategy(trainer, type(self).__name__)
        if not isinstance(strategy, ModelParallelStrategy):
            return
        if stage == "predict":
            raise MisconfigurationException(
                "Ranks that share parameters must generate equally many tokens, which prompts do "
                "not. Export the model, and predict with the export on one device or with DDP."
            )
        if stage == "fit" and trainer.gradient_clip_val:
            _refuse_other_clipping(trainer.gradient_clip_algorithm)
        guard_checkpoints(strategy, self, self.check_checkpoint)

    @override
    def on_fit_start(self) -> None:
        """Refuse parameters that are not divided."""
        if self.is_sharded:
            _refuse_undivided(self)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that this module cannot go on from."""
        self.check_checkpoint(checkpoint)

    @override
    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm over all ranks, also where parameters lie on different meshes."""
        if not self.is_sharded or not gradient_clip_val:
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )
            return
        _refuse_other_clipping(gradient_clip_algorithm)  # a subclass may ask for another than set
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        clip_by_global_norm(parameters, gradient_clip_val)


def _refuse_other_clipping(algorithm: str | None) -> None:
    """Refuse a way to clip that was not tested with parameters that are divided."""
    if algorithm not in (None, "norm"):
        raise MisconfigurationException(
            "ModelParallelStrategy was tested with gradient_clip_algorithm='norm', got "
            f"{algorithm.lower()!r}. Leave gradient_clip_algorithm out."
        )


def _refuse_undivided(module: LightningModule) -> None:
    """Refuse parameters whose gradients no rank would hear of."""
    names = [name for name, each in module.named_parameters() if not isinstance(each, DTensor)]
    if names:
        raise MisconfigurationException(
            "ModelParallelStrategy divides the language model that configure_model() builds under "
            f"the Trainer, got {', '.join(names[:3])} of {type(module).__name__} whole, which "
            "would drift apart between ranks. Leave configure_model() to the Trainer, and use "
            "DDPStrategy for parameters of your own."
        )
