from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel

from lightning_vocab.callbacks import FreezeBackbone
from lightning_vocab.checkpoints import MANIFEST_KEY
from lightning_vocab.initializers import DictionaryAlignment, SubwordMean
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.rows import find_split, is_tied
from lightning_vocab.vocabulary import AddTokens, load_tokenizer, save_expansion
from tests.conftest import NEW_TEXTS, make_tokenizer

Batch = dict[str, Tensor]


def collate(texts: list[str], tokenizer: Any) -> Batch:
    ids = [[0, *tokenizer(text).input_ids] for text in texts]
    length = max(map(len, ids))
    input_ids = torch.tensor([row + [0] * (length - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
    labels = input_ids.masked_fill(mask == 0, -100)
    labels[:, 0] = -100
    num_bytes = torch.tensor([len(text.encode()) for text in texts])
    return {
        "input_ids": input_ids,
        "attention_mask": mask,
        "labels": labels,
        "num_bytes": num_bytes,
    }


def make_loader(tokenizer: Any, count: int = 8) -> DataLoader[Any]:
    texts = [NEW_TEXTS[i % 3] for i in range(count)]
    return DataLoader(texts, batch_size=2, collate_fn=lambda rows: collate(rows, tokenizer))  # type: ignore[arg-type]


def make_trainer(tmp_path: Path, **arguments: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_steps": 4,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
    }
    return Trainer(**(defaults | arguments))


@pytest.fixture
def module(base_folder: str, expansion_folder: str) -> VocabExpansionModule:
    return VocabExpansionModule(base=base_folder, expansion_dir=expansion_folder)


def test_configure_model_is_idempotent(module: VocabExpansionModule) -> None:
    module.configure_model()
    first = module.model
    module.configure_model()
    assert module.model is first


def test_every_parameter_is_in_exactly_one_named_group(module: VocabExpansionModule) -> None:
    module.configure_model()
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    names = [group["name"] for group in optimizer.param_groups]
    assert names == ["new_rows", "old_rows", "backbone_decay", "backbone_no_decay"]
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in module.parameters()}


def test_each_group_has_the_rate_and_the_decay_that_was_asked_for(
    base_folder: str, expansion_folder: str
) -> None:
    module = VocabExpansionModule(
        base=base_folder,
        expansion_dir=expansion_folder,
        lr_new_rows=0.4,
        lr_old_rows=0.3,
        lr_backbone=0.2,
        weight_decay_rows=0.1,
        weight_decay_backbone=0.5,
    )
    module.configure_model()
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    seen = {g["name"]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert seen == {
        "new_rows": (0.4, 0.1),
        "old_rows": (0.3, 0.1),
        "backbone_decay": (0.2, 0.5),
        "backbone_no_decay": (0.2, 0.0),
    }


def test_without_an_expansion_the_base_trains_as_it_is(base_folder: str, tmp_path: Path) -> None:
    module = VocabExpansionModule(base=base_folder)
    make_trainer(tmp_path).fit(module, make_loader(make_tokenizer()))
    assert find_split(module.language_model) is None
    names = [g["name"] for g in module.trainer.optimizers[0].param_groups]
    assert names == ["old_rows", "backbone_decay", "backbone_no_decay"]


def test_a_fit_lowers_the_bits_per_byte_that_validation_logs(
    module: VocabExpansionModule, tmp_path: Path
) -> None:
    module.hparams["lr_new_rows"] = 0.05
    trainer = make_trainer(tmp_path, max_steps=12)
    module.configure_model()
    loader = make_loader(module.tokenizer)
    before = trainer.validate(module, loader, verbose=False)[0]["val/bits_per_byte/0"]
    trainer.fit(module, loader, loader)
    after = trainer.callback_metrics["val/bits_per_byte/0"]
    assert after < before
    assert "train/loss_nats" in trainer.callback_metrics


def test_bits_per_byte_is_the_sum_of_nats_over_ln2_times_bytes(
    module: VocabExpansionModule, tmp_path: Path
) -> None:
    module.configure_model()
    loader = make_loader(module.tokenizer, count=3)
    nats = num_bytes = 0.0
    model = module.language_model.eval()
    for text in NEW_TEXTS:
        ids = torch.tensor([[0, *module.tokenizer(text).input_ids]])
        with torch.no_grad():
            scores = model(ids).logits[0, :-1].double().log_softmax(-1)
        nats -= float(scores.gather(1, ids[0, 1:, None]).sum())
        num_bytes += len(text.encode())
    logged = make_trainer(tmp_path).validate(module, loader, verbose=False)[0]
    assert logged["val/bits_per_byte/0"] == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-5)


def test_bits_per_byte_outside_the_loop_equals_the_logged_value(
    module: VocabExpansionModule, tmp_path: Path
) -> None:
    module.configure_model()
    loader = make_loader(module.tokenizer)
    logged = make_trainer(tmp_path).validate(module, loader, verbose=False)[0]
    value = float(module.bits_per_byte(loader).compute())
    assert value == pytest.approx(logged["val/bits_per_byte/0"], rel=1e-6)


def test_test_logs_under_its_own_name(module: VocabExpansionModule, tmp_path: Path) -> None:
    module.configure_model()
    logged = make_trainer(tmp_path).test(module, make_loader(module.tokenizer), verbose=False)
    assert list(logged[0]) == ["test/bits_per_byte/0"]


def test_predict_continues_prompts_as_the_model_generates(
    module: VocabExpansionModule, tmp_path: Path
) -> None:
    module.configure_model()
    module.hparams["max_new_tokens"] = 5
    tokenizer = module.tokenizer
    prompt: DataLoader[Any] = DataLoader(
        ["zebra quartz"],  # type: ignore[arg-type]  # a list is a map-style dataset
        collate_fn=lambda rows: dict(tokenizer(rows, return_tensors="pt")),
    )
    predictions = make_trainer(tmp_path).predict(module, prompt)
    ids = tokenizer("zebra quartz", return_tensors="pt").input_ids
    expected = module.language_model.generate(  # type: ignore[operator]
        ids, max_new_tokens=5, do_sample=False, pad_token_id=0
    )
    text = tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
    assert predictions == [[text]]


def test_a_batch_without_bytes_is_refused_in_validation(
    module: VocabExpansionModule, tmp_path: Path
) -> None:
    module.configure_model()
    loader = make_loader(module.tokenizer)
    batches = [{k: v for k, v in batch.items() if k != "num_bytes"} for batch in loader]
    with pytest.raises(ValueError, match="needs num_bytes"):
        make_trainer(tmp_path).validate(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


def test_the_checkpoint_loads_with_weights_only_and_rebuilds_the_module(
    module: VocabExpansionModule, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, callbacks=[FreezeBackbone()])
    module.configure_model()
    trainer.fit(module, make_loader(module.tokenizer))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert "tokenizer_fingerprint" in checkpoint[MANIFEST_KEY]
    loaded = VocabExpansionModule.load_from_checkpoint(tmp_path / "a.ckpt")
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert is_tied(loaded.language_model) == is_tied(module.language_model)


def test_a_checkpoint_of_another_vocabulary_is_refused_before_any_weight_is_loaded(
    module: VocabExpansionModule, base_folder: str, tmp_path: Path
) -> None:
    module.configure_model()
    loader = make_loader(module.tokenizer)
    trainer = make_trainer(tmp_path)
    trainer.fit(module, loader)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = AddTokens(["<|tool|>"]).extend(load_tokenizer(base_folder), [], base_rows=300)
    folder = save_expansion(other, tmp_path / "other")
    fresh = VocabExpansionModule(base=base_folder, expansion_dir=str(folder))
    with pytest.raises(ValueError, match=r"12 new tokens .* this run has 1 new tokens"):
        make_trainer(tmp_path, max_steps=8).fit(fresh, loader, ckpt_path=tmp_path / "a.ckpt")
    plain = VocabExpansionModule(base=base_folder)
    with pytest.raises(ValueError, match="this run has the base's own vocabulary"):
        make_trainer(tmp_path, max_steps=8).fit(plain, loader, ckpt_path=tmp_path / "a.ckpt")


def test_the_export_gives_the_same_logits_in_plain_transformers(
    module: VocabExpansionModule, tmp_path: Path
) -> None:
    module.configure_model()
    make_trainer(tmp_path).fit(module, make_loader(module.tokenizer))
    module.export(str(tmp_path / "export"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "export").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export")
    ids = tokenizer(NEW_TEXTS[0], return_tensors="pt").input_ids
    assert ids.max() >= 300
    with torch.no_grad():
        expected = module.language_model.eval()(ids).logits
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-5, atol=1e-5)


def test_another_method_on_a_grown_base_is_warned_of(
    module: VocabExpansionModule, tmp_path: Path
) -> None:
    module.configure_model()
    module.export(str(tmp_path / "export"))
    export = str(tmp_path / "export")
    again = VocabExpansionModule(export, export, SubwordMean())
    with pytest.warns(UserWarning, match="SubwordMean replaces its new rows"):
        again.configure_model()


def test_what_an_initializer_remarks_is_said(
    base_folder: str, expansion_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("lightning_vocab.module.rank_zero_info", said.append)
    (tmp_path / "pairs.tsv").write_text("the\tzebra\n", encoding="utf-8")
    method = DictionaryAlignment(str(tmp_path / "pairs.tsv"), fallback=SubwordMean())
    VocabExpansionModule(base_folder, expansion_folder, method).configure_model()
    assert said == [str(method.coverage)]
    assert "SubwordMean made the other" in said[0]


def test_a_subclass_overrides_one_step_and_keeps_the_rest(
    base_folder: str, expansion_folder: str, tmp_path: Path
) -> None:
    class Doubled(VocabExpansionModule):
        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            return 2 * super().training_step(batch, batch_idx)

    module = Doubled(base=base_folder, expansion_dir=expansion_folder)
    module.configure_model()
    make_trainer(tmp_path).fit(module, make_loader(module.tokenizer))
    assert module.trainer.global_step == 4


def test_a_base_that_is_no_causal_lm_is_refused(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    BertModel(config).save_pretrained(tmp_path / "bert")
    make_tokenizer().save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"bert' is no whole causal language model"):
        VocabExpansionModule(base=str(tmp_path / "bert")).configure_model()


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no_such_folder"):
        VocabExpansionModule(base=str(tmp_path / "no_such_folder")).configure_model()


def test_an_expansion_of_another_base_is_refused(expansion_folder: str, tmp_path: Path) -> None:
    from tests.conftest import make_model

    make_model().save_pretrained(tmp_path)
    make_tokenizer(280).save_pretrained(tmp_path)
    module = VocabExpansionModule(base=str(tmp_path), expansion_dir=expansion_folder)
    with pytest.raises(ValueError, match="base"):
        module.configure_model()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr_backbone": -1.0}, "not negative"),
        ({"chunk_size": 0}, "at least 1"),
        ({"pad_to_multiple_of": 0}, "at least 1"),
    ],
)
def test_bad_numbers_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VocabExpansionModule(**arguments)


def test_a_plateau_schedule_is_refused(base_folder: str) -> None:
    module = VocabExpansionModule(
        base=base_folder, lr_scheduler=lambda optimizer: ReduceLROnPlateau(optimizer)
    )
    module.configure_model()
    with pytest.raises(TypeError, match="plateau schedule"):
        module.configure_optimizers()


def test_the_model_before_it_is_built_is_an_error_that_says_so() -> None:
    with pytest.raises(RuntimeError, match="call configure_model"):
        _ = VocabExpansionModule().language_model


class OddStrategy(SingleDeviceStrategy):
    """A strategy that nobody has tested."""


def test_a_strategy_that_was_not_tested_is_refused_before_anything_is_loaded(
    module: VocabExpansionModule, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, accelerator="auto", strategy=OddStrategy(device="cpu"))
    with pytest.raises(MisconfigurationException, match="got OddStrategy"):
        trainer.fit(module, make_loader(make_tokenizer()))
    assert module.model is None


def test_another_padding_of_the_rows_on_resume_is_refused_by_name(
    base_folder: str, expansion_folder: str, module: VocabExpansionModule, tmp_path: Path
) -> None:
    module.configure_model()
    loader = make_loader(module.tokenizer)
    trainer = make_trainer(tmp_path)
    trainer.fit(module, loader)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    padded = VocabExpansionModule(
        base=base_folder, expansion_dir=expansion_folder, pad_to_multiple_of=64
    )
    with pytest.raises(ValueError, match="pad_to_multiple_of=None, this run has 64"):
        make_trainer(tmp_path, max_steps=8).fit(padded, loader, ckpt_path=tmp_path / "a.ckpt")


def test_parameters_of_a_subclass_are_optimized_in_a_group_of_their_own(
    base_folder: str, expansion_folder: str
) -> None:
    class WithAdapter(VocabExpansionModule):
        def configure_model(self) -> None:
            super().configure_model()
            self.adapter = torch.nn.Linear(2, 2)

    module = WithAdapter(base=base_folder, expansion_dir=expansion_folder)
    module.configure_model()
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    (other,) = [group for group in optimizer.param_groups if group["name"] == "other"]
    assert {id(p) for p in other["params"]} == {id(p) for p in module.adapter.parameters()}


def test_a_one_cycle_schedule_keeps_its_own_rates(
    base_folder: str, expansion_folder: str, tmp_path: Path
) -> None:
    module = VocabExpansionModule(
        base=base_folder,
        expansion_dir=expansion_folder,
        lr_scheduler=lambda optimizer: OneCycleLR(optimizer, max_lr=1e-3, total_steps=6),
    )
    module.configure_model()
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.fit(module, make_loader(module.tokenizer))
    weight = torch.nn.Parameter(torch.zeros(1))
    reference = torch.optim.AdamW([weight], lr=1.0)
    schedule = OneCycleLR(reference, max_lr=1e-3, total_steps=6)
    reference.step()
    schedule.step()
    assert trainer.optimizers[0].param_groups[0]["lr"] == reference.param_groups[0]["lr"]


def test_an_unknown_dtype_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="got 'bf16'"):
        VocabExpansionModule(dtype="bf16")
