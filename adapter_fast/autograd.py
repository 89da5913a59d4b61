"""The autograd Functions of the fused adapter: the usual one, and one for torch.func."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import ops
from .checks import refused_derivative


class FusedAdapterFunction(torch.autograd.Function):
    """y = residual + scale · (act(x · W_downᵀ + b_down) · W_upᵀ + b_up), and its gradients.

    Arguments as in ops.forward; gradients are computed only for inputs that need one. With u the branch before scale,
    z = x · W_downᵀ + b_down and h = act(z):

        dz = scale · (dy · W_up) ⊙ act'(z)        dx = dz · W_down (+ dy where x is the residual)
        dW_up = scale · dyᵀ · h                   db_up = scale · Σ_t dy
        dW_down = dzᵀ · x                         db_down = Σ_t dz

    Saved besides x for dW_down, W_down for dx and W_up for dz, by the memory mode: "speed" h for dW_up and the slope
    act'(z) for dz; "balanced" z alone, where both are needed; "lean" nothing: z is computed from x once more.
    Differentiable once: a backward pass with create_graph=True is refused, since what is saved has no graph to x.
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
        return y.detach()  # y may be a view of rows, which autograd would let nobody change in place

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise refused_derivative("create_graph=True")
        if dy is None:
            return (None,) * 11
        grads: tuple[Tensor | None, ...] = (None,) * 5
        need = ctx.arguments[5:]
        if any(need):
            grads = ops.backward(dy, *ctx.saved_tensors, *ctx.arguments)
            grads = tuple(grad if needed else None for grad, needed in zip(grads, need))
        return (*grads, dy if ctx.need_residual else None, *(None,) * 5)


class TransformableAdapterFunction(torch.autograd.Function):
    """The same in the form that torch.func's transforms ask for; saves its inputs alone.

    vmap over tokens is one call, vmap over weights a call for each. A second derivative and forward mode raise
    RuntimeError. torch.compile traces none of it: where torch.func is compiled, these calls stay in eager mode.
    """

    @staticmethod
    @torch._disable_dynamo
    def forward(*args: Any) -> Tensor:
        return ops.forward(*args).detach()

    @staticmethod
    @torch._disable_dynamo
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w_down, b_down, w_up, _, _, *settings = inputs
        ctx.save_for_backward(x, w_down, b_down, w_up)
        ctx.settings = (*settings, w_down.dtype)

    @staticmethod
    @torch._disable_dynamo
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        need = ctx.needs_input_grad[:5]
        grads = iter(_Gradients.apply(dy, *ctx.saved_tensors, *ctx.settings, *need) if any(need) else ())
        residual = dy if ctx.needs_input_grad[5] else None
        return (*(next(grads) if needed else None for needed in need), residual, *(None,) * 4)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        raise refused_derivative("forward-mode derivatives")

    @staticmethod
    @torch._disable_dynamo
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        if any(dim is not None for dim in in_dims[1:5]):
            calls = (TransformableAdapterFunction.apply(*_at(index, in_dims, args)) for index in range(info.batch_size))
            return torch.stack(list(calls)), 0
        x, w_down, b_down, w_up, b_up, residual, *settings = args
        x = _first(x, in_dims[0], info.batch_size)
        residual = None if residual is None else _first(residual, in_dims[5], info.batch_size)
        return TransformableAdapterFunction.apply(x, w_down, b_down, w_up, b_up, residual, *settings), 0


class _Gradients(torch.autograd.Function):
    """The gradients that are needed, from dy and the inputs; refuses to be differentiated."""

    @staticmethod
    @torch._disable_dynamo
    def forward(dy: Tensor, x: Tensor, w_down: Tensor, b_down: Tensor | None, w_up: Tensor, *settings: Any) -> Any:
        grads = ops.backward(dy, x, None, None, None, w_down, b_down, w_up, *settings)
        return tuple(grad for grad, needed in zip(grads, settings[-5:]) if needed)

    @staticmethod
    @torch._disable_dynamo
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    @torch._disable_dynamo
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise refused_derivative("second derivatives")

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        raise refused_derivative("forward-mode derivatives")

    @staticmethod
    @torch._disable_dynamo
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[tuple[Tensor, ...], int]:
        calls = (_Gradients.apply(*_at(index, in_dims, args)) for index in range(info.batch_size))
        return tuple(torch.stack(grads) for grads in zip(*calls)), 0


def _at(index: int, in_dims: tuple[int | None, ...], args: tuple[Any, ...]) -> list[Any]:
    """The arguments of one element of a vmapped batch."""
    return [arg if dim is None else arg.select(dim, index) for arg, dim in zip(args, in_dims)]


def _first(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The tensor with the vmapped dimension in front, of this size."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
