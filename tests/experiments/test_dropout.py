"""The CPU's dropout: shares and scales as PyTorch's, told by the seed, and attention that drops its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_task import write_model
from torch import nn
from transformers import AutoModelForSequenceClassification

from adapter_fast.experiments.grid.dropout import ATTENTION, Dropout, draw_cheaply, dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_p_is_dropped_and_the_rest_scaled(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    y = dropout(torch.ones(999, 1001, dtype=dtype), p)
    kept = y != 0
    assert set(y[kept].tolist()) == {torch.tensor(1.0, dtype=dtype).mul(1 / (1 - p)).item()}
    error = (p * (1 - p)) ** 0.5 / y.numel() ** 0.5
    assert abs(1 - kept.double().mean() - p) < 5 * error + 2**-17
    # the four of one word are as independent as any
    for lag in range(1, 5):
        both = (kept.flatten()[:-lag] & kept.flatten()[lag:]).double().mean()
        assert abs(both - (1 - p) ** 2) < 0.005


def test_the_seed_tells_what_is_dropped_and_gradients_go_where_values_went() -> None:
    x = torch.randn(7, 5, requires_grad=True)
    torch.manual_seed(3)
    y = dropout(x, 0.3)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.3), y) and not torch.equal(dropout(x, 0.3), y)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient != 0, y != 0)
    for size in range(6):  # no whole words
        assert dropout(torch.ones(size), 0.5).shape == (size,)


def test_modules_drop_in_training_alone() -> None:
    module = Dropout(0.4)
    x = torch.ones(4000)
    assert 0 < (module(x) == 0).double().mean() < 1
    assert torch.equal(module.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x) and torch.equal(Dropout(1.0)(x), torch.zeros_like(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_gives_what_it_gave_but_for_the_numbers_drawn(tmp_path: Path, dtype: torch.dtype) -> None:
    where = str(write_model(tmp_path))
    plain, cheap = (AutoModelForSequenceClassification.from_pretrained(where).eval() for _ in range(2))
    cheap.load_state_dict(plain.state_dict())
    draw_cheaply(cheap)
    assert cheap.config._attn_implementation == ATTENTION
    assert {type(module) for module in cheap.modules() if isinstance(module, nn.Dropout)} == {Dropout}
    ids = torch.randint(5, 20, (6, 9))
    mask = (torch.arange(9) < torch.tensor([[9], [8], [1], [3], [9], [5]])).long()

    def logits(model: nn.Module) -> torch.Tensor:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            return model(input_ids=ids, attention_mask=mask).logits.float()

    assert torch.equal(logits(cheap), logits(plain))
    for model in (plain, cheap):
        for module in model.modules():
            module.train()
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # attention reads its own module's
    torch.testing.assert_close(logits(cheap), logits(plain), rtol=0, atol=1e-5 if dtype == torch.float32 else 2e-2)
    for model in (plain, cheap):
        model.bert.encoder.layer[0].attention.self.dropout.p = 0.2
    means = [torch.stack([logits(model) for _ in range(400)]) for model in (plain, cheap)]
    errors = [values.std(0) / 20 for values in means]
    assert all((error > 0).all() for error in errors), "weights are dropped in both"
    distance = (means[0].mean(0) - means[1].mean(0)).abs()
    assert (distance < 5 * (errors[0] ** 2 + errors[1] ** 2).sqrt()).all()
    torch.testing.assert_close(errors[0], errors[1], rtol=0.3, atol=1e-6)
