"""LoRA on the backbone through `peft`, new rows trained in full, one plain folder at the end.

    pip install 'lightning-vocab[lora]'
    python recipes/lora.py fit --config recipes/lora.yaml

For bases whose backbone is too large to train. Its weights stay as they are in every phase; what
trains of it are low-rank adapters (E. Hu et al., arXiv 2106.09685), beginning with the phase
``full`` of `UnfreezeAt`. Rows have no adapters: embedding and head are what they are without LoRA.

Copy this file and change it. A checkpoint of it is exported by
``LoRAExpansionModule.load_from_checkpoint(path).export(folder)``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial
from importlib.util import find_spec
from typing import Any, ClassVar

from lightning.pytorch.cli import ArgsType, OptimizerCallable
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from typing_extensions import override

from lightning_vocab.cli import VocabCLI
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.rows import export_model
from lightning_vocab.rows.locate import replace_module
from lightning_vocab.rows.roles import parameter_roles

SHAPE = ("lora_rank", "lora_alpha", "target_modules")  # what makes the adapters what they are


class LoRAExpansionModule(VocabExpansionModule):
    """A `VocabExpansionModule` whose backbone trains through low-rank adapters alone.

    The optimizer has the groups ``new_rows``, ``old_rows`` and ``adapters``. Adapters are float32
    over a base of half precision, too; the Trainer's ``bf16-true`` casts them, ``bf16-mixed`` does
    not. One device or DDP; parameters divided among ranks are refused.

    Args:
        lora_rank: Rank of each adapter.
        lora_alpha: An adapter's product is scaled by ``lora_alpha / lora_rank``.
        target_modules: Ends of the names of the linear layers of the backbone that get an adapter,
            such as ``q_proj``; all linear layers if None.
        lr_backbone: Learning rate of the adapters.
        weight_decay_backbone: Weight decay of the adapters.
        kwargs: The other arguments of `VocabExpansionModule`.

    Raises:
        ModuleNotFoundError: If `peft` is not installed.
        ValueError: If the rank or alpha is out of range, or a target names no linear layer.
    """

    is_shardable: ClassVar[bool] = False

    def __init__(
        self,
        lora_rank: int = 16,
        lora_alpha: float = 32.0,
        target_modules: list[str] | None = None,
        lr_backbone: float = 2e-4,
        weight_decay_backbone: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if find_spec("peft") is None:
            raise ModuleNotFoundError("LoRA needs peft: pip install 'lightning-vocab[lora]'.")
        if lora_rank < 1 or lora_alpha <= 0:
            raise ValueError(
                "Expected lora_rank of at least 1 and lora_alpha above 0, got "
                f"lora_rank={lora_rank} and lora_alpha={lora_alpha}."
            )
        super().__init__(
            lr_backbone=lr_backbone, weight_decay_backbone=weight_decay_backbone, **kwargs
        )
        self.optimizer_callable = partial(_optimizer_of_what_trains, self.optimizer_callable)

    @override
    def configure_model(self) -> None:
        """Load the base, expand it, and put adapters into its backbone; once."""
        if self.model is not None:
            return
        super().configure_model()
        add_adapters(self.language_model, *(self.hparams[name] for name in SHAPE))

    @override
    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint without adapters or of others: they would mean something else."""
        super().check_checkpoint(checkpoint)
        saved = checkpoint.get("hyper_parameters", {})
        for name in SHAPE:
            if saved.get(name) != self.hparams[name]:
                raise ValueError(
                    f"The checkpoint was written with {name}={saved.get(name)}, this run has "
                    f"{self.hparams[name]}: keep the former value, or start anew from an export."
                )

    @override
    def export(self, path: str, *, overwrite: bool = False) -> None:
        """Write the model with its adapters merged: nothing of `peft` is in the folder.

        Memory: one copy of each adapted matrix, on the CPU.
        """
        merged = merged_copy(self.language_model)
        export_model(merged, self.expanded or self.tokenizer, path, overwrite=overwrite)


def add_adapters(
    model: PreTrainedModel, rank: int, alpha: float, targets: list[str] | None = None
) -> None:
    """Put adapters into the backbone and freeze its weights; the rows train as they did before."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    roles = parameter_roles(model)
    trained = {id(p) for p in roles.everything() if p.requires_grad}
    chosen = _linear_layers(model, targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=sorted(chosen),  # whole names: peft finds these layers and no others
        fan_in_fan_out=all(isinstance(layer, Conv1D) for layer in chosen.values()),  # GPT-2
    )
    inject_adapter_in_model(config, model.base_model)
    for layer in model.base_model.modules():
        if isinstance(layer, LoraLayer):  # half precision would round away most of their steps
            layer.lora_A.float()
            layer.lora_B.float()
    for parameter in roles.backbone:
        parameter.requires_grad_(False)
    # peft has frozen the rows, too. What is frozen before the fit stays so in every phase.
    for parameter in (*roles.new_rows, *roles.old_rows, *roles.embedding):
        parameter.requires_grad_(id(parameter) in trained)


def merged_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The model as one without adapters; it shares every tensor but the adapted matrices.

    Raises:
        ValueError: If an adapter has come to a number that is not finite.
    """
    from peft.tuners.lora import LoraLayer

    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, dict(shared))  # the tree of modules alone: all tensors are known
    for layer in [part for part in copied.modules() if isinstance(part, LoraLayer)]:
        merged = copy.deepcopy(layer)
        merged.merge(safe_merge=True)
        replace_module(copied, layer, merged.get_base_layer().cpu())
    del copied.base_model.peft_config
    return copied


def _linear_layers(model: PreTrainedModel, targets: list[str] | None) -> dict[str, nn.Module]:
    """The backbone's linear layers that the targets mean, by name; each target means some."""
    head = model.get_output_embeddings()
    layers = {
        name: part
        for name, part in model.base_model.named_modules()
        if isinstance(part, nn.Linear | Conv1D) and part is not head
    }
    ends = sorted({name.rpartition(".")[2] for name in layers})
    targets = ends if targets is None else targets
    meant = {each: [n for n in layers if f".{n}".endswith(f".{each}")] for each in targets}
    missing = [each for each, found in meant.items() if not found]
    if missing or not meant:
        raise ValueError(
            f"Expected target_modules among the linear layers of {type(model).__name__}'s backbone "
            f"({', '.join(ends)}), got {missing or targets}: name some of these, or leave it out "
            "for all."
        )
    return {name: layers[name] for found in meant.values() for name in found}


def _optimizer_of_what_trains(
    make: OptimizerCallable, groups: Iterable[dict[str, Any]]
) -> Optimizer:
    """The optimizer without frozen parameters: then adapters are all of the backbone."""
    kept = []
    for group in groups:
        parameters = [p for p in group["params"] if p.requires_grad]
        name = "adapters" if group["name"] == "backbone_decay" else group["name"]
        if parameters:
            kept.append({**group, "name": name, "params": parameters})
    return make(kept)


def main(args: ArgsType = None) -> None:
    """Run the command line of `lightning-vocab` over this module."""
    VocabCLI(
        LoRAExpansionModule,
        VocabDataModule,
        args=args,
        seed_everything_default=7,
        save_config_kwargs={"overwrite": True},
        auto_configure_optimizers=False,
    )


if __name__ == "__main__":
    main()
