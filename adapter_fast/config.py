"""AdapterConfig: what an adapter is and where it sits, checked, and to and from JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from .checks import check_activation, check_memory, check_number, check_size

PLACEMENTS: dict[str, tuple[str, ...]] = {"houlsby": ("attention", "feed_forward")}  # the sub-layers adapted
IMPLEMENTATIONS = ("fused", "reference")
WEIGHT_DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


@dataclass(frozen=True)
class AdapterConfig:
    """One adapter's shape, placement and implementation; immutable, and JSON both ways.

    Houlsby et al. 2019 (arXiv 1902.00751), section 2.1: one bottleneck of 2·m·d + d + m parameters behind each of a
    layer's two sub-layers. The defaults are this library's; AdapterConfig.houlsby() is the paper's own code.

    Args:
        bottleneck: m, at least 1. The paper's sweep is 8, 64, 256 (section 3.2).
        activation: "gelu" (erf), "gelu_tanh", "relu", "silu", "tanh" or "identity".
        placement: "houlsby": behind attention and feed-forward, after dropout, before residual and LayerNorm.
        scale: finite factor on the adapter's branch.
        bias: whether both projections have a bias.
        init_std: standard deviation of the initial weights, cut at two (section 3.6: robust up to 1e-2).
        implementation: "fused" (FusedAdapter) or "reference" (ReferenceAdapter).
        dtype: of the adapter's weights: "float32", "bfloat16", "float16", "float64", or "auto": the base's dtype, but
            float32 where the base is 16-bit, since small updates are lost in 16-bit weights.
        memory: what training keeps for the backward pass: "speed", "balanced" or "lean", as in fused_adapter.

    Raises:
        TypeError, ValueError: one line that names the argument, what was expected and what was given.
    """

    bottleneck: int = 64
    activation: str = "gelu"
    placement: str = "houlsby"
    scale: float = 1.0
    bias: bool = True
    init_std: float = 1e-2
    implementation: Literal["fused", "reference"] = "fused"
    dtype: str = "auto"
    memory: str = "speed"

    def __post_init__(self) -> None:
        check_size("bottleneck", self.bottleneck)
        if not isinstance(self.activation, str):
            raise TypeError(f"activation must be a string, got {self.activation!r}")
        check_activation(self.activation)
        _check_choice("placement", self.placement, tuple(PLACEMENTS))
        check_number("scale", self.scale)
        if not isinstance(self.bias, bool):
            raise TypeError(f"bias must be True or False, got {self.bias!r}")
        check_number("init_std", self.init_std)
        if self.init_std < 0:
            raise ValueError(f"init_std must be at least 0, got {self.init_std}")
        _check_choice("implementation", self.implementation, IMPLEMENTATIONS)
        _check_choice("dtype", self.dtype, WEIGHT_DTYPES)
        check_memory(self.memory)
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "init_std", float(self.init_std))

    @classmethod
    def houlsby(cls, **overrides: Any) -> AdapterConfig:
        """The paper's adapter: m = 64, the tanh form of GELU (its code, adapter-bert), init_std 1e-2 (section 3.6)."""
        return cls.from_dict({"bottleneck": 64, "activation": "gelu_tanh", "init_std": 1e-2, **overrides})

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, JSON types only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AdapterConfig:
        """The inverse of to_dict; absent fields take their defaults, unknown ones raise ValueError by name."""
        if not isinstance(values, Mapping):
            raise TypeError(f"an adapter config must be a mapping of fields, got {type(values).__name__}")
        known = [field.name for field in fields(cls)]
        unknown = sorted(str(key) for key in values if key not in known)
        if unknown:
            raise ValueError(f"unknown adapter config keys {', '.join(unknown)}: known are {', '.join(known)}")
        return cls(**values)

    def to_json(self) -> str:
        """to_dict as a JSON object."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> AdapterConfig:
        """The inverse of to_json; ValueError on text that is not a JSON object of known fields."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"an adapter config must be JSON, got text that does not parse: {error}") from None
        if not isinstance(values, dict):
            raise ValueError(f"an adapter config must be a JSON object, got {type(values).__name__}")
        return cls.from_dict(values)
