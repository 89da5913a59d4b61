"""Argument validation, and the one decision which backend runs and why."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from . import reference

ACTIVATIONS = tuple(reference.ACTIVATIONS)  # what the oracle can compute
# Tensor subclasses may mean something of their own by a shape, or by a call.
PLAIN = (Tensor, torch.nn.Parameter)
_PLAIN = frozenset(PLAIN)
_OURS = frozenset((*PLAIN, type(None)))
BACKEND_VARIABLE = "ADAPTER_FAST_BACKEND"
MEMORY_MODES = ("speed", "balanced", "lean")
INITS = ("houlsby", "zero_up", "bert")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LARGEST = sys.float_info.max  # an int can be above it


class Backend(NamedTuple):
    """Which implementation computes an adapter, and why that one."""

    name: Literal["triton", "triton-interpreter", "torch"]
    reason: str


def is_foreign(value: Any) -> bool:
    """Whether a tensor is of a subclass of another library (torchao's), whose products are its own affair."""
    return type(value) not in _OURS and type(value).__module__.partition(".")[0] != "torch"


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool)


def check_size(name: str, value: Any) -> None:
    """Raise unless value is a positive integer."""
    if not _is_integer(value):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def check_activation(activation: Any) -> None:
    """Raise unless activation is one of ACTIVATIONS."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")


def check_memory(memory: Any) -> None:
    """Raise unless memory is one of MEMORY_MODES."""
    if memory not in MEMORY_MODES:
        raise ValueError(f"memory must be one of {', '.join(MEMORY_MODES)}, got {memory!r}")


def check_number(name: str, value: Any) -> None:
    """Raise unless value is a finite real number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}")
    if not -math.inf < value < math.inf or abs(value) > _LARGEST:  # the compiler can trace this, and not math.isfinite
        raise ValueError(f"{name} must be finite, got {value}")


def check_init(init: Any, init_std: Any) -> None:
    """Raise unless init is one of INITS and init_std a standard deviation that it can have."""
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(INITS)}, got {init!r}")
    check_number("init_std", init_std)
    if init_std < 0:
        raise ValueError(f"init_std must be at least 0, got {init_std}")
    if init == "bert" and init_std == 0:
        raise ValueError(f"init_std must be above 0 with init='bert', since 0 stands for 'zero_up', got {init_std}")


def check_dropout(dropout: Any) -> None:
    """Raise unless dropout is a probability below 1."""
    check_number("dropout", dropout)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")


def _check_tensor(name: str, tensor: Any) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.dtype not in DTYPES:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}")
    if hasattr(tensor, "full_tensor"):  # asked so, since importing the type takes half a second
        raise TypeError(
            f"{name} must be a local tensor, got a DTensor: a tensor-parallel module in front of an adapter must have "
            f"use_local_output=True, and a fully_shard model must be called as a whole"
        )


def _check_shape(name: str, tensor: Tensor, letters: str, expected: tuple[int, ...]) -> None:
    if tensor.dim() != len(expected) or any(given != want for given, want in zip(tensor.shape, expected)):
        raise ValueError(f"{name} must be {letters} = {list(expected)}, got {list(tensor.shape)}")


def check_arguments(
    x: Tensor,
    w_down: Tensor,
    b_down: Tensor | None,
    w_up: Tensor,
    b_up: Tensor | None,
    residual: Tensor | Literal[False] | None,
    *,
    activation: str,
    scale: float,
    memory: str,
) -> None:
    """Raise ValueError or TypeError on the first argument of fused_adapter that does not fit.

    Every message names the argument, what was expected and what was given.
    """
    if not (_right_settings(activation, scale, memory) and _right_tensors(x, w_down, b_down, w_up, b_up, residual)):
        _check_tensors(x, w_down, b_down, w_up, b_up, residual)
        check_activation(activation)
        check_number("scale", scale)
        check_memory(memory)


def _right_settings(activation: Any, scale: Any, memory: Any) -> bool:
    return (
        activation in ACTIVATIONS and type(scale) is float and -math.inf < scale < math.inf and memory in MEMORY_MODES
    )


def _right_tensors(x: Any, w_down: Any, b_down: Any, w_up: Any, b_up: Any, residual: Any) -> bool:
    """Whether the usual tensors are right, in half the time: with other ones each is looked at by itself."""
    if (
        torch.compiler.is_compiling()
        or not (residual is None or residual is False)
        or not _PLAIN.issuperset(map(type, (x, w_down, b_down, w_up, b_up)))
        or x.dim() == 0
        or w_down.dim() != 2
    ):
        return False
    m, d = w_down.shape
    dtype, device = w_down.dtype, w_down.device
    return (
        x.shape[-1] == d
        and w_up.shape == (d, m)
        and b_down.shape == (m,)
        and b_up.shape == (d,)
        and dtype is w_up.dtype is b_down.dtype is b_up.dtype
        and device == x.device == w_up.device == b_down.device == b_up.device
        and x.dtype in DTYPES
        and dtype in DTYPES
        and 0 < d < 2**24
        and 0 < m * d < 2**31
    )


def _check_tensors(
    x: Tensor,
    w_down: Tensor,
    b_down: Tensor | None,
    w_up: Tensor,
    b_up: Tensor | None,
    residual: Tensor | Literal[False] | None,
) -> None:
    _check_x(x)
    d = x.shape[-1]
    _check_tensor("w_down", w_down)
    if w_down.dim() != 2 or w_down.shape[1] != d:
        raise ValueError(f"w_down must be [m, d] with d = {d} as in x, got {list(w_down.shape)}")
    m = w_down.shape[0]
    if m < 1:
        raise ValueError(f"w_down must be [m, d] with bottleneck m at least 1, got {list(w_down.shape)}")
    if d >= 2**24 or m * d >= 2**31:
        raise ValueError(f"w_down must be [m, d] with d below 2**24 and m * d below 2**31, got {list(w_down.shape)}")
    _check_tensor("w_up", w_up)
    _check_shape("w_up", w_up, "[d, m]", (d, m))
    if b_down is not None:
        _check_tensor("b_down", b_down)
        _check_shape("b_down", b_down, "[m]", (m,))
    if b_up is not None:
        _check_tensor("b_up", b_up)
        _check_shape("b_up", b_up, "[d]", (d,))
    for name, weight in (("b_down", b_down), ("w_up", w_up), ("b_up", b_up)):
        if weight is not None and weight.dtype != w_down.dtype:
            raise TypeError(f"{name} must have the dtype of w_down, {w_down.dtype}, got {weight.dtype}")
    _check_residual(residual, x)
    for name, tensor in (
        ("w_down", w_down),
        ("b_down", b_down),
        ("w_up", w_up),
        ("b_up", b_up),
        ("residual", residual),
    ):
        _check_device(name, tensor, x)


def _check_x(x: Any) -> None:
    _check_tensor("x", x)
    if x.dim() == 0:
        raise ValueError("x must be [..., d] with at least one dimension, got a scalar")
    if x.shape[-1] < 1:
        raise ValueError(f"x must be [..., d] with d at least 1, got {list(x.shape)}")


def _check_residual(residual: Any, x: Tensor) -> None:
    if residual is None or residual is False:
        return
    _check_tensor("residual", residual)
    if residual.shape != x.shape:
        raise ValueError(f"residual must have the shape of x, {list(x.shape)}, got {list(residual.shape)}")
    if residual.dtype != x.dtype and autocast_dtype(x.device.type) is None:
        raise TypeError(f"residual must have the dtype of x, {x.dtype}, got {residual.dtype}")


def _check_device(name: str, tensor: Any, x: Tensor) -> None:
    if isinstance(tensor, Tensor) and tensor.device != x.device:
        raise ValueError(f"{name} must be on the device of x, {x.device}, got {tensor.device}")


def check_stream(x: Any, residual: Any, width: int) -> None:
    """Raise ValueError or TypeError unless x is [..., d] with d = width and residual fits it, whatever the weights."""
    _check_x(x)
    if x.shape[-1] != width:
        raise ValueError(f"x must be [..., d] with d = {width}, got {list(x.shape)}")
    _check_residual(residual, x)
    _check_device("residual", residual, x)


def check_saved(dy: Tensor, m: int, weight_dtype: torch.dtype, **saved: Tensor | None) -> None:
    """Raise ValueError unless x, h, slope, z, w_down, b_down and w_up, where given, fit dy [..., d] and m.

    torch.autograd.graph.saved_tensors_hooks may hand back any tensor; its layout is free.
    """
    d = dy.shape[-1]
    tokens = (dy.numel() // d, m)
    weights = {"w_down": (m, d), "b_down": (m,), "w_up": (d, m)}
    shapes = {"x": dy.shape, "h": tokens, "slope": tokens, "z": tokens} | weights
    for name, tensor in saved.items():
        if tensor is None:
            continue
        shape, dtype = shapes[name], weight_dtype if name in weights else dy.dtype
        if tensor.shape != shape or tensor.dtype is not dtype or tensor.device != dy.device:
            raise ValueError(
                f"the saved {name} must come back as {list(shape)} of {dtype} on {dy.device}, got {list(tensor.shape)} "
                f"of {tensor.dtype} on {tensor.device}: see torch.autograd.graph.saved_tensors_hooks"
            )


def refused_derivative(what: str) -> RuntimeError:
    """The error for a derivative that the fused adapter has not."""
    return RuntimeError(
        f"fused_adapter is differentiable once, in reverse mode: for {what} use ReferenceAdapter, reference_adapter or "
        f"AdapterConfig(implementation='reference')"
    )


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The dtype that autocast gives matrix products on this device at the moment, None where it is off."""
    # Asked by name: torch.amp.is_autocast_available breaks the graph of torch.compile in torch 2.11.
    if device_type != "meta" and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return None


def in_functorch() -> bool:
    """Whether a transform of torch.func is at work: grad, vmap, jvp or another."""
    return torch._C._are_functorch_transforms_active()


def interpreting() -> bool:
    """Whether Triton kernels run under its interpreter (TRITON_INTERPRET=1), which is how a CPU runs them."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def requested_backend() -> str:
    """ "torch" or "triton" where the environment variable asks for one, else "".

    Raises:
        ValueError: it has another value.
    """
    asked = os.environ.get(BACKEND_VARIABLE, "")
    if asked and asked not in ("torch", "triton"):
        raise ValueError(f"{BACKEND_VARIABLE} must be torch or triton, or not be set, got {asked!r}")
    return asked


@cache
def _probe(index: int) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if torch.version.hip is None and torch.cuda.get_device_capability(index) < (8, 0):
        return "the kernels need compute capability 8.0 or newer"
    return None


def _cuda_support(index: int) -> str | None:
    """None where Triton can run on that GPU, otherwise why it cannot."""
    return _probe(index)


# What torch.compiler.assume_constant_result sets, without its import of the whole compiler.
interpreting._dynamo_marked_constant = True  # type: ignore[attr-defined]
requested_backend._dynamo_marked_constant = True  # type: ignore[attr-defined]
in_functorch._dynamo_marked_constant = True  # type: ignore[attr-defined]
_cuda_support._dynamo_marked_constant = True  # type: ignore[attr-defined]


def select_backend(device: torch.device, dtype: torch.dtype) -> Backend:
    """The backend that computes an adapter whose x has this device and dtype.

    Args:
        device: device of x and of the weights.
        dtype: the dtype x is computed in (autocast's dtype where autocast is on).

    Returns:
        Backend(name, reason); "torch" is the same autograd Function computed with PyTorch operations.

    Raises:
        ValueError: ADAPTER_FAST_BACKEND has another value than torch and triton.
        RuntimeError: ADAPTER_FAST_BACKEND=triton where the kernels cannot run.
    """
    asked = requested_backend()
    if not asked:
        return _best_backend(device, dtype)
    if asked == "torch":
        return Backend("torch", f"{BACKEND_VARIABLE}=torch asks for PyTorch operations")
    backend = _best_backend(device, dtype)
    if backend.name == "torch":
        raise RuntimeError(f"{BACKEND_VARIABLE}=triton asks for kernels that cannot run here: {backend.reason}")
    return Backend(backend.name, f"{backend.reason}; {BACKEND_VARIABLE}=triton asks for it")


# Said at every call: made once.
_GPU = Backend("triton", "a GPU and a dtype that the kernels support")
_EXACT = Backend(
    "torch",
    "float32 products at highest precision do not run on tensor cores, and PyTorch's are then the faster "
    'ones; torch.set_float32_matmul_precision("high") lets the kernels run',
)


def _no_kernels(device_type: str) -> Backend:
    return Backend(
        "torch", f"Triton has no kernels for a {device_type} device; PyTorch operations compute the same Function"
    )


_NO_KERNELS = {"cpu": _no_kernels("cpu")}


def _best_backend(device: torch.device, dtype: torch.dtype) -> Backend:
    if device.type == "cuda":
        if dtype == torch.float64:
            return Backend("torch", "float64 runs on PyTorch's own matrix products; the kernels accumulate in float32")
        if dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest":
            return _EXACT
        index = torch.cuda.current_device() if device.index is None else device.index
        missing = _cuda_support(index)
        if missing is not None:
            return Backend("torch", missing)
        return _GPU
    if device.type == "cpu" and interpreting():
        if dtype == torch.bfloat16:
            return Backend("torch", "Triton's interpreter computes bfloat16 wrongly")
        return Backend("triton-interpreter", "TRITON_INTERPRET=1 runs the kernels' source on the CPU")
    return _NO_KERNELS.get(device.type) or _no_kernels(device.type)
