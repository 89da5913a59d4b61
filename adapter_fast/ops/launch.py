"""The kernels behind the op's tensors-in, tensors-out face: layout, device, launches, final reductions."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from .call import Grads, Keep, Need, Saved, Settings, Weights
from .eager import column_sum
from .layout import as_rows, bias_of, bottleneck, dense
from .problem import kernels, problem

_HERE: AbstractContextManager = nullcontext()


def _on(device: torch.device) -> AbstractContextManager:
    """Launches inside go to this device, which costs nothing where it is the current one."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return _HERE
    return torch.cuda.device(device)


def forward(
    x: Tensor, weights: Weights, residual: Tensor | None, settings: Settings, keep: Keep
) -> tuple[Tensor, Saved]:
    """x [..., d] → y of that shape, and what is to be kept, [T, m] each."""
    rows = as_rows(x)
    added = rows if settings.add_x else None if residual is None else as_rows(residual)
    w_down, w_up = dense(weights.w_down), dense(weights.w_up)
    T, d = rows.shape
    setting = problem(x.device, x.dtype, w_down.dtype, T, d, w_down.shape[0], rows, added, w_down, w_up)
    setting = kernels("tiles").converted("forward", setting)
    if setting.w_bytes != w_down.element_size():
        w_down, w_up = w_down.to(x.dtype), w_up.to(x.dtype)
    linear = kernels("blocks").Linear
    down, up = linear(w_down, bias_of(weights.b_down)), linear(w_up, bias_of(weights.b_up))
    with _on(x.device):
        y, saved = kernels("forward").launch_forward(rows, down, up, added, settings, keep, setting)
    return y if x.dim() == 2 else y.view(x.shape), Saved(h=saved.h, slope=saved.slope, z=saved.z)


def backward(dy: Tensor, saved: Saved, weights: Weights, settings: Settings, dtype: torch.dtype, need: Need) -> Grads:
    """dy, x [T, d] rows → the gradients that are needed, as in eager.backward."""
    T, d = dy.shape
    m = bottleneck(saved.h, saved.z, weights.w_up)
    if T == 0:
        return _no_tokens(dy, dtype, m, need)
    if not (need.dz or need.w_up):
        return Grads(b_up=_bias_grad(dy, settings.scale, dtype) if need.b_up else None)
    # Hooks on saved tensors may have changed the layout of what the forward itself had made.
    x, *kept = saved
    h, slope, z = (None if tensor is None else dense(tensor) for tensor in kept)
    w_down, w_up = (None if tensor is None else dense(tensor) for tensor in (weights.w_down, weights.w_up))
    setting = problem(dy.device, dy.dtype, dtype, T, d, m, dy, x, h, slope, z, w_down, w_up)
    setting = kernels("tiles").converted("backward", setting)
    if setting.w_bytes != dtype.itemsize:
        w_down, w_up = (None if weight is None else weight.to(dy.dtype) for weight in (w_down, w_up))
    backward = kernels("backward")
    made = sums = None
    with _on(dy.device):
        if need.dz:
            blocks = kernels("blocks")
            down, read = blocks.Linear(w_down, bias_of(weights.b_down)), blocks.Saved(h, slope, z)
            wanted = backward.Wanted(
                dx=need.x, add_dy=settings.add_x, h=need.w_up and h is None, dz=need.w_down, db_down=need.b_down
            )
            made = backward.launch_dx(dy, x, read, down, w_up, settings, wanted, setting)
            h = h if made.h is None else made.h
        if need.w_down or need.w_up:
            sums = backward.launch_weight_grad(
                dy, x if need.w_down else None, h if need.w_up else None, made and made.dz, m, need.b_up, setting
            )
        partial = kernels("reduce").Partial(
            dw_down=sums and sums.dw_down,
            db_down=made and made.db_down,
            dw_up=sums and sums.dw_up,
            db_up=sums and sums.db_up,
        )
        grads = kernels("reduce").launch_reduce(partial, settings.scale, dtype, setting)
        db_up = grads.db_up
        if need.b_up and db_up is None:
            db_up = _bias_grad(dy, settings.scale, dtype)
    return Grads(made and made.dx, grads.dw_down, grads.db_down, grads.dw_up, db_up)


def _bias_grad(dy: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    total = column_sum(dy)
    return (total if scale == 1.0 else total.mul_(scale)).to(dtype)


def _no_tokens(dy: Tensor, dtype: torch.dtype, m: int, need: Need) -> Grads:
    d = dy.shape[-1]
    return Grads(
        x=dy.new_zeros((0, d)) if need.x else None,
        w_down=dy.new_zeros((m, d), dtype=dtype) if need.w_down else None,
        b_down=dy.new_zeros(m, dtype=dtype) if need.b_down else None,
        w_up=dy.new_zeros((d, m), dtype=dtype) if need.w_up else None,
        b_up=dy.new_zeros(d, dtype=dtype) if need.b_up else None,
    )
