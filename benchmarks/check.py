"""Correct before fast: what a provider returns is held against the reference in float64 before it is timed."""

from __future__ import annotations

import torch
from torch import Tensor

from adapter_fast import reference_adapter
from adapter_fast.testing import assert_within_budget
from benchmarks.cases import OpCase, OpInputs

NAMES = ("y", "dx", "dw_down", "db_down", "dw_up", "db_up")


def expected(case: OpCase, inputs: OpInputs, dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
    """y and the five gradients by the reference, in `dtype` (None: the inputs' own)."""
    leaves = [leaf.detach().to(dtype or leaf.dtype).requires_grad_() for leaf in inputs.leaves]
    y = reference_adapter(*leaves, activation=case.activation)
    return y.detach(), *torch.autograd.grad(y, leaves, inputs.dy.to(y.dtype))


def assert_correct(provider: str, case: OpCase, output: object, inputs: OpInputs) -> None:
    """Raise unless every tensor of `output` (y, or y and the gradients) is within the tests' error budget."""
    tensors = (output,) if isinstance(output, Tensor) else (output[0], *output[1])
    truth, eager = expected(case, inputs, torch.float64), expected(case, inputs)
    for name, actual, exact, plain in zip(NAMES, tensors, truth, eager, strict=False):
        terms = case.tokens if name.startswith(("dw", "db")) else case.hidden + case.bottleneck
        assert_within_budget(actual, exact, plain, terms=terms, name=f"{provider}, {case.name}: {name}")
