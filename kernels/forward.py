"""The fused forward: y = residual + scale · (act(x · W_downᵀ + b_down) · W_upᵀ + b_up) in one launch.

A program owns BLOCK_T tokens. Its first loop walks the hidden dimension and accumulates z [BLOCK_T, BLOCK_M]; its
second loop walks it backwards and writes y once. x, y, residual are [T, D]; W_down [M, D], W_up [D, M]; z, h = act(z)
and slope = act'(z) are [T, M] in x's dtype. Products accumulate in float32 (float64 for float64 in the interpreter).
"""

from functools import cache

import torch
import triton
import triton.language as tl

from .activations import activate, activation_slope
from .blocks import contract, expand_rows
from .expand import launch_expand
from .launch import Launch, acc_dtype, prepare
from .offers import OPTIONAL_FORMS, launcher
from .shapes import LaunchConfig, Problem
from .tiles import select_tiles


@triton.jit(do_not_specialize=["T", "D", "M", "stride_xt", "stride_rt"])
def bottleneck_forward_kernel(
    x_ptr,
    w_down_ptr,
    b_down_ptr,
    w_up_ptr,
    b_up_ptr,
    residual_ptr,
    y_ptr,
    h_ptr,
    slope_ptr,
    z_ptr,
    T,
    D,
    M,
    scale,
    stride_xt,
    stride_rt,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
    PARTIAL_SUMS: tl.constexpr,
    STAGES: tl.constexpr,
    UNIT: tl.constexpr,
    UNIT_D: tl.constexpr,
    UNIT_M: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Programs: tiles of tokens × tiles of the bottleneck, the latter fastest; y_ptr None: expand_kernel makes y.

    UNIT divides the strides, UNIT_D and UNIT_M the sizes (Problem.units).
    """
    D = D // UNIT_D * UNIT_D
    M = M // UNIT_M * UNIT_M
    stride_xt = stride_xt // UNIT * UNIT
    stride_rt = stride_rt // UNIT * UNIT
    pid = tl.program_id(0)
    tiles_m = tl.cdiv(M, BLOCK_M)
    # 64 bits to the tile's first row, 32 within the tile: ops/layout.py keeps row strides below 2²⁴.
    first_t = (pid // tiles_m).to(tl.int64) * BLOCK_T
    offs_t = tl.arange(0, BLOCK_T)  # [BLOCK_T]
    offs_m = (pid % tiles_m) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    mask_t = offs_t < T - first_t
    mask_m = offs_m < M

    z = tl.zeros((BLOCK_T, BLOCK_M), dtype=ACC_DTYPE)
    x_rows = x_ptr + first_t * stride_xt + offs_t[:, None] * stride_xt
    z = contract(z, x_rows, mask_t, w_down_ptr, 1, D, offs_m, mask_m, D, PRECISION, BLOCK_D, PARTIAL_SUMS)
    if b_down_ptr is not None:
        z += tl.load(b_down_ptr + offs_m, mask=mask_m, other=0.0).to(ACC_DTYPE)[None, :]

    # An infinite x makes NaN of the columns that W_down lacks. After the activation this would take registers.
    z = tl.where(mask_m[None, :], z, 0.0)
    offs_tm = offs_t[:, None] * M + offs_m[None, :]  # [BLOCK_T, BLOCK_M]
    mask_tm = mask_t[:, None] & mask_m[None, :]
    if z_ptr is not None:
        tl.store(z_ptr + first_t * M + offs_tm, z.to(z_ptr.dtype.element_ty), mask=mask_tm)
    if slope_ptr is not None:
        slope = activation_slope(z, ACTIVATION)
        tl.store(slope_ptr + first_t * M + offs_tm, slope.to(slope_ptr.dtype.element_ty), mask=mask_tm)
    h = activate(z, ACTIVATION).to(x_ptr.dtype.element_ty)  # [BLOCK_T, BLOCK_M]
    if h_ptr is not None:
        tl.store(h_ptr + first_t * M + offs_tm, h, mask=mask_tm)

    if y_ptr is not None:
        residual_rows = residual_ptr
        if residual_ptr is not None:
            residual_rows = residual_ptr + first_t * stride_rt + offs_t[:, None] * stride_rt
        y_rows = y_ptr + first_t * D + offs_t[:, None] * D
        expand_rows(
            h,
            offs_m,
            mask_m,
            w_up_ptr,
            1,
            M,
            b_up_ptr,
            scale,
            residual_rows,
            y_rows,
            mask_t,
            D,
            PRECISION,
            ACC_DTYPE,
            BLOCK_D,
            STAGES,
        )


@cache
def _launch(
    problem: Problem,
    config: LaunchConfig,
    dtypes: tuple[torch.dtype | None, ...],
    activation: str,
    absent: tuple[bool, ...],
) -> Launch:
    return prepare(
        bottleneck_forward_kernel,
        config,
        problem,
        ACTIVATION=activation,
        PRECISION=problem.precision,
        ACC_DTYPE=acc_dtype(dtypes[0]),
        PARTIAL_SUMS=config.partial_sums,
        STAGES=config.num_stages,
        **problem.units(config),
    )


def launch_forward(
    x: torch.Tensor,
    w_down: torch.Tensor,
    b_down: torch.Tensor | None,
    w_up: torch.Tensor,
    b_up: torch.Tensor | None,
    residual: torch.Tensor | None,
    activation: str,
    scale: float,
    save_h: bool,
    save_slope: bool,
    save_z: bool,
    problem: Problem,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """x [T, d] and residual [T, d] or None, unit stride in d; dense weights → y [T, d], h, slope and z [T, m].

    h, slope and z are None unless they are to be saved. T = 0 launches nothing.
    """
    T, D = x.shape
    M = w_down.shape[0]
    config = select_tiles("forward", problem)
    split = config.form == "split"
    y = x.new_empty((T, D))
    h = x.new_empty((T, M)) if save_h or split else None
    slope = x.new_empty((T, M)) if save_slope else None
    z = x.new_empty((T, M)) if save_z else None
    if T == 0:
        return y, h if save_h else None, slope, z
    if config.form in OPTIONAL_FORMS:
        launcher(config.form)(
            x, w_down, b_down, w_up, b_up, residual, activation, scale, y, h, slope, z, config, problem
        )
        return y, h, slope, z
    absent = (b_down is None, b_up is None, residual is None, h is None, slope is None, z is None)
    bias = b_up if b_down is None else b_down
    dtypes = (x.dtype, w_down.dtype, None if bias is None else bias.dtype)
    _launch(problem, config, dtypes, activation, absent)(
        -(-T // config.BLOCK_T) * -(-M // config.BLOCK_M),
        x_ptr=x,
        w_down_ptr=w_down,
        b_down_ptr=b_down,
        w_up_ptr=w_up,
        b_up_ptr=b_up,
        residual_ptr=residual,
        y_ptr=None if split else y,
        h_ptr=h,
        slope_ptr=slope,
        z_ptr=z,
        T=T,
        D=D,
        M=M,
        scale=scale,
        stride_xt=x.stride(0),
        stride_rt=0 if residual is None else residual.stride(0),
    )
    if h is not None and split:
        launch_expand(h, w_up, False, b_up, residual, y, scale, problem)
    return y, h if save_h else None, slope, z
