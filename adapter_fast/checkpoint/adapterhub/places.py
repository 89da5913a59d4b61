"""Where an adapter of AdapterHub's sits here: the site's name for a layer and sub-layer of a model family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...placement.families import FAMILIES
from ...placement.sites import place_of
from .names import HUB_FAMILIES, PARTS, HubFamily


def adapterhub_family(model_type: Any, where: Path | str) -> HubFamily:
    """The row of a model_type; ValueError names those there are."""
    if not isinstance(model_type, str) or model_type not in HUB_FAMILIES:
        raise ValueError(f"{where}: model_type must be one of {', '.join(HUB_FAMILIES)}, it is {model_type!r}")
    return HUB_FAMILIES[model_type]


def site_name(model_type: str, placement: str, sub_layer: str, layer: int) -> str:
    """The hooked module's name without the base model's prefix, as in a Record; "" in the table is the layer itself.

    Raises:
        ValueError: the placement has no place behind that sub-layer.
    """
    sub = getattr(FAMILIES[model_type].stacks[0], sub_layer)
    place = place_of(sub, placement)
    if place is None:
        raise ValueError(f"placement {placement!r} has no place behind the {sub_layer} sub-layer of a {model_type}")
    name, hook = HUB_FAMILIES[model_type].layer.format(layer), getattr(sub, place)
    return f"{name}.{hook}" if hook else name


def adapterhub_key(model_type: str, sub_layer: str, layer: int, name: str, part: str) -> str:
    """Their key of an adapter's tensor, which is `part` of ours, with the base model's prefix."""
    family = HUB_FAMILIES[model_type]
    return f"{family.prefix}.{getattr(family, sub_layer).format(layer)}.adapters.{name}.{PARTS[part]}"


def hub_head_key(model_type: str, key: str) -> str:
    """Their key of a parameter of ours that trained with a head: with the base model's prefix where it lies inside."""
    inside = key.split(".")[0] not in FAMILIES[model_type].head
    return f"{HUB_FAMILIES[model_type].prefix}.{key}" if inside else key
