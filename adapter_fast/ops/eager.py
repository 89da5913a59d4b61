"""The fused adapter's forward and backward in PyTorch operations: what runs where Triton does not.

It keeps no temporary as wide as x: one output tensor is written in place, and only [T, m] tensors stand beside it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _activate(z: Tensor, activation: str) -> Tensor:
    if activation == "gelu":
        return F.gelu(z)
    if activation == "gelu_tanh":
        return F.gelu(z, approximate="tanh")
    if activation == "relu":
        return torch.relu(z)
    if activation == "silu":
        return F.silu(z)
    if activation == "tanh":
        return torch.tanh(z)
    return z


def _slope(z: Tensor, activation: str) -> Tensor:
    ones = torch.ones_like(z)
    if activation == "gelu":
        return torch.ops.aten.gelu_backward(ones, z)
    if activation == "gelu_tanh":
        return torch.ops.aten.gelu_backward(ones, z, approximate="tanh")
    if activation == "relu":
        return torch.ops.aten.threshold_backward(ones, z, 0)
    if activation == "silu":
        return torch.ops.aten.silu_backward(ones, z)
    if activation == "tanh":
        return torch.ops.aten.tanh_backward(ones, torch.tanh(z))
    return ones


def forward(
    x: Tensor,
    w_down: Tensor,
    b_down: Tensor | None,
    w_up: Tensor,
    b_up: Tensor | None,
    residual: Tensor | None,
    add_x: bool,
    activation: str,
    scale: float,
    save_h: bool,
    save_slope: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """x [T, d] rows → y [T, d], h [T, m], slope [T, m]; the last two are [0, m] unless asked for."""
    w_down, w_up = w_down.to(x.dtype), w_up.to(x.dtype)
    if b_down is None:
        z = torch.mm(x, w_down.t())
    else:
        z = torch.addmm(b_down.to(x.dtype), x, w_down.t())
    slope = _slope(z, activation) if save_slope else z.new_empty((0, z.shape[1]))
    h = _activate(z, activation)
    del z

    added = x if add_x else residual
    if added is None and b_up is None:
        y = torch.mm(h, w_up.t())
        if scale != 1.0:
            y.mul_(scale)
    elif added is None:
        y = torch.addmm(b_up.to(x.dtype), h, w_up.t(), beta=scale, alpha=scale)  # type: ignore[union-attr]
    elif b_up is None:
        y = torch.addmm(added, h, w_up.t(), alpha=scale)
    else:
        # The copy addmm would make of its first argument carries the bias instead: one pass less over [T, d].
        y = torch.add(added, b_up.to(x.dtype), alpha=scale).addmm_(h, w_up.t(), alpha=scale)
    return y, h if save_h else h.new_empty((0, h.shape[1])), slope


def backward(
    dy: Tensor,
    x: Tensor | None,
    h: Tensor | None,
    slope: Tensor | None,
    w_down: Tensor | None,
    w_up: Tensor | None,
    add_x: bool,
    scale: float,
    weight_dtype: torch.dtype,
    need_b_down: bool,
    need_b_up: bool,
) -> tuple[Tensor | None, ...]:
    """dy [T, d] rows → dx [T, d], dw_down [m, d], db_down [m], dw_up [d, m], db_up [d].

    What was saved says what is needed: w_down for dx, x for dw_down, h for dw_up; None where not needed.
    """
    dx = dw_down = db_down = dw_up = db_up = None
    if slope is not None and w_up is not None:
        dz = torch.mm(dy, w_up.to(dy.dtype)).mul_(slope)
        if scale != 1.0:
            dz.mul_(scale)
        if w_down is not None:
            weight = w_down.to(dy.dtype)
            dx = torch.addmm(dy, dz, weight) if add_x else torch.mm(dz, weight)
        if x is not None:
            dw_down = torch.mm(dz.t(), x).to(weight_dtype)
        if need_b_down:
            db_down = column_sum(dz).to(weight_dtype)
    if h is not None:
        dw_up = torch.mm(dy.t(), h)
        dw_up = (dw_up if scale == 1.0 else dw_up.mul_(scale)).to(weight_dtype)
    if need_b_up:
        db_up = column_sum(dy).mul_(scale).to(weight_dtype)
    return dx, dw_down, db_down, dw_up, db_up


def column_sum(rows: Tensor) -> Tensor:
    """Sum over tokens of rows [T, n], accumulated in at least float32."""
    return rows.sum(0, dtype=torch.float64 if rows.dtype == torch.float64 else torch.float32)
