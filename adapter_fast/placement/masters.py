"""Float32 masters: parameters of a 16-bit model that train in float32, while their module computes in 16 bit.

An update of 1e-3 of a weight near 1 is lost in bfloat16, which has 8 bits of it. So what trains is float32, and while
its module runs, the module's attribute is the parameter in the dtype of what the module is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock, get_ident
from typing import Any

import torch
from torch import Tensor, nn

from .walk import base_modules

_ATTRIBUTE = "_float32_masters"
HALVES = (torch.float16, torch.bfloat16)


class _Casts:
    """What a module's two hooks share: which parameters they convert, and who is inside."""

    def __init__(self, names: Iterable[str], dtype: torch.dtype) -> None:
        self.names = list(names)
        self.dtype = dtype  # of a module that is given no floating tensor, as an embedding is
        self._forget()

    def _forget(self) -> None:
        self.inside: set[int] = set()  # threads
        self.kept: dict[str, tuple[Any, Tensor]] = {}  # conversions that no gradient goes through
        self.lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"names": self.names, "dtype": self.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def convert(self, name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
        """The parameter in the dtype; the one from before where it has not changed and gets no gradient."""
        if torch.compiler.is_compiling() or type(value) is not nn.Parameter:
            return value.to(dtype)
        if value.requires_grad and torch.is_grad_enabled():
            return value.to(dtype)
        key = (value.data_ptr(), value._version, dtype, torch.is_inference_mode_enabled())
        kept = self.kept.get(name)
        if kept is None or kept[0] != key:
            kept = self.kept[name] = (key, value.to(dtype))
        return kept[1]


def master_dtype(dtype: torch.dtype) -> torch.dtype:
    """What a parameter of this dtype trains in: float32 for a 16-bit one."""
    return torch.float32 if dtype in HALVES else dtype


def cast_masters(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """The forward pre-hook: until the module has run its float32 parameters look like its input's dtype."""
    casts: _Casts = module.__dict__[_ATTRIBUTE]
    inputs = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.is_floating_point())
    dtype = next((value.dtype for value in inputs), casts.dtype)
    if dtype not in HALVES:
        return
    found = {}
    for name in casts.names:
        value: Tensor | None = module._parameters.get(name)
        value = module.__dict__.get(name) if value is None else value  # a replica of nn.DataParallel has plain tensors
        if value is not None and value.dtype == torch.float32:
            found[name] = casts.convert(name, value, dtype)
    if torch.compiler.is_compiling():
        for name, value in found.items():
            module.__dict__[name] = value
        return
    with casts.lock:
        casts.inside.add(get_ident())
        module.__dict__.update(found)


def uncast_masters(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    """The forward hook, called after an error too: the attributes are the parameters again."""
    casts: _Casts = module.__dict__[_ATTRIBUTE]
    names = [name for name in casts.names if name in module._parameters and name in module.__dict__]
    if torch.compiler.is_compiling():
        for name in names:
            del module.__dict__[name]
        return
    with casts.lock:
        casts.inside.discard(get_ident())
        if not casts.inside:
            for name in names:
                module.__dict__.pop(name, None)


def run_with_masters(module: nn.Module, x: Tensor) -> Any:
    """module.forward(x), called past the module's hooks."""
    if _ATTRIBUTE not in module.__dict__:
        return module.forward(x)
    cast_masters(module, (x,), {})
    try:
        return module.forward(x)
    finally:
        uncast_masters(module, (x,), None)


def attach_masters(module: nn.Module, names: Iterable[str], dtype: torch.dtype) -> None:
    """Let a module compute in its input's dtype whatever these parameters of it have; more names each time."""
    casts = module.__dict__.get(_ATTRIBUTE)
    if casts is not None:
        casts.names += [name for name in names if name not in casts.names]
        return
    module.__dict__[_ATTRIBUTE] = _Casts(names, dtype)
    module.register_forward_pre_hook(cast_masters, with_kwargs=True)
    module.register_forward_hook(uncast_masters, always_call=True)


def detach_masters(module: nn.Module) -> None:
    """Take the hooks away, if they are there."""
    if module.__dict__.pop(_ATTRIBUTE, None) is None:
        return
    for key in [key for key, hook in module._forward_pre_hooks.items() if hook is cast_masters]:
        del module._forward_pre_hooks[key]
        module._forward_pre_hooks_with_kwargs.pop(key, None)
    for key in [key for key, hook in module._forward_hooks.items() if hook is uncast_masters]:
        del module._forward_hooks[key]
        module._forward_hooks_always_called.pop(key, None)


def convert_to_masters(model: nn.Module, names: set[str]) -> None:
    """Make the 16-bit ones of a bare model's parameters float32 masters, in place, all modules that share one too."""
    chosen = {model.get_parameter(name) for name in names}
    halves = {value: value.dtype for value in chosen if value.dtype in HALVES}
    for _, module in base_modules(model):
        own = [name for name, value in module._parameters.items() if value is not None and value in halves]
        if own:
            attach_masters(module, own, halves[module._parameters[own[0]]])  # type: ignore[index]
    for value in halves:
        value.data = value.data.to(torch.float32)
