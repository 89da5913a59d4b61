"""Which base model an adapter was trained over: its name, and a digest of samples of its weights."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from ...placement.sharded import whole
from ...placement.sites import find_family, find_layers, head_parameters, new_parameters
from ...placement.tuned import base_parameter, is_quantised
from ...placement.walk import base_parameters, uncompiled_name
from . import without_prefix

_PARAMETERS, _ELEMENTS = 32, 64  # sampled: of the model, of each


def describe_base(model: nn.Module) -> dict[str, Any]:
    """The base's name or path, revision and digest as in adapter_config.json; None for what cannot be told."""
    config = getattr(model, "config", None)
    return {
        "name": getattr(config, "_name_or_path", None) or None,
        "revision": getattr(config, "_commit_hash", None),
        "digest": digest_of(model),
    }


def digest_of(model: nn.Module) -> str | None:
    """A digest of values all over the model's layers, rounded to bfloat16, so that it is the same in either dtype.

    None where weights are quantised or on the meta device. Of a model spread over processes all must ask together.
    """
    family = find_family(model)
    layers = () if family is None else tuple(f"{name}." for name, _ in find_layers(model, family))
    made_anew = {*head_parameters(model), *new_parameters(model)}
    names = [uncompiled_name(name) for name, _ in base_parameters(model)]
    names = [name for name in names if (name.startswith(layers) if layers else name not in made_anew)]
    digest = hashlib.sha256()
    for name in names[:: max(1, len(names) // _PARAMETERS)]:
        value = base_parameter(model, name).detach()
        if value.is_meta or is_quantised(value) or is_quantised(value := whole(value)):
            return None
        flat = value.reshape(-1)
        if flat.numel() == 0:
            continue
        places = torch.linspace(0, flat.numel() - 1, min(_ELEMENTS, flat.numel()), dtype=torch.float64).long()
        sample = flat[places.to(flat.device)].to(torch.bfloat16).cpu().view(torch.uint8)
        digest.update(f"{without_prefix(model, name)} {list(value.shape)}".encode() + bytes(sample.tolist()))
    return digest.hexdigest() if names else None


def labels_of(model: nn.Module) -> list[str] | None:
    """The names of a classifier's classes, None where they have none but transformers' own LABEL_0 and so on."""
    names = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(names, dict) or sorted(names) != list(range(len(names))):
        return None
    labels = [str(names[index]) for index in range(len(names))]
    return None if labels == [f"LABEL_{index}" for index in range(len(labels))] else labels
