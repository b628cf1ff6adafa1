"""New tokens counted in the rows of a run, before it starts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import datasets
import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_vocab.callbacks.token_frequency import NewTokenFrequency
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.vocabulary import ContinuedBPE, load_tokenizer, save_expansion
from tests.conftest import NEW_TEXTS, TEXTS
from tests.quiet import quiet_trainer


@pytest.fixture(scope="module")
def expansion(tied_folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    base = load_tokenizer(tied_folder)
    grown = ContinuedBPE(num_new_tokens=12).extend(base, NEW_TEXTS * 4, base_rows=300)
    return str(save_expansion(grown, tmp_path_factory.mktemp("grown") / "expansion"))


@pytest.fixture(autouse=True)
def _no_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def run(
    place: Path,
    base: str,
    expansion: str | None,
    callback: NewTokenFrequency,
    layout: Literal["packed", "padded"] = "packed",
    **options: Any,
) -> VocabDataModule:
    text = place.parent / "frequency.jsonl"  # its rows are cut once for all tests
    if not text.exists():
        texts = [*TEXTS, *NEW_TEXTS[:1]] * 4
        lines = "".join(json.dumps({"text": each}) + "\n" for each in texts)
        text.write_text(lines, encoding="utf-8")
    data = VocabDataModule(
        base,
        expansion,
        train=str(text),
        block_size=16,
        batch_size=2,
        layout=layout,
        cache_dir=str(place.parent / "cache"),
    )
    module = VocabExpansionModule(base=base, expansion_dir=expansion)
    settings = {"limit_val_batches": 0, "max_epochs": 3, **options}
    quiet_trainer(place, [callback], **settings).fit(module, data)
    return data


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_updates_are_those_of_the_rows_that_the_run_reads(
    layout: Literal["packed", "padded"],
    tmp_path: Path,
    tied_folder: str,
    expansion: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    callback = NewTokenFrequency(floor=13)
    with pytest.warns(UserWarning, match="fewer than 13 direct updates"):
        data = run(tmp_path, tied_folder, expansion, callback, layout)
    found = callback.frequency
    assert found is not None
    seen = {token.id for token in found.tokens}
    per_epoch = dict.fromkeys(seen, 0)
    for document in [*TEXTS, *NEW_TEXTS[:1]] * 4:
        for id_ in data.tokenizer(document).input_ids:
            if id_ in seen:
                per_epoch[id_] += 1
    counts = dict(zip((token.id for token in found.tokens), found.counts.tolist(), strict=True))
    assert counts == per_epoch
    assert max(counts.values()) > 0
    assert found.num_training_tokens == pytest.approx(3 * found.num_text_tokens, rel=1e-6)
    said = capsys.readouterr().out
    assert f"{len(found.below(13))} of 12 new rows" in said


def test_steps_and_not_epochs_say_how_long_the_run_is(
    tmp_path: Path, tied_folder: str, expansion: str
) -> None:
    callback = NewTokenFrequency(floor=1e-9)
    with pytest.warns(UserWarning, match="direct updates"):
        data = run(
            tmp_path,
            tied_folder,
            expansion,
            callback,
            max_epochs=-1,
            max_steps=2,
            accumulate_grad_batches=2,
        )
    found = callback.frequency
    assert found is not None
    share = 2 * 2 / len(data.train_dataloader())
    assert found.num_training_tokens == round(found.num_text_tokens * share)


def test_a_run_without_new_tokens_or_without_an_end_is_refused(
    tmp_path: Path, tied_folder: str, expansion: str
) -> None:
    with pytest.raises(MisconfigurationException, match="expansion_dir"):
        run(tmp_path, tied_folder, None, NewTokenFrequency())
    with pytest.raises(MisconfigurationException, match="without an end"):
        run(tmp_path, tied_folder, expansion, NewTokenFrequency(), max_epochs=-1)
    with pytest.raises(ValueError, match="positive floor"):
        NewTokenFrequency(floor=0)
