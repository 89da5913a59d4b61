"""Which kernels of ours Triton compiled and launched in this process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

KERNEL_OF = {"split": "expand", "sliced": "sliced"}


def another_form(compiled: Sequence[Any], form: str) -> str:
    """Why what ran is not this form, "" where it is."""
    names = [one.metadata.name for one in compiled]
    wanted = KERNEL_OF.get(form, "")
    if any(wanted in name for name in names):
        return ""
    return f"another form ran: {', '.join(names) or 'no kernel'} where {form} was forced"


def forget_kernels() -> None:
    """From now on compiled_kernels gives what is launched after this; the cache on disk saves compiling again."""
    for kernel in _kernels():
        kernel.device_caches.clear()


def compiled_kernels() -> list[Any]:
    """The compiled kernels of ours, of all devices, since forget_kernels."""
    return [one for kernel in _kernels() for cache in kernel.device_caches.values() for one in cache[0].values()]


def _kernels() -> list[Any]:
    """Every function of ours that Triton compiles, in the modules that are loaded; none under the interpreter."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("adapter_fast.kernels.")]
    found = [value for module in modules for value in vars(module).values() if hasattr(value, "device_caches")]
    return list({id(one): one for one in found}.values())
