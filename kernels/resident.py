"""The x-resident fused forward for Hopper, in Gluon: x is read once, y is written once, nothing else of size T·D moves.

A program owns BLOCK_T tokens. Their x [BLOCK_T, D] goes into shared memory and stays there: the first loop multiplies
it with W_down into z [BLOCK_T, BLOCK_M], the second makes y column block by column block, writes each over the x block
that it came from, and stores it from there in whole rows. Compiled for sm_90 and emulated (tests/gluon_emulator.py);
**no GPU has run it**, so nothing chooses it by default.

How memory moves, and why not otherwise:

- x comes by cp.async, one commit group a column block, all requested at once: the product of block i starts while later
  ones are under way. Tensor descriptors would be made anew at every launch, as x and y are (some 20 µs on an H100 by
  triton issue 7987); cp.async takes a pointer, a stride and a mask, and has no barrier phase to get wrong.
- Weights come by plain loads through registers, num_stages blocks ahead of the product, into two blocks of shared
  memory that take turns. Not by cp.async: its groups complete in order, so that a weight block asked for after the
  last x block would arrive after all of x, and the first loop would no longer run under the transfer of x.
- One barrier a block (Triton adds its own after a wait for copies): before it each thread has its part of block i in
  shared memory and is done with block i - 1. The fence before the barrier makes what threads wrote visible to the
  tensor core, which reads by another path.
- A residual that is not x is copied over x once the first loop is done with it, and from then on treated as x is.
"""

from functools import cache
from typing import Any

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, warpgroup_mma, warpgroup_mma_wait

from .activations import activate, activation_slope
from .plan import Launch
from .resident_tiles import BOTTLENECKS, SHARED_PER_PROGRAM, available, shared_bytes
from .shapes import LaunchConfig

# Gluon is experimental: names differ between versions.
copy_async = async_copy.async_load if hasattr(async_copy, "async_load") else async_copy.async_copy_global_to_shared
barrier = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier


@gluon.constexpr_function
def rows_layout(columns, num_warps):
    """Whole rows, 16 bytes of 16-bit elements a thread: what global memory and the copies want."""
    return gl.BlockedLayout([1, 8], [256 // columns, columns // 8], [num_warps, 1], [1, 0])


@gluon.jit
def store_rows(ptr, values, mask_t, M: gl.constexpr, LAYOUT: gl.constexpr):
    """values [BLOCK_T, M], of the pointer's dtype, to a dense [BLOCK_T, M] at ptr."""
    values = gl.convert_layout(values, LAYOUT)  # [BLOCK_T, M]
    offs_t = gl.arange(0, values.shape[0], layout=gl.SliceLayout(1, LAYOUT))
    offs_m = gl.arange(0, M, layout=gl.SliceLayout(0, LAYOUT))
    mask = gl.convert_layout(mask_t, gl.SliceLayout(1, LAYOUT))
    gl.store(ptr + offs_t[:, None] * M + offs_m[None, :], values, mask=mask[:, None])


@gluon.jit(
    do_not_specialize=["T", "stride_xt8", "stride_rt8"], do_not_specialize_on_alignment=["b_down_ptr", "b_up_ptr"]
)
def resident_forward_kernel(
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
    scale,
    stride_xt8,
    stride_rt8,
    ADD_X: gl.constexpr,
    ACTIVATION: gl.constexpr,
    D: gl.constexpr,
    BLOCK_T: gl.constexpr,
    BLOCK_D: gl.constexpr,
    BLOCK_M: gl.constexpr,
    AHEAD: gl.constexpr,
):
    """Programs: token tiles. stride_xt8, stride_rt8 count eights of elements, so that the compiler knows the alignment.

    AHEAD: blocks of weights that are loaded ahead of the product, at least 1 and at most D / BLOCK_D.
    """
    BLOCKS: gl.constexpr = D // BLOCK_D
    NUM_WARPS: gl.constexpr = gl.num_warps()
    dtype: gl.constexpr = x_ptr.dtype.element_ty
    # Warps split the tokens only: act(z) is then the second product's operand without leaving its registers.
    z_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [NUM_WARPS, 1], [16, BLOCK_M, 16])
    y_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [NUM_WARPS, 1], [16, BLOCK_D, 16])
    h_layout: gl.constexpr = gl.DotOperandLayout(0, y_layout, 2)
    wide: gl.constexpr = rows_layout(BLOCK_D, NUM_WARPS)
    narrow: gl.constexpr = rows_layout(BLOCK_M, NUM_WARPS)
    x_shared: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK_T, BLOCK_D], dtype)
    w_down_shared: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK_M, BLOCK_D], dtype)
    w_up_shared: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK_D, BLOCK_M], dtype)

    first_t = gl.program_id(0).to(gl.int64) * BLOCK_T
    offs_t = gl.arange(0, BLOCK_T, layout=gl.SliceLayout(1, wide))
    offs_d = gl.arange(0, BLOCK_D, layout=gl.SliceLayout(0, wide))
    mask_t = offs_t < T - first_t
    # Asked for first: behind the copies of x the first weights would wait for all of them.
    offs_down = gl.arange(0, BLOCK_M, layout=gl.SliceLayout(1, wide))[:, None] * D + offs_d[None, :]
    offs_m = gl.arange(0, BLOCK_M, layout=gl.SliceLayout(0, narrow))
    offs_up = gl.arange(0, BLOCK_D, layout=gl.SliceLayout(1, narrow))[:, None] * BLOCK_M + offs_m[None, :]
    w = gl.load(w_down_ptr + offs_down)  # [BLOCK_M, BLOCK_D]
    ahead = ()
    for i in gl.static_range(1, AHEAD):
        ahead += (gl.load(w_down_ptr + offs_down + i * BLOCK_D),)

    x_rows = x_ptr + first_t * (stride_xt8 * 8) + (offs_t * (stride_xt8 * 8))[:, None] + offs_d[None, :]
    # One allocation a block: between the blocks of one, Triton 3.6 sees conflicts and adds barriers.
    x_tile = ()
    for i in gl.static_range(BLOCKS):
        x_tile += (gl.allocate_shared_memory(dtype, [BLOCK_T, BLOCK_D], x_shared),)
        copy_async(x_tile[i], x_rows + i * BLOCK_D, mask=mask_t[:, None])
        async_copy.commit_group()

    w_down_even = gl.allocate_shared_memory(dtype, [BLOCK_M, BLOCK_D], w_down_shared)
    w_down_odd = gl.allocate_shared_memory(dtype, [BLOCK_M, BLOCK_D], w_down_shared)
    w_down_slots = (w_down_even, w_down_odd)
    w_down_even.store(w)

    z = gl.zeros((BLOCK_T, BLOCK_M), gl.float32, z_layout)
    for i in gl.static_range(BLOCKS):
        if i + AHEAD < BLOCKS:
            ahead += (gl.load(w_down_ptr + offs_down + (i + AHEAD) * BLOCK_D),)
        else:
            ahead += (gl.load(w_up_ptr + offs_up + (i + AHEAD - BLOCKS) * BLOCK_D * BLOCK_M),)
        async_copy.wait_group(BLOCKS - 1 - i)
        fence_async_shared()
        barrier()
        z = warpgroup_mma(x_tile[i], w_down_slots[i % 2].permute((1, 0)), z, is_async=True)
        if i + 1 < BLOCKS:
            w_down_slots[(i + 1) % 2].store(ahead[0])
            ahead = ahead[1:]
        z = warpgroup_mma_wait(0, deps=(z,))  # [BLOCK_T, BLOCK_M]

    # W_up's blocks may lie where W_down's did, and a residual where x did: every warp must be done with both.
    barrier()
    if residual_ptr is not None:
        residual_rows = (
            residual_ptr + first_t * (stride_rt8 * 8) + (offs_t * (stride_rt8 * 8))[:, None] + offs_d[None, :]
        )
        for i in gl.static_range(BLOCKS):
            copy_async(x_tile[i], residual_rows + i * BLOCK_D, mask=mask_t[:, None])
            async_copy.commit_group()
    if b_down_ptr is not None:
        z += gl.load(b_down_ptr + gl.arange(0, BLOCK_M, layout=gl.SliceLayout(0, z_layout))).to(gl.float32)[None, :]
    # Rounded before any is stored: a barrier of a store between them would keep all of z in registers.
    h = activate(z, ACTIVATION).to(dtype)
    if slope_ptr is not None:
        slope = activation_slope(z, ACTIVATION).to(dtype)
    if z_ptr is not None:
        store_rows(z_ptr + first_t * BLOCK_M, z.to(dtype), mask_t, BLOCK_M, narrow)
    if slope_ptr is not None:
        store_rows(slope_ptr + first_t * BLOCK_M, slope, mask_t, BLOCK_M, narrow)
    if h_ptr is not None:
        store_rows(h_ptr + first_t * BLOCK_M, h, mask_t, BLOCK_M, narrow)
    h = gl.convert_layout(h, h_layout)  # [BLOCK_T, BLOCK_M]

    w_up_even = gl.allocate_shared_memory(dtype, [BLOCK_D, BLOCK_M], w_up_shared)
    w_up_odd = gl.allocate_shared_memory(dtype, [BLOCK_D, BLOCK_M], w_up_shared)
    w_up_slots = (w_up_even, w_up_odd)
    w_up_even.store(ahead[0])
    ahead = ahead[1:]
    offs_bias = gl.arange(0, BLOCK_D, layout=gl.SliceLayout(0, y_layout))
    y_rows = y_ptr + first_t * D + (offs_t * D)[:, None] + offs_d[None, :]
    # The residual is read a block early, so that a barrier of the loop lies between this and y's store over it.
    if residual_ptr is not None:
        async_copy.wait_group(BLOCKS - 1)
        barrier()
    if ADD_X or residual_ptr is not None:
        residual = x_tile[0].load(y_layout)  # [BLOCK_T, BLOCK_D]
    for i in gl.static_range(BLOCKS):
        if i + AHEAD < BLOCKS:
            ahead += (gl.load(w_up_ptr + offs_up + (i + AHEAD) * BLOCK_D * BLOCK_M),)
        if b_up_ptr is not None:
            bias = gl.load(b_up_ptr + i * BLOCK_D + offs_bias).to(gl.float32)
        if residual_ptr is not None and i + 1 < BLOCKS:
            async_copy.wait_group(BLOCKS - 2 - i)
        fence_async_shared()
        barrier()
        y = gl.zeros((BLOCK_T, BLOCK_D), gl.float32, y_layout)
        y = warpgroup_mma(h, w_up_slots[i % 2].permute((1, 0)), y, use_acc=False, is_async=True)
        if i + 1 < BLOCKS:
            w_up_slots[(i + 1) % 2].store(ahead[0])
            ahead = ahead[1:]
        if i > 0:
            gl.store(
                y_rows + (i - 1) * BLOCK_D,
                x_tile[i - 1].load(wide),
                mask=mask_t[:, None],
                eviction_policy="evict_first",
            )
        if (ADD_X or residual_ptr is not None) and i + 1 < BLOCKS:
            next_residual = x_tile[i + 1].load(y_layout)
        y, h = warpgroup_mma_wait(0, deps=(y, h))  # [BLOCK_T, BLOCK_D]; h is read from registers until then
        if b_up_ptr is not None:
            y += bias[None, :]
        y *= scale
        if ADD_X or residual_ptr is not None:
            y += residual.to(gl.float32)
            if i + 1 < BLOCKS:
                residual = next_residual
        x_tile[i].store(y.to(dtype))
    barrier()
    gl.store(
        y_rows + (BLOCKS - 1) * BLOCK_D,
        x_tile[BLOCKS - 1].load(wide),
        mask=mask_t[:, None],
        eviction_policy="evict_first",
    )


def launch_resident(
    x: torch.Tensor,
    w_down: torch.Tensor,
    b_down: torch.Tensor | None,
    w_up: torch.Tensor,
    b_up: torch.Tensor | None,
    residual: torch.Tensor | None,
    activation: str,
    scale: float,
    y: torch.Tensor,
    h: torch.Tensor | None,
    slope: torch.Tensor | None,
    z: torch.Tensor | None,
    config: LaunchConfig,
) -> None:
    """Write y [T, d] and, where given, h, slope and z [T, m], all dense; T = 0 launches nothing.

    x [T, d] and residual [T, d], x itself or None: unit stride in d, rows any multiple of 8 elements apart. Weights are
    dense and of x's dtype, float16 or bfloat16; every tensor but the biases starts at a multiple of 16 bytes.

    Raises:
        ValueError: sizes, alignment, config or Triton's version that the kernel was not made for.
        TypeError: a dtype that is not x's, or not a 16-bit float.
    """
    T, D = x.shape
    M = w_down.shape[0]
    _check_config(config, D, M)
    _check_tensors(
        {"x": x, "w_down": w_down, "w_up": w_up, "residual": residual, "y": y, "h": h, "slope": slope, "z": z}
    )
    if T == 0:
        return
    from_x = residual is not None and residual.data_ptr() == x.data_ptr() and residual.stride(0) == x.stride(0)
    present = tuple(tensor is None for tensor in (b_down, b_up, residual, h, slope, z))
    _launch(config, D, activation, from_x, (x.dtype, None if b_down is None else b_down.dtype), x.device, present)(
        triton.cdiv(T, config.BLOCK_T),
        x_ptr=x,
        w_down_ptr=w_down,
        b_down_ptr=b_down,
        w_up_ptr=w_up,
        b_up_ptr=b_up,
        residual_ptr=None if from_x else residual,
        y_ptr=y,
        h_ptr=h,
        slope_ptr=slope,
        z_ptr=z,
        T=T,
        scale=scale,
        stride_xt8=x.stride(0) // 8,
        stride_rt8=0 if residual is None else residual.stride(0) // 8,
    )


@cache
def _launch(
    config: LaunchConfig,
    D: int,
    activation: str,
    from_x: bool,
    dtypes: tuple[torch.dtype, torch.dtype | None],
    device: torch.device,
    present: tuple[bool, ...],
) -> Launch:
    constants = _constants(config, D, activation, from_x)
    return Launch(resident_forward_kernel, constants, {"num_warps": config.num_warps}, keep=True)


def _constants(config: LaunchConfig, D: int, activation: str, add_x: bool) -> dict[str, Any]:
    blocks = {"BLOCK_T": config.BLOCK_T, "BLOCK_D": config.BLOCK_D, "BLOCK_M": config.BLOCK_M}
    return {"ADD_X": add_x, "ACTIVATION": activation, "D": D} | blocks | {"AHEAD": config.num_stages}


def _check_config(config: LaunchConfig, D: int, M: int) -> None:
    if not available(triton.__version__):
        raise ValueError(f"Triton {triton.__version__}: the x-resident kernel is made for 3.6 and 3.9")
    if config.form != "resident":
        raise ValueError(f"config.form: got {config.form!r}, expected 'resident'")
    if M not in BOTTLENECKS or M != config.BLOCK_M:
        raise ValueError(
            f"w_down: got bottleneck {M} with BLOCK_M {config.BLOCK_M}, expected both the same of {BOTTLENECKS}"
        )
    if config.BLOCK_D not in (32, 64, 128) or D % config.BLOCK_D:
        raise ValueError(f"x: got hidden size {D} with BLOCK_D {config.BLOCK_D}, expected a multiple of 32, 64 or 128")
    if config.num_warps not in (4, 8) or config.BLOCK_T != 16 * config.num_warps:
        raise ValueError(
            f"config: got BLOCK_T {config.BLOCK_T} with {config.num_warps} warps, expected 64 with 4 or 128 with 8"
        )
    if not 1 <= config.num_stages <= D // config.BLOCK_D:
        raise ValueError(
            f"config.num_stages: got {config.num_stages}, expected 1 to {D // config.BLOCK_D}, the blocks of d"
        )
    if shared_bytes(config, D) > SHARED_PER_PROGRAM:
        raise ValueError(
            f"x: hidden size {D} needs {shared_bytes(config, D)} bytes of shared memory, "
            f"expected at most {SHARED_PER_PROGRAM}"
        )


def _check_tensors(tensors: dict[str, torch.Tensor | None]) -> None:
    x = tensors["x"]
    T, D = x.shape
    M = tensors["w_down"].shape[0]
    shapes = {"w_down": (M, D), "w_up": (D, M), "h": (T, M), "slope": (T, M), "z": (T, M)}
    if x.dtype not in (torch.float16, torch.bfloat16):
        raise TypeError(f"x: got {x.dtype}, expected float16 or bfloat16")
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.dtype != x.dtype:
            raise TypeError(f"{name}: got {tensor.dtype}, expected {x.dtype}, as x")
        if tuple(tensor.shape) != shapes.get(name, (T, D)):
            raise ValueError(f"{name}: got shape {list(tensor.shape)}, expected {list(shapes.get(name, (T, D)))}")
        rows_apart = name in ("x", "residual")
        if not rows_apart and not tensor.is_contiguous():
            raise ValueError(f"{name}: got strides {list(tensor.stride())}, expected a dense tensor")
        if rows_apart and T and (tensor.stride(1) != 1 or (T > 1 and tensor.stride(0) % 8)):
            raise ValueError(f"{name}: got strides {list(tensor.stride())}, expected [a multiple of 8, 1]")
        if tensor.data_ptr() % 16:
            raise ValueError(f"{name}: got an address of {tensor.data_ptr() % 16} modulo 16, expected 0")
