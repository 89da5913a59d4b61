"""The fused forward: y = residual + scale · (act(x · W_downᵀ + b_down) · W_upᵀ + b_up) in one launch.

A program owns BLOCK_T tokens. Its first loop walks the hidden dimension and accumulates z [BLOCK_T, BLOCK_M]; its
second loop walks it backwards and writes y once. x, y, residual are [T, D]; W_down [M, D], W_up [D, M]; z, h = act(z)
and slope = act'(z) are [T, M] in x's dtype. Products accumulate in float32 (float64 for float64 in the interpreter).
"""

from functools import cache

import torch
import triton
import triton.language as tl

from .activations import activate
from .blocks import Linear, Rows, Saved, expand_rows, pointers, project, save
from .expand import launch_expand
from .launch import Branch, Launch, acc_dtype, dtypes, prepare
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

    x_rows = pointers(Rows(x_ptr, stride_xt), first_t, offs_t)
    down = Linear(w_down_ptr, b_down_ptr)
    z = project(x_rows, mask_t, down, offs_m, mask_m, D, PRECISION, ACC_DTYPE, BLOCK_D, PARTIAL_SUMS)
    # An infinite x makes NaN of the columns that W_down lacks. After the activation this would take registers.
    z = tl.where(mask_m[None, :], z, 0.0)
    offs_tm = offs_t[:, None] * M + offs_m[None, :]  # [BLOCK_T, BLOCK_M]
    mask_tm = mask_t[:, None] & mask_m[None, :]
    save(z, Saved(h_ptr, slope_ptr, z_ptr), first_t, M, offs_tm, mask_tm, ACTIVATION)
    h = activate(z, ACTIVATION).to(x_ptr.dtype.element_ty)  # [BLOCK_T, BLOCK_M]
    if h_ptr is not None:
        tl.store(h_ptr + first_t * M + offs_tm, h, mask=mask_tm)

    if y_ptr is not None:
        residual_rows = None
        if residual_ptr is not None:
            residual_rows = pointers(Rows(residual_ptr, stride_rt), first_t, offs_t)
        expand_rows(
            h,
            offs_m,
            mask_m,
            Linear(w_up_ptr, b_up_ptr),
            1,
            M,
            scale,
            residual_rows,
            pointers(Rows(y_ptr, D), first_t, offs_t),
            mask_t,
            D,
            PRECISION,
            ACC_DTYPE,
            BLOCK_D,
            STAGES,
        )


@cache
def _launch(problem: Problem, config: LaunchConfig, activation: str, given: tuple[torch.dtype | None, ...]) -> Launch:
    return prepare(
        bottleneck_forward_kernel,
        config,
        problem,
        ACTIVATION=activation,
        PRECISION=problem.precision,
        ACC_DTYPE=acc_dtype(problem),
        PARTIAL_SUMS=config.partial_sums,
        STAGES=config.num_stages,
        **problem.units(config),
    )


def arguments(
    x: torch.Tensor,
    down: Linear,
    up: Linear,
    residual: torch.Tensor | None,
    scale: float,
    y: torch.Tensor | None,
    saved: Saved,
) -> tuple[dict[str, torch.Tensor | None], dict[str, int | float]]:
    """The kernel's tensors and its numbers, by name in its own order."""
    tensors = {
        "x_ptr": x,
        "w_down_ptr": down.w,
        "b_down_ptr": down.b,
        "w_up_ptr": up.w,
        "b_up_ptr": up.b,
        "residual_ptr": residual,
        "y_ptr": y,
        "h_ptr": saved.h,
        "slope_ptr": saved.slope,
        "z_ptr": saved.z,
    }
    T, D = x.shape
    numbers = {
        "T": T,
        "D": D,
        "M": down.w.shape[0],
        "scale": scale,
        "stride_xt": x.stride(0),
        "stride_rt": 0 if residual is None else residual.stride(0),
    }
    return tensors, numbers


def launch_forward(
    x: torch.Tensor,
    down: Linear,
    up: Linear,
    residual: torch.Tensor | None,
    branch: Branch,
    keep: Saved,  # of booleans
    problem: Problem,
) -> tuple[torch.Tensor, Saved]:
    """x [T, d] and residual [T, d] or None, unit stride in d; dense weights → y [T, d], and h, slope and z [T, m].

    keep: which of the last three are wanted; the others are None. T = 0 launches nothing.
    """
    T, D = x.shape
    M = down.w.shape[0]
    config = select_tiles("forward", problem)
    split = config.form == "split"
    y = x.new_empty((T, D))
    h = x.new_empty((T, M)) if keep.h or split else None
    slope = x.new_empty((T, M)) if keep.slope else None
    z = x.new_empty((T, M)) if keep.z else None
    made = Saved(h, slope, z)
    saved = made if h is None or keep.h else Saved(None, slope, z)
    if T == 0:
        return y, saved
    tensors, numbers = arguments(x, down, up, residual, branch.scale, None if split else y, made)
    if config.form in OPTIONAL_FORMS:
        launcher(config.form)(tensors, numbers, branch.activation, config, problem)
        return y, saved
    programs = -(-T // config.BLOCK_T) * -(-M // config.BLOCK_M)
    _launch(problem, config, branch.activation, dtypes(tensors))(programs, **tensors, **numbers)
    if split:
        launch_expand(h, up, False, residual, y, branch.scale, problem)
    return y, saved
