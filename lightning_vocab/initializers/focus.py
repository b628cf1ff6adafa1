"""FOCUS: sparse mixtures of the base tokens that are alike."""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import torch
from torch import Tensor
from typing_extensions import override

from lightning_vocab.functional.sparsemax import sparsemax_cosine
from lightning_vocab.initializers.base import Initializer, RowContext
from lightning_vocab.initializers.scripts import script_of
from lightning_vocab.initializers.similar import GivenWeights, Likeness, SimilarRows
from lightning_vocab.initializers.spaces.base import AuxiliarySpace
from lightning_vocab.initializers.spaces.base_model import BaseModelSpace
from lightning_vocab.vocabulary.wording import some

Pool = Literal["all", "script"]


class FOCUS(SimilarRows):
    """Each row is a sparse convex mixture of the rows of base tokens that are alike.

    ``e_t = sum_o w_o E_o`` with ``w = sparsemax(cos(a_t, a_o) / temperature)`` over the base tokens
    o that the auxiliary space a knows; the same weights for head rows and biases. A new token whose
    text is a base token's copies its row. Dobler & de Melo, "FOCUS" (EMNLP 2023, arXiv 2305.14481),
    where the temperature is 1 and the space is fastText trained on tokenised text
    (`FastTextSpace`); a token without a vector is drawn there from N(mean, std), which is the
    fallback `Normal`.

    Cost: ``num_new * num_old * width`` products and the space's own. Memory: the vectors and one
    block of cosines, never a matrix of all.

    Args:
        space: Gives tokens vectors; `BaseModelSpace` if not given.
        temperature: Divides the cosines. Small values leave few base tokens in the mixture.
        pool: ``all`` mixes any base tokens; ``script`` only those of the new token's script. For a
            script of which the space knows no base token, ``script`` takes all and warns.
        copy_equal: Whether a token with the text of a base token copies its row.
        fallback: Makes the rows of tokens that the space does not know, such as `SubwordMean`. None
            makes such a token an error.

    Raises:
        ValueError: If the temperature is not positive or the pool is unknown.

    Example:
        >>> method = FOCUS(temperature=0.05, pool="script")
        >>> type(method.space).__name__
        'BaseModelSpace'
    """

    def __init__(
        self,
        space: AuxiliarySpace | None = None,
        temperature: float = 1.0,
        pool: Pool = "all",
        copy_equal: bool = True,
        fallback: Initializer | None = None,
    ) -> None:
        super().__init__(space or BaseModelSpace(), fallback, copy_equal=copy_equal)
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        if pool not in get_args(Pool):
            raise ValueError(f"pool must be all or script: got {pool!r}.")
        self.temperature = temperature
        self.pool = pool

    @override
    def mixed(self, context: RowContext, likeness: Likeness) -> list[GivenWeights]:
        """Sparsemax weights, script after script where the pool is the script."""
        if self.pool == "all":
            return [self._sparse(likeness)]
        tokens = context.expansion.tokens
        wanted = [script_of(tokens[place].surface) for place in likeness.new.tolist()]
        found = [script_of(text) for text in context.texts(likeness.ids.tolist())]
        numbers = {script: number for number, script in enumerate(sorted({*wanted, *found}))}
        of_new = torch.tensor([numbers[script] for script in wanted])
        of_old = torch.tensor([numbers[script] for script in found])
        missing = sorted(set(wanted) - set(found))
        if missing:
            count = sum(script in missing for script in wanted)
            warnings.warn(
                f"The space knows no base token of the scripts {some(missing)}: {count} new "
                f"tokens of {len(tokens)} are mixed from base tokens of all scripts.",
                stacklevel=2,
            )
        parts = []
        for script in sorted(set(wanted)):
            new = (of_new == numbers[script]).nonzero().flatten()
            is_old = of_old == numbers[script]
            old = (is_old if is_old.any() else torch.ones_like(is_old)).nonzero().flatten()
            parts.append(self._sparse(_part(likeness, new, old)))
        return parts

    def _sparse(self, likeness: Likeness) -> GivenWeights:
        found = sparsemax_cosine(likeness.queries, likeness.keys, self.temperature)
        owners = likeness.new.repeat_interleave(found.counts.cpu())
        return GivenWeights(owners, likeness.ids[found.ids.cpu()], found.weights.cpu())


def _part(likeness: Likeness, new: Tensor, old: Tensor) -> Likeness:
    device = likeness.keys.device
    queries, keys = likeness.queries[new.to(device)], likeness.keys[old.to(device)]
    return Likeness(likeness.new[new], queries, likeness.ids[old], keys)
