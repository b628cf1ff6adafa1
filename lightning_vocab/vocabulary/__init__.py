"""From text to a grown tokenizer and the folder that carries it."""

from lightning_vocab.vocabulary import forking as _forking  # noqa: F401  # acts when imported
from lightning_vocab.vocabulary.added import AddTokens
from lightning_vocab.vocabulary.base_check import check_base, is_grown_base
from lightning_vocab.vocabulary.bpe.continued_bpe import ContinuedBPE
from lightning_vocab.vocabulary.describe import describe_expansion
from lightning_vocab.vocabulary.expansion import (
    ExpandedTokenizer,
    NewToken,
    TokenKind,
    VocabularyExpansion,
)
from lightning_vocab.vocabulary.extender import Extender
from lightning_vocab.vocabulary.fingerprint import fingerprint
from lightning_vocab.vocabulary.folder import (
    MANIFEST_NAME,
    load_expansion,
    load_tokenizer,
    save_expansion,
)
from lightning_vocab.vocabulary.merging.merge_tokenizer import MergeTokenizer
from lightning_vocab.vocabulary.sentencepiece.model import write_sentencepiece
from lightning_vocab.vocabulary.slots.reuse_slots import ReuseSlots
from lightning_vocab.vocabulary.slots.slots import Slot, find_slots
from lightning_vocab.vocabulary.unigram.continued_unigram import ContinuedUnigram

__all__ = [
    "MANIFEST_NAME",
    "AddTokens",
    "ContinuedBPE",
    "ContinuedUnigram",
    "ExpandedTokenizer",
    "Extender",
    "MergeTokenizer",
    "NewToken",
    "ReuseSlots",
    "Slot",
    "TokenKind",
    "VocabularyExpansion",
    "check_base",
    "describe_expansion",
    "find_slots",
    "fingerprint",
    "is_grown_base",
    "load_expansion",
    "load_tokenizer",
    "save_expansion",
    "write_sentencepiece",
]
