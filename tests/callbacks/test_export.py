from __future__ import annotations

from pathlib import Path

import pytest

from lightning_vocab.callbacks import ExportHuggingFace
from lightning_vocab.module import VocabExpansionModule
from tests.callbacks.modules import make_trainer


@pytest.mark.parametrize(
    ("overwrite", "message"), [(False, "set overwrite"), (True, "is no folder of a model")]
)
def test_an_occupied_folder_is_refused_before_the_training(
    overwrite: bool, message: str, tmp_path: Path
) -> None:
    occupied = tmp_path / "letters"
    occupied.mkdir()
    (occupied / "letter.txt").write_text("dear reader")
    module = VocabExpansionModule(base="demo")
    trainer = make_trainer(tmp_path, [ExportHuggingFace(str(occupied), overwrite)])
    with pytest.raises(FileExistsError, match=message):
        trainer.fit(module)
    assert trainer.global_step == 0
    assert list(module.parameters()) == []  # not even the base was loaded
