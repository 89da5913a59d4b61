"""What is tuned: shapes, in the order in which they matter, and the phases of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch

from adapter_fast.kernels.shapes import TOKENS, Phase
from adapter_fast.testing import Case

HIDDEN = (768, 1024, 2048, 4096, 8192)
BOTTLENECKS = (16, 32, 64, 128, 256, 512)
PHASES: tuple[Phase, ...] = ("forward", "dx", "expand", "weight_grad")
OTHER_MODES: tuple[Phase, ...] = ("dx_z", "dx_x")
Memory = Literal["speed", "balanced", "lean"]


@dataclass(frozen=True)
class Target:
    """One shape: hidden size d, bottleneck m, the dtypes, and how many tokens stand for each of TOKENS."""

    d: int
    m: int
    dtype: torch.dtype
    weight_dtype: torch.dtype
    tokens: tuple[tuple[int, int], ...] = tuple((n, n) for n in TOKENS)
    device: str = "cuda"

    @property
    def name(self) -> str:
        """d 768, m 64, bfloat16 over float32 weights."""
        dtypes = [str(dtype).removeprefix("torch.") for dtype in (self.dtype, self.weight_dtype)]
        over = "" if self.dtype == self.weight_dtype else f" over {dtypes[1]} weights"
        return f"d {self.d}, m {self.m}, {dtypes[0]}{over}"

    def case(self, T: int) -> Case:
        """The problem at so many tokens."""
        return Case(T, self.d, self.m, dtype=self.dtype, weight_dtype=self.weight_dtype, device=self.device)


def targets(hidden: Sequence[int] = HIDDEN, bottlenecks: Sequence[int] = BOTTLENECKS) -> list[Target]:
    """The campaign on a GPU: the headline shapes first, those with float32 weights after their likes."""
    bf16, fp32 = torch.bfloat16, torch.float32
    headline = [(d, 64) for d in (768, 1024, 4096)]
    rest = [(d, m) for m in (64, 16, 128, 256, 32, 512) for d in HIDDEN]
    sizes = [(d, m) for d, m in dict.fromkeys([*headline, *rest]) if d in hidden and m in bottlenecks]
    others = [(d, m) for d, m in product(hidden, bottlenecks) if (d, m) not in sizes]
    found = [Target(d, m, bf16, bf16) for d, m in [*sizes, *others]]
    mixed = [Target(d, m, bf16, fp32) for d, m in headline if (d, m) in sizes]
    return [*found[: len(mixed)], *mixed, *found[len(mixed) :]]


def rehearsal() -> list[Target]:
    """What a CPU can do under the interpreter: one tiny shape, with few tokens for the first two of TOKENS."""
    tokens = tuple(zip(TOKENS[:2], (24, 129)))
    return [Target(48, 16, torch.float16, torch.float16, tokens, "cpu")]


def op_phase(phase: Phase) -> str:
    """What of the public op is checked and timed for a phase: the second launch of a split form with the forward."""
    return "forward" if phase in ("forward", "expand") else "backward"


def memory_of(phase: Phase) -> Memory:
    """The op's memory mode in which a phase runs."""
    modes: Mapping[str, Memory] = {"dx_z": "balanced", "dx_x": "lean"}
    return modes.get(phase, "speed")
