"""The shapes we time, and random tensors for them: one factory for every suite."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class OpCase:
    """One adapter call: T tokens, hidden size d, bottleneck m, one dtype for x and the weights."""

    tokens: int
    hidden: int
    bottleneck: int
    dtype: str = "float32"
    activation: str = "gelu"

    @property
    def name(self) -> str:
        """As it stands in tables and result files."""
        return f"T{self.tokens}-d{self.hidden}-m{self.bottleneck}-{self.dtype}"

    def make(self, device: str, seed: int = 0) -> OpInputs:
        """Fresh random tensors. Weights are scaled by fan-in, so that the adapter's branch is as large as x."""
        generator = torch.Generator(device).manual_seed(seed)
        T, d, m = self.tokens, self.hidden, self.bottleneck

        def normal(*shape: int, std: float = 1.0) -> Tensor:
            made = torch.randn(*shape, device=device, generator=generator) * std
            return made.to(DTYPES[self.dtype])

        return OpInputs(
            x=normal(T, d).requires_grad_(),
            w_down=normal(m, d, std=d**-0.5).requires_grad_(),
            b_down=normal(m).requires_grad_(),
            w_up=normal(d, m, std=m**-0.5).requires_grad_(),
            b_up=normal(d).requires_grad_(),
            dy=normal(T, d),
        )


@dataclass
class OpInputs:
    """What one call takes, and the gradient that its backward is given."""

    x: Tensor
    w_down: Tensor
    b_down: Tensor
    w_up: Tensor
    b_up: Tensor
    dy: Tensor

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """The call's own arguments, in order; all of them want a gradient."""
        return self.x, self.w_down, self.b_down, self.w_up, self.b_up

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(tensor.nbytes for tensor in (*self.leaves, self.dy))


def op_cases(device: str, quick: bool) -> list[OpCase]:
    """The grid of one device; `quick` is one small case, to see that everything runs."""
    if device == "cuda":
        if quick:
            return [OpCase(2048, 768, 64, "bfloat16")]
        sizes = [(T, d, m) for d in (768, 1024, 4096) for m in (64, 16, 256) for T in (128, 2048, 16384)]
        return [OpCase(T, d, m, "bfloat16") for T, d, m in sizes]
    if quick:
        return [OpCase(256, 128, 16)]
    return [OpCase(4096, 768, 64), OpCase(4096, 768, 16), OpCase(1024, 1024, 64)]
