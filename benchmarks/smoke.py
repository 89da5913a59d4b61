"""First contact with a GPU, in seconds: what it is, whether four shapes are right, what a call costs the host.

python -m benchmarks.smoke       exit code 1 where a part failed; with RESULT=FILE what was found goes there as JSON
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from adapter_fast import fused_adapter, reference_adapter
from adapter_fast.checks import MEMORY_MODES
from adapter_fast.common.files import write_whole
from adapter_fast.testing import INPUTS, Case, assert_case, call, grad_output, make_inputs

SHAPES = ((16384, 1024, 64), (128, 768, 64), (2048, 1024, 256), (16384, 1024, 5))
HOST = Case(16, 256, 16, torch.bfloat16, device="cuda")  # so small that the host is what takes long
CALLS = 300


def main() -> int:
    """Run every part, whatever became of the one before; the exit code."""
    if not torch.cuda.is_available():
        print("no CUDA device here: run on a GPU machine, or rehearse with python -m benchmarks.rehearse")
        return 2
    parts: dict[str, Callable[[], Any]] = {"machine": machine}
    parts |= {f"right at T {T}, d {d}, m {m}": partial(right, T, d, m) for T, d, m in SHAPES}
    parts |= {"compiled, and found in the cache": lambda: dict(KERNELS), "host µs a call": host_us}
    found: dict[str, Any] = {}
    for name, part in parts.items():
        start = time.perf_counter()
        try:
            found[name] = part()
        except Exception as error:  # whatever a first contact brings
            where = traceback.format_exc().splitlines()[-3:]
            found[name] = {"error": f"{type(error).__name__}: {error}"[:600], "at": where}
        print(f"{name}: {json.dumps(found[name])[:400]} ({time.perf_counter() - start:.1f} s)", flush=True)
        if "RESULT" in os.environ:
            write_whole(Path(os.environ["RESULT"]), json.dumps(found, indent=1) + "\n")
    failed = [name for name, value in found.items() if isinstance(value, dict) and "error" in value]
    print(f"FAILED: {'; '.join(failed)}" if failed else "all right")
    return int(bool(failed))


KERNELS = {"compiled": 0, "cached": 0}


def machine() -> dict[str, Any]:
    """The GPU, the versions, and what Triton's cache depends on."""
    import hashlib

    import triton
    from triton.backends.nvidia.compiler import get_ptxas_version
    from triton.runtime.cache import triton_key

    def listen(*, cache_hit: bool, **_: Any) -> None:
        KERNELS["cached" if cache_hit else "compiled"] += 1

    triton.knobs.compilation.listener = listen
    gpu = torch.cuda.get_device_properties(0)
    return {
        "name": gpu.name,
        "multiprocessors": gpu.multi_processor_count,
        "l2_bytes": gpu.L2_cache_size,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "triton": triton.__version__,
        "triton key": hashlib.sha256(triton_key().encode()).hexdigest()[:12],
        "ptxas": get_ptxas_version(90).split("release ")[-1].split(",")[0],
    }


def right(T: int, d: int, m: int) -> str:
    """One shape in each memory mode within the tests' error budget."""
    for memory in MEMORY_MODES:
        assert_case(partial(fused_adapter, memory=memory), Case(T, d, m, torch.bfloat16, device="cuda"))
    torch.cuda.synchronize()
    return "right"


def host_us() -> dict[str, float]:
    """Least µs from an idle GPU to the end of a call of HOST: ours, PyTorch's, autograd's with no work."""
    inputs, dy = make_inputs(HOST), grad_output(HOST)
    leaves: list[Any] = [inputs[name] for name in INPUTS[:5]]

    def least(work: Callable[[], object]) -> float:
        times = []
        for _ in range(CALLS):
            torch.cuda.synchronize()
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return round(min(times) * 1e6, 1)

    def both(op: Callable) -> float:
        return least(lambda: torch.autograd.grad(call(op, HOST, inputs), leaves, dy))

    def forward(op: Callable) -> float:
        with torch.no_grad():
            return least(lambda: call(op, HOST, inputs))

    ops = {"fused": fused_adapter, "eager": reference_adapter, "nothing": nothing}
    found = {f"forward, {name}": forward(op) for name, op in ops.items()}
    return found | {f"forward and backward, {name}": both(op) for name, op in ops.items()}


def nothing(*tensors: Any, **_: Any) -> torch.Tensor:
    """An adapter that computes nothing, behind an autograd.Function: what no dispatch of ours can be below."""
    return _Nothing.apply(*tensors)


class _Nothing(torch.autograd.Function):
    """One output allocated forward, five gradients backward."""

    @staticmethod
    def forward(ctx, *tensors):
        ctx.save_for_backward(*tensors)
        return torch.empty_like(tensors[0])

    @staticmethod
    def backward(ctx, dy):
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors)


if __name__ == "__main__":
    sys.exit(main())
