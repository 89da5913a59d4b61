"""The second launch of the split form: out = rows + scale · (h · W + bias), for bottlenecks too wide to fuse.

Serves both directions: y from h and W_up, dx from dz and W_down. A program owns one [BLOCK_T, BLOCK_D] tile.
"""

from functools import cache

import torch
import triton
import triton.language as tl

from .blocks import contract, finish
from .plan import Launch, acc_dtype, prepare
from .shapes import LaunchConfig, Problem
from .tiles import select_tiles


@triton.jit(do_not_specialize=["T", "D", "M", "stride_rt"], do_not_specialize_on_alignment=["bias_ptr"])
def expand_kernel(
    h_ptr,
    w_ptr,
    bias_ptr,
    rows_ptr,
    sums_ptr,
    out_ptr,
    T,
    D,
    M,
    scale,
    stride_rt,
    ADD_ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
    UNIT: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """W is [D, M], or [M, D] where TRANSPOSED; UNIT as in bottleneck_forward_kernel."""
    D = D // UNIT * UNIT
    M = M // UNIT * UNIT
    stride_rt = stride_rt // UNIT * UNIT
    tiles_d = tl.cdiv(D, BLOCK_D)
    pid = tl.program_id(0)
    tile_t = (pid // tiles_d).to(tl.int64)
    first_t = tile_t * BLOCK_T
    offs_t = tl.arange(0, BLOCK_T)  # [BLOCK_T]
    offs_d = (pid % tiles_d) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    mask_t = offs_t < T - first_t
    mask_d = offs_d < D
    acc = tl.zeros((BLOCK_T, BLOCK_D), dtype=ACC_DTYPE)
    h_rows = h_ptr + first_t * M + offs_t[:, None] * M
    if TRANSPOSED:
        acc = contract(acc, h_rows, mask_t, w_ptr, D, 1, offs_d, mask_d, M, PRECISION, BLOCK_M)
    else:
        acc = contract(acc, h_rows, mask_t, w_ptr, 1, M, offs_d, mask_d, M, PRECISION, BLOCK_M)
    rows = rows_ptr
    if rows_ptr is not None:
        rows = rows_ptr + first_t * stride_rt + offs_t[:, None] * stride_rt
    sums = sums_ptr
    if sums_ptr is not None:
        sums = sums_ptr + tile_t * D
    finish(
        acc, bias_ptr, scale, rows, sums, out_ptr + first_t * D + offs_t[:, None] * D, mask_t, offs_d, mask_d, ADD_ROWS
    )


@cache
def _launch(
    problem: Problem,
    config: LaunchConfig,
    dtypes: tuple[torch.dtype, torch.dtype],
    add_rows: bool,
    present: tuple[bool, ...],
) -> Launch:
    return prepare(
        expand_kernel,
        config,
        problem,
        ADD_ROWS=add_rows,
        PRECISION=problem.precision,
        ACC_DTYPE=acc_dtype(dtypes[0]),
        UNIT=problem.unit,
        TRANSPOSED=present[0],
    )


def launch_expand(
    h: torch.Tensor,
    w: torch.Tensor,
    transposed: bool,
    bias: torch.Tensor | None,
    rows: torch.Tensor | None,
    add_rows: bool,
    sums: torch.Tensor | None,
    out: torch.Tensor,
    scale: float | None,
    problem: Problem,
) -> None:
    """Fill out [T, d] with rows + scale · (h [T, m] · W + bias), and sums [T / BLOCK_T, d] with the rows' column sums.

    w: [d, m], or [m, d] where transposed.
    """
    T, D = out.shape
    config = select_tiles("expand", problem)
    present = (transposed, bias is None, rows is None, sums is None, scale is None)
    _launch(problem, config, (h.dtype, w.dtype), add_rows, present)(
        -(-T // config.BLOCK_T) * -(-D // config.BLOCK_D),
        h_ptr=h,
        w_ptr=w,
        bias_ptr=bias,
        rows_ptr=rows,
        sums_ptr=sums,
        out_ptr=out,
        T=T,
        D=D,
        M=h.shape[1],
        scale=scale,
        stride_rt=0 if rows is None else rows.stride(0),
    )
