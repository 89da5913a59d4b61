"""Adapter-L of the LoRA paper: one adapter a layer behind the feed-forward, with a LayerNorm of its own."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from adapter_fast.benchmarks.cases.budgets import lin_parameters, nearest
from adapter_fast.benchmarks.cases.whole_models import ModelCase
from adapter_fast.benchmarks.peers.build import base_model, randomize
from adapter_fast.config import AdapterConfig
from adapter_fast.placement.container import attach
from adapter_fast.placement.sites import find_sites


class LinAdapter(nn.Module):
    """Lin et al. 2020 (arXiv 2004.03829): y = x + up(relu(down(LayerNorm(x)))), 2·m·d + 3·d + m parameters."""

    def __init__(self, hidden: int, bottleneck: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.down = nn.Linear(hidden, bottleneck)
        self.up = nn.Linear(bottleneck, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., d] → y [..., d]."""
        return x + self.up(F.relu(self.down(self.norm(x))))


def lin_bottleneck(case: ModelCase) -> int:
    """m, for as many parameters as the case allows."""
    return nearest(lin_parameters(case.hidden, case.layers), case.parameters)


def lin_model(case: ModelCase, device: str) -> nn.Module:
    """The case's model with an Adapter-L in every layer, random weights, for an inference pass."""
    model = base_model(case, device)
    for place in find_sites(model, AdapterConfig(sublayers=("feed_forward",))):
        adapter = LinAdapter(place.width, lin_bottleneck(case)).to(device, case.weight_dtype)
        randomize([*adapter.down.parameters(), *adapter.up.parameters()])
        site = attach(place.module)
        site.add("default", adapter.eval())
        site.switch("default")
    return model
