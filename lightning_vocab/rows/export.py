"""Write an expanded model as a plain Hugging Face folder."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_vocab.rows.locate import find_causal_lm, find_split, replace_module
from lightning_vocab.rows.split import SplitHead
from lightning_vocab.rows.ties import is_tied
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from lightning_vocab.vocabulary.fingerprint import fingerprint
from lightning_vocab.vocabulary.folder import MANIFEST_NAME
from lightning_vocab.vocabulary.sentencepiece.model import write_beside
from lightning_vocab.vocabulary.whole_files import whole_folder

_Module = TypeVar("_Module", bound=nn.Module)


def export_model(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase | ExpandedTokenizer,
    path: str | Path,
    *,
    overwrite: bool = False,
) -> Path:
    """Save model and tokenizer as a folder that transformers loads without this package.

    Old and new rows are one matrix again, in order of id, and ties stay as they are in the model.
    The generation config suppresses every id that has no token. The live model is not touched;
    memory: one merged copy of its rows. The folder appears at once, when all of it is written.
    Where there are several processes, one of them calls this.

    Args:
        model: An expanded or an ordinary causal language model, or a module that holds one.
        tokenizer: The tokenizer; with its manifest, ``vocab_expansion.json`` is written, too.
        path: The folder to write.
        overwrite: Replaces the folder, if it holds a model.

    Returns:
        The folder.

    Raises:
        FileExistsError: If the path exists and must not be replaced.
        ValueError: If the tokenizer has an id without a row, or the manifest is another's.
    """
    target = check_target(path, overwrite=overwrite)
    lm = find_causal_lm(model)
    plain = tokenizer.tokenizer if isinstance(tokenizer, ExpandedTokenizer) else tokenizer
    _check_ids(lm, tokenizer, plain)
    with whole_folder(target) as fresh:
        _merged_twin(lm, plain).save_pretrained(fresh)
        plain.save_pretrained(fresh)
        if isinstance(tokenizer, ExpandedTokenizer):
            manifest = tokenizer.expansion.to_json()
            (fresh / MANIFEST_NAME).write_text(manifest, encoding="utf-8")
            write_beside(tokenizer, fresh)
    return target


def check_target(path: str | Path, *, overwrite: bool = False) -> Path:
    """The folder that `export_model` would write, if it may: it can be asked before a training.

    Args:
        path: The folder to write.
        overwrite: Whether a folder that holds a model may be replaced.

    Returns:
        The folder, absolute.

    Raises:
        FileExistsError: If the path exists and must not be replaced.
    """
    target = Path(path).expanduser().absolute()
    if not os.path.lexists(target):
        return target
    if target.is_symlink() or not target.is_dir():
        raise FileExistsError(
            f"{target} exists and is {'a link' if target.is_symlink() else 'no folder'}: choose "
            "another path."
        )
    if not any(target.iterdir()):
        return target
    if not overwrite:
        raise FileExistsError(f"{target} exists: choose another path or set overwrite.")
    if not (target / "config.json").is_file():
        raise FileExistsError(
            f"{target} exists and is no folder of a model (it has no config.json), so it is not "
            "replaced: choose another path."
        )
    return target


def _check_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | ExpandedTokenizer,
    plain: PreTrainedTokenizerBase,
) -> None:
    num_rows, last = _num_rows(model), max(plain.get_vocab().values())
    if last >= num_rows:
        raise ValueError(
            f"Expected a row for every id of the tokenizer, got id {last} for a model of "
            f"{num_rows} rows: pass the tokenizer that the model was expanded for."
        )
    if isinstance(tokenizer, ExpandedTokenizer):
        _check_manifest(model, tokenizer)


def _check_manifest(model: PreTrainedModel, expanded: ExpandedTokenizer) -> None:
    if fingerprint(expanded.tokenizer) != expanded.expansion.tokenizer_fingerprint:
        raise ValueError(
            "The tokenizer is not the one that its manifest describes: it was changed after the "
            "vocabulary was made. Pass the tokenizer alone, or describe it anew."
        )
    split = find_split(model)
    if split is None:
        return
    expected, came = split[0].rows.new_ids.tolist(), list(expanded.expansion.new_ids)
    if expected != came:
        raise ValueError(
            f"Expected the manifest of the model's {len(expected)} new rows, got one of "
            f"{len(came)} other rows: pass the expansion that the model was expanded with."
        )


def _merged_twin(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model with one matrix; it shares every other tensor with the live one."""
    twin = _twin(model, {})
    twin.config = copy.deepcopy(model.config)
    twin.generation_config = copy.deepcopy(model.generation_config)
    for config in {id(c): c for c in (twin.config, twin.config.get_text_config())}.values():
        # transformers ties on loading by what the config says; the model itself decides here.
        config.tie_word_embeddings = is_tied(model)
    _suppress_unnamed_ids(twin, tokenizer)
    split = find_split(twin)
    if split is None:
        return twin
    embedding, head = split
    plain_head = _plain_head(head)
    plain_embedding = nn.Embedding(embedding.num_embeddings, embedding.embedding_dim, device="meta")
    plain_embedding.weight = plain_head.weight
    if embedding.rows is not head.rows:
        plain_embedding.weight = _constant(embedding.rows.merged()[0])
    replace_module(twin, embedding, plain_embedding)
    replace_module(twin, head, plain_head)
    return twin


def _plain_head(head: SplitHead) -> nn.Linear:
    matrix, bias = head.rows.merged()
    plain = nn.Linear(head.in_features, head.out_features, bias=bias is not None, device="meta")
    plain.weight = _constant(matrix)
    if bias is not None:
        plain.bias = _constant(bias)
    return plain


def _twin(module: _Module, known: dict[int, nn.Module]) -> _Module:
    """A shallow copy of a tree of modules: children are copies, tensors are the same objects."""
    twin = copy.copy(module)
    known[id(module)] = twin
    twin._modules = {}
    for name, child in module._modules.items():
        if child is not None and id(child) not in known:
            _twin(child, known)
        twin._modules[name] = None if child is None else known[id(child)]
    return twin


def _suppress_unnamed_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    unnamed = set(range(_num_rows(model))) - set(tokenizer.get_vocab().values())
    config = model.generation_config
    if unnamed and config is not None:
        config.suppress_tokens = sorted(unnamed | set(config.suppress_tokens or ()))


def _num_rows(model: PreTrainedModel) -> int:
    split = find_split(model)
    if split is not None:
        return split[0].num_embeddings
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    return embedding.num_embeddings


def _constant(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)
