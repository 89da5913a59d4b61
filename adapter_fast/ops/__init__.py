"""The op as torch.library sees it: schemas, fake and device implementations, and a direct call in eager mode.

Under torch.compile the calls below go through the registered ops, which the compiler treats as opaque; in eager mode
they run the same implementation directly, which saves the dispatcher's time. All ops are functional: fresh outputs,
nothing written in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..checks import PLAIN, check_saved
from . import eager, launch
from .layout import as_rows, bottleneck, needs_copy

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
    *save: bool,
) -> tuple[Tensor | None, ...]:
    if backend != "torch":
        return launch.forward(x, w_down, b_down, w_up, b_up, residual, add_x, activation, scale, *save)
    rows = as_rows(x)
    added = None if residual is None else as_rows(residual)
    y, *saved = eager.forward(rows, w_down, b_down, w_up, b_up, added, add_x, activation, scale, *save)
    return y.view(x.shape), *saved


def _forward(x: Tensor, *args: Any) -> Tensor:
    return _forward_save(x, *args, False, False, False)[0]  # type: ignore[return-value]


def _backward(
    dy: Tensor,
    x: Tensor | None,
    h: Tensor | None,
    slope: Tensor | None,
    z: Tensor | None,
    w_down: Tensor | None,
    b_down: Tensor | None,
    w_up: Tensor | None,
    add_x: bool,
    activation: str,
    scale: float,
    backend: str,
    weight_dtype: torch.dtype,
    *need: bool,
) -> tuple[Tensor | None, ...]:
    check_saved(dy, bottleneck(h, z, w_up), weight_dtype, x, h, slope, z, w_down, b_down, w_up)
    run = eager.backward if backend == "torch" else launch.backward
    rows = None if x is None else as_rows(x)
    grads = run(as_rows(dy), rows, h, slope, z, w_down, b_down, w_up, add_x, activation, scale, weight_dtype, *need)
    return None if grads[0] is None else grads[0].view(dy.shape), *grads[1:]


def _filled(run: Any) -> Any:
    """The implementation that torch.library gets: an op returns tensors only, so an empty one stands for None."""

    def implementation(first: Tensor, *args: Any) -> tuple[Tensor, ...]:
        return tuple(first.new_empty(0) if value is None else value for value in run(first, *args))

    return implementation


def _fake_forward(x: Tensor, *args: Any) -> Tensor:
    return x.new_empty(x.shape)


def _fake_forward_save(x: Tensor, w_down: Tensor, *args: Any) -> tuple[Tensor, ...]:
    shape = (x.numel() // x.shape[-1], w_down.shape[0])
    return x.new_empty(x.shape), *(x.new_empty(shape if saved else 0) for saved in args[-3:])


def _fake_backward(
    dy: Tensor,
    x: Tensor | None,
    h: Tensor | None,
    slope: Tensor | None,
    z: Tensor | None,
    w_down: Tensor | None,
    b_down: Tensor | None,
    w_up: Tensor | None,
    add_x: bool,
    activation: str,
    scale: float,
    backend: str,
    weight_dtype: torch.dtype,
    need_x: bool,
    need_w_down: bool,
    need_b_down: bool,
    need_w_up: bool,
    need_b_up: bool,
) -> tuple[Tensor, ...]:
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
    ("adapter_fast::bottleneck_forward", _forward, _fake_forward),
    ("adapter_fast::bottleneck_forward_save", _filled(_forward_save), _fake_forward_save),
    ("adapter_fast::bottleneck_backward", _filled(_backward), _fake_backward),
):
    torch.library.impl(_name, ("cpu", "cuda"), _implementation)
    torch.library.register_fake(_name, _fake)


def _direct(tensor: Tensor) -> bool:
    return not torch.compiler.is_compiling() and type(tensor) in PLAIN


def forward(x: Tensor, *args: Any) -> Tensor:
    """y [..., d]; arguments as in the schema bottleneck_forward."""
    return (_forward if _direct(x) else torch.ops.adapter_fast.bottleneck_forward.default)(x, *args)


def forward_save(x: Tensor, *args: Any) -> tuple[Tensor | None, ...]:
    """y [..., d], h, slope and z [T, m], what is not saved empty or None; arguments as in bottleneck_forward_save."""
    return (_forward_save if _direct(x) else torch.ops.adapter_fast.bottleneck_forward_save.default)(x, *args)


def backward(dy: Tensor, *args: Any) -> tuple[Tensor | None, ...]:
    """dx, dw_down, db_down, dw_up, db_up, what is not needed empty or None; arguments as in bottleneck_backward."""
    return (_backward if _direct(dy) else torch.ops.adapter_fast.bottleneck_backward.default)(dy, *args)


def describe(x: Tensor, dtype: torch.dtype, w_down: Tensor, w_up: Tensor, backend: str) -> list[str]:
    """Phrases on how a call with these tensors would run: launches, conversions and copies."""
    phrases = []
    if backend != "torch":
        phrases.append(launch.launch_form(x.device, dtype, w_down.dtype, max(1, x.numel() // x.shape[-1]), *w_up.shape))
    if needs_copy(x):
        phrases.append(f"x is copied first: its strides {list(x.stride())} are not rows of unit stride")
    for name, weight in (("w_down", w_down), ("w_up", w_up)):
        if backend != "torch" and not weight.is_contiguous():
            phrases.append(f"{name} is copied first: it is not contiguous")
    return phrases
