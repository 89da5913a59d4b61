"""The adapter as a module: FusedAdapter, and ReferenceAdapter with the same parameters in plain PyTorch."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from . import functional
from .checks import (
    Backend,
    check_activation,
    check_dropout,
    check_init,
    check_memory,
    check_number,
    check_size,
    check_stream,
)
from .children import describe, refuse_forced_kernels, through_children, why_called
from .reference import reference_adapter

PAPER_STD = 1e-2  # section 3.6
BERT_STD = 0.02  # AdapterHub's init_weights="bert", methods/modeling.py


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
        init: str = "houlsby",
        init_std: float = 1e-2,
        dropout: float = 0.0,
        memory: str = "speed",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_size("hidden_size", hidden_size)
        check_size("bottleneck", bottleneck)
        check_activation(activation)
        check_number("scale", scale)
        check_init(init, init_std)
        check_dropout(dropout)
        check_memory(memory)
        if not isinstance(bias, bool):
            raise TypeError(f"bias must be True or False, got {bias!r}")
        self.hidden_size = hidden_size
        self.bottleneck = bottleneck
        self.activation = activation
        self.scale = float(scale)
        self.init = init
        self.init_std = float(init_std)
        self.dropout = float(dropout)
        self.memory = memory
        self.down = nn.Linear(hidden_size, bottleneck, bias=bias, device=device, dtype=dtype)
        self.up = nn.Linear(bottleneck, hidden_size, bias=bias, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both weights anew, as init and init_std say, and set the biases to zero.

        The module then starts at or near the identity, which the paper finds necessary for stable training (section 2).
        """
        std = self.init_std or PAPER_STD
        for linear in (self.down, self.up):
            if self.init == "bert":
                nn.init.normal_(linear.weight, std=BERT_STD)
            elif linear is self.up and (self.init == "zero_up" or self.init_std == 0):
                nn.init.zeros_(linear.weight)
            else:
                nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def _dropping(self) -> float:
        """The dropout of a call at this moment."""
        return self.dropout if self.training else 0.0

    def _through_children(self, x: Tensor, residual: Tensor | Literal[False] | None) -> Tensor:
        return through_children(
            self.down,
            self.up,
            x,
            residual,
            width=self.hidden_size,
            activation=self.activation,
            scale=self.scale,
            dropout=self._dropping(),
        )

    def extra_repr(self) -> str:
        return (
            f"hidden_size={self.hidden_size}, bottleneck={self.bottleneck}, activation={self.activation!r}, "
            f"scale={self.scale}, bias={getattr(self.down, 'bias', None) is not None}, memory={self.memory!r}, "
            f"dropout={self.dropout}"
        )


class FusedAdapter(_Adapter):
    """A Houlsby bottleneck adapter computed by one fused kernel: y = residual + scale · adapter(x).

    Houlsby et al. 2019 (arXiv 1902.00751), section 2.1: a down-projection, a nonlinearity and an up-projection around
    a skip connection, 2·m·d + d + m parameters, near the identity at the start.

    A projection that is more than a plain nn.Linear (hooks, offloading, pruning, LoRA over it, quantised) is called,
    with its input in its weights' dtype, and its result is converted back to x's. PyTorch operations compute the rest,
    as they do in training with dropout. memory has no effect then, and explain() says so.

    Args:
        hidden_size: d, width of the activations.
        bottleneck: m, width of the bottleneck.
        activation: a name of reference.ACTIVATIONS, "gelu" (erf) by default.
        scale: factor on the adapter's branch.
        bias: whether both projections have a bias.
        init: the initial weights, biases being zero. "houlsby": both from a normal cut at two standard deviations
            (section 3.6); "zero_up": W_down so and W_up zero, exactly the identity (but for -0.0, whose sum with a zero
            is 0.0) and yet it learns; "bert": AdapterHub's, both from a normal of 0.02.
        init_std: that standard deviation, for all but "bert"; 0 means "zero_up" with 1e-2.
        dropout: probability in training of each element of act(z) to be dropped, before the up-projection.
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
        down, up = modules["down"], modules["up"]
        if why_called(down, up) or (self.dropout and self.training):
            return self._in_operations(x, residual)
        own, other = down._parameters, up._parameters
        try:
            w_down, b_down, w_up, b_up = own["weight"], own["bias"], other["weight"], other["bias"]
        except KeyError:  # parametrised
            w_down, b_down, w_up, b_up = down.weight, down.bias, up.weight, up.bias
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

    def _in_operations(self, x: Tensor, residual: Tensor | Literal[False] | None) -> Tensor:
        refuse_forced_kernels(self._why_operations(x))
        return self._through_children(x, residual)

    def _why_operations(self, x: Tensor) -> str:
        """Why PyTorch operations compute a call with this x, or ""."""
        dropping = f"dropout {self.dropout:g} in training is computed by PyTorch operations" if self._dropping() else ""
        return "; ".join(filter(None, (describe(self.down, self.up, x), dropping)))

    def explain(self, x: Tensor) -> Backend:
        """Which backend computes this adapter for an x [..., d] like the one given, and why; nothing is computed.

        Where the projections are called, or dropout is at work, that is "torch", with the reason.
        """
        why = self._why_operations(x)
        if why:
            check_stream(x, None, self.hidden_size)
            refuse_forced_kernels(why)
            return Backend("torch", why)
        return functional.explain(x, self.down.weight, self.down.bias, self.up.weight, self.up.bias)


class ReferenceAdapter(_Adapter):
    """FusedAdapter's twin in plain PyTorch operations: same arguments, same initialisation, same state-dict keys.

    memory has no effect here: autograd keeps what it always keeps.
    """

    def forward(self, x: Tensor, residual: Tensor | Literal[False] | None = None) -> Tensor:
        """x [..., d] → y [..., d]; see reference_adapter. Projections are called where FusedAdapter calls them."""
        if why_called(self.down, self.up):
            return self._through_children(x, residual)
        return reference_adapter(
            x,
            self.down.weight,
            self.down.bias,
            self.up.weight,
            self.up.bias,
            residual=residual,
            activation=self.activation,
            scale=self.scale,
            dropout=self._dropping(),
        )
