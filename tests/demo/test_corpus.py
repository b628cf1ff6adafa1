from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lightning_vocab.demo.corpus import MIN_CHARACTERS, Split, code, english
from tests.conftest import case

SPLITS: tuple[Split, Split] = ("train", "validation")
Source = Callable[[Split], Iterator[str]]


# The first call of `english` reads every docstring of the standard library.
@pytest.mark.parametrize("source", [case(english, quick=False), case(code, quick=True)])
def test_splits_are_disjoint_and_repeatable(source: Source) -> None:
    train, validation = list(source("train")), list(source("validation"))
    assert train == list(source("train"))
    assert not set(train) & set(validation)
    assert len(train) > 4 * len(validation) > 0


@pytest.mark.slow
def test_a_module_held_out_of_the_prose_is_held_out_of_the_code() -> None:
    held_out_code = "".join(code("validation"))
    train_prose = set(english("train"))
    held_out_prose = [text for text in english("validation") if text not in train_prose]
    # The first line of a module's docstring stands in its source as it is.
    first_lines = [text.splitlines()[0] for text in held_out_prose]
    assert sum(line in held_out_code for line in first_lines) > len(first_lines) / 3


@pytest.mark.slow
def test_no_paragraph_of_prose_is_in_both_splits() -> None:
    train, validation = (
        {paragraph for text in english(split) for paragraph in text.split("\n\n")}
        for split in SPLITS
    )
    assert len(validation) > 100
    assert not train & validation


def test_documents_are_not_tiny() -> None:
    assert all(len(text) >= MIN_CHARACTERS for text in code("validation"))


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="'train' or 'validation', got 'test'"):
        next(english("test"))  # type: ignore[arg-type]
