"""What runs in the place of AdapterHub's own functions; importing this needs `adapters`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from adapters.composition import Fuse, Stack
from adapters.context import AdapterSetup, ForwardContext
from adapters.methods.bottleneck import BottleneckLayer, BottleneckState
from adapters.methods.modeling import Adapter
from torch import Tensor, nn
from transformers.activations import get_activation

from ...checkpoint.adapterhub.names import ACTIVATIONS
from ...checks import DTYPES, autocast_dtype
from ...children import acts_by_call
from ...functional import fused_adapter

_adapter_forward = Adapter.forward
_bottleneck_layer_forward = BottleneckLayer.bottleneck_layer_forward
_compose_single = BottleneckLayer.compose_single
_compose_fuse = BottleneckLayer.compose_fuse

_BY_TYPE = {type(get_activation(name)): ours for name, ours in ACTIVATIONS.items()}


class _Thread(threading.local):
    fusing = False  # inside Fuse, which reads the branch without its residual


_thread = _Thread()


def adapter_forward(
    self: Any, x: Tensor, residual_input: Tensor, output_gating: bool = False
) -> tuple[Tensor | None, ...]:
    """Adapter.forward. x and residual_input [..., d] → (output [..., d], None, None), or theirs where ours cannot."""
    parts = None if _thread.fusing or output_gating else _fusable_parts(self, x, residual_input)
    if parts is None:
        return _adapter_forward(self, x, residual_input, output_gating)
    down, up, activation = parts
    y = fused_adapter(
        x,
        down.weight,
        down.bias,
        up.weight,
        up.bias,
        residual=None if residual_input is x else residual_input,
        activation=activation,
        scale=self.scaling,
    )
    return y, None, None


def bottleneck_layer_forward(
    self: Any, hidden_states: Tensor, residual_input: Tensor | None, layer_norm: nn.Module | None
) -> Tensor:
    """BottleneckLayer.bottleneck_layer_forward: straight to a single adapter, else theirs."""
    adapter = _only_adapter(self)
    context = ForwardContext.get_context()
    if (
        adapter is None
        or (residual_input is not None and residual_input.shape[0] != hidden_states.shape[0])
        or (context is not None and context.output_adapter_gating_scores)
    ):
        return _bottleneck_layer_forward(self, hidden_states, residual_input, layer_norm)
    x, _, residual = adapter.pre_forward(hidden_states, residual_input, layer_norm)
    y = adapter(x, residual_input=residual)[0]
    return adapter.post_forward(y, hidden_states, residual_input, layer_norm)


def compose_single(self: Any, adapter_setup: str, state: BottleneckState, lvl: int = 0) -> BottleneckState:
    """BottleneckLayer.compose_single, with no branch outside Fuse: not every adapter beside this one has one."""
    state = _compose_single(self, adapter_setup, state, lvl)
    return state if _thread.fusing else state._replace(bottleneck_up=None)


def compose_fuse(self: Any, adapter_setup: Fuse, state: BottleneckState, lvl: int = 0) -> BottleneckState:
    """BottleneckLayer.compose_fuse, with its adapters told."""
    before, _thread.fusing = _thread.fusing, True
    try:
        return _compose_fuse(self, adapter_setup, state, lvl)
    finally:
        _thread.fusing = before


REPLACEMENTS: dict[tuple[type, str], Callable[..., Any]] = {
    (Adapter, "forward"): adapter_forward,
    (BottleneckLayer, "bottleneck_layer_forward"): bottleneck_layer_forward,
    (BottleneckLayer, "compose_single"): compose_single,
    (BottleneckLayer, "compose_fuse"): compose_fuse,
}


def _only_adapter(layer: Any) -> Any:
    """The adapter that is alone active in this layer, else None."""
    config = layer.__dict__.get("adapters_config")
    if config is None:
        return None
    context = AdapterSetup.get_context()
    setup = config.active_setup if context is None else context.adapter_setup
    if type(setup) is not Stack or len(setup.children) != 1:
        return None
    if config.skip_layers is not None and layer.layer_idx in config.skip_layers:
        return None
    name = setup.children[0]
    return layer.adapters._modules.get(name) if type(name) is str else None


def _fusable_parts(adapter: Any, x: Tensor, residual: Tensor) -> tuple[nn.Linear, nn.Linear, str] | None:
    """Both linear layers and our name of the activation where the fused op computes what this adapter does."""
    modules = adapter._modules
    sequence, dropout = modules["adapter_down"], modules["dropout"]
    if (
        type(adapter) is not Adapter
        or adapter.use_gating
        or adapter.add_layer_norm_after
        or "DropPath" in modules
        or (dropout.p and dropout.training)
        or type(adapter.__dict__.get("scaling")) is not float
        or len(sequence) != 2
    ):
        return None
    down, activation = sequence._modules.values()
    up = modules["adapter_up"]
    act = activation._modules.get("f")
    if not (type(down) is nn.Linear and type(up) is nn.Linear and type(act) in _BY_TYPE):
        return None
    if any(acts_by_call(module) for module in (sequence, down, activation, act, up, dropout)):
        return None
    dtype = autocast_dtype(x.device.type) or x.dtype
    if dtype not in DTYPES or residual.dtype != dtype or down.weight.dtype != up.weight.dtype:
        return None
    return down, up, _BY_TYPE[type(act)]
