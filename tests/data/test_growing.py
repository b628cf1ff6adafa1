"""When an expansion folder is built, used as it is, refused or replaced."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from lightning_vocab.data.growing import base_rows, check_block_size, grow, load_tokenizers
from lightning_vocab.data.grown_on import NOTE_NAME
from lightning_vocab.data.sources import TextSource
from lightning_vocab.vocabulary import AddTokens, ContinuedBPE, load_expansion
from lightning_vocab.vocabulary.extender import Extender
from tests.conftest import NEW_TEXTS, make_model, make_tokenizer


def no_text() -> Iterator[str]:
    return iter(())


def must_not_be_read() -> Iterator[str]:
    raise AssertionError("the text was read although the folder stands")


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> str:
    tokenizer.save_pretrained(str(folder))
    return str(folder)


@pytest.fixture
def base(tmp_path: Path) -> str:
    return save(make_tokenizer(), tmp_path / "base")


@pytest.fixture
def folder(tmp_path: Path, base: str) -> str:
    grow(AddTokens(["<a>"]), base, str(tmp_path / "grown"), no_text)
    return str(tmp_path / "grown")


def test_missing_folder_is_built(folder: str) -> None:
    assert [token.token for token in load_expansion(folder).expansion.tokens] == ["<a>"]


def test_folder_of_the_same_extender_is_used_without_reading_text(base: str, folder: str) -> None:
    grow(AddTokens(["<a>"]), base, folder, must_not_be_read)


def test_folder_of_another_extender_is_refused(base: str, folder: str) -> None:
    with pytest.raises(ValueError, match=r"holds another expansion.*<b>.*<a>.*overwrite_expansion"):
        grow(AddTokens(["<b>"]), base, folder, no_text)


def test_folder_of_another_base_is_refused(tmp_path: Path, folder: str) -> None:
    other = save(make_tokenizer(280), tmp_path / "other")
    with pytest.raises(ValueError, match=r"holds another expansion: .*another base tokenizer"):
        grow(AddTokens(["<a>"]), other, folder, no_text)


def test_other_expansion_is_replaced_when_asked(base: str, folder: str) -> None:
    grow(AddTokens(["<b>"]), base, folder, no_text, overwrite=True)
    assert [token.token for token in load_expansion(folder).expansion.tokens] == ["<b>"]


def test_folder_of_something_else_is_never_replaced(tmp_path: Path, base: str) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    with pytest.raises(FileExistsError, match="not an expansion folder"):
        grow(AddTokens(["<a>"]), base, str(tmp_path / "notes"), no_text, overwrite=True)


def test_folder_that_another_node_built_meanwhile_is_used(tmp_path: Path, base: str) -> None:
    place = str(tmp_path / "grown")

    def text_that_takes_long() -> Iterator[str]:
        grow(AddTokens(["<a>"]), base, place, no_text)
        return no_text()

    grow(AddTokens(["<a>"]), base, place, text_that_takes_long)
    assert [token.token for token in load_expansion(place).expansion.tokens] == ["<a>"]


def test_other_folder_that_was_built_meanwhile_is_refused(tmp_path: Path, base: str) -> None:
    place = str(tmp_path / "grown")

    def text_that_takes_long() -> Iterator[str]:
        grow(AddTokens(["<b>"]), base, place, no_text)
        return no_text()

    with pytest.raises(FileExistsError):
        grow(AddTokens(["<a>"]), base, place, text_that_takes_long)


def test_rows_of_the_base_are_those_of_its_config(tmp_path: Path, base: str) -> None:
    make_model(num_rows=320).save_pretrained(base)
    assert base_rows(base) == 320
    grow(AddTokens(["<a>"]), base, str(tmp_path / "new"), no_text)
    assert load_expansion(tmp_path / "new").expansion.base_rows == 320


def test_base_of_a_tokenizer_alone_has_no_rows(base: str) -> None:
    assert base_rows(base) is None


def test_without_a_folder_the_base_is_the_tokenizer_to_train_with(base: str) -> None:
    tokenizers = load_tokenizers(base, None)
    assert tokenizers.grown is tokenizers.base
    assert tokenizers.expanded is None


def test_a_base_that_has_grown_already_is_its_own_grown_tokenizer(folder: str) -> None:
    tokenizers = load_tokenizers(folder, folder)
    assert tokenizers.base is tokenizers.grown
    assert tokenizers.expanded is not None


def test_folder_of_another_base_does_not_load(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ValueError, match="another base tokenizer"):
        load_tokenizers(save(make_tokenizer(280), tmp_path / "other"), folder)


def test_folder_that_is_missing_does_not_load(base: str) -> None:
    with pytest.raises(FileNotFoundError, match="is not an expansion folder"):
        load_tokenizers(base, "nowhere")


def test_base_of_a_tokenizer_alone_takes_any_block_size(base: str) -> None:
    assert load_tokenizers(base, None, block_size=10**6).expanded is None


def test_block_size_may_be_the_whole_context(base: str) -> None:
    make_model().save_pretrained(base)
    check_block_size(base, 128)


def test_context_of_gpt2_is_its_number_of_positions(base: str) -> None:
    config = GPT2Config(vocab_size=300, n_positions=32, n_embd=8, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(base)
    with pytest.raises(ValueError, match=r"at most 32, .*got 33"):
        check_block_size(base, 33)


def test_base_without_end_token_is_refused_before_the_folder_is_built(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    place = tmp_path / "grown"
    with pytest.raises(ValueError, match="no end token"):
        grow(AddTokens(["<a>"]), save(tokenizer, tmp_path / "base"), str(place), no_text)
    assert not place.exists()


class Corpus:
    """A text file, and a vocabulary that is grown on it."""

    def __init__(self, base: str, folder: Path) -> None:
        self.base, self.place = base, folder / "grown"
        self.write(folder / "corpus.txt", " ".join(NEW_TEXTS * 4))

    def write(self, file: Path, text: str) -> None:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        self.file = file

    def grow(self, extender: Extender | None = None, *, overwrite: bool = False) -> None:
        source = TextSource(str(self.file), split="train")
        grow(
            extender or ContinuedBPE(3),
            self.base,
            str(self.place),
            lambda: [self.file.read_text()],
            sources=[source],
            overwrite=overwrite,
        )

    def tokens(self) -> list[str]:
        return [token.token for token in load_expansion(self.place).expansion.tokens]


@pytest.fixture
def grown(tmp_path: Path, base: str) -> Corpus:
    corpus = Corpus(base, tmp_path)
    corpus.grow()
    return corpus


def test_folder_grown_on_other_text_is_refused(grown: Corpus) -> None:
    grown.write(grown.file, "the cat and the dog " * 9)
    message = r"holds another expansion: it was grown on .*corpus\.txt.*overwrite_expansion"
    with pytest.raises(ValueError, match=message):
        grown.grow()


def test_folder_grown_on_other_text_is_replaced_when_asked(grown: Corpus) -> None:
    before = grown.tokens()
    grown.write(grown.file, "vvvv vvvv kkkk kkkk " * 9)
    grown.grow(overwrite=True)
    grown.grow()  # the note is that of the new text
    assert grown.tokens() != before


def test_same_text_is_used_in_silence(grown: Corpus) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grown.grow()


def test_text_that_was_moved_draws_a_warning(grown: Corpus, tmp_path: Path) -> None:
    grown.write(tmp_path / "elsewhere" / "corpus.txt", grown.file.read_text())
    with pytest.warns(UserWarning, match="moved or touched"):
        grown.grow()


def test_text_that_is_gone_draws_a_warning(grown: Corpus) -> None:
    grown.file.unlink()
    with pytest.warns(UserWarning, match=r"cannot be compared.*corpus\.txt"):
        grown.grow()


def test_folder_without_a_note_fits_every_text(grown: Corpus) -> None:
    (grown.place / NOTE_NAME).unlink()
    grown.write(grown.file, "something else")
    before = grown.tokens()
    grown.grow()
    assert grown.tokens() == before


def test_damaged_note_is_named(grown: Corpus) -> None:
    (grown.place / NOTE_NAME).write_text("[1]")
    with pytest.raises(ValueError, match=r"grown_on\.json is damaged"):
        grown.grow()


def test_extender_that_reads_no_text_leaves_no_note(tmp_path: Path, base: str) -> None:
    corpus = Corpus(base, tmp_path)
    corpus.grow(AddTokens(["<a>"]))
    assert not (corpus.place / NOTE_NAME).exists()
