"""Device functions that the forward and the backward kernels share: one skeleton, out = rows + f(in · A) · B."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .activations import activation_slope


# Built inside the kernels from their flat arguments, and by the launchers from tensors.
class Rows(NamedTuple):
    """[T, N] in memory with unit stride in N: a pointer, and the elements from one row to the next."""

    ptr: Any
    stride: Any


class Linear(NamedTuple):
    """A dense weight, and its bias or None."""

    w: Any
    b: Any


class Saved(NamedTuple):
    """[T, M] for the backward: h = act(z), the slope act'(z), z; None where it is not kept."""

    h: Any
    slope: Any
    z: Any


@triton.jit
def pointers(rows, first_t, offs_t):
    """[BLOCK_T, 1] pointers to the first element of each of these rows; first_t has 64 bits, offs_t 32."""
    return rows.ptr + first_t * rows.stride + offs_t[:, None] * rows.stride


@triton.jit
def round_tf32(a):
    """float32 to the 11 bits of tf32, to nearest: the tensor cores themselves cut the others off."""
    bits = a.to(tl.int32, bitcast=True)
    rounded = ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return tl.where(a == a, rounded, a)  # a NaN's own bits may carry over into its sign


@triton.jit
def multiply(a, b, acc, PRECISION: tl.constexpr, PARTIAL_SUMS: tl.constexpr = False):
    """acc + a · b in acc's dtype; b is converted to a's. PARTIAL_SUMS: a · b is summed by itself before it is added."""
    b = b.to(a.dtype)
    if PRECISION == "tf32":
        a = round_tf32(a)
        b = round_tf32(b)
    if PARTIAL_SUMS:
        # Without the limit the compiler folds this addition into the product, whose sums then run on in one.
        limit: tl.constexpr = a.shape[1]
        acc += tl.dot(a, b, input_precision=PRECISION, max_num_imprecise_acc=limit, out_dtype=acc.dtype)
    else:
        acc = tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)
    return acc


@triton.jit
def contract(
    acc,  # [BLOCK_T, BLOCK_N]
    rows,  # [BLOCK_T, 1] pointers to the first element of each row
    mask_t,  # [BLOCK_T]
    w_ptr,
    stride_wk,
    stride_wn,
    offs_n,  # [BLOCK_N]
    mask_n,  # [BLOCK_N]
    K,
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PARTIAL_SUMS: tl.constexpr = False,
):
    """acc + rows [BLOCK_T, K] · W [K, BLOCK_N], accumulated in acc's dtype; W is converted to the rows' dtype.

    PARTIAL_SUMS adds the products of BLOCK_K columns one by one, in the order and with the bits of the sliced form.
    """
    for start_k in range(0, K, BLOCK_K):
        offs_k = start_k + tl.arange(0, BLOCK_K)
        mask_k = offs_k < K
        a = tl.load(rows + offs_k[None, :], mask=mask_t[:, None] & mask_k[None, :], other=0.0)  # [BLOCK_T, BLOCK_K]
        w = tl.load(
            w_ptr + offs_k[:, None] * stride_wk + offs_n[None, :] * stride_wn,
            mask=mask_k[:, None] & mask_n[None, :],
            other=0.0,
        )  # [BLOCK_K, BLOCK_N]
        acc = multiply(a, w, acc, PRECISION, PARTIAL_SUMS)
    return acc


@triton.jit
def project(
    x_rows,  # [BLOCK_T, 1] pointers
    mask_t,  # [BLOCK_T]
    down,  # Linear
    offs_m,  # [BLOCK_M]
    mask_m,  # [BLOCK_M]
    D,
    PRECISION: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PARTIAL_SUMS: tl.constexpr = False,
):
    """z = x · W_downᵀ + b_down [BLOCK_T, BLOCK_M]."""
    z = tl.zeros((mask_t.shape[0], mask_m.shape[0]), dtype=ACC_DTYPE)
    z = contract(z, x_rows, mask_t, down.w, 1, D, offs_m, mask_m, D, PRECISION, BLOCK_D, PARTIAL_SUMS)
    if down.b is not None:
        z += tl.load(down.b + offs_m, mask=mask_m, other=0.0).to(ACC_DTYPE)[None, :]
    return z


@triton.jit
def save(z, saved, first_t, M, offs_tm, mask_tm, ACTIVATION: tl.constexpr):
    """Store z [BLOCK_T, BLOCK_M] and its slope where they are kept, at offs_tm from row first_t on."""
    if saved.z is not None:
        tl.store(saved.z + first_t * M + offs_tm, z.to(saved.z.dtype.element_ty), mask=mask_tm)
    if saved.slope is not None:
        slope = activation_slope(z, ACTIVATION)
        tl.store(saved.slope + first_t * M + offs_tm, slope.to(saved.slope.dtype.element_ty), mask=mask_tm)


@triton.jit
def finish(acc, bias, scale, rows):
    """scale · (acc [BLOCK_T, BLOCK_D] + bias [BLOCK_D]) + rows [BLOCK_T, BLOCK_D]; bias, scale, rows may be None."""
    if bias is not None:
        acc += bias.to(acc.dtype)[None, :]
    if scale is not None:
        acc *= scale
    if rows is not None:
        acc += rows.to(acc.dtype)
    return acc


@triton.jit
def expand_rows(
    h,  # [BLOCK_T, BLOCK_M]
    offs_m,  # [BLOCK_M]
    mask_m,  # [BLOCK_M]
    linear,  # W [M, D] by its strides, and the bias [D]
    stride_wm,
    stride_wd,
    scale,
    rows,  # [BLOCK_T, 1] pointers
    out_rows,  # [BLOCK_T, 1] pointers
    mask_t,  # [BLOCK_T]
    D,
    PRECISION: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Store scale · (h · W [BLOCK_M, D] + bias) + rows over the whole hidden dimension, last tile first.

    bias, scale and rows may be None. The order is the reverse of contract's, so that the rows still in the cache are
    read before they are evicted. STAGES: unless named, the compiler stages only what feeds a product, and the rows are
    waited for after each.
    """
    last = (tl.cdiv(D, BLOCK_D) - 1) * BLOCK_D
    for passed in tl.range(0, D, BLOCK_D, num_stages=STAGES):
        offs_d = last - passed + tl.arange(0, BLOCK_D)
        mask_d = offs_d < D
        mask_td = mask_t[:, None] & mask_d[None, :]
        w = tl.load(
            linear.w + offs_m[:, None] * stride_wm + offs_d[None, :] * stride_wd,
            mask=mask_m[:, None] & mask_d[None, :],
            other=0.0,
        )  # [BLOCK_M, BLOCK_D]
        bias = None
        if linear.b is not None:
            bias = tl.load(linear.b + offs_d, mask=mask_d, other=0.0)
        added = None
        if rows is not None:
            added = tl.load(rows + offs_d[None, :], mask=mask_td, other=0.0)  # [BLOCK_T, BLOCK_D]
        out = multiply(h, w, tl.zeros((h.shape[0], BLOCK_D), dtype=ACC_DTYPE), PRECISION)  # [BLOCK_T, BLOCK_D]
        out = finish(out, bias, scale, added)
        tl.store(out_rows + offs_d[None, :], out.to(out_rows.dtype.element_ty), mask=mask_td)
