"""Rows drawn like the rows of the base."""

from __future__ import annotations

from lightning_vocab.initializers.mean import Mean


class Multivariate(Mean):
    """Rows drawn from N(mean, covariance) of the base rows that have a token.

    The multivariate baseline of Mundra et al., "An Empirical Comparison of Vocabulary Expansion and
    Initialization Approaches for Language Models" (arXiv 2407.05841), found on par with learned
    methods. It is `Mean` with noise 1, under the name that the literature has for it. In a head,
    such rows take more probability than those of a small noise: see `Mean`.

    Cost and memory: those of `Mean`.
    """

    def __init__(self) -> None:
        super().__init__(noise=1.0)
