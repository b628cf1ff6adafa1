"""The contract: whether tokenizer, model, expansion and data fit each other."""

from lightning_vocab.contract.contract import check_contract, has_failed
from lightning_vocab.contract.finding import ITEMS, Finding
from lightning_vocab.contract.loading import load_folder, load_manifest
from lightning_vocab.contract.subject import ContractInputs, ModelWithTokenizer
from lightning_vocab.contract.table import findings_table

__all__ = [
    "ITEMS",
    "ContractInputs",
    "Finding",
    "ModelWithTokenizer",
    "check_contract",
    "findings_table",
    "has_failed",
    "load_folder",
    "load_manifest",
]
