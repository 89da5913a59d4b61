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

    Saved: h for dW_up; the slope act'(z) and W_up for dz; x for dW_down; W_down for dx. Differentiable once.
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
    ) -> Tensor:
        need_x, need_w_down, need_b_down, need_w_up, need_b_up, need_residual = ctx.needs_input_grad[:6]
        need_dz = need_x or need_w_down or need_b_down
        if not (need_w_up or need_dz):
            ctx.save_for_backward(None, None, None, None, None)
            y = ops.forward(x, w_down, b_down, w_up, b_up, residual, add_x, activation, scale, backend)
        else:
            y, h, slope = ops.forward_save(
                x, w_down, b_down, w_up, b_up, residual, add_x, activation, scale, backend, need_w_up, need_dz
            )
            ctx.save_for_backward(
                x if need_w_down else None,
                h if need_w_up else None,
                slope if need_dz else None,
                w_down if need_x else None,
                w_up if need_dz else None,
            )
        ctx.set_materialize_grads(False)
        ctx.arguments = (add_x, scale, backend, w_down.dtype)
        ctx.needs = (need_x, need_w_down, need_b_down, need_w_up, need_b_up, need_residual)
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
        return (None,) * 10
    add_x, scale, backend, weight_dtype = ctx.arguments
    need_x, need_w_down, need_b_down, need_w_up, need_b_up, need_residual = ctx.needs
    x, h, slope, w_down, w_up = ctx.saved_tensors
    grads: tuple[Tensor | None, ...] = (None,) * 5
    if need_x or need_w_down or need_b_down or need_w_up or need_b_up:
        grads = ops.backward(dy, x, h, slope, w_down, w_up, add_x, scale, backend, weight_dtype, need_b_down, need_b_up)
        needs = (need_x, need_w_down, need_b_down, need_w_up, need_b_up)
        grads = tuple(grad if need else None for grad, need in zip(grads, needs))
    return (*grads, dy if need_residual else None, None, None, None, None)
