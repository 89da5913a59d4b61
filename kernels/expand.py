"""The second launch of the split form: out = rows + scale · (h · W + bias), for bottlenecks too wide to fuse.

Serves both directions: y from h and W_up, dx from dz and W_down. A program owns one [BLOCK_T, BLOCK_D] tile.
"""

from functools import cache

import torch
import triton
import triton.language as tl

from .blocks import Linear, Rows, contract, finish, pointers
from .launch import Launch, acc_dtype, dtypes, prepare
from .shapes import LaunchConfig, Problem
from .tiles import select_tiles


@triton.jit(do_not_specialize=["T", "D", "M", "stride_rt"])
def expand_kernel(
    h_ptr,
    w_ptr,
    bias_ptr,
    rows_ptr,
    out_ptr,
    T,
    D,
    M,
    scale,
    stride_rt,
    PRECISION: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    UNIT: tl.constexpr,
    UNIT_D: tl.constexpr,
    UNIT_M: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """W is [D, M], or [M, D] where TRANSPOSED; bias, scale and rows may be None; units as in the forward."""
    D = D // UNIT_D * UNIT_D
    M = M // UNIT_M * UNIT_M
    stride_rt = stride_rt // UNIT * UNIT
    tiles_d = tl.cdiv(D, BLOCK_D)
    pid = tl.program_id(0)
    first_t = (pid // tiles_d).to(tl.int64) * BLOCK_T
    offs_t = tl.arange(0, BLOCK_T)  # [BLOCK_T]
    offs_d = (pid % tiles_d) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    mask_t = offs_t < T - first_t
    mask_d = offs_d < D
    mask_td = mask_t[:, None] & mask_d[None, :]
    # Asked for before the products, which then do not wait for them.
    bias = None
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + offs_d, mask=mask_d, other=0.0)
    added = None
    if rows_ptr is not None:
        rows = pointers(Rows(rows_ptr, stride_rt), first_t, offs_t)
        added = tl.load(rows + offs_d[None, :], mask=mask_td, other=0.0)  # [BLOCK_T, BLOCK_D]
    acc = tl.zeros((BLOCK_T, BLOCK_D), dtype=ACC_DTYPE)
    h_rows = pointers(Rows(h_ptr, M), first_t, offs_t)
    if TRANSPOSED:
        acc = contract(acc, h_rows, mask_t, w_ptr, D, 1, offs_d, mask_d, M, PRECISION, BLOCK_M)
    else:
        acc = contract(acc, h_rows, mask_t, w_ptr, 1, M, offs_d, mask_d, M, PRECISION, BLOCK_M)
    out = finish(acc, bias, scale, added)
    out_rows = pointers(Rows(out_ptr, D), first_t, offs_t)
    tl.store(out_rows + offs_d[None, :], out.to(out_ptr.dtype.element_ty), mask=mask_td)


@cache
def _launch(
    problem: Problem, config: LaunchConfig, transposed: bool, scaled: bool, given: tuple[torch.dtype | None, ...]
) -> Launch:
    return prepare(
        expand_kernel,
        config,
        problem,
        PRECISION=problem.precision,
        ACC_DTYPE=acc_dtype(problem),
        TRANSPOSED=transposed,
        **problem.units(config),
    )


def launch_expand(
    h: torch.Tensor,
    linear: Linear,
    transposed: bool,
    rows: torch.Tensor | None,
    out: torch.Tensor,
    scale: float | None,
    problem: Problem,
) -> None:
    """Fill out [T, d] with rows + scale · (h [T, m] · W + bias); W: [d, m], or [m, d] where transposed."""
    T, D = out.shape
    config = select_tiles("expand", problem)
    tensors = {"h_ptr": h, "w_ptr": linear.w, "bias_ptr": linear.b, "rows_ptr": rows, "out_ptr": out}
    _launch(problem, config, transposed, scale is not None, dtypes(tensors))(
        -(-T // config.BLOCK_T) * -(-D // config.BLOCK_D),
        **tensors,
        T=T,
        D=D,
        M=h.shape[1],
        scale=scale,
        stride_rt=0 if rows is None else rows.stride(0),
    )
