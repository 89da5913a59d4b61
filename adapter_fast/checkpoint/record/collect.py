"""An adapter of a model as it is saved, in either format."""

from __future__ import annotations

import sys

from torch import Tensor, nn

from ...placement.container import site_of
from ...placement.inject import check_name
from ...placement.sharded import whole
from ...placement.sites import Site, find_sites, head_parameters, layer_norm_parameters, model_type_of
from ...placement.state import require_state, tuned_values
from . import FORMAT_VERSION, Record, Saved, adapter_shapes, one_dtype, without_prefix
from .base import describe_base, labels_of


def collect(model: nn.Module, name: str) -> Saved:
    """The named adapter of an unwrapped model as it is saved; nothing is written."""
    from ... import __version__

    check_name(name)
    state = require_state(model, name)
    config = state.configs[name]
    sites = find_sites(model, config)
    tensors: dict[str, Tensor] = {}
    for site in sites:
        values = _adapter(site, name).state_dict()
        odd = sorted(values.keys() ^ adapter_shapes(config, site.width).keys())
        if odd:
            raise ValueError(
                f"adapter {name!r} must have plain projections to be saved, at {site.name} {odd[0]} is odd: undo what "
                f"was done to them first (prune.remove, parametrize.remove_parametrizations, LoRA's unload)"
            )
        for key, value in values.items():
            tensors[f"adapter.{without_prefix(model, site.name)}.{key}"] = value
    dtype = one_dtype(name, tensors.values())
    tuned = tuned_values(model, state, name)
    norms = [parameter for parameter in layer_norm_parameters(model) if parameter in tuned]
    first = [parameter for parameter in head_parameters(model) if parameter in tuned]
    head = list(dict.fromkeys([*first, *(parameter for parameter in tuned if parameter not in norms)]))
    tensors.update({f"layer_norm.{without_prefix(model, parameter)}": tuned[parameter] for parameter in norms})
    tensors.update({f"head.{without_prefix(model, parameter)}": tuned[parameter] for parameter in head})
    for key, value in tensors.items():
        if value.is_meta:
            raise ValueError(f"{key} is on the meta device and has no values to save")
        tensors[key] = whole(value)
    record = Record(
        format_version=FORMAT_VERSION,
        library_version=__version__,
        name=name,
        model_type=str(model_type_of(model)),
        hidden_size=sites[0].width,
        config=config.to_dict(),
        dtype=dtype,
        sites=[without_prefix(model, site.name) for site in sites],
        layer_norms=[without_prefix(model, parameter) for parameter in norms],
        head=[without_prefix(model, parameter) for parameter in head],
        sha256="",
        base=describe_base(model),
        labels=labels_of(model) if head else None,
        transformers_version=_transformers_version(),
    )
    return Saved(record, tensors)


def _transformers_version() -> str | None:
    return getattr(sys.modules.get("transformers"), "__version__", None)


def _adapter(site: Site, name: str) -> nn.Module:
    return site_of(site.module).adapters[name]  # type: ignore[union-attr]
