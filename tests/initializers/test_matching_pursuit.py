from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lightning_vocab.initializers import Mean, SubwordMean
from lightning_vocab.initializers.matching_pursuit import OrthogonalMatchingPursuit
from tests.conftest import make_model
from tests.initializers.contexts import WORDS, id_of, make_context, pico_tokenizer

NUM_DONOR = 303
NEW = (*WORDS[:2], "zebra")  # the donor does not have the last one


def write_donor(
    folder: Path, *, tied: bool = False, rows: Tensor | None = None, head: Tensor | None = None
) -> str:
    """A model of the pico tokenizer with the words cats, catdog and <|tool|>, in this order."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pico_tokenizer().backend_tokenizer.__class__.from_str(
            pico_tokenizer().backend_tokenizer.to_str()
        ),
        bos_token="<|end|>",
        eos_token="<|end|>",
    )
    tokenizer.add_tokens([WORDS[1], WORDS[0], WORDS[2]])
    model = make_model(NUM_DONOR, tied=tied)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.randn(NUM_DONOR, 32) + 0.2)
        if rows is not None:
            model.model.embed_tokens.weight.copy_(rows)
        if not tied:
            model.lm_head.weight.copy_(torch.randn(NUM_DONOR, 32) if head is None else head)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def donor_rows(folder: str, name: str = "model.embed_tokens") -> Tensor:
    tensors: dict[str, Tensor] = load_file(Path(folder) / "model.safetensors")
    return tensors[f"{name}.weight"]


def naive(target: Tensor, donor: Tensor, base: Tensor, k: int) -> Tensor:
    """The paper's row: greedy choice among donor rows, least squares, the weights on base rows."""
    target, donor, base = target.double(), donor.double(), base.double()
    residual, ids = target, list[int]()
    for _ in range(k):
        scores = (donor @ residual).abs() / donor.norm(dim=1)
        scores[ids] = -1
        ids.append(int(scores.argmax()))
        weights = torch.linalg.lstsq(donor[ids].T, target[:, None]).solution[:, 0]
        residual = target - weights @ donor[ids]
    row: Tensor = weights @ base[ids]
    return row


def anchors() -> list[int]:
    """Ids that base and donor share: whole characters, not special. They are the same ids."""
    context = make_context(torch.ones(300, 2))
    texts = context.texts(range(300))
    special = context.tokenizer.all_special_ids
    return [id for id, text in enumerate(texts) if "\ufffd" not in text and id not in special]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("tied", "tied_donor"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_rows_are_the_donor_s_sums_over_base_rows(
    tied: bool, tied_donor: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    donor = write_donor(tmp_path, tied=tied_donor)
    inputs, outputs = torch.randn(310, 8).to(dtype), torch.randn(310, 8).to(dtype)
    inputs[300:], outputs[300:] = 1e6, 1e6  # padded rows
    context = make_context(inputs, None if tied else outputs)
    method = OrthogonalMatchingPursuit(donor, k=6)
    made = method.rows(context)
    assert (made[1] is None) == tied
    for place, (rows, base) in enumerate(zip(made, (inputs, outputs), strict=True)):
        if rows is None:
            continue
        own_head = place == 1 and not tied_donor
        known = donor_rows(donor, "lm_head" if own_head else "model.embed_tokens")
        for row, id in zip(rows, (301, 300, 302), strict=True):  # the donor's ids of the words
            expected = naive(known[id], known[anchors()], base[anchors()], 6)
            torch.testing.assert_close(row.double(), expected, atol=1e-4, rtol=1e-4)
    assert method.coverage is not None
    assert method.coverage.share == 1


def test_a_word_that_the_donor_has_like_an_old_one_gets_that_row(tmp_path: Path) -> None:
    known = torch.randn(NUM_DONOR, 32)
    known[301] = 3 * known[id_of("cat")]
    donor = write_donor(tmp_path, rows=known)
    rows = torch.randn(300, 8)
    made = OrthogonalMatchingPursuit(donor, k=5).rows(make_context(rows, words=["catdog"]))[0]
    torch.testing.assert_close(made[0], 3 * rows[id_of("cat")])


def test_a_donor_with_the_base_s_own_rows_gives_its_row_back(tmp_path: Path) -> None:
    known = torch.randn(NUM_DONOR, 32)
    donor = write_donor(tmp_path, rows=known)
    made = OrthogonalMatchingPursuit(donor, k=40).rows(make_context(known[:300]))[0]
    # 32 dimensions: as many shared rows rebuild any row.
    torch.testing.assert_close(made, known[[301, 300, 302]], atol=1e-3, rtol=1e-3)


def test_words_that_the_donor_lacks_or_never_trained_go_to_the_fallback(tmp_path: Path) -> None:
    known = torch.randn(NUM_DONOR, 32)
    known[300] = 0  # cats
    donor = write_donor(tmp_path, rows=known)
    rows, head, bias = torch.randn(300, 8), torch.randn(300, 8), torch.arange(300.0)
    context = make_context(rows, head, words=NEW, output_bias=bias)
    method = OrthogonalMatchingPursuit(donor, k=5, fallback=SubwordMean())
    made = method.rows(context)
    assert str(method.coverage) == (
        "OrthogonalMatchingPursuit made 1 of 3 new tokens (33.3%); "
        "SubwordMean made the other 2: 'cats', 'zebra'."
    )
    for found, expected in zip(made, SubwordMean().rows(context), strict=True):
        assert found is not None
        assert expected is not None
        assert torch.equal(found[1:], expected[1:])
        assert not torch.equal(found[0], expected[0])
    assert method.bias(context)[0] == 149.5
    assert torch.equal(method.bias(context)[1:], SubwordMean().bias(context)[1:])
    strict = OrthogonalMatchingPursuit(donor, k=5)
    with pytest.raises(ValueError, match=r"nothing to make 2 of 3 new tokens .*'cats', 'zebra'"):
        strict.rows(context)


def test_without_a_fallback_the_bias_is_the_mean(tmp_path: Path) -> None:
    donor = write_donor(tmp_path)
    rows = torch.randn(300, 8)
    context = make_context(rows, rows, output_bias=torch.arange(300.0))
    assert OrthogonalMatchingPursuit(donor).bias(context).tolist() == [149.5] * 3


def test_no_word_in_common_leaves_all_to_the_fallback(tmp_path: Path) -> None:
    donor = write_donor(tmp_path)
    context = make_context(torch.randn(300, 8), words=["zebra", "quartz"])
    method = OrthogonalMatchingPursuit(donor, k=5, fallback=Mean(noise=0))
    assert torch.equal(method.rows(context)[0], Mean(noise=0).rows(context)[0])
    assert method.coverage is not None
    assert method.coverage.share == 0


def test_the_order_of_words_changes_nothing_and_old_rows_do_not_move(tmp_path: Path) -> None:
    donor = write_donor(tmp_path)
    rows = torch.randn(300, 8)
    before = rows.clone()
    method = OrthogonalMatchingPursuit(donor, k=5)
    forward = method.rows(make_context(rows, words=WORDS))[0]
    backward = method.rows(make_context(rows, words=WORDS[::-1]))[0]
    torch.testing.assert_close(forward, backward.flip(0))
    assert torch.equal(rows, before)


def test_fewer_shared_tokens_than_asked_for_are_an_error(tmp_path: Path) -> None:
    donor = write_donor(tmp_path)
    shared = len(anchors())
    message = rf"k = {shared + 1} shared tokens were asked for, but .* share {shared}: "
    with pytest.raises(ValueError, match=message):
        OrthogonalMatchingPursuit(donor, k=shared + 1).rows(make_context(torch.randn(300, 8)))


@pytest.mark.parametrize(("id", "is_needed"), [(301, True), (id_of("cat"), True), (0, False)])
def test_nan_in_a_row_of_the_donor_is_an_error_where_it_is_needed(
    id: int, is_needed: bool, tmp_path: Path
) -> None:
    donor = write_donor(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"][id, 3] = torch.nan  # id 0 is a special token
    save_file(tensors, tmp_path / "model.safetensors")
    method, context = OrthogonalMatchingPursuit(donor, k=5), make_context(torch.randn(300, 8))
    if is_needed:
        with pytest.raises(ValueError, match=r"nan or inf in the rows of 1 tokens .*'cat"):
            method.rows(context)
    else:
        assert method.rows(context)[0].isfinite().all()


def test_bad_arguments_and_donors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be positive: got 0 and 1\.0"):
        OrthogonalMatchingPursuit("donor", k=0)
    with pytest.raises(ValueError, match="must be positive: got 64 and 0"):
        OrthogonalMatchingPursuit("donor", memory_gib=0)
    pico_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="a tokenizer alone"):
        OrthogonalMatchingPursuit(str(tmp_path)).rows(make_context(torch.randn(300, 8)))
