"""The one autograd Function of the fused adapter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import ops


class FusedAdapterFunction(torch.autograd.Function):
    """y = residual + scale · (act(x · W_downᵀ + b_down) · W_upᵀ + b_up), and its gradients.

    Arguments as in ops.forward; gradients are computed only for inputs that need one. With u the branch before scale,
    z = x · W_downᵀ + b_down and h = act(z):

        dz = scale · (dy · W_up) ⊙ act'(z)        dx = dz · W_down (+ dy where x is the residual)
        dW_up = scale · dyᵀ · h                   db_up = scale · Σ_t dy
        dW_down = dzᵀ · x                         db_down = Σ_t dz

    Saved besides x for dW_down, W_down for dx and W_up for dz, by the memory mode: "speed" h for dW_up and the slope
    act'(z) for dz; "balanced" z alone, where both are needed; "lean" nothing: z is computed from x once more.
    Differentiable once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w_down: Tensor,
        b_down: Tensor | None,
        w_up: Tensor,
        b_up: Tensor | None,
        residual: Tensor | None,
        add_x: bool,
        activation: str,
        scale: float,
        backend: str,
        memory: str,
    ) -> Tensor:
        need = ctx.needs_input_grad[:5]
        need_x, need_w_down, need_b_down, need_w_up, _ = need
        need_dz = need_x or need_w_down or need_b_down
        if not (need_w_up or need_dz):
            ctx.save_for_backward(*(None,) * 7)
            y = ops.forward(x, w_down, b_down, w_up, b_up, residual, add_x, activation, scale, backend)
        else:
            recompute = memory == "lean" and need_dz
            save_z = memory == "balanced" and need_dz and need_w_up
            save_h = need_w_up and not (save_z or recompute)
            save_slope = need_dz and not (save_z or recompute)
            y, h, slope, z = ops.forward_save(  # type: ignore[assignment]
                x, w_down, b_down, w_up, b_up, residual, add_x, activation, scale, backend, save_h, save_slope, save_z
            )
            ctx.save_for_backward(
                x if need_w_down or recompute else None,
                h if save_h else None,
                slope if save_slope else None,
                z if save_z else None,
                w_down if need_x or recompute else None,
                b_down if recompute else None,
                w_up if need_dz else None,
            )
        ctx.set_materialize_grads(False)
        ctx.arguments = (add_x, activation, scale, backend, w_down.dtype, *need)
        ctx.need_residual = ctx.needs_input_grad[5]
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is not None and not dy.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # once_differentiable lets constants through: without this a second derivative would silently be zero.
            dy = dy.detach().requires_grad_()
        return _backward(ctx, dy)


@once_differentiable
def _backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 11
    grads: tuple[Tensor | None, ...] = (None,) * 5
    need = ctx.arguments[5:]
    if any(need):
        grads = ops.backward(dy, *ctx.saved_tensors, *ctx.arguments)
        grads = tuple(grad if needed else None for grad, needed in zip(grads, need))
    return (*grads, dy if ctx.need_residual else None, *(None,) * 5)
