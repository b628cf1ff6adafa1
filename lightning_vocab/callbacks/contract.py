"""Check the contract between tokenizer, model, expansion and data before the first step."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from lightning.fabric.utilities import rank_zero_info
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from torch import Tensor
from typing_extensions import override

from lightning_vocab.contract import (
    ContractInputs,
    Finding,
    ModelWithTokenizer,
    check_contract,
    findings_table,
    has_failed,
    load_folder,
)
from lightning_vocab.data.cache import KnownTokenizer
from lightning_vocab.data.rows import Collate
from lightning_vocab.data.sources import TextSource
from lightning_vocab.data.tokenise import frame_of
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.demo import resolve_base
from lightning_vocab.distributed import refuse_sharded_strategy
from lightning_vocab.loss import NextTokenLoss
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.vocabulary.fingerprint import fingerprint

_DOCUMENTS = 200


class ContractCheck(Callback):
    """Checks the contract at the start of `fit` and stops the run if anything fails.

    Rank zero checks; all ranks get the findings and stop together. The run itself is the same with
    and without it, bit for bit: a batch is read beside the training loader, no random number is
    drawn, and the model is left as it was. The module must be a `VocabExpansionModule`; batch,
    texts and cache are checked where the data comes from a `VocabDataModule`. What can be judged
    only after the training (trained rows, masked padding rows) is skipped: check the exported
    folder with ``lightning-vocab check``.

    Args:
        divisible_by: Number that must divide the rows, such as 64 or 128; None asks nothing.
        memory_gib: GiB that the logits of a batch may take; None asks nothing.
        stop_strings: Strings at which serving will stop generation.
        protocol_tokens: Tokens of roles and protocols that must be one id, besides those that the
            tokenizer registers.
        raise_on_fail: Whether a failure stops the run, or is only shown.

    Raises:
        MisconfigurationException: At the start of `fit`, if the module is of another kind, a file
            of the base cannot be read, or anything fails.
    """

    def __init__(
        self,
        divisible_by: int | None = None,
        memory_gib: float | None = None,
        stop_strings: list[str] | None = None,
        protocol_tokens: list[str] | None = None,
        raise_on_fail: bool = True,
    ) -> None:
        self.divisible_by = divisible_by
        self.memory_gib = memory_gib
        self.stop_strings = stop_strings or []
        self.protocol_tokens = protocol_tokens or []
        self.raise_on_fail = raise_on_fail
        self.findings: list[Finding] = []

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse another kind of module, and parameters that are divided among ranks."""
        if stage == "fit":
            refuse_sharded_strategy(trainer, type(self).__name__)
        if stage == "fit" and not isinstance(pl_module, VocabExpansionModule):
            raise MisconfigurationException(
                "ContractCheck checks a VocabExpansionModule, got "
                f"{type(pl_module).__name__}: call lightning_vocab.contract.check_contract with "
                "your model and tokenizer."
            )

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check on rank zero, tell all ranks, and stop all of them if anything fails."""
        assert isinstance(pl_module, VocabExpansionModule)
        findings, error = [], None
        if trainer.is_global_zero:
            try:
                findings = self._findings(trainer, pl_module)
            except (ValueError, TypeError, OSError) as raised:
                error = str(raised)  # the other ranks wait for the broadcast
        findings, error = trainer.strategy.broadcast((findings, error))
        if error is not None:
            raise MisconfigurationException(f"The contract could not be checked: {error}")
        self.findings = findings
        if trainer.is_global_zero:
            self._show()
        if self.raise_on_fail and has_failed(findings):
            said = "; ".join(
                f"{each.item} {each.name}: {each.found} → {each.remedy}"
                for each in findings
                if each.status == "fail"
            )
            raise MisconfigurationException(f"The contract is broken, nothing was trained. {said}")

    def _findings(self, trainer: Trainer, module: VocabExpansionModule) -> list[Finding]:
        data = getattr(trainer, "datamodule", None)
        given: dict[str, Any] = {}
        if isinstance(data, VocabDataModule):
            given = _of_the_data(data, module)
        loss = _loss_of_the_run(module, given.get("batch"))
        inputs = ContractInputs(
            chunk_size=loss.chunk_size if loss.is_streamed else None,
            memory_gib=self.memory_gib,
            divisible_by=() if self.divisible_by is None else (self.divisible_by,),
            loss=loss.mean_nats,
            stop_strings=self.stop_strings,
            protocol_tokens=self.protocol_tokens,
            old_rows=None if trainer.ckpt_path is None else "trained",
            stage="start",
            **given,
        )
        return check_contract(
            module.language_model, module.tokenizer, module.expanded, _base(module), inputs
        )

    def _show(self) -> None:
        if any(each.status in ("warn", "fail") for each in self.findings):
            Console().print(findings_table(self.findings, "Contract at the start of the run"))
        else:
            passed = sum(each.status == "pass" for each in self.findings)
            rank_zero_info(
                f"Contract: {passed} checks passed, {len(self.findings) - passed} not made."
            )


def _base(module: VocabExpansionModule) -> ModelWithTokenizer | None:
    """The base, where the run grows one; one that has grown already is nothing to compare with."""
    if module.expanded is None or module.is_base_grown:
        return None
    return load_folder(resolve_base(module.hparams["base"]))


def _of_the_data(data: VocabDataModule, module: VocabExpansionModule) -> dict[str, Any]:
    """Batch, texts and cache as `ContractInputs` takes them, read beside the training loader."""
    plan = data.plan
    known = KnownTokenizer(module.tokenizer, fingerprint(module.tokenizer))
    texts = {name: list(_documents(data, each)) for name, each in plan.validation.items()}
    given: dict[str, Any] = {"texts": texts}
    if plan.train:
        given["texts"] = {"train": list(_documents(data, plan.train)), **texts}
    if plan.train and plan.is_streamed:
        given["batch"], _ = next(iter(plan.streamed_rows(known, data.hparams["batch_size"])))
        return given
    held = {each.path: plan.cache.holds(each, known, plan.train_layout) for each in plan.train}
    given["cache"] = held
    if plan.train and all(held.values()):
        rows = plan.training_rows(known)
        count = min(data.hparams["batch_size"], len(rows))
        collate = Collate(frame_of(known.tokenizer).pad)
        given["batch"] = collate([rows[place] for place in range(count)])
    return given


def _documents(data: VocabDataModule, sources: Sequence[TextSource]) -> Iterator[str]:
    for source in sources:
        yield from islice(data.plan.cache.read(source), _DOCUMENTS)


def _loss_of_the_run(
    module: VocabExpansionModule, batch: dict[str, Tensor] | None
) -> NextTokenLoss:
    """The module's loss as it will be after its own first comparison, which it still makes."""
    loss = NextTokenLoss(module.language_model, module.hparams["chunk_size"])
    if batch is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the module says the same on its first batch
            loss.check({name: part.to(module.device) for name, part in batch.items()})
    return loss
