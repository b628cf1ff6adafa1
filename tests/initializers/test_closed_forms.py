"""What every closed form must do inside a model, whatever its formula."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_vocab.initializers import Initializer, SubwordMean
from lightning_vocab.initializers.convex_hull import ConvexHull
from lightning_vocab.initializers.dictionary import DictionaryAlignment
from lightning_vocab.initializers.matching_pursuit import OrthogonalMatchingPursuit
from lightning_vocab.initializers.multivariate import Multivariate
from lightning_vocab.rows import expand_model
from lightning_vocab.rows.split import SplitEmbedding, SplitHead
from lightning_vocab.rows.ties import is_tied
from tests.conftest import make_model
from tests.expanded import make_expanded
from tests.initializers.contexts import WORDS, pico_tokenizer
from tests.initializers.test_matching_pursuit import write_donor


def dictionary(folder: Path) -> Initializer:
    path = folder / "pairs.tsv"
    path.write_text("the\tcatdog\ndog\tcats\n", encoding="utf-8")
    return DictionaryAlignment(path, fallback=SubwordMean())


METHODS: dict[str, Callable[[Path], Initializer]] = {
    "pieces": lambda _: SubwordMean("all", "bytes", "position", "last"),
    "hull": lambda _: ConvexHull(),
    "multivariate": lambda _: Multivariate(),
    "dictionary": dictionary,
    "pursuit": lambda folder: OrthogonalMatchingPursuit(write_donor(folder), k=8),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_old_rows_never_move_ties_stay_and_every_run_is_the_same(
    name: str, tied: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    method, made = METHODS[name](tmp_path), []
    expanded = make_expanded(pico_tokenizer(), WORDS, base_rows=304)
    for seed in range(2):  # as two ranks would
        torch.manual_seed(seed)
        model = make_model(304, tied=tied, dtype=dtype)  # four padded rows: three get a token
        inputs, outputs = model.model.embed_tokens.weight, model.lm_head.weight
        before = inputs.detach().clone(), outputs.detach().clone()
        expand_model(model, expanded, method)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        assert isinstance(embedding, SplitEmbedding)
        assert isinstance(head, SplitHead)
        assert is_tied(model) == tied
        assert embedding.rows.old is inputs
        assert torch.equal(inputs, before[0])
        assert torch.equal(outputs, before[1])
        assert embedding.rows.new.dtype == torch.float32  # whatever the old rows are
        made.append((embedding.rows.new.detach(), head.rows.new.detach()))
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))
