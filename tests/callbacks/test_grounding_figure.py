from __future__ import annotations

import pytest
import torch

from lightning_vocab.callbacks.grounding_figure import RowPicture, draw_grounding, shown_places


def test_each_matrix_is_drawn_in_a_line_of_its_own() -> None:
    pytest.importorskip("matplotlib")
    picture = RowPicture(torch.tensor([2.0, 0.0]), torch.tensor([3.0, 1.0]), torch.eye(5), 3)
    both = {"input": picture, "output": picture}
    figure = draw_grounding(both, both, "words", torch.randn(3, 4))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles.count("cosines after: 3 new rows, then 2 old") == 2
    assert titles.count("meanings of these tokens (words)") == 2
    assert "spectrum, output rows" in titles


def test_the_shown_tokens_are_stretches_of_neighbours() -> None:
    assert shown_places(7).tolist() == list(range(7))
    found = shown_places(103)
    assert len(set(found.tolist())) == 50
    assert found[:10].tolist() == list(range(10))
    assert found[-10:].tolist() == list(range(93, 103))
    assert (found.view(5, 10).diff(dim=1) == 1).all()
