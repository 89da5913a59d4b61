"""The op as torch.library sees it: schemas, fake and device implementations, and a direct call in eager mode.

Under torch.compile the calls below go through the registered ops, which the compiler treats as opaque; in eager mode
they run the same implementation directly, which saves the dispatcher's time. All ops are functional: fresh outputs,
nothing written in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import eager, launch
from .layout import as_rows, needs_copy

_INPUTS = "Tensor x, Tensor w_down, Tensor? b_down, Tensor w_up, Tensor? b_up, Tensor? residual, bool add_x"
_SETTINGS = "str activation, float scale, str backend"

torch.library.define("adapter_fast::bottleneck_forward", f"({_INPUTS}, {_SETTINGS}) -> Tensor")
torch.library.define(
    "adapter_fast::bottleneck_forward_save",
    f"({_INPUTS}, {_SETTINGS}, bool save_h, bool save_slope) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "adapter_fast::bottleneck_backward",
    "(Tensor dy, Tensor? x, Tensor? h, Tensor? slope, Tensor? w_down, Tensor? w_up, bool add_x, float scale, "
    "str backend, ScalarType weight_dtype, bool need_b_down, bool need_b_up) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def _forward_save(
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
    save_h: bool,
    save_slope: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if backend != "torch":
        return launch.forward(x, w_down, b_down, w_up, b_up, residual, add_x, activation, scale, save_h, save_slope)
    rows = as_rows(x)
    added = None if residual is None else as_rows(residual)
    y, h, slope = eager.forward(rows, w_down, b_down, w_up, b_up, added, add_x, activation, scale, save_h, save_slope)
    return y.view(x.shape), h, slope


def _forward(
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
    return _forward_save(x, w_down, b_down, w_up, b_up, residual, add_x, activation, scale, backend, False, False)[0]


def _backward(
    dy: Tensor,
    x: Tensor | None,
    h: Tensor | None,
    slope: Tensor | None,
    w_down: Tensor | None,
    w_up: Tensor | None,
    add_x: bool,
    scale: float,
    backend: str,
    weight_dtype: torch.dtype,
    need_b_down: bool,
    need_b_up: bool,
) -> tuple[Tensor, ...]:
    if backend != "torch":
        grads = launch.backward(dy, x, h, slope, w_down, w_up, add_x, scale, weight_dtype, need_b_down, need_b_up)
    else:
        x = None if x is None else as_rows(x)
        grads = eager.backward(
            as_rows(dy), x, h, slope, w_down, w_up, add_x, scale, weight_dtype, need_b_down, need_b_up
        )
        grads = (None if grads[0] is None else grads[0].view(dy.shape), *grads[1:])
    # An op returns tensors only: an empty one stands for a gradient that nobody needs.
    return tuple(dy.new_empty(0) if grad is None else grad for grad in grads)


def _fake_forward(x: Tensor, *args: Any) -> Tensor:
    return x.new_empty(x.shape)


def _fake_forward_save(x: Tensor, w_down: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    save_h, save_slope = args[-2:]
    T, m = x.numel() // x.shape[-1], w_down.shape[0]
    return x.new_empty(x.shape), x.new_empty((T if save_h else 0, m)), x.new_empty((T if save_slope else 0, m))


def _fake_backward(
    dy: Tensor,
    x: Tensor | None,
    h: Tensor | None,
    slope: Tensor | None,
    w_down: Tensor | None,
    w_up: Tensor | None,
    add_x: bool,
    scale: float,
    backend: str,
    weight_dtype: torch.dtype,
    need_b_down: bool,
    need_b_up: bool,
) -> tuple[Tensor, ...]:
    d = dy.shape[-1]
    m = next((t.shape[1] for t in (h, slope) if t is not None), 0)

    def grad(needed: bool, shape: tuple[int, ...]) -> Tensor:
        return dy.new_empty(shape, dtype=weight_dtype) if needed else dy.new_empty(0)

    return (
        dy.new_empty(dy.shape) if w_down is not None else dy.new_empty(0),
        grad(x is not None, (m, d)),
        grad(need_b_down, (m,)),
        grad(h is not None, (d, m)),
        grad(need_b_up, (d,)),
    )


for _name, _implementation, _fake in (
    ("adapter_fast::bottleneck_forward", _forward, _fake_forward),
    ("adapter_fast::bottleneck_forward_save", _forward_save, _fake_forward_save),
    ("adapter_fast::bottleneck_backward", _backward, _fake_backward),
):
    torch.library.impl(_name, ("cpu", "cuda"), _implementation)
    torch.library.register_fake(_name, _fake)

_PLAIN = (Tensor, torch.nn.Parameter)


def _direct(tensor: Tensor) -> bool:
    return not torch.compiler.is_compiling() and type(tensor) in _PLAIN


def forward(x: Tensor, *args: Any) -> Tensor:
    """y [..., d]; arguments as in the schema bottleneck_forward."""
    return (_forward if _direct(x) else torch.ops.adapter_fast.bottleneck_forward.default)(x, *args)


def forward_save(x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """y [..., d], h [T, m] and slope [T, m] (or [0, m]); arguments as in the schema bottleneck_forward_save."""
    return (_forward_save if _direct(x) else torch.ops.adapter_fast.bottleneck_forward_save.default)(x, *args)


def backward(dy: Tensor, *args: Any) -> tuple[Tensor, ...]:
    """dx, dw_down, db_down, dw_up, db_up, empty where not needed; arguments as in the schema bottleneck_backward."""
    return (_backward if _direct(dy) else torch.ops.adapter_fast.bottleneck_backward.default)(dy, *args)


def describe(x: Tensor, dtype: torch.dtype, w_down: Tensor, w_up: Tensor, backend: str) -> list[str]:
    """Phrases on how a call with these tensors would run: launches, conversions and copies."""
    phrases = []
    if backend != "torch":
        phrases.append(launch.launch_form(x.device, dtype, w_down.dtype, x.shape[-1], w_down.shape[0]))
    if needs_copy(x):
        phrases.append(f"x is copied first: its strides {list(x.stride())} are not rows of unit stride")
    for name, weight in (("w_down", w_down), ("w_up", w_up)):
        if backend != "torch" and not weight.is_contiguous():
            phrases.append(f"{name} is copied first: it is not contiguous")
    return phrases
