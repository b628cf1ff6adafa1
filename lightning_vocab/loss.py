"""Next-token loss of a causal language model, streamed over chunks where the model allows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from lightning.fabric.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lightning_vocab.data.rows import IGNORED
from lightning_vocab.functional.block_shares import BlockShares, block_shares
from lightning_vocab.functional.linear_cross_entropy import CHUNK_SIZE, RowBlock, token_nats
from lightning_vocab.functional.loss_kernels import (
    OWN,
    Trial,
    loss_of_kernel,
    try_kernels,
    usable_kernels,
)
from lightning_vocab.rows.locate import find_split
from lightning_vocab.uncompiled import uncompiled

_PROBE_ROWS, _PROBE_POSITIONS = 2, 128
_Result = TypeVar("_Result")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every submodule then returns to the mode that it had.

    Args:
        module: The module.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


class NextTokenLoss:
    """Scores each token by the ones before it, in nats.

    The streamed form never builds the ``(batch, time, rows)`` logits. It applies the head to the
    last hidden states of the model's backbone, with the logit scale and the soft cap that the
    config names; a model that does more than that between backbone and loss is scored through its
    own ``forward``, at the memory of its logits. `check` tells the two apart on a real batch.

    Args:
        model: A causal language model, split or not.
        chunk_size: Positions whose logits over rows that train are in memory at a time.
        skip_negligible: Whether rows stay out of the gradient of the hidden states whose part is
            below the resolution of its dtype (see `linear_cross_entropy`).
    """

    def __init__(
        self, model: PreTrainedModel, chunk_size: int = CHUNK_SIZE, *, skip_negligible: bool = False
    ) -> None:
        self.model = model
        self.chunk_size = chunk_size
        self.skip_negligible = skip_negligible
        self.kernel = OWN
        self._split = find_split(model)
        self.is_streamed = model.base_model is not model
        config = model.config.get_text_config()
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.logit_scale = (
            (getattr(config, "logit_scale", None) or 1.0)  # Cohere
            * (getattr(config, "lm_head_multiplier", None) or 1.0)  # Falcon H1
            / (getattr(config, "logits_scaling", None) or 1.0)  # Granite
        )

    def mean_nats(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean loss of the batch over its scored positions, a scalar with a gradient.

        Args:
            batch: ``input_ids``, ``labels`` (not shifted; `IGNORED` is not scored) and, where
                rows are padded, ``attention_mask``; all ``(batch, time)``.
        """
        targets = batch["labels"][:, 1:]
        if not self.is_streamed:
            total = self._plain_nats(batch).sum()
            return total / (targets != IGNORED).sum().clamp(min=1)
        return self._scored(
            loss_of_kernel(self.kernel), batch, skip_negligible=self.skip_negligible
        )

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters of the head: rows, and biases where it has them."""
        return list(self.model.get_output_embeddings().parameters())

    def try_kernels(self, batch: Mapping[str, Tensor]) -> list[Trial]:
        """Time the loss kernels that can score this batch, ours first; nothing is changed.

        There is none besides ours where the loss is not streamed, or not all rows train.

        Args:
            batch: As in `mean_nats`.
        """
        if not self.is_streamed or self.skip_negligible:  # other kernels skip nothing
            return []
        with evaluating(self.model), torch.no_grad():
            hidden = self._hidden(batch)

        def tried(hidden: Tensor, targets: Tensor, blocks: list[RowBlock], **options: Any) -> Any:
            names = usable_kernels(hidden, blocks, self.softcap)
            return try_kernels(names, hidden, targets, blocks, **options) if names else []

        trials: list[Trial] = self._score(tried, hidden, batch["labels"][:, 1:], self._options)
        return trials

    @torch.no_grad()
    def nats(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Loss of each token given the ones before it, ``(batch, time - 1)``; 0 where not scored.

        Args:
            batch: As in `mean_nats`.
        """
        if not self.is_streamed:
            return self._plain_nats(batch)
        return self._scored(token_nats, batch)

    @torch.no_grad()
    def shares(self, batch: Mapping[str, Tensor]) -> BlockShares:
        """How each prediction divides among the old rows, the new rows and the padding rows.

        Through the streamed head; a model whose own loss is used is not asked for its logits.

        Args:
            batch: As in `mean_nats`.

        Returns:
            Probability of each block of rows ``(batch, time - 1, blocks)``, old rows first, new
            rows second, and the best column ``(batch, time - 1)`` in the order of the blocks.

        Raises:
            ValueError: If the model's loss cannot be streamed.
        """
        if not self.is_streamed:
            raise ValueError(
                f"The loss of {type(self.model).__name__} is its own, not a plain head over hidden "
                "states, so there are no shares of its rows."
            )
        options = {name: self._options[name] for name in ("softcap", "logit_scale", "chunk_size")}
        return block_shares(self._hidden(batch), self._blocks(), **options)

    @property
    def _options(self) -> dict[str, Any]:
        """What both forms of the streamed loss are told."""
        return {
            "ignore_index": IGNORED,
            "softcap": self.softcap,
            "logit_scale": self.logit_scale,
            "chunk_size": self.chunk_size,
        }

    @torch.no_grad()
    def check(self, batch: Mapping[str, Tensor], agreed: Callable[[bool], bool] = bool) -> bool:
        """Compare the streamed loss with the model's own on a corner of one batch.

        Both are computed without dropout, which also leaves the random numbers of the run alone.
        Where they differ the model's own loss is used from then on, with a warning.

        Args:
            batch: As in `mean_nats`.
            agreed: Whether all ranks say yes. Ranks that share parameters must all take the same
                path; others decide for themselves.

        Returns:
            Whether the comparison is made; a corner without a scored position says nothing.
        """
        if not self.is_streamed:
            rank_zero_warn(
                f"{type(self.model).__name__} has no backbone of its own, so the loss builds all "
                "logits: expect the memory of (batch, time, rows)."
            )
            return True
        names = ("input_ids", "labels", "attention_mask")
        corner = {k: batch[k][:_PROBE_ROWS, :_PROBE_POSITIONS] for k in names if k in batch}
        if not agreed(bool((corner["labels"][:, 1:] != IGNORED).any())):
            return False
        with evaluating(self.model):
            streamed, own = self.nats(corner), self._plain_nats(corner)
        half = own.dtype != torch.float64 and self.model.dtype in (torch.float16, torch.bfloat16)
        tolerance = 5e-2 if half else 1e-3
        difference = float((streamed - own).abs().mean())
        differs = difference > tolerance * max(1.0, float(own.mean()))
        if not agreed(not differs):
            rank_zero_warn(
                f"The streamed loss differs from the loss of {type(self.model).__name__} by "
                f"{difference:.3g} nats a token, so the model does more between its backbone and "
                "its loss than a scale and a cap. Its own loss is used, which builds all logits."
            )
            self.is_streamed = False
        return True

    def _hidden(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Hidden states that predict the next token, ``(batch, time - 1, dim)``."""
        output = self.model.base_model(
            input_ids=batch["input_ids"],
            attention_mask=batch.get("attention_mask"),
            use_cache=False,
        )
        hidden: Tensor = output.last_hidden_state[:, :-1]
        return hidden

    def _plain_nats(self, batch: Mapping[str, Tensor]) -> Tensor:
        output = self.model(
            input_ids=batch["input_ids"],
            attention_mask=batch.get("attention_mask"),
            use_cache=False,
        )
        logits = output.logits[:, :-1]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return F.cross_entropy(
            logits.transpose(1, 2),
            batch["labels"][:, 1:],
            reduction="none",
            ignore_index=IGNORED,
        )

    def _scored(
        self, function: Callable[..., Tensor], batch: Mapping[str, Tensor], **options: Any
    ) -> Tensor:
        """What a streamed loss makes of the hidden states, the targets and the head's rows."""
        hidden, targets = self._hidden(batch), batch["labels"][:, 1:]
        return self._score(function, hidden, targets, {**self._options, **options})

    @uncompiled  # it makes its gradients itself
    def _score(
        self,
        function: Callable[..., _Result],
        hidden: Tensor,
        targets: Tensor,
        options: dict[str, Any],
    ) -> _Result:
        if self._split is None:
            return function(hidden, targets, self._blocks(), **options)
        return self._split[1].rows.score(function, hidden, targets, **options)

    def _blocks(self) -> list[RowBlock]:
        if self._split is not None:
            return self._split[1].rows.blocks()
        head = self.model.get_output_embeddings()
        return [RowBlock(head.weight, head.bias)]
