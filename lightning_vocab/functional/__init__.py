"""The mathematics: pure torch, no Lightning, no transformers."""

from lightning_vocab.functional.bits_per_byte import bits_per_byte
from lightning_vocab.functional.block_shares import BlockShares, block_shares
from lightning_vocab.functional.linear_cross_entropy import (
    RowBlock,
    linear_cross_entropy,
    token_nats,
)
from lightning_vocab.functional.matching_pursuit import (
    SparseCodes,
    orthogonal_matching_pursuit,
)
from lightning_vocab.functional.neighbours import NearestRows, best_cosines, nearest_cosine
from lightning_vocab.functional.procrustes import procrustes_rotation
from lightning_vocab.functional.renyi import renyi_efficiency
from lightning_vocab.functional.representation_similarity import (
    RepresentationSimilarity,
    representation_similarity,
)
from lightning_vocab.functional.slot_rows import RowFigures, look_untrained, row_figures
from lightning_vocab.functional.sparsemax import SparseWeights, sparsemax, sparsemax_cosine
from lightning_vocab.functional.spectrum import (
    RowNorms,
    effective_rank,
    mean_pairwise_cosine,
    participation_ratio,
    row_norms,
    singular_values,
    stable_rank,
    top1_share,
)
from lightning_vocab.functional.vocabulary_cost import VocabularyCost, vocabulary_cost

__all__ = [
    "BlockShares",
    "NearestRows",
    "RepresentationSimilarity",
    "RowBlock",
    "RowFigures",
    "RowNorms",
    "SparseCodes",
    "SparseWeights",
    "VocabularyCost",
    "best_cosines",
    "bits_per_byte",
    "block_shares",
    "effective_rank",
    "linear_cross_entropy",
    "look_untrained",
    "mean_pairwise_cosine",
    "nearest_cosine",
    "orthogonal_matching_pursuit",
    "participation_ratio",
    "procrustes_rotation",
    "renyi_efficiency",
    "representation_similarity",
    "row_figures",
    "row_norms",
    "singular_values",
    "sparsemax",
    "sparsemax_cosine",
    "stable_rank",
    "token_nats",
    "top1_share",
    "vocabulary_cost",
]
