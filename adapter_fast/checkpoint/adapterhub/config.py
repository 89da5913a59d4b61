"""AdapterHub's BnConfig to AdapterConfig and back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...config import PLACEMENTS, WIDEST, AdapterConfig
from .names import ACTIVATIONS, DEFAULTS, DROPOUT_ELSEWHERE, FIXED, LOCATIONS, ONLY_IN_TRAINING, REQUIRED
from .names import PLACEMENTS as PLACES


def from_bn_config(values: Mapping[str, Any], hidden_size: int, where: Path) -> AdapterConfig:
    """The AdapterConfig that computes the same; layers are left to the weights file, leave_out is checked only.

    Warns where further training would differ: a drop path is left out, and dropout, which is kept, sits elsewhere.

    Raises:
        ValueError: names the key that is unknown, missing, of the wrong type, or that our op cannot express.
    """
    for key, expected in FIXED.items():
        if values.get(key, expected) != expected:
            raise ValueError(f"{where}: {key} {values[key]!r} cannot be computed here, expected {expected!r}")
    unknown = sorted(values.keys() - {*REQUIRED, *DEFAULTS, *FIXED})
    if unknown:
        raise ValueError(f"{where}: config has unknown keys {', '.join(unknown)}")
    missing = [key for key in REQUIRED if key not in values]
    if missing:
        raise ValueError(f"{where}: config lacks {', '.join(missing)}")
    config = {**DEFAULTS, **values}
    _check_types(config, where)
    placement, residuals = PLACES[config["is_parallel"], config["original_ln_before"]]
    if config["residual_before_ln"] not in residuals:
        expected = " or ".join(map(repr, residuals))
        raise ValueError(
            f"{where}: residual_before_ln {config['residual_before_ln']!r} cannot be computed here with "
            f"original_ln_before {config['original_ln_before']!r}, expected {expected}"
        )
    activation = ACTIVATIONS.get(config["non_linearity"].lower())
    if activation is None:
        raise ValueError(
            f"{where}: non_linearity must be one of {', '.join(ACTIVATIONS)}, it is {config['non_linearity']!r}"
        )
    sub_layers = tuple(ours for ours, theirs in LOCATIONS.items() if config[theirs])
    if not sub_layers:
        raise ValueError(f"{where}: one of mh_adapter and output_adapter must be true, both are false")
    for key in ONLY_IN_TRAINING:
        if config[key] > 0:
            warnings.warn(f"{where}: {key} {config[key]} is left out, further training here has none", stacklevel=4)
    if config["dropout"]:
        warnings.warn(f"{where}: dropout {config['dropout']} is kept, but {DROPOUT_ELSEWHERE}", stacklevel=4)
    if not hidden_size / config["reduction_factor"] <= WIDEST:  # nan too
        raise ValueError(f"{where}: reduction_factor {config['reduction_factor']!r} gives no bottleneck")
    return AdapterConfig(
        bottleneck=bottleneck(hidden_size, config["reduction_factor"]),
        activation=activation,
        placement=placement,
        scale=config["scaling"],
        sublayers=None if sub_layers == PLACEMENTS[placement].sublayers else sub_layers,
        dropout=config["dropout"],
    )


def to_bn_config(config: AdapterConfig, hidden_size: int, leave_out: Sequence[int]) -> dict[str, Any]:
    """Every key of BnConfig for this AdapterConfig. Warns that its dropout sits elsewhere there.

    Raises:
        ValueError: target_modules, or a sub-layer, a placement or an activation that it has no word for.
    """
    if config.target_modules is not None:
        raise ValueError(f"target_modules {config.target_modules!r} cannot be told in AdapterHub's files")
    foreign = [kind for kind in config.adapted if kind not in LOCATIONS]
    if foreign:
        raise ValueError(f"sublayers must be of {', '.join(LOCATIONS)} for AdapterHub's files, got {foreign[0]!r}")
    places = [key for key, (placement, _) in PLACES.items() if placement == config.placement]
    activations = [theirs for theirs, ours in ACTIVATIONS.items() if ours == config.activation]
    for name, found in (("placement", places), ("activation", activations)):
        if not found:
            raise ValueError(f"{name} {getattr(config, name)!r} cannot be told in AdapterHub's files")
    if config.dropout:
        warnings.warn(f"dropout {config.dropout} is written, but {DROPOUT_ELSEWHERE}", stacklevel=4)
    is_parallel, original_ln_before = places[0]
    return {
        **DEFAULTS,
        **{theirs: ours in config.adapted for ours, theirs in LOCATIONS.items()},
        "is_parallel": is_parallel,
        "original_ln_before": original_ln_before,
        "reduction_factor": reduction_factor(hidden_size, config.bottleneck),
        "non_linearity": activations[0],
        "scaling": config.scale,
        "leave_out": list(leave_out),
        "dropout": config.dropout,
    }


def bottleneck(hidden_size: int, factor: float) -> int:
    """m as their library makes it of d and a reduction factor."""
    return max(1, int(hidden_size // factor))


def reduction_factor(hidden_size: int, bottleneck_size: int) -> float:
    """A factor of which their library makes exactly this m: d / m where rounding lets it, else half a unit beside."""
    factor = hidden_size / bottleneck_size
    return factor if bottleneck(hidden_size, factor) == bottleneck_size else hidden_size / (bottleneck_size + 0.5)


_NUMBERS: dict[str, tuple[Callable[[float], bool], str]] = {
    "reduction_factor": (lambda value: 0 < value < math.inf, "a number above 0"),
    "scaling": (lambda value: -math.inf < value < math.inf, "a number"),
    "dropout": (lambda value: 0 <= value < 1, "a number of at least 0 and below 1"),
    **dict.fromkeys(ONLY_IN_TRAINING, (lambda value: -1 < value < math.inf, "a number")),
}


def _check_types(config: Mapping[str, Any], where: Path) -> None:
    for key in (*LOCATIONS.values(), "is_parallel", "original_ln_before"):
        if not isinstance(config[key], bool):
            raise ValueError(f"{where}: {key} must be true or false, it is {config[key]!r}")
    if not isinstance(config["non_linearity"], str):
        raise ValueError(f"{where}: non_linearity must be a string, it is {config['non_linearity']!r}")
    for key, (fits, expected) in _NUMBERS.items():
        value = config[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not fits(value):
            raise ValueError(f"{where}: {key} {value!r} cannot be computed here, expected {expected}")
    leave_out = config["leave_out"]
    if not isinstance(leave_out, list) or any(type(layer) is not int for layer in leave_out):
        raise ValueError(f"{where}: leave_out must be a list of whole numbers, it is {leave_out!r}")
