"""What a call of the op takes and gives, by name: the registered schemas are flat, everything between them is not."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Weights(NamedTuple):
    """The adapter's, in nn.Linear's layouts; in a backward None where it is not needed."""

    w_down: Any  # [m, d]
    b_down: Any  # [m] or None
    w_up: Any  # [d, m]
    b_up: Any = None  # [d] or None


class Settings(NamedTuple):
    """How an adapter is computed; add_x: the residual is x itself."""

    add_x: bool
    activation: str
    scale: float
    backend: str
    memory: str = "speed"  # the autograd Function's alone: it decides what to keep


class Keep(NamedTuple):
    """What the forward keeps for a backward besides its inputs: h = act(z), its slope act'(z), z."""

    h: bool = False
    slope: bool = False
    z: bool = False


NOTHING = Keep()


class Saved(NamedTuple):
    """What a backward reads besides dy and the weights: x [..., d], and what was kept, [T, m] each, or None."""

    x: Tensor | None = None
    h: Tensor | None = None
    slope: Tensor | None = None
    z: Tensor | None = None


class Need(NamedTuple):
    """Which gradients a backward is to make."""

    x: bool
    w_down: bool
    b_down: bool
    w_up: bool
    b_up: bool

    @property
    def dz(self) -> bool:
        """Whether any of them goes through the gradient of z."""
        return self.x or self.w_down or self.b_down


class Grads(NamedTuple):
    """The gradients, in the shapes of what they are of, None where they are not needed."""

    x: Tensor | None = None
    w_down: Tensor | None = None
    b_down: Tensor | None = None
    w_up: Tensor | None = None
    b_up: Tensor | None = None
