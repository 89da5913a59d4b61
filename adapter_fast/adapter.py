"""The adapter as a module: FusedAdapter, and ReferenceAdapter with the same parameters in plain PyTorch."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from . import functional
from .checks import Backend, check_activation, check_memory, check_number, check_size
from .reference import reference_adapter


class _Adapter(nn.Module):
    """Parameters, initialisation and checks that both implementations share."""

    def __init__(
        self,
        hidden_size: int,
        bottleneck: int = 64,
        *,
        activation: str = "gelu",
        scale: float = 1.0,
        bias: bool = True,
        init_std: float = 1e-2,
        memory: str = "speed",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_size("hidden_size", hidden_size)
        check_size("bottleneck", bottleneck)
        check_activation(activation)
        check_number("scale", scale)
        check_number("init_std", init_std)
        check_memory(memory)
        if init_std < 0:
            raise ValueError(f"init_std must be at least 0, got {init_std}")
        if not isinstance(bias, bool):
            raise TypeError(f"bias must be True or False, got {bias!r}")
        self.hidden_size = hidden_size
        self.bottleneck = bottleneck
        self.activation = activation
        self.scale = float(scale)
        self.init_std = float(init_std)
        self.memory = memory
        self.down = nn.Linear(hidden_size, bottleneck, bias=bias, device=device, dtype=dtype)
        self.up = nn.Linear(bottleneck, hidden_size, bias=bias, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both weights from a normal with std init_std cut at two std, set biases to zero (paper, section 3.1).

        The module then starts near the identity, which the paper finds necessary for stable training (section 2).
        """
        for linear in (self.down, self.up):
            if self.init_std > 0:
                nn.init.trunc_normal_(linear.weight, std=self.init_std, a=-2 * self.init_std, b=2 * self.init_std)
            else:
                nn.init.zeros_(linear.weight)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def extra_repr(self) -> str:
        return (
            f"hidden_size={self.hidden_size}, bottleneck={self.bottleneck}, activation={self.activation!r}, "
            f"scale={self.scale}, bias={self.down.bias is not None}, memory={self.memory!r}"
        )


class FusedAdapter(_Adapter):
    """A Houlsby bottleneck adapter computed by one fused kernel: y = residual + scale · adapter(x).

    Houlsby et al. 2019 (arXiv 1902.00751), section 2.1: a down-projection, a nonlinearity and an up-projection around
    a skip connection, 2·m·d + d + m parameters, near the identity at the start.

    Args:
        hidden_size: d, width of the activations.
        bottleneck: m, width of the bottleneck.
        activation: a name of reference.ACTIVATIONS, "gelu" (erf) by default.
        scale: factor on the adapter's branch.
        bias: whether both projections have a bias.
        init_std: standard deviation of the initial weights; 0 starts exactly at the identity.
        memory: what training keeps for the backward pass: "speed", "balanced" or "lean", as in fused_adapter.
        device, dtype: of the parameters. dtype may differ from the activations'; gradients come in this dtype.

    State-dict keys: down.weight [m, d], down.bias [m], up.weight [d, m], up.bias [d].

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type; the message names it.
    """

    def forward(self, x: Tensor, residual: Tensor | Literal[False] | None = None) -> Tensor:
        """x [..., d] → y [..., d]; residual as in fused_adapter: None adds x, a tensor adds that, False nothing."""
        # Past nn.Module's attribute lookup, which costs a small call microseconds.
        modules: Any = self._modules
        down, up = modules["down"]._parameters, modules["up"]._parameters
        try:
            w_down, b_down, w_up, b_up = down["weight"], down["bias"], up["weight"], up["bias"]
        except KeyError:  # parametrised
            w_down, b_down, w_up, b_up = self.down.weight, self.down.bias, self.up.weight, self.up.bias
        return functional.fused_adapter(
            x,
            w_down,
            b_down,
            w_up,
            b_up,
            residual=residual,
            activation=self.activation,
            scale=self.scale,
            memory=self.memory,
        )

    def explain(self, x: Tensor) -> Backend:
        """Which backend computes this adapter for an x [..., d] like the one given, and why; nothing is computed."""
        return functional.explain(x, self.down.weight, self.down.bias, self.up.weight, self.up.bias)


class ReferenceAdapter(_Adapter):
    """FusedAdapter's twin in plain PyTorch operations: same arguments, same initialisation, same state-dict keys.

    memory has no effect here: autograd keeps what it always keeps.
    """

    def forward(self, x: Tensor, residual: Tensor | Literal[False] | None = None) -> Tensor:
        """x [..., d] → y [..., d]; see reference_adapter."""
        return reference_adapter(
            x,
            self.down.weight,
            self.down.bias,
            self.up.weight,
            self.up.bias,
            residual=residual,
            activation=self.activation,
            scale=self.scale,
        )
