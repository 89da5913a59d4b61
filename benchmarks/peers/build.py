"""The models that are measured: one base, and what our library puts into it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import nn

from adapter_fast.benchmarks.cases.whole_models import ModelCase, attention
from adapter_fast.config import AdapterConfig
from adapter_fast.measure import presets
from adapter_fast.placement import add_adapters
from adapter_fast.placement.container import sites_in
from adapter_fast.recipe import train_adapters

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
Implementation = Literal["fused", "reference"]


def randomize(parameters: Iterable[nn.Parameter], seed: int = 7) -> None:
    """Fan-in scaled random weights: at its usual initialisation an adapter that does nothing would pass."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            std = parameter.shape[-1] ** -0.5 if parameter.dim() == 2 else 0.3
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))


@lru_cache(maxsize=1)
def _frozen_base(preset: str, dtype: torch.dtype, device: str) -> nn.Module:
    return _new_base(preset, dtype, device).requires_grad_(False)


def _new_base(preset: str, dtype: torch.dtype, device: str, **overrides: Any) -> nn.Module:
    # The problem is named, since a classifier that finds it out at its first loss is compiled again at the second.
    settings: dict[str, Any] = {"use_cache": False, "problem_type": "single_label_classification"}
    return presets.build(preset, device, dtype, attn_implementation=attention(), **settings, **overrides)


def base_model(case: ModelCase, device: str, own: Callable[[str], bool] = lambda name: False) -> nn.Module:
    """The bare model; for an inference pass its parameters are shared by all contenders, but those that `own` names."""
    if case.phase == "step":
        # Without dropout the very step that is timed can be checked, and a compiled one is compiled once.
        return _new_base(case.preset, case.weight_dtype, device, **NO_DROPOUT)
    base = _frozen_base(case.preset, case.weight_dtype, device)
    return copy.deepcopy(base, {id(value): value for name, value in base.named_parameters() if not own(name)})


def houlsby_model(case: ModelCase, device: str, implementation: Implementation) -> nn.Module:
    """With our adapters behind both sub-layers, always with the same random weights; for a step the recipe's trains."""
    dtype = str(case.weight_dtype).removeprefix("torch.")
    config = AdapterConfig(case.bottleneck, implementation=implementation, dtype=dtype)
    model = add_adapters(base_model(case, device), config)
    randomize(parameter for site in sites_in(model).values() for parameter in site.parameters())
    return train_adapters(model) if case.phase == "step" else model
