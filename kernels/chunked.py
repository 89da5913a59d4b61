"""The whole backward in one launch: the weight gradients read dy again while the cache still holds it.

Tokens are cut into chunks. An item is one tile of dx, or the weight gradients of one chunk × BLOCK_D columns; programs
draw tickets and do one item after another, the weight gradients of a chunk a little after its last dx. An item waits
only for items with smaller tickets, which others have drawn before: the smallest one under way waits for nobody, so the
queue moves on however few programs run at once. Each chunk has slots of its own for sums over tokens, which are reduced
in a fixed order afterwards: the same bits every time, whoever did what.
"""

from functools import cache

import torch
import triton
import triton.language as tl

from .arena import LINE, arrive, counters, wait_for
from .backward import dx_tile, partial_dtype, weight_grad_tile
from .plan import Launch, acc_dtype, prepare
from .shapes import LaunchConfig, Problem

MAX_CHUNKS = 64
L2_SHARE = 0.4
INTEGERS = ["T", "D", "M", "stride_dyt", "stride_xt", "chunks", "chunk_tokens", "ahead"]


def chunk_tokens(T: int, D: int, x_bytes: int, l2_bytes: int) -> int:
    """Tokens of one chunk, a multiple of 128: 1024 to 2048, fewer where dy and x of more would take 40 % of the cache.

    Fewer tokens are more slots to write and to add up, more tokens fewer items that run side by side. There are never
    more than 64 chunks, which for many tokens of a large hidden size goes before the cache.
    """
    fits = int(L2_SHARE * l2_bytes) // (2 * D * x_bytes)
    wanted = min(fits, max(1024, min(2048, -(-T // 32))))
    return max(1, -(-T // (MAX_CHUNKS * 128)), wanted // 128) * 128


def chunks_ahead(items: int, chunks: int, programs: int) -> int:
    """How many chunks dx is ahead of the weight gradients: as many items as there are programs, so that few wait.

    items: dx tiles and weight gradients of one chunk.
    """
    return min(chunks, -(-programs // items))


@triton.jit
def item_of(ticket, chunks, ahead, dx_items, grad_items):
    """(a tile of dx?, which tile; else which chunk, which columns): dx of `ahead` chunks, both in turn, the rest."""
    both = dx_items + grad_items
    lead = ahead * dx_items
    place = ticket - lead
    middle = (chunks - ahead) * both
    is_lead = place < 0
    is_middle = (place >= 0) & (place < middle)
    turn = place // both
    step = place % both
    dx_before = step * dx_items // both
    is_dx = is_lead | (is_middle & ((step + 1) * dx_items // both > dx_before))
    tile = tl.where(is_lead, ticket, lead + turn * dx_items + dx_before)
    left = place - middle
    chunk = tl.where(is_middle, turn, chunks - ahead + left // grad_items)
    tile_d = tl.where(is_middle, step - dx_before, left % grad_items)
    return is_dx, tile, chunk, tile_d


@triton.jit(do_not_specialize=INTEGERS)
def backward_queue_kernel(
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
    db_up_ptr,
    dw_down_ptr,
    dw_up_ptr,
    tickets_ptr,
    done_ptr,
    T,
    D,
    M,
    scale,
    stride_dyt,
    stride_xt,
    chunks,
    chunk_tokens,
    ahead,
    MAKE_H: tl.constexpr,
    ADD_DY: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
    STAGES: tl.constexpr,
    SLOTS: tl.constexpr,
    UNIT: tl.constexpr,
    UNIT_D: tl.constexpr,
    UNIT_M: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Any number of programs; M ≤ BLOCK_M, chunk_tokens a multiple of BLOCK_T.

    tickets [1] and done [SLOTS], tiles of dx done per chunk, are zero before, and after. The slope is read, or made
    from z, or from x where that is not given either; MAKE_H writes h then, instead of reading what the forward saved.
    """
    D = D // UNIT_D * UNIT_D
    M = M // UNIT_M * UNIT_M
    stride_dyt = stride_dyt // UNIT * UNIT
    stride_xt = stride_xt // UNIT * UNIT
    dx_items = chunk_tokens // BLOCK_T
    grad_items = tl.cdiv(D, BLOCK_D)
    items = chunks * (dx_items + grad_items)
    recomputed_x = None
    if slope_ptr is None and z_ptr is None:
        recomputed_x = x_ptr
    made_h = None
    if MAKE_H:
        made_h = h_ptr

    ticket = tl.atomic_add(tickets_ptr, 1)
    while ticket < items:
        is_dx, tile, chunk, tile_d = item_of(ticket, chunks, ahead, dx_items, grad_items)
        # Both are loops of one turn, so that nothing in them is hoisted out of the queue: up to 80 registers a thread.
        if is_dx:
            # Not at all for tiles that the last chunk lacks.
            for pid in tl.range(tile, tl.minimum(tile + 1, tl.cdiv(T, BLOCK_T)), disable_licm=True):
                dx_tile(
                    pid,
                    dy_ptr,
                    recomputed_x,
                    made_h,
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
                    ADD_DY,
                    ACTIVATION,
                    PRECISION,
                    ACC_DTYPE,
                    STAGES,
                    BLOCK_T,
                    BLOCK_D,
                    BLOCK_M,
                )
            arrive(done_ptr + tile // dx_items)
        else:
            wait_for(done_ptr + chunk, dx_items)
            first = chunk * chunk_tokens
            for columns in tl.range(tile_d, tl.minimum(tile_d + 1, grad_items), disable_licm=True):
                weight_grad_tile(
                    dy_ptr,
                    x_ptr,
                    h_ptr,
                    dz_ptr,
                    dw_down_ptr,
                    dw_up_ptr,
                    db_up_ptr,
                    chunk.to(tl.int64),
                    first.to(tl.int64),
                    tl.minimum(chunk_tokens, T - first),
                    columns,
                    0,
                    T,
                    D,
                    M,
                    stride_dyt,
                    stride_xt,
                    PRECISION,
                    ACC_DTYPE,
                    BLOCK_T,
                    BLOCK_D,
                    BLOCK_M,
                )
        ticket = tl.atomic_add(tickets_ptr, 1)
    # Each program draws one ticket too many, and then touches no counter any more: the last one clears them.
    if ticket == items + tl.num_programs(0) - 1:
        tl.store(tickets_ptr, 0)
        tl.store(done_ptr + tl.arange(0, SLOTS), 0)


@cache
def _launch(
    problem: Problem,
    config: LaunchConfig,
    dtypes: tuple[torch.dtype | None, ...],
    activation: str,
    add_dy: bool,
    save_h: bool,
    present: tuple[bool, ...],
) -> Launch:
    return prepare(
        backward_queue_kernel,
        config,
        problem,
        MAKE_H=save_h,
        ADD_DY=add_dy,
        ACTIVATION=activation,
        PRECISION=problem.precision,
        ACC_DTYPE=acc_dtype(dtypes[0]),
        STAGES=config.num_stages,
        SLOTS=MAX_CHUNKS,
        **problem.units(config),
    )


def launch_queue(
    dy: torch.Tensor,
    x: torch.Tensor | None,
    h: torch.Tensor | None,
    slope: torch.Tensor | None,
    z: torch.Tensor | None,
    w_down: torch.Tensor | None,
    b_down: torch.Tensor | None,
    w_up: torch.Tensor,
    add_dy: bool,
    activation: str,
    scale: float,
    need_dx: bool,
    save_h: bool,
    need_b_down: bool,
    need_b_up: bool,
    need_w_down: bool,
    config: LaunchConfig,
    problem: Problem,
) -> tuple[torch.Tensor | None, ...] | None:
    """dy [T, d] with T ≥ 1 → dx, and the partial sums of db_down, dw_down [S, m, d], dw_up [S, d, m] and Σ dy [S, d].

    What launch_dx and launch_weight_grad give together, with the arguments that these take: one of slope [T, m], z
    [T, m] and x [T, d] with W_down and b_down makes the slope; dw_up comes from h [T, m], or with save_h from what is
    made of z or x. Each result is None if not needed; Σ dy comes only together with dw_up. None in place of all where
    there are no counters to be had (see arena.counters): then it takes the two launches.

    Raises:
        ValueError: m is wider than the tile; neither weight's gradient is needed, so that nothing is read twice.
    """
    T, D = dy.shape
    M = w_up.shape[1]
    if M > config.BLOCK_M:
        raise ValueError(f"the queue needs m ≤ BLOCK_M = {config.BLOCK_M}, got m = {M}")
    need_w_up = save_h or h is not None
    if not (need_w_down or need_w_up):
        raise ValueError("the queue is for weight gradients: expected need_w_down, save_h or h, got none of them")
    tokens = chunk_tokens(T, D, problem.x_bytes, problem.l2_bytes)
    chunks, tiles_t = -(-T // tokens), -(-T // config.BLOCK_T)
    items = tokens // config.BLOCK_T + -(-D // config.BLOCK_D)
    programs = min(chunks * items, max(1, config.programs_per_sm) * problem.sms)
    shared = counters(dy.device, LINE + MAX_CHUNKS)
    if shared is None:
        return None
    partial = partial_dtype(dy.dtype)
    dx = dy.new_empty((T, D)) if need_dx else None
    made_h = dy.new_empty((T, M)) if save_h else h
    dz = dy.new_empty((T, M)) if need_w_down else None
    db_down = dy.new_empty((tiles_t, M), dtype=partial) if need_b_down else None
    db_up = dy.new_empty((chunks, D), dtype=partial) if need_b_up and need_w_up else None
    dw_down = dy.new_empty((chunks, M, D), dtype=partial) if need_w_down else None
    dw_up = dy.new_empty((chunks, D, M), dtype=partial) if need_w_up else None
    recompute = slope is None and z is None
    read_x = recompute or need_w_down
    arguments = {
        "dy_ptr": dy,
        "x_ptr": x if read_x else None,
        "h_ptr": made_h,
        "slope_ptr": slope,
        "z_ptr": z,
        "w_up_ptr": w_up,
        "w_down_ptr": w_down if recompute or need_dx else None,
        "b_down_ptr": b_down if recompute else None,
        "dx_ptr": dx,
        "dz_ptr": dz,
        "db_down_ptr": db_down,
        "db_up_ptr": db_up,
        "dw_down_ptr": dw_down,
        "dw_up_ptr": dw_up,
    }
    present = tuple(value is None for value in arguments.values())
    dtypes = (dy.dtype, w_up.dtype, None if b_down is None else b_down.dtype)
    _launch(problem, config, dtypes, activation, add_dy, save_h, present)(
        programs,
        **arguments,
        tickets_ptr=shared,
        done_ptr=shared[LINE:],
        T=T,
        D=D,
        M=M,
        scale=scale,
        stride_dyt=dy.stride(0),
        stride_xt=x.stride(0) if read_x and x is not None else 0,
        chunks=chunks,
        chunk_tokens=tokens,
        ahead=chunks_ahead(items, chunks, programs),
    )
    return dx, db_down, dw_down, dw_up, db_up
