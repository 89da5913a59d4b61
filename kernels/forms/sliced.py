"""The forward for few tokens, the hidden dimension split over programs: z goes round through memory inside one launch.

A program owns BLOCK_T tokens × one slice of BLOCK_D columns. It writes its share of z to a slot of its own, waits until
all slices of its tokens have written theirs, adds up the slots and writes its slice of y. The slots are added first to
last, so that the bits are the same every time and a row's result does not depend on the rows around it.
x, y, residual are [T, D]; W_down [M, D], W_up [D, M] with M ≤ BLOCK_M; h, slope and z are [T, M] in x's dtype.
"""

from functools import cache

import torch
import triton
import triton.language as tl

from ..activations import activate
from ..blocks import Rows, Saved, finish, pointers, save
from ..launch import Launch, acc_dtype, dtypes, prepare
from ..shapes import LaunchConfig, Problem
from .counters import arrive, counters, wait_for

INTEGERS = ["T", "D", "M", "stride_xt", "stride_rt"]
# Registers of one thread that hold slots on their way from memory: all of these are asked for at once.
REGISTERS = 128


@triton.jit
def add_slots(
    parts,  # [BLOCK_T, BLOCK_M] pointers into the first slot
    stride_ps,
    slices,
    rows,
    mask_m,  # [BLOCK_M]
    ACC_DTYPE: tl.constexpr,
    SLOTS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """The sum of all slots, in order, in their first rows; SLOTS of them are asked for at a time."""
    offs_t = tl.arange(0, BLOCK_T)
    z = tl.zeros((BLOCK_T, BLOCK_M), dtype=ACC_DTYPE)
    for start in range(0, slices, SLOTS):
        for offset in tl.static_range(SLOTS):
            slot = start + offset
            mask_t = offs_t < tl.where(slot < slices, rows, 0)
            mask_tm = mask_t[:, None] & mask_m[None, :]
            # Others wrote these just now: past the first-level cache.
            z += tl.load(parts + slot * stride_ps, mask=mask_tm, other=0.0, cache_modifier=".cg")
    return z


@triton.jit(do_not_specialize=INTEGERS)
def bottleneck_sliced_kernel(
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
    parts_ptr,
    counters_ptr,
    T,
    D,
    M,
    scale,
    stride_xt,
    stride_rt,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
    PHASE: tl.constexpr,
    SLOTS: tl.constexpr,
    UNIT: tl.constexpr,
    UNIT_D: tl.constexpr,
    UNIT_M: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Programs: token tiles × slices. PHASE "both" waits, so all must run at once; "first" and "second" are its halves.

    parts is [slices, T, M]; counters [token tiles] are zero before, and after. Units as in the fused form.
    """
    D = D // UNIT_D * UNIT_D
    M = M // UNIT_M * UNIT_M
    stride_xt = stride_xt // UNIT * UNIT
    stride_rt = stride_rt // UNIT * UNIT
    slices = tl.cdiv(D, BLOCK_D)
    pid = tl.program_id(0)
    tile_t = pid // slices
    piece = pid % slices
    # 64 bits to the tile's first row and between slots, 32 within the tile.
    first_t = tile_t.to(tl.int64) * BLOCK_T
    rows = (T - first_t).to(tl.int32)
    stride_ps = T.to(tl.int64) * M
    offs_t = tl.arange(0, BLOCK_T)  # [BLOCK_T]
    offs_d = piece * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    offs_m = tl.arange(0, BLOCK_M)  # [BLOCK_M]
    mask_t = offs_t < rows
    mask_d = offs_d < D
    mask_m = offs_m < M
    offs_tm = offs_t[:, None] * M + offs_m[None, :]  # [BLOCK_T, BLOCK_M]
    mask_tm = mask_t[:, None] & mask_m[None, :]
    mask_td = mask_t[:, None] & mask_d[None, :]
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    parts = parts_ptr + first_t * M + offs_tm  # [BLOCK_T, BLOCK_M]

    # All that does not need z is asked for first: the release below would wait for what came in between.
    if PHASE != "second":
        x_rows = pointers(Rows(x_ptr, stride_xt), first_t, offs_t)
        x = tl.load(x_rows + offs_d[None, :], mask=mask_td, other=0.0)  # [BLOCK_T, BLOCK_D]
        w_down = tl.load(
            w_down_ptr + offs_d[:, None] + offs_m[None, :] * D, mask=mask_d[:, None] & mask_m[None, :], other=0.0
        )  # [BLOCK_D, BLOCK_M]
    if PHASE != "first":
        w_up = tl.load(
            w_up_ptr + offs_m[:, None] + offs_d[None, :] * M, mask=mask_m[:, None] & mask_d[None, :], other=0.0
        ).to(dtype)  # [BLOCK_M, BLOCK_D]
        residual = None
        if residual_ptr is not None:
            residual_rows = pointers(Rows(residual_ptr, stride_rt), first_t, offs_t)
            residual = tl.load(residual_rows + offs_d[None, :], mask=mask_td, other=0.0)  # [BLOCK_T, BLOCK_D]
        if b_down_ptr is not None:
            b_down = tl.load(b_down_ptr + offs_m, mask=mask_m, other=0.0)
        b_up = None
        if b_up_ptr is not None:
            b_up = tl.load(b_up_ptr + offs_d, mask=mask_d, other=0.0)

    if PHASE != "second":
        part = tl.dot(x, w_down.to(dtype), input_precision=PRECISION, out_dtype=ACC_DTYPE)  # [BLOCK_T, BLOCK_M]
        tl.store(parts + piece * stride_ps, part, mask=mask_tm)

    if PHASE != "first":
        if PHASE == "both":
            arrive(counters_ptr + tile_t)
            wait_for(counters_ptr + tile_t, slices)
        z = add_slots(parts, stride_ps, slices, rows, mask_m, ACC_DTYPE, SLOTS, BLOCK_T, BLOCK_M)
        if b_down_ptr is not None:
            z += b_down.to(ACC_DTYPE)[None, :]
        h = activate(z, ACTIVATION).to(dtype)  # [BLOCK_T, BLOCK_M]
        if piece == 0:
            save(z, Saved(h_ptr, slope_ptr, z_ptr), first_t, M, offs_tm, mask_tm, ACTIVATION)
            if h_ptr is not None:
                tl.store(h_ptr + first_t * M + offs_tm, h, mask=mask_tm)

        y = tl.dot(h, w_up, input_precision=PRECISION, out_dtype=ACC_DTYPE)  # [BLOCK_T, BLOCK_D]
        y = finish(y, b_up, scale, residual)
        tl.store(pointers(Rows(y_ptr, D), first_t, offs_t) + offs_d[None, :], y.to(dtype), mask=mask_td)
        if PHASE == "both":
            # Each counts once more when it waits no longer: the last one to do so clears the counter.
            if tl.atomic_add(counters_ptr + tile_t, 1, sem="relaxed") == 2 * slices - 1:
                tl.store(counters_ptr + tile_t, 0)


def slots_at_once(config: LaunchConfig, slices: int) -> int:
    """How many slots a program asks for before it adds up the first of them, a power of two."""
    per_thread = max(1, config.BLOCK_T * config.BLOCK_M // (32 * config.num_warps))
    return max(1, min(16, REGISTERS // per_thread, triton.next_power_of_2(slices)))


@cache
def _launch(
    problem: Problem,
    config: LaunchConfig,
    activation: str,
    phase: str,
    slots: int,
    given: tuple[torch.dtype | None, ...],
) -> Launch:
    return prepare(
        bottleneck_sliced_kernel,
        config,
        problem,
        {"launch_cooperative_grid": phase == "both"},
        ACTIVATION=activation,
        PRECISION=problem.precision,
        ACC_DTYPE=acc_dtype(problem),
        PHASE=phase,
        SLOTS=slots,
        **problem.units(config),
    )


def launch(
    tensors: dict[str, torch.Tensor | None],
    numbers: dict[str, int | float],
    activation: str,
    config: LaunchConfig,
    problem: Problem,
) -> None:
    """Fill y, and h, slope, z where given: tensors and numbers by the names of bottleneck_forward_kernel.

    One launch, or two of the same kernel where its programs cannot wait for each other: more programs than there are
    multiprocessors, no counters to be had (see counters.counters), or the interpreter, which runs one after another.

    Raises:
        ValueError: m is wider than the tile.
    """
    T, D, M = numbers["T"], numbers["D"], numbers["M"]
    if M > config.BLOCK_M:
        raise ValueError(f"the sliced form needs m ≤ BLOCK_M = {config.BLOCK_M}, got m = {M}")
    x = tensors["x_ptr"]
    tiles_t, slices = -(-T // config.BLOCK_T), -(-D // config.BLOCK_D)
    together = problem.device >= 0 and tiles_t * slices <= problem.sms
    shared = counters(x.device, tiles_t) if together else None
    parts = x.new_empty((slices, T, M), dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
    slots = slots_at_once(config, slices)
    tensors = {**tensors, "parts_ptr": parts, "counters_ptr": shared}
    for phase in ("first", "second") if shared is None else ("both",):
        made = _launch(problem, config, activation, phase, slots, dtypes(tensors))
        made(tiles_t * slices, **tensors, **numbers)
