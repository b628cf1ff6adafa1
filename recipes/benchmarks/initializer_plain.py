"""Formulas of the initializers written down token by token, to measure the package against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from initializer_inputs import Size
from torch import Tensor

from lightning_vocab.initializers import RowContext
from lightning_vocab.initializers.scripts import script_of

Plain = Callable[[RowContext, Tensor], Tensor]


def plain_normal(context: RowContext, rows: Tensor) -> Tensor:
    std = rows.std()
    return torch.stack([torch.randn(rows.shape[1]) * std for _ in context.expansion.tokens])


def plain_mean(noise: float) -> Plain:
    def made(context: RowContext, rows: Tensor) -> Tensor:
        factor = noise * torch.linalg.cholesky(torch.cov(rows.T, correction=0))
        mean = rows.mean(dim=0)
        drawn = [mean + factor @ torch.randn(len(mean)) for _ in context.expansion.tokens]
        return torch.stack(drawn)

    return made


def plain_subword(context: RowContext, rows: Tensor) -> Tensor:
    if rows is not context.input_rows:
        made = []
        for token in context.expansion.tokens:
            weights = torch.tensor([len(text) for text in context.texts(token.pieces)]).float()
            made.append(weights @ rows[list(token.pieces)] / weights.sum())
        return torch.stack(made)
    scripts = [script_of(text) for text in context.texts(range(len(rows)))]
    norms: dict[str, list[float]] = {}
    for script, norm in zip(scripts, rows.norm(dim=1).tolist(), strict=True):
        norms.setdefault(script, []).append(norm)
    medians = {script: median(found) for script, found in norms.items()}
    made = []
    for token in context.expansion.tokens:
        mean = rows[list(token.pieces)].mean(dim=0)
        made.append(mean * medians[script_of(token.surface)] / mean.norm())
    return torch.stack(made)


def plain_hull(context: RowContext, rows: Tensor) -> Tensor:
    made = []
    for _ in context.expansion.tokens:
        weights = torch.distributions.Dirichlet(torch.ones(20)).sample()
        made.append(weights @ rows[torch.randperm(len(rows))[:20]])
    return torch.stack(made)


def plain_dictionary(folder: Path, _: Size) -> Plain:
    def made(context: RowContext, rows: Tensor) -> Tensor:
        lines = (folder / "pairs.tsv").read_text().splitlines()
        words = {new: base for base, new in (line.split("\t") for line in lines)}
        found = []
        for token in context.expansion.tokens:
            row = rows[context.tokenizer.encode(words[token.surface])].mean(dim=0)
            found.append(row + 0.1 * row.norm() / len(row) ** 0.5 * torch.randn(len(row)))
        return torch.stack(found)

    return made


def plain_pursuit(folder: Path, size: Size) -> Plain:
    """Greedy choice with Gram-Schmidt, 512 tokens at a time, for the two matrices apart."""
    rows = torch.randn(size.shared + size.num_new, size.dim)
    atoms, targets = rows[: size.shared], rows[size.shared :]

    def codes(batch: Tensor) -> tuple[Tensor, Tensor]:
        basis = torch.zeros(len(batch), size.k, size.dim)
        triangle = torch.zeros(len(batch), size.k, size.k)
        ids = torch.zeros(len(batch), size.k, dtype=torch.long)
        residual, norms = batch.clone(), atoms.norm(dim=1)
        for step in range(size.k):
            ids[:, step] = ((residual @ atoms.T) / norms).abs().argmax(dim=1)
            new = atoms[ids[:, step]]
            along = (basis[:, :step] @ new.unsqueeze(2)).squeeze(2)
            new = new - (along.unsqueeze(1) @ basis[:, :step]).squeeze(1)
            triangle[:, :step, step], triangle[:, step, step] = along, new.norm(dim=1)
            basis[:, step] = new / new.norm(dim=1, keepdim=True)
            inside = (residual * basis[:, step]).sum(dim=1, keepdim=True)
            residual = residual - inside * basis[:, step]
        dots = basis @ batch.unsqueeze(2)
        return ids, torch.linalg.solve_triangular(triangle, dots, upper=True)

    def made(_: RowContext, base: Tensor) -> Tensor:
        found = [codes(batch) for batch in torch.split(targets, 512)]
        return torch.cat([(base[ids].mT @ weights).squeeze(2) for ids, weights in found])

    return made
