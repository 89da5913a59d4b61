"""The names of the modules that we put into a model, and the model's own modules and parameters without them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

CHILD = "adapter_site"  # its name inside the hooked module; the base's own state-dict keys stay as they are
INLET = "adapter_inlet"  # the name of the inlet inside the module whose input a parallel adapter reads
TUNED = "adapter_tuned"  # the name of what adapters tuned of a module's own parameters, inside that module
STATE = "adapter_state"  # the name of the state inside the model that adapters were added to
_OURS = frozenset({CHILD, INLET, TUNED, STATE})


def base_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules as named_modules gives them, without ours: so the time does not grow with the adapters."""
    seen: set[nn.Module] = set()
    waiting = [("", model)]
    while waiting:
        name, module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        yield name, module
        children = [(key, child) for key, child in module._modules.items() if child is not None and key not in _OURS]
        waiting += [(f"{name}.{key}" if name else key, child) for key, child in reversed(children)]


def base_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters as named_parameters gives them, without those of ours."""
    seen: set[nn.Parameter] = set()
    for name, module in base_modules(model):
        for key, parameter in module._parameters.items():
            if parameter is not None and parameter not in seen:
                seen.add(parameter)
                yield f"{name}.{key}" if name else key, parameter


def count_parameters(model: nn.Module) -> int:
    """Elements of all parameters: the base's and the adapters', without those that wait beside the active ones."""
    return sum(value.numel() for name, value in model.named_parameters() if TUNED not in name.split("."))


def uncompiled_name(name: str) -> str:
    """A module's or parameter's name without torch.compile's wrappers around single layers."""
    return name.replace("_orig_mod.", "")


def is_ours(name: str) -> bool:
    """Whether a module's, parameter's or state-dict entry's name lies in a module of ours."""
    return not _OURS.isdisjoint(name.split("."))


def remove_loading_hook(module: nn.Module, hook: Any) -> None:
    """Take a load_state_dict hook of ours away; works on copies, whose hook handles are lost."""
    before: dict[int, Any] = module._load_state_dict_pre_hooks
    after: dict[int, Any] = module._load_state_dict_post_hooks
    for hooks in (before, after):
        for key in [key for key, each in hooks.items() if getattr(each, "hook", each) is hook]:
            del hooks[key]
