"""A base that has grown already: its rows are split where its own base ended."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, PreTrainedModel

from lightning_vocab.initializers import Keep, Mean
from lightning_vocab.rows import base_view, expand_model, export_model, find_split
from lightning_vocab.rows.split import SplitRows
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from tests.rows.bases import KINDS, LAYOUTS, Kind, Layout, ids_of, make_base, make_case


def exported(kind: Kind, layout: Layout, folder: Path) -> tuple[PreTrainedModel, ExpandedTokenizer]:
    """An expanded model whose new rows were moved, as a plain folder."""
    num_rows, expanded, multiple = make_case(layout)
    model = make_base(kind, num_rows)
    expand_model(model, expanded, Mean(), pad_to_multiple_of=multiple)
    with torch.no_grad():
        for part in {id(rows): rows for rows in rows_of(model)}.values():
            part.new.add_(torch.randn(part.new.shape))
            if part.new_bias is not None:
                part.new_bias.add_(1.0)
    export_model(model, expanded, folder)
    return model, expanded


def rows_of(model: torch.nn.Module) -> list[SplitRows]:
    split = find_split(model)
    assert split is not None
    return [part.rows for part in split]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_grown_base_goes_on_as_it_was(kind: Kind, layout: Layout, tmp_path: Path) -> None:
    before, expanded = exported(kind, layout, tmp_path / "export")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    expand_model(model, expanded, Keep(), is_grown=True)
    for was, now in zip(rows_of(before), rows_of(model), strict=True):
        for name, value in was.state_dict().items():
            kept = torch.ones(len(value), dtype=torch.bool)
            if name in ("old", "old_bias"):  # the export holds a new token's row in its slot
                kept[was.replaced_ids] = False
            assert torch.equal(now.state_dict()[name][kept], value[kept]), name
    ids = ids_of(expanded)
    assert_close(model(input_ids=ids).logits, before.eval()(input_ids=ids).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_view_of_a_grown_base_is_the_base_without_its_new_rows(
    kind: Kind, tmp_path: Path
) -> None:
    _, expanded = exported(kind, "appended", tmp_path / "export")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    expand_model(model, expanded, Keep(), is_grown=True)
    base, ids = make_base(kind), torch.arange(2, 12).unsqueeze(0)
    with base_view(model):
        found = model(input_ids=ids).logits
    assert torch.equal(found, base(input_ids=ids).logits)


def test_another_method_starts_the_rows_of_a_grown_base_anew(tmp_path: Path) -> None:
    _, expanded = exported("llama-untied", "appended", tmp_path / "export")
    model, base = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "export"),
        make_base("llama-untied"),
    )
    expand_model(model, expanded, Mean(noise=0.0), is_grown=True)
    mean = base.get_input_embeddings().weight.mean(dim=0)  # type: ignore[operator]  # a Tensor
    assert_close(rows_of(model)[0].new, mean.expand(3, -1))


def test_a_model_that_has_not_grown_is_refused_as_grown() -> None:
    _, expanded, _ = make_case("appended")
    with pytest.raises(ValueError, match=r"with 303 rows or more.*got one of 300"):
        expand_model(make_base("llama-tied"), expanded, Keep(), is_grown=True)
