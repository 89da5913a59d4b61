"""fused_adapter: checks, autocast, then the autograd Function."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import ops
from .autograd import FusedAdapterFunction, TransformableAdapterFunction
from .checks import Backend, autocast_dtype, check_arguments, in_functorch, select_backend
from .ops import Settings, Weights

_NOTHING = nullcontext()


def fused_adapter(
    x: Tensor,
    w_down: Tensor,
    b_down: Tensor | None,
    w_up: Tensor,
    b_up: Tensor | None,
    *,
    residual: Tensor | Literal[False] | None = None,
    activation: str = "gelu",
    scale: float = 1.0,
    memory: str = "speed",
) -> Tensor:
    """y = residual + scale · (act(x · W_downᵀ + b_down) · W_upᵀ + b_up), fused and differentiable.

    The bottleneck adapter of Houlsby et al. 2019 (arXiv 1902.00751, section 2.1). Where Triton runs, the forward pass
    is one kernel that reads x from memory once and writes y once, and the backward pass is two kernels and a
    deterministic reduction; elsewhere the same autograd Function computes with PyTorch operations (ops/eager.py).

    Args:
        x: [..., d], float16, bfloat16, float32 or float64, T = product of the leading sizes ≥ 0 tokens. Rows must have
            unit stride in d and one stride over all tokens; any other layout is copied once (see ops/layout.py).
        w_down: [m, d], b_down: [m] or None; w_up: [d, m], b_up: [d] or None: nn.Linear layouts, all of one dtype,
            which may differ from x's; they are converted tile by tile to x's dtype and products accumulate in float32.
            Their gradients come in their own dtype.
        residual: None adds x (Houlsby), a tensor [..., d] of x's dtype adds that (Pfeiffer), False adds nothing.
        activation: a name of reference.ACTIVATIONS, "gelu" (erf) by default.
        scale: finite factor on the adapter's branch.
        memory: what training keeps for the backward pass besides x. "speed": act(z) and its slope, 2·T·m elements;
            "balanced": z, T·m elements, and the activation is computed again; "lean": nothing, and z is computed
            from x again, one more product and one more reading of x.

    Returns:
        y [..., d], contiguous, in the dtype of x; under autocast in autocast's dtype, as nn.Linear's output is.
        float32 inputs honour torch.get_float32_matmul_precision().

    torch.compile and torch.export see one opaque op: whoever reads an exported program with torch.export.load must
    have imported adapter_fast. Of torch.func work grad, vjp, jacrev and vmap, over x and over stacked weights.

    Raises:
        TypeError: a tensor that is not floating point, weights of several dtypes, a residual of another dtype than x.
        ValueError: mismatched shapes or devices, an unknown activation or memory mode, a scale that is not finite.
        RuntimeError: a second derivative (create_graph=True) or forward-mode differentiation is asked for.
    """
    check_arguments(x, w_down, b_down, w_up, b_up, residual, activation=activation, scale=scale, memory=memory)
    add_x = residual is None or residual is x
    other = residual if isinstance(residual, Tensor) and not add_x else None
    device_type = x.device.type
    dtype = autocast_dtype(device_type)
    if dtype is not None:
        x = x.to(dtype)
        other = None if other is None else other.to(dtype)
    settings = Settings(add_x, activation, float(scale), select_backend(x.device, x.dtype).name, memory)
    with _NOTHING if dtype is None else torch.autocast(device_type, enabled=False):
        if forward_ad._current_level >= 0 or in_functorch():
            if torch.compiler.is_compiling():
                raise RuntimeError("fused_adapter cannot be compiled inside torch.func: use ReferenceAdapter there")
            return TransformableAdapterFunction.apply(x, w_down, b_down, w_up, b_up, other, *settings)
        if torch.is_grad_enabled() and not torch.compiler.is_exporting():
            return FusedAdapterFunction.apply(x, w_down, b_down, w_up, b_up, other, settings)
        return ops.forward(x, Weights(w_down, b_down, w_up, b_up), other, settings)


def explain(x: Tensor, w_down: Tensor, b_down: Tensor | None, w_up: Tensor, b_up: Tensor | None) -> Backend:
    """Which backend fused_adapter would use for these tensors, and why, with the launch form and any copy it makes.

    Shapes, dtypes and errors as in fused_adapter; nothing is computed and x may be empty or on the meta device.
    """
    check_arguments(x, w_down, b_down, w_up, b_up, None, activation="gelu", scale=1.0, memory="speed")
    dtype = autocast_dtype(x.device.type) or x.dtype
    backend = select_backend(x.device, dtype)
    return Backend(backend.name, "; ".join([backend.reason, *ops.describe(x, dtype, w_down, w_up, backend.name)]))
