"""The kernels behind the op's tensors-in, tensors-out face: layout, device, launches, final reductions.

The only importer of adapter_fast.kernels; Triton itself is imported at the first launch.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .eager import column_sum
from .layout import as_rows, dense

if TYPE_CHECKING:
    from adapter_fast.kernels.tiles import Problem

# The interpreter runs the tiles of this architecture, with few programs so that tests stay quick.
INTERPRETED_ARCH, INTERPRETED_SMS = "sm_90", 8


@cache
def _device(index: int) -> tuple[str, int]:
    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip is not None:
        return properties.gcnArchName.split(":")[0], properties.multi_processor_count
    return f"sm_{properties.major}{properties.minor}", properties.multi_processor_count


def problem(
    device: torch.device, dtype: torch.dtype, weight_dtype: torch.dtype, d: int, m: int, *rows: Tensor | None
) -> Problem:
    """What select_tiles needs to know about a launch on this device; rows: its tensors, for their alignment."""
    from adapter_fast.kernels.tiles import Problem

    arch, sms = INTERPRETED_ARCH, INTERPRETED_SMS
    if device.type == "cuda":
        arch, sms = _device(torch.cuda.current_device() if device.index is None else device.index)
    exact = dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest"
    return Problem(
        D=d,
        M=m,
        x_bytes=dtype.itemsize,
        w_bytes=weight_dtype.itemsize,
        precision="ieee" if exact else "tf32",
        arch=arch,
        sms=sms,
        aligned=d % 16 == 0 and m % 16 == 0 and all(t is None or _aligned(t) for t in rows),
    )


def _aligned(rows: Tensor) -> bool:
    return rows.data_ptr() % 16 == 0 and rows.stride(0) % 16 == 0


def launch_form(device: torch.device, dtype: torch.dtype, weight_dtype: torch.dtype, d: int, m: int) -> str:
    """One phrase on how many launches the two directions take."""
    from adapter_fast.kernels.tiles import select_tiles

    forms = [select_tiles(phase, problem(device, dtype, weight_dtype, d, m)).form for phase in ("forward", "dx")]
    if forms == ["fused", "fused"]:
        return f"one fused launch each way at m = {m}"
    which = {("split", "split"): "forward and dx", ("split", "fused"): "forward", ("fused", "split"): "dx"}
    return f"two launches for {which[tuple(forms)]} at m = {m}: a fused tile of that width does not fit"


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
    """x [..., d] → y of that shape, h [T, m] and slope [T, m], the last two [0, m] unless asked for."""
    from adapter_fast.kernels.forward import launch_forward

    rows = as_rows(x)
    added = rows if add_x else None if residual is None else as_rows(residual)
    w_down, w_up = dense(w_down), dense(w_up)
    with torch.cuda.device_of(x):
        y, h, slope = launch_forward(
            rows,
            w_down,
            None if b_down is None else dense(b_down),
            w_up,
            None if b_up is None else dense(b_up),
            added,
            activation,
            scale,
            save_h,
            save_slope,
            problem(x.device, x.dtype, w_down.dtype, x.shape[-1], w_down.shape[0], rows, added, w_down, w_up),
        )
    return y.view(x.shape), h, slope


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
    """dy [..., d] → dx, dw_down, db_down, dw_up, db_up; what was saved says what is needed, as in eager.backward."""
    from adapter_fast.kernels.backward import launch_dx, launch_weight_grad

    rows = as_rows(dy)
    d = rows.shape[1]
    m = next((t.shape[1] for t in (h, slope) if t is not None), 0)
    dx = dz = dw_down = db_down = dw_up = db_up = sums = None
    if rows.shape[0] == 0:
        return _no_tokens(dy, x, h, w_down, weight_dtype, m, need_b_down, need_b_up)
    x = None if x is None else as_rows(x)
    w_down = None if w_down is None else dense(w_down)
    w_up = None if w_up is None else dense(w_up)
    with torch.cuda.device_of(dy):
        if m:
            setting = problem(dy.device, dy.dtype, weight_dtype, d, m, rows, x, w_down, w_up)
            if slope is not None and w_up is not None:
                dx, dz, db_down, sums = launch_dx(
                    rows, slope, w_down, w_up, add_x, scale, x is not None, need_b_down, need_b_up, setting
                )
            if x is not None or h is not None:
                dw_down, dw_up = launch_weight_grad(rows, x, h, dz, m, setting)
        if need_b_up:
            db_up = column_sum(rows) if sums is None else sums.sum(0)
    return (
        None if dx is None else dx.view(dy.shape),
        _reduce(dw_down, 1.0, weight_dtype),
        _reduce(db_down, 1.0, weight_dtype),
        _reduce(dw_up, scale, weight_dtype),
        None if db_up is None else db_up.mul_(scale).to(weight_dtype),
    )


def _reduce(partial: Tensor | None, factor: float, dtype: torch.dtype) -> Tensor | None:
    """Sum the slots [S, ...] in a fixed order, times factor, in the weights' dtype."""
    if partial is None:
        return None
    total = partial[0] if partial.shape[0] == 1 else partial.sum(0)
    return (total if factor == 1.0 else total.mul_(factor)).to(dtype)


def _no_tokens(
    dy: Tensor,
    x: Tensor | None,
    h: Tensor | None,
    w_down: Tensor | None,
    dtype: torch.dtype,
    m: int,
    need_b_down: bool,
    need_b_up: bool,
) -> tuple[Tensor | None, ...]:
    d = dy.shape[-1]
    return (
        None if w_down is None else dy.new_empty(dy.shape),
        None if x is None else dy.new_zeros((m, d), dtype=dtype),
        dy.new_zeros((m,), dtype=dtype) if need_b_down else None,
        None if h is None else dy.new_zeros((d, m), dtype=dtype),
        dy.new_zeros((d,), dtype=dtype) if need_b_up else None,
    )
