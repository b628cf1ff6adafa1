"""Rényi efficiency: how evenly a text uses a vocabulary."""

from __future__ import annotations

import math

from torch import Tensor


def renyi_efficiency(counts: Tensor, num_types: int, alpha: float = 2.5) -> float:
    """Rényi entropy of the unigram distribution over the most that the vocabulary allows.

    ``H_alpha(p) / log(num_types)`` with ``H_alpha(p) = log(sum(p**alpha)) / (1 - alpha)``, and the
    Shannon entropy at ``alpha = 1`` (Zouhar et al. 2023, arXiv 2306.16842, definitions 3.5 and
    3.6; 2.5 is the order that they find to tell most about translation). 1 where every token is
    used equally often; low where a few tokens make up the text or most of the vocabulary is idle.

    Args:
        counts: Occurrences of each token in the text, any shape; zeros change nothing.
        num_types: Tokens of the vocabulary, at least 2.
        alpha: Order of the entropy, positive; a larger one looks at frequent tokens more.

    Raises:
        ValueError: If there is no token, or an argument is out of range.

    Example:
        >>> import torch
        >>> round(renyi_efficiency(torch.tensor([5, 5, 5, 5]), num_types=4), 6)
        1.0
        >>> round(renyi_efficiency(torch.tensor([5, 5]), num_types=4), 6)
        0.5
    """
    if alpha <= 0 or num_types < 2:
        raise ValueError(
            f"Expected a positive alpha and at least 2 types, got {alpha} and {num_types}."
        )
    used = counts[counts > 0].double()
    if not used.numel():
        raise ValueError("Rényi efficiency needs at least one token, got none.")
    log_p = (used / used.sum()).log()
    if alpha == 1.0:
        entropy = -(log_p.exp() * log_p).sum()
    else:
        entropy = (alpha * log_p).logsumexp(0) / (1.0 - alpha)
    return float(entropy) / math.log(num_types)
