"""What a distillation run is refused for before its data module does any work."""

from __future__ import annotations

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from transformers import AutoConfig

from lightning_vocab.callbacks.freezing import FreezeBackbone, UnfreezeAt
from lightning_vocab.demo import resolve_base
from lightning_vocab.distillation.datamodule import DistillationDataModule


def check_options(expansion_dir: str | None, layer: int, output_loss_weight: float) -> None:
    """Make sure that the options make sense by themselves.

    Args:
        expansion_dir: Folder of the grown tokenizer.
        layer: Whose output is matched.
        output_loss_weight: How hard the output loss pulls.

    Raises:
        ValueError: If there is no folder, the layer is 0, or the weight is negative.
    """
    if expansion_dir is None:
        raise ValueError(
            "Distillation teaches new tokens what their pieces do: give expansion_dir, the folder "
            "of the grown vocabulary."
        )
    if layer == 0:
        raise ValueError(
            "Expected layer 1 or higher, or -1 or lower, got 0: that is the embedding itself, "
            "where a token could only copy its last piece."
        )
    if output_loss_weight < 0:
        raise ValueError(f"Expected an output_loss_weight of at least 0, got {output_loss_weight}.")


def checked_data(trainer: Trainer) -> DistillationDataModule:
    """The data module of a fit, whose batches hold what student and teacher read.

    Args:
        trainer: The Trainer of the fit.

    Raises:
        MisconfigurationException: If it is of another kind, or there is none.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, DistillationDataModule):
        raise MisconfigurationException(
            "DistillationModule expected the snippets of a DistillationDataModule, got "
            f"{type(data).__name__}: fit with datamodule=DistillationDataModule(...)."
        )
    return data


def check_callbacks(trainer: Trainer) -> None:
    """Make sure that only the new rows will train, from the first step to the last.

    Args:
        trainer: The Trainer of the fit.

    Raises:
        MisconfigurationException: If it has no `FreezeBackbone`, or an `UnfreezeAt`.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set elsewhere
    freezes = any(isinstance(callback, FreezeBackbone) for callback in callbacks)
    unfreezes = any(isinstance(callback, UnfreezeAt) for callback in callbacks)
    if freezes and not unfreezes:
        return
    got = "an UnfreezeAt" if unfreezes else "no FreezeBackbone"
    raise MisconfigurationException(
        "Distillation trains new rows alone, since the rest of the model is its teacher; got "
        f"{got}. Add FreezeBackbone to the Trainer's callbacks, and no UnfreezeAt; train more in a "
        "fit of its own, from the rows exported here."
    )


def check_layer(layer: int, num_layers: int, name: str) -> None:
    """Make sure that a model has the layer whose output is to be matched.

    Args:
        layer: 1 is the first layer, -1 the last.
        num_layers: How many the model has.
        name: What the message calls the model.

    Raises:
        MisconfigurationException: If it has no such layer.

    Example:
        >>> check_layer(-6, 6, "the base")
    """
    if not -num_layers <= layer <= num_layers:
        raise MisconfigurationException(
            f"Expected a layer from 1 to {num_layers} or from -{num_layers} to -1 for {name}, got "
            f"{layer}."
        )


def check_layer_of_base(layer: int, base: str) -> None:
    """The same, asked of the base's config alone: no weights are read.

    A config that does not say how many layers there are is let through: the model is asked once it
    is loaded.

    Args:
        layer: 1 is the first layer, -1 the last.
        base: ``demo``, a local Hugging Face folder, or a hub id.

    Raises:
        MisconfigurationException: If the base has no such layer.
        ValueError: If nothing is found under ``base``.
    """
    try:
        config = AutoConfig.from_pretrained(resolve_base(base)).get_text_config()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{base!r} gives no config of a model: expected 'demo', a folder with config.json and "
            f"weights, or a hub id that can be reached. {type(error).__name__}: {error}"
        ) from error
    num_layers = getattr(config, "num_hidden_layers", None)
    if isinstance(num_layers, int):
        check_layer(layer, num_layers, repr(base))
