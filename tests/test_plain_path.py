"""Training through the module against a plain loop over a plain Hugging Face model."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

from lightning_vocab.callbacks import FreezeBackbone, UnfreezeAt
from lightning_vocab.data.rows import IGNORED
from lightning_vocab.functional._negligible import RelevantRows
from lightning_vocab.initializers import SubwordMean
from lightning_vocab.loss import NextTokenLoss
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.rows import expand_model, export_model
from lightning_vocab.rows.roles import parameter_roles
from lightning_vocab.vocabulary import ContinuedBPE, load_tokenizer, save_expansion
from tests.conftest import NEW_TEXTS, case, make_model, make_tokenizer
from tests.expanded import make_expanded
from tests.quiet import quiet_trainer
from tests.rows.bases import make_base

Batch = dict[str, Tensor]
RATE, BASE_ROWS = 0.3, 300


def make_batches(count: int = 6) -> list[Batch]:
    """Rows of 5 to 16 tokens, a third of them new."""
    generator = torch.Generator().manual_seed(3)
    batches = []
    for _ in range(count):
        ids = torch.randint(BASE_ROWS, (3, 16), generator=generator)
        new = torch.randint(BASE_ROWS, BASE_ROWS + 12, (3, 16), generator=generator)
        ids = torch.where(torch.rand(3, 16, generator=generator) < 1 / 3, new, ids)
        lengths = torch.randint(5, 17, (3, 1), generator=generator)
        mask = (torch.arange(16) < lengths).long()
        labels = ids.masked_fill(mask == 0, IGNORED)
        batches.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return batches


def make_module(base: str, expansion: str, **options: Any) -> VocabExpansionModule:
    return VocabExpansionModule(
        base=base,
        expansion_dir=expansion,
        # Not Adam: it would blow the rounding of a small gradient up to a whole step.
        optimizer=lambda groups: torch.optim.SGD(groups, lr=RATE, momentum=0.9),
        lr_new_rows=RATE,
        lr_old_rows=RATE,
        lr_backbone=RATE,
        weight_decay_backbone=0.0,
        chunk_size=7,
        **options,
    )


def plain_model(base: str, expansion: str, folder: Path, dtype: str = "float32") -> Any:
    """What the module starts from, as transformers loads it."""
    module = make_module(base, expansion, dtype=dtype)
    module.configure_model()
    path = export_model(module.language_model, module.tokenizer, folder / "plain")
    return AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).train()


def plain_sum(model: Any, batch: Batch) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1),
        batch["labels"][:, 1:].flatten(),
        reduction="sum",
        ignore_index=IGNORED,
    )


def num_scored(batches: list[Batch]) -> int:
    return sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches)


def train_plainly(
    model: Any,
    *,
    window: int = 1,
    clip: float | None = None,
    only_new: bool = False,
    autocast: bool = False,
) -> None:
    embeddings = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    if only_new:
        model.requires_grad_(False)
        for weight in embeddings:
            weight.requires_grad_(True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=RATE, momentum=0.9)
    batches = make_batches()
    for first in range(0, len(batches), window):
        part = batches[first : first + window]
        for batch in part:
            with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
                loss = plain_sum(model, batch) / num_scored(part)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if only_new:
            for weight in embeddings:
                assert weight.grad is not None
                weight.grad[:BASE_ROWS] = 0.0
        if clip is not None:
            nn.utils.clip_grad_norm_(trained, clip)
        optimizer.step()
        optimizer.zero_grad()


def fit(module: Any, folder: Path, *, validates: bool = False, **options: Any) -> dict[str, Tensor]:
    batches = make_batches()
    rows: Any = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]  # a list will do
    scored: Any = [each | {"num_bytes": torch.full((3,), 40)} for each in batches[:2]]
    trainer = quiet_trainer(folder, max_epochs=1, **options)
    trainer.fit(module, rows, DataLoader(scored, batch_size=None) if validates else None)
    return dict(trainer.callback_metrics)


def merged_state(module: VocabExpansionModule, folder: Path) -> dict[str, Tensor]:
    path = export_model(module.language_model, module.tokenizer, folder / "trained")
    return dict(AutoModelForCausalLM.from_pretrained(path).state_dict())


@pytest.mark.parametrize(
    "precision", [case("32-true", quick=False), case("bf16-mixed", quick=True)]
)
def test_a_fused_optimizer_steps_on_clipped_gradients(
    precision: Any, base_folder: str, expansion_folder: str, tmp_path: Path
) -> None:
    states = []
    for is_fused in (True, False):
        module = make_module(base_folder, expansion_folder)
        module.optimizer_callable = lambda groups, is_fused=is_fused: torch.optim.AdamW(  # type: ignore[misc]  # mypy cannot infer it
            groups,
            eps=1.0,  # a step in proportion to the gradient, so that the clipping shows
            fused=is_fused or None,
        )
        fit(module, tmp_path, precision=precision, gradient_clip_val=0.1)
        states.append(merged_state(module, tmp_path / str(is_fused)))
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("only_new", [True, False], ids=["new-rows", "all"])
@pytest.mark.parametrize(
    ("options", "trainer", "plain"),
    [
        case({}, {}, {}, quick=False, id="as it is"),
        case({}, {"accumulate_grad_batches": 4}, {"window": 4}, quick=True, id="accumulation"),
        case({}, {"gradient_clip_val": 0.1}, {"clip": 0.1}, quick=True, id="clipping"),
        case({"gradient_checkpointing": True}, {}, {}, quick=False, id="checkpointing"),
    ],
)
def test_training_equals_a_plain_loop(
    only_new: bool,
    options: dict[str, Any],
    trainer: dict[str, Any],
    plain: dict[str, Any],
    base_folder: str,
    expansion_folder: str,
    tmp_path: Path,
) -> None:
    reference = plain_model(base_folder, expansion_folder, tmp_path)
    before = {name: value.clone() for name, value in reference.state_dict().items()}
    train_plainly(reference, only_new=only_new, **plain)
    module = make_module(base_folder, expansion_folder, **options)
    fit(module, tmp_path, callbacks=[FreezeBackbone()] if only_new else [], **trainer)
    found = merged_state(module, tmp_path)
    for name, expected in reference.state_dict().items():
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=2e-6, msg=name)
    assert any((found[name] - before[name]).abs().max() > 0.01 for name in found)


@pytest.mark.slow  # the tracing takes ten seconds
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's tracer
def test_a_compiled_module_trains_in_stages_as_one_that_is_not(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    base, tokenizer = tmp_path / "base", make_tokenizer()
    make_model(tied=False).save_pretrained(base)
    tokenizer.save_pretrained(base)
    expanded = ContinuedBPE(num_new_tokens=12).extend(
        load_tokenizer(str(base)), NEW_TEXTS * 4, base_rows=BASE_ROWS
    )
    folder = str(save_expansion(expanded, tmp_path / "expansion"))
    plain, compiled = (make_module(str(base), folder) for _ in range(2))
    scores = [
        fit(each, tmp_path, callbacks=[FreezeBackbone(), UnfreezeAt(3)], validates=True)
        for each in (plain, torch.compile(compiled, backend="aot_eager"))
    ]
    assert counters["stats"]["unique_graphs"] > 0
    # It is left for what says so itself (checks, the loss, logging), and for nothing else.
    assert all("torch.compiler.disable" in reason for reason in counters["graph_break"])
    assert scores[0].keys() == scores[1].keys()
    assert scores[1]["val/bits_per_byte/0"] == pytest.approx(scores[0]["val/bits_per_byte/0"])
    for name, expected in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("only_new", [True, False], ids=["new-rows", "all"])
def test_rows_that_are_skipped_would_have_changed_nothing(
    only_new: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expanded = make_expanded(make_tokenizer(), [f"<|{n}|>" for n in range(12)])
    kept: list[int] = []
    chosen = RelevantRows.rows

    def noted(self: RelevantRows, index: int) -> Tensor | None:
        rows = chosen(self, index)
        kept.append(BASE_ROWS if rows is None else len(rows))
        return rows

    monkeypatch.setattr(RelevantRows, "rows", noted)
    found = []
    for skips in (False, True):
        model = make_base("phi-bias", BASE_ROWS)
        model.lm_head.bias.data[100:] = -40.0  # rows of other languages, so to speak
        expand_model(model, expanded, SubwordMean())
        roles = parameter_roles(model)
        for parameter in (*roles.old_rows, *roles.backbone):
            parameter.requires_grad_(not only_new)
        loss = NextTokenLoss(model, chunk_size=7, skip_negligible=skips)
        for batch in make_batches():
            ids = torch.where(batch["input_ids"] < BASE_ROWS, batch["input_ids"] % 100, 305)
            labels = torch.where(batch["labels"] == IGNORED, IGNORED, ids)
            loss.mean_nats({**batch, "input_ids": ids, "labels": labels}).backward()  # type: ignore[no-untyped-call]
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert kept
    assert min(kept) <= 100
    assert found[0].keys() == found[1].keys()
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=1e-5, atol=2e-6, msg=name)


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    """Of a plain model, the rows of new tokens apart, in float64."""
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    found = {n: p.grad.double() for n, p in model.named_parameters() if p.grad is not None}
    for name in [
        name for name in found if name.endswith(("embed_tokens.weight", "lm_head.weight"))
    ]:
        found[f"new rows of {name}"] = found[name][BASE_ROWS:]
        found[name] = found[name][:BASE_ROWS]
    return found


def own_gradients(module: VocabExpansionModule, loss: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    found = {}
    for name, parameter in module.language_model.named_parameters():
        assert parameter.grad is not None
        plain = name.replace("rows.old", "weight").replace("rows.new", "weight")
        found["new rows of " * name.endswith("new") + plain] = parameter.grad.double()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_gradients_are_as_near_to_float64_as_a_plain_loops(
    precision: str, base_folder: str, expansion_folder: str, tmp_path: Path
) -> None:
    dtype = "bfloat16" if precision == "bf16-true" else "float32"
    batch = {k: torch.cat([each[k] for each in make_batches(40)]) for k in make_batches(1)[0]}
    exact = plain_model(base_folder, expansion_folder, tmp_path, dtype)
    module = make_module(base_folder, expansion_folder, dtype=dtype)
    module.configure_model()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        plain = gradients(exact, plain_sum(exact, batch) / num_scored([batch]))
        ours = own_gradients(module, module.loss.mean_nats(batch))
    expected = gradients(exact.double(), plain_sum(exact.double(), batch) / num_scored([batch]))
    assert plain.keys() == ours.keys() == expected.keys()
    for name, value in expected.items():
        far, plainly = ((each[name] - value).norm() / value.norm() for each in (ours, plain))
        # The rounding of the 32 entries of a norm is too few to be compared.
        slack = 1.0 if name.startswith("new rows") else 1.2 if value.ndim > 1 else 2.0
        assert far <= slack * plainly, name
