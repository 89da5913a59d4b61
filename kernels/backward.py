"""The backward in two launches: dx with the partial sums of db_down, then both weight gradients and db_up together.

dz = scale · (dy · W_up) ⊙ slope, dx = dz · W_down (+ dy), dW_up = scale · dyᵀ · h, dW_down = dzᵀ · x,
db_up = scale · Σ dy, db_down = Σ dz. Every sum over tokens goes to a partial slot of its own, and the slots are reduced
afterwards in a fixed order: no atomics, the same bits every time.
dy, x, dx are [T, D]; h, slope, dz [T, M]; W_down [M, D], W_up [D, M].
"""

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .activations import activate, activation_slope
from .blocks import Linear, Rows, Saved, contract, expand_rows, multiply, pointers, project
from .expand import launch_expand
from .launch import Branch, Launch, acc_dtype, dtypes, prepare
from .shapes import LaunchConfig, Phase, Problem
from .tiles import select_tiles, split_count


@triton.jit(do_not_specialize=["T", "D", "M", "stride_dyt", "stride_xt"])
def bottleneck_dx_kernel(
    dy_ptr,
    x_ptr,
    h_ptr,
    slope_ptr,
    z_ptr,
    w_up_ptr,
    w_down_ptr,
    b_down_ptr,
    dx_ptr,
    dz_ptr,
    db_down_ptr,
    T,
    D,
    M,
    scale,
    stride_dyt,
    stride_xt,
    ADD_DY: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
    STAGES: tl.constexpr,
    UNIT: tl.constexpr,
    UNIT_D: tl.constexpr,
    UNIT_M: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """A program a tile, and units, as in bottleneck_forward_kernel; dx_ptr None leaves the second loop out.

    The slope is read, or made from z, or from x where that is given. Made, it comes before the first loop, together
    with h, so that no transcendental waits on that loop's sum.
    """
    D = D // UNIT_D * UNIT_D
    M = M // UNIT_M * UNIT_M
    stride_dyt = stride_dyt // UNIT * UNIT
    stride_xt = stride_xt // UNIT * UNIT
    pid = tl.program_id(0)
    tiles_m = tl.cdiv(M, BLOCK_M)
    tile_t = (pid // tiles_m).to(tl.int64)
    first_t = tile_t * BLOCK_T
    offs_t = tl.arange(0, BLOCK_T)  # [BLOCK_T]
    offs_m = (pid % tiles_m) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    mask_t = offs_t < T - first_t
    mask_m = offs_m < M
    offs_tm = offs_t[:, None] * M + offs_m[None, :]  # [BLOCK_T, BLOCK_M]
    mask_tm = mask_t[:, None] & mask_m[None, :]
    dtype = dy_ptr.dtype.element_ty

    if slope_ptr is None:
        if x_ptr is not None:
            x_rows = pointers(Rows(x_ptr, stride_xt), first_t, offs_t)
            down = Linear(w_down_ptr, b_down_ptr)
            z = project(x_rows, mask_t, down, offs_m, mask_m, D, PRECISION, ACC_DTYPE, BLOCK_D)
        else:
            z = tl.load(z_ptr + first_t * M + offs_tm, mask=mask_tm, other=0.0).to(ACC_DTYPE)
        if h_ptr is not None:
            tl.store(h_ptr + first_t * M + offs_tm, activate(z, ACTIVATION).to(dtype), mask=mask_tm)
        slope = activation_slope(z, ACTIVATION)  # [BLOCK_T, BLOCK_M]
        if x_ptr is not None:  # rows beyond the end: 0 · inf is NaN
            slope = tl.where(mask_t[:, None], slope, 0.0)

    dh = tl.zeros((BLOCK_T, BLOCK_M), dtype=ACC_DTYPE)
    dy_rows = pointers(Rows(dy_ptr, stride_dyt), first_t, offs_t)
    dh = contract(dh, dy_rows, mask_t, w_up_ptr, M, 1, offs_m, mask_m, D, PRECISION, BLOCK_D)
    # Rows and columns beyond the end add nothing. A mask here and one below take fewer registers than both at once.
    dh = tl.where(mask_t[:, None], dh, 0.0)
    if slope_ptr is not None:
        slope = tl.load(slope_ptr + first_t * M + offs_tm, mask=mask_tm, other=0.0).to(ACC_DTYPE)
    dz = tl.where(mask_m[None, :], dh * slope * scale, 0.0)  # [BLOCK_T, BLOCK_M]
    if ACTIVATION == "relu":
        dz = tl.where(slope == 0.0, 0.0, dz)  # PyTorch's relu cuts infinities off too
    if db_down_ptr is not None:
        tl.store(db_down_ptr + tile_t * M + offs_m, tl.sum(dz, axis=0), mask=mask_m)
    dz = dz.to(dtype)
    if dz_ptr is not None:
        tl.store(dz_ptr + first_t * M + offs_tm, dz, mask=mask_tm)

    if dx_ptr is not None:
        added = None
        if ADD_DY:
            added = dy_rows
        expand_rows(
            dz,
            offs_m,
            mask_m,
            Linear(w_down_ptr, None),
            D,
            1,
            None,
            added,
            pointers(Rows(dx_ptr, D), first_t, offs_t),
            mask_t,
            D,
            PRECISION,
            ACC_DTYPE,
            BLOCK_D,
            STAGES,
        )


@triton.jit(do_not_specialize=["T", "D", "M", "tokens_per_split", "stride_dyt", "stride_xt"])
def weight_grad_kernel(
    dy_ptr,
    x_ptr,
    h_ptr,
    dz_ptr,
    dw_down_ptr,
    dw_up_ptr,
    db_up_ptr,
    T,
    D,
    M,
    tokens_per_split,
    stride_dyt,
    stride_xt,
    PRECISION: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
    UNIT: tl.constexpr,
    UNIT_D: tl.constexpr,
    UNIT_M: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Programs: runs of tokens × hidden tiles × bottleneck tiles; each owns one slot of dW_down, dW_up and db_up.

    tokens_per_split is a multiple of BLOCK_T, so that a tile never reaches into the next run. With the first tile of
    the bottleneck comes Σ dy, where dy has 16 bits as one more product, which is exact.
    """
    D = D // UNIT_D * UNIT_D
    M = M // UNIT_M * UNIT_M
    stride_dyt = stride_dyt // UNIT * UNIT
    stride_xt = stride_xt // UNIT * UNIT
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_d = tl.cdiv(D, BLOCK_D)
    pid = tl.program_id(0)
    tile_d = pid // tiles_m % tiles_d
    tile_m = pid % tiles_m
    split = (pid // (tiles_m * tiles_d)).to(tl.int64)
    offs_m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    offs_d = tile_d * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    mask_m = offs_m < M
    mask_d = offs_d < D
    dw_up = tl.zeros((BLOCK_D, BLOCK_M), dtype=ACC_DTYPE)
    dw_down = tl.zeros((BLOCK_D, BLOCK_M), dtype=ACC_DTYPE)
    sums = tl.zeros((BLOCK_D, 16), dtype=ACC_DTYPE)
    for start_t in range(0, tokens_per_split, BLOCK_T):
        first_t = split * tokens_per_split + start_t
        offs_t = tl.arange(0, BLOCK_T)
        mask_t = offs_t < T - first_t
        mask_dt = mask_d[:, None] & mask_t[None, :]
        mask_tm = mask_t[:, None] & mask_m[None, :]
        offs_tm = offs_t[:, None] * M + offs_m[None, :]
        if dw_up_ptr is not None:
            dy = tl.load(
                dy_ptr + first_t * stride_dyt + offs_t[None, :] * stride_dyt + offs_d[:, None], mask=mask_dt, other=0.0
            )
            h = tl.load(h_ptr + first_t * M + offs_tm, mask=mask_tm, other=0.0)
            dw_up = multiply(dy, h, dw_up, PRECISION)
            if db_up_ptr is not None:
                # A column of ones and fifteen of zeros: the least that a tensor core multiplies with.
                first_column = tl.arange(0, 16)[None, :] == 0
                ones = tl.where(first_column & (offs_t >= 0)[:, None], 1.0, 0.0)  # [BLOCK_T, 16]
                if dy.dtype.primitive_bitwidth == 16:
                    sums = tl.dot(dy, ones.to(dy.dtype), sums, out_dtype=ACC_DTYPE)
                else:
                    sums += tl.sum(dy, axis=1)[:, None]
        if dw_down_ptr is not None:
            x = tl.load(
                x_ptr + first_t * stride_xt + offs_t[None, :] * stride_xt + offs_d[:, None], mask=mask_dt, other=0.0
            )
            dz = tl.load(dz_ptr + first_t * M + offs_tm, mask=mask_tm, other=0.0)
            dw_down = multiply(x, dz, dw_down, PRECISION)
    mask_dm = mask_d[:, None] & mask_m[None, :]
    first_dm = split * D * M
    if dw_up_ptr is not None:
        tl.store(dw_up_ptr + first_dm + offs_d[:, None] * M + offs_m[None, :], dw_up, mask=mask_dm)
    if dw_down_ptr is not None:
        tl.store(dw_down_ptr + first_dm + offs_m[None, :] * D + offs_d[:, None], dw_down, mask=mask_dm)
    if db_up_ptr is not None:
        # The other fifteen columns are zeros, or with float32 the same sums.
        total = tl.sum(tl.where(tl.arange(0, 16)[None, :] == 0, sums, 0.0), axis=1)
        if tile_m == 0:
            tl.store(db_up_ptr + split * D + offs_d, total, mask=mask_d)


@cache
def _launch_dx(
    problem: Problem,
    config: LaunchConfig,
    activation: str,
    add_dy: bool,
    given: tuple[torch.dtype | None, ...],
) -> Launch:
    return prepare(
        bottleneck_dx_kernel,
        config,
        problem,
        ADD_DY=add_dy,
        ACTIVATION=activation,
        PRECISION=problem.precision,
        ACC_DTYPE=acc_dtype(problem),
        STAGES=config.num_stages,
        **problem.units(config),
    )


@cache
def _launch_weight_grad(problem: Problem, config: LaunchConfig, given: tuple[torch.dtype | None, ...]) -> Launch:
    return prepare(
        weight_grad_kernel,
        config,
        problem,
        PRECISION=problem.precision,
        ACC_DTYPE=acc_dtype(problem),
        **problem.units(config),
    )


class Wanted(NamedTuple):
    """What launch_dx is to make; add_dy: dx includes dy, the gradient by way of the residual."""

    dx: bool
    add_dy: bool
    h: bool
    dz: bool
    db_down: bool


class Made(NamedTuple):
    """What launch_dx made, None where it was not wanted."""

    dx: torch.Tensor | None  # [T, d]
    h: torch.Tensor | None  # [T, m], for the weight gradient where it was not saved
    dz: torch.Tensor | None  # [T, m]
    db_down: torch.Tensor | None  # [R, m], a partial sum for each run of tokens


class WeightSums(NamedTuple):
    """Partial sums of the gradients that read x or dy again; None where they are not wanted."""

    dw_down: torch.Tensor | None  # [S, m, d]
    dw_up: torch.Tensor | None  # [S, d, m]
    db_up: torch.Tensor | None  # [S, d]


def dx_phase(saved: Saved) -> Phase:
    """Which row of the tables serves the dx launch: the slope is read, made from z, or from x."""
    return "dx" if saved.slope is not None else "dx_z" if saved.z is not None else "dx_x"


def partial_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of partial sums over tokens."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def launch_dx(
    dy: torch.Tensor,
    x: torch.Tensor | None,
    saved: Saved,
    down: Linear,
    w_up: torch.Tensor,
    branch: Branch,
    wanted: Wanted,
    problem: Problem,
) -> Made:
    """dy [T, d] with T ≥ 1 → what is wanted, by the slope [T, m] or z [T, m] that was saved, or x [T, d] and W_down."""
    T, D = dy.shape
    M = w_up.shape[1]
    config = select_tiles(dx_phase(saved), problem)
    split = config.form == "split"
    rows = -(-T // config.BLOCK_T)
    dx = dy.new_empty((T, D)) if wanted.dx else None
    h = dy.new_empty((T, M)) if wanted.h else None
    dz = dy.new_empty((T, M)) if wanted.dz or (split and wanted.dx) else None
    db_down = dy.new_empty((rows, M), dtype=partial_dtype(dy.dtype)) if wanted.db_down else None
    recomputed = x if saved.slope is None and saved.z is None else None
    tensors = {
        "dy_ptr": dy,
        "x_ptr": recomputed,
        "h_ptr": h,
        "slope_ptr": saved.slope,
        "z_ptr": saved.z,
        "w_up_ptr": w_up,
        "w_down_ptr": down.w if recomputed is not None or (wanted.dx and not split) else None,
        "b_down_ptr": down.b if recomputed is not None else None,
        "dx_ptr": None if split else dx,
        "dz_ptr": dz,
        "db_down_ptr": db_down,
    }
    _launch_dx(problem, config, branch.activation, wanted.add_dy, dtypes(tensors))(
        rows * -(-M // config.BLOCK_M),
        **tensors,
        T=T,
        D=D,
        M=M,
        scale=branch.scale,
        stride_dyt=dy.stride(0),
        stride_xt=0 if recomputed is None else recomputed.stride(0),
    )
    if split and wanted.dx:
        launch_expand(dz, Linear(down.w, None), True, dy if wanted.add_dy else None, dx, None, problem)
    return Made(dx, h, dz, db_down)


def launch_weight_grad(
    dy: torch.Tensor,
    x: torch.Tensor | None,
    h: torch.Tensor | None,
    dz: torch.Tensor | None,
    M: int,
    need_b_up: bool,
    problem: Problem,
) -> WeightSums:
    """dy, x [T, d] and h, dz [T, m] with T ≥ 1 → partial sums of dzᵀ·x, dyᵀ·h and Σ dy.

    x None leaves the first out, h None the others, since dy is then not read.
    """
    T, D = dy.shape
    config = select_tiles("weight_grad", problem)
    partial = partial_dtype(dy.dtype)
    tiles = -(-D // config.BLOCK_D) * -(-M // config.BLOCK_M)
    splits = split_count(T, tiles, config.BLOCK_T, problem.sms)
    tokens_per_split = -(-T // (splits * config.BLOCK_T)) * config.BLOCK_T
    splits = -(-T // tokens_per_split)
    sums = WeightSums(
        dw_down=None if x is None else dy.new_empty((splits, M, D), dtype=partial),
        dw_up=None if h is None else dy.new_empty((splits, D, M), dtype=partial),
        db_up=None if h is None or not need_b_up else dy.new_empty((splits, D), dtype=partial),
    )
    tensors = {
        "dy_ptr": dy,
        "x_ptr": x,
        "h_ptr": h,
        "dz_ptr": None if x is None else dz,
        "dw_down_ptr": sums.dw_down,
        "dw_up_ptr": sums.dw_up,
        "db_up_ptr": sums.db_up,
    }
    _launch_weight_grad(problem, config, dtypes(tensors))(
        tiles * splits,
        **tensors,
        T=T,
        D=D,
        M=M,
        tokens_per_split=tokens_per_split,
        stride_dyt=dy.stride(0),
        stride_xt=0 if x is None else x.stride(0),
    )
    return sums
