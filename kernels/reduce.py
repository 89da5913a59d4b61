"""The last launch of the backward: every gradient of the weights from its partial sums, scaled, in the weights' dtype.

The slots of one gradient are summed in a fixed order that depends on their number alone: the same bits every time.
dw_down [S, M·D], dw_up [S, D·M], db_down [R, M], db_up [R', D] partial sums in the accumulator's dtype.
"""

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .launch import Launch, dtypes
from .shapes import Problem


class Tile(NamedTuple):
    """Partial sums that one program reads at once."""

    rows: int
    columns: int


# Slots of the weights are few and wide, those of the biases, one a tile of tokens, many and narrow: a program each way
# reads 8 to 16 KB at once, and the longest sum still has programs enough to fill the memory system.
FEW, MOST_FEW = Tile(16, 128), 32
MANY = Tile(256, 16)


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
    UNIT_D: tl.constexpr,
    UNIT_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BIAS_R: tl.constexpr,
    BIAS_N: tl.constexpr,
):
    """Programs: the tiles of each gradient in turn; a pointer that is None leaves its gradient out.

    BLOCK_R, BLOCK_N: the tile of the weights' slots; BIAS_R, BIAS_N: of the biases'. UNIT_D and UNIT_M divide D and M.
    """
    D = D // UNIT_D * UNIT_D
    M = M // UNIT_M * UNIT_M
    tile = tl.program_id(0)
    # The biases' programs walk the most rows: they start first.
    if db_up_ptr is not None:
        if tile >= 0 and tile < tl.cdiv(D, BIAS_N):
            reduce_columns(tile, db_up_ptr, db_up_out_ptr, rows_up, D, scale, BIAS_R, BIAS_N)
        tile -= tl.cdiv(D, BIAS_N)
    if db_down_ptr is not None:
        if tile >= 0 and tile < tl.cdiv(M, BIAS_N):
            reduce_columns(tile, db_down_ptr, db_down_out_ptr, rows_down, M, 1.0, BIAS_R, BIAS_N)
        tile -= tl.cdiv(M, BIAS_N)
    if dw_down_ptr is not None:
        if tile >= 0 and tile < tl.cdiv(M * D, BLOCK_N):
            reduce_columns(tile, dw_down_ptr, dw_down_out_ptr, slots, M * D, 1.0, BLOCK_R, BLOCK_N)
        tile -= tl.cdiv(M * D, BLOCK_N)
    if dw_up_ptr is not None:
        if tile >= 0 and tile < tl.cdiv(M * D, BLOCK_N):
            reduce_columns(tile, dw_up_ptr, dw_up_out_ptr, slots, M * D, scale, BLOCK_R, BLOCK_N)


def tile_of(rows: int) -> Tile:
    """The tile for partial sums with so many rows."""
    return FEW if rows <= MOST_FEW else MANY


@cache
def _launch(problem: Problem, weights: Tile, biases: Tile, given: tuple[torch.dtype | None, ...]) -> Launch:
    constants = {
        "UNIT_D": problem.unit,
        "UNIT_M": problem.unit_m,
        "BLOCK_R": weights.rows,
        "BLOCK_N": weights.columns,
        "BIAS_R": biases.rows,
        "BIAS_N": biases.columns,
    }
    return Launch(reduce_kernel, constants, {"num_warps": 4}, problem.aligned)


class Partial(NamedTuple):
    """Sums over runs of tokens, a slot each; None for a gradient that is not wanted."""

    dw_down: torch.Tensor | None  # [S, m, d]
    db_down: torch.Tensor | None  # [R, m]
    dw_up: torch.Tensor | None  # [S, d, m]
    db_up: torch.Tensor | None  # [R', d]


def launch_reduce(partial: Partial, scale: float, dtype: torch.dtype, problem: Problem) -> Partial:
    """The four gradients, without their first size, in dtype; dw_up and db_up are multiplied with scale."""
    present = [sums for sums in partial if sums is not None]
    if not present:
        return partial
    slots, rows_down, rows_up = (
        max((sums.shape[0] for sums in some if sums is not None), default=0)
        for some in ((partial.dw_down, partial.dw_up), (partial.db_down,), (partial.db_up,))
    )
    weights, biases = tile_of(slots), tile_of(max(rows_down, rows_up))
    grads = Partial(*(None if sums is None else sums.new_empty(sums.shape[1:], dtype=dtype) for sums in partial))
    tensors = {
        "dw_down_ptr": partial.dw_down,
        "dw_up_ptr": partial.dw_up,
        "db_down_ptr": partial.db_down,
        "db_up_ptr": partial.db_up,
        "dw_down_out_ptr": grads.dw_down,
        "dw_up_out_ptr": grads.dw_up,
        "db_down_out_ptr": grads.db_down,
        "db_up_out_ptr": grads.db_up,
    }
    columns = {2: weights.columns, 1: biases.columns}
    _launch(problem, weights, biases, dtypes(tensors))(
        sum(-(-grad.numel() // columns[grad.dim()]) for grad in grads if grad is not None),
        **tensors,
        D=problem.D,
        M=problem.M,
        slots=slots,
        rows_down=rows_down,
        rows_up=rows_up,
        scale=scale,
    )
    return grads
