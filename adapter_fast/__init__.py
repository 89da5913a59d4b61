"""Houlsby bottleneck adapters for today's transformers: one fused pass, one autograd Function, one oracle."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter import FusedAdapter, ReferenceAdapter
    from .checkpoint import load_adapters, save_adapters
    from .config import AdapterConfig
    from .functional import fused_adapter
    from .placement import adapter_summary, add_adapters, disable_adapters, remove_adapters, set_adapter
    from .recipe import train_adapters
    from .reference import reference_adapter

__version__ = "0.1.0"

_LAZY = {  # torch takes a second, and --help needs none of it
    "FusedAdapter": "adapter",
    "ReferenceAdapter": "adapter",
    "fused_adapter": "functional",
    "reference_adapter": "reference",
    "AdapterConfig": "config",
    "add_adapters": "placement",
    "set_adapter": "placement",
    "disable_adapters": "placement",
    "remove_adapters": "placement",
    "adapter_summary": "placement",
    "train_adapters": "recipe",
    "save_adapters": "checkpoint",
    "load_adapters": "checkpoint",
}

__all__ = [
    "AdapterConfig",
    "FusedAdapter",
    "ReferenceAdapter",
    "adapter_summary",
    "add_adapters",
    "disable_adapters",
    "fused_adapter",
    "load_adapters",
    "reference_adapter",
    "remove_adapters",
    "save_adapters",
    "set_adapter",
    "train_adapters",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
