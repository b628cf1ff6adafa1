"""WECHSEL: softmax mixtures of the nearest base tokens across two aligned languages."""

from __future__ import annotations

from typing_extensions import override

from lightning_vocab.functional.neighbours import best_cosines
from lightning_vocab.initializers.base import Initializer, RowContext
from lightning_vocab.initializers.similar import GivenWeights, Likeness, SimilarRows
from lightning_vocab.initializers.spaces.base import AuxiliarySpace


class WECHSEL(SimilarRows):
    """Each row is a mixture of the rows of the k nearest base tokens.

    ``e_t = sum_i softmax(cos(a_t, a_i) / temperature)_i E_i`` over the k base tokens i with the
    largest cosine; the same weights for head rows and biases. Minixhofer, Paischer & Rekabsaz,
    "WECHSEL" (NAACL 2022, arXiv 2112.06598), where k is 10, the temperature 0.1 and the space two
    fastText models turned onto each other by a dictionary (`AlignedSpace`); a token without a
    vector is drawn there from N(mean, std), which is the fallback `Normal`.

    Cost: ``num_new * num_old * width`` products and the space's own. Memory: the vectors and one
    block of cosines, never a matrix of all.

    Args:
        space: Gives tokens vectors.
        k: Base tokens in a mixture.
        temperature: Divides the cosines. Small values favour the nearest.
        fallback: Makes the rows of tokens that the space does not know, such as `SubwordMean`. None
            makes such a token an error.

    Raises:
        ValueError: If ``k`` is below 1 or the temperature is not positive.

    Example:
        >>> from lightning_vocab.initializers.spaces.base_model import BaseModelSpace
        >>> WECHSEL(BaseModelSpace(), k=5).temperature
        0.1
    """

    def __init__(
        self,
        space: AuxiliarySpace,
        k: int = 10,
        temperature: float = 0.1,
        fallback: Initializer | None = None,
    ) -> None:
        super().__init__(space, fallback)
        if k < 1:
            raise ValueError(f"k must be at least 1 base token, got {k}.")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.k = k
        self.temperature = temperature

    @override
    def mixed(self, context: RowContext, likeness: Likeness) -> list[GivenWeights]:
        """Softmax weights of the k nearest.

        Raises:
            ValueError: If the space knows fewer than k base tokens.
        """
        if self.k > len(likeness.ids):
            raise ValueError(
                f"{type(self).__name__} mixes k={self.k} base tokens, but "
                f"{type(self.space).__name__} knows only {len(likeness.ids)} of "
                f"{len(context.base_ids)}: lower k, or give a space that knows more."
            )
        cosines, nearest = best_cosines(likeness.queries, likeness.keys, self.k)
        weights = (cosines / self.temperature).softmax(dim=1).flatten().cpu()
        owners = likeness.new.repeat_interleave(self.k)
        return [GivenWeights(owners, likeness.ids[nearest.flatten().cpu()], weights)]
