from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_vocab.datamodule import Sources, VocabDataModule
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.probing.scores import DocumentScores, score_documents
from tests.conftest import NEW_TEXTS, TEXTS

# The long ones fill several windows of 16 tokens, the short ones none.
DOCUMENTS = [" ".join(TEXTS), "a", NEW_TEXTS[0], "the cat", " ".join(NEW_TEXTS)]


def write(folder: Path, name: str, texts: list[str]) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return str(path)


def scores(base: str, folder: Path, **val: Sources) -> dict[str, DocumentScores]:
    data = VocabDataModule(
        base, val=val, block_size=16, batch_size=3, cache_dir=str(folder / "cache")
    )
    data.prepare_data()
    data.setup("validate")
    module = VocabExpansionModule(base)
    module.configure_model()
    found = {}
    for name, loader in zip(data.val_names, data.val_dataloader(), strict=True):
        found[name] = score_documents(module, loader)
        whole = float(module.bits_per_byte(loader).compute())
        assert found[name].bits_per_byte == pytest.approx(whole, rel=1e-5)
    return found


@pytest.mark.slow
def test_each_document_scores_what_it_scores_alone(tied_folder: str, tmp_path: Path) -> None:
    parts = {f"d{place}": write(tmp_path, f"d{place}", [DOCUMENTS[place]]) for place in range(5)}
    together = write(tmp_path, "all", DOCUMENTS)
    found = scores(tied_folder, tmp_path, together=together, **parts)
    alone = torch.cat([found[name].nats for name in parts])
    torch.testing.assert_close(found["together"].nats, alone, rtol=1e-5, atol=1e-4)
    sizes = [len(text.encode()) for text in DOCUMENTS]
    assert found["together"].num_bytes.tolist() == sizes


@pytest.mark.slow
def test_documents_of_several_files_of_one_source_are_kept_apart(
    tied_folder: str, tmp_path: Path
) -> None:
    first, second = write(tmp_path, "1", DOCUMENTS[:2]), write(tmp_path, "2", DOCUMENTS[2:])
    found = scores(
        tied_folder, tmp_path, apart=write(tmp_path, "3", DOCUMENTS), one=[first, second]
    )
    assert found["one"].num_bytes.tolist() == found["apart"].num_bytes.tolist()
    torch.testing.assert_close(found["one"].nats, found["apart"].nats, rtol=1e-5, atol=1e-4)


def test_a_loader_of_something_else_is_refused(tied_folder: str) -> None:
    loader: DataLoader[int] = DataLoader([1, 2])  # type: ignore[arg-type]  # a list will do
    with pytest.raises(TypeError, match="Expected stored rows"):
        score_documents(VocabExpansionModule(tied_folder), loader)
