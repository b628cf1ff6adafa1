from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from lightning_vocab.initializers import Normal, SubwordMean
from lightning_vocab.rows.expand import expand_model
from lightning_vocab.rows.export import export_model
from lightning_vocab.rows.locate import find_split
from lightning_vocab.rows.ties import is_tied
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from lightning_vocab.vocabulary.folder import load_expansion, save_expansion
from tests.conftest import make_model, make_tokenizer
from tests.expanded import make_expanded
from tests.rows.bases import KINDS, LAYOUTS, WORDS, Kind, Layout, ids_of, make_base, make_case

TEXT = "the catdog sat <|tool|> textlog on the log"


@torch.no_grad()
def logits_of(model: Any, ids: Tensor) -> Tensor:
    logits: Tensor = model(ids).logits
    return logits


def expanded_llama(*, tied: bool = True) -> tuple[LlamaForCausalLM, ExpandedTokenizer]:
    model, expanded = make_model(tied=tied), make_expanded(make_tokenizer(), WORDS)
    expand_model(model, expanded, SubwordMean(), pad_to_multiple_of=16)
    return model, expanded


@pytest.mark.parametrize(
    ("kind", "layout"),
    [*((kind, "slot") for kind in KINDS), *(("llama-untied", layout) for layout in LAYOUTS)],
)
def test_the_export_says_what_the_model_says(kind: Kind, layout: Layout, tmp_path: Path) -> None:
    num_rows, expanded, multiple = make_case(layout)
    model: Any = make_base(kind, num_rows)
    ids = ids_of(expanded, TEXT)
    expand_model(model, expanded, Normal(0.2), pad_to_multiple_of=multiple)
    path = export_model(model, expanded, tmp_path / "plain")
    plain: Any = AutoModelForCausalLM.from_pretrained(path)
    assert type(plain) is type(model)
    assert torch.allclose(logits_of(plain, ids), logits_of(model, ids), atol=1e-5)
    assert is_tied(plain) == is_tied(model)
    split = find_split(model)
    assert split is not None
    assert torch.equal(plain.get_input_embeddings().weight, split[0].rows.merged()[0])
    assert torch.equal(plain.get_output_embeddings().weight, split[1].rows.merged()[0])
    assert AutoTokenizer.from_pretrained(path).encode(TEXT) == expanded.tokenizer.encode(TEXT)


def test_half_precision_is_kept_bit_for_bit(tmp_path: Path) -> None:
    model = make_model(tied=False, dtype=torch.bfloat16)
    expanded = make_expanded(make_tokenizer(), WORDS)
    expand_model(model, expanded, SubwordMean())
    split = find_split(model)
    assert split is not None
    saved = load_file(export_model(model, expanded, tmp_path / "plain") / "model.safetensors")
    assert torch.equal(saved["model.embed_tokens.weight"], split[0].rows.merged()[0])
    assert torch.equal(saved["lm_head.weight"], split[1].rows.merged()[0])
    rest = {name: tensor for name, tensor in model.state_dict().items() if "rows" not in name}
    assert saved.keys() - rest.keys() == {"model.embed_tokens.weight", "lm_head.weight"}
    assert all(torch.equal(saved[name], tensor) for name, tensor in rest.items())


def test_the_folder_is_plain_and_shows_no_trace(tmp_path: Path) -> None:
    model, expanded = expanded_llama()
    path = export_model(model, expanded, tmp_path / "plain")
    assert sorted(file.name for file in path.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab_expansion.json",
    ]
    for file in path.glob("*config.json"):
        assert "Split" not in file.read_text()
        assert "lightning" not in file.read_text()
    assert json.loads((path / "config.json").read_text())["vocab_size"] == 304
    assert list(tmp_path.iterdir()) == [path]


def test_the_manifest_is_readable_in_the_export(tmp_path: Path) -> None:
    model, expanded = expanded_llama()
    assert load_expansion(export_model(model, expanded, tmp_path / "plain")).expansion == (
        expanded.expansion
    )


def test_a_tokenizer_alone_writes_no_manifest(tmp_path: Path) -> None:
    model, expanded = expanded_llama()
    path = export_model(model, expanded.tokenizer, tmp_path / "plain")
    assert not (path / "vocab_expansion.json").exists()


@pytest.mark.parametrize("tied", [True, False])
def test_the_live_model_is_not_touched(tied: bool, tmp_path: Path) -> None:
    model, expanded = expanded_llama(tied=tied)
    parameters = {name: id(value) for name, value in model.named_parameters()}
    modules = {name: id(module) for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    config, generation = model.config.to_dict(), model.generation_config.to_dict()
    export_model(model, expanded, tmp_path / "plain")
    assert {name: id(value) for name, value in model.named_parameters()} == parameters
    assert {name: id(module) for name, module in model.named_modules()} == modules
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.config.to_dict() == config
    assert model.generation_config.to_dict() == generation
    assert all(value.requires_grad for value in model.parameters())


def test_generation_never_picks_an_id_without_a_token(tmp_path: Path) -> None:
    # Ids 300 to 302 are new; 303 to 309 are padded rows of the base, 310 and 311 are padding.
    model: Any = make_model(310)
    expanded = make_expanded(make_tokenizer(), WORDS, base_rows=310)
    model.generation_config.suppress_tokens = [5]
    expand_model(model, expanded, SubwordMean(), pad_to_multiple_of=8)
    ids = ids_of(expanded, TEXT)
    with torch.no_grad():  # without suppression the padded row 303 wins
        model.model.embed_tokens.rows.old[303] = 9 * model.model(ids).last_hidden_state[0, -1]
    assert int(logits_of(model, ids)[0, -1].argmax()) == 303
    path = export_model(model, expanded, tmp_path / "plain")
    plain: Any = AutoModelForCausalLM.from_pretrained(path)
    assert plain.generation_config.suppress_tokens == [5, *range(303, 312)]
    sampled = plain.generate(
        ids, max_new_tokens=20, min_new_tokens=20, do_sample=True, pad_token_id=0
    )
    assert sampled.shape[1] == ids.shape[1] + 20
    assert not set(sampled[0].tolist()) & {5, *range(303, 312)}


def test_a_full_vocabulary_suppresses_nothing(tmp_path: Path) -> None:
    model, expanded = make_model(), make_expanded(make_tokenizer(), WORDS)
    expand_model(model, expanded, SubwordMean())
    path = export_model(model, expanded, tmp_path / "plain")
    assert "suppress_tokens" not in json.loads((path / "generation_config.json").read_text())


@pytest.mark.parametrize("says_tied", [True, False])
def test_ties_of_the_model_hold_against_the_config(says_tied: bool, tmp_path: Path) -> None:
    model, expanded = make_model(tied=says_tied), make_expanded(make_tokenizer(), WORDS)
    embedding, head = model.model.embed_tokens, model.lm_head
    head.weight = nn.Parameter(torch.randn(300, 32)) if says_tied else embedding.weight
    expand_model(model, expanded, SubwordMean())
    plain = AutoModelForCausalLM.from_pretrained(export_model(model, expanded, tmp_path / "plain"))
    assert is_tied(plain) is not says_tied
    ids = ids_of(expanded, TEXT)
    assert torch.allclose(logits_of(plain, ids), logits_of(model, ids), atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_that_was_not_expanded_is_saved_as_it_is(tied: bool, tmp_path: Path) -> None:
    model, tokenizer = make_model(tied=tied), make_tokenizer()
    path = export_model(model, tokenizer, tmp_path / "plain")
    plain = AutoModelForCausalLM.from_pretrained(path)
    assert is_tied(plain) is tied
    ids = torch.tensor([tokenizer.encode("the cat")])
    assert torch.equal(logits_of(plain, ids), logits_of(model, ids))


def test_an_export_can_be_expanded_again(tmp_path: Path) -> None:
    model, expanded = expanded_llama()
    plain = AutoModelForCausalLM.from_pretrained(export_model(model, expanded, tmp_path / "plain"))
    second = make_expanded(expanded.tokenizer, ["dogcat"], base_rows=304)
    ids = ids_of(expanded, TEXT)
    before = logits_of(plain, ids)
    expand_model(plain, second, SubwordMean())
    assert second.expansion.new_ids == (303,)
    assert torch.equal(logits_of(plain, ids)[..., :303], before[..., :303])


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    model, expanded = expanded_llama()
    export_model(model, expanded, tmp_path / "plain")
    with pytest.raises(FileExistsError, match="choose another path or set overwrite"):
        export_model(model, expanded, tmp_path / "plain")


def test_overwrite_replaces_the_whole_model(tmp_path: Path) -> None:
    model, expanded = expanded_llama()
    path = export_model(model, expanded, tmp_path / "plain")
    (path / "stale.txt").write_text("of the former model")
    with torch.no_grad():
        model.model.norm.weight.fill_(7)
    export_model(model, expanded, path, overwrite=True)
    assert not (path / "stale.txt").exists()
    assert load_file(path / "model.safetensors")["model.norm.weight"].tolist() == [7.0] * 32
    assert list(tmp_path.iterdir()) == [path]


def test_overwrite_spares_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("dear reader")
    model, expanded = expanded_llama()
    with pytest.raises(FileExistsError, match="is no folder of a model"):
        export_model(model, expanded, tmp_path / "letters", overwrite=True)
    assert (tmp_path / "letters" / "letter.txt").read_text() == "dear reader"


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("is_broken", [True, False])
def test_a_link_is_never_replaced(is_broken: bool, overwrite: bool, tmp_path: Path) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    target = tmp_path / "target"
    if not is_broken:
        export_model(model, tokenizer, target)
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(FileExistsError, match="is a link"):
        export_model(model, tokenizer, link, overwrite=overwrite)
    assert link.is_symlink()
    assert target.exists() != is_broken
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"][: 2 - is_broken]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export_model(make_model(), make_tokenizer(), tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file()


def test_a_tokenizer_alone_never_replaces_an_exported_model(tmp_path: Path) -> None:
    expanded = make_expanded(make_tokenizer(), WORDS)
    model = make_model()
    expand_model(model, expanded, SubwordMean())
    folder = export_model(model, expanded, tmp_path / "out")
    with pytest.raises(FileExistsError, match="holds a model"):
        save_expansion(expanded, folder, overwrite=True)
    assert (folder / "model.safetensors").is_file()


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, expanded = expanded_llama()

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(type(expanded.tokenizer), "save_pretrained", full)
    with pytest.raises(OSError, match="disk full"):
        export_model(model, expanded, tmp_path / "plain")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_with_more_ids_than_rows_is_refused(tmp_path: Path) -> None:
    expanded = make_expanded(make_tokenizer(), WORDS)
    with pytest.raises(ValueError, match="got id 302 for a model of 300 rows"):
        export_model(make_model(), expanded, tmp_path / "plain")


def test_the_manifest_of_other_rows_is_refused(tmp_path: Path) -> None:
    model, _ = expanded_llama()
    other = make_expanded(make_tokenizer(), WORDS[:2])
    with pytest.raises(ValueError, match="model's 3 new rows, got one of 2 other rows"):
        export_model(model, other, tmp_path / "plain")


def test_a_tokenizer_that_left_its_manifest_is_refused(tmp_path: Path) -> None:
    model, expanded = expanded_llama()
    expanded.tokenizer.chat_template = "{{ messages }}"
    with pytest.raises(ValueError, match="not the one that its manifest describes"):
        export_model(model, expanded, tmp_path / "plain")
