"""Memory layouts: the one place where an input is copied because the kernels cannot address it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

# Within a tile the kernels count in 32 bits, and a tile has at most 128 rows.
MAX_ROW_STRIDE = 2**24


def needs_copy(x: Tensor) -> bool:
    """Whether as_rows(x) copies x [..., d].

    It does where the last dimension has no unit stride, where the tokens have no single stride, or where that stride is
    2²⁴ elements or more.
    """
    if x.numel() == 0 or x.is_contiguous():
        return False
    if x.stride(-1) != 1 and x.shape[-1] != 1:
        return True
    sizes = [(size, stride) for size, stride in zip(x.shape[:-1], x.stride()[:-1]) if size != 1]
    if any(outer[1] != inner[0] * inner[1] for outer, inner in pairwise(sizes)):
        return True
    return bool(sizes) and sizes[-1][1] >= MAX_ROW_STRIDE


def as_rows(x: Tensor) -> Tensor:
    """x [..., d] as [T, d] with unit stride in d and any stride over tokens; copies only where needs_copy(x)."""
    d = x.shape[-1]
    if needs_copy(x):
        return x.contiguous().view(-1, d)
    if x.dim() == 2 and x.stride(0) < MAX_ROW_STRIDE:  # a single row may have any, which its view has not
        return x
    return x.view(x.numel() // d, d)


def dense(tensor: Tensor) -> Tensor:
    """The tensor in its own contiguous layout, as nn.Linear's weights are; a transposed or sliced view is copied."""
    return tensor.contiguous()


def bias_of(tensor: Tensor | None) -> Tensor | None:
    """A bias as the kernels read it, dense and from a multiple of 16 bytes on; else a copy, of d or m elements."""
    if tensor is None or (tensor.data_ptr() % 16 == 0 and tensor.is_contiguous()):
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def bottleneck(*tensors: Tensor | None) -> int:
    """m, the last size of whichever of h, z [T, m] and W_up [d, m] is there; 0 where none is."""
    return next((tensor.shape[-1] for tensor in tensors if tensor is not None and tensor.dim() > 0), 0)
