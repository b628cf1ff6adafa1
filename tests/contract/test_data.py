"""Items 4, 5 and 15 on data as it is made, and on data that looks alike and is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from lightning_vocab.contract import ContractInputs, Finding, check_contract
from lightning_vocab.contract.caches import cached_places, carries
from lightning_vocab.data.cache import KnownTokenizer, RowCache
from lightning_vocab.data.rows import Collate, PackedRows, StoredRows
from lightning_vocab.data.sources import TextSource
from lightning_vocab.data.tokenise import Layout, frame_of
from lightning_vocab.vocabulary.fingerprint import fingerprint
from tests.conftest import TEXTS, make_tokenizer
from tests.contract.cases import edited, make_base_tokenizer, make_batch

LAYOUTS = [Layout("packed", 16), Layout("padded", 16, 1), Layout("padded", 16, 3)]


@pytest.fixture(scope="module", autouse=True)
def _no_bars() -> None:
    datasets.disable_progress_bars()


def findings_on(tokenizer: Any, **inputs: Any) -> dict[str, Finding]:
    found = check_contract(None, tokenizer, inputs=ContractInputs(**inputs))
    return {each.name: each for each in found if each.item in (4, 5, 15)}


def cached(tokenizer: Any, layout: Layout, folder: Path) -> tuple[RowCache, Any]:
    text = folder / "text.txt"
    text.write_text("\n".join([" ".join(TEXTS[:2]), TEXTS[0], "cat"]))
    source, known = (
        TextSource(str(text), split="train"),
        KnownTokenizer(tokenizer, fingerprint(tokenizer)),
    )
    cache = RowCache(folder / "cache")
    cache.prepare(source, known, layout)
    return cache, cache.load(source, known, layout)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("make", [make_base_tokenizer, make_tokenizer], ids=["bos", "bos is eos"])
def test_batches_and_caches_of_the_data_module_are_clean(
    make: Any, layout: Layout, tmp_path: Path
) -> None:
    tokenizer = make()
    cache, rows = cached(tokenizer, layout, tmp_path)
    frame = frame_of(tokenizer)
    stream: Any = StoredRows(rows)
    if layout.kind == "packed":
        stream = PackedRows([rows], 16, None if frame.starts_documents else frame.start)
    batch = Collate(frame.pad)([stream[place] for place in range(len(stream))])
    for given in ({"batch": batch}, {"cache": cache.folder}):
        found = findings_on(tokenizer, **given)
        assert "fail" not in {each.status for each in found.values()}, found
    assert found["cached data"].status == "pass"


@pytest.mark.parametrize("layout", [*LAYOUTS, Layout("whole", 16, 4)], ids=str)
def test_a_cache_names_its_tokenizer(layout: Layout, tmp_path: Path) -> None:
    tokenizer = make_base_tokenizer()
    cache, _ = cached(tokenizer, layout, tmp_path)
    (place,) = cached_places(cache.folder)
    assert carries(place, fingerprint(tokenizer)) is True
    assert carries(place, fingerprint(make_tokenizer())) is False
    assert cached_places(place) == [place]


def test_rows_that_do_not_name_their_tokenizer_are_a_warning(tmp_path: Path) -> None:
    tokenizer = make_base_tokenizer()
    cache, _ = cached(tokenizer, LAYOUTS[0], tmp_path)
    (place,) = cached_places(cache.folder)
    (place / "source.json").write_text("{}")
    found = findings_on(tokenizer, cache=cache.folder)["cached data"]
    assert found.status == "warn"
    assert "do not say" in found.found


def test_a_note_that_names_the_fingerprint_is_believed(tmp_path: Path) -> None:
    place = tmp_path / "rows"
    place.mkdir()
    (place / "source.json").write_text('{"tokenizer_fingerprint": "one"}')
    assert carries(place, "one") is True
    assert carries(place, "two") is False
    (place / "source.json").write_text('{"tokenizer')
    with pytest.raises(ValueError, match="is damaged"):
        carries(place, "one")


def test_a_cache_of_several_tokenizers_may_hold_others(tmp_path: Path) -> None:
    one, other = make_base_tokenizer(), make_tokenizer()
    cached(other, LAYOUTS[0], tmp_path)
    cache, _ = cached(one, LAYOUTS[0], tmp_path)
    found = findings_on(one, cache=cache.folder)["cached data"]
    assert (found.status, found.found[:7]) == ("pass", "1 of 2 ")


def test_a_chat_ends_with_its_end_token_and_a_line_break() -> None:
    tokenizer = make_base_tokenizer()
    batch = make_batch(tokenizer)
    for row, num_padded in enumerate(padding(tokenizer).tolist()):
        last = batch["input_ids"].shape[1] - num_padded
        batch["input_ids"][row, last] = tokenizer.encode("\n", add_special_tokens=False)[0]
        batch["attention_mask"][row, last] = 1
    found = findings_on(tokenizer, batch=batch)["start and end of the training data"]
    assert found.status == "pass"


def test_turns_of_a_chat_in_full_rows_are_at_most_a_warning() -> None:
    tokenizer = make_base_tokenizer()
    turn = [*tokenizer.encode("cat", add_special_tokens=False), tokenizer.eos_token_id]
    ids = torch.tensor([turn * 3])
    found = findings_on(tokenizer, batch={"input_ids": ids, "labels": ids})
    assert found["start and end of the training data"].status == "warn"


def pad_is_eos() -> tuple[Any, dict[str, torch.Tensor]]:
    tokenizer = make_base_tokenizer()
    batch = make_batch(tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    batch["input_ids"][batch["attention_mask"] == 0] = tokenizer.eos_token_id
    return tokenizer, batch


def test_pad_that_is_eos_is_told_apart_by_the_mask() -> None:
    tokenizer, batch = pad_is_eos()
    found = findings_on(tokenizer, batch=batch)["padding in labels"]
    assert found.status == "pass"
    assert "told apart by the mask" in found.found


def test_pad_that_is_eos_masked_by_id_loses_the_end_tokens() -> None:
    tokenizer, batch = pad_is_eos()
    batch["labels"][batch["labels"] == tokenizer.eos_token_id] = -100
    found = findings_on(tokenizer, batch=batch)["padding in labels"]
    assert found.status == "fail"
    assert "cannot learn to stop" in found.found


def test_a_prompt_that_is_no_target_is_no_fault() -> None:
    tokenizer = make_base_tokenizer()
    batch = make_batch(tokenizer)
    batch["labels"][:, :10] = -100
    assert findings_on(tokenizer, batch=batch)["padding in labels"].status == "pass"


def test_padding_on_the_left_is_as_good() -> None:
    tokenizer = make_base_tokenizer()
    batch = {}
    for name, part in make_batch(tokenizer).items():
        rolled = [row.roll(int(n)) for row, n in zip(part, padding(tokenizer), strict=True)]
        batch[name] = torch.stack(rolled)
    found = findings_on(tokenizer, batch=batch)
    assert found["padding in labels"].status == "pass"
    assert found["start and end of the training data"].status == "pass"


def padding(tokenizer: Any) -> torch.Tensor:
    return (make_batch(tokenizer)["attention_mask"] == 0).sum(dim=1)


def test_a_tokenizer_that_does_not_write_the_start_token_of_the_data_is_a_warning() -> None:
    tokenizer = make_base_tokenizer()
    batch = make_batch(tokenizer)
    bare = edited(tokenizer, lambda data: data.update(post_processor=None))
    found = findings_on(bare, batch=batch)["start and end of the training data"]
    assert found.status == "warn"
    assert "does not put in front" in found.found
