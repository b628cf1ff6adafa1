from __future__ import annotations

import pytest
import torch

from lightning_vocab.initializers import Initializer, Mean, Normal, SubwordMean
from lightning_vocab.rows.expand import expand_model
from tests.rows.bases import Kind, make_base, make_case


@pytest.mark.parametrize("surroundings", ["device", "dtype"])
@pytest.mark.parametrize("kind", ["llama-untied", "phi-bias"])
@pytest.mark.parametrize(
    "initializer", [SubwordMean(), Mean(), Normal()], ids=lambda given: type(given).__name__
)
def test_rows_do_not_depend_on_the_default_device_or_dtype(
    initializer: Initializer, kind: Kind, surroundings: str
) -> None:
    _, expanded, multiple = make_case("multiple")
    plain, model = make_base(kind), make_base(kind)
    expand_model(plain, expanded, initializer, pad_to_multiple_of=multiple)
    is_device = surroundings == "device"
    torch.set_default_dtype(torch.float32 if is_device else torch.bfloat16)
    try:
        with torch.device("meta" if is_device else "cpu"):
            expand_model(model, expanded, initializer, pad_to_multiple_of=multiple)
    finally:
        torch.set_default_dtype(torch.float32)
    before, after = plain.state_dict(), model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
