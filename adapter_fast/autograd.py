"""The autograd Functions of the fused adapter: the usual one, and one for torch.func."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import ops
from .checks import refused_derivative
from .ops import Grads, Keep, Need, Saved, Settings, Weights


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
        settings: Settings,
    ) -> Tensor:
        *grads, need_residual, _ = ctx.needs_input_grad
        need = Need(*grads)
        weights = Weights(w_down, b_down, w_up, b_up)
        recompute = settings.memory == "lean" and need.dz
        keep_z = settings.memory == "balanced" and need.dz and need.w_up
        made = not (keep_z or recompute)
        keep = Keep(h=need.w_up and made, slope=need.dz and made, z=keep_z)
        if need.w_up or need.dz:
            y, saved = ops.forward_save(x, weights, residual, settings, keep)
        else:
            y, saved = ops.forward(x, weights, residual, settings), Saved()
        ctx.save_for_backward(
            x if need.w_down or recompute else None,
            saved.h if keep.h else None,
            saved.slope if keep.slope else None,
            saved.z if keep.z else None,
            w_down if need.x or recompute else None,
            b_down if recompute else None,
            w_up if need.dz else None,
        )
        ctx.set_materialize_grads(False)
        ctx.settings, ctx.weight_dtype, ctx.need, ctx.need_residual = settings, w_down.dtype, need, need_residual
        return y.detach()  # y may be a view of rows, which autograd would let nobody change in place

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise refused_derivative("create_graph=True")
        grads = Grads()
        if dy is not None and any(ctx.need):
            x, h, slope, z, w_down, b_down, w_up = ctx.saved_tensors
            saved, weights = Saved(x, h, slope, z), Weights(w_down, b_down, w_up)
            grads = ops.backward(dy, saved, weights, ctx.settings, ctx.weight_dtype, ctx.need)
        needed = (grad if wanted else None for grad, wanted in zip(grads, ctx.need))
        return *needed, dy if ctx.need_residual else None, None


class TransformableAdapterFunction(torch.autograd.Function):
    """The same in the form that torch.func's transforms ask for; saves its inputs alone.

    vmap over tokens is one call, vmap over weights a call for each. A second derivative and forward mode raise
    RuntimeError. torch.compile traces none of it: where torch.func is compiled, these calls stay in eager mode.
    """

    @staticmethod
    @torch._disable_dynamo
    def forward(*args: Any) -> Tensor:
        x, w_down, b_down, w_up, b_up, residual, *settings = args
        return ops.forward(x, Weights(w_down, b_down, w_up, b_up), residual, Settings(*settings)).detach()

    @staticmethod
    @torch._disable_dynamo
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w_down, b_down, w_up, _, _, *settings = inputs
        ctx.save_for_backward(x, w_down, b_down, w_up)
        ctx.settings = Settings(*settings)

    @staticmethod
    @torch._disable_dynamo
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w_down, b_down, w_up, b_up, residual, *settings = ctx.needs_input_grad
        need = Need(x, w_down, b_down, w_up, b_up)
        run = partial(_gradients, ctx.settings, need)
        grads = iter(_Gradients.apply(run, dy, *ctx.saved_tensors) if any(need) else ())
        needed = (next(grads) if wanted else None for wanted in need)
        return *needed, dy if residual else None, *(None for _ in settings)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        raise refused_derivative("forward-mode derivatives")

    @staticmethod
    @torch._disable_dynamo
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        x_dim, *weight_dims, residual_dim = in_dims[: len(in_dims) - len(Settings._fields)]
        if any(dim is not None for dim in weight_dims):
            calls = (TransformableAdapterFunction.apply(*_at(index, in_dims, args)) for index in range(info.batch_size))
            return torch.stack(list(calls)), 0
        x, w_down, b_down, w_up, b_up, residual, *settings = args
        x = _first(x, x_dim, info.batch_size)
        residual = None if residual is None else _first(residual, residual_dim, info.batch_size)
        return TransformableAdapterFunction.apply(x, w_down, b_down, w_up, b_up, residual, *settings), 0


def _gradients(
    settings: Settings, need: Need, dy: Tensor, x: Tensor, w_down: Tensor, b_down: Tensor | None, w_up: Tensor
) -> tuple[Tensor | None, ...]:
    grads = ops.backward(dy, Saved(x), Weights(w_down, b_down, w_up), settings, w_down.dtype, need)
    return tuple(grad for grad, wanted in zip(grads, need) if wanted)


class _Gradients(torch.autograd.Function):
    """The gradients that are needed, from dy and the inputs; refuses to be differentiated."""

    @staticmethod
    @torch._disable_dynamo
    def forward(run: Callable[..., Any], *tensors: Tensor | None) -> Any:
        return run(*tensors)

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
