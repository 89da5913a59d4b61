"""The second launch of the split form: out = rows + scale · (h · W + bias), for bottlenecks too wide to fuse.

Serves both directions: y from h and W_up, dx from dz and W_down. A program owns one [BLOCK_T, BLOCK_D] tile.
"""

import torch
import triton
import triton.language as tl

from .blocks import contract, finish
from .tiles import LaunchConfig


@triton.jit(do_not_specialize=["T"])
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
    stride_wm,
    stride_wd,
    stride_rt,
    ADD_ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
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
    acc = contract(acc, h_rows, mask_t, w_ptr, stride_wm, stride_wd, offs_d, mask_d, M, PRECISION, BLOCK_M)
    rows = rows_ptr
    if rows_ptr is not None:
        rows = rows_ptr + first_t * stride_rt + offs_t[:, None] * stride_rt
    sums = sums_ptr
    if sums_ptr is not None:
        sums = sums_ptr + tile_t * D
    finish(
        acc, bias_ptr, scale, rows, sums, out_ptr + first_t * D + offs_t[:, None] * D, mask_t, offs_d, mask_d, ADD_ROWS
    )


def launch_expand(
    h: torch.Tensor,
    w: torch.Tensor,
    stride_wm: int,
    stride_wd: int,
    bias: torch.Tensor | None,
    rows: torch.Tensor | None,
    add_rows: bool,
    sums: torch.Tensor | None,
    out: torch.Tensor,
    scale: float | None,
    config: LaunchConfig,
    constants: dict,
) -> None:
    """Fill out [T, d] with rows + scale · (h [T, m] · W [m, d] + bias), and sums [T / BLOCK_T, d] with column sums."""
    T, D = out.shape
    grid = (triton.cdiv(T, config.BLOCK_T) * triton.cdiv(D, config.BLOCK_D),)
    expand_kernel[grid](
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
        stride_wm=stride_wm,
        stride_wd=stride_wd,
        stride_rt=0 if rows is None else rows.stride(0),
        ADD_ROWS=add_rows,
        BLOCK_T=config.BLOCK_T,
        BLOCK_D=config.BLOCK_D,
        BLOCK_M=config.BLOCK_M,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        **constants,
    )
