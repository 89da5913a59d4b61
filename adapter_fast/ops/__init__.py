"""The op as torch.library sees it: schemas, fake and device implementations, and a direct call in eager mode.

Under torch.compile the calls below go through the registered ops, which the compiler treats as opaque; in eager mode
they run the same implementation directly, which saves the dispatcher's time. All ops are functional: fresh outputs,
nothing written in place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import PLAIN, check_saved
from . import eager, launch
from .call import NOTHING, Grads, Keep, Need, Saved, Settings, Weights
from .explain import describe
from .layout import as_rows, bottleneck

__all__ = ["Grads", "Keep", "Need", "Saved", "Settings", "Weights", "backward", "describe", "forward", "forward_save"]

_INPUTS = "Tensor x, Tensor w_down, Tensor? b_down, Tensor w_up, Tensor? b_up, Tensor? residual, bool add_x"
_SETTINGS = "str activation, float scale, str backend"

torch.library.define("adapter_fast::bottleneck_forward", f"({_INPUTS}, {_SETTINGS}) -> Tensor")
torch.library.define(
    "adapter_fast::bottleneck_forward_save",
    f"({_INPUTS}, {_SETTINGS}, bool save_h, bool save_slope, bool save_z) -> (Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define(
    "adapter_fast::bottleneck_backward",
    "(Tensor dy, Tensor? x, Tensor? h, Tensor? slope, Tensor? z, Tensor? w_down, Tensor? b_down, Tensor? w_up, "
    f"bool add_x, {_SETTINGS}, ScalarType weight_dtype, "
    "bool need_x, bool need_w_down, bool need_b_down, bool need_w_up, bool need_b_up) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def forward(x: Tensor, weights: Weights, residual: Tensor | None, settings: Settings) -> Tensor:
    """y [..., d]."""
    if _direct(x):
        return _forward_save(x, weights, residual, settings, NOTHING)[0]
    op = torch.ops.adapter_fast.bottleneck_forward.default
    return op(x, *weights, residual, settings.add_x, settings.activation, settings.scale, settings.backend)


def forward_save(
    x: Tensor, weights: Weights, residual: Tensor | None, settings: Settings, keep: Keep
) -> tuple[Tensor, Saved]:
    """y [..., d], and h, slope and z [T, m]; what is not kept is empty or None."""
    if _direct(x):
        return _forward_save(x, weights, residual, settings, keep)
    op = torch.ops.adapter_fast.bottleneck_forward_save.default
    y, h, slope, z = op(
        x, *weights, residual, settings.add_x, settings.activation, settings.scale, settings.backend, *keep
    )
    return y, Saved(h=h, slope=slope, z=z)


def backward(dy: Tensor, saved: Saved, weights: Weights, settings: Settings, dtype: torch.dtype, need: Need) -> Grads:
    """The gradients, those of the weights in dtype; what is not needed is empty or None."""
    if _direct(dy):
        return _backward(dy, saved, weights, settings, dtype, need)
    op = torch.ops.adapter_fast.bottleneck_backward.default
    w_down, b_down, w_up, _ = weights
    add_x, activation, scale, backend, _ = settings
    return Grads(*op(dy, *saved, w_down, b_down, w_up, add_x, activation, scale, backend, dtype, *need))


def _direct(tensor: Tensor) -> bool:
    return not torch.compiler.is_compiling() and type(tensor) in PLAIN


def _forward_save(
    x: Tensor, weights: Weights, residual: Tensor | None, settings: Settings, keep: Keep
) -> tuple[Tensor, Saved]:
    if settings.backend != "torch":
        return launch.forward(x, weights, residual, settings, keep)
    y, saved = eager.forward(as_rows(x), weights, None if residual is None else as_rows(residual), settings, keep)
    return y.view(x.shape), saved


def _backward(dy: Tensor, saved: Saved, weights: Weights, settings: Settings, dtype: torch.dtype, need: Need) -> Grads:
    m = bottleneck(saved.h, saved.z, weights.w_up)
    x, h, slope, z = saved
    w_down, b_down, w_up, _ = weights
    check_saved(dy, m, dtype, x=x, h=h, slope=slope, z=z, w_down=w_down, b_down=b_down, w_up=w_up)
    run = eager.backward if settings.backend == "torch" else launch.backward
    rows = saved if saved.x is None else saved._replace(x=as_rows(saved.x))
    grads = run(as_rows(dy), rows, weights, settings, dtype, need)
    return grads if grads.x is None else grads._replace(x=grads.x.view(dy.shape))


# What torch.library gets: flat schemas, and tensors alone in return, so that an empty one stands for None.


def _empty(like: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(like.new_empty(0) if tensor is None else tensor for tensor in tensors)


def _op_forward(x, w_down, b_down, w_up, b_up, residual, add_x, activation, scale, backend):
    settings = Settings(add_x, activation, scale, backend)
    return _forward_save(x, Weights(w_down, b_down, w_up, b_up), residual, settings, NOTHING)[0]


def _op_forward_save(
    x, w_down, b_down, w_up, b_up, residual, add_x, activation, scale, backend, save_h, save_slope, save_z
):
    weights, settings = Weights(w_down, b_down, w_up, b_up), Settings(add_x, activation, scale, backend)
    y, saved = _forward_save(x, weights, residual, settings, Keep(save_h, save_slope, save_z))
    return _empty(x, y, saved.h, saved.slope, saved.z)


def _op_backward(
    dy, x, h, slope, z, w_down, b_down, w_up, add_x, activation, scale, backend, weight_dtype,
    need_x, need_w_down, need_b_down, need_w_up, need_b_up,
):  # fmt: skip
    weights, settings = Weights(w_down, b_down, w_up), Settings(add_x, activation, scale, backend)
    need = Need(need_x, need_w_down, need_b_down, need_w_up, need_b_up)
    return _empty(dy, *_backward(dy, Saved(x, h, slope, z), weights, settings, weight_dtype, need))


def _fake_forward(x, w_down, b_down, w_up, b_up, residual, add_x, activation, scale, backend):
    return x.new_empty(x.shape)


def _fake_forward_save(
    x, w_down, b_down, w_up, b_up, residual, add_x, activation, scale, backend, save_h, save_slope, save_z
):
    shape = (x.numel() // x.shape[-1], w_down.shape[0])
    return x.new_empty(x.shape), *(x.new_empty(shape if kept else 0) for kept in (save_h, save_slope, save_z))


def _fake_backward(
    dy, x, h, slope, z, w_down, b_down, w_up, add_x, activation, scale, backend, weight_dtype,
    need_x, need_w_down, need_b_down, need_w_up, need_b_up,
):  # fmt: skip
    d = dy.shape[-1]
    m = bottleneck(h, z, w_up)

    def grad(needed: bool, *shape: int) -> Tensor:
        return dy.new_empty(shape, dtype=weight_dtype) if needed else dy.new_empty(0)

    return (
        dy.new_empty(dy.shape) if need_x else dy.new_empty(0),
        grad(need_w_down, m, d),
        grad(need_b_down, m),
        grad(need_w_up, d, m),
        grad(need_b_up, d),
    )


for _name, _implementation, _fake in (
    ("adapter_fast::bottleneck_forward", _op_forward, _fake_forward),
    ("adapter_fast::bottleneck_forward_save", _op_forward_save, _fake_forward_save),
    ("adapter_fast::bottleneck_backward", _op_backward, _fake_backward),
):
    torch.library.impl(_name, ("cpu", "cuda"), _implementation)
    torch.library.register_fake(_name, _fake)
