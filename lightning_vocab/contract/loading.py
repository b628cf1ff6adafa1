"""A folder as the contract looks at it: tokenizer, configs and, if wanted, the model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
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
        ValueError: If a file in it is damaged, or the model is not whole.
    """
    folder = _folder(path)
    tokenizer, config = _tokenizer(folder), _config(folder)
    generation_config = _generation_config(folder, config)
    model: PreTrainedModel | None = None
    misfits: tuple[str, ...] = ()
    if weights and config is not None and any((folder / name).is_file() for name in _WEIGHTS):
        model, misfits = _model(folder)
    if model is not None and not misfits:
        generation_config = model.generation_config
    return ModelWithTokenizer(
        tokenizer, None if misfits else model, config, generation_config, folder, misfits
    )


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


class _NamedError(AbstractContextManager[None]):
    """Turns an error that has no class of its own into a ValueError that names the folder.

    The tokenizers library raises a bare Exception for a file that is JSON but no tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is Exception:
            raise ValueError(
                f"The tokenizer in {str(self.folder)!r} cannot be read, tokenizer.json is damaged: "
                f"{error}"
            ) from error


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
    with _NamedError(folder):
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


def _model(folder: Path) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The model, and its stored tensors of another shape than the config asks for."""
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
    if report["missing_keys"]:
        raise ValueError(
            f"The model in {str(folder)!r} is not whole: it lacks "
            f"{sorted(report['missing_keys'])[:5]}, which would start at random."
        )
    if not is_causal_lm(model):
        raise ValueError(
            f"{str(folder)!r} holds a {type(model).__name__}: expected a causal language model."
        )
    misfits = (
        f"{name}: stored {tuple(stored)}, expected {tuple(expected)}"
        for name, stored, expected in report["mismatched_keys"]
    )
    return model.eval(), tuple(misfits)
