"""Who computes the adapter: ours, the plain reference, and the reference under torch.compile."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.autograd.graph import get_gradient_edge

from adapter_fast import fused_adapter, reference_adapter
from benchmarks.cases import OpCase, OpInputs

Function = Callable[[OpInputs], object]
COMPILE_MODES = {"compile": "default", "compile-max": "max-autotune-no-cudagraphs"}
PROVIDERS = ("fused", "reference", *COMPILE_MODES)
PHASES = ("forward", "forward+backward")


def adapter(provider: str, case: OpCase) -> Callable:
    """The provider's function of (x, w_down, b_down, w_up, b_up)."""
    if provider in COMPILE_MODES:
        # A function of its own for each case: dynamo's cache and its limit of recompiles belong to the function.
        def plain(*arguments):
            return reference_adapter(*arguments, activation=case.activation)

        return torch.compile(plain, mode=COMPILE_MODES[provider], dynamic=False)
    op = {"fused": fused_adapter, "reference": reference_adapter}[provider]
    return lambda *arguments: op(*arguments, activation=case.activation)


def phase_function(provider: str, case: OpCase, phase: str) -> Function:
    """One call of that phase. Gradients are returned, never accumulated; dy is a full tensor, as in training."""
    op = adapter(provider, case)
    if phase == "forward":

        def forward(inputs: OpInputs):
            with torch.no_grad():
                return op(*inputs.leaves)

        return forward

    def both(inputs: OpInputs, keep_y: bool = False):
        y = op(*inputs.leaves)
        kept, edge = (y.detach() if keep_y else None), get_gradient_edge(y)
        # In a model the layer after has let go of y by the time the gradient of y arrives here.
        del y
        return kept, torch.autograd.grad(edge, inputs.leaves, inputs.dy)

    return both
