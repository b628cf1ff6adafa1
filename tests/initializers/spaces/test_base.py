from __future__ import annotations

import pytest
import torch

from lightning_vocab.initializers.spaces import TokenVectors
from tests.initializers.contexts import make_context

YES = torch.tensor([True])


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_known_token_has_a_direction(bad: float) -> None:
    vector = torch.full((1, 2), bad)
    with pytest.raises(ValueError, match="mark the others as unknown"):
        TokenVectors(torch.ones(1, 2), YES, vector, YES)
    assert TokenVectors(torch.ones(1, 2), YES, vector, ~YES).old is vector


def test_old_and_new_vectors_have_one_width() -> None:
    with pytest.raises(ValueError, match="one width, got 2 and 3"):
        TokenVectors(torch.ones(1, 2), YES, torch.ones(1, 3), YES)
    with pytest.raises(ValueError, match="a flag for each"):
        TokenVectors(torch.ones(2, 2), YES, torch.ones(1, 2), YES)


def test_coverage_names_what_the_space_does_not_know() -> None:
    context = make_context(torch.ones(300, 2))
    knows = torch.tensor([True, False, True])
    vectors = TokenVectors(torch.ones(3, 2), knows, torch.ones(2, 2), torch.tensor([True, True]))
    assert vectors.coverage("Here", context) == (
        "Here knows 2 of 3 new tokens and 2 of 2 base tokens; not 'cats'."
    )
