"""Triton's own dispatch with a GPU that is not there: kernels are compiled for sm_90, launches are written down.

Run with TRITON_INTERPRET unset. Everything on the host's side of a launch is real but the call of the driver, so that
what would be launched, and the time until then, can be seen on a machine without a GPU.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import torch

from adapter_fast.benchmarks.tiles.precompile import Driver, Gpu

LAUNCHES: list[tuple[str, int, tuple[Any, ...]]] = []


class _Launcher:
    def __init__(self, src: Any, metadata: Any) -> None:
        self.name = metadata.name

    def __call__(self, grid_0, grid_1, grid_2, stream, function, packed, metadata, enter, leave, *arguments) -> None:
        LAUNCHES.append((self.name, grid_0, arguments))


class _Driver(Driver):
    launcher_cls = _Launcher

    def __init__(self) -> None:
        super().__init__(Gpu())
        self.utils.load_binary = lambda name, kernel, shared, device: ("module", "function", 100, 0, 1024)
        self.utils.unload_module = lambda module: None


@contextmanager
def fake_gpu():
    """CPU tensors take the Triton path while the block runs, and nothing is computed."""
    import triton

    from adapter_fast import checks, functional

    before = functional.select_backend
    functional.select_backend = lambda device, dtype: checks.Backend("triton", "a fake of a GPU")
    driver = triton.runtime.driver
    previous, driver._active = driver._active, _Driver()
    LAUNCHES.clear()
    try:
        yield LAUNCHES
    finally:
        driver._active = previous
        functional.select_backend = before


def example(T: int = 64, d: int = 768, m: int = 64, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    """Arguments of fused_adapter that all need a gradient."""
    shapes = {"x": (T, d), "w_down": (m, d), "b_down": (m,), "w_up": (d, m), "b_up": (d,)}
    return {name: torch.randn(shape).to(dtype).requires_grad_() for name, shape in shapes.items()}
