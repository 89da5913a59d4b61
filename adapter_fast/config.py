"""AdapterConfig: what an adapter is and where it sits, checked, and to and from JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

from .checks import check_activation, check_dropout, check_init, check_memory, check_number, check_size
from .common.errors import printable

SUB_LAYERS = ("attention", "cross_attention", "feed_forward")  # in the order in which they run
Form = Literal["output", "norm", "parallel"]  # what an adapter does at its place: placement.container.run_site


class Placement(NamedTuple):
    """Where in a layer adapters sit. A preset of AdapterConfig has its name."""

    sublayers: tuple[str, ...]  # those adapted where `sublayers` does not say
    places: dict[str, Form]  # fields of placement.families.SubLayer; a sub-layer's adapter is at the first that it has
    computes: str  # with h a sub-layer's output, x its residual, f the bottleneck


PLACEMENTS = {
    "houlsby": Placement(
        ("attention", "feed_forward"),
        {"hook": "output"},
        "behind the output of these modules, with x the residual: y = h + scale · f(h)",
    ),
    "pfeiffer": Placement(
        ("feed_forward",),
        {"norm": "norm", "sum": "output"},
        "around the named LayerNorm, LN(s + scale · f(LN(s))) with s the residual sum; where the norm comes first, "
        "behind the sum: s + scale · f(s)",
    ),
    "parallel": Placement(
        ("feed_forward",),
        {"hook": "parallel"},
        "h + scale · f(x) at the feed-forward's place of houlsby; x is what enters the named module",
    ),
}
IMPLEMENTATIONS = ("fused", "reference")
WIDEST = 2**16  # bottleneck: the models' own widths are below it, and so an error in place of all memory
WEIGHT_DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _checked_sub_layers(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise TypeError(f"sublayers must be a tuple of {', '.join(SUB_LAYERS)}, got {value!r}")
    for name in value:
        _check_choice("sublayers", name, SUB_LAYERS)
    if not value:
        raise ValueError(f"sublayers must name at least one of {', '.join(SUB_LAYERS)}, got {value!r}")
    return tuple(name for name in SUB_LAYERS if name in value)


def _checked_layers(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple, range)) or any(type(number) is not int for number in value):
        raise TypeError(f"layers must be a tuple of whole numbers, got {value!r}")
    if not value or min(value) < 0 or len(set(value)) < len(value):
        raise ValueError(f"layers must be one or more different numbers from 0, got {value!r}")
    return tuple(sorted(value))


@dataclass(frozen=True)
class AdapterConfig:
    """One adapter's shape, placement and implementation; immutable, and JSON both ways.

    Houlsby et al. 2019 (arXiv 1902.00751), section 2.1: one bottleneck of 2·m·d + d + m parameters behind each of a
    layer's two sub-layers. The defaults are this library's; AdapterConfig.houlsby() is the paper's own code.

    Args:
        bottleneck: m, from 1 to 65,536. The paper's sweep is 8, 64, 256 (section 3.2).
        activation: a name of reference.ACTIVATIONS, "gelu" (erf) by default.
        placement: where in a layer, a name of PLACEMENTS: "houlsby" behind attention and feed-forward, after dropout,
            before residual and LayerNorm. PLACEMENTS says what each computes.
        sublayers: which sub-layers, of "attention", "cross_attention" (of a decoder behind an encoder) and
            "feed_forward"; None takes the placement's own.
        layers: which layers, by number from 0, an encoder's before its decoder's; None takes all. Leaving out the
            lowest ends the backward pass at the lowest adapter (AdapterDrop, Rücklé et al. 2021).
        target_modules: a regular expression: the outputs of all modules whose whole name it matches get an adapter,
            in any model. It takes the place of sublayers and layers, and of a known family.
        scale: finite factor on the adapter's branch.
        bias: whether both projections have a bias.
        init: the initial weights: "houlsby", near the identity (section 3.6); "zero_up", exactly the identity;
            "bert", AdapterHub's. FusedAdapter says how each is drawn.
        init_std: their standard deviation, cut at two (section 3.6: robust up to 1e-2); 0 means "zero_up".
        dropout: on the activated bottleneck, in training; there PyTorch operations compute.
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
    sublayers: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    target_modules: str | None = None
    init: Literal["houlsby", "zero_up", "bert"] = "houlsby"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_size("bottleneck", self.bottleneck)
        if self.bottleneck > WIDEST:
            raise ValueError(f"bottleneck must be at most {WIDEST:,}, got {self.bottleneck:,}")
        if not isinstance(self.activation, str):
            raise TypeError(f"activation must be a string, got {self.activation!r}")
        check_activation(self.activation)
        _check_choice("placement", self.placement, tuple(PLACEMENTS))
        check_number("scale", self.scale)
        if not isinstance(self.bias, bool):
            raise TypeError(f"bias must be True or False, got {self.bias!r}")
        check_init(self.init, self.init_std)
        check_dropout(self.dropout)
        _check_choice("implementation", self.implementation, IMPLEMENTATIONS)
        _check_choice("dtype", self.dtype, WEIGHT_DTYPES)
        check_memory(self.memory)
        object.__setattr__(self, "sublayers", _checked_sub_layers(self.sublayers))
        object.__setattr__(self, "layers", _checked_layers(self.layers))
        self._check_targets()
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "init_std", float(self.init_std))
        object.__setattr__(self, "dropout", float(self.dropout))

    @classmethod
    def houlsby(cls, **overrides: Any) -> AdapterConfig:
        """The paper's adapter: m = 64, the tanh form of GELU (its code, adapter-bert), init_std 1e-2 (section 3.6)."""
        return cls.from_dict({"bottleneck": 64, "activation": "gelu_tanh", "init_std": 1e-2, **overrides})

    @classmethod
    def pfeiffer(cls, **overrides: Any) -> AdapterConfig:
        """AdapterHub's default, seq_bn (Pfeiffer et al. 2021): one adapter a layer, ReLU, around the last LayerNorm."""
        return cls.from_dict({"placement": "pfeiffer", "activation": "relu", **overrides})

    @classmethod
    def parallel(cls, **overrides: Any) -> AdapterConfig:
        """AdapterHub's par_bn (He et al. 2022, the parallel adapter): beside the feed-forward, ReLU, scale 4."""
        return cls.from_dict({"placement": "parallel", "activation": "relu", "scale": 4.0, **overrides})

    @property
    def adapted(self) -> tuple[str, ...]:
        """The sub-layers adapted, in the order in which they run."""
        return PLACEMENTS[self.placement].sublayers if self.sublayers is None else self.sublayers

    def _check_targets(self) -> None:
        if self.target_modules is None:
            return
        if not isinstance(self.target_modules, str):
            raise TypeError(f"target_modules must be a string, a regular expression, got {self.target_modules!r}")
        try:
            re.compile(self.target_modules)
        except (re.error, RecursionError, OverflowError) as error:  # nested too deep, a count too large
            given = printable(repr(self.target_modules))
            raise ValueError(f"target_modules must be a regular expression, got {given}: {error}") from None
        for name in ("sublayers", "layers"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} must be None with target_modules, got {getattr(self, name)!r}")
        if self.placement != "houlsby":
            raise ValueError(f"placement must be 'houlsby' with target_modules, got {self.placement!r}")

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, JSON types only."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

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
