"""The fused adapter's forward and backward in PyTorch operations: what runs where Triton does not.

It keeps no temporary as wide as x: one output tensor is written in place, and only [T, m] tensors stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .call import Grads, Keep, Need, Saved, Settings, Weights

aten = torch.ops.aten

# Tokens of a chunk: measured on two threads, smaller ones lose more on products than they win on the cache.
CHUNK_T = 4096


# act(z), and act'(z) of ones like z and z.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "gelu": (F.gelu, aten.gelu_backward),
    "gelu_tanh": (partial(F.gelu, approximate="tanh"), partial(aten.gelu_backward, approximate="tanh")),
    "relu": (torch.relu, lambda ones, z: aten.threshold_backward(ones, z, 0)),
    "silu": (F.silu, aten.silu_backward),
    "tanh": (torch.tanh, lambda ones, z: aten.tanh_backward(ones, torch.tanh(z))),
    "identity": (lambda z: z, lambda ones, z: ones),
}


def _activate(z: Tensor, activation: str) -> Tensor:
    act, _ = ACTIVATIONS[activation]
    return act(z)


def _slope(z: Tensor, activation: str) -> Tensor:
    _, slope = ACTIVATIONS[activation]
    return slope(torch.ones_like(z), z)


def forward(
    x: Tensor, weights: Weights, residual: Tensor | None, settings: Settings, keep: Keep
) -> tuple[Tensor, Saved]:
    """x [T, d] rows → y [T, d] and what is to be kept, [T, m] each."""
    w_up = weights.w_up.to(x.dtype)
    z = _contract(x, weights)
    slope = _slope(z, settings.activation) if keep.slope else None
    h = _activate(z, settings.activation)
    saved = Saved(h=h if keep.h else None, slope=slope, z=z if keep.z else None)
    del z

    added = x if settings.add_x else residual
    bias = None if weights.b_up is None else weights.b_up.to(x.dtype)
    if added is None and bias is None:
        y = _product(h, w_up.t(), settings.scale)
    elif added is None:
        y = torch.addmm(bias, h, w_up.t(), beta=settings.scale, alpha=settings.scale)  # type: ignore[arg-type]
    else:
        y = _add_product(added, bias, h, w_up.t(), settings.scale)
    return y, saved


def backward(dy: Tensor, saved: Saved, weights: Weights, settings: Settings, dtype: torch.dtype, need: Need) -> Grads:
    """dy, x [T, d] rows → the gradients that are needed, dx as [T, d], those of the weights in dtype.

    h and slope [T, m] are taken as saved, else made from z [T, m], else from x, W_down and b_down.
    """
    dx = dw_down = db_down = dw_up = db_up = None
    x, h, slope, z = saved
    if z is None and ((need.dz and slope is None) or (need.w_up and h is None)):
        z = _contract(x, weights)  # type: ignore[arg-type]
    if need.dz:
        # One [T, m] tensor fewer beside dx than with slope and h made together.
        slope = _slope(z, settings.activation) if slope is None else slope  # type: ignore[arg-type]
        dz = _product(dy, weights.w_up.to(dy.dtype), settings.scale)
        # PyTorch's relu cuts infinities off, which a product with 0 does not.
        dz = dz.masked_fill_(slope == 0, 0) if settings.activation == "relu" else dz.mul_(slope)
        del slope
        if need.x:
            weight = weights.w_down.to(dy.dtype)
            dx = _add_product(dy, None, dz, weight, 1.0) if settings.add_x else torch.mm(dz, weight)
        if need.w_down:
            dw_down = torch.mm(dz.t(), x).to(dtype)  # type: ignore[arg-type]
        if need.b_down:
            db_down = column_sum(dz).to(dtype)
        del dz
    if need.w_up:
        h = _activate(z, settings.activation) if h is None else h  # type: ignore[arg-type]
        dw_up = _product(dy.t(), h, settings.scale).to(dtype)
    if need.b_up:
        db_up = column_sum(dy).mul_(settings.scale).to(dtype)
    return Grads(dx, dw_down, db_down, dw_up, db_up)


def _product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale · (a · b), scaled before it is rounded: float16 may have no room for the product itself."""
    return torch.mm(a, b) if scale == 1.0 else torch.addmm(a.new_empty(()), a, b, beta=0, alpha=scale)


def _add_product(rows: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """rows + scale · (a · b + bias), block of tokens by block, so that what is copied is still cached when added to."""
    if rows.shape[0] <= CHUNK_T and rows.is_contiguous():
        if bias is None:
            return torch.addmm(rows, a, b, alpha=scale)
        return torch.add(rows, bias, alpha=scale).addmm_(a, b, alpha=scale)
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    for row, part, to in zip(rows.split(CHUNK_T), a.split(CHUNK_T), out.split(CHUNK_T)):
        if bias is None:
            torch.addmm(row, part, b, alpha=scale, out=to)
        else:
            # The copy addmm would make of its first argument carries the bias instead: one pass less.
            torch.add(row, bias, alpha=scale, out=to).addmm_(part, b, alpha=scale)
    return out


def _contract(x: Tensor, weights: Weights) -> Tensor:
    weight = weights.w_down.to(x.dtype).t()
    return torch.mm(x, weight) if weights.b_down is None else torch.addmm(weights.b_down.to(x.dtype), x, weight)


def column_sum(rows: Tensor) -> Tensor:
    """Sum over tokens of rows [T, n], accumulated in at least float32."""
    return rows.sum(0, dtype=torch.float64 if rows.dtype == torch.float64 else torch.float32)
