"""What the choice of tiles is told about a call: sizes, dtypes, the device, alignment, forms that are asked for."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from adapter_fast.kernels.shapes import LaunchConfig, Problem

# The interpreter runs the tiles of this architecture, with few programs so that tests stay quick.
INTERPRETED = ("sm_90", 8)


@cache
def kernels(name: str) -> Any:
    """A module of adapter_fast.kernels, imported when it is first needed: most of them import Triton."""
    try:
        return importlib.import_module(f"adapter_fast.kernels.{name}")
    except Exception as error:  # a Triton that this torch, driver or machine cannot load raises what it likes
        from adapter_fast.kernels.errors import kernel_error

        raise kernel_error(f"import of adapter_fast.kernels.{name}", error) from error


@cache
def _device(index: int) -> tuple[str, int]:
    """Architecture and multiprocessors of a GPU."""
    properties = torch.cuda.get_device_properties(index)
    arch = f"sm_{properties.major}{properties.minor}"
    if torch.version.hip is not None:
        arch = properties.gcnArchName.split(":")[0]
    return arch, properties.multi_processor_count


class _Key(NamedTuple):
    """All that a Problem is made from."""

    device: int
    dtype: torch.dtype
    weight_dtype: torch.dtype
    d: int
    m: int
    tokens: int
    precision: str
    aligned: bool
    optional: tuple[str, ...]
    forced: tuple[tuple[str, LaunchConfig], ...]


@cache
def _problem(key: _Key) -> Problem:
    arch, sms = INTERPRETED if key.device < 0 else _device(key.device)
    return kernels("shapes").Problem(
        D=key.d,
        M=key.m,
        x_bytes=key.dtype.itemsize,
        w_bytes=key.weight_dtype.itemsize,
        precision=key.precision,
        arch=arch,
        sms=sms,
        aligned=key.aligned,
        tokens=key.tokens,
        device=key.device,
        optional=key.optional,
        forced=key.forced,
    )


def problem(
    device: torch.device,
    dtype: torch.dtype,
    weight_dtype: torch.dtype,
    T: int,
    d: int,
    m: int,
    *tensors: Tensor | None,
) -> Problem:
    """What select_tiles needs to know about a launch on this device; tensors: whose alignment counts."""
    tiles = kernels("tiles")
    index = -1
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
    exact = dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest"
    unit = 16 // dtype.itemsize
    aligned = d % unit == 0 and T < 2**31
    if aligned:
        addresses = strides = 0
        for tensor in tensors:
            if tensor is not None:
                addresses |= tensor.data_ptr()
                if tensor.shape[1] == d:  # rows of the hidden size; those of the bottleneck are dense, whatever m
                    strides |= tensor.stride(0)
        aligned = addresses % 16 == 0 and strides % unit == 0
    return _problem(
        _Key(
            index,
            dtype,
            weight_dtype,
            d,
            m,
            tiles.bucket(T),
            "ieee" if exact else "tf32",
            aligned,
            kernels("offers").requested_forms(),
            tiles.forced_choices(),
        )
    )
