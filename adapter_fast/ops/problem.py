"""What the choice of tiles is told about a call: sizes, dtypes, the device, alignment, forms that are asked for."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from adapter_fast.kernels.shapes import Problem

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


@cache
def _problem(key: tuple[Any, ...]) -> Problem:
    index, dtype, weight_dtype, d, m, tokens, precision, aligned, optional, forced = key
    arch, sms = INTERPRETED if index < 0 else _device(index)
    return kernels("shapes").Problem(
        D=d,
        M=m,
        x_bytes=dtype.itemsize,
        w_bytes=weight_dtype.itemsize,
        precision=precision,
        arch=arch,
        sms=sms,
        aligned=aligned,
        tokens=tokens,
        device=index,
        optional=optional,
        forced=forced,
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
    precision, bucket = "ieee" if exact else "tf32", tiles.bucket(T)
    optional, forced = kernels("offers").requested_forms(), tiles.forced_choices()
    return _problem((index, dtype, weight_dtype, d, m, bucket, precision, aligned, optional, forced))
