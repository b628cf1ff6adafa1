"""A folder as the contract looks at it: tokenizer, configs and, if wanted, the model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from lightning_vocab.contract.subject import ModelWithTokenizer
from lightning_vocab.rows.locate import is_causal_lm
from lightning_vocab.vocabulary.expansion import VocabularyExpansion
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.folder import MANIFEST_NAME, load_tokenizer

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def load_folder(path: str | os.PathLike[str], *, weights: bool = False) -> ModelWithTokenizer:
    """The tokenizer of a folder, its configs and, if wanted, its model.

    Args:
        path: A Hugging Face folder, or a hub id whose files have been fetched.
        weights: Whether to load the model, in its own dtype on the CPU, if the folder holds one.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a file in it is damaged, the model is not whole, or weights lack a config.
    """
    folder = _folder(path)
    tokenizer, config = _tokenizer(folder), _config(folder)
    generation_config = _generation_config(folder, config)
    if not weights or not _has_weights(folder, config):
        return ModelWithTokenizer(tokenizer, None, config, generation_config, folder)
    model, misfits, lacks_head = _model(folder)
    if misfits or lacks_head:
        return ModelWithTokenizer(
            tokenizer, None, config, generation_config, folder, misfits, lacks_head
        )
    return ModelWithTokenizer(tokenizer, model, config, model.generation_config, folder)


def _has_weights(folder: Path, config: PreTrainedConfig | None) -> bool:
    stored = [name for name in _WEIGHTS if (folder / name).is_file()]
    if stored and config is None:
        raise ValueError(
            f"{str(folder)!r} holds weights ({stored[0]}) and no config.json, so no model can be "
            "loaded from it: add the config.json of the model."
        )
    return bool(stored)


def _folder(path: str | os.PathLike[str]) -> Path:
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    fetched = None
    if not folder.exists() and str(path).count("/") <= 1:
        fetched = try_to_load_from_cache(str(path), "config.json")
    if not isinstance(fetched, str):
        raise FileNotFoundError(
            f"Expected a folder with a tokenizer, or a hub id that was fetched before, but "
            f"{str(path)!r} is neither."
        )
    return Path(fetched).parent


def load_manifest(path: str | os.PathLike[str]) -> VocabularyExpansion | None:
    """The manifest of a folder, or None if it has none; the tokenizer may be another by now.

    Args:
        path: A folder.

    Raises:
        ValueError: If the manifest is broken.
    """
    manifest = Path(path).expanduser() / MANIFEST_NAME
    if not manifest.is_file():
        return None
    try:
        return VocabularyExpansion.from_json(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{manifest}: {error}") from error


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No remarks and no bar of the library while a model is loaded."""
    verbosity = transformers_logging.get_verbosity()
    had_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bar:
            transformers_logging.enable_progress_bar()


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(folder)
    try:
        backend(tokenizer)
    except TypeError as error:
        raise ValueError(f"The tokenizer in {str(folder)!r} cannot be checked: {error}") from error
    return tokenizer


def _config(folder: Path) -> PreTrainedConfig | None:
    if not (folder / "config.json").is_file():
        return None
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'} cannot be read: {error}") from error
    return config


def _generation_config(folder: Path, config: PreTrainedConfig | None) -> GenerationConfig | None:
    if not (folder / "generation_config.json").is_file():
        return None if config is None else GenerationConfig.from_model_config(config)
    try:
        return GenerationConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder / 'generation_config.json'} cannot be read: {error}") from error


def _model(folder: Path) -> tuple[PreTrainedModel, tuple[str, ...], bool]:
    """The model, its stored tensors of another shape, and whether its head is not stored."""
    try:
        with _quiet_transformers():  # what is amiss becomes a finding
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"The model in {str(folder)!r} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    model, report = loaded
    missing = set(report["missing_keys"])
    lacks_head = bool(missing) and missing == _head_names(model)
    if missing and not lacks_head:
        raise ValueError(
            f"The model in {str(folder)!r} is not whole: it lacks "
            f"{sorted(missing)[:5]}, which would start at random."
        )
    if not is_causal_lm(model):
        raise ValueError(
            f"{str(folder)!r} holds a {type(model).__name__}: expected a causal language model."
        )
    misfits = (
        f"{name}: stored {tuple(stored)}, expected {tuple(expected)}"
        for name, stored, expected in report["mismatched_keys"]
    )
    return model.eval(), tuple(misfits), lacks_head


def _head_names(model: PreTrainedModel) -> set[str]:
    """The name of the head's matrix, or none where the model has no head."""
    head = model.get_output_embeddings()
    return {f"{name}.weight" for name, part in model.named_modules() if part is head is not None}
