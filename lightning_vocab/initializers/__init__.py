"""Rows for new tokens: one method a file."""

from lightning_vocab.initializers.base import Initializer, PieceBags, RowContext
from lightning_vocab.initializers.combined import CombinedRows, RowWeights
from lightning_vocab.initializers.convex_hull import ConvexHull
from lightning_vocab.initializers.coverage import Coverage
from lightning_vocab.initializers.dictionary import DictionaryAlignment
from lightning_vocab.initializers.focus import FOCUS
from lightning_vocab.initializers.keep import Keep
from lightning_vocab.initializers.matching_pursuit import OrthogonalMatchingPursuit
from lightning_vocab.initializers.mean import Mean
from lightning_vocab.initializers.mixture import Mixture, Separate
from lightning_vocab.initializers.multivariate import Multivariate
from lightning_vocab.initializers.normal import Normal
from lightning_vocab.initializers.ofa import OFA
from lightning_vocab.initializers.similar import SimilarRows
from lightning_vocab.initializers.subword_mean import SubwordMean
from lightning_vocab.initializers.wechsel import WECHSEL
from lightning_vocab.initializers.zeros import Zeros

__all__ = [
    "FOCUS",
    "OFA",
    "WECHSEL",
    "CombinedRows",
    "ConvexHull",
    "Coverage",
    "DictionaryAlignment",
    "Initializer",
    "Keep",
    "Mean",
    "Mixture",
    "Multivariate",
    "Normal",
    "OrthogonalMatchingPursuit",
    "PieceBags",
    "RowContext",
    "RowWeights",
    "Separate",
    "SimilarRows",
    "SubwordMean",
    "Zeros",
]
