"""The shapes the op is measured at: one grid a suite and device. Inputs are the tests' own (adapter_fast.testing)."""

from __future__ import annotations

import torch

from adapter_fast.measure.roofline import Shape
from adapter_fast.testing import Case

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def case_name(case: Case) -> str:
    """As it stands in tables and result files: T16384-d768-m64-bfloat16, with -w32 where the weights are float32."""
    mixed = "" if case.weight_dtype in (None, case.dtype) else f"-w{8 * case.weight_dtype.itemsize}"
    return f"T{case.T}-d{case.d}-m{case.m}-{x_dtype(case)}{mixed}"


def x_dtype(case: Case) -> str:
    """The dtype of x, as torch writes it."""
    return str(case.dtype).removeprefix("torch.")


def shape_of(case: Case) -> Shape:
    """What the roofline asks of a case."""
    return Shape(case.T, case.d, case.m, case.dtype.itemsize, (case.weight_dtype or case.dtype).itemsize)


def op_cases(device: str, dtype: str | None = None, quick: bool = False) -> list[Case]:
    """The grid of the op suite, the cases that matter most first; `quick` is one small case, to see that all runs.

    Args:
        device: "cpu" or "cuda". dtype: a key of DTYPES; by default bfloat16 on a GPU and float32 on a CPU.
    """
    kind = DTYPES[dtype or ("bfloat16" if device == "cuda" else "float32")]
    if quick:
        sizes = [(2048, 768, 64)] if device == "cuda" else [(256, 128, 16)]
    elif device == "cuda":
        sizes = [(16384, d, 64) for d in (768, 1024, 4096)]
        sizes += [(T, d, m) for d in (768, 1024, 4096) for m in (64, 16, 256) for T in (16384, 2048, 128)]
        sizes += [(65536, 1024, 64)]
    else:
        sizes = [(T, 768, m) for m in (64, 16) for T in (4096, 1024, 256)]
    cases = [Case(*size, dtype=kind, device=device) for size in dict.fromkeys(sizes)]
    if device == "cuda" and kind != torch.float32 and not quick:
        # The usual training set-up: 16-bit activations over float32 weights.
        mixed = Case(16384, 768, 64, dtype=kind, weight_dtype=torch.float32, device=device)
        cases.insert(3, mixed)
    return cases


def memory_cases(device: str, dtype: str | None = None, quick: bool = False) -> list[Case]:
    """The grid of the memory suite: what one adapter takes while training."""
    kind = DTYPES[dtype or ("bfloat16" if device == "cuda" else "float32")]
    if quick:
        sizes = [(256, 128, 16)]
    elif device == "cuda":
        sizes = [(T, d, m) for T, d in ((16384, 768), (65536, 768), (16384, 4096)) for m in (16, 64, 256)]
    else:
        sizes = [(4096, 768, m) for m in (16, 64, 256)]
    return [Case(*size, dtype=kind, device=device) for size in sizes]
