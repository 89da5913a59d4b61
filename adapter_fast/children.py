"""An adapter's two projections as modules: whether they must be called, and the adapter computed by calling them.

The fused path reads their weights. What acts through a call (hooks, offloading, pruning) or takes a projection's place
(LoRA, a quantised layer) is then passed by, so that there the adapter calls them.
"""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from .checks import (
    BACKEND_VARIABLE,
    autocast_dtype,
    check_activation,
    check_number,
    check_stream,
    is_foreign,
    requested_backend,
)
from .reference import ACTIVATIONS

_HOOKS = {
    "_forward_pre_hooks": "forward pre-hooks",
    "_forward_hooks": "forward hooks",
    "_backward_pre_hooks": "backward pre-hooks",
    "_backward_hooks": "backward hooks",
}
_LINEAR, _PARAMETER = nn.Linear, nn.Parameter


def why_called(down: Any, up: Any) -> str:
    """Why the projections of an adapter must be called, in words; "" where reading their weights comes to the same.

    Looked at in every call: a plain pair costs a few tenths of a microsecond.
    """
    if type(down) is _LINEAR and type(up) is _LINEAR:
        a, b = down.__dict__, up.__dict__  # past nn.Module's attribute lookup
        if not (
            a["_forward_pre_hooks"]
            or b["_forward_pre_hooks"]
            or a["_forward_hooks"]
            or b["_forward_hooks"]
            or a["_backward_hooks"]
            or b["_backward_hooks"]
            or a["_backward_pre_hooks"]
            or b["_backward_pre_hooks"]
            or "forward" in a
            or "forward" in b
            or type(a["_parameters"].get("weight")) is not _PARAMETER
            or type(b["_parameters"].get("weight")) is not _PARAMETER
            or _has_any_global_hook()
        ):
            return ""
    reasons = []
    for name, child in (("down", down), ("up", up)):
        why = _why(child)
        if why:
            reasons.append(f"{name} {why}")
    if _has_any_global_hook():
        reasons.append("a hook on every module's call is registered")
    return ", ".join(reasons)


def _why(child: Any) -> str:
    kind = type(child)
    # A parametrised Linear, and torch.export's view of one, are subclasses with a Linear's own forward.
    if not (isinstance(child, nn.Linear) and kind.forward is nn.Linear.forward and kind.__call__ is nn.Module.__call__):
        return f"is of type {kind.__qualname__}"
    found = acts_by_call(child)
    if found:
        return f"has {found}"
    foreign = [type(weight).__qualname__ for weight in child._parameters.values() if is_foreign(weight)]
    return f"has a weight of type {foreign[0]}" if foreign else ""


def acts_by_call(module: nn.Module) -> str:
    """What a call of this module runs besides its class's forward, in words; "" where nothing."""
    if "forward" in module.__dict__:  # accelerate's way
        return "a forward of its own"
    for name, words in _HOOKS.items():
        if getattr(module, name):
            return words
    return ""


def _must_call(child: nn.Module) -> bool:
    return _has_any_global_hook() or bool(_why(child))


def describe(down: nn.Module, up: nn.Module, x: Tensor) -> str:
    """How an adapter with an x [..., d] like this one is computed through its projections, and why; "" where not."""
    why = why_called(down, up)
    if not why:
        return ""
    phrases = [f"computes through its children: {why}"]
    for name, child in (("down", down), ("up", up)):
        dtype = _called_in(child, x) if _must_call(child) else None
        if dtype is not None and dtype != x.dtype:
            phrases.append(f"{name} is called in {dtype}, its weights' dtype, and the result converted to {x.dtype}")
    return "; ".join(phrases)


def refuse_forced_kernels(why: str) -> None:
    """Raise RuntimeError where ADAPTER_FAST_BACKEND=triton asks for kernels, which cannot call modules."""
    if requested_backend() == "triton":
        raise RuntimeError(f"{BACKEND_VARIABLE}=triton asks for kernels that cannot run here: {why}")


def through_children(
    down: nn.Module,
    up: nn.Module,
    x: Tensor,
    residual: Tensor | Literal[False] | None = None,
    *,
    width: int,
    activation: str,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """y = residual + scale · up(dropout(act(down(x)))) in PyTorch operations, each projection called where it must be.

    A plain nn.Linear is computed in x's dtype, as fused_adapter computes. Any other projection is called with its input
    in the dtype of its first floating-point parameter, and what it returns is converted back to x's. Under autocast it
    is called with autocast's dtype, and autocast converts.

    Args:
        x, residual, activation, scale: as in fused_adapter.
        width: d.
        dropout: probability of each element of act(z) [..., m] to be dropped, drawn from torch's generator.

    Returns:
        y [..., d], as fused_adapter's. autograd keeps what it always keeps.

    Raises:
        TypeError, ValueError: an argument that does not fit, by name.
    """
    check_stream(x, residual, width)
    check_activation(activation)
    check_number("scale", scale)
    dtype = autocast_dtype(x.device.type)
    if dtype is not None:
        x = x.to(dtype)
        residual = residual.to(dtype) if isinstance(residual, Tensor) else residual
    h = ACTIVATIONS[activation](_project(down, x))
    branch = _project(up, F.dropout(h, dropout) if dropout else h)
    if scale != 1.0:
        branch = branch * scale
    if residual is False:
        return branch
    return (x if residual is None else residual) + branch


def _project(child: Any, x: Tensor) -> Tensor:
    if not _must_call(child):
        bias = child.bias
        return F.linear(x, child.weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
    dtype = _called_in(child, x)
    return child(x if dtype is None else x.to(dtype)).to(x.dtype)


def _called_in(child: nn.Module, x: Tensor) -> Any:
    """The dtype that a projection is called in; None where x's own is left, which autocast then converts."""
    if autocast_dtype(x.device.type) is not None:
        return None
    return next((weight.dtype for weight in child.parameters() if weight.dtype.is_floating_point), None)
