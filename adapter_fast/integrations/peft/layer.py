"""BottleneckLayer: PEFT's wrapper of one module, with a bottleneck adapter behind its output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ...adapter import FusedAdapter
from ...children import refuse_forced_kernels, through_children, why_called
from ...functional import fused_adapter
from ...placement.sites import is_norm
from ...reference import reference_adapter
from .config import BottleneckConfig

BASE_ROWS = "__base__"  # PEFT's name for the rows of a mixed batch that no adapter touches
CANNOT_MERGE = (
    "bottleneck adapters cannot be merged: their nonlinearity is no part of a linear layer; use unload() for the bare "
    "base model, or keep the adapter beside it"
)
_FUNCTIONS: dict[str, Callable[..., Tensor]] = {"fused": fused_adapter, "reference": reference_adapter}


def _apply(
    down: Any,
    up: Any,
    h: Tensor,
    training: bool,
    *,
    implementation: str,
    width: int,
    activation: str,
    scale: float,
    memory: str,
    dropout: float,
) -> Tensor:
    why, dropped = why_called(down, up), dropout if training else 0.0
    if not why and not dropped:
        weights = (down.weight, down.bias, up.weight, up.bias)
        return _FUNCTIONS[implementation](h, *weights, activation=activation, scale=scale, memory=memory)
    if implementation == "fused":
        refuse_forced_kernels(why or f"dropout {dropped:g} in training")
    return through_children(down, up, h, width=width, activation=activation, scale=scale, dropout=dropped)


def check_one_active(names: str | Sequence[str]) -> None:
    """Raise unless at most one adapter is named: what several together would compute is not defined."""
    if not isinstance(names, str) and len(names) > 1:
        raise ValueError(f"one bottleneck adapter can be active at a time, got {list(names)}")


def _width_of_input(module: nn.Module, width: int) -> int | None:
    """As PEFT's layers tell it: the rows of an embedding, None where the module does not tell; width: of its output."""
    if isinstance(module, BaseTunerLayer):
        return getattr(module, "in_features", None)
    for name in ("in_features", "nx", "num_embeddings"):  # nx: transformers' Conv1D
        if isinstance(found := getattr(module, name, None), int):
            return found
    return width if is_norm(module) or isinstance(module, (nn.Dropout, nn.Identity)) else None


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """base_layer, then the active adapter on its output: y = h + scale · (act(h · W_downᵀ + b_down) · W_upᵀ + b_up).

    In training with dropout, and where a projection is more than a plain nn.Linear, PyTorch operations compute, as in
    FusedAdapter.

    h [..., d] keeps its dtype whatever the adapter's weights have: they are converted tile by tile (fused_adapter).
    The base's weight is never touched, so any module will do: a dropout, a quantised or sharded linear layer.

    State-dict keys below the wrapped module: bottleneck_down.{name}.weight [m, d], bottleneck_down.{name}.bias [m],
    bottleneck_up.{name}.weight [d, m], bottleneck_up.{name}.bias [d], and base_layer with the base's own.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_apply",)
    active_adapters: list[str]  # BaseTunerLayer's

    def __init__(self, base_layer: nn.Module, width: int) -> None:
        """width: d of the output of base_layer."""
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = _width_of_input(base_layer, width), width
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.bottleneck_apply: dict[str, Callable[..., Tensor]] = {}
        self._active_adapter: list[str] = []
        self.merged_adapters: list[str] = []
        self.training = base_layer.training

    def update_layer(
        self, adapter_name: str, config: BottleneckConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Add an adapter. device and dtype: of the base. The weights are float32, on a float64 base float64."""
        self.base_device, self.base_dtype = device, dtype
        adapter = FusedAdapter(
            self.out_features,
            config.bottleneck,
            bias=config.use_bias,
            init=config.init,
            init_std=config.init_std,
            device=device,
            dtype=torch.float64 if dtype == torch.float64 else torch.float32,
        ).train(self.training)
        self.bottleneck_down[adapter_name] = adapter.down
        self.bottleneck_up[adapter_name] = adapter.up
        self.bottleneck_apply[adapter_name] = partial(
            _apply,
            implementation=config.implementation,
            width=self.out_features,
            activation=config.activation,
            scale=config.scale,
            memory=config.memory,
            dropout=config.dropout,
        )

    def forward(self, x: Tensor, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any) -> Tensor:
        """What base_layer takes → its output [..., d] through the active adapter, or row by row through adapter_names.

        adapter_names: for each row of dimension 0 an adapter's name or "__base__".
        """
        h = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return h
        if adapter_names is not None:
            return self._mixed_batch(h, adapter_names)
        for name in self.active_adapters:
            if name in self.bottleneck_apply:
                h = self._adapt(name, h)
        return h

    def _adapt(self, name: str, h: Tensor) -> Tensor:
        return self.bottleneck_apply[name](self.bottleneck_down[name], self.bottleneck_up[name], h, self.training)

    def _mixed_batch(self, h: Tensor, adapter_names: Sequence[str]) -> Tensor:
        if len(h) != len(adapter_names):
            raise ValueError(
                f"adapter_names must name an adapter for each of the {len(h)} rows, got {len(adapter_names)}"
            )
        y = h.clone()  # h may be the input itself: a dropout returns it
        for name in dict.fromkeys(adapter_names):
            if name in self.bottleneck_apply:
                rows = torch.tensor([row for row, other in enumerate(adapter_names) if other == name], device=h.device)
                y[rows] = self._adapt(name, h[rows])
        return y

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Make one adapter the one that computes, and let it train unless inference_mode; ValueError for several."""
        check_one_active(adapter_names)
        super().set_adapter(adapter_names, inference_mode)

    def cast_to_base(self, adapter_name: str) -> None:
        """Convert an adapter's weights to the dtype of a 16-bit base."""
        if self.base_dtype in (torch.float16, torch.bfloat16) and adapter_name in self.bottleneck_apply:
            self.bottleneck_down[adapter_name].to(self.base_dtype)
            self.bottleneck_up[adapter_name].to(self.base_dtype)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        # PEFT's own looks for a weight, which a dropout has not, and rounds the adapter to the base's dtype.
        if adapter_name in self.bottleneck_apply:
            self.bottleneck_down[adapter_name].to(device or self.base_device)
            self.bottleneck_up[adapter_name].to(device or self.base_device)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refused."""
        raise ValueError(CANNOT_MERGE)

    def unmerge(self) -> None:
        """Refused: nothing can be merged."""
        raise ValueError(CANNOT_MERGE)

    def __repr__(self) -> str:
        return "bottleneck." + super().__repr__()
