"""The public op with given tiles, as a contender of the benchmarks: checked, and timed in CUDA graphs."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from adapter_fast import fused_adapter
from adapter_fast.benchmarks.peers.op import Inputs, LocalOp, expected
from adapter_fast.kernels.shapes import LaunchConfig
from adapter_fast.kernels.tiles import forced
from adapter_fast.testing import Case, assert_within_budget, call, evaluate

Choices = tuple[tuple[str, LaunchConfig], ...]


class ForcedOp(LocalOp):
    """fused_adapter under forced(**choices); arguments as of LocalOp, memory as of fused_adapter."""

    def __init__(self, name: str, case: Case, phase: str, memory: str, choices: Choices) -> None:
        super().__init__(name, partial(fused_adapter, memory=memory), case, phase)
        self.choices: dict[str, Any] = dict(choices)

    def prepare(self, inputs: Inputs) -> Any:
        """What a call needs, its forward made under the forced tiles."""
        with forced(**self.choices):
            return super().prepare(inputs)

    def run(self, state: Any) -> Any:
        """The call under the forced tiles."""
        with forced(**self.choices):
            return super().run(state)

    def check(self) -> None:
        """Raise AssertionError unless y and all gradients are within the error budget, which is not loosened here."""
        exact, plain = expected(self.case)
        first = self.sets[0]
        with forced(**self.choices):
            results = evaluate(self.op, self.case, first.tensors, first.dy)
            with torch.no_grad():
                alone = call(self.op, self.case, first.tensors)
        for name, value in [*results.items(), ("y", alone)]:
            terms = self.case.T if name.startswith(("d_w", "d_b")) else self.case.d + self.case.m
            assert_within_budget(value, exact[name], plain[name], terms=terms, name=name)
