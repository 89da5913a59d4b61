"""Dropout for a CPU, where PyTorch's draws a number at a time and takes a quarter of a training step.

Four elements share a 64-bit number of PyTorch's own generator, so that a run is still told by its seed. The share that
is dropped is p to within 2^-17.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "cpu_dropout"
_WORD = 4  # 16-bit numbers


def dropout(x: Tensor, p: float) -> Tensor:
    """x [...] with a share p of its elements 0, and the others over 1 - p."""
    words = torch.empty((x.numel() + _WORD - 1) // _WORD, dtype=torch.int64).random_(-(2**63), None)
    drawn = words.view(torch.int16)[: x.numel()].view(x.shape)
    return x * (drawn >= round(p * 2**16) - 2**15).to(x.dtype).mul_(1 / (1 - p))


class Dropout(nn.Dropout):
    """nn.Dropout, with dropout() above."""

    def forward(self, input: Tensor) -> Tensor:
        """As nn.Dropout."""
        return dropout(input, self.p) if self.training and 0 < self.p < 1 else super().forward(input)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """transformers' "sdpa", and its "eager" where weights are dropped; sizes are those that both have."""
    grouped = getattr(module, "num_key_value_groups", 1) > 1
    causal = attention_mask is None and getattr(module, "is_causal", True)
    if not dropout or grouped or causal or more.get("position_bias") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = drop(scores.softmax(dim=-1), dropout)
    return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous(), None


drop = dropout  # attention's own argument has the name that transformers gives it
AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def draw_cheaply(model: Any) -> None:
    """Give a model that trains on a CPU the dropout above, in its modules and in attention that is "sdpa"."""
    if torch.cuda.is_available():
        return
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = Dropout
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(ATTENTION)
