"""The last launch of the backward: every gradient of the weights from its partial sums, scaled, in the weights' dtype.

The slots of one gradient are summed in a fixed order that depends on their number alone: the same bits every time.
dw_down [S, M·D], dw_up [S, D·M], db_down [R, M], db_up [R', D] partial sums in the accumulator's dtype.
"""

from functools import cache

import torch
import triton
import triton.language as tl

from .plan import Launch
from .shapes import Problem

BLOCK_R, BLOCK_N = 16, 128


@triton.jit
def reduce_columns(tile, partial_ptr, out_ptr, rows, columns, scale, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr):
    """out [columns] = scale · Σ over rows of partial [rows, columns], for the columns of one tile."""
    offs_n = tile * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    mask_n = offs_n < columns
    total = tl.zeros((BLOCK_R, BLOCK_N), dtype=partial_ptr.dtype.element_ty)
    for first in range(0, rows, BLOCK_R):
        offs_r = first + tl.arange(0, BLOCK_R)  # [BLOCK_R]
        pointers = partial_ptr + offs_r[:, None].to(tl.int64) * columns + offs_n[None, :]
        total += tl.load(pointers, mask=(offs_r < rows)[:, None] & mask_n[None, :], other=0.0)
    out = tl.sum(total, axis=0) * scale
    tl.store(out_ptr + offs_n, out.to(out_ptr.dtype.element_ty), mask=mask_n)


@triton.jit(do_not_specialize=["D", "M", "slots", "rows_down", "rows_up"])
def reduce_kernel(
    dw_down_ptr,
    dw_up_ptr,
    db_down_ptr,
    db_up_ptr,
    dw_down_out_ptr,
    dw_up_out_ptr,
    db_down_out_ptr,
    db_up_out_ptr,
    D,
    M,
    slots,
    rows_down,
    rows_up,
    scale,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Programs: the tiles of each gradient in turn; a pointer that is None leaves its gradient out."""
    tile = tl.program_id(0)
    if dw_down_ptr is not None:
        if tile >= 0 and tile < tl.cdiv(M * D, BLOCK_N):
            reduce_columns(tile, dw_down_ptr, dw_down_out_ptr, slots, M * D, 1.0, BLOCK_R, BLOCK_N)
        tile -= tl.cdiv(M * D, BLOCK_N)
    if dw_up_ptr is not None:
        if tile >= 0 and tile < tl.cdiv(M * D, BLOCK_N):
            reduce_columns(tile, dw_up_ptr, dw_up_out_ptr, slots, M * D, scale, BLOCK_R, BLOCK_N)
        tile -= tl.cdiv(M * D, BLOCK_N)
    if db_down_ptr is not None:
        if tile >= 0 and tile < tl.cdiv(M, BLOCK_N):
            reduce_columns(tile, db_down_ptr, db_down_out_ptr, rows_down, M, 1.0, BLOCK_R, BLOCK_N)
        tile -= tl.cdiv(M, BLOCK_N)
    if db_up_ptr is not None:
        if tile >= 0 and tile < tl.cdiv(D, BLOCK_N):
            reduce_columns(tile, db_up_ptr, db_up_out_ptr, rows_up, D, scale, BLOCK_R, BLOCK_N)


@cache
def _launch(problem: Problem, partial: torch.dtype, dtype: torch.dtype, present: tuple[bool, ...]) -> Launch:
    return Launch(reduce_kernel, {"BLOCK_R": BLOCK_R, "BLOCK_N": BLOCK_N}, {"num_warps": 4}, problem.aligned)


def launch_reduce(
    dw_down: torch.Tensor | None,
    dw_up: torch.Tensor | None,
    db_down: torch.Tensor | None,
    db_up: torch.Tensor | None,
    scale: float,
    dtype: torch.dtype,
    problem: Problem,
) -> tuple[torch.Tensor | None, ...]:
    """Partial sums [S, m, d], [S, d, m], [R, m], [R', d] → the four gradients without their first size, in dtype.

    dw_up and db_up are multiplied with scale. None gives None.
    """
    D, M = problem.D, problem.M
    outs: list[torch.Tensor | None] = []
    tiles, given, slots = 0, None, 0
    for partial, shape in ((dw_down, (M, D)), (dw_up, (D, M)), (db_down, (M,)), (db_up, (D,))):
        if partial is None:
            outs.append(None)
            continue
        given = partial
        outs.append(partial.new_empty(shape, dtype=dtype))
        tiles += -(-D * M // BLOCK_N) if len(shape) == 2 else -(-shape[0] // BLOCK_N)
        slots = partial.shape[0] if len(shape) == 2 else slots
    if given is not None:
        present = (dw_down is None, dw_up is None, db_down is None, db_up is None)
        _launch(problem, given.dtype, dtype, present)(
            tiles,
            dw_down_ptr=dw_down,
            dw_up_ptr=dw_up,
            db_down_ptr=db_down,
            db_up_ptr=db_up,
            dw_down_out_ptr=outs[0],
            dw_up_out_ptr=outs[1],
            db_down_out_ptr=outs[2],
            db_up_out_ptr=outs[3],
            D=D,
            M=M,
            slots=slots,
            rows_down=0 if db_down is None else db_down.shape[0],
            rows_up=0 if db_up is None else db_up.shape[0],
            scale=scale,
        )
    return tuple(outs)
