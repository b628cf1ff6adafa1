"""The same rows by published packages, which are called here and nowhere else in the project."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from initializer_inputs import RandomSpace, Size, make_tokenizer, names
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_vocab.initializers import Initializer, Mean, RowContext, SubwordMean
from lightning_vocab.initializers.focus import FOCUS
from lightning_vocab.initializers.matching_pursuit import OrthogonalMatchingPursuit
from lightning_vocab.initializers.wechsel import WECHSEL

Rows = Callable[[], Tensor]
Theirs = Callable[[RowContext, Path, Size, int], Rows]

_SEED = 7
_RESIZE_NOISE = 1e-9**0.5  # transformers draws from N(mean, 1e-9 covariance)


@dataclass(frozen=True)
class Case:
    """One formula, made here and there.

    Args:
        name: What is measured.
        package: The distribution that publishes it.
        ours: From context, folder and size to what makes all rows.
        theirs: The same with a number of new tokens, the first ones, whose rows are made.
        compared: What the rows have in common, from ours, theirs and the folder.
    """

    name: str
    package: str
    ours: Callable[[RowContext, Path, Size], Rows]
    theirs: Theirs
    compared: Callable[[Tensor, Tensor, Path], str]

    def version(self) -> str:
        return f"{self.package} {version(self.package)}"


def largest_difference(ours: Tensor, theirs: Tensor, _: Path) -> str:
    """Largest distance of two rows in units of the length of theirs."""
    distances = (ours.double() - theirs.double()).norm(dim=1) / theirs.double().norm(dim=1)
    return f"{distances.max():.1e}"


def errors(ours: Tensor, theirs: Tensor, folder: Path) -> str:
    """Mean relative error of the donor's rows as rebuilt here and there."""
    donor = load_file(folder / "donor" / "model.safetensors")["model.embed_tokens.weight"]
    new = donor[donor_ids(folder)][: len(ours)]
    found = [((made - new).norm(dim=1) / new.norm(dim=1)).mean() for made in (ours, theirs)]
    return f"error {found[0]:.5f} / {found[1]:.5f}"


def donor_ids(folder: Path) -> list[int]:
    """Ids of the new tokens in the donor, in their order."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "donor")
    vocab = tokenizer.get_vocab()
    return sorted(id for name, id in vocab.items() if name.startswith("n"))


def rows_of(make: Callable[[Path, Size], Initializer]) -> Callable[[RowContext, Path, Size], Rows]:
    """The input rows of an initializer, drawn from the same seed in each run."""

    def ours(context: RowContext, folder: Path, size: Size) -> Rows:
        initializer = make(folder, size)

        def work() -> Tensor:
            context.generator.manual_seed(_SEED)
            return initializer.rows(context)[0]

        return work

    return ours


def grown(context: RowContext, folder: Path, size: Size) -> Rows:
    """Mean rows below a copy of the old ones, as resizing leaves them."""
    made = rows_of(lambda *_: Mean(_RESIZE_NOISE))(context, folder, size)
    return lambda: torch.cat([context.input_rows, made()])[-size.num_new :]


def subword(context: RowContext, _: Path, size: Size, count: int) -> Rows:
    """It is given texts that the tokenizer cuts into the pieces, and cuts them itself."""
    from mergekit.tokensurgeon.subword import subword_approximate

    texts = [
        " ".join(f"w{piece}" for piece in token.pieces)
        for token in context.expansion.tokens[:count]
    ]
    return lambda: subword_approximate(context.input_rows, texts, False, context.tokenizer)


def resized_rows(context: RowContext, _: Path, size: Size, count: int) -> Rows:
    """The method of `transformers` that fills the new rows; their matrix is there already."""
    old = nn.Embedding.from_pretrained(context.input_rows)
    model: Any = LlamaForCausalLM(_config(8))

    def work() -> Tensor:
        new = nn.Embedding.from_pretrained(torch.empty(count, size.dim))
        torch.manual_seed(_SEED)
        model._init_added_embeddings_weights_with_mean(old, new, size.num_old, count)
        return new.weight

    return work


def resized(context: RowContext, _: Path, size: Size, count: int) -> Rows:
    """`resize_token_embeddings` of a tied model; it draws the rows of the head, too."""
    transformers.logging.set_verbosity_error()

    def work() -> Tensor:
        model: Any = LlamaForCausalLM(_config(size.dim))
        model.set_input_embeddings(nn.Embedding.from_pretrained(context.input_rows))
        model.tie_weights()
        model.config.vocab_size = size.num_old
        model.resize_token_embeddings(size.num_old + count, mean_resizing=True)
        rows: Tensor = model.get_input_embeddings().weight
        return rows.detach()[-count:]

    return work


def _config(dim: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=8,
        hidden_size=dim,
        intermediate_size=8,
        num_hidden_layers=0,
        num_attention_heads=1,
        tie_word_embeddings=True,
    )


def focus(context: RowContext, _: Path, size: Size, count: int) -> Rows:
    """Step 6 of the package's `FOCUS`, which is the method proper, after vectors and overlap."""
    from deepfocus.focus import focus_additional_token_initialization
    from deepfocus.vocab_helper import NewToken, OverlappingToken, TokenClass

    vectors = RandomSpace().vectors(context)
    old_vectors, new_vectors = vectors.old.numpy(), vectors.new.numpy()

    def named(name: str, place: int) -> Any:
        return TokenClass(name, place, name, name, name, name, True)

    old = {}
    for i, name in enumerate(names(size, size.num_old)[: size.num_old]):
        token = named(name, i)
        old[name] = OverlappingToken([token], token, context.input_rows[i], old_vectors[i])
    new = {f"n{i}": NewToken(named(f"n{i}", i), new_vectors[i]) for i in range(count)}

    def work(some: dict[str, Any]) -> Tensor:
        made = torch.zeros(len(some), size.dim)
        with redirect_stderr(io.StringIO()):  # its progress bar
            found: Tensor = focus_additional_token_initialization(old, some, made)
        return found

    work({"n0": new["n0"]})  # compiles its loops
    return partial(work, new)


def wechsel(context: RowContext, _: Path, size: Size, count: int) -> Rows:
    """Its vectors are in float64, as the package itself makes them."""
    from wechsel import create_target_embeddings

    vectors = RandomSpace().vectors(context)
    old, new = vectors.old.double().numpy(), vectors.new[:count].double().numpy()
    tokenizer = make_tokenizer(names(size, 0)[:count])

    def work() -> Tensor:
        rows = context.input_rows.numpy()
        found = create_target_embeddings(
            old, new, context.tokenizer, tokenizer, rows, verbose=False
        )
        return torch.from_numpy(found[0])

    return work


def pursuit(context: RowContext, folder: Path, size: Size, count: int) -> Rows:
    """In batches of 512, the default of the package's command."""
    from mergekit.scripts.tokensurgeon import ApproximationMethod, compute_new_embeddings

    options: Any = SimpleNamespace(method=ApproximationMethod.ORTHOGONAL_MATCHING_PURSUIT, k=size.k)
    donor = load_file(folder / "donor" / "model.safetensors")["model.embed_tokens.weight"]
    base_ids = {f"w{i}": i for i in range(size.num_old)}
    known = {name: place for place, name in enumerate(names(size, size.shared))}
    words = names(size, 0)[:count]

    def work() -> Tensor:
        parts = [
            compute_new_embeddings(
                context.input_rows,
                donor,
                base_ids,
                known,
                words[start : start + 512],
                False,
                None,
                context.tokenizer,
                options,
            )
            for start in range(0, count, 512)
        ]
        return torch.cat(parts)

    return work


CASES = {
    case.name: case
    for case in (
        Case(
            "SubwordMean",
            "mergekit",
            rows_of(lambda *_: SubwordMean()),
            subword,
            largest_difference,
        ),
        Case(
            "Mean, rows",
            "transformers",
            rows_of(lambda *_: Mean(_RESIZE_NOISE)),
            resized_rows,
            largest_difference,
        ),
        Case("Mean, matrix", "transformers", grown, resized, lambda *_: "other draws"),
        Case(
            "FOCUS",
            "deepfocus",
            rows_of(lambda *_: FOCUS(RandomSpace())),
            focus,
            largest_difference,
        ),
        Case(
            "WECHSEL",
            "wechsel",
            rows_of(lambda *_: WECHSEL(RandomSpace())),
            wechsel,
            largest_difference,
        ),
        Case(
            "OrthogonalMatchingPursuit",
            "mergekit",
            rows_of(
                lambda folder, size: OrthogonalMatchingPursuit(
                    str(folder / "donor"), size.k, normalise=False
                )
            ),
            pursuit,
            errors,
        ),
    )
}
"""Add a formula by its name; `normalise=False` chooses atoms as the package does."""
