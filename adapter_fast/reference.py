"""The oracle: a bottleneck adapter in plain PyTorch, any floating dtype, imports torch only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "identity": lambda z: z,
}


def reference_adapter(
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
    dropout: float = 0.0,
) -> Tensor:
    """y = residual + scale · (act(x · W_downᵀ + b_down) · W_upᵀ + b_up), in plain PyTorch.

    The bottleneck adapter of Houlsby et al. 2019 (arXiv 1902.00751, section 2.1 and figure 2), operation by operation
    as a user of PyTorch would write it. It is what the fused path is compared with, and it is never used by it.

    Args:
        x: [..., d], any floating dtype.
        w_down: [m, d], b_down: [m] or None; w_up: [d, m], b_up: [d] or None. A dtype other than x's is converted.
        residual: None adds x (Houlsby), a tensor [..., d] adds that, False adds nothing.
        activation: a name of ACTIVATIONS, "gelu" (erf) by default.
        scale: factor on the adapter's branch.
        memory: taken as fused_adapter takes it; autograd keeps here what it always keeps.
        dropout: probability of each element of act(z) to be dropped, drawn from torch's generator.

    Returns:
        y [..., d] in the dtype of x; under autocast in autocast's dtype, as nn.Linear's output is.

    Raises:
        KeyError: unknown activation. Shapes are checked by PyTorch itself.
    """
    if not x.is_meta and torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x = x.to(dtype)
        residual = residual.to(dtype) if isinstance(residual, Tensor) else residual
    w_down, w_up = w_down.to(x.dtype), w_up.to(x.dtype)
    b_down = None if b_down is None else b_down.to(x.dtype)
    b_up = None if b_up is None else b_up.to(x.dtype)

    h = ACTIVATIONS[activation](F.linear(x, w_down, b_down))
    up = F.linear(F.dropout(h, dropout) if dropout else h, w_up, b_up)
    if scale != 1.0:
        up = up * scale
    if residual is False:
        return up
    return (x if residual is None else residual) + up
