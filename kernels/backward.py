"""The backward in two launches: dx with the bias gradients' partial sums, then both weight gradients together.

dz = scale · (dy · W_up) ⊙ slope, dx = dz · W_down (+ dy), dW_up = scale · dyᵀ · h, dW_down = dzᵀ · x,
db_up = scale · Σ dy, db_down = Σ dz. Every sum over tokens goes to a partial slot of its own, and the slots are reduced
afterwards in a fixed order: no atomics, the same bits every time.
dy, x, dx are [T, D]; h, slope, dz [T, M]; W_down [M, D], W_up [D, M].
"""

import torch
import triton
import triton.language as tl

from .blocks import contract, expand_rows
from .expand import launch_expand
from .forward import ACC_DTYPES
from .tiles import Problem, select_tiles, split_count


@triton.jit(do_not_specialize=["T"])
def bottleneck_dx_kernel(
    dy_ptr,
    slope_ptr,
    w_up_ptr,
    w_down_ptr,
    dx_ptr,
    dz_ptr,
    db_down_ptr,
    db_up_ptr,
    T,
    D,
    M,
    scale,
    stride_dyt,
    ADD_DY: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Programs: token tiles × tiles of the bottleneck; dx_ptr None leaves the second loop out."""
    tiles_m = tl.cdiv(M, BLOCK_M)
    pid = tl.program_id(0)
    tile_t = (pid // tiles_m).to(tl.int64)
    first_t = tile_t * BLOCK_T
    offs_t = tl.arange(0, BLOCK_T)  # [BLOCK_T]
    offs_m = (pid % tiles_m) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    mask_t = offs_t < T - first_t
    mask_m = offs_m < M

    dh = tl.zeros((BLOCK_T, BLOCK_M), dtype=ACC_DTYPE)
    dy_rows = dy_ptr + first_t * stride_dyt + offs_t[:, None] * stride_dyt
    dh = contract(dh, dy_rows, mask_t, w_up_ptr, M, 1, offs_m, mask_m, D, PRECISION, BLOCK_D)

    offs_tm = offs_t[:, None] * M + offs_m[None, :]  # [BLOCK_T, BLOCK_M]
    mask_tm = mask_t[:, None] & mask_m[None, :]
    slope = tl.load(slope_ptr + first_t * M + offs_tm, mask=mask_tm, other=0.0).to(ACC_DTYPE)
    dz = dh * slope * scale  # [BLOCK_T, BLOCK_M]
    if db_down_ptr is not None:
        tl.store(db_down_ptr + tile_t * M + offs_m, tl.sum(dz, axis=0), mask=mask_m)
    dz = dz.to(dy_ptr.dtype.element_ty)
    if dz_ptr is not None:
        tl.store(dz_ptr + first_t * M + offs_tm, dz, mask=mask_tm)

    if dx_ptr is not None:
        db_up = db_up_ptr
        if db_up_ptr is not None:
            db_up = db_up_ptr + tile_t * D
        dx_rows = dx_ptr + first_t * D + offs_t[:, None] * D
        expand_rows(
            dz,
            offs_m,
            mask_m,
            w_down_ptr,
            D,
            1,
            None,
            None,
            dy_rows,
            db_up,
            dx_rows,
            mask_t,
            D,
            ADD_DY,
            PRECISION,
            ACC_DTYPE,
            BLOCK_D,
        )


@triton.jit(do_not_specialize=["T", "tokens_per_split"])
def weight_grad_kernel(
    dy_ptr,
    x_ptr,
    h_ptr,
    dz_ptr,
    dw_down_ptr,
    dw_up_ptr,
    T,
    D,
    M,
    tokens_per_split,
    stride_dyt,
    stride_xt,
    PRECISION: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Programs: runs of tokens × hidden tiles × bottleneck tiles; each owns one slot of dW_down and of dW_up.

    tokens_per_split is a multiple of BLOCK_T, so that a tile never reaches into the next run.
    """
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_d = tl.cdiv(D, BLOCK_D)
    pid = tl.program_id(0)
    offs_m = (pid % tiles_m) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    offs_d = (pid // tiles_m % tiles_d) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    split = (pid // (tiles_m * tiles_d)).to(tl.int64)
    mask_m = offs_m < M
    mask_d = offs_d < D
    first = split * tokens_per_split

    dw_up = tl.zeros((BLOCK_D, BLOCK_M), dtype=ACC_DTYPE)
    dw_down = tl.zeros((BLOCK_D, BLOCK_M), dtype=ACC_DTYPE)
    for start_t in range(0, tokens_per_split, BLOCK_T):
        first_t = first + start_t
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
            dw_up = tl.dot(dy, h, dw_up, input_precision=PRECISION, out_dtype=ACC_DTYPE)
        if dw_down_ptr is not None:
            x = tl.load(
                x_ptr + first_t * stride_xt + offs_t[None, :] * stride_xt + offs_d[:, None], mask=mask_dt, other=0.0
            )
            dz = tl.load(dz_ptr + first_t * M + offs_tm, mask=mask_tm, other=0.0)
            dw_down = tl.dot(x, dz, dw_down, input_precision=PRECISION, out_dtype=ACC_DTYPE)
    mask_dm = mask_d[:, None] & mask_m[None, :]
    slot = split * D * M
    if dw_up_ptr is not None:
        tl.store(dw_up_ptr + slot + offs_d[:, None] * M + offs_m[None, :], dw_up, mask=mask_dm)
    if dw_down_ptr is not None:
        tl.store(dw_down_ptr + slot + offs_m[None, :] * D + offs_d[:, None], dw_down, mask=mask_dm)


def launch_dx(
    dy: torch.Tensor,
    slope: torch.Tensor,
    w_down: torch.Tensor | None,
    w_up: torch.Tensor,
    add_dy: bool,
    scale: float,
    save_dz: bool,
    need_b_down: bool,
    need_b_up: bool,
    problem: Problem,
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """dy [T, d] with T ≥ 1, slope [T, m] → dx [T, d], dz [T, m] and the partial sums of db_down and of Σ dy.

    w_down None: dx is not needed. Each result is None unless needed; Σ dy comes only together with dx.
    """
    T, D = dy.shape
    M = w_up.shape[1]
    config = select_tiles("dx", problem)
    split = config.form == "split"
    constants = {"PRECISION": problem.precision, "ACC_DTYPE": ACC_DTYPES.get(dy.dtype, tl.float32)}
    partial = torch.float64 if dy.dtype == torch.float64 else torch.float32
    tiles = triton.cdiv(T, config.BLOCK_T)
    dx = None if w_down is None else dy.new_empty((T, D))
    dz = dy.new_empty((T, M)) if save_dz or (split and dx is not None) else None
    db_down = dy.new_empty((tiles, M), dtype=partial) if need_b_down else None
    expand = select_tiles("expand", problem) if split else config
    db_up = None
    if need_b_up and dx is not None:
        db_up = dy.new_empty((triton.cdiv(T, expand.BLOCK_T), D), dtype=partial)
    bottleneck_dx_kernel[(tiles * triton.cdiv(M, config.BLOCK_M),)](
        dy_ptr=dy,
        slope_ptr=slope,
        w_up_ptr=w_up,
        w_down_ptr=None if split else w_down,
        dx_ptr=None if split else dx,
        dz_ptr=dz,
        db_down_ptr=db_down,
        db_up_ptr=None if split else db_up,
        T=T,
        D=D,
        M=M,
        scale=scale,
        stride_dyt=dy.stride(0),
        ADD_DY=add_dy,
        BLOCK_T=config.BLOCK_T,
        BLOCK_D=config.BLOCK_D,
        BLOCK_M=config.BLOCK_M,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        **constants,
    )
    if split and dx is not None:
        launch_expand(dz, w_down, D, 1, None, dy, add_dy, db_up, dx, None, expand, constants)
    return dx, dz, db_down, db_up


def launch_weight_grad(
    dy: torch.Tensor,
    x: torch.Tensor | None,
    h: torch.Tensor | None,
    dz: torch.Tensor | None,
    M: int,
    problem: Problem,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """dy, x [T, d] and h, dz [T, m] with T ≥ 1 → partial sums of dzᵀ·x [S, m, d] and of dyᵀ·h [S, d, m].

    x None leaves the first out, h None the second.
    """
    T, D = dy.shape
    config = select_tiles("weight_grad", problem)
    partial = torch.float64 if dy.dtype == torch.float64 else torch.float32
    tiles = triton.cdiv(D, config.BLOCK_D) * triton.cdiv(M, config.BLOCK_M)
    splits = split_count(T, tiles, config.BLOCK_T, problem.sms)
    tokens_per_split = triton.cdiv(triton.cdiv(T, splits), config.BLOCK_T) * config.BLOCK_T
    splits = triton.cdiv(T, tokens_per_split)
    dw_down = None if x is None else dy.new_empty((splits, M, D), dtype=partial)
    dw_up = None if h is None else dy.new_empty((splits, D, M), dtype=partial)
    weight_grad_kernel[(tiles * splits,)](
        dy_ptr=dy,
        x_ptr=x,
        h_ptr=h,
        dz_ptr=None if x is None else dz,
        dw_down_ptr=dw_down,
        dw_up_ptr=dw_up,
        T=T,
        D=D,
        M=M,
        tokens_per_split=tokens_per_split,
        stride_dyt=dy.stride(0),
        stride_xt=0 if x is None else x.stride(0),
        PRECISION=problem.precision,
        ACC_DTYPE=ACC_DTYPES.get(dy.dtype, tl.float32),
        BLOCK_T=config.BLOCK_T,
        BLOCK_D=config.BLOCK_D,
        BLOCK_M=config.BLOCK_M,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return dw_down, dw_up
